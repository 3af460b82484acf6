"""Kill the server again and again under load, and let the ledger judge.

    python -m tests.e2e.kill --cycles 50 --seed 1

A crowd of senders (each with several texts in flight) and listeners talks in channels and in private. At seeded moments the server is
killed with SIGKILL and started again; everybody resumes with cursors and sends again what was not acknowledged. A kill comes after so
many acks, or when only some of the crowd have resumed (then others never get the answer to their resume, and must come with the
same token again), plus a delay of some milliseconds, since right after acks the server would always be at the same place of its work.

Sessions also move to another connection while the old one lives, and listeners sleep through some starts of the server.

The server is stopped first (SIGSTOP), then all bytes that it had sent are read. Only if at least ``IN_FLIGHT`` texts were written before
and have no ack among these bytes, it is killed as it stands; else it goes on for a moment. So every kill falls into its work.
The seed gives the texts, their targets and the kills' schedule.
"""

import argparse
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import trio
import trio.testing

from tests.e2e.ledger import LOST, WRONG, Ledger, Verdict, conv_key, record_of
from tests.e2e.server import Server
from tests.e2e.session import MOVES, Session, Work
from tests.e2e.wire import ENDED, Wire

IN_FLIGHT = 20
CHANNELS = ("lobby", "alpha", "beta")
PASSWORD = "correct horse battery"
FIRST_ACK_S = 5.0


