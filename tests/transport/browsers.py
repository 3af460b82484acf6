"""Clients of the web: HTTP by hand, and a WebSocket that can break every rule. They speak over the clients of `peers`."""

import contextlib
import functools
import re

import attrs
import pytest

from chat.errors import RemoteProtocolError
from chat.transport import http
from chat.transport.base import Dialect, framed
from tests.transport.peers import TcpClient, open_server

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
TEXT, BINARY, CLOSE, PING, PONG, MORE = 0x1, 0x2, 0x8, 0x9, 0xA, 0x0
FILES = {
    "index.html": b"<!doctype html><title>chat</title>",
    "js/main.js": b"console.log(1)\n",
    "style.css": b"a{}\n",
    "big.txt": bytes(range(256)) * 8192,  # 2 MiB: more than an outbox may hold
}


def files():
    return {"/" + name: http.StaticFile.of(name, body) for name, body in FILES.items()} | {
        "/": http.StaticFile.of("index.html", FILES["index.html"])
    }


def site(handler, **origins):
    return http.Site(files=files(), origins=http.Origins(**origins), handler=handler)


async def nobody(transport):
    raise AssertionError("only the web is served here")


def open_web(handler=nobody, *, web=None, **options):
    """A server whose WebSockets *handler* gets; *web* is the `http.Site`, if not that one."""
    return open_server(nobody, web_handler=functools.partial(http.serve, web or site(handler)), **options)


