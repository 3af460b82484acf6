"""More than 5,000 malformed requests, made from the fields of every request, against the real process: each is answered by itself,
and nothing is harmed.

What must come is known from how a frame was made, not from the codec: `bad_request` but where a text is too long or a type unknown, with
the request's id wherever the frame is JSON and its id good.
"""

import contextlib
import json
import random
import types
import typing
from collections import Counter
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import trio
from msgspec import Meta

from chat.errors import CODES
from chat.protocol import messages as m
from tests.e2e.guests import Guest, errors_in_log, shared

pytestmark = pytest.mark.xdist_group("e2e-malformed")

OPENERS = {"register", "login", "resume"}
FAR = 10**30
TEXT_BYTES = 16 * 1024
UNASKED = {"heads", "presence", "ping"}

VALID: dict[str, dict[str, Any]] = {
    "hello": {"protocol": 1, "client": "tester", "compress": ["deflate"]},
    "register": {"id": 0, "username": "nobody", "password": "x" * 12, "invite": "aaaa", "color": "red"},
    "login": {"id": 0, "username": "nobody", "password": "x" * 12},
    "resume": {"id": 0, "token": "t" * 43, "cursors": {"#lobby": ["abcdefgh", 1]}},
    "send": {"id": 0, "cid": "c-1", "text": "tést", "channel": "nowhere", "reply_to": 1},
    "join": {"id": 0, "channel": "nowhere", "password": "x" * 12},
    "leave": {"id": 0, "channel": "nowhere"},
    "command": {"id": 0, "text": "nothing", "cid": "c-2", "channel": "lobby"},
    "answer": {"id": 0, "question": "q", "text": "yes"},
    "history": {"id": 0, "conv": "#nowhere", "limit": 1, "after": 0, "before": 1},
    "password": {"id": 0, "old": "y" * 12, "new": "x" * 12},
    "logout": {"id": 0, "everywhere": False},
    "sessions": {"id": 0},
    "members": {"id": 0, "channel": "nowhere", "after": "nobody", "limit": 1},
    "commands": {"id": 0, "channel": "nowhere"},
    "read": {"id": 0, "conv": "#nowhere", "seq": 0},
    "ping": {"id": 0},
    "pong": {"id": 0},
}


@attrs.frozen
class Case:
    """``id`` None: the answer has none. ``codes`` empty: any terminal answer but a bug."""

    frame: bytes
    id: int | None
    codes: frozenset[str] = frozenset({"bad_request"})


class Raw(str):
    """JSON as it is to be written."""


