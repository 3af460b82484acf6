"""A real door on a real port, and clients that can do to it what a socket can do: end one side, vanish, read nothing, send bytes."""

import contextlib
import functools
import os
import socket
import ssl
import struct
import tempfile
from pathlib import Path

import attrs
import trio

from chat.transport import certificates, door, http
from chat.transport.outbox import FlushSet, OutboxLimits, OutboxPool


@functools.cache
def server_tls() -> ssl.SSLContext:
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "cert.pem"), Path(folder, "key.pem")
        certificates.make_self_signed(*files)
        return certificates.server_context(*files)


def client_context() -> ssl.SSLContext:
    """It checks no name and no authority, as of a client that compares a pin."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


client_tls = functools.cache(client_context)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@attrs.define(eq=False)
class Server:
    port: int
    flush: FlushSet
    pool: OutboxPool
    connections: trio.Nursery
    doors: trio.Nursery
    transports: trio.MemoryReceiveChannel = None  # of `open_holding`

    async def connect(self, kind="tcp", **options):
        return await (TcpClient if kind == "tcp" else TlsClient).connect(self.port, **options)


@contextlib.asynccontextmanager
async def open_server(
    handler, *, settings=None, tls=True, send_buffer=None, segment=None, pool_bytes=1 << 30, web_handler=None, **listener
):
    """The nursery tree of the daemon in small: flusher, connections, door. *segment*: as small as in a real network, not 64 KiB."""
    sockets = door.bind("127.0.0.1:0")
    for sock in sockets:
        if send_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        if segment:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
    flush, pool = FlushSet(), OutboxPool(pool_bytes)
    async with trio.open_nursery() as services:
        services.start_soon(flush.run)
        async with trio.open_nursery() as connections, trio.open_nursery() as doors:
            serve = functools.partial(
                door.serve,
                [door.BoundListener(sockets=sockets, **listener)],
                settings=settings or door.DoorSettings(),
                tls=server_tls() if tls is True else tls or None,
                flush=flush,
                pool=pool,
                handler=handler,
                connections=connections,
                web_handler=web_handler,
            )
            server = Server(sockets[0].getsockname()[1], flush, pool, connections, doors)
            await doors.start(serve)
            yield server
            doors.cancel_scope.cancel()
            connections.cancel_scope.cancel()
        services.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def open_holding(*, limits=None, **options):
    """A server whose handler gives its transport to the test (`Server.transports`) and holds it until the test ends."""
    send, receive = trio.open_memory_channel(100)

    async def hold(transport):
        async with trio.open_nursery() as nursery:
            transport.start_pump = nursery.start_soon
            send.send_nowait((transport, nursery))
            await trio.sleep_forever()

    settings = options.pop("settings", door.DoorSettings(outbox=limits or OutboxLimits()))
    web = functools.partial(http.serve, http.Site(files={}, origins=http.Origins(), handler=hold))
    async with open_server(hold, settings=settings, web_handler=web, **options) as server:
        server.transports = receive
        yield server


class TcpClient:
    """A peer under plain TCP. What it received and did not give out yet is in ``buffer``."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.buffer = b""

    @classmethod
    async def connect(cls, port, *, receive_buffer=None, say=b"{"):
        """*say* is sent at once: without a first byte the door makes no transport."""
        sock = trio.socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await sock.connect(("127.0.0.1", port))
            client = cls(trio.SocketStream(sock))
            await client.start()
            if say:
                await client.send(say)
        except BaseException:
            sock.close()
            raise
        return client

    async def start(self) -> None:
        pass

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def receive_some(self) -> bytes:
        return await self.stream.receive_some()

    async def line(self) -> bytes:
        """The next line without its end; b"" at the end."""
        while b"\n" not in self.buffer:
            data = await self.receive_some()
            if not data:
                return b""
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    async def rest(self) -> bytes:
        """All until the peer's end; then close. A reset counts as an end."""
        with contextlib.suppress(trio.BrokenResourceError):
            while data := await self.receive_some():
                self.buffer += data
        await self.stream.aclose()
        data, self.buffer = self.buffer, b""
        return data

    async def end(self) -> None:
        """End the writing side in order."""
        await self.stream.send_eof()

    async def vanish(self) -> None:
        """A reset."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.aclose()

    async def aclose(self) -> None:
        await self.stream.aclose()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc) -> None:
        await trio.aclose_forcefully(self.stream)


class TlsClient(TcpClient):
    """A peer under TLS, over memory BIOs: `trio.SSLStream` has no way to end one side and read on."""

    context: ssl.SSLContext | None = None

    async def start(self) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = (self.context or client_tls()).wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        await self._until_done(self.tls.do_handshake)
        await self._push()

    async def _push(self) -> None:
        if data := self.outgoing.read():
            await self.stream.send_all(data)

    async def _until_done(self, call, *args):
        while True:
            try:
                return call(*args)
            except ssl.SSLWantReadError:
                await self._push()
                data = await self.stream.receive_some()
                self.incoming.write(data) if data else self.incoming.write_eof()

    async def send(self, data: bytes) -> None:
        try:
            self.tls.write(data)
        except ssl.SSLError as exc:
            raise trio.BrokenResourceError from exc
        await self._push()

    async def receive_some(self) -> bytes:
        try:
            return await self._until_done(self.tls.read, 65536)
        except ssl.SSLZeroReturnError:  # both sides have said close_notify
            return b""
        except ssl.SSLError as exc:
            raise trio.BrokenResourceError from exc

    async def end(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # it wants to read the peer's word, or has read it
            self.tls.unwrap()
        await self._push()

    async def cut(self) -> None:
        """A bare FIN."""
        await self.stream.send_eof()


async def echo(transport):
    while frames := await transport.receive():
        for frame in frames:
            transport.outbox.put_always(frame + b"\n")
        transport.flush_nowait()
    await transport.aclose()


async def answers(client) -> bool:
    """Whether the connection is served."""
    await client.send(b'"a":1}\n')
    return await client.line() == b'{"a":1}'
