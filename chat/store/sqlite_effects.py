"""The effects that are not texts, one by one: what each does to the tables. Rare beside texts, so plain statements.

An effect of which the database knows better raises `Refused`: the state that it was decided on is not the stored one.
"""

import sqlite3
from collections.abc import Callable
from typing import Any, Final

from chat.errors import ChatError
from chat.rooms import effects as e
from chat.store import sqlite_commands, sqlite_rules, sqlite_sanctions, sqlite_upkeep

STALE_TOKENS: Final = 256  # kept for each session, so that one who resumes without end does not grow the table without bound
DELETED_AT_ONCE: Final = 2_000  # records of a deleted room; the rest is purged in steps, so that nobody waits a second for it


class Refused(Exception):
    def __init__(self, error: ChatError) -> None:
        super().__init__(str(error))
        self.error = error


def apply(db: sqlite3.Connection, effect: Any) -> None:
    """All but `Append`, `SetReadMarker` and `PutMember`; of what is only told, nothing is done. *Raises* Refused, sqlite3.Error."""
    run = _RUN.get(type(effect))
    if run is not None:
        run(db, effect)


def _one(cursor: sqlite3.Cursor, code: str, message: str) -> None:
    if cursor.rowcount != 1:
        raise Refused(ChatError(code, message))


# ---------------------------------------------------------------- accounts


def _create_account(db: sqlite3.Connection, x: e.CreateAccount) -> None:
    db.execute(
        "INSERT INTO accounts (id, name, canonical, skeleton, password_hash, color, role, at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (x.account, x.name, x.canonical, x.skeleton, x.password_hash, x.color, x.role, x.at_ms),
    )


def _set_password(db: sqlite3.Connection, x: e.SetPassword) -> None:
    _one(db.execute("UPDATE accounts SET password_hash = ? WHERE id = ?", (x.password_hash, x.account)), "not_found", "no such account")


def _set_color(db: sqlite3.Connection, x: e.SetColor) -> None:
    _one(db.execute("UPDATE accounts SET color = ? WHERE id = ?", (x.color, x.account)), "not_found", "no such account")


def _set_server_role(db: sqlite3.Connection, x: e.SetServerRole) -> None:
    _one(db.execute("UPDATE accounts SET role = ? WHERE id = ?", (x.role, x.account)), "not_found", "no such account")


def _put_ban(db: sqlite3.Connection, x: e.PutBan) -> None:
    db.execute(
        "INSERT OR REPLACE INTO bans (account, by, at_ms, until_ms, reason) VALUES (?, ?, ?, ?, ?)",
        (x.account, x.by, x.at_ms, x.until_ms, x.reason),
    )


def _drop_ban(db: sqlite3.Connection, x: e.DropBan) -> None:
    db.execute("DELETE FROM bans WHERE account = ?", (x.account,))


def _put_invite(db: sqlite3.Connection, x: e.PutInvite) -> None:
    db.execute(
        "INSERT OR REPLACE INTO invites (code, role, uses_left, expires_ms, by, at_ms) VALUES (?, ?, ?, ?, ?, ?)",
        (x.code, x.role, x.uses_left, x.expires_ms, x.by, x.at_ms),
    )


def _use_invite(db: sqlite3.Connection, x: e.UseInvite) -> None:
    _one(db.execute("UPDATE invites SET uses_left = uses_left - 1 WHERE code = ?", (x.code,)), "forbidden", "this invite is used up")
    db.execute("DELETE FROM invites WHERE code = ? AND uses_left <= 0", (x.code,))


# ---------------------------------------------------------------- sessions


def _put_session(db: sqlite3.Connection, x: e.PutSession) -> None:
    """*Raises* Refused before anything is changed: the password was changed while the old one was being checked."""
    if x.password_hash is not None:
        found = db.execute("SELECT 1 FROM accounts WHERE id = ? AND password_hash = ?", (x.account, x.password_hash))
        if found.fetchone() is None:
            raise Refused(ChatError("busy", "the password was changed just now; log in again", retry_after=1))
    db.execute(
        "INSERT INTO sessions (session, account, generation, expires_ms, created_ms, seen_ms, client, address, online)"
        " VALUES (?, ?, 1, ?, ?, ?, ?, ?, 1)",
        (x.session, x.account, x.expires_ms, x.at_ms, x.at_ms, x.client, x.address),
    )
    _put_token(db, x.token_hash, x.session, 1, x.expires_ms)
    sqlite_sanctions.note_address(db, x.account, x.address, x.at_ms)


