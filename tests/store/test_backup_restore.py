"""Backups and what is put back: whole or not at all, whatever is in the way and wherever it is cut short."""

import fcntl
import json
import os
import random
import re
import sqlite3
import stat

import pytest

from chat.rooms import effects as e
from chat.rooms.moderation import audit
from chat.store import sqlite_audit, sqlite_restore
from chat.store.base import StoreRefused
from chat.store.sqlite_commit import SqliteWriter
from chat.store.sqlite_files import connect, prepare
from tests.admin import lineage
from tests.e2e import trace
from tests.store.build import ANN, LOBBY, do, say, seqs, session


@pytest.fixture(scope="module")
def tracer():
    if reason := trace.reason_not_to_trace():
        pytest.skip(reason)


@pytest.fixture
def house(tmp_path):
    return lineage.make(tmp_path / "data" / "chat.db", "one", "two")


@pytest.fixture
def kept(tmp_path, house):
    lineage.back_up(house, tmp_path / "kept")
    return tmp_path / "kept"


# ---------------------------------------------------------------- taking one


def test_a_backup_is_one_file_with_all_that_belongs_together(tmp_path, house):
    steps = []
    told = lineage.back_up(house, tmp_path / "kept", progress=lambda *step: steps.append(step))
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("kept")] == ["kept"]
    found = sqlite_restore.look_at(tmp_path / "kept")
    assert dict(found.files) == lineage.FILES
    assert (found.manifest["records"], told["records"], told["bytes"]) == (2, 2, (tmp_path / "kept").stat().st_size)
    assert steps[-1][0] == steps[-1][1] > 0


def test_one_that_is_there_is_replaced_only_if_told(tmp_path, house):
    target = tmp_path / "kept"
    lineage.back_up(house, target)
    before = target.read_bytes()
    with pytest.raises(StoreRefused, match="exists already"):
        lineage.back_up(house, target)
    assert target.read_bytes() == before
    lineage.back_up(house, target, replace=True)
    assert sqlite_restore.look_at(target).manifest["records"] == 2


@pytest.mark.parametrize("what", ["text", "nothing", "the database", "its lock", "a link to the database"])
def test_what_is_no_backup_is_never_replaced(tmp_path, house, what):
    target = {"the database": house, "its lock": house.with_name("chat.lock")}.get(what, tmp_path / "kept")
    if what == "a link to the database":
        target.symlink_to(house)
    elif what in ("text", "nothing"):
        target.write_text("precious" if what == "text" else "")
    else:
        target.touch()
    before = target.read_bytes()
    for replace in (False, True):
        with pytest.raises(StoreRefused, match="exists already, and is no backup" if replace else "exists already"):
            lineage.back_up(house, target, replace=replace)
    assert target.read_bytes() == before
    assert not list(target.parent.glob("*.partial"))


def test_what_a_crash_left_over_is_used_again_and_two_at_once_are_kept_apart(tmp_path, house):
    partial = tmp_path / "kept.partial"
    partial.write_bytes(b"rubbish" * 10_000)
    with partial.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreRefused, match="is being made"):
            lineage.back_up(house, tmp_path / "kept")
    lineage.back_up(house, tmp_path / "kept")
    assert not partial.exists()


def test_a_writer_goes_on_and_the_backup_is_of_one_moment(tmp_path, house):
    writer = SqliteWriter(house, busy_timeout_s=1, min_free_bytes=0, now_ms=lambda: 1)
    for n in range(50):
        writer.commit([say("x" * 50_000, f"big-{n}")])
    said = 0

    def interrupt(done, total, what):
        nonlocal said
        said += 1
        writer.commit([say("late", f"late-{said}")])

    lineage.back_up(house, tmp_path / "kept", progress=interrupt)
    writer.close()
    assert said > 1
    assert sqlite_restore.look_at(tmp_path / "kept").manifest["records"] == 52
    (tmp_path / "side").mkdir()
    lineage.restore(tmp_path / "kept", tmp_path / "side" / "chat.db")
    assert "late" not in lineage.texts(tmp_path / "side" / "chat.db")


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, house):
    with pytest.raises(StoreRefused, match="min_free_bytes"):
        lineage.back_up(house, tmp_path / "kept", keep_free=1 << 62)
    assert not list(tmp_path.glob("kept*"))


