"""The pipeline itself: manager and committer as tasks, around a real SQLite file; lines in the place of connections."""

import math
import sqlite3
import threading

import pytest
import trio
import trio.testing

from chat.errors import RemoteProtocolError
from chat.protocol import messages as m
from chat.protocol import names
from chat.rooms import decisions as d
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms.policy import RateLimits
from chat.rooms.state import State
from chat.store.base import CommitFailed
from tests.rooms.house import House, Line, dump, ids, of_type, open_house, resume, send
from tests.store.faults import Faults


@pytest.fixture
def house():
    with open_house() as house:
        yield house


def room(id, name):
    names = {"name": name, "canonical": name, "skeleton": name}
    return fx.CreateRoom(room=id, epoch="abcdefgh", private=False, password_hash=None, at_ms=0, **names)


# ---------------------------------------------------------------- order


async def test_answers_keep_the_order_of_requests_and_refusals_do_not_overtake(house):
    ann, bob = house.register("ann"), house.register("bob")
    async with house.running():
        malformed = it.Malformed(error=RemoteProtocolError("bad_request", "no", id=3))
        await house.tell(
            ann,
            send(1, "one"),
            send(2, "x", channel="nowhere"),
            malformed,
            m.Members(id=4, channel="lobby"),
            m.Command(id=5, text="nonsense"),
            m.Command(id=6, text="user-count"),
            send(7, "two"),
            m.Leave(id=8, channel="lobby"),
            send(9, "three"),
        )
        told = await house.settle(ann)
        assert ids(told) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
        assert [message["type"] for message in told] == ["ack", "error", "error", "ok", "error", "result", "ack", "ok", "error"]
        assert [message["seq"] for message in told if "seq" in message] == [1, 2, 3]
        assert told[-1]["code"] == "forbidden"
        heard = bob.take()
        assert [(message["type"], message["seq"]) for message in heard] == [("message", 1), ("message", 2), ("left", 3), ("role", 4)]


async def test_requests_of_many_connections_share_a_commit_and_each_is_answered(house):
    lines = [house.register(f"user{n}") for n in range(10)]
    async with house.running():
        for n, line in enumerate(lines):
            await house.tell(line, *[send(i, f"text {n} {i}", cid=f"c{i}") for i in range(20)])
        await house.settle()
        streams = []
        for line in lines:
            told = line.take()
            assert ids(of_type(told, "ack")) == list(range(20))
            streams.append([message["seq"] for message in told])
        assert all(stream == list(range(1, 201)) for stream in streams)


# ---------------------------------------------------------------- sessions


async def test_an_old_connection_is_fenced_once_its_session_resumes(house):
    old = house.register("ann")
    session, token = old.session, old.token
    async with house.running():
        new = Line()
        await house.tell(new, resume(new, old.account, session, token))
        await house.tell(old, send(1, "too late"))
        told = await house.settle(old)
        assert told == [{"type": "replaced"}]
        assert old.ended
        assert new.replaying is not None
        assert (new.account, new.session) == (old.account, session)
        assert new.token != token
        assert house.router.finish_replay(new, {}) == []
        house.manager.gone(old)
        await house.tell(new, it.Resumed(), send(2, "here"))
        assert ids(await house.settle(new)) == [2]
        assert house.state.is_online(new.account)


def test_what_the_old_connection_asks_after_the_resume_is_not_decided(house):
    old, new = house.register("ann"), Line()
    house.decide(old, send(1, "before"))
    house.decide(new, resume(new, old.account, old.session, old.token))
    house.decide(old, send(2, "after"))
    house.commit()
    assert [(message["type"], message.get("id")) for message in old.take()] == [("ack", 1), ("replaced", None)]
    assert house.writer.load().rooms[0].last_seq == 1


async def test_who_is_fenced_while_it_waits_for_its_last_answer_does_not_wait_for_ever(house):
    """It half-closed just when its session was resumed elsewhere."""
    ann, elsewhere, reached = house.register("ann"), Line(), trio.Event()
    async with house.running():
        await house.tell(elsewhere, resume(elsewhere, ann.account, ann.session, ann.token))
        await house.tell(ann, send(1, "not decided"), it.Barrier(reached=reached.set))
        await house.settle()
        assert reached.is_set()
        assert [each["type"] for each in ann.take()] == ["replaced"]


