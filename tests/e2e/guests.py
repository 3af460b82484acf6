"""Somebody at the other end of a real socket, and a daemon to be a guest of. What every wait has is a deadline."""

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import trio

from tests.e2e.server import GENEROUS, Server
from tests.e2e.wire import ENDED, Wire

PASSWORD = "correct horse battery"
PATIENCE_S = 20.0


def make_server(folder: Path, settings: dict[str, str] | None = None) -> Server:
    return Server(folder / "data", settings={**GENEROUS, **(settings or {})})


@contextlib.asynccontextmanager
async def serving(folder: Path, settings: dict[str, str] | None = None) -> AsyncIterator[Server]:
    """A daemon of one's own; *settings* over those of `GENEROUS`."""
    server = make_server(folder, settings)
    try:
        await server.start()
        yield server
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + PATIENCE_S):
            await server.kill()


def shared(folder: Path, settings: dict[str, str] | None = None) -> Iterator[Server]:
    """The same for a whole file of tests: the body of a fixture that is not async, since each test has a loop of its own."""
    server = make_server(folder, settings)
    trio.run(server.start)
    try:
        yield server
    finally:
        trio.run(server.kill)


class Guest(Wire):
    """``opened`` is the `session` or `resumed` that it got. As a context manager it closes its socket at the end."""

    opened: dict

    @classmethod
    async def connect(cls, server: Server, *, tls: bool = False, host: str = "127.0.0.1", source: str | None = None) -> "Guest":
        stream: trio.abc.Stream = await trio.open_tcp_stream(host, server.port, local_address=source)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            stream = trio.SSLStream(stream, context)
            await stream.do_handshake()
        return cls(stream)

    @classmethod
    async def register(cls, server: Server, name: str, **how) -> "Guest":
        return await cls._open(server, "register", how, username=name, password=PASSWORD)

    @classmethod
    async def login(cls, server: Server, name: str, *, password: str = PASSWORD, **how) -> "Guest":
        return await cls._open(server, "login", how, username=name, password=password)

    @classmethod
    async def resume(cls, server: Server, token: str, cursors: dict | None = None, **how) -> "Guest":
        return await cls._open(server, "resume", how, token=token, cursors=cursors or {})

    @classmethod
    async def _open(cls, server: Server, type: str, how: dict, **fields) -> "Guest":
        """The one who is refused has the error in `opened`."""
        guest = await cls.connect(server, **how)
        await guest.hello()
        guest.opened = await guest.ask(type, **fields)
        return guest

    async def __aenter__(self) -> "Guest":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    @property
    def token(self) -> str:
        return self.opened["resume_token"]

    async def until(self, wanted: Callable[[dict], bool]) -> dict:
        with trio.fail_after(PATIENCE_S):
            return await super().until(wanted)

    async def until_type(self, type: str) -> dict:
        return await self.until(lambda message: message["type"] == type)

    async def ping(self) -> None:
        """Behind everything that was sent before, in so far as it needs no thread."""
        assert (await self.ask("ping"))["type"] == "pong"

    async def to_the_end(self) -> list[dict]:
        """Everything that was not looked at, to the end of the stream."""
        start = self.looked
        with trio.fail_after(PATIENCE_S), contextlib.suppress(*ENDED):
            while more := await self.receive():
                self.received += more
        self.looked = len(self.received)
        return self.received[start:]

    async def say(self, channel: str, text: str, cid: str | None = None) -> dict:
        """Send a text; returns the ack or the error."""
        return await self.ask("send", channel=channel, text=text, cid=cid or f"c{self._id + 1}-{id(self)}")


def texts(messages: list[dict], conv: str | None = None) -> list[str]:
    return [m["text"] for m in messages if m["type"] == "message" and conv in (None, m["conv"])]


def errors_in_log(server: Server) -> list[str]:
    """Lines of the daemon's log that speak of a bug."""
    lines = server.log.read_text().splitlines() if server.log.exists() else []
    return [line for line in lines if "error_id" in line or "Traceback" in line]
