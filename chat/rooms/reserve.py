"""What goes on when the disk is nearly full, and how much of it.

Theory of operation
    Below ``storage.min_free_bytes`` the store keeps the rest of the disk, the *reserve*, for what a server needs to stay in order.
    Every effect that is stored is of one of three kinds:

    *It grows*: texts, topics, accounts, channels, reports, what plugins keep. There is no end to it, so it is refused (storage_full).
    *It is bounded* by what there is already, or frees something: a token takes the place of another, a role or a setting is changed in its
    row, a ban is one row for each person, somebody is no member any more, a text is erased and a tombstone of less than a hundred bytes
    tells of it. It goes on.
    *It is counted*: it is needed, and each leaves a row: a session (deleted when it expires, after a day), an entry in the moderation
    log, a notice in a conversation (left, banned, joined, role), and, whatever the action, a cid with the answer that is kept for it (a
    week). It goes on, up to `ALLOWANCE_BYTES` for each account until there is room again.

    Rates alone would not do. Ten joins a minute, each with its leave, are 2 MB a day. Five commands a second, of somebody who mutes and
    unmutes in a channel of their own, are 5 to 15 MB an hour, and with answers as long as they may be a reserve of 256 MiB is gone in four
    minutes; twenty logins a second take it in half a day. With the allowance 128 people have to conspire. What is counted is more than
    what it takes on the disk (tests/rooms/test_reserve.py compares); only who logs in 2,000 times and resumes each session 256
    times keeps more: 50 MB of used tokens, for a day.

    The server's admins and its shell are not counted, so nothing stands in the way of who has to make order. Who has used up
    an allowance can still resume: that is bounded.

Two ask. The desk asks `Reserve` before it applies a decision, while the store says that it is low: so no later decision rests on one
that will be refused, and nobody who logs in or moderates is refused beside somebody who tries to make a channel. The committing
transaction asks `grows` alone, for what was decided before that was known.
"""

from typing import Final

import attrs
import msgspec

from chat.errors import ChatError
from chat.rooms import effects as fx
from chat.rooms.commands import effects as cx
from chat.rooms.rules import effects as rx
from chat.rooms.state import Account

ALLOWANCE_BYTES: Final = 2 << 20  # some 3,000 sanctions, or 2,000 logins
ROW_BYTES: Final = 256  # of a row beside its texts, with its places in indexes and the room that a page leaves. Measured: 75 to 200
SESSION_BYTES: Final = 1024  # with its first token and its address, 320 to 400, and some of the tokens that take that one's place

NEARLY_FULL: Final = "the server's disk is nearly full: nothing new is stored until there is room again"
USED_UP: Final = "the server's disk is nearly full, and you have used up your share of what is left"

# Only the first is asked for. The others are here so that whoever adds an effect says of which kind it is: a test wants each in one.
GROWS: Final = frozenset({fx.CreateAccount, fx.CreateRoom, fx.SetTopic, rx.PutReport, fx.PutPluginValue})  # a value; not its deletion
COUNTED: Final = frozenset({fx.Append, fx.Audit, fx.PutSession})  # of Append: see `NOTICES`
BOUNDED: Final = frozenset({
    # accounts and sessions: one row each, changed in place or taken away
    fx.SetPassword, fx.SetColor, fx.SetServerRole, fx.SetSuspended, fx.ForgetAccount, fx.RotateToken, fx.ForgetPreviousToken,
    fx.DropSession, fx.DropSessions, fx.SessionOffline, fx.UseInvite, fx.DropInvite,
    fx.PutInvite,  # the operator's alone
    # channels: members and markers are one for each person and channel
    fx.DeleteRoom, fx.PutMember, fx.DropMember, fx.SetReadMarker, fx.SetCommandEnabled, fx.SetRetention,
    # sanctions: one for each person (and channel); addresses can be banned by admins alone
    fx.PutBan, fx.DropBan, fx.PutAddressBan, fx.DropAddressBan, fx.PutChannelBan, fx.DropChannelBan, fx.PutMute, fx.DropMute,
    # rules: a hundred filters in each channel, 500 ignored by each person
    rx.SetRoomSetting, rx.SetSetting, rx.PutChannelInvite, rx.DropChannelInvite, rx.PutFilter, rx.DropFilter, rx.PutIgnore,
    rx.DropIgnore, rx.DropReport,
    # commands: the last fifty of each person
    cx.SetRoomCommandEnabled, cx.SetPrefix, cx.EraseTexts, cx.NoteCommand,
})  # fmt: skip
NOTICES: Final = frozenset({"joined", "left", "banned", "role", "deleted"})  # records that are no content
TOMBSTONE: Final = "deleted"  # one for each text there is, and that is erased with it

_encode: Final = msgspec.json.encode


def grows(action: fx.Action) -> bool:
    """Whether *action* adds what there is no end to."""
    return any(map(_grows, action.effects))


def _grows(effect: fx.Effect) -> bool:
    match effect:
        case fx.Append(kind=kind):
            return kind not in NOTICES
        case fx.PutPluginValue(value=value):
            return value is not None
    return type(effect) in GROWS


def counted_bytes(action: fx.Action) -> int:
    """What *action* adds at most, of the kind that is counted."""
    total = 0 if action.cid is None else ROW_BYTES + len(action.result or b"")
    for effect in action.effects:
        match effect:
            case fx.Append(kind=kind, body=body) if kind != TOMBSTONE:
                total += ROW_BYTES + len(_encode(body))
            case fx.Audit(reason=reason, before=before, after=after):
                total += ROW_BYTES + len(_encode((reason, before, after)))
            case fx.PutSession():
                total += SESSION_BYTES
    return total


@attrs.define(eq=False)
class Reserve:
    """``low``: less than ``storage.min_free_bytes`` is free. For the desk alone."""

    low: bool = False
    allowance_bytes: int = ALLOWANCE_BYTES
    _used: dict[int, int] = attrs.Factory(dict)  # by account

    def look(self, low: bool) -> None:
        """What the store says of its disk. With room again, everybody's allowance is whole again."""
        if low is not self.low:
            self.low = low
            self._used.clear()

    def refusal(self, action: fx.Action, who: Account | None) -> ChatError | None:
        """Why *action* is not to be decided while the disk is low; else it is counted. *who* (None: the server itself) asks for it."""
        if grows(action):
            return nearly_full()
        if who is None or who.role != "member":
            return None
        used = self._used.get(who.id, 0)
        more = counted_bytes(action)
        if more and used + more > self.allowance_bytes:
            return ChatError("storage_full", USED_UP)
        self._used[who.id] = used + more
        return None


def nearly_full() -> ChatError:
    return ChatError("storage_full", NEARLY_FULL)
