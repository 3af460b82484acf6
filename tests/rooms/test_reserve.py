"""What goes on when the disk is nearly full: a house whose disk is low, and what is stored in it is looked up in the real file."""

import sqlite3
from contextlib import closing

import pytest

from chat.errors import ChatError
from chat.protocol import messages as m
from chat.protocol import names
from chat.rooms import decisions, reserve
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms.rules import effects as rx
from tests.rooms.house import Line, dump, of_type, open_house, resume


@pytest.fixture
def house():
    with open_house() as house:
        house.root, house.ann, house.bob = house.owner(), house.register("ann"), house.register("bob")
        house.do(decisions.create_room(house.state, house.account(house.ann), names.channel_name("garden"), None, house.now_ms))
        house.ask(house.bob, m.Join(id=1, channel="garden"))
        for line in (house.root, house.ann, house.bob):
            line.take()
        yield house


def fill(house):
    house.writer.min_free_bytes = 1 << 60


def make_room(house):
    house.writer.min_free_bytes = 0


def stored_bytes(house):
    with closing(sqlite3.connect(house.path)) as db:
        return db.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").fetchone()[0]


# ---------------------------------------------------------------- which effects


def test_every_effect_that_is_stored_is_of_one_kind():
    kinds = [reserve.GROWS, reserve.COUNTED, reserve.BOUNDED]
    assert frozenset().union(*kinds) == frozenset(fx.Stored.__args__)
    assert sum(map(len, kinds)) == len(fx.Stored.__args__)


@pytest.mark.parametrize(
    ("effect", "grows"),
    [
        (fx.Append(conv=1, kind="message", author=1, body="x"), True),
        (fx.Append(conv=1, kind="topic", author=1, body={"user": 1, "text": "x"}), True),
        (fx.Append(conv=1, kind="edited", author=1, body={}), True),
        (fx.Append(conv=1, kind="left", author=1, body={"user": 1}), False),
        (fx.Append(conv=1, kind="deleted", author=1, body={"target": 1, "by": 1}), False),
        (fx.PutPluginValue(plugin="p", key="k", value="1"), True),
        (fx.PutPluginValue(plugin="p", key="k", value=None), False),
        (rx.PutReport(by=1, target=2, room=1, at_ms=0, reason=None), True),
        (fx.DropMember(room=1, account=1), False),
        (fx.Tell(account=1, message=None), False),
    ],
)
def test_what_grows(effect, grows):
    assert reserve.grows(fx.Action(effects=(fx.DropBan(account=1), effect))) is grows


# ---------------------------------------------------------------- what people see


def test_people_come_and_go_and_nobody_writes(house):
    fill(house)
    phone = house.log_in("ann")
    assert phone.session
    back = Line()
    house.manager.gone(house.bob)
    house.decide(back, resume(back, house.bob.account, house.bob.session, house.bob.token))
    house.commit()
    assert back.account == house.bob.account
    house.bob = back
    (told,) = house.say(house.ann, "garden", "hello")
    assert (told["code"], told["message"]) == ("storage_full", reserve.NEARLY_FULL)
    assert house.ask(back, it.ReadMark(id=2, conv=house.state.room("garden").id, seq=1))[0]["type"] == "ok"
    assert house.ask(back, m.Leave(id=3, channel="garden"))[0]["type"] == "ok"
    assert house.ask(back, m.Join(id=4, channel="garden"))[0]["type"] == "ok"
    phone.take()
    assert house.ask(phone, m.Logout(id=5))[0] == {"type": "ok", "id": 5}
    make_room(house)
    (ack,) = of_type(house.say(house.ann, "garden", "hello"), "ack")
    assert ack["seq"] == 5  # two joined, one left, one joined again
    house.load()


@pytest.mark.parametrize(
    "command", ["create-channel new", "topic tea", "report bob he insults people"], ids=["a channel", "a topic", "a report"]
)
async def test_what_is_refused_leaves_no_trace(house, command):
    fill(house)
    before = dump(house.state)
    answer = await house.command_async(house.ann, command, channel="garden", cid="c1")
    assert answer["code"] == "storage_full"
    assert dump(house.state) == before
    assert not house.committer._lost > 0
    make_room(house)
    assert (await house.command_async(house.ann, command, channel="garden", cid="c1"))["type"] == "result"


def test_nobody_registers(house):
    fill(house)
    with pytest.raises(ChatError, match="nearly full"):
        house.register("cem")
    assert house.state.account("cem") is None
    make_room(house)
    assert house.register("cem").account


def test_moderation_works_and_is_on_the_record(house):
    fill(house)
    for command in ("mute bob 10m flood", "kick bob", "channel-ban bob 2d spam", "set-prefix !", "invite-only on", "filter add spam"):
        answer = house.command(house.ann, command, channel="garden")
        assert answer["type"] == "result", answer
    assert house.command(house.root, "ban bob 7d spam")["type"] == "result"
    assert house.command(house.root, "lockdown accounts")["type"] == "result"
    assert house.bob.ended
    with closing(sqlite3.connect(house.path)) as db:
        logged = [action for (action,) in db.execute("SELECT action FROM audit ORDER BY n")]
        kinds = [kind for (kind,) in db.execute("SELECT kind FROM records ORDER BY conv, seq")]
    assert logged[:3] == ["mute", "kick", "channel-ban"]
    assert "ban" in logged
    assert "left" in kinds
    assert "banned" in kinds
    before = dump(house.state)
    house.load()
    assert dump(house.state) == before


