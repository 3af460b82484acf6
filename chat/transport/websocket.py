"""Frames over a WebSocket: a `chat.transport.base.Transport` above a TCP or TLS one.

Theory. trio-websocket reads, unmasks, joins fragments, checks UTF-8 and answers pings and the peer's close frame. It does so over
`_Wire`, a stream of ours whose ``send_all`` never waits: whatever it sends is a whole frame and goes into the outbox of the
transport below, between the frames that everybody else puts there (encoded once, shared by all recipients, not made by
trio-websocket). So the slow-consumer policy, the write deadline and the encryption are those of TCP and TLS, and a delivery costs the same.

What trio-websocket 0.12 leaves open is closed here:

- It counts neither fragments nor bytes (of a text it counts characters), so `FrameGuard` reads the headers first and refuses what is too
  large or too finely cut before anything of it is kept twice. It passes on whole frames only, and not many at once, so that a chunk
  full of tiny frames does not hold the loop.
- Its ``aclose`` waits for the peer without a deadline, and a ping after its close frame raises out of its reader. It is never told to
  close: the close frame is ours, put last into the outbox; `_Wire` then refuses what it still wants to send, which ends its reader.
- After a frame that breaks the protocol it closes its stream without a close frame. `WebTransport.receive` raises, and ``aclose`` says why.
- It waits for ever for a request that does not come, and fails on some. So it gets a request of our making when the peer's is
  complete and checked (`chat.transport.http`).

*Source*: RFC 6455; contract section 1 (close codes, 1,024 fragments); architecture section 5 (trio-websocket).
"""

import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from chat.errors import RemoteProtocolError
from chat.transport.base import Dialect, Peer, framed
from chat.transport.outbox import Outbox
from chat.transport.stream import SocketTransport

SUBPROTOCOL: Final = "chat.v1"
MAX_FRAGMENTS: Final = 1024  # of one message
SLICE_FRAMES: Final = 128  # given to trio-websocket before other tasks run; a frame costs it 10 to 40 µs

NORMAL: Final = 1000
PROTOCOL_ERROR: Final = 1002
UNSUPPORTED: Final = 1003
TOO_BIG: Final = 1009
TRY_AGAIN: Final = 1013

_TEXT, _BINARY, _CLOSE, _PONG = 0x1, 0x2, 0x8, 0xA

logging.getLogger("trio-websocket").setLevel(logging.WARNING)  # it logs, at debug level, what people write


def close_frame(code: int) -> bytes:
    return b"\x88\x02" + code.to_bytes(2, "big")


