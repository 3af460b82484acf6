"""Whatever actions come in whatever batches, SQLite does what a naive model does: one action after the other, in plain dictionaries."""

import contextlib
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from chat.rooms import effects as e
from chat.rooms.effects import Append, Pair
from chat.rooms.moderation import audit
from chat.rooms.rules import effects as rx
from chat.store import sqlite_audit, sqlite_read, sqlite_rules
from chat.store.base import CommitFailed
from chat.store.sqlite_commit import SqliteWriter
from chat.store.sqlite_files import connect, prepare
from tests.store.build import ANN, BOB, CAT, DEN, LOBBY, OWNER, digest, do, member, refused, room, say, world

PEOPLE = [OWNER, ANN, BOB, CAT]
people = st.sampled_from(PEOPLE)
rooms = st.sampled_from([LOBBY, DEN, 103])
pairs = st.builds(Pair.of, people, people)
cids = st.none() | st.sampled_from(["c1", "c2", "c3"])


@st.composite
def actions(draw):
    who, cid = draw(people), draw(cids)
    match draw(st.integers(0, 12)):
        case 0 | 1 | 2 | 3:
            conv = draw(rooms | pairs)
            return say(draw(st.sampled_from("ab")), cid, who=who, conv=conv, reply_to=draw(st.none() | st.integers(0, 4)))
        case 4:
            return refused(cid, draw(st.sampled_from("ab")), who=who, conv=draw(rooms))
        case 5:
            return do(who=who, conversations=True)
        case 6:
            return do(member(draw(rooms), draw(people), draw(st.sampled_from(["member", "owner"]))), who=who)
        case 7:
            return do(e.DropMember(room=draw(rooms), account=draw(people)), who=who)
        case 8:
            conv = draw(rooms)
            body = {"user": who, "text": "t"}
            effects = e.SetTopic(room=conv, text="t"), Append(conv=conv, kind="topic", author=who, body=body)
            return do(*effects, who=who, cid=cid, digest=digest(conv, "topic"), result=b"done" if cid else None)
        case 9:
            conv, whom = draw(rooms), draw(people)
            logged = audit.entry(who, "kick", target=whom, room=conv, reason=draw(st.none() | st.just("rude")))
            mute = e.PutMute(room=conv, account=whom, by=who, at_ms=1, until_ms=None, reason=None)
            effects = (logged, draw(st.sampled_from([e.DropMember(room=conv, account=whom), mute])))
            return do(*draw(st.permutations(effects)), who=who, cid=cid, digest=digest(conv, "kick"), result=b"done" if cid else None)
        case 10:
            conv, whom = draw(rooms), draw(people)
            report = rx.PutReport(by=who, target=whom, room=draw(st.sampled_from([conv, None])), at_ms=1, reason=None)
            before = draw(st.sampled_from([(), (Append(conv=LOBBY, kind="message", author=who, body="just now"),)]))
            return do(*before, report, who=who)
        case 11:
            conv, whom = draw(rooms), draw(people)
            effects = [
                rx.SetRoomSetting(room=conv, key="slow_s", value=5),
                rx.SetRoomSetting(room=conv, key="slow_s", value=0),
                rx.PutFilter(room=conv, pattern="spam", by=who, at_ms=1),
                rx.DropFilter(room=conv, pattern="spam"),
                rx.PutIgnore(account=who, ignored=whom, at_ms=1),
                rx.DropIgnore(account=who, ignored=whom),
                rx.SetSetting(key="lockdown", value="members"),
                rx.SetSetting(key="lockdown", value=None),
            ]
            return do(draw(st.sampled_from(effects)), who=who)
        case _:
            conv = draw(rooms)
            return do(draw(st.sampled_from([e.DeleteRoom(room=conv), room(conv, f"r{conv}", epoch="e" * 8)])), who=who)


class Refusal(Exception):
    pass


