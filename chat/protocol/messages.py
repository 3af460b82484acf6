"""Every message of the protocol as a frozen class: what a client sends is a Request, what the server sends is a Notice.

Field names are the wire's, but for a trailing underscore where the wire's name is a Python keyword (``from_`` is ``from``).
``None`` in an optional field is absence. The bounds here are checked when a message is decoded; what they cannot say
(control characters, the depth of a frame, the bytes of an id, "exactly one of") is checked by `chat.protocol.codec`.
What people wrote, and every secret, is left out of the ``repr``, so that it cannot end up in a log.

*Source*: contract, sections 1 and 2.
"""

from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar, dataclass_transform

import attrs
from msgspec import Meta

MAX_INT: Final = 2**53  # beyond it JSON numbers are not exact in every language

Int = Annotated[int, Meta(ge=-MAX_INT, le=MAX_INT)]
Seq = Annotated[int, Meta(ge=0, le=MAX_INT)]
Count = Annotated[int, Meta(ge=1, le=MAX_INT)]
Id = Annotated[int, Meta(ge=-MAX_INT, le=MAX_INT)] | Annotated[str, Meta(max_length=64)]
Cid = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Epoch = Annotated[str, Meta(pattern=r"^[A-Za-z0-9]{8,32}\Z")]
Head = tuple[Epoch, Seq]
Text = Annotated[str, Meta(min_length=1)]
Line = str
Json = Any

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(attrs.field,))
def message(cls: type[_T]) -> type[_T]:
    """Makes a class a message. A plain alias of ``attrs.frozen`` would hide the constructors from mypy."""
    return attrs.frozen(kw_only=True)(cls)


# ---------------------------------------------------------------- requests: what a client sends


@message
class Hello:
    """The first frame of every connection."""

    type: ClassVar[str] = "hello"
    protocol: Int
    client: Line
    compress: list[Line] | None = None


@message
class Register:
    """Make an account and open a session on it."""

    type: ClassVar[str] = "register"
    id: Id
    username: Line
    password: Line = attrs.field(repr=False)
    invite: Line | None = attrs.field(default=None, repr=False)
    color: Line | None = None


@message
class Login:
    """Open a new session on an account."""

    type: ClassVar[str] = "login"
    id: Id
    username: Line
    password: Line = attrs.field(repr=False)


@message
class Resume:
    """Go on with a session: its token, and for each conversation the epoch and the next seq that the client lacks."""

    type: ClassVar[str] = "resume"
    id: Id
    token: Line = attrs.field(repr=False)
    cursors: dict[Line, Head]


@message
class Send:
    """A text for a channel or, with ``to``, for a person. Exactly one of the two is given."""

    type: ClassVar[str] = "send"
    id: Id
    cid: Cid
    text: Text = attrs.field(repr=False)
    channel: Line | None = None
    to: Line | None = None
    reply_to: Count | None = None


@message
class Join:
    """Become a member of a channel."""

    type: ClassVar[str] = "join"
    id: Id
    channel: Line
    password: Line | None = attrs.field(default=None, repr=False)


@message
class Leave:
    """Stop being a member of a channel."""

    type: ClassVar[str] = "leave"
    id: Id
    channel: Line


@message
class Command:
    """Run a command; ``channel`` is where it was typed. ``text`` has no prefix."""

    type: ClassVar[str] = "command"
    id: Id
    text: Text = attrs.field(repr=False)
    cid: Cid | None = None
    channel: Line | None = None


@message
class Answer:
    """The answer to a question of a command."""

    type: ClassVar[str] = "answer"
    id: Id
    question: Line
    text: Text = attrs.field(repr=False)


@message
class HistoryRequest:
    """A page of a conversation: the first ``limit`` above ``after``, else the last ``limit`` below ``before``."""

    type: ClassVar[str] = "history"
    id: Id
    conv: Line
    limit: Count
    after: Seq | None = None
    before: Seq | None = None


@message
class PasswordChange:
    """Change the password; every other session of the account is closed."""

    type: ClassVar[str] = "password"
    id: Id
    old: Line = attrs.field(repr=False)
    new: Line = attrs.field(repr=False)