async def test_the_second_of_two_resumes_wins(house):
    old = house.register("ann")
    house.manager.gone(old)
    async with house.running():
        first, second = Line(), Line()
        await house.tell(first, resume(first, old.account, old.session, old.token))
        await house.tell(second, resume(second, old.account, old.session, old.token))
        await house.settle()
        assert first.take() == [{"type": "replaced"}]
        assert first.replaying is None
        assert second.replaying is not None
        assert house.desk.sessions[old.session].link is second


async def test_a_token_that_went_stale_meanwhile_is_refused_and_the_session_stays(house):
    old = house.register("ann")
    async with house.running():
        first = Line()
        await house.tell(first, resume(first, old.account, old.session, old.token))
        await house.settle()
        house.router.finish_replay(first, {})
        await house.tell(first, it.Resumed())
        late = Line()
        await house.tell(late, resume(late, old.account, old.session, old.token))
        await house.settle()
        assert late.refused.code == "unauthorized"
        assert first.ended, "it was fenced when the other was decided; its client resumes again"
        again = Line()
        await house.tell(again, resume(again, old.account, old.session, first.token))
        await house.settle()
        assert again.replaying is not None


async def test_what_is_decided_after_a_revocation_is_unauthorized(house):
    here, there = house.register("ann"), house.log_in("ann")
    async with house.running():
        await house.tell(here, it.PasswordVerified(id=1, password_hash="new"), send(2, "still here"))
        await house.tell(there, send(3, "no more", cid="gone"))
        told = await house.settle(here)
        assert [message["type"] for message in told] == ["ok", "ack"]
        said = there.take()
        assert said[-1] == {"type": "closing", "code": "unauthorized"}
        assert of_type(said, "ack") == []
        assert {message["code"] for message in of_type(said, "error")} <= {"unauthorized"}, "told where it came into the same batch"
        assert there.ended
        assert not here.ended
        assert house.writer.load().rooms[0].last_seq == 1


async def test_logout_answers_then_closes_and_elsewhere_the_account_goes_on(house):
    here, there = house.register("ann"), house.log_in("ann")
    async with house.running():
        await house.tell(here, m.Logout(id=1), send(2, "no"))
        told = await house.settle(here)
        assert [(message["type"], message.get("code")) for message in told] == [
            ("ok", None),
            ("error", "unauthorized"),
            ("closing", "unauthorized"),
        ]
        assert not there.ended
        await house.tell(there, m.Logout(id=3, everywhere=True))
        await house.settle()
        assert there.ended
        assert not house.state.held
        assert not house.desk.sessions


async def test_a_ban_holds_for_every_session_at_its_place(house):
    root, bad, phone = house.owner(), house.register("bad"), house.log_in("bad")
    async with house.running():
        await house.tell(bad, send(1, "first"))
        await house.tell(root, m.Command(id=2, text="ban bad rude"))
        await house.tell(bad, send(3, "second"))
        await house.tell(phone, send(4, "third"))
        told = await house.settle(root)
        assert [(message["type"], message.get("seq")) for message in told] == [("message", 1), ("banned", 2), ("result", None)]
        assert told[1]["user"] == "bad"
        assert (told[1]["by"], told[1]["reason"]) == ("root", "rude")
        for line in (bad, phone):
            said = line.take()
            assert [message for message in said if message["type"] == "removed"] == [
                {"type": "removed", "conv": "#lobby", "reason": "banned by root: rude"}
            ]
            (notice,) = [message for message in said if message["type"] == "notice"]
            assert notice["text"] == "you were banned from this server by root (rude) until somebody lifts it; ask root"
            assert said[-1] == {"type": "closing", "code": "unauthorized"}
        late = Line()
        await house.tell(late, it.LoginVerified(id=9, account=bad.account))
        await house.settle()
        assert late.refused.code == "forbidden"
        assert "rude" in late.refused.message


