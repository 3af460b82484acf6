"""What every transport promises of what is put into its outbox: order, lagging, deadlines; on each kind, as in `test_transport`."""

import pytest
import trio
import trio.testing

from chat.transport.outbox import OutboxLimits
from tests.contracts import pairs
from tests.contracts.pairs import CLOSING, LAGGING, SMALL, KiB, open_pair, out

kind = pairs.kind  # a fixture


async def test_what_is_put_arrives_in_order(kind):
    async with open_pair(kind) as (transport, client, server, nursery):
        for n in range(100):
            assert transport.outbox.put(out(transport, b"%d" % n))
            if n % 7 == 0:
                server.flush.flush()
        await transport.drain()
        assert transport.outbox.pending_bytes == 0
        nursery.start_soon(transport.aclose)
        assert await client.rest() == b"".join(b"%d\n" % n for n in range(100))


async def test_more_than_the_kernel_takes_arrives_in_order(kind):
    chunk = bytes(range(256)) * 40
    async with open_pair(kind, **SMALL) as (transport, client, *_), trio.open_nursery() as nursery:
        received = b""

        async def read():
            nonlocal received
            received = await client.rest()

        nursery.start_soon(read)
        for _ in range(100):
            await transport.outbox.wait_below(256 * KiB)
            transport.outbox.put_always(out(transport, chunk))
            transport.flush_nowait()
        await transport.aclose()
    assert received == (chunk + b"\n") * 100


async def test_a_flush_for_nothing_does_nothing(kind):
    async with open_pair(kind) as (transport, client, server, nursery):
        transport.flush_nowait()
        server.flush.flush()
        await transport.drain()
        nursery.start_soon(transport.aclose)
        assert await client.rest() == b""


async def test_a_lagging_peer_is_told_and_goes_on_with_the_newest(kind):
    limits = OutboxLimits(soft_bytes=100 * KiB, hard_bytes=1000 * KiB)
    async with open_pair(kind, receive_buffer=4096, limits=limits, **SMALL) as (transport, client, server, _):
        outbox, drained = transport.outbox, []
        outbox.on_drained = lambda: (drained.append(outbox.lagging), outbox.put_always(out(transport, b"heads")))
        n = 0
        while outbox.put(out(transport, b"%05d" % n + b"." * 994)):
            n += 1
            if n % 50 == 0:
                server.flush.flush()
                await trio.testing.wait_all_tasks_blocked()
        server.flush.flush()
        assert outbox.lagging
        assert outbox.pending_bytes > 90 * KiB
        assert not outbox.put(out(transport, b"refused"))
        outbox.put_always(out(transport, b"ack"))
        server.flush.flush()
        lines = [await client.line() for _ in range(n + 3)]
        assert lines[:n] == [b"%05d" % k + b"." * 994 for k in range(n)]
        assert lines[n:] == [LAGGING, b"ack", b"heads"]
        assert drained == [False]
        await outbox.wait_not_lagging()
        assert outbox.put(out(transport, b"newest"))
        server.flush.flush()
        assert await client.line() == b"newest"


async def test_waiting_for_the_lag_to_end(kind):
    limits = OutboxLimits(soft_bytes=100 * KiB, hard_bytes=1000 * KiB)
    async with open_pair(kind, receive_buffer=4096, limits=limits, **SMALL) as (transport, client, server, _):
        while transport.outbox.put(out(transport, b"." * 999)):
            server.flush.flush()
            await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.rest)
            await transport.outbox.wait_not_lagging()
            assert transport.outbox.pending_bytes == 0
            nursery.cancel_scope.cancel()


async def test_a_burst_that_the_kernel_takes_is_no_lag():
    """Only under plain TCP: there a put over the soft limit can flush by itself. The router bounds its batches for the others."""
    limits = OutboxLimits(soft_bytes=10 * KiB, hard_bytes=100 * KiB)
    async with open_pair("tcp", limits=limits) as (transport, *_):
        assert all(transport.outbox.put(out(transport, b"." * 999)) for _ in range(100))
        assert not transport.outbox.lagging


