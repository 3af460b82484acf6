"""What the door lets wait, and how many it lets in."""

import contextlib
import json
import resource
import ssl

import pytest
import trio
import trio.testing

from chat.transport import door
from chat.transport.door import DoorSettings
from tests.transport.peers import answers, descriptors, echo, open_server

# ---------------------------------------------------------------- deadlines


@pytest.mark.parametrize("first", [b"", b"G", b"\x16", b"\x16\x03\x01\x02\x00\x01"])
async def test_a_peer_that_says_too_little_has_a_deadline(first, autojump_clock):
    async with open_server(echo, settings=DoorSettings(handshake_s=10)) as server:
        before = descriptors()
        async with await server.connect(say=first) as client:
            began = trio.current_time()
            assert await client.rest() == b""
            assert 10 <= trio.current_time() - began <= 10.1
        await trio.testing.wait_all_tasks_blocked()
        assert descriptors() == before


async def test_a_handshake_that_finishes_and_says_nothing_has_the_same_deadline(autojump_clock):
    async with open_server(echo, settings=DoorSettings(handshake_s=10)) as server:
        began = trio.current_time()
        async with await server.connect("tls", say=b"") as client:
            await client.rest()
            assert 10 <= trio.current_time() - began <= 10.1


async def test_a_served_connection_has_no_deadline_here(autojump_clock):
    async with open_server(echo) as server, await server.connect("tls") as client:
        assert await answers(client)
        await trio.sleep(3600)
        await client.send(b"{")
        assert await answers(client)


async def test_unfinished_handshakes_are_few_and_the_oldest_make_room(autojump_clock):
    async with open_server(echo, settings=DoorSettings(handshakes=3, handshake_s=60)) as server, contextlib.AsyncExitStack() as stack:
        assert await answers(await stack.enter_async_context(await server.connect()))
        silent = [await stack.enter_async_context(await server.connect(say=b"")) for _ in range(5)]
        began = trio.current_time()
        client = await stack.enter_async_context(await server.connect())
        assert await answers(client)
        assert trio.current_time() - began <= 4.1
        for one in silent[:3]:
            assert await one.rest() == b""


async def test_a_burst_beyond_the_handshakes_is_served_from_the_backlog():
    async with open_server(echo, settings=DoorSettings(handshakes=2)) as server, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await server.connect(say=b"")) for _ in range(20)]
        for client in reversed(clients):
            await client.send(b"{")
        for client in clients:
            assert await answers(client)


# ---------------------------------------------------------------- caps


@pytest.mark.parametrize("kind", ["tcp", "tls"])
async def test_over_the_cap_the_peer_is_told_busy_where_it_costs_nothing(kind):
    async with open_server(echo, settings=DoorSettings(connections=1)) as server:
        async with await server.connect(kind) as first:
            assert await answers(first)
            if kind == "tcp":
                async with await server.connect() as second:
                    answer = json.loads(await second.line())
                    assert (answer["type"], answer["code"]) == ("error", "busy")
                    assert answer["retry_after"] > 0
                    assert await second.rest() == b""
            else:
                with pytest.raises((ssl.SSLError, trio.BrokenResourceError)):
                    await server.connect("tls")
            await first.send(b"{")
            assert await answers(first)
            await first.end()
            await first.rest()
        await trio.testing.wait_all_tasks_blocked()
        async with await server.connect(kind) as third:
            assert await answers(third)


async def test_refusals_are_bounded_too():
    async with open_server(echo, settings=DoorSettings(connections=0)) as server, contextlib.AsyncExitStack() as stack:
        before = descriptors()
        for _ in range(door.REFUSALS + 20):
            await stack.enter_async_context(await server.connect(say=b""))
        await trio.testing.wait_all_tasks_blocked()
        assert descriptors() - before == door.REFUSALS + 20 + door.REFUSALS


async def test_an_address_has_a_cap_of_its_own_from_which_loopback_is_exempt():
    for exempt, served in ((True, 4), (False, 2)):
        settings = DoorSettings(connections_per_address=2, exempt_loopback=exempt)
        async with open_server(echo, settings=settings) as server, contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(await server.connect()) for _ in range(4)]
            assert [await answers(client) for client in clients] == [True] * served + [False] * (4 - served)
            for client in clients:
                await trio.aclose_forcefully(client.stream)
            await trio.testing.wait_all_tasks_blocked()
            async with await server.connect() as client:
                assert await answers(client)


@pytest.mark.parametrize(
    ("configured", "descriptors", "cap"),
    [
        (10_000, 1_000_000, 10_000),
        (20_000, 1_000_000, 20_000),
        (60_000, 20_000, 19_744),
        (10_000, 20_000, 10_000),
        (10_000, 1024, 768),
        (100, 1024, 100),
        (10_000, 512, 256),
        (10_000, 511, 255),
        (10_000, 200, 100),
        (10_000, 100, 64),
        (10_000, 64, 64),
        (10_000, resource.RLIM_INFINITY, 10_000),
        (20_000, resource.RLIM_INFINITY, 20_000),
    ],
)
def test_the_cap_follows_from_the_descriptors(configured, descriptors, cap):
    assert door.connection_cap(configured, descriptors) == cap


def test_too_few_descriptors_are_no_start():
    with pytest.raises(ValueError, match="63"):
        door.connection_cap(10_000, 63)


def test_the_cap_asks_the_process():
    assert door.connection_cap(5) == 5