def test_a_login_and_a_resume_of_a_connection_that_is_gone(house):
    ann = house.register("ann")
    house.manager.gone(ann)
    for item in (it.LoginVerified(id=1, account=ann.account), resume(ann, ann.account, ann.session, ann.token)):
        line = Line()
        house.decide(line, item)
        house.manager.gone(line)  # while it is being committed
        house.commit()
        assert line.take() == []
        assert line.replaying is None
        assert all(session.link is None for session in house.desk.sessions.values())
        assert all(not audience.links for audience in house.router.by_conv.values())
    house.tick(89)
    assert house.state.is_online(ann.account)
    house.tick(1)
    assert not house.state.is_online(ann.account)
    assert not house.desk.sessions
    house.tick(1)
    assert ann.account not in house.router.online, "nothing is kept for who is offline"


def test_a_revoked_account_is_forgotten_though_its_line_still_says_goodbye(house):
    ann, bob = house.register("ann"), house.register("bob")
    house.ask(ann, m.Logout(id=1, everywhere=True))
    house.tick()
    assert bob.take()[-1] == {"type": "presence", "users": {"ann": False}}
    assert ann.account not in house.router.online
    house.manager.gone(ann)
    assert all(ann not in audience.links for audience in house.router.by_conv.values())


def test_held_for_the_resume_window_and_then_offline(house):
    ann, bob = house.register("ann"), house.register("bob")
    house.tick()
    bob.take()
    house.manager.gone(ann)
    house.tick(89)
    assert of_type(bob.take(), "presence") == []
    assert house.state.is_online(ann.account)
    house.tick(1)
    house.tick(1)
    assert of_type(bob.take(), "presence") == [{"type": "presence", "users": {"ann": False}}]
    back = house.log_in("ann")
    house.tick(1)
    assert of_type(bob.take(), "presence") == [{"type": "presence", "users": {"ann": True}}]
    assert back.take() == []


async def test_who_goes_offline_while_nothing_can_be_stored_does_so_later(house):
    ann, bob = house.register("ann"), house.register("bob")
    faults = Faults(house.writer)

    async def tick(seconds):
        house.now += seconds
        house.now_ms += seconds * 1000
        await house.manager.inbox.send((None, [it.Tick()]))
        await house.settle()

    house.manager.gone(bob)
    async with house.running():
        faults.fail("UPDATE sessions SET online", sqlite3.SQLITE_FULL)
        await tick(100)
        assert house.state.is_online(bob.account)
        faults.heal()
        await tick(80)
        assert house.state.is_online(bob.account)
        await tick(20)
        await tick(1)
        assert not house.state.is_online(bob.account)
        assert [each["users"] for each in of_type(ann.take(), "presence")] == [{"bob": False}]
        assert bob.session not in house.desk.sessions


def test_after_a_restart_sessions_are_held_and_then_offline(house):
    ann, bob = house.register("ann"), house.register("bob")
    again = House(house.path.parent)
    assert again.state.held == house.state.held
    late = Line()
    again.decide(late, resume(late, bob.account, bob.session, bob.token))
    again.commit()
    assert again.router.finish_replay(late, {}) == []
    again.tick(90)
    again.tick(1)
    assert of_type(late.take(), "presence") == [{"type": "presence", "users": {"ann": False}}]
    assert again.state.is_online(bob.account)
    assert not again.state.is_online(ann.account)
    again.close()


def test_a_ban_with_an_end_ends(house):
    root, bad = house.owner(), house.register("bad")
    put = fx.PutBan(account=bad.account, by=root.account, at_ms=house.now_ms, until_ms=house.now_ms + 2000, reason=None)
    house.do([put])
    house.tick(1)
    assert house.state.banned
    house.tick(1)
    assert not house.state.banned
    assert not house.writer.load().bans


# ---------------------------------------------------------------- failures of the store


