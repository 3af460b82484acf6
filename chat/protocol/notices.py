"""What the server sends, but for what takes a seq, which is in `chat.protocol.records`.

`chat.protocol.messages` is where to import from.
"""

from typing import ClassVar, Literal

import attrs

from chat.protocol.fields import Cid, Count, Epoch, Head, Id, Int, Json, Line, Seq, message


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
    read: dict[Line, Seq] | None = None
    ignored: list[Line] | None = None


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
    read: dict[Line, Seq] | None = None
    ignored: list[Line] | None = None


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
    total: Seq | None = None
    more: bool | None = None


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
    """A command asks; ``expires_in`` is in seconds, ``command`` its name."""

    type: ClassVar[str] = "question"
    question: Line
    from_: Line
    text: str
    expires_in: float
    conv: Line | None = None
    choices: list[str] | None = None
    command: Line | None = None


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
class ReadMarker:
    """Another session of the account has read up to ``seq``."""

    type: ClassVar[str] = "read"
    conv: Line
    seq: Seq


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
class ChannelChanged:
    """Something of a channel that `ChannelInfo` says is another now."""

    type: ClassVar[str] = "channel"
    conv: Line
    prefix: Line | None = None


@message
class CommandsChanged:
    """Which commands there are, or how they are used, is something else now; with ``conv`` in that channel only. Ask for them again."""

    type: ClassVar[str] = "commands_changed"
    conv: Line | None = None


@message
class ServerNotice:
    """A word from the server to who is online, not stored."""

    type: ClassVar[str] = "notice"
    text: str
    level: Literal["info", "warning"] = "info"


@message
class Ignored:
    """Whom the account ignores now; told to all of its sessions."""

    type: ClassVar[str] = "ignored"
    users: list[Line]


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
