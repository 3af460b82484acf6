"""The same commands while the server is stopped: under its lock, on its files, through the same handlers and decisions."""

import os
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import trio

from chat.admin import registry
from chat.background import take_lock
from chat.config import Config
from chat.errors import ChatError
from chat.rooms import effects as fx
from chat.rooms.state import State
from chat.store.base import CommitFailed, StoreRefused, Writer
from chat.store.retention import ROWS, Cut
from chat.store.sqlite import SqliteStore, now_ms, open_sqlite

T = TypeVar("T")


class Shut:
    """A stopped server's files, as a `registry.House`. One task at a time."""

    def __init__(self, config: Config, store: SqliteStore, state: State) -> None:
        self._config = config
        self._store = store
        self._state = state

    @property
    def config(self) -> Config:
        return self._config

    @property
    def state(self) -> State:
        return self._state

    async def decide(self, decide: registry.Decide) -> fx.Outcome:
        effects = tuple(decide(self._state, now_ms()))
        (outcome,) = await self.write(lambda writer: writer.commit_one_by_one([fx.Action(effects=effects)]))
        if outcome.error is not None:
            raise outcome.error
        for effect in effects:
            self._state.apply(effect)
        return outcome

    async def write(self, step: Callable[[Writer], T]) -> T:
        try:
            return await trio.to_thread.run_sync(step, self._store.writer)
        except CommitFailed as failed:
            raise ChatError(failed.code, failed.message) from failed

    async def cuts(self) -> list[Cut]:
        return await self._store.cuts(now_ms())

    async def trim(self, cut: Cut) -> bool:
        return await self.write(lambda writer: writer.trim(cut.conv, cut.below, rows=ROWS))


def run(
    config: Config, handler: registry.Handler, arguments: dict[str, Any], progress: Callable[[int, int, str], None] | None = None
) -> Any:
    """Take the lock, open the store, run *handler*. *Raises* ChatError; StartRefused when the server runs; OSError."""
    os.umask(0o077)
    if not config.database.exists():  # opening it would make one
        raise ChatError("not_found", f"there is no database {config.database}; was the server ever started? (--data-dir, --config)")
    lock = take_lock(config.lock_file)
    try:
        return trio.run(partial(_run, config, handler, arguments, progress))
    except* (StoreRefused, sqlite3.Error) as refused:
        raise ChatError("storage_unavailable", str(_first(refused))) from None
    except* ChatError as refused:
        raise _first(refused) from None
    finally:
        lock.release()


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


async def _run(
    config: Config, handler: registry.Handler, arguments: dict[str, Any], progress: Callable[[int, int, str], None] | None
) -> Any:
    storage = config.storage
    async with open_sqlite(
        config.database, busy_timeout_s=storage.busy_timeout_s, min_free_bytes=storage.min_free_bytes, locked=True
    ) as store:
        state = State.load(await trio.to_thread.run_sync(store.writer.load))

        async def report(told: dict[str, Any]) -> None:
            if progress is not None:
                progress(told["done"], told["total"], told["what"])

        return await handler(registry.Call(house=Shut(config, store, state), running=None, report=report), arguments)
