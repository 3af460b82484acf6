"""The parts of a run one by one: framing, the road that becomes a black hole, the schedule, what is shown."""

import io
import random

import pytest
import trio

from chat.prove import show, trouble
from chat.prove.ledger import Violation
from chat.prove.proxy import Proxy
from chat.prove.run import Report
from chat.prove.wires import Lines, Messages, open_wire

# ---------------------------------------------------------------- framing


def server_frame(payload, opcode=0x1, final=True):
    head = bytes([opcode | (0x80 if final else 0)])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 65536:
        return head + b"\x7e" + len(payload).to_bytes(2, "big") + payload
    return head + b"\x7f" + len(payload).to_bytes(8, "big") + payload


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1000])
def test_messages_in_any_pieces(cut):
    payloads = [b"{}", b"x" * 125, b"y" * 126, b"z" * 70_000]
    data = b"".join(map(server_frame, payloads)) + server_frame(b"one ", final=False) + server_frame(b"two", 0x0)
    framing, found = Messages(), []
    for at in range(0, len(data), cut):
        frames, answer = framing.unpack(data[at : at + cut])
        assert not answer
        found += frames
    assert found == [*payloads, b"one two"]


def test_a_ping_is_answered_and_a_close_frame_ends_it():
    framing = Messages()
    frames, answer = framing.unpack(server_frame(b"hi", 0x9) + server_frame(b"{}") + server_frame(b"", 0x8))
    assert frames == [b"{}"]  # what came before the close frame is heard
    assert answer[0] == 0x8A
    with pytest.raises(EOFError):
        framing.unpack(b"")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65536])
def test_what_a_client_sends_is_masked(size):
    payload = bytes(random.Random(size).randbytes(size))
    frame = Messages().pack([payload])
    head = {0: 6, 1: 6, 125: 6, 126: 8, 65536: 14}[size]
    assert frame[1] & 0x80
    mask = frame[head - 4 : head]
    assert bytes(byte ^ mask[i % 4] for i, byte in enumerate(frame[head:])) == payload


def test_lines_in_pieces():
    framing = Lines()
    assert framing.unpack(b'{"a":1}\n{"b"') == ([b'{"a":1}'], b"")
    assert framing.unpack(b":2}\n") == ([b'{"b":2}'], b"")


# ---------------------------------------------------------------- the road


@pytest.fixture
async def echo(nursery):
    """The port of a server that says again what it hears."""

    async def serve(stream):
        with trio.move_on_after(20):
            try:
                async for data in stream:
                    await stream.send_all(data)
            except trio.BrokenResourceError:
                pass

    listeners = await nursery.start(trio.serve_tcp, serve, 0)
    return listeners[0].socket.getsockname()[1]


@pytest.fixture
async def road(nursery, echo):
    """A wire through a proxy, and its tunnel."""
    proxy = Proxy(echo)
    await nursery.start(proxy.run)
    wire = await open_wire("tcp", proxy.port, source="127.0.0.7")
    await wire.send({"type": "a"})
    assert await wire.receive() == [{"type": "a"}]
    yield wire, proxy.tunnel(wire.address)
    wire.close()


async def test_what_a_black_hole_holds_comes_late(road):
    wire, tunnel = road
    tunnel.stall()
    await wire.send({"type": "b"})
    with trio.move_on_after(0.05) as limit:
        await wire.receive()
    assert limit.cancelled_caught
    tunnel.release()
    with trio.fail_after(5):
        assert await wire.receive() == [{"type": "b"}]


async def test_a_black_hole_that_is_dropped_is_a_reset(road):
    wire, tunnel = road
    tunnel.stall()
    await wire.send({"type": "b"})
    tunnel.drop()
    with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
        await wire.receive()


# ---------------------------------------------------------------- the schedule


def schedule(seed):
    draw = random.Random(seed)
    return [*trouble.troubles(draw, 30, trouble.TALKER, tunnel=True), *trouble.kills(draw, 30, 6)]


def test_a_seed_gives_the_same_schedule_again():
    assert schedule(1) == schedule(1)
    assert trouble.fingerprint(schedule(1)) != trouble.fingerprint(schedule(2))


def test_only_what_has_a_tunnel_is_black_holed():
    found = trouble.troubles(random.Random(1), 300, trouble.TALKER, tunnel=False)
    assert {item.kind for item in found} == trouble.TALKER.keys() - {trouble.VANISH, trouble.LATE}


def test_kills_are_spread_over_the_run():
    times = [kill.at_s for kill in trouble.kills(random.Random(1), 60, 6)]
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < 60
    assert {kill.gently for kill in trouble.kills(random.Random(1), 600, 60)} == {True, False}
    assert not any(trouble.kills(random.Random(n), 5, 1)[0].gently for n in range(20))


# ---------------------------------------------------------------- what is shown


def test_a_good_end():
    page = show.page(Report(seed=7, kinds=("tcp", "ws"), acks=1234, kills=2, in_flight=[3, 9]), io.StringIO())
    assert "lost 0, doubled 0, out of order 0, gaps 0\n" in page
    assert "1,234 acks" in page
    assert "3 to 9 texts had no ack yet" in page
    assert "seed 7" in page
    assert "\x1b" not in page


def test_a_bad_end_is_explained():
    violation = Violation("lost", 1.5, "a-4 was acknowledged and is not in the history", None, ("seen by nobody",))
    faults = {"lost": 2, "doubled": 0, "out of order": 0, "gaps": 0, "altered": 1}
    page = show.page(Report(seed=7, faults=faults, violation=violation, others=2), io.StringIO())
    assert "lost 2, doubled 0, out of order 0, gaps 0, altered 1" in page
    assert "a-4 was acknowledged and is not in the history" in page
    assert "seen by nobody" in page
    assert "2 violations more" in page