def dump(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{dump(key)}:{dump(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dump, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


# ---------------------------------------------------------------- what a field must not hold

NOT_JSON = [
    Raw("NaN"),
    Raw("Infinity"),
    Raw("-Infinity"),
    Raw("nul"),
    Raw("'x'"),
    Raw(""),
    Raw("01"),
    Raw("+1"),
    Raw('"\t"'),
    Raw('"\\x41"'),
]
BEYOND = [Raw("1e999"), Raw("-1e999"), Raw("1" * 400)]
CONTROLS = [Raw(f'"a\\u{n:04x}b"') for n in (0, 1, 8, 0x0B, 0x0D, 0x1B, 0x1F, 0x7F, 0x80, 0x85, 0x9F)] + [Raw('"\x7f"'), Raw('"\x85"')]
BREAKS = [Raw('"a\\nb"'), Raw('"a\\tb"')]
SURROGATES = [Raw('"\\ud800"'), Raw('"\\udfff"'), Raw('"\\ud800x"'), Raw('"\\udc00\\ud800"')]
NO_STRINGS: list[Any] = [0, -1, 1.5, True, [], ["x"], {}, {"x": "y"}]
DEEP = Raw("[" * 16 + "]" * 16)  # one too deep, in a frame's object
VERY_DEEP = Raw("[" * 2500 + "]" * 2500)


def bad_values(kind: Any, *, text: bool) -> tuple[list[Any], bool]:
    """Values that a field of this annotation must not hold, and whether it may be null (and missing)."""
    optional = type(None) in alternatives(kind)
    parts = [part for part in alternatives(kind) if part is not type(None)]
    bad = [*BEYOND, DEEP, VERY_DEEP]
    if len(parts) == 2:  # an id
        assert {base(part) for part in parts} == {int, str}
        bad += [
            1.5,
            True,
            False,
            [],
            {},
            FAR,
            -FAR,
            m.MAX_INT + 1,
            -m.MAX_INT - 1,
            "x" * 65,
            "é" * 33,
            "x" * 5000,
            *CONTROLS,
            *BREAKS,
            *SURROGATES,
        ]
        return bad, optional
    (part,) = parts
    match base(part):
        case origin if origin is str:
            bad += [*NO_STRINGS, FAR, *CONTROLS, *SURROGATES, *([] if text else BREAKS)]
            metas = meta_of(part)
            if "min_length" in metas:
                bad.append("")
            if "pattern" in metas:
                bad += ["", "x" * 65, "a b", "a\u00e9", "a.b", "/", "\U0001f600", Raw('"abcdefgh\\n"')]
        case origin if origin is bool:
            bad += [0, 1, 1.5, "true", "", [], {}]
        case origin if origin is int:
            metas = meta_of(part)
            bad += [0.5, "1", "", True, False, [], [1], {}, FAR, -FAR, int(metas["ge"]) - 1, int(metas["le"]) + 1, 1e300]
        case origin if origin is list:
            bad += ["x", 1, True, {}, [1], [None], [["x"]], [{}], *([each] for each in (*CONTROLS, *SURROGATES))]
        case origin if origin is dict:
            bad += ["x", 1, True, [], [["#a", ["abcdefgh", 1]]], *({"#a": head} for head in BAD_HEADS)]
            bad += [{each: ["abcdefgh", 1]} for each in (*CONTROLS, *SURROGATES)]
        case origin:
            raise AssertionError(f"no bad values are known for {origin}")
    return bad, optional


BAD_HEADS: list[Any] = [
    None, 1, "abcdefgh", [], {}, ["abcdefgh"], ["abcdefgh", 1, 2], ["abcdefgh", -1], ["abcdefgh", "1"], ["abcdefgh", 1.5],
    ["abcdefgh", None], ["abcdefgh", True], ["abcdefgh", m.MAX_INT + 1],
    ["short", 1], ["x" * 33, 1], ["abc-efgh", 1], ["abcdefg\u00e9", 1], [1, 1], [None, 1],
]  # fmt: skip


def alternatives(kind: Any) -> tuple[Any, ...]:
    union = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
    return typing.get_args(kind) if union else (kind,)


def base(kind: Any) -> Any:
    while typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    return typing.get_origin(kind) or kind


def meta_of(kind: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for meta in typing.get_args(kind)[1:] if typing.get_origin(kind) is typing.Annotated else ():
        assert isinstance(meta, Meta)
        found |= {name: value for name in ("ge", "le", "pattern", "min_length", "max_length") if (value := getattr(meta, name)) is not None}
    return found


# ---------------------------------------------------------------- the requests

LOST_IDS = {str(value) for value in NOT_JSON} | {str(VERY_DEEP)}  # no JSON, or none that anybody reads


class Maker:
    """Every case has an id of its own."""

    def __init__(self) -> None:
        self.id = 0

    def fields(self, type_: str) -> dict[str, Any]:
        self.id += 1
        fields = {"type": type_, **VALID[type_]}
        if "id" in fields:
            fields["id"] = self.id
        return fields

    def case(self, fields: dict[str, Any], *, readable: bool = True, codes: frozenset[str] = frozenset({"bad_request"})) -> Case:
        type_ = fields.get("type")
        known = readable and type_ != "hello" and "id" in fields and fields["id"] == self.id
        return Case(dump(fields).encode("utf-8", "surrogatepass"), self.id if known else None, codes)

    def by_field(self, type_: str) -> Iterator[Case]:
        """One field wrong, the others as they should be; also with the optional ones left out."""
        required = {field.name for field in m.fields_of(m.REQUESTS[type_]) if field.required}
        for field in m.fields_of(m.REQUESTS[type_]):
            bad, optional = bad_values(field.type, text=field.name == "text" and type_ in ("send", "answer"))
            for value in [*bad, *NOT_JSON, *([] if optional else [None])]:
                for keep in (set(VALID[type_]), required | {field.name}):
                    fields = {k: v for k, v in self.fields(type_).items() if k == "type" or k in keep}
                    fields[field.name] = value
                    yield self.case(fields, readable=field.name != "id" and not (isinstance(value, Raw) and str(value) in LOST_IDS))
            if not optional:
                fields = self.fields(type_)
                del fields[field.name]
                yield self.case(fields)
            if field.name != "id" and bad:  # of duplicate keys the last counts
                fields = self.fields(type_)
                twice = dump(fields)[:-1] + f",{dump(field.name)}:{dump(bad[0])}}}"
                yield Case(twice.encode(), self.id if "id" in fields else None)

    def by_byte(self, type_: str) -> Iterator[Case]:
        """Cut at every byte; a byte that UTF-8 has nowhere and one that JSON has nowhere, at every place."""
        whole = dump(self.fields(type_)).encode()
        for at in range(1, len(whole)):
            yield Case(whole[:at], None)
            yield Case(whole[:at] + b"\xff" + whole[at:], None)
            yield Case(whole[:at] + b"\0" + whole[at:], None)

    def by_type(self) -> Iterator[Case]:
        for value in (None, 1, True, 1.5, [], {}, ["ping"], {"ping": 1}, "ping\0", "\x85", "no\nsuch"):
            yield self.case({**self.fields("ping"), "type": value})
        for value in ("", "PING", "ping ", "message", "ack", "welcome", "error", "x" * 5000, "\u202e", "edit", "delete"):
            yield self.case({**self.fields("ping"), "type": value}, codes=frozenset({"unsupported"}))
        fields = self.fields("ping")
        del fields["type"]
        yield self.case(fields)

    def whole(self) -> Iterator[Case]:
        """What is no object at all."""
        for frame in (
            b"", b" ", b"\r", b"\t \r", b"null", b"true", b"0", b"1.5", b'"ping"', b"[]", b'[{"type":"ping","id":1}]', b"}", b"{", b"{}}",
            b"]", b'{"type":"ping","id":1}{"type":"ping","id":2}', b'{"type":"ping","id":1},', b"\xef\xbb\xbf{}", b"\xff\xfe", b"\xc0\xaf",
            b"\xed\xa0\x80", b"GET / HTTP/1.1", b"\x16\x03\x01", b"// comment", b"{'type':'ping'}", b"{type:1}", b'{"type":"ping","id":1,}',
            b'{"type"}', b'{1:2}', b"[" * 7000, b"{" * 7000, b'{"a":' * 1400, b'"' + b"x" * 7000, b"\\" * 7000, b"-", b"1e", b'"\\u12"',
            b'{"":}', b"{}",
        ):  # fmt: skip
            yield Case(frame, None)

    def extremes(self) -> Iterator[Case]:
        """Odd values of the right kind: they mean nothing, and are answered like any other."""
        strings = [
            "",
            " ",
            "x" * 6000,
            "\u202e",
            "\u2028",
            "\uffff",
            "\U0001f4a5" * 1000,
            "#",
            "@",
            "//",
            "a/b",
            "..",
            "\u00e4\u0308" * 500,
            "null",
        ]
        numbers = [m.MAX_INT, 1, 2**31, 2**32, 0]
        for type_ in sorted(set(VALID) - {"hello", "pong", "logout"} - OPENERS):
            for field in m.fields_of(m.REQUESTS[type_]):
                kind = next(part for part in alternatives(field.type) if part is not type(None))
                metas = meta_of(kind)
                if field.name == "id" or "pattern" in metas:
                    continue
                for value in {str: strings, int: numbers}.get(base(kind), []):
                    if (value == "" and field.name == "text") or (isinstance(value, int) and value < metas["ge"]):
                        continue
                    yield self.case({**self.fields(type_), field.name: value}, codes=frozenset())
        for type_ in ("send", "command", "answer"):
            for text in ("x" * (TEXT_BYTES + 1), "é" * (TEXT_BYTES // 2 + 1), "\U0001f4a5" * (TEXT_BYTES // 4 + 1)):
                yield self.case({**self.fields(type_), "text": text}, codes=frozenset({"too_large"}))
        for fields in ({"to": "somebody", "channel": "lobby"}, {"to": None, "channel": None}, {"to": "somebody"}):
            yield self.case({**self.fields("send"), **fields})

    def out_of_place(self) -> Iterator[Case]:
        yield self.case(self.fields("hello"))
        for type_ in OPENERS:
            yield self.case(self.fields(type_))


def after_login() -> list[Case]:
    make = Maker()
    cases = [case for type_ in VALID for case in (*make.by_field(type_), *make.by_byte(type_))]
    cases += [*make.by_type(), *make.whole(), *make.extremes(), *make.out_of_place()]
    random.Random(7).shuffle(cases)
    return cases


def before_login() -> list[Case]:
    """What needs a session is unauthorized when it is well, and bad_request when it is not."""
    make = Maker()
    cases = [case for type_ in VALID for case in make.by_field(type_)]
    cases += [*make.by_type(), *make.whole()]
    random.Random(8).shuffle(cases)
    return [case for case in cases if len(case.frame) <= 8192]


def judge(cases: list[Case], answers: list[dict]) -> list[str]:
    """What is wrong with *answers*; nothing should be."""
    wrong = []
    by_id: dict[Any, list[dict]] = {}
    for answer in answers:
        by_id.setdefault(answer.get("id"), []).append(answer)
    nameless = Counter(code for case in cases if case.id is None for code in case.codes)
    got = Counter(answer["code"] if answer["type"] == "error" else answer["type"] for answer in by_id.pop(None, []))
    if nameless != got:
        wrong.append(f"without an id: {got} and not {nameless}")
    for case in cases:
        if case.id is None:
            continue
        found = by_id.pop(case.id, [])
        codes = case.codes or CODES - {"internal_error", "indeterminate", "too_large", "storage_unavailable"}
        if (
            len(found) != 1
            or (found[0]["type"] == "error" and found[0]["code"] not in codes)
            or (case.codes and found[0]["type"] != "error")
        ):
            wrong.append(f"{case.frame[:200]!r}: {found} and not {sorted(case.codes)}")
    return wrong + [f"nobody asked for {by_id}"] * bool(by_id)


async def exchange(guest: Guest, cases: list[Case]) -> list[dict]:
    """Send them all at once; returns the answers, in whatever order: until there are enough, and one too many if there is."""
    start = len(guest.received)
    left = len(cases)

    def was_the_last(message: dict) -> bool:
        nonlocal left
        left -= message["type"] not in UNASKED
        return not left

    async with trio.open_nursery() as nursery:
        nursery.start_soon(guest.stream.send_all, b"".join(case.frame + b"\n" for case in cases))
        with contextlib.suppress(trio.TooSlowError):
            await guest.until(was_the_last)
    await guest.send({"type": "members", "id": "last", "channel": "lobby"})
    await guest.until(lambda message: message.get("id") == "last")
    return [answer for answer in guest.received[start:] if answer.get("id") != "last" and answer["type"] not in UNASKED]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    yield from shared(tmp_path_factory.mktemp("malformed"))


async def test_every_malformed_request_is_refused_by_itself(server):
    cases = after_login()
    assert len(cases) >= 5000
    async with await Guest.register(server, "mallory") as mallory, await Guest.register(server, "watcher") as watcher:
        for at in range(0, len(cases), 500):
            part = cases[at : at + 500]
            answers = await exchange(mallory, part)
            wrong = judge(part, answers)
            assert not wrong, "\n".join(wrong[:10])
            await mallory.ping()
        ack = await mallory.say("lobby", "still here")
        assert ack["type"] == "ack"
        notice = await watcher.until_type("message")
        assert (notice["text"], notice["seq"]) == ("still here", 1)  # nothing of all that was said was stored
    assert errors_in_log(server) == []


async def test_every_malformed_request_is_refused_before_there_is_a_session(server):
    cases = before_login()
    assert len(cases) >= 1500
    for at in range(0, len(cases), 16):  # of 20 that one may send
        part = cases[at : at + 16]
        async with await Guest.connect(server) as guest:
            await guest.hello()
            start = len(guest.received)
            await guest.stream.send_all(b"".join(case.frame + b"\n" for case in part) + b'{"type":"ping","id":"last"}\n')
            await guest.until(lambda message: message.get("id") == "last")
            assert judge(part, guest.received[start:-1]) == []
            if at % 320 == 0:
                opened = await guest.ask("register", username=f"late{at}", password="x" * 12)
                assert opened["type"] == "session"
    assert errors_in_log(server) == []


async def test_a_malformed_first_frame_is_refused_and_a_hello_still_counts(server):
    first = [case for case in before_login() if case.frame[:1] == b"{"][::25]
    for case in first:
        async with await Guest.connect(server) as guest:
            await guest.stream.send_all(case.frame + b"\n")
            error = await guest.until_type("error")
            assert (error["code"], error.get("id")) == (*case.codes, case.id), case
            await guest.hello()
            await guest.ping()


@pytest.mark.parametrize(
    "first",
    [b"\n", b"\0\0\0\0", b"SSH-2.0-x\r\n", b"GETX / HTTP/1.1\r\nHost: x\r\n\r\n", b"[]\n", b" {}\n", b"\x16\x03\x01\xff\xff", b"\xff" * 99],
)
async def test_what_does_not_begin_like_a_dialect_is_closed_and_nothing_is_reflected(server, first):
    async with await Guest.connect(server) as guest:
        await guest.stream.send_all(first)
        with trio.fail_after(5):
            answer = await guest.stream.receive_some()
            assert b"{" not in answer
            assert not answer or (first[0] == 0x16 and answer[0] == 0x15)  # a TLS alert
            assert not answer or await guest.stream.receive_some() == b""


async def test_requests_that_need_a_session_are_unauthorized_without_one(server):
    for type_ in sorted(set(VALID) - OPENERS - {"hello", "ping", "pong"}):
        async with await Guest.connect(server) as guest:
            await guest.send({"type": type_, **VALID[type_], "id": "too early"})
            error = await guest.until_type("error")
            assert (error["code"], error["id"]) == ("unauthorized", "too early")
            await guest.hello()
            await guest.send({"type": type_, **VALID[type_], "id": "still too early"})
            error = await guest.until_type("error")
            assert (error["code"], error["id"]) == ("unauthorized", "still too early")


@pytest.mark.parametrize(("name", "limit"), [(None, 8 * 1024), ("longwinded", 64 * 1024)])
async def test_a_frame_of_the_limit_is_read_and_a_longer_one_ends_the_connection(server, name, limit):
    guest = await (Guest.register(server, name) if name else Guest.connect(server))
    async with guest:
        if name is None:
            await guest.hello()
        frame = b'{"type":"ping","id":"fits","ignored":"'
        await guest.stream.send_all(frame + b"x" * (limit - len(frame) - 2) + b'"}\n')
        assert (await guest.until_type("pong"))["id"] == "fits"
        await guest.stream.send_all(
            b'{"type":"ping","id":"before"}\n' + frame + b"x" * (limit - len(frame) - 1) + b'"}\n{"type":"ping","id":"behind"}\n'
        )
        *before, last = await guest.to_the_end()
        assert [message["id"] for message in before] == ["before"]
        assert (last["type"], last["code"]) == ("error", "too_large")
    async with await Guest.connect(server) as other:
        await other.hello()


async def test_a_line_without_an_end_is_given_up_at_the_limit(server):
    async with await Guest.connect(server) as guest:
        await guest.stream.send_all(b"{" + b"x" * 9000)
        assert [m["code"] for m in await guest.to_the_end()] == ["too_large"]
