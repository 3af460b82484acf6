"""What strace saw of a server: what it received and sent, what it wrote to the database and when that was synced.

The lines of a trace stand in the order in which the tracer let the calls begin and end, so a call that is listed as begun after another has
ended really began after it.

`PowerCut` makes of SIGKILL what it is not, the loss of the machine's power: the kernel keeps what a killed process has written,
so the database's files are put back to what the trace shows as synced.
"""

import codecs
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.server import CHAT, Server

SYNCS = ("fsync", "fdatasync")
CALLS = ("recvfrom", "sendto", "pwrite64", "write", "ftruncate", *SYNCS)
STRACE = ("strace", "-f", "-y", "-s", "1000000", "-e", "signal=none", "-e", "trace=" + ",".join(CALLS))

_LINE = re.compile(r"^(\d+) +(.*)$")
_CALL = re.compile(r"^(\w+)\((\d+)<([^>]*)>(?:, )?(.*)$", re.DOTALL)
_RESUMED = re.compile(r"^<\.\.\. (\w+) resumed>(.*)$", re.DOTALL)
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_TEXT = re.compile(rb"(user[0-9]+-[0-9]+) ")
_CID = re.compile(rb'"cid": ?"([A-Za-z0-9_-]+)"')
_RESULT = re.compile(r"= (-?\d+)[^=]*$")


def reason_not_to_trace() -> str:
    """Why strace does not work here; empty where it does."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True, text=True)
    return "" if done.returncode == 0 else f"ptrace is not permitted here: {done.stderr.strip()[-200:]}"


@dataclass
class Call:
    """*begun* and *ended* are places in the trace; ``ended`` is None for one that never did."""

    name: str
    path: str
    rest: str  # the arguments after the descriptor, and what was returned
    begun: int
    ended: int | None = None

    @property
    def result(self) -> int:
        found = _RESULT.search(self.rest)
        return int(found[1]) if found else -1

    @property
    def data(self) -> bytes:
        found = _STRING.search(self.rest)
        return codecs.escape_decode(found[1].encode("latin-1"))[0] if found else b""

    @property
    def numbers(self) -> list[int]:
        """The integers between the data and the result."""
        end = self.rest.rfind('"') + 1
        return [int(number) for number in re.findall(r"\d+", self.rest[end:].partition(")")[0])]


def calls(trace: Path) -> Iterator[Call]:
    """Every call twice: when it begins, and, with ``ended`` and its result, when it ends."""
    begun: dict[str, Call] = {}
    with trace.open(encoding="latin-1", newline="\n") as lines:
        for place, line in enumerate(lines):
            found = _LINE.match(line.rstrip("\n"))
            if found is None:
                continue
            pid, what = found.groups()
            resumed = _RESUMED.match(what)
            if resumed:
                call = begun.pop(pid, None)
                if call is None:
                    continue
                call.rest += resumed[2]
            else:
                start = _CALL.match(what)
                if start is None:
                    continue
                call = Call(start[1], start[3], start[4], place)
                if call.rest.endswith("<unfinished ...>"):
                    call.rest = call.rest.removesuffix("<unfinished ...>")
                    begun[pid] = call
                    yield call
                    continue
                yield call
            call.ended = place
            yield call


# ---------------------------------------------------------------- is a sync between each receipt and its ack?


@dataclass
class Witness:
    """``acks``: cids whose ack was sent. ``unsynced``: those of them of which it is not true that the text was received, then written to
    the database's log, that then a sync of the log began and ended, and that then the ack was sent."""

    acks: int
    unsynced: list[str]