class Model:
    def __init__(self):
        self.records = {LOBBY: [], DEN: []}
        self.pairs = {}
        self.members = {LOBBY: dict.fromkeys(PEOPLE, "member"), DEN: {OWNER: "owner"}}
        self.cids = {}
        self.log = []  # of each entry: by whom, to whom
        self.from_seq = {(conv, account): 1 for conv, members in self.members.items() for account in members}
        self.reports = []  # by whom, about whom, what was said before it
        self.slow, self.filters, self.ignores, self.settings = {LOBBY: 0, DEN: 0}, set(), set(), {}

    def run(self, action):
        """What became of it: an error's code, ("dup", what) or the list of (conv, seq), and the conversations."""
        key = action.account, action.cid
        if action.cid is not None and key in self.cids:
            known, what = self.cids[key]
            return ("dup", what) if known == action.digest else "cid_conflict"
        if action.refusal is not None:
            return action.refusal.code
        placed, log = [], len(self.log)
        for effect in action.effects:
            if (error := self.check(effect)) is not None:
                if isinstance(effect, Append):
                    return error  # the first of its action, or its room would have been missed before
                del self.log[log:]
                raise Refusal
            self.apply(effect, placed)
        if action.cid is not None:
            self.cids[key] = action.digest, action.result if action.result is not None else placed[0]
        return placed

    def conv_of(self, conv):
        return self.pairs.setdefault(conv, ("pair", conv)) if isinstance(conv, Pair) else conv

    def check(self, effect):
        match effect:
            case Append(conv=conv, reply_to=reply_to):
                if not isinstance(conv, Pair) and conv not in self.records:
                    return "not_found"
                seen = len(self.records.get(("pair", conv) if isinstance(conv, Pair) else conv, ()))
                return "bad_request" if reply_to is not None and not 1 <= reply_to <= seen else None
            case e.CreateRoom(room=conv):
                return "taken" if conv in self.members else None
            case e.PutMember(room=conv) | e.SetTopic(room=conv) | e.DeleteRoom(room=conv) | e.PutMute(room=conv):
                return None if conv in self.members else "not_found"

    def apply(self, effect, placed):
        match effect:
            case Append():
                records = self.records.setdefault(self.conv_of(effect.conv), [])
                records.append(effect.body)
                placed.append((self.conv_of(effect.conv), len(records)))
            case e.Audit(actor=actor, target=target):
                self.log.append((actor, target))
            case e.CreateRoom(room=conv):
                self.records[conv], self.members[conv], self.slow[conv] = [], {}, 0
            case e.DeleteRoom(room=conv):
                del self.records[conv], self.members[conv], self.slow[conv]
                self.filters.discard(conv)
                self.from_seq = {key: seq for key, seq in self.from_seq.items() if key[0] != conv}
            case e.PutMember(room=conv, account=account, role=role):
                if account not in self.members[conv]:
                    self.from_seq[conv, account] = len(self.records[conv]) + 1  # what comes is the first that it sees
                self.members[conv][account] = role
            case e.DropMember(room=conv, account=account):
                self.members.get(conv, {}).pop(account, None)
                self.from_seq.pop((conv, account), None)
            case rx.PutReport(by=by, target=target, room=conv):
                said = self.records.get(("pair", Pair.of(by, target)) if conv is None else conv, [])
                self.reports.append((by, target, [text for text in said if isinstance(text, str)][-20:]))
            case rx.SetRoomSetting(room=conv, value=value):
                if conv in self.slow:
                    self.slow[conv] = value
            case rx.PutFilter(room=conv):
                self.filters.add(conv)
            case rx.DropFilter(room=conv):
                self.filters.discard(conv)
            case rx.PutIgnore(account=account, ignored=ignored):
                self.ignores.add((account, ignored))
            case rx.DropIgnore(account=account, ignored=ignored):
                self.ignores.discard((account, ignored))
            case rx.SetSetting(value=value):
                self.settings = {"lockdown": value} if value is not None else {}

    def conversations(self, account):
        found = {conv: (members[account], len(self.records[conv])) for conv, members in self.members.items() if account in members}
        for pair, conv in self.pairs.items():
            if account in (pair.low, pair.high):
                found[conv] = "member", len(self.records[conv])
        return found


