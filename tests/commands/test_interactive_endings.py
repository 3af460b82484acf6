"""Questions whose people lose the connection, come back, or go: nobody waits for ever, and nothing is left."""

import pytest
import trio

from chat.errors import ChatError
from chat.protocol import messages as m
from chat.rooms import decisions as d
from chat.rooms import effects as fx
from chat.rooms import items as it
from tests.commands import asking
from tests.commands.asking import ALL, CHANGES, HEARD, SESSIONS, WAYS, carry_out, go, resume, window_passes
from tests.commands.talking import talking
from tests.rooms.house import Line
from tests.store.faults import Faults

deaf = asking.deaf  # a fixture

# ---------------------------------------------------------------- lost connections


async def test_the_askers_socket_dies_and_resumes_in_time():
    async with talking(*ALL) as talk:
        talk.touched = {*SESSIONS, "cids"}
        ann, bob = talk.person("ann"), talk.person("bob")
        await talk.call(ann, "dare bob", cid="c1")
        new = await resume(talk, ann)
        await talk.house.tell(new, m.Command(id=9, text="dare bob", channel="lobby", cid="c1"))  # what a client does after it
        await talk.answer(bob, talk.only(bob), "yes")
        assert talk.reply(new, 9)["text"] == "bob says yes"
        assert HEARD == []


async def test_the_askers_session_ends_with_its_window():
    async with talking(*ALL) as talk:
        talk.touched = SESSIONS
        ann, bob = talk.person("ann"), talk.person("bob")
        await talk.call(ann, "dare bob")
        await window_passes(talk, ann)
        assert talk.closed(bob) == ["asker_gone"]
        assert HEARD == ["cancelled by trio"]


async def test_who_asked_again_from_another_session_is_told_when_the_first_ends():
    async with talking(*ALL) as talk:
        talk.touched = SESSIONS
        ann, bob = talk.person("ann"), talk.person("bob")
        phone = talk.house.log_in("ann")
        await talk.call(ann, "dare bob", cid="c1")
        again = await talk.call(phone, "dare bob", cid="c1")
        await window_passes(talk, ann)
        assert talk.reply(phone, again)["code"] == "busy"
        id = await talk.call(phone, "dare bob", cid="c1")
        talk.touched = {*SESSIONS, "cids"}
        await talk.answer(bob, talk.only(bob), "yes")
        assert talk.reply(phone, id)["text"] == "bob says yes"


async def test_a_retry_that_comes_just_as_the_command_is_done_is_answered():
    async with talking(*ALL) as talk:
        talk.touched = {"cids"}
        ann = talk.person("ann")
        phone = talk.house.log_in("ann")
        await talk.call(ann, "pick", cid="c1")
        question = talk.only(ann)
        await talk.house.tell(ann, m.Answer(id=1, question=question, text="4"))
        for id in range(20, 24):  # one of them is between the command's end and its decision
            await talk.house.tell(phone, m.Command(id=id, text="pick", channel="lobby", cid="c1"))
            await trio.lowlevel.checkpoint()
        await talk.settle()
        assert {talk.reply(phone, id).get("text", "busy") for id in range(20, 24)} <= {"you picked 4", "busy"}


async def test_who_is_asked_loses_the_connection_and_is_asked_again_with_the_time_that_is_left():
    async with talking(*ALL) as talk:
        talk.touched = SESSIONS
        ann, bob = talk.person("ann"), talk.person("bob")
        id = await talk.call(ann, "dare bob")
        before = talk.asked(bob)[talk.only(bob)]["expires_in"]
        talk.house.now += 60
        new = await resume(talk, bob)
        (again,) = talk.asked(new).values()
        assert before - again["expires_in"] == pytest.approx(60)
        await talk.answer(new, talk.only(new), "no")
        assert talk.reply(ann, id)["text"] == "bob says no"


