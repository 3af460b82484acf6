"""SIGKILL at any system call of the first start, of one that migrates, and of one in which the log is rotated: the next start works, and
what was there is there.

    python -m tests.e2e.kill_start --what start migration rotation --samples 40 --seed 1

The calls are those by which a process changes files and folders, or the locks on them. strace counts them in each thread and kills the
process as one of them begins. ``--samples 0`` tries every place.

Afterwards an ordinary start must work. A new server has its owner's invite then; one with data has the same server id, every record,
the newest schema, and in ``backups`` only whole copies, at least one of the schema of before. Nothing is recreated over data. Of logs that
were rotated every line is there, once.
"""

import argparse
import contextlib
import random
import re
import sqlite3
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from chat.store.migrate import migrate_sqlite, newest
from chat.store.sqlite_files import APPLICATION_ID
from tests.e2e.server import CHAT, GENEROUS, Server

CALLS = "mkdir,write,pwrite64,fsync,fdatasync,rename,renameat2,unlink,unlinkat,ftruncate,chmod,fchmod,fchmodat,flock,fcntl"
STRACE = ("strace", "-f", "-qq", "-e", "signal=none", "-e", f"trace={CALLS}")
KEPT = "kept through it all"
KINDS = ("start", "migration", "rotation")
ROTATE_BYTES = 4096
LOGS = {"chat.log": "the newest lines", "chat.log.1": "older lines", "chat.log.2": "the oldest lines"}
_READY = re.compile(r'write\(1, "(?:You|chat)')  # the server's first words
_BEGUN = re.compile(r"^(\d+) +\w+\(")


@dataclass
class Report:
    what: str
    places: int  # how many there are, in the thread that has the most
    tried: int = 0
    killed: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        faults = "".join(f"\n  {fault}" for fault in self.faults)
        return f"{self.what}: {self.killed} kills in {self.tried} starts, at places 1 to {self.places}; faults {len(self.faults)}{faults}"


class UnderStrace(Server):
    """Signals go to the server; strace ends with it."""

    def pid(self) -> int:
        tracer = super().pid()
        children = Path(f"/proc/{tracer}/task/{tracer}/children").read_text().split()
        return int(children[0]) if children else tracer


