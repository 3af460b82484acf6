"""The one port: accepts, finds out what is spoken, makes a transport of it and gives it to its handler, in a guarded task.

Theory. The first bytes tell the dialect: 0x16 is a TLS hello (then the first bytes inside tell), ``{`` the native protocol, an
HTTP method the page or its WebSocket; anything else is closed at once, and nothing of it is reflected. They are read, not peeked
at, and handed on to the transport: a peek could not wait for the second byte of a method without spinning.

A connection counts from `accept` to the end of its task, against the cap and against its address. Over a cap the peer is told
`busy`, where it speaks the native protocol in plain, in one of a few short tasks. Handshakes that are not finished are few as
well: when all their places are taken, accepting waits, and after `CROWDED_S` those that are older than that are dropped. So a
burst after a restart is served from the backlog, and silent sockets cannot keep the door shut.

Without descriptors `accept` fails and the connection stays in the backlog, so that the listener stays readable for ever. One
spare descriptor is given up for a moment to take the connection and close it.

*Source*: contract section 1 (one port) and section 7 (listen, connections); architecture section 5 (process).
"""

import contextlib
import enum
import errno
import json
import resource
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, Literal

import attrs
import trio

from chat.log import get_logger, new_error_id
from chat.protocol.framing import LineFramer
from chat.transport.base import Dialect, Peer, framed
from chat.transport.outbox import FlushSet, Outbox, OutboxLimits, OutboxPool
from chat.transport.stream import LINGER_S, SocketTransport, TcpTransport
from chat.transport.tls import accept_tls

MAX_CONNECTIONS: Final = 10_000
SPARE_DESCRIPTORS: Final = 256  # for the database, logs, listeners, handshakes and refusals beside the connections
ACCEPT_SLICE: Final = 64  # connections taken in one go before other tasks run
REFUSALS: Final = 32  # told `busy` at a time; more are closed without a word
CROWDED_S: Final = 2.0
LAST_S: Final = 0.2  # for handshakes that are under way when the door closes: a silent peer shall not hold up who stops or restarts
RETRY_AFTER_S: Final = 5
TASK_NAME: Final = "chat connection"  # one for all: Trio would put one together for each, and keep it
QUIET_S: Final = 60.0  # between two log lines about missing descriptors

_METHODS: Final = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"TRACE ")
_FULL: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Handler = Callable[[SocketTransport], Awaitable[None]]

log = get_logger("transport.door")


def _line(**fields: object) -> bytes:
    return framed(Dialect.LINES, json.dumps(fields, separators=(",", ":")).encode())


_TLS_REQUIRED: Final = _line(type="error", code="tls_required", message="this server takes TLS only from here")
_HTTPS_REQUIRED: Final = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 24\r\nConnection: close\r\n\r\nThis server is https://\n"
_BUSY: Final = _line(type="error", code="busy", message="too many connections, try again later", retry_after=RETRY_AFTER_S)
_LAGGING: Final = _line(type="lagging")
_SLOW_CONSUMER: Final = _line(type="closing", code="slow_consumer")


class Spoken(enum.Enum):
    """What the first bytes say. MORE: they could still become several of these."""

    TLS = enum.auto()
    NATIVE = enum.auto()
    HTTP = enum.auto()
    OTHER = enum.auto()
    MORE = enum.auto()


def spoken(first: bytes) -> Spoken:
    if first[:1] == b"\x16":
        return Spoken.TLS
    if first[:1] == b"{":
        return Spoken.NATIVE
    if first.startswith(_METHODS):
        return Spoken.HTTP
    return Spoken.MORE if any(method.startswith(first) for method in _METHODS) else Spoken.OTHER


@attrs.frozen(kw_only=True)
class DoorSettings:
    connections: int = MAX_CONNECTIONS  # see `connection_cap`
    connections_per_address: int = 16
    exempt_loopback: bool = True
    handshake_s: float = 10.0
    handshakes: int = 256
    frame_bytes: int = 8 * 1024  # before login
    outbox: OutboxLimits = attrs.field(factory=OutboxLimits)


