"""Decisions about commands in a channel: which there are, and what they begin with. As those in `decisions`."""

from typing import Final

from chat.errors import ChatError
from chat.protocol import messages as m
from chat.rooms import effects as fx
from chat.rooms.moderation import audit
from chat.rooms.policy import require
from chat.rooms.state import Account, Room

PREFIX_CHARACTERS: Final = 8


def set_enabled_here(who: Account, room: Room, name: str, enabled: bool) -> list[fx.Effect]:
    require("moderate", who, room)
    if (name not in room.disabled_commands) == enabled:
        raise ChatError("bad_request", f"the command {name} is {'enabled' if enabled else 'disabled'} in {room.conv} already")
    logged = audit.entry(who.id, "enable-command" if enabled else "disable-command", room=room.id, after={"command": name})
    return [
        logged,
        fx.SetRoomCommandEnabled(room=room.id, name=name, enabled=enabled, by=who.id),
        fx.TellRoom(room=room.id, message=m.CommandsChanged(conv=room.conv)),
    ]


def set_prefix(who: Account, room: Room, prefix: str | None) -> list[fx.Effect]:
    """None: the server's. No effect where it is that already; else its members are told."""
    require("moderate", who, room)
    if prefix is not None:
        check_prefix(prefix)
    if prefix == room.prefix:
        return []
    logged = audit.entry(who.id, "set-prefix", room=room.id, before={"prefix": room.prefix}, after={"prefix": prefix})
    return [logged, fx.SetPrefix(room=room.id, prefix=prefix), fx.TellRoom(room=room.id, message=told(room, prefix))]


def told(room: Room, prefix: str | None) -> m.ChannelChanged:
    return m.ChannelChanged(conv=room.conv, prefix=prefix)


def check_prefix(prefix: str) -> None:
    """*Raises* ChatError bad_request. The same holds for the server's (`chat.config`)."""
    if (
        not 1 <= len(prefix) <= PREFIX_CHARACTERS
        or not prefix.isprintable()
        or any(c.isspace() or c.isalnum() or c == "\\" for c in prefix)
    ):
        wanted = f"1 to {PREFIX_CHARACTERS} signs, no letters, digits, blanks or backslashes, such as ! or //"
        raise ChatError("bad_request", f"a prefix is {wanted}")
