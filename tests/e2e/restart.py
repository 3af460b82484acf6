"""The server is replaced again and again under load, and nobody is to notice: ``chat restart``, and the ledger as the judge.

    python -m tests.e2e.restart --restarts 10 --clients 200

Clients sit in channels; some of them send, one text after the other, together ``--rate`` a second. Everybody who is cut off waits as
long as the server asked him to, resumes with its cursors and sends again what has no ack. Beside the ledger's own questions:

- is anybody ever refused a connection, or told an error?
- does anybody see somebody leave, come, go offline?
- how long is the pause: of each client and restart, from the last byte of the old connection to `resumed` on the new one; and from the
  moment when accepting stopped to the moment when it begins again, as the server's log says.

A text is due at its time whether the server listens or not, so what was held up by a restart is sent behind it.
"""

import argparse
import contextlib
import json
import math
import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from tests.e2e.follower import Follower
from tests.e2e.ledger import WRONG, Ledger, Record, Sent, Verdict, conv_key, record_of
from tests.e2e.server import CHAT, GENEROUS, ROOT, Server
from tests.e2e.wire import ENDED, Wire

PASSWORD = "correct horse battery"
CHANNELS = ("lobby", "alpha", "beta")
SENDERS = 20
STUCK_S = 60.0
WELL_S = 1.0  # between two restarts, when everybody is back: so that there is load before each


@dataclass(frozen=True)
class Plan:
    seed: int
    restarts: int
    clients: int = 200
    rate: float = 100.0  # texts a second, of all together


@dataclass
class Report:
    plan: Plan
    verdict: Verdict | None = None
    pauses_s: list[float] = field(default_factory=list)  # of each client and restart
    shut_s: list[float] = field(default_factory=list)  # of each restart: nobody accepted
    refused: int = 0
    seen: list[str] = field(default_factory=list)  # of comings and goings

    def p(self, percent: float) -> float:
        ordered = sorted(self.pauses_s)
        return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else 0.0

    @property
    def green(self) -> bool:
        return self.verdict is not None and self.verdict.green and not self.refused and not self.seen

    def __str__(self) -> str:
        assert self.verdict is not None
        return "\n".join(
            [
                f"{self.verdict}; refused connections {self.refused}, comings and goings seen {len(self.seen)}",
                f"seed {self.plan.seed}; {len(self.shut_s)} restarts under {self.plan.clients} clients and {self.plan.rate:g} texts/s;"
                f" {self.verdict.compared} records of streams compared",
                f"pause of a client: median {self.p(50):.2f} s, p99 {self.p(99):.2f} s, longest {self.p(100):.2f} s;"
                f" nobody accepted for {max(self.shut_s, default=0):.2f} s at most",
                *self.seen[:5],
                *self.verdict.examples,
            ]
        )


