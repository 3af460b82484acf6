"""Any chunking gives the same frames; the limit is exact; nothing before a frame that is too long is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.errors import RemoteProtocolError
from chat.protocol.codec import decode_request, encode
from chat.protocol.framing import LineFramer
from tests import strategies as gen


def feed_all(framer, chunks):
    return [frame for chunk in chunks for frame in framer.feed(chunk)]


@given(st.data(), st.lists(gen.requests, max_size=5))
def test_any_chunking_gives_the_same_messages(data, requests):
    stream = b"".join(encode(request) + data.draw(st.sampled_from([b"\n", b"\r\n"])) for request in requests)
    framer = LineFramer(limit=1 << 20)
    frames = feed_all(framer, data.draw(gen.chunked(stream)))
    assert [decode_request(frame) for frame in frames] == requests
    assert not framer.unfinished


@given(st.data(), st.lists(st.binary(max_size=12), max_size=8), st.integers(1, 10))
def test_any_chunking_gives_the_same_frames_and_the_same_end(data, lines, limit):
    """Against a model that has all at once: the frames before the first that is too long, then the error."""
    stream = b"\n".join(lines)
    complete = stream.split(b"\n")
    rest = complete.pop()
    expected = []
    for frame in complete:
        if len(frame) > limit:
            break
        expected.append(frame)
    too_long = len(expected) < len(complete) or len(rest) > limit

    framer, got = LineFramer(limit), []
    for chunk in data.draw(gen.chunked(stream)):
        if framer.error is None:
            frames, error = attempt(framer, chunk)
            got += frames
            assert error is framer.error or frames
    assert got == expected
    assert (framer.error is not None) == too_long
    assert framer.unfinished == (bool(rest) and not too_long)


def attempt(framer, chunk):
    try:
        return framer.feed(chunk), None
    except RemoteProtocolError as error:
        return [], error


def test_the_limit_itself_is_allowed_without_the_end():
    framer = LineFramer(limit=4)
    assert framer.feed(b"1234\n12345"[:9]) == [b"1234"]
    assert framer.feed(b"\n") == [b"1234"]
    assert framer.feed(b"123\r\n") == [b"123\r"]
    with pytest.raises(RemoteProtocolError) as caught:
        framer.feed(b"12345")
    assert (caught.value.code, caught.value.fatal) == ("too_large", True)


@pytest.mark.parametrize("tail", [b"12345\n", b"12345\nok\n", b"12345"])
def test_what_comes_before_a_frame_that_is_too_long_is_given_out_first(tail):
    framer = LineFramer(limit=4)
    assert framer.feed(b"a\nb\n" + tail) == [b"a", b"b"]
    assert framer.error is not None
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="at most 4 bytes"):
            framer.feed(b"more\n")


def test_the_limit_can_be_raised_while_a_frame_is_under_way():
    framer = LineFramer(limit=4)
    assert framer.feed(b"1234") == []
    framer.limit = 8
    assert framer.feed(b"5678\n") == [b"12345678"]


def test_no_more_than_the_limit_is_held_back():
    framer = LineFramer(limit=100)
    for _ in range(100):
        assert framer.feed(b"x") == []
    with pytest.raises(RemoteProtocolError):
        framer.feed(b"x")
    assert not framer.unfinished


def test_empty_lines_are_frames():
    assert LineFramer().feed(b"\n\r\n\n") == [b"", b"\r", b""]
