"""What every transport is: an ordered stream of frames in, an `Outbox` out, and two ways to end.

A transport never waits for its peer on the way out. Who has bytes for it puts them into ``transport.outbox`` (a plain call) and
calls ``flush_nowait`` (or `FlushSet.flush`, for many): one non-blocking send of all that waits. Where the kernel takes less, a
pump task starts, empties the rest and ends. So an idle connection is one task, its reader, and
nothing else.

TCP is in `chat.transport.stream`, TLS in `chat.transport.tls`. A WebSocket (`chat.transport.websocket`) is a transport over one of
those two: it reads with `receive_some` of the lower one, has ``dialect = Dialect.WEB`` and shares the lower one's outbox.
"""

import enum
import ipaddress
from collections.abc import Callable
from typing import Any, Protocol

import attrs

from chat.transport.outbox import Outbox


class Dialect(enum.Enum):
    """How a frame becomes bytes on the wire. One encoded notice is framed once per dialect, not once per recipient."""

    LINES = "lines"
    WEB = "web"


def framed(dialect: Dialect, payload: bytes) -> bytes:
    """*payload* (one JSON object, no newline) as bytes of that dialect.

    *Source*: contract section 1; RFC 6455 section 5.2 (WEB: one final, unmasked text frame).
    """
    if dialect is Dialect.LINES:
        return payload + b"\n"
    size = len(payload)
    if size < 126:
        return b"\x81" + size.to_bytes(1, "big") + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


@attrs.frozen(kw_only=True)
class Peer:
    """Who is at the other end. ``prefix`` is what limits count by: the IPv4 address, or the /64 of an IPv6 one."""

    host: str
    port: int
    prefix: str
    loopback: bool

    @classmethod
    def of(cls, address: tuple[Any, ...]) -> "Peer":
        """From a socket address. An IPv4 address mapped into IPv6 counts as the IPv4 address that it is."""
        host, port = str(address[0]).partition("%")[0], int(address[1])
        ip = ipaddress.ip_address(host)
        if isinstance(ip, ipaddress.IPv6Address):
            if ip.ipv4_mapped is None:
                prefix = str(ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))
                return cls(host=str(ip), port=port, prefix=prefix, loopback=ip.is_loopback)
            ip = ip.ipv4_mapped
        host = str(ip)
        return cls(host=host, port=port, prefix=host, loopback=ip.is_loopback)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Transport(Protocol):
    """One connection. Its contract suite is tests/contracts/test_transport.py.

    One task reads. Anybody may put into the outbox, flush and abort. `drain` and `aclose` wait under the caller's deadline.
    """

    kind: str  # "tcp", "tls" or "web"
    dialect: Dialect
    peer: Peer
    outbox: Outbox
    last_received: float  # Trio's clock, seconds: when bytes last came from the peer. Whoever does not read just now may set it
    start_pump: Callable[[Callable[[], Any]], Any] | None
    """How a pump is started: a ``start_soon``. The door sets one that starts it in the nursery of the connections; `abort`
    takes it back. While it is None, what the kernel does not take waits for `drain`."""

    @property
    def frame_limit(self) -> int:
        """Bytes of the longest frame, without its newline. Settable: the connection raises it after login."""

    @frame_limit.setter
    def frame_limit(self, n_bytes: int) -> None: ...

    async def receive(self) -> list[bytes]:
        """The next complete frames, without their newlines: at least one, and (TCP, TLS) all that one chunk held.

        *Returns* [] when the peer has ended its side; what it had sent whole was returned before, an unfinished line is dropped.
        *Raises* `RemoteProtocolError` (``too_large``, fatal) for a longer frame, after the frames before it were returned;
        `trio.BrokenResourceError` when the peer is gone without an orderly end; `trio.ClosedResourceError` after, or because of,
        `abort`, `aclose` and `stop_receiving` on this side.
        *Waits* for the peer alone. *If cancelled* nothing is lost.
        """

    def stop_receiving(self) -> None:
        """Read nothing more: `receive` raises `trio.ClosedResourceError`, also in a task that waits there. All else goes on. Idempotent."""

    def flush_nowait(self) -> None:
        """Give the kernel what waits in the outbox, in one send; what it does not take is the pump's. Never raises."""

    async def drain(self) -> None:
        """Wait until all that was put is in the kernel, or lost with the connection. *If cancelled* nothing is lost."""

    async def aclose(self) -> None:
        """End in order: no more puts, what waits goes out, the peer sees an end, the descriptor is closed. Idempotent.

        *Waits* at most the write deadline, then two seconds for the peer to end its side. *If cancelled*: `abort`.
        """

    def abort(self) -> None:
        """End now: what waits is lost, the descriptor is closed, a reader that waits gets `trio.ClosedResourceError`. Idempotent."""
