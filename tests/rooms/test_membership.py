import json

import pytest

from chat.protocol import messages as m
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms.policy import LISTS, SMALL_ROOM
from chat.transport.outbox import OutboxLimits
from tests.rooms.house import Line, of_type, open_house


@pytest.fixture
def house():
    with open_house() as house:
        house.ann, house.bob = house.register("ann"), house.register("bob")
        yield house


@pytest.fixture
def ann(house):
    return house.ann


@pytest.fixture
def bob(house):
    return house.bob


def room(house, name, *members, private=False):
    id = len(house.state.rooms) + 100
    names = {"name": name, "canonical": name.lower(), "skeleton": name.lower()}
    effects = [fx.CreateRoom(room=id, epoch="abcdefgh", private=private, password_hash="x" if private else None, at_ms=0, **names)]
    effects += [fx.PutMember(room=id, account=line.account, role="member" if n else "owner", at_ms=0) for n, line in enumerate(members)]
    house.do(effects)
    for line in (house.ann, house.bob):
        line.take()
    return id


def crowd(house, id, n):
    """*n* more members that nobody ever saw."""
    effects = []
    for k in range(n):
        names = {"name": f"u{k}", "canonical": f"u{k}", "skeleton": f"u{k}"}
        effects.append(fx.CreateAccount(account=10**6 + k, password_hash="x", color=None, role="member", at_ms=0, **names))
        effects.append(fx.PutMember(room=id, account=10**6 + k, role="member", at_ms=0))
    house.do(effects)


def only(messages):
    (message,) = messages
    return message


def test_a_joiners_ok_stands_in_the_place_of_the_notice(house, ann, bob):
    room(house, "Garden", bob)
    phone = house.log_in("ann")
    ok = only(house.ask(ann, m.Join(id=1, channel="garden")))
    wanted = {"type": "ok", "id": 1, "conv": "#Garden", "epoch": "abcdefgh", "seq": 1, "last_seq": 1, "topic": "", "role": "member"}
    assert ok == wanted
    assert only(bob.take())["user"] == "ann"
    assert only(phone.take())["type"] == "joined", "and its other sessions hear of it"
    again = only(house.ask(ann, m.Join(id=2, channel="#GARDEN")))
    assert again == {**{key: value for key, value in wanted.items() if key != "seq"}, "id": 2}
    ok = only(house.ask(ann, m.Leave(id=3, channel="garden")))
    assert ok == {"type": "ok", "id": 3, "conv": "#Garden", "epoch": "abcdefgh", "seq": 2}
    assert only(bob.take())["type"] == "left"
    assert only(phone.take()) == {"type": "removed", "conv": "#Garden"}
    assert only(house.ask(ann, m.Leave(id=4, channel="garden")))["code"] == "forbidden"


def test_joining_a_large_channel_is_membership_without_a_record(house, ann, bob):
    id = room(house, "big", bob)
    crowd(house, id, SMALL_ROOM - 1)
    phone = house.log_in("ann")
    bob.take()
    ok = only(house.ask(ann, m.Join(id=1, channel="big")))
    assert "seq" not in ok
    assert ok["last_seq"] == 0
    assert bob.take() == []
    assert only(phone.take()) == {"type": "heads", "heads": {"#big": ["abcdefgh", 0]}}
    house.ask(bob, m.Send(id=1, cid="c", channel="big", text="hi"))
    assert only(ann.take())["seq"] == only(phone.take())["seq"] == 1
    ok = only(house.ask(phone, m.Leave(id=1, channel="big")))
    assert "seq" not in ok
    assert only(ann.take()) == {"type": "removed", "conv": "#big"}
    assert bob.take() == []


def test_presence_is_not_told_in_a_large_channel(house, ann, bob):
    house.ask(bob, m.Leave(id=1, channel="lobby"))
    id = room(house, "big", bob, ann)
    crowd(house, id, SMALL_ROOM - 2)
    house.tick()
    ann.take()
    house.manager.gone(bob)
    house.tick(90)
    house.tick(1)
    assert of_type(ann.take(), "presence") == [{"type": "presence", "users": {"bob": False}}]
    crowd_of_one = fx.CreateAccount(account=5, name="x", canonical="x", skeleton="x", password_hash="x", color=None, role="member", at_ms=0)
    house.do([crowd_of_one, fx.PutMember(room=id, account=5, role="member", at_ms=0)])
    house.log_in("bob")
    house.tick(1)
    assert ann.take() == []


