"""Bans of channels and of addresses, mutes, and where accounts came from, in SQLite."""

import sqlite3
from collections.abc import Callable
from typing import Any, Final

import msgspec

from chat.rooms import effects as e
from chat.store.base import Seen

ADDRESSES_MS: Final = 30 * 86_400_000  # how long it is kept where an account came from
ADDRESSES_EACH: Final = 100  # addresses of one account, the latest: who changes it for every login does not fill the table

Sanctions = list[e.PutChannelBan | e.PutMute | e.PutAddressBan]


def _put_channel_ban(db: sqlite3.Connection, x: e.PutChannelBan) -> None:
    db.execute(
        "INSERT OR REPLACE INTO channel_bans (room, account, by, at_ms, until_ms, reason) VALUES (?, ?, ?, ?, ?, ?)",
        (x.room, x.account, x.by, x.at_ms, x.until_ms, x.reason),
    )


def _drop_channel_ban(db: sqlite3.Connection, x: e.DropChannelBan) -> None:
    db.execute("DELETE FROM channel_bans WHERE room = ? AND account = ?", (x.room, x.account))


def _put_mute(db: sqlite3.Connection, x: e.PutMute) -> None:
    db.execute(
        "INSERT OR REPLACE INTO mutes (room, account, by, at_ms, until_ms, reason) VALUES (?, ?, ?, ?, ?, ?)",
        (x.room, x.account, x.by, x.at_ms, x.until_ms, x.reason),
    )


def _drop_mute(db: sqlite3.Connection, x: e.DropMute) -> None:
    db.execute("DELETE FROM mutes WHERE room = ? AND account = ?", (x.room, x.account))


def _put_address_ban(db: sqlite3.Connection, x: e.PutAddressBan) -> None:
    db.execute(
        "INSERT OR REPLACE INTO address_bans (network, by, at_ms, until_ms, reason) VALUES (?, ?, ?, ?, ?)",
        (x.network, x.by, x.at_ms, x.until_ms, x.reason),
    )


def _drop_address_ban(db: sqlite3.Connection, x: e.DropAddressBan) -> None:
    db.execute("DELETE FROM address_bans WHERE network = ?", (x.network,))


RUN: Final[dict[type, Callable[[sqlite3.Connection, Any], None]]] = {
    e.PutChannelBan: _put_channel_ban,
    e.DropChannelBan: _drop_channel_ban,
    e.PutMute: _put_mute,
    e.DropMute: _drop_mute,
    e.PutAddressBan: _put_address_ban,
    e.DropAddressBan: _drop_address_ban,
}


def load(db: sqlite3.Connection) -> Sanctions:
    """As the effects that made them."""

    def of(kind: Any, table: str, *keys: str) -> list[Any]:
        columns = (*keys, "by", "at_ms", "until_ms", "reason")
        sql = f"SELECT json_group_array(json_array({', '.join(columns)})) FROM {table}"  # noqa: S608
        rows = msgspec.json.decode(db.execute(sql).fetchone()[0])
        return [kind(**dict(zip(columns, row, strict=True))) for row in rows]

    return [
        *of(e.PutChannelBan, "channel_bans", "room", "account"),
        *of(e.PutMute, "mutes", "room", "account"),
        *of(e.PutAddressBan, "address_bans", "network"),
    ]


# ---------------------------------------------------------------- where accounts came from


def note_address(db: sqlite3.Connection, account: int, address: str, at_ms: int) -> None:
    """From the address of before, which is nearly always, it is one statement."""
    known = db.execute(
        "UPDATE addresses SET last_ms = max(last_ms, ?3) WHERE account = ?1 AND address = ?2", (account, address, at_ms)
    ).rowcount
    if not known:
        db.execute("INSERT INTO addresses (account, address, first_ms, last_ms) VALUES (?1, ?2, ?3, ?3)", (account, address, at_ms))
        db.execute(
            "DELETE FROM addresses WHERE account = ?1 AND last_ms <"
            " (SELECT last_ms FROM addresses WHERE account = ?1 ORDER BY last_ms DESC LIMIT 1 OFFSET ?2)",
            (account, ADDRESSES_EACH - 1),
        )


def tidy_addresses(db: sqlite3.Connection, now_ms: int, rows: int) -> bool:
    """Forget some of those that are too old. *Returns* whether there may be more."""
    done = db.execute(
        "DELETE FROM addresses WHERE (account, address) IN (SELECT account, address FROM addresses WHERE last_ms < ? LIMIT ?)",
        (now_ms - ADDRESSES_MS, rows),
    )
    return done.rowcount == rows


def seen(db: sqlite3.Connection, since_ms: int) -> list[Seen]:
    """Who came from where since *since_ms*, the latest first."""
    sql = """SELECT json_group_array(json_array(account, address, last_ms)) FROM
        (SELECT account, address, last_ms FROM addresses WHERE last_ms >= ? ORDER BY last_ms DESC)"""
    rows = msgspec.json.decode(db.execute(sql, (since_ms,)).fetchone()[0])
    return [Seen(account=account, address=address, last_ms=last_ms) for account, address, last_ms in rows]
