"""The composition root: makes the parts, hands them to each other, and owns the nurseries in which they run.

    run                               a signal watcher beside everything: TERM and INT drain, again = now, HUP reloads certificates
    └ open_sqlite                     closed last
      └ SERVICES     flusher (TLS) · watchdog
        └ PIPELINE     manager · committer: they end by themselves when the inbox is closed
          └ CONNECTIONS  a task each; deadline = drain_s once stopping
            └ DOORS        listeners · admin socket · ticker

Stopping: DOORS are cancelled, so nobody new comes; every connection stops reading, has answered what it read, and says goodbye; the
inbox is closed, the manager ends, the committer stores and routes what is left; the store is closed. Nothing sleeps, nothing polls.
"""

import gc
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

import attrs
import trio

from chat.admin import server as admin
from chat.admin.registry import Daemon
from chat.background import DataLock, ReadyInfo, StartRefused, notify
from chat.config import Config
from chat.daemon.bootstrap import bootstrap, open_certificate, ready_info
from chat.daemon.doors import open_doors
from chat.daemon.parts import MessageLogs, Parts
from chat.daemon.reload import reload
from chat.daemon.ticker import tick
from chat.log import get_logger
from chat.store.base import StoreRefused
from chat.store.sqlite import SqliteStore, open_sqlite
from chat.transport.outbox import FlushSet
from chat.watchdog import watch

log = get_logger("chat.daemon")

SWITCH_INTERVAL_S: Final = 1e-4  # the writer thread and the loop share the GIL: 5 ms (the default) a switch made a tenth of the rows/s
# Reference counts free nearly all that a batch makes; what a batch holds while it is committed must not set the collector off each time.
# Private messages, saturated: 44 µs of CPU each instead of 58 with Python's 700.
GC_YOUNG: Final = 50_000


def run(config: Config, *, sockets: list[list[socket.socket]], lock: DataLock, on_ready: Callable[[ReadyInfo], None]) -> int:
    """Serve until a signal says stop; *sockets* are one list for each ``[[listen]]``, listening. Returns the exit status.

    *Raises* StartRefused with one clear line. *Owns* the sockets. The *lock* on the data folder stays the caller's.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(GC_YOUNG, 20, 10)
    try:
        trio.run(partial(_main, config, sockets, on_ready))
    except* StoreRefused as refused:
        raise StartRefused(str(_first(refused))) from None
    return 0


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


async def _main(config: Config, sockets: list[list[socket.socket]], on_ready: Callable[[ReadyInfo], None]) -> None:
    async with trio.open_nursery() as watched:
        stop = _Stop()
        await watched.start(_watch_signals, stop)
        async with open_sqlite(
            config.database,
            busy_timeout_s=config.storage.busy_timeout_s,
            min_free_bytes=config.storage.min_free_bytes,
            locked=True,
        ) as store:
            await _serve(config, sockets, store, stop, on_ready)
        watched.cancel_scope.cancel()


@attrs.define(eq=False)
class _Stop:
    """How the daemon is told to end. ``wanted`` once: drain; ``now`` is called for the second time."""

    wanted: trio.Event = attrs.Factory(trio.Event)
    now: Callable[[], None] = lambda: None
    reload: Callable[[], None] = lambda: None


async def _watch_signals(stop: _Stop, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    terminal = sys.stdin is not None and sys.stdin.isatty()  # asked now: after a hangup it is none any more
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
        task_status.started()
        async for number in received:
            if number == signal.SIGHUP and not terminal:
                stop.reload()
            elif stop.wanted.is_set():
                stop.now()
            else:
                log.info("stopping", signal=signal.Signals(number).name)
                stop.wanted.set()


async def _serve(
    config: Config, sockets: list[list[socket.socket]], store: SqliteStore, stop: _Stop, on_ready: Callable[[ReadyInfo], None]
) -> None:
    tls = open_certificate(config)
    flush = FlushSet()
    parts = Parts.make(config, store, flush)
    with MessageLogs(config, parts):
        async with trio.open_nursery() as services:
            stop.now = services.cancel_scope.cancel
            stop.reload = partial(reload, config, tls, parts.site)
            services.start_soon(flush.run)
            services.start_soon(watch, parts.manager.watched())
            async with trio.open_nursery() as pipeline:
                pipeline.start_soon(parts.committer.run)
                await parts.manager.start()
                await pipeline.start(parts.manager.run)
                first = await bootstrap(config, parts)
                async with trio.open_nursery() as connections:
                    async with trio.open_nursery() as doors:
                        await doors.start(partial(open_doors, config, sockets, tls, parts, connections))
                        await doors.start(admin.serve, Daemon(config=config, parts=parts, reload=stop.reload), connections)
                        doors.start_soon(tick, parts)
                        gc.collect()
                        gc.freeze()  # what is here now stays: the collector need not look at it again
                        on_ready(ready_info(config, sockets, parts.manager.desk.state, first))
                        await stop.wanted.wait()
                        doors.cancel_scope.cancel()
                    notify("STOPPING=1")
                    connections.cancel_scope.deadline = trio.current_time() + config.limits.drain_s
                    parts.services.stopping = True
                    parts.site.stop()
                    parts.manager.stop_commands(retry_after=parts.services.retry_after())
                    for link in list(parts.services.links):
                        link.stop()
                await parts.manager.inbox.aclose()
            services.cancel_scope.cancel()
    log.info("stopped")
