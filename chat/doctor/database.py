"""The database: there, readable, whole, and of a version that this chat knows. Only read, also while the server writes."""

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Final

from chat.config import Config
from chat.doctor.finding import Finding, advice, fine, size, wrong
from chat.store.base import StoreRefused
from chat.store.migrate import newest, version_of
from chat.store.sqlite_files import check, connect

WAL_BYTES: Final = 256 * 2**20  # the log is emptied at about 4 MiB: so large only when something keeps it from that
RESTORE: Final = "stop the server, keep the file, and put a backup in its place (chat restore)"


def database(config: Config) -> Iterator[Finding]:
    path = config.database
    if not path.exists():
        yield fine("database", f"{path} is made at the first start")
        return
    try:
        check(path, config.storage.busy_timeout_s)
        with contextlib.closing(connect(path, busy_timeout_s=config.storage.busy_timeout_s, read_only=True)) as db:
            yield from _version(db)
            yield from _whole(db, size(path.stat().st_size))
    except StoreRefused as refused:
        yield wrong("database", str(refused), RESTORE)
        return
    except sqlite3.Error as error:
        yield wrong("database", f"{path}: {error}", RESTORE)
        return
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size > WAL_BYTES:
        yield advice("database", f"its log is {size(log.stat().st_size)}", "something reads without an end; restart the server to empty it")


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
