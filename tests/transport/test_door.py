import contextlib
import errno
import json
import os
import signal
import socket
import ssl
import subprocess
import sys

import attrs
import pytest
import structlog
import trio
import trio.testing

from chat.transport import certificates, door
from chat.transport.door import DoorSettings, Spoken, spoken
from chat.transport.outbox import OutboxLimits
from chat.transport.stream import TcpTransport
from tests.transport.peers import answers, descriptors, echo, open_holding, open_server

# ---------------------------------------------------------------- what is spoken


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (b"\x16\x03\x01", Spoken.TLS),
        (b"{", Spoken.NATIVE),
        (b"G", Spoken.MORE),
        (b"GET", Spoken.MORE),
        (b"GET ", Spoken.HTTP),
        (b"OPTIONS /", Spoken.HTTP),
        (b"PO", Spoken.MORE),
        (b"PIG", Spoken.OTHER),
        (b"NICK x", Spoken.OTHER),
        (b"get /", Spoken.OTHER),
        (b" {", Spoken.OTHER),
        (b"\n", Spoken.OTHER),
        (b"\x80\x2e", Spoken.OTHER),
    ],
)
def test_the_first_bytes_tell(first, kind):
    assert spoken(first) is kind


@pytest.mark.parametrize("kind", ["tcp", "tls"])
async def test_the_native_protocol_is_served(kind):
    async with open_server(echo) as server, await server.connect(kind) as client:
        assert await answers(client)
        await client.end()
        assert await client.rest() == b""


@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize("first", [b"NICK x\r\n", b"\n", b"GET / HTTP/1.1\r\n\r\n", b"GEX", b"\x00" * 5000])
async def test_anything_else_is_closed_at_once_and_nothing_reflected(kind, first):
    async with open_server(echo) as server, await server.connect(kind, say=first) as client:
        assert await client.rest() == b""


async def test_tls_inside_tls_is_closed():
    async with open_server(echo) as server, await server.connect("tls", say=b"\x16\x03\x01") as client:
        assert await client.rest() == b""


@pytest.mark.parametrize("first", [b"\x16garbage" * 50, b"\x16\x03\x01\x00\x05hello", b"\x16"])
async def test_garbage_that_begins_like_tls_is_closed(first):
    async with open_server(echo) as server, await server.connect(say=first) as client:
        if first == b"\x16":
            await client.end()
        await client.rest()  # at most an alert of TLS
        async with await server.connect("tls") as other:
            assert await answers(other)


@pytest.mark.parametrize("kind", ["tcp", "tls"])
async def test_a_method_that_comes_in_pieces_goes_to_the_web(kind):
    async def web(transport):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await transport.receive_some()
        transport.outbox.put_always(b"HTTP/1.1 204 " + head.split()[1] + b"\r\n\r\n")
        await transport.aclose()

    async with open_server(echo, web_handler=web) as server, await server.connect(kind, say=b"G") as client:
        for piece in (b"ET ", b"/x HTTP/1.1\r", b"\n\r\n"):
            await trio.testing.wait_all_tasks_blocked()
            await client.send(piece)
        assert await client.rest() == b"HTTP/1.1 204 /x\r\n\r\n"


async def test_a_listener_speaks_its_dialects_only():
    async def web(transport):
        pytest.fail("not on this listener")

    for dialect, other in (("native", b"GET / HTTP/1.1\r\n\r\n"), ("web", b"{}\n")):
        async with open_server(echo, web_handler=web, dialects=frozenset({dialect})) as server, await server.connect(say=other) as client:
            assert await client.rest() == b""


@pytest.mark.parametrize("plaintext", ["loopback", "always", "never"])
async def test_plaintext_where_it_is_allowed(plaintext):
    async with open_server(echo, plaintext=plaintext) as server:
        async with await server.connect(say=b'{"password":"x"}\n') as client:
            line = await client.line()
            if plaintext == "never":
                answer = json.loads(line)
                assert (answer["type"], answer["code"]) == ("error", "tls_required")
                assert set(answer) == {"type", "code", "message"}
                assert await client.rest() == b""
            else:
                assert line == b'{"password":"x"}'
        async with await server.connect("tls") as client:
            assert await answers(client)


