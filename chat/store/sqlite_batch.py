"""One transaction of many actions: their effects in order, the texts gathered and written in bulk.

Theory of operation
    The caller has begun a transaction that excludes every other writer. `Batch.run` first asks three questions for all actions
    together (which cids are known, where the conversations stand, which pairs have a row), then walks through the actions in order.
    A text only takes the next number of its conversation in memory; an effect that is no text runs at once, so that whatever comes
    later in the order sees it. `flush` writes what was gathered: one UPDATE that moves the heads, one INSERT of the records, one of
    the cids. It compares each head with what this transaction read, so a seq can never come from anywhere else.

    A batch is a handful of statements, however many actions it has: between two statements the writer thread needs the GIL, and
    beside a busy loop each time may cost a switch interval. The rows are bound to one ``VALUES`` list, padded with NULL rows to a power
    of two so that few statements need preparing. *Source*: measured against one ``json_each(?)`` per table, rows per second at 1,000
    a batch, loop idle and busy (switch interval 0.1 ms): 41,800 and 43,700 against 33,100 and 31,900; and blobs need no detour.

An action is all or nothing. A text is checked before it leaves a trace, so a bad one costs its own action only. When any other
effect fails, `run` raises `Spoiled` and the transaction must go; `run_one_by_one` then gives each action a savepoint.
"""

import secrets
import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import attrs
import msgspec

from chat.errors import ChatError
from chat.log import new_error_id
from chat.rooms.effects import (
    Action,
    Append,
    Audit,
    DeleteRoom,
    Effect,
    ForgetAccount,
    Outcome,
    Pair,
    Placed,
    PutMember,
    PutSession,
    RotateToken,
    SetReadMarker,
)
from chat.rooms.reserve import grows, nearly_full
from chat.rooms.rules.effects import PutReport
from chat.store import sqlite_audit, sqlite_effects
from chat.store.base import KnownCid, changes_state, stores
from chat.store.sqlite_many import insert, parts, statement
from chat.store.sqlite_read import conversations, known

CARRY_CID: Final = frozenset({"message", "edited", "deleted"})
MAX_ID: Final = 2**53

_encode: Final = msgspec.json.Encoder().encode