@dataclass(frozen=True)
class Plan:
    """``acks``: of one cycle, at least and at most. The delay before a kill is up to ``delay_s``."""

    seed: int
    cycles: int
    senders: int = 20
    listeners: int = 4  # second sessions of senders, and one account that only listens
    window: int = 6
    acks: tuple[int, int] = (400, 600)
    early_share: float = 0.2
    delay_s: float = 0.03
    stuck_s: float = 30.0
    tls: bool = False
    moves: float = MOVES
    hasty: bool = False  # break off at the first fault

    def kills(self) -> "list[Kill]":
        draw = random.Random(self.seed)
        kills = []
        for _ in range(self.cycles):
            acks, delay_s = draw.randint(*self.acks), draw.uniform(0, self.delay_s)
            resumed = draw.randint(min(IN_FLIGHT // self.window + 4, self.senders), self.senders)
            is_early = draw.random() < self.early_share and bool(kills)
            kills.append(Kill(0, resumed, delay_s / 4) if is_early else Kill(acks, self.senders, delay_s))
        return kills


@dataclass(frozen=True)
class Kill:
    """When: after so many acks of this start, and so many senders that are live again; then a delay."""

    acks: int
    resumed: int
    delay_s: float


@dataclass
class Report:
    seed: int
    verdict: Verdict | None = None
    kills: int = 0
    in_flight: list[int] = field(default_factory=list)  # at each kill
    stored_unacked: list[int] = field(default_factory=list)  # after each kill: committed, and the ack was lost with it
    first_ack_s: list[float] = field(default_factory=list)
    tokens_again: int = 0
    fills: int = 0
    moved: int = 0
    gave_up: str = ""

    def __str__(self) -> str:
        assert self.verdict is not None
        lines = [
            str(self.verdict),
            f"seed {self.seed}; {self.kills} kills, in flight at a kill: at least {min(self.in_flight, default=0)},"
            f" stored but not acknowledged then: {sum(self.stored_unacked)}, after {sum(map(bool, self.stored_unacked))} of the kills",
            f"longest time to the first ack after a restart: {max(self.first_ack_s, default=0):.2f} s",
            f"{self.verdict.compared} records of streams compared, {self.fills} fills by history,"
            f" {self.tokens_again} resumes with a token whose answer was lost, {self.moved} moves to another connection",
            *(["gave up: " + self.gave_up] if self.gave_up else []),
            *self.verdict.examples,
        ]
        return "\n".join(lines)


class Crowd:
    """Implements `session.Crowd`."""

    def __init__(self, plan: Plan, server: Server) -> None:
        self.plan = plan
        self.server = server
        self.port = server.port
        self.tls = plan.tls
        self.moves = plan.moves
        self.ledger = Ledger()
        self.sending = True
        self.report = Report(plan.seed)
        self.sessions: list[Session] = []
        self.acks = 0  # since the last start
        self.dups = 0
        self.given_up = trio.Event()
        self._lot = trio.lowlevel.ParkingLot()
        self._started_s = 0.0
        self._draw = random.Random(f"{plan.seed} freezing")

    # ------------------------------------------------------------ what sessions call

    @property
    def starts(self) -> int:
        return self.server.starts

    def is_up(self, start: int) -> bool:
        return self.server.up and self.server.starts == start

    async def server_up(self, after: int, naps: int = 0) -> int:
        """A start later than *after*, and than so many more, unless the run comes to its end."""
        while not (self.server.up and self.server.starts > after + (naps if self.sending else 0)):
            await self._lot.park()
        return self.server.starts

    def changed(self) -> None:
        self._lot.unpark_all()

    def acknowledged(self, *, dup: bool) -> None:
        if not self.acks:
            self.report.first_ack_s.append(trio.current_time() - self._started_s)
        self.acks += 1
        self.dups += dup
        self.changed()

    def give_up(self, why: str) -> None:
        self.report.gave_up = self.report.gave_up or why
        self.ledger.fault(WRONG, why)
        self.given_up.set()
        self.changed()

    # ------------------------------------------------------------ the run

    async def run(self, say: Callable[[str], None]) -> Report:
        self._started_s = trio.current_time()
        await self.server.start()
        try:
            async with trio.open_nursery() as nursery:
                await self._gather()
                for session in self.sessions:
                    nursery.start_soon(session.run)
                for number, kill in enumerate(self.plan.kills(), 1):
                    await self._cycle(kill)
                    if self._is_over():
                        break
                    say(f"cycle {number}: {self.ledger.acks} acks, {self.report.in_flight[-1]} in flight at the kill")
                    await self._restart()
                await self._finish()
                nursery.cancel_scope.cancel()
        finally:
            await self.server.kill()
        late = [s for s in self.report.first_ack_s[1:] if s > FIRST_ACK_S]
        if late and not self.server.slow:
            self.ledger.fault(WRONG, f"the first ack came {max(late):.1f} s after a restart")
        self.report.verdict = self.ledger.verdict(complete=not self.given_up.is_set())
        self.report.tokens_again = sum(session.presented_again for session in self.sessions)
        self.report.moved = sum(session.moved for session in self.sessions)
        self.report.fills = sum(session.follower.fills for session in self.sessions)
        return self.report

    async def _gather(self) -> None:
        """The accounts, the channels and who sends what. These connections are not watched: what they caused is found in the history."""
        plan = self.plan
        names = [f"user{i}" for i in range(plan.senders)]
        for i, name in enumerate([*names, "listener"]):
            wire = await Wire.open(self.port, tls=self.tls)
            await wire.hello()
            opened = await wire.ask("register", username=name, password=PASSWORD)
            assert opened["type"] == "session", opened
            for channel in CHANNELS[1:]:
                done = await (wire.ask("join", channel=channel) if i else wire.ask("command", text=f"create-channel {channel}"))
                assert done["type"] in ("ok", "result"), done
            await wire.aclose()
        for i, name in enumerate(names):
            partner = names[i ^ 1] if i ^ 1 < len(names) else name
            targets = [{"channel": channel} for channel in CHANNELS] + [{"to": partner}, {"to": names[(i + 7) % len(names)]}]
            work = Work(targets, plan.window, random.Random(f"{plan.seed} {name}"))
            self.sessions.append(Session(self, name, PASSWORD, name, random.Random(f"{plan.seed} {name} moves"), work))
        listeners = [*names[: plan.listeners - 1], "listener"]
        for name in listeners:
            self.sessions.append(Session(self, name, PASSWORD, f"{name} again", random.Random(f"{plan.seed} {name} naps")))

    async def _cycle(self, kill: Kill) -> None:
        self.report.kills += 1
        delay_s = kill.delay_s
        if not await self._reached(lambda: self.acks > kill.acks and self._resumed() >= kill.resumed):
            return
        while True:
            with trio.move_on_after(delay_s):
                await self.given_up.wait()
            if not await self._reached(lambda: self._in_flight() >= IN_FLIGHT):
                return
            if (unanswered := await self._freeze()) >= IN_FLIGHT:
                break
            self.server.thaw()
            delay_s = self._draw.uniform(0, self.plan.delay_s / 4)
        self.report.in_flight.append(unanswered)
        await self.server.kill()

    async def _freeze(self) -> int:
        """Stop the server where it is, and read all that it had sent until then. Returns how many texts it got and did not answer."""
        self.server.freeze()
        written = [(session, set(session.in_flight)) for session in self.sessions]
        await trio.testing.wait_all_tasks_blocked(0.003)
        return sum(len(cids & session.in_flight) for session, cids in written)

    async def _reached(self, condition: Callable[[], bool]) -> bool:
        with trio.move_on_after(self.plan.stuck_s):
            while not (condition() or self._is_over()):
                await self._lot.park()
        if not (self._is_over() or condition()):
            state = f"{self.acks} acks, {self._resumed()} live sessions, {self._in_flight()} in flight"
            self.give_up(f"stuck for {self.plan.stuck_s} s with {state}")
        return not self._is_over()

    def _is_over(self) -> bool:
        if self.plan.hasty and self.ledger.faults:
            self.given_up.set()
        return self.given_up.is_set()

    async def _restart(self) -> None:
        if self.report.kills > 1:
            self.report.stored_unacked.append(self.dups)
        self.acks = self.dups = 0
        self._started_s = trio.current_time()
        await self.server.start()
        self.changed()

    def _in_flight(self) -> int:
        return sum(len(session.in_flight) for session in self.sessions)

    def _resumed(self) -> int:
        return sum(session.live_since == self.starts for session in self.sessions if session.work)

    # ------------------------------------------------------------ the end

    async def _finish(self) -> None:
        """Nobody sends anything new; everything is acknowledged; everybody has everything; then read all histories."""
        if not self._is_over():
            await self._reached(lambda: self._resumed() == self.plan.senders)
            self.sending = False
            self.changed()  # who sleeps wakes up
            await self._reached(lambda: not any(session.outbox for session in self.sessions))
            self.report.stored_unacked.append(self.dups)
        else:
            self.sending = False
            with trio.move_on_after(2):
                while any(session.outbox for session in self.sessions):
                    await self._lot.park()
        if not self.server.up:
            return
        heads: dict[str, dict[str, int]] = {}
        for name in dict.fromkeys(session.user for session in self.sessions):
            with trio.move_on_after(self.plan.stuck_s) as limit:
                try:
                    heads[name] = await self._read_all(name)
                except (*ENDED, EOFError, KeyError) as error:
                    self.ledger.fault(LOST, f"{name} cannot read: {error!r}")
            if limit.cancelled_caught:
                self.ledger.fault(LOST, f"{name} gets no history in time")
        if not self._is_over():
            await self._reached(lambda: all(self._has_all(session, heads[session.user]) for session in self.sessions))

    def _has_all(self, session: Session, heads: dict[str, int]) -> bool:
        lines = session.follower.lines
        return all(conv in lines and lines[conv].next > head for conv, head in heads.items() if head)

    async def _read_all(self, name: str) -> dict[str, int]:
        """By a new session, which has nothing but the server's word. Returns the heads."""
        wire = await Wire.open(self.port, tls=self.tls)
        try:
            return await self._read_by(wire, name)
        finally:
            await wire.aclose()

    async def _read_by(self, wire: Wire, name: str) -> dict[str, int]:
        await wire.hello()
        opened = await wire.ask("login", username=name, password=PASSWORD)
        heads = opened["heads"]
        for conv in heads:
            records: list = []
            cids: list = []
            more = True
            while more:
                after = records[-1].seq if records else 0
                page = await wire.ask("history", conv=conv, after=after, limit=500)
                wire.received.clear()
                wire.looked = 0
                records += [self.ledger.one(record_of(name, message)) for message in page["messages"]]
                cids += [message.get("cid") for message in page["messages"]]
                more = page["more"] and bool(page["messages"])
            self.ledger.history(name, conv_key(name, conv), records, cids)
        return {conv_key(name, conv): head for conv, (_, head) in heads.items()}


async def run(plan: Plan, server: Server, say: Callable[[str], None] = lambda _: None) -> Report:
    return await Crowd(plan, server).run(say)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.kill", description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--tls", action="store_true")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="chat-kill-") as folder:
        server = Server(Path(folder) / "data")
        report = trio.run(run, Plan(given.seed, given.cycles, tls=given.tls), server, lambda line: print(line, flush=True))
    print(report)
    assert report.verdict is not None
    raise SystemExit(0 if report.verdict.green else 1)


if __name__ == "__main__":
    main()
