"""What a connection keeps while nobody says anything. What it does is in `tests/test_catchup.py`, `tests/e2e` and elsewhere."""

import sys

import pytest
import trio
import trio.testing

from tests.rooms.house import open_house
from tests.wire import open_lines


@pytest.fixture
def house():
    with open_house() as house:
        house.ann = house.register("ann")
        yield house


async def test_a_connection_is_one_task_and_keeps_nothing_of_what_was_said_last(house):
    async with open_lines(house) as lines:
        wire = lines.wire()
        frame = b'{"type":"hello","protocol":1,"client":"test"}'
        before = sys.getrefcount(frame)
        await wire.to_server.send([frame])
        await wire.hear("welcome")
        await trio.testing.wait_all_tasks_blocked()
        assert sys.getrefcount(frame) == before
        (task,) = lines.nursery.child_tasks
        assert not task.child_nurseries
