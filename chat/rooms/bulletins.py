"""What everybody is told now and then: where conversations stand, and who came and who went.

Both gather what changed since the last time; the manager's tick says when. Neither is stored, and a peer that lags misses it: heads are
told once it is live again, and who is online is asked for with `members`.
"""

from collections.abc import Callable
from typing import Final

from chat.protocol import codec
from chat.protocol import messages as m
from chat.rooms.audience import Audiences, Link


class Bulletins:
    """*forget* is called with an account that is offline, once that was told."""

    def __init__(self, audiences: Audiences, forget: Callable[[int], None]) -> None:
        self._audiences: Final = audiences
        self._forget: Final = forget
        self._changed: set[int] = set()
        self._ringed: set[int] = set()  # changed in the time before that: these may have a ring
        self._presence: dict[int, bool] = {}

    def changed(self, conv: int) -> None:
        """A conversation has a new head; told with the next `tell_heads`."""
        self._changed.add(conv)

    def ended(self, conv: int) -> None:
        self._changed.discard(conv)

    def presence(self, account: int, online: bool) -> None:
        """An account came or went; told with the next `tell_presence`."""
        self._presence[account] = online

    def tell_heads(self) -> None:
        """The heads of the conversations that changed since the last time: they reveal a lost tail."""
        by_conv = self._audiences.by_conv
        per_link: dict[Link, list[int]] = {}
        for conv in self._changed:
            for link in by_conv[conv].links:
                per_link.setdefault(link, []).append(conv)
        for conv in self._ringed - self._changed:
            if (quiet := by_conv.get(conv)) is not None:
                quiet.ring = None  # nobody can be catching up with it from there
        self._ringed, self._changed = self._changed, set()
        encoded: dict[tuple[int, tuple[int, ...]], bytes] = {}
        for link, convs in per_link.items():
            private = any(by_conv[conv].pair is not None for conv in convs)
            key = (link.account if private else 0, tuple(convs))
            payload = encoded.get(key)
            if payload is None:
                payload = encoded[key] = codec.encode(m.Heads(heads=self._audiences.heads(link.account, convs)))
            if not link.outbox.put(link.frame(payload)):
                link.skipped.update(convs)
        self._audiences.hooks.flush()

    def tell_presence(self, is_small: Callable[[int], bool]) -> None:
        """Who came and who went, to those who share a small channel or a private conversation with them. *is_small*: by room id."""
        if not self._presence:
            return
        hooks, by_conv = self._audiences.hooks, self._audiences.by_conv
        per_link: dict[Link, dict[str, bool]] = {}
        for account, is_online in self._presence.items():
            if is_online != hooks.is_online(account):
                continue  # it has changed again; that change is on its way
            online = self._audiences.online.get(account)
            seen: set[Link] = set()
            for conv in online.convs if online is not None else ():
                audience = by_conv[conv]
                if audience.pair is not None or is_small(conv):
                    seen |= audience.links
            for link in seen:
                if link.account != account:
                    per_link.setdefault(link, {})[hooks.name_of(account)] = is_online
            if not is_online:
                self._forget(account)
        self._presence.clear()
        for link, users in per_link.items():
            link.outbox.put(link.frame(codec.encode(m.Presence(users=users))))
        hooks.flush()