def test_the_password_of_a_private_channel_was_right(house, ann, bob):
    id = room(house, "den", bob, private=True)
    refused = only(house.ask(ann, m.Join(id=1, channel="den")))
    wrong = only(house.ask(ann, it.JoinVerified(id=1, channel="den", room=None, password_version=0)))
    older = only(house.ask(ann, it.JoinVerified(id=1, channel="den", room=id, password_version=-1)))
    gone = only(house.ask(ann, it.JoinVerified(id=1, channel="den", room=10**9, password_version=0)))
    assert refused == wrong == older == gone
    assert only(house.ask(ann, it.JoinVerified(id=1, channel="den", room=id, password_version=0)))["seq"] == 1
    assert only(house.ask(ann, m.Join(id=1, channel="den")))["role"] == "member", "who is in needs none"


@pytest.mark.parametrize(("private", "code"), [(False, "forbidden"), (True, "not_found")])
def test_who_is_no_member_may_not_leave(house, ann, bob, private, code):
    """Of a private one that it is invited to, it knows; it is no member all the same."""
    id = room(house, "den", bob, private=private)
    house.state.rooms[id].invited.add(ann.account)
    error = only(house.ask(ann, m.Leave(id=1, channel="den")))
    assert (error["type"], error["code"]) == ("error", code)


def test_members(house, ann, bob):
    house.command(bob, "color red")
    house.manager.gone(bob)
    data = only(house.ask(ann, m.Members(id=1, channel="lobby")))["data"]
    assert data == [
        {"user": "ann", "role": "owner", "color": None, "online": True},
        {"user": "bob", "role": "member", "color": house.account(bob).color, "online": True},
    ], "held for the resume window"
    house.tick(90)
    ann.take()
    assert only(house.ask(ann, m.Members(id=1, channel="lobby")))["data"][1]["online"] is False
    room(house, "garden", bob)
    assert only(house.ask(ann, m.Members(id=1, channel="garden")))["code"] == "forbidden"


def more_members(house, count):
    """So many more members of the lobby. *Returns* their names, in the order of joining."""
    lobby, told = house.state.room("lobby").id, [f"person-number-{n}" for n in range(count)]
    for account, name in enumerate(told, 100):
        names = {"name": name, "canonical": name, "skeleton": name}
        house.state.apply(fx.CreateAccount(account=account, password_hash="x", color="#aabbcc", role="member", at_ms=0, **names))
        house.state.apply(fx.PutMember(room=lobby, account=account, role="member", at_ms=0))
    return told


def listed(answer):
    return [person["user"] for person in answer["data"]]


def test_the_members_of_a_large_channel_are_told_in_parts(house, ann, bob):
    everybody = ["ann", "bob", *more_members(house, 1202)]
    first = only(house.ask(ann, m.Members(id=1, channel="lobby")))
    second = only(house.ask(ann, m.Members(id=1, channel="lobby", after=listed(first)[-1])))
    third = only(house.ask(ann, m.Members(id=1, channel="lobby", after=listed(second)[-1], limit=10**6)))
    assert listed(first) + listed(second) + listed(third) == everybody
    assert [(len(part["data"]), part["total"], part.get("more")) for part in (first, second, third)] == [
        (500, 1204, True),
        (500, 1204, True),
        (204, 1204, None),
    ]
    few = only(house.ask(ann, m.Members(id=1, channel="lobby", after="PERSON-number-7", limit=2)))
    assert (listed(few), few["more"]) == (["person-number-8", "person-number-9"], True)
    rest = only(house.ask(ann, m.Members(id=1, channel="lobby", after=everybody[-2], limit=1)))
    assert (listed(rest), rest["total"], "more" in rest) == (everybody[-1:], 1204, False)
    assert listed(only(house.ask(ann, m.Members(id=1, channel="lobby", after=everybody[-1])))) == []
    house.state.apply(fx.DropMember(room=house.state.room("lobby").id, account=bob.account))
    for gone in ("bob", "nobody"):
        assert only(house.ask(ann, m.Members(id=1, channel="lobby", after=gone)))["code"] == "not_found"


def test_of_a_small_channel_all_are_told_and_nothing_else(house, ann, bob):
    assert only(house.ask(ann, m.Members(id=1, channel="lobby"))).keys() == {"type", "id", "conv", "data"}


def test_all_lists_that_one_may_ask_for_at_once_fit_into_an_outbox(house, ann):
    more_members(house, 3000)
    told = house.ask(ann, *[m.Members(id=n, channel="lobby") for n in range(LISTS)])
    assert sum(len(json.dumps(message)) for message in told if message["type"] == "ok") < OutboxLimits().hard_bytes


