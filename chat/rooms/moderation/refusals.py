"""Whom a refused person can ask, and each person's last refusal, for //why.

A refusal that rests on a rule is made by `chat.rooms.moderation.why.refused`, and says which rule, whose and for how long. Whom to ask is
added where it is answered (`complete`), since that takes a look at the state.
"""

from collections import OrderedDict
from typing import Any, Final

import attrs

from chat.errors import ChatError
from chat.rooms.moderation.why import Why, refused
from chat.rooms.state import Account, Room, State

REMEMBERED: Final = 10_000  # accounts; the one that was refused longest ago is forgotten first
ASKED: Final = 3  # names of those who can be asked: more are no help


def complete(state: State, error: ChatError, account: int) -> ChatError:
    """*error* with the names of those whom *account* (0: nobody yet) can ask about it, where it rests on a rule of theirs."""
    why = error.why
    if not isinstance(why, Why) or not why.ask or error.code != "forbidden":
        return error
    room = state.rooms.get(why.room) if why.room is not None else None
    names = whom_to_ask(state, room, account)
    if not names:
        return error
    return refused(f"{error.message}; ask {names}", why.rule, room=why.room, by=why.by, until_ms=why.until_ms, ask=False)


def whom_to_ask(state: State, room: Room | None, account: int) -> str:
    """Those who may lift a rule of *room*, or of the server: "ann, bob or cem"; who is online first. Empty: there is nobody."""
    if room is not None:
        found = [state.accounts[each] for each, role in room.members.items() if role != "member" and each != account]
        if found:
            return _named(state, found)
    return _named(state, [state.accounts[each] for each in state.admins if each != account])


def _named(state: State, found: list[Account]) -> str:
    able = [each for each in found if each.ban is None and not each.suspended]
    able.sort(key=lambda each: (not state.is_online(each.id), each.canonical))
    names = [each.name for each in able[:ASKED]]
    return " or ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


# ---------------------------------------------------------------- the last one


REMEMBERED_CODES: Final = frozenset({"forbidden", "rate_limited", "quota_exceeded"})


@attrs.frozen(kw_only=True)
class Refusal:
    """``where`` is the conversation of a message that was refused, else empty."""

    at_ms: int
    where: str
    code: str
    message: str
    why: Why | None


class Refusals:
    """The last refusal of each account, in memory: a restart forgets them."""

    def __init__(self) -> None:
        self._last: OrderedDict[int, Refusal] = OrderedDict()

    def note(self, account: int, error: ChatError, where: str, at_ms: int) -> None:
        if account and error.code in REMEMBERED_CODES:
            why: Any = error.why
            self._last[account] = Refusal(at_ms=at_ms, where=where, code=error.code, message=error.message, why=why)
            self._last.move_to_end(account)
            if len(self._last) > REMEMBERED:
                self._last.popitem(last=False)

    def of(self, account: int) -> Refusal | None:
        return self._last.get(account)