async def test_over_the_hard_limit_the_peer_is_cut_and_told(kind):
    limits = OutboxLimits(soft_bytes=100 * KiB, hard_bytes=400 * KiB)
    async with open_pair(kind, receive_buffer=4096, limits=limits, **SMALL) as (transport, client, server, _):
        cut = []
        transport.outbox.on_cut = cut.append
        n = 0
        while not cut:
            transport.outbox.put_always(out(transport, b"%05d" % n + b"." * 994))
            n += 1
            if n % 50 == 0:
                server.flush.flush()
                await trio.testing.wait_all_tasks_blocked()
            assert transport.outbox.pending_bytes <= 400 * KiB
        assert cut == ["slow_consumer"]
        assert transport.outbox.sealed
        assert transport.outbox.pending_bytes <= 210 * KiB  # the rest is free again, whatever the peer does
        transport.outbox.put_always(out(transport, b"more"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.aclose)
            *lines, last, end = (await client.rest()).split(b"\n")
        assert (last, end) == (CLOSING, b"")
        assert lines == [b"%05d" % k + b"." * 994 for k in range(len(lines))]  # whole frames, none left out


async def test_without_a_callback_a_cut_closes(kind):
    limits = OutboxLimits(soft_bytes=1, hard_bytes=400 * KiB)
    async with open_pair(kind, receive_buffer=4096, limits=limits, **SMALL) as (transport, client, *_):
        for _ in range(900):
            transport.outbox.put_always(out(transport, b"." * 999))
        assert transport.outbox.sealed
        with pytest.raises(trio.ClosedResourceError):
            await transport.receive()
        assert len(await client.rest()) < 400 * KiB


async def test_a_stalled_peer_is_cut_at_the_write_deadline(kind, autojump_clock):
    limits = OutboxLimits(write_deadline_s=10)
    async with open_pair(kind, receive_buffer=4096, limits=limits, **SMALL) as (transport, _client, server, _):
        cut = trio.Event()
        transport.outbox.on_cut = lambda code: cut.set()
        transport.outbox.put_always(out(transport, b"." * 300 * KiB))
        server.flush.flush()
        began = trio.current_time()
        await cut.wait()
        assert 10 <= trio.current_time() - began <= 20.1
        await transport.aclose()
        assert trio.current_time() - began <= 23


async def test_a_cut_that_nobody_closes_is_closed(kind, autojump_clock):
    async with open_pair(kind, receive_buffer=4096, **SMALL) as (transport, _client, server, _):
        transport.outbox.on_cut = lambda code: None
        transport.outbox.put_always(out(transport, b"." * 300 * KiB))
        server.flush.flush()
        with pytest.raises(trio.ClosedResourceError):
            await transport.receive()


async def test_a_slow_but_steady_peer_is_not_cut(kind, autojump_clock):
    """4 KiB/s of 1: too little in ten seconds for our kernel to call its buffer writable, which takes a third of it."""
    async with open_pair(kind, receive_buffer=16 * KiB, send_buffer=200 * KiB, segment=1400) as (transport, client, server, _):
        transport.outbox.on_cut = lambda code: pytest.fail("cut")
        while transport.outbox.pending_bytes < 600 * KiB:
            transport.outbox.put_always(out(transport, b"." * 64 * KiB))
            server.flush.flush()
            await trio.testing.wait_all_tasks_blocked()
        for _ in range(45):
            await trio.sleep(1)
            await client.stream.receive_some(4 * KiB)
        assert transport.outbox.pending_bytes


async def test_little_is_encrypted_ahead_for_a_peer_that_does_not_read():
    async with open_pair("tls", receive_buffer=4096, **SMALL) as (transport, _client, server, _):
        for _ in range(14):
            transport.outbox.put_always(out(transport, b"." * 64 * KiB))
            server.flush.flush()
            await trio.testing.wait_all_tasks_blocked()
        assert 0 < transport._cipher_bytes <= 64 * KiB + 130 * KiB
        assert 14 * 64 * KiB - 100 * KiB < transport.outbox.pending_bytes <= 14 * 65 * KiB


async def test_a_drain_goes_on_when_the_pump_is_cancelled(kind):
    async with open_pair(kind, receive_buffer=4096, **SMALL) as (transport, client, server, _), trio.open_nursery() as nursery:
        async with trio.open_nursery() as pumps:
            transport.start_pump = pumps.start_soon
            transport.outbox.put_always(out(transport, b"." * 200 * KiB))
            server.flush.flush()
            await trio.testing.wait_all_tasks_blocked()
            assert transport.outbox.pending_bytes
            nursery.start_soon(transport.aclose)
            await trio.testing.wait_all_tasks_blocked()
            pumps.cancel_scope.cancel()
        assert await client.rest() == b"." * 200 * KiB + b"\n"


async def test_without_a_pump_a_drain_moves_it_all(kind):
    async with open_pair(kind, receive_buffer=4096, **SMALL) as (transport, client, *_), trio.open_nursery() as nursery:
        transport.start_pump = None
        transport.outbox.put_always(out(transport, b"." * 500 * KiB))
        transport.flush_nowait()
        nursery.start_soon(transport.aclose)
        assert await client.rest() == b"." * 500 * KiB + b"\n"


async def test_a_cancelled_drain_loses_nothing(kind):
    async with open_pair(kind, receive_buffer=4096, **SMALL) as (transport, client, *_):
        transport.start_pump = None
        transport.outbox.put_always(out(transport, b"." * 500 * KiB))
        with trio.move_on_after(0.05) as scope:
            await transport.drain()
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.aclose)
            assert await client.rest() == b"." * 500 * KiB + b"\n"