class Client:
    """One person. *target*: where it sends, None if it only listens."""

    def __init__(self, run: "Run", user: str, draw: random.Random, target: dict | None, token: str) -> None:
        self.user = user
        self.target = target
        self.restarts = 0  # after how many it was live again
        self.outbox: dict[str, Sent] = {}
        self.follower = Follower(user, run.ledger)
        self.live = False
        self._run = run
        self._draw = draw
        self._wire: Wire | None = None
        self._due: list[dict] = []
        self._flushing: Wire | None = None
        self._token = token
        self._number = 0
        self._retry_after = 0.0
        self._cut_at = 0.0

    async def run(self) -> None:
        while True:
            try:
                wire = await Wire.open(self._run.server.port)
            except ConnectionRefusedError:
                self._run.report.refused += 1
                await trio.sleep(0.05)
                continue
            except OSError:
                continue
            try:
                await self._talk(wire)
            except ENDED:
                pass
            finally:
                self.live, self._wire = False, None
                with trio.CancelScope(shield=True):
                    await wire.aclose()
            self._cut_at = trio.current_time()
            self._run.cut(self)
            await trio.sleep(self._retry_after * self._draw.uniform(1.0, 1.1))

    async def _talk(self, wire: Wire) -> None:
        cursors = {self._name(conv): cursor for conv, cursor in self.follower.connect().items()}
        opening = {"type": "resume", "id": 1, "token": self._token, "cursors": cursors}
        self._due = [{"type": "hello", "protocol": 1, "client": "ledger"}, opening]
        await self._flush(wire)
        while messages := await wire.receive():
            for message in messages:
                self._take(message)
            for conv in self.follower.wanted:
                after = self.follower.lines[conv].next - 1
                self._due.append({"type": "history", "id": f"fill {conv}", "conv": self._name(conv), "after": after, "limit": 500})
            self.follower.wanted = []
            if any(message["type"] in ("session", "resumed") for message in messages):
                self.live, self._wire = True, wire
                if self._cut_at:
                    self._run.report.pauses_s.append(trio.current_time() - self._cut_at)
                self._due += [self._send(sent) for sent in self.outbox.values()]
                self._run.back(self)
            await self._flush(wire)

    async def _flush(self, wire: Wire) -> None:
        """Send what is due, in its order; somebody who is sending already sends the rest too."""
        if self._flushing is wire:
            return
        self._flushing = wire
        try:
            while self._due and (wire is self._wire or not self.live):
                due, self._due = self._due, []
                await wire.send(*due)
        finally:
            self._flushing = None

    def _name(self, conv: str) -> str:
        if conv.startswith("#"):
            return conv
        one, other = conv[1:].split("@")
        return "@" + (other if one == self.user else one)

    def _take(self, message: dict) -> None:
        kind = message["type"]
        if kind in ("session", "resumed"):
            self._token = message["resume_token"]
        if kind in ("session", "resumed", "heads"):
            for conv, (epoch, seq) in message["heads"].items():
                self.follower.head(conv_key(self.user, conv), epoch, seq)
        elif kind == "ack":
            self._acked(message)
        elif kind == "ping":
            self._due.append({"type": "pong", "id": message["id"]})
        elif kind == "history":
            records = [record_of(self.user, record) for record in message["messages"]]
            self.follower.page(conv_key(self.user, message["conv"]), records, message["more"])
        elif kind == "gap":
            self.follower.gap(conv_key(self.user, message["conv"]), message["after"], message["before"])
        elif kind == "closing":
            if message["code"] != "shutting_down":
                self._run.ledger.fault(WRONG, f"{self.user} was told {message}")
            self._retry_after = message["retry_after"]
        elif kind in ("joined", "left", "presence"):
            if self._run.restarts:
                self._run.report.seen.append(f"{self.user} saw {message}")
        elif kind in ("error", "removed", "history_reset", "replaced", "lagging"):
            self._run.ledger.fault(WRONG, f"{self.user} was told {message}")
        elif "seq" in message and "epoch" in message:
            self.follower.take(record_of(self.user, message))

    def _acked(self, ack: dict) -> None:
        place = (conv_key(self.user, ack["conv"]), ack["epoch"], ack["seq"], ack["ts"])
        self._run.ledger.acked(self.user, ack["cid"], *place)
        sent = self.outbox.pop(ack["cid"], None)
        if sent is not None and not ack.get("dup"):
            self.follower.take(Record(*place, "message", self.user, sent.text, ()))
        self._run.changed()

    def _send(self, sent: Sent) -> dict:
        assert self.target is not None
        return {"type": "send", "id": sent.number, "cid": sent.cid, "text": sent.text, **self.target}

    async def say(self) -> None:
        """A text is due."""
        assert self.target is not None
        self._number += 1
        cid = f"{self.user}-{self._number}"
        conv = "#" + self.target["channel"] if "channel" in self.target else conv_key(self.user, "@" + self.target["to"])
        sent = self.outbox[cid] = self._run.ledger.sent(self.user, conv, cid, f"{cid} {'x' * self._draw.choice((5, 50, 200))}")
        if self.live and self._wire is not None:
            self._due.append(self._send(sent))
            with contextlib.suppress(*ENDED):  # it resumes and sends again
                await self._flush(self._wire)