async def test_after_a_failed_commit_what_rests_on_it_is_refused_and_the_state_is_the_stores(house):
    ann = house.register("ann")
    faults = Faults(house.writer)
    async with house.running():
        faults.fail("COMMIT", times=1)
        garden = d.create_room(house.state, house.account(ann), names.channel_name("garden"), None, 0)
        failed = []
        bootstrap = it.Bootstrap(effects=tuple(garden), done=failed.append, failed=failed.append)
        await house.manager.inbox.send((None, [bootstrap]))
        first = send(1, "into what never was", channel="garden")
        await house.tell(ann, first, send(2, "text"), m.Members(id=3, channel="garden"))
        told = await house.settle(ann)
        assert failed[0].code == "storage_unavailable"
        assert ids(told) == [1, 2, 3]
        assert told[0]["code"] == "storage_unavailable"
        assert house.state.room("garden") is None or house.desk.generation == 0
        await house.tell(ann, send(4, "again", channel="garden"), send(5, "and on"))
        told = await house.settle(ann)
        assert [(message["type"], message.get("code")) for message in told] == [("error", "not_found"), ("ack", None)]
        assert house.desk.generation == 1
        assert dump(house.state) == dump(State.load(house.writer.load()))
        assert house.desk.sessions[ann.session].link is ann


@pytest.mark.parametrize("how", ["the lock", "the disk"])
async def test_who_joins_again_what_it_joined_by_a_commit_that_failed_is_not_told_that_it_is_in(house, how):
    """The second join changes nothing, by the state, and its `ok` is a promise all the same."""
    ann, commit, release, committing = house.register("ann"), house.writer.commit, threading.Event(), threading.Event()

    def fail(actions):
        house.writer.commit = commit
        committing.set()
        release.wait(10)
        if how == "the lock":
            raise CommitFailed("storage_unavailable", "locked", definite=True)
        house.writer.min_free_bytes, house.writer._space_checked_s = 2**62, -math.inf  # found by this very commit
        return commit(actions)

    house.writer.commit = fail
    async with house.running():
        await house.tell(ann, m.Command(id=1, text="create-channel den", cid="c1"))
        await trio.to_thread.run_sync(committing.wait, 10)
        await house.tell(
            ann, m.Join(id=2, channel="den"), m.Leave(id=3, channel="lobby"), m.Join(id=4, channel="lobby"), m.Join(id=5, channel="lobby")
        )
        await trio.testing.wait_all_tasks_blocked()
        release.set()
        told = await house.settle(ann)
        assert [(each["id"], each["type"]) for each in told] == [(n, "error") for n in range(1, 6)]
        await house.tell(ann, m.Join(id=6, channel="lobby"))
        (ok,) = await house.settle(ann)
        assert ok["type"] == "ok"


async def test_nobody_knows_what_became_of_it_and_it_goes_on(house):
    ann = house.register("ann")
    faults = Faults(house.writer)
    async with house.running():
        faults.fail("COMMIT", times=2)  # the fence's too
        await house.tell(ann, send(1, "lost?"))
        told = await house.settle(ann)
        assert told[0]["code"] == "indeterminate"
        while house.desk.generation == 0:
            await house.tell(ann, send(2, "lost?", cid="cid1"))
            told = await house.settle(ann)
        while told[0]["type"] == "error":
            assert told[0]["code"] == "storage_unavailable"
            await house.tell(ann, send(2, "lost?", cid="cid1"))
            told = await house.settle(ann)
        assert told[0]["type"] == "ack"
        assert told[0]["seq"] == 1


@pytest.mark.parametrize("how", ["a cid for two things", "a password of before"])
async def test_nobody_can_make_the_state_be_loaded_anew(house, how):
    """It costs others the texts that they have on their way."""
    ann, bob, line = house.register("ann"), house.register("bob"), Line()
    house.do(d.create_room(house.state, house.account(ann), names.channel_name("den"), None, 0))
    async with house.running():
        if how == "a cid for two things":
            await house.tell(bob, m.Command(id=1, text="join-channel den", cid="x"), send(2, "text", cid="x"))
        else:
            await house.tell(bob, it.PasswordVerified(id=1, password_hash="new"))
            login = it.LoginVerified(id=1, account=bob.account, password_hash="hash of secret", renewed_hash="renewed")
            await house.tell(line, login)
        for n in range(9):
            await house.tell(ann, send(n, "text", cid=f"c{n}"))
            await trio.lowlevel.checkpoint()
        told = await house.settle(ann)
        assert [each["type"] for each in told if each["type"] in ("ack", "error")] == ["ack"] * 9
        assert house.desk.generation == 0
        if how == "a cid for two things":
            assert {each["id"]: each.get("code") for each in bob.take() if each["type"] in ("result", "error")} == {
                1: None,
                2: "cid_conflict",
            }
            assert bob.account in house.state.room("den").members
        else:
            assert line.refused.code == "busy"
            assert house.state.online[bob.account] == 1
    assert dump(house.state) == dump(State.load(house.writer.load()))


