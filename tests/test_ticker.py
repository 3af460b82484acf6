"""What time brings about."""

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
