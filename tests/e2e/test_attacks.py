"""The four ways in which a WebSocket listener on trio-websocket 0.12 falls, tried on the real process: a bug in one connection's handler,
peers that reset while they are being told things, endless empty continuation frames, and handshakes that never end.

Each time somebody else goes on talking, and is never kept waiting; and the server's memory and descriptors return to what they were.
"""

import contextlib
import os
import socket
import struct
from pathlib import Path

import pytest
import trio

from tests.e2e.guests import PASSWORD, Guest, shared

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("e2e-attacks")]

WAIT_S = 3.0  # the most that anybody else may notice, on a machine that does much else
RETURN_S = 15.0
READERS = 6  # descriptors that the store opens when several ask at once, and keeps: at most
SLACK_BYTES = 6 * 2**20
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: chat.v1\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
RESET = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    settings = {"plugins": "tests.e2e.exploding", "limits.resume_window_s": "1", "limits.handshake_s": "3"}
    yield from shared(tmp_path_factory.mktemp("attacks"), settings)


def descriptors(server):
    return len(os.listdir(f"/proc/{server.pid()}/fd"))


def memory_bytes(server):
    status = Path(f"/proc/{server.pid()}/status").read_text()
    return 1024 * int(status.split("VmRSS:")[1].split()[0])


async def until(reached, within_s=RETURN_S):
    """Look at another process again and again."""
    with trio.fail_after(within_s):
        while not reached():  # noqa: ASYNC110
            await trio.sleep(0.05)


@contextlib.asynccontextmanager
async def others(server, name):
    """Somebody talks meanwhile, and looks how long each text takes. Afterwards descriptors are what they were, and soon."""
    async with await Guest.register(server, name) as witness:
        before, waited, talks = descriptors(server), [], True

        async def talk():
            while talks:
                began = trio.current_time()
                assert (await witness.say("lobby", "still here"))["type"] == "ack"
                waited.append(trio.current_time() - began)
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            yield
            await until(lambda: descriptors(server) <= before + READERS)
            talks = False
        assert waited
        assert max(waited) < WAIT_S
        print(f"{name}: {len(waited)} texts, the slowest {1000 * max(waited):.0f} ms, {descriptors(server) - before} descriptors more")


def frame(payload, first=0x81):
    """Masked with zeros."""
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes([first]) + size + bytes(4) + payload


async def browser(server, name=None, how="register"):
    """A socket with an open WebSocket, and with *name* a session."""
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    await stream.send_all(UPGRADE)
    if name is not None:
        opening = f'{{"type":"{how}","id":1,"username":"{name}","password":"{PASSWORD}"}}'
        await stream.send_all(frame(b'{"type":"hello","protocol":1,"client":"raw"}') + frame(opening.encode()))
    told, wanted = b"", b'"type":"session"' if name is not None else b"\r\n\r\n"
    while wanted not in told:
        chunk = await stream.receive_some()
        assert chunk, told
        told += chunk
    return stream


async def reset(stream):
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    await trio.aclose_forcefully(stream)


async def returns_to(server, before):
    """Memory: what was taken is given back, or at hand for the next."""
    await until(lambda: memory_bytes(server) <= before + SLACK_BYTES)
    print(f"memory {before / 2**20:.1f} → {memory_bytes(server) / 2**20:.1f} MiB")


async def test_an_exception_in_one_handler(server):
    async def explode(n):
        async with await Guest.connect(server) as bomb:
            await bomb.send(
                {"type": "hello", "protocol": 1, "client": "bomb"},
                {"type": "login" if n else "register", "id": 1, "username": "bomber", "password": PASSWORD},
            )
            await bomb.until_type("session")
            await bomb.send({"type": "sessions", "id": 2})
            await bomb.to_the_end()

    await explode(0)
    before = memory_bytes(server)
    async with others(server, "unmoved"):
        for n in range(1, 50):
            await explode(n)
    await returns_to(server, before)
    failures = [line for line in server.log.read_text().splitlines() if "exploding.py" in line]
    assert failures
    assert all("error_id" in line for line in failures)


async def test_two_hundred_resets_while_sending(server):
    async def round_of_resets(how):
        browsers = [await browser(server, f"cut{n}", how) for n in range(200)]
        async with await Guest.login(server, "speaker") as speaker:
            await speaker.send(*({"type": "send", "id": n, "cid": f"{how}{n}", "channel": "lobby", "text": "x" * 2000} for n in range(300)))
            for stream in browsers:
                await reset(stream)
                await trio.lowlevel.checkpoint()
            last = None
            while last is None or last.get("id") != 299:
                last = await speaker.until_type("ack")
                assert last["type"] == "ack"

    async with await Guest.register(server, "speaker"):
        pass
    await round_of_resets("register")  # the accounts stay
    await trio.sleep(2.5)  # and the sessions, for the resume window and a tick
    before = memory_bytes(server)
    async with others(server, "undisturbed"):
        await round_of_resets("login")
    await trio.sleep(2.5)
    await returns_to(server, before)


async def test_one_and_a_half_million_empty_continuation_frames(server):
    async with await Guest.register(server, "warm-up"):
        pass
    stream = await browser(server, "endless")
    before = memory_bytes(server)
    async with others(server, "patient"):
        allowed = frame(b"", 0x01) + frame(b"", 0x00) * 1022 + frame(b'{"type":"ping","id":"fragments"}', 0x80)
        for _ in range(20):  # as many as are allowed, again and again: these are messages
            await stream.send_all(allowed)
            told = b""
            while b'"pong"' not in told:
                told += await stream.receive_some()
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(frame(b"", 0x01))
            for _ in range(150):
                await stream.send_all(frame(b"", 0x00) * 10_000)
        with contextlib.suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        await stream.aclose()
        halves = [await browser(server, f"half{n}") for n in range(50)]
        for half in halves:  # messages that never end
            await half.send_all(frame(b"", 0x01) + frame(b"", 0x00) * 1000)
        for half in halves:
            await reset(half)
    await returns_to(server, before)


async def test_five_hundred_half_handshakes(server):
    hello = bytes.fromhex("16030100f8010000f40303")
    kinds = [hello, UPGRADE[:-2], UPGRADE[:20], b"GET / HTTP/1.1\r\nHost: x\r\n", b""]

    async def knock():
        sockets = []
        for n in range(500):
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            with contextlib.suppress(trio.BrokenResourceError):  # no more than 256 may stand at the door at once
                await stream.send_all(kinds[n % len(kinds)])
            sockets.append(stream)
        return sockets

    async def two_waves():
        """The first vanish, the second say nothing more."""
        mine = descriptors(server)
        for stream in await knock():
            await reset(stream)
        await until(lambda: descriptors(server) <= mine + READERS, within_s=2)  # who vanished is gone at once, and not after a deadline
        silent = await knock()
        async with await Guest.login(server, "between") as guest:
            assert (await guest.say("lobby", "let in"))["type"] == "ack"
        await until(lambda: descriptors(server) <= mine + READERS)  # who stays silent is shown out
        for stream in silent:
            await stream.aclose()

    async with await Guest.register(server, "between"):
        pass
    await two_waves()  # what so many at once take of the heap is kept for the next
    before = memory_bytes(server)
    async with others(server, "first-through-the-door"):
        await two_waves()
    await returns_to(server, before)