def upgrade_request(*, path="/ws", method="GET", version="HTTP/1.1", **changes):
    """The handshake of a browser; a header given as None is left out, one given as a list is sent several times."""
    headers = {
        "Host": "chat.test",
        "Upgrade": "websocket",
        "Connection": "keep-alive, Upgrade",
        "Sec_WebSocket_Key": KEY.decode(),
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Protocol": "chat.v1",
        **changes,
    }
    lines = [f"{method} {path} {version}"]
    for name, value in headers.items():
        lines += [f"{name.replace('_', '-')}: {one}" for one in (value if isinstance(value, list) else [value]) if one is not None]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(opcode, payload=b"", *, fin=True, masked=True, rsv=0):
    """A client's frame."""
    head = bytes([fin << 7 | rsv << 4 | opcode])
    size, mask = len(payload), masked << 7
    if size < 126:
        head += bytes([mask | size])
    elif size < 65536:
        head += bytes([mask | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([mask | 127]) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    key = b"\x5a\x13\xc4\x87"  # always the same: frames stand in the names of tests
    stretched = (key * (size // 4 + 1))[:size]
    return head + key + (int.from_bytes(payload, "big") ^ int.from_bytes(stretched, "big")).to_bytes(size, "big")


def text(payload):
    return frame(TEXT, payload)


def close(code=1000, reason=b""):
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


def first_frame(data):
    """Of the server's, as (opcode, payload, size); None while it is not complete. It must be whole, final and not masked."""
    if len(data) < 2:
        return None
    assert data[0] & 0xF0 == 0x80
    assert not data[1] & 0x80
    size, at = data[1], 2
    if size > 125:
        at = 4 if size == 126 else 10
        size = int.from_bytes(data[2:at], "big")
    return (data[0] & 15, data[at : at + size], at + size) if len(data) >= at + size else None


@attrs.frozen
class Answer:
    status: int
    headers: dict
    body: bytes


class Browser:
    """Reads what a client of `peers` receives, as answers or as frames."""

    def __init__(self, client):
        self.client = client
        self.send = client.send

    async def _more(self):
        data = await self.client.receive_some()
        self.client.buffer += data
        return bool(data)

    async def answer(self, *, head=False):
        """The next answer, None at the end. *head*: it has no body, whatever its length says."""
        client = self.client
        while b"\r\n\r\n" not in client.buffer:
            if not await self._more():
                assert not client.buffer
                return None
        lines, _, client.buffer = client.buffer.partition(b"\r\n\r\n")
        first, *lines = lines.decode().split("\r\n")
        status = int(re.fullmatch(r"HTTP/1\.1 (\d{3}) [\w ]+", first)[1])
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        assert len(headers) == len(lines), "a header twice"
        size = 0 if head or status in (101, 304) else int(headers["content-length"])
        while len(client.buffer) < size:
            assert await self._more(), "cut off"
        body, client.buffer = client.buffer[:size], client.buffer[size:]
        return Answer(status, headers, body)

    async def ask(self, path="/", method="GET", **headers):
        fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in {"Host": "x", **headers}.items())
        await self.send(f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode())
        return await self.answer(head=method == "HEAD")

    async def frame(self):
        """The server's next frame as (opcode, payload); None at the end."""
        client = self.client
        while True:
            if (found := first_frame(client.buffer)) is not None:
                opcode, payload, size = found
                client.buffer = client.buffer[size:]
                return opcode, payload
            if not await self._more():
                assert not client.buffer, "half a frame"
                return None

    async def message(self):
        opcode, payload = await self.frame()
        assert opcode == TEXT
        return payload

    async def closing(self):
        """All that comes until the end: messages, then the code of the close frame (None: there was none, or the line broke)."""
        messages, code = [], None
        with contextlib.suppress(Exception):
            while found := await self.frame():
                assert code is None, "something came after the close frame"
                if found[0] == CLOSE:
                    code = int.from_bytes(found[1][:2], "big")
                elif found[0] == TEXT:
                    messages.append(found[1])
        return messages, code


@contextlib.asynccontextmanager
async def open_browser(server, kind="tcp", *, say=b"G", **options):
    """A connection over which HTTP is about to be spoken: *say* is out already."""
    async with await server.connect(kind, say=say, **options) as client:
        yield Browser(client)


@contextlib.asynccontextmanager
async def open_socket(server, kind="tcp", *, receive_buffer=None, behind=b"", **changes):
    """A WebSocket that is open. *behind* comes in the same packet as the request."""
    async with open_browser(server, kind, say=upgrade_request(**changes) + behind, receive_buffer=receive_buffer) as browser:
        answer = await browser.answer()
        assert answer.status == 101, answer
        assert answer.headers["sec-websocket-accept"].encode() == ACCEPT
        assert answer.headers["sec-websocket-protocol"] == "chat.v1"
        assert "sec-websocket-extensions" not in answer.headers
        yield browser


class WebClient(TcpClient):
    """A WebSocket for the contract suite of transports: a line is a message, and what is not a whole line yet a fragment of one.

    Its end is a close frame. It does not answer the server's.
    """

    unfinished = False  # a fragment was sent

    async def start(self) -> None:
        self.raw = b""
        await self.stream.send_all(upgrade_request())
        while b"\r\n\r\n" not in self.raw:
            self.raw += await self.stream.receive_some()
        head, _, self.raw = self.raw.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")

    async def send(self, data):
        *lines, rest = data.split(b"\n")
        out = b""
        for n, piece in enumerate([*lines, rest]):
            if n < len(lines) or piece:
                out += frame(MORE if self.unfinished else TEXT, piece, fin=n < len(lines))
                self.unfinished = n == len(lines)
        await self.stream.send_all(out)

    async def receive_some(self):
        """Whole messages as lines; b"" at the close frame, or at an end without one."""
        while True:
            lines = b""
            while (found := first_frame(self.raw)) is not None:
                opcode, payload, size = found
                if opcode == CLOSE:
                    if not lines:
                        return b""
                    break
                self.raw = self.raw[size:]
                lines += payload + b"\n"
            if lines:
                return lines
            data = await self.stream.receive_some()
            if not data:
                return b""
            self.raw += data

    async def end(self):
        await self.stream.send_all(close())


async def serve_echo(transport):
    """As the connection does it: what is refused is answered, then the socket is closed."""
    try:
        while frames := await transport.receive():
            for payload in frames:
                if payload == b"raise":
                    raise ValueError("on purpose")
                if payload == b"bye":
                    return await transport.aclose()
                transport.outbox.put_always(framed(Dialect.WEB, payload))
            transport.flush_nowait()
    except RemoteProtocolError as error:
        transport.outbox.put_always(framed(Dialect.WEB, error.code.encode()))
        transport.outbox.seal()
    await transport.aclose()


@pytest.fixture(params=["tcp", "tls"])
def below(request):
    return request.param
