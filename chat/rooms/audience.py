"""Who listens to what: conversations as they are committed, the accounts that are online, and look-ups in both.

`chat.rooms.router` owns them and is the only one who changes them.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import attrs
import msgspec

from chat.errors import ChatError
from chat.rooms import effects as fx

Frame = Callable[[bytes], bytes]  # puts a payload into the bytes of a dialect; connections of one dialect share one function


class Outlet(Protocol):
    """What the router needs of an outbox (`chat.transport.outbox.Outbox`)."""

    def put(self, data: bytes) -> bool: ...
    def put_all(self, frames: list[bytes]) -> bool: ...
    def put_always(self, data: bytes) -> None: ...


class Link(Protocol):
    """A connection, as the rooms see it. ``account`` is 0 and ``session`` empty before a session. Hashed by identity."""

    @property
    def outbox(self) -> Outlet: ...
    @property
    def frame(self) -> Frame: ...
    @property
    def account(self) -> int: ...
    @property
    def session(self) -> str: ...

    skipped: frozenset[int]  # conversations whose live notices its outbox refused


class Reply(msgspec.Struct, eq=False):
    """Whom to answer, and with what. ``make`` builds the answer at its place in the order (None: nothing to say); without it the answer
    is the ack of a send. ``replaces``: the answer stands in the place of the action's own records for this connection."""

    link: Link
    id: int | str | None
    make: Callable[[fx.Outcome], Any] | None = None
    replaces: bool = True
    conv: str = ""  # of an ack: the conversation's name as this connection knows it
    failed: Callable[[ChatError], None] | None = None  # instead of telling the connection


@attrs.define(eq=False)
class Audience:
    """A conversation as committed, and who listens to it. ``pair``: the accounts of a private one."""

    conv: int
    epoch: str
    head: int
    name: str
    pair: tuple[int, int] | None = None
    links: set[Link] = attrs.Factory(set)
    ring: "deque[fx.Placed] | None" = None
    collected: list[tuple[int, fx.Placed, Link | None]] = attrs.Factory(list)


@attrs.define(eq=False)
class Online:
    """An account with a session that is online or within its resume window, and the conversations it is in.

    ``read``: the read markers that were moved since it came, conversation → seq. The others are in the store.
    Tuples, for there are few of each in most: a set would take 216 bytes, if it were of one.
    """

    links: tuple[Link, ...] = ()
    convs: tuple[int, ...] = ()
    read: dict[int, int] = attrs.Factory(dict)

    def enter(self, convs: Iterable[int]) -> None:
        self.convs = tuple({*self.convs, *convs})

    def leave(self, conv: int) -> None:
        self.convs = tuple(other for other in self.convs if other != conv)


@attrs.define(kw_only=True)
class Hooks:
    """What the router tells its neighbours; plain calls."""

    flush: Callable[[], None]
    name_of: Callable[[int], str]
    is_online: Callable[[int], bool]
    close_sessions: Callable[[fx.CloseSessions | fx.CloseNetwork], None]
    refuse_retry: Callable[[fx.Action], ChatError | None]  # a known cid comes too often
    record: Callable[[str, fx.Placed], None] | None = None  # the message log; the conversation's name as in ``#channel``


class Audiences:
    """``by_conv`` are the rooms, all of them, and the private conversations of those who are online."""

    def __init__(self, hooks: Hooks) -> None:
        self.hooks: Final = hooks
        self.by_conv: Final[dict[int, Audience]] = {}
        self.online: Final[dict[int, Online]] = {}

    def conv_name(self, conv: int, viewer: int) -> str:
        """``#channel``, or ``@`` and the other's name for *viewer*; empty for what does not exist any more."""
        audience = self.by_conv.get(conv)
        if audience is None:
            return ""
        if audience.pair is None:
            return audience.name
        low, high = audience.pair
        return "@" + self.hooks.name_of(high if viewer == low else low)

    def head(self, conv: int) -> int:
        return self.by_conv[conv].head

    def heads(self, account: int, convs: Iterable[int] | None = None) -> dict[str, tuple[str, int]]:
        """Name → (epoch, last seq) of *convs*, or of all that the account is in."""
        online = self.online.get(account)
        chosen = online.convs if convs is None and online is not None else convs or ()
        audiences = (self.by_conv[conv] for conv in chosen if conv in self.by_conv)
        return {self.conv_name(a.conv, account): (a.epoch, a.head) for a in audiences}

    def read_markers(self, account: int, conversations: Iterable[fx.Conversation]) -> dict[str, int] | None:
        """Name → seq up to which *account* has read, of *conversations* as the store had them; None: nothing was read yet."""
        online = self.online.get(account)
        moved = online.read if online is not None else {}
        markers = ((c.conv, max(c.read_seq, moved.get(c.conv, 0))) for c in conversations if c.conv in self.by_conv)
        return {self.conv_name(conv, account): seq for conv, seq in markers if seq} or None

    def convs_of(self, account: int) -> set[int]:
        """All that an account that is online is in: for who asks about several, of which `is_in` would look through all each time."""
        online = self.online.get(account)
        return {*online.convs} if online is not None else set()

    def is_in(self, account: int, conv: int) -> bool:
        online = self.online.get(account)
        return online is not None and conv in online.convs
