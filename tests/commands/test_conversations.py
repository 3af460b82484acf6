"""//questions and //cancel-question: who sees what, and who may end it."""

import trio

from chat.commands.arguments import User
from chat.commands.context import Context
from chat.commands.conversations import cancel_question, questions
from chat.commands.interactive import QuestionClosed, everyone
from chat.commands.registry import command
from chat.errors import ChatError
from chat.rooms import effects as fx
from tests.commands.talking import talking


@command
async def dare(ctx: Context, whom: User) -> str:
    """Ask somebody."""
    try:
        return str(await ctx.ask("Well, do you dare?", of=whom))
    except QuestionClosed as closed:
        return closed.reason


@command
async def survey(ctx: Context) -> str:
    """Ask everybody."""
    return (await ctx.ask("All well?", of=everyone)).value


@command
async def idle(ctx: Context) -> str:
    """Do nothing for long."""
    await trio.sleep_forever()
    return ""


ALL = (dare, survey, idle, questions, cancel_question)
MADE = {"members", "audit", "accounts"}


async def listed(talk, line, channel="lobby"):
    id = await talk.call(line, "questions", channel)
    return talk.reply(line, id)


async def told(talk, line, text, channel="lobby"):
    reply = talk.reply(line, await talk.call(line, text, channel))
    return reply.get("code") or reply["text"]


async def test_each_sees_what_concerns_them_and_the_text_only_then():
    async with talking(*ALL) as talk:
        root, ann, bob, eve = talk.house.owner(), *map(talk.person, ("ann", "bob", "eve"))
        await talk.call(ann, "dare bob")
        talk.house.now += 20
        question = talk.only(bob)
        line = f"{question}  //dare (ann in #lobby) asks bob, 100 s left"
        running = "running: //dare (ann in #lobby), for 20 s, waits for an answer"
        assert (await listed(talk, ann))["text"] == f"{line}: Well, do you dare?\n{running}"
        assert (await listed(talk, bob))["text"] == f"{line}: Well, do you dare?"
        assert (await listed(talk, eve))["text"] == "nothing is asked"
        overseen = await listed(talk, root)
        assert overseen["text"] == f"{line}\n{running}"
        assert overseen["data"]["questions"] == [{"question": question, "command": "dare", "mine": False, "left": 100}]
        assert await told(talk, ann, "cancel-question") == "took back the question of dare: Well, do you dare?"


async def test_what_runs_long_or_held_everybody_up_is_named_to_who_looks_after_the_server():
    async with talking(*ALL) as talk:
        root, ann = talk.house.owner(), talk.person("ann")
        id = await talk.call(ann, "idle")
        assert (await listed(talk, root))["text"] == "nothing is asked"
        talk.house.now += 61
        talk.questions.held_up("idle", 2.5, "idle.py:7")
        assert (await listed(talk, root))["text"].splitlines() == [
            "running: //idle (ann in #lobby), for 61 s, waits for nobody",
            "noted: idle held up everybody once, 2.5 s at worst (idle.py:7)",
        ]
        assert (await listed(talk, ann))["text"] == "nothing is asked"
        talk.questions.end_commands({"idle"}, ChatError("removed", "over"))
        await talk.settle()
        assert talk.reply(ann, id)


async def test_who_may_take_a_question_back():
    async with talking(*ALL) as talk:
        talk.touched = MADE
        root, ann, bob, eve, mod = talk.house.owner(), *map(talk.person, ("ann", "bob", "eve", "mod"))
        talk.house.do([fx.PutMember(room=talk.house.state.room("lobby").id, account=mod.account, role="moderator", at_ms=0)])
        for by in (ann, mod, root):
            id = await talk.call(ann, "dare bob")
            question = talk.only(bob)
            assert await told(talk, bob, f"cancel-question {question}") == "forbidden"
            assert await told(talk, eve, f"cancel-question {question}") == "not_found"
            assert (await told(talk, by, f"cancel-question {question}")).startswith("took back")
            assert talk.reply(ann, id)["text"] == "cancelled"
            assert talk.closed(bob)[-1] == "cancelled"
        assert await told(talk, ann, "cancel-question") == "not_found"


async def test_a_question_to_everybody_is_taken_back_by_admins_alone():
    async with talking(*ALL) as talk:
        talk.touched = MADE
        root, ann, mod = talk.house.owner(), talk.person("ann"), talk.person("mod")
        talk.house.do([fx.PutMember(room=talk.house.state.room("lobby").id, account=mod.account, role="moderator", at_ms=0)])
        id = await talk.call(ann, "survey", channel=None)
        assert await told(talk, mod, f"cancel-question {talk.only(mod)}") == "forbidden"
        assert (await told(talk, root, f"cancel-question {talk.only(root)}")).startswith("took back")
        assert talk.reply(ann, id)["code"] == "removed"
        found = talk.house.writer._db.execute("SELECT count(*) FROM audit WHERE action = 'cancel-question'").fetchone()
        assert tuple(found) == (1,)
