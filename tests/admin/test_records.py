"""Search finds what a look at every text finds, whatever the database left out for it beforehand."""

import sqlite3

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chat.admin import look, records
from chat.admin.client import Refused
from chat.store.migrate import migrate_sqlite

NAMES = {1: "ann", 2: "bob"}
SURPRISES = "sSkKiIfl%_\\ß\u017f\u212a\ufb01\u0130é🍕 \n"  # letters that fold to others, and what means something to LIKE
TEXTS = st.text(SURPRISES, min_size=1, max_size=8) | st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8)
WORDS = st.text(SURPRISES, min_size=1, max_size=4)
RECORDS = st.lists(st.tuples(st.sampled_from(("message", "joined")), st.sampled_from(sorted(NAMES)), st.none() | TEXTS), max_size=8)


@pytest.fixture(scope="module")
def db():
    db = sqlite3.connect(":memory:", isolation_level=None)
    migrate_sqlite(db)
    accounts = "INSERT INTO accounts (id, name, canonical, skeleton, password_hash, role, at_ms) VALUES (?1, ?2, ?2, ?2, '', 'member', 0)"
    db.executemany(accounts, NAMES.items())
    db.row_factory = look.as_dict
    yield db
    db.close()


def said(db, rows, first=1):
    """A room in which *rows* are the records from *first* on, one in each millisecond."""
    db.execute("DELETE FROM records")
    db.execute("DELETE FROM conversations")
    db.execute("INSERT INTO conversations (id, kind, epoch, at_ms, name, canonical, skeleton) VALUES (1, 'room', 'e', 0, 'a', 'a', 'a')")
    db.executemany(
        "INSERT INTO records (conv, seq, ts, kind, author, body) VALUES (1, ?, ?, ?, ?, ?)",
        [(seq, seq, kind, author, body if kind == "message" else '{"user": 1}') for seq, (kind, author, body) in enumerate(rows, first)],
    )


def found(db, words, *, user=None, since_ms=0, progress=lambda done, total, what: None):
    return [r["seq"] for r in records.search(db, words, channel=None, user=user, since_ms=since_ms, private=False, progress=progress)]


@given(rows=RECORDS, words=WORDS, user=st.sampled_from((None, "ann")), since_ms=st.integers(0, 9))
@example(rows=[("message", 1, "a \u212a")], words="k", user=None, since_ms=0)
@example(rows=[("message", 1, "ﬁne"), ("message", 1, "Fine"), ("message", 1, "fine\x00")], words="FI", user=None, since_ms=0)
@example(rows=[("message", 1, "100%"), ("message", 1, "1000")], words="100%", user=None, since_ms=0)
@example(rows=[("message", 1, "a\\b")], words="A\\B", user=None, since_ms=0)
@example(rows=[("message", 1, "É")], words="é", user=None, since_ms=0)
@example(rows=[("joined", 1, "")], words="user", user=None, since_ms=0)
@example(rows=[("message", 1, "a"), ("message", 2, "a"), ("message", 1, "a")], words="a", user="ann", since_ms=1)
def test_what_a_look_at_every_text_finds(db, rows, words, user, since_ms):
    said(db, rows)
    wanted = words.casefold().split()
    if not wanted:
        with pytest.raises(Refused):
            found(db, words)
        return
    expected = [
        seq
        for seq, (kind, author, body) in enumerate(rows, 1)
        if kind == "message" and body is not None and user in (None, NAMES[author]) and seq >= since_ms
        if all(word in body.casefold() for word in wanted)
    ]
    assert found(db, words, user=user, since_ms=since_ms) == expected


def test_all_pieces_are_looked_at_and_only_those_that_are_there(db, monkeypatch):
    monkeypatch.setattr(records, "PIECE", 3)
    said(db, [("message", 1, f"text {n}") for n in range(10)], first=1_000_001)
    told = []
    assert found(db, "TEXT", progress=lambda done, total, what: told.append((done, total))) == list(range(1_000_001, 1_000_011))
    assert told == [(3, 10), (6, 10), (9, 10), (10, 10)]


@pytest.mark.parametrize("word", ["x" * 70_000, "é" * 70_000])
def test_a_word_longer_than_any_text(db, word):
    said(db, [("message", 1, "x")])
    assert found(db, word) == []