class Spoiled(Exception):
    """An effect could not be stored because of *error*; the actions' transaction has to be rolled back."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@attrs.define
class Head:
    """Where a conversation stands in this transaction; ``base`` is the seq that the database has."""

    epoch: str
    seq: int
    ts: int
    base: int


class Batch:
    """Lives as long as the transaction on *db*; texts are stamped *now_ms*, or their conversation's last time if that is later.

    *low*: the disk is nearly full, and what grows is refused.
    """

    def __init__(self, db: sqlite3.Connection, now_ms: int, *, low: bool = False) -> None:
        self._db = db
        self._now_ms = now_ms
        self._low = low
        self._heads: dict[int, Head] = {}
        self._pairs: dict[tuple[int, int], int] = {}
        self._cids: dict[tuple[int, str], KnownCid] = {}
        self._records: list[Any] = []  # flat: 8 values a row
        self._new_cids: list[Any] = []  # flat: 8 values a row
        self._adrift = -1  # actions of this generation or an older one rest on a state that never was

    def run(self, actions: Sequence[Action]) -> list[Outcome]:
        """Store *actions*; all is written when it returns. *Raises* Spoiled, sqlite3.Error."""
        try:
            self._look_up(actions)
            outcomes = []
            for action in actions:
                outcome = self._answer(action)
                if outcome is None:
                    outcome = Outcome(action=action)
                    self._store(action, outcome)
                if action.conversations and outcome.error is None:
                    outcome.conversations = self._conversations(action.account)
                outcomes.append(outcome)
            self._flush()
        except (sqlite_effects.Refused, *BAD_ROW) as exc:
            raise Spoiled(exc) from exc
        return outcomes

    def run_one_by_one(self, actions: Sequence[Action]) -> list[Outcome]:
        """As `run`, but an action that cannot be stored has an error of its own. *Raises* sqlite3.Error of the storage."""
        return [self._run_apart(action) for action in actions]

    # ------------------------------------------------------------ one action

    def _answer(self, action: Action) -> Outcome | None:
        """The outcome of an action of which nothing is stored; None: store it."""
        if action.cid is not None:
            known = self._cids.get((action.account, action.cid))
            if known is not None:
                if action.refusal is None and changes_state(action):
                    self._adrift = max(self._adrift, action.generation)
                if known.digest == action.digest:
                    return Outcome(action=action, dup=known.dup)
                return Outcome(action=action, error=ChatError("cid_conflict", "this cid was used for something else"))
        if action.refusal is not None:
            return Outcome(action=action, error=action.refusal)
        if action.generation <= self._adrift and stores(action):
            return Outcome(action=action, error=ChatError("storage_unavailable", "not stored, please try again"))
        if self._low and grows(action):
            if changes_state(action):
                self._adrift = max(self._adrift, action.generation)
            return Outcome(action=action, error=nearly_full())
        return None

    def _store(self, action: Action, outcome: Outcome) -> None:
        effects = action.effects
        cid = action.cid
        if len(effects) == 1 and type(text := effects[0]) is Append:  # nearly all actions
            bad = self._append(text, cid, outcome)
        else:
            bad = self._store_many(effects, cid, outcome)
        if bad is not None:
            outcome.error = bad
            outcome.placed = []
        elif cid is not None:
            digest = action.digest
            result = action.result
            if outcome.placed:
                p = outcome.placed[0]
                self._new_cids += (action.account, cid, digest, p.ts, p.conv, p.epoch, p.seq, result)
                dup = (p.conv, p.epoch, p.seq, p.ts) if result is None else result
            else:
                dup = b"" if result is None else result
                self._new_cids += (action.account, cid, digest, self._now_ms, None, None, None, dup)
            self._cids[action.account, cid] = KnownCid(digest=digest, dup=dup)

    def _store_many(self, effects: tuple[Effect, ...], cid: str | None, outcome: Outcome) -> ChatError | None:
        for at, effect in enumerate(effects):
            if type(effect) is Append:
                bad = self._append(effect, cid, outcome)
                if bad is not None:
                    if at == 0:
                        return bad
                    raise sqlite_effects.Refused(bad)  # what came before it in the action must go too
            elif type(effect) is SetReadMarker:
                head = self._heads.get(effect.conv)
                sqlite_effects.set_read_marker(self._db, effect, 0 if head is None else head.seq)
            elif type(effect) is PutMember:
                head = self._heads.get(effect.room)
                sqlite_effects.put_member(self._db, effect, 0 if head is None else head.seq)
            elif type(effect) is Audit:
                sqlite_audit.add(self._db, effect, self._now_ms)
            else:
                if type(effect) is PutReport:
                    self._flush()
                elif type(effect) is DeleteRoom:
                    self._flush()
                    self._heads.pop(effect.room, None)
                elif type(effect) is ForgetAccount:  # its notes to itself are deleted
                    self._flush()
                    self._heads.pop(self._pairs.pop((effect.account, effect.account), 0), None)
                try:
                    sqlite_effects.apply(self._db, effect)
                except sqlite_effects.Refused as exc:
                    if at == 0 and type(effect) in (RotateToken, PutSession):
                        return exc.error
                    raise
        return None

    def _run_apart(self, action: Action) -> Outcome:
        """In a savepoint, all written before the next one."""
        self._db.execute("SAVEPOINT action")
        try:
            (outcome,) = self.run([action])
        except Spoiled as exc:
            self._db.execute("ROLLBACK TO action")
            self._forget(action)
            outcome = Outcome(action=action, error=action.refusal or _error(exc.error))
            if action.refusal is None and changes_state(action):
                self._adrift = max(self._adrift, action.generation)
        self._db.execute("RELEASE action")
        return outcome

    def _forget(self, action: Action) -> None:
        self._heads.clear()
        self._pairs.clear()
        self._records.clear()
        self._new_cids.clear()
        if action.cid is not None:
            self._cids.pop((action.account, action.cid), None)

    # ------------------------------------------------------------ texts

    def _append(self, text: Append, cid: str | None, outcome: Outcome) -> ChatError | None:
        """Give *text* its place, or say why it has none. Nothing is touched before it is certain."""
        kind = text.kind
        body = text.body
        if kind != "message":
            body = _encode(body).decode()
        elif type(body) is not str:
            raise TypeError("the body of a message is its text")
        conv = text.conv
        if type(conv) is Pair:
            conv = self._pairs.get((conv.low, conv.high)) or self._find_pair(conv, text.reply_to)
        head = self._heads.get(conv) or self._find_head(conv)  # type: ignore[arg-type]
        if head is None:
            return ChatError("not_found", "there is no such conversation")
        reply_to = text.reply_to
        if reply_to is not None and not 0 < reply_to <= head.seq:  # seqs have no gap, so this is all there is to ask
            return ChatError("bad_request", "reply_to is no message of this conversation")
        head.seq = seq = head.seq + 1
        ts = self._now_ms
        if ts < head.ts:
            ts = head.ts
        else:
            head.ts = ts
        if cid is not None and kind not in CARRY_CID:
            cid = None
        self._records += (conv, seq, ts, kind, text.author, body, cid, reply_to)
        outcome.placed.append(Placed(text, conv, head.epoch, seq, ts, cid))  # type: ignore[arg-type]
        return None

    def _find_head(self, conv: int) -> Head | None:
        row = self._db.execute("SELECT epoch, last_seq, last_ts FROM conversations WHERE id = ?", (conv,)).fetchone()
        if row is None:
            return None
        head = self._heads[conv] = Head(row[0], row[1], row[2], row[1])
        return head

    def _find_pair(self, pair: Pair, reply_to: int | None) -> int:
        """The pair's conversation. It is made if need be, unless the text will be refused anyway."""
        row = self._db.execute("SELECT id FROM conversations WHERE low = ? AND high = ?", (pair.low, pair.high)).fetchone()
        conv: int
        if row is not None:
            (conv,) = row
        else:
            conv = secrets.randbelow(MAX_ID - 1) + 1
            epoch = secrets.token_hex(8)
            if reply_to is not None:
                self._heads[0] = Head(epoch, 0, 0, 0)  # refuses every reply_to; nothing is ever placed there
                return 0
            self._db.execute(
                "INSERT INTO conversations (id, kind, epoch, low, high, at_ms) VALUES (?, 'pair', ?, ?, ?, ?)",
                (conv, epoch, pair.low, pair.high, self._now_ms),
            )
        self._pairs[pair.low, pair.high] = conv
        return conv

    # ------------------------------------------------------------ in bulk

    def _look_up(self, actions: Sequence[Action]) -> None:
        cids: list[Any] = []
        convs: set[int] = set()
        pairs: set[tuple[int, int]] = set()
        for action in actions:
            if action.cid is not None:
                cids += (action.account, action.cid)
            if action.refusal is None:
                for effect in action.effects:
                    if type(effect) is Append:
                        conv = effect.conv
                        if type(conv) is Pair:
                            pairs.add((conv.low, conv.high))
                        else:
                            convs.add(conv)  # type: ignore[arg-type]
        for part, size in parts(cids, 2):
            for account, cid, *found in self._db.execute(_known_sql(size), part).fetchall():
                self._cids[account, cid] = known(*found)
        for part, size in parts(list(chain.from_iterable(pairs)), 2):
            for low, high, conv in msgspec.json.decode(self._db.execute(_pairs_sql(size), part).fetchone()[0]):
                self._pairs[low, high] = conv
                convs.add(conv)
        for part, size in parts(list(convs), 1):
            for conv, epoch, seq, ts in msgspec.json.decode(self._db.execute(_heads_sql(size), part).fetchone()[0]):
                self._heads[conv] = Head(epoch, seq, ts, seq)

    def _flush(self) -> None:
        """Write what was gathered so far."""
        if self._records:
            moved: list[Any] = []
            count = 0
            for conv, head in self._heads.items():
                if head.seq != head.base:
                    moved += (conv, head.base, head.seq - head.base, head.ts)
                    head.base = head.seq
                    count += 1
            for part, size in parts(moved, 4):
                count -= self._db.execute(_move_sql(size), part).rowcount
            if count:
                raise AssertionError("a conversation moved under our feet")
            for part, size in parts(self._records, 8):
                self._db.execute(_records_sql(size), part)
            self._records = []
        if self._new_cids:
            for part, size in parts(self._new_cids, 8):
                self._db.execute(_cids_sql(size), part)
            self._new_cids = []

    def _conversations(self, account: int) -> Any:
        """As they stand at this place: rooms and members are written at once, and the heads are here."""
        found = conversations(self._db, account)
        for each in found:
            head = self._heads.get(each.conv)
            if head is not None:
                each.last_seq = head.seq
        return found


