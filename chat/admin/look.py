"""What a command only reads, it reads beside the daemon: from the database, through a read-only connection of its own.

Nothing here asks or slows the server: WAL lets a reader see one moment of the store while others write. Rows are plain dictionaries,
times in milliseconds since 1970; people and channels have their names.
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from chat.admin.client import Refused
from chat.background import no_right
from chat.config import Config
from chat.errors import ChatError
from chat.protocol import names
from chat.store import retention
from chat.store.migrate import newest, version_of
from chat.store.sqlite_files import APPLICATION_ID, connect

BUSY_S: Final = 5.0
Row = dict[str, Any]


def there(config: Config) -> None:
    """*Raises* Refused where there is no database, or this user has no right to look at it."""
    if (why := no_right(config.database)) is not None:
        raise Refused(why)
    if not config.database.exists():
        raise Refused(f"there is no database {config.database}; was the server ever started? (--data-dir, --config)")


@contextlib.contextmanager
def opened(config: Config) -> Iterator[sqlite3.Connection]:
    """The database as it is now, for the whole block. *Raises* Refused."""
    there(config)
    try:
        db = connect(config.database, busy_timeout_s=BUSY_S, read_only=True)
    except sqlite3.Error as exc:
        raise Refused(f"{config.database}: cannot be read: {exc}") from None
    try:
        if db.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
            raise Refused(f"{config.database} is no database of chat")
        if version_of(db) != newest("sqlite"):
            raise Refused(f"{config.database} is of another version of chat (schema {version_of(db)}); start this one once")
        db.row_factory = as_dict
        db.execute("BEGIN")
        yield db
    except sqlite3.Error as exc:
        raise Refused(f"{config.database}: cannot be read: {exc}") from None
    finally:
        db.close()


def as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> Row:
    """A row by its columns' names: a row factory."""
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


# ---------------------------------------------------------------- people

_USERS: Final = """SELECT a.name, a.role, a.at_ms AS since,
        CASE WHEN a.forgotten_ms IS NOT NULL THEN 'forgotten' WHEN a.suspended_ms IS NOT NULL THEN 'suspended'
            WHEN b.account IS NOT NULL THEN 'banned' WHEN max(s.online) THEN 'online' ELSE '' END AS state,
        coalesce(a.suspended_for, b.reason) AS reason, max(s.seen_ms) AS seen, count(s.session) AS sessions
    FROM accounts a LEFT JOIN bans b ON b.account = a.id LEFT JOIN sessions s ON s.account = a.id
    WHERE a.forgotten_ms IS NULL OR ?1 GROUP BY a.id ORDER BY a.canonical"""


def users(db: sqlite3.Connection, *, forgotten: bool = False, running: bool = True) -> list[Row]:
    """Not *running*: who was online when the server was killed is so no more."""
    rows: list[Row] = db.execute(_USERS, (forgotten,)).fetchall()
    return [{**row, "state": ""} if row["state"] == "online" and not running else row for row in rows]


def account_of(db: sqlite3.Connection, raw: str) -> Row:
    """``id``, ``name`` and ``role``, by any form of the name. *Raises* Refused."""
    with contextlib.suppress(ChatError):
        canonical = names.user_name(raw.removeprefix("@")).canonical
        found: Row | None = db.execute("SELECT id, name, role FROM accounts WHERE canonical = ?", (canonical,)).fetchone()
        if found is not None:
            return found
    raise Refused(f"there is no user {raw.removeprefix('@')[:64]!r}")


def sessions(db: sqlite3.Connection, account: int, *, running: bool = True) -> list[Row]:
    rows: list[Row] = db.execute(
        "SELECT session, client, address, created_ms AS since, seen_ms AS seen, expires_ms AS expires, online FROM sessions"
        " WHERE account = ? ORDER BY seen_ms DESC",
        (account,),
    ).fetchall()
    return [{**row, "online": bool(row["online"]) and running} for row in rows]


# ---------------------------------------------------------------- channels

_CHANNELS: Final = """SELECT c.name, o.name AS owner, (SELECT count(*) FROM members m WHERE m.room = c.id) AS members,
        c.last_seq AS records, c.last_seq AS messages,
        iif(c.last_ts, c.last_ts, NULL) AS last, iif(c.private, 'private', '') AS kind, c.topic
    FROM conversations c LEFT JOIN members om ON om.room = c.id AND om.role = 'owner' LEFT JOIN accounts o ON o.id = om.account
    WHERE c.kind = 'room' ORDER BY c.canonical"""


