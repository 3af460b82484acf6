"""Many members of one channel on raw sockets in one process, cheap enough that the server is what is measured.

A member is a non-blocking socket in one epoll set; what arrives is cut into lines and the seqs of `message` notices are looked for with a
search for bytes. A thread of its own, so that whoever sends is not held up.
"""

import json
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator

from tests.e2e.guests import PASSWORD
from tests.e2e.server import Server

SEQ = re.compile(rb'"type":"message"[^\n]*?"seq":(\d+)')


class Member:
    """Opens, registers and then only listens. ``seqs``: of the messages it was told, in order; ``at``: when (monotonic seconds)."""

    def __init__(self, server: Server, name: str, *, tls: bool = False, receive_bytes: int = 0) -> None:
        self.name = name
        sock = socket.socket()
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)  # before connecting: it is the window
        sock.settimeout(30)
        sock.connect(("127.0.0.1", server.port))
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            sock = context.wrap_socket(sock)
        self.sock = sock
        self.rest = b""
        self.others: list[dict] = []  # what else was said
        self.seqs: list[int] = []
        self.at: list[float] = []
        self.opened: dict = {}

    def register(self, how: str = "register") -> None:
        hello = {"type": "hello", "protocol": 1, "client": "audience"}
        self.send(hello, {"type": how, "id": 1, "username": self.name, "password": PASSWORD})
        while not self.opened:
            chunk = self.sock.recv(65536)
            assert chunk, f"{self.name} was closed; it was told {self.rest!r}"
            self.rest += chunk
            *lines, self.rest = self.rest.split(b"\n")
            for line in lines:
                message = json.loads(line)
                assert message["type"] != "error", message
                if message["type"] == "session":
                    self.opened = message

    def send(self, *messages: dict) -> None:
        self.sock.sendall(b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    def read(self) -> bool:
        """What is there now. Returns False at the end of the stream."""
        while True:
            try:
                chunk = self.sock.recv(262144)
            except (BlockingIOError, ssl.SSLWantReadError):
                return True
            except OSError:
                return False
            if not chunk:
                return False
            now = time.monotonic()
            end = chunk.rfind(b"\n") + 1
            whole, self.rest = (self.rest + chunk[:end], chunk[end:]) if end else (b"", self.rest + chunk)
            found = [int(seq) for seq in SEQ.findall(whole)]
            self.seqs += found
            self.at += [now] * len(found)
            if len(found) != whole.count(b"\n"):
                self.others += [m for line in whole.splitlines() if (m := json.loads(line))["type"] != "message"]


class WebMember(Member):
    """The same over a WebSocket. What it sends is masked with zeros, so that nothing has to be reckoned."""

    def register(self, how: str = "register") -> None:
        self.sock.sendall(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: chat.v1\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        head = b""
        while b"\r\n\r\n" not in head:
            chunk = self.sock.recv(1)
            assert chunk, f"{self.name} was closed; it was told {head!r}"
            head += chunk
        assert head.startswith(b"HTTP/1.1 101"), head
        hello = {"type": "hello", "protocol": 1, "client": "audience"}
        self.send(hello, {"type": how, "id": 1, "username": self.name, "password": PASSWORD})
        self.hear("session")

    def hear(self, type_: str) -> dict:
        """The next message of this type. *Raises* AssertionError for an error."""
        while True:
            for message in self._frames():
                assert message["type"] != "error", message
                if message["type"] == type_:
                    return message
            chunk = self.sock.recv(65536)
            assert chunk, f"{self.name} was closed; it was told {self.rest!r}"
            self.rest += chunk

    def _frames(self) -> Iterator[dict]:
        while len(self.rest) >= 2:
            size, head = self.rest[1], 2
            if size == 126:
                size, head = int.from_bytes(self.rest[2:4], "big"), 4
            if len(self.rest) < head + size:
                return
            payload, self.rest = self.rest[head : head + size], self.rest[head + size :]
            yield json.loads(payload)

    def send(self, *messages: dict) -> None:
        self.sock.sendall(b"".join(_frame(json.dumps(message).encode()) for message in messages))

    def read(self) -> bool:
        while True:
            try:
                chunk = self.sock.recv(262144)
            except (BlockingIOError, ssl.SSLWantReadError):
                return True
            except OSError:
                return False
            if not chunk:
                return False
            now, whole, end = time.monotonic(), self.rest + chunk, 0
            for found in SEQ.finditer(whole):
                end = found.end()
                self.seqs.append(int(found[1]))
                self.at.append(now)
            self.rest = whole[end:][-65536:]


def _frame(payload: bytes) -> bytes:
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return b"\x81" + size + bytes(4) + payload


class Audience:
    """Members that read as fast as they can, in a thread. A context manager; *Owns* them."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @classmethod
    def gather(cls, server: Server, n: int, *, tls: bool = False, prefix: str = "member", kind: type[Member] = Member) -> "Audience":
        members: list[Member] = []
        for i in range(n):  # one after the other: who connects and says nothing is in the way of others
            member = kind(server, f"{prefix}{i}", tls=tls)
            member.register()
            members.append(member)
        return cls(members)

    def __enter__(self) -> "Audience":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()
        for member in self.members:
            member.sock.close()

    def wait_for(self, seq: int, *, within_s: float = 60) -> None:
        """Until everybody was told of *seq*. *Raises* TimeoutError."""
        end = time.monotonic() + within_s
        while lacking := [m for m in self.members if not m.seqs or m.seqs[-1] < seq]:
            if time.monotonic() > end:
                raise TimeoutError(
                    f"{len(lacking)} members lack {seq}; {lacking[0].name} has {lacking[0].seqs[-1:]} {lacking[0].others[-3:]}"
                )
            time.sleep(0.005)

    def _run(self) -> None:
        poll = select.epoll()
        by_fd = {}
        for member in self.members:
            member.sock.setblocking(False)
            by_fd[member.sock.fileno()] = member
            poll.register(member.sock, select.EPOLLIN)
        while not self._end.is_set():
            for fd, _ in poll.poll(0.05, 2000):
                if not by_fd[fd].read():
                    poll.unregister(fd)
        poll.close()


def p99_ms(latencies_s: list[float]) -> float:
    return round(1000 * sorted(latencies_s)[int(len(latencies_s) * 0.99)], 2)
