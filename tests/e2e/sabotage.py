"""Runs ``chat`` with one promise broken, to see that the ledger notices: ``python -m tests.e2e.sabotage NAME serve …``.

Nothing in ``chat/`` knows of this; its classes are changed before the command runs.
"""

import sys
import time
from typing import Any


def ack_before_commit() -> None:
    """Acks go out first, the commit follows: on a disk that takes its time, so that some kill finds one there within a few cycles."""
    from chat.store.committer import Committer
    from chat.store.sqlite_commit import SqliteWriter

    run_batch, transaction = Committer._run_batch, SqliteWriter._transaction

    def without_commit(self: SqliteWriter, actions: Any) -> Any:
        return transaction(self, "BEGIN IMMEDIATE", lambda: self._batch().run(actions), lambda: None)

    async def route_first(self: Committer, in_thread: Any, actions: Any) -> None:
        await run_batch(self, in_thread, actions)
        await in_thread(commit_late, self._writer)

    def commit_late(writer: SqliteWriter) -> None:
        if writer._db.in_transaction:
            time.sleep(0.05)
            writer._db.execute("COMMIT")

    SqliteWriter.commit = without_commit
    Committer._run_batch = route_first


def dedupe_off() -> None:
    """Nobody looks whether a cid is known."""
    from chat.store import sqlite_batch

    look_up, insert = sqlite_batch.Batch._look_up, sqlite_batch._cids_sql

    def forgetful(self: sqlite_batch.Batch, actions: Any) -> None:
        look_up(self, actions)
        self._cids.clear()

    sqlite_batch.Batch._look_up = forgetful
    sqlite_batch._cids_sql = lambda rows: insert(rows).replace("INSERT INTO", "INSERT OR REPLACE INTO")


def seq_from_memory() -> None:
    """A seq is drawn from a counter in memory when a text arrives, stored or not: as with a database's sequence, a retry leaves a hole."""
    from chat.rooms.effects import Append
    from chat.store.sqlite_batch import Batch

    drawn: dict[int, int] = {}
    answer, append = Batch._answer, Batch._append

    def answer_late(self: Batch, action: Any) -> Any:
        found = answer(self, action)
        if found is not None and found.dup is not None:
            for effect in action.effects:
                if type(effect) is Append and type(effect.conv) is int:
                    drawn[effect.conv] = drawn.get(effect.conv, 0) + 1
        return found

    def append_ahead(self: Batch, text: Any, cid: Any, outcome: Any) -> Any:
        head = self._heads.get(text.conv)
        if head is not None:
            head.seq += drawn.pop(text.conv, 0)
        return append(self, text, cid, outcome)

    Batch._answer, Batch._append = answer_late, append_ahead


def no_sync() -> None:
    """The database leaves the syncing to the kernel."""
    from chat.store import sqlite_commit, sqlite_files

    connect = sqlite_files.connect

    def careless(*arguments: Any, **options: Any) -> Any:
        db = connect(*arguments, **options)
        db.execute("PRAGMA synchronous = OFF")
        return db

    sqlite_files.connect = sqlite_commit.connect = careless


# ---------------------------------------------------------------- of a daemon that is to take over from another


def _migrations(*more: str) -> None:
    """As if the package had been upgraded: a successor knows so many migrations more."""
    import os

    from chat.background.origin import HANDOVER
    from chat.store import migrate, sqlite_files

    if HANDOVER not in os.environ:
        return
    known = dict(migrate.migrations("sqlite"))
    for number, sql in enumerate(more, len(known) + 1):
        known[number] = sql
    migrate.migrations = lambda dialect: known
    migrate.newest = sqlite_files.newest = lambda dialect: len(known)


def upgraded() -> None:
    """The successor has a migration more."""
    _migrations("CREATE TABLE upgraded (x INTEGER);")


def bad_migration() -> None:
    """The successor's migration fails in the middle."""
    _migrations("CREATE TABLE upgraded (x INTEGER); CREATE TABLE upgraded (x INTEGER);")


def dies_migrated() -> None:
    """The successor migrates, and dies before it serves."""
    import os

    from chat.background.origin import HANDOVER

    if HANDOVER in os.environ:
        _migrations("CREATE TABLE upgraded (x INTEGER);")
        _heir_dies()


def heir_dies() -> None:
    """The successor has the data, and dies before it serves."""
    import os

    from chat.background.origin import HANDOVER

    if HANDOVER in os.environ:
        _heir_dies()


def heir_hangs() -> None:
    """The successor has the data, and never serves."""
    import os

    import trio

    from chat.background.origin import HANDOVER
    from chat.rooms.manager import Manager

    async def hang(self: Manager) -> None:
        await trio.sleep_forever()

    if HANDOVER in os.environ:
        Manager.start = hang


def heir_checks() -> None:
    """The successor checks itself for ever."""
    import os

    from chat.background import handover
    from chat.background.origin import HANDOVER

    if HANDOVER in os.environ:
        handover._check_inside = lambda config: time.sleep(3600)


def _heir_dies() -> None:
    import os
    import signal

    from chat.rooms.manager import Manager

    async def die(self: Manager) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    Manager.start = die


def disk_hangs() -> None:
    """The writer's thread hangs for ever when it commits the text "hang"."""
    from chat.store.sqlite_commit import SqliteWriter

    commit = SqliteWriter.commit

    def hang(self: SqliteWriter, actions: Any) -> Any:
        if any(getattr(effect, "body", "") == "hang" for action in actions for effect in action.effects):
            print("disk_hangs", file=sys.stderr, flush=True)
            while True:
                time.sleep(3600)
        return commit(self, actions)

    SqliteWriter.commit = hang


def opening_held() -> None:
    """The database is opened when there is no file "hold" beside the data folder any more. A successor is not held up: it dies."""
    import os
    from pathlib import Path

    from chat.background.origin import HANDOVER
    from chat.store import sqlite

    prepare = sqlite.prepare

    def hold(path: Path, **options: Any) -> None:
        print("opening", file=sys.stderr, flush=True)
        while path.parent.with_name("hold").exists():
            time.sleep(0.005)
        prepare(path, **options)

    if HANDOVER in os.environ:
        _heir_dies()
    else:
        sqlite.prepare = hold


BREACHES = (ack_before_commit, dedupe_off, seq_from_memory, no_sync)
SUCCESSORS = (upgraded, bad_migration, dies_migrated, heir_dies, heir_hangs, heir_checks)
SABOTAGES = {f.__name__: f for f in (*BREACHES, *SUCCESSORS, disk_hangs, opening_held)}


def command(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.e2e.sabotage", name)


if __name__ == "__main__":
    from chat.cli import main

    SABOTAGES[sys.argv.pop(1)]()
    main()
