"""A client that lives through the end of its server: it resumes with its cursors, sends again what was not acknowledged, and goes on.

Everything it learns it learns from its socket, and tells the ledger. It is one task: what is due is sent after each chunk that was read.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tests.e2e.follower import Follower
from tests.e2e.ledger import WRONG, Ledger, Record, Sent, conv_key, record_of
from tests.e2e.wire import ENDED, Wire

FILLING = "".join(chr(c) for c in (*range(0x20, 0x7F), 0xE4, 0x3A9, 0x2028, 0x1F600))


class Crowd(Protocol):
    """Whom a session belongs to; plain calls, made in the order of the bytes."""

    ledger: Ledger
    port: int
    tls: bool
    moves: float
    sending: bool  # new texts may be sent
    starts: int  # of the server

    async def server_up(self, after: int, naps: int = 0) -> int: ...
    def changed(self) -> None: ...
    def acknowledged(self, *, dup: bool) -> None: ...
    def is_up(self, start: int) -> bool: ...
    def give_up(self, why: str) -> None: ...


@dataclass
class Work:
    """What a sender sends: to where, and how many at a time without an ack."""

    targets: list[dict]  # {"channel": …} or {"to": …}
    window: int
    random: random.Random
    number: int = 0

    def text(self, user: str) -> tuple[dict, str, str]:
        """(target, cid, text); the cid is the text's first word."""
        self.number += 1
        cid = f"{user}-{self.number}"
        filling = "".join(self.random.choices(FILLING, k=self.random.choice((0, 3, 20, 100))))
        return self.random.choice(self.targets), cid, f"{cid} {filling}"


MOVES = 0.02  # after how many of the chunks that it reads a session moves to another connection
NAPS = (0, 0, 1, 6)  # how many starts of the server a listener sleeps through: until more is missed than is replayed


