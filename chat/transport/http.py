"""The web behind the door: the page's files, and the upgrade to a WebSocket at ``/ws``.

Theory. h11 reads one request head, under a deadline and a cap; a new h11 machine for each, since all that we answer are bytes made ready
at the start. A request with a body is answered and the connection closed: its body is nobody's next request. Between requests a
connection may be silent for a few seconds only, so that browsers do not hold the places of their address.

Who may open the WebSocket is decided by the Origin header, which only a browser sends and no script can change: the configured origins,
``https`` with a name of the certificate or ``public_address`` and the port that was connected to, the address that was connected to, and
``localhost`` for who sits at this machine. Never by the Host header: with a name of the attacker's that leads here it would agree
with any Origin. Without an Origin it is no browser, and there is no cookie that somebody else's page could borrow.

*Source*: contract section 1 (one port) and section 7 (web); RFC 9110, 9112; RFC 6455 section 4.2; Fetch (Origin).
"""

import base64
import binascii
import email.utils
import hashlib
import ipaddress
import math
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import attrs
import h11
import trio

from chat.log import get_logger
from chat.transport import websocket
from chat.transport.stream import SocketTransport
from chat.transport.tls import TlsTransport

HEAD_BYTES: Final = 16 * 1024
HEAD_S: Final = 5.0  # for a whole request head (contract section 7: WebSocket handshake 5 s); also the silence between two
REQUESTS: Final = 1000  # on one connection
LAST_S: Final = 0.2  # for a peer to close its side, once the daemon drains: nobody shall hold up who stops or restarts
SLICE_BYTES: Final = 64 * 1024
WS_PATH: Final = "/ws"
INDEX: Final = "index.html"

SELF: Final = "connect-src 'self'"  # also the WebSocket of this origin, says CSP 3 (section 6.7.2.8); Safari before 15.4 wants it named
CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    f"{SELF}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ALWAYS: Final = (
    f"Content-Security-Policy: {CSP}\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "Cross-Origin-Opener-Policy: same-origin\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n"
    "X-Frame-Options: DENY\r\n"
)
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
_REASONS: Final = {
    200: "OK",
    304: "Not Modified",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    426: "Upgrade Required",
    431: "Request Header Fields Too Large",
}
_AUTHORITY: Final = re.compile(rb"(?:[A-Za-z0-9][A-Za-z0-9.-]{0,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_PORTS: Final = {"http": 80, "https": 443}
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})

log = get_logger("transport.http")


# ---------------------------------------------------------------- the page's files


@attrs.frozen(kw_only=True)
class StaticFile:
    """One file as it goes out. ``head`` is the whole head of a 200 but for its first line, Date and Connection."""

    body: bytes = attrs.field(repr=False)
    etag: bytes
    head: bytes = attrs.field(repr=False)
    head_unchanged: bytes = attrs.field(repr=False)  # of a 304

    @classmethod
    def of(cls, name: str, body: bytes) -> "StaticFile":
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        caching = f"ETag: {etag}\r\nCache-Control: no-cache\r\n"  # kept, but asked for each time: an upgrade is seen at once
        media = TYPES.get(Path(name).suffix.lower(), "application/octet-stream")
        head = f"Content-Type: {media}\r\nContent-Length: {len(body)}\r\n{caching}{ALWAYS}"
        return cls(body=body, etag=etag.encode(), head=head.encode(), head_unchanged=(caching + ALWAYS).encode())


def load_static(folder: Path) -> dict[str, StaticFile]:
    """All files below *folder* by their path in a URL; ``/`` is index.html. Hidden ones are left out.

    The paths of requests are only ever looked up here, so none leads anywhere else. *Raises* OSError when one cannot be read.
    """
    files: dict[str, StaticFile] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(part.startswith((".", "__")) for part in name.split("/")):
            files[f"/{name}"] = StaticFile.of(name, path.read_bytes())
    if f"/{INDEX}" in files:
        files["/"] = files[f"/{INDEX}"]
    return files


# ---------------------------------------------------------------- who may open the WebSocket


def _all_origins(origins: Iterable[str]) -> frozenset[str]:
    return frozenset(map(_origin, origins))


def _all_hosts(hosts: Iterable[str]) -> frozenset[str]:
    return frozenset(map(_host, hosts))


@attrs.define(kw_only=True)
class Origins:
    """The allow-list. ``allowed``: exact origins; ``names``: hosts that are allowed over TLS on the port that was connected to.

    ``names`` may be exchanged, when the certificate is.
    """

    allowed: frozenset[str] = attrs.field(default=frozenset(), converter=_all_origins)
    names: frozenset[str] = attrs.field(default=frozenset(), converter=_all_hosts)

    def allow(self, origin: str, *, local: tuple[str, int], secure: bool, loopback: bool) -> bool:
        """*local* is the address and port that the peer connected to, *loopback* whether it is on this machine."""
        origin = _origin(origin)
        if origin in self.allowed:
            return True
        scheme, host, port = _split(origin)
        if scheme != ("https" if secure else "http") or port != local[1]:
            return False
        if host == _host(local[0]) or (loopback and host in _LOCAL):
            return True
        return secure and (host in self.names or f"*.{host.partition('.')[2]}" in self.names)


