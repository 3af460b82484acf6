"""What a decision does: an `Action` is one request, decided; its effects are stored in one transaction, all or none.

The manager makes actions, the committer stores them and gives every `Append` its place, the router tells people. Effects are
plain data: they know neither SQL nor sockets. Ids of accounts and rooms are random positive integers below 2**53, chosen at the
decision, so that an action can name what an earlier one, not yet stored, has made.

Times: ``*_ms`` are integer milliseconds since 1970.

What is made for every message is a msgspec Struct and no attrs class: 0.1 to 0.2 µs each instead of 0.6 to 0.9, and the collector of
circular garbage never looks at those that can be in no circle (``gc=False``).
"""

from collections.abc import Mapping
from typing import Any, Literal

import attrs
import msgspec

from chat.errors import ChatError
from chat.rooms.commands.effects import CommandEffect
from chat.rooms.commands.effects import EraseTexts as EraseTexts
from chat.rooms.commands.effects import NoteCommand as NoteCommand
from chat.rooms.commands.effects import SetPrefix as SetPrefix
from chat.rooms.commands.effects import SetRoomCommandEnabled as SetRoomCommandEnabled
from chat.rooms.moderation.operator_effects import DropInvite as DropInvite
from chat.rooms.moderation.operator_effects import ForgetAccount as ForgetAccount
from chat.rooms.moderation.operator_effects import SetRetention as SetRetention
from chat.rooms.moderation.operator_effects import SetSuspended as SetSuspended
from chat.rooms.rules.effects import RuleEffect

ServerRole = Literal["owner", "admin", "member"]
RoomRole = Literal["owner", "moderator", "member"]


# ---------------------------------------------------------------- what takes a seq


class Pair(msgspec.Struct, frozen=True, gc=False):
    """The private conversation of two accounts (or of one with itself): the store finds or makes its row. ``low <= high``."""

    low: int
    high: int

    @classmethod
    def of(cls, a: int, b: int) -> "Pair":
        return cls(a, b) if a <= b else cls(b, a)


class Append(msgspec.Struct, kw_only=True, gc=False):
    """Add one record to a conversation. ``kind`` is the notice's type; ``body`` its own fields but conv, epoch, seq, ts, cid.

    For a ``message`` the body is the text itself; for other kinds a mapping of the notice's fields, in which people are account ids:
    ``user`` and ``by`` (null: the server). ``author`` is the account that caused it, 0 the server.
    """

    conv: int | Pair
    kind: str
    author: int
    body: str | dict[str, Any]
    reply_to: int | None = None


# ---------------------------------------------------------------- accounts


@attrs.frozen(kw_only=True)
class CreateAccount:
    account: int
    name: str
    canonical: str
    skeleton: str
    password_hash: str = attrs.field(repr=False)
    color: str | None
    role: ServerRole
    at_ms: int


@attrs.frozen(kw_only=True)
class SetPassword:
    account: int
    password_hash: str = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class SetColor:
    account: int
    color: str | None


@attrs.frozen(kw_only=True)
class SetServerRole:
    account: int
    role: ServerRole


@attrs.frozen(kw_only=True)
class PutBan:
    """Ban an account from the server. ``until_ms`` None: until somebody lifts it."""

    account: int
    by: int
    at_ms: int
    until_ms: int | None
    reason: str | None


@attrs.frozen(kw_only=True)
class DropBan:
    account: int


@attrs.frozen(kw_only=True)
class PutAddressBan:
    """Nobody comes from ``network``, a network in canonical CIDR form, but the server's admins."""

    network: str
    by: int
    at_ms: int
    until_ms: int | None
    reason: str | None


@attrs.frozen(kw_only=True)
class DropAddressBan:
    network: str


@attrs.frozen(kw_only=True)
class PutInvite:
    """``code`` is kept as it is (the data folder is private): `chat invite` prints the guests' invite again."""

    code: str = attrs.field(repr=False)
    role: ServerRole
    uses_left: int | None  # None: any number
    expires_ms: int | None
    by: int
    at_ms: int


