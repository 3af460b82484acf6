"""The database: there, readable, whole, and of a version that this chat knows. Only read, also while the server writes."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from chat.background import rights
from chat.config import Config
from chat.doctor.finding import Finding, advice, fine, size, wrong
from chat.store.base import StoreRefused
from chat.store.migrate import newest, version_of
from chat.store.sqlite_files import check, connect

WAL_BYTES: Final = 256 * 2**20  # the log is emptied at about 4 MiB: so large only when something keeps it from that
NEWER: Final = "made by a newer chat"  # as `chat.store.sqlite_files` says it
RESTORE: Final = "stop the server, keep the file, and put a backup in its place (chat restore)"


def database(config: Config) -> Iterator[Finding]:
    path = config.database
    if not path.exists():
        yield fine("database", f"{path} is made at the first start")
        return
    if (blocked := _barrier(path)) is not None:
        yield wrong("database", f"{path} cannot be used: no right to {rights.theirs(blocked)}", rights.remedy(blocked))
        return
    try:
        check(path, config.storage.busy_timeout_s)
        with contextlib.closing(connect(path, busy_timeout_s=config.storage.busy_timeout_s, read_only=True)) as db:
            yield from _version(db)
            yield from _whole(db, size(path.stat().st_size))
    except StoreRefused as refused:
        yield wrong("database", str(refused), _todo(path, refused.__cause__, str(refused)))
        return
    except sqlite3.Error as error:
        yield wrong("database", f"{path}: {error}", _todo(path, error))
        return
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size > WAL_BYTES:
        yield advice("database", f"its log is {size(log.stat().st_size)}", "something reads without an end; restart the server to empty it")


def _barrier(path: Path) -> Path | None:
    """What keeps this user from writing the database: its file, those beside it, or the folder in which they are made."""
    for one in (path.parent, path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        mode = os.R_OK | os.W_OK | (os.X_OK if one is path.parent else 0)
        if (blocked := rights.barrier(one, mode)) is not None:
            return blocked
    return None


def _todo(path: Path, error: BaseException | None, said: str = "") -> str:
    """What helps. Only of a file that is damaged, or none of chat, a backup takes the place."""
    if NEWER in said:
        return "install that newer chat again; nothing is wrong with the file"
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"see which program has it (fuser {path}), and end that"
    if isinstance(error, OSError | sqlite3.OperationalError):
        return f"the file need not be damaged: see whether the disk of {path.parent} is well (dmesg, df), then look again"
    return RESTORE


def _version(db: sqlite3.Connection) -> Iterator[Finding]:
    version, known = version_of(db), newest("sqlite")
    if version < known:
        yield advice("schema", f"version {version}; this chat brings it to {known} at its next start, after a backup")
    else:
        yield fine("schema", f"version {version}")


def _whole(db: sqlite3.Connection, shown: str) -> Iterator[Finding]:
    faults = [row[0] for row in db.execute("PRAGMA integrity_check(5)") if row[0] != "ok"]
    faults += [f"a row of {table} belongs to nothing in {parent}" for table, _, parent, _ in db.execute("PRAGMA foreign_key_check")]
    behind = db.execute(
        "SELECT count(*) FROM conversations c WHERE last_seq < (SELECT coalesce(max(seq), 0) FROM records WHERE conv = c.id)"
    ).fetchone()[0]
    if behind:
        faults.append(f"{behind} conversations have records beyond their last number")
    (records,) = db.execute("SELECT count(*) FROM records").fetchone()
    if faults:
        yield wrong("database", "; ".join(faults[:5]), RESTORE)
    else:
        yield fine("database", f"whole: {records:,} {'record' if records == 1 else 'records'}, {shown}")
