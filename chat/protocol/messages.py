"""Every message of the protocol as a frozen class: what a client sends is a Request, what the server sends is a Notice.

Field names are the wire's, but for a trailing underscore where the wire's name is a Python keyword (``from_`` is ``from``).
``None`` in an optional field is absence. The bounds here are checked when a message is decoded; what they cannot say
(control characters, the depth of a frame, the bytes of an id, "exactly one of") is checked by `chat.protocol.codec`.
What people wrote, and every secret, is left out of the ``repr``, so that it cannot end up in a log.

*Source*: contract, sections 1 and 2.
"""

from typing import Any, Final

from chat.protocol.fields import (
    MAX_INT,
    Cid,
    Count,
    Epoch,
    Head,
    Id,
    Int,
    Json,
    Line,
    Seq,
    Text,
    evolve,
    fields_of,
    message,
)
from chat.protocol.notices import (
    Ack,
    ChannelChanged,
    ChannelInfo,
    Closing,
    CommandsChanged,
    Error,
    Gap,
    Heads,
    HistoryPage,
    HistoryReset,
    Ignored,
    Lagging,
    Ok,
    Presence,
    Question,
    QuestionClosed,
    ReadMarker,
    Removed,
    Replaced,
    Result,
    Resumed,
    ServerNotice,
    SessionOpened,
    Welcome,
)
from chat.protocol.records import (
    Banned,
    Deleted,
    Edited,
    Joined,
    Left,
    Message,
    Role,
    Topic,
)
from chat.protocol.requests import (
    Answer,
    Command,
    Commands,
    Hello,
    HistoryRequest,
    Join,
    Leave,
    Login,
    Logout,
    Members,
    PasswordChange,
    Ping,
    Pong,
    Read,
    Register,
    Resume,
    Send,
    Sessions,
)

__all__ = [
    "MAX_INT",
    "NOTICES",
    "RECORDS",
    "REQUESTS",
    "Ack",
    "Answer",
    "Banned",
    "ChannelChanged",
    "ChannelInfo",
    "Cid",
    "Closing",
    "Command",
    "Commands",
    "CommandsChanged",
    "Count",
    "Deleted",
    "Edited",
    "Epoch",
    "Error",
    "Gap",
    "Head",
    "Heads",
    "Hello",
    "HistoryPage",
    "HistoryRequest",
    "HistoryReset",
    "Id",
    "Ignored",
    "Int",
    "Join",
    "Joined",
    "Json",
    "Lagging",
    "Leave",
    "Left",
    "Line",
    "Login",
    "Logout",
    "Members",
    "Message",
    "Notice",
    "Ok",
    "PasswordChange",
    "Ping",
    "Pong",
    "Presence",
    "Question",
    "QuestionClosed",
    "Read",
    "ReadMarker",
    "Record",
    "Register",
    "Removed",
    "Replaced",
    "Request",
    "Result",
    "Resume",
    "Resumed",
    "Role",
    "Send",
    "Seq",
    "ServerNotice",
    "SessionOpened",
    "Sessions",
    "Text",
    "Topic",
    "Welcome",
    "evolve",
    "fields_of",
    "message",
]

Request = (
    Hello | Register | Login | Resume | Send | Join | Leave | Command | Answer | HistoryRequest | PasswordChange | Logout | Sessions
    | Members | Commands | Read | Ping | Pong
)  # fmt: skip
Record = Message | Edited | Deleted | Joined | Left | Topic | Role | Banned
Notice = (
    Welcome | SessionOpened | Resumed | Ack | Ok | Result | Question | QuestionClosed | HistoryPage | Heads | Presence | Error
    | ReadMarker | ServerNotice | ChannelChanged | CommandsChanged | Ignored | Gap | HistoryReset | Removed | Lagging | Replaced
    | Closing | Record | Ping | Pong
)  # fmt: skip

REQUESTS: Final[dict[str, type[Any]]] = {cls.type: cls for cls in Request.__args__}
NOTICES: Final[dict[str, type[Any]]] = {cls.type: cls for cls in Notice.__args__}
RECORDS: Final[dict[str, type[Any]]] = {cls.type: cls for cls in Record.__args__}
