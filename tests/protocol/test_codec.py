"""Round trips, every rule of the contract's section 1, and what an error says and carries."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.errors import RemoteProtocolError
from chat.protocol import messages as m
from chat.protocol.codec import TEXT_BYTES, Unknown, decode_notice, decode_record, decode_request, encode, to_builtins
from chat.protocol.fields import fields_of
from tests import strategies as gen

# One good frame of every request; the rest of the rules are tried by changing them.
GOOD = {
    "hello": {"protocol": 1, "client": "test 1.0", "compress": ["deflate"]},
    "register": {"id": 1, "username": "ann", "password": "secret", "invite": "abc", "color": "red"},
    "login": {"id": 1, "username": "ann", "password": "secret"},
    "resume": {"id": 1, "token": "t", "cursors": {"#lobby": ["abcdefgh", 5]}},
    "send": {"id": 1, "cid": "c-1", "text": "hello", "channel": "lobby", "reply_to": 3},
    "join": {"id": 1, "channel": "lobby", "password": "secret"},
    "leave": {"id": 1, "channel": "lobby"},
    "command": {"id": 1, "text": "help", "cid": "c-1", "channel": "lobby"},
    "answer": {"id": 1, "question": "q1", "text": "yes"},
    "history": {"id": 1, "conv": "#lobby", "limit": 50, "after": 0, "before": 9},
    "password": {"id": 1, "old": "a", "new": "b"},
    "logout": {"id": 1, "everywhere": True, "session": "s7Gk2"},
    "sessions": {"id": 1},
    "members": {"id": 1, "channel": "lobby", "after": "ann", "limit": 100},
    "commands": {"id": 1, "channel": "lobby"},
    "read": {"id": 1, "conv": "#lobby", "seq": 4},
    "ping": {"id": 1},
    "pong": {"id": 1},
}
OPTIONAL = {(cls.type, field.name) for cls in m.REQUESTS.values() for field in fields_of(cls) if field.optional}
FIELDS = [(type_, name) for type_, fields in GOOD.items() for name in fields]


def frame(type_, **changes):
    data = {"type": type_, **GOOD[type_], **changes}
    return json.dumps({key: value for key, value in data.items() if value is not ...}).encode()


def unescaped(type_, **changes):
    return json.dumps({"type": type_, **GOOD[type_], **changes}, ensure_ascii=False).encode()


def outcome(decode, data):
    """What *data* is, or the error that it is no such thing."""
    try:
        return decode(data)
    except RemoteProtocolError as error:
        return error


def refused(data, code="bad_request"):
    with pytest.raises(RemoteProtocolError) as caught:
        decode_request(data)
    assert caught.value.code == code
    assert not caught.value.fatal
    assert caught.value.message.isprintable()
    return caught.value


def test_there_is_a_good_frame_of_every_request_with_every_field():
    assert {type_: set(fields) | ({"to"} if type_ == "send" else set()) for type_, fields in GOOD.items()} == {
        type_: {field.name for field in fields_of(cls)} for type_, cls in m.REQUESTS.items()
    }


# ---------------------------------------------------------------- round trips


# Of each class a quarter of the examples that the profile asks for.
few = settings(max_examples=settings().max_examples // 4)


@pytest.mark.parametrize("cls", m.REQUESTS.values())
@few
@given(st.data())
def test_a_request_survives_the_wire(cls, data):
    request = data.draw(gen.message(cls))
    assert decode_request(encode(request)) == request


@pytest.mark.parametrize("cls", m.NOTICES.values())
@few
@given(st.data())
def test_a_notice_survives_the_wire(cls, data):
    notice = data.draw(gen.message(cls))
    assert decode_notice(encode(notice)) == notice


@given(gen.records)
def test_a_record_in_a_history_page_is_the_object_that_was_live(record):
    page = m.HistoryPage(id=1, conv="#a", epoch="abcdefgh", messages=[to_builtins(record)], first_seq=1, last_seq=1, more=False)
    read = decode_notice(encode(page))
    assert decode_record(read.messages[0]) == record
    assert json.loads(encode(record)) == read.messages[0]


@given(gen.notices | gen.requests)
def test_what_is_encoded_is_one_line_of_json_with_the_type_first_and_nothing_absent(message):
    data = encode(message)
    assert b"\n" not in data
    assert data.startswith(b'{"type":"%s"' % message.type.encode())
    decoded = json.loads(data)
    present = {name.removesuffix("_") for name, *_ in fields_of(type(message)) if getattr(message, name) is not None}
    assert set(decoded) == present | {"type"}
    assert all(value is not None for value in decoded.values())


def test_the_wires_words_are_used_where_python_has_them_taken():
    message = m.Message(conv="#a", epoch="abcdefgh", seq=1, ts=2, from_="ann", text="hi")
    assert encode(message) == b'{"type":"message","conv":"#a","epoch":"abcdefgh","seq":1,"ts":2,"from":"ann","text":"hi"}'
    assert decode_notice(b'{"from_":"eve",' + encode(message)[1:]) == message


def test_a_channel_of_a_session_has_a_prefix_only_where_it_has_its_own():
    channels = [m.ChannelInfo(channel="a", topic="", role="owner"), m.ChannelInfo(channel="b", topic="", role="member", prefix="!")]
    data = json.loads(encode(m.SessionOpened(id=1, user="ann", session="s", resume_token="t", heads={}, channels=channels)))
    assert data["channels"] == [
        {"channel": "a", "topic": "", "role": "owner"},
        {"channel": "b", "topic": "", "role": "member", "prefix": "!"},
    ]


# ---------------------------------------------------------------- refusals, one by one


@pytest.mark.parametrize(("type_", "name"), FIELDS)
def test_a_missing_or_null_field_is_refused_unless_it_is_optional(type_, name):
    missing, null = frame(type_, **{name: ...}), frame(type_, **{name: None})
    if (type_, name) in OPTIONAL and (type_, name) != ("send", "channel"):
        assert decode_request(missing) == decode_request(null)
        assert getattr(decode_request(null), name) is None
    elif (type_, name) == ("send", "channel"):
        assert "exactly one of `channel` and `to`" in refused(missing).message
        assert "exactly one of `channel` and `to`" in refused(null).message
    else:
        assert refused(missing).message == f"`{name}` is missing"
        assert re.fullmatch(f"`{name}` must be .*, got null", refused(null).message)


WRONG = [True, 1.5, [], {}, [[]], 17, "word", -1, 2**53 + 1, 10**30, -(10**30), ""]


@pytest.mark.parametrize(("type_", "name"), FIELDS)
def test_a_value_of_another_type_or_out_of_bounds_is_refused_with_the_reason(type_, name):
    """All pairs; where the value happens to be good for the field, it is what is read."""
    refusals = 0
    for wrong in WRONG:
        read = outcome(decode_request, frame(type_, **{name: wrong}))
        if isinstance(read, RemoteProtocolError):
            refusals += 1
            assert read.code == "bad_request"
            assert re.match(f"`{name}.* must |`{name}.* too large", read.message)
            assert read.id == (None if name == "id" or type_ == "hello" else 1)
        else:
            good = GOOD[type_][name]
            assert getattr(read, name) == wrong
            assert type(wrong) is type(good) or (name == "id" and isinstance(wrong, str | int))
            assert wrong != "" or name not in ("text", "cid")
            assert type(wrong) is bool or not isinstance(wrong, int) or abs(wrong) <= 2**53
    assert refusals >= 8


def test_what_is_wrong_is_said_with_its_place():
    assert refused(frame("send", text=5)).message == "`text` must be a string, got int"
    assert refused(frame("send", text="")).message == "`text` must not be empty"
    assert refused(frame("send", id=1.0)).message == "`id` must be an integer or a string, got float"
    assert refused(frame("send", id=...)).message == "`id` is missing"
    assert refused(frame("send", reply_to=0)).message == "`reply_to` must be an integer >= 1"
    assert refused(frame("send", cid="a b")).message == "`cid` must be 1 to 64 of A-Z a-z 0-9 _ -"
    assert refused(frame("hello", compress=[1])).message == "`compress[0]` must be a string, got int"
    assert refused(frame("resume", cursors={"#a": ["short", 1]})).message == "`cursors[...][0]` must be 8 to 32 of A-Z a-z 0-9"
    assert refused(frame("resume", cursors={"#a": ["abcdefgh"]})).message == "`cursors[...]` must be an array of length 2"
    assert refused(frame("resume", cursors=[])).message == "`cursors` must be an object, got array"
    assert refused(frame("logout", everywhere=1)).message == "`everywhere` must be true or false, got int"
    assert refused(frame("history", limit=0)).message == "`limit` must be an integer >= 1"
    assert refused(b"[]").message == "the frame must be an object, got array"
    assert refused(b"").message == refused(b" \r").message == "the frame is empty"
    assert refused(b'{"id":1}').message == refused(b'{"id":1,"type":null}').message == "`type` is missing"
    assert refused(b'{"id":1,"type":["send"]}').message == "`type` must be a string, got array"
    assert refused(b"{").message == "the frame is not JSON: Input data was truncated"


@pytest.mark.parametrize(
    "data",
    [b"", b"\r", b"null", b"17", b'"send"', b"[]", b"{", b"}", b'{"type":"ping","id":1} x', b'{"type":"ping","id":1}{}', b"{'type':1}",
     b'{"type":"ping","id":1,}', b'{"type":"ping","id":01}', b'\xef\xbb\xbf{"type":"ping","id":1}', b"GET / HTTP/1.1"],
)  # fmt: skip
def test_what_is_no_object_is_refused_without_an_id(data):
    assert refused(data).id is None


def test_carriage_return_and_white_space_around_a_frame_are_harmless():
    assert decode_request(b' {"type" : "ping",\t"id":\r1}\r') == m.Ping(id=1)


NO_JSON = ["NaN", "Infinity", "-Infinity", "01", "-", "1.", "+1", ".5", "0x1"]
NO_INTEGERS = ["1e400", "1.0", "1e2", "1.5", "true", "9007199254740993", "-9007199254740993", "1" * 400]


@pytest.mark.parametrize("number", [*NO_JSON, *NO_INTEGERS])
def test_numbers_that_are_no_exact_integers(number):
    assert refused(b'{"type":"ping","id":%s}' % number.encode()).id is None
    assert refused(b'{"type":"read","id":7,"conv":"#a","seq":%s}' % number.encode()).id == (None if number in NO_JSON else 7)


@pytest.mark.parametrize("number", [2**53, -(2**53), 0])
def test_the_bounds_of_integers_are_allowed(number):
    assert decode_request(frame("ping", id=number)).id == number


def test_an_id_is_bounded_in_bytes_and_may_be_anything_else_that_is_visible():
    assert decode_request(frame("ping", id="")).id == ""
    assert decode_request(frame("ping", id="i" * 64)).id == "i" * 64
    assert decode_request(unescaped("ping", id="é" * 32)).id == "é" * 32
    for long in ("i" * 65, "é" * 33, "é" * 64, "😀" * 17):
        for data in (frame("ping", id=long), unescaped("ping", id=long)):
            error = refused(data)
            assert error.message == "`id` must have at most 64 bytes"
            assert error.id is None


CONTROLS = [*range(0x20), 0x7F, *range(0x80, 0xA0)]


@pytest.mark.parametrize("raw", [False, True], ids=["escaped", "raw"])
@pytest.mark.parametrize("code", CONTROLS)
def test_control_characters(code, raw):
    character = chr(code)

    def with_control(type_, name, value):
        data = {"type": type_, **GOOD[type_], name: value}
        dumped = json.dumps(data, ensure_ascii=not raw)
        if raw:
            dumped = dumped.replace(json.dumps(character)[1:-1], character)  # as it is, and not as JSON wants it
        return dumped.encode()

    for type_, name in FIELDS:
        if type(GOOD[type_][name]) is not str and name != "id":
            continue
        data = with_control(type_, name, f"a{character}b")
        if name == "text" and type_ in ("send", "answer") and character in "\n\t" and not raw:
            assert decode_request(data).text == f"a{character}b"
        else:
            assert refused(data).id == (1 if name != "id" and type_ != "hello" and not (raw and code < 0x20) else None)
    for cursors in ({f"#{character}": ["abcdefgh", 1]},):
        refused(with_control("resume", "cursors", cursors))
    refused(with_control("hello", "compress", [character]))


def test_what_is_no_control_character_passes_verbatim():
    for text in ["\u2028\u2029\ufffe\uffff\U0010ffff", "\u00a0£§", "\u200b\u202e", "😀", "\\u0000", "a\\nb", "\\\\"]:
        for ensure_ascii in (True, False):
            data = json.dumps({"type": "send", **GOOD["send"], "text": text}, ensure_ascii=ensure_ascii).encode()
            assert decode_request(data).text == text


@pytest.mark.parametrize("text", [rb"\ud800", rb"a\ud800b", rb"\udc00", rb"\udc00\ud800", rb"\ud800\u0041 and more"])
def test_half_a_surrogate_pair_is_refused_and_the_id_is_found_all_the_same(text):
    error = refused(b'{"type":"send","id":9,"cid":"c","channel":"a","text":"%s"}' % text)
    assert (error.id, error.cid) == (9, "c")
    assert "surrogate pair" in error.message
    assert refused(b'{"type":"ping","id":"%s"}' % text).id is None


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"])
def test_bad_utf8_is_refused_wherever_it_is(bad):
    for data in (b'{"type":"ping","id":1,"other":"%s"}', b'{"type":"ping","id":1,"%s":1}', b'{"type":"ping","id":"%s"}', b'{"type":"%s"}'):
        error = refused(data % bad)
        assert error.id is None
        assert "UTF-8" in error.message


@pytest.mark.parametrize("brackets", ["[]", "{}", "mixed"])
def test_depth_16_is_allowed_and_17_is_not(brackets):
    def nested(depth):  # the frame's own object is 1
        value = "x"
        for level in range(depth - 1):
            value = [value] if brackets == "[]" or (brackets == "mixed" and level % 2) else {"k": value}
        return json.dumps({"type": "ping", "id": 3, "other": value}).encode()

    assert decode_request(nested(16)) == m.Ping(id=3)
    error = refused(nested(17))
    assert "nested" in error.message
    assert error.id == 3
    refused(nested(900))


def test_many_brackets_that_are_not_deep_are_allowed():
    cursors = {f"#c{n}": ["abcdefgh", n] for n in range(500)}
    assert len(decode_request(frame("resume", cursors=cursors)).cursors) == 500
    text = "[{" * 500 + '"\\"[[' * 20
    assert decode_request(frame("send", text=text)).text == text


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 60_000,
        b'{"a":' * 12_000,
        b'{"type":"ping","id":1,"o":' + b"[" * 60_000 + b"]" * 60_000 + b"}",
        b'"' + b'\\"' * 30_000 + b"{" * 20,
        b"[]{}" * 15_000,
        b"[{" * 30_000,
    ],
    ids=range(6),
)
def test_frames_made_to_be_slow_are_refused_at_once(data, benchmark_s):
    with benchmark_s(0.5):
        refused(data)


@pytest.fixture
def benchmark_s():
    """A bound on time that is a hundred times what it takes, and a hundredth of what a quadratic search would."""
    import contextlib
    import time

    @contextlib.contextmanager
    def within(limit_s):
        start = time.process_time()
        yield
        assert time.process_time() - start < limit_s

    return within


def test_of_duplicate_keys_the_last_counts():
    assert decode_request(b'{"type":"ping","id":1,"id":2}') == m.Ping(id=2)
    assert decode_request(b'{"type":"ping","id":1,"type":"pong"}') == m.Pong(id=1)
    assert decode_request(b'{"type":"send","id":1,"cid":"a","text":"x","channel":"a","channel":null,"to":"b"}').to == "b"
    assert decode_request(rb'{"type":"ping","\u0074ype":"pong","id":1}') == m.Pong(id=1)


@pytest.mark.parametrize(
    "fields",
    [
        '"id":1.5,"id":1,"text":"x","channel":"a"',
        '"id" : [], "id":1, "text" : "x" , "channel":"a"',
        '"id":1,"text":"","text":"x","channel":"a"',
        '"id":1,"text":"\\u0000","text":"x","channel":"a"',
        '"id":1,"text":"x","channel":5,"channel":"a"',
        '"id":1,"text":"x","channel":"a","cid":"a b"',
        '"id":1,"text":"x","channel":"a","reply_to":0,"reply_to":null',
        '"type":5,"id":1,"text":"x","channel":"a"',
    ],
)
def test_of_duplicate_keys_the_last_counts_whatever_the_others_hold(fields):
    data = f'{{{fields},"cid":"c","type":"send"}}'.encode()
    assert decode_request(data) == m.Send(id=1, cid="c", channel="a", text="x")
    for key in ("id", "text", "channel"):
        refused(data.replace(b"}", f',"{key}":[]}}'.encode()), "bad_request")


def test_unknown_keys_are_ignored_and_say_nothing_about_who_is_asking():
    data = frame("send", **{"from": "root", "user": "root", "role": "admin", "x": {"y": [1, 2.5]}})
    assert decode_request(data) == decode_request(frame("send"))


@pytest.mark.parametrize("character", ["\0", "\n", "\x1f", "\x7f", "\x85", "\x9f"])
def test_a_control_character_in_the_type_is_a_bad_request(character):
    for type_ in (character, f"pi{character}ng", f"ping{character}"):
        for write in (frame, unescaped):
            error = refused(write("ping").replace(b'"ping"', json.dumps(type_, ensure_ascii=write is frame).encode()))
            assert error.id == 1
            assert error.message == f"`type` must not have control characters, got U+{ord(character):04X}"


def test_unknown_types_are_unsupported_and_only_harmless_ones_are_repeated():
    error = refused(b'{"type":"edit","id":4,"cid":"c"}', "unsupported")
    assert (error.message, error.id, error.cid) == ("there is no request `edit`", 4, "c")
    assert refused(b'{"type":"<script>","id":4}', "unsupported").message == "there is no such request"
    assert refused(b'{"type":"","id":4}', "unsupported").message == "there is no such request"
    for notice in ("message", "welcome", "from_"):
        refused(b'{"type":"%s","id":4}' % notice.encode(), "unsupported")


def test_exactly_one_of_channel_and_to():
    assert decode_request(frame("send", channel=..., to="bob")).to == "bob"
    error = refused(frame("send", to="bob"))
    assert (error.id, error.cid) == (1, "c-1")


@pytest.mark.parametrize("type_", ["send", "answer", "command"])
def test_a_text_is_bounded_in_bytes(type_):
    assert decode_request(frame(type_, text="x" * TEXT_BYTES))
    assert decode_request(unescaped(type_, text="é" * (TEXT_BYTES // 2)))
    assert decode_request(frame(type_, text="é" * (TEXT_BYTES // 2)))  # six bytes each in the frame, two in the text
    for text in ("x" * (TEXT_BYTES + 1), "é" * (TEXT_BYTES // 2) + "x"):
        error = refused(frame(type_, text=text), "too_large")
        assert error.id == 1
        assert str(TEXT_BYTES) in error.message
    with pytest.raises(RemoteProtocolError, match="too_large"):
        decode_request(frame(type_, text="12345"), 4)


def test_a_long_frame_with_a_short_text_is_allowed():
    assert decode_request(frame("send", padding="x" * TEXT_BYTES)).text == "hello"


def test_an_error_carries_only_an_id_and_cid_that_are_valid_by_themselves():
    def carried(**changes):
        error = refused(frame("send", **{"text": 1, **changes}))
        return error.id, error.cid

    assert carried() == (1, "c-1")
    assert carried(id="x" * 64) == ("x" * 64, "c-1")
    for bad in ("x" * 65, "é" * 33, "a\u0007", True, 1.5, 2**53 + 1, [1], {}, "\ud800"):
        assert carried(id=bad) == (None, "c-1")
    for bad in ("", "a b", "x" * 65, 1, "é", "a\n"):
        assert carried(cid=bad) == (1, None)
    assert refused(frame("hello", id=1, protocol="1")).id is None


# ---------------------------------------------------------------- properties


@given(gen.garbage() | st.binary())
def test_garbage_is_a_request_or_raises_only_the_remote_error(data):
    request = outcome(decode_request, data)
    if isinstance(request, RemoteProtocolError):
        assert request.code in ("bad_request", "unsupported", "too_large")
        assert request.message.isprintable()
        assert encode(m.Error(code=request.code, message=request.message, id=request.id, cid=request.cid))  # it can be answered
    else:
        assert decode_request(encode(request)) == request


@given(gen.garbage() | st.binary())
def test_garbage_is_a_notice_or_raises_only_the_remote_error(data):
    notice = outcome(decode_notice, data)
    if isinstance(notice, RemoteProtocolError):
        assert notice.code == "bad_request"
    else:
        assert type(notice) is Unknown or decode_notice(encode(notice)) == notice


@given(gen.json_values)
def test_any_json_in_ignored_keys_is_ignored(value):
    data = json.dumps({"type": "ping", "id": 5, "other": value}).encode()
    assert decode_request(data) == m.Ping(id=5)


# ---------------------------------------------------------------- what a client reads


def test_a_notice_of_an_unknown_type_keeps_its_place():
    assert decode_notice(b'{"type":"poll","conv":"#a","epoch":"abcdefgh","seq":7,"what":[1]}') == Unknown(
        type="poll", conv="#a", epoch="abcdefgh", seq=7, data={"type": "poll", "conv": "#a", "epoch": "abcdefgh", "seq": 7, "what": [1]}
    )
    assert decode_notice(b'{"type":"poll","conv":1,"epoch":2,"seq":true}').seq is None
    assert decode_record({"type": "hidden", "from_seq": 1, "to_seq": 3}).data["to_seq"] == 3


def test_unknown_keys_of_a_notice_are_left_out():
    assert decode_notice(b'{"type":"lagging","since":5}') == m.Lagging()
    assert decode_notice(b'{"type":"notice","text":"x"}') == m.ServerNotice(text="x", level="info")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"type":1}', b'{"type":[]}', b'{"type":"ack","id":1}', b'{"type":"message","seq":"1"}', b"\xff"]
)
def test_what_is_no_notice(data):
    with pytest.raises(RemoteProtocolError, match="bad_request: the server sent"):
        decode_notice(data)


@pytest.mark.parametrize("data", [{}, {"type": 1}, {"type": "message"}, {"type": "joined", "conv": 1}])
def test_what_is_no_record(data):
    with pytest.raises(RemoteProtocolError, match="bad_request: the server sent"):
        decode_record(data)


def test_no_secret_and_no_text_is_in_a_repr():
    for type_, fields in GOOD.items():
        shown = repr(decode_request(frame(type_, **{name: f"S3CRET{name}" for name in fields if name in SECRET})))
        assert "S3CRET" not in shown
    assert "hi" not in repr(m.Message(conv="#a", epoch="e" * 8, seq=1, ts=2, from_="ann", text="hi"))


SECRET = {"password", "old", "new", "token", "invite", "text"}
