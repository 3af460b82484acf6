"""The data folder of a SQLite store: its lock, the making of the database, and the checks before anything is written to it.

An existing file is first looked at through a read-only connection; what is damaged, foreign or too new is refused and stays byte for
byte as it is. A new database is built beside its place and renamed into it, so that a crash of the first start leaves either nothing
or all of it, and an empty file in its place is always damage.
"""

import contextlib
import fcntl
import os
import re
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from chat.log import get_logger
from chat.store.base import StoreRefused
from chat.store.migrate import migrate_sqlite, newest, version_of

FILE: Final = "chat.sqlite3"
LOCK: Final = "chat.lock"
APPLICATION_ID: Final = 0x63686174  # "chat"
BACKUP_ID: Final = 0x63686162  # "chab", of a file that `chat backup` made
RESTORING: Final = "restoring.json"  # lies in the folder while a backup is put in its place
SQLITE_MIN: Final = (3, 37, 0)  # STRICT tables; RETURNING and UPDATE FROM are older
logger = get_logger("chat.store")
STATEMENTS: Final = 256  # kept prepared; the commit has one of each kind for every power of two


def place_of(path: Path) -> Path:
    """The database's file: *path* itself where it has a database's suffix and is no folder, else ``chat.sqlite3`` in it."""
    if not path.is_dir() and path.suffix in {".sqlite3", ".sqlite", ".db"}:
        return path.absolute()
    return path.absolute() / FILE


