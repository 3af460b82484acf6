"""What can go wrong under the writer, and what is certain afterwards."""

import contextlib
import errno
import os
import random
import sqlite3
import subprocess
import time

import pytest

from chat.rooms import effects as e
from chat.rooms.effects import Append, Pair
from chat.store import sqlite_commit
from chat.store.base import CommitFailed
from chat.store.sqlite_commit import SqliteWriter
from chat.store.sqlite_files import prepare
from tests.store.build import ANN, BOB, CAT, DEN, LOBBY, OWNER, do, member, refused, room, say, seqs, session, start, world
from tests.store.faults import Faults, error


def open_writer(folder, **more):
    folder.mkdir(exist_ok=True)
    prepare(folder / "chat.sqlite3", busy_timeout_s=1)
    return SqliteWriter(folder / "chat.sqlite3", **{"busy_timeout_s": 0.05, "min_free_bytes": 0, "now_ms": lambda: 1, **more})


@pytest.fixture
def writer(tmp_path):
    with contextlib.closing(open_writer(tmp_path / "data")) as writer:
        writer.commit(world())
        yield writer


def stored(writer):
    """conv → texts, through a connection of its own."""
    with contextlib.closing(sqlite3.connect(writer.path)) as db:
        found = {}
        for conv, seq, body in db.execute("SELECT conv, seq, body FROM records ORDER BY conv, seq"):
            found.setdefault(conv, []).append(body)
            assert len(found[conv]) == seq
        heads = dict(db.execute("SELECT id, last_seq FROM conversations WHERE last_seq > 0"))
        assert heads == {conv: len(bodies) for conv, bodies in found.items()}
        return found


def attempt(writer, actions):
    """How it failed and None, or None and the outcomes."""
    try:
        return None, writer.commit(actions)
    except CommitFailed as failed:
        return (failed.code, "definite" if failed.definite else "indeterminate"), None


def batch():
    """Something of everything."""
    return [
        say("a", "c1"),
        say("p", "c2", conv=Pair.of(ANN, OWNER)),
        do(room(103, "new"), member(103, ANN), Append(conv=103, kind="joined", author=ANN, body={"user": ANN})),
        do(session("s", ANN, b"t"), conversations=True),
        do(e.SetTopic(room=DEN, text="t"), cid="c3", digest=b"d", result=b"r"),
        do(e.DeleteRoom(room=DEN)),
        refused("c4"),
        say("b", "c5"),
    ]


# ---------------------------------------------------------------- the nth statement


def test_whichever_statement_fails_nothing_is_stored_and_the_next_attempt_is_whole(writer):
    faults = Faults(writer)
    before = stored(writer)
    at, failures = 0, 0
    while True:
        left = [at]

        def fail(sql, left=left):
            if left[0] == 0:
                left[0] = -1
                raise error(sqlite3.SQLITE_IOERR_READ)
            left[0] -= 1

        faults.before = fail
        fate, outcomes = attempt(writer, batch())
        if outcomes:
            break
        assert fate == ("storage_unavailable", "definite")
        assert stored(writer) == before
        assert writer.load().sessions == []
        faults.heal()
        at, failures = at + 1, failures + 1
    assert failures >= 20
    assert seqs(outcomes) == [[1], [1], [1], [], [], [], "rate_limited", [2]]
    assert stored(writer)[LOBBY] == ["a", "b"]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (sqlite3.SQLITE_FULL, "storage_full"),
        (sqlite3.SQLITE_IOERR_WRITE, "storage_unavailable"),
        (sqlite3.SQLITE_NOMEM, "storage_unavailable"),
    ],
)
def test_an_error_before_commit_is_definite(writer, code, told):
    faults = Faults(writer)
    faults.fail("INSERT INTO cids", code, times=1)
    with pytest.raises(CommitFailed) as failed:
        writer.commit([say("a", "c1")])
    assert (failed.value.code, failed.value.definite, failed.value.one_row) == (told, True, False)
    assert faults.count("UPDATE meta") == 0
    assert seqs(writer.commit([say("a", "c1")])) == [[1]]


