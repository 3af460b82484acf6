"""The operator's effects, one by one, and what follows them in steps: erasing a person's records, and the end of a retention.

*Erasing.* A forgotten account keeps its row, under a name that means nobody, since records and the moderation log name its number. All
else that is known of the person goes with the transaction. The records have no index by author, which every message would pay for; so
one pass over all of them, in steps (`erase_step`), finds what the person said. The pass is noted in `erasures` and goes on after a restart.

*What goes*: the name, password, colour, sessions with their addresses, read markers, ignores, reports, command history, notes to oneself;
texts and topics that the person wrote (the record and its seq stay, empty); reasons given about the person, in the channels and in the
moderation log, there with their salt: the chain of hashes holds. *What stays*: that an account with this number was there and when; what
others said, also about the person; the topic that a channel has. With ``keep_texts`` what the person said stays too, under the name
of nobody. What its retries would get (a cid, the hash of a text, the result of a command) ages out within a week, as everybody's.
"""

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Final

from chat.rooms import effects as e

RETENTION: Final = "retention"  # the key in `settings`: {"keep_ms": …, "keep_bytes": …}
LAST: Final = 2**53

_PERSONAL: Final = (
    "DELETE FROM sessions WHERE account = ?1",
    "DELETE FROM read_markers WHERE account = ?1",
    "DELETE FROM members WHERE account = ?1",
    "DELETE FROM bans WHERE account = ?1",
    "DELETE FROM channel_bans WHERE account = ?1",
    "DELETE FROM mutes WHERE account = ?1",
    "DELETE FROM channel_invites WHERE account = ?1",
    "DELETE FROM addresses WHERE account = ?1",
    "DELETE FROM ignores WHERE account = ?1 OR ignored = ?1",
    "DELETE FROM reports WHERE by = ?1 OR target = ?1",
    "DELETE FROM command_history WHERE account = ?1",
    "UPDATE audit SET reason = NULL, before = NULL, after = NULL, salt = NULL WHERE target = ?1 AND salt IS NOT NULL",
    "INSERT OR IGNORE INTO purges SELECT id FROM conversations WHERE low = ?1 AND high = ?1",  # notes to oneself
    "DELETE FROM conversations WHERE low = ?1 AND high = ?1",
)


def _set_suspended(db: sqlite3.Connection, x: e.SetSuspended) -> None:
    db.execute("UPDATE accounts SET suspended_ms = ?, suspended_for = ? WHERE id = ?", (x.at_ms, x.reason, x.account))


@contextlib.contextmanager
def _wiping(db: sqlite3.Connection) -> Iterator[None]:
    """What is deleted inside is overwritten in the file, too, not just free to be used again."""
    db.execute("PRAGMA secure_delete = ON")
    try:
        yield
    finally:
        db.execute("PRAGMA secure_delete = OFF")


def _forget_account(db: sqlite3.Connection, x: e.ForgetAccount) -> None:
    with _wiping(db):
        db.execute(
            """UPDATE accounts SET name = ?, canonical = ?, skeleton = ?, password_hash = ?, color = NULL, role = 'member',
            suspended_ms = NULL, suspended_for = NULL, forgotten_ms = ? WHERE id = ?""",
            (x.name, x.canonical, x.skeleton, x.password_hash, x.at_ms, x.account),
        )
        for statement in _PERSONAL:
            db.execute(statement, (x.account,))
    db.execute("INSERT OR REPLACE INTO erasures (account, keep_texts) VALUES (?, ?)", (x.account, x.keep_texts))


def _drop_invite(db: sqlite3.Connection, x: e.DropInvite) -> None:
    db.execute("DELETE FROM invites WHERE code = ?", (x.code,))


def _set_retention(db: sqlite3.Connection, x: e.SetRetention) -> None:
    if x.room is not None:
        db.execute("UPDATE conversations SET retain_ms = ?, retain_bytes = ? WHERE id = ?", (x.keep_ms, x.keep_bytes, x.room))
    elif x.keep_ms is None and x.keep_bytes is None:
        db.execute("DELETE FROM settings WHERE key = ?", (RETENTION,))
    else:
        value = json.dumps({"keep_ms": x.keep_ms, "keep_bytes": x.keep_bytes})
        db.execute("INSERT OR REPLACE INTO settings (key, value) VALUES (?, ?)", (RETENTION, value))


RUN: Final[dict[type, Callable[[sqlite3.Connection, Any], None]]] = {
    e.SetSuspended: _set_suspended,
    e.ForgetAccount: _forget_account,
    e.DropInvite: _drop_invite,
    e.SetRetention: _set_retention,
}


# ---------------------------------------------------------------- in steps

_STEP_END: Final = "SELECT conv, seq FROM records WHERE (conv, seq) >= (?, ?) ORDER BY conv, seq LIMIT 1 OFFSET ?"
_ERASE: Final = """UPDATE records SET cid = NULL, body = CASE kind
        WHEN 'message' THEN NULL WHEN 'topic' THEN json_set(body, '$.text', '') ELSE json_remove(body, '$.reason') END
    WHERE (conv, seq) >= (?, ?) AND (conv, seq) < (?, ?) AND CASE
        WHEN kind IN ('message', 'topic') THEN author = ?5 AND NOT ?6
        ELSE json_extract(body, '$.reason') IS NOT NULL AND json_extract(body, '$.user') = ?5 END"""


def erase_step(db: sqlite3.Connection, rows: int) -> bool:
    """Go through *rows* records for the account whose turn it is. *Returns* False when there is nobody to erase."""
    found = db.execute("SELECT account, keep_texts, conv, seq FROM erasures ORDER BY account LIMIT 1").fetchone()
    if found is None:
        return False
    account, keep_texts, conv, seq = found
    end = db.execute(_STEP_END, (conv, seq, rows)).fetchone()
    with _wiping(db):
        db.execute(_ERASE, (conv, seq, *(end or (LAST, LAST)), account, keep_texts))
    if end is None:
        db.execute("DELETE FROM erasures WHERE account = ?", (account,))
    else:
        db.execute("UPDATE erasures SET conv = ?, seq = ? WHERE account = ?", (*end, account))
    return True


def trim_step(db: sqlite3.Connection, conv: int, below: int, rows: int) -> bool:
    """Delete up to *rows* of the oldest records of a conversation, those below the seq *below*. *Returns* whether some are left."""
    row = db.execute("SELECT seq FROM records WHERE conv = ? AND seq < ? ORDER BY seq LIMIT 1 OFFSET ?", (conv, below, rows)).fetchone()
    with _wiping(db):
        db.execute("DELETE FROM records WHERE conv = ? AND seq < ?", (conv, below if row is None else row[0]))
    return row is not None
