"""Conversations: a command asks, people answer, go away, come back. After each case nothing of it is left (`talking` looks)."""

import pytest
import trio

from chat.commands.arguments import User
from chat.commands.context import Context
from chat.commands.interactive import Answered, QuestionClosed, everyone
from chat.commands.registry import command
from chat.protocol import messages as m
from tests.commands.talking import talking

FOR_EVER = 3000
HEARD = []  # what the commands below saw; cleared for each test


@pytest.fixture(autouse=True)
def _deaf():
    HEARD.clear()


@command
async def pick(ctx: Context) -> str:
    """Ask the caller for a number."""
    return f"you picked {await ctx.ask('Pick a number', parse=int, timeout=FOR_EVER) + 0}"


@command
async def dare(ctx: Context, whom: User) -> str:
    """Ask somebody else."""
    try:
        answer = await ctx.ask(f"{ctx.account.name} dares you", of=whom, choices=["yes", "no"], timeout=FOR_EVER)
    except QuestionClosed as closed:
        HEARD.append(closed.reason)
        raise
    except trio.Cancelled:
        HEARD.append("cancelled by trio")
        raise
    return f"{whom.name} says {answer}"


@command
async def first(ctx: Context) -> str:
    """Who answers first?"""
    got = await ctx.ask("Capital of France?", of=ctx.here(), timeout=FOR_EVER)
    assert isinstance(got, Answered)
    return f"{got.user.name}: {got.value}"


@command
async def count(ctx: Context, how_many: int, seconds: float = FOR_EVER) -> str:
    """Gather answers of the channel."""
    got = await ctx.ask("And you?", of=ctx.here(), how_many=how_many or None, timeout=seconds)
    return ", ".join(f"{each.user.name}={each.value}" for each in got)


@command
async def survey(ctx: Context) -> str:
    """Ask everybody."""
    got = await ctx.ask("All well?", of=everyone, choices=[True, False], timeout=FOR_EVER)
    return f"{got.user.name} {got.value is True}"


@command
async def impatient(ctx: Context) -> str:
    """Ask, for a moment."""
    return str(await ctx.ask("Quick!", timeout=0.01))


ALL = (pick, dare, first, count, survey, impatient)


# ---------------------------------------------------------------- asking and answering


async def test_the_caller_answers_its_own_question():
    async with talking(*ALL) as talk:
        ann = talk.person("ann")
        id = await talk.call(ann, "pick")
        (question,) = talk.asked(ann).values()
        assert question["from"] == "ann"
        assert question["text"] == "Pick a number"
        assert question["command"] == "pick"
        assert question["conv"] == "#lobby"
        assert 0 < question["expires_in"] <= FOR_EVER
        assert (await talk.answer(ann, talk.only(ann), "42"))["type"] == "ok"
        assert talk.reply(ann, id)["text"] == "you picked 42"
        assert talk.closed(ann) == ["answered"]


async def test_somebody_else_is_asked_and_nobody_else_sees_it():
    async with talking(*ALL) as talk:
        ann, bob, eve = map(talk.person, ("ann", "bob", "eve"))
        id = await talk.call(ann, "dare bob")
        assert talk.asked(bob)[talk.only(bob)]["choices"] == ["yes", "no"]
        assert not talk.asked(ann)
        assert not talk.asked(eve)
        assert (await talk.answer(eve, talk.only(bob), "yes"))["code"] == "not_found"
        await talk.answer(bob, talk.only(bob), "YES")
        assert talk.reply(ann, id)["text"] == "bob says yes"


async def test_an_answer_that_will_not_do_leaves_the_question_open():
    async with talking(*ALL) as talk:
        ann = talk.person("ann")
        id = await talk.call(ann, "pick")
        refused = await talk.answer(ann, talk.only(ann), "many")
        assert refused["code"] == "bad_request"
        assert refused["message"] == "a whole number is expected, not 'many'"
        await talk.answer(ann, talk.only(ann), " 7 ")
        assert talk.reply(ann, id)["text"] == "you picked 7"


async def test_fifty_answer_a_channels_question_at_once_and_the_first_counts():
    async with talking(*ALL) as talk:
        ann = talk.person("ann")
        people = [talk.person(f"p{n}") for n in range(50)]
        id = await talk.call(ann, "first")
        question = talk.only(ann)
        assert all(list(talk.asked(line)) == [question] for line in people)
        for n, line in enumerate(people):
            await talk.house.tell(line, m.Answer(id=1, question=question, text=f"Paris {n}"))
        await talk.settle()
        assert talk.reply(ann, id)["text"] == "p0: Paris 0"
        assert [talk.reply(line, 1)["type"] for line in people] == ["ok"] + ["error"] * 49
        assert {talk.reply(line, 1).get("code") for line in people[1:]} == {"not_found"}
        assert all(talk.closed(line) == ["answered"] for line in [ann, *people])


async def test_everybody_is_asked():
    async with talking(*ALL, channels=("lobby", "other")) as talk:
        ann, bob = talk.person("ann"), talk.person("bob")
        id = await talk.call(ann, "survey", channel=None)
        assert talk.asked(ann).keys() == talk.asked(bob).keys()
        await talk.answer(bob, talk.only(bob), "true")
        assert talk.reply(ann, id)["text"] == "bob True"


async def test_nobody_answers_in_time():
    async with talking(*ALL) as talk:
        ann = talk.person("ann")
        id = await talk.call(ann, "impatient")
        while talk.reply(ann, id) is None:
            await trio.sleep(0.005)
            await talk.settle()
        assert talk.reply(ann, id)["code"] == "timeout"
        assert talk.closed(ann) == ["timeout"]