def test_the_connection_is_opened_anew_after_an_io_error_only(writer):
    for code, reopened in [(sqlite3.SQLITE_FULL, 0), (sqlite3.SQLITE_IOERR_READ, 1)]:
        faults = Faults(writer)
        faults.fail("INSERT INTO records", code, times=1)
        with pytest.raises(CommitFailed):
            writer.commit([say("a")])
        writer.commit([say("a")])
        assert faults.reopened == reopened


def test_a_rollback_that_fails_is_made_good(writer):
    faults = Faults(writer)
    faults.fail(("INSERT INTO records", "ROLLBACK"), sqlite3.SQLITE_FULL)
    with pytest.raises(CommitFailed) as failed:
        writer.commit([say("a")])
    assert failed.value.definite
    faults.heal()
    assert seqs(writer.commit([say("b")])) == [[1]]
    assert stored(writer) == {LOBBY: ["b"]}


# ---------------------------------------------------------------- COMMIT itself


def generation(writer):
    with contextlib.closing(sqlite3.connect(writer.path)) as db:
        return db.execute("SELECT generation FROM meta").fetchone()[0]


def test_a_failed_commit_is_definite_once_the_fence_has_committed(writer):
    faults = Faults(writer)
    faults.fail("COMMIT", times=1)
    before = generation(writer)
    with pytest.raises(CommitFailed) as failed:
        writer.commit([say("a", "c1")])
    assert failed.value.definite
    assert generation(writer) == before + 1
    assert seqs(writer.commit([say("a", "c1")])) == [[1]]


@pytest.mark.parametrize("fails", ["BEGIN", "UPDATE meta", "COMMIT"])
def test_without_its_fence_a_failed_commit_is_not_definite(writer, fails):
    faults = Faults(writer)
    failing = []

    def before(sql):
        if sql == "COMMIT":
            failing.append(sql)
            raise error(sqlite3.SQLITE_IOERR_FSYNC)
        if failing and sql.startswith(fails):
            raise error(sqlite3.SQLITE_IOERR_WRITE)

    faults.before = before
    with pytest.raises(CommitFailed) as failed:
        writer.commit([say("a", "c1")])
    assert not failed.value.definite
    with pytest.raises(CommitFailed):
        writer.recover()
    faults.heal()
    before_ = generation(writer)
    writer.recover()
    assert generation(writer) == before_ + 1
    assert seqs(writer.commit([say("a", "c1")])) in ([[1]], ["dup"])
    assert stored(writer) == {LOBBY: ["a"]}


def crash(writer, folder):
    """What the next start would find if the process died now: the file and its log, without the index in shared memory."""
    folder.mkdir()
    for suffix in ("", "-wal"):  # by another process: closing a file of one's own database drops SQLite's locks on it
        subprocess.run(["cp", f"{writer.path}{suffix}", folder / f"chat.sqlite3{suffix}"], check=True)
    with contextlib.closing(open_writer(folder)) as later:
        return stored(later)


def fail_in_the_sync(writer, tmp_path, actions):
    """A COMMIT whose pages have reached the log, commit mark and all, and whose sync fails: SQLite's index does not know of them.

    The pages come from a twin of the store that committed the same.
    """

    def before(sql):
        if sql == "COMMIT":
            twin_folder = tmp_path / "twin"
            twin_folder.mkdir()
            for suffix in ("", "-wal"):
                subprocess.run(["cp", f"{writer.path}{suffix}", twin_folder / f"chat.sqlite3{suffix}"], check=True)
            twin = SqliteWriter(twin_folder / "chat.sqlite3", busy_timeout_s=1, min_free_bytes=0, now_ms=lambda: 1)
            twin.commit(actions())
            subprocess.run(["dd", f"if={twin.path}-wal", f"of={writer.path}-wal", "conv=notrunc", "status=none"], check=True)
            twin.close()
            raise error(sqlite3.SQLITE_IOERR_FSYNC)

    return before


