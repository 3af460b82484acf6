"""One device of a person: a laptop that talks, a phone that mostly listens. It has a session, which outlives its connections.

It keeps to the rules of a client: it resumes with its cursors, sends again in order what has no ack, waits as long as it is told to. What
goes wrong on the way is done to it by `life`, from the schedule that was drawn for it.

A text may also be sent by the person's other device with the same cid (`echo`), while it is under way or when it is acknowledged already;
it must be stored once all the same.
"""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol

import trio

from chat.prove import trouble
from chat.prove.cursor import Cursor
from chat.prove.ledger import ALTERED, DOUBLED, LOST, ORDER, Ledger, Place, Record, Text, conv_key, record_of
from chat.prove.proxy import Proxy
from chat.prove.scratch import Scratch
from chat.prove.wires import ENDED, Frame, Wire, open_wire

PASSWORD: Final = "correct horse battery"
WINDOW: Final = 12  # texts of one device that may be without an ack, but for a flood
ECHOED: Final = 0.15  # of the texts are sent by the other device too, at the same time
PATIENCE_S: Final = 1.5  # who was told to wait comes back within this, so that not all the texts of a flood come again at once
PAUSE_S: Final = 0.005  # before it connects again
SILENCE_S: Final = 15.0  # without a byte, though the server is up: as good as gone
FILLING: Final = ["äöü", "ß", "€", "🙂", "the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", ""]
FOR_NOW: Final = ("rate_limited", "busy", "shutting_down", "storage_unavailable", "indeterminate")


class World(Protocol):
    """What devices have in common; see `run.Run`."""

    server: Scratch
    proxy: Proxy
    ledger: Ledger
    nursery: trio.Nursery
    counts: Counter[str]
    talking: bool
    over: bool

    def now_s(self) -> float: ...
    def changed(self) -> None: ...
    async def change(self) -> None: ...
    def recovered(self, seconds: float, *, killed: bool) -> None: ...