class Session:
    """*label* names it in the ledger; without *work* it only listens, and sleeps now and then. It also moves, as a telephone does: a new
    connection resumes while the old one still seems to live."""

    def __init__(self, crowd: Crowd, user: str, password: str, label: str, draw: random.Random, work: Work | None = None) -> None:
        self.user = user
        self.work = work
        self.follower = Follower(label, crowd.ledger)
        self.outbox: dict[str, tuple[dict, Sent]] = {}  # not acknowledged, in order
        self.in_flight: set[str] = set()  # of these, what was written to the present connection
        self.live_since = 0  # the server's start that the connection belongs to
        self.presented: set[str] = set()
        self.presented_again = 0  # a token that had been presented before: the answer was lost, and it was still good
        self._crowd = crowd
        self._ledger = crowd.ledger
        self._password = password
        self._token = ""
        self._live = False
        self._is_new = False
        self._left: Wire | None = None
        self._draw = draw
        self.moved = 0
        self._due: list[dict] = []
        self._acked_number = 0
        self._label = label
        self._handlers: dict[str, Callable[[dict], None]] = {
            "session": self._opened,
            "resumed": self._opened,
            "ack": self._ack,
            "error": self._error,
            "history": self._page,
            "heads": self._heads,
            "gap": self._gap,
            "lagging": self._lagging,
            "ping": lambda ping: self._due.append({"type": "pong", "id": ping["id"]}),
        }

    async def run(self) -> None:
        """*If cancelled* its connections are closed."""
        start = 0
        try:
            while True:
                start = await self._crowd.server_up(start, 0 if self.work or not start else self._draw.choice(NAPS))
                while self._crowd.is_up(start):
                    if not await self._connection(start):
                        break
                await self._leave(None)
        finally:
            await self._leave(None)

    async def _connection(self, start: int) -> bool:
        """Returns whether to go on with another one, to the same server."""
        try:
            wire = await Wire.open(self._crowd.port, tls=self._crowd.tls)
        except ENDED:
            return True
        moves = False
        try:
            moves = await self._talk(wire, start)
        except ENDED:
            pass
        finally:
            self._live = False
            self.in_flight.clear()
            await self._leave(wire)
        if not moves and self._crowd.is_up(start):
            self._wrong("was closed though the server lives")
            self._crowd.give_up(f"{self._label} was closed")
        return moves

    async def _leave(self, wire: Wire | None) -> None:
        """Leave *wire* open behind, and close what was left before."""
        left, self._left = self._left, wire
        if left is not None:
            await left.aclose()

    async def _talk(self, wire: Wire, start: int) -> bool:
        """Returns whether it moves; False: the server closed."""
        cursors = {self._name(conv): cursor for conv, cursor in self.follower.connect().items()}
        self._due = []
        self._acked_number = 0
        opening: dict = {"type": "login", "id": 1, "username": self.user, "password": self._password}
        if self._token:
            self.presented_again += self._token in self.presented
            self.presented.add(self._token)
            opening = {"type": "resume", "id": 1, "token": self._token, "cursors": cursors}
        await wire.send({"type": "hello", "protocol": 1, "client": "ledger"}, opening)
        while messages := await wire.receive():
            for message in messages:
                handler = self._handlers.get(message["type"])
                if handler is not None:
                    handler(message)
                elif "seq" in message and "epoch" in message:
                    self.follower.take(self._record(message))
                elif message["type"] in ("removed", "history_reset", "replaced", "closing"):
                    self._wrong(f"was told {message}")
            if self._live:
                if self._is_new:
                    self._is_new = False
                    self.live_since = start
                    await self._leave(None)
                    self._due += [self._send(target, sent) for target, sent in self.outbox.values()]
                self._due += self._new()
                self._due += [self._history(conv) for conv in self.follower.wanted]
                self.follower.wanted = []
            if self._due:
                due, self._due = self._due, []
                await wire.send(*due)
                self.in_flight.update(request["cid"] for request in due if request["type"] == "send")
                self._crowd.changed()
            if self._live and self._draw.random() < self._crowd.moves:
                self.moved += 1
                return True
        return False

    def _record(self, notice: dict) -> Record:
        """Made once for all who got the same bytes, which name a channel and not one's own partner."""
        record = notice.get("")
        if record is None:
            record = record_of(self.user, notice)
            if notice["conv"].startswith("#"):
                notice[""] = record
        return record

    # ------------------------------------------------------------ what is sent

    def _new(self) -> list[dict]:
        if self.work is None or not self._crowd.sending:
            return []
        requests = []
        while len(self.outbox) < self.work.window:
            target, cid, text = self.work.text(self.user)
            conv = "#" + target["channel"] if "channel" in target else conv_key(self.user, "@" + target["to"])
            self.outbox[cid] = target, self._ledger.sent(self.user, conv, cid, text)
            requests.append(self._send(*self.outbox[cid]))
        return requests

    def _send(self, target: dict, sent: Sent) -> dict:
        return {"type": "send", "id": sent.number, "cid": sent.cid, "text": sent.text, **target}

    def _history(self, conv: str) -> dict:
        after = self.follower.lines[conv].next - 1
        return {"type": "history", "id": f"fill {conv}", "conv": self._name(conv), "after": after, "limit": 500}

    def _name(self, conv: str) -> str:
        if conv.startswith("#"):
            return conv
        one, other = conv[1:].split("@")
        return "@" + (other if one == self.user else one)

    # ------------------------------------------------------------ what is read

    def _opened(self, message: dict) -> None:
        self._token = message["resume_token"]
        self._heads(message)
        self._live = self._is_new = True

    def _heads(self, message: dict) -> None:
        for conv, (epoch, seq) in message["heads"].items():
            self.follower.head(conv_key(self.user, conv), epoch, seq)

    def _ack(self, ack: dict) -> None:
        cid = ack["cid"]
        place = (conv_key(self.user, ack["conv"]), ack["epoch"], ack["seq"], ack["ts"])
        self._ledger.acked(self.user, cid, *place)
        _, sent = self.outbox.pop(cid, (None, None))
        self.in_flight.discard(cid)
        if sent is None:
            self._wrong(f"has a second ack for {cid}")
        elif not ack.get("dup"):
            if sent.number < self._acked_number:
                self._wrong(f"has the ack of {cid} behind that of a later text")
            self._acked_number = sent.number
            self.follower.take(Record(*place, "message", self.user, sent.text, ()))
        self._crowd.acknowledged(dup=bool(ack.get("dup")))

    def _error(self, error: dict) -> None:
        cid = error.get("cid")
        if cid in self.outbox:
            del self.outbox[cid]
            self.in_flight.discard(cid)
            self._ledger.refused(self.user, cid, error["code"])
        else:
            self._wrong(f"was told {error}")
        if not self._live:
            self._crowd.give_up(f"{self._label} has no session: {error}")

    def _page(self, page: dict) -> None:
        conv = conv_key(self.user, page["conv"])
        self.follower.page(conv, [record_of(self.user, record) for record in page["messages"]], page["more"])

    def _gap(self, gap: dict) -> None:
        self.follower.gap(conv_key(self.user, gap["conv"]), gap["after"], gap["before"])

    def _lagging(self, message: dict) -> None:
        self.follower.lagged = True

    def _wrong(self, text: str) -> None:
        self._ledger.fault(WRONG, f"{self._label} {text}")
