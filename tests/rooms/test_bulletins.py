"""Heads: every account is told once in a period, not all at once, and of all that changed since its last turn."""

import random
from collections import Counter

import attrs
import pytest
import trio

from chat.protocol import messages as m
from chat.rooms import bulletins
from chat.rooms import effects as fx
from chat.rooms import items as it
from tests.rooms.house import of_type, open_house

PERIOD_S = 30  # limits.heads_s


def presence(line):
    return [message["users"] for message in of_type(line.take(), "presence")]


def told(line):
    return [message["heads"] for message in of_type(line.take(), "heads")]


@pytest.fixture
def house():
    with open_house() as house:
        yield house


def test_everybody_is_told_once_in_a_period_and_never_all_at_once(house):
    lines = [house.register(f"user{n}") for n in range(60)]
    house.say(lines[0], "lobby", "hi")
    for line in lines:
        line.take()
    epoch = house.state.room("lobby").epoch
    for _ in range(2):
        together, every = Counter(), Counter()
        for second in range(PERIOD_S):
            house.tick()
            for line in lines:
                for heads in told(line):
                    assert heads == {"#lobby": [epoch, house.router.head(house.state.room("lobby").id)]}
                    together[second] += 1
                    every[line] += 1
        assert set(every.values()) == {1}
        assert len(every) == len(lines)
        assert max(together.values()) < 15
        house.say(lines[1], "lobby", "and again")
        for line in lines:
            line.take()
    for _ in range(2 * PERIOD_S):
        house.tick()
    for line in lines:
        line.take()
    for _ in range(PERIOD_S):
        house.tick()
    assert not any(told(line) for line in lines), "nothing changed"


@pytest.mark.parametrize("step_s", [1, 0.7, 3.3, 29, 30, 31, 100])
def test_of_every_change_everybody_is_told_within_a_period(house, step_s):
    """However seldom and unevenly the clock ticks."""
    draw = random.Random(step_s)
    lines = [house.register(f"user{n}") for n in range(7)]
    lobby, n = house.state.room("lobby"), 0
    since = dict.fromkeys(lines)  # when something changed first that the line was not told
    for line in lines:
        line.take()
    for _ in range(400):
        if draw.random() < 0.1:
            n += 1
            house.ask(lines[0], m.Send(id=1, cid=f"c{n}", channel="lobby", text="hi"))
            since = {line: house.now if at is None else at for line, at in since.items()}
        for line in lines:
            line.take()
        house.tick(step_s)
        for line in lines:
            if heads := told(line):
                assert heads == [{"#lobby": [lobby.epoch, house.router.head(lobby.id)]}]
                since[line] = None
            assert since[line] is None or house.now - since[line] < PERIOD_S + max(step_s, 1)


def test_a_period_of_a_second_or_less_is_everybody_at_every_tick(house):
    house.desk.settings = attrs.evolve(house.desk.settings, heads_s=0.5)
    lines = [house.register(f"user{n}") for n in range(5)]
    house.say(lines[0], "lobby", "hi")
    for line in lines:
        line.take()
    house.tick()
    assert [len(told(line)) for line in lines] == [1] * 5
    house.tick()
    assert [len(told(line)) for line in lines] == [0] * 5


@pytest.mark.parametrize("other_s", [5, 7, 45, 100])
def test_another_period_leaves_nobody_untold_of_what_changed_before(house, other_s):
    lines = [house.register(f"user{n}") for n in range(PERIOD_S)]
    for change_s in range(PERIOD_S):
        house.say(lines[0], "lobby", f"hi {change_s}")
        for line in lines:
            line.take()
        house.desk.settings = attrs.evolve(house.desk.settings, heads_s=PERIOD_S)
        for _ in range(change_s + 1):
            house.tick()
        house.desk.settings = attrs.evolve(house.desk.settings, heads_s=other_s)  # reloaded
        for _ in range(other_s):
            house.tick()
        assert all(told(line) for line in lines)


def test_a_private_conversation_is_told_to_each_by_the_others_name(house):
    ann, bob, cid = house.register("ann"), house.register("bob"), house.register("cid")
    house.ask(ann, m.Send(id=1, cid="c", to="bob", text="psst"))
    for line in (ann, bob, cid):
        line.take()
    for _ in range(PERIOD_S):
        house.tick()
    (of_ann,), (of_bob,) = told(ann), told(bob)
    assert list(of_ann) == ["@bob"]
    assert list(of_bob) == ["@ann"]
    assert of_ann["@bob"] == of_bob["@ann"]
    assert told(cid) == []


