"""Notices that take a seq: the content of a conversation.

`chat.protocol.messages` is where to import from.
"""

from typing import ClassVar

import attrs

from chat.protocol.fields import Cid, Count, Epoch, Int, Line, message


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
    deleted: bool | None = None
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
    """A message was taken away: its place stays, its text is gone, here and in the history (`Message.deleted`)."""

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