def _rotate_token(db: sqlite3.Connection, x: e.RotateToken) -> None:
    """*Raises* Refused before anything is changed: the session ended, or its token went stale, since it was looked up."""
    row = db.execute("SELECT generation + 1, account FROM sessions WHERE session = ?", (x.session,)).fetchone()
    if row is None:
        raise Refused(ChatError("unauthorized", "this session has ended; log in again"))
    generation, account = row
    if x.presented_hash is None:
        previous = "state = 'present'"
        presented = None
    else:
        previous = "token_hash = ?2"
        presented = db.execute(
            "SELECT token_hash FROM tokens WHERE session = ? AND token_hash = ? AND state <> 'stale'", (x.session, x.presented_hash)
        ).fetchone()
        if presented is None:
            raise Refused(ChatError("unauthorized", "this token was used before; log in again"))
    db.execute(
        "UPDATE sessions SET generation = ?, expires_ms = ?, address = ?, seen_ms = ?, online = 1 WHERE session = ?",
        (generation, x.expires_ms, x.address, x.at_ms, x.session),
    )
    db.execute(
        f"UPDATE tokens SET state = iif({previous}, 'previous', 'stale') WHERE session = ?1 AND state <> 'stale'",  # noqa: S608
        (x.session,) if presented is None else (x.session, x.presented_hash),
    )
    db.execute(
        "DELETE FROM tokens WHERE session = ? AND state = 'stale' AND (generation <= ? OR expires_ms < ?)",
        (x.session, generation - STALE_TOKENS, x.at_ms),
    )
    _put_token(db, x.token_hash, x.session, generation, x.expires_ms)
    sqlite_sanctions.note_address(db, account, x.address, x.at_ms)


def _put_token(db: sqlite3.Connection, token_hash: bytes, session: str, generation: int, expires_ms: int) -> None:
    db.execute(
        "INSERT INTO tokens (token_hash, session, state, generation, expires_ms) VALUES (?, ?, 'present', ?, ?)",
        (token_hash, session, generation, expires_ms),
    )


def _forget_previous_token(db: sqlite3.Connection, x: e.ForgetPreviousToken) -> None:
    db.execute("UPDATE tokens SET state = 'stale' WHERE session = ? AND state = 'previous'", (x.session,))


def _drop_session(db: sqlite3.Connection, x: e.DropSession) -> None:
    db.execute("DELETE FROM sessions WHERE session = ?", (x.session,))


def _drop_sessions(db: sqlite3.Connection, x: e.DropSessions) -> None:
    db.execute("DELETE FROM sessions WHERE account = ? AND session IS NOT ?", (x.account, x.but))


def _session_offline(db: sqlite3.Connection, x: e.SessionOffline) -> None:
    db.execute("UPDATE sessions SET online = 0, expires_ms = max(expires_ms, ?) WHERE session = ?", (x.expires_ms, x.session))


# ---------------------------------------------------------------- rooms


def _create_room(db: sqlite3.Connection, x: e.CreateRoom) -> None:
    if db.execute("SELECT 1 FROM purges WHERE conv = ?", (x.room,)).fetchone():  # the same id again: nothing old may show in it
        purge(db, x.room, 2**53)
    db.execute(
        "INSERT INTO conversations (id, kind, epoch, name, canonical, skeleton, private, password_hash, at_ms)"
        " VALUES (?, 'room', ?, ?, ?, ?, ?, ?, ?)",
        (x.room, x.epoch, x.name, x.canonical, x.skeleton, x.private, x.password_hash, x.at_ms),
    )


def _delete_room(db: sqlite3.Connection, x: e.DeleteRoom) -> None:
    _one(db.execute("DELETE FROM conversations WHERE id = ? AND kind = 'room'", (x.room,)), "not_found", "no such channel")
    db.execute("INSERT INTO purges (conv) VALUES (?)", (x.room,))
    db.execute("DELETE FROM filters WHERE room = ?", (x.room,))
    purge(db, x.room, DELETED_AT_ONCE)


