"""The moderation log: what somebody who may did to others, each entry stored in the same transaction as what it tells of.

    effects = [fx.DropMember(…), audit.entry(who.id, "kick", target=target.id, room=room.id, reason=reason)]

Theory of operation
    Entries are numbered 1, 2, 3 … and chained: the hash of each covers its columns and the hash before it, so a row that is changed,
    taken out, put in or moved breaks the chain from there on. What people wrote (reason, before, after) enters through a hash of its own
    with a random salt; so the texts of a person can be erased, together with their salt, and the chain still holds, while nobody
    can find out by guessing what was erased.

    What a chain by itself cannot show: that entries at its end are missing, and that somebody who may write the file made all of it anew.
    Both show when the head (number and hash) is compared with one that was noted elsewhere. `verify` says so.

The store gives the number, the time, the salt and the hashes (`link`), since only the committing transaction knows the entry before.
"""

import secrets
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final

import attrs
import msgspec

from chat.rooms import effects as fx

START: Final = bytes(32)  # the hash before entry 1
SALT_BYTES: Final = 16

_encode: Final = msgspec.json.Encoder(order="sorted").encode


def entry(
    actor: int,
    action: str,
    *,
    target: int | None = None,
    room: int | None = None,
    reason: str | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> fx.Audit:
    """The effect that logs a moderation action.

    *actor* is an account, 0 for the server itself or its shell; *action* the command's name; *target* an account. *before* and *after*
    are plain data: what of it changed.
    """
    return fx.Audit(actor=actor, action=action, target=target, room=room, reason=reason, before=before, after=after)


# ---------------------------------------------------------------- the chain


@attrs.frozen(kw_only=True)
class Entry:
    """One row. ``before`` and ``after`` are JSON texts; ``salt`` None: the texts were erased."""

    n: int
    at_ms: int
    actor: int
    action: str
    target: int | None
    room: int | None
    reason: str | None
    before: str | None
    after: str | None
    salt: bytes | None
    texts_hash: bytes
    hash: bytes


def link(effect: fx.Audit, n: int, previous: bytes, at_ms: int) -> Entry:
    """The row of *effect* as number *n*, behind the entry with the hash *previous*."""
    before = _encode(effect.before).decode() if effect.before is not None else None
    after = _encode(effect.after).decode() if effect.after is not None else None
    salt = secrets.token_bytes(SALT_BYTES)
    texts = texts_hash(salt, effect.reason, before, after)
    chained = row_hash(previous, n, at_ms, effect.actor, effect.action, effect.target, effect.room, texts)
    return Entry(
        n=n,
        at_ms=at_ms,
        actor=effect.actor,
        action=effect.action,
        target=effect.target,
        room=effect.room,
        reason=effect.reason,
        before=before,
        after=after,
        salt=salt,
        texts_hash=texts,
        hash=chained,
    )


def texts_hash(salt: bytes, reason: str | None, before: str | None, after: str | None) -> bytes:
    return sha256(_encode([salt.hex(), reason, before, after])).digest()


def row_hash(previous: bytes, n: int, at_ms: int, actor: int, action: str, target: int | None, room: int | None, texts: bytes) -> bytes:
    """SHA-256 of the JSON array of all of them, hashes in hexadecimal."""
    return sha256(_encode([previous.hex(), n, at_ms, actor, action, target, room, texts.hex()])).digest()


# ---------------------------------------------------------------- is it whole?


@attrs.frozen(kw_only=True)
class Verdict:
    """What became of following the chain.

    ``entries`` hold, ``head`` is the hash of the last of them, ``erased`` counts those without texts. ``problem``: why the chain is
    broken behind them, None: it is not. ``noted``: the number of the entry that has the noted head; None where none has it.
    """

    entries: int
    head: bytes
    erased: int
    problem: str | None
    noted: int | None


def verify(entries: Iterable[Entry], noted: bytes | None = None) -> Verdict:
    """Follow the chain from its start. *entries* come by number, ascending; *noted* is a head from an earlier time."""
    previous, count, erased, found = START, 0, 0, 0 if noted == START else None
    for e in entries:
        problem = _problem(e, count + 1, previous)
        if problem is not None:
            return Verdict(entries=count, head=previous, erased=erased, problem=problem, noted=found)
        previous, count, erased = e.hash, e.n, erased + (e.salt is None)
        if e.hash == noted:
            found = e.n
    return Verdict(entries=count, head=previous, erased=erased, problem=None, noted=found)


def _problem(e: Entry, expected: int, previous: bytes) -> str | None:
    if e.n != expected:
        missing = f"entry {expected} is missing" if e.n == expected + 1 else f"entries {expected} to {e.n - 1} are missing"
        return missing if e.n > expected else f"entry {e.n} stands where {expected} should"
    if e.salt is None:
        if (e.reason, e.before, e.after) != (None, None, None):
            return f"entry {e.n}: its texts count as erased, and there are some"
    elif texts_hash(e.salt, e.reason, e.before, e.after) != e.texts_hash:
        return f"entry {e.n}: its reason, before or after was changed"
    if row_hash(previous, e.n, e.at_ms, e.actor, e.action, e.target, e.room, e.texts_hash) != e.hash:
        return f"entry {e.n} was changed, or one before it was changed, exchanged or taken out"
    return None