@attrs.define(eq=False)
class FrameGuard:
    """Reads the headers of a client's frames, stops at what may not pass, and keeps back what says nothing. Knows no I/O.

    *limit* is of one message in bytes, allowed itself; it may be changed at any time and holds for what is fed from then on. What is
    held back is less than one frame. ``error`` and its ``code`` (a close code) say what ended it; ``closed``: a close frame was
    passed on. After either, everything is dropped.
    """

    limit: int
    error: RemoteProtocolError | None = None
    code: int = NORMAL
    closed: bool = False
    _rest: bytearray | None = None
    _wanted: int = 2  # bytes of _rest before it is worth looking again
    _fragments: int = 0  # of the message under way
    _size: int = 0
    _under_way: bool = False
    _worthless: bool = False  # the frame that was looked at last: counted, and not passed on

    def feed(self, chunk: bytes) -> list[bytes]:
        """Whole frames, in slices of at most `SLICE_FRAMES`. Those before a frame that is refused are given out."""
        if self.error is not None or self.closed:
            return []
        rest = self._rest
        if rest is not None:
            rest += chunk
            if len(rest) < self._wanted:
                return []
            chunk, self._rest = bytes(rest), None
        slices: list[bytes] = []
        begin = at = n_frames = 0
        while not self.closed:
            end = self._frame(chunk, at)
            if not end:
                break
            if self._worthless:
                if at > begin:
                    slices.append(chunk[begin:at])
                begin, n_frames = end, 0
            elif (n_frames := n_frames + 1) == SLICE_FRAMES:
                slices.append(chunk[begin:end])
                begin, n_frames = end, 0
            at = end
        if at > begin:
            slices.append(chunk[begin:at] if at < len(chunk) or begin else chunk)
        if at < len(chunk) and self.error is None and not self.closed:
            self._rest = bytearray(chunk[at:])
        return slices

    def _frame(self, data: bytes, at: int) -> int:
        """Check the frame that begins there. *Returns* its end, 0 when it is refused or not complete."""
        left = len(data) - at
        if left < 2:
            self._wanted = 2
            return 0
        n_bytes, head = data[at + 1] & 0x7F, 2
        if n_bytes > 125:
            head = 4 if n_bytes == 126 else 10
            if left < head:
                self._wanted = head
                return 0
            n_bytes = int.from_bytes(data[at + 2 : at + head], "big")
        opcode = data[at] & 0x0F
        size = fragments = 0
        if opcode >= _CLOSE:
            if n_bytes > 125:
                return self._refuse(PROTOCOL_ERROR, "bad_request", "a control frame has at most 125 bytes")
        elif opcode == _BINARY:
            return self._refuse(UNSUPPORTED, "bad_request", "binary messages are not spoken here")
        else:
            size, fragments = n_bytes, 1
            if opcode != _TEXT:
                size, fragments = size + self._size, fragments + self._fragments
            if size > self.limit:
                return self._refuse(TOO_BIG, "too_large", f"a frame must have at most {self.limit} bytes")
            if fragments > MAX_FRAGMENTS:
                return self._refuse(TOO_BIG, "too_large", f"a message must have at most {MAX_FRAGMENTS} fragments")
        if data[at + 1] & 0x80:
            head += 4
        if left < head + n_bytes:
            self._wanted = head + n_bytes
            return 0
        first = data[at]
        # A pong that nobody here waits for, or a fragment of a message with nothing in it: a peer can make 100,000 of them with a finger.
        self._worthless = first == 0x80 | _PONG or (first == 0 and data[at + 1] == 0x80 and self._under_way)
        if opcode < _CLOSE:
            self._size, self._fragments, self._under_way = size, fragments, not first & 0x80
        elif opcode == _CLOSE:
            self.closed = True
        return at + head + n_bytes

    def _refuse(self, code: int, error: str, message: str) -> int:
        self.code, self.error, self._rest = code, RemoteProtocolError(error, message, fatal=True), None
        return 0