async def test_a_full_disk_refuses_texts_and_reloads_nothing(house):
    ann = house.register("ann")
    faults = Faults(house.writer)
    async with house.running():
        faults.fail("INSERT INTO records", sqlite3.SQLITE_FULL)
        await house.tell(ann, send(1, "no"))
        await house.tell(ann, m.Command(id=2, text="user-count"))
        told = await house.settle(ann)
        assert told[0]["code"] == "storage_full"
        assert told[1]["type"] == "result"
        faults.heal()
        await house.tell(ann, send(3, "no", cid="cid1"))
        told = await house.settle(ann)
        assert told[0]["seq"] == 1
        assert "dup" not in told[0]
        assert house.desk.generation == 0


def test_what_was_stored_and_nobody_was_told_of_is_made_up_for(house):
    """A commit that was reported as indeterminate is found after all: rooms, members, texts and the end of sessions."""
    root, ann, bob = house.owner(), house.register("ann"), house.register("bob")
    phone = house.log_in("ann")
    house.command(root, "topic tea", channel="lobby")
    house.do([room(5, "old")])
    house.do([fx.PutMember(room=5, account=bob.account, role="owner", at_ms=0)])
    for line in (root, ann, bob, phone):
        line.take()
    lobby = house.state.room("lobby").id
    effects = [
        room(6, "new"),
        fx.PutMember(room=6, account=ann.account, role="owner", at_ms=0),
        fx.Append(conv=6, kind="joined", author=ann.account, body={"user": ann.account}),
        fx.DropMember(room=lobby, account=bob.account),
        fx.Append(conv=lobby, kind="message", author=ann.account, body="stored"),
        fx.DeleteRoom(room=5),
        fx.DropSession(session=phone.session, account=phone.account),
        fx.PutSession(session="x", account=bob.account, token_hash=b"x", expires_ms=9**15, client="", address="", at_ms=0),
    ]
    (outcome,) = house.writer.commit([fx.Action(effects=tuple(effects))])
    assert outcome.error is None
    house.load()
    assert [message["conv"] for message in of_type(bob.take(), "removed")] in (["#lobby", "#old"], ["#old", "#lobby"])
    assert {"type": "heads", "heads": {"#new": ["abcdefgh", 1]}} in ann.take()
    assert phone.take()[-1] == {"type": "closing", "code": "unauthorized"}
    assert house.desk.sessions["x"].gone_at == house.now
    (ack,) = house.say(ann, "new", "hello")
    assert ack["seq"] == 2
    (ack,) = house.say(root, "lobby", "hello")
    assert ack["seq"] == 3
    assert house.router.by_conv[lobby].links == {root, ann, phone}
    house.manager.gone(ann)
    back = Line()
    house.decide(back, resume(back, ann.account, ann.session, ann.token))
    house.commit()
    assert house.router.finish_replay(back, {lobby: 2}) == [lobby], "what was never routed is in no ring"
    assert house.router.finish_replay(back, {lobby: 3}) == []
    assert [message["seq"] for message in back.take()] == [3]


# ---------------------------------------------------------------- rates


def limited(**limits):
    return open_house(rates=RateLimits(**limits))


def test_sends_are_limited_told_when_and_given_back_for_retries():
    with limited(sends_burst=2, sends_per_s=1) as house:
        ann = house.register("ann")
        house.ask(ann, send(1, "a"), send(2, "b"))
        (error,) = house.ask(ann, send(3, "c"))
        assert (error["code"], error["retry_after"]) == ("rate_limited", 1.0)
        house.now += 1
        for n in range(5):  # retries cost nothing
            (ack,) = house.ask(ann, send(4 + n, "a", cid="cid1"))
            assert (ack["dup"], ack["seq"]) == (True, 1)
        (ack,) = house.ask(ann, send(9, "c", cid="cid3"))
        assert ack["type"] == "ack"
        (ack,) = house.ask(ann, send(10, "a", cid="cid1"))
        assert ack["dup"], "the look-up comes before the rate"