@message
class Logout:
    """End this session, or with ``everywhere`` all sessions of the account."""

    type: ClassVar[str] = "logout"
    id: Id
    everywhere: bool | None = None


@message
class Sessions:
    """List the account's sessions."""

    type: ClassVar[str] = "sessions"
    id: Id


@message
class Members:
    """List a channel's members with role, colour and whether they are online."""

    type: ClassVar[str] = "members"
    id: Id
    channel: Line


@message
class Commands:
    """List the commands that this person may use here."""

    type: ClassVar[str] = "commands"
    id: Id
    channel: Line | None = None


@message
class Read:
    """Move the read marker that the account's sessions share. It never moves back."""

    type: ClassVar[str] = "read"
    id: Id
    conv: Line
    seq: Seq


# ---------------------------------------------------------------- either side


@message
class Ping:
    """Are you there? Answered by a pong with the same id."""

    type: ClassVar[str] = "ping"
    id: Id


@message
class Pong:
    """The answer to a ping."""

    type: ClassVar[str] = "pong"
    id: Id


# ---------------------------------------------------------------- notices: what the server sends


@message
class Welcome:
    """The answer to hello."""

    type: ClassVar[str] = "welcome"
    protocol: Int
    server: Line
    name: Line
    limits: dict[Line, Json]
    prefix: Line
    registration: Literal["open", "invite", "closed"]
    compress: Line | None = None
    motd: str | None = None


@message
class ChannelInfo:
    """A channel as `SessionOpened` and `Resumed` list it. Not a message of its own."""

    channel: Line
    topic: str
    role: Line
    prefix: Line | None = None


@message
class SessionOpened:
    """The answer to register and login: live from the heads on."""

    type: ClassVar[str] = "session"
    id: Id
    user: Line
    session: Line
    resume_token: Line = attrs.field(repr=False)
    heads: dict[Line, Head]
    channels: list[ChannelInfo]


@message
class Resumed:
    """The end of a replay: live right after the last replayed seq."""

    type: ClassVar[str] = "resumed"
    id: Id
    user: Line
    session: Line
    resume_token: Line = attrs.field(repr=False)
    heads: dict[Line, Head]
    channels: list[ChannelInfo]


@message
class Ack:
    """The text is stored: on disk, with this place in the one order. ``dup``: it already was."""

    type: ClassVar[str] = "ack"
    id: Id
    cid: Cid
    conv: Line
    epoch: Epoch
    seq: Count
    ts: Int
    dup: bool | None = None


@message
class Ok:
    """Done. join and leave carry the place in the order, where one was given; members, sessions and commands carry data."""

    type: ClassVar[str] = "ok"
    id: Id
    conv: Line | None = None
    epoch: Epoch | None = None
    seq: Seq | None = None
    last_seq: Seq | None = None
    topic: str | None = None
    role: Line | None = None
    data: Json | None = None


@message
class Result:
    """What a command answers."""

    type: ClassVar[str] = "result"
    id: Id
    text: str
    data: Json | None = None
    dup: bool | None = None


@message
class Question:
    """A command asks; ``expires_in`` is in seconds."""

    type: ClassVar[str] = "question"
    question: Line
    from_: Line
    text: str
    expires_in: float
    conv: Line | None = None
    choices: list[str] | None = None


@message
class QuestionClosed:
    """A question ended."""

    type: ClassVar[str] = "question_closed"
    question: Line
    reason: str


@message
class HistoryPage:
    """A page of a conversation, ascending. The messages are the same objects as live."""

    type: ClassVar[str] = "history"
    id: Id
    conv: Line
    epoch: Epoch
    messages: list[dict[str, Json]]
    first_seq: Seq
    last_seq: Seq
    more: bool


@message
class Heads:
    """Where conversations stand now; those that changed since the last heads."""

    type: ClassVar[str] = "heads"
    heads: dict[Line, Head]


@message
class Presence:
    """Who came and who went."""

    type: ClassVar[str] = "presence"
    users: dict[Line, bool]


@message
class Error:
    """A refusal: ``code`` is from the closed list, ``message`` is for a person, ``retry_after`` is in seconds."""

    type: ClassVar[str] = "error"
    code: Line
    message: str
    id: Id | None = None
    cid: Cid | None = None
    retry_after: float | None = None


