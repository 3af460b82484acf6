"""What reaches the manager's inbox: a connection's requests, and the internal items below, all in the order of their arrival.

Work that waits (hashing, reading the store) is done by the connection's own task first; an item says what was found out, and the
manager decides, checking again whatever may have changed meanwhile.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import CodeType
from typing import Any, Protocol

import attrs

from chat.errors import ChatError, RemoteProtocolError
from chat.protocol.names import Name
from chat.rooms import effects as fx
from chat.rooms.audience import Link
from chat.rooms.conversations.questions import Questions
from chat.rooms.conversations.runs import Run
from chat.rooms.moderation.refusals import Refusal
from chat.rooms.policy import AccountRates
from chat.rooms.state import Account, Room, State


class Connection(Link, Protocol):
    """What the manager needs of a connection beyond what the router does. All are plain calls."""

    account: int
    session: str
    client: str
    fenced: bool  # another connection has its session, or it went away before it had one: nothing more that it asks is decided

    @property
    def host(self) -> str: ...

    def command_started(self) -> None:
        """An ``async def`` command runs for it, until `command_ended`: its answer is still to come."""
        ...

    def command_ended(self) -> None: ...

    def tell(self, message: Any) -> None:
        """Put a message into its outbox, and see that it goes out."""
        ...

    def opened(self, message: Any) -> bytes | None:
        """It has a session now. Returns the encoded *message* (`session`); None where it has said its last word meanwhile."""
        ...

    def login_failed(self, error: ChatError) -> None: ...
    def replay(self, token: str, conversations: list[fx.Conversation]) -> None:
        """Its resume is committed: bring it up to date, then say `resumed`."""
        ...

    def end(self, message: Any | None) -> None:
        """Say *message* (closing, replaced) and close, once what is in the outbox is out. It reads nothing more. *Raises* nothing."""
        ...


@attrs.frozen(kw_only=True)
class Registration:
    id: int | str
    name: Name
    password_hash: str = attrs.field(repr=False)
    color: str | None
    invite: str | None = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class LoginVerified:
    """The password was right, of which the store had ``password_hash`` (None: it was not asked for).

    ``renewed_hash``: it is hashed anew with today's costs.
    """

    id: int | str
    account: int
    password_hash: str | None = attrs.field(default=None, repr=False)
    renewed_hash: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class ResumeVerified:
    """``token_hash`` is a valid token of the session."""

    id: int | str
    account: int
    session: str
    token_hash: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class TokenReused:
    """An old token of the session came: somebody copied it. The session ends."""

    account: int
    session: str


@attrs.frozen(kw_only=True)
class Resumed:
    """The client spoke after `resumed`: it has its new token."""


@attrs.frozen(kw_only=True)
class JoinVerified:
    """The password of the private room was right, as of ``password_version``; None: it was wrong, or there is no such room."""

    id: int | str
    channel: str
    room: int | None
    password_version: int


@attrs.frozen(kw_only=True)
class PasswordVerified:
    """The old password was right; ``password_hash`` is the new one's."""

    id: int | str
    password_hash: str = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class SessionFound:
    """``session`` is one of the account's own, online or not, and it is to end."""

    id: int | str
    session: str


@attrs.frozen(kw_only=True)
class Retry:
    """A command whose cid is known: its first result is answered, it does not run again."""

    id: int | str
    cid: str
    digest: bytes


@attrs.frozen(kw_only=True)
class Malformed:
    """A frame that could not be decoded: its error is answered at its place."""

    error: RemoteProtocolError


@attrs.frozen(kw_only=True)
class ReadMark:
    id: int | str
    conv: int
    seq: int


@attrs.frozen(kw_only=True)
class Barrier:
    """``reached`` is called when everything that this connection asked before has been answered."""

    reached: Callable[[], None]


@attrs.frozen(kw_only=True)
class Tick:
    """Once a second."""


@attrs.frozen(kw_only=True)
class Bootstrap:
    """Effects of the daemon itself, at its start; ``done`` gets the outcome."""

    effects: tuple[fx.Effect, ...]
    done: Callable[[fx.Outcome], None]
    failed: Callable[[ChatError], None]


@attrs.frozen(kw_only=True)
class Administration:
    """The operator's, from the shell. ``decide`` gets the state and the time (milliseconds since 1970) in its turn and returns the
    effects; it may raise ChatError. ``done`` gets the outcome, ``failed`` that error or the store's."""

    decide: Callable[[State, int], Sequence[fx.Effect]]
    done: Callable[[fx.Outcome], None]
    failed: Callable[[ChatError], None]


@attrs.frozen(kw_only=True, eq=False)
class Errand:
    """Something that code of the server's own wants done, such as a plugin's words: decided in its turn; see `Host.carry_out`."""

    decide: Callable[[State], Iterable[fx.Effect]]
    done: Callable[[fx.Outcome], None]
    failed: Callable[[BaseException], None]


# ---------------------------------------------------------------- commands


@attrs.define(kw_only=True)
class Invocation:
    """A command as somebody typed it, at one moment of the state. ``text`` has no prefix."""

    state: State
    account: Account
    room: Room | None
    rates: AccountRates
    questions: Questions
    text: str
    now: float  # monotonic seconds
    now_ms: int
    refused: Refusal | None = None  # the account's last one
    noted: Callable[[], list[fx.NoteCommand]] = list  # the account's last commands that are not stored yet
    live: Callable[[], list[tuple[int, str]]] = list  # who is connected from where: account and address, one for each session


@attrs.frozen(kw_only=True)
class Done:
    """The command's answer, and what it changes."""

    text: str
    data: Any = None
    effects: tuple[fx.Effect, ...] = ()
    line: str = ""  # the command for its author's history: without the prefix, its secrets masked


@attrs.frozen(kw_only=True)
class Later:
    """An ``async def`` command: ``run`` is awaited in a task of the session, and what it returns is called as a decision of its own.

    ``room`` is the channel that it was given in.
    """

    name: str
    run: Callable[[Run], Awaitable[Callable[[Invocation], Done]]]
    room: Room | None = None


class Commands(Protocol):
    """The command dispatcher, as the manager needs it."""

    def start(self, invocation: Invocation) -> Done | Later:
        """*Raises* ChatError: not_found, forbidden, bad_request (with the usage line), rate_limited, or what the command says."""
        ...

    def describe(self, invocation: Invocation) -> list[dict[str, Any]]: ...

    def attach(self, host: "Host") -> None:
        """Before anything else: what commands that wait are given to act on."""
        ...

    async def run(self) -> None:
        """What plugins do by themselves, while the manager runs. Cancelled at its end."""
        ...

    def code(self) -> Mapping[CodeType, str]:
        """The code of every command's function, and its name: to tell whose code is running."""
        ...


class Host(Protocol):
    """What code that waits sees of the desk. ``state`` is another object after a failed commit: do not keep it."""

    @property
    def state(self) -> State: ...

    @property
    def questions(self) -> Questions: ...

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        ...

    async def carry_out(self, decide: Callable[[State], Iterable[fx.Effect]]) -> fx.Outcome:
        """Have something decided, in the order of everything else. *decide* is called once and only looks; what it returns is stored.

        *Returns* when it is stored and told. *Raises* ChatError, and whatever *decide* raises. *If cancelled*: it may still be done.
        """
        ...

    def tell(self, account: int | None, message: Any) -> None:
        """Say something to an account's connections, or to everybody's (None), now. It is not stored."""
        ...
