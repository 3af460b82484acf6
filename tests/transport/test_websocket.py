import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from chat.transport.base import Dialect, framed
from chat.transport.door import DoorSettings
from chat.transport.outbox import OutboxLimits
from chat.transport.websocket import MAX_FRAGMENTS, SLICE_FRAMES, FrameGuard
from tests.transport import browsers
from tests.transport.browsers import (
    BINARY,
    CLOSE,
    MORE,
    PING,
    PONG,
    TEXT,
    close,
    frame,
    open_socket,
    open_web,
    serve_echo,
    text,
)

KiB = 1024

pytestmark = pytest.mark.timeout(30)

below = browsers.below  # a fixture

# ---------------------------------------------------------------- frames


async def test_messages_go_both_ways(below):
    async with open_web(serve_echo) as server, open_socket(server, below) as socket:
        for payload in (b"{}", "ä€😀".encode(), b"x" * 125, b"y" * 126, b"z" * 8000, b""):
            await socket.send(text(payload))
            assert await socket.frame() == (TEXT, payload)
        await socket.send(close(1000, b"done"))
        assert (await socket.frame())[0] == CLOSE
        assert await socket.frame() is None


async def test_many_in_one_packet_and_one_in_many():
    async with open_web(serve_echo) as server, open_socket(server) as socket:
        await socket.send(b"".join(text(b"%d" % n) for n in range(300)))
        assert [await socket.message() for _ in range(300)] == [b"%d" % n for n in range(300)]
        for byte in frame(TEXT, b"ab", fin=False) + frame(PING, b"now") + frame(MORE, b"cd"):
            await socket.send(bytes([byte]))
        assert await socket.frame() == (PONG, b"now")
        assert await socket.message() == b"abcd"


async def test_fragments_are_one_message_even_within_a_letter():
    async with open_web(serve_echo) as server, open_socket(server) as socket:
        letters = "ä€😀".encode()
        pieces = [letters[n : n + 1] for n in range(len(letters))]
        await socket.send(frame(TEXT, fin=False) + b"".join(frame(MORE, piece, fin=False) for piece in pieces) + frame(MORE))
        assert await socket.message() == letters


async def test_pings_are_answered_and_pongs_cost_nothing():
    async with open_web(serve_echo) as server, open_socket(server) as socket:
        await socket.send(frame(PONG, b"x") * 2000 + frame(PING, b"a") + frame(PONG) + frame(PING, b"b" * 125) + text(b"m"))
        assert [await socket.frame() for _ in range(3)] == [(PONG, b"a"), (PONG, b"b" * 125), (TEXT, b"m")]


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [
        (frame(BINARY, b"x"), 1003, b"bad_request"),
        (frame(BINARY, b"x", fin=False), 1003, b"bad_request"),
        (text(b"\xff"), 1007, b"bad_request"),
        (text(b"\xed\xa0\x80"), 1007, b"bad_request"),  # a lone surrogate
        (frame(TEXT, b"\xe2\x82", fin=False) + frame(MORE, b"x"), 1007, b"bad_request"),
        (text("€".encode()[:2]), 1007, b"bad_request"),
        (text(b"x" * 8193), 1009, b"too_large"),
        (text("€".encode() * 2731), 1009, b"too_large"),  # 2,731 characters, 8,193 bytes
        (frame(TEXT, b"x" * 8000, fin=False) + frame(MORE, b"x" * 193), 1009, b"too_large"),
        (frame(TEXT, b"", fin=False) + frame(MORE, b"", fin=False) * MAX_FRAGMENTS, 1009, b"too_large"),
        (frame(TEXT, b"x" * 8193)[:8], 1009, b"too_large"),  # its head alone tells
        (b"\x81\xff" + b"\x7f" + b"\xff" * 7, 1009, b"too_large"),  # 2^63 - 1
        (frame(TEXT, b"x", masked=False), 1002, b"bad_request"),
        (frame(TEXT, b"x", rsv=4), 1002, b"bad_request"),
        (frame(3, b"x"), 1002, b"bad_request"),
        (frame(0xB, b"x"), 1002, b"bad_request"),
        (frame(MORE, b"x"), 1002, b"bad_request"),
        (frame(TEXT, b"x", fin=False) + text(b"y"), 1002, b"bad_request"),
        (frame(PING, b"x" * 126), 1002, b"bad_request"),
        (frame(PING, b"x", fin=False), 1002, b"bad_request"),
        (b"\x81\xfe\x00\x01" + b"\0" * 5, 1002, b"bad_request"),  # a length that is longer than it need be
        (frame(CLOSE, b"x"), 1002, b"bad_request"),
        (close(1005), 1002, b"bad_request"),
        (close(999), 1002, b"bad_request"),
        (close(1000, b"\xff"), 1007, b"bad_request"),
    ],
)
async def test_what_may_not_be_sent_is_answered_and_closed_with_its_code(below, sent, code, said):
    async with open_web(serve_echo) as server, open_socket(server, below) as socket:
        await socket.send(text(b"before") + sent + text(b"after"))
        assert await socket.closing() == ([b"before", said], code)


