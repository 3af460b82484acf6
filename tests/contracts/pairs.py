"""A transport of each kind and its peer, over a real door and real sockets. Its fixture is imported by name."""

import contextlib

import pytest
import trio
import trio.testing

from chat.transport.base import framed
from tests.transport.browsers import WebClient
from tests.transport.peers import open_holding

LAGGING = b'{"type":"lagging"}'
CLOSING = b'{"type":"closing","code":"slow_consumer"}'
SMALL = {"send_buffer": 4096}  # bytes; the kernel doubles it
KiB = 1024


@pytest.fixture(params=["tcp", "tls", "web"])
def kind(request):
    return request.param


lines_only = pytest.mark.parametrize("kind", ["tcp", "tls"])


def connect(server, kind, **options):
    return WebClient.connect(server.port, **options) if kind == "web" else server.connect(kind, **options)


def out(transport, payload):
    """As somebody puts it who has a frame for this transport."""
    return framed(transport.dialect, payload)


@contextlib.asynccontextmanager
async def open_pair(kind, *, receive_buffer=None, **options):
    """A transport and its peer. The peer has sent ``{``, and the transport's limit is 100 bytes."""
    mocked = isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock)
    with trio.fail_after(1000 if mocked else 8):
        async with open_holding(**options) as server, await connect(server, kind, receive_buffer=receive_buffer) as client:
            transport, nursery = await server.transports.receive()
            assert transport.kind == kind
            transport.frame_limit = 100
            yield transport, client, server, nursery


async def everything(transport, frames=None):
    """All frames until the peer's end; what came before an error is in *frames*."""
    frames = [] if frames is None else frames
    while more := await transport.receive():
        frames += more
    return frames
