"""Commands in the pipeline: those that wait, that come twice, that end with their session, and those with a bug."""

from contextlib import asynccontextmanager

import pytest
import trio

from chat.commands.context import Answer, Context, Surroundings
from chat.commands.dispatch import RIGHTS, Dispatcher
from chat.commands.plugins import Plugins
from chat.commands.registry import Registry, command
from chat.errors import ChatError
from chat.protocol import messages as m
from chat.rooms import decisions as d
from chat.rooms import items as it
from chat.rooms.texts import command_digest
from tests.rooms.house import Line, ids, open_house, resume, send
from tests.store.faults import Faults


class Gated:
    """Commands that wait, and commands with a bug."""

    def __init__(self, passwords=None):
        self.entered = trio.Event()
        self.gate = trio.Event()
        self.runs = 0
        self.decided = 0

        @command
        async def slow(ctx: Context, text: str = "") -> object:
            """Wait."""
            self.runs += 1
            self.entered.set()
            await self.gate.wait()

            def decide(ctx: Context) -> Answer:
                self.decided += 1
                ctx.do(d.set_color(ctx.state, ctx.account, "#ff0000"))
                if text == "bug":
                    raise RuntimeError("hunter2")
                return Answer(f"done {self.decided}")

            return decide

        @command
        async def broken(ctx: Context) -> str:
            """Fail while waiting."""
            await trio.lowlevel.checkpoint()
            raise RuntimeError("hunter2")

        @command
        def buggy(ctx: Context) -> str:
            """Fail at once, with a change half made."""
            ctx.do(d.set_color(ctx.state, ctx.account, "#00ff00"))
            raise KeyError("hunter2")

        @command
        async def refusing(ctx: Context) -> str:
            """Refuse."""
            raise ChatError("quota_exceeded", "enough")

        @command
        def red(ctx: Context) -> str:
            """Change something."""
            self.decided += 1
            ctx.do(d.set_color(ctx.state, ctx.account, "#ff0000"))
            return f"red {self.decided}"

        registry = Registry([slow, broken, buggy, refusing, red], rights=RIGHTS)
        self.dispatcher = Dispatcher(Surroundings(plugins=Plugins(registry), passwords=passwords, prefix="//", default_channels=()))


@asynccontextmanager
async def gated():
    commands = Gated()
    with open_house(commands=commands.dispatcher) as house:
        async with house.running():
            yield commands, house


async def until_answered(house, line, id):
    told = []
    while id not in ids(told):
        told += await house.settle(line)
    return [message for message in told if message.get("id") == id]


async def test_a_waiting_command_holds_up_nobody_and_is_answered_when_it_is_done():
    async with gated() as (commands, house):
        ann = house.register("ann")
        await house.tell(ann, m.Command(id=1, text="slow"), send(2, "meanwhile"))
        assert ids(await house.settle(ann)) == [2]
        assert ann.commands == 1
        commands.gate.set()
        (answer,) = await until_answered(house, ann, 1)
        assert answer == {"type": "result", "id": 1, "text": "done 1"}
        assert ann.commands == 0
        assert house.account(ann).color == "#ff0000"


async def test_a_retry_while_it_runs_is_answered_with_it_and_afterwards_gets_the_first_result():
    async with gated() as (commands, house):
        ann = house.register("ann")
        phone = house.log_in("ann")
        ask = m.Command(id=1, cid="once", text="slow")
        await house.tell(ann, ask)
        await commands.entered.wait()
        await house.tell(phone, m.Command(id=2, cid="once", text="slow"))
        await house.tell(phone, m.Command(id=6, cid="once", text="slow, but another"))
        (conflict,) = await house.settle(phone)
        assert (conflict["id"], conflict["code"]) == (6, "cid_conflict")
        assert phone.commands == 1, "its connection is not closed before this is answered"
        commands.gate.set()
        (answer,) = await until_answered(house, ann, 1)
        assert phone.take() == [{"type": "result", "id": 2, "dup": True, "text": answer["text"]}]
        assert (ann.commands, phone.commands) == (0, 0)
        # the connection did not find it in the store a moment ago; or it did
        digest = command_digest(house.desk, ann.account, ask)
        await house.tell(phone, m.Command(id=3, cid="once", text="slow"), it.Retry(id=4, cid="once", digest=digest))
        told = await house.settle(phone)
        assert told == [
            {"type": "result", "id": 3, "dup": True, "text": answer["text"]},
            {"type": "result", "id": 4, "dup": True, "text": answer["text"]},
        ]
        await house.tell(phone, m.Command(id=5, cid="once", text="slow other"))
        (conflict,) = await house.settle(phone)
        assert conflict["code"] == "cid_conflict"
        assert (commands.runs, commands.decided) == (1, 1)
        assert house.desk.generation == 0
        assert not house.desk.calling