async def test_a_message_of_the_limit_passes_and_the_limit_can_be_raised():
    async def raised(transport):
        assert transport.frame_limit == 8192
        transport.frame_limit = 70_000
        await serve_echo(transport)

    async with open_web(raised) as server, open_socket(server) as socket:
        for payload in (b"x" * 70_000, "€".encode() * 23_333):
            await socket.send(text(payload))
            assert await socket.message() == payload
        half = frame(TEXT, b"x" * 35_000, fin=False), frame(MORE, b"y" * 35_000)
        await socket.send(b"".join(half))
        assert len(await socket.message()) == 70_000
        await socket.send(half[0] + frame(MORE, b"y" * 35_001))
        assert await socket.closing() == ([b"too_large"], 1009)


async def test_as_many_fragments_as_allowed():
    async with open_web(serve_echo) as server, open_socket(server) as socket:
        for _ in range(3):  # counted for each message
            await socket.send(frame(TEXT, b"a", fin=False) + frame(MORE, b"b", fin=False) * (MAX_FRAGMENTS - 2) + frame(MORE, b"c"))
            assert len(await socket.message()) == MAX_FRAGMENTS


# ---------------------------------------------------------------- the guard

frames = st.builds(
    frame,
    st.sampled_from([TEXT, TEXT, MORE, MORE, PING, PONG, CLOSE, BINARY, 3]),
    st.binary(max_size=200) | st.sampled_from([b"", b"x" * 125, b"x" * 126, b"x" * 300, b"x" * 1001]),
    fin=st.booleans(),
    masked=st.sampled_from([True, True, True, False]),
)


def naive(data, limit):
    """The bytes that may pass, and the code that ends it, by reading one frame after the other."""
    passed, size, count, under_way = b"", 0, 0, False
    while len(data) >= 2:
        n, head = data[1] & 127, 2
        if n > 125:
            head = {126: 4, 127: 10}[n]
            n = int.from_bytes(data[2:head], "big")
        opcode, whole = data[0] & 15, head + 4 * (data[1] >> 7) + n
        if opcode == 2:
            return passed, 1003
        if opcode >= 8 and n > 125:
            return passed, 1002
        if opcode < 8:
            size, count = (n, 1) if opcode == 1 else (size + n, count + 1)
            if size > limit or count > MAX_FRAGMENTS:
                return passed, 1009
        if len(data) < whole:
            break
        empty = data[0] == 0 and data[1] == 0x80 and under_way
        passed += b"" if data[0] == 0x8A or empty else data[:whole]
        if opcode < 8:
            under_way = data[0] < 0x80
        if opcode == 8:
            return passed, "closed"
        data = data[whole:]
    return passed, None


