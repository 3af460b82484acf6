"""The interface of a store, and the records it gives out. Its contract suite is tests/contracts/test_store*.py."""

from collections.abc import Collection, Sequence
from typing import Final, Protocol

import attrs
import msgspec

from chat.rooms import effects
from chat.rooms.effects import Action, Conversation, Outcome, RoomRole, ServerRole
from chat.rooms.moderation import audit
from chat.rooms.rules import effects as rule_effects

FORGOTTEN_MS: Final = 10 * 60_000  # how long a channel without history keeps a record: to deliver it through a reconnect


@attrs.frozen(kw_only=True)
class AccountRow:
    account: int
    name: str
    canonical: str
    skeleton: str
    color: str | None
    role: ServerRole
    at_ms: int
    suspended: bool = False
    forgotten: bool = False


@attrs.frozen(kw_only=True)
class BanRow:
    account: int
    by: int
    at_ms: int
    until_ms: int | None
    reason: str | None


@attrs.frozen(kw_only=True)
class RoomRow:
    room: int
    name: str
    canonical: str
    skeleton: str
    epoch: str
    last_seq: int
    topic: str
    private: bool
    password_hash: str | None = attrs.field(repr=False)
    members: dict[int, RoomRole]  # in the order of joining
    slow_s: float = 0
    announce_only: bool = False
    invite_only: bool = False
    history: rule_effects.HistoryMode = "all"
    invited: frozenset[int] = frozenset()
    prefix: str | None = None
    disabled_commands: frozenset[str] = frozenset()


@attrs.frozen(kw_only=True)
class InviteRow:
    code: str = attrs.field(repr=False)
    role: ServerRole
    uses_left: int | None
    expires_ms: int | None
    by: int


@attrs.frozen(kw_only=True)
class SessionRow:
    session: str
    account: int
    generation: int
    expires_ms: int
    created_ms: int
    seen_ms: int
    client: str
    address: str
    online: bool
    token: str  # "present" or "previous" or "stale": which of its tokens was asked for; "" where none was


@attrs.frozen(kw_only=True)
class Seen:
    """An account came from this address, last at ``last_ms``."""

    account: int
    address: str
    last_ms: int


@attrs.frozen(kw_only=True)
class Credentials:
    account: int
    password_hash: str = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Snapshot:
    """All that decisions rest on."""

    accounts: list[AccountRow]
    bans: list[BanRow]
    sanctions: "list[effects.PutChannelBan | effects.PutMute | effects.PutAddressBan]"
    rooms: list[RoomRow]
    invites: list[InviteRow]
    disabled_commands: list[str]
    sessions: list[SessionRow]  # those marked online: their accounts are held for the resume window after a start
    plugin_values: list[tuple[str, str, str]] = attrs.Factory(list)  # plugin, key, JSON
    filters: list[tuple[int, str, int, int]] = attrs.Factory(list)  # room (0: everywhere), rule, by, at_ms
    ignores: list[tuple[int, int]] = attrs.Factory(list)  # account, whom it ignores
    settings: dict[str, object] = attrs.Factory(dict)


@attrs.frozen(kw_only=True)
class ReportRow:
    """``around``: what was said before it, as (seq, ts, author, text; None: deleted), ascending. ``room`` None: in private."""

    report: int
    by: int
    target: int
    room: int | None
    at_ms: int
    reason: str | None
    around: list[tuple[int, int, int, str | None]]


@attrs.frozen(kw_only=True)
class HistoryRow:
    """One record. ``body`` as in `Append`: the text of a message, else the mapping; None for a message that was deleted."""

    seq: int
    ts: int
    kind: str
    author: int
    body: "str | dict[str, object] | None"
    reply_to: int | None
    cid: str | None


@attrs.frozen(kw_only=True)
class Page:
    """Ascending by seq. ``more``: the page ended early at its limit of rows or bytes (above ``after``, else below ``before``)."""

    epoch: str
    rows: list[HistoryRow]
    last_seq: int  # of the whole conversation
    more: bool
    first_seq: int = 0  # of what is kept of it; 0: nothing was ever said


class Writer(Protocol):
    """Synchronous; called from the committer's one writer thread only."""

    @property
    def low(self) -> bool:
        """Whether the disk was nearly full at the last look, which each `commit` that stores something takes, and each `check`: then what
        grows (`chat.rooms.reserve`) is refused. From any thread."""
        ...

    def load(self) -> Snapshot:
        """*Raises* `CommitFailed`."""
        ...

    def commit(self, actions: Sequence[Action]) -> list[Outcome]:
        """Store *actions* in one transaction and return their outcomes in the same order.

        An action that is refused or stores nothing needs no place on the disk: such a batch is answered while the store is
        full or locked. When an action that `changes_state` is dropped (a retry, a cid_conflict), the later ones of its generation
        were decided on a state that never was: they are refused with storage_unavailable. So it is with one that grows while the
        disk is nearly full: it alone is refused, with storage_full.

        *Raises* `CommitFailed`, with ``definite`` saying whether it is certain that nothing of it is or will be stored.
        """
        ...

    def commit_one_by_one(self, actions: Sequence[Action]) -> list[Outcome]:
        """After a `commit` that failed with ``one_row``: each action stands and falls alone, so that one bad row does not fail
        its neighbours. *Raises* as `commit`."""
        ...

    def recover(self) -> None:
        """After an indeterminate `commit`: reopen, and make certain that what failed cannot come back any more.
        *Raises* OSError or CommitFailed while that does not work."""
        ...

    def check(self) -> None:
        """Whether a text could be stored now; nothing is. *Raises* `CommitFailed`, storage_full also on a disk that is nearly full."""
        ...

    def tidy(self, *, cids_before_ms: int, rows: int) -> bool:
        """One bounded step of housekeeping: drop cids older than *cids_before_ms*, records of deleted rooms, expired sessions; erase
        what forgotten people said.

        *Returns* whether the pass goes on: call it until it says no, then not again for an hour. *Raises* `CommitFailed`.
        """
        ...

    def erase(self, *, rows: int = 2000) -> bool:
        """One bounded step of erasing: records of deleted rooms, what forgotten people said.

        *Returns* whether there was one. *Raises* `CommitFailed`.
        """
        ...

    def trim(self, conv: int, below: int, *, rows: int = 2000) -> bool:
        """One bounded step of a retention: delete the oldest records of a conversation, those below the seq *below*.

        *Returns* whether some are left. *Raises* `CommitFailed`.
        """
        ...


