"""Conversations: a command asks, people answer, go away, come back. After each case nothing of it is left (`talking` looks)."""

import pytest
import trio

from chat.commands.context import Context
from chat.commands.registry import command
from chat.protocol import messages as m
from chat.rooms.policy import RateLimits
from chat.rooms.rules.writing import Sanction
from tests.commands import asking
from tests.commands.asking import ALL, CHANGES, FOR_EVER, HEARD, go
from tests.commands.talking import talking

deaf = asking.deaf  # a fixture

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


async def test_as_many_as_come_until_the_time_is_over():
    async with talking(*ALL) as talk:
        ann, bob, eve = map(talk.person, ("ann", "bob", "eve"))
        id = await talk.call(ann, "count 0 0.3")
        await talk.answer(eve, talk.only(eve), "1")
        await talk.answer(ann, talk.only(ann), "2")
        assert talk.closed(eve) == ["answered"], "who has answered is asked no more"
        assert talk.only(bob)
        with trio.fail_after(5):
            while talk.reply(ann, id) is None:
                await trio.sleep(0.01)
                await talk.settle()
        assert talk.reply(ann, id)["text"] == "eve=1, ann=2"
        assert talk.closed(bob) == ["timeout"]


async def test_enough_have_answered_and_each_once():
    async with talking(*ALL) as talk:
        ann, bob, eve = map(talk.person, ("ann", "bob", "eve"))
        id = await talk.call(ann, "count 2")
        question = talk.only(bob)
        await talk.answer(bob, question, "first")
        assert (await talk.answer(bob, question, "again"))["code"] == "bad_request"
        await talk.answer(eve, question, "second")
        assert talk.reply(ann, id)["text"] == "bob=first, eve=second"
        assert talk.closed(ann) == ["answered"]


async def test_several_answers_of_one_person_and_the_question_stays_until_the_last():
    async with talking(*ALL) as talk:
        ann = talk.person("ann")
        id = await talk.call(ann, "series")
        for text in "abc":
            assert (await talk.answer(ann, talk.only(ann), text))["type"] == "ok"
        assert talk.reply(ann, id)["text"] == "a b c"


async def test_two_questions_to_one_person_do_not_hide_one_another():
    async with talking(*ALL) as talk:
        ann = talk.person("ann")
        id = await talk.call(ann, "twice")
        by_text = {question["text"]: question["question"] for question in talk.asked(ann).values()}
        await talk.answer(ann, by_text["left"], "L")
        assert list(talk.asked(ann)) == [by_text["right"]]
        await talk.answer(ann, by_text["right"], "R")
        assert talk.reply(ann, id)["text"] == "L R"


async def test_two_people_ask_one_person_at_once():
    async with talking(*ALL) as talk:
        ann, bob, eve = map(talk.person, ("ann", "bob", "eve"))
        from_ann = await talk.call(ann, "dare bob")
        from_eve = await talk.call(eve, "dare bob")
        by_asker = {question["from"]: question["question"] for question in talk.asked(bob).values()}
        await talk.answer(bob, by_asker["eve"], "no")
        await talk.answer(bob, by_asker["ann"], "yes")
        assert (talk.reply(ann, from_ann)["text"], talk.reply(eve, from_eve)["text"]) == ("bob says yes", "bob says no")


async def test_all_sessions_of_a_person_are_asked_and_any_may_answer():
    async with talking(*ALL) as talk:
        ann = talk.person("ann")
        phone = talk.house.log_in("ann")
        id = await talk.call(ann, "pick")
        assert talk.only(phone) == talk.only(ann)
        await talk.answer(phone, talk.only(phone), "1")
        assert talk.closed(ann) == talk.closed(phone) == ["answered"]
        assert talk.reply(ann, id)["text"] == "you picked 1"


# ---------------------------------------------------------------- rights at the answer


async def test_who_is_muted_meanwhile_cannot_answer():
    async with talking(*ALL) as talk:
        ann, bob, eve = map(talk.person, ("ann", "bob", "eve"))
        id = await talk.call(ann, "first")
        room = talk.house.state.room("lobby")
        room.restrict().mutes[bob.account] = Sanction(by=0, at_ms=0, until_ms=None, reason="loud")
        refused = await talk.answer(bob, talk.only(bob), "Paris")
        assert refused["code"] == "forbidden"
        assert "muted" in refused["message"]
        await talk.answer(eve, talk.only(eve), "Paris")
        assert talk.reply(ann, id)["text"] == "eve: Paris"