@attrs.frozen(kw_only=True)
class BoundListener:
    """Sockets of `bind`, and who may speak what on them. `serve` closes them."""

    sockets: Sequence[socket.socket]
    dialects: frozenset[str] = frozenset({"native", "web"})
    plaintext: Literal["loopback", "never", "always"] = "loopback"


def connection_cap(configured: int, n_descriptors: int | None = None) -> int:
    """How many connections this process can serve, of *configured* ones. *Raises* ValueError when it is not worth starting.

    *Source*: contract section 7: min(10,000, nofile - 256), below 512 descriptors max(64, nofile/2), below 64 no start. The 10,000 are the
    configuration's default; who configures more gets what the descriptors allow.
    """
    if n_descriptors is None:
        n_descriptors, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if n_descriptors == resource.RLIM_INFINITY:
        return configured
    if n_descriptors < 64:
        raise ValueError(f"this process may open {n_descriptors} files only, and needs 64 at least: raise the limit (ulimit -n)")
    possible = max(64, n_descriptors // 2) if n_descriptors < 512 else n_descriptors - SPARE_DESCRIPTORS
    return min(configured, possible)


def bind(address: str, *, backlog: int = 1024) -> list[socket.socket]:
    """Listening sockets for ``HOST:PORT`` (``[::1]:7667``; ``:7667`` is every address; port 0 is any free one, the same for all).

    *Raises* ValueError for an address that cannot be read, OSError with a message for people when it cannot be listened on.
    """
    host, port = _parse(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as exc:
        raise OSError(f"cannot listen on {address}: {exc.strerror}") from exc
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _name, where in dict.fromkeys(found):
            if port == 0 and sockets:
                where = (where[0], sockets[0].getsockname()[1], *where[2:])
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            _prepare(sock)
            sock.bind(where)
            sock.listen(backlog)
    except OSError as exc:
        for sock in sockets:
            sock.close()
        why = "the port is in use" if exc.errno == errno.EADDRINUSE else exc.strerror
        raise OSError(exc.errno, f"cannot listen on {address}: {why}") from exc
    return sockets


def _parse(address: str) -> tuple[str | None, int]:
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is no address to listen on: HOST:PORT is, for instance 0.0.0.0:7667 or [::]:7667")
    return host or None, int(port)


def _prepare(sock: socket.socket) -> None:
    """Options that accepted sockets inherit, so that they cost nothing per connection."""
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


async def serve(
    listeners: Sequence[BoundListener],
    *,
    settings: DoorSettings,
    tls: ssl.SSLContext | None,
    flush: FlushSet,
    pool: OutboxPool,
    handler: Handler,
    connections: trio.Nursery,
    web_handler: Handler | None = None,
    task_status: trio.TaskStatus[Callable[[DoorSettings], None]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept until cancelled. Each connection is a task in *connections*: ``handler(transport)``, aborted when that returns.

    The handler's exceptions are logged with an error id and end that connection only; `trio.Cancelled` passes. ``web_handler``
    gets the transport of a peer that began with an HTTP method, with what was read still to be had from `receive_some`.
    *Owns* the listeners' sockets: they are closed when it ends. *tls* may be reloaded at any time (`certificates.reload`), and other
    settings given for what comes from then on: what it is started with is a function that takes them.
    """
    door = _Door(settings=settings, tls=tls, flush=flush, pool=pool, handler=handler, web_handler=web_handler, connections=connections)
    with contextlib.ExitStack() as stack:
        for listener in listeners:
            for sock in listener.sockets:
                stack.enter_context(sock)
        stack.callback(door.close)
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                for sock in listener.sockets:
                    nursery.start_soon(door.accept, sock, listener)
            task_status.started(door.adjust)


@attrs.define(eq=False, kw_only=True)
class _Door:
    """What the listeners of one `serve` share."""

    settings: DoorSettings
    tls: ssl.SSLContext | None
    flush: FlushSet
    pool: OutboxPool
    handler: Handler
    web_handler: Handler | None
    connections: trio.Nursery
    _open: int = 0
    _by_prefix: Counter[str] = attrs.Factory(Counter)
    _refusals: int = 0
    _unfinished: int = 0  # handshakes, from accept on
    _scopes: dict[trio.CancelScope, float] = attrs.Factory(dict)  # of those, oldest first → when it began
    _finished: trio.Event = attrs.Factory(trio.Event)
    _spare: socket.socket | None = attrs.Factory(socket.socket)
    _quiet_until: float = float("-inf")
    start_pump: Callable[[Callable[[], Awaitable[None]]], None] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.start_pump = self._start_pump  # one bound method for all connections

    def adjust(self, settings: DoorSettings) -> None:
        self.settings = settings
        self._finished.set()  # who waits for a place looks again

    def close(self) -> None:
        if self._spare is not None:
            self._spare.close()
        for scope in self._scopes:
            scope.deadline = min(scope.deadline, trio.current_time() + LAST_S)

    # ------------------------------------------------------------ accepting

    async def accept(self, listening: socket.socket, listener: BoundListener) -> None:
        while True:
            await trio.lowlevel.wait_readable(listening)
            for _ in range(ACCEPT_SLICE):
                while self._unfinished >= self.settings.handshakes:
                    await self._wait_for_place()
                try:
                    sock, address = listening.accept()
                except BlockingIOError:
                    break
                except OSError as exc:
                    if exc.errno not in _FULL:
                        continue  # that connection was gone before it was taken
                    if not self._shed(listening, exc):
                        await trio.sleep(0.1)
                    break
                sock.setblocking(False)
                self._take(sock, Peer.of(address), listener)

    async def _wait_for_place(self) -> None:
        if self._finished.is_set():
            self._finished = trio.Event()
        with trio.move_on_after(CROWDED_S):
            await self._finished.wait()
            return
        old = trio.current_time() - CROWDED_S
        for scope in [scope for scope, began in self._scopes.items() if began <= old]:
            scope.cancel()
        await self._finished.wait()

    def _shed(self, listening: socket.socket, why: OSError) -> bool:
        """No descriptor is left: take one connection with the spare one and close it. *Returns* whether that was possible."""
        if trio.current_time() >= self._quiet_until:
            self._quiet_until = trio.current_time() + QUIET_S
            log.error("no_descriptors", error=why, connections=self._open)
        if self._spare is not None:
            self._spare.close()
            self._spare = None
            with contextlib.suppress(OSError):
                listening.accept()[0].close()
        with contextlib.suppress(OSError):
            self._spare = socket.socket()
        return self._spare is not None

    def _take(self, sock: socket.socket, peer: Peer, listener: BoundListener) -> None:
        settings = self.settings
        exempt = peer.loopback and settings.exempt_loopback
        if self._open >= settings.connections or (not exempt and self._by_prefix[peer.prefix] >= settings.connections_per_address):
            log.info("connection_refused", peer=str(peer), connections=self._open)
            if self._refusals < REFUSALS:
                self._refusals += 1
                self.connections.start_soon(self._refuse, sock)
            else:
                sock.close()
            return
        self._open += 1
        self._unfinished += 1
        self._by_prefix[peer.prefix] += 1
        self.connections.start_soon(self._connection, sock, peer, listener, name=TASK_NAME)

    async def _refuse(self, sock: socket.socket) -> None:
        """Say `busy` to who speaks the native protocol in plain; to others silence is all that costs nothing."""
        try:
            with contextlib.closing(sock), trio.move_on_after(LINGER_S):
                if (await _first(sock))[:1] == b"{":
                    await _say(sock, _BUSY)
        finally:
            self._refusals -= 1

    # ------------------------------------------------------------ one connection

    async def _connection(self, sock: socket.socket, peer: Peer, listener: BoundListener) -> None:
        transport: SocketTransport | None = None
        try:
            try:
                transport, handler = await self._shake_hands(sock, peer, listener)
                if transport is not None and handler is not None:
                    transport.start_pump = self.start_pump
                    await handler(transport)
            finally:
                if transport is not None:
                    transport.abort()
                sock.close()
                self._open -= 1
                self._by_prefix[peer.prefix] -= 1
                if not self._by_prefix[peer.prefix]:
                    del self._by_prefix[peer.prefix]
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("connection_lost", peer=str(peer))
        except* Exception as group:
            log.error("connection_failed", error_id=new_error_id(), peer=str(peer), exc_info=group)

    def _start_pump(self, pump: Callable[[], Awaitable[None]]) -> None:
        """Beside the connections: a nursery in each of them would cost an idle one 1.3 KB. `abort` ends the pump."""
        self.connections.start_soon(self._pump, pump)

    async def _pump(self, pump: Callable[[], Awaitable[None]]) -> None:
        try:
            await pump()
        except Exception:
            log.exception("pump_failed", error_id=new_error_id())

    @contextlib.contextmanager
    def _handshake(self) -> Iterator[None]:
        with trio.move_on_after(self.settings.handshake_s) as scope:
            self._scopes[scope] = trio.current_time()
            try:
                yield
            finally:
                del self._scopes[scope]
                self._unfinished -= 1
                self._finished.set()

    async def _shake_hands(self, sock: socket.socket, peer: Peer, listener: BoundListener) -> tuple[SocketTransport | None, Handler | None]:
        """*Returns* no handler when there is nobody to serve: silent, speaking something else, or refused."""
        settings = self.settings
        transport: SocketTransport | None = None
        handler: Handler | None = None
        with self._handshake():
            first = await _first(sock)
            kind = spoken(first)
            outbox = Outbox(limits=settings.outbox, flush_set=self.flush, pool=self.pool, lagging_frame=_LAGGING, cut_frame=_SLOW_CONSUMER)
            framer = LineFramer(settings.frame_bytes)
            if kind is Spoken.TLS and self.tls is not None:
                try:
                    transport = await accept_tls(self.tls, first, sock=sock, peer=peer, outbox=outbox, framer=framer)
                    kind = await _spoken_inside(transport)
                except trio.BrokenResourceError as exc:
                    log.debug("handshake_failed", peer=str(peer), error=exc.__cause__)
            elif listener.plaintext == "always" or (listener.plaintext == "loopback" and peer.loopback):
                transport = TcpTransport(sock=sock, peer=peer, outbox=outbox, framer=framer, received=first)
            elif kind is Spoken.NATIVE:
                await _say(sock, _TLS_REQUIRED)
            elif kind is Spoken.HTTP and "web" in listener.dialects:
                await _say(sock, _HTTPS_REQUIRED)
            # `web_handler` makes its own transport over this one.
            handler = self._handler_of(kind, listener)
        return transport, handler

    def _handler_of(self, kind: Spoken, listener: BoundListener) -> Handler | None:
        if kind is Spoken.NATIVE and "native" in listener.dialects:
            return self.handler
        if kind is Spoken.HTTP and "web" in listener.dialects:
            return self.web_handler
        return None


async def _spoken_inside(transport: SocketTransport) -> Spoken:
    """What the first bytes under TLS say. Nothing more, or TLS again, is OTHER."""
    kind, n = Spoken.MORE, 0
    while kind is Spoken.MORE:
        first = await transport.peek()
        kind = spoken(first) if len(first) > n else Spoken.OTHER
        n = len(first)
    return kind


async def _first(sock: socket.socket) -> bytes:
    """Bytes enough to tell what is spoken, or b"" when the peer ended before."""
    data = b""
    while True:
        await trio.lowlevel.wait_readable(sock)
        try:
            more = sock.recv(4096)
        except BlockingIOError:
            continue
        except OSError:
            return b""
        data += more
        if not more or spoken(data) is not Spoken.MORE:
            return data


async def _say(sock: socket.socket, line: bytes) -> None:
    """The last word to a peer without a transport, under the caller's deadline. Read on, or closing would take it back."""
    with contextlib.suppress(OSError):
        sock.send(line)
        sock.shutdown(socket.SHUT_WR)
        n_bytes = 0
        with trio.move_on_after(LINGER_S):
            while n_bytes < 64 * 1024:
                await trio.lowlevel.wait_readable(sock)
                if not (more := sock.recv(4096)):
                    return
                n_bytes += len(more)
