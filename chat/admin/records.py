"""What was said, read from the database in order: for export and search. Each record as its readers see it, with names instead of numbers.

*Search* goes through all records, from the first to the last, and asks nothing of the server. An index (FTS5) would have to be kept with
every message; a scan costs whoever searches, in a process of its own, and nobody else. *Source*: 1,000 texts of 100 bytes with an FTS5
index take 4.0 ms of CPU to store, without 1.4; the scan goes through 2 million records a second, where the database is in memory.
"""

import json
import re
import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Any, Final

from chat.admin import look
from chat.admin.client import Refused

Row = dict[str, Any]
PIECE: Final = 2000  # records of one question
PEOPLE: Final = ("user", "by")


class Names:
    """Who and where, by number."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._people: dict[int, str] = {row["id"]: row["name"] for row in db.execute("SELECT id, name FROM accounts")}
        self.convs: dict[int, str] = {}
        for row in db.execute("SELECT id, name, low, high FROM conversations"):
            pair = " and ".join(sorted(f"@{self.person(row[side])}" for side in ("low", "high")))
            self.convs[row["id"]] = "#" + row["name"] if row["name"] is not None else pair

    def person(self, account: int | None) -> str:
        return self._people.get(account or 0, "server")


def read(db: sqlite3.Connection, names: Names, conv: int, *, after: int = 0, since_ms: int = 0) -> Iterator[Row]:
    """The records of a conversation behind the seq *after*, not older than *since_ms*; a deleted message's text is empty."""
    question = "SELECT seq, ts, kind, author, body, reply_to FROM records WHERE conv = ? AND seq > ? AND ts >= ? ORDER BY seq LIMIT ?"
    while rows := db.execute(question, (conv, after, since_ms, PIECE)).fetchall():
        for row in rows:
            yield _record(names, conv, row)
        after = rows[-1]["seq"]


def _record(names: Names, conv: int, row: Row) -> Row:
    record = {"conv": names.convs[conv], "seq": row["seq"], "ts": row["ts"], "type": row["kind"]}
    if row["kind"] == "message":
        record |= {"from": names.person(row["author"]), "text": row["body"] or ""}
        if row["reply_to"] is not None:
            record["reply_to"] = row["reply_to"]
        return record
    body: Row = json.loads(row["body"])
    return record | {key: names.person(value) if key in PEOPLE else value for key, value in body.items()}


def count(db: sqlite3.Connection, convs: list[int]) -> int:
    """How many records there may be at most."""
    return sum(db.execute("SELECT last_seq FROM conversations WHERE id = ?", (conv,)).fetchone()["last_seq"] for conv in convs)


# ---------------------------------------------------------------- what is exported


def of_channel(db: sqlite3.Connection, raw: str) -> tuple[str, Iterator[Row], int]:
    """Its name, its records, and how many at most. *Raises* Refused."""
    room = look.channel_of(db, raw)
    return "#" + room["name"], read(db, Names(db), room["id"]), room["last_seq"]


def of_person(db: sqlite3.Connection, raw: str) -> tuple[str, Iterator[Row], int]:
    """All that is stored about somebody: the account, where it is a member and logged in, what they wrote in channels, and their private
    conversations, with what others wrote to them there. *Raises* Refused."""
    found = look.account_of(db, raw)
    account, names = found["id"], Names(db)
    pairs = [row["id"] for row in db.execute("SELECT id FROM conversations WHERE low = ?1 OR high = ?1", (account,))]
    rooms = [row["id"] for row in db.execute("SELECT id FROM conversations WHERE kind = 'room'")]

    def everything() -> Iterator[Row]:
        (row,) = db.execute("SELECT name, color, role, at_ms AS since FROM accounts WHERE id = ?", (account,))
        yield {"type": "account", **row}
        for row in db.execute(
            "SELECT '#' || c.name AS conv, m.role, m.at_ms AS since FROM members m JOIN conversations c ON c.id = m.room WHERE account = ?",
            (account,),
        ).fetchall():
            yield {"type": "membership", **row}
        for row in look.sessions(db, account):
            yield {"type": "session", **row}
        for row in db.execute("SELECT address, first_ms, last_ms FROM addresses WHERE account = ?", (account,)).fetchall():
            yield {"type": "address", **row}
        for conv in pairs:
            yield from read(db, names, conv)
        for conv in rooms:
            yield from (record for record in read(db, names, conv) if found["name"] in (record.get("from"), record.get("user")))

    return "@" + str(found["name"]), everything(), count(db, [*pairs, *rooms])


# ---------------------------------------------------------------- search


def search(
    db: sqlite3.Connection,
    words: str,
    *,
    channel: str | None,
    user: str | None,
    since_ms: int,
    private: bool,
    progress: Callable[[int, int, str], None],
) -> Iterator[Row]:
    """Messages in which all of *words* occur, in any case, conversation by conversation, the oldest first. *Raises* Refused."""
    wanted = [word.casefold() for word in words.split()]
    if not wanted:
        raise Refused("expected a word to search for")
    names = Names(db)
    author = look.account_of(db, user)["id"] if user is not None else None
    if channel is not None:
        convs = [look.channel_of(db, channel)["id"]]
    else:
        kinds = "('room', 'pair')" if private else "('room')"
        convs = [row["id"] for row in db.execute(f"SELECT id FROM conversations WHERE kind IN {kinds} ORDER BY last_ts").fetchall()]  # noqa: S608
    spans = [_span(db, conv, since_ms) for conv in convs]
    total, done = sum(map(len, spans)), 0
    values = [_pattern(wanted), author]
    question = """SELECT seq, ts, kind, author, body, reply_to FROM records
        WHERE conv = ?1 AND seq BETWEEN ?2 AND ?3 AND kind = 'message' AND (?5 IS NULL OR author = ?5)
            AND (body LIKE ?4 ESCAPE '\\' OR length(body) <> length(CAST(body AS BLOB))) ORDER BY seq"""
    for conv, span in zip(convs, spans, strict=True):
        for first in span[::PIECE]:
            last = min(first + PIECE - 1, span[-1])
            for row in db.execute(question, (conv, first, last, *values)).fetchall():
                folded = row["body"].casefold()
                if all(word in folded for word in wanted):
                    yield _record(names, conv, row)
            done += last - first + 1
            progress(done, total, "records")


def _span(db: sqlite3.Connection, conv: int, since_ms: int) -> range:
    """The seqs of a conversation not older than *since_ms*. In a conversation no record is older than the one before it."""
    ends = "SELECT (SELECT min(seq) FROM records WHERE conv = ?1) AS first, (SELECT max(seq) FROM records WHERE conv = ?1) AS last"
    row = db.execute(ends, (conv,)).fetchone()
    if row["last"] is None:
        return range(0)
    seqs, time = range(row["first"], row["last"] + 1), "SELECT ts FROM records WHERE conv = ? AND seq >= ? ORDER BY seq LIMIT 1"
    return seqs[bisect_left(seqs, since_ms, key=lambda seq: int(db.execute(time, (conv, seq)).fetchone()["ts"])) :]


def _pattern(wanted: list[str]) -> str:
    """For LIKE: every body in ASCII with all of *wanted* has it, and few others have. So the database leaves out most of them, in a quarter
    of the time that reading them takes. Of a body that is not in ASCII (it has more bytes than characters) it knows too little, since ``ß``
    is ``ss`` too.
    """
    longest = max(wanted, key=len)[:100]  # SQLite refuses patterns of more than 50,000 bytes
    return "%" + re.sub(r"([%_\\])", r"\\\1", longest) + "%"