class _Wire(trio.abc.Stream):
    """The stream below trio-websocket, above a transport: guarded on the way in, never waiting on the way out.

    Why it ended, if it did: ``failure`` of the transport below, ``eof`` without a close frame (trio-websocket hands over what it has
    read before), an error of the guard, or ``close_sent`` by trio-websocket, in answer to the peer's.
    """

    __slots__ = ("_handshake", "_lower", "_request", "_slices", "close_sent", "eof", "failure", "guard")

    def __init__(self, lower: SocketTransport, request: bytes, received: bytes) -> None:
        self._lower = lower
        self._request = request
        self.guard = FrameGuard(lower.frame_limit)
        self._slices = self.guard.feed(received) if received else []
        self._handshake: trio.Event | None = trio.Event()
        self.close_sent = False
        self.eof = False
        self.failure: trio.BrokenResourceError | trio.ClosedResourceError | None = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._request:
            await trio.lowlevel.checkpoint()
            request, self._request = self._request, b""
            return request
        if self._handshake is not None:
            await self._handshake.wait()
        if self._slices:
            await trio.lowlevel.checkpoint()
        while not self._slices:
            if self.guard.error is not None:
                await trio.lowlevel.checkpoint()
                return b""
            try:
                chunk = await self._lower.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                self.failure = type(exc)(*exc.args)  # without its traceback, which would keep frames alive
                raise
            if not chunk:
                self.eof = True
                return b""
            self._slices = self.guard.feed(chunk)
        return self._slices.pop(0)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        outbox = self._lower.outbox
        if self.close_sent or outbox.sealed:
            raise trio.ClosedResourceError
        if self._handshake is None and data[0] == 0x80 | _CLOSE:
            self.close_sent = True
            outbox.put_last(bytes(data))
        else:
            outbox.put_always(bytes(data))
        self._lower.flush_nowait()

    def open(self) -> None:
        """The handshake's answer is out: from now on frames go both ways. Before, trio-websocket would take what it reads for HTTP."""
        if self._handshake is not None:
            self._handshake.set()
            self._handshake = None

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Nothing: `WebTransport` closes the transport below."""
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False, kw_only=True)
class WebTransport:
    """One text message is one frame. *Owns* the transport below, and shares its outbox."""

    kind: ClassVar[str] = "web"
    dialect: ClassVar[Dialect] = Dialect.WEB

    _lower: SocketTransport
    _wire: _Wire
    _socket: WebSocketConnection
    _code: int = NORMAL  # what our close frame says
    peer: Peer = attrs.field(init=False)
    outbox: Outbox = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.peer, self.outbox = self._lower.peer, self._lower.outbox

    @property
    def frame_limit(self) -> int:
        return self._wire.guard.limit

    @frame_limit.setter
    def frame_limit(self, n_bytes: int) -> None:
        self._wire.guard.limit = n_bytes

    @property
    def last_received(self) -> float:
        return self._lower.last_received

    @last_received.setter
    def last_received(self, now: float) -> None:
        self._lower.last_received = now

    @property
    def start_pump(self) -> Callable[[Callable[[], Any]], Any] | None:
        return self._lower.start_pump

    @start_pump.setter
    def start_pump(self, start: Callable[[Callable[[], Any]], Any] | None) -> None:
        self._lower.start_pump = start

    async def receive(self) -> list[bytes]:
        """As every transport's; always one frame. [] at the end of the stream, and after the peer's close frame, which has been answered:
        then nothing more reaches it.

        *Raises* RemoteProtocolError, fatal, also for what a WebSocket may not carry.
        """
        if self._lower.closing:
            raise trio.ClosedResourceError
        try:
            message = await self._socket.get_message()
        except ConnectionClosed as closed:
            code, why = (closed.reason.code, closed.reason.reason) if closed.reason is not None else (PROTOCOL_ERROR, None)
            self._raise_ended(code, why)
            return []
        return [message.encode() if isinstance(message, str) else message]  # it is a str: the guard lets no binary message pass

    def _raise_ended(self, code: int, why: str | None) -> None:
        """Why nothing more comes. Returns when the peer has ended in order."""
        wire = self._wire
        if self._lower.closing:
            raise trio.ClosedResourceError
        if wire.failure is not None:
            raise type(wire.failure)(*wire.failure.args)
        if wire.guard.error is not None:
            self._code = wire.guard.code
            raise wire.guard.error
        if wire.close_sent or wire.eof:
            return
        if self.outbox.sealed:
            raise trio.BrokenResourceError("nothing can be said to the peer any more")
        self._code = code
        raise RemoteProtocolError("bad_request", why or "this is no WebSocket", fatal=True)

    def stop_receiving(self) -> None:
        self._lower.stop_receiving()  # trio-websocket's reader ends, as if the line were broken

    def flush_nowait(self) -> None:
        self._lower.flush_nowait()

    async def drain(self) -> None:
        await self._lower.drain()

    def abort(self) -> None:
        self._lower.abort()

    async def aclose(self) -> None:
        if not self._wire.close_sent and not self._lower.closing:
            self._wire.close_sent = True
            code = TRY_AGAIN if self.outbox.cut_code is not None and self._code == NORMAL else self._code
            self.outbox.put_last(close_frame(code))
        await self._lower.aclose()


async def serve(lower: SocketTransport, handler: Callable[[WebTransport], Awaitable[None]], *, key: bytes, received: bytes = b"") -> None:
    """Answer a handshake that was checked, *key* being its ``Sec-WebSocket-Key``; then ``handler(transport)``.

    *received* is what came behind the request. *Raises* what the handler raises, in a group. The caller closes *lower*.
    """
    lower.outbox.lagging_frame = framed(Dialect.WEB, lower.outbox.lagging_frame.rstrip(b"\n"))
    lower.outbox.cut_frame = framed(Dialect.WEB, lower.outbox.cut_frame.rstrip(b"\n"))
    wire = _Wire(lower, _request(key), received)
    async with trio.open_nursery() as nursery:
        request = await wrap_server_stream(nursery, wire, 1, sys.maxsize, None)  # the guard has the limits
        try:
            socket = await request.accept(subprotocol=SUBPROTOCOL)
        except ConnectionClosed:  # the peer is gone
            nursery.cancel_scope.cancel()
            return
        wire.open()
        await handler(WebTransport(lower=lower, wire=wire, socket=socket))
        nursery.cancel_scope.cancel()


def _request(key: bytes) -> bytes:
    """What trio-websocket keeps for as long as the connection lives: no more of the peer's headers than the answer is made of."""
    return (
        b"GET /ws HTTP/1.1\r\nHost: chat\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: " + SUBPROTOCOL.encode() + b"\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
    )