def lock_folder(folder: Path) -> int:
    """Make *folder* if need be and lock it for this process. *Returns* the descriptor: closing it gives the lock up.

    flock, since it stays with the descriptor through a fork. *Raises* StoreRefused, naming the process that has it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StoreRefused(f"{folder}: cannot be used as the data folder: {exc.strerror}") from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    except BlockingIOError as exc:
        found = re.search(rb"\d+", os.pread(lock, 64, 0))  # its number comes first, whoever described himself in the file
        pid = found.group().decode() if found else "unknown"
        os.close(lock)
        raise StoreRefused(f"{folder}: another chat daemon uses this data folder (process {pid})") from exc
    except OSError as exc:
        os.close(lock)
        raise StoreRefused(f"{folder}: cannot be locked: {exc.strerror}") from exc
    return lock


def check(path: Path, busy_timeout_s: float) -> None:
    """Whether `prepare` would take what is there, without touching it, also while another process uses it. *Raises* StoreRefused."""
    try:
        if path.exists():
            _check(path, busy_timeout_s)
    except sqlite3.Error as exc:
        raise _refused(path, exc) from exc
    except OSError as exc:
        raise StoreRefused(f"{path}: {exc.strerror}") from exc


def prepare(path: Path, *, busy_timeout_s: float, checked: bool = False) -> None:
    """Under the lock: make the database at *path*, or check it and bring it to the newest schema. *Raises* StoreRefused.

    *checked*: it was looked at a moment ago, by `check`, and need not be read from end to end again. A database that is migrated is
    backed up before, into ``backups`` beside it.
    """
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        raise StoreRefused(f"SQLite {'.'.join(map(str, SQLITE_MIN))} or newer is needed; this Python has {sqlite3.sqlite_version}")
    if (path.parent / RESTORING).exists():
        raise StoreRefused(f"{path.parent}: a restore was cut short, and nothing is opened before it is done: run chat restore FILE again")
    try:
        if path.exists():
            version = _check(path, busy_timeout_s, whole=not checked)
            if path.stat().st_mode & 0o077:
                path.chmod(0o600)
            if version < newest("sqlite"):
                back_up(path, version, busy_timeout_s)
                with contextlib.closing(connect(path, busy_timeout_s=busy_timeout_s)) as db:
                    migrate_sqlite(db)
                    logger.info("migrated", schema=newest("sqlite"), before=version)
        else:
            _create(path)
    except sqlite3.Error as exc:
        raise _refused(path, exc) from exc
    except OSError as exc:
        raise StoreRefused(f"{path}: {exc.strerror}") from exc


def connect(path: Path, *, busy_timeout_s: float, read_only: bool = False) -> sqlite3.Connection:
    """A connection with all that it needs set. It may be used from any one thread at a time."""
    uri = f"{path.as_uri()}?mode={'ro' if read_only else 'rw'}"
    db = sqlite3.connect(uri, uri=True, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS)
    try:
        if read_only:
            db.execute("PRAGMA query_only = ON")
        else:
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA fullfsync = ON")  # macOS, where a plain fsync stops at the drive's cache
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA journal_size_limit = 67108864")
            # Pages in the log before they are copied into the file: a page that many commits change is copied once. Private messages,
            # saturated: 46 µs of CPU each with SQLite's 1,000, 36 with this. The log is 16 MiB long then.
            db.execute("PRAGMA wal_autocheckpoint = 4096")
            db.execute("PRAGMA cache_size = -32768")  # KiB; the default 2 MiB makes a batch over many leaves read and spill
        db.execute("PRAGMA temp_store = MEMORY")
        return db
    except BaseException:
        db.close()
        raise


def back_up(path: Path, version: int, busy_timeout_s: float) -> Path:
    """A copy of the database, which has schema *version*, into ``backups`` beside it: as a whole or not at all. *Returns* where it is."""
    folder = path.parent / "backups"
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    copy, draft = folder / f"{path.stem}-schema{version}-{stamp}.db", folder / f"{path.stem}.new"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        draft.unlink(missing_ok=True)  # of a migration that was cut short
        with contextlib.closing(connect(path, busy_timeout_s=busy_timeout_s)) as db:
            os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            db.execute("VACUUM INTO ?", (str(draft),))
        _sync(draft)
    except (OSError, sqlite3.Error) as exc:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise StoreRefused(f"{path}: cannot be copied into {folder} before its migration: {exc}; nothing was changed") from exc
    draft.rename(copy)
    _sync(folder)
    logger.info("backed_up", file=str(copy), schema=version)
    return copy


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check(path: Path, busy_timeout_s: float, *, whole: bool = True) -> int:
    """Look without touching. *Returns* the schema's version. Not *whole*: pages are not read one by one."""
    if path.stat().st_size == 0:
        raise StoreRefused(f"{path}: damaged: the file is empty; nothing was changed; a backup is put in its place by chat restore FILE")
    with contextlib.closing(connect(path, busy_timeout_s=busy_timeout_s, read_only=True)) as db:
        (found,) = db.execute("PRAGMA application_id").fetchone()
        if found == BACKUP_ID:
            raise StoreRefused(f"{path}: a backup, which must not be used as it is; move it elsewhere and run chat restore FILE")
        if found != APPLICATION_ID:
            raise StoreRefused(f"{path}: not a database of chat; nothing was changed")
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone() if whole else ("ok",)
        if verdict != "ok":
            first = str(verdict).strip().splitlines()[-1]
            raise StoreRefused(f"{path}: damaged: {first}; nothing was changed; a backup is put in its place by chat restore FILE")
        version = version_of(db)
    if version > newest("sqlite"):
        raise StoreRefused(f"{path}: made by a newer chat (schema {version}, this one knows {newest('sqlite')}); nothing was changed")
    return version


def _create(path: Path) -> None:
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise StoreRefused(f"{path}: missing, though its log {log.name} is there; nothing was changed, put the file back")
    draft = path.with_name(path.name + ".new")
    for suffix in ("", "-journal", "-wal", "-shm"):  # of a first start that was cut short; we hold the lock
        draft.with_name(draft.name + suffix).unlink(missing_ok=True)
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))  # -wal and -shm get the mode of the file
    with contextlib.closing(connect(draft, busy_timeout_s=0)) as db:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        migrate_sqlite(db)
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreRefused(f"{path.parent}: this file system cannot hold the database (no WAL: {mode})")
    _sync(draft)
    draft.rename(path)
    _sync(path.parent)


def _refused(path: Path, exc: sqlite3.Error) -> StoreRefused:
    if getattr(exc, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreRefused(f"{path}: locked by another program")
    if isinstance(exc, sqlite3.OperationalError):
        return StoreRefused(f"{path}: cannot be opened: {exc}; nothing was changed")
    return StoreRefused(f"{path}: damaged: {exc}; nothing was changed; a backup is put in its place by chat restore FILE")
