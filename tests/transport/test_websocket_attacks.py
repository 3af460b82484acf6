"""Those who disturb over a WebSocket: resets, floods of tiny frames, a handler with a bug. Nobody else notices, and nothing is kept."""

import contextlib
import gc
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from chat.transport.base import Dialect, framed
from tests.transport import browsers
from tests.transport.browsers import (
    MORE,
    PING,
    PONG,
    TEXT,
    close,
    frame,
    open_browser,
    open_socket,
    open_web,
    serve_echo,
    text,
    upgrade_request,
)
from tests.transport.peers import descriptors

pytestmark = pytest.mark.timeout(30)

below = browsers.below  # a fixture


async def test_an_exception_in_one_handler_ends_that_connection_only(below):
    async with open_web(serve_echo) as server, open_socket(server, below) as other:
        await trio.testing.wait_all_tasks_blocked()
        before = descriptors()
        for _ in range(20):
            async with open_socket(server, below) as socket:
                await socket.send(text(b"raise"))
                assert (await socket.closing())[0] == []
        await other.send(text(b"alive"))
        assert await other.message() == b"alive"
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert descriptors() == before


async def test_resets_while_sending_disturb_nobody(below):
    """200 browsers that vanish, with frames of everybody's on their way to them."""
    transports = set()

    async def handler(transport):
        transports.add(transport)
        try:
            await serve_echo(transport)
        finally:
            transports.discard(transport)

    async with open_web(handler) as server, open_socket(server, below) as other:
        await trio.testing.wait_all_tasks_blocked()
        before, told = descriptors(), 0
        for _ in range(10):
            async with contextlib.AsyncExitStack() as stack:
                sockets = [await stack.enter_async_context(open_socket(server, below)) for _ in range(20)]
                live = framed(Dialect.WEB, b"live" * 2000)
                for n, socket in enumerate(sockets):
                    for transport in list(transports):
                        transport.outbox.put(live)
                    server.flush.flush()
                    told += 1
                    await socket.send(text(b"x")[: n % 8])
                    await socket.client.vanish()
        for _ in range(told):
            assert await other.message() == b"live" * 2000
        await other.send(text(b"alive"))
        assert await other.message() == b"alive"
        with trio.fail_after(5):
            while descriptors() != before:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(transports) == 1
        assert server.pool.total_bytes == 0


@pytest.mark.parametrize(
    "tiny",
    [frame(PONG), frame(PING), text(b""), frame(TEXT, b"", fin=False) + frame(MORE, b"", fin=False) * 1000 + frame(MORE)],
    ids=["pongs", "pings", "empty messages", "empty fragments"],
)
async def test_a_flood_of_tiny_frames_leaves_time_for_the_others(tiny):
    """Another's message passes between them, long before the flood is read."""
    async with (
        open_web(serve_echo) as server,
        open_socket(server) as flood,
        open_socket(server) as other,
        trio.open_nursery() as nursery,
    ):

        async def send():
            with contextlib.suppress(trio.BrokenResourceError):
                while True:
                    await flood.send(tiny * (60_000 // len(tiny)))

        async def read():
            with contextlib.suppress(trio.BrokenResourceError):
                while await flood.client.receive_some():
                    pass

        nursery.start_soon(send)
        nursery.start_soon(read)
        with trio.fail_after(5):
            for _ in range(5):
                await other.send(text(b"alive"))
                assert await other.message() == b"alive"
        nursery.cancel_scope.cancel()


def resident():
    """Bytes of memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("endless", [True, False])
async def test_a_million_empty_continuation_frames(endless):
    """*endless*: in one message, which is refused at the 1,025th. Else in as many messages as are allowed. Memory stays where it was."""
    n_frames = 1_500_000
    async with open_web(serve_echo) as server, open_socket(server) as other:
        await trio.testing.wait_all_tasks_blocked()
        before = descriptors()
        gc.collect()
        memory, grown = resident(), 0
        async with open_socket(server) as socket, trio.open_nursery() as nursery:
            begin, unit, end = frame(TEXT, b"", fin=False), frame(MORE, b"", fin=False) * 1000, frame(MORE)
            if endless:
                await socket.send(begin)
            else:
                unit = begin + unit + end
            codes = []

            async def read():
                codes.append((await socket.closing())[1])

            async def flood():
                nonlocal grown
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    for n in range(n_frames // 1000):
                        await socket.send(unit)
                        if n % 100 == 0:
                            with trio.fail_after(10):
                                await other.send(text(b"alive"))
                                assert await other.message() == b"alive"
                            grown = max(grown, resident() - memory)
                if not endless:
                    await socket.send(close())

            nursery.start_soon(read)
            await flood()
        assert codes == [1009 if endless else 1000]
        assert grown < 8 * 2**20
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert descriptors() == before


async def test_a_reader_task_that_fails_is_logged_and_ends_its_connection(monkeypatch):
    """Whatever trio-websocket raises in its own task stays within that connection."""
    from trio_websocket import WebSocketConnection

    async def fail(self, event):
        raise RuntimeError("in the reader")

    async with open_web(serve_echo) as server, open_socket(server) as other:
        with monkeypatch.context() as patch:
            patch.setattr(WebSocketConnection, "_handle_ping_event", fail)
            async with open_socket(server) as socket:
                await socket.send(frame(PING))
                assert await socket.closing() == ([], None)
        await other.send(text(b"alive"))
        assert await other.message() == b"alive"


async def test_what_the_peer_sent_is_not_kept():
    """Of the handshake's headers nothing stays for as long as the connection lives."""
    marker = os.urandom(8).hex()
    held = trio.Event()

    async def handler(transport):
        held.set()
        await trio.sleep_forever()

    async with open_web(handler) as server, open_browser(server, say=upgrade_request(X_Marker="x" * 4000 + marker)) as browser:
        assert (await browser.answer()).status == 101
        await held.wait()
        browser.client.buffer = b""
        gc.collect()
        for kept in gc.get_objects():
            if isinstance(kept, list | tuple):
                assert not any(isinstance(item, bytes) and marker.encode() in item for item in kept)
