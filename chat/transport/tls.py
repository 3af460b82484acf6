"""Frames as lines under TLS, over the socket of `chat.transport.stream`.

Theory. TLS is Trio's SSLStream over `_Kernel`, a stream whose ``send_all`` never waits: ciphertext that the kernel does not take is kept
for the same pump. A stream that never waits would hide a slow reader, so plain bytes are encrypted only while less than
`CIPHER_BYTES` of ciphertext wait, and plain and cipher bytes both count in the outbox. The reader may send as well (a key
update, an alert); that counts too. `encrypt` is called by the flusher task alone (`FlushSet.run`).
"""

import contextlib
import socket
import ssl
import types
from collections.abc import Coroutine, Generator
from typing import Any, ClassVar, Final

import attrs
import outcome
import trio
from trio.lowlevel import checkpoint

from chat.protocol.framing import LineFramer
from chat.transport.base import Peer
from chat.transport.outbox import Outbox
from chat.transport.stream import SocketTransport

CIPHER_BYTES: Final = 64 * 1024


class _Kernel(trio.abc.Stream):
    """The stream below SSLStream: ``send_all`` gives the kernel what it takes, leaves the rest to the pump, and never waits."""

    def __init__(self, received: bytes) -> None:
        self.received = received
        self.owner: TlsTransport | None = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self.received:
            await checkpoint()
            data, self.received = self.received, b""
            return data
        if self.owner is None:
            raise trio.ClosedResourceError
        return await self.owner.receive_cipher()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.owner is None:
            raise trio.ClosedResourceError
        self.owner.send_cipher(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await checkpoint()

    async def aclose(self) -> None:
        """Nothing: the transport closes the socket, when the close_notify is out."""
        await checkpoint()


@attrs.define(eq=False, kw_only=True)
class TlsTransport(SocketTransport):
    """Frames as lines under TLS. Made by `accept_tls`, which has shaken hands."""

    kind: ClassVar[str] = "tls"

    _kernel: _Kernel
    _tls: "trio.SSLStream[_Kernel]"
    _cipher: list[bytes] = attrs.Factory(list)  # made after _unsent and not sent yet
    _cipher_bytes: int = 0  # of both
    _queued: bool = False

    def __attrs_post_init__(self) -> None:
        self.outbox.carrier = self
        self._kernel.owner = self

    async def _read(self) -> bytes:
        if self._deaf:
            raise trio.ClosedResourceError
        data = await self._tls.receive_some()
        self._eof = not data
        return bytes(data)  # it is bytes; no copy

    async def receive_cipher(self) -> bytes:
        if self._unsent is not None and self.start_pump is None and not self._pumping:
            self._pumping = True  # in a handshake: the peer waits for these bytes, and nobody else sends them
            await self._pump()
        return await super()._read()

    def send_cipher(self, data: bytes) -> None:
        """Give the kernel what it takes and keep the rest. *Raises* BrokenResourceError when the peer is gone."""
        if self._closed or self._broken:
            raise trio.BrokenResourceError("the peer is gone")
        if self._unsent is not None:
            self._cipher.append(data)
            left = len(data)
        else:
            n = self._send(data)
            if n < 0:
                raise trio.BrokenResourceError("the peer is gone")
            left = len(data) - n
            if not left:
                return
            self._unsent = memoryview(data)[n:]
        self._cipher_bytes += left
        self.outbox.held(left)
        self._stuck()

    def flush_nowait(self) -> None:
        if self.outbox.chunks and not self._queued and self._cipher_bytes < CIPHER_BYTES:
            self._queued = True
            self.outbox.flush_set.encrypt_soon(self)
        if self._unsent is not None:
            self._stuck()

    async def encrypt(self) -> bool:
        """Encrypt one slice. Called by the flusher task alone. *Returns* whether to call it again: more waits, and has room.

        *Waits* for nothing but the reader, should that be sending a key update just now. Is no checkpoint.
        """
        self._queued = False
        outbox = self.outbox
        if self._closed or not outbox.chunks or self._cipher_bytes >= CIPHER_BYTES:
            return False
        data = outbox.take()
        await _without_checkpoints(self._tls.send_all(data))
        if self._closed or self._broken:
            return False
        outbox.sent(len(data))
        self._queued = bool(outbox.chunks) and self._cipher_bytes < CIPHER_BYTES
        return self._queued

    def _push(self) -> int:
        n = super()._push()
        if not self._broken:
            self._cipher_bytes -= n
        return n

    def _next_unsent(self) -> memoryview | None:
        if not self._cipher:
            return None
        data = b"".join(self._cipher)
        self._cipher.clear()
        return memoryview(data)

    def _forget(self) -> None:
        super()._forget()
        self._cipher.clear()
        self._cipher_bytes = 0

    async def _end(self) -> None:
        """close_notify."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._tls.aclose()

    def abort(self) -> None:
        """Breaks the circles too: the collector counts objects, and would look for OpenSSL's 45 KB of each connection much too late."""
        super().abort()
        self._kernel.owner = None
        with contextlib.suppress(AttributeError):  # trio's own: it remembers how to shake hands, though it has been done
            del self._tls._handshook._afn


def _what_it_yields(step: Coroutine[Any, Any, None]) -> Any:
    with contextlib.closing(step):
        return step.send(None)


_CHECKPOINT: Final = _what_it_yields(trio.lowlevel.cancel_shielded_checkpoint())  # noqa: ASYNC105


@types.coroutine
def _without_checkpoints(work: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
    """Await *work*, but answer its checkpoints at once instead of passing through the scheduler.

    SSLStream.send_all takes a lock, and with it a checkpoint: 10-25 µs for each recipient of a message, three times what the
    encryption costs. What else *work* may wait for is passed on, so that should Trio's checkpoints look different one day, this
    is merely slow again.
    """
    answer = None
    while True:
        try:
            wanted = work.send(answer)
        except StopIteration:
            return
        answer = outcome.Value(None) if wanted is _CHECKPOINT else (yield wanted)


async def accept_tls(
    context: ssl.SSLContext, hello: bytes, *, sock: socket.socket, peer: Peer, outbox: Outbox, framer: LineFramer
) -> TlsTransport:
    """Shake hands as the server, *hello* being what was read already.

    *Owns* the socket from the call on. *Raises* `trio.BrokenResourceError` when the peer does not speak TLS, or not ours.
    *Waits* for the peer. *If cancelled*, or when it fails, the socket is closed.
    """
    kernel = _Kernel(hello)
    tls = trio.SSLStream(kernel, context, server_side=True)
    transport = TlsTransport(sock=sock, peer=peer, outbox=outbox, framer=framer, kernel=kernel, tls=tls)
    try:
        await tls.do_handshake()
    except BaseException:
        transport.abort()
        raise
    return transport