def test_a_channel_deleted_in_the_same_batch(house, ann, bob):
    id = room(house, "garden", bob)
    house.decide(ann, m.Join(id=1, channel="garden"), m.Send(id=2, cid="c", channel="garden", text="hi"))
    house.decide(bob, m.Command(id=3, text="delete-channel garden"))
    house.decide(ann, m.Send(id=4, cid="d", channel="garden", text="too late"))
    house.commit()
    assert [(message["type"], message.get("seq"), message.get("code")) for message in ann.take()] == [
        ("ok", 1, None),
        ("ack", 2, None),
        ("removed", None, None),
        ("error", None, "not_found"),
    ]
    assert [message["type"] for message in bob.take()] == ["joined", "message", "removed", "result"]
    assert id not in house.router.by_conv


def test_up_to_its_removal_everything_of_the_same_batch_is_heard(house, ann, bob):
    phone = house.log_in("ann")
    house.decide(bob, m.Send(id=1, cid="a", channel="lobby", text="heard"))
    house.decide(ann, m.Leave(id=2, channel="lobby"))
    house.decide(bob, m.Send(id=3, cid="b", channel="lobby", text="not heard"))
    house.decide(ann, m.Join(id=4, channel="lobby"))
    house.commit()
    assert [(message["type"], message.get("seq")) for message in phone.take()] == [("message", 1), ("removed", None), ("joined", 5)]
    assert [(message["type"], message.get("seq")) for message in ann.take()] == [("message", 1), ("ok", 2), ("ok", 5)]
    heard = [(message["type"], message.get("seq")) for message in bob.take()]
    assert heard == [("ack", 1), ("left", 2), ("role", 3), ("ack", 4), ("joined", 5)], "who owned it is succeeded"


def test_read_markers_move_forward_and_are_the_accounts(house, ann):
    house.say(ann, "lobby", "a", cid="1")
    house.say(ann, "lobby", "b", cid="2")
    lobby = house.state.room("lobby").id

    def marker():
        (outcome,) = house.writer.commit([fx.Action(account=ann.account, conversations=True)])
        return outcome.conversations[0].read_seq

    assert only(house.ask(ann, it.ReadMark(id=1, conv=lobby, seq=2))) == {"type": "ok", "id": 1}
    assert only(house.ask(ann, it.ReadMark(id=2, conv=lobby, seq=1)))["type"] == "ok"
    assert marker() == 2


def test_a_read_marker_is_told_to_the_accounts_other_sessions_alone(house, ann, bob):
    phone, lobby = house.log_in("ann"), house.state.room("lobby").id
    for n in range(3):
        house.say(bob, "lobby", f"text {n}")
    house.ask(bob, m.Send(id=8, cid="private", to="ann", text="psst"))
    (pair,) = [conv for conv, audience in house.router.by_conv.items() if audience.pair is not None]
    for line in (ann, phone, bob):
        line.take()
    assert only(house.ask(ann, it.ReadMark(id=1, conv=lobby, seq=2)))["type"] == "ok"
    assert only(phone.take()) == {"type": "read", "conv": "#lobby", "seq": 2}
    house.ask(ann, it.ReadMark(id=2, conv=lobby, seq=1))
    assert phone.take() == [], "it does not move back"
    house.ask(phone, it.ReadMark(id=3, conv=lobby, seq=10**6))
    assert only(ann.take()) == {"type": "read", "conv": "#lobby", "seq": 3}, "not beyond the end"
    house.ask(ann, it.ReadMark(id=4, conv=pair, seq=1))
    assert only(phone.take()) == {"type": "read", "conv": "@bob", "seq": 1}
    assert bob.take() == []


def test_a_session_begins_with_the_read_markers(house, ann, bob):
    lobby = house.state.room("lobby").id
    house.say(bob, "lobby", "text")
    house.say(bob, "lobby", "text")
    tablet = Line()
    (session,) = house.ask(tablet, it.LoginVerified(id=1, account=ann.account))
    assert "read" not in session
    house.ask(ann, it.ReadMark(id=1, conv=lobby, seq=1))
    laptop = Line()
    house.decide(laptop, it.LoginVerified(id=2, account=ann.account))
    house.decide(ann, it.ReadMark(id=2, conv=lobby, seq=2))
    house.commit()
    session, moved = laptop.take()
    assert session["read"] == {"#lobby": 1}
    assert moved == {"type": "read", "conv": "#lobby", "seq": 2}
