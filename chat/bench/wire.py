"""A client's connection, no more than a load needs: bytes over TCP, TLS or a WebSocket, never waiting once it is open."""

import json
import os
import socket
import ssl
from typing import Any, Final

OPEN_S: Final = 30.0
CHUNK: Final = 256 * 1024


class Gone(Exception):
    """The server closed the connection."""


def tls_context() -> ssl.SSLContext:
    """The load generator trusts whoever answers: it measures, it has no secrets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Wire:
    """*Waits* (blocking) while it is being opened. *Raises* OSError, Gone."""

    __slots__ = ("_out", "_rest", "secure", "sock", "web")

    def __init__(self, host: str, port: int, transport: str, context: ssl.SSLContext | None) -> None:
        self.web = transport == "web"
        self.secure = context is not None
        self._rest = b""
        self._out = b""
        sock: socket.socket = socket.create_connection((host, port), OPEN_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            sock = context.wrap_socket(sock, server_hostname=host)
        self.sock = sock
        if self.web:
            self._upgrade(host, port)
        sock.setblocking(False)

    def _upgrade(self, host: str, port: int) -> None:
        scheme = "https" if self.secure else "http"
        at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [
            "GET /ws HTTP/1.1",
            f"Host: {at}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: Y2hhdC1iZW5jaC1rZXkhIQ==",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Protocol: chat.v1",
            f"Origin: {scheme}://{at}",
        ]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.sock.recv(4096)
            if not data:
                raise Gone("the server closed the connection while it became a WebSocket")
            head += data
        if not head.startswith(b"HTTP/1.1 101"):
            raise Gone("the server refused the WebSocket: " + head.split(b"\r\n", 1)[0].decode("latin-1"))
        self._rest = head.partition(b"\r\n\r\n")[2]

    def fileno(self) -> int:
        return self.sock.fileno()

    # ------------------------------------------------------------ out

    def frame(self, payload: bytes) -> bytes:
        if not self.web:
            return payload + b"\n"
        n = len(payload)  # masked with zeros, which leaves the payload as it is
        head = bytes((0x81, 0x80 | n)) if n < 126 else bytes((0x81, 0xFE)) + n.to_bytes(2, "big")
        return head + b"\0\0\0\0" + payload

    def send(self, data: bytes) -> None:
        """Send what the kernel takes, keep the rest for `more`. *Raises* Gone."""
        if self._out:
            self._out += data
            return
        self._out = data
        self.more()

    def more(self) -> bool:
        """Send what is left. *Returns* whether something still is."""
        while self._out:
            try:
                n = self.sock.send(self._out)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return True
            except OSError as error:
                raise Gone(str(error)) from error
            self._out = self._out[n:]
        return False

    def ask(self, **message: Any) -> None:
        self.send(self.frame(json.dumps({key: value for key, value in message.items() if value is not None}).encode()))

    # ------------------------------------------------------------ in

    def receive(self) -> bytes:
        """All that is there. *Raises* Gone at its end."""
        chunks = []
        while True:
            try:
                data = self.sock.recv(CHUNK)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except OSError as error:
                raise Gone(str(error)) from error
            if not data:
                raise Gone("the server closed the connection")
            chunks.append(data)
            if not self.secure and len(data) < CHUNK:
                break
        return b"".join(chunks)

    def frames(self) -> list[bytes]:
        """The complete frames of what has come, one by one: for the login, which has few."""
        data = self._rest + self.receive()
        if not self.web:
            *lines, self._rest = data.split(b"\n")
            return lines
        found = []
        while len(data) >= 2:
            n, head = data[1] & 0x7F, 2
            if n == 126:
                n, head = int.from_bytes(data[2:4], "big"), 4
            elif n == 127:
                n, head = int.from_bytes(data[2:10], "big"), 10
            if len(data) < head + n:
                break
            if data[0] & 0x0F == 1:
                found.append(data[head : head + n])
            data = data[head + n :]
        self._rest = data
        return found

    def bulk(self) -> bytes:
        """What has come up to the end of a message, as it came: many messages are looked through at once.

        On a WebSocket the few bytes between messages stay in it. The end of a message is found by the next one's beginning, or by the
        brace that the data end with; a frame with braces within (there is none among messages and acks) may be given out in two pieces.
        """
        data = self._rest + self.receive()
        if not self.web:
            cut = data.rfind(b"\n") + 1
        elif data.endswith(b"}"):
            cut = len(data)
        else:
            cut = max(0, data.rfind(b'{"type":"'))
        self._rest = data[cut:]
        return data[:cut]

    def close(self) -> None:
        """At once; the session stays."""
        self.sock.close()


def random_name(length: int = 6) -> str:
    """For the accounts of a run: letters that look like nothing else."""
    return "".join("bcdfghjkmnpqrstvwxz"[byte % 19] for byte in os.urandom(length))
