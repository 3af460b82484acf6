"""What `chat.rooms.command_effects` does to the tables."""

import sqlite3
from collections.abc import Callable
from typing import Any, Final

from chat.rooms import command_effects as cx


def _set_room_command_enabled(db: sqlite3.Connection, x: cx.SetRoomCommandEnabled) -> None:
    if x.enabled:
        db.execute("DELETE FROM room_disabled_commands WHERE room = ? AND name = ?", (x.room, x.name))
    else:
        db.execute("INSERT OR REPLACE INTO room_disabled_commands (room, name, by) VALUES (?, ?, ?)", (x.room, x.name, x.by))


def _set_prefix(db: sqlite3.Connection, x: cx.SetPrefix) -> None:
    db.execute("UPDATE conversations SET prefix = ? WHERE id = ? AND kind = 'room'", (x.prefix, x.room))


RUN: Final[dict[type, Callable[[sqlite3.Connection, Any], None]]] = {
    cx.SetRoomCommandEnabled: _set_room_command_enabled,
    cx.SetPrefix: _set_prefix,
}
