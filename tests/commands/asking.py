"""Commands that ask, and what happens to those who are asked; for `tests.commands.talking`."""

import pytest
import trio

from chat import accounts
from chat.commands.arguments import User
from chat.commands.context import Context
from chat.commands.interactive import Answered, QuestionClosed, everyone
from chat.commands.registry import command
from chat.protocol import messages as m
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms import logins
from tests.rooms.house import Line

FOR_EVER = 3000
SESSIONS = {"sessions", "tokens"}
HEARD = []  # what the commands below saw; cleared for each test


@pytest.fixture(autouse=True)
def deaf():
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


@command
async def twice(ctx: Context) -> str:
    """Two questions at once."""
    got = {}

    async def one(name):
        got[name] = await ctx.ask(name, timeout=FOR_EVER)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, "left")
        nursery.start_soon(one, "right")
    return f"{got['left']} {got['right']}"


@command
async def series(ctx: Context) -> str:
    """Three answers of one person."""
    return " ".join(each.value for each in await ctx.ask("More!", how_many=3, timeout=FOR_EVER))


@command
async def hopeful(ctx: Context) -> str:
    """Ask again when somebody is gone."""
    while True:
        try:
            return str(await ctx.ask("Still there?", of=ctx.here(), timeout=FOR_EVER))
        except QuestionClosed as closed:
            HEARD.append(closed.reason)
            if closed.reason == "channel_gone":
                return "nobody is there"


ALL = (pick, dare, first, count, survey, impatient, twice, series, hopeful)


async def resume(talk, line):
    """Another connection takes the session of *line* over. *Returns* it."""
    new = Line()
    account, session = line.account, line.session
    talk.house.manager.gone(line)
    found = accounts.token_hash(line.token)
    await talk.house.tell(new, it.ResumeVerified(id=1, account=account, session=session, token_hash=found))
    await talk.settle()
    talk.house.router.finish_replay(new, {})
    logins.show_questions(talk.house.desk, new)
    return new


async def window_passes(talk, line):
    """*line* is gone, and nobody resumes its session in time."""
    talk.house.manager.gone(line)
    talk.house.now += 91
    await talk.house.manager.inbox.send((None, [it.Tick()]))
    await talk.settle()


async def carry_out(talk, *effects):
    talk.house.desk.add(fx.Action(effects=effects))
    talk.house.desk.wake()
    await talk.settle()


async def go(talk, line, how):
    """*line* leaves #lobby, is kicked or banned, or logs out."""
    state, account = talk.house.state, talk.house.account(line)
    room = state.room("lobby")
    match how:
        case "leaves":
            await talk.house.tell(line, m.Leave(id=1, channel="lobby"))
        case "is kicked":
            await carry_out(talk, fx.DropMember(room=room.id, account=account.id, reason="kicked"))
        case "is banned":
            await carry_out(
                talk,
                fx.PutBan(account=account.id, by=0, at_ms=0, until_ms=None, reason=None),
                fx.DropSessions(account=account.id),
                fx.CloseSessions(account=account.id, code="unauthorized"),
            )
        case "logs out":
            await talk.house.tell(line, m.Logout(id=1))
    await talk.settle()


WAYS = ["leaves", "is kicked", "is banned", "logs out"]
CHANGES = {"members", "records", "conversations", "bans", *SESSIONS, "audit"}
