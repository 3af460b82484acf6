"""What is found in the data folder at the start: each thing that is wrong is refused in one line, and nothing is touched."""

import contextlib
import os
import sqlite3

import pytest
import trio

from chat.store import migrate
from chat.store.base import StoreRefused
from chat.store.sqlite import open_sqlite
from chat.store.sqlite_files import APPLICATION_ID, check, lock_folder, place_of, prepare
from tests.store.build import say, seqs, start, world


async def refusal_of(path, **more):
    with pytest.raises(StoreRefused) as refused:
        async with open_sqlite(path, busy_timeout_s=0.02, **more):
            pytest.fail("opened")
    line = str(refused.value)
    assert "\n" not in line
    assert str(path) in line
    return line


def everything(folder):
    """What is in the files that hold data. (-shm is an index that every reader makes; chat.lock is ours.)"""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock" and not path.name.endswith("-shm")}


@pytest.fixture
async def data(tmp_path):
    """A folder with a store that was used and closed."""
    folder = tmp_path / "data"
    async with open_sqlite(folder, min_free_bytes=0) as store:
        store.writer.commit([*world(), *(say("x" * 500) for _ in range(100))])
    return folder


async def test_a_first_start_makes_everything_for_its_owner_alone(tmp_path):
    folder = tmp_path / "not" / "there"
    old = os.umask(0)
    try:
        async with open_sqlite(folder, min_free_bytes=0) as store:
            store.writer.commit(world())
            await store.sessions(1)
            modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    finally:
        os.umask(old)
    assert modes == dict.fromkeys(["chat.lock", "chat.sqlite3", "chat.sqlite3-wal", "chat.sqlite3-shm"], 0o600)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in folder.iterdir()) == ["chat.lock", "chat.sqlite3"]  # after closing


async def test_a_file_that_others_can_read_is_closed_to_them(data):
    (data / "chat.sqlite3").chmod(0o644)
    async with open_sqlite(data):
        assert (data / "chat.sqlite3").stat().st_mode & 0o777 == 0o600


async def test_durability_is_switched_on(data):
    async with open_sqlite(data) as store:
        db = store.writer._db
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA foreign_keys").fetchone() == (1,)


async def test_a_file_may_be_named_instead_of_its_folder(tmp_path):
    assert place_of(tmp_path / "x.sqlite3") == tmp_path / "x.sqlite3"
    assert place_of(tmp_path / "x") == tmp_path / "x" / "chat.sqlite3"
    async with open_sqlite(tmp_path / "other name?#%.db"):
        assert (tmp_path / "other name?#%.db").exists()


async def test_a_server_keeps_its_id(data):
    ids = set()
    for _ in range(2):
        async with open_sqlite(data) as store:
            ids.add(await store.server_id())
    assert len(ids) == 1


async def test_a_second_instance_is_told_who_is_there(data):
    async with open_sqlite(data):
        assert f"process {os.getpid()}" in await refusal_of(data)
    async with open_sqlite(data):
        pass


async def test_the_lock_is_free_as_soon_as_its_process_is_gone(data):
    other = await trio.to_thread.run_sync(lambda: start(HOLD, str(data)))
    with other:
        assert f"process {other.pid}" in await refusal_of(data)
        other.kill()
        other.wait()
        os.close(lock_folder(data))