def test_what_a_failed_sync_left_in_the_log_comes_back_unless_fenced(writer, tmp_path):
    """The reason for the fence: without it, what readers never saw is there after a crash."""
    writer.commit([say("before")])
    faults = Faults(writer)
    graft = fail_in_the_sync(writer, tmp_path, lambda: [say("ghost", "c1")])

    def before(sql):
        if sql == "UPDATE meta SET generation = generation + 1":
            raise error(sqlite3.SQLITE_IOERR_WRITE)
        graft(sql)

    faults.before = before
    with pytest.raises(CommitFailed) as failed:
        writer.commit([say("ghost", "c1")])
    assert not failed.value.definite
    assert stored(writer) == {LOBBY: ["before"]}
    assert crash(writer, tmp_path / "unfenced") == {LOBBY: ["before", "ghost"]}

    faults.heal()
    writer.recover()
    assert crash(writer, tmp_path / "fenced") == {LOBBY: ["before"]}


def test_a_definite_failure_never_comes_back(writer, tmp_path):
    writer.commit([say("before")])
    faults = Faults(writer)
    graft = fail_in_the_sync(writer, tmp_path, lambda: [say("ghost", "c1")])

    def before(sql):
        if sql == "COMMIT":
            faults.heal()  # the fence's own COMMIT works
            graft(sql)

    faults.before = before
    with pytest.raises(CommitFailed) as failed:
        writer.commit([say("ghost", "c1")])
    assert failed.value.definite
    assert crash(writer, tmp_path / "crashed") == {LOBBY: ["before"]}
    assert seqs(writer.commit([say("ghost", "c1")])) == [[2]]


# ---------------------------------------------------------------- the disk


def test_a_full_disk_is_seen_before_anything_is_written(writer, monkeypatch):
    monkeypatch.setattr(sqlite_commit, "ROOM_BYTES", 1 << 59)
    writer.min_free_bytes = 1 << 60
    faults = Faults(writer)
    assert attempt(writer, [say("a", "c1")]) == (("storage_full", "definite"), None)
    assert attempt(writer, [do(e.DropMember(room=LOBBY, account=BOB))]) == (("storage_full", "definite"), None)
    with pytest.raises(CommitFailed, match="disk is full"):
        writer.check()
    assert faults.log == []
    outcomes = writer.commit([refused("c1"), do(who=ANN, conversations=True)])
    assert seqs(outcomes) == ["rate_limited", []]
    assert len(outcomes[1].conversations) == 1
    writer.min_free_bytes = 0
    assert seqs(writer.commit([say("a", "c1")])) == [[1]]


def test_on_a_disk_that_is_nearly_full_what_grows_is_refused_and_its_neighbours_are_stored(writer):
    writer.commit([say("before", "c0")])
    assert not writer.low
    writer.min_free_bytes = 1 << 60
    assert writer.low
    left = Append(conv=LOBBY, kind="left", author=BOB, body={"user": BOB})
    outcomes = writer.commit(
        [
            do(session("s", ANN, b"t"), conversations=True),
            say("a", "c1"),
            do(e.DropMember(room=LOBBY, account=BOB), left, cid="c2", digest=b"d", result=b"r"),
            say("p", "c3", conv=Pair.of(ANN, CAT)),
            say("before", "c0"),
            refused("c4"),
            do(session("s2", ANN, b"t2")),
        ]
    )
    assert seqs(outcomes) == [[], "storage_full", [2], "storage_full", "dup", "rate_limited", []]
    assert "nearly full" in outcomes[1].error.message
    assert [row.session for row in writer.load().sessions] == ["s", "s2"]
    with contextlib.closing(sqlite3.connect(writer.path)) as db:
        assert db.execute("SELECT cid FROM cids ORDER BY cid").fetchall() == [("c0",), ("c2",)]
        assert db.execute("SELECT count(*) FROM conversations WHERE kind = 'pair'").fetchone() == (0,)
    writer.min_free_bytes = 0
    assert seqs(writer.commit([say("a", "c1")])) == [[3]]