class Run:
    def __init__(self, plan: Plan, server: Server, restart: "Callable[[Server], object]") -> None:
        self.plan = plan
        self.server = server
        self.ledger = Ledger()
        self.report = Report(plan)
        self.clients: list[Client] = []
        self._restart = restart
        self._lot = trio.lowlevel.ParkingLot()
        self._sending, self._silent = True, False
        self._tokens: dict[str, str] = {}
        self.restarts = 0

    def changed(self) -> None:
        self._lot.unpark_all()

    def cut(self, client: Client) -> None:
        self.changed()

    def back(self, client: Client) -> None:
        client.restarts = self.restarts
        self.changed()

    async def run(self, say: Callable[[str], None] = lambda _: None) -> Report:
        plan = self.plan
        await self._gather()
        async with trio.open_nursery() as nursery:
            for client in self.clients:
                nursery.start_soon(client.run)
            await self._until(lambda: all(client.live for client in self.clients), "everybody to be there")
            nursery.start_soon(self._talk)
            for number in range(1, plan.restarts + 1):
                await trio.sleep(WELL_S)
                before = len(self.report.pauses_s)
                self.restarts = number
                await self._restart(self.server)  # type: ignore[misc]
                await self._until(lambda: all(c.live and c.restarts == self.restarts for c in self.clients), "everybody to be back")
                own = sorted(self.report.pauses_s[before:])
                say(f"restart {number}: {len(own)} clients paused for {own[len(own) // 2]:.2f} s, at most {own[-1]:.2f} s")
            await trio.sleep(WELL_S)
            self._sending = False
            await self._until(lambda: self._silent and not any(client.outbox for client in self.clients), "every ack")
            heads = await self._read_all()
            await self._until(lambda: all(self._has_all(client, heads[client.user]) for client in self.clients), "every notice")
            nursery.cancel_scope.cancel()
        self.report.verdict = self.ledger.verdict()
        return self.report

    async def _talk(self) -> None:
        draw, senders = random.Random(f"{self.plan.seed} turns"), [client for client in self.clients if client.target]
        async with trio.open_nursery() as nursery:
            due = trio.current_time()
            while self._sending:
                due += draw.uniform(0, 2 / self.plan.rate)
                await trio.sleep_until(due)
                nursery.start_soon(draw.choice(senders).say)
        self._silent = True
        self.changed()

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        with trio.move_on_after(STUCK_S):
            while not condition():
                await self._lot.park()
            return
        raise RuntimeError(f"waited {STUCK_S:g} s for {what}; {[c.user for c in self.clients if not c.live]} are not live")

    async def _gather(self) -> None:
        names = [f"user{number}" for number in range(self.plan.clients)]
        async with trio.open_nursery() as nursery:
            limit = trio.CapacityLimiter(8)
            first = trio.Event()
            for name in names:
                nursery.start_soon(self._register, name, limit, first, name == names[0])
        for number, name in enumerate(names):
            targets = [{"channel": channel} for channel in CHANNELS] + [{"to": names[number ^ 1] if number ^ 1 < len(names) else name}]
            target = targets[number % len(targets)] if number < SENDERS else None
            self.clients.append(Client(self, name, random.Random(f"{self.plan.seed} {name}"), target, self._tokens[name]))

    async def _register(self, name: str, limit: trio.CapacityLimiter, first: trio.Event, is_first: bool) -> None:
        if not is_first:
            await first.wait()
        async with limit:
            wire = await Wire.open(self.server.port)
            await wire.hello()
            opened = await wire.ask("register", username=name, password=PASSWORD)
            assert opened["type"] == "session", opened
            for channel in CHANNELS[1:]:
                text = f"create-channel {channel}"
                done = await (wire.ask("command", text=text) if is_first else wire.ask("join", channel=channel))
                assert done["type"] in ("ok", "result"), done
            self._tokens[name] = opened["resume_token"]
            await wire.aclose()
        first.set()

    async def _read_all(self) -> dict[str, dict[str, int]]:
        """All histories, by sessions that have nothing but the server's word."""
        heads: dict[str, dict[str, int]] = {}
        for client in self.clients:
            wire = await Wire.open(self.server.port)
            await wire.hello()
            opened = await wire.ask("login", username=client.user, password=PASSWORD)
            heads[client.user] = {conv_key(client.user, conv): seq for conv, (_, seq) in opened["heads"].items()}
            for conv in opened["heads"]:
                if conv_key(client.user, conv) in self.ledger.histories:
                    continue
                records: list[Record] = []
                cids: list[str | None] = []
                more = True
                while more:
                    page = await wire.ask("history", conv=conv, after=records[-1].seq if records else 0, limit=500)
                    records += [record_of(client.user, message) for message in page["messages"]]
                    cids += [message.get("cid") for message in page["messages"]]
                    more = page["more"] and bool(page["messages"])
                self.ledger.history(client.user, conv_key(client.user, conv), records, cids)
            await wire.aclose()
        return heads

    def _has_all(self, client: Client, heads: dict[str, int]) -> bool:
        lines = client.follower.lines
        return all(conv in lines and lines[conv].next > head for conv, head in heads.items() if head)


