"""The bookkeeping of open questions, by itself: what is told, what ends what, and that nothing is left in an index."""

import random
from contextlib import suppress

import pytest

from chat.errors import ChatError
from chat.protocol import messages as m
from chat.rooms import effects as fx
from chat.rooms.conversations.questions import ASKED_MAX, OPEN_MAX, RUNS_MAX, Questions
from chat.rooms.conversations.runs import Noted, Run
from chat.rooms.state import Account, Room, State

ANN, BOB, EVE = 1, 2, 3
LOBBY, DEN = 10, 11


class Floor:
    """Three people with a session each (s1, s2, s3), all in #lobby; ann and bob in #den too. ``told``: what the router would be given."""

    def __init__(self):
        self.state = State()
        for id, name in ((ANN, "ann"), (BOB, "bob"), (EVE, "eve")):
            self.state._add_account(Account(id, name, name, name, None, "member"))
            self.state.hold(f"s{id}", id)
        for id, name, members in ((LOBBY, "lobby", (ANN, BOB, EVE)), (DEN, "den", (ANN, BOB))):
            self.state._add_room(Room(id, name, name, name, "epoch" + name, "", False, None))
            for account in members:
                self.state.apply(fx.PutMember(room=id, account=account, role="member", at_ms=0))
        self.told = []
        self.settled = []
        self.woken = 0
        self.now = 100.0
        self.questions = Questions(lambda: self.state, lambda: self.now, self.told.extend, self._wake, lambda: 120.0)

    def _wake(self):
        self.woken += 1

    def run(self, account=ANN, room=LOBBY, name="quiz"):
        member = room is not None and account in self.state.rooms[room].members
        run = Run(questions=self.questions, name=name, account=account, session=f"s{account}", room=room, member=member, since=self.now)
        self.questions.start(run)
        return run

    def ask(self, run, **how):
        how = {"text": "?", "left_s": 60, "read": str, "settled": lambda: self.settled.append(1), **how}
        return self.questions.open(run, how.pop("text"), **how)

    def happen(self, *effects):
        """As `Desk.add` does it."""
        for effect in effects:
            self.state.apply(effect)
        if self.questions.live:
            self.questions.follow(effects)

    def closes(self):
        """(to whom, reason) of what was told to be over: an account, a room's number, None for everybody."""
        return [
            (effect.room if isinstance(effect, fx.TellRoom) else effect.account, effect.message.reason)
            for effect in self.told
            if isinstance(effect.message, m.QuestionClosed)
        ]

    def empty(self):
        return len(self.questions) == 0 and not self.questions._by


@pytest.fixture
def floor():
    return Floor()


def test_a_question_of_one_is_told_to_one_with_everything_that_it_is(floor):
    question = floor.ask(floor.run(), text="red or green?", account=BOB, choices=("red", "green"), left_s=30)
    (told,) = floor.told
    assert told == fx.Tell(
        account=BOB,
        message=m.Question(
            question=question.id, from_="ann", command="quiz", text="red or green?", conv="#lobby", choices=["red", "green"], expires_in=30
        ),
    )


def test_a_channels_question_is_told_to_the_channel_in_one(floor):
    floor.ask(floor.run(), room=DEN)
    (told,) = floor.told
    assert (type(told), told.room, told.message.conv) == (fx.TellRoom, DEN, "#den")


def test_who_is_asked_outside_of_the_channel_is_not_told_of_it(floor):
    floor.happen(fx.DropMember(room=LOBBY, account=BOB))
    question = floor.ask(floor.run(), account=BOB)
    assert floor.told[0].message.conv is None
    floor.happen(fx.DropMember(room=DEN, account=BOB))
    assert question.closed is None, "it rests on no channel"


def test_ids_are_easy_to_type_and_read_in_any_case(floor):
    question = floor.ask(floor.run(), account=BOB)
    assert floor.questions.get(f" {question.id.upper()} ") is question
    assert not set(question.id) & set("0o1il")


def test_the_end_of_a_run_ends_what_it_asks(floor):
    run = floor.run()
    floor.ask(run, account=BOB)
    floor.ask(run)
    floor.questions.finish(run)
    floor.questions.finish(run)
    assert floor.closes() == [(BOB, "ended"), (None, "ended")]
    assert floor.empty()
    assert not floor.questions.live


