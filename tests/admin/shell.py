"""An operator at a shell: the ``chat`` command as a process, on a server's data folder."""

import json
import os
import subprocess
from pathlib import Path

import trio

from tests.e2e.server import CHAT, GENEROUS, ROOT

SETTINGS = [argument for key, value in GENEROUS.items() for argument in ("--set", f"{key}={value}")]


class Shell:
    """*data_dir* is the server's. ``await shell("user list")`` splits at blanks; arguments with blanks come apart as further ones."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    async def __call__(self, line: str, *more: str, stdin: str = "", **how) -> subprocess.CompletedProcess:
        command = [*CHAT, *line.split(), *more, "--data-dir", str(self.data_dir), *SETTINGS]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(self.data_dir)}
        with trio.fail_after(60):
            done = await trio.run_process(
                command, stdin=stdin.encode(), capture_stdout=True, capture_stderr=True, check=False, env=environment, **how
            )
        return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())

    async def json(self, line: str, *more: str, **how):
        """With ``--json``; what it printed."""
        done = await self(line, *more, "--json", **how)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    async def refused(self, line: str, *more: str, **how) -> str:
        """Why."""
        done = await self(line, *more, **how)
        assert done.returncode == 1, (done.stdout, done.stderr)
        assert done.stdout == ""
        (reason,) = [line for line in done.stderr.splitlines() if "running as root" not in line]
        return reason.removeprefix("chat: ")
