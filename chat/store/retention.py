"""How long records are kept: what a retention says, and where in each conversation it ends now.

A room has its own, or the server's; private conversations have the server's. A retention is an age, a number of bytes of text, or
both: what is older, or beyond the newest so many bytes, goes. Only the oldest go, so a conversation's records stay without a gap from
its first one on; their seqs never change, and ``first_seq`` of a history page says where it begins.

`cuts` only reads; the deleting is `Writer.trim`, in steps.
"""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

import attrs

from chat.store.sqlite_upkeep import RETENTION

ROWS: Final = 2000  # of one step of the deleting: some ms of the writer's time


@attrs.frozen(kw_only=True)
class Keep:
    """None: no limit."""

    ms: int | None = None
    bytes: int | None = None


@attrs.frozen(kw_only=True)
class Cut:
    """Of conversation ``conv`` everything below the seq ``below`` is to go: ``records`` with ``bytes`` of text."""

    conv: int
    name: str
    below: int
    records: int
    bytes: int


_CONVERSATIONS: Final = """SELECT c.id, coalesce('#' || c.name, '@' || min(l.name, h.name) || ' and @' || max(l.name, h.name)), c.kind,
        c.last_seq, c.retain_ms, c.retain_bytes
    FROM conversations c LEFT JOIN accounts l ON l.id = c.low LEFT JOIN accounts h ON h.id = c.high WHERE c.last_seq > 0 ORDER BY 2"""
_YOUNG: Final = "SELECT seq FROM records WHERE conv = ? AND ts >= ? ORDER BY seq LIMIT 1"  # times never go back in a conversation
_FITS: Final = """SELECT seq FROM (SELECT seq, sum(length(CAST(body AS BLOB))) OVER (ORDER BY seq DESC ROWS UNBOUNDED PRECEDING) AS bytes
    FROM records WHERE conv = ?) WHERE bytes > ? ORDER BY seq DESC LIMIT 1"""
_GOES: Final = "SELECT count(*), coalesce(sum(length(CAST(body AS BLOB))), 0) FROM records WHERE conv = ? AND seq < ?"


def of_server(db: sqlite3.Connection) -> Keep:
    found = _tuples(db, "SELECT value FROM settings WHERE key = ?", (RETENTION,)).fetchone()
    if found is None:
        return Keep()
    value: dict[str, Any] = json.loads(found[0])
    return Keep(ms=value["keep_ms"], bytes=value["keep_bytes"])


def cuts(db: sqlite3.Connection, now_ms: int, instead: Mapping[int | None, Keep] | None = None) -> list[Cut]:
    """What is to go now. *instead*: as if this were set, for a room or (None) the server."""
    instead = instead or {}
    general = instead.get(None) or of_server(db)
    found = []
    for conv, name, kind, last_seq, own_ms, own_bytes in _tuples(db, _CONVERSATIONS).fetchall():
        own = instead.get(conv) or Keep(ms=own_ms, bytes=own_bytes)
        keep = general if kind == "pair" else Keep(ms=_chosen(own.ms, general.ms), bytes=_chosen(own.bytes, general.bytes))
        below = max(_too_old(db, conv, last_seq, keep.ms, now_ms), _too_much(db, conv, keep.bytes))
        records, size = _tuples(db, _GOES, (conv, below)).fetchone() if below > 1 else (0, 0)
        if records:
            found.append(Cut(conv=conv, name=name, below=below, records=records, bytes=size))
    return found


def _chosen(own: int | None, general: int | None) -> int | None:
    return general if own is None else own or None  # 0: for ever, whatever the server says


def _too_old(db: sqlite3.Connection, conv: int, last_seq: int, keep_ms: int | None, now_ms: int) -> int:
    if keep_ms is None:
        return 0
    young = _tuples(db, _YOUNG, (conv, now_ms - keep_ms)).fetchone()
    return int(young[0]) if young is not None else last_seq + 1


def _too_much(db: sqlite3.Connection, conv: int, keep_bytes: int | None) -> int:
    if keep_bytes is None:
        return 0
    last = _tuples(db, _FITS, (conv, keep_bytes)).fetchone()
    return int(last[0]) + 1 if last is not None else 0


def _tuples(db: sqlite3.Connection, sql: str, args: tuple[Any, ...] = ()) -> sqlite3.Cursor:
    """Rows as tuples, whatever the connection makes of them."""
    cursor = db.cursor()
    cursor.row_factory = None
    return cursor.execute(sql, args)