def test_of_what_is_damaged_no_backup_is_made(tmp_path, house):
    with house.open("r+b") as file:
        file.seek(4096 * 4)
        file.write(b"\xff" * 4096 * 6)
    with pytest.raises(StoreRefused):
        lineage.back_up(house, tmp_path / "kept")
    assert not list(tmp_path.glob("kept*"))


# ---------------------------------------------------------------- putting it back


def test_restored_over_what_was_there(tmp_path, house, kept):
    before = lineage.epochs(house)
    lineage.make(house, "three")
    (house.parent / "key.pem").write_bytes(b"another key")
    aside = lineage.restore(kept, house)
    assert lineage.texts(house) == ["one", "two"]
    assert lineage.texts(aside / "chat.db") == ["one", "two", "three"]
    assert (aside / "key.pem").read_bytes() == b"another key"
    assert (house.parent / "key.pem").read_bytes() == b"a key"
    after = lineage.epochs(house)
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
    assert sorted(path.name for path in house.parent.iterdir()) == sorted(["chat.db", "certificate.pem", "key.pem", aside.name])
    assert not kept.stat().st_mode & 0o077


def test_restored_on_another_machine(tmp_path, kept):
    place = tmp_path / "fresh" / "chat.db"
    place.parent.mkdir()
    assert lineage.restore(kept, place) is None
    assert lineage.texts(place) == ["one", "two"]


def test_a_retry_of_what_was_stored_before_the_backup_is_still_one(tmp_path, house, kept):
    lineage.restore(kept, house)
    prepare(house, busy_timeout_s=1)
    writer = SqliteWriter(house, busy_timeout_s=1, min_free_bytes=0, now_ms=lambda: 1)
    (outcome,) = writer.commit([say("one", "cid-one")])
    assert outcome.dup[:3] == (LOBBY, lineage.epochs(house)[LOBBY], 1)
    assert seqs(writer.commit([say("four", "cid-four")])) == [[3]]
    writer.close()


def test_the_moderation_log_tells_of_it_and_holds(house, kept):
    lineage.restore(kept, house)
    db = connect(house, busy_timeout_s=1)
    assert audit.verify(sqlite_audit.chain(db)).problem is None
    assert db.execute("SELECT actor, action FROM audit").fetchall() == [(0, "restore")]
    db.close()


def sessions(path):
    db = sqlite3.connect(path)
    found = {row[0] for row in db.execute("SELECT session FROM sessions JOIN tokens USING (session)")}
    db.close()
    return found


@pytest.mark.parametrize("how", ["present", "elsewhere", "damaged", "ended"])
def test_who_is_logged_in_afterwards(tmp_path, how):
    house = lineage.make(tmp_path / "data" / "chat.db", "one")
    writer = SqliteWriter(house, busy_timeout_s=1, min_free_bytes=0, now_ms=lambda: 1)
    writer.commit([do(session("stays", ANN, b"1" * 32)), do(session("revoked since", ANN, b"2" * 32))])
    lineage.back_up(house, tmp_path / "kept")
    writer.commit([do(session("new since", ANN, b"3" * 32), drop("revoked since"))])
    writer.close()
    match how:
        case "elsewhere":
            house = tmp_path / "other" / "chat.db"
            house.parent.mkdir()
        case "damaged":
            house.write_bytes(b"nonsense" * 1000)
    lineage.restore(tmp_path / "kept", house, end_sessions=how == "ended")
    expected = {"present": {"stays", "new since"}, "ended": set()}.get(how, {"stays", "revoked since"})
    assert sessions(house) == expected


def drop(name):
    return e.DropSession(session=name, account=ANN)


@pytest.mark.parametrize("what", ["nothing", "text", "empty", "other", "cut", "newer"])
def test_what_is_no_backup_changes_nothing(tmp_path, house, kept, what):
    bad = tmp_path / "bad"
    match what:
        case "text":
            bad.write_text("hello" * 1000)
        case "empty":
            bad.touch()
        case "other":
            sqlite3.connect(bad).executescript("CREATE TABLE x (y); INSERT INTO x VALUES (1)")
        case "cut":
            bad.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2])
        case "newer":
            bad.write_bytes(kept.read_bytes())
            db = sqlite3.connect(bad)
            db.execute("UPDATE meta SET schema_version = 9999")
            db.commit()
            db.close()
    before = {path: path.read_bytes() for path in house.parent.iterdir()}
    with pytest.raises(StoreRefused):
        lineage.restore(bad, house)
    assert {path: path.read_bytes() for path in house.parent.iterdir()} == before


