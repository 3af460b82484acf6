"""Databases to back up and to restore over, and what is in them."""

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

from chat.store import sqlite_backup, sqlite_restore
from chat.store.sqlite_commit import SqliteWriter
from chat.store.sqlite_files import connect, prepare
from tests.store.build import LOBBY, say, world

FILES = {"certificate.pem": b"a certificate", "key.pem": b"a key"}


def silent(done, total, what):
    pass


def make(path: Path, *texts: str) -> Path:
    """A database at *path* in which people said *texts*."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prepare(path, busy_timeout_s=1)
    writer = SqliteWriter(path, busy_timeout_s=1, min_free_bytes=0, now_ms=lambda: 1)
    try:
        if not writer.load().rooms:
            writer.commit(world())
        for text in texts:
            writer.commit([say(text, f"cid-{text}")])
    finally:
        writer.close()
    return path


def texts(path: Path) -> list[str]:
    """What was said, by its place; the database is whole. *Raises* StoreRefused as a start does."""
    prepare(path, busy_timeout_s=1)
    with contextlib.closing(connect(path, busy_timeout_s=1)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [text for (text,) in db.execute("SELECT body FROM records WHERE conv = ? AND kind = 'message' ORDER BY seq", (LOBBY,))]


def epochs(path: Path) -> dict[int, str]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return dict(db.execute("SELECT id, epoch FROM conversations"))


def back_up(source: Path, target: Path, **how):
    how = {"files": FILES, "about": {"at_ms": 1}, "replace": False, "keep_free": 0, "progress": silent, **how}
    return sqlite_backup.back_up(source, target, **how)


def restore(backup: Path, database: Path, *, end_sessions: bool = False):
    files = {name: database.parent / name for name in FILES}
    return sqlite_restore.restore(sqlite_restore.look_at(backup), database, files=files, end_sessions=end_sessions, progress=silent)


def command(do: str, one: Path, other: Path) -> list[str]:
    return [sys.executable, "-m", "tests.admin.lineage", do, str(one), str(other)]


def run(arguments: list[str]) -> int:
    return subprocess.run(arguments, capture_output=True, timeout=60, cwd=Path(__file__).parents[2]).returncode


if __name__ == "__main__":  # as a process of its own, to be killed
    do, one, other = sys.argv[1:]
    back_up(Path(one), Path(other), replace=True) if do == "backup" else restore(Path(one), Path(other))
