"""The server that is tried: a process of ``chat serve`` with its own data, on a free port of the loopback; killed and started again."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

COMMAND: Final = (sys.executable, "-m", "chat")
READY: Final = re.compile(rb"\bstop: [^\n]+\n", re.IGNORECASE)
START_S: Final = 60.0
STOP_S: Final = 30.0
# Rates that a flood exceeds and nobody else; a slow reader is noticed early; dear passwords prove nothing here.
SETTINGS: Final = {
    "registration": "open",
    "storage.min_free_bytes": "0",
    "limits.sends_burst": "60",
    "limits.sends_per_s": "60",
    "limits.commands_burst": "1000",
    "limits.joins_per_min": "1000",
    "limits.new_channels_per_h": "1000",
    "limits.outbox_soft_bytes": "4096",
    "limits.outbox_hard_bytes": "65536",
    "limits.write_deadline_s": "1",
    "limits.heads_s": "2",
    "limits.drain_s": "3",  # whoever does not read holds up a SIGTERM for as long as this
    "passwords.memory_kib": "8",
    "passwords.passes": "1",
    "log.level": "warning",
}


class CannotStart(Exception):
    """What the server said instead of being ready."""


class Scratch:
    """``starts`` counts; ``up``: it said that it is ready, and was not killed since. The port stays the same over restarts."""

    def __init__(self, folder: Path, *, command: Sequence[str] = COMMAND) -> None:
        self.data_dir = folder / "data"
        self.log = folder / "server.log"
        self.port = _free_port()
        self.starts = 0
        self.up = False
        self._folder = folder
        self._command = tuple(command)
        self._process: trio.Process | None = None

    def arguments(self) -> list[str]:
        sets = [argument for key, value in SETTINGS.items() for argument in ("--set", f"{key}={value}")]
        return [*self._command, "serve", "--data-dir", str(self.data_dir), "--listen", f"127.0.0.1:{self.port}", *sets]

    def environment(self) -> dict[str, str]:
        """Nothing of the person's own configuration; the same ``chat`` as this one."""
        mine = {key: value for key, value in os.environ.items() if not key.startswith(("CHAT_", "NOTIFY_SOCKET", "LISTEN_"))}
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (package, mine.get("PYTHONPATH"))))
        return {**mine, "PYTHONPATH": path, "XDG_CONFIG_HOME": str(self._folder / "config")}

    async def start(self) -> None:
        """*Waits* until it is ready. *Raises* CannotStart."""
        with self.log.open("ab") as log:
            process = self._process = await trio.lowlevel.open_process(
                self.arguments(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=self.environment(), cwd=self._folder
            )
        self.starts += 1
        said = b""
        with trio.move_on_after(START_S):
            assert process.stdout is not None
            async for chunk in process.stdout:
                said += chunk
                if READY.search(said):
                    self.up = True
                    return
        await self.kill()
        raise CannotStart((self.log.read_text(errors="replace")[-2000:] or said.decode(errors="replace")).strip() or "it said nothing")

    def freeze(self) -> None:
        """Stop it where it stands; what it has sent can still be read."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    async def kill(self) -> None:
        """SIGKILL, also to one that is frozen."""
        self.up = False  # before anybody reads that the connection has ended
        if self._signal(signal.SIGKILL):
            await self._ended()

    async def stop(self) -> int | None:
        """SIGTERM. *Returns* the exit status; None: it did not end, and was killed."""
        self.up = False
        if not self._signal(signal.SIGTERM):
            return None
        with trio.move_on_after(STOP_S):
            return await self._ended()
        await self.kill()
        return None

    def _signal(self, number: signal.Signals) -> bool:
        if self._process is None or self._process.returncode is not None:
            return False
        os.kill(self._process.pid, number)
        return True

    async def _ended(self) -> int:
        assert self._process is not None
        status = await self._process.wait()
        if self._process.stdout is not None:
            await self._process.stdout.aclose()
        return status


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
