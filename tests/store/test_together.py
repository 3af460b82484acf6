"""Questions that are asked together: who is alone waits for nobody, and who is cancelled takes nobody along."""

import pytest
import trio
import trio.testing

from chat.errors import ChatError
from chat.store.together import Together


class Slow:
    """Answers with the key doubled, once it is let."""

    def __init__(self):
        self.asked = []
        self.error = None
        self._let = trio.Event()

    async def __call__(self, keys):
        self.asked.append(list(keys))
        await self._let.wait()
        if self.error is not None:
            raise self.error
        return [key * 2 for key in keys]

    def let(self):
        self._let.set()
        self._let = trio.Event()


@pytest.fixture
def slow():
    return Slow()


async def test_who_comes_meanwhile_is_asked_together_and_each_gets_its_own_answer(slow, nursery):
    together, got = Together(slow), []

    async def ask(key):
        got.append((key, await together(key)))

    for wave in ([1], [2, 3, 2], [4]):
        for key in wave:
            nursery.start_soon(ask, key)
        await trio.testing.wait_all_tasks_blocked()
        assert len(slow.asked) == 1  # one question at a time, the first one at once
    assert slow.asked == [[1]]
    assert got == []
    slow.let()
    await trio.testing.wait_all_tasks_blocked()
    assert got == [(1, 2)]
    assert [sorted(keys) for keys in slow.asked] == [[1], [2, 2, 3, 4]]
    slow.let()
    await trio.testing.wait_all_tasks_blocked()
    assert sorted(got) == [(1, 2), (2, 4), (2, 4), (3, 6), (4, 8)]
    nursery.start_soon(ask, 5)
    await trio.testing.wait_all_tasks_blocked()
    assert slow.asked[2:] == [[5]]
    slow.let()


async def test_a_failure_is_everybodys_who_was_asked_for_and_nobody_elses(slow, nursery):
    together, failed = Together(slow), []

    async def ask(key):
        try:
            await together(key)
        except ChatError as error:
            failed.append(error)

    nursery.start_soon(ask, 1)
    await trio.testing.wait_all_tasks_blocked()
    for key in (2, 3):
        nursery.start_soon(ask, key)
    await trio.testing.wait_all_tasks_blocked()
    slow.let()
    await trio.testing.wait_all_tasks_blocked()
    slow.error = ChatError("storage_unavailable", "not now")
    slow.let()
    await trio.testing.wait_all_tasks_blocked()
    assert [error.code for error in failed] == ["storage_unavailable"] * 2
    assert failed[0] is not failed[1]  # a traceback of its own each
    slow.error = None
    nursery.start_soon(ask, 4)
    await trio.testing.wait_all_tasks_blocked()
    slow.let()
    await trio.testing.wait_all_tasks_blocked()
    assert len(failed) == 2


async def test_a_bug_is_raised_where_it_was_asked_and_leaves_nobody_without_an_answer():
    async def broken(keys):
        await trio.testing.wait_all_tasks_blocked()
        raise ZeroDivisionError

    together, failed = Together(broken), []

    async def ask(key):
        try:
            await together(key)
        except (ChatError, ZeroDivisionError) as error:
            failed.append(type(error))

    async with trio.open_nursery() as nursery:
        for key in (1, 2, 3):
            nursery.start_soon(ask, key)
    assert sorted(failed, key=str) == [ZeroDivisionError, ZeroDivisionError, ChatError]  # the third had joined the second


@pytest.mark.parametrize("who", [1, 2, 3])
async def test_who_is_cancelled_takes_nobody_along(slow, nursery, who):
    """Whoever of them it is: the one whose question is under way, the one who asks the next, or one who has joined that."""
    together, got, scopes = Together(slow), {}, {}

    async def ask(key):
        with trio.CancelScope() as scopes[key]:
            got[key] = await together(key)

    for key in (1, 2, 3):
        nursery.start_soon(ask, key)
        await trio.testing.wait_all_tasks_blocked()
    scopes[who].cancel()
    for _ in range(2):
        await trio.testing.wait_all_tasks_blocked()
        slow.let()
    await trio.testing.wait_all_tasks_blocked()
    assert {key: got[key] for key in {1, 2, 3} - {who}} == {key: 2 * key for key in {1, 2, 3} - {who}}
    assert scopes[who].cancelled_caught or got[who] == 2 * who
    nursery.start_soon(ask, 4)
    await trio.testing.wait_all_tasks_blocked()
    slow.let()
    await trio.testing.wait_all_tasks_blocked()
    assert got[4] == 8


async def test_who_was_cancelled_before_asks_nothing(slow):
    with trio.CancelScope() as scope:
        scope.cancel()
        await Together(slow)(1)
    assert scope.cancelled_caught
    assert slow.asked == []
