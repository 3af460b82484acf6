"""A server of its own for a measurement: its own data folder, a free port on loopback, nothing slowed down on purpose."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

START_S: Final = 30.0

# Durability, dedupe and rights are as they come. Only limits are raised, and the password's hash costs nothing.
SETTINGS: Final = """\
registration = "open"
data_dir = "{data}"
[[listen]]
address = "127.0.0.1:0"
[passwords]
memory_kib = 8
passes = 1
parallel = 40
[limits]
connections = 1000000
sends_burst = 1000000
sends_per_s = 1000000
commands_burst = 1000000
commands_per_s = 1000000
joins_per_min = 1000000
new_channels_per_h = 1000000
registrations_per_h = 1000000
"""


class NoServer(Exception):
    """It did not start; the text says what it said."""


@attrs.frozen(kw_only=True)
class Server:
    """``pid`` 0: it runs elsewhere, and its CPU and memory cannot be seen."""

    host: str
    port: int
    pid: int = 0
    invite: str | None = None
    secure: bool = False

    def cpu_s(self) -> float:
        """User and system time of its process so far."""
        if not self.pid:
            return 0.0
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss(self) -> int:
        """Bytes of memory in use."""
        if not self.pid:
            return 0
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def allow_descriptors() -> None:
    """As many as this process may have."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def scratch(*, cpu: int | None, stages: Path | None = None, set_: tuple[str, ...] = ()) -> Iterator[Server]:
    """A server that lives as long as the block, pinned to *cpu*. With *stages* it writes there where its time went.

    *Raises* NoServer.
    """
    folder = Path(tempfile.mkdtemp(prefix="chat-bench-"))
    config = folder / "config.toml"
    config.write_text(SETTINGS.format(data=folder / "data"))
    program = ["-m", "chat"] if stages is None else ["-m", "chat.bench.stages", str(stages)]
    command = [sys.executable, *program, "serve", "--config", str(config), *(word for each in set_ for word in ("--set", each))]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment()
    )
    try:
        if cpu is not None:
            os.sched_setaffinity(process.pid, {cpu})
        yield Server(host="127.0.0.1", port=_port(process), pid=process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        shutil.rmtree(folder, ignore_errors=True)


def _environment() -> dict[str, str]:
    """Without the settings of whoever calls."""
    return {key: value for key, value in os.environ.items() if not key.startswith("CHAT_")}


def _port(process: "subprocess.Popen[str]") -> int:
    said = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        found = re.search(r"listening on \S+:(\d+)", line)
        if found:
            return int(found[1])
    raise NoServer("the scratch server did not start: " + " ".join("".join(said).split()))