@given(st.lists(frames, max_size=30), st.lists(st.integers(0, 6000), max_size=20), st.booleans())
def test_any_chunking_lets_the_same_frames_pass(sent, cuts, bytewise):
    data = b"".join(sent)
    cuts = range(len(data)) if bytewise else sorted(cuts)
    chunks = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    guard = FrameGuard(1000)
    slices = [piece for chunk in chunks if chunk for piece in guard.feed(chunk)]
    passed, end = naive(data, 1000)
    assert b"".join(slices) == passed
    assert (guard.code if guard.error else "closed" if guard.closed else None) == end


@given(st.binary(max_size=300))
def test_garbage_raises_nothing(data):
    guard = FrameGuard(100)
    guard.feed(data)
    guard.feed(data)


def test_what_passes_comes_in_slices():
    slices = FrameGuard(1000).feed(text(b"") * (3 * SLICE_FRAMES + 1))
    assert [len(piece) for piece in slices] == [SLICE_FRAMES * 6] * 3 + [6]


def test_fragments_with_nothing_in_them_are_counted_and_not_passed_on():
    begin, nothing, end = frame(TEXT, b"a", fin=False), frame(MORE, b"", fin=False), frame(MORE, b"b")
    assert b"".join(FrameGuard(1000).feed(begin + nothing * 500 + end)) == begin + end
    assert b"".join(FrameGuard(1000).feed(nothing)) == nothing, "of no message: trio-websocket refuses it"
    guard = FrameGuard(1000)
    assert b"".join(guard.feed(begin + nothing * MAX_FRAGMENTS)) == begin
    assert guard.code == 1009


def test_nothing_more_than_a_frame_is_held_back():
    guard = FrameGuard(1000)
    assert guard.feed(frame(TEXT, b"x" * 1000)[:-1]) == []
    assert len(guard._rest) == 1007
    assert guard.feed(b"x" * 100_000)
    assert guard.error is None or guard._rest is None


# ---------------------------------------------------------------- ends


async def test_the_servers_end_is_a_close_frame_and_nothing_after_it(below):
    async with open_web(serve_echo) as server, open_socket(server, below) as socket:
        await socket.send(text(b"one") + frame(PING, b"p") + text(b"bye") + frame(PING, b"late") * 50 + text(b"late"))
        assert await socket.frame() == (TEXT, b"one")
        messages, code = await socket.closing()
        assert (messages, code) == ([], 1000)


async def test_there_is_one_close_frame():
    async with open_web(serve_echo) as server:
        for _ in range(20):  # which of the two closes first is the scheduler's choice
            async with open_socket(server) as socket:
                await socket.send(text(b"bye") + close())
                assert await socket.closing() == ([], 1000)


async def test_a_ping_after_our_close_frame_harms_nobody(caplog):
    closed = trio.Event()

    async def handler(transport):
        await transport.receive()
        transport.outbox.put_always(framed(Dialect.WEB, b"last"))
        await transport.aclose()
        closed.set()

    async with open_web(handler) as server, open_socket(server) as socket:
        await socket.send(text(b"x"))
        assert await socket.message() == b"last"
        assert (await socket.frame()) == (CLOSE, b"\x03\xe8")
        await socket.send(frame(PING, b"late") + text(b"late") + close())
        await socket.client.end()
        await closed.wait()
    assert not caplog.records


async def test_after_the_peers_close_frame_nothing_is_sent(below):
    done = trio.Event()

    async def handler(transport):
        assert await transport.receive() == [b"x"]
        assert await transport.receive() == []
        assert await transport.receive() == []
        assert not transport.outbox.put(framed(Dialect.WEB, b"live"))
        transport.outbox.put_always(framed(Dialect.WEB, b"answer"))
        transport.flush_nowait()
        await transport.aclose()
        done.set()

    async with open_web(handler) as server, open_socket(server, below) as socket:
        await socket.send(text(b"x") + close(1001))
        assert await socket.frame() == (CLOSE, b"\x03\xe9")
        assert await socket.frame() is None
        await socket.client.end()
        await done.wait()