class Device:
    def __init__(
        self,
        world: World,
        person: str,
        name: str,
        targets: list[dict[str, str]],
        *,
        seed: int,
        kind: str,
        rate: float,
        tunnel: bool,
        narrow: bool,
    ) -> None:
        """*targets*: whom it talks to. *tunnel*: its connections lead through the proxy, mostly. *narrow*: see `wires.open_wire`."""
        self.person = person
        self.name = name
        self.kind = kind
        self.tunnel = tunnel
        self.rate = rate
        self.other: Device | None = None
        self.cursor = Cursor(name, world.ledger)
        self.outbox: dict[str, tuple[dict[str, str], Text]] = {}  # without an ack, in order
        self.in_flight: set[str] = set()  # of these, what was written to the present connection
        self.live = False
        self._world = world
        self._ledger = world.ledger
        self._narrow = narrow
        self._texts = random.Random(f"{seed} {name} texts")
        self._roads = random.Random(f"{seed} {name} roads")
        self._waits = random.Random(f"{seed} {name} waits")
        self._targets = targets
        self._token = ""
        self._wire: Wire | None = None
        self._scope = trio.CancelScope()
        self._left: Wire | None = None  # the connection that it moved away from
        self._due: list[Frame] = []
        self._wake = trio.Event()
        self._ending = False
        self._deaf = False  # for some time of this connection
        self._acked_number = 0  # of its texts, the latest that was acknowledged on this connection
        self._told_off = False  # the server said `closing`
        self._ear = trio.Event()
        self._away_until = 0.0
        self._asked: dict[int, str] = {}  # id → cid, on this connection
        self._id = 1
        self._number = 0
        self._done: list[tuple[dict[str, str], Text]] = []  # acknowledged: to be sent again
        self._lost_at: float | None = None
        self._killed = False  # since the connection was lost the server was
        self._ear.set()
        self._handlers: dict[str, Callable[[Frame], None]] = {
            "session": self._opened,
            "resumed": self._opened,
            "ack": self._ack,
            "error": self._error,
            "history": self._page,
            "heads": self._heads,
            "gap": lambda m: self.cursor.gap(self._key(m["conv"]), m["after"], m["before"]),
            "lagging": lambda m: self.cursor.lagging(),
            "ping": lambda m: self._say({"type": "pong", "id": m["id"]}),
            "history_reset": lambda m: self.cursor.reset(self._key(m["conv"]), m["epoch"], m["last_seq"]),
            "removed": self._removed,
            "closing": self._closing,
        }

    # ------------------------------------------------------------ its life

    async def run(self) -> None:
        """*If cancelled* its connections are closed."""
        try:
            while True:
                await self._rest()
                await self._connection()
                await trio.sleep(PAUSE_S)
        finally:
            if self._left is not None:
                self._left.close()

    async def _rest(self) -> None:
        """*Waits* until there is a server, and until it is not away any more."""
        if not self._world.server.up:  # counted from the latest kill: a slow machine may not be back before the next
            self._killed, self._lost_at = True, trio.current_time()
        while not self._world.server.up:
            await self._world.change()
        pause_s = self._away_until - trio.current_time()
        if pause_s > 0 and self._world.talking:
            with trio.move_on_after(pause_s):
                while self._world.talking:
                    await self._world.change()
            self._lost_at, self._killed = trio.current_time(), False

    async def life(self, schedule: list[trouble.Trouble]) -> None:
        """Everything in the schedule happens, at its time or when the device is next connected; what is left when talking ends does not."""
        for item in schedule:
            await trio.sleep(max(0.0, item.at_s - self._world.now_s()))
            while not self.live:
                await self._world.change()
            if not self._world.talking:
                return
            self._world.counts[item.kind] += 1
            await self._suffer(item)

    async def talk(self) -> None:
        while self._world.talking:
            await trio.sleep(self._texts.expovariate(self.rate))
            if self._world.talking and len(self.outbox) < WINDOW:
                self._new()

    def salvo(self, texts: int) -> None:
        """So many at once, and now."""
        for _ in range(texts):
            self._new()

    async def _suffer(self, item: trouble.Trouble) -> None:
        wire = self._wire
        assert wire is not None
        match item.kind:
            case trouble.CUT:
                wire.abort()
                self._scope.cancel()
            case trouble.END:
                self._ending = True
                self._wake.set()
            case trouble.VANISH | trouble.LATE:
                await self._vanish(wire, item)
            case trouble.MOVE:
                self._leave(wire)
            case trouble.NAP:
                self._away_until = trio.current_time() + item.amount
                wire.close()
                self._scope.cancel()
            case trouble.DEAF:
                self._ear, self._deaf = trio.Event(), True
                await trio.sleep(item.amount)
                self._ear.set()
                if self._lost_at is not None:  # it was lost meanwhile, and did not care
                    self._lost_at = trio.current_time()
            case trouble.FLOOD:
                self.salvo(int(item.amount))
            case trouble.REPEAT:
                for target, text in self._done[-int(item.amount) :]:
                    self._repeat(target, text)
                    if self.other is not None:
                        self.other.echo(target, text)

    async def _vanish(self, wire: Wire, item: trouble.Trouble) -> None:
        tunnel = self._world.proxy.tunnel(wire.address)
        if tunnel is None:
            return
        tunnel.stall()
        await trio.sleep(item.amount)
        if self._wire is wire:  # it notices, and comes by another road
            self._leave(wire)
        self._world.nursery.start_soon(self._emerge, tunnel, item)

    async def _emerge(self, tunnel: Any, item: trouble.Trouble) -> None:
        await trio.sleep(item.amount)
        if item.kind == trouble.LATE:
            tunnel.release()
            await trio.sleep(0.2)
        tunnel.drop()

    def _leave(self, wire: Wire) -> None:
        """The connection stays open behind it until it has another."""
        if self._left is not None:
            self._left.close()
        self._left = wire
        self._scope.cancel()

    # ------------------------------------------------------------ a connection

    async def _connection(self) -> None:
        server = self._world.server
        start = server.starts
        tunnel = self.tunnel and self._roads.random() < 0.7
        source = f"127.0.0.{self._roads.randint(1, 250)}"
        try:
            wire = await open_wire(self.kind, self._world.proxy.port if tunnel else server.port, source=source, narrow=self._narrow)
        except ENDED:
            self._killed |= not server.up
            return
        self._wire, self._scope, self._due, self._wake = wire, trio.CancelScope(), [], trio.Event()
        self._ending = self._told_off = False
        self._deaf = not self._ear.is_set()
        self._acked_number = 0
        self._asked.clear()
        whole = False
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, wire)
                    whole = await self._read(wire)
                    nursery.cancel_scope.cancel()
        finally:
            self._wire = None
            self.live = False
            if self._lost_at is None:
                self._lost_at, self._killed = trio.current_time(), False
            self._killed |= not (server.up and server.starts == start)
            if self._deaf and not (self._killed or self._ending or self._scope.cancelled_caught):
                self._world.counts["cut off"] += 1
            if whole and self.kind == "tcp" and self._ending and not (tunnel or self._killed or self._told_off):
                self._check_answered()
            self.in_flight.clear()
            if self._left is not wire:
                wire.close()
            self._world.changed()

    async def _write(self, wire: Wire) -> None:
        cursors = {self._name(conv): cursor for conv, cursor in self.cursor.connect().items()}
        opening: Frame = {"type": "login", "id": 0, "username": self.person, "password": PASSWORD}
        if self._token:
            opening = {"type": "resume", "id": 0, "token": self._token, "cursors": cursors}
        try:
            await wire.send({"type": "hello", "protocol": 1, "client": f"prove: {self.name}"}, opening)
            while not (self._ending and not self._due):
                await self._wake.wait()
                self._wake = trio.Event()
                while self._due and self.live:
                    due, self._due = self._due[:100], self._due[100:]
                    self.in_flight.update(frame["cid"] for frame in due if frame["type"] == "send" and frame["cid"] in self.outbox)
                    await wire.send(*due)
            await wire.end()
        except ENDED:
            self._scope.cancel()

    async def _read(self, wire: Wire) -> bool:
        """*Returns* whether the server ended it in order."""
        try:
            while True:
                await self._ear.wait()
                with trio.move_on_after(SILENCE_S) as silence:
                    frames = await wire.receive()
                if silence.cancelled_caught:
                    self._world.counts["silences"] += 1
                    wire.abort()
                    return False
                if not frames:
                    return True
                for frame in frames:
                    self._hear(frame)
        except ENDED:
            return False

    def _hear(self, frame: Frame) -> None:
        handler = self._handlers.get(frame["type"])
        if handler is not None:
            handler(frame)
        elif "seq" in frame and "epoch" in frame:
            self.cursor.take(record_of(self.person, frame))
        if self.live and self.cursor.wanted:
            for conv in self.cursor.wanted:
                after = self.cursor.threads[conv].next - 1
                self._say({"type": "history", "id": f"fill {conv}"[:64], "conv": self._name(conv), "after": after, "limit": 500})
            self.cursor.wanted.clear()

    def _say(self, frame: Frame) -> None:
        if not self._ending:
            self._due.append(frame)
            self._wake.set()

    # ------------------------------------------------------------ what it sends

    def _new(self) -> None:
        self._number += 1
        draw = self._texts
        target = draw.choice(self._targets)
        cid = f"{self.person}-{self._number}"
        body = " ".join([cid, *draw.choices(FILLING, k=draw.choice((1, 4, 12, 40, 160)))])
        conv = "#" + target["channel"] if "channel" in target else conv_key(self.person, "@" + target["to"])
        text = self._ledger.sent(self.person, self.name, conv, cid, body)
        self.outbox[cid] = target, text
        echoed = draw.random() < ECHOED
        if self.live:
            self._repeat(target, text)
            if echoed and self.other is not None:
                text.loose = True
                self.other.echo(target, text)

    def echo(self, target: dict[str, str], text: Text) -> None:
        """Send what the other device has sent, with its cid."""
        if self.live and not self._ending:
            self._world.counts["echoes"] += 1
            self._repeat(target, text)

    def _repeat(self, target: dict[str, str], text: Text) -> None:
        if self._ending:
            return
        self._id += 1
        self._asked[self._id] = text.cid
        self._world.counts["retries"] += text.tries > 0
        text.tries += 1
        self._say({"type": "send", "id": self._id, "cid": text.cid, "text": text.body, **target})

    async def _again(self, cid: str, after_s: float) -> None:
        await trio.sleep(after_s)
        if self.live and cid in self.outbox and cid not in self.in_flight:
            self._repeat(*self.outbox[cid])

    # ------------------------------------------------------------ what it hears

    def _opened(self, frame: Frame) -> None:
        self._world.counts["resumes" if frame["type"] == "resumed" else "logins"] += 1
        self._token = frame["resume_token"]
        self._heads(frame)
        self.live = True
        if self._lost_at is not None:
            self._world.recovered(trio.current_time() - self._lost_at, killed=self._killed)
            self._lost_at = None
        if self._left is not None:
            self._left.close()
            self._left = None
        for target, text in list(self.outbox.values()):
            self._repeat(target, text)
        self._wake.set()
        self._world.changed()

    def _heads(self, frame: Frame) -> None:
        for conv, (epoch, last) in frame["heads"].items():
            self.cursor.head(self._key(conv), epoch, last)

    def _ack(self, frame: Frame) -> None:
        cid, dup = frame["cid"], bool(frame.get("dup"))
        place = Place(self._key(frame["conv"]), frame["epoch"], frame["seq"], frame["ts"])
        if self._asked.pop(frame["id"], None) != cid:
            what = f"{self.name} got an ack for {cid} that answers nothing it asked"
            self._ledger.fault(DOUBLED, what, self._ledger.texts.get((self.person, cid)))
        text = self._ledger.acked(self.person, self.name, cid, place, dup=dup)
        self.in_flight.discard(cid)
        if text is None:
            return
        self._settle(cid)
        if self.other is not None:
            self.other._settle(cid)
        if not dup and text.device == self.name and not text.loose:
            if text.number < self._acked_number:
                self._ledger.fault(ORDER, f"{self.name} has the ack of {cid} behind that of a later text", text)
            self._acked_number = text.number
        if not dup:
            self.cursor.take(Record(*place, "message", self.person, text.body, ()))
        self._world.changed()

    def _settle(self, cid: str) -> None:
        if (item := self.outbox.pop(cid, None)) is not None:
            self._done.append(item)
            if len(self._done) > 200:
                del self._done[:100]

    def _error(self, frame: Frame) -> None:
        code, cid = frame["code"], frame.get("cid")
        if cid is None:
            if not self.live and code not in FOR_NOW:
                self._ledger.fault(LOST, f"{self.name} has no session any more: {code}, {frame.get('message')}")
                self._token = ""
            return
        self._asked.pop(frame.get("id", 0), None)
        self.in_flight.discard(cid)
        self._ledger.refused(self.person, cid, code, for_now=code in FOR_NOW)
        if cid in self.outbox:
            self._world.nursery.start_soon(self._again, cid, frame.get("retry_after", 0.1) + self._waits.uniform(0, PATIENCE_S))

    def _page(self, frame: Frame) -> None:
        records = [record_of(self.person, record) for record in frame["messages"]]
        self.cursor.page(self._key(frame["conv"]), records, frame["more"])

    def _removed(self, frame: Frame) -> None:
        self._ledger.fault(ALTERED, f"{self.name} was told that it is no member of {frame['conv']} any more")

    def _check_answered(self) -> None:
        """After a FIN alone the server answers everything that it got before."""
        if self.in_flight:
            what = f"{self.name} closed its sending side, and {len(self.in_flight)} texts that it had sent were never answered"
            self._ledger.fault(LOST, what, self._ledger.texts.get((self.person, min(self.in_flight))))

    def _closing(self, frame: Frame) -> None:
        self._told_off = True
        self._world.counts[f"closing {frame['code']}"] += 1

    # ------------------------------------------------------------ names

    def _key(self, conv: str) -> str:
        return conv_key(self.person, conv)

    def _name(self, conv: str) -> str:
        if conv.startswith("#"):
            return conv
        one, _, other = conv[1:].partition("+")
        return "@" + (other if one == self.person else one)
