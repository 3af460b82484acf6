"""The stores under contract: every implementation, opened in a folder of the test's own."""

import contextlib

import pytest

from chat.store.sqlite import open_sqlite
from tests.store.build import world


class Clock:
    now_ms = 1_000_000

    def __call__(self):
        return self.now_ms


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["sqlite"])
async def opened(request, tmp_path, clock):
    """A function that opens the one store of this test, again and again."""
    async with contextlib.AsyncExitStack() as stack:

        async def again():
            await stack.aclose()
            return await stack.enter_async_context(open_sqlite(tmp_path / "data", busy_timeout_s=0.05, min_free_bytes=0, clock=clock))

        yield again


@pytest.fixture
async def store(opened):
    store = await opened()
    assert all(outcome.error is None for outcome in store.writer.commit(world()))
    return store
