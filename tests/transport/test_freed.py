"""What is left of a connection when it has ended: nothing that waits for the garbage collector."""

import gc

import pytest
import trio

from tests.transport.peers import open_server
from tests.transport.test_door import answers, echo


def in_memory(kind):
    return sum(isinstance(found, kind) for found in gc.get_objects())


@pytest.mark.parametrize("how", ["half a hello", "whole"])
async def test_a_connection_under_tls_is_freed_when_it_ends_and_not_when_the_collector_comes(how):
    """The collector counts objects, and knows nothing of the 45 KB that OpenSSL keeps for each."""
    async with open_server(echo) as server:

        async def come_and_go():
            if how == "whole":
                async with await server.connect("tls", say=b"{") as client:
                    assert await answers(client)
            else:
                stream = await trio.open_tcp_stream("127.0.0.1", server.port)
                await stream.send_all(bytes.fromhex("16030100f8010000f40303"))
                await stream.aclose()
            while server.connections.child_tasks:
                await trio.lowlevel.checkpoint()

        await come_and_go()
        gc.collect()
        before = in_memory(trio.SSLStream)
        gc.disable()
        try:
            for _ in range(5):
                await come_and_go()
            assert in_memory(trio.SSLStream) == before
        finally:
            gc.enable()
