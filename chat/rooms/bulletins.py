"""What everybody is told now and then: where conversations stand, and who came and who went.

Both gather what changed since the last time; the manager's tick says when. Neither is stored, and a peer that lags misses it: heads are
told once it is live again, and who is online is asked for with `members`.
"""

from collections.abc import Callable, Iterator
from typing import Final

from chat.protocol import codec
from chat.protocol import messages as m
from chat.rooms.audience import Audiences

SLICE: Final = 10_000  # names of presence that are told before other tasks run: 2 ms


class Bulletins:
    """*forget* is called with an account that is offline, once that was told."""

    def __init__(self, audiences: Audiences, forget: Callable[[int], None]) -> None:
        self._audiences: Final = audiences
        self._forget: Final = forget
        self._changed: dict[int, int] = {}  # conversation → the second in which it changed last
        self._second = 0  # of those for which heads were told
        self._period = 0  # of the last turns; 0 before the first
        self._presence: dict[int, bool] = {}
        self._telling: Iterator[None] | None = None  # presence that is not told to all yet

    def changed(self, conv: int) -> None:
        """A conversation has a new head; told with the next `tell_heads`."""
        self._changed[conv] = self._second

    def ended(self, conv: int) -> None:
        self._changed.pop(conv, None)

    def presence(self, account: int, online: bool) -> None:
        """An account came or went; told with the next `tell_presence`."""
        self._presence[account] = online

    def tell_heads(self, seconds: int, every_s: float) -> None:
        """The heads of the conversations that changed since the last time: they reveal a lost tail. Each account is told once in *every_s*;
        a call is the turn of some, since 19,000 at once would hold everybody up for 25 ms. *seconds*: since the last call.
        """
        audiences = self._audiences
        period, first, last = max(1, round(every_s)), self._second + 1, self._second + seconds
        turns = {second % period for second in range(max(first, last - period + 1), last + 1)}
        since = first - period  # what changed before, these accounts were told
        if period != (self._period or period):  # the turns of before were others: this is everybody's, of all that is not forgotten
            turns, since = {*range(period)}, 0
        self._period = period
        fresh = {conv for conv, second in self._changed.items() if second >= since}
        private = {conv for conv in fresh if audiences.by_conv[conv].pair is not None}
        encoded: dict[tuple[int, frozenset[int]], bytes] = {}
        for account in [account for account in audiences.online if account % period in turns] if fresh else ():
            online = audiences.online[account]
            convs = frozenset(fresh.intersection(online.convs))
            if not convs:
                continue
            payload = encoded.get(key := (0 if private.isdisjoint(convs) else account, convs))
            if payload is None:
                payload = encoded[key] = codec.encode(m.Heads(heads=audiences.heads(account, convs)))
            for link in online.links:
                if not link.outbox.put(link.frame(payload)):
                    link.skipped |= convs
        self._second = last
        if last // period != (first - 1) // period:
            self._forget_unchanged(last - period)
        audiences.hooks.flush()

    def _forget_unchanged(self, before_s: int) -> None:
        """Everybody was told of what changed last in second *before_s* or earlier, and nobody can be catching up from its ring."""
        for conv in [conv for conv, second in self._changed.items() if second <= before_s]:
            del self._changed[conv]
            if (quiet := self._audiences.by_conv.get(conv)) is not None:
                quiet.ring = None

    def tell_presence(self, is_small: Callable[[int], bool]) -> bool:
        """Who came and who went, to those who share a small channel or a private conversation with them. *is_small*: by room id.

        A slice of it: when thousands come back together, to tell it all takes half a second. *Returns* whether there is more: let others
        run, and call it again. What changes meanwhile is told after that, with the next call.
        """
        if self._telling is None:
            if not self._presence:
                return False
            self._telling = self._tell_presence(is_small)
        for _ in self._telling:
            return True
        self._telling = None
        return False

    def _tell_presence(self, is_small: Callable[[int], bool]) -> Iterator[None]:
        audiences, slice_ = self._audiences, 0
        hooks, by_conv, onlines = audiences.hooks, audiences.by_conv, audiences.online
        presence, self._presence = self._presence, {}
        news: dict[int, dict[str, bool]] = {}  # by conversation
        for account, is_online in presence.items():
            if is_online != hooks.is_online(account):
                continue  # it has changed again; that change is on its way
            name, online = hooks.name_of(account), onlines.get(account)
            for conv in online.convs if online is not None else ():
                if by_conv[conv].pair is not None or is_small(conv):
                    news.setdefault(conv, {})[name] = is_online
            if not is_online:
                self._forget(account)
            slice_ += 1
            if slice_ >= SLICE // 10:
                yield
                slice_ = 0
        slice_ = 0
        for link in {link for conv in news if conv in by_conv for link in by_conv[conv].links}:
            online = onlines.get(link.account)
            if online is None or link not in online.links:
                continue  # gone meanwhile
            users: dict[str, bool] = {}
            for conv in online.convs:
                if conv in news:
                    users.update(news[conv])
            users.pop(hooks.name_of(link.account), None)
            if users:
                link.outbox.put(link.frame(codec.encode(m.Presence(users=users))))
            slice_ += len(users)
            if slice_ >= SLICE:
                yield
                slice_ = 0
        hooks.flush()
