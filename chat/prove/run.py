"""A run: people are gathered, everything happens at once for a while, then all is compared.

    gather          accounts, channels (public, and one with a password), each person's devices
    storm           devices talk, listen and suffer (trouble.py); the server is killed and started again
    settle          nobody says anything new; everything gets its ack; the server is killed once more; everybody catches up
    judge           fresh readers read all histories; the server is stopped; the file is read; the ledger's verdict

The first violation ends the storm. All that is random comes from generators made of the seed, one for each purpose and device, so that
the same seed gives the same schedule; what falls together with what is the machine's doing.
"""

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from chat.prove import trouble
from chat.prove.device import PASSWORD, Device
from chat.prove.evidence import Refused, Visitor, last_words, read_over_the_wire, read_the_file
from chat.prove.ledger import ALTERED, FAULTS, LOST, Ledger, Violation
from chat.prove.proxy import Proxy
from chat.prove.scratch import COMMAND, CannotStart, Scratch
from chat.prove.wires import ENDED, KINDS

PEOPLE: Final = ("ada", "ben", "cleo", "dora", "emil", "finn", "gwen", "hugo", "iris", "jack", "kira", "leo", "mona", "nils", "olga", "pia")
LOBBY, GARDEN, DEN = "lobby", "garden", "den"  # everybody's, public, with a password
DEN_PASSWORD: Final = "behind the ivy"
BUSY: Final = 5  # texts without an ack, at least, when the server is killed
CALM_S: Final = 15.0  # until half of those who talk are there again
TRIES: Final = 6
SOON_S: Final = 0.003  # until what is said is on its way
SECONDS_A_KILL: Final = 5.0
PATIENCE_S: Final = 40.0  # for everything to be acknowledged and read when the storm is over
FREEZE_S: Final = 0.02  # of reading what a frozen server had sent, before it is killed


@attrs.frozen(kw_only=True)
class Plan:
    """``seconds`` is the storm's length; ``rate``: texts a second of each person; ``kills`` None: one in each `SECONDS_A_KILL`."""

    seed: int
    seconds: float = 30.0
    people: int = 8
    rate: float = 12.0
    kills: int | None = None
    command: Sequence[str] = COMMAND
    kinds: Sequence[str] = KINDS

    @property
    def kill_count(self) -> int:
        return max(1, round(self.seconds / SECONDS_A_KILL)) if self.kills is None else self.kills

    @property
    def options(self) -> str:
        """Of the command that runs the same again."""
        given = f"--seed {self.seed} --seconds {self.seconds:g} --people {self.people} --rate {self.rate:g}"
        return given if self.kills is None else f"{given} --kills {self.kills}"


@attrs.define(kw_only=True)
class Report:
    """What a run came to. Durations are in seconds."""

    seed: int
    schedule: str = ""
    again: str = ""  # the options that repeat it
    seconds: float = 0.0
    people: int = 0
    devices: int = 0
    kinds: tuple[str, ...] = ()
    faults: dict[str, int] = attrs.Factory(lambda: dict.fromkeys(FAULTS, 0))
    acks: int = 0
    texts: int = 0
    deliveries: int = 0
    records: int = 0
    retries: int = 0
    echoes: int = 0
    dups: int = 0
    rate_limited: int = 0
    kills: int = 0
    drains: int = 0
    in_flight: list[int] = attrs.Factory(list)  # texts without an ack, at each kill of the storm
    orphans: int = 0
    resumes: int = 0
    lags: int = 0
    cut_off: int = 0
    fills: int = 0
    silences: int = 0
    troubles: dict[str, int] = attrs.Factory(dict)
    recovery_s: float = 0.0
    recovery_after_kill_s: float = 0.0
    violation: Violation | None = None  # the one to look at first, explained
    first: Violation | None = None  # in the order of time
    others: int = 0
    violations: list[tuple[float, str, str]] = attrs.Factory(list)  # the first ones in the order of time: when, kind, what
    bug: str = ""
    stopped_early: bool = False
    took_s: float = 0.0

    @property
    def green(self) -> bool:
        return not any(self.faults.values())

    def as_json(self) -> dict[str, Any]:
        return {**attrs.asdict(self), "ok": self.green}


