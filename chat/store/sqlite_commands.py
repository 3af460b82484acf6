"""What `chat.rooms.commands.effects` does to the tables, and what commands read from them."""

import sqlite3
from collections.abc import Callable
from typing import Any, Final

from chat.rooms.commands import effects as cx

COMMANDS_KEPT: Final = 50  # of each account


def _set_room_command_enabled(db: sqlite3.Connection, x: cx.SetRoomCommandEnabled) -> None:
    if x.enabled:
        db.execute("DELETE FROM room_disabled_commands WHERE room = ? AND name = ?", (x.room, x.name))
    else:
        db.execute("INSERT OR REPLACE INTO room_disabled_commands (room, name, by) VALUES (?, ?, ?)", (x.room, x.name, x.by))


def _set_prefix(db: sqlite3.Connection, x: cx.SetPrefix) -> None:
    db.execute("UPDATE conversations SET prefix = ? WHERE id = ? AND kind = 'room'", (x.prefix, x.room))


def _erase_texts(db: sqlite3.Connection, x: cx.EraseTexts) -> None:
    for seq in x.seqs:
        db.execute("UPDATE records SET body = NULL WHERE conv = ? AND seq = ? AND kind = 'message'", (x.conv, seq))


def _note_command(db: sqlite3.Connection, x: cx.NoteCommand) -> None:
    (n,) = db.execute("SELECT coalesce(max(n), 0) + 1 FROM command_history WHERE account = ?", (x.account,)).fetchone()
    db.execute(
        "INSERT INTO command_history (account, n, at_ms, room, line) VALUES (?, ?, ?, ?, ?)", (x.account, n, x.at_ms, x.room, x.line)
    )
    db.execute("DELETE FROM command_history WHERE account = ? AND n <= ?", (x.account, n - COMMANDS_KEPT))


RUN: Final[dict[type, Callable[[sqlite3.Connection, Any], None]]] = {
    cx.SetRoomCommandEnabled: _set_room_command_enabled,
    cx.SetPrefix: _set_prefix,
    cx.EraseTexts: _erase_texts,
    cx.NoteCommand: _note_command,
}


# ---------------------------------------------------------------- reading


def command_history(db: sqlite3.Connection, account: int, limit: int) -> list[tuple[int, int | None, str]]:
    """(time, room, line), the latest last."""
    found = db.execute("SELECT at_ms, room, line FROM command_history WHERE account = ? ORDER BY n DESC LIMIT ?", (account, limit))
    return [(at_ms, room, line) for at_ms, room, line in found][::-1]


def last_messages(db: sqlite3.Connection, conv: int, limit: int) -> list[int]:
    """The seqs of the last messages that have a text, the latest first."""
    found = db.execute(
        "SELECT seq FROM records WHERE conv = ? AND kind = 'message' AND body IS NOT NULL ORDER BY seq DESC LIMIT ?", (conv, limit)
    )
    return [seq for (seq,) in found]
