"""A house with three people in it, and short words for the commands that they give. Its fixtures are imported by name."""

import pytest

from chat.protocol import messages as m
from chat.rooms.state import State
from tests.rooms.house import dump, open_house


@pytest.fixture
def house():
    """root owns the server and #lobby; ann and bob are in #lobby."""
    with open_house() as house:
        house.root, house.ann, house.bob = house.owner(), house.register("Ann"), house.register("bob")
        yield house
        assert dump(house.state) == dump(State.load(house.writer.load()))


@pytest.fixture
def root(house):
    return house.root


@pytest.fixture
def ann(house):
    return house.ann


@pytest.fixture
def bob(house):
    return house.bob


def told(house, line, text, channel="lobby", **more):
    """What a command that may be used answers."""
    answer = house.command(line, text, channel, **more)
    assert answer["type"] == "result", answer
    return answer["text"]


def refused(house, line, text, channel="lobby"):
    answer = house.command(line, text, channel)
    assert answer["type"] == "error", answer
    return answer["code"], answer["message"]


async def told_later(house, line, text, channel="lobby"):
    answer = await house.command_async(line, text, channel)
    assert answer["type"] == "result", answer
    return answer["text"]


async def refused_later(house, line, text, channel="lobby"):
    answer = await house.command_async(line, text, channel)
    assert answer["type"] == "error", answer
    return answer["code"], answer["message"]


async def private(house, line, name="den", password="sesame or not"):
    await told_later(house, line, f'create-channel {name} "{password}"')
    house.root.take()


def command(text, id):
    return m.Command(id=id, text=text)
