"""What every transport promises (`chat.transport.base.Transport`), run on each kind through a real door and real sockets."""

import contextlib
import socket

import pytest
import trio
import trio.testing

from chat.errors import RemoteProtocolError
from chat.transport.outbox import OutboxLimits
from tests.contracts import pairs
from tests.contracts.pairs import SMALL, KiB, connect, everything, lines_only, open_pair, out
from tests.transport.peers import descriptors, open_holding

kind = pairs.kind  # a fixture

# ---------------------------------------------------------------- in


@lines_only
async def test_a_chunk_gives_all_its_frames_at_once(kind):
    async with open_pair(kind) as (transport, client, *_):
        await client.send(b'"a":1}\n{}\r\n\n{"b"')
        assert await transport.receive() == [b'{"a":1}', b"{}\r", b""]


async def test_any_chunking_gives_the_same_frames(kind):
    text = b'"a":1}\n{}\r\n\n' + b"x" * 100 + b"\n{}\n"
    async with open_pair(kind) as (transport, client, *_):
        async with trio.open_nursery() as nursery:
            frames = []

            async def read():
                frames.extend(await everything(transport))

            nursery.start_soon(read)
            for n in range(len(text)):
                await client.send(text[n : n + 1])
            await client.end()
        assert frames == [b'{"a":1}', b"{}\r", b"", b"x" * 100, b"{}"]


@pytest.mark.parametrize("n_bytes", [0, 1, 6, 7, 8, 9, 10])
async def test_an_end_after_any_byte_gives_the_whole_frames_before_it(kind, n_bytes):
    text = b'"a":1}\n{}\n{'[:n_bytes]
    async with open_pair(kind) as (transport, client, *_):
        if text:
            await client.send(text)
        await client.end()
        assert await everything(transport) == (b"{" + text).split(b"\n")[:-1]
        assert await transport.receive() == []


@pytest.mark.parametrize("n_bytes", [1, 8, 10])
async def test_a_bare_fin_under_tls_is_no_end(n_bytes):
    text = b'"a":1}\n{}\n{'[:n_bytes]
    async with open_pair("tls") as (transport, client, *_):
        if text:
            await client.send(text)
        await client.cut()
        frames = []
        with pytest.raises(trio.BrokenResourceError):
            await everything(transport, frames)
        assert frames == (b"{" + text).split(b"\n")[:-1]


@lines_only
async def test_after_the_peers_end_answers_still_reach_it(kind):
    async with open_pair(kind) as (transport, client, server, _):
        await client.send(b"}\n")
        await client.end()
        assert await everything(transport) == [b"{}"]
        transport.outbox.put_always(out(transport, b"answer"))
        server.flush.flush()
        transport.outbox.put_always(out(transport, b"another"))
        await transport.aclose()
        assert await client.line() == b"answer"
        assert await client.line() == b"another"
        assert await client.receive_some() == b""  # under TLS: a close_notify


async def test_a_frame_of_the_limit_passes_and_a_longer_one_ends_it(kind):
    async with open_pair(kind) as (transport, client, *_):
        await client.send(b"x" * 99 + b"\n" + b"{}\n" + b"y" * 101 + b"\n{}\n")
        frames = []
        with pytest.raises(RemoteProtocolError) as caught:
            await everything(transport, frames)
        assert frames == [b"{" + b"x" * 99, b"{}"]
        assert caught.value.code == "too_large"
        assert caught.value.fatal
        with pytest.raises(RemoteProtocolError):
            await transport.receive()


async def test_a_frame_that_never_ends_is_refused_without_being_kept(kind):
    async with open_pair(kind) as (transport, client, *_):
        await client.send(b"x" * 5000)
        with pytest.raises(RemoteProtocolError):
            await transport.receive()


async def test_the_limit_can_be_raised(kind):
    async with open_pair(kind) as (transport, client, *_):
        transport.frame_limit = 1000
        assert transport.frame_limit == 1000
        await client.send(b"x" * 999 + b"\n")
        await client.end()
        assert await everything(transport) == [b"{" + b"x" * 999]


