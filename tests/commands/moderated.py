"""A house with a moderator in it, and short words for what its people do. Its fixtures are imported by name."""

import pytest

from chat.rooms.moderation import audit
from chat.rooms.state import State
from chat.store import sqlite_audit
from tests.rooms.house import dump, open_house

H = 3600_000  # ms


@pytest.fixture
def house():
    """root owns the server and #lobby, mod moderates it; ann and bob are in it, ann from elsewhere."""
    with open_house() as house:
        house.root, house.mod = house.owner(), house.register("mod")
        house.ann, house.bob = house.register("ann", host="203.0.113.7"), house.register("bob")
        house.command(house.root, "set-user-perm mod moderator", "lobby")
        for line in (house.root, house.mod, house.ann, house.bob):
            line.take()
        yield house
        assert dump(house.state) == dump(State.load(house.writer.load()))
        assert audit.verify(log(house)).problem is None


@pytest.fixture
def root(house):
    return house.root


@pytest.fixture
def mod(house):
    return house.mod


@pytest.fixture
def ann(house):
    return house.ann


@pytest.fixture
def bob(house):
    return house.bob


def log(house):
    return list(sqlite_audit.chain(house.writer._db))


def logged(house):
    """The latest entry, with names."""
    entry = log(house)[-1]
    name_of = house.state.name_of
    target = name_of(entry.target) if entry.target is not None else None
    return name_of(entry.actor), entry.action, target, entry.room is not None, entry.reason, entry.before, entry.after


def wait(house, ms):
    house.tick(ms / 1000)