async def test_messages_are_taken_away(house):
    house.say(house.bob, "garden", "spam")
    fill(house)
    assert (await house.command_async(house.ann, "clear 1", channel="garden"))["type"] == "result"
    with closing(sqlite3.connect(house.path)) as db:
        assert db.execute("SELECT count(*) FROM records WHERE body = 'spam'").fetchone() == (0,)


def test_what_somebody_did_before_is_answered_as_it_was(house):
    (ack,) = house.say(house.ann, "garden", "hello", cid="c1")
    fill(house)
    (again,) = house.say(house.ann, "garden", "hello", cid="c1")
    assert (again["seq"], again["dup"]) == (ack["seq"], True)


def test_a_refused_text_does_not_count_against_the_rate(house):
    fill(house)
    bucket = house.desk.rates.of(house.ann.account).sends
    for _ in range(20):
        house.say(house.ann, "garden", "hello")
    assert bucket.is_full(house.now)


# ---------------------------------------------------------------- how much one may


def moderate_until_refused(house, line, cids=True):
    """Mute and unmute with long reasons. Returns how often it worked."""
    for n in range(100_000):
        command = f"mute bob {'x' * 300}" if n % 2 == 0 else "unmute bob"
        answer = house.command(line, command, channel="garden", cid=f"m{n}" if cids else None)
        if answer["type"] == "error":
            assert answer["code"] == "storage_full"
            return n
    raise AssertionError("without end")


def test_nobody_alone_eats_the_reserve(house):
    house.desk.reserve.allowance_bytes = 256 << 10
    fill(house)
    before = stored_bytes(house)
    times = moderate_until_refused(house, house.ann)
    assert 100 < times < 1000
    assert 0 < stored_bytes(house) - before < 256 << 10
    assert not house.committer._lost > 0, "the decision is refused, not lost"
    house.desk.reserve.allowance_bytes = house.desk.reserve._used[house.ann.account]
    assert house.ask(house.ann, m.Leave(id=3, channel="garden"))[0]["code"] == "storage_full"
    house.bob.take()
    assert house.ask(house.bob, m.Leave(id=3, channel="garden"))[0]["type"] == "ok", "another has an allowance of their own"
    back = Line()
    house.decide(back, resume(back, house.ann.account, house.ann.session, house.ann.token))
    house.commit()
    assert back.account == house.ann.account, "who used it up comes back all the same"
    make_room(house)
    assert house.ask(back, m.Leave(id=3, channel="garden"))[0]["type"] == "ok"
    fill(house)
    assert house.ask(back, m.Join(id=4, channel="garden"))[0]["type"] == "ok", "it begins anew"


def test_joining_and_leaving_in_a_loop_ends(house):
    house.desk.reserve.allowance_bytes = 64 << 10
    fill(house)
    before = stored_bytes(house)
    for n in range(10_000):
        answer = house.ask(house.bob, m.Leave(id=1, channel="garden") if n % 2 == 0 else m.Join(id=1, channel="garden"))[0]
        if answer["type"] == "error":
            break
    assert 50 < n < 1000
    assert stored_bytes(house) - before < 64 << 10


def test_logging_in_in_a_loop_ends(house):
    house.desk.reserve.allowance_bytes = 64 << 10
    fill(house)
    before = stored_bytes(house)
    refused = None
    while refused is None:
        line = Line("203.0.113.7")
        house.ask(line, it.LoginVerified(id=1, account=house.bob.account))
        refused = line.refused
    assert (refused.code, refused.message) == ("storage_full", reserve.USED_UP)
    assert stored_bytes(house) - before < 64 << 10


def test_the_answer_that_is_kept_with_a_cid_counts(house):
    house.desk.reserve.allowance_bytes = 64 << 10
    fill(house)
    answers = [house.command(house.bob, "help", cid=f"h{n}") for n in range(100)]
    assert answers[0]["type"] == "result"
    assert answers[-1]["code"] == "storage_full"
    assert house.command(house.bob, "help")["type"] == "result", "without one nothing is stored"


def test_the_servers_admins_and_its_shell_have_no_such_bound(house):
    house.desk.reserve.allowance_bytes = 0
    fill(house)
    assert house.command(house.ann, "kick bob", channel="garden")["code"] == "storage_full"
    assert house.command(house.root, "ban bob", cid="c1")["type"] == "result"
    ended = []
    unban = it.Administration(decide=lambda state, now_ms: [fx.DropBan(account=house.bob.account)], done=ended.append, failed=ended.append)
    house.manager._take((None, [unban]))
    house.commit()
    assert ended[0].error is None