async def test_the_last_word_reaches_a_peer_that_is_still_sending(kind):
    """A socket closed with unread bytes is reset, and what was on its way would be lost."""
    async with open_pair(kind) as (transport, client, *_), trio.open_nursery() as nursery:

        async def flood():
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                for _ in range(20):
                    await client.send(b"x" * 5000)
                await client.end()

        nursery.start_soon(flood)
        with pytest.raises(RemoteProtocolError):
            await transport.receive()
        transport.outbox.put_always(out(transport, b"too large"))
        nursery.start_soon(transport.aclose)
        assert await client.rest() == b"too large\n"


async def test_a_cancelled_receive_loses_nothing(kind):
    async with open_pair(kind) as (transport, client, *_):
        with trio.move_on_after(0):
            await transport.receive()
        await client.send(b"}\n")
        assert await transport.receive() == [b"{}"]


async def test_a_peer_that_resets_is_a_broken_resource(kind):
    async with open_pair(kind) as (transport, client, *_):
        await client.vanish()
        with pytest.raises(trio.BrokenResourceError):
            await everything(transport)
        await transport.aclose()


async def test_last_received_tells_when_the_peer_was_heard(kind, mock_clock):
    async with open_pair(kind) as (transport, client, *_):
        before = transport.last_received
        mock_clock.jump(5)
        await client.send(b"}\n")
        await transport.receive()
        assert transport.last_received == before + 5
        transport.last_received = before + 7  # by who does not read just now
        assert transport.last_received == before + 7


@lines_only
async def test_peeked_bytes_are_read_again(kind):
    async with open_pair(kind) as (transport, client, *_):
        await client.send(b"a\n")
        seen = b""
        while not seen.endswith(b"a\n"):
            seen = await transport.peek()
        assert await transport.receive_some() == b"{a\n"


# ---------------------------------------------------------------- the end


@pytest.mark.parametrize("end", ["abort", "aclose"])
async def test_the_end_wakes_the_reader(kind, end, autojump_clock):
    async with open_pair(kind) as (transport, client, *_), trio.open_nursery() as nursery:

        async def read():
            with pytest.raises(trio.ClosedResourceError):
                await transport.receive()

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        if end == "abort":
            transport.abort()
        else:
            await transport.aclose()
        assert await client.rest() == b""
        for _ in range(2):
            transport.abort()
            await transport.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await transport.receive()
        assert not transport.outbox.put(out(transport, b"late"))
        transport.outbox.put_always(out(transport, b"late"))
        assert transport.outbox.pending_bytes == 0
        with pytest.raises(trio.ClosedResourceError):
            await transport.outbox.wait_below(10)
        with pytest.raises(trio.ClosedResourceError):
            await transport.outbox.wait_not_lagging()


@pytest.mark.parametrize("before", [True, False])
async def test_who_stops_receiving_may_still_speak_and_ends_in_order(kind, before):
    async with open_pair(kind) as (transport, client, *_), trio.open_nursery() as nursery:

        async def read():
            with pytest.raises(trio.ClosedResourceError):
                await transport.receive()

        if before:
            transport.stop_receiving()
            await read()
        else:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            transport.stop_receiving()
        transport.stop_receiving()
        transport.outbox.put_always(out(transport, b"the last word"))
        nursery.start_soon(transport.aclose)
        assert await client.rest() == b"the last word\n"
        await read()


async def test_who_waits_for_the_outbox_is_woken_by_the_end(kind):
    async with open_pair(kind, receive_buffer=4096, **SMALL) as (transport, _client, server, _):
        transport.outbox.put_always(out(transport, b"." * 300 * KiB))
        server.flush.flush()
        async with trio.open_nursery() as nursery:

            async def wait():
                with pytest.raises(trio.ClosedResourceError):
                    await transport.outbox.wait_below(10)

            nursery.start_soon(wait)
            nursery.start_soon(transport.drain)
            await trio.testing.wait_all_tasks_blocked()
            transport.abort()


