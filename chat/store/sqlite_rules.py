"""Rules, ignores and reports in SQLite: their effects, and the questions asked about them."""

import sqlite3
from collections.abc import Callable, Collection
from typing import Any, Final

import msgspec

from chat.rooms.rules import effects as rx
from chat.store.base import FORGOTTEN_MS, ReportRow

AROUND: Final = 20  # messages that are kept with a report

_encode: Final = msgspec.json.encode


def _set_room_setting(db: sqlite3.Connection, x: rx.SetRoomSetting) -> None:
    sql = {
        "slow_s": "UPDATE conversations SET slow_s = ? WHERE id = ? AND kind = 'room'",
        "announce_only": "UPDATE conversations SET announce_only = ? WHERE id = ? AND kind = 'room'",
        "invite_only": "UPDATE conversations SET invite_only = ? WHERE id = ? AND kind = 'room'",
        "history": "UPDATE conversations SET history = ? WHERE id = ? AND kind = 'room'",
    }[x.key]
    db.execute(sql, (x.value, x.room))


def _put_channel_invite(db: sqlite3.Connection, x: rx.PutChannelInvite) -> None:
    db.execute("INSERT OR REPLACE INTO channel_invites (room, account, by, at_ms) VALUES (?, ?, ?, ?)", (x.room, x.account, x.by, x.at_ms))


def _drop_channel_invite(db: sqlite3.Connection, x: rx.DropChannelInvite) -> None:
    db.execute("DELETE FROM channel_invites WHERE room = ? AND account = ?", (x.room, x.account))


def _put_filter(db: sqlite3.Connection, x: rx.PutFilter) -> None:
    db.execute("INSERT OR REPLACE INTO filters (room, pattern, by, at_ms) VALUES (?, ?, ?, ?)", (x.room, x.pattern, x.by, x.at_ms))


def _drop_filter(db: sqlite3.Connection, x: rx.DropFilter) -> None:
    db.execute("DELETE FROM filters WHERE room = ? AND pattern = ?", (x.room, x.pattern))


def _set_setting(db: sqlite3.Connection, x: rx.SetSetting) -> None:
    if x.value is None:
        db.execute("DELETE FROM settings WHERE key = ?", (x.key,))
    else:
        db.execute("INSERT OR REPLACE INTO settings (key, value) VALUES (?, ?)", (x.key, _encode(x.value).decode()))


def _put_ignore(db: sqlite3.Connection, x: rx.PutIgnore) -> None:
    db.execute("INSERT OR REPLACE INTO ignores (account, ignored, at_ms) VALUES (?, ?, ?)", (x.account, x.ignored, x.at_ms))


def _drop_ignore(db: sqlite3.Connection, x: rx.DropIgnore) -> None:
    db.execute("DELETE FROM ignores WHERE account = ? AND ignored = ?", (x.account, x.ignored))


def _put_report(db: sqlite3.Connection, x: rx.PutReport) -> None:
    """Everything that was said before it in this transaction is written already."""
    if x.room is not None:
        conv = x.room
    else:
        row = db.execute("SELECT id FROM conversations WHERE low = ? AND high = ?", (min(x.by, x.target), max(x.by, x.target))).fetchone()
        conv = row[0] if row is not None else 0
    said = db.execute(
        "SELECT seq, ts, author, body FROM records WHERE conv = ? AND kind = 'message' ORDER BY seq DESC LIMIT ?", (conv, AROUND)
    ).fetchall()
    db.execute(
        "INSERT INTO reports (by, target, room, at_ms, reason, around) VALUES (?, ?, ?, ?, ?, ?)",
        (x.by, x.target, x.room, x.at_ms, x.reason, _encode(said[::-1]).decode()),
    )


def _drop_report(db: sqlite3.Connection, x: rx.DropReport) -> None:
    db.execute("DELETE FROM reports WHERE id = ?", (x.report,))


RUN: Final[dict[type, Callable[[sqlite3.Connection, Any], None]]] = {
    rx.SetRoomSetting: _set_room_setting,
    rx.PutChannelInvite: _put_channel_invite,
    rx.DropChannelInvite: _drop_channel_invite,
    rx.PutFilter: _put_filter,
    rx.DropFilter: _drop_filter,
    rx.SetSetting: _set_setting,
    rx.PutIgnore: _put_ignore,
    rx.DropIgnore: _drop_ignore,
    rx.PutReport: _put_report,
    rx.DropReport: _drop_report,
}


# ---------------------------------------------------------------- reading


def reports(db: sqlite3.Connection, *, rooms: Collection[int] | None, limit: int) -> list[ReportRow]:
    """The latest first. *rooms*: only those of these channels; None: all."""
    where = "" if rooms is None else "WHERE room IN (SELECT value FROM json_each(?))"
    args = () if rooms is None else (_encode(list(rooms)).decode(),)
    rows = db.execute(
        f"SELECT id, by, target, room, at_ms, reason, around FROM reports {where} ORDER BY id DESC LIMIT ?",  # noqa: S608
        (*args, limit),
    ).fetchall()
    return [
        ReportRow(
            report=id,
            by=by,
            target=target,
            room=room,
            at_ms=at_ms,
            reason=reason,
            around=[(seq, ts, author, body) for seq, ts, author, body in msgspec.json.decode(around)],
        )
        for id, by, target, room, at_ms, reason, around in rows
    ]


def visible_from(db: sqlite3.Connection, conv: int, account: int, since_ms: int | None) -> int:
    """The first seq of the room that the member may read: what came since it joined and, where given, not before *since_ms*."""
    row = db.execute("SELECT from_seq FROM members WHERE room = ? AND account = ?", (conv, account)).fetchone()
    joined: int = row[0] if row is not None else 1
    if since_ms is None:
        return joined
    row = db.execute("SELECT seq FROM records WHERE conv = ? AND ts < ? ORDER BY seq DESC LIMIT 1", (conv, since_ms)).fetchone()
    if row is not None:
        return max(joined, int(row[0]) + 1)
    row = db.execute("SELECT min(seq) FROM records WHERE conv = ?", (conv,)).fetchone()  # older ones are gone already
    if row[0] is None:
        row = db.execute("SELECT last_seq + 1 FROM conversations WHERE id = ?", (conv,)).fetchone()
    return max(joined, int(row[0]) if row is not None else 1)


def forget(db: sqlite3.Connection, now_ms: int, rows: int) -> bool:
    """Up to *rows* records of channels without history go. *Returns* whether there are more."""
    for (conv,) in db.execute("SELECT id FROM conversations WHERE kind = 'room' AND history = 'none'").fetchall():
        end = db.execute("SELECT seq FROM records WHERE conv = ? ORDER BY seq LIMIT 1 OFFSET ?", (conv, rows)).fetchone()
        gone = db.execute(
            "DELETE FROM records WHERE conv = ? AND ts < ? AND seq < ?", (conv, now_ms - FORGOTTEN_MS, end[0] if end else 2**53)
        ).rowcount
        if end is not None and gone >= rows:
            return True
    return False