async def test_who_is_asked_stays_away():
    async with talking(*ALL) as talk:
        talk.touched = SESSIONS
        ann, bob = talk.person("ann"), talk.person("bob")
        id = await talk.call(ann, "dare bob")
        await window_passes(talk, bob)
        assert talk.reply(ann, id)["code"] == "not_found"
        assert "bob is gone" in talk.reply(ann, id)["message"]
        assert HEARD == ["target_gone"]


async def test_who_is_asked_is_not_online():
    async with talking(*ALL) as talk:
        talk.touched = SESSIONS
        ann, bob = talk.person("ann"), talk.person("bob")
        await window_passes(talk, bob)
        id = await talk.call(ann, "dare bob")
        assert talk.reply(ann, id)["code"] == "not_found"


async def test_one_of_two_sessions_ends_and_the_question_stays():
    async with talking(*ALL) as talk:
        talk.touched = SESSIONS
        ann, bob = talk.person("ann"), talk.person("bob")
        phone = talk.house.log_in("bob")
        id = await talk.call(ann, "dare bob")
        await window_passes(talk, bob)
        await talk.answer(phone, talk.only(phone), "yes")
        assert talk.reply(ann, id)["text"] == "bob says yes"


async def test_who_logs_in_meanwhile_is_shown_what_is_open():
    async with talking(*ALL) as talk:
        talk.touched = SESSIONS
        ann = talk.person("ann")
        await talk.call(ann, "first")
        phone = Line()
        await talk.house.tell(phone, it.LoginVerified(id=1, account=ann.account))
        await talk.settle()
        assert talk.only(phone) == talk.only(ann)
        assert [message["type"] for message in phone.outbox.messages] == ["session", "question"]
        await talk.answer(phone, talk.only(phone), "Paris")


async def test_who_joins_a_channel_meanwhile_is_asked_too():
    async with talking(*ALL, channels=("lobby",)) as talk:
        talk.touched = {"members", "records", "conversations"}
        ann, bob = talk.person("ann"), talk.person("bob")
        room = talk.house.state.room("lobby")
        talk.house.do(d.leave(talk.house.state, talk.house.account(bob), room, talk.house.now_ms))
        id = await talk.call(ann, "first")
        assert not talk.asked(bob)
        await carry_out(talk, *d.join(talk.house.state, talk.house.account(bob), room, talk.house.now_ms))
        await talk.answer(bob, talk.only(bob), "Paris")
        assert talk.reply(ann, id)["text"] == "bob: Paris"


# ---------------------------------------------------------------- people go


@pytest.mark.parametrize("how", WAYS)
async def test_the_asker(how):
    async with talking(*ALL) as talk:
        talk.touched = CHANGES
        ann, bob = talk.person("ann"), talk.person("bob")
        id = await talk.call(ann, "dare bob")
        await go(talk, ann, how)
        assert talk.closed(bob) == ["asker_gone"]
        assert HEARD == ["cancelled by trio"]
        if how in ("leaves", "is kicked"):
            assert talk.reply(ann, id)["code"] == "removed"


@pytest.mark.parametrize("how", WAYS)
async def test_who_was_asked(how):
    async with talking(*ALL) as talk:
        talk.touched = CHANGES
        ann, bob = talk.person("ann"), talk.person("bob")
        id = await talk.call(ann, "dare bob")
        await go(talk, bob, how)
        assert HEARD == ["target_gone"]
        assert talk.reply(ann, id)["code"] == "not_found"
        if how in ("leaves", "is kicked"):
            assert talk.closed(bob) == ["target_gone"]


@pytest.mark.parametrize("how", WAYS)
async def test_one_of_the_many_who_were_asked(how):
    async with talking(*ALL) as talk:
        talk.touched = CHANGES
        ann, bob, eve = map(talk.person, ("ann", "bob", "eve"))
        id = await talk.call(ann, "first")
        question = talk.only(bob)
        await go(talk, bob, how)
        if how in ("leaves", "is kicked"):
            assert talk.closed(bob) == ["target_gone"]
            assert (await talk.answer(bob, question, "Paris"))["code"] == "not_found"
        assert talk.closed(eve) == []
        await talk.answer(eve, question, "Paris")
        assert talk.reply(ann, id)["text"] == "eve: Paris"


