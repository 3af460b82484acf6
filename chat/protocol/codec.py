"""Frames to messages and back: JSON, with every rule of the contract about what may be in a frame.

How a request is decoded. This runs for everything that is sent, so the checks are ordered by what they cost:

1. UTF-8 of the whole frame (msgspec does not look into keys that it ignores);
2. depth: a frame with at most 16 opening brackets cannot be deeper than 16, any other is measured;
3. a look at ``type`` alone, of duplicates the last; then the one decoder made for that class, which checks types and bounds;
4. control characters: JSON allows none below U+0020 as they are, so without a backslash, a DEL or a byte 0xC2 (the first of every
   C1 control) there are none, and no string is looked at;
5. what a type cannot say: bytes of an id, bytes of a text, exactly one of ``channel`` and ``to``.

A frame that is refused goes to `chat.protocol.refusals`. Before all that, `decode_sends` looks whether a whole chunk is plain sends.

Encoding goes through one msgspec Struct per class, which knows the order, the wire's names and which fields to leave out.

*Source*: contract, sections 1 and 2. Measured with a send of 100 characters, Python 3.11: 2.3 µs to decode, 2.7 with letters beyond
ASCII, 3.4 with a line break in it; a message takes 0.5 µs to encode.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any, Final

import attrs
import msgspec

from chat.errors import RemoteProtocolError
from chat.protocol.fields import fields_of
from chat.protocol.messages import (
    NOTICES,
    RECORDS,
    REQUESTS,
    Answer,
    ChannelInfo,
    Hello,
    Notice,
    Record,
    Request,
    Resumed,
    Send,
    SessionOpened,
)
from chat.protocol.refusals import MAX_ID_BYTES, explain, refuse, refuse_type, refuse_undecodable, wire_name

MAX_DEPTH: Final = 16  # the frame's own object being 1
TEXT_BYTES: Final = 16 * 1024  # the default bound of a `text`, in bytes of UTF-8

_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@attrs.frozen(kw_only=True)
class Unknown:
    """A notice of a type that this version does not know. A client advances its cursor by ``conv``, ``epoch`` and ``seq`` all the same.

    They are None where absent or of another type than they should be. ``data`` is the whole object.
    """

    type: str
    conv: str | None = None
    epoch: str | None = None
    seq: int | None = None
    data: dict[str, Any] = attrs.field(factory=dict, repr=False)


# ---------------------------------------------------------------- encoding


def encode(message: Any) -> bytes:
    """The frame of *message*, without a newline (and with none inside): ``type`` first, absent fields left out.

    *Raises* UnicodeEncodeError for half of a surrogate pair in a string, KeyError for what is no message: both are bugs of the caller.
    """
    return _ENCODERS[type(message)](message)


def to_builtins(message: Any) -> dict[str, Any]:
    """*message* as the object that its frame holds: what `history` pages carry."""
    data: dict[str, Any] = msgspec.json.decode(encode(message))
    return data


def _mirror(cls: type[Any], **config: Any) -> type[msgspec.Struct]:
    """A Struct with the fields of *cls* under the wire's names. A default that is not None does not count: such a field is always sent."""
    made = [(field.name, field.type, None) if field.optional else (field.name, field.type) for field in fields_of(cls)]
    made.sort(key=len)  # Structs want the required ones first
    return msgspec.defstruct(
        cls.__name__, made, rename={name: wire_name(name) for name, *_ in made}, omit_defaults=True, gc=False, **config
    )


def _names(cls: type[Any]) -> list[str]:
    return [field.name for field in fields_of(cls)]


def _encoder(cls: type[Any]) -> Callable[[Any], bytes]:
    mirror = _mirror(cls, tag=cls.type, tag_field="type")
    names = _names(mirror)
    dump = msgspec.json.Encoder().encode
    if not names:
        frame = dump(mirror())
        return lambda message: frame
    if len(names) == 1:
        only = attrgetter(names[0])
        return lambda message: dump(mirror(only(message)))
    values = attrgetter(*names)
    if cls in (SessionOpened, Resumed):
        return lambda message: dump(mirror(*values(attrs.evolve(message, channels=[_channel(info) for info in message.channels]))))
    return lambda message: dump(mirror(*values(message)))


def _channel(info: ChannelInfo) -> dict[str, Any]:
    return {name: value for name in _names(ChannelInfo) if (value := getattr(info, name)) is not None}


_ENCODERS: Final = {cls: _encoder(cls) for cls in {*REQUESTS.values(), *NOTICES.values()}}


# ---------------------------------------------------------------- decoding requests


class _Tag(msgspec.Struct, gc=False):
    type: Any = None