async def test_who_came_after_it_was_over_and_who_invents_one():
    async with talking(*ALL) as talk:
        ann = talk.person("ann")
        await talk.call(ann, "pick")
        question = talk.only(ann)
        await talk.answer(ann, question, "1")
        assert (await talk.answer(ann, question, "2"))["code"] == "not_found"
        assert (await talk.answer(ann, "zzzzz", "2"))["code"] == "not_found"


async def test_answers_are_not_for_free():
    rates = RateLimits(commands_burst=3, commands_per_s=0.001)
    async with talking(*ALL, rates=rates) as talk:
        ann, bob = talk.person("ann"), talk.person("bob")
        await talk.call(ann, "dare bob")
        told = [await talk.answer(bob, talk.only(bob), "perhaps") for _ in range(4)]
        assert [message["code"] for message in told] == ["bad_request"] * 3 + ["rate_limited"]
        await go(talk, ann, "logs out")
        talk.touched = CHANGES


# ---------------------------------------------------------------- what commands do with the end of a question


async def test_a_command_may_ask_again():
    async with talking(*ALL) as talk:
        ann = talk.person("ann")
        id = await talk.call(ann, "hopeful")
        talk.questions.close(talk.questions.get(talk.only(ann)), "cancelled")
        await talk.settle()
        assert HEARD == ["cancelled"]
        await talk.answer(ann, talk.only(ann), "yes")
        assert "yes" in talk.reply(ann, id)["text"]


# ---------------------------------------------------------------- questions that make no sense


@command
async def odd(ctx: Context, what: str) -> str:
    """Ask in a way that is refused."""
    how = {
        "no-text": {"text": "  "},
        "long": {"text": "x" * 3000},
        "no-choice": {"choices": []},
        "choices": {"choices": range(100)},
        "long-choice": {"choices": ["x" * 200]},
        "timeout": {"timeout": 0},
        "never": {"timeout": float("inf")},
        "how-many": {"how_many": 0},
        "parse": {"parse": trio.sleep},
        "of": {"of": "bob"},
    }[what]
    return str(await ctx.ask(**{"text": "?", **how}))


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("no-text", "internal_error"),
        ("long", "bad_request"),
        ("no-choice", "internal_error"),
        ("choices", "internal_error"),
        ("long-choice", "internal_error"),
        ("timeout", "internal_error"),
        ("never", "internal_error"),
        ("how-many", "internal_error"),
        ("parse", "internal_error"),
        ("of", "internal_error"),
    ],
)
async def test_a_question_that_makes_no_sense_is_never_asked(what, code):
    async with talking(odd) as talk:
        ann = talk.person("ann")
        id = await talk.call(ann, f"odd {what}")
        assert talk.reply(ann, id)["code"] == code
        assert not talk.asked(ann)


@command
async def picky(ctx: Context) -> str:
    """Judge what is answered, with a bug in it."""

    def judge(text):
        if text == "bug":
            raise KeyError("hunter2")
        if text == "exit":
            raise SystemExit(1)
        if text == "no":
            raise ValueError("not that one")
        return text.upper()

    return str(await ctx.ask("And\x07 now\x9b?", parse=judge, choices=["bug", "exit", "no", " y\u0085es "], timeout=FOR_EVER))


async def test_a_bug_in_the_judging_is_told_to_who_answered_and_the_question_stays():
    async with talking(picky) as talk:
        ann = talk.person("ann")
        id = await talk.call(ann, "picky")
        (question,) = talk.asked(ann).values()
        assert question["text"] == "And now?", "nothing that moves a cursor"
        assert question["choices"] == ["bug", "exit", "no", "y es"]
        for text in ("bug", "exit"):
            answer = await talk.answer(ann, question["question"], text)
            assert answer["code"] == "internal_error"
            assert "hunter2" not in answer["message"]
        assert (await talk.answer(ann, question["question"], "no"))["message"] == "not that one"
        assert (await talk.answer(ann, question["question"], "perhaps"))["message"] == "answer one of these: bug, exit, no, y es"
        await talk.answer(ann, question["question"], "Y ES")
        assert talk.reply(ann, id)["text"] == "Y ES"


@command
def hasty(ctx: Context) -> str:
    """Ask without being able to wait."""
    coroutine = ctx.ask("?")
    try:
        coroutine.send(None)
    finally:
        coroutine.close()
    return ""


async def test_a_command_that_cannot_wait_cannot_ask():
    async with talking(hasty) as talk:
        ann = talk.person("ann")
        id = await talk.call(ann, "hasty")
        assert talk.reply(ann, id)["code"] == "internal_error"
