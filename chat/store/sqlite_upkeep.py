"""The operator's effects, one by one, and what follows them in steps: erasing a person's records, and the end of a retention.

*Erasing.* A forgotten account keeps its row, under a name that means nobody, since records and the moderation log name its number. All
else that is known of the person goes with the transaction. The records have no index by author, which every message would pay for; so
one pass over all of them, in steps (`erase_step`), finds what the person said. The pass is noted in `erasures` and goes on after a restart;
the name that it replaces is kept meanwhile in `settings`.

*What goes*: the name, password, colour, sessions with their addresses, read markers, ignores, reports, command history, notes to oneself;
texts and topics that the person wrote (the record and its seq stay, empty); reasons given about the person, in the channels and in the
moderation log, there with their salt: the chain of hashes holds; what its retries would get (a cid, the hash of a text, the result of a
command). *What is replaced*, by the name that means nobody: the name as a word of its own, in any case, in what the server said in a
conversation, in the results of commands that are kept for retries, and in others' command history. *What stays*: that an account with
this number was there and when; what others said, also about the person; the topic that a channel has; what plugins keep. With
``keep_texts`` what the person said stays too, under the name of nobody.
"""

import contextlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Final

from chat.rooms import effects as e

RETENTION: Final = "retention"  # the key in `settings`: {"keep_ms": …, "keep_bytes": …}
LAST: Final = 2**53

NO_CID: Final = ("", 0)  # before all of them, and after
LAST_CID: Final = ("~", 0)
HISTORY_KEPT: Final = 50  # lines of an account at most: so many accounts are a step

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
    (was,) = db.execute("SELECT name FROM accounts WHERE id = ?", (x.account,)).fetchone()
    with _wiping(db):
        db.execute(
            """UPDATE accounts SET name = ?, canonical = ?, skeleton = ?, password_hash = ?, color = NULL, role = 'member',
            suspended_ms = NULL, suspended_for = NULL, forgotten_ms = ? WHERE id = ?""",
            (x.name, x.canonical, x.skeleton, x.password_hash, x.at_ms, x.account),
        )
        for statement in _PERSONAL:
            db.execute(statement, (x.account,))
    db.execute("INSERT OR REPLACE INTO erasures (account, keep_texts) VALUES (?, ?)", (x.account, x.keep_texts))
    _note_renaming(db, x.account, {"name": was, "cid": NO_CID, "history": 0})


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
        renaming = _renaming(db, account)
        if renaming is not None:
            db.execute(_RENAME_SERVERS, (conv, seq, *(end or (LAST, LAST))))
            if end is None and _rename_step(db, account, renaming, rows):
                end = (LAST, LAST)
        if end is None:
            db.execute("DELETE FROM erasures WHERE account = ?", (account,))
            db.execute("DELETE FROM settings WHERE key = ?", (_renaming_key(account),))
        else:
            db.execute("UPDATE erasures SET conv = ?, seq = ? WHERE account = ?", (*end, account))
    return True


# ---------------------------------------------------------------- the name of who is forgotten, in what others see

_RENAME_SERVERS: Final = """UPDATE records SET body = renamed(body)
    WHERE (conv, seq) >= (?, ?) AND (conv, seq) < (?, ?) AND kind = 'message' AND author = 0 AND renamed(body) <> body"""
_CID_END: Final = "SELECT cid, account FROM cids WHERE (cid, account) > (?, ?) ORDER BY cid, account LIMIT 1 OFFSET ?"
_FORGET_CIDS: Final = "DELETE FROM cids WHERE (cid, account) > (?, ?) AND (cid, account) <= (?, ?) AND account = ?"
_RENAME_RESULTS: Final = """UPDATE cids SET result = renamed(result)
    WHERE (cid, account) > (?, ?) AND (cid, account) <= (?, ?) AND result IS NOT NULL AND renamed(result) <> result"""
_RENAME_HISTORY: Final = """UPDATE command_history SET line = renamed(line)
    WHERE account > ? AND account <= ? AND renamed(line) <> line"""


def _renaming_key(account: int) -> str:
    return f"forgetting {account}"


def _note_renaming(db: sqlite3.Connection, account: int, renaming: dict[str, Any]) -> None:
    db.execute("INSERT OR REPLACE INTO settings (key, value) VALUES (?, ?)", (_renaming_key(account), json.dumps(renaming)))


def _renaming(db: sqlite3.Connection, account: int) -> dict[str, Any] | None:
    """The name that is replaced and how far that is, with the SQL function ``renamed`` made for it. None: of an older chat's forgetting."""
    found = db.execute("SELECT value FROM settings WHERE key = ?", (_renaming_key(account),)).fetchone()
    if found is None:
        return None
    renaming: dict[str, Any] = json.loads(found[0])
    (nobody,) = db.execute("SELECT name FROM accounts WHERE id = ?", (account,)).fetchone()
    word = re.compile(rf"(?<!\w)(?<!\w[-.]){re.escape(renaming['name'])}(?!\w)(?![-.]\w)", re.IGNORECASE)

    def renamed(text: str | bytes | None) -> str | bytes | None:
        if isinstance(text, bytes):
            return word.sub(nobody, text.decode()).encode()
        return word.sub(nobody, text) if text is not None else None

    db.create_function("renamed", 1, renamed, deterministic=True)
    return renaming


def _rename_step(db: sqlite3.Connection, account: int, renaming: dict[str, Any], rows: int) -> bool:
    """A step of the pass behind that over the records: results, then history. *Returns* whether more is to be done."""
    since = renaming["cid"]
    if since is not None:
        end = db.execute(_CID_END, (*since, rows - 1)).fetchone()
        span = (*since, *(end or LAST_CID))
        db.execute(_FORGET_CIDS, (*span, account))
        db.execute(_RENAME_RESULTS, span)
        _note_renaming(db, account, {**renaming, "cid": end})
        return True
    after, steps = renaming["history"], rows // HISTORY_KEPT
    last = db.execute("SELECT id FROM accounts WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?", (after, steps)).fetchone()
    db.execute(_RENAME_HISTORY, (after, last[0] if last is not None else LAST))
    if last is not None:
        _note_renaming(db, account, {**renaming, "history": last[0]})
    return last is not None


def trim_step(db: sqlite3.Connection, conv: int, below: int, rows: int) -> bool:
    """Delete up to *rows* of the oldest records of a conversation, those below the seq *below*. *Returns* whether some are left."""
    row = db.execute("SELECT seq FROM records WHERE conv = ? AND seq < ? ORDER BY seq LIMIT 1 OFFSET ?", (conv, below, rows)).fetchone()
    with _wiping(db):
        db.execute("DELETE FROM records WHERE conv = ? AND seq < ?", (conv, below if row is None else row[0]))
    return row is not None