@pytest.mark.parametrize("how", ["commit", "commit_one_by_one"])
def test_what_rests_on_something_that_was_refused_is_refused_too(writer, how):
    writer.min_free_bytes = 1 << 60
    outcomes = getattr(writer, how)(
        [
            do(room(103, "new"), member(103, ANN), generation=1),
            do(member(103, BOB), generation=1),
            do(member(DEN, BOB), generation=2),
        ]
    )
    assert seqs(outcomes) == ["storage_full", "storage_unavailable", []]
    assert [row.room for row in writer.load().rooms] == [LOBBY, DEN]


def test_texts_alone_are_refused_without_the_lock_for_writing(writer):
    """Whoever floods a nearly full disk makes nobody wait."""
    writer.commit([say("before")])
    writer.min_free_bytes = 1 << 60
    faults = Faults(writer)
    assert seqs(writer.commit([say("a", "c1"), say("b")])) == ["storage_full", "storage_full"]
    assert faults.count("BEGIN IMMEDIATE") == 0


def test_a_disk_that_is_nearly_full_is_told_by_the_look(writer):
    writer.min_free_bytes = 1 << 60
    with pytest.raises(CommitFailed, match="nearly full") as failed:
        writer.check()
    assert failed.value.code == "storage_full"
    assert writer.low


def test_how_much_is_free_is_asked_once_for_a_group(writer, monkeypatch):
    asked = []
    statvfs = sqlite_commit.os.statvfs
    monkeypatch.setattr(sqlite_commit.os, "statvfs", lambda path: asked.append(path) or statvfs(path))
    writer._space_checked_s = float("-inf")
    writer.commit([say(f"text {n}") for n in range(500)])
    writer.commit([say("one more")])  # within SPACE_CHECK_S
    assert len(asked) == 1


