"""What restricts writing in a channel: who is muted, slow mode, announcements only, the word filter.

A `Room` has a `Rules` only while something restricts (`Room.rules`, else None), so that an ordinary text costs one look at an attribute.
Everything stored comes by effects (`State.apply`). When people sent last is not stored: it is a counter, as rates are, and a restart
forgets it.

Who moderates here is bound by none of it but a mute: a rule that somebody may lift with a word would only be in their way.
"""

import math
from collections.abc import Callable
from typing import Final, Protocol

import attrs

from chat.errors import ChatError
from chat.rooms.moderation.sanctions import Sanction, ending
from chat.rooms.moderation.why import refused

SLOW_MAX_S: Final = 6 * 3600


class Filter(Protocol):
    """`chat.rooms.rules.filters.WordFilter`."""

    def find(self, text: str) -> str | None:
        """The first rule that *text* breaks, as it was written; None for none."""
        ...


@attrs.define(eq=False, kw_only=True)
class Rules:
    """``name_of`` names the moderator in a refusal; it comes from the state."""

    mutes: dict[int, Sanction] = attrs.Factory(dict)
    slow_s: float = 0
    announce_only: bool = False
    filter: Filter | None = None  # the channel's own words
    server_filter: Filter | None = None  # those of all channels; the same object everywhere
    sent: dict[int, float] = attrs.Factory(dict)  # account → when its last text was let through, monotonic seconds; in slow mode only

    @property
    def empty(self) -> bool:
        """Nothing restricts any more: the room is better off without."""
        return not (self.mutes or self.slow_s or self.announce_only or self.filter or self.server_filter)

    def refusal(
        self, conv: str, account: int, text: str, *, moderates: bool, admin: bool, now: float, now_ms: int, name_of: Callable[[int], str]
    ) -> ChatError | None:
        """Why *account* may not say *text* in the channel *conv* just now; None: it may, and that is counted (see `give_back`).

        ``now`` is monotonic seconds, ``now_ms`` milliseconds since 1970. Every refusal says whose rule it is, and when it ends if it does.
        """
        if (muted := self.muted(conv, account, now_ms, name_of)) is not None:
            return muted
        if self.server_filter is not None and not admin and (rule := self.server_filter.find(text)) is not None:
            return refused_everywhere(rule)
        if moderates:
            return None
        if self.announce_only:
            return refused(f"{conv} is for announcements: only its moderators write here", "announce-only")
        if self.filter is not None and (rule := self.filter.find(text)) is not None:
            return refused(f"the word filter of {conv} refuses this message (rule: {rule})", "filter")
        if self.slow_s:
            left_s = self.sent.get(account, -math.inf) + self.slow_s - now
            if left_s > 0:
                left_s = math.ceil(left_s * 1000) / 1000
                pace = f"a message every {self.slow_s:g} s"
                slow = f"{conv} is in slow mode ({pace}); wait {left_s:.1f} s"
                return refused(slow, "slow-mode", code="rate_limited", retry_after=left_s)
            self.sent[account] = now
        return None

    def muted(self, conv: str, account: int, now_ms: int, name_of: Callable[[int], str]) -> ChatError | None:
        """The refusal for who is muted in *conv*; None for who is not."""
        mute = self.mutes.get(account)
        return _muted(conv, mute, now_ms, name_of) if mute is not None and not mute.over(now_ms) else None

    def give_back(self, account: int) -> None:
        """What was let through came to nothing. (The text before it is longer ago than slow mode asks: it need not be known.)"""
        self.sent.pop(account, None)

    def forget(self, now: float) -> None:
        """Drop what does not bind any more. Now and then; linear in those who wrote lately."""
        for account in [account for account, at in self.sent.items() if at + self.slow_s <= now]:
            del self.sent[account]


def refused_everywhere(rule: str) -> ChatError:
    return refused(f"this server's word filter refuses this message (rule: {rule})", "server-filter")


def _muted(conv: str, mute: Sanction, now_ms: int, name_of: Callable[[int], str]) -> ChatError:
    because = f" ({mute.reason})" if mute.reason else ""
    said = f"you are muted in {conv} by {name_of(mute.by)}{because} {ending(mute.until_ms, now_ms)}"
    return refused(said, "mute", by=mute.by, until_ms=mute.until_ms)
