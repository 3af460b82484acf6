"""A transport without a socket, around a real outbox; and a peer that speaks over it, to drive `chat.connection` in one process."""

import json
from contextlib import asynccontextmanager
from types import SimpleNamespace

import attrs
import trio

from chat import connection
from chat.config import Limits
from chat.protocol import messages as m
from chat.store.sqlite import SqliteStore
from chat.transport.base import Dialect, Peer
from chat.transport.outbox import FlushSet, Outbox, OutboxLimits, OutboxPool


class Wire:
    """Implements `chat.transport.base.Transport`. ``stalled``: the peer reads nothing. What it read is in ``messages``."""

    kind, dialect = "tcp", Dialect.LINES

    def __init__(self, flush_set, limits=None):
        self.peer = Peer(host="127.0.0.1", port=1, prefix="127.0.0.1", loopback=True)
        self.outbox = Outbox(limits or OutboxLimits(), flush_set, OutboxPool(2**30), lagging_frame=b'{"type":"lagging"}\n')
        self.outbox.carrier = self
        self.frame_limit = 8192
        self.last_received = trio.current_time()
        self.start_pump = None
        self.stalled = False
        self.aborted = False
        self.messages = []
        self.to_server, self._from_peer = trio.open_memory_channel(100)
        self._rest = b""
        self._moved = trio.Event()

    async def receive(self):
        try:
            return await self._from_peer.receive()
        except trio.EndOfChannel:
            return []

    def stop_receiving(self):
        self._from_peer.close()

    def flush_nowait(self):
        while not self.stalled and (data := self.outbox.take()):
            *lines, self._rest = (self._rest + data).split(b"\n")
            self.messages += map(json.loads, lines)
            self._moved.set()
            self._moved = trio.Event()
            self.outbox.sent(len(data))

    async def drain(self):
        self.flush_nowait()
        await trio.lowlevel.checkpoint()

    async def aclose(self):
        self.outbox.seal()
        await self.drain()
        self.abort()

    def abort(self):
        self.aborted = True
        self._moved.set()
        self.outbox.close()

    # ------------------------------------------------------------ the peer

    async def say(self, *messages):
        """Send frames, all of them in one chunk."""
        await self.to_server.send([json.dumps(message).encode() for message in messages])

    async def hear(self, *types):
        """Wait for the first message of one of *types* that was not taken yet. *Returns* all up to it."""
        while True:
            for n, message in enumerate(self.messages):
                if message["type"] in types:
                    taken, self.messages = self.messages[: n + 1], self.messages[n + 1 :]
                    return taken
            assert not self.aborted, f"closed; waited for {types}, got {self.messages}"
            await self.hear_more()

    async def hear_more(self):
        """Wait for a message, or the end."""
        await self._moved.wait()

    async def ask(self, message):
        """A request, and all that came up to its answer."""
        await self.say(message)
        taken = []
        while not taken or taken[-1].get("id") != message["id"]:
            taken += await self.hear("ok", "error", "ack", "result", "session", "resumed", "history", "pong")
        return taken


@attrs.define
class Lines:
    """Makes connections to a `tests.rooms.house.House` whose pipeline is running."""

    services: connection.Services
    nursery: trio.Nursery
    flush_set: FlushSet

    def wire(self, limits=None):
        wire = Wire(self.flush_set, limits)
        self.nursery.start_soon(connection.serve, self.services, wire)
        return wire

    async def resume(self, token, cursors, limits=None):
        """A wire that has asked to resume."""
        wire = self.wire(limits)
        await wire.say({"type": "hello", "protocol": 1, "client": "test"}, {"type": "resume", "id": 1, "token": token, "cursors": cursors})
        await wire.hear("welcome")
        return wire


@asynccontextmanager
async def open_lines(house):
    """The house's pipeline, and connections to it."""
    flush_set = FlushSet()
    store = SqliteStore(house.writer, busy_timeout_s=1)
    welcome = m.Welcome(protocol=1, server="test", name="test", limits={}, prefix="//", registration="open")
    services = connection.Services(
        manager=house.manager,
        guard=SimpleNamespace(bad_tokens=0),
        store=store,
        flush=flush_set.flush,
        limits=Limits(),
        welcome=lambda: welcome,
        now=trio.current_time,
    )
    house.router.hooks.flush = flush_set.flush
    async with house.running(), trio.open_nursery() as nursery:
        yield Lines(services, nursery, flush_set)
        nursery.cancel_scope.cancel()
    for db in store._idle:
        db.close()