async def test_the_channel_goes():
    async with talking(*ALL, channels=("lobby", "den")) as talk:
        talk.touched = CHANGES
        ann, bob = talk.person("ann"), talk.person("bob")
        id = await talk.call(ann, "first", channel="den")
        other = await talk.call(bob, "pick", channel="lobby")
        await carry_out(talk, fx.DeleteRoom(room=talk.house.state.room("den").id))
        assert talk.reply(ann, id)["code"] == "removed"
        assert "channel_gone" in talk.closed(bob)
        await talk.answer(bob, talk.only(bob), "1")
        assert talk.reply(bob, other)["text"] == "you picked 1"


async def test_the_command_is_switched_off():
    async with talking(*ALL) as talk:
        talk.touched = {"disabled_commands"}
        ann, bob = talk.person("ann"), talk.person("bob")
        id = await talk.call(ann, "dare bob")
        other = await talk.call(ann, "pick")
        await carry_out(talk, fx.SetCommandEnabled(name="dare", enabled=False, by=0))
        assert talk.closed(bob) == ["command_gone"]
        assert talk.reply(ann, id)["code"] == "forbidden"
        assert HEARD == ["cancelled by trio"]
        await talk.answer(ann, talk.only(ann), "3")
        assert talk.reply(ann, other)["text"] == "you picked 3"


async def test_the_command_is_loaded_anew():
    async with talking(*ALL) as talk:
        ann, bob = talk.person("ann"), talk.person("bob")
        id = await talk.call(ann, "dare bob")
        talk.questions.end_commands({"dare"}, ChatError("removed", "dare was loaded anew; give it again"))
        talk.questions.wake()
        await talk.settle()
        assert talk.closed(bob) == ["command_gone"]
        assert talk.reply(ann, id)["message"] == "dare was loaded anew; give it again"


async def test_the_server_stops():
    async with talking(*ALL) as talk:
        ann, bob = talk.person("ann"), talk.person("bob")
        id = await talk.call(ann, "dare bob")
        talk.house.manager.stop_commands(retry_after=1)
        await talk.settle()
        assert talk.closed(bob) == ["stopping"]
        assert talk.reply(ann, id)["code"] == "shutting_down"


async def test_a_commit_fails_and_the_question_goes_on():
    async with talking(*ALL) as talk:
        ann, bob, eve = map(talk.person, ("ann", "bob", "eve"))
        id = await talk.call(ann, "dare bob")
        room = talk.house.state.room("lobby")
        talk.touched = {"meta"}  # the fence
        faults = Faults(talk.house.writer)
        faults.fail("COMMIT", times=1)
        await carry_out(talk, fx.DropMember(room=room.id, account=eve.account, reason="kicked"))
        await talk.answer(bob, talk.only(bob), "perhaps")
        assert talk.house.desk.generation == 1, "the state was loaded anew"
        assert eve.account in talk.house.state.room("lobby").members
        await talk.answer(bob, talk.only(bob), "yes")
        assert talk.reply(ann, id)["text"] == "bob says yes"


async def test_the_kick_that_ends_a_question_is_not_stored_and_it_is_over_all_the_same():
    async with talking(*ALL) as talk:
        ann, bob = talk.person("ann"), talk.person("bob")
        id = await talk.call(ann, "dare bob")
        talk.touched = {"meta"}  # the fence
        faults = Faults(talk.house.writer)
        faults.fail("COMMIT", times=1)
        await go(talk, bob, "is kicked")
        assert HEARD == ["target_gone"]
        assert talk.closed(bob) == ["target_gone"]
        assert talk.reply(ann, id)["code"] == "not_found"