def test_a_question_is_closed_once(floor):
    run = floor.run()
    question = floor.ask(run, account=BOB)
    for reason in ("timeout", "ended", "cancelled"):
        floor.questions.close(question, reason)
    assert floor.closes() == [(BOB, "timeout")]
    assert floor.settled == [1]


def test_the_time_that_is_left_is_shown_and_only_to_whom_it_concerns(floor):
    run = floor.run()
    question = floor.ask(run, room=DEN, how_many=2)
    floor.now += 45
    assert [shown.expires_in for shown in floor.questions.shown_to(BOB)] == [15.0]
    assert floor.questions.shown_to(EVE) == []
    floor.questions.give(question, BOB, "x")
    assert floor.questions.shown_to(BOB) == []
    assert floor.questions.shown_to(ANN)


def test_one_person_has_so_many_questions_open_and_no_more(floor):
    runs = [floor.run() for _ in range(2)]
    for n in range(OPEN_MAX):
        floor.ask(runs[n % 2], account=BOB)
    with pytest.raises(ChatError) as refused:
        floor.ask(floor.run(), account=EVE)
    assert refused.value.code == "busy"
    floor.ask(floor.run(account=EVE), account=BOB)


def test_so_many_commands_of_one_person_are_at_work_and_no_more(floor):
    runs = [floor.run() for _ in range(RUNS_MAX)]
    with pytest.raises(ChatError) as refused:
        floor.run()
    assert refused.value.code == "busy"
    floor.run(BOB)
    floor.questions.finish(runs[0])
    floor.questions.finish(runs[0])
    floor.run()
    with pytest.raises(ChatError):
        floor.run()


def test_one_person_is_asked_so_much_and_no_more(floor):
    for n in range(ASKED_MAX):
        other = 100 + n
        floor.state._add_account(Account(other, f"u{n}", f"u{n}", f"u{n}", None, "member"))
        floor.state.hold(f"s{other}", other)
        floor.ask(floor.run(account=other, room=None), account=BOB)
    with pytest.raises(ChatError, match="bob is asked too much already"):
        floor.ask(floor.run(), account=BOB)
    floor.ask(floor.run(), account=EVE)


def test_an_asker_that_has_gone_before_it_asks_is_ended(floor):
    left, ended = floor.run(), floor.run(account=BOB)
    cancelled = []
    left.cancel = lambda: cancelled.append("left")
    ended.cancel = lambda: cancelled.append("ended")
    floor.happen(fx.DropMember(room=LOBBY, account=ANN), fx.SessionOffline(session="s2", account=BOB))
    assert cancelled == [], "a command that asks nothing goes on"
    assert floor.ask(left, account=EVE).closed == "asker_gone"
    assert floor.ask(ended, account=EVE).closed == "asker_gone"
    assert cancelled == ["left", "ended"]
    assert (left.ended.code, ended.ended.code) == ("removed", "unauthorized")
    assert floor.told == []


def test_a_ban_alone_and_a_session_alone_end_what_rests_on_them(floor):
    asked = ((ANN, BOB), (BOB, EVE), (EVE, BOB))
    by_ann, of_eve, of_bob = (floor.ask(floor.run(asker), account=target) for asker, target in asked)
    floor.happen(fx.DropSession(session="s1"))
    assert (by_ann.closed, of_eve.closed, of_bob.closed) == ("asker_gone", None, None)
    floor.happen(fx.PutBan(account=EVE, by=0, at_ms=0, until_ms=None, reason=None))
    assert (of_eve.closed, of_bob.closed) == ("target_gone", "asker_gone")


def test_who_asks_in_a_channel_that_it_is_not_in_can_hardly_leave_it(floor):
    run = floor.run(account=EVE, room=DEN)
    question = floor.ask(run, account=EVE)
    floor.happen(fx.DropMember(room=DEN, account=ANN))
    assert question.closed is None


def test_a_channel_that_goes_ends_the_runs_in_it_and_the_questions_to_it(floor):
    inside, outside = floor.run(room=DEN), floor.run(room=LOBBY)
    mine, its = floor.ask(inside, account=ANN), floor.ask(outside, room=DEN)
    floor.happen(fx.DeleteRoom(room=DEN))
    assert (mine.closed, its.closed) == ("channel_gone", "channel_gone")
    assert inside.ended is not None
    assert outside.ended is None