HOLD = """
import sys, pathlib
from chat.store.sqlite_files import lock_folder
lock_folder(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""


async def test_whoever_has_the_lock_says_so(data):
    lock = lock_folder(data)
    async with open_sqlite(data, locked=True):
        pass
    await refusal_of(data)  # it was not given up
    os.close(lock)


@pytest.mark.parametrize("garbage", [b"", b"hello", b"\0" * 8192, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_a_file_that_is_no_database_is_refused(data, garbage):
    (data / "chat.sqlite3").write_bytes(garbage)
    before = everything(data)
    line = await refusal_of(data)
    assert "nothing was changed" in line
    assert {name: content for name, content in everything(data).items() if content or name in before} == before


async def test_a_damaged_database_is_refused_and_stays_as_it_is(data):
    file = data / "chat.sqlite3"
    pages = bytearray(file.read_bytes())
    pages[3 * 4096 : 3 * 4096 + 2000] = os.urandom(2000)
    file.write_bytes(pages)
    before = everything(data)
    assert "damaged" in await refusal_of(data)
    assert {name: content for name, content in everything(data).items() if content} == before


async def test_a_database_cut_short_is_refused(data):
    file = data / "chat.sqlite3"
    os.truncate(file, file.stat().st_size - 3 * 4096)
    before = everything(data)
    assert "damaged" in await refusal_of(data)
    assert {name: content for name, content in everything(data).items() if content} == before


async def test_a_database_of_somebody_else_is_refused(data):
    (data / "chat.sqlite3").unlink()
    other = sqlite3.connect(data / "chat.sqlite3")
    other.execute("CREATE TABLE bookmarks (url)")
    other.close()
    assert "not a database of chat" in await refusal_of(data)


async def test_a_database_of_a_newer_chat_is_refused(data):
    db = sqlite3.connect(data / "chat.sqlite3")
    db.execute("UPDATE meta SET schema_version = 99")
    db.commit()
    db.close()
    before = everything(data)
    line = await refusal_of(data)
    assert "newer chat" in line
    assert "99" in line
    assert {name: content for name, content in everything(data).items() if content} == before


async def test_a_log_without_its_database_is_refused(data):
    (data / "chat.sqlite3").rename(data / "moved")
    (data / "chat.sqlite3-wal").write_bytes(b"some log")
    assert "missing" in await refusal_of(data)
    assert not (data / "chat.sqlite3").exists()


async def test_a_database_that_another_program_has_locked_is_refused(data):
    other = sqlite3.connect(data / "chat.sqlite3", isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    other.execute("UPDATE meta SET generation = generation")
    other.execute("COMMIT")
    assert "locked by another program" in await refusal_of(data)
    other.close()


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    await refusal_of(tmp_path / "file" / "data")


async def test_a_first_start_that_was_cut_short_is_begun_again(tmp_path):
    for suffix in ("", "-journal", "-wal"):
        (tmp_path / f"chat.sqlite3.new{suffix}").write_bytes(b"half")
    async with open_sqlite(tmp_path, min_free_bytes=0) as store:
        assert seqs(store.writer.commit(world()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chat.lock", "chat.sqlite3"]


def test_a_first_start_that_fails_leaves_no_database(tmp_path, monkeypatch):
    monkeypatch.setattr(migrate, "migrations", lambda dialect: {1: "CREATE TABLE meta (x); SYNTAX ERROR"})
    with pytest.raises(StoreRefused):
        prepare(tmp_path / "chat.sqlite3", busy_timeout_s=0)
    assert not (tmp_path / "chat.sqlite3").exists()
    monkeypatch.undo()
    prepare(tmp_path / "chat.sqlite3", busy_timeout_s=0)


# ---------------------------------------------------------------- migrations


def test_migrations_are_numbered_without_gap_and_reach_the_newest():
    assert list(migrate.migrations("sqlite")) == list(range(1, migrate.newest("sqlite") + 1))


def test_a_migration_that_fails_leaves_the_version_before_it(tmp_path, monkeypatch):
    files = {1: migrate.migrations("sqlite")[1], 2: "CREATE TABLE two (x)", 3: "CREATE TABLE three (x); INSERT INTO nowhere VALUES (1)"}
    monkeypatch.setattr(migrate, "migrations", lambda dialect: files)
    db = sqlite3.connect(tmp_path / "x", isolation_level=None)
    with pytest.raises(sqlite3.OperationalError):
        migrate.migrate_sqlite(db)
    assert migrate.version_of(db) == 2
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema")}
    assert "two" in tables
    assert "three" not in tables
    files[3] = "CREATE TABLE three (x)"
    migrate.migrate_sqlite(db)
    assert migrate.version_of(db) == 3
    db.close()


async def test_an_older_database_is_brought_up_and_keeps_everything(data, monkeypatch):
    files = {**migrate.migrations("sqlite"), migrate.newest("sqlite") + 1: "ALTER TABLE accounts ADD COLUMN about TEXT"}
    monkeypatch.setattr(migrate, "migrations", lambda dialect: files)
    async with open_sqlite(data, min_free_bytes=0) as store:
        assert len(store.writer.load().accounts) == 4
        assert seqs(store.writer.commit([say("after")])) == [[101]]


def test_what_the_first_schema_knows_of_cids_is_known_after_the_second(tmp_path):
    db = sqlite3.connect(tmp_path / "x", isolation_level=None)
    migrate.migrate_sqlite(db, to=1)
    row = (7, "a-cid", b"digest", 5, 1, "epoch", 3, b"result")
    db.execute("INSERT INTO cids (account, cid, digest, ts, conv, epoch, seq, result) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    migrate.migrate_sqlite(db)
    assert db.execute("SELECT account, cid, digest, ts, conv, epoch, seq, result FROM cids").fetchall() == [row]
    db.close()


# ---------------------------------------------------------------- the backup before a migration


@pytest.fixture
def old(tmp_path):
    """A database of the first schema, with something in it."""
    path = tmp_path / "chat.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("PRAGMA journal_mode = WAL")
        migrate.migrate_sqlite(db, to=1)
        db.execute("INSERT INTO records (conv, seq, ts, kind, author, body) VALUES (9, 1, 1, 'message', 7, 'kept')")
    return path


def schema_and_text(path):
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return db.execute("SELECT schema_version, body FROM meta, records").fetchone()


def test_a_database_is_copied_before_it_is_migrated(old):
    (old.parent / "backups").mkdir()
    (old.parent / "backups" / "chat.new").write_bytes(b"of a migration that was cut short")
    prepare(old, busy_timeout_s=1)
    assert schema_and_text(old) == (migrate.newest("sqlite"), "kept")
    (copy,) = (old.parent / "backups").iterdir()
    assert copy.name.startswith("chat-schema1-")
    assert schema_and_text(copy) == (1, "kept")
    assert copy.stat().st_mode & 0o077 == 0
    prepare(old, busy_timeout_s=1)
    assert list((old.parent / "backups").iterdir()) == [copy], "nothing was migrated, nothing is copied"


def test_without_room_for_the_copy_nothing_is_migrated(old):
    (old.parent / "backups").write_text("no folder")
    with pytest.raises(StoreRefused, match=r"chat\.db: cannot be copied into .*backups before its migration: .*; nothing was changed"):
        prepare(old, busy_timeout_s=1)
    assert schema_and_text(old) == (1, "kept")


def test_a_look_beforehand_refuses_the_same_and_touches_nothing(old):
    before = old.read_bytes()
    check(old, 1)
    check(old.with_name("none.db"), 1)
    assert old.read_bytes() == before
    assert {path.name for path in old.parent.iterdir()} <= {"chat.db", "chat.db-wal", "chat.db-shm"}
    old.write_bytes(b"no database" * 100)
    with pytest.raises(StoreRefused, match="nothing was changed"):
        check(old, 1)