def _split(origin: str) -> tuple[str, str, int]:
    """Scheme, host and port; ("", "", 0) when it is no origin that a page of ours could have."""
    try:
        parts = urlsplit(origin)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        return "", "", 0
    if scheme not in _PORTS or not host or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return "", "", 0
    return scheme, _host(host), _PORTS[scheme] if port is None else port


def _origin(text: str) -> str:
    """In the form that browsers use: small letters, no default port. What is no origin stays as it is."""
    scheme, host, port = _split(text)
    if not scheme:
        return text
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" + ("" if port == _PORTS[scheme] else f":{port}")


def _host(text: str) -> str:
    text = text.lower().partition("%")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


# ---------------------------------------------------------------- one connection


@attrs.define(kw_only=True)
class Site:
    """What is served. ``handler`` gets the `websocket.WebTransport` of each WebSocket."""

    files: Mapping[str, StaticFile]
    origins: Origins
    handler: Callable[[websocket.WebTransport], Awaitable[None]]
    _stopping: bool = False
    _reading: set[trio.CancelScope] = attrs.Factory(set)  # those who wait for a request
    _ending: set[trio.CancelScope] = attrs.Factory(set)  # those who wait for the peer's end

    def stop(self) -> None:
        """The daemon drains: wait for no more requests, neither of those who are here nor of those who come yet. WebSockets are the
        handler's."""
        self._stopping = True
        for scope in self._reading:
            scope.cancel()
        for scope in self._ending:
            scope.deadline = trio.current_time() + LAST_S

    async def read_head(self, transport: SocketTransport, received: bytes, *, first: bool) -> "tuple[h11.Request, bytes] | None":
        """The next request, and what came behind its head. None: there is none. *Raises* _Refused."""
        with trio.move_on_after(0 if self._stopping else HEAD_S) as in_time:
            self._reading.add(in_time)
            try:
                return await _read_head(transport, received)
            finally:
                self._reading.discard(in_time)
        if first:
            raise _Refused(408)
        return None  # between two requests there is nothing to answer

    async def close(self, transport: SocketTransport) -> None:
        """In order, when the peer has taken what was answered."""
        with trio.move_on_after(transport.outbox.limits.write_deadline_s) as in_time:
            await transport.drain()
        if in_time.cancelled_caught:
            transport.abort()
            return
        with trio.move_on_after(LAST_S if self._stopping else math.inf) as scope:
            self._ending.add(scope)
            try:
                await transport.aclose()
            finally:
                self._ending.discard(scope)


async def serve(site: Site, transport: SocketTransport) -> None:
    """The door's ``web_handler``: answer requests until one becomes a WebSocket or the connection ends.

    *Raises* what the handler raises. The caller closes the socket; where that is to be in order, it has been closed.
    """
    upgrade = await _answer_all(site, transport)
    if upgrade is None:
        await site.close(transport)
        return
    key, received = upgrade
    await websocket.serve(transport, site.handler, key=key, received=received)


@attrs.define
class _Refused(Exception):
    """A request that cannot be answered as it is. The answer ends the connection."""

    status: int
    headers: str = ""


async def _answer_all(site: Site, transport: SocketTransport) -> tuple[bytes, bytes] | None:
    """*Returns* key and what came behind the request when the connection is to become a WebSocket; None when it is to be closed."""
    received = b""
    for n in range(REQUESTS):
        try:
            found = await site.read_head(transport, received, first=not n)
            if found is None:
                return None
            request, received = found
            if _path(request) == WS_PATH:
                return _check_upgrade(site, transport, request), received
            again = _goes_on(request) and n + 1 < REQUESTS
            await _answer(site, transport, request, again)
        except _Refused as refused:
            await _send(transport, _fixed(refused.status, refused.headers))
            return None
        if not again:
            return None
    return None


async def _read_head(transport: SocketTransport, received: bytes) -> tuple[h11.Request, bytes] | None:
    """The next request, and what came behind its head. None: the peer has ended before. *Raises* _Refused."""
    machine = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
    fed = 0
    while True:
        if not received:
            received = await transport.receive_some()
            if not received:
                return None
        part, received = received[: HEAD_BYTES - fed], received[HEAD_BYTES - fed :]
        fed += len(part)
        try:
            machine.receive_data(part)
            event = machine.next_event()
        except h11.RemoteProtocolError as exc:
            raise _Refused(431 if exc.error_status_hint == 431 else 400) from None
        if isinstance(event, h11.Request):
            if event.http_version not in (b"1.0", b"1.1"):
                raise _Refused(400)
            return event, machine.trailing_data[0] + received
        if fed >= HEAD_BYTES:
            raise _Refused(431)