@attrs.frozen(kw_only=True)
class UseInvite:
    """One use less; at none left the invite is deleted."""

    code: str = attrs.field(repr=False)


# ---------------------------------------------------------------- sessions


@attrs.frozen(kw_only=True)
class PutSession:
    """``password_hash``: the one that was asked for, of a login; where the account has another by now, there is no session."""

    session: str
    account: int
    token_hash: bytes = attrs.field(repr=False)
    expires_ms: int
    client: str
    address: str
    at_ms: int
    password_hash: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class RotateToken:
    """``token_hash`` becomes the present token; the session's generation goes up and it is online.

    ``presented_hash``, the one that the client came with, becomes the previous one and stays valid until `ForgetPreviousToken`:
    who came with the previous token never saw the present one, and may come with it again. None: the present one becomes previous.
    """

    session: str
    token_hash: bytes = attrs.field(repr=False)
    expires_ms: int
    address: str
    at_ms: int
    presented_hash: bytes | None = attrs.field(default=None, repr=False)
    account: int = 0


@attrs.frozen(kw_only=True)
class ForgetPreviousToken:
    """The client used its new token's connection: the previous token counts as stale from now on."""

    session: str


@attrs.frozen(kw_only=True)
class DropSession:
    session: str
    account: int = 0


@attrs.frozen(kw_only=True)
class DropSessions:
    """All sessions of an account, ``but`` one (None: really all)."""

    account: int
    but: str | None = None


@attrs.frozen(kw_only=True)
class SessionOffline:
    """The resume window passed without a connection. From now on its token is good until ``expires_ms``."""

    session: str
    account: int = 0
    expires_ms: int = 0


# ---------------------------------------------------------------- rooms


@attrs.frozen(kw_only=True)
class CreateRoom:
    room: int
    name: str
    canonical: str
    skeleton: str
    epoch: str
    private: bool
    password_hash: str | None = attrs.field(repr=False)
    at_ms: int


@attrs.frozen(kw_only=True)
class DeleteRoom:
    """The room, its members and its records go."""

    room: int


@attrs.frozen(kw_only=True)
class PutMember:
    """Make a member, or change a member's role."""

    room: int
    account: int
    role: RoomRole
    at_ms: int


@attrs.frozen(kw_only=True)
class DropMember:
    """``reason`` is told to the account's sessions in ``removed`` (None: the account asked for it itself)."""

    room: int
    account: int
    reason: str | None = None


@attrs.frozen(kw_only=True)
class PutChannelBan:
    room: int
    account: int
    by: int
    at_ms: int
    until_ms: int | None
    reason: str | None


@attrs.frozen(kw_only=True)
class DropChannelBan:
    room: int
    account: int


@attrs.frozen(kw_only=True)
class PutMute:
    room: int
    account: int
    by: int
    at_ms: int
    until_ms: int | None
    reason: str | None


@attrs.frozen(kw_only=True)
class DropMute:
    room: int
    account: int


@attrs.frozen(kw_only=True)
class SetTopic:
    room: int
    text: str


@attrs.frozen(kw_only=True)
class SetReadMarker:
    """Move an account's read marker in a conversation forward, never back."""

    conv: int
    account: int
    seq: int


@attrs.frozen(kw_only=True)
class SetCommandEnabled:
    name: str
    enabled: bool
    by: int


@attrs.frozen(kw_only=True)
class Audit:
    """An entry of the moderation log: made by `chat.rooms.moderation.audit.entry`. The store gives it its number, its time and its hash."""

    actor: int
    action: str
    target: int | None
    room: int | None
    reason: str | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


@attrs.frozen(kw_only=True)
class PutPluginValue:
    """Keep a value of a plugin's store, as JSON; None: forget the key."""

    plugin: str
    key: str
    value: str | None = attrs.field(repr=False)


