"""A connection of a client, in four ways: a line of JSON a frame over TCP or TLS, a text message a frame over WebSocket, plain or in TLS.

Written from chat/protocol/README.md, RFC 6455 and nothing else: what judges the server shares no code with it. A `Wire` also knows how to
end badly: `abort` (a RST, as from a router that restarts) and `end` (the sending side alone is closed).
"""

import base64
import contextlib
import json
import os
import socket
import ssl
import struct
from functools import lru_cache
from typing import Any, Final

import trio

Frame = dict[str, Any]
KINDS: Final = ("tcp", "tls", "ws", "wss")
NAMES: Final = {"tcp": "TCP", "tls": "TLS", "ws": "WebSocket", "wss": "WebSocket in TLS"}
ENDED: Final = (OSError, EOFError, trio.BrokenResourceError, trio.ClosedResourceError)
CHUNK_BYTES: Final = 65536
NARROW_SEGMENT: Final = 536  # bytes: keeps the server's send buffer small, so that a reader who stops is noticed soon
NARROW_BUFFER: Final = 4096
OPEN_S: Final = 10.0  # for the handshakes


# A record is the same bytes for every member of a channel; parsed once, it leaves the machine to the server. Not to be changed by readers.
@lru_cache(maxsize=4096)
def parsed(frame: bytes) -> Frame:
    message = json.loads(frame)
    if not isinstance(message, dict):
        raise EOFError(f"the server sent {frame[:80]!r}, which is no object")
    return message


class Lines:
    """Frames as lines."""

    def __init__(self) -> None:
        self._rest = b""

    def pack(self, frames: list[bytes]) -> bytes:
        return b"".join(frame + b"\n" for frame in frames)

    def unpack(self, data: bytes) -> tuple[list[bytes], bytes]:
        """*Returns* whole frames, and what must be answered at once."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines, b""

    def farewell(self) -> bytes:
        return b""


class Messages:
    """Frames as text messages of WebSocket. *Raises* EOFError at a close frame."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._parts: list[bytes] = []

    def pack(self, frames: list[bytes]) -> bytes:
        return b"".join(self._frame(0x1, frame) for frame in frames)

    def farewell(self) -> bytes:
        return self._frame(0x8, struct.pack(">H", 1000))

    def unpack(self, data: bytes) -> tuple[list[bytes], bytes]:
        self._rest += data
        found: list[bytes] = []
        answer = b""
        while (whole := self._next()) is not None:
            final, opcode, payload = whole
            if opcode == 0x8:
                if found:
                    self._rest[:0] = b"\x88\x00"  # what came before it first
                    return found, answer
                raise EOFError("closed by the server")
            if opcode == 0x9:
                answer += self._frame(0xA, payload)
            elif opcode in (0x0, 0x1):
                self._parts.append(payload)
                if final:
                    found.append(b"".join(self._parts))
                    self._parts = []
        return found, answer

    def _next(self) -> tuple[bool, int, bytes] | None:
        rest = self._rest
        if len(rest) < 2:
            return None
        length, at = rest[1] & 0x7F, 2
        if length == 126:
            length, at = int.from_bytes(rest[2:4], "big"), 4
        elif length == 127:
            length, at = int.from_bytes(rest[2:10], "big"), 10
        if len(rest) < at or len(rest) < at + length:
            return None
        head, payload = rest[0], bytes(rest[at : at + length])
        del rest[: at + length]
        return bool(head & 0x80), head & 0x0F, payload

    @staticmethod
    def _frame(opcode: int, payload: bytes) -> bytes:
        length = len(payload)
        if length < 126:
            head = struct.pack(">BB", 0x80 | opcode, 0x80 | length)
        elif length < 65536:
            head = struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, length)
        else:
            head = struct.pack(">BBQ", 0x80 | opcode, 0x80 | 127, length)
        mask = os.urandom(4)
        stretched = (mask * (length // 4 + 1))[:length]
        masked = (int.from_bytes(payload, "big") ^ int.from_bytes(stretched, "big")).to_bytes(length, "big")
        return head + mask + masked


class Wire:
    """An open connection. One task sends, one receives. *Owns* its socket."""

    def __init__(self, kind: str, bottom: trio.SocketStream, stream: trio.abc.Stream) -> None:
        self.kind = kind
        self.address: tuple[str, int] = bottom.socket.getsockname()[:2]
        self._bottom = bottom
        self._stream = stream
        self._framing: Lines | Messages = Messages() if kind in ("ws", "wss") else Lines()
        self._sending = trio.Lock()  # a pong may have to go out while a text does

    async def send(self, *frames: Frame) -> None:
        """*Raises* what is in `ENDED`. *Waits* as long as the server does not read."""
        data = self._framing.pack([json.dumps(frame, ensure_ascii=False).encode() for frame in frames])
        async with self._sending:
            await self._stream.send_all(data)

    async def receive(self) -> list[Frame]:
        """At least one frame; the empty list at the end. *Raises* what is in `ENDED`."""
        while data := await self._stream.receive_some(CHUNK_BYTES):
            frames, answer = self._framing.unpack(bytes(data))
            if answer:
                async with self._sending:
                    await self._stream.send_all(answer)
            if frames:
                return list(map(parsed, frames))
        return []

    async def end(self) -> None:
        """Close the sending side: what was sent is still answered. Over TLS and WebSocket as their own layers do not say goodbye alike,
        a close frame or a bare FIN."""
        if farewell := self._framing.farewell():
            async with self._sending:
                await self._stream.send_all(farewell)
        else:
            self._bottom.socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """RST: what is on its way is lost."""
        with contextlib.suppress(*ENDED):
            self._bottom.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._bottom.socket.close()

    def close(self) -> None:
        """FIN, and nobody listens any more."""
        self._bottom.socket.close()


async def open_wire(kind: str, port: int, *, source: str = "127.0.0.1", narrow: bool = False) -> Wire:
    """Connect to *port* of this machine from *source*, one of its loopback addresses. *Raises* what is in `ENDED`.

    *narrow*: with the smallest buffers, so that not to read is noticed at the other end.
    """
    sock = trio.socket.socket()
    try:
        with trio.fail_after(OPEN_S):
            if narrow:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW_BUFFER)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, NARROW_SEGMENT)
            await sock.bind((source, 0))
            await sock.connect(("127.0.0.1", port))
            bottom = trio.SocketStream(sock)
            stream: trio.abc.Stream = bottom
            if kind in ("tls", "wss"):
                secured = trio.SSLStream(bottom, _trusting(), https_compatible=True)
                await secured.do_handshake()
                stream = secured
            if kind in ("ws", "wss"):
                await _upgrade(stream, port)
            return Wire(kind, bottom, stream)
    except trio.TooSlowError:
        sock.close()
        raise EOFError("no connection in time") from None
    except BaseException:
        sock.close()
        raise


def _trusting() -> ssl.SSLContext:
    """The certificate is not what is judged here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _upgrade(stream: trio.abc.Stream, port: int) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    await stream.send_all(
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat.v1\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = await stream.receive_some(1)  # nothing of the first frame
        if not byte:
            raise EOFError("the server closed in the handshake of the WebSocket")
        head += byte
    if b" 101 " not in head.partition(b"\r\n")[0]:
        raise EOFError(f"no WebSocket: {head[:80]!r}")
