"""Conversations: a command asks, people answer, go away, come back. After each case nothing of it is left (`talking` looks)."""

import pytest
import trio

from chat import accounts
from chat.commands.arguments import User
from chat.commands.context import Context
from chat.commands.interactive import Answered, QuestionClosed, everyone
from chat.commands.registry import command
from chat.errors import ChatError
from chat.protocol import messages as m
from chat.rooms import decisions as d
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms import logins
from chat.rooms.policy import RateLimits
from chat.rooms.rules.writing import Sanction
from tests.commands.talking import talking
from tests.rooms.house import Line
from tests.store.faults import Faults

FOR_EVER = 3000
SESSIONS = {"sessions", "tokens"}
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