def prepare(what: str, data: Path) -> None:
    """The data folder before the start that is killed."""
    if what == "start":
        return
    data.mkdir(mode=0o700)
    with contextlib.closing(sqlite3.connect(data / "chat.db", isolation_level=None)) as db:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        migrate_sqlite(db, to=1 if what == "migration" else None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(
            "INSERT INTO accounts (id, name, canonical, skeleton, password_hash, role, at_ms)"
            " VALUES (7, 'Ann', 'ann', 'ann', 'x', 'owner', 1)"
        )
        db.execute(
            "INSERT INTO conversations (id, kind, epoch, last_seq, last_ts, at_ms, name, canonical, skeleton)"
            " VALUES (9, 'room', 'e', 1, 1, 1, 'lobby', 'lobby', 'lobby')"
        )
        db.execute("INSERT INTO records (conv, seq, ts, kind, author, body) VALUES (9, 1, 1, 'message', 7, ?)", (KEPT,))
    (data / "chat.db").chmod(0o600)
    if what == "rotation":
        for name, line in LOGS.items():
            (data / name).write_text(f"{line}\n" + "." * (ROTATE_BYTES - len(line) - 2) + "\n")


def settings(what: str, data: Path) -> dict[str, str]:
    if what != "rotation":
        return GENEROUS
    return {**GENEROUS, "log.file": str(data / "chat.log"), "log.rotate_bytes": str(ROTATE_BYTES), "log.level": "debug"}


def looked_at(database: Path) -> tuple[int, str, list[str]]:
    """(schema, server id, texts), when it is whole."""
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as db:
        (verdict,) = db.execute("PRAGMA integrity_check").fetchone()
        if verdict != "ok":
            raise ValueError(f"{database.name}: {verdict}")
        version, server_id = db.execute("SELECT schema_version, server_id FROM meta").fetchone()
        return version, server_id, [body for (body,) in db.execute("SELECT body FROM records WHERE kind = 'message'")]


async def places(what: str, folder: Path) -> int:
    """How many calls the thread with the most of them makes until the server is ready."""
    data, trace = folder / "counted", folder / "trace"
    prepare(what, data)
    server = UnderStrace(data, command=(*STRACE, "-o", str(trace), *CHAT), settings=settings(what, data))
    await server.start(within_s=60)
    await server.kill()
    before_ready = _READY.split(trace.read_text("latin-1"), maxsplit=1)[0]
    return max(Counter(found[1] for line in before_ready.splitlines() if (found := _BEGUN.match(line))).values())


async def kill_at(what: str, folder: Path, place: int, report: Report) -> bool:
    """*Returns* whether it was killed there."""
    data = folder / f"{what}{place}"
    prepare(what, data)
    before = looked_at(data / "chat.db") if what != "start" else None
    report.tried += 1
    killed = False
    tracing = (*STRACE, "-o", "/dev/null", "-e", f"inject={CALLS}:signal=KILL:when={place}")
    server = UnderStrace(data, command=(*tracing, *CHAT), settings=settings(what, data))
    try:
        await server.start(within_s=60)
        await server.kill()
    except RuntimeError:
        killed = True
        report.killed += 1
    again = Server(data, settings=settings(what, data))
    try:
        await again.start(within_s=60)
    except RuntimeError as error:
        report.faults.append(f"place {place}: the next start fails: {error}")
        return killed
    try:
        report.faults += [f"place {place}: {fault}" for fault in _faults(data, before, again.lines)]
    finally:
        await again.kill()
    return killed


def _faults(data: Path, before: tuple[int, str, list[str]] | None, lines: list[str]) -> list[str]:
    found = []
    version, server_id, texts = looked_at(data / "chat.db")
    if version != newest("sqlite"):
        found.append(f"the schema is {version}")
    if before is None:
        if not any("owner" in line for line in lines):
            found.append(f"a new server has no invite for its owner: {lines}")
        return found
    if (server_id, texts) != before[1:]:
        found.append(f"it was {before}, and is {server_id, texts}")
    if (data / "chat.log").exists():
        kept = "".join(log.read_text() for log in data.glob("chat.log*"))
        return found + [f"in the logs {line!r} is {kept.count(line)} times" for line in LOGS.values() if kept.count(f"{line}\n") != 1]
    copies = [copy for copy in (data / "backups").iterdir() if copy.suffix == ".db"]
    for copy in copies:
        if looked_at(copy) != before:
            found.append(f"the backup {copy.name} is {looked_at(copy)}")
    if not copies:
        found.append("it was migrated without a backup")
    return found


async def run(what: str, folder: Path, samples: int, seed: int, say: Callable[[str], None] = lambda _: None) -> Report:
    """*samples* of all places, drawn by *seed*; 0: all."""
    bound = await places(what, folder)
    report = Report(what, bound)
    draw, left = random.Random(seed), set(range(1, bound + 1))
    while left and (not samples or report.tried < samples):
        place = draw.choice(sorted(left)) if samples else min(left)
        left.discard(place)
        if not await kill_at(what, folder, place, report):  # ready before it came so far: strace had counted more than there is
            left = {other for other in left if other < place}
            report.places = place - 1
        say(f"{what} {place} of {report.places}: {report.killed} kills, {len(report.faults)} faults")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.kill_start", description=__doc__.splitlines()[0])
    parser.add_argument("--what", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    given = parser.parse_args()
    print(f"seed {given.seed}; {subprocess.run(['strace', '-V'], capture_output=True, text=True).stdout.splitlines()[0]}", flush=True)
    faults = 0
    for what in given.what:
        with tempfile.TemporaryDirectory(prefix="chat-kill-") as folder:
            report = trio.run(run, what, Path(folder), given.samples, given.seed, lambda text: print(text, flush=True))
        print(report, flush=True)
        faults += len(report.faults)
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
