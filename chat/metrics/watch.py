"""What no counter tells: how late the loop runs, how much goes through in a second, and whether the store could be written.

*Ready* is a daemon that would take and store a message now. It is not while it drains; while the store is out, or does not answer a look
within `ANSWER_S`; while the disk is full, or nearly: then sessions and what moderators do are stored, and messages are not. A commit that
worked since the last look is proof enough otherwise, so that a busy store is not asked.
The looks are `LOOK_S` apart: what goes wrong is told at most LOOK_S + ANSWER_S later.
"""

import os
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import attrs
import trio

from chat.histogram import Histogram
from chat.log import get_logger
from chat.store.base import CommitFailed, Writer
from chat.store.committer import Committer

log = get_logger("chat.metrics")

LOOK_S: Final = 0.5
ANSWER_S: Final = 1.0
DELAY_S: Final = 0.25
RATE_S: Final = 10.0  # over which rates are told
DELAYS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Counted(Protocol):
    """What rates are made of."""

    @property
    def records(self) -> int: ...

    @property
    def told(self) -> int: ...


@attrs.define(eq=False, kw_only=True)
class Watch:
    """``loop_delay``: by how many seconds the loop woke later than it was asked to. ``store_problem``: empty while all is well."""

    committer: Committer
    router: Counted
    stopping: Callable[[], bool]
    started_s: float = attrs.Factory(time.time)
    loop_delay: Histogram = attrs.Factory(lambda: Histogram(DELAYS))
    latest_delay_s: float = 0.0
    worst_delay_s: float = 0.0  # of the last `RATE_S`
    store_problem: str = ""
    metrics_problem: str = ""  # why nobody can read the figures; messages are stored all the same
    _samples: deque[tuple[float, int, int, float]] = attrs.Factory(deque)  # time, records, deliveries, delay

    def problems(self) -> list[str]:
        """Why the daemon is not ready, for a person; empty when it is."""
        found = []
        if self.stopping():
            found.append("the server is stopping")
        if self.store_problem:
            found.append(self.store_problem)
        return found

    @property
    def records_per_s(self) -> float:
        return self._rate(1)

    @property
    def deliveries_per_s(self) -> float:
        return self._rate(2)

    def _rate(self, column: int) -> float:
        if len(self._samples) < 2:
            return 0.0
        first, last = self._samples[0], self._samples[-1]
        return (last[column] - first[column]) / (last[0] - first[0])

    # ------------------------------------------------------------ tasks

    async def run_delay(self) -> None:
        """For ever."""
        while True:
            due = trio.current_time() + DELAY_S
            await trio.sleep_until(due)
            now = trio.current_time()
            self.latest_delay_s = max(0.0, now - due)
            self.loop_delay.observe(self.latest_delay_s)
            samples = self._samples
            samples.append((now, self.router.records, self.router.told, self.latest_delay_s))
            while samples[0][0] < now - RATE_S:
                samples.popleft()
            self.worst_delay_s = max(sample[3] for sample in samples)

    async def run_store(self) -> None:
        """For ever."""
        commits = -1
        while True:
            committer = self.committer
            if committer.out:
                problem = f"nothing can be stored: {committer.out}"
            elif committer.commit_s.count == commits or committer.low:
                problem = await self._look()
            else:
                problem = ""
            if problem != self.store_problem:
                self.store_problem = problem
                if problem:
                    log.warning("not_ready", reason=problem)
                else:
                    log.info("ready_again")
            commits = committer.commit_s.count
            await trio.sleep(LOOK_S)

    async def _look(self) -> str:
        with trio.move_on_after(ANSWER_S):
            try:
                await self.committer.ask(_check)
            except CommitFailed as failed:
                return failed.message if failed.code == "storage_full" else f"nothing can be stored: {failed.message}"
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                return "the store is closed"
            return ""
        return f"the store has not answered for {ANSWER_S:g} s"


def _check(writer: Writer) -> None:
    writer.check()


def cpu_s() -> float:
    """Of this process, user and system, in seconds."""
    times = os.times()
    return times.user + times.system
