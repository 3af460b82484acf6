"""What time brings about."""

import structlog
import trio

from chat.daemon.ticker import SLICE, tick_links


class Link:
    def __init__(self):
        self.ticks = []

    def tick(self, now):
        self.ticks.append(now)


async def test_others_run_between_slices_of_connections():
    links = [Link() for _ in range(3 * SLICE + 1)]
    seen = []

    async def look():
        while not links[-1].ticks:
            seen.append(sum(map(len, (link.ticks for link in links))))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        nursery.start_soon(tick_links, links, 5.0)
    assert any(0 < ticked < len(links) for ticked in seen)
    assert all(link.ticks == [5.0] for link in links)


async def test_a_bug_in_one_connection_is_no_other_ones():
    """All of them, and the daemon, ended for an attribute that could not be set on a WebSocket."""

    class Broken(Link):
        def tick(self, now):
            raise AttributeError("no setter")

    links = [Link(), Broken(), Link()]
    with structlog.testing.capture_logs() as logged:
        await tick_links(links, 5.0)
    assert [link.ticks for link in links] == [[5.0], [], [5.0]]
    assert [entry["event"] for entry in logged] == ["tick_failed"]