_tag: Final = msgspec.json.Decoder(_Tag).decode
_REQUEST_DECODERS: Final = {name: msgspec.json.Decoder(cls).decode for name, cls in REQUESTS.items()}
_STRINGS: Final = {cls: tuple(_names(cls)) for cls in REQUESTS.values()}
_HAS_TEXT: Final = frozenset(cls for cls, names in _STRINGS.items() if "text" in names)

_OPEN_BRACE, _OPEN_BRACKET, _BACKSLASH, _DEL, _C1_LEAD = b"{[\\\x7f\xc2"


def decode_request(frame: bytes, text_bytes: int = TEXT_BYTES) -> Request:
    """The request that *frame* holds; a ``text`` may have *text_bytes* bytes of UTF-8.

    *Raises* RemoteProtocolError, never fatal: bad_request, unsupported (a type that we do not know), too_large (a text). It carries
    the frame's id and cid where they could be read and are valid by themselves.
    """
    ascii = frame.isascii()
    if not ascii:
        try:
            frame.decode()
        except UnicodeDecodeError as problem:
            raise RemoteProtocolError("bad_request", f"the frame is not UTF-8 at byte {problem.start}") from None
    if frame.count(_OPEN_BRACE) + frame.count(_OPEN_BRACKET) > MAX_DEPTH and _too_deep(frame):
        refuse(frame, f"the frame is nested deeper than {MAX_DEPTH}, or its brackets do not match")
    try:
        type_ = _tag(frame).type
        request: Request = _REQUEST_DECODERS[type_](frame)
    except _UNDECODABLE as problem:
        request = _of_last_keys(frame, problem)
    except (KeyError, TypeError):
        refuse_type(frame, type_)

    cls = type(request)
    escaped = _BACKSLASH in frame
    if escaped or _DEL in frame or (not ascii and _C1_LEAD in frame):
        _check_controls(frame, request)
    if (escaped or not ascii) and cls is not Hello and type(request.id) is str and len(request.id.encode()) > MAX_ID_BYTES:  # type: ignore[union-attr]
        refuse(frame, f"`id` must have at most {MAX_ID_BYTES} bytes")
    if cls is Send and (request.channel is None) is (request.to is None):  # type: ignore[union-attr]
        refuse(frame, "exactly one of `channel` and `to` must be given")
    if len(frame) > text_bytes and cls in _HAS_TEXT and len(request.text.encode()) > text_bytes:  # type: ignore[union-attr]
        refuse(frame, f"`text` must have at most {text_bytes} bytes", code="too_large")
    return request


def _of_last_keys(frame: bytes, problem: Exception) -> Request:
    """Of duplicate keys the last counts, and msgspec refuses what an earlier one holds: so what is refused is looked at once more.

    *Raises* RemoteProtocolError for *problem*, where nothing else makes it a request.
    """
    try:
        plain = msgspec.json.encode(msgspec.json.decode(frame))
        if plain.count(b'"') < frame.count(b'"'):  # a key has gone; most that are refused have none twice
            request: Request = _REQUEST_DECODERS[_tag(plain).type](plain)
            return request
    except (*_UNDECODABLE, KeyError, TypeError):
        pass
    refuse_undecodable(frame, problem)


_SEND: Final = b'{"type":"send"'
_sends: Final = msgspec.json.Decoder(Send).decode_lines


def decode_sends(frames: list[bytes], text_bytes: int = TEXT_BYTES) -> list[Send] | None:
    """*frames* that are all plain sends, decoded by one call: most of what a busy server gets. None: each must be looked at by itself.

    Whatever makes one of `decode_request`'s checks worth its time makes it None: a frame that does not begin as ours do, a second
    brace, an escape, a control character, a byte that may begin one, a text that may be too long, anything that is refused.
    """
    n = len(frames)
    lines = frames[0] if n == 1 else b"\n".join(frames)
    if (
        not lines.startswith(_SEND)
        or (n > 1 and lines.count(b"\n" + _SEND) != n - 1)
        or lines.count(_OPEN_BRACE) != n
        or lines.count(b'"type"') != n
        or lines.count(_OPEN_BRACKET) >= MAX_DEPTH
        or _BACKSLASH in lines
        or _DEL in lines
        or (len(lines) > text_bytes and len(max(frames, key=len)) > text_bytes)
    ):
        return None
    ascii = lines.isascii()
    if not ascii and _C1_LEAD in lines:
        return None
    try:
        if not ascii:
            lines.decode()  # all of it, also what msgspec passes over
        sends = _sends(lines)
    except _UNDECODABLE:
        return None
    if len(sends) != n:
        return None
    for send in sends:
        if (send.channel is None) is (send.to is None) or (not ascii and type(send.id) is str and not send.id.isascii()):
            return None
    return sends


