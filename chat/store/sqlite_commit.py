"""The writer of a SQLite store: whole transactions, and the certainty of what became of them.

Theory of operation
    WAL with synchronous=FULL: COMMIT writes the transaction's pages behind the log's end and syncs the log. An error before COMMIT is
    definite: rolled back, nothing will be found later. An error IN it is not: when the sync fails, readers see nothing of it, but the
    pages lie behind the log's end with a valid commit mark, and after a crash the next start may find and take them.

    So a failed COMMIT is followed by a fence: another transaction, with a real change (``meta.generation``), which SQLite writes at that
    same end of the log, over the first pages of the failed one. Once the fence is synced the failed one cannot come back, since the
    log's checksums are a chain. If the fence fails too, nobody knows: `CommitFailed` is then not definite, and `recover`
    opens the file anew and sets the fence before anything else is written.

A batch that stores nothing (refusals, which look their cid up; lists of conversations) is only read: it is answered while the disk
is full or another process holds the write lock.

The disk is *low* with less than ``min_free_bytes`` free: then what grows is refused, action by action, and the rest of the batch is
stored (`chat.rooms.reserve` says what is which, and why that rest cannot fill the disk). It is full with less than `ROOM_BYTES`.
"""

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from chat.rooms.effects import Action, Outcome
from chat.rooms.reserve import NEARLY_FULL, grows
from chat.store import sqlite_read, sqlite_rules
from chat.store.base import CommitFailed, Snapshot, stores
from chat.store.sqlite_batch import Batch, Spoiled
from chat.store.sqlite_effects import purge
from chat.store.sqlite_files import connect
from chat.store.sqlite_sanctions import tidy_addresses
from chat.store.sqlite_upkeep import LAST_CID, NO_CID, erase_step, trim_step

SPACE_CHECK_S: Final = 0.1
ROOM_BYTES: Final = 64 * 1024  # with less a batch of any size may fail, whatever it holds
T = TypeVar("T")


