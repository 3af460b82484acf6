"""Effects of rules, ignores and reports; part of `chat.rooms.effects.Stored`."""

from typing import Any, Literal

import attrs

RoomSetting = Literal["slow_s", "announce_only", "invite_only", "history"]
Setting = Literal["lockdown"]  # others in the table are not looked at by decisions
HistoryMode = Literal["all", "since_join", "none"]

EVERYWHERE = 0  # in the place of a room: in all of them


@attrs.frozen(kw_only=True)
class SetRoomSetting:
    """``slow_s`` in seconds (0: off), ``announce_only`` and ``invite_only`` 0 or 1, ``history`` a `HistoryMode`."""

    room: int
    key: RoomSetting
    value: int | str


@attrs.frozen(kw_only=True)
class PutChannelInvite:
    """*account* may come into the room, once."""

    room: int
    account: int
    by: int
    at_ms: int


@attrs.frozen(kw_only=True)
class DropChannelInvite:
    room: int
    account: int


@attrs.frozen(kw_only=True)
class PutFilter:
    """``room``: `EVERYWHERE` for all channels and private conversations."""

    room: int
    pattern: str
    by: int
    at_ms: int


@attrs.frozen(kw_only=True)
class DropFilter:
    room: int
    pattern: str


@attrs.frozen(kw_only=True)
class SetSetting:
    """What the server's admins set while it runs. ``value`` is plain data; None: as it is by itself."""

    key: Setting
    value: Any


@attrs.frozen(kw_only=True)
class PutIgnore:
    account: int
    ignored: int
    at_ms: int


@attrs.frozen(kw_only=True)
class DropIgnore:
    account: int
    ignored: int


@attrs.frozen(kw_only=True)
class PutReport:
    """The store adds what was said last in the room; ``room`` None: in the private conversation of the two."""

    by: int
    target: int
    room: int | None
    at_ms: int
    reason: str | None


@attrs.frozen(kw_only=True)
class DropReport:
    """It was dealt with."""

    report: int


RuleEffect = (
    SetRoomSetting | PutChannelInvite | DropChannelInvite | PutFilter | DropFilter | SetSetting | PutIgnore | DropIgnore | PutReport
    | DropReport
)  # fmt: skip