def test_who_lags_in_its_turn_is_told_when_it_has_caught_up(house):
    ann, bob = house.register("ann"), house.register("bob")
    house.say(bob, "lobby", "hi")
    ann.take()
    ann.outbox.full = True
    for _ in range(PERIOD_S):
        house.tick()
    ann.outbox.full = False
    house.router.unlag(ann)
    (heads,) = told(ann)
    assert heads["#lobby"][1] == house.router.head(house.state.room("lobby").id)


# ---------------------------------------------------------------- presence


def neighbours(house, count):
    """People who are back after a while, all at the same moment, of which nobody has been told yet."""
    names = [f"user{n}" for n in range(count)]
    for name in names:
        house.manager.gone(house.register(name))
    house.tick(90)
    house.tick()
    lines = [house.log_in(name) for name in names]
    for line in lines:
        line.take()
    return dict(zip(names, lines, strict=True))


def slice_of(house):
    return house.router.bulletins.tell_presence(house.manager._is_small)


def test_presence_is_told_in_slices_and_each_is_told_once(house, monkeypatch):
    lines = neighbours(house, 30)
    monkeypatch.setattr(bulletins, "SLICE", 100)
    heard, quiet = {}, 0
    for _ in range(40):
        left = slice_of(house)
        quiet += not heard and not any(line.outbox.messages for line in lines.values())
        fresh = {name: users for name, line in lines.items() if (users := presence(line))}
        assert sum(len(each) for (each,) in fresh.values()) < 100 + 30
        assert not heard.keys() & fresh.keys()
        heard |= fresh
        if not left:
            break
    assert {name: users for name, (users,) in heard.items()} == {name: dict.fromkeys(lines.keys() - {name}, True) for name in lines}
    assert quiet == 3, "looking at who changed is done in slices too"
    assert not slice_of(house)


def test_two_who_talked_in_private_and_go_together(house):
    ann, bob, cid = house.register("ann"), house.register("bob"), house.register("cid")
    house.ask(ann, m.Send(id=1, cid="c", to="bob", text="psst"))
    for line in (ann, bob):
        house.manager.gone(line)
    cid.take()
    house.tick(90)
    house.tick()
    assert presence(cid) == [{"ann": False, "bob": False}]
    assert {audience.pair for audience in house.router.by_conv.values()} == {None}


def test_who_goes_between_two_slices(house, monkeypatch):
    ann = house.register("ann")
    others = neighbours(house, 12)
    monkeypatch.setattr(bulletins, "SLICE", 1)
    assert presence(ann)
    heard = {name: [] for name in others}

    def listen():
        for name, line in others.items():
            heard[name] += presence(line)

    while not any(heard.values()):
        assert slice_of(house)
        listen()
    still = [name for name, users in heard.items() if not users]
    assert len(still) > 8
    broken, left, banned, offline = still[:4]
    house.manager.gone(others[broken])  # the connection is lost, and its session is held
    assert house.command(others[left], "leave-channel", "lobby")["type"] == "result"
    others[left].take()
    for gone in (banned, offline):
        house.do([fx.DropSessions(account=others[gone].account, but=None)])
    while slice_of(house):
        listen()
    listen()
    assert heard[broken] == heard[left] == [], "a line that is gone, and one that shares no channel any more"
    house.tick()
    while slice_of(house):
        pass
    listen()
    rest = [name for name in still if name not in (broken, left, banned, offline)]
    for name in rest:
        first, second = heard[name]
        assert set(first.values()) == {True}
        assert second == {banned: False, offline: False}, "what changed meanwhile comes behind it"


async def test_a_tick_does_not_hold_up_others_until_all_are_told(house, monkeypatch):
    lines = neighbours(house, 20)
    monkeypatch.setattr(bulletins, "SLICE", 1)
    turns = []

    async def other():
        while True:
            turns.append(sum(bool(line.outbox.messages) for line in lines.values()))
            await trio.lowlevel.checkpoint()

    async with house.running() as nursery:
        nursery.start_soon(other)
        await house.manager.inbox.send((None, [it.Tick()]))
        with trio.fail_after(5):
            while not all(line.outbox.messages for line in lines.values()):
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert len(set(turns)) > 10
    assert all(len(presence(line)) == 1 for line in lines.values())