@pytest.mark.parametrize("where", [{"to": "nobody"}, {"to": "\u0431\u043e\u0431"}, {"channel": "nowhere"}])
def test_refused_texts_count_and_over_the_rate_nothing_is_looked_up(where, monkeypatch):
    with limited() as house:
        ann = house.register("ann")
        looked_up = []
        for look_up in ("account", "room_for"):
            really = getattr(State, look_up)
            monkeypatch.setattr(State, look_up, lambda *what, really=really: looked_up.append(what) or really(*what))
        told = house.ask(ann, *[m.Send(id=n, cid=f"c{n}", text="x", **where) for n in range(900)])
        assert [message["code"] for message in told] == ["not_found"] * 10 + ["rate_limited"] * 890
        assert len(looked_up) == 10
        assert (told[-1]["cid"], told[-1]["retry_after"]) == ("c899", 0.201)


async def test_a_retry_costs_nothing_though_it_would_be_refused_now():
    with limited(sends_burst=3, sends_per_s=0.001) as house:
        ann = house.register("ann")
        async with house.running():
            await house.tell(ann, send(1, "a"), m.Send(id=2, cid="two", to="ANN", text="b"), m.Leave(id=3, channel="lobby"))
            assert [message["type"] for message in await house.settle(ann)] == ["ack", "ack", "ok"]
            for _ in range(3):  # more than there are tokens: some of these are over the rate
                await house.tell(ann, *[send(n, "a", cid="cid1") for n in range(2)], m.Send(id=2, cid="two", to="ANN", text="b"))
                told = await house.settle(ann)
                assert [(message["dup"], message["conv"]) for message in told] == [(True, "#lobby")] * 2 + [(True, "@ann")]
            await house.tell(ann, *[m.Send(id=n, cid=f"more{n}", to="ann", text="c") for n in range(2)])
            assert [message.get("code") for message in await house.settle(ann)] == [None, "rate_limited"]


async def test_what_could_not_be_stored_does_not_count():
    with limited(sends_burst=2, sends_per_s=0.001) as house:
        ann = house.register("ann")
        faults = Faults(house.writer)
        async with house.running():
            faults.fail("COMMIT", times=1)
            await house.tell(ann, send(1, "a"), send(2, "b"))
            told = await house.settle(ann)
            assert {message["code"] for message in told} == {"storage_unavailable"}
            await house.tell(ann, send(3, "a", cid="cid1"), send(4, "b", cid="cid2"), send(5, "c"))
            told = await house.settle(ann)
            assert [message.get("code") for message in told] == [None, None, "rate_limited"]


def test_retries_of_a_known_cid_are_limited_too():
    with open_house(rates=RateLimits()) as house:
        ann = house.register("ann")
        house.ask(ann, send(0, "a", cid="one"))
        told = house.ask(ann, *[send(n, "a", cid="one") for n in range(1, 61)])
        assert [message["type"] for message in told] == ["ack"] * 50 + ["error"] * 10
        assert {message["code"] for message in told[50:]} == {"rate_limited"}
        house.now += 0.1
        told = house.ask(ann, *[send(n, "a", cid="one") for n in range(6)])
        assert [message["type"] for message in told] == ["ack"] * 5 + ["error"]


def test_commands_and_joins_are_limited():
    with limited(commands_burst=2, commands_per_s=1, joins_per_min=1) as house:
        ann = house.register("ann")
        told = house.ask(ann, *[m.Command(id=n, text="user-count") for n in range(3)])
        assert [message.get("code") for message in told] == [None, None, "rate_limited"]
        house.do([room(5, "a")])
        told = house.ask(ann, m.Join(id=1, channel="a"), m.Join(id=2, channel="a"), m.Leave(id=3, channel="a"), m.Join(id=4, channel="a"))
        assert [message.get("code") for message in told] == [None, None, None, "rate_limited"]


def test_the_rates_of_who_rests_are_forgotten():
    with limited() as house:
        ann = house.register("ann")
        house.ask(ann, send(1, "a"))
        assert house.desk.rates._accounts
        house.tick(3600)
        assert not house.desk.rates._accounts
