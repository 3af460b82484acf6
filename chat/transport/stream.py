"""Frames over a TCP socket. What a transport is: `chat.transport.base`. Under TLS: `chat.transport.tls`.

Theory. The socket is a plain non-blocking one, since a wrapper object per connection would cost as much as all the rest. Reading
is ``wait_readable``, then one ``recv``: a peer that is silent costs one system call per message, not two. Writing happens in
`flush_nowait`, a plain call. What the kernel does not take stays in ``_unsent``, and the pump (a task that exists only then;
`drain` takes its place where there is none) goes on when the kernel has room again.

The write deadline is of what the peer's kernel took, not of what ours did. Ours says "writable" only when a third of a buffer of
up to 4 MiB is free, and takes nothing while that is overrun by as much as 64 KiB: so at the end of each window a send is tried,
and the length of the send queue is asked (SIOCOUTQ).

Ends. ``_eof``: the peer ended its side in order. ``_broken``: a send failed; the outbox is gone, and what the peer sent before may
still be read. ``_deaf``: nothing more is read. ``_closing``: `aclose` began. ``_closed``: the descriptor is gone.
"""

import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable
from typing import Any, ClassVar, Final

import attrs
import trio
from trio.lowlevel import checkpoint, notify_closing, wait_readable, wait_writable

from chat.protocol.framing import LineFramer
from chat.transport.base import Dialect, Peer
from chat.transport.outbox import Outbox

READ_BYTES: Final = 64 * 1024
LINGER_S: Final = 2.0  # how long a peer that we closed has to take the last word and close too
LINGER_BYTES: Final = 1024 * 1024
DEADLINE_BYTES_PER_S: Final = 1024
_RESET: Final = struct.pack("ii", 1, 0)