async def test_closing_a_peer_that_reads_nothing_has_a_deadline(kind, autojump_clock):
    async with open_pair(kind, receive_buffer=4096, **SMALL) as (transport, _client, server, _):
        transport.outbox.put_always(out(transport, b"." * 300 * KiB))
        began = trio.current_time()
        await transport.aclose()
        assert 10 <= trio.current_time() - began <= 10.1
        assert server.pool.total_bytes == 0


async def test_closing_a_peer_that_never_ends_its_side_has_a_deadline(kind, autojump_clock):
    async with open_pair(kind) as (transport, client, *_):
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.aclose)
            assert await client.receive_some() == b""
            assert await client.stream.receive_some() == b""  # under TLS the FIN comes after the close_notify
            assert trio.current_time() == began
        assert 2 <= trio.current_time() - began <= 2.1


@lines_only
async def test_lagging_then_fin_then_drain_under_a_deadline(kind, autojump_clock):
    """The peer has ended its side and reads nothing: what it asked for is drained for as long as the deadline, then it is over."""
    limits = OutboxLimits(soft_bytes=100 * KiB, hard_bytes=1000 * KiB)
    async with open_pair(kind, receive_buffer=4096, limits=limits, **SMALL) as (transport, client, server, _):
        await client.send(b"}\n")
        await client.end()
        while transport.outbox.put(out(transport, b"." * 999)):
            server.flush.flush()
            await trio.lowlevel.checkpoint()
        assert transport.outbox.lagging
        assert await everything(transport) == [b"{}"]
        began = trio.current_time()
        with trio.move_on_after(5):
            await transport.drain()
        await transport.aclose()
        assert 5 <= trio.current_time() - began <= 15.1


async def test_a_cancelled_close_closes_at_once(kind):
    async with open_pair(kind, receive_buffer=4096, **SMALL) as (transport, *_):
        transport.outbox.put_always(out(transport, b"." * 300 * KiB))
        with trio.CancelScope() as scope:
            scope.cancel()
            await transport.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await transport.receive()


@pytest.mark.parametrize("how", ["abort", "aclose", "vanish", "end", "close", "cancel", "stalled"])
async def test_no_end_leaks_a_descriptor_or_a_byte(kind, how, autojump_clock):
    async with open_holding(**SMALL) as server:
        await trio.testing.wait_all_tasks_blocked()
        before = descriptors()
        for _ in range(3):
            client = await connect(server, kind, receive_buffer=4096)
            transport, nursery = await server.transports.receive()
            transport.outbox.put_always(out(transport, b"." * (300 * KiB if how == "stalled" else 10)))
            server.flush.flush()
            await trio.testing.wait_all_tasks_blocked()
            if how in ("abort", "stalled"):
                transport.abort()
            elif how == "aclose":
                await transport.aclose()
            elif how == "vanish":
                await client.vanish()
            elif how == "end":
                await client.end()
            elif how == "close":
                await client.aclose()
            nursery.cancel_scope.cancel()
            await trio.aclose_forcefully(client.stream)
        await trio.testing.wait_all_tasks_blocked()
        assert descriptors() == before
        assert server.pool.total_bytes == 0


async def test_a_peer_that_vanishes_while_it_is_sent_to_is_no_error_of_the_sender(kind):
    async with open_pair(kind) as (transport, client, server, _):
        await client.vanish()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            transport.outbox.put(out(transport, b"live"))
            server.flush.flush()
            await trio.testing.wait_all_tasks_blocked()
        await transport.drain()
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            await everything(transport)


async def test_a_callback_that_raises_ends_its_own_connection_only(kind):
    async with open_pair(kind, limits=OutboxLimits(soft_bytes=1, hard_bytes=10 * KiB), receive_buffer=4096, **SMALL) as pair:
        transport, _client, _server, _ = pair

        def fail(code):
            raise ValueError(code)

        transport.outbox.on_cut = fail
        for _ in range(300):
            transport.outbox.put_always(out(transport, b"." * 999))
        with pytest.raises(trio.ClosedResourceError):
            await transport.receive()


@lines_only
async def test_the_socket_has_keepalive_and_no_delay(kind):
    async with open_pair(kind) as (transport, *_):
        assert transport._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert transport._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
