"""Putting a backup in the place of a database: all of it or nothing, and what was there is kept.

Theory of operation
    First everything that can fail: the backup is copied to a *draft* beside the database, checked, brought to the newest schema,
    and made a new lineage there. Every conversation gets a new epoch, since after the moment of the backup other things were said under
    its seqs: clients that come back are told `history_reset`. Then the switch, a few renames under a note (``restoring.json``) that says
    what is going on: while it lies there no start opens the folder, so that a crash between two renames can neither make a new database
    over the old one nor lay an old log beside a new file. The restore that is run again finishes it. What was there is moved to a
    folder ``before-restore-…`` and never deleted.

    Who is logged in: as the database that is replaced says, where it can be read and is of the same server, for accounts whose password
    is the same in both; so a session that was revoked since the backup stays revoked. Else as the backup says: its tokens are good for
    24 hours after they were made. ``end_sessions`` ends them all.
"""

import contextlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from chat.rooms import effects as e
from chat.rooms.decisions import new_epoch
from chat.store import sqlite_audit
from chat.store.base import StoreRefused
from chat.store.migrate import migrate_sqlite, newest, version_of
from chat.store.sqlite_backup import PAGES, Progress, check, sync_folder
from chat.store.sqlite_files import APPLICATION_ID, BACKUP_ID, RESTORING, connect

DRAFT: Final = "restore.new"
SIDES: Final = ("", "-wal")  # what belongs to a database, beside its shared memory


@attrs.frozen(kw_only=True)
class Backup:
    """A backup that was looked at: whole, and of a schema that is known. ``manifest`` is empty for a plain copy of a database."""

    path: Path
    manifest: Mapping[str, Any]
    files: Mapping[str, bytes] = attrs.field(repr=False)


def look_at(path: Path) -> Backup:
    """Check all of *path*. *Raises* StoreRefused."""
    try:
        if not path.is_file():
            raise StoreRefused(f"there is no backup {path}")
        with contextlib.closing(connect(path.absolute(), busy_timeout_s=1, read_only=True)) as db:
            (kind,) = db.execute("PRAGMA application_id").fetchone()
            if kind not in (BACKUP_ID, APPLICATION_ID):
                raise StoreRefused(f"{path} is no backup of chat")
            check(db, path)
            if version_of(db) > newest("sqlite"):
                raise StoreRefused(f"{path} was made by a newer chat (schema {version_of(db)}, this one knows {newest('sqlite')})")
            files = dict(db.execute("SELECT name, data FROM backup_files").fetchall()) if kind == BACKUP_ID else {}
        manifest = json.loads(files.pop("manifest.json", b"{}"))
    except sqlite3.Error as exc:
        raise StoreRefused(f"{path} is no backup of chat, or damaged: {exc}") from exc
    except OSError as exc:
        raise StoreRefused(f"{path}: {exc.strerror}") from exc
    return Backup(path=path, manifest=manifest, files=files)


def restore(backup: Backup, database: Path, *, files: Mapping[str, Path], end_sessions: bool, progress: Progress) -> Path | None:
    """Put *backup* in the place of *database*, and those of its files that *files* has a place for. The caller has the lock.

    *Returns* the folder with what was there before; None: there was nothing. *Raises* StoreRefused: then nothing was changed, or, once
    the note lies there, the restore is to be run again. OSError.
    """
    folder = database.parent
    draft = folder / DRAFT / database.name
    shutil.rmtree(draft.parent, ignore_errors=True)
    draft.parent.mkdir(mode=0o700)
    try:
        _copy(backup.path, draft, progress)
        _make_lineage(draft, _present(database), backup, end_sessions)
    except (sqlite3.Error, OSError) as exc:
        shutil.rmtree(draft.parent, ignore_errors=True)
        raise StoreRefused(f"{backup.path}: cannot be restored: {exc}; nothing was changed") from exc
    return _switch(draft, database, {place: backup.files[name] for name, place in files.items() if name in backup.files})


def _present(database: Path) -> Path:
    """The database that is replaced: where a restore that was cut short has moved it to, else in its place."""
    note = database.parent / RESTORING
    if note.exists():
        moved = database.parent / str(json.loads(note.read_bytes())["aside"]) / database.name
        if moved.exists():
            return moved
    return database


# ---------------------------------------------------------------- the draft


def _copy(source: Path, draft: Path, progress: Progress) -> None:
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with contextlib.closing(connect(source.absolute(), busy_timeout_s=1, read_only=True)) as db:
        db.execute("BEGIN")
        db.execute("SELECT 1 FROM sqlite_schema").fetchone()
        with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as copy:
            copy.execute("PRAGMA journal_mode = OFF")
            copy.execute("PRAGMA synchronous = OFF")
            db.backup(copy, pages=PAGES, progress=lambda _, left, total: progress(total - left, total, "pages"), sleep=0)


