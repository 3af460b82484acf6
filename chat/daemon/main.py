"""The composition root: makes the parts, hands them to each other, and owns the nurseries in which they run.

    run                               signals beside everything (`course`); again from here when a successor has failed
    └ open_sqlite                     closed last
      └ SERVICES     flusher (TLS) · watchdog · metrics
        └ PIPELINE     manager · committer: they end by themselves when the inbox is closed
          └ CONNECTIONS  a task each; deadline once stopping
            └ DOORS        listeners · admin socket · ticker

Stopping: DOORS are cancelled, so nobody new comes; every connection stops reading, has answered what it read, and says goodbye; the
inbox is closed, the manager ends, the committer stores and routes what is left; the store is closed. Nothing sleeps, nothing polls.
Restarting is the same, but that the sockets stay open, a successor waits for the store, and who is cut off may come back at once.
"""

import gc
import random
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from chat import __version__
from chat.admin import server as admin
from chat.admin.registry import Daemon
from chat.background import DataLock, ReadyInfo, StartRefused, notify
from chat.background.handover import HandedOver
from chat.background.origin import Origin
from chat.config import Config
from chat.daemon.bootstrap import bootstrap, open_certificate, ready_info
from chat.daemon.course import Course
from chat.daemon.doors import open_doors
from chat.daemon.parts import MessageLogs, Parts
from chat.daemon.reload import Reloader
from chat.daemon.retaining import retain
from chat.daemon.ticker import feed_watchdog, tick
from chat.log import get_logger
from chat.metrics import server as metrics
from chat.store.base import StoreRefused
from chat.store.sqlite import SqliteStore, open_sqlite
from chat.transport.outbox import FlushSet
from chat.watchdog import watch

log = get_logger("chat.daemon")

SWITCH_INTERVAL_S: Final = 1e-4  # the writer thread and the loop share the GIL: 5 ms (the default) a switch made a tenth of the rows/s
# Reference counts free nearly all that there is; what thousands of texts hold while they are committed must not set the collector off
# each time. Private messages, saturated: 58 µs of CPU each with Python's 700, 44 with 50,000; of the time that the collector took then
# (a twelfth of all), this leaves half.
GC_YOUNG: Final = 200_000


def run(
    config: Config,
    *,
    sockets: list[list[socket.socket]],
    lock: DataLock,
    on_ready: Callable[[ReadyInfo], None],
    origin: Origin | None = None,
    checked: bool = False,
) -> int | HandedOver:
    """Serve until a signal says stop; *sockets* are one list for each ``[[listen]]``, listening. Returns the exit status.

    With *origin* it can be restarted: who goes on is returned then. *checked*: the database was looked at a moment ago.
    *Raises* StartRefused with one clear line. *Owns* the sockets. The *lock* on the data folder stays the caller's.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(GC_YOUNG, 20, 10)
    course = Course(config=config, sockets=sockets, lock=lock, origin=origin)
    before = "a restart" if checked else "an unclean end" if config.pid_file.exists() else "a clean end"

    def ready(info: ReadyInfo) -> None:
        nonlocal before
        if before:  # not when it goes on because its successor has failed
            after, before = "nothing: the first start" if info.first_start else before, ""
            if config.log.file or not sys.stderr.isatty():  # who sits before it reads the same in words
                log.info("started", version=__version__, addresses=info.addresses, data_dir=str(info.data_dir), after=after)
        on_ready(info)

    try:
        trio.run(partial(_main, course, ready, checked))
    except* StoreRefused as refused:
        raise StartRefused(str(_first(refused))) from None
    finally:
        course.over()
    successor = course.handed_over_to
    return 0 if successor is None else HandedOver(pid=successor)


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


async def _main(course: Course, on_ready: Callable[[ReadyInfo], None], checked: bool) -> None:
    config = course.config
    async with trio.open_nursery() as watched:
        await watched.start(course.watch_signals)
        while True:
            async with open_sqlite(
                config.database,
                busy_timeout_s=config.storage.busy_timeout_s,
                min_free_bytes=config.storage.min_free_bytes,
                locked=True,
                checked=checked,
            ) as store:
                if not course.ending:  # a signal while the database was opened: nobody listens any more
                    await _serve(course, store, on_ready)
            if not await course.goes_on():
                break
            checked = False
        watched.cancel_scope.cancel()


async def _serve(course: Course, store: SqliteStore, on_ready: Callable[[ReadyInfo], None]) -> None:
    config, sockets = course.config, [[sock.dup() for sock in listening] for listening in course.sockets]  # the doors close theirs
    tls = open_certificate(config)
    flush = FlushSet()
    parts = Parts.make(config, store, flush)
    with MessageLogs(config, parts) as message_logs:
        async with trio.open_nursery() as services:
            course.now = services.cancel_scope.cancel
            services.start_soon(flush.run)
            services.start_soon(watch, parts.manager.watched())
            services.start_soon(parts.watch.run_delay)
            services.start_soon(metrics.serve, config.metrics.address, parts)
            async with trio.open_nursery() as pipeline:
                pipeline.start_soon(parts.committer.run)
                await parts.manager.start()
                await pipeline.start(parts.manager.run)
                first = await bootstrap(config, parts)
                services.start_soon(parts.watch.run_store)
                services.start_soon(feed_watchdog, parts)
                async with trio.open_nursery() as connections:
                    async with trio.open_nursery() as doors:
                        adjust_door = await doors.start(partial(open_doors, config, sockets, tls, parts, connections))
                        course.reload = Reloader(
                            course=course,
                            parts=parts,
                            tls=tls,
                            adjust_door=adjust_door,
                            message_logs=message_logs,
                            certificate=config.certificate.read_bytes(),
                        )
                        await doors.start(admin.serve, Daemon(parts=parts, course=course), connections)
                        doors.start_soon(tick, parts)
                        doors.start_soon(retain, parts)
                        gc.collect()
                        gc.freeze()  # what is here now stays: the collector need not look at it again
                        on_ready(ready_info(config, sockets, parts.manager.desk.state, first))
                        course.serves()
                        await course.wanted.wait()
                        course.reload = None
                        doors.cancel_scope.cancel()
                    course.left_doors()
                    notify("STOPPING=1" if course.ending else "STATUS=restarting")
                    connections.cancel_scope.deadline = trio.current_time() + course.drain_s()
                    come_back_s = course.come_back_s(len(parts.services.links))
                    parts.services.retry_after = lambda: round(random.uniform(*come_back_s), 3)
                    parts.services.stopping = True
                    parts.site.stop()
                    parts.manager.stop_commands(retry_after=parts.services.retry_after())
                    for link in list(parts.services.links):
                        link.stop()
                await parts.manager.inbox.aclose()
            services.cancel_scope.cancel()
    log.info("stopped", drain_s=round(time.monotonic() - course.stopped_at, 3))
