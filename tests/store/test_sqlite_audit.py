"""The moderation log on disk, as `chat audit verify` reads it, and what tampering does to it."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner

from chat.cli import main
from chat.errors import ChatError
from chat.rooms import effects as e
from chat.rooms.moderation import audit
from chat.store import sqlite_audit
from chat.store.base import CommitFailed, changes_state, stores
from chat.store.sqlite_commit import SqliteWriter
from chat.store.sqlite_files import prepare
from tests.store.build import ANN, BOB, DEN, LOBBY, OWNER, do, member, room, say, world


@pytest.fixture
def file(tmp_path):
    prepare(tmp_path / "chat.db", busy_timeout_s=1)
    return tmp_path / "chat.db"


@pytest.fixture
def writer(file):
    with contextlib.closing(SqliteWriter(file, busy_timeout_s=1, min_free_bytes=0, now_ms=lambda: 5000)) as writer:
        writer.commit(world())
        yield writer


def kick(target=BOB, conv=LOBBY, reason=None):
    return do(e.DropMember(room=conv, account=target), audit.entry(OWNER, "kick", target=target, room=conv, reason=reason))


def entries(writer):
    return list(sqlite_audit.chain(writer._db))


def test_an_action_writes_its_entry(writer):
    writer.commit([kick(reason="spam"), say("a"), kick(ANN)])
    first, second = entries(writer)
    assert (first.n, first.at_ms, first.actor, first.action, first.target, first.room, first.reason) == (
        1, 5000, OWNER, "kick", BOB, LOBBY, "spam",
    )  # fmt: skip
    assert (second.n, second.target) == (2, ANN)
    assert audit.verify(entries(writer)).problem is None


def test_an_entry_is_stored_with_its_action_or_not_at_all(writer):
    spoiled = do(audit.entry(OWNER, "kick", target=BOB), member(999, BOB))  # there is no such room
    batch = [kick(), spoiled, kick(ANN)]
    with pytest.raises(CommitFailed):
        writer.commit(batch)
    assert entries(writer) == []
    _, second, third = writer.commit_one_by_one(batch)
    assert second.error.code == "not_found"
    assert third.error.code == "storage_unavailable"  # it was decided on what never was
    assert [(entry.n, entry.target) for entry in entries(writer)] == [(1, BOB)]
    writer.commit([kick(ANN)])
    assert audit.verify(entries(writer)) == audit.Verdict(entries=2, head=entries(writer)[-1].hash, erased=0, problem=None, noted=None)


def test_a_retry_writes_no_second_entry(writer):
    action = do(audit.entry(OWNER, "broadcast", after={"text": "hi"}), cid="c1", digest=b"x", result=b"{}")
    writer.commit([action])
    again = do(audit.entry(OWNER, "broadcast", after={"text": "hi"}), cid="c1", digest=b"x", result=b"{}")
    assert writer.commit([again])[0].dup == b"{}"
    assert len(entries(writer)) == 1


def test_it_is_stored_and_no_decision_rests_on_it():
    action = do(audit.entry(OWNER, "broadcast"))
    assert stores(action)
    assert not changes_state(action)
    assert not stores(e.Action(effects=action.effects, refusal=ChatError("forbidden", "no")))


def test_the_latest_first_by_target_and_by_room(writer):
    writer.commit([kick(), kick(ANN), kick(BOB, DEN), do(audit.entry(OWNER, "ban", target=BOB)), do(room(103, "x"))])
    latest = lambda **wanted: [entry.n for entry in sqlite_audit.latest(writer._db, **{"limit": 10, **wanted})]  # noqa: E731
    assert latest() == [4, 3, 2, 1]
    assert latest(limit=2) == [4, 3]
    assert latest(limit=2, before=3) == [2, 1]
    assert latest(target=BOB) == [4, 3, 1]
    assert latest(rooms=[LOBBY]) == [2, 1]
    assert latest(rooms=[LOBBY, DEN], target=BOB) == [3, 1]
    assert latest(rooms=[]) == []


def test_a_chain_longer_than_one_question(writer, monkeypatch):
    monkeypatch.setattr(sqlite_audit, "ROWS", 3)
    writer.commit([kick() for _ in range(10)])
    assert audit.verify(entries(writer)).entries == 10


# ---------------------------------------------------------------- chat audit verify


def run(file: Path, *arguments: str):
    return CliRunner().invoke(main, ["audit", "verify", "--data-dir", str(file.parent), *arguments], catch_exceptions=False)


@pytest.fixture
def tampered(file, writer):
    """Five entries, and a way to change them behind the writer's back. The writer stays open, as a server's would."""
    writer.commit([kick(reason=f"reason {n}") for n in range(1, 6)])

    def change(*statements):
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as db:
            for statement in statements:
                db.execute(statement)
        return run(file)

    return change


def head_of(done):
    return done.stdout.partition("head ")[2].split()[0]


def test_a_whole_chain_and_its_head(file, writer, tampered):
    done = run(file)
    assert done.exit_code == 0
    assert "The chain holds: 5 entries." in done.stdout
    assert "cut off at its end" in done.stdout
    head = head_of(done)
    assert head == entries(writer)[-1].hash.hex()
    writer.commit([kick()])
    later = run(file, "--head", head.upper())
    assert later.exit_code == 0
    assert "6 entries" in later.stdout
    assert "that of entry 5" in later.stdout


@pytest.mark.parametrize(
    ("statements", "told"),
    [
        (["UPDATE audit SET reason = 'nothing' WHERE n = 3"], "entry 3: its reason, before or after was changed"),
        (["UPDATE audit SET actor = 33 WHERE n = 3"], "entry 3 was changed"),
        (["UPDATE audit SET at_ms = at_ms + 1 WHERE n = 1"], "entry 1 was changed"),
        (["DELETE FROM audit WHERE n = 3"], "entry 3 is missing"),
        (["DELETE FROM audit WHERE n < 3"], "entries 1 to 2 are missing"),
        (["DELETE FROM audit WHERE n = 3", "UPDATE audit SET n = n - 1 WHERE n > 3"], "entry 3 was changed"),
        (
            ["UPDATE audit SET n = 100 WHERE n = 2", "UPDATE audit SET n = 2 WHERE n = 3", "UPDATE audit SET n = 3 WHERE n = 100"],
            "entry 2 was changed",
        ),
        (["UPDATE audit SET n = 0 WHERE n = 2"], "entry 0 stands where 1 should"),
        (["UPDATE audit SET salt = NULL WHERE n = 4"], "entry 4: its texts count as erased, and there are some"),
    ],
)  # fmt: skip
def test_tampering_is_found(tampered, statements, told):
    done = tampered(*statements)
    assert done.exit_code == 1
    assert "tampered with" in done.stderr
    assert told in done.stderr


def test_erased_texts_are_counted_and_no_harm(tampered):
    done = tampered("UPDATE audit SET salt = NULL, reason = NULL, before = NULL, after = NULL WHERE n = 2")
    assert done.exit_code == 0
    assert "5 entries, the texts of 1 erased" in done.stdout


def test_a_cut_tail_is_found_with_the_noted_head_only(file, tampered):
    head = head_of(run(file))
    cut = tampered("DELETE FROM audit WHERE n > 3")
    assert cut.exit_code == 0  # nobody can know
    assert "3 entries" in cut.stdout
    compared = run(file, "--head", head)
    assert compared.exit_code == 1
    assert "no entry has the noted head" in compared.stderr


def test_a_head_that_is_none_and_a_database_that_is_not_there(file, tmp_path):
    assert run(file, "--head", "abc").exit_code == 2
    done = CliRunner().invoke(main, ["audit", "verify", "--data-dir", str(tmp_path / "nowhere")], catch_exceptions=False)
    assert done.exit_code == 1
    assert "there is no database" in done.stderr