# ---------------------------------------------------------------- what is told and not stored


@attrs.frozen(kw_only=True)
class Tell:
    """A message for one account's sessions (``account``), or for everybody online (None). A `chat.protocol.messages` object."""

    account: int | None
    message: Any


@attrs.frozen(kw_only=True)
class TellRoom:
    """A message for the sessions of a channel's members, as they are at this place of the order."""

    room: int
    message: Any


@attrs.frozen(kw_only=True)
class CloseSessions:
    """Close the live connections of an account with ``closing code``: all, all ``but`` one session, or ``only`` one."""

    account: int
    code: str
    but: str | None = None
    only: str | None = None


@attrs.frozen(kw_only=True)
class CloseNetwork:
    """Close the live connections from ``network`` with ``closing forbidden``, behind the warning ``text``; not those of admins."""

    network: str
    text: str


Stored = (
    Append | CreateAccount | SetPassword | SetColor | SetServerRole | PutBan | DropBan | PutInvite | UseInvite | PutSession | RotateToken
    | ForgetPreviousToken | DropSession | DropSessions | SessionOffline | CreateRoom | DeleteRoom | PutMember | DropMember | SetTopic
    | SetReadMarker | SetCommandEnabled | Audit | SetSuspended | ForgetAccount | DropInvite | SetRetention | PutPluginValue
    | PutAddressBan | DropAddressBan | PutChannelBan | DropChannelBan | PutMute | DropMute | RuleEffect | CommandEffect
)  # fmt: skip
Told = Tell | TellRoom | CloseSessions | CloseNetwork
Effect = Stored | Told


# ---------------------------------------------------------------- actions and what became of them


class Action(msgspec.Struct, eq=False, kw_only=True):
    """One request, decided. With ``refusal`` nothing is stored, but the committer still looks the cid up: a known one is a retry.

    ``account`` and ``cid`` are the dedupe key, ``digest`` the hash of (conversation, kind, text) kept with it.
    ``result``: for a command with a cid, the encoded answer to keep with it (JSON without id).
    ``reply`` is the router's business: whom to answer, and with what. The committer passes it on unseen.
    ``conversations``: also list the account's conversations as they stand at this place in the order (for session and resumed).
    ``charged``: a refused text took a token of the rate, which a retry gets back.
    ``generation`` is that of the state the decision rests on. ``rests``: without effects, its answer is a promise all the same (``ok`` to
    a join of who is a member already), and is refused like what stores when that state turns out never to have been stored.
    """

    effects: tuple[Effect, ...] = ()
    account: int = 0
    cid: str | None = None
    digest: bytes | None = None
    result: bytes | None = None
    refusal: ChatError | None = None
    reply: Any = None
    conversations: bool = False
    generation: int = 0
    rests: bool = False
    charged: bool = False


class Placed(msgspec.Struct, gc=False):
    """An `Append` that is on disk: its place in the one order of its conversation."""

    append: Append
    conv: int
    epoch: str
    seq: int
    ts: int
    cid: str | None


@attrs.define(kw_only=True)
class Conversation:
    """A conversation as an account sees it. ``peer``: the other account of a private one (oneself for notes), else None."""

    conv: int
    epoch: str
    last_seq: int
    role: RoomRole
    peer: int | None
    read_seq: int


class Outcome(msgspec.Struct, kw_only=True):
    """What became of an action.

    ``error`` None: stored. Else nothing of it was, definitely, unless its code is ``indeterminate``.
    ``dup`` is what the first attempt with this cid got: its place (conv, epoch, seq, ts), or for a command its encoded result;
    then nothing new was stored and nobody is told, and the action's rate token is given back. A cid used with other content has
    ``error`` cid_conflict.
    """

    action: Action
    error: ChatError | None = None
    placed: list[Placed] = []
    dup: "tuple[int, str, int, int] | bytes | None" = None
    conversations: list[Conversation] | None = None
