"""Every question that is asked of a SQLite store, as functions of a connection.

Many rows come back as ONE row of JSON (`_rows`): the sqlite3 module takes the GIL again for each row, and beside a busy loop each
taking can cost a whole switch interval.
"""

import sqlite3
from typing import Any, Final, cast

import msgspec

from chat.errors import ChatError
from chat.rooms.effects import Conversation, RoomRole
from chat.store import sqlite_sanctions
from chat.store.base import (
    AccountRow,
    BanRow,
    Credentials,
    HistoryRow,
    InviteRow,
    KnownCid,
    Page,
    RoomRow,
    SessionRow,
    Snapshot,
)
from chat.store.sqlite_many import parts, statement

_decode: Final = msgspec.json.Decoder().decode


def _rows(db: sqlite3.Connection, sql: str, args: tuple[Any, ...] = ()) -> list[list[Any]]:
    """*sql* selects one ``json_group_array(json_array(…))``."""
    return cast("list[list[Any]]", _decode(db.execute(sql, args).fetchone()[0]))


# ---------------------------------------------------------------- all that decisions rest on

_ACCOUNTS = """SELECT json_group_array(json_array(id, name, canonical, skeleton, color, role, at_ms,
    suspended_ms IS NOT NULL, forgotten_ms IS NOT NULL)) FROM accounts"""
_BANS = """SELECT json_group_array(json_array(account, by, at_ms, until_ms, reason)) FROM bans"""
_INVITES = """SELECT json_group_array(json_array(code, role, uses_left, expires_ms, by)) FROM invites"""
_DISABLED = """SELECT json_group_array(json_array(name)) FROM disabled_commands"""
_PLUGIN_VALUES = """SELECT json_group_array(json_array(plugin, key, value)) FROM (SELECT * FROM plugin_values ORDER BY plugin, key)"""
_ROOMS = """SELECT json_group_array(json_array(id, name, canonical, skeleton, epoch, last_seq, topic, private, password_hash,
    slow_s, announce_only, invite_only, history, prefix)) FROM conversations WHERE kind = 'room'"""
_MEMBERS = """SELECT json_group_array(json_array(room, account, role))
    FROM (SELECT room, account, role FROM members ORDER BY room, place)"""
_DISABLED_HERE = """SELECT json_group_array(json_array(room, name)) FROM room_disabled_commands"""
_INVITED = """SELECT json_group_array(json_array(room, account)) FROM channel_invites"""
_FILTERS = """SELECT json_group_array(json_array(room, pattern, by, at_ms)) FROM (SELECT * FROM filters ORDER BY room, at_ms, pattern)"""
_IGNORES = """SELECT json_group_array(json_array(account, ignored)) FROM ignores"""
_SETTINGS = """SELECT json_group_array(json_array(key, value)) FROM settings"""
_ONLINE = """SELECT json_group_array(json_array(session, account, generation, expires_ms, created_ms, seen_ms, client, address, online, ''))
    FROM sessions WHERE online"""


def load(db: sqlite3.Connection) -> Snapshot:
    """In a transaction of the caller's."""
    members: dict[int, dict[int, RoomRole]] = {}
    for room, account, role in _rows(db, _MEMBERS):
        members.setdefault(room, {})[account] = role
    invited: dict[int, list[int]] = {}
    for room, account in _rows(db, _INVITED):
        invited.setdefault(room, []).append(account)
    disabled: dict[int, list[str]] = {}
    for room, name in _rows(db, _DISABLED_HERE):
        disabled.setdefault(room, []).append(name)
    return Snapshot(
        accounts=[
            AccountRow(
                account=id,
                name=name,
                canonical=canonical,
                skeleton=skeleton,
                color=color,
                role=role,
                at_ms=at_ms,
                suspended=bool(suspended),
                forgotten=bool(forgotten),
            )
            for id, name, canonical, skeleton, color, role, at_ms, suspended, forgotten in _rows(db, _ACCOUNTS)
        ],
        bans=[
            BanRow(account=account, by=by, at_ms=at_ms, until_ms=until_ms, reason=reason)
            for account, by, at_ms, until_ms, reason in _rows(db, _BANS)
        ],
        sanctions=sqlite_sanctions.load(db),
        rooms=[
            RoomRow(
                room=id,
                name=name,
                canonical=canonical,
                skeleton=skeleton,
                epoch=epoch,
                last_seq=last_seq,
                topic=topic,
                private=bool(private),
                password_hash=password_hash,
                members=members.get(id, {}),
                slow_s=slow_s,
                announce_only=bool(announce_only),
                invite_only=bool(invite_only),
                history=history,
                invited=frozenset(invited.get(id, ())),
                prefix=prefix,
                disabled_commands=frozenset(disabled.get(id, ())),
            )
            for (
                id,
                name,
                canonical,
                skeleton,
                epoch,
                last_seq,
                topic,
                private,
                password_hash,
                slow_s,
                announce_only,
                invite_only,
                history,
                prefix,
            ) in _rows(db, _ROOMS)
        ],
        invites=[
            InviteRow(code=code, role=role, uses_left=uses_left, expires_ms=expires_ms, by=by)
            for code, role, uses_left, expires_ms, by in _rows(db, _INVITES)
        ],
        disabled_commands=[name for (name,) in _rows(db, _DISABLED)],
        sessions=[_session(row) for row in _rows(db, _ONLINE)],
        plugin_values=[(plugin, key, value) for plugin, key, value in _rows(db, _PLUGIN_VALUES)],
        filters=[(room, rule, by, at_ms) for room, rule, by, at_ms in _rows(db, _FILTERS)],
        ignores=[(account, ignored) for account, ignored in _rows(db, _IGNORES)],
        settings={key: _decode(value) for key, value in _rows(db, _SETTINGS)},
    )


