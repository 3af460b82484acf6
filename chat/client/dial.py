"""One connection to a server: TCP or TLS, the pin checked before the first byte of ours, then frames in and out.

TLS always, but for a server on loopback of which neither the join line nor an earlier use names a fingerprint. The certificate is
nobody's word but its own, so what counts is its key: the SHA-256 of the public key, base64url without padding (the *pin*), which a
renewed certificate keeps.

*Source*: RFC 7469, 2.4 for the pin.
"""

import base64
import hashlib
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chat.client.target import Target
from chat.errors import ChatError, RemoteProtocolError
from chat.protocol.connection import Connection
from chat.protocol.framing import LineFramer
from chat.protocol.states import Role

CHUNK_BYTES: Final = 64 * 1024
FRAME_BYTES: Final = 8 * 1024 * 1024  # of the server's frames; a history page is 256 KiB and one record
CONNECT_S: Final = 15
CLOSE_S: Final = 2


class UnknownServer(Exception):
    """A server used for the first time, with nothing to check its key against."""

    def __init__(self, target: Target, fingerprint: str) -> None:
        super().__init__(
            f"{target.key} is new here and its fingerprint unchecked: {fingerprint}\n"
            f"If that is the one its owner tells you, connect with {target.key}#{fingerprint}"
        )
        self.target = target
        self.fingerprint = fingerprint


class UnknownHost(Exception):
    """The name of a server that was never reached does not resolve: most likely it is mistyped."""

    def __init__(self, target: Target, why: str) -> None:
        super().__init__(f"{target.host}: no such name is known here ({why}); look at the line again, or is this machine offline?")


class PinChanged(Exception):
    """The server's key is not the one expected: another server answers here, or somebody in between."""

    def __init__(self, target: Target, expected: str, fingerprint: str) -> None:
        super().__init__(
            f"{target.key} SHOWS ANOTHER KEY THAN BEFORE. Somebody may be listening in; nothing was sent.\n"
            f"  expected {expected}\n  shown    {fingerprint}\n"
            "If its owner made a new key, get the new join line from them."
        )
        self.expected = expected
        self.fingerprint = fingerprint


class Wire:
    """Frames over a stream. *Owns* the stream."""

    def __init__(self, stream: trio.abc.Stream, fingerprint: str | None) -> None:
        self._stream = stream
        self._framer = LineFramer(FRAME_BYTES)
        self._protocol = Connection(Role.CLIENT)
        self._pushed_back: list[Any] = []
        self.fingerprint = fingerprint
        self.ended = False  # the server said its last word

    async def receive(self) -> list[Any]:
        """What arrived: notices, and in the place of what was none the RemoteProtocolError. With `ended` it may be nothing.

        *Raises* RemoteProtocolError (fatal), trio.BrokenResourceError, trio.ClosedResourceError, OSError.
        """
        if self._pushed_back:
            notices, self._pushed_back = self._pushed_back, []
            return notices
        while True:
            data = await self._stream.receive_some(CHUNK_BYTES)
            if not data:
                self.ended = True
                return []
            if frames := self._framer.feed(bytes(data)):
                notices = self._protocol.receive(frames)
                self.ended = self._protocol.closed
                return notices

    def push_back(self, notices: list[Any]) -> None:
        """The next `receive` gives these out again."""
        self._pushed_back = notices

    async def send(self, messages: Sequence[Any]) -> None:
        """*Raises* trio.BrokenResourceError, also after the server's last word. *If cancelled*: the stream is broken."""
        if self._protocol.closed:  # its reader knows, and ends the writer, which may be on its way here just then
            raise trio.BrokenResourceError("the server has closed")
        await self._stream.send_all(b"".join(self._protocol.send(message) + b"\n" for message in messages))

    async def aclose(self) -> None:
        with trio.move_on_after(CLOSE_S) as scope:
            scope.shield = True
            with suppress(OSError, trio.BrokenResourceError, trio.BusyResourceError):
                await self._stream.aclose()
                return
        await trio.aclose_forcefully(self._stream)


async def dial(target: Target, pin: str | None) -> Wire:
    """Connect; with *pin* only to the server that has it. Else `Wire.fingerprint` is for the caller to judge.

    *Raises* `PinChanged`; OSError and ssl.SSLError as OSError where there is no connection.
    """
    with trio.move_on_after(CONNECT_S):
        tcp = await trio.open_tcp_stream(target.host, target.port)
        try:
            tcp.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, True)
            if pin is None and target.loopback:
                return Wire(tcp, None)
            tls = trio.SSLStream(tcp, _context(), server_hostname=target.host)
            try:
                await tls.do_handshake()
            except trio.BrokenResourceError as error:
                raise ConnectionError(f"no TLS connection: {error.__cause__ or error}") from error
            fingerprint = spki_fingerprint(tls.getpeercert(True))
            if pin is not None and fingerprint != pin:
                raise PinChanged(target, pin, fingerprint)
            return Wire(tls, fingerprint)
        except BaseException:
            await trio.aclose_forcefully(tcp)
            raise
    raise TimeoutError(f"no connection within {CONNECT_S} s")


def spki_fingerprint(der: bytes) -> str:
    """The pin of a certificate."""
    key = x509.load_der_x509_certificate(der).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def broken(error: BaseException) -> str:
    """Why a connection ended, for a person."""
    match error:
        case ConnectionRefusedError():
            return "nobody answers there"
        case RemoteProtocolError() | ChatError():
            return error.message
        case BaseExceptionGroup():  # one for each address of the name
            return broken(error.exceptions[0])
        case OSError() if error.strerror:
            return error.strerror
        case _ if error.__cause__ is not None:
            return broken(error.__cause__)
        case _:
            return str(error) or "the connection broke"


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the pin is checked instead, before anything is sent
    return context
