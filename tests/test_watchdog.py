"""Who holds up the loop: a real loop, a real thread, and functions that really take their time (a fifth of a second)."""

import time
from functools import partial

import pytest
import trio

from chat.watchdog import Watched, culprit, resident_bytes, watch

QUICK = {"every_s": 0.02, "late_s": 0.05}


def waste(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


async def greedy(seconds):
    await trio.lowlevel.checkpoint()
    waste(seconds)


async def helped(seconds):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(helper, seconds)


async def helper(seconds):
    await trio.lowlevel.checkpoint()
    waste(seconds)


class Seen:
    def __init__(self, code, at_work=()):
        self.held_up, self.grown = [], []
        self.told = trio.Event()
        self.watched = Watched(
            code=lambda: {function.__code__: function.__name__ for function in code},
            at_work=lambda: at_work,
            held_up=self._held_up,
            grew=self._grew,
        )

    def _grew(self, *what):
        self.grown.append(what)
        self.told.set()

    def _held_up(self, *what):
        self.held_up.append(what)
        self.told.set()


@pytest.mark.parametrize("command", [greedy, helped])
async def test_the_command_that_holds_up_everybody_is_named_with_its_place(nursery, command):
    seen = Seen([command], at_work=[command.__name__])
    nursery.start_soon(partial(watch, seen.watched, **QUICK))
    await trio.testing.wait_all_tasks_blocked()
    await command(0.2)
    with trio.fail_after(5):
        await seen.told.wait()
    ((name, seconds, where),) = seen.held_up
    assert name == command.__name__
    assert seconds >= 0.05
    assert where.startswith("test_watchdog.py:")
    nursery.cancel_scope.cancel()


async def test_a_loop_that_goes_on_is_not_disturbed(nursery):
    seen = Seen([greedy])
    nursery.start_soon(partial(watch, seen.watched, every_s=0.01, late_s=2.0))
    for _ in range(5):
        await greedy(0.01)
    nursery.cancel_scope.cancel()
    assert seen.held_up == []


def test_code_that_is_no_commands_is_nobodys_but_has_a_place():
    import sys

    name, where = culprit(sys._getframe(), {greedy.__code__: "greedy", helped.__code__: "helped"}, ["greedy", "helped"])
    assert name is None, "two commands of this file are at work: it may be either"
    assert where.startswith("test_watchdog.py:")
    assert culprit(sys._getframe(), {greedy.__code__: "greedy"}, ["greedy"])[0] == "greedy"
    assert culprit(sys._getframe(), {}, [])[1].startswith("test_watchdog.py:")
    assert culprit(None, {}, []) == (None, "")


async def test_memory_that_grows_is_told_with_who_was_at_work(nursery, monkeypatch):
    seen = Seen([greedy], at_work=["greedy"])
    monkeypatch.setattr("chat.watchdog.GROWN_BYTES", 16 * 2**20)
    nursery.start_soon(partial(watch, seen.watched, **QUICK))
    await trio.testing.wait_all_tasks_blocked()
    kept = bytearray(64 * 2**20)
    with trio.fail_after(5):
        await seen.told.wait()
    assert seen.grown[0][0] == "greedy"
    assert seen.grown[0][1] >= 16 * 2**20
    assert len(kept)
    nursery.cancel_scope.cancel()


def test_the_memory_of_this_process_is_known():
    assert resident_bytes() > 2**20
