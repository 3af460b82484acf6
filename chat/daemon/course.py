"""What the daemon does next: serve, hand over to a successor, or end. Signals and the admin socket say it, `main` follows.

    SIGTERM, SIGINT      drain and end; once more: end within a second
    SIGHUP               reload (from a terminal's hangup: end)
    SIGUSR2              restart: `chat.background.handover` says how

A `Guard` stands behind an end: what cannot be cancelled (a thread that hangs in a sync of a dying disk) must not hold it up. When the time
is over the process ends where it stands. That is safe at any moment, as SIGKILL is: acknowledged is on the disk.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs
import trio

from chat import log
from chat.background import DataLock, StartRefused, systemd
from chat.background.handover import Successor
from chat.background.origin import Origin
from chat.config import Config

NOW_S: Final = 0.8  # a second signal ends the process within 1 s
LEAST_S: Final = 1.8  # for a store to be closed, however short drain_s is; `chat stop` waits two seconds longer than that
SPARE_S: Final = 0.2  # of drain_s, for the interpreter to end
HANDOVER_DRAIN_S: Final = 1.0  # at a restart everybody waits for the slowest: who is cut resumes and loses nothing

logger = log.get_logger("chat.daemon")


class Guard:
    """Ends the process when the time is over, from a thread."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def set(self, seconds: float, before: Callable[[], None]) -> None:
        """In *seconds* at the latest, after *before*. A later call counts."""
        self.cancel()
        self._timer = threading.Timer(seconds, self._end, (before,))
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    @staticmethod
    def _end(before: Callable[[], None]) -> None:
        try:
            logger.error("ended_by_guard", reason="something did not end in time")
            before()
        finally:
            os._exit(0)  # by contract, after SIGTERM; nothing that was acknowledged is lost


@attrs.define(eq=False, kw_only=True)
class Course:
    """*sockets* listen; the course keeps them open while somebody is to go on with them."""

    config: Config
    sockets: Sequence[Sequence[socket.socket]]
    lock: DataLock
    origin: Origin | None
    wanted: trio.Event = attrs.Factory(trio.Event)  # the doors are to be left
    ending: bool = False
    successor: Successor | None = None
    now: Callable[[], None] = lambda: None
    reload: Callable[[], Awaitable[object]] | None = None
    stopped_at: float = 0.0  # when accepting stopped, time.monotonic
    _guard: Guard = attrs.Factory(Guard)
    _restarting: bool = False
    _failure: str = ""  # of a successor; to be told when we serve again

    # ------------------------------------------------------------ signals

    async def watch_signals(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        terminal = sys.stdin is not None and sys.stdin.isatty()  # asked now: after a hangup it is none any more
        async with trio.open_nursery() as nursery:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2) as received:
                task_status.started()
                async for number in received:
                    if number == signal.SIGHUP and not terminal:
                        nursery.start_soon(self._reload)
                    elif number == signal.SIGUSR2:
                        nursery.start_soon(self._restart)
                    else:
                        self.end(signal.Signals(number).name)

    def end(self, why: str) -> None:
        """Drain and end; for the second time: at once."""
        if self.ending:
            self._guard.set(NOW_S, self._leave)
            self.now()
            return
        logger.info("stopping", signal=why)
        self.ending = True
        self._guard.set(max(self.config.limits.drain_s - SPARE_S, LEAST_S), self._leave)
        for sockets in self.sockets:  # nobody else will accept
            for sock in sockets:
                sock.close()
        if self.successor is not None and self.successor.given:
            self.successor.terminate()  # the data are its own now; `takes_over` sees its end
        self.wanted.set()

    def _leave(self) -> None:
        if self.successor is not None:
            self.successor.kill()
        self.config.pid_file.unlink(missing_ok=True)

    # ------------------------------------------------------------ draining

    def drain_s(self) -> float:
        """How long connections have to take their last words."""
        drain_s = self.config.limits.drain_s
        if not self.ending:
            return min(HANDOVER_DRAIN_S, drain_s)
        return drain_s - 1 if drain_s > 2 else drain_s / 2

    def come_back_s(self, connections: int) -> tuple[float, float]:
        """Between which times those who are cut off may come back, so that not all of them are there at once."""
        if not self.ending:  # a successor is ready to serve them
            return 0.02, 0.1 + connections / 2000
        return 0.5, 2.0 + connections / 2000

    # ------------------------------------------------------------ handing over

    async def restart(self) -> str:
        """Start a successor, and leave the doors when it has checked itself. *Returns* its version.

        *Raises* StartRefused: nothing has changed then.
        """
        if self.origin is None or self._restarting or self.wanted.is_set():
            raise StartRefused("it is restarting or stopping already")
        self._restarting = True
        successor: Successor | None = None
        try:
            try:
                successor = await Successor.launch(self.origin, self.config, self.sockets, self.lock)
            except OSError as exc:
                raise StartRefused(f"{self.origin.argv[0]}: {exc.strerror}") from exc
            version = await successor.checked()
            if self.wanted.is_set():
                raise StartRefused("the daemon was stopped meanwhile")
        except BaseException:
            self._restarting = False
            if successor is not None:
                await successor.end()
            raise
        logger.info("restarting", pid=successor.process.pid, version=version)
        self.successor = successor
        self.wanted.set()
        return version

    async def _reload(self) -> None:
        if self.reload is not None:
            try:
                await self.reload()
            except Exception as exc:  # a bug in it is no reason to end
                logger.error("reload_failed", error_id=log.new_error_id(), exc_info=exc)

    async def _restart(self) -> None:
        try:
            await self.restart()
        except StartRefused as exc:
            logger.error("restart_refused", reason=str(exc))
            self.lock.answer(fine=False, lines=[str(exc)])

    async def goes_on(self) -> bool:
        """The store is closed. *Returns* whether this process opens it again: its successor has failed. *Waits* for the successor."""
        successor = self.successor
        if successor is None:
            return False
        if self.ending and not successor.given:
            await successor.end()
            return False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep_watchdog)  # systemd has not heard of the successor; a migration may take long
            why = await successor.takes_over(self.stopped_at)
            nursery.cancel_scope.cancel()
        if why is None or self.ending:
            return False
        logger.error("restart_failed", reason=why)
        self.successor, self.wanted, self._restarting, self._failure = None, trio.Event(), False, why
        return True

    def serves(self) -> None:
        """The doors are open; tell who waits for a restart, if they are open again."""
        if self._failure:
            self.lock.answer(fine=False, lines=[self._failure])
            self._failure = ""

    @property
    def handed_over_to(self) -> int | None:
        """The process that serves now; None: this one ends for good."""
        return self.successor.process.pid if self.successor is not None and not self.ending else None

    def left_doors(self) -> None:
        self.stopped_at = time.monotonic()

    def over(self) -> None:
        self._guard.cancel()


async def _keep_watchdog() -> None:
    every_s = systemd.watchdog_s()
    while every_s is not None:
        systemd.notify("WATCHDOG=1")
        await trio.sleep(every_s)
