"""What time brings about: one timer for everything; and the watchdog of systemd, where there is one."""

from collections.abc import Sequence
from typing import Final, Protocol

import trio

from chat.background import systemd
from chat.daemon.parts import Parts
from chat.log import flush as flush_log
from chat.log import get_logger, new_error_id
from chat.rooms import items as it
from chat.store.base import CommitFailed
from chat.store.sqlite import now_ms

CID_LIFE_MS: Final = 7 * 24 * 3600 * 1000  # contract, section 3
TIDY_S: Final = 3600.0
SLICE: Final = 512  # connections that are looked at before other tasks run

log = get_logger("chat.daemon")


class Ticking(Protocol):
    """What time may end, or make speak: a connection."""

    def tick(self, now: float) -> None: ...


async def tick(parts: Parts) -> None:
    """Once a second: everything that time brings about. One timer for all connections."""
    tidy_at = trio.current_time()
    while True:
        await trio.sleep(1)
        now = trio.current_time()
        await tick_links(list(parts.services.links), now)
        parts.flush.flush()
        flush_log()
        await parts.manager.inbox.send((None, [it.Tick()]))
        if now >= tidy_at:
            try:
                more = await parts.committer.tidy(cids_before_ms=now_ms() - CID_LIFE_MS)
            except CommitFailed as failed:
                log.warning("not_tidied", code=failed.code, reason=failed.message)
                more = False
            if not more:
                tidy_at = now + TIDY_S


async def tick_links(links: Sequence[Ticking], now: float) -> None:
    """Tell each what time it is, in slices: of 10,000 it would take 5 ms and more, and others wait meanwhile."""
    for at in range(0, len(links), SLICE):
        for link in links[at : at + SLICE]:
            try:
                link.tick(now)
            except Exception:  # its bug is that one connection's
                log.exception("tick_failed", error_id=new_error_id())
        await trio.lowlevel.checkpoint()


async def feed_watchdog(parts: Parts) -> None:
    """Tell systemd that all is well, as often as it wants to hear it: only while the manager decides, the committer answers and the router
    routes. One who hangs is killed by systemd, and started again. *Waits* for ever; returns at once where there is no watchdog."""
    every_s = systemd.watchdog_s()
    if every_s is None:
        return
    while True:
        answered = trio.Event()

        def done(_: object, answered: trio.Event = answered) -> None:
            answered.set()

        try:
            await parts.manager.inbox.send((None, [it.Bootstrap(effects=(), done=done, failed=done)]))
        except (trio.ClosedResourceError, trio.BrokenResourceError):  # the end: systemd's own deadline counts now
            return
        await answered.wait()
        systemd.notify("WATCHDOG=1")
        await trio.sleep(every_s)
