"""A store in one SQLite file: `open_sqlite`, its readers, and beside them the one writer.

Readers have connections of their own, read-only, which never wait for the writer (WAL). The writer is in sqlite_commit.py, the questions
are in sqlite_read.py, the folder and its lock in sqlite_files.py.
"""

import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

import trio

from chat.errors import ChatError
from chat.rooms.effects import Conversation
from chat.rooms.moderation.audit import Entry
from chat.store import sqlite_audit, sqlite_commands, sqlite_read, sqlite_rules, sqlite_sanctions
from chat.store.base import Credentials, KnownCid, Page, ReportRow, Seen, SessionRow
from chat.store.retention import Cut, cuts
from chat.store.sqlite_commit import SqliteWriter
from chat.store.sqlite_files import connect, lock_folder, place_of, prepare
from chat.store.together import Together

READERS: Final = 4  # threads; more of them would only fight for the GIL and for two cores
T = TypeVar("T")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def open_sqlite(
    path: Path,
    *,
    busy_timeout_s: float = 5.0,
    min_free_bytes: int = 256 << 20,
    clock: Callable[[], int] = now_ms,
    locked: bool = False,
    checked: bool = False,
) -> AsyncIterator["SqliteStore"]:
    """Open the store in the folder (or file) *path*, making and locking it; *clock* gives milliseconds since 1970.

    *locked*: this process has the lock on the folder already. *checked*: the file was checked a moment ago (`sqlite_files.check`).

    *Raises* StoreRefused, having touched nothing: in use, damaged, foreign, made by a newer chat, locked, not writable.
    *Owns* the lock on the folder and every connection. On the way out readers and writer must have ended.
    """
    file = place_of(path)
    lock = None if locked else lock_folder(file.parent)
    try:

        def start() -> SqliteWriter:
            prepare(file, busy_timeout_s=busy_timeout_s, checked=checked)
            return SqliteWriter(file, busy_timeout_s=busy_timeout_s, min_free_bytes=min_free_bytes, now_ms=clock)

        store = SqliteStore(await trio.to_thread.run_sync(start), busy_timeout_s=busy_timeout_s)
        try:
            yield store
        finally:
            with trio.CancelScope(shield=True):  # bounded: closing waits for a checkpoint at most
                await store.aclose()
    finally:
        if lock is not None:
            os.close(lock)


class SqliteStore:
    """See `chat.store.base.Store`."""

    def __init__(self, writer: SqliteWriter, *, busy_timeout_s: float) -> None:
        self.writer: Final = writer
        self._busy_timeout_s = busy_timeout_s
        self._limiter = trio.CapacityLimiter(READERS)
        self._idle: list[sqlite3.Connection] = []  # at most READERS
        self._closed = False
        self._by_token = Together(self._sessions_by_token)

    async def credentials(self, canonical: str) -> Credentials | None:
        return await self._ask(lambda db: sqlite_read.credentials(db, canonical))

    async def session_by_token(self, token_hash: bytes) -> SessionRow | None:
        return await self._by_token(token_hash)

    async def sessions(self, account: int) -> list[SessionRow]:
        return await self._ask(lambda db: sqlite_read.sessions(db, account))

    async def pair(self, low: int, high: int) -> Conversation | None:
        return await self._ask(lambda db: sqlite_read.pair(db, low, high))

    async def history(self, conv: int, *, after: int | None, before: int | None, limit: int, max_bytes: int) -> Page:
        return await self._ask(lambda db: sqlite_read.history(db, conv, after, before, limit, max_bytes))

    async def audit(
        self,
        *,
        limit: int,
        before: int | None = None,
        target: int | None = None,
        rooms: Collection[int] | None = None,
        action: str | None = None,
    ) -> list[Entry]:
        return await self._ask(lambda db: sqlite_audit.latest(db, limit=limit, before=before, target=target, rooms=rooms, action=action))

    async def seen(self, since_ms: int) -> list[Seen]:
        return await self._ask(lambda db: sqlite_sanctions.seen(db, since_ms))

    async def known_cid(self, account: int, cid: str) -> KnownCid | None:
        return await self._ask(lambda db: sqlite_read.known_cid(db, account, cid))

    async def visible_from(self, conv: int, account: int, since_ms: int | None) -> int:
        return await self._ask(lambda db: sqlite_rules.visible_from(db, conv, account, since_ms))

    async def reports(self, *, rooms: Collection[int] | None, limit: int) -> list[ReportRow]:
        return await self._ask(lambda db: sqlite_rules.reports(db, rooms=rooms, limit=limit))

    async def command_history(self, account: int, limit: int) -> list[tuple[int, int | None, str]]:
        return await self._ask(lambda db: sqlite_commands.command_history(db, account, limit))

    async def last_messages(self, conv: int, limit: int) -> list[int]:
        return await self._ask(lambda db: sqlite_commands.last_messages(db, conv, limit))

    async def cuts(self, now_ms: int) -> list[Cut]:
        """See `chat.store.retention`. It may take a while: it has a thread of the readers' as long."""
        return await self._ask(lambda db: cuts(db, now_ms))

    async def server_id(self) -> str:
        """Made with the database, the same for ever."""
        return await self._ask(lambda db: str(db.execute("SELECT server_id FROM meta").fetchone()[0]))

    async def aclose(self) -> None:
        """Close every connection; the last one empties the log into the file. Idempotent."""
        if not self._closed:
            self._closed = True
            await trio.to_thread.run_sync(self._close)

    def _close(self) -> None:
        for db in self._idle:
            db.close()
        self.writer.close()

    async def _sessions_by_token(self, token_hashes: list[bytes]) -> list[SessionRow | None]:
        return await self._ask(lambda db: sqlite_read.sessions_by_token(db, token_hashes))

    async def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        return await trio.to_thread.run_sync(self._answer, question, limiter=self._limiter)

    def _answer(self, question: Callable[[sqlite3.Connection], T]) -> T:
        try:
            try:
                db = self._idle.pop()
            except IndexError:
                db = connect(self.writer.path, busy_timeout_s=self._busy_timeout_s, read_only=True)
            try:
                found = question(db)
            except sqlite3.Error:
                db.close()
                raise
            except BaseException:  # a refusal, such as not_found
                self._idle.append(db)
                raise
        except sqlite3.Error as exc:
            raise ChatError("storage_unavailable", f"the server cannot read just now ({exc})") from exc
        self._idle.append(db)
        return found