class Store(Protocol):
    """Readers: each waits for a thread of the readers' own limiter. They see whatever is committed when they run.

    *Raises* ChatError storage_unavailable while the store cannot be read.
    """

    @property
    def writer(self) -> Writer: ...

    async def credentials(self, canonical: str) -> Credentials | None: ...

    async def session_by_token(self, token_hash: bytes) -> SessionRow | None: ...

    async def sessions(self, account: int) -> list[SessionRow]: ...

    async def pair(self, low: int, high: int) -> Conversation | None:
        """The private conversation of two accounts; its ``role``, ``peer`` and ``read_seq`` are those of *low*."""
        ...

    async def history(self, conv: int, *, after: int | None, before: int | None, limit: int, max_bytes: int) -> Page:
        """With *after* the first *limit* rows above it (and below *before*), else the last *limit* below *before*.

        *max_bytes* bounds the rows' text; at least one row is always returned. *Raises* ChatError not_found for an unknown conv.
        """
        ...

    async def visible_from(self, conv: int, account: int, since_ms: int | None) -> int:
        """The first seq of a room that a member of it may read, where the room keeps its history from newcomers; and none that is
        older than *since_ms*, where given."""
        ...

    async def reports(self, *, rooms: Collection[int] | None, limit: int) -> list[ReportRow]:
        """The latest first; of these *rooms*, or all (None)."""
        ...

    async def audit(
        self,
        *,
        limit: int,
        before: int | None = None,
        target: int | None = None,
        rooms: Collection[int] | None = None,
        action: str | None = None,
    ) -> list[audit.Entry]:
        """The last *limit* entries of the moderation log (below number *before*), newest first: about *target*, in *rooms* (None: all),
        with this *action*."""
        ...

    async def seen(self, since_ms: int) -> list[Seen]:
        """Who came from where since *since_ms*, the latest first."""
        ...

    async def command_history(self, account: int, limit: int) -> list[tuple[int, int | None, str]]:
        """The last commands of an account, the latest last: (ms since 1970, room, line)."""
        ...

    async def last_messages(self, conv: int, limit: int) -> list[int]:
        """The seqs of a conversation's last messages that have a text, the latest first."""
        ...

    async def known_cid(self, account: int, cid: str) -> "KnownCid | None":
        """What the cid got, if it is committed: a look-up before a decision. The one that counts is the commit's own."""
        ...

    async def aclose(self) -> None: ...


class KnownCid(msgspec.Struct, kw_only=True, gc=False):
    """What a cid got: see `Outcome.dup`."""

    digest: bytes | None
    dup: tuple[int, str, int, int] | bytes


class CommitFailed(Exception):
    """``definite``: nothing of it is stored or ever will be. ``code`` is storage_unavailable or storage_full; internal_error where
    a bug made something fail that was asked of the committer.

    ``one_row``: the storage is well and one of the actions is not; `Writer.commit_one_by_one` finds out which. Then definite too.
    ``locked``: somebody else has the database, and was waited for as long as may be.
    """

    def __init__(self, code: str, message: str, *, definite: bool, one_row: bool = False, locked: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.definite = definite
        self.one_row = one_row
        self.locked = locked


class StoreRefused(Exception):
    """The store cannot be opened; nothing was touched. ``str()`` is one line for the person who starts the daemon."""


# ---------------------------------------------------------------- what an action asks of the store

_STORED: Final = frozenset(effects.Stored.__args__)
_STATELESS: Final = {
    effects.Append,
    effects.SetReadMarker,
    effects.SetPassword,
    effects.PutSession,  # who is refused these two sees to the session himself, and they may be:
    effects.RotateToken,  # the password may have been changed, the session may have ended meanwhile
    effects.ForgetPreviousToken,
    effects.SessionOffline,
    effects.Audit,
    effects.SetRetention,
    effects.EraseTexts,
    effects.NoteCommand,
    rule_effects.PutReport,
    rule_effects.DropReport,
}
_STATE: Final = _STORED - _STATELESS


def stores(action: Action) -> bool:
    """Whether *action*, when it is not a retry, writes anything, or says that something is written."""
    if action.refusal is not None:
        return False
    return action.cid is not None or action.rests or any(type(effect) in _STORED for effect in action.effects)


def changes_state(action: Action) -> bool:
    """Whether decisions after *action* rest on it: it changes rooms, members, accounts, bans, invites, commands or who has a session.

    A text or a read marker that was not stored makes no later decision wrong.
    """
    return any(type(effect) in _STATE for effect in action.effects)