_JSON_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # possessive: a missing end must not be searched for again and again
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"{}[]"))


def _too_deep(frame: bytes) -> bool:
    """Whether brackets are nested deeper than allowed, or do not match. Takes a fixed number of passes over the frame."""
    brackets = _JSON_STRING.sub(b"", frame).translate(None, _NOT_BRACKETS)
    for _ in range(MAX_DEPTH):
        # The innermost level goes. Not one replace per pair: "[{}]" must not lose both of its levels in one pass.
        brackets = brackets.replace(b"[]", b"\0").replace(b"{}", b"\0").replace(b"\0", b"")
        if not brackets:
            return False
    return True


_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]").search
_CONTROL_IN_TEXT: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]").search  # all but \n and \t


def _check_controls(frame: bytes, request: Request) -> None:
    cls = type(request)
    for name in _STRINGS[cls]:
        value = getattr(request, name)
        if value is None or type(value) is int:
            continue
        multiline = name == "text" and (cls is Send or cls is Answer)
        for string in (value,) if type(value) is str else _strings(value):
            # isprintable is ten times as fast as the search, and what is printable is no control character
            if (string.replace("\n", "").replace("\t", "") if multiline else string).isprintable():
                continue
            if found := (_CONTROL_IN_TEXT if multiline else _CONTROL)(string):
                refuse(frame, f"`{name}` must not have control characters, got U+{ord(found[0]):04X}")


def _strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for key, item in value.items():
                yield key
                yield from _strings(item)
        case list() | tuple():
            for item in value:
                yield from _strings(item)


# ---------------------------------------------------------------- decoding notices


def _notice_decoder(cls: type[Any]) -> Callable[[bytes], Any]:
    if not any(field.name.endswith("_") for field in fields_of(cls)):
        return msgspec.json.Decoder(cls).decode
    mirror = _mirror(cls)
    load, build = msgspec.json.Decoder(mirror).decode, _builder(cls, mirror)
    return lambda frame: build(load(frame))


def _record_converter(cls: type[Any]) -> Callable[[Mapping[str, Any]], Any]:
    mirror = _mirror(cls)
    build = _builder(cls, mirror)
    return lambda data: build(msgspec.convert(data, mirror))


def _builder(cls: type[Any], mirror: type[msgspec.Struct]) -> Callable[[msgspec.Struct], Any]:
    names = _names(mirror)
    values = attrgetter(*names)  # of two or more: no record and no renamed notice has fewer
    return lambda struct: cls(**dict(zip(names, values(struct), strict=True)))


_NOTICE_DECODERS: Final = {name: _notice_decoder(cls) for name, cls in NOTICES.items()}
_RECORD_CONVERTERS: Final = {name: _record_converter(cls) for name, cls in RECORDS.items()}
_object: Final = msgspec.json.Decoder(dict[str, Any]).decode


def decode_notice(frame: bytes) -> Notice | Unknown:
    """The notice that *frame* holds. A type that we do not know is `Unknown`, keys that we do not know are left out.

    Control characters are not looked for: who shows a text to a person makes it harmless there.

    *Raises* RemoteProtocolError (bad_request) for what is no notice.
    """
    try:
        if (decode := _NOTICE_DECODERS.get(type_ := _tag(frame).type)) is not None:
            notice: Notice = decode(frame)
            return notice
        if isinstance(type_, str):
            return _unknown(_object(frame))
    except _UNDECODABLE as problem:
        raise RemoteProtocolError("bad_request", f"the server sent what is no message: {explain(str(problem))}") from None
    except TypeError:  # a type that cannot be looked up
        pass
    raise RemoteProtocolError("bad_request", "the server sent a frame without a type")


def decode_record(data: Mapping[str, Any]) -> Record | Unknown:
    """One of the ``messages`` of a history page. The frame of a record and its object in a page are the same.

    *Raises* RemoteProtocolError (bad_request) for what is no record.
    """
    type_ = data.get("type")
    if not isinstance(type_, str):
        raise RemoteProtocolError("bad_request", "the server sent a record without a type")
    if (convert := _RECORD_CONVERTERS.get(type_)) is None:
        return _unknown(dict(data))
    try:
        record: Record = convert(data)
        return record
    except msgspec.ValidationError as problem:
        raise RemoteProtocolError("bad_request", f"the server sent what is no record: {explain(str(problem))}") from None


def _unknown(data: dict[str, Any]) -> Unknown:
    conv, epoch, seq = data.get("conv"), data.get("epoch"), data.get("seq")
    return Unknown(
        type=data["type"],
        conv=conv if isinstance(conv, str) else None,
        epoch=epoch if isinstance(epoch, str) else None,
        seq=seq if type(seq) is int else None,
        data=data,
    )
