"""Fixtures of the end-to-end tests: a place for a server's data, and the tracer."""

import pytest

from tests.e2e import trace
from tests.e2e.server import Server
from tests.e2e.wire import Wire


@pytest.fixture
def data_dir(tmp_path):
    """It does not exist yet: the server's first start makes it."""
    return tmp_path / "data"


@pytest.fixture
async def server(data_dir):
    """A server that runs, with generous limits."""
    server = Server(data_dir)
    await server.start()
    yield server
    await server.kill()


@pytest.fixture
async def dial():
    """Opens a connection that has said hello; it is closed in the end."""
    wires = []

    async def dial(port, *, tls=False):
        wires.append(wire := await Wire.open(port, tls=tls))
        await wire.hello()
        return wire

    yield dial
    for wire in wires:
        await wire.aclose()


@pytest.fixture(scope="session")
def tracer():
    """Tests that look at the server's system calls ask for it."""
    reason = trace.reason_not_to_trace()
    if reason:
        pytest.skip(reason)