# ---------------------------------------------------------------- the server, as an operator has it


class Background(Server):
    """Of ``chat start``. What is asked of it is asked by commands."""

    def settled(self) -> list[str]:
        return [argument for key, value in self._settings.items() for argument in ("--set", f"{key}={value}")]

    async def chat(self, command: str, *more: str, check: bool = True) -> str:
        place = ("--data-dir", str(self.data_dir), "--listen", f"127.0.0.1:{self.port}")
        arguments = [*self._command, command, *place, *self.settled(), *more]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(self.data_dir)}
        with trio.fail_after(STUCK_S):
            done = await trio.run_process(arguments, capture_stdout=True, capture_stderr=True, env=environment, check=False)
        if check and done.returncode:
            raise RuntimeError(f"chat {command}: {done.stderr.decode()}")
        return done.stdout.decode() + done.stderr.decode()

    def lines_of_log(self) -> list[str]:
        return (self.data_dir / "log" / "chat.log").read_text().splitlines()

    def logged(self, event: str) -> list[dict]:
        return [found for line in self.lines_of_log() if (found := json.loads(line))["event"] == event]


async def restart(server: Background) -> None:
    await server.chat("restart")


async def run(plan: Plan, folder: Path, say: Callable[[str], None] = lambda _: None, command: tuple[str, ...] = CHAT) -> Report:
    server = Background(folder / "data", command=command, settings={**GENEROUS, "limits.connections_per_address": "10000"})
    await server.chat("start")
    try:
        report = await Run(plan, server, restart).run(say)  # type: ignore[arg-type]
        report.shut_s = [found["pause_s"] for found in server.logged("took_over")]
        for line in server.lines_of_log():
            if "error_id" in line:
                report.verdict.faults[WRONG] += 1  # type: ignore[union-attr]
                report.verdict.examples.append(line)  # type: ignore[union-attr]
    finally:
        with trio.CancelScope(shield=True):
            await server.chat("stop", "--now", check=False)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.restart", description=__doc__.splitlines()[0])
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="chat-restart-") as folder:
        plan = Plan(given.seed, given.restarts, given.clients, given.rate)
        report = trio.run(run, plan, Path(folder), lambda text: print(text, flush=True))
    print(report)
    raise SystemExit(0 if report.green else 1)


if __name__ == "__main__":
    main()
