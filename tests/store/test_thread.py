import threading

import pytest
import trio

from chat.store.thread import open_thread


async def test_calls_run_in_one_other_thread_which_ends_with_its_block():
    async with open_thread("worker") as in_thread:
        threads = [await in_thread(threading.current_thread) for _ in range(3)]
        assert await in_thread(divmod, 7, 2) == (3, 1)
    assert len(set(threads)) == 1
    assert threads[0].name == "worker"
    assert not threads[0].is_alive()


async def test_an_exception_comes_back_and_the_thread_goes_on():
    async with open_thread("worker") as in_thread:
        with pytest.raises(ZeroDivisionError):
            await in_thread(divmod, 1, 0)
        assert await in_thread(divmod, 1, 1) == (1, 0)


async def test_a_call_under_way_cannot_be_cancelled():
    go_on = threading.Event()
    token = trio.lowlevel.current_trio_token()
    results = []

    def work():
        token.run_sync_soon(scope.cancel)
        assert go_on.wait(10)
        return "done"

    async with open_thread("worker") as in_thread, trio.open_nursery() as nursery:

        async def release():
            with trio.CancelScope(shield=True):
                while not scope.cancel_called:
                    await trio.lowlevel.checkpoint()
            go_on.set()

        with trio.CancelScope() as scope:
            nursery.start_soon(release)
            results.append(await in_thread(work))
        assert results == ["done"]
        assert not scope.cancelled_caught
