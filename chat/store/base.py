"""The interface of a store, and the records it gives out. Its contract suite is tests/contracts/test_store.py."""

from collections.abc import Sequence
from typing import Protocol

import attrs

from chat.rooms.effects import Action, Conversation, Outcome, RoomRole, ServerRole

row = attrs.frozen(kw_only=True)


@row
class AccountRow:
    account: int
    name: str
    canonical: str
    skeleton: str
    color: str | None
    role: ServerRole
    at_ms: int


@row
class BanRow:
    account: int
    by: int
    at_ms: int
    until_ms: int | None
    reason: str | None


@row
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


@row
class InviteRow:
    code: str = attrs.field(repr=False)
    role: ServerRole
    uses_left: int | None
    expires_ms: int | None
    by: int


@row
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


@row
class Credentials:
    account: int
    password_hash: str = attrs.field(repr=False)


@row
class Snapshot:
    """All that decisions rest on."""

    accounts: list[AccountRow]
    bans: list[BanRow]
    rooms: list[RoomRow]
    invites: list[InviteRow]
    disabled_commands: list[str]
    sessions: list[SessionRow]  # those marked online: their accounts are held for the resume window after a start


@row
class HistoryRow:
    """One record. ``body`` as in `Append`: the text of a message, else the mapping; None for a message that was deleted."""

    seq: int
    ts: int
    kind: str
    author: int
    body: "str | dict[str, object] | None"
    reply_to: int | None
    cid: str | None


@row
class Page:
    """Ascending by seq. ``more``: the page ended early at its limit of rows or bytes (above ``after``, else below ``before``)."""

    epoch: str
    rows: list[HistoryRow]
    last_seq: int  # of the whole conversation
    more: bool


class Writer(Protocol):
    """Synchronous; called from the committer's one writer thread only."""

    def load(self) -> Snapshot: ...

    def commit(self, actions: Sequence[Action]) -> list[Outcome]:
        """Store *actions* in one transaction and return their outcomes in the same order.

        *Raises* `CommitFailed`, with ``definite`` saying whether it is certain that nothing of it is or will be stored.
        """
        ...

    def commit_one_by_one(self, actions: Sequence[Action]) -> list[Outcome]:
        """After a failed `commit` that was definite: one transaction each, so that one bad row does not fail its neighbours."""
        ...

    def recover(self) -> None:
        """After an indeterminate `commit`: reopen. *Raises* OSError or CommitFailed while that does not work."""
        ...


class Store(Protocol):
    """Readers: each waits for a thread of the readers' own limiter. They see whatever is committed when they run."""

    writer: Writer

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

    async def aclose(self) -> None: ...


class CommitFailed(Exception):
    """``definite``: nothing of it is stored or ever will be. ``code`` is storage_unavailable or storage_full."""

    def __init__(self, code: str, message: str, *, definite: bool) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.definite = definite
