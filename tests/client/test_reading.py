"""What counts as read and as unread in a terminal; over a whole server it is tested with the browser, in tests/web."""

import trio
import trio.testing

from chat.client.reading import KEPT, Reading
from chat.errors import ChatError
from chat.protocol import messages as m


class Account:
    """The part of a client that the reading needs: markers, positions, pages, and what was told the server."""

    def __init__(self, **markers):
        self.read_markers = {f"#{name}": seq for name, seq in markers.items()}
        self.next = {}
        self.told = []
        self.refused = False

    def position(self, conv):
        return self.next.get(conv)

    async def history(self, conv, *, limit, after, before):
        await trio.lowlevel.checkpoint()
        if self.refused:
            raise ChatError("forbidden", "no")
        return [text(conv, seq) for seq in range(after + 1, before)][:limit]

    async def mark_read(self, conv, seq):
        await trio.lowlevel.checkpoint()
        if self.refused:
            raise ChatError("not_found", "gone")
        self.told.append((conv, seq))
        self.read_markers[conv] = max(seq, self.read_markers.get(conv, 0))


def text(conv, seq):
    return m.Message(conv=conv, epoch="epoch0001", seq=seq, ts=seq, from_="bob", text=f"m{seq}")


async def test_what_is_shown_is_read_once_somebody_types():
    account = Account(a=2)
    async with trio.open_nursery() as nursery:
        reading = Reading(account, nursery.start_soon)
        for seq in (5, 2, 4):
            reading.shown("#a", seq)
        reading.shown("@bob", 1)
        reading.shown("#a", None)
        await trio.testing.wait_all_tasks_blocked()
        assert account.told == [], "it stands open, but is anybody there?"
        reading.typed()
        await trio.testing.wait_all_tasks_blocked()
        assert account.told == [("#a", 5), ("@bob", 1)]
        reading.shown("#a", 5)
        reading.typed()
    assert len(account.told) == 2, "told once"


async def test_what_another_session_has_read_is_shown_and_not_counted():
    account = Account(a=2)
    reading = Reading(account, None)
    for seq in (2, 3, 4):
        reading.keep(text("#a", seq))
    reading.keep(text("#b", 1))
    assert reading.counts() == [("#a", 2), ("#b", 1)]
    account.read_markers["#a"] = 4
    assert reading.counts() == [("#b", 1)]
    assert [message.seq for message in reading.take("#a")] == [2, 3, 4]
    assert list(reading.take("#a")) == []
    reading.forget("#b")
    assert reading.counts() == []


async def test_at_the_start_it_counts_from_the_markers():
    account = Account(a=2, b=7, c=0, front=0)
    account.next = {"#a": 5, "#b": 8, "#c": 1000, "#front": 9}
    reading = Reading(account, None)
    reading.keep(text("#a", 5))
    await reading.catch_up("#front")
    assert reading.counts() == [("#a", 3), ("#c", KEPT)]
    assert [message.seq for message in reading.take("#a")] == [3, 4, 5]
    assert reading.take("#c")[-1].seq == 999


async def test_a_refusal_takes_nothing_away():
    account = Account(a=2)
    account.next, account.refused = {"#a": 5}, True
    async with trio.open_nursery() as nursery:
        reading = Reading(account, nursery.start_soon)
        reading.keep(text("#a", 5))
        await reading.catch_up(None)
        assert reading.counts() == [("#a", 1)]
        reading.shown("#a", 5)
        reading.typed()
