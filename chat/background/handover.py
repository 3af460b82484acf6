"""A restart that nobody notices: one process gives the sockets and the data folder to the next.

Theory of operation
-------------------
The running daemon (the old one) starts the installed ``chat`` afresh with its own arguments, its own environment and its listening sockets
as inherited descriptors (the new one). Both speak over a UNIX socket pair, a line of JSON each:

    old → new   given       the sockets by the addresses they were configured with, the descriptor of the lock, the data folder
    new → old   checked     it is imported, the configuration is read, certificate, plugins and schema are fit; nothing was touched yet
                refused     why not, in one line: it ends, and the old one has not even paused
    old → new   yours       accepting has stopped, everybody was answered and said goodbye to, the store is closed
    new → old   ready       it serves: the old one ends
                refused     or the end of the line: the old one opens the store again and goes on serving

*Why two processes and not one that replaces itself.* The new one imports and checks while the old one serves, so these seconds are no
pause; and the old one, complete in memory even when its files were replaced by an upgrade, is there to go on when the new one fails.

*Nobody is refused.* The sockets listen all the time, since one of the two always has them open; who connects in between waits in the
backlog, whatever the new one's code is.

*Nobody slips in.* ``flock`` belongs to the open file: both processes have it, so the data folder is never free. Who may touch the data is
said by the lines above: the new one after `yours`, the old one before it, and again only when the new one's end of the line is closed,
which the kernel does with its last thread. Should the new one have migrated the database before it failed, the old one's own check of the
schema refuses to open it, with one line, and the backup that the migration made is named in the log.

*Whose process is it?* A daemon in the background: nobody waits for it, the number changes. Under systemd: ``MAINPID=`` tells. In a terminal
or a container somebody waits for the end of the first process: it becomes a `relay`, which passes signals on and ends as the last one does.
"""

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from chat import __version__, log
from chat.background.lock import DataLock, StartRefused
from chat.background.origin import HANDOVER, Origin
from chat.background.prepare import Prepared, check_before, line
from chat.config import Config

MAX_LINE: Final = 64 * 1024
CHECK_S: Final = 50.0  # a new one that has not said within this time that it is fit is ended
logger = log.get_logger("background")


@attrs.frozen(kw_only=True)
class HandedOver:
    """The result of a run that a successor goes on with."""

    pid: int


def _encoded(kind: str, fields: dict[str, Any]) -> bytes:
    return json.dumps({"is": kind, **fields}).encode() + b"\n"


# ---------------------------------------------------------------- the old one's side


