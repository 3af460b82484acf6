"""Frames to messages and back: JSON, with every rule of the contract about what may be in a frame.

How a request is decoded. This runs for everything that is sent, so the checks are ordered by what they cost:

1. UTF-8 of the whole frame (msgspec does not look into keys that it ignores);
2. depth: a frame with at most 16 opening brackets cannot be deeper than 16, any other is measured;
3. a look at ``type`` alone, of duplicates the last; then the one decoder made for that class, which checks types and bounds;
4. control characters: JSON allows none below U+0020 as they are, so without a backslash, a DEL or a byte 0xC2 (the first of every
   C1 control) there are none, and no string is looked at;
5. what a type cannot say: bytes of an id, bytes of a text, exactly one of ``channel`` and ``to``.

Only a frame that is refused is read a second time, by the standard library's parser, for the id and cid that the error carries:
that one also reads what msgspec stops at (half a surrogate pair), so that the sender still learns which request was wrong.

Encoding goes through one msgspec Struct per class, which knows the order, the wire's names and which fields to leave out.

*Source*: contract, sections 1 and 2. Measured, 2 cores of 2023: see `tests/protocol/test_codec.py`, ``bench``.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any, Final, NoReturn

import attrs
import msgspec

from chat.errors import RemoteProtocolError
from chat.protocol.messages import (
    MAX_INT,
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

MAX_DEPTH: Final = 16  # the frame's own object being 1
MAX_ID_BYTES: Final = 64
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


def wire_name(field: str) -> str:
    """``from_`` is ``from`` on the wire."""
    return field.removesuffix("_")


def _mirror(cls: type[Any], **config: Any) -> type[msgspec.Struct]:
    fields = [
        (field.name, Any, None) if field.default is None else (field.name, Any)  # a default that is not None is always sent
        for field in attrs.fields(cls)
    ]
    fields.sort(key=len)  # Structs want the required ones first
    return msgspec.defstruct(
        cls.__name__, fields, rename={name: wire_name(name) for name, *_ in fields}, omit_defaults=True, gc=False, **config
    )


def _names(mirror: type[msgspec.Struct]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(mirror)]


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
    return {field.name: value for field in attrs.fields(ChannelInfo) if (value := getattr(info, field.name)) is not None}


_ENCODERS: Final = {cls: _encoder(cls) for cls in {*REQUESTS.values(), *NOTICES.values()}}


# ---------------------------------------------------------------- decoding requests


class _Tag(msgspec.Struct, gc=False):
    type: Any = None


_tag: Final = msgspec.json.Decoder(_Tag).decode
_REQUEST_DECODERS: Final = {name: msgspec.json.Decoder(cls).decode for name, cls in REQUESTS.items()}
_HAS_TEXT: Final = frozenset(cls for cls in REQUESTS.values() if "text" in attrs.fields_dict(cls))
_STRINGS: Final = {cls: tuple(field.name for field in attrs.fields(cls)) for cls in REQUESTS.values()}

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
        _refuse(frame, f"the frame is nested deeper than {MAX_DEPTH}, or its brackets do not match")
    try:
        type_ = _tag(frame).type
        request: Request = _REQUEST_DECODERS[type_](frame)
    except _UNDECODABLE as problem:
        _refuse_undecodable(frame, problem)
    except (KeyError, TypeError):
        _refuse_type(frame, type_)

    cls = type(request)
    if _BACKSLASH in frame or _DEL in frame or (not ascii and _C1_LEAD in frame):
        _check_controls(frame, request)
    if not ascii and cls is not Hello and type(request.id) is str and len(request.id.encode()) > MAX_ID_BYTES:  # type: ignore[union-attr]
        _refuse(frame, f"`id` must have at most {MAX_ID_BYTES} bytes")
    if cls is Send and (request.channel is None) is (request.to is None):  # type: ignore[union-attr]
        _refuse(frame, "exactly one of `channel` and `to` must be given")
    if len(frame) > text_bytes and cls in _HAS_TEXT and len(request.text.encode()) > text_bytes:  # type: ignore[union-attr]
        _refuse(frame, f"`text` must have at most {text_bytes} bytes", code="too_large")
    return request


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
        find = _CONTROL_IN_TEXT if name == "text" and (cls is Send or cls is Answer) else _CONTROL
        for string in _strings(getattr(request, name)):
            if found := find(string):
                _refuse(frame, f"`{name}` must not have control characters, got U+{ord(found[0]):04X}")


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


# ---------------------------------------------------------------- refusing, and saying why


def _refuse(frame: bytes, message: str, *, code: str = "bad_request") -> NoReturn:
    id, cid = _recover(_read_again(frame))
    raise RemoteProtocolError(code, message, id=id, cid=cid) from None


def _refuse_undecodable(frame: bytes, problem: Exception) -> NoReturn:
    data = _read_again(frame)
    id, cid = _recover(data)
    if isinstance(problem, RecursionError):
        message = "the frame is nested too deep"
    elif isinstance(problem, msgspec.ValidationError):
        message = explain(str(problem))
    elif data is not None:  # good JSON to the standard library, which is less strict in this alone
        message = "a string holds half of a surrogate pair"
    elif not frame.strip(b" \t\r\n"):
        message = "the frame is empty"
    else:
        message = f"the frame is not JSON: {str(problem).removeprefix('JSON is malformed: ')}"
    raise RemoteProtocolError("bad_request", message, id=id, cid=cid) from None


def _refuse_type(frame: bytes, type_: object) -> NoReturn:
    if type_ is None:
        _refuse(frame, "`type` is missing")
    if not isinstance(type_, str):
        _refuse(frame, f"`type` must be a string, got {_json_kind(type_)}")
    if re.fullmatch("[A-Za-z0-9_-]{1,32}", type_):  # only what is harmless is said back
        _refuse(frame, f"there is no request `{type_}`", code="unsupported")
    _refuse(frame, "there is no such request", code="unsupported")


def _read_again(frame: bytes) -> dict[str, Any] | None:
    """The object in *frame* as the standard library reads it: also with halves of surrogate pairs, but without NaN and Infinity."""
    try:
        data = json.loads(frame.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


_IS_CID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch


def _recover(data: dict[str, Any] | None) -> tuple[int | str | None, str | None]:
    if data is None or data.get("type") == Hello.type:  # a hello has no id
        return None, None
    id, cid = data.get("id"), data.get("cid")
    if isinstance(id, str):
        try:
            id_fits = len(id.encode()) <= MAX_ID_BYTES and not _CONTROL(id)
        except UnicodeEncodeError:
            id_fits = False
    else:
        id_fits = type(id) is int and -MAX_INT <= id <= MAX_INT
    return id if id_fits else None, cid if isinstance(cid, str) and _IS_CID(cid) else None


_PROBLEM: Final = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>[^`]*)`)?", re.DOTALL)
_EXPECTED: Final = re.compile(r"Expected `(?P<kinds>[^`]*)`(?:, got `(?P<got>[^`]*)`)?(?P<rest>.*)", re.DOTALL)
_KINDS: Final = {
    "str": "a string",
    "int": "an integer",
    "bool": "true or false",
    "float": "a number",
    "object": "an object",
    "array": "an array",
}
_PATTERNS: Final = {"{1,64}": "1 to 64 of A-Z a-z 0-9 _ -", "{8,32}": "8 to 32 of A-Z a-z 0-9"}


def explain(problem: str) -> str:
    """What msgspec says is wrong, in the words of the protocol: ``Expected `str`, got `int` - at `$.text` `` is
    ```text` must be a string, got int``.

    Nothing that the peer sent is repeated but the names of our own fields.
    """
    parts = _PROBLEM.fullmatch(problem)
    assert parts is not None  # the pattern matches anything
    what = parts["what"]
    where = f"`{wire_name(parts['where'])}`" if parts["where"] else "the frame"
    if missing := re.fullmatch("Object missing required field `(.*)`", what):
        return f"`{wire_name(missing[1])}` is missing" + (f" in {where}" if parts["where"] else "")
    if "out of range" in what:
        return f"{where} holds a number that is too large"
    if (expected := _EXPECTED.fullmatch(what)) is None:
        return f"{where} has a value that is not allowed"
    kinds = [_KINDS.get(kind, kind) for kind in expected["kinds"].split(" | ") if kind != "null"]
    if expected["got"] is not None:
        return f"{where} must be {' or '.join(kinds)}, got {expected['got']}"
    rest = expected["rest"]
    for mark, allowed in _PATTERNS.items():
        if mark in rest:
            return f"{where} must be {allowed}"
    if rest == " of length >= 1":
        return f"{where} must not be empty"
    if rest == f" of length <= {MAX_ID_BYTES}":
        return f"{where} must have at most {MAX_ID_BYTES} bytes"
    return f"{where} must be {' or '.join(kinds)}{rest}"


def _json_kind(value: object) -> str:
    return {dict: "object", list: "array", bool: "bool", int: "int", float: "float"}.get(type(value), "null")


# ---------------------------------------------------------------- decoding notices


def _notice_decoder(cls: type[Any]) -> Callable[[bytes], Any]:
    if not any(field.name.endswith("_") for field in attrs.fields(cls)):
        return msgspec.json.Decoder(cls).decode
    load = msgspec.json.Decoder(dict[str, Any]).decode
    return lambda frame: _convert(load(frame), cls)


def _convert(data: dict[str, Any], cls: type[Any]) -> Any:
    renamed = {field.name: data[wire] for field in attrs.fields(cls) if (wire := wire_name(field.name)) in data}
    return msgspec.convert(renamed, cls)


_NOTICE_DECODERS: Final = {name: _notice_decoder(cls) for name, cls in NOTICES.items()}
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
    if (cls := RECORDS.get(type_)) is None:
        return _unknown(dict(data))
    try:
        record: Record = _convert(dict(data), cls)
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
