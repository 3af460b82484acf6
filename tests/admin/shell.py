"""An operator at a shell: the ``chat`` command on a server's data folder, as a process (`Shell`), or, ten times as quick, called in a
thread of this one (`QuickShell`); what it says is the same."""

import json
import os
import subprocess
from pathlib import Path

import trio
from click.testing import CliRunner

from chat.cli import main
from tests.e2e.server import CHAT, GENEROUS, ROOT

SETTINGS = [argument for key, value in GENEROUS.items() for argument in ("--set", f"{key}={value}")]


class Shell:
    """*data_dir* is the server's. ``await shell("user list")`` splits at blanks; arguments with blanks come apart as further ones."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    async def __call__(self, line: str, *more: str, stdin: str = "") -> subprocess.CompletedProcess:
        with trio.fail_after(60):
            return await self._run([*line.split(), *more, "--data-dir", str(self.data_dir), *SETTINGS], stdin)

    async def _run(self, arguments: list[str], stdin: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(self.data_dir)}
        done = await trio.run_process(
            [*CHAT, *arguments], stdin=stdin.encode(), capture_stdout=True, capture_stderr=True, check=False, env=environment
        )
        return subprocess.CompletedProcess(arguments, done.returncode, done.stdout.decode(), done.stderr.decode())

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


class QuickShell(Shell):
    async def _run(self, arguments: list[str], stdin: str) -> subprocess.CompletedProcess:
        def call():
            umask = os.umask(0o022)
            try:
                runner = CliRunner(env={"XDG_CONFIG_HOME": str(self.data_dir)})
                return runner.invoke(main, arguments, input=stdin, prog_name="chat", catch_exceptions=False)
            finally:
                os.umask(umask)

        done = await trio.to_thread.run_sync(call)
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)