BAD_ROW: Final = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    TypeError,
    ValueError,
    OverflowError,
)


def _error(exc: Exception) -> ChatError:
    """What the author of an action is told that the database did not take."""
    if isinstance(exc, sqlite_effects.Refused):
        return exc.error
    if isinstance(exc, sqlite3.IntegrityError) and "UNIQUE" in str(exc) and (".canonical" in str(exc) or ".skeleton" in str(exc)):
        return ChatError("name_taken", "this name is taken")
    error = ChatError("internal_error", f"internal error {new_error_id()}")
    error.__cause__ = exc  # for the log, which the committer writes: this is another thread
    return error


# ---------------------------------------------------------------- the statements


_known_sql = statement(
    "WITH w (a, c) AS ({}) SELECT k.account, k.cid, k.digest, k.conv, k.epoch, k.seq, k.ts, k.result"
    " FROM w CROSS JOIN cids k ON k.account = w.a AND k.cid = w.c",
    2,
)
_pairs_sql = statement(
    "WITH w (l, h) AS ({}) SELECT json_group_array(json_array(c.low, c.high, c.id))"
    " FROM w CROSS JOIN conversations c ON c.low = w.l AND c.high = w.h",
    2,
)
_heads_sql = statement(
    "WITH w (i) AS ({}) SELECT json_group_array(json_array(c.id, c.epoch, c.last_seq, c.last_ts))"
    " FROM w CROSS JOIN conversations c ON c.id = w.i",
    1,
)
_move_sql = statement(
    "UPDATE conversations SET last_seq = last_seq + w.column3, last_ts = w.column4 FROM ({}) AS w"
    " WHERE id = w.column1 AND last_seq = w.column2",
    4,
)
_records_sql = insert("records (conv, seq, ts, kind, author, body, cid, reply_to)", 8)
_cids_sql = insert("cids (account, cid, digest, ts, conv, epoch, seq, result)", 8)
