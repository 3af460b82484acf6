"""The moderation log in SQLite: adding an entry to the chain, and reading it. What the chain is: `chat.rooms.moderation.audit`."""

import sqlite3
from collections.abc import Collection, Iterator
from typing import Any, Final

from chat.rooms.effects import Audit
from chat.rooms.moderation import audit

_COLUMNS: Final = "n, at_ms, actor, action, target, room, reason, before, after, salt, texts_hash, hash"
ROWS: Final = 1000  # of one question: a long log is not held in memory


def add(db: sqlite3.Connection, effect: Audit, now_ms: int) -> None:
    """In a transaction that excludes every other writer."""
    n, previous = head(db)
    e = audit.link(effect, n + 1, previous, now_ms)
    db.execute(
        f"INSERT INTO audit ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (e.n, e.at_ms, e.actor, e.action, e.target, e.room, e.reason, e.before, e.after, e.salt, e.texts_hash, e.hash),
    )


def head(db: sqlite3.Connection) -> tuple[int, bytes]:
    """Number and hash of the last entry; of an empty log 0 and `audit.START`."""
    row = db.execute("SELECT n, hash FROM audit ORDER BY n DESC LIMIT 1").fetchone()
    return (0, audit.START) if row is None else (row[0], row[1])


def chain(db: sqlite3.Connection) -> Iterator[audit.Entry]:
    """All entries, by number. In a transaction of the caller's, so that it is one moment's."""
    after = -(2**63)  # before every number there may be, also where somebody tampered with them
    while rows := db.execute(f"SELECT {_COLUMNS} FROM audit WHERE n > ? ORDER BY n LIMIT ?", (after, ROWS)).fetchall():  # noqa: S608
        yield from map(_entry, rows)
        after = rows[-1][0]


def latest(
    db: sqlite3.Connection,
    *,
    limit: int,
    before: int | None = None,
    target: int | None = None,
    rooms: Collection[int] | None = None,
    action: str | None = None,
) -> list[audit.Entry]:
    """The last *limit* entries (below number *before*), newest first: about *target*, in *rooms* (None: all, and what is in no room), with
    this *action*."""
    wanted: list[str] = ["n < ?"]
    args: list[Any] = [before if before is not None else 2**63 - 1]
    if action is not None:
        wanted.append("action = ?")
        args.append(action)
    if target is not None:
        wanted.append("target = ?")
        args.append(target)
    if rooms is not None:
        wanted.append(f"room IN ({','.join('?' * len(rooms))})")
        args += rooms
    sql = f"SELECT {_COLUMNS} FROM audit WHERE {' AND '.join(wanted)} ORDER BY n DESC LIMIT ?"  # noqa: S608
    return [_entry(row) for row in db.execute(sql, (*args, limit)).fetchall()]


def _entry(row: Any) -> audit.Entry:
    n, at_ms, actor, action, target, room, reason, before, after, salt, texts_hash, hash = row
    return audit.Entry(
        n=n,
        at_ms=at_ms,
        actor=actor,
        action=action,
        target=target,
        room=room,
        reason=reason,
        before=before,
        after=after,
        salt=salt,
        texts_hash=texts_hash,
        hash=hash,
    )