def witness(trace: Path) -> Witness:
    """Of what went over plain sockets, when each text begins with its cid and a blank (as in `session.Work`).

    That the text itself is in what is written matters: with many at once, some sync lies between any receipt and its ack.
    """
    received: dict[bytes, int] = {}
    written: dict[bytes, int] = {}
    acked: dict[bytes, int] = {}
    syncs: list[tuple[int, int]] = []
    rests: dict[tuple[str, str], bytes] = {}
    for call in calls(trace):
        if call.ended is None or call.result < 0:
            continue
        if call.path.endswith("-wal"):
            if call.name in SYNCS:
                syncs.append((call.begun, call.ended))
            else:
                for cid in _TEXT.findall(call.data):
                    written.setdefault(cid, call.ended)
        elif call.name in ("recvfrom", "sendto") and "MSG_PEEK" not in call.rest[-200:]:
            key = (call.name, call.path)
            *lines, rests[key] = (rests.get(key, b"") + call.data[: call.result]).split(b"\n")
            for line in lines:
                found = _CID.search(line)
                if found and call.name == "recvfrom":
                    received.setdefault(found[1], call.ended)
                elif found and line.startswith(b'{"type":"ack"'):
                    acked.setdefault(found[1], call.begun)

    def is_synced(cid: bytes) -> bool:
        if cid not in written:
            return False
        return received[cid] < written[cid] and any(written[cid] < begun and ended < acked[cid] for begun, ended in syncs)

    return Witness(len(acked), [cid.decode() for cid in acked if not is_synced(cid)])


# ---------------------------------------------------------------- a server under the tracer


class Traced(Server):
    """A server under strace; each start has its own ``trace``. Signals go to the server, and strace ends with it."""

    slow = True

    def __init__(self, data_dir: Path, *, command: Sequence[str] = CHAT) -> None:
        super().__init__(data_dir, command=command)
        self._chat = tuple(command)
        self.trace = data_dir

    async def start(self, *, within_s: float = 60) -> None:
        self.trace = self.data_dir.with_name(f"{self.data_dir.name}.trace{self.starts + 1}")
        self._command = (*STRACE, "-o", str(self.trace), *self._chat)
        await super().start(within_s=within_s)

    def pid(self) -> int:
        tracer = super().pid()
        children = Path(f"/proc/{tracer}/task/{tracer}/children").read_text().split()
        return int(children[0]) if children else tracer


class PowerCut(Traced):
    """Each kill is a power cut. (The making of the database, which is written beside its place and renamed, is not traced.)"""

    FILES = ("chat.db", "chat.db-wal")

    async def start(self, *, within_s: float = 60) -> None:
        if not (self.data_dir / self.FILES[0]).exists():
            first = Server(self.data_dir, command=self._chat)
            await first.start(within_s=within_s)
            await first.stop()
        self._durable = {name: self._read(name) for name in self.FILES}
        await super().start(within_s=within_s)

    async def wait(self) -> int:
        status = await super().wait()
        if status in (-signal.SIGKILL, 128 + signal.SIGKILL):
            self._cut()
        return status

    def _read(self, name: str) -> bytearray:
        path = self.data_dir / name
        return bytearray(path.read_bytes() if path.exists() else b"")

    def _cut(self) -> None:
        waiting: dict[str, list[Call]] = {name: [] for name in self.FILES}
        syncing: dict[int, int] = {}  # by the place where the sync began: how many writes it covers
        for call in calls(self.trace):
            name = Path(call.path).name
            if name not in self.FILES:
                continue
            if call.name in SYNCS:
                if call.ended is None:
                    syncing[call.begun] = len(waiting[name])
                elif call.result == 0:
                    synced = syncing.pop(call.begun)
                    for write in waiting[name][:synced]:
                        self._apply(self._durable[name], write)
                    del waiting[name][:synced]
            elif call.name in ("pwrite64", "ftruncate") and call.ended is None:
                waiting[name].append(call)
        for name, content in self._durable.items():
            (self.data_dir / name).write_bytes(content)
        (self.data_dir / "chat.db-shm").unlink(missing_ok=True)

    def _apply(self, content: bytearray, write: Call) -> None:
        if write.name == "ftruncate":
            size = write.numbers[0]
            content[size:] = bytes(max(0, size - len(content)))
            return
        data, offset = write.data, write.numbers[1]
        assert len(data) == write.numbers[0], "the trace shows less than was written"
        if len(content) < offset:
            content.extend(bytes(offset - len(content)))
        content[offset : offset + len(data)] = data
