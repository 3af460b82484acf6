"""A backup is one file: a copy of the database at one moment, with the certificate, its key and a manifest in a table of their own.

*Taking one* disturbs nobody: another process reads the database page by page inside ONE read transaction, so the pages are those of one
moment however much is written meanwhile (without that transaction SQLite would begin anew after each write). Everything that was committed
before it began is in it. The log of the database cannot be emptied past that moment, so it grows while the copy is made.

*A whole file or none.* The copy is made beside its name, as ``NAME.partial``, checked (integrity_check), synced, and renamed. One that a
crash left over is used again by the next try; two at once are kept apart by a lock on it.

A backup has an application id of its own: put in the place of a database by hand it is refused, since it must get new epochs first
(`chat.store.sqlite_restore`).
"""

import contextlib
import fcntl
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from chat.store.base import StoreRefused
from chat.store.migrate import version_of
from chat.store.sqlite_files import APPLICATION_ID, BACKUP_ID, connect

PAGES: Final = 512  # of one step: 2 MiB
BUSY_S: Final = 5.0
FORMAT: Final = 1
HEAD_BYTES: Final = 72  # of an SQLite file, with the application id in the last four

Progress = Callable[[int, int, str], None]


def back_up(
    source: Path, target: Path, *, files: Mapping[str, bytes], about: Mapping[str, Any], replace: bool, keep_free: int, progress: Progress
) -> dict[str, Any]:
    """Copy the database *source* with *files* to *target* (mode 0600). *Returns* the manifest: *about*, and what was found.

    *keep_free*: bytes that stay free on the disk where both lie. *Raises* StoreRefused, saying what; then *target* is what it was.
    """
    _check_target(target, replace)
    partial = target.with_name(target.name + ".partial")
    try:
        with _held(partial) as fd:
            manifest = _fill(source, partial, files, about, keep_free, progress)
            _check_target(target, replace)
            os.fsync(fd)
            partial.rename(target)
            sync_folder(target.parent)
            return {**manifest, "bytes": os.fstat(fd).st_size}
    except sqlite3.Error as exc:
        raise StoreRefused(f"no backup was made: {exc}") from exc
    except OSError as exc:
        raise StoreRefused(f"{target.parent if exc.filename == str(partial) else target}: {exc.strerror}; no backup was made") from exc


def _check_target(target: Path, replace: bool) -> None:
    """*Raises* StoreRefused for what must not be replaced: whatever is no backup of ours, the server's own files above all."""
    if not target.exists():
        return
    if not replace:
        raise StoreRefused(f"{target} exists already; --force replaces it")
    if not is_backup(target):
        raise StoreRefused(f"{target} exists already, and is no backup: it is not replaced")


def is_backup(path: Path) -> bool:
    """By its head alone. *Raises* OSError."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return head.startswith(b"SQLite format 3\0") and head[68:72] == BACKUP_ID.to_bytes(4, "big")


@contextlib.contextmanager
def _held(partial: Path) -> Iterator[int]:
    """The file that is to be filled, empty and locked. What is left of it at the end goes."""
    fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreRefused(f"another backup to {partial.with_suffix('')} is being made") from None
        os.fchmod(fd, 0o600)
        os.ftruncate(fd, 0)
        try:
            yield fd
        finally:
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(fd).st_ino == partial.stat().st_ino:
                    partial.unlink()
    finally:
        os.close(fd)


def _fill(
    source: Path, partial: Path, files: Mapping[str, bytes], about: Mapping[str, Any], keep_free: int, progress: Progress
) -> dict[str, Any]:
    with contextlib.closing(connect(source, busy_timeout_s=BUSY_S, read_only=True)) as db:
        if db.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
            raise StoreRefused(f"{source} is no database of chat")
        db.execute("BEGIN")
        schema = version_of(db)  # the transaction's moment is now
        records, server_id = db.execute("SELECT sum(last_seq), (SELECT server_id FROM meta) FROM conversations").fetchone()
        (size,) = db.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").fetchone()
        _check_room(source, partial, size, keep_free)
        manifest = {**about, "format": FORMAT, "schema": schema, "server_id": server_id, "records": records or 0}
        with contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as copy:
            copy.execute("PRAGMA journal_mode = OFF")
            copy.execute("PRAGMA synchronous = OFF")  # synced as a whole, at its end
            db.backup(copy, pages=PAGES, progress=lambda _, left, total: progress(total - left, total, "pages"), sleep=0)
            copy.execute("PRAGMA journal_mode = DELETE")  # without a log beside it
            copy.execute("PRAGMA journal_mode = OFF")
            copy.execute(f"PRAGMA application_id = {BACKUP_ID}")
            copy.execute("CREATE TABLE backup_files (name TEXT PRIMARY KEY, data BLOB NOT NULL) STRICT")
            stored = {**files, "manifest.json": json.dumps(manifest).encode()}
            copy.executemany("INSERT INTO backup_files (name, data) VALUES (?, ?)", stored.items())
            check(copy, partial)
    return manifest


def _check_room(source: Path, partial: Path, size: int, keep_free: int) -> None:
    disk = os.statvfs(partial.parent)
    left = disk.f_bavail * disk.f_frsize - size
    if left < 0:
        raise StoreRefused(f"{partial.parent}: the disk has no room for {-(-size >> 20)} MiB; no backup was made")
    if left < keep_free and os.stat(partial.parent).st_dev == os.stat(source.parent).st_dev:
        raise StoreRefused(
            f"{partial.parent}: a backup of {size >> 20} MiB would leave the server less than storage.min_free_bytes "
            f"({keep_free >> 20} MiB), and it would refuse messages; no backup was made"
        )


def check(db: sqlite3.Connection, path: Path) -> None:
    """*Raises* StoreRefused when the database is damaged."""
    verdict = str(db.execute("PRAGMA integrity_check(1)").fetchone()[0])
    if verdict != "ok":
        raise StoreRefused(f"{path}: damaged: {verdict.strip().splitlines()[-1]}")
    broken = db.execute("PRAGMA foreign_key_check").fetchone()
    if broken is not None:
        raise StoreRefused(f"{path}: damaged: a row of {broken[0]} names one of {broken[2]} that is not there")


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
