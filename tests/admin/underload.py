"""A backup while people talk, restored on the side: what was acknowledged before it began is in it, and old clients go on.

    python -m tests.admin.underload --seconds 60 --rate 200

*Pace*: an open loop, each sender at its times, whether the answers are there or not. `acked` has what a client was told, and when.
"""

import argparse
import contextlib
import sqlite3
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import trio

from tests.admin.shell import Shell
from tests.e2e.guests import Guest, serving
from tests.e2e.server import Server

SENDERS = 8


@dataclass
class Load:
    guests: list[Guest]
    rate: float
    sent: dict[str, float] = field(default_factory=dict)  # cid → when
    acked: dict[str, tuple[int, float]] = field(default_factory=dict)  # cid → (seq, when)
    going: bool = True
    moved: trio.Event = field(default_factory=trio.Event)

    async def run(self) -> None:
        """Until `going` is False and everything is acknowledged."""
        async with trio.open_nursery() as readers:
            for guest in self.guests:
                readers.start_soon(self._read, guest)
            async with trio.open_nursery() as senders:
                for number, guest in enumerate(self.guests):
                    senders.start_soon(self._send, number, guest)
            with trio.fail_after(20):
                while len(self.acked) < len(self.sent):
                    await self.moved.wait()
            readers.cancel_scope.cancel()

    async def _send(self, number: int, guest: Guest) -> None:
        start, every, n = trio.current_time(), len(self.guests) / self.rate, 0
        while self.going:
            cid = f"{number}-{n}"
            self.sent[cid] = trio.current_time()
            await guest.send({"type": "send", "id": cid, "cid": cid, "channel": "lobby", "text": f"text {cid}"})
            n += 1
            await trio.sleep_until(start + (n + number / len(self.guests)) * every)

    async def _read(self, guest: Guest) -> None:
        while True:
            for message in await guest.receive():
                if message["type"] == "ack":
                    self.acked[message["cid"]] = message["seq"], trio.current_time()
                    self.moved.set()
                    self.moved = trio.Event()
                assert message["type"] != "error", message

    def latency_ms(self, begin: float, end: float) -> list[float]:
        """Of what was sent between, sorted."""
        return sorted(1000 * (self.acked[cid][1] - at) for cid, at in self.sent.items() if begin <= at < end and cid in self.acked)


def percentile(values: list[float], part: float) -> float:
    return values[min(len(values) - 1, int(part * len(values)))] if values else 0.0


async def scenario(folder: Path, *, seconds: float, rate: float) -> dict:
    """*Returns* figures. *Raises* AssertionError with the first violation."""
    found: dict = {}
    async with serving(folder) as server:
        shell = Shell(server.data_dir)
        guests = [await Guest.register(server, f"sender{n}") for n in range(SENDERS)]
        load = Load(guests, rate)
        async with trio.open_nursery() as nursery:
            began = trio.current_time()
            nursery.start_soon(load.run)
            await trio.sleep(seconds)
            before, start = dict(load.acked), trio.current_time()
            made = await shell("backup", str(folder / "kept"), "--json")
            assert made.returncode == 0, made.stderr
            end = trio.current_time()
            await trio.sleep(seconds / 4)
            load.going = False
        found["texts"], found["before"], found["backup_s"] = len(load.acked), len(before), round(end - start, 2)
        found["p99_ms_before"] = round(percentile(load.latency_ms(began, start), 0.99), 1)
        found["p99_ms_during"] = round(percentile(load.latency_ms(start, end), 0.99), 1)
        assert len(load.acked) == len(load.sent)
        await _restore(folder, server, found, before, load)
    return found


async def _restore(folder: Path, server: Server, found: dict, before: dict, load: Load) -> None:
    side = Shell(folder / "side")
    done = await side("restore", str(folder / "kept"))
    assert done.returncode == 0, done.stderr
    with contextlib.closing(sqlite3.connect(folder / "side" / "chat.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        stored = {cid: (seq, body) for cid, seq, body in db.execute("SELECT cid, seq, body FROM records WHERE kind = 'message'")}
    assert stored.keys() >= before.keys(), "a text that was acknowledged before the backup is not in it"
    assert all(stored[cid] == (seq, f"text {cid}") for cid, (seq, _) in before.items())
    found["restored"] = len(stored)
    for guest in load.guests:
        await guest.aclose()
    assert await server.stop() == 0
    server.data_dir = folder / "side"
    await server.start()
    for number, guest in enumerate(load.guests):
        epoch, last = next(iter(guest.opened["heads"].values()))
        async with await Guest.resume(server, guest.token, {"#lobby": [epoch, last + 1]}) as again:
            assert again.opened["type"] == "resumed", again.opened
            (reset,) = [m for m in again.received if m["type"] == "history_reset"]
            assert reset["epoch"] != epoch
            assert (reset["conv"], reset["last_seq"]) == ("#lobby", len(stored) + number)
            known = next(cid for cid in before if cid.startswith(f"{number}-"))
            retry = await again.say("lobby", f"text {known}", known)
            assert (retry["dup"], retry["epoch"], retry["seq"]) == (True, reset["epoch"], before[known][0])
            new = await again.say("lobby", "and we go on", f"new-{number}")
            assert (new["seq"], new["epoch"]) == (reset["last_seq"] + 1, reset["epoch"])
    found["resumed"] = len(load.guests)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rate", type=float, default=200)
    how = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(trio.run(lambda: scenario(Path(folder), seconds=how.seconds, rate=how.rate)))


if __name__ == "__main__":
    main()