async def test_a_command_sent_twice_at_once_is_decided_once():
    async with gated() as (commands, house):
        ann = house.register("ann")
        await house.tell(ann, m.Command(id=1, cid="once", text="red"), m.Command(id=2, cid="once", text="red"))
        told = await house.settle(ann)
        assert told == [{"type": "result", "id": 1, "text": "red 1"}, {"type": "result", "id": 2, "dup": True, "text": "red 1"}]
        assert commands.decided == 1
        await house.tell(ann, send(3, "text", cid="text"), m.Command(id=4, cid="text", text="red"))
        told = await house.settle(ann)
        assert [(message["type"], message.get("code")) for message in told] == [("ack", None), ("error", "cid_conflict")]
        assert commands.decided == 1
        assert house.desk.generation == 0, "nobody can make the server load its state anew by using a cid twice"


async def test_a_command_that_was_not_stored_is_decided_again():
    async with gated() as (_, house):
        ann = house.register("ann")
        faults = Faults(house.writer)
        faults.fail("COMMIT", times=1)
        await house.tell(ann, m.Command(id=1, cid="once", text="red"))
        (error,) = await house.settle(ann)
        assert error["code"] == "storage_unavailable"
        assert house.account(ann).color == "#ff0000" or house.desk.generation == 1
        await house.tell(ann, m.Command(id=2, cid="once", text="red"))
        (result,) = await house.settle(ann)
        assert result == {"type": "result", "id": 2, "text": "red 2"}


@pytest.mark.parametrize("how", ["logout", "window"])
async def test_a_running_command_ends_with_its_session(how):
    async with gated() as (commands, house):
        ann = house.register("ann")
        await house.tell(ann, m.Command(id=1, cid="once", text="slow"))
        await commands.entered.wait()
        if how == "logout":
            await house.tell(ann, m.Logout(id=2))
        else:
            house.manager.gone(ann)
            house.now += 90
            await house.manager.inbox.send((None, [it.Tick()]))
        await house.settle()
        await trio.testing.wait_all_tasks_blocked()
        assert ann.commands == 0
        assert not house.desk.calling
        commands.gate.set()
        await house.settle()
        assert commands.decided == 0
        assert 1 not in ids(ann.take())


async def test_a_running_command_goes_on_with_its_session_over_another_connection():
    async with gated() as (commands, house):
        old, new = house.register("ann"), Line()
        await house.tell(old, m.Command(id=1, cid="once", text="slow"))
        await commands.entered.wait()
        await house.tell(new, resume(new, old.account, old.session, old.token))
        await house.settle()
        house.manager.gone(old)
        house.router.finish_replay(new, {})
        commands.gate.set()
        while house.desk.calling or not commands.decided:
            await house.settle()
        await house.tell(new, m.Command(id=1, cid="once", text="slow"))
        (answer,) = await house.settle(new)
        assert answer == {"type": "result", "id": 1, "dup": True, "text": "done 1"}
        assert ids(old.take()) == []
        assert commands.runs == 1


@pytest.mark.parametrize("text", ["buggy", "broken", "slow bug"])
async def test_a_commands_bug_is_its_own(text):
    async with gated() as (commands, house):
        ann, bob = house.register("ann"), house.register("bob")
        commands.gate.set()
        await house.tell(ann, m.Command(id=1, text=text))
        await house.tell(bob, send(2, "all well"))
        (error,) = await until_answered(house, ann, 1)
        assert error["code"] == "internal_error"
        assert "hunter2" not in error["message"]
        (ack,) = bob.take()
        assert ack["type"] == "ack"
        assert house.account(ann).color is None
        assert house.desk.generation == 0
        await house.tell(ann, m.Command(id=3, text="red"))
        (result,) = await until_answered(house, ann, 3)
        assert result["text"].startswith("red")


async def test_a_refusal_of_a_waiting_command_is_told():
    async with gated() as (_, house):
        ann = house.register("ann")
        await house.tell(ann, m.Command(id=1, cid="c", text="refusing"))
        (error,) = await until_answered(house, ann, 1)
        assert (error["code"], error["message"], error["cid"]) == ("quota_exceeded", "enough", "c")


async def test_shutdown_ends_running_commands():
    with trio.fail_after(5):
        async with gated() as (commands, house):
            ann = house.register("ann")
            await house.tell(ann, m.Command(id=1, cid="once", text="slow"))
            await commands.entered.wait()
    assert ann.commands == 0
    assert commands.decided == 0


async def test_a_command_that_is_done_when_the_inbox_has_closed_harms_nobody():
    with trio.fail_after(5):
        async with gated() as (commands, house):
            ann = house.register("ann")
            await house.tell(ann, m.Command(id=1, cid="once", text="slow"))
            await commands.entered.wait()
            commands.gate.set()
            await house.manager.inbox.aclose()
    assert ann.commands == 0