# ---------------------------------------------------------------- conversations and their records

_CONVERSATIONS = """SELECT json_group_array(json_array(id, epoch, last_seq, role, peer, marker)) FROM (
    SELECT c.id, c.epoch, c.last_seq, m.role, NULL AS peer, coalesce(r.seq, 0) AS marker
        FROM members m JOIN conversations c ON c.id = m.room
        LEFT JOIN read_markers r ON r.conv = c.id AND r.account = m.account WHERE m.account = ?1
    UNION ALL
    SELECT c.id, c.epoch, c.last_seq, 'member', c.high, coalesce(r.seq, 0)
        FROM conversations c LEFT JOIN read_markers r ON r.conv = c.id AND r.account = ?1 WHERE c.low = ?1
    UNION ALL
    SELECT c.id, c.epoch, c.last_seq, 'member', c.low, coalesce(r.seq, 0)
        FROM conversations c LEFT JOIN read_markers r ON r.conv = c.id AND r.account = ?1 WHERE c.high = ?1 AND c.low < ?1
    ORDER BY 1)"""
_PAIR = """SELECT c.id, c.epoch, c.last_seq, coalesce(r.seq, 0)
    FROM conversations c LEFT JOIN read_markers r ON r.conv = c.id AND r.account = ?3 WHERE c.low = ?1 AND c.high = ?2"""


def conversations(db: sqlite3.Connection, account: int) -> list[Conversation]:
    """The account's rooms and private conversations, by id."""
    return [
        Conversation(conv=conv, epoch=epoch, last_seq=last_seq, role=role, peer=peer, read_seq=marker)
        for conv, epoch, last_seq, role, peer, marker in _rows(db, _CONVERSATIONS, (account,))
    ]


def pair(db: sqlite3.Connection, viewer: int, peer: int) -> Conversation | None:
    row = db.execute(_PAIR, (min(viewer, peer), max(viewer, peer), viewer)).fetchone()
    if row is None:
        return None
    return Conversation(conv=row[0], epoch=row[1], last_seq=row[2], role="member", peer=peer, read_seq=row[3])


_HEAD = "SELECT epoch, last_seq FROM conversations WHERE id = ?"
_FIRST = "SELECT seq FROM records WHERE conv = ? ORDER BY seq LIMIT 1"
_PAGE_FIELDS = "json_array(seq, ts, kind, author, body, reply_to, cid)"
_RUNNING = """sum(length(CAST(body AS BLOB))) OVER (ORDER BY seq {0} ROWS UNBOUNDED PRECEDING) AS bytes,
    row_number() OVER (ORDER BY seq {0}) AS n"""
_PAGE = """SELECT json_group_array({fields}) FILTER (WHERE n = 1 OR (n <= ?4 AND coalesce(bytes, 0) <= ?5)), count(*)
    FROM (SELECT *, {running} FROM (SELECT seq, ts, kind, author, body, reply_to, cid FROM records
        WHERE conv = ?1 AND seq > ?2 AND seq < ?3 ORDER BY seq {order} LIMIT ?4 + 1))"""