@pytest.mark.parametrize("said", [b"", text(b"y")[:-1], frame(TEXT, b"y", fin=False)])
async def test_at_an_end_without_a_close_frame_what_was_received_is_answered(below, said):
    """A FIN, under TLS a close_notify, is one here as everywhere. What is not whole is dropped."""

    async def handler(transport):
        received = []
        while frames := await transport.receive():
            received += frames
        assert await transport.receive() == []
        for payload in received:
            transport.outbox.put_always(framed(Dialect.WEB, b"answer to " + payload))
        transport.flush_nowait()
        await transport.aclose()

    async with open_web(handler) as server, open_socket(server, below) as socket:
        await socket.send(b"".join(text(b"%d" % n) for n in range(200)) + said)
        await socket.client.end()
        assert await socket.closing() == ([b"answer to %d" % n for n in range(200)], 1000)


async def test_a_bare_fin_under_tls_is_no_end():
    seen = []

    async def handler(transport):
        seen.append(await transport.receive())
        with pytest.raises(trio.BrokenResourceError):
            await transport.receive()
        await transport.aclose()
        seen.append("broken")

    async with open_web(handler) as server, open_socket(server, "tls") as socket:
        await socket.send(text(b"x"))
        await socket.client.cut()
        messages, _ = await socket.closing()
        await socket.client.stream.aclose()
    assert seen == [[b"x"], "broken"]
    assert messages == []


async def test_closing_a_peer_that_says_nothing_has_a_deadline(below, autojump_clock):
    ended = trio.Event()

    async def handler(transport):
        await transport.aclose()
        ended.set()

    async with open_web(handler) as server, open_socket(server, below):
        began = trio.current_time()
        await ended.wait()
        assert trio.current_time() - began <= 2.1


async def test_a_stalled_browser_is_cut_and_its_last_frames_are_whole(autojump_clock):
    limits = OutboxLimits(soft_bytes=100 * KiB, hard_bytes=400 * KiB, write_deadline_s=10)
    cut, ended = trio.Event(), trio.Event()

    async def handler(transport):
        transport.outbox.on_cut = lambda code: cut.set()
        n = 0
        while not cut.is_set():
            transport.outbox.put_always(framed(Dialect.WEB, b"%05d" % n + b"." * 995))
            transport.flush_nowait()
            n += 1
            if n % 50 == 0:
                await trio.sleep(0.001)
        await transport.aclose()
        ended.set()

    async with open_web(handler, settings=DoorSettings(outbox=limits), send_buffer=4096) as server:
        async with open_socket(server, receive_buffer=4096) as socket:
            await cut.wait()
            messages, code = await socket.closing()
            assert messages.pop() == b'{"type":"closing","code":"slow_consumer"}'
            assert [message[:5] for message in messages] == [b"%05d" % n for n in range(len(messages))]
            assert code == 1013
            await ended.wait()
        assert server.pool.total_bytes == 0


async def test_a_lagging_browser_is_told_in_its_own_dialect():
    async def handler(transport):
        outbox = transport.outbox
        while outbox.put(framed(Dialect.WEB, b"x" * 1000)):
            transport.flush_nowait()
        transport.flush_nowait()
        await outbox.wait_not_lagging()
        await transport.aclose()

    limits = OutboxLimits(soft_bytes=20 * KiB)
    settings = DoorSettings(outbox=limits)
    async with open_web(handler, settings=settings, send_buffer=4096) as server, open_socket(server, receive_buffer=4096) as socket:
        messages, code = await socket.closing()
        assert set(messages[:-1]) == {b"x" * 1000}
        assert (messages[-1], code) == (b'{"type":"lagging"}', 1000)
