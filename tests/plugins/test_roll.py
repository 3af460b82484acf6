import re

import pytest

from chat.errors import ChatError
from chat.plugins import roll
from chat.testing import open_room, virtual_time

ROLL = "chat.plugins.roll"


@pytest.mark.parametrize(("dice", "parsed"), [("6", (1, 6)), ("d20", (1, 20)), ("3D6", (3, 6)), ("20d1000", (20, 1000)), ("100", (1, 100))])
def test_what_is_dice(dice, parsed):
    assert roll.parse(dice) == parsed


@pytest.mark.parametrize("dice", ["", "d", "1", "0", "d1", "21d6", "0d6", "6d", "1001", "-6", "2d6+1", "x", "٣"])
def test_what_is_no_dice(dice):
    with pytest.raises(ChatError, match="say how many sides"):
        roll.parse(dice)


@virtual_time
async def test_everybody_sees_what_is_rolled_in_a_channel():
    async with open_room(ROLL) as room:
        ann, bob = room.people
        call = await ann.types("//roll")
        assert call.text == ""
        call = await bob.types("//roll 3d6")
        (_, one), (who, many) = room.said
        assert who == "server"
        assert re.fullmatch("ann rolls 1d6: [1-6]", one)
        match = re.fullmatch(r"bob rolls 3d6: (.+) = (\d+)", many)
        rolled = [int(each) for each in match[1].split(" + ")]
        assert len(rolled) == 3
        assert sum(rolled) == int(match[2])
        call = await ann.says_in_private("roll 2")
        assert call.text in ("you roll 1", "you roll 2")
        assert len(room.said) == 2
        call = await ann.types("//roll 1")
        assert call.error.startswith("say how many sides")


@virtual_time
async def test_a_duel_is_won_by_the_higher_roll_and_counted(monkeypatch):
    rolls = iter([3, 3, 2, 5, 6, 1])
    async with open_room(ROLL) as room:
        ann, bob = room.people
        monkeypatch.setattr(roll.random, "randint", lambda low, high: next(rolls))
        call = await ann.types("//duel bob")
        assert call.running
        assert ann.question is None
        assert (bob.question.text, bob.question.choices) == ("ann wants to roll against you. Do you?", ("yes", "no"))
        with pytest.raises(ChatError, match="answer one of these"):
            await bob.answers("perhaps")
        await bob.answers("Yes")
        assert call.text == ""
        assert [text for _, text in room.said] == [
            "ann and bob both roll 3. Again!",
            "ann rolls 2, bob rolls 5: bob wins (1 so far)",
        ]
        await bob.types("//duel ann")
        await ann.answers("yes")
        assert list(room.stored().values()) == [2]


@virtual_time
async def test_a_duel_that_does_not_come_about():
    async with open_room(ROLL) as room:
        ann, bob = room.people
        assert (await ann.types("//duel ann")).error == "you would win, and lose"
        call = await ann.types("//duel bob")
        await bob.answers("no")
        assert call.text == "bob would rather not"
        call = await ann.types("//duel bob")
        await bob.goes_away()
        assert call.text == "bob does not answer"
        call = await ann.types("//duel bob")
        assert call.text == "bob does not answer"
        assert room.said == []
        assert room.stored() == {}
