"""JSON objects, one a line, over a socket: all that a raw client needs. Nothing of it is shared with ``chat/``."""

import json
import ssl
from functools import lru_cache

import trio

# A notice is the same bytes for every member of a channel; parsing it once leaves the machine to the server. Not to be changed by readers.
_parse = lru_cache(maxsize=20_000)(json.loads)
ENDED = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class Wire:
    """*Owns* the stream. `received` keeps every object in its order, when ``keep`` is set."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.received: list[dict] = []
        self._rest = b""
        self._id = 0
        self.looked = 0  # so many of them were returned or passed over

    @classmethod
    async def open(cls, port: int, *, tls: bool = False) -> "Wire":
        stream: trio.abc.Stream = await trio.open_tcp_stream("127.0.0.1", port)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            stream = trio.SSLStream(stream, context)
            try:
                await stream.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        return cls(stream)

    async def send(self, *messages: dict) -> None:
        await self.stream.send_all(b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    async def receive(self) -> list[dict]:
        """One or more objects; none: the peer closed. *Raises* one of ENDED."""
        while True:
            chunk = await self.stream.receive_some(65536)
            if not chunk:
                return []
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            if lines:
                return [_parse(line) for line in lines]

    async def ask(self, type: str, **fields: object) -> dict:
        """Send a request and return its answer. What comes before it is kept in `received`, and the answer too."""
        self._id += 1
        await self.send({"type": type, "id": self._id, **fields})
        return await self.until(lambda message: message.get("id") == self._id and message["type"] != "ping")

    async def until(self, wanted) -> dict:
        """The first object, of those not yet returned, for which *wanted* is true. *Raises* EOFError."""
        start = self.looked
        while True:
            for place in range(start, len(self.received)):
                if wanted(self.received[place]):
                    self.looked = place + 1
                    return self.received[place]
            start = len(self.received)
            more = await self.receive()
            if not more:
                raise EOFError(f"closed by the server; it said {self.received[-3:]}")
            self.received += more

    async def hello(self) -> dict:
        await self.send({"type": "hello", "protocol": 1, "client": "raw"})
        return await self.until(lambda message: message["type"] == "welcome")

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self.stream)