def purge(db: sqlite3.Connection, conv: int, rows: int) -> None:
    """Delete up to *rows* records of a room that is gone; with the last one the memory of it goes too."""
    row = db.execute("SELECT seq FROM records WHERE conv = ? ORDER BY seq LIMIT 1 OFFSET ?", (conv, rows)).fetchone()
    if row is None:
        db.execute("DELETE FROM records WHERE conv = ?", (conv,))
        db.execute("DELETE FROM purges WHERE conv = ?", (conv,))
    else:
        db.execute("DELETE FROM records WHERE conv = ? AND seq < ?", (conv, row[0]))


def put_member(db: sqlite3.Connection, x: e.PutMember, head: int) -> None:
    """A new member sees, where history is since_join, what follows. *head* is as in `set_read_marker`."""
    if db.execute("UPDATE members SET role = ? WHERE room = ? AND account = ?", (x.role, x.room, x.account)).rowcount == 1:
        return
    row = db.execute(
        "UPDATE conversations SET joins = joins + 1 WHERE id = ? AND kind = 'room' RETURNING joins, last_seq", (x.room,)
    ).fetchone()
    if row is None:
        raise Refused(ChatError("not_found", "no such channel"))
    db.execute(
        "INSERT INTO members (room, account, role, at_ms, place, from_seq) VALUES (?, ?, ?, ?, ?, ?)",
        (x.room, x.account, x.role, x.at_ms, row[0], max(row[1], head) + 1),
    )


def _drop_member(db: sqlite3.Connection, x: e.DropMember) -> None:
    db.execute("DELETE FROM members WHERE room = ? AND account = ?", (x.room, x.account))


def _set_topic(db: sqlite3.Connection, x: e.SetTopic) -> None:
    _one(db.execute("UPDATE conversations SET topic = ? WHERE id = ? AND kind = 'room'", (x.text, x.room)), "not_found", "no such channel")


def set_read_marker(db: sqlite3.Connection, x: e.SetReadMarker, head: int) -> None:
    """Not past the conversation's end, or it would hide what comes; of a conversation that is gone nothing is kept.

    *head*: the last seq that the transaction has given so far and not yet written, else 0.
    """
    db.execute(
        "INSERT INTO read_markers (conv, account, seq) SELECT id, ?2, min(?3, max(last_seq, ?4)) FROM conversations WHERE id = ?1"
        " ON CONFLICT DO UPDATE SET seq = max(seq, excluded.seq)",
        (x.conv, x.account, x.seq, head),
    )


def _set_command_enabled(db: sqlite3.Connection, x: e.SetCommandEnabled) -> None:
    if x.enabled:
        db.execute("DELETE FROM disabled_commands WHERE name = ?", (x.name,))
    else:
        db.execute("INSERT OR REPLACE INTO disabled_commands (name, by) VALUES (?, ?)", (x.name, x.by))


def _put_plugin_value(db: sqlite3.Connection, x: e.PutPluginValue) -> None:
    if x.value is None:
        db.execute("DELETE FROM plugin_values WHERE plugin = ? AND key = ?", (x.plugin, x.key))
    else:
        db.execute(
            "INSERT INTO plugin_values (plugin, key, value) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
            (x.plugin, x.key, x.value),
        )


_RUN: Final[dict[type, Callable[[sqlite3.Connection, Any], None]]] = {
    **sqlite_upkeep.RUN,
    **sqlite_rules.RUN,
    **sqlite_commands.RUN,
    e.CreateAccount: _create_account,
    e.SetPassword: _set_password,
    e.SetColor: _set_color,
    e.SetServerRole: _set_server_role,
    e.PutBan: _put_ban,
    e.DropBan: _drop_ban,
    e.PutInvite: _put_invite,
    e.UseInvite: _use_invite,
    e.PutSession: _put_session,
    e.RotateToken: _rotate_token,
    e.ForgetPreviousToken: _forget_previous_token,
    e.DropSession: _drop_session,
    e.DropSessions: _drop_sessions,
    e.SessionOffline: _session_offline,
    e.CreateRoom: _create_room,
    e.DeleteRoom: _delete_room,
    e.DropMember: _drop_member,
    e.SetTopic: _set_topic,
    e.SetCommandEnabled: _set_command_enabled,
    e.PutPluginValue: _put_plugin_value,
    **sqlite_sanctions.RUN,
}