def test_a_folder_that_is_gone_is_an_outage_and_no_end(writer):
    """Unmounted, or moved. The daemon looks twice a second."""
    folder, away = writer.path.parent, writer.path.parent.with_name("away")
    folder.rename(away)
    writer._space_checked_s = float("-inf")
    for _ in range(2):
        with pytest.raises(CommitFailed) as failed:
            writer.check()
        assert (failed.value.code, failed.value.definite) == ("storage_unavailable", True)
        assert attempt(writer, [say("a", "c1")]) == (("storage_unavailable", "definite"), None)
    away.rename(folder)
    writer.check()
    assert seqs(writer.commit([say("b", "c1")])) == [[1]]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_folder_that_cannot_be_looked_at_is_an_outage_and_no_end(writer, monkeypatch, number):
    """SQLite's descriptors may work all the while."""
    stat = os.stat

    def fail(path, *args, **kwargs):
        if path == writer.path:
            raise OSError(number, os.strerror(number))
        return stat(path, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", fail)
        with pytest.raises(CommitFailed, match=os.strerror(number)) as failed:
            writer.check()
    assert (failed.value.code, failed.value.definite) == ("storage_unavailable", True)
    writer.check()


def test_a_database_that_cannot_grow_says_storage_full_and_goes_on_when_it_can(writer):
    (pages,) = writer._db.execute("PRAGMA page_count").fetchone()
    writer._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(CommitFailed) as failed:
        writer.commit([say("x" * 9000, f"c{n}") for n in range(50)])
    assert (failed.value.code, failed.value.definite) == ("storage_full", True)
    writer._db.execute("PRAGMA max_page_count = 1000000")
    assert seqs(writer.commit([say("y", "c1")])) == [[1]]
    assert stored(writer) == {LOBBY: ["y"]}


LIMITED = """
import pathlib, resource, sys
from chat.store.base import CommitFailed
from tests.store.build import say, seqs
from tests.store.test_sqlite_commit import open_writer

writer = open_writer(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
told = {}
for n in range(40):
    size = pathlib.Path(str(writer.path) + "-wal").stat().st_size if n else 0
    if n % 4 == 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000 * (n % 7), hard))  # the log cannot take a whole transaction
    try:
        writer.commit([say(f"{n}-{i}", f"c{n}-{i}") for i in range(100)])
        print(n, "stored", flush=True)
    except CommitFailed as failed:
        print(n, "definite" if failed.definite else "indeterminate", flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        if not failed.definite:
            writer.recover()
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
print("end", flush=True)
sys.stdin.read()
"""


def test_real_write_errors(writer, tmp_path):
    """The log cannot grow, in a process of its own, which is killed at the end."""
    writer.close()
    with start(LIMITED, str(writer.path.parent)) as process:
        lines = [line.decode().split() for line in iter(process.stdout.readline, b"end\n")]
        process.kill()
    fates = {int(n): fate for n, fate in lines}
    assert len(fates) == 40
    assert {"stored"} < set(fates.values())
    with contextlib.closing(open_writer(writer.path.parent)) as later:
        there = {text.split("-")[0] for text in stored(later)[LOBBY]}
        assert len(stored(later)[LOBBY]) == 100 * len(there)
    assert {str(n) for n, fate in fates.items() if fate == "stored"} <= there
    assert not {str(n) for n, fate in fates.items() if fate == "definite"} & there


# ---------------------------------------------------------------- other processes

LOCKER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("ready", flush=True)
sys.stdin.readline()
"""


def test_a_database_locked_for_too_long_is_unavailable_and_comes_back(writer):
    writer.commit([say("a", "c1")])
    with start(LOCKER, str(writer.path)) as process:
        began = time.monotonic()
        with pytest.raises(CommitFailed) as failed:
            writer.commit([say("b", "c2")])
        assert time.monotonic() - began >= 0.05
        assert (failed.value.code, failed.value.definite, failed.value.one_row) == ("storage_unavailable", True, False)
        assert seqs(writer.commit([refused("c1", "a"), refused("c2", "b")])) == ["dup", "rate_limited"]  # reading goes on
        assert len(writer.load().accounts) == 4
        process.stdin.close()
    assert seqs(writer.commit([say("b", "c2")])) == [[2]]


KILLED = """
import pathlib, sys
from tests.store.build import say
from tests.store.test_sqlite_commit import open_writer

writer = open_writer(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
n = int(sys.argv[2])
while True:
    outcomes = writer.commit([say(f"{n}.{i}", f"c{n}-{i}", conv=(101, 102)[i % 2]) for i in range(40)])
    print(*(f"{o.placed[0].conv} {o.placed[0].seq} {o.action.effects[0].body}" for o in outcomes), sep="\\n", flush=True)
    n += 1
"""


def test_what_was_stored_is_there_after_sigkill(writer):
    writer.close()
    ledger = {}
    rng = random.Random(7)
    for cycle in range(6):
        with start(KILLED, str(writer.path.parent), str(cycle * 100_000)) as process:
            lines = [process.stdout.readline() for _ in range(rng.randrange(80, 1000))]
            process.kill()
            lines += process.stdout.read().splitlines(keepends=True)  # what it had still said
        for line in lines:
            if line.endswith(b"\n"):
                conv, seq, text = line.split()
                assert ledger.setdefault((int(conv), int(seq)), text.decode()) == text.decode()
        with contextlib.closing(open_writer(writer.path.parent)) as later:
            found = stored(later)  # without gap, the heads agree
            assert sum(map(len, found.values())) % 40 == 0  # whole batches only
            texts = [text for bodies in found.values() for text in bodies]
            assert len(set(texts)) == len(texts)
            for (conv, seq), text in ledger.items():
                assert found[conv][seq - 1] == text
    assert len(ledger) > 1000