def channels(db: sqlite3.Connection) -> list[Row]:
    return db.execute(_CHANNELS).fetchall()


def channel_of(db: sqlite3.Connection, raw: str) -> Row:
    """The row of `conversations`, by any form of the name. *Raises* Refused."""
    with contextlib.suppress(ChatError):
        canonical = names.channel_name(raw.removeprefix("#")).canonical
        found: Row | None = db.execute("SELECT * FROM conversations WHERE canonical = ?", (canonical,)).fetchone()
        if found is not None:
            return found
    raise Refused(f"there is no channel {'#' + raw.removeprefix('#')[:64]!r}")


def channel(db: sqlite3.Connection, raw: str) -> Row:
    """One channel with all that is set in it, and its members."""
    room = channel_of(db, raw)
    (kept,) = db.execute(
        "SELECT min(seq) AS first_seq, count(*) AS records, coalesce(sum(length(CAST(body AS BLOB))), 0) AS bytes"
        " FROM records WHERE conv = ?",
        (room["id"],),
    )
    members = db.execute(
        "SELECT a.name, m.role, m.at_ms AS since FROM members m JOIN accounts a ON a.id = m.account WHERE m.room = ? ORDER BY m.place",
        (room["id"],),
    ).fetchall()
    return {
        "name": room["name"],
        "topic": room["topic"],
        "private": bool(room["private"]),
        "invite_only": bool(room["invite_only"]),
        "announce_only": bool(room["announce_only"]),
        "slow_s": room["slow_s"],
        "history": room["history"],
        "since": room["at_ms"],
        "records": room["last_seq"],
        "messages": room["last_seq"],  # the same, by its older name
        "first_seq": kept["first_seq"],
        "kept": kept["records"],
        "bytes": kept["bytes"],
        "keep_ms": room["retain_ms"],
        "keep_bytes": room["retain_bytes"],
        "members": members,
    }


# ---------------------------------------------------------------- bans and invites

_BANS: Final = """SELECT a.name AS banned, coalesce(o.name, 'server') AS by, b.at_ms AS since, b.until_ms AS until, b.reason
    FROM bans b JOIN accounts a ON a.id = b.account LEFT JOIN accounts o ON o.id = b.by ORDER BY b.at_ms"""
_NETWORKS: Final = """SELECT b.network AS banned, coalesce(o.name, 'server') AS by, b.at_ms AS since, b.until_ms AS until, b.reason
    FROM address_bans b LEFT JOIN accounts o ON o.id = b.by ORDER BY b.network"""


def bans(db: sqlite3.Connection) -> list[Row]:
    """Of people, then of networks."""
    return [*db.execute(_BANS).fetchall(), *db.execute(_NETWORKS).fetchall()]


def invites(db: sqlite3.Connection) -> list[Row]:
    return db.execute(
        """SELECT i.code, i.role, i.uses_left AS uses, i.expires_ms AS expires, coalesce(o.name, 'server') AS by, i.at_ms AS since
        FROM invites i LEFT JOIN accounts o ON o.id = i.by WHERE i.expires_ms IS NULL OR i.expires_ms > ? ORDER BY i.at_ms""",
        (int(time.time() * 1000),),
    ).fetchall()


# ---------------------------------------------------------------- how long it is kept


def retentions(db: sqlite3.Connection) -> list[Row]:
    """The server's, then of the channels that have their own."""
    rows = db.execute(
        "SELECT '#' || name AS name, retain_ms AS keep_ms, retain_bytes AS keep_bytes FROM conversations"
        " WHERE retain_ms IS NOT NULL OR retain_bytes IS NOT NULL ORDER BY canonical"
    ).fetchall()
    general = retention.of_server(db)
    return [{"name": "server", "keep_ms": general.ms, "keep_bytes": general.bytes}, *rows]


def due(db: sqlite3.Connection, instead: Mapping[int | None, retention.Keep]) -> list[Row]:
    """What would go now if *instead* were set."""
    return [attrs.asdict(cut) for cut in retention.cuts(db, int(time.time() * 1000), instead)]