class SqliteWriter:
    """*Owns* its connection. Synchronous; from one thread at a time. *now_ms* is the clock of the records."""

    def __init__(self, path: Path, *, busy_timeout_s: float, min_free_bytes: int, now_ms: Callable[[], int]) -> None:
        self.path = path
        self.min_free_bytes = min_free_bytes
        self._busy_timeout_s = busy_timeout_s
        self._now_ms = now_ms
        self._space_checked_s = float("-inf")
        self._free_bytes = sys.maxsize  # nobody has looked yet
        self._sick = False  # the connection saw an I/O error or worse: it is opened anew before its next use
        self._scanned = NO_CID  # how far tidy's pass over the cids is
        self._db = self._connect()

    @property
    def low(self) -> bool:
        return self._free_bytes < self.min_free_bytes

    def load(self) -> Snapshot:
        return self._reading(lambda: sqlite_read.load(self._db))

    def commit(self, actions: Sequence[Action]) -> list[Outcome]:
        if not any(map(stores, actions)):
            return self._reading(lambda: self._batch().run(actions))
        self._check_space()
        only_refused = self.low and all(grows(action) or not stores(action) for action in actions)
        transaction = self._reading if only_refused else self._writing
        return transaction(lambda: self._batch().run(actions))

    def commit_one_by_one(self, actions: Sequence[Action]) -> list[Outcome]:
        self._check_space()
        return self._writing(lambda: self._batch().run_one_by_one(actions))

    def recover(self) -> None:
        try:
            self._reopen()
            self._fence()
        except sqlite3.Error as exc:
            self._sick = True
            raise _failed(exc, definite=True) from exc

    def check(self) -> None:
        """The disk has room, the file is there, can be read, and the lock for writing can be had. An empty transaction writes nothing."""
        self._check_space()
        if self._free_bytes < ROOM_BYTES:
            raise CommitFailed("storage_full", "the server's disk is full", definite=True)
        if self.low:
            raise CommitFailed("storage_full", NEARLY_FULL, definite=True)
        self._look()
        self._writing(lambda: self._db.execute("SELECT generation FROM meta").fetchone())

    def tidy(self, *, cids_before_ms: int, rows: int = 2000) -> bool:
        """The pass over the cids goes in the order of their key, so that it needs no index that every message would pay for."""
        return self._writing(lambda: self._tidy(cids_before_ms, rows))

    def erase(self, *, rows: int = 2000) -> bool:
        more = self._writing(lambda: self._erase(rows))
        if not more:
            self._empty_log()
        return more

    def trim(self, conv: int, below: int, *, rows: int = 2000) -> bool:
        return self._writing(lambda: trim_step(self._db, conv, below, rows))

    def close(self) -> None:
        self._db.close()

    # ------------------------------------------------------------ transactions

    def _reading(self, run: Callable[[], T]) -> T:
        return self._transaction("BEGIN", run, self._commit_reading)

    def _writing(self, run: Callable[[], T]) -> T:
        return self._transaction("BEGIN IMMEDIATE", run, self._commit_writing)

    def _transaction(self, begin: str, run: Callable[[], T], commit: Callable[[], None]) -> T:
        try:
            if self._sick:
                self._reopen()
            self._db.execute(begin)
            found = run()
        except Spoiled as exc:
            self._roll_back()
            raise CommitFailed("storage_unavailable", str(exc), definite=True, one_row=True) from exc
        except sqlite3.Error as exc:
            self._roll_back()
            self._sick = self._sick or not _is_well(exc)
            raise _failed(exc, definite=True) from exc
        except BaseException:
            self._roll_back()
            raise
        commit()
        return found

    def _commit_reading(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # nothing hangs on it
            self._db.execute("COMMIT")
            return
        self._sick = True

    def _commit_writing(self) -> None:
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error as exc:
            self._roll_back()
            try:
                self._fence()
            except sqlite3.Error as again:
                self._sick = True
                raise _failed(again, definite=False) from exc
            raise _failed(exc, definite=True) from exc

    def _fence(self) -> None:
        """Once it returns, nothing of an earlier failed COMMIT can come back. *Raises* sqlite3.Error."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("UPDATE meta SET generation = generation + 1")
            self._db.execute("COMMIT")
        except sqlite3.Error:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:
            self._sick = True

    def _batch(self) -> Batch:
        return Batch(self._db, self._now_ms(), low=self.low)

    def _empty_log(self) -> None:
        """What was erased stands in the log too, until that is written over. Who reads just now may keep a part of it there."""
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    # ------------------------------------------------------------ the world

    def _connect(self) -> sqlite3.Connection:
        return connect(self.path, busy_timeout_s=self._busy_timeout_s)

    def _reopen(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        self._sick = True
        self._db = self._connect()
        self._sick = False

    def _look(self) -> None:
        """SQLite goes on with its descriptors when the file is gone, or its folder cannot be looked at; a restart would not find it."""
        try:
            os.stat(self.path)
        except FileNotFoundError as exc:
            raise CommitFailed("storage_unavailable", f"{self.path} is gone", definite=True) from exc
        except OSError as exc:
            raise CommitFailed("storage_unavailable", f"{self.path}: {exc.strerror}", definite=True) from exc

    def _check_space(self) -> None:
        now_s = time.monotonic()
        if now_s - self._space_checked_s >= SPACE_CHECK_S:
            try:
                disk = os.statvfs(self.path.parent)
            except OSError as exc:
                raise CommitFailed("storage_unavailable", f"{self.path.parent}: {exc.strerror}", definite=True) from exc
            self._space_checked_s = now_s
            self._free_bytes = disk.f_bavail * disk.f_frsize
        if self._free_bytes < min(ROOM_BYTES, self.min_free_bytes):
            raise CommitFailed("storage_full", "the server's disk is full", definite=True)

    # ------------------------------------------------------------ housekeeping

    def _erase(self, rows: int) -> bool:
        room = self._db.execute("SELECT conv FROM purges LIMIT 1").fetchone()
        if room is not None:
            purge(self._db, room[0], rows)
            return True
        return erase_step(self._db, rows)

    def _tidy(self, cids_before_ms: int, rows: int) -> bool:
        now_ms = self._now_ms()
        if self._erase(rows) or sqlite_rules.forget(self._db, now_ms, rows) or tidy_addresses(self._db, now_ms, rows):
            return True
        if self._scanned == NO_CID:
            self._db.execute("DELETE FROM sessions WHERE expires_ms < ? AND NOT online", (self._now_ms(),))
        end = self._db.execute(
            "SELECT cid, account FROM cids WHERE (cid, account) > (?, ?) ORDER BY cid, account LIMIT 1 OFFSET ?", (*self._scanned, rows - 1)
        ).fetchone()
        self._db.execute(
            "DELETE FROM cids WHERE (cid, account) > (?, ?) AND (cid, account) <= (?, ?) AND ts < ?",
            (*self._scanned, *(end or LAST_CID), cids_before_ms),
        )
        self._scanned = end or NO_CID
        return end is not None


def _is_well(exc: sqlite3.Error) -> bool:
    """Whether the connection is as good as before: the file was locked, or the disk full."""
    return _code(exc) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL}


def _failed(exc: sqlite3.Error, *, definite: bool) -> CommitFailed:
    if _code(exc) == sqlite3.SQLITE_FULL:
        return CommitFailed("storage_full", "the server's disk is full", definite=definite)
    locked = _code(exc) == sqlite3.SQLITE_BUSY
    return CommitFailed("storage_unavailable", f"the server cannot store just now ({exc})", definite=definite, locked=locked)


def _code(exc: sqlite3.Error) -> int:
    return int(getattr(exc, "sqlite_errorcode", 0)) & 0xFF