@cache
def template():
    with TemporaryDirectory() as folder:
        file = Path(folder) / "chat.sqlite3"
        prepare(file, busy_timeout_s=1)
        return file.read_bytes()


@contextlib.contextmanager
def opened():
    with TemporaryDirectory() as folder:
        file = Path(folder) / "chat.sqlite3"
        file.write_bytes(template())
        writer = SqliteWriter(file, busy_timeout_s=1, min_free_bytes=0, now_ms=lambda: 1)
        writer._db.execute("PRAGMA synchronous = OFF")  # nothing is cut short here
        writer.commit(world())
        with contextlib.closing(writer), contextlib.closing(connect(file, busy_timeout_s=1, read_only=True)) as reader:
            yield writer, reader


@given(st.lists(st.lists(actions(), min_size=1, max_size=12), max_size=8))
def test_batches_do_what_a_naive_model_does(batches):
    with opened() as (writer, reader):
        model, numbers = Model(), {}  # numbers: those that the store gave to pairs
        for generation, batch in enumerate(batches):
            for action in batch:
                action.generation = generation
            try:
                outcomes = writer.commit(batch)
            except CommitFailed:
                outcomes = writer.commit_one_by_one(batch)
            adrift = False
            for action, outcome in zip(batch, outcomes, strict=True):
                assert outcome.action is action
                if adrift and outcome.error is not None and outcome.error.code == "storage_unavailable":
                    assert action.effects
                    continue
                try:
                    expected = model.run(action)
                except Refusal:
                    assert outcome.error is not None
                    adrift = True
                    continue
                if any(not isinstance(effect, Append) for effect in action.effects) and not isinstance(expected, list):
                    adrift = True
                check(model, numbers, outcome, expected)
                if action.conversations:
                    seen = {numbers.get(each.conv, each.conv): (each.role, each.last_seq) for each in outcome.conversations}
                    assert seen == model.conversations(action.account)
        entries = list(sqlite_audit.chain(reader))
        assert [(entry.actor, entry.target) for entry in entries] == model.log
        assert audit.verify(entries).problem is None
        model_agrees_about_rules(model, reader, sqlite_read.load(reader))
        rows = reader.execute("SELECT conv, seq FROM records WHERE conv NOT IN (SELECT conv FROM purges) ORDER BY conv, seq").fetchall()
        stored = {}
        for conv, seq in rows:
            stored.setdefault(numbers.get(conv, conv), []).append(seq)
        assert stored == {conv: list(range(1, len(records) + 1)) for conv, records in model.records.items() if records}


def model_agrees_about_rules(model, reader, snapshot):
    from_seq = {(room, account): seq for room, account, seq in reader.execute("SELECT room, account, from_seq FROM members")}
    assert from_seq == model.from_seq
    reports = sorted(sqlite_rules.reports(reader, rooms=None, limit=10_000), key=lambda row: row.report)
    assert [(row.by, row.target, [text for *_, text in row.around]) for row in reports] == model.reports
    assert {room.room: room.slow_s for room in snapshot.rooms} == model.slow
    assert {room for room, _, _, _ in snapshot.filters} == model.filters
    assert set(snapshot.ignores) == model.ignores
    assert snapshot.settings == model.settings


def check(model, numbers, outcome, expected):
    def named(conv, action):
        wanted = action.effects[0].conv if action.effects and isinstance(action.effects[0], Append) else conv
        if isinstance(wanted, Pair):
            numbers[conv] = model.conv_of(wanted)
        return numbers.get(conv, conv)

    match expected:
        case str():
            assert outcome.error is not None
            assert outcome.error.code == expected
        case ("dup", what):
            assert outcome.error is None
            assert outcome.placed == []
            assert what == outcome.dup or what == (numbers.get(outcome.dup[0], outcome.dup[0]), outcome.dup[2])
        case _:
            assert outcome.error is None
            assert outcome.dup is None
            assert [(named(placed.conv, outcome.action), placed.seq) for placed in outcome.placed] == expected