def _path(request: h11.Request) -> str:
    return request.target.decode("ascii", "replace").partition("?")[0]


def _values(request: h11.Request, name: bytes) -> list[bytes]:
    return [value for found, value in request.headers if found == name]


def _tokens(request: h11.Request, name: bytes) -> list[str]:
    """Of a list in one or several headers."""
    return [token.strip() for value in _values(request, name) for token in value.decode("latin-1").split(",")]


def _goes_on(request: h11.Request) -> bool:
    if request.http_version < b"1.1" or "close" in (token.lower() for token in _tokens(request, b"connection")):
        return False
    return not _values(request, b"transfer-encoding") and set(_values(request, b"content-length")) <= {b"0"}


async def _answer(site: Site, transport: SocketTransport, request: h11.Request, again: bool) -> None:
    file = site.files.get(_path(request))
    if file is None:
        await _send(transport, _fixed(404, again=again, bodyless=request.method == b"HEAD"))
    elif request.method not in (b"GET", b"HEAD"):
        await _send(transport, _fixed(405, "Allow: GET, HEAD\r\n", again=again))
    elif _unchanged(request, file):
        await _send(transport, _first_lines(304, again) + _named(file.head_unchanged, request) + b"\r\n")
    else:
        head = _first_lines(200, again) + _named(file.head, request) + b"\r\n"
        await _send(transport, head if request.method == b"HEAD" else head + file.body)


def _named(head: bytes, request: h11.Request) -> bytes:
    """With the WebSocket of the page's own origin named: the authority that the browser itself asked for, and nothing else that it sent."""
    hosts = _values(request, b"host")
    if len(hosts) != 1 or not _AUTHORITY.fullmatch(hosts[0]):
        return head
    return head.replace(SELF.encode(), b"%b ws://%b wss://%b" % (SELF.encode(), hosts[0], hosts[0]), 1)


def _unchanged(request: h11.Request, file: StaticFile) -> bool:
    tags = _tokens(request, b"if-none-match")
    return "*" in tags or file.etag.decode() in (tag.removeprefix("W/") for tag in tags)


def _first_lines(status: int, again: bool) -> bytes:
    connection = "" if again else "Connection: close\r\n"
    return f"HTTP/1.1 {status} {_REASONS[status]}\r\nDate: {email.utils.formatdate(time.time(), usegmt=True)}\r\n{connection}".encode()


def _fixed(status: int, headers: str = "", *, again: bool = False, bodyless: bool = False) -> bytes:
    """An answer that says only what its status says: nothing of the request is reflected."""
    body = f"{status} {_REASONS[status]}\n"
    head = f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\nCache-Control: no-store\r\n{headers}{ALWAYS}\r\n"
    return _first_lines(status, again) + head.encode() + (b"" if bodyless else body.encode())


async def _send(transport: SocketTransport, data: bytes) -> None:
    """*Waits* while the peer is slow; the pump cuts one that takes nothing. *Raises* `trio.ClosedResourceError` then."""
    for at in range(0, len(data), SLICE_BYTES):
        await transport.outbox.wait_below(SLICE_BYTES)
        transport.outbox.put_always(data[at : at + SLICE_BYTES])
        transport.flush_nowait()


# ---------------------------------------------------------------- the upgrade


def _check_upgrade(site: Site, transport: SocketTransport, request: h11.Request) -> bytes:
    """*Returns* the key. *Raises* _Refused: 405, 403 (Origin), 426 (version, or no WebSocket at all), 400."""
    if request.method != b"GET":
        raise _Refused(405, "Allow: GET\r\n")
    _check_origin(site.origins, transport, request)
    if "websocket" not in map(str.lower, _tokens(request, b"upgrade")) or "upgrade" not in map(str.lower, _tokens(request, b"connection")):
        raise _Refused(426, "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")
    if request.http_version < b"1.1" or _values(request, b"transfer-encoding") or not set(_values(request, b"content-length")) <= {b"0"}:
        raise _Refused(400)
    if _values(request, b"sec-websocket-version") != [b"13"]:
        raise _Refused(426, "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")
    if websocket.SUBPROTOCOL not in _tokens(request, b"sec-websocket-protocol"):
        raise _Refused(400)
    keys = _values(request, b"sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        raise _Refused(400)
    return keys[0]


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        return False


def _check_origin(origins: Origins, transport: SocketTransport, request: h11.Request) -> None:
    shown = _values(request, b"origin")
    if not shown:
        return
    fine = len(shown) == 1 and origins.allow(
        shown[0].decode("latin-1"),
        local=transport.local_address,
        secure=isinstance(transport, TlsTransport),
        loopback=transport.peer.loopback,
    )
    if not fine:
        log.info("origin_refused", peer=str(transport.peer), origin=shown[0][:200].decode("latin-1"))
        raise _Refused(403)