class Successor:
    """The new process, as the old one sees it. *Owns* the process until it is ready."""

    def __init__(self, process: "subprocess.Popen[bytes]", stream: trio.SocketStream) -> None:
        self.process = process
        self.given = False  # it may touch the data
        self._stream = stream
        self._rest = b""

    @classmethod
    async def launch(cls, origin: Origin, config: Config, sockets: Sequence[Sequence[socket.socket]], lock: DataLock) -> "Successor":
        """Start it and give it what it needs to check itself. *Raises* OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            fds = [[sock.fileno() for sock in bound] for bound in sockets]
            listening = [{"address": listen.address, "fds": own} for listen, own in zip(config.listen, fds, strict=True)]
            passed = [theirs.fileno(), lock.fd, *(fd for own in fds for fd in own)]

            def start() -> "subprocess.Popen[bytes]":
                return subprocess.Popen(
                    origin.argv,
                    cwd=origin.cwd,
                    env=origin.environment(theirs.fileno()),
                    pass_fds=passed,
                    stdin=subprocess.DEVNULL,
                    process_group=0 if origin.awaited else None,  # else Ctrl-C would come twice: itself, and by the relay
                )

            try:
                process = await trio.to_thread.run_sync(start)
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        successor = cls(process, stream)
        try:
            await stream.send_all(_encoded("given", {"listen": listening, "lock": lock.fd, "data_dir": str(config.data_dir)}))
        except trio.BrokenResourceError:
            pass  # it has ended: `checked` says so
        except BaseException:
            await successor.end()
            raise
        return successor

    async def checked(self) -> str:
        """*Waits* until it has checked itself. *Returns* its version. *Raises* StartRefused with its reason."""
        with trio.move_on_after(CHECK_S):
            said = await self._next()
            if said.get("is") == "checked":
                return str(said["version"])
            raise StartRefused(str(said.get("refused", "it ended without a word; log/stderr.log may say why")))
        raise StartRefused(f"it has not finished its checks within {CHECK_S:g} s")

    async def takes_over(self, since: float) -> str | None:
        """Give it the data, and *wait* until it serves. *Returns* None then, else why it does not: it has ended.

        *since*: when accepting stopped (`time.monotonic`, one clock for both). No deadline: a migration may take long, and what does not
        end by itself is ended by an operator.
        """
        self.given = True
        try:
            await self._stream.send_all(_encoded("yours", {"since": since}))
            said = await self._next()
        except trio.BrokenResourceError:
            said = {}
        if said.get("is") == "ready":
            await self._stream.aclose()
            self.process.returncode = 0  # it is nobody's child to wait for
            return None
        await self.end()
        return str(said.get("refused", "it ended without a word"))

    async def end(self) -> None:
        """Kill it, if it has not ended; *waits* for that."""
        with trio.CancelScope(shield=True):  # bounded: SIGKILL
            self.kill()
            await trio.to_thread.run_sync(self.process.wait)
            await trio.aclose_forcefully(self._stream)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGTERM)

    async def _next(self) -> dict[str, Any]:
        while b"\n" not in self._rest:
            try:
                chunk = await self._stream.receive_some(MAX_LINE)
            except trio.BrokenResourceError:
                return {}
            if not chunk or len(self._rest) > MAX_LINE:
                return {}
            self._rest += chunk
        first, _, self._rest = self._rest.partition(b"\n")
        try:
            said = json.loads(first)
        except ValueError:
            return {}
        return said if isinstance(said, dict) else {}


# ---------------------------------------------------------------- the new one's side


class Heir:
    """This process, when it was started by a daemon that it is to replace. Plain blocking calls: before and beside Trio."""

    def __init__(self, channel: socket.socket) -> None:
        self.since = 0.0  # of the predecessor: when accepting stopped
        self._channel = channel
        self._lines = channel.makefile("rb")

    @classmethod
    def of_environment(cls) -> "Heir | None":
        """None: an ordinary start. *Raises* StartRefused when the variable is not what a predecessor sets."""
        value = os.environ.pop(HANDOVER, "")
        if not value:
            return None
        try:
            return cls(_inherited(int(value)))
        except (ValueError, OSError) as exc:
            raise StartRefused(f"{HANDOVER} is set by a daemon that restarts, and by nobody else") from exc

    def take(self, config: Config) -> Prepared:
        """Check everything, say so, and *wait* for the data. *Raises* StartRefused."""
        given = self._next("given")
        lock_fd = int(given["lock"])
        os.set_inheritable(lock_fd, False)
        prepared = Prepared([], DataLock(config.lock_file, lock_fd))
        by_address: dict[str, list[socket.socket]] = {}
        for entry in given["listen"]:
            by_address[entry["address"]] = [_inherited(fd) for fd in entry["fds"]]
        try:
            if not _same(Path(given["data_dir"]), config.data_dir):
                raise StartRefused(f"data_dir is another now ({config.data_dir}): stop the daemon, move the folder and start it again")
            check_before(config)
            _check_inside(config)
            prepared.bind(config, by_address)
            _warm_up()
        except BaseException as exc:
            for sockets in by_address.values():
                for sock in sockets:
                    sock.close()
            prepared.close()
            if isinstance(exc, OSError | ValueError):
                raise StartRefused(line(exc)) from exc
            raise
        for sockets in by_address.values():  # an address that is configured no more
            for sock in sockets:
                sock.close()
        self._say("checked", version=__version__)
        self.since = float(self._next("yours")["since"])
        return prepared

    def ready(self) -> None:
        self._say("ready")
        self.close()

    def refuse(self, text: str) -> None:
        self._say("refused", refused=text)
        self.close()

    def close(self) -> None:
        self._lines.close()
        self._channel.close()

    def _say(self, kind: str, **fields: Any) -> None:
        with contextlib.suppress(OSError):  # it is gone: whoever waits for us sees the lock
            self._channel.sendall(_encoded(kind, fields))

    def _next(self, kind: str) -> dict[str, Any]:
        try:
            said = json.loads(self._lines.readline(MAX_LINE) or b"null")
        except (OSError, ValueError):
            said = None
        if not isinstance(said, dict) or said.get("is") != kind:
            raise StartRefused("the daemon that was to be replaced has ended")
        return said


def _inherited(fd: int) -> socket.socket:
    """*Raises* OSError when *fd* is no socket."""
    os.set_inheritable(fd, False)
    sock = socket.socket(fileno=fd)
    if sock.family == socket.AF_UNIX:
        sock.setblocking(True)
    else:
        sock.setblocking(False)
    return sock


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _check_inside(config: Config) -> None:
    """What an ordinary start sees only when it owns the data: certificate, plugins, schema. Touches nothing."""
    from chat.commands import builtin, plugins
    from chat.store.base import StoreRefused
    from chat.store.sqlite_files import check
    from chat.transport.certificates import server_context

    server_context(config.certificate, config.key)
    try:
        plugins.Plugins(builtin.registry(), modules=config.plugins).load(strict=True)
        check(config.database, config.storage.busy_timeout_s)
    except (plugins.PluginBroken, StoreRefused) as exc:
        raise StartRefused(" ".join(str(exc).split())) from exc


def _warm_up() -> None:
    """What is read and made at its first use, while the old one still serves: it would be two thirds of the pause (160 of 230 ms)."""
    from importlib.metadata import entry_points

    from chat.admin import registry
    from chat.protocol import names

    names.warm_up()  # look-alikes: 9,619 of them
    registry.load()
    entry_points(group="chat.commands")
    gc.collect()
    gc.freeze()  # or the daemon's own collection, in the pause, would look at all this again