@attrs.define(eq=False)
class Run:
    """Implements `device.World`. The display looks at it while it runs."""

    plan: Plan
    server: Scratch
    ledger: Ledger = attrs.Factory(Ledger)
    counts: Counter[str] = attrs.Factory(Counter)
    devices: list[Device] = attrs.Factory(list)
    phase: str = "starting a server"
    talking: bool = True
    over: bool = False
    kills: int = 0
    in_flight: list[int] = attrs.Factory(list)
    longest_s: float = 0.0
    longest_killed_s: float = 0.0
    schedule: str = ""
    _lot: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)
    _began: float = 0.0
    proxy: Proxy = attrs.field(init=False)
    nursery: trio.Nursery = attrs.field(init=False)

    # ------------------------------------------------------------ what devices call

    def now_s(self) -> float:
        now = self.ledger.now_s = trio.current_time() - self._began
        return now

    def changed(self) -> None:
        self.now_s()
        self._lot.unpark_all()

    async def change(self) -> None:
        await self._lot.park()

    def recovered(self, seconds: float, *, killed: bool) -> None:
        if killed:
            self.longest_killed_s = max(self.longest_killed_s, seconds)
        else:
            self.longest_s = max(self.longest_s, seconds)

    # ------------------------------------------------------------ the run

    async def run(self) -> Report:
        """*Raises* CannotStart, Refused: there is nothing to judge."""
        began = time.monotonic()
        self.proxy = Proxy(self.server.port)
        self._began = trio.current_time()
        try:
            await self.server.start()
            async with trio.open_nursery() as roads:
                await roads.start(self.proxy.run)
                async with trio.open_nursery() as self.nursery:
                    await self._gather()
                    await self._storm()
                    complete = await self._settle()
                    if complete:
                        await self._read()
                    self.over = True
                    self.nursery.cancel_scope.cancel()
                if not complete:
                    await self._read()  # when nobody says anything any more
                roads.cancel_scope.cancel()
            await self._stop()
        finally:
            await self.server.kill()
        compared = self.ledger.verdict(complete=complete)
        return self._report(compared, complete, time.monotonic() - began)

    async def _gather(self) -> None:
        self.phase = "gathering people"
        plan = self.plan
        people = [PEOPLE[i % len(PEOPLE)] + (str(i // len(PEOPLE)) if i >= len(PEOPLE) else "") for i in range(plan.people)]
        for i, person in enumerate(people):
            visitor = await Visitor.come("tcp", self.server.port)
            await visitor.ask("register", username=person, password=PASSWORD)
            if i == 0:
                await visitor.ask("command", text=f"create-channel {GARDEN}")
                await visitor.ask("command", text=f"create-channel {DEN} {DEN_PASSWORD.replace(' ', '-')}")
            else:
                await visitor.ask("join", channel=GARDEN)
                if i % 2 == 0:
                    await visitor.ask("join", channel=DEN, password=DEN_PASSWORD.replace(" ", "-"))
            visitor.leave()
        schedule: list[object] = []
        lives: list[tuple[Device, list[trouble.Trouble]]] = []
        for i, person in enumerate(people):
            partner, friend = people[min(i ^ 1, len(people) - 1)], people[(i + 3) % len(people)]
            targets = [{"channel": LOBBY}, {"channel": GARDEN}, {"to": partner}, {"to": friend}, {"to": person}]
            if i % 2 == 0:
                targets.append({"channel": DEN})
            pair = []
            for j, what in enumerate(("laptop", "phone")):
                device = Device(
                    self,
                    person,
                    f"{person}'s {what}",
                    targets,
                    seed=plan.seed,
                    kind=plan.kinds[(i + 2 * j) % len(plan.kinds)],
                    rate=plan.rate,
                    tunnel=(i + j) % 2 == 0,
                    narrow=j == 1,
                )
                draw = random.Random(f"{plan.seed} {device.name} troubles")
                weights = trouble.LISTENER if j else trouble.TALKER
                life = trouble.troubles(draw, plan.seconds, weights, tunnel=device.tunnel)
                lives.append((device, life))
                schedule += [device.name, *life]
                pair.append(device)
            pair[0].other, pair[1].other = pair[1], pair[0]
        self.devices = [device for device, _ in lives]
        kills = trouble.kills(random.Random(f"{plan.seed} kills"), plan.seconds, plan.kill_count)
        self.schedule = trouble.fingerprint([*schedule, *kills])
        for device in self.devices:
            self.nursery.start_soon(device.run)
        await self._until(lambda: all(device.live for device in self.devices))
        self._began = trio.current_time()
        self.now_s()
        for device, life in lives:
            self.nursery.start_soon(device.life, life)
        for device in self.devices[::2]:
            self.nursery.start_soon(device.talk)
        self.nursery.start_soon(self._kill_all, kills)

    async def _storm(self) -> None:
        self.phase = "storm"
        with trio.move_on_after(self.plan.seconds - self.now_s()):
            while not self.ledger.violations:
                await self.change()

    async def _kill_all(self, kills: list[trouble.Kill]) -> None:
        for kill in kills:
            await trio.sleep(max(0.0, kill.at_s - self.now_s()))
            with trio.move_on_after(CALM_S):  # on a slow machine a kill would follow on a start, and nobody would ever talk
                while 2 * sum(device.live for device in self.devices[::2]) < self.plan.people:
                    await self.change()
            for attempt in range(TRIES):
                if not (self.talking and self.server.up):
                    return
                for device in self.devices[::2]:
                    if device.live:
                        device.salvo(kill.texts)
                await trio.sleep(max(SOON_S, kill.delay_s / 2**attempt))
                if kill.gently:
                    break
                if await self._freeze() >= BUSY:
                    break
                self.server.thaw()
            if kill.gently:
                await self._drain()
            else:
                self.in_flight.append(self._unanswered())
                await self._kill()
            await self._start_again()

    async def _kill(self) -> None:
        await self._freeze()
        under_way = self._unanswered()
        self.kills += 1
        await self.server.kill()
        self.now_s()
        self.ledger.happened(f"SIGKILL number {self.kills}, with {under_way} texts under way")
        self.changed()

    async def _drain(self) -> None:
        """SIGTERM in the middle of it: what was received is answered, or comes again."""
        self.counts["drains"] += 1
        self.ledger.happened(f"SIGTERM, with {self._unanswered()} texts under way")
        status = await self.server.stop()
        self.now_s()
        if status != 0:
            self.ledger.fault(ALTERED, f"the server ended with status {status} after SIGTERM; 0 was expected")
        self.changed()

    async def _freeze(self) -> int:
        """Stop it where it stands, and read what it had sent: so the ledger knows every ack that left it. *Returns* what is unanswered."""
        self.server.freeze()
        await trio.sleep(FREEZE_S)
        return self._unanswered()

    async def _start_again(self) -> None:
        await self.server.start()
        self.now_s()
        self.ledger.happened("the server was ready again")
        self.changed()

    def _unanswered(self) -> int:
        return sum(len(device.in_flight) for device in self.devices)

    async def _settle(self) -> bool:
        """*Returns* whether everything came to its end: all acknowledged, all caught up."""
        self.phase = "settling"
        self.talking = False
        self.changed()
        if self.ledger.violations:
            with trio.move_on_after(3):
                await self._all_acknowledged()
            return False
        if not await self._until(self._is_acknowledged):
            return True  # the ledger says what has no ack
        await self._kill()
        await self._start_again()
        await self._until(lambda: all(device.live for device in self.devices))
        return True

    def _is_acknowledged(self) -> bool:
        return self.server.up and not any(device.outbox for device in self.devices)

    async def _all_acknowledged(self) -> None:
        while not self._is_acknowledged():
            await self.change()

    async def _until(self, condition: Callable[[], bool]) -> bool:
        with trio.move_on_after(PATIENCE_S):
            while not condition():
                with trio.move_on_after(0.1):
                    await self.change()
        return condition()

    async def _read(self) -> None:
        self.phase = "reading everything back"
        if not self.server.up:  # broken off between a kill and the next start
            await self.server.kill()
            await self.server.start()
        heads: dict[str, dict[str, int]] = {}
        people = dict.fromkeys(device.person for device in self.devices)
        for i, person in enumerate(people):
            with trio.move_on_after(PATIENCE_S) as limit:
                try:
                    heads[person] = await read_over_the_wire(self.ledger, self.server.port, person, KINDS[i % len(KINDS)])
                except (Refused, *ENDED) as error:
                    self.ledger.fault(LOST, f"{person} cannot read the history: {error}")
            if limit.cancelled_caught:
                self.ledger.fault(LOST, f"{person} got no history within {PATIENCE_S:.0f} s")
        if not (self.ledger.violations or self.over):
            await self._until(lambda: all(_has_all(device, heads[device.person]) for device in self.devices))

    async def _stop(self) -> None:
        self.phase = "comparing"
        status = await self.server.stop()
        self.now_s()
        if status != 0:
            self.ledger.fault(ALTERED, f"the server ended with status {status} after SIGTERM; 0 was expected")
        self._records = await trio.to_thread.run_sync(read_the_file, self.ledger, self.server.data_dir / "chat.db")

    _records: int = 0

    def _report(self, compared: int, complete: bool, took_s: float) -> Report:
        ledger, counts = self.ledger, self.counts
        bug = last_words(self.server.log)
        if bug:
            ledger.fault(ALTERED, "the server's log tells of a bug")
        violation = ledger.worst()
        return Report(
            seed=self.plan.seed,
            schedule=self.schedule,
            again=self.plan.options,
            seconds=self.plan.seconds,
            people=self.plan.people,
            devices=len(self.devices),
            kinds=tuple(dict.fromkeys(device.kind for device in self.devices)),
            faults={kind: ledger.faults[kind] for kind in FAULTS},
            acks=ledger.acks,
            texts=len(ledger.texts),
            deliveries=compared,
            records=self._records,
            retries=counts["retries"],
            echoes=counts["echoes"],
            dups=ledger.dups,
            rate_limited=ledger.refusals["rate_limited"],
            kills=self.kills,
            drains=counts["drains"],
            in_flight=self.in_flight,
            orphans=ledger.orphans,
            resumes=counts["resumes"],
            lags=sum(device.cursor.lags for device in self.devices),
            cut_off=counts["cut off"],
            fills=sum(device.cursor.fills for device in self.devices),
            silences=counts["silences"],
            troubles={kind: counts[kind] for kind in trouble.MEANING},
            recovery_s=round(self.longest_s, 3),
            recovery_after_kill_s=round(self.longest_killed_s, 3),
            violation=violation,
            others=sum(ledger.faults.values()) - 1 if violation else 0,
            first=ledger.first(),
            violations=[(round(v.at_s, 3), v.kind, v.what) for v in ledger.violations],
            bug=bug,
            stopped_early=not complete,
            took_s=round(took_s, 1),
        )


def _has_all(device: Device, heads: dict[str, int]) -> bool:
    threads = device.cursor.threads
    return all(conv in threads and threads[conv].next > head for conv, head in heads.items() if head)


async def prove(plan: Plan, watch: Callable[[Run], Any] | None = None) -> Report:
    """One run, in a temporary folder. *watch*: a task that looks at it meanwhile. *Raises* CannotStart, Refused."""
    with tempfile.TemporaryDirectory(prefix="chat-prove-") as folder:
        run = Run(plan, Scratch(Path(folder), command=plan.command))
        try:
            async with trio.open_nursery() as nursery:
                if watch is not None:
                    nursery.start_soon(watch, run)
                report = await run.run()
                nursery.cancel_scope.cancel()
        except* (CannotStart, Refused) as group:
            raise _first(group) from None
        return report


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