async def test_plaintext_from_elsewhere_is_refused(monkeypatch):
    """There is no other address than loopback here, so the door is told that the peer has one."""
    monkeypatch.setattr(door.Peer, "of", lambda address: attrs.evolve(of(address), loopback=False))
    async with open_server(echo) as server:
        async with await server.connect() as client:
            assert json.loads(await client.line())["code"] == "tls_required"
            assert await client.rest() == b""
        async with await server.connect(say=b"GET /secret HTTP/1.1\r\n\r\n") as client:
            head, _, body = (await client.rest()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 403 ")
            assert f"Content-Length: {len(body)}".encode() in head
            assert b"https" in body
            assert b"secret" not in head + body
        async with await server.connect(say=b"PRIVMSG") as client:
            assert await client.rest() == b""
        async with await server.connect("tls") as client:
            assert await answers(client)


of = door.Peer.of


async def test_the_last_word_has_an_end_even_if_the_peer_goes_on(autojump_clock):
    async with open_server(echo, plaintext="never") as server, await server.connect(say=b"{" * 3000) as client:
        began = trio.current_time()
        assert json.loads(await client.line())["code"] == "tls_required"
        assert await client.receive_some() == b""
        assert trio.current_time() == began  # its end is not that of the server's patience
        await client.send(b"{" * 3000)


async def test_a_handshake_larger_than_the_kernels_buffer(tmp_path):
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificates.make_self_signed(*files, [f"host-{n}.example.org" for n in range(1500)])
    context = certificates.server_context(*files)
    async with open_server(echo, tls=context, send_buffer=4096) as server, await server.connect("tls", receive_buffer=4096) as client:
        assert await answers(client)


async def test_without_a_certificate_tls_is_closed():
    async with open_server(echo, tls=False) as server:
        with pytest.raises((ssl.SSLError, trio.BrokenResourceError)):
            await server.connect("tls")
        async with await server.connect() as client:
            assert await answers(client)


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize("error", [ValueError("secret"), ExceptionGroup("several", [ValueError(), OSError()]), trio.WouldBlock()])
async def test_a_handler_that_raises_ends_its_connection_and_is_logged(error):
    async def fail(transport):
        if (await transport.receive())[0] == b"{}":
            raise error
        await echo(transport)

    with structlog.testing.capture_logs() as logs:
        async with open_server(fail) as server:
            before = descriptors()
            async with await server.connect() as other, await server.connect() as client:
                await client.send(b"}\n")
                assert await client.rest() == b""
                await other.send(b"1}\n")
                await trio.testing.wait_all_tasks_blocked()  # or one receive of the server might give it both
                await other.send(b"{")
                assert await answers(other)
            await trio.testing.wait_all_tasks_blocked()
            assert descriptors() == before
    failures = [entry for entry in logs if entry["event"] == "connection_failed"]
    assert len(failures) == 1
    assert len(failures[0]["error_id"]) >= 8


async def test_a_pump_that_raises_ends_its_connection_and_is_logged(monkeypatch):
    """Nobody else would send what it has left, and the peer would wait for ever."""

    def fail(transport):
        raise ValueError("in the pump")

    monkeypatch.setattr(TcpTransport, "_kernel_queue", fail)
    ended = trio.Event()

    async def handler(transport):
        await transport.receive()
        while transport._unsent is None:
            transport.outbox.put_always(b"x" * 100_000)
            transport.flush_nowait()
        with pytest.raises(trio.ClosedResourceError):
            await transport.receive()
        ended.set()

    settings = DoorSettings(outbox=OutboxLimits(hard_bytes=2**26))
    with structlog.testing.capture_logs() as logged:
        async with open_server(handler, settings=settings) as server, await server.connect(receive_buffer=4096) as client:
            await client.send(b'"a":1}\n')
            with trio.fail_after(5):
                await ended.wait()
    assert [entry["event"] for entry in logged] == ["pump_failed"]


async def test_an_error_while_the_daemon_stops_does_not_hide_the_stop():
    """The handler fails because it is cancelled: what reaches CONNECTIONS is the cancellation and nothing else."""

    async def fail(transport):
        async with trio.open_nursery() as nursery:

            async def child():
                try:
                    await trio.sleep_forever()
                finally:
                    raise ValueError

            nursery.start_soon(child)
            await transport.receive()
            await trio.sleep_forever()

    with structlog.testing.capture_logs() as logs:
        async with open_server(fail) as server, await server.connect() as client:
            await client.send(b"}\n")
            await trio.testing.wait_all_tasks_blocked()
            server.connections.cancel_scope.cancel()
    assert [entry["event"] for entry in logs] == ["connection_failed"]


async def test_a_handler_that_leaves_everything_open():
    left = []

    async def leave(transport):
        left.append(transport)
        transport.outbox.put_always(b"x" * 900_000)
        transport.flush_nowait()
        await trio.testing.wait_all_tasks_blocked()
        assert transport.outbox.pending_bytes

    async with open_server(leave, send_buffer=4096) as server, await server.connect(receive_buffer=4096) as client:
        await client.rest()
        await trio.testing.wait_all_tasks_blocked()
        assert server.pool.total_bytes == 0
    assert left[0].outbox.sealed


async def test_a_peer_that_is_gone_is_nothing_to_report():
    with structlog.testing.capture_logs() as logs:
        async with open_server(echo) as server:
            for kind in ("tcp", "tls"):
                client = await server.connect(kind)
                await trio.testing.wait_all_tasks_blocked()
                await client.vanish()
                await trio.testing.wait_all_tasks_blocked()
    assert [entry for entry in logs if entry["log_level"] != "debug"] == []


async def test_the_doors_end_closes_the_listener_and_keeps_the_connections():
    """Looked at behind the server's end: within, a failure would be lost in the cancellation."""
    served = refused = False
    async with open_server(echo) as server, await server.connect() as client:
        await trio.testing.wait_all_tasks_blocked()
        server.doors.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            try:
                await server.connect()
            except ConnectionRefusedError:
                refused = True
            served = await answers(client)
    assert refused
    assert served


async def test_the_doors_end_does_not_wait_for_who_says_nothing(mock_clock):
    ended_s = 100.0
    async with open_server(echo) as server, await server.connect(say=b"") as silent, await server.connect(say=b"\x16") as half:
        await trio.testing.wait_all_tasks_blocked()
        late = await server.connect(say=b"")  # taken just now
        server.doors.cancel_scope.cancel()
        mock_clock.autojump_threshold = 0
        with trio.CancelScope(shield=True):
            async with late:
                told = [await client.rest() for client in (silent, half, late)]
            ended_s = trio.current_time()
    assert told == [b"", b"", b""]
    assert ended_s < 1


async def test_nothing_is_left_open():
    before = descriptors()
    async with open_holding() as server, await server.connect("tls"), await server.connect():
        await server.transports.receive()
    assert descriptors() == before


EMFILE_SERVER = """
import resource, sys, trio
sys.path.insert(0, {root!r})
from chat import log
from tests.transport.peers import descriptors, open_holding, open_server

async def hold(transport):
    while await transport.receive():
        transport.outbox.put_always(b"ok\\n")
        transport.flush_nowait()

async def main():
    async with open_server(hold, tls=False) as server:
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        print(server.port, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def test_without_descriptors_peers_are_closed_and_the_server_lives():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    command = [sys.executable, "-c", EMFILE_SERVER.format(root=root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        port = int(process.stdout.readline())
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)) for _ in range(60)]
        served = []
        for client in clients:
            with contextlib.suppress(ConnectionError):
                client.sendall(b"{}\n")
                if client.recv(10) == b"ok\n":
                    served.append(client)
        assert 20 <= len(served) <= 40, "as many as there are descriptors, and the rest was told so by a close"
        for client in served[:5]:
            client.shutdown(socket.SHUT_WR)
            assert client.recv(10) == b""
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(b"{}\n")
            assert client.recv(10) == b"ok\n"
        with open(f"/proc/{process.pid}/stat") as stat:
            ticks = sum(map(int, stat.read().rpartition(")")[2].split()[11:13]))
        assert ticks < 5 * os.sysconf("SC_CLK_TCK"), "it spins"
        process.send_signal(signal.SIGKILL)
        logged = process.stderr.read()
    assert logged.count("no_descriptors") == 1
    assert "Traceback" not in logged


# ---------------------------------------------------------------- bind


def test_bind_listens():
    for address in ("127.0.0.1:0", "localhost:0", "[::1]:0", ":0"):
        sockets = door.bind(address)
        try:
            ports = {sock.getsockname()[1] for sock in sockets}
            assert len(ports) == 1
            for sock in sockets:
                host = "::1" if sock.family == socket.AF_INET6 else "127.0.0.1"
                socket.create_connection((host, *ports)).close()
        finally:
            for sock in sockets:
                sock.close()


def test_a_port_in_use_is_said_so():
    before = descriptors()
    first = door.bind("127.0.0.1:0")
    port = first[0].getsockname()[1]
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: the port is in use") as caught:
        door.bind(f"127.0.0.1:{port}")
    assert caught.value.errno == errno.EADDRINUSE
    first[0].close()
    assert descriptors() == before


@pytest.mark.parametrize("address", ["", "7667", "localhost", "localhost:x", "::1:7667", "localhost:70000", "localhost:-1", "[::1]"])
def test_an_address_that_is_none(address):
    with pytest.raises(ValueError, match="is no address to listen on"):
        door.bind(address)


def test_a_host_that_is_not_here():
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1:0: "):
        door.bind("192.0.2.1:0")
