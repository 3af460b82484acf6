"""Effects of what a channel's moderators say about commands there, and of commands on the record; part of `chat.rooms.effects.Stored`."""

import attrs


@attrs.frozen(kw_only=True)
class SetRoomCommandEnabled:
    """Switch a command off in one channel, or on again there. (Server-wide: `chat.rooms.effects.SetCommandEnabled`.)"""

    room: int
    name: str
    enabled: bool
    by: int


@attrs.frozen(kw_only=True)
class SetPrefix:
    """What commands begin with in a channel; None: what they begin with on the server."""

    room: int
    prefix: str | None


@attrs.frozen(kw_only=True)
class EraseTexts:
    """The texts of messages go; their places stay."""

    conv: int
    seqs: tuple[int, ...]


@attrs.frozen(kw_only=True)
class NoteCommand:
    """Somebody used a command: kept with the last few of the account's. ``line`` has no secrets any more."""

    account: int
    at_ms: int
    room: int | None
    line: str = attrs.field(repr=False)


CommandEffect = SetRoomCommandEnabled | SetPrefix | EraseTexts | NoteCommand