@message
class ServerNotice:
    """A word from the server to who is online, not stored."""

    type: ClassVar[str] = "notice"
    text: str
    level: Literal["info", "warning"] = "info"


@message
class Gap:
    """Too much was missed to replay: everything between ``after`` and ``before``, both excluded, is in the history."""

    type: ClassVar[str] = "gap"
    conv: Line
    after: Seq
    before: Seq


@message
class HistoryReset:
    """The conversation's lineage changed; cursors of another epoch mean nothing."""

    type: ClassVar[str] = "history_reset"
    conv: Line
    epoch: Epoch
    last_seq: Seq


@message
class Removed:
    """You are no member of this conversation any more, or it does not exist."""

    type: ClassVar[str] = "removed"
    conv: Line
    reason: str | None = None


@message
class Lagging:
    """You read too slowly: live notices stop until your queue is empty."""

    type: ClassVar[str] = "lagging"


@message
class Replaced:
    """The session goes on over another connection; this one ends."""

    type: ClassVar[str] = "replaced"


@message
class Closing:
    """The last word on a connection."""

    type: ClassVar[str] = "closing"
    code: Line
    retry_after: float | None = None


# ---------------------------------------------------------------- notices that take a seq: the content of a conversation


@message
class Message:
    """A text that somebody wrote."""

    type: ClassVar[str] = "message"
    conv: Line
    epoch: Epoch
    seq: Count
    ts: Int
    from_: Line
    text: str = attrs.field(repr=False)
    reply_to: Count | None = None
    cid: Cid | None = None


@message
class Edited:
    """A message was changed by its author. Reserved."""

    type: ClassVar[str] = "edited"
    conv: Line
    epoch: Epoch
    seq: Count
    ts: Int
    target: Count
    text: str = attrs.field(repr=False)
    by: Line
    cid: Cid | None = None


@message
class Deleted:
    """A message was taken away: its place stays, its text is gone."""

    type: ClassVar[str] = "deleted"
    conv: Line
    epoch: Epoch
    seq: Count
    ts: Int
    target: Count
    by: Line
    cid: Cid | None = None


@message
class Joined:
    """Somebody became a member."""

    type: ClassVar[str] = "joined"
    conv: Line
    epoch: Epoch
    seq: Count
    ts: Int
    user: Line


@message
class Left:
    """Somebody is a member no more: left, or was kicked by somebody."""

    type: ClassVar[str] = "left"
    conv: Line
    epoch: Epoch
    seq: Count
    ts: Int
    user: Line
    by: Line | None = None
    reason: str | None = None


@message
class Topic:
    """The topic changed."""

    type: ClassVar[str] = "topic"
    conv: Line
    epoch: Epoch
    seq: Count
    ts: Int
    user: Line
    text: str


@message
class Role:
    """Somebody's role in the channel changed."""

    type: ClassVar[str] = "role"
    conv: Line
    epoch: Epoch
    seq: Count
    ts: Int
    user: Line
    role: Line
    by: Line


@message
class Banned:
    """Somebody was banned; ``until`` is in milliseconds since 1970, absent for ever."""

    type: ClassVar[str] = "banned"
    conv: Line
    epoch: Epoch
    seq: Count
    ts: Int
    user: Line
    by: Line
    until: Int | None = None
    reason: str | None = None


Request = (
    Hello | Register | Login | Resume | Send | Join | Leave | Command | Answer | HistoryRequest | PasswordChange | Logout | Sessions
    | Members | Commands | Read | Ping | Pong
)  # fmt: skip
Record = Message | Edited | Deleted | Joined | Left | Topic | Role | Banned
Notice = (
    Welcome | SessionOpened | Resumed | Ack | Ok | Result | Question | QuestionClosed | HistoryPage | Heads | Presence | Error
    | ServerNotice | Gap | HistoryReset | Removed | Lagging | Replaced | Closing | Record | Ping | Pong
)  # fmt: skip

REQUESTS: Final[dict[str, type[Any]]] = {cls.type: cls for cls in Request.__args__}
NOTICES: Final[dict[str, type[Any]]] = {cls.type: cls for cls in Notice.__args__}
RECORDS: Final[dict[str, type[Any]]] = {cls.type: cls for cls in Record.__args__}
