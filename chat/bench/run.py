"""Conducts a measurement: starts the server, the processes of clients, gives the signs, reads the clocks, adds up.

The server has the first processor that this process may use, the clients have the others (where there is one only, they share it). Two
processes of clients as a rule: with one the generator is the limit sooner, with more they take the processor from each other.
"""

import contextlib
import json
import math
import os
import platform
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from chat import __version__
from chat.bench.scratch import Server, allow_descriptors, scratch
from chat.bench.wire import random_name
from chat.bench.worker import BUCKETS_PER_OCTAVE
from chat.bench.workload import BadWorkload, Workload

WORKERS: Final = 2
BUSY: Final = 0.9  # a processor of the clients' that is used to this share is the limit
SPARE_DESCRIPTORS: Final = 64
STAGES_S: Final = 2.0
Tell = Callable[[str], None]


class Failed(Exception):
    """The measurement could not be made; the text says why."""


class Workers:
    """The processes of clients. *Owns* them."""

    def __init__(self, server: Server, workload: Workload, count: int, cpus: set[int] | None) -> None:
        run = random_name()
        self.processes: list[subprocess.Popen[bytes]] = []
        self._rests = [b""] * count
        share = math.ceil(workload.members / count)
        for first in range(0, workload.members, share):
            process = subprocess.Popen(
                [sys.executable, "-m", "chat.bench.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
            if cpus:
                os.sched_setaffinity(process.pid, cpus)
            self.processes.append(process)
            spec = {
                "host": server.host,
                "port": server.port,
                "secure": server.secure or workload.transport == "tls",
                "transport": workload.transport,
                "invite": server.invite,
                "run": run,
                "first": first,
                "count": min(share, workload.members - first),
                "workload": attrs.asdict(workload),
            }
            self._write(process, spec)

    def _write(self, process: "subprocess.Popen[bytes]", command: dict[str, Any]) -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its last line says why
            process.stdin.write(json.dumps(command).encode() + b"\n")

    def order(self, **command: Any) -> None:
        for process in self.processes:
            self._write(process, command)

    def wait(self, key: str, *, timeout_s: float, tell: Callable[[dict[int, Any]], None] | None = None) -> list[Any]:
        """What each says under *key*. *Raises* Failed."""
        answers: dict[int, Any] = {}
        progress: dict[int, Any] = {}
        with selectors.DefaultSelector() as selector:
            for place, process in enumerate(self.processes):
                assert process.stdout is not None
                selector.register(process.stdout, selectors.EVENT_READ, place)
            give_up = time.monotonic() + timeout_s
            while len(answers) < len(self.processes):
                for ready, _ in selector.select(1):
                    for said in self._read(ready.data):
                        if "failed" in said:
                            raise Failed(f"the clients could not go on: {said['failed']}")
                        if key in said:
                            answers[ready.data] = said[key]
                            selector.unregister(ready.fileobj)
                        else:
                            progress[ready.data] = next(iter(said.values()))
                            if tell is not None:
                                tell(progress)
                if time.monotonic() > give_up:
                    raise Failed(f"the clients did not come to {key!r} within {timeout_s:.0f} s")
        return [answers[place] for place in sorted(answers)]

    def _read(self, place: int) -> list[dict[str, Any]]:
        """The lines that a process has written."""
        stdout = self.processes[place].stdout
        assert stdout is not None
        data = os.read(stdout.fileno(), 1 << 20)
        if not data:
            return [{"failed": "a process of clients ended"}]
        *lines, self._rests[place] = (self._rests[place] + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def _workers(server: Server, workload: Workload, count: int, cpus: set[int] | None) -> Iterator[Workers]:
    workers = Workers(server, workload, count, cpus)
    try:
        yield workers
    finally:
        workers.close()


def measure(workload: Workload, *, server: Server | None = None, stages: bool = True, workers: int = WORKERS, tell: Tell) -> dict[str, Any]:
    """Run *workload* against *server* (None: a scratch server of its own). *Waits* for about ``warm + seconds`` beside the logins.

    *Raises* Failed, BadWorkload, `scratch.NoServer`.
    """
    allow_descriptors()
    here = sorted(os.sched_getaffinity(0))
    server_cpu = here[0] if len(here) > 1 and server is None else None
    cpus = set(here[1:]) if len(here) > 1 else None
    _check_descriptors(workload, workers)
    with contextlib.ExitStack() as stack:
        at = server if server is not None else stack.enter_context(scratch(cpu=server_cpu))
        if workload.idle:
            figures = _idle(workload, at, workers, cpus, tell)
        elif workload.logins:
            figures = _logins(workload, at, workers, cpus, tell)
        else:
            figures = _load(workload, at, workers, cpus, tell)
    report = {
        "chat": __version__,
        "workload": {**attrs.asdict(workload), "title": workload.title},
        "machine": machine(),
        "server": "scratch" if server is None else f"{server.host}:{server.port}",
        **figures,
    }
    if stages and server is None and not (workload.idle or workload.logins):
        report["stages"] = _stages(workload, workers, server_cpu, cpus, tell)
    return report


def _check_descriptors(workload: Workload, workers: int) -> None:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if workload.members + 256 + SPARE_DESCRIPTORS > limit:
        raise BadWorkload(f"{workload.members} members need more descriptors than the {limit} that a process may have (ulimit -n)")


def _come_in(workers: Workers, workload: Workload, tell: Tell) -> float:
    """*Returns* the seconds that it took to open all sessions."""
    begin = time.monotonic()

    def progress(opened: dict[int, Any]) -> None:
        tell(f"opening sessions: {sum(opened.values())} of {workload.members}")

    workers.wait("ready", timeout_s=60 + workload.members / 20, tell=progress)
    return time.monotonic() - begin


def _load(
    workload: Workload, server: Server, count: int, cpus: set[int] | None, tell: Tell, mark: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """*mark* is called at both ends of the measured time."""
    with _workers(server, workload, count, cpus) as workers:
        _come_in(workers, workload, tell)
        at = time.monotonic() + 0.3
        workers.order(do="go", at=at)
        _until(at + workload.warm, "warming up", tell)
        cpu, client_cpu = server.cpu_s(), _cpu_of(workers)
        mark()
        _until(at + workload.warm + workload.seconds, "measuring", tell)
        cpu, client_cpu = server.cpu_s() - cpu, _cpu_of(workers) - client_cpu
        mark()
        tell("waiting for the last ones")
        sent: dict[str, int] = {}
        for part in workers.wait("sent", timeout_s=60):
            sent |= part
        workers.order(do="check", sent=sent)
        parts = workers.wait("result", timeout_s=60)
    total: Counter[str] = Counter()
    latencies: Counter[int] = Counter()
    errors: Counter[str] = Counter()
    for part in parts:
        total.update({key: part[key] for key in ("lost", "doubled", "reordered", "deliveries", "sent", "unacked")})
        latencies.update({int(bucket): n for bucket, n in part["latencies"].items()})
        errors.update(part["errors"])
    deliveries = total["deliveries"]
    clients = client_cpu / workload.seconds / max(1, len(cpus) if cpus else 1)
    return {
        "figures": {
            "deliveries_per_s": deliveries / workload.seconds,
            "messages_per_s": total["sent"] / workload.seconds,
            "server_cpu_us_per_delivery": cpu / deliveries * 1e6 if deliveries and cpu else None,
            "server_cpu": cpu / workload.seconds if cpu else None,
            "clients_cpu": clients,
            "clients_are_the_limit": clients > BUSY and (not cpu or cpu / workload.seconds < BUSY),
            **{f"latency_{name}_ms": _quantile(latencies, q) for name, q in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0))},
        },
        "checks": {key: total[key] for key in ("lost", "doubled", "reordered", "unacked")} | {"errors": dict(errors)},
    }


def _idle(workload: Workload, server: Server, count: int, cpus: set[int] | None, tell: Tell) -> dict[str, Any]:
    before = server.rss()
    with _workers(server, workload, count, cpus) as workers:
        took = _come_in(workers, workload, tell)
        _until(time.monotonic() + 1, "letting it become quiet", tell)
        grown = server.rss() - before
    return {
        "figures": {
            "memory_per_session_bytes": grown / workload.members if server.pid else None,
            "sessions_opened_per_s": workload.members / took,
        },
        "checks": {},
    }


def _logins(workload: Workload, server: Server, count: int, cpus: set[int] | None, tell: Tell) -> dict[str, Any]:
    with _workers(server, workload, count, cpus) as workers:
        cpu = server.cpu_s()
        took = _come_in(workers, workload, tell)
        opening = server.cpu_s() - cpu
        workers.order(do="resume")
        workers.wait("closed", timeout_s=60)
        _until(time.monotonic() + 0.5, "all connections are cut", tell)
        cpu = server.cpu_s()
        workers.order(do="now")
        parts = workers.wait("result", timeout_s=60 + workload.members / 50)
        resuming = server.cpu_s() - cpu
    resumed = sum(part["resumed"] for part in parts)
    seconds = max(part["end"] for part in parts) - min(part["begin"] for part in parts)
    return {
        "figures": {
            "sessions_opened_per_s": workload.members / took,
            "opening_cpu_us": opening / workload.members * 1e6 if server.pid else None,
            "sessions_resumed_per_s": resumed / seconds,
            "resuming_cpu_us": resuming / resumed * 1e6 if server.pid and resumed else None,
        },
        "checks": {"lost": workload.members - resumed},
    }


def _stages(workload: Workload, count: int, cpu: int | None, cpus: set[int] | None, tell: Tell) -> dict[str, float]:
    """A short run more, of a server with stopwatches."""
    short = attrs.evolve(workload, seconds=min(STAGES_S, workload.seconds))
    with tempfile.TemporaryDirectory(prefix="chat-bench-") as folder:
        path = Path(folder) / "stages.json"
        with scratch(cpu=cpu, stages=path) as server:

            def mark() -> None:
                os.kill(server.pid, signal.SIGUSR1)

            _load(short, server, count, cpus, lambda text: tell("where the time goes: " + text), mark)
            for _ in range(100):
                if path.exists():
                    break
                time.sleep(0.05)
        spent: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    whole = spent.pop("whole", 0.0)
    return {part: seconds / whole for part, seconds in spent.items()} if whole else {}


def _until(when: float, what: str, tell: Tell) -> None:
    while (left := when - time.monotonic()) > 0:
        tell(f"{what}: {left:.0f} s")
        time.sleep(min(left, 0.5))


def _cpu_of(workers: Workers) -> float:
    return sum(Server(host="", port=0, pid=process.pid).cpu_s() for process in workers.processes)


def _quantile(latencies: Counter[int], q: float) -> float | None:
    """In milliseconds: the upper end of the bucket."""
    wanted = q * latencies.total()
    for bucket in sorted(latencies):
        wanted -= latencies[bucket]
        if wanted <= 0:
            return float(2 ** ((bucket + 1) / BUCKETS_PER_OCTAVE) / 1000)
    return None


def machine() -> dict[str, Any]:
    """What the figures depend on beside the program."""
    model = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    folder = tempfile.gettempdir()
    mounts = [line.split() for line in _lines("/proc/mounts")]
    inside = [(len(m[1]), m[2]) for m in mounts if len(m) > 2 and (folder + "/").startswith(m[1].rstrip("/") + "/")]
    return {
        "processors": len(os.sched_getaffinity(0)),
        "model": model,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "file_system": max(inside)[1] if inside else "unknown",
        "run": secrets.token_hex(4),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
