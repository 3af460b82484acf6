"""The installed ``chat`` as a process: started, waited for, killed, stopped."""

import os
import re
import signal
import socket
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import trio

ROOT = Path(__file__).parents[2]
CHAT = (os.path.join(sysconfig.get_path("scripts"), "chat"),)
READY = re.compile(rb"\bstop: [^\n]+\n", re.IGNORECASE)
# What a test of delivery has no use for: limits of one person's rate, dear passwords.
GENEROUS = {
    "registration": "open",
    "limits.sends_burst": "1000000",
    "limits.sends_per_s": "1000000",
    "limits.commands_burst": "1000",
    "limits.joins_per_min": "1000",
    "limits.new_channels_per_h": "1000",
    "passwords.memory_kib": "8",
    "passwords.passes": "1",
}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Server:
    """*command* runs chat (a sabotaged one, or one under a tracer); the port stays the same over restarts."""

    slow = False  # under a tracer: nothing is said about its times

    def __init__(self, data_dir: Path, *, command: Sequence[str] = CHAT, settings: dict[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.lines: list[str] = []  # what it printed when it was ready
        self.starts = 0
        self.up = False
        self.log = data_dir.with_name(data_dir.name + ".log")
        self._command = command
        self._settings = GENEROUS if settings is None else settings
        self._process: trio.Process | None = None

    def arguments(self) -> list[str]:
        sets = [argument for key, value in self._settings.items() for argument in ("--set", f"{key}={value}")]
        return [*self._command, "serve", "--data-dir", str(self.data_dir), "--listen", f"127.0.0.1:{self.port}", *sets]

    async def start(self, *, within_s: float = 30) -> None:
        """*Waits* until it says that it is ready. *Raises* RuntimeError with what it said instead."""
        await self.launch()
        said = b""
        with trio.move_on_after(within_s):
            assert self._process is not None
            assert self._process.stdout is not None
            async for chunk in self._process.stdout:
                said += chunk
                if READY.search(said):
                    self.lines = said.decode().splitlines()
                    self.up = True
                    return
        await self.kill()
        raise RuntimeError(f"the server is not ready; it said {said!r} and {self.log.read_text()[-2000:]}")

    async def launch(self) -> None:
        """Start it, and do not wait."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(self.data_dir)}
        with self.log.open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                self.arguments(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment
            )
        self.starts += 1

    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def freeze(self) -> None:
        os.kill(self.pid(), signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid(), signal.SIGCONT)

    async def kill(self) -> None:
        """SIGKILL, also to one that is frozen: it ends where it stands."""
        self.up = False  # before anybody reads that his connection has ended
        if self._process is not None and self._process.returncode is None:
            os.kill(self.pid(), signal.SIGKILL)
            await self.wait()

    def terminate(self) -> None:
        os.kill(self.pid(), signal.SIGTERM)

    async def stop(self) -> int:
        """SIGTERM. Returns the exit status."""
        self.terminate()
        return await self.wait()

    async def wait(self) -> int:
        assert self._process is not None
        status = await self._process.wait()
        self.up = False
        if self._process.stdout is not None:
            await self._process.stdout.aclose()
        return status