_PAGE_UP = _PAGE.format(fields=_PAGE_FIELDS, running=_RUNNING.format("ASC"), order="ASC")
_PAGE_DOWN = _PAGE.format(fields=_PAGE_FIELDS, running=_RUNNING.format("DESC"), order="DESC")
_LAST = 2**53


def history(db: sqlite3.Connection, conv: int, after: int | None, before: int | None, limit: int, max_bytes: int) -> Page:
    db.execute("BEGIN")  # head and rows of one moment
    try:
        head = db.execute(_HEAD, (conv,)).fetchone()
        if head is None:
            raise ChatError("not_found", "there is no such conversation")
        sql = _PAGE_DOWN if after is None else _PAGE_UP
        bounds = (-1 if after is None else after, _LAST if before is None else before)
        found, candidates = db.execute(sql, (conv, *bounds, max(1, limit), max_bytes)).fetchone()
        first = db.execute(_FIRST, (conv,)).fetchone()
    finally:
        db.execute("COMMIT")
    rows = [
        HistoryRow(
            seq=seq,
            ts=ts,
            kind=kind,
            author=author,
            body=body if body is None or kind == "message" else _decode(body),
            reply_to=reply_to,
            cid=cid,
        )
        for seq, ts, kind, author, body, reply_to, cid in sorted(_decode(found), key=_by_seq)
    ]
    first_seq = first[0] if first is not None else head[1] and head[1] + 1
    return Page(epoch=head[0], rows=rows, last_seq=head[1], more=candidates > len(rows), first_seq=first_seq)


def _by_seq(row: list[Any]) -> int:
    seq: int = row[0]
    return seq


# ---------------------------------------------------------------- accounts, sessions, cids

_SESSION = "session, account, generation, expires_ms, created_ms, seen_ms, client, address, online"
_by_token_sql = statement(
    f"WITH w (hash) AS ({{}}) SELECT json_group_array(json_array(hex(w.hash), s.{_SESSION.replace(', ', ', s.')}, t.state))"  # noqa: S608
    " FROM w CROSS JOIN tokens t ON t.token_hash = w.hash JOIN sessions s USING (session)",
    1,
)
_OF_ACCOUNT = f"SELECT {_SESSION}, '' FROM sessions WHERE account = ? ORDER BY created_ms, session"  # noqa: S608


def credentials(db: sqlite3.Connection, canonical: str) -> Credentials | None:
    row = db.execute("SELECT id, password_hash FROM accounts WHERE canonical = ?", (canonical,)).fetchone()
    return None if row is None else Credentials(account=row[0], password_hash=row[1])


def sessions_by_token(db: sqlite3.Connection, token_hashes: list[bytes]) -> list[SessionRow | None]:
    """The session that each of *token_hashes* is, or was, a token of."""
    found: dict[str, SessionRow] = {}
    for part, size in parts(token_hashes, 1):
        for token_hash, *row in _decode(db.execute(_by_token_sql(size), part).fetchone()[0]):
            found[token_hash] = _session(row)
    return [found.get(token_hash.hex().upper()) for token_hash in token_hashes]


def sessions(db: sqlite3.Connection, account: int) -> list[SessionRow]:
    """Those of the account, oldest first; expired ones that are not yet tidied away too."""
    return [_session(row) for row in db.execute(_OF_ACCOUNT, (account,)).fetchall()]


def known_cid(db: sqlite3.Connection, account: int, cid: str) -> KnownCid | None:
    row = db.execute("SELECT digest, conv, epoch, seq, ts, result FROM cids WHERE account = ? AND cid = ?", (account, cid)).fetchone()
    return None if row is None else known(*row)


def known(digest: bytes | None, conv: int | None, epoch: str | None, seq: int | None, ts: int, result: bytes | None) -> KnownCid:
    """A command's result comes first: it may have taken a place as well."""
    if result is not None:
        return KnownCid(digest=digest, dup=result)
    assert conv is not None
    assert epoch is not None
    assert seq is not None
    return KnownCid(digest=digest, dup=(conv, epoch, seq, ts))


def _session(row: Any) -> SessionRow:
    session, account, generation, expires_ms, created_ms, seen_ms, client, address, online, token = row
    return SessionRow(
        session=session,
        account=account,
        generation=generation,
        expires_ms=expires_ms,
        created_ms=created_ms,
        seen_ms=seen_ms,
        client=client,
        address=address,
        online=bool(online),
        token=token,
    )