def test_a_state_that_was_loaded_anew_is_looked_through(floor):
    gone, left, stays = (floor.ask(floor.run(account=account), account=EVE) for account in (ANN, BOB, EVE))
    room_gone = floor.ask(floor.run(account=EVE), room=DEN)
    floor.state.release("s1")
    floor.state.rooms[LOBBY].members.pop(BOB)
    floor.state._drop_room(floor.state.rooms[DEN])
    floor.questions.recheck()
    assert [q.closed for q in (gone, left, stays, room_gone)] == ["asker_gone", "asker_gone", None, "channel_gone"]
    floor.state.rooms[LOBBY].members.pop(EVE)
    floor.questions.recheck()
    assert floor.empty()


def test_commands_that_were_switched_off_end_and_others_do_not(floor):
    quiz, poll = floor.run(name="quiz"), floor.run(name="poll")
    floor.ask(quiz, account=BOB)
    floor.ask(poll, account=BOB)
    floor.happen(fx.SetCommandEnabled(name="quiz", enabled=False, by=0))
    floor.happen(fx.SetCommandEnabled(name="poll", enabled=True, by=0))
    assert quiz.ended is not None
    assert poll.ended is None
    assert floor.closes() == [(BOB, "command_gone")]


def test_what_the_watchdog_saw_is_kept_for_the_worst_and_the_latest(floor):
    floor.questions.held_up("slow", 2.0, "slow.py:3")
    floor.questions.held_up("slow", 1.0, "slow.py:9")
    floor.questions.grew("slow", 300 * 2**20)
    assert str(floor.questions.noted["slow"]) == (
        "slow held up everybody 2 times, 2.0 s at worst (slow.py:9) and the memory grew by 300 MiB while it ran"
    )
    for n in range(30):
        floor.questions.held_up(f"c{n}", 1.0, "")
    assert len(floor.questions.noted) == 20
    assert "slow" not in floor.questions.noted
    assert str(Noted(name="x", times=1, worst_s=1.25)) == "x held up everybody once, 1.2 s at worst"


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_what_is_open_rests_on_what_is_there(seed):
    """Random comings and goings against the rule itself: an open question has an asker and a target that are there."""
    dice, floor = random.Random(seed), Floor()
    runs = []
    for _ in range(200):
        account, room = dice.choice((ANN, BOB, EVE)), dice.choice((LOBBY, DEN))
        state = floor.state
        match dice.randrange(9):
            case 0 | 1 | 2:
                run = dice.choice(runs) if runs and dice.random() < 0.5 else floor.run(account, dice.choice((room, None)))
                runs = [*runs, run]
                target = dice.choice(({"account": dice.choice((ANN, BOB, EVE))}, {"room": room}, {}))
                if run in floor.questions.runs and len(run.open) < 3:
                    with suppress(ChatError):  # busy
                        floor.ask(run, how_many=dice.choice((1, 2, None)), **target)
            case 3:
                floor.happen(fx.DropMember(room=room, account=account))
            case 4:
                floor.happen(fx.PutMember(room=room, account=account, role="member", at_ms=0))
            case 5:
                floor.happen(fx.SessionOffline(session=f"s{account}", account=account))
            case 6:
                back = fx.RotateToken(session=f"s{account}", account=account, token_hash=b"", expires_ms=0, address="", at_ms=0)
                floor.happen(back)
            case 7:
                for question in list(floor.questions)[:1]:
                    floor.questions.give(question, account, "x")
            case 8 if runs:
                floor.questions.finish(runs.pop(dice.randrange(len(runs))))
        state = floor.state
        for question in floor.questions:
            run = question.run
            assert run.session in state.held
            assert run.ended is None
            assert not run.member or run.account in state.rooms[run.room].members
            assert question.account is None or state.is_online(question.account)
            assert question in run.open
        for question in floor.questions:
            whole = [e for e in floor.told if e.message.question == question.id and isinstance(e.message, m.QuestionClosed)]
            assert all(isinstance(e, fx.Tell) and e.account is not None for e in whole), "an open one is over for single people at most"
    for run in list(floor.questions.runs):
        floor.questions.finish(run)
    assert floor.empty()
