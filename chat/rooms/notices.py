"""The bytes of what takes a seq: one function for live, replay and history, so that it is the same object everywhere.

People inside a record's body are account ids; here they become names. A message is put together by hand, since it is the one thing
that the server does all day: 0.9 µs, against 3 µs for building the class and encoding it.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from chat.rooms import effects as fx

json_bytes: Final = msgspec.json.Encoder().encode
PEOPLE: Final = ("user", "by")

NameOf = Callable[[int], str]


def record(
    conv: str,
    epoch: str,
    seq: int,
    ts: int,
    kind: str,
    author: int,
    body: "str | dict[str, object] | None",
    reply_to: int | None,
    cid: str | None,
    name_of: NameOf,
) -> bytes:
    """One record as its readers see it. *cid*: only for the author's own sessions, in replay and history; else None."""
    tail = b',"cid":"%b"}' % cid.encode() if cid is not None else b"}"
    head = b'{"type":"%b","conv":%b,"epoch":"%b","seq":%d,"ts":%d' % (kind.encode(), json_bytes(conv), epoch.encode(), seq, ts)
    if kind == "message":
        reply = b',"reply_to":%d' % reply_to if reply_to is not None else b""
        if body is None:  # it was taken away; its place stays
            reply += b',"deleted":true'
        return b'%b,"from":%b,"text":%b%b%b' % (head, json_bytes(name_of(author)), json_bytes(body or ""), reply, tail)
    assert isinstance(body, dict)
    named = {key: name_of(int(value)) if key in PEOPLE else value for key, value in body.items()}  # type: ignore[call-overload]
    fields = json_bytes(named)[1:-1]
    return b"%b,%b%b" % (head, fields, tail) if fields else head + tail


def placed(conv: str, item: fx.Placed, name_of: NameOf, viewer: int = 0) -> bytes:
    """A record that was just committed. With *viewer* its author's own cid is in it."""
    append = item.append
    cid = item.cid if viewer and viewer == append.author else None
    return record(conv, item.epoch, item.seq, item.ts, append.kind, append.author, append.body, append.reply_to, cid, name_of)


def hidden(from_seq: int, to_seq: int) -> bytes:
    """Stands in a history page for what its reader may not see; both ends inclusive."""
    return b'{"type":"hidden","from_seq":%d,"to_seq":%d}' % (from_seq, to_seq)


def ack(id: int | str | None, cid: str, conv: str, epoch: str, seq: int, ts: int, dup: bool) -> bytes:
    """The ack of a send."""
    return b'{"type":"ack","id":%b,"cid":"%b","conv":%b,"epoch":"%b","seq":%d,"ts":%d%b}' % (
        json_bytes(id),
        cid.encode(),
        json_bytes(conv),
        epoch.encode(),
        seq,
        ts,
        b',"dup":true' if dup else b"",
    )
