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


CommandEffect = SetRoomCommandEnabled | SetPrefix
