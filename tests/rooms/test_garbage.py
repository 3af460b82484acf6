"""What is done all day leaves nothing to the collector of circular garbage: it would hold up everybody, and is asked to come rarely."""

import gc

import pytest

from chat.errors import ChatError
from chat.protocol import messages as m
from tests.rooms.house import open_house


@pytest.fixture
def house():
    with open_house() as house:
        house.ann = house.register("ann")
        yield house


async def test_a_command_that_is_refused_leaves_no_circle(house):
    house.ask(house.ann, m.Command(id=1, text="create-channel den"))
    await house.finish(house.ann)
    gc.collect()
    gc.disable()
    try:
        house.ask(house.ann, m.Command(id=2, text="create-channel den"))
        (answer,) = await house.finish(house.ann)
        house.outcomes.clear()  # nobody holds it any more
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [each for each in gc.garbage if isinstance(each, ChatError)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert answer["code"] == "name_taken"
    assert left == []