def test_a_backup_in_the_place_of_a_database_is_refused(house, kept):
    house.write_bytes(kept.read_bytes())
    with pytest.raises(StoreRefused, match="chat restore"):
        prepare(house, busy_timeout_s=1)


# ---------------------------------------------------------------- cut short

CALLS = ("write", "pwrite64", "fsync", "fdatasync", "rename", "unlink", "mkdir", "ftruncate", "flock", "fcntl", "fchmod")
SAMPLES = {False: 8, True: 40}  # in the quick and in the long stage
EVERY = os.environ.get("CHAT_EVERY_CALL") == "1"  # all of them: CHAT_EVERY_CALL=1 pytest -m long tests/store/test_backup_restore.py


def counted(arguments, log):
    """How often each call is made."""
    traced = ["strace", "-f", "-o", str(log), "-e", "trace=" + ",".join(CALLS), *arguments]
    assert lineage.run(traced) == 0
    names = re.findall(r"^\d+ +(\w+)\(", log.read_text(errors="replace"), re.MULTILINE)
    return [(name, n) for name in CALLS for n in range(1, names.count(name) + 1)]


def killed(arguments, call, n):
    trace = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={n}"]
    lineage.run([*trace, *arguments])


def started(house):
    """What a start finds, or why it refuses."""
    try:
        return lineage.texts(house)
    except StoreRefused as refused:
        return str(refused)


def places(all_of_them, long):
    return all_of_them if EVERY else random.Random(7).sample(all_of_them, min(SAMPLES[long], len(all_of_them)))


@pytest.mark.usefixtures("tracer")
@pytest.mark.parametrize("long", [False, pytest.param(True, marks=[pytest.mark.long, pytest.mark.timeout(1200)])])
def test_killed_at_a_call_of_backup_the_next_one_is_whole(tmp_path, house, long):
    target = tmp_path / "kept"
    command = lineage.command("backup", house, target)
    found = places(counted(command, tmp_path / "log"), long)
    for call, n in found:
        killed(command, call, n)
        if target.exists():
            assert sqlite_restore.look_at(target).manifest["records"] == 2, (call, n)
        assert lineage.texts(house) == ["one", "two"]
        lineage.back_up(house, target, replace=True)
        assert not (tmp_path / "kept.partial").exists()


@pytest.mark.usefixtures("tracer")
@pytest.mark.parametrize("long", [False, pytest.param(True, marks=[pytest.mark.long, pytest.mark.timeout(1200)])])
def test_killed_at_a_call_of_restore_the_next_start_works_or_says_what_to_do(tmp_path, kept, long):
    outcomes = set()

    def fresh(name):
        return lineage.make(tmp_path / name / "chat.db", "one", "other", "more")

    found = places(counted(lineage.command("restore", kept, fresh("first")), tmp_path / "log"), long)
    for number, (call, n) in enumerate(found):
        house = fresh(f"house-{number}")
        killed(lineage.command("restore", kept, house), call, n)
        said = started(house)
        assert said in (["one", "other", "more"], ["one", "two"]) or "run chat restore FILE again" in said, (call, n)
        outcomes.add(len(said) if isinstance(said, list) else "refused")
        lineage.restore(kept, house)
        assert lineage.texts(house) == ["one", "two"]
        asides = [folder / "chat.db" for folder in house.parent.glob("before-restore-*") if (folder / "chat.db").exists()]
        assert ["one", "other", "more"] in [lineage.texts(aside) for aside in asides], (call, n)  # never lost
    if EVERY:
        assert outcomes == {3, 2, "refused"}


def test_a_restore_that_was_cut_short_keeps_what_was_there_first(tmp_path, house, kept):
    """The note says where the old files are; they are not covered by those of the first attempt."""
    aside = house.parent / "before-restore-x"
    aside.mkdir()
    house.rename(aside / "chat.db")
    (house.parent / "restoring.json").write_text(json.dumps({"aside": aside.name}))
    with pytest.raises(StoreRefused, match="cut short"):
        prepare(house, busy_timeout_s=1)
    assert not house.exists()
    assert lineage.restore(kept, house) == aside
    assert lineage.texts(house) == lineage.texts(aside / "chat.db") == ["one", "two"]
