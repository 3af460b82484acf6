"""Why a frame is refused, in words for a person, and with the id and cid that the error carries back.

Only a frame that is refused comes here. It is read a second time, by the standard library's parser, because msgspec stops at the first
thing that it does not like: so the sender learns which of its requests was wrong whenever the frame is JSON at all and the id is valid
by itself. Nothing that the peer sent is repeated in the words but a ``type`` of harmless characters.
"""

import json
import re
from typing import Any, Final, NoReturn

import msgspec

from chat.errors import RemoteProtocolError
from chat.protocol.messages import MAX_INT, Hello

MAX_ID_BYTES: Final = 64

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]").search


def wire_name(field: str) -> str:
    """``from_`` is ``from`` on the wire."""
    return field.removesuffix("_")


def refuse(frame: bytes, message: str, *, code: str = "bad_request") -> NoReturn:
    id, cid = _recover(_read_again(frame))
    raise RemoteProtocolError(code, message, id=id, cid=cid) from None


def refuse_undecodable(frame: bytes, problem: Exception) -> NoReturn:
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


def refuse_type(frame: bytes, type_: object) -> NoReturn:
    if type_ is None:
        refuse(frame, "`type` is missing")
    if not isinstance(type_, str):
        refuse(frame, f"`type` must be a string, got {_json_kind(type_)}")
    if found := _CONTROL(type_):
        refuse(frame, f"`type` must not have control characters, got U+{ord(found[0]):04X}")
    if re.fullmatch("[A-Za-z0-9_-]{1,32}", type_):  # only what is harmless is said back
        refuse(frame, f"there is no request `{type_}`", code="unsupported")
    refuse(frame, "there is no such request", code="unsupported")


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
