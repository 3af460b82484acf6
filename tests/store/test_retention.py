"""How long records are kept: where the cut is, that only the oldest go, in steps, and that what is left keeps its place."""

import pytest

from chat.rooms import effects as e
from chat.rooms.effects import Pair
from chat.store import retention, sqlite_read
from chat.store.retention import Keep
from chat.store.sqlite_commit import SqliteWriter
from chat.store.sqlite_files import prepare
from tests.store.build import ANN, BOB, DEN, LOBBY, OWNER, do, say, seqs, world

DAY = 24 * 3600 * 1000


class Store:
    def __init__(self, path):
        self.now = DAY
        prepare(path, busy_timeout_s=1)
        self.writer = SqliteWriter(path, busy_timeout_s=1, min_free_bytes=0, now_ms=lambda: self.now)
        self.db = self.writer._db
        self.writer.commit(world())

    def say(self, *texts, conv=LOBBY, who=ANN):
        return seqs(self.writer.commit([say(text, conv=conv, who=who) for text in texts]))

    def set(self, room=None, keep_ms=None, keep_bytes=None):
        self.writer.commit([do(e.SetRetention(room=room, keep_ms=keep_ms, keep_bytes=keep_bytes))])

    def cuts(self, instead=None):
        return {cut.name: (cut.below, cut.records, cut.bytes) for cut in retention.cuts(self.db, self.now, instead)}

    def trim(self, rows=2):
        steps = 0
        for cut in retention.cuts(self.db, self.now):
            while self.writer.trim(cut.conv, cut.below, rows=rows):
                steps += 1
        return steps

    def page(self, conv=LOBBY, **how):
        page = sqlite_read.history(self.db, conv, how.get("after"), how.get("before"), 100, 10**6)
        return page.first_seq, [row.seq for row in page.rows], page.last_seq


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "chat.db")
    yield store
    store.writer.close()


def test_without_one_everything_stays(store):
    store.say("a", "b")
    assert store.cuts() == {}
    assert store.page() == (1, [1, 2], 2)
    assert store.page(DEN) == (0, [], 0)


def test_by_age_the_oldest_go_and_seqs_stay(store):
    store.say("old", "old too", "old three")
    store.now += 10 * DAY
    store.say("new")
    store.set(keep_ms=5 * DAY)
    assert store.cuts() == {"#lobby": (4, 3, 19)}
    assert store.trim(rows=1) == 2  # in steps
    assert store.page() == (4, [4], 4)
    assert store.page(after=0) == (4, [4], 4)
    assert store.cuts() == {}
    assert store.say("next") == [[5]]
    store.now += 10 * DAY
    store.trim()
    assert store.page() == (6, [], 5)
    assert store.say("after the end") == [[6]]


def test_by_size_the_newest_are_kept(store):
    store.say("x" * 10, "y" * 10, "z" * 10)
    store.set(LOBBY, keep_bytes=25)
    assert store.cuts() == {"#lobby": (2, 1, 10)}
    store.set(LOBBY, keep_bytes=5)
    store.trim()
    assert store.page() == (4, [], 3)


@pytest.mark.parametrize(("own", "kept"), [(None, False), (0, True), (30 * DAY, True), (2 * DAY, False)])
def test_a_channel_has_its_own_or_the_servers(store, own, kept):
    store.say("old", conv=DEN, who=OWNER)
    store.now += 10 * DAY
    store.set(keep_ms=5 * DAY)
    store.set(DEN, keep_ms=own)
    store.trim()
    assert (store.page(DEN)[1] == [1]) == kept


def test_private_conversations_have_the_servers(store):
    store.say("old", conv=Pair.of(ANN, BOB))
    store.now += 10 * DAY
    store.set(keep_ms=5 * DAY)
    assert store.cuts() == {"@ann and @bob": (2, 1, 3)}


def test_what_would_be_is_asked_without_being_set(store):
    store.say("old", "old")
    store.now += 10 * DAY
    assert store.cuts({None: Keep(ms=DAY)}) == {"#lobby": (3, 2, 6)}
    assert store.cuts({LOBBY: Keep(bytes=3)}) == {"#lobby": (2, 1, 3)}
    assert store.cuts() == {}


def test_a_cut_of_later_texts_than_were_seen_takes_none_of_them(store):
    store.say("old")
    store.now += 10 * DAY
    store.set(keep_ms=DAY)
    (cut,) = retention.cuts(store.db, store.now)
    store.say("new")
    assert not store.writer.trim(cut.conv, cut.below)
    assert store.page() == (2, [2], 2)