def _make_lineage(draft: Path, present: Path, backup: Backup, end_sessions: bool) -> None:
    """Make the draft a database that goes on from the backup under new epochs; it is on the disk afterwards."""
    with contextlib.closing(connect(draft, busy_timeout_s=0)) as db:
        db.execute("DROP TABLE IF EXISTS backup_files")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        migrate_sqlite(db)
        if not end_sessions:
            _take_sessions(db, present)
        db.execute("BEGIN IMMEDIATE")
        for (conv,) in db.execute("SELECT id FROM conversations").fetchall():
            epoch = new_epoch()
            db.execute("UPDATE conversations SET epoch = ? WHERE id = ?", (epoch, conv))
        db.execute("UPDATE cids SET epoch = c.epoch FROM conversations c WHERE c.id = conv")
        if end_sessions:
            db.execute("DELETE FROM sessions")
        db.execute("UPDATE meta SET generation = generation + 1")
        entry = e.Audit(actor=0, action="restore", target=None, room=None, reason=None, before=None, after={"backup": backup.manifest})
        sqlite_audit.add(db, entry, time.time_ns() // 1_000_000)
        db.execute("COMMIT")
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreRefused(f"{draft.parent}: this file system cannot hold the database (no WAL: {mode}); nothing was changed")
    fd = os.open(draft, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


_SESSION: Final = "session, account, generation, expires_ms, created_ms, seen_ms, client, address, online"
_VALID: Final = """SELECT s.session FROM present.sessions s
    JOIN present.accounts p ON p.id = s.account JOIN accounts a ON a.id = p.id AND a.password_hash = p.password_hash
    WHERE p.suspended_ms IS NULL AND p.id NOT IN (SELECT account FROM present.bans)"""


def _take_sessions(db: sqlite3.Connection, database: Path) -> None:
    """Put in the sessions of the present database in the place of the backup's, if it can be read."""
    if not database.exists():
        return
    try:
        db.execute("ATTACH ? AS present", (f"{database.absolute().as_uri()}?mode=ro",))
        try:
            same = db.execute("SELECT (SELECT server_id FROM meta) = (SELECT server_id FROM present.meta)").fetchone() == (1,)
            if not same or db.execute("SELECT schema_version FROM present.meta").fetchone() != (newest("sqlite"),):
                return
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM main.sessions")
            db.execute(f"INSERT INTO main.sessions ({_SESSION}) SELECT {_SESSION} FROM present.sessions WHERE session IN ({_VALID})")  # noqa: S608
            tokens = "token_hash, session, state, generation, expires_ms"
            db.execute(
                f"INSERT INTO main.tokens ({tokens}) SELECT {tokens} FROM present.tokens"  # noqa: S608
                " WHERE session IN (SELECT session FROM main.sessions)"
            )
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
            db.execute("DETACH present")
    except sqlite3.Error:  # damaged, perhaps: that is why it is replaced
        return


# ---------------------------------------------------------------- the switch


def _switch(draft: Path, database: Path, files: Mapping[Path, bytes]) -> Path | None:
    folder = database.parent
    note = folder / RESTORING
    present = [database.with_name(database.name + side) for side in SIDES]
    if note.exists():
        aside = folder / json.loads(note.read_bytes())["aside"]
    else:
        aside = folder / time.strftime("before-restore-%Y%m%d-%H%M%S")
        write(note, json.dumps({"aside": aside.name}).encode())
    if any(path.exists() for path in (*present, *files)):
        aside.mkdir(mode=0o700, exist_ok=True)
    for path in present:
        if path.exists() and not (aside / path.name).exists():
            path.rename(aside / path.name)
        path.unlink(missing_ok=True)  # of a restore that was cut short
    database.with_name(database.name + "-shm").unlink(missing_ok=True)
    for path in files:
        if path.exists() and not (aside / path.name).exists():
            write(aside / path.name, path.read_bytes())
    if aside.exists():
        sync_folder(aside)
    sync_folder(folder)
    draft.rename(database)
    for path, data in files.items():
        write(path, data)
    sync_folder(folder)
    note.unlink()
    sync_folder(folder)
    shutil.rmtree(draft.parent, ignore_errors=True)
    return aside if aside.exists() else None


def write(path: Path, data: bytes) -> None:
    """As a whole or not at all, mode 0600, and on the disk afterwards."""
    temporary = path.with_name(f".{path.name}.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    temporary.rename(path)
    sync_folder(path.parent)