@attrs.define(eq=False, kw_only=True)
class SocketTransport:
    """What TCP and TLS share: reading, the pump, the end. *Owns* its socket."""

    kind: ClassVar[str]
    dialect: ClassVar[Dialect] = Dialect.LINES

    _sock: socket.socket
    peer: Peer
    outbox: Outbox
    _framer: LineFramer  # no converter makes it: with one, attrs would check every assignment to any attribute
    _received: bytes = b""  # read before somebody asked: by the door, or by `peek`
    last_received: float = attrs.field(factory=trio.current_time)
    start_pump: Callable[[Callable[[], Any]], Any] | None = None
    _unsent: memoryview | None = None
    _pumping: bool = False
    _deaf: bool = False
    _eof: bool = False
    _broken: bool = False
    _closing: bool = False
    _closed: bool = False

    def __attrs_post_init__(self) -> None:
        self.outbox.carrier = self

    @property
    def frame_limit(self) -> int:
        return self._framer.limit

    @frame_limit.setter
    def frame_limit(self, n_bytes: int) -> None:
        self._framer.limit = n_bytes

    @property
    def local_address(self) -> tuple[str, int]:
        """What the peer has connected to. *Raises* OSError when the socket is closed."""
        host, port = self._sock.getsockname()[:2]
        return str(host), int(port)

    @property
    def closing(self) -> bool:
        """Whether `aclose` or `abort` began."""
        return self._closing

    # ------------------------------------------------------------ in

    async def receive(self) -> list[bytes]:
        framer = self._framer
        while True:
            if framer.error is not None:
                raise framer.error
            chunk = await (self.receive_some() if self._received else self._read())
            if not chunk:
                return []
            if frames := framer.feed(chunk):
                return frames

    async def receive_some(self) -> bytes:
        """Bytes as they come, for a transport above this one (WebSocket): b"" when the peer ended its side in order.

        *Raises*, *Waits*, *If cancelled*: as `receive`.
        """
        if self._received and not self._deaf:
            await checkpoint()  # first: were it cancelled afterwards, the bytes would be lost
            data, self._received = self._received, b""
            return data
        return await self._read()

    async def peek(self) -> bytes:
        """Wait for bytes and keep them for `receive_some`. *Returns* all that is kept; unchanged when the peer ended its side."""
        self._received += await self._read()
        return self._received

    async def _read(self) -> bytes:
        """From the kernel. Every await on the way down to it costs each idle connection 200 bytes, so there are few."""
        while True:
            if self._deaf:
                raise trio.ClosedResourceError
            await wait_readable(self._sock)
            if (data := self._recv()) is not None:
                return data

    def _recv(self) -> bytes | None:
        """What the kernel has: b"" at the peer's end, None when there was nothing after all."""
        if self._deaf:
            raise trio.ClosedResourceError
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise trio.BrokenResourceError(str(exc)) from exc
        if data:
            self.last_received = trio.current_time()
            return data
        if self._broken:  # after a reset that a send has met, recv sees a mere end
            raise trio.BrokenResourceError("the peer is gone")
        self._eof = True
        return b""

    def stop_receiving(self) -> None:
        if not self._deaf:
            self._deaf = True
            notify_closing(self._sock)  # wakes a reader; a pump goes on

    # ------------------------------------------------------------ out

    def flush_nowait(self) -> None:
        raise NotImplementedError

    def _next_unsent(self) -> memoryview | None:
        """What to send after ``_unsent``."""
        raise NotImplementedError

    def _send(self, data: bytes | memoryview) -> int:
        """One send. *Returns* how much the kernel took, -1 when the peer is gone."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self._broken = True
            self._forget()
            self.outbox.close()
            return -1

    def _forget(self) -> None:
        self._unsent = None

    def _push(self) -> int:
        """Send what waits until the kernel is full. *Returns* how much went."""
        total = 0
        while (data := self._unsent) is not None:
            n = self._send(data)
            if n < 0:
                break
            self._unsent = data[n:] if n < len(data) else self._next_unsent()
            total += n
            self.outbox.sent(n)
            if n < len(data):
                break
        return total

    def _stuck(self) -> None:
        """Something was left behind: it counts to the sum of all outboxes, and the pump is needed."""
        self.outbox.stuck()
        if self._unsent is not None and not self._pumping and self.start_pump is not None:
            self._pumping = True
            try:
                self.start_pump(self._pump)
            except RuntimeError:  # the nursery of the connections has ended, and `aclose` comes next
                self._pumping = False

    async def _pump(self) -> None:
        """Send ``_unsent`` as the kernel takes it; cut the peer at the write deadline."""
        outbox, window_s = self.outbox, self.outbox.limits.write_deadline_s
        window_end = trio.current_time() + window_s
        try:
            sent, queued = 0, self._kernel_queue()
            while self._unsent is not None:
                with trio.move_on_at(window_end):
                    try:
                        await wait_writable(self._sock)
                    except trio.ClosedResourceError:  # `abort`, or `aclose` waking the reader of the same descriptor
                        await checkpoint()
                if self._closed:
                    return
                sent += self._push()
                self.flush_nowait()  # what `on_drained` has put, or (TLS) what may be encrypted now
                if trio.current_time() < window_end or self._unsent is None:
                    continue
                still = self._kernel_queue()
                if sent + queued - still < window_s * DEADLINE_BYTES_PER_S:
                    if outbox.cut_code is not None:
                        self.abort()
                        return
                    outbox.cut("slow_consumer")
                window_end += window_s
                sent, queued = 0, still
        except Exception:  # a bug: nobody else would send what is left here
            self.abort()
            raise
        finally:
            self._pumping = False
            outbox.wake()  # a `drain` goes on in its stead when the pump was cancelled

    def _kernel_queue(self) -> int:
        """Bytes that our kernel holds and the peer's has not confirmed."""
        if self._closed:
            return 0
        return int.from_bytes(fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    async def drain(self) -> None:
        await checkpoint()
        while self.outbox.pending_bytes:
            self.flush_nowait()
            if not self.outbox.pending_bytes:
                return
            if self._unsent is not None and not self._pumping:
                self._pumping = True
                await self._pump()
            else:
                await self.outbox.wait_moved()

    # ------------------------------------------------------------ the end

    async def aclose(self) -> None:
        if self._closing:
            await checkpoint()
            return
        self._closing = True
        self.outbox.seal()
        self.stop_receiving()
        try:
            with trio.move_on_after(LINGER_S if self.outbox.cut_code else self.outbox.limits.write_deadline_s) as in_time:
                await self.drain()
                if not self._broken:
                    await self._end()
                    await self.drain()
            if not (in_time.cancelled_caught or self._broken or self._closed):
                with trio.move_on_after(LINGER_S):
                    await self._linger()
        finally:
            self.abort()

    async def _end(self) -> None:
        """Say that nothing follows, where the protocol above TCP has a word for it."""

    async def _linger(self) -> None:
        """Close our side and read the rest: closing a socket with unread bytes resets it, and the last word would be lost."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
            left = 0 if self._eof else LINGER_BYTES
            while left > 0:
                await wait_readable(self._sock)
                data = self._sock.recv(READ_BYTES)
                left = left - len(data) if data else 0
        except (OSError, trio.ClosedResourceError):
            pass

    def abort(self) -> None:
        if self._closed:
            return
        self._closing = self._closed = self._deaf = True
        if self.outbox.pending_bytes:  # our kernel need not keep trying for a peer that does not read
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._forget()
        self.outbox.close()
        self.start_pump = None
        notify_closing(self._sock)
        self._sock.close()


@attrs.define(eq=False, kw_only=True)
class TcpTransport(SocketTransport):
    """Frames as lines over plain TCP."""

    kind: ClassVar[str] = "tcp"

    async def receive(self) -> list[bytes]:
        """As above, but that it waits for the kernel itself: one await less on the way down."""
        framer = self._framer
        while True:
            if framer.error is not None:
                raise framer.error
            if self._received or self._deaf:
                chunk: bytes | None = await self.receive_some()
            else:
                await wait_readable(self._sock)
                chunk = self._recv()
            if chunk is None:
                continue
            if not chunk:
                return []
            if frames := framer.feed(chunk):
                return frames

    def flush_nowait(self) -> None:
        outbox = self.outbox
        while outbox.chunks and self._unsent is None:
            data = outbox.take()
            n = self._send(data)
            if n == len(data):
                outbox.sent(n)
            elif n >= 0:
                self._unsent = memoryview(data)[n:]
                outbox.sent(n)
        if self._unsent is not None:
            self._stuck()

    def _next_unsent(self) -> memoryview | None:
        return memoryview(self.outbox.take()) if self.outbox.chunks else None
