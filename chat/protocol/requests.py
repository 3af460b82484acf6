"""What a client sends.

`chat.protocol.messages` is where to import from.
"""

from typing import ClassVar

import attrs
import msgspec

from chat.protocol.fields import Cid, Count, Head, Id, Int, Line, Seq, Text, message


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


class Send(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A text for a channel or, with ``to``, for a person. Exactly one of the two is given.

    A Struct, unlike the others: it is decoded in half the time, and the collector of circular garbage does not look at it.
    """

    type: ClassVar[str] = "send"
    id: Id
    cid: Cid
    text: Text
    channel: Line | None = None
    to: Line | None = None
    reply_to: Count | None = None

    def __repr__(self) -> str:
        return f"Send(id={self.id!r}, cid={self.cid!r}, channel={self.channel!r}, to={self.to!r}, reply_to={self.reply_to!r})"


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
    """End this session, or with ``session`` another one of the account, or with ``everywhere`` all of them."""

    type: ClassVar[str] = "logout"
    id: Id
    everywhere: bool | None = None
    session: Line | None = None


@message
class Sessions:
    """List the account's sessions."""

    type: ClassVar[str] = "sessions"
    id: Id


@message
class Members:
    """List a channel's members with role, colour and whether they are online: at most ``limit``, those who joined behind ``after``."""

    type: ClassVar[str] = "members"
    id: Id
    channel: Line
    after: Line | None = None
    limit: Count | None = None


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
