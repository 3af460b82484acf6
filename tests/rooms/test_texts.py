"""Texts through the desk: addresses, retries, refusals; and the order in which a private conversation is named."""

import pytest

from chat.errors import RemoteProtocolError
from chat.protocol import messages as m
from chat.protocol import names
from chat.rooms import decisions as d
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms.texts import command_digest
from tests.rooms.house import Line, of_type, open_house


@pytest.fixture
def house():
    with open_house() as house:
        house.root, house.ann, house.bob = house.owner(), house.register("Ann"), house.register("bob")
        yield house


@pytest.fixture
def ann(house):
    return house.ann


@pytest.fixture
def bob(house):
    return house.bob


def send(text="hi", channel=None, to=None, cid="c", id=1, reply_to=None):
    return m.Send(id=id, cid=cid, text=text, channel=channel, to=to, reply_to=reply_to)


def only(messages):
    (message,) = messages
    return message


def test_the_ack_stands_for_the_notice_and_all_other_sessions_get_it(house, ann, bob):
    phone = house.log_in("ann")
    ack = only(house.ask(ann, send(channel="LOBBY")))
    assert ack == {"type": "ack", "id": 1, "cid": "c", "conv": "#lobby", "epoch": ack["epoch"], "seq": 1, "ts": house.now_ms}
    notice = {"type": "message", "conv": "#lobby", "epoch": ack["epoch"], "seq": 1, "ts": house.now_ms, "from": "Ann", "text": "hi"}
    assert only(bob.take()) == notice
    assert only(phone.take()) == notice, "the sender's other session too, without the cid"


def test_a_private_conversation_is_named_by_the_other(house, ann, bob):
    phone = house.log_in("bob")
    assert only(house.ask(ann, send(to="BOB")))["conv"] == "@bob"
    for line in (bob, phone):
        assert only(line.take())["conv"] == "@Ann"
    assert only(house.ask(bob, send("yes", to="ann")))["seq"] == 2
    assert (said := only(ann.take()))["conv"] == "@bob"
    assert said["from"] == "bob"
    assert only(phone.take())["conv"] == "@Ann"
    assert only(house.root.take() or [{}]) == {}


def test_notes_to_oneself(house, ann, bob):
    phone = house.log_in("ann")
    assert only(house.ask(ann, send(to="ann")))["conv"] == "@Ann"
    assert only(phone.take())["conv"] == "@Ann"
    assert bob.take() == []


def test_who_is_offline_gets_it_at_the_next_login(house, ann, bob):
    house.manager.gone(bob)
    house.tick(90)
    house.tick(1)
    house.ask(ann, send(to="bob"))
    line = Line()
    house.decide(line, it.LoginVerified(id=1, account=bob.account))
    house.commit()
    assert only(line.take())["heads"]["@Ann"][1] == 1
    house.ask(ann, send("more", to="bob", cid="d"))
    assert only(line.take())["seq"] == 2


@pytest.mark.parametrize(
    ("written", "stored"), [("\\//x", "//x"), ("\\\\//x", "\\\\//x"), ("/x", "/x"), (" //x", " //x"), ("\\/x", "\\/x")]
)
def test_what_looks_like_a_command_and_is_none(house, ann, bob, written, stored):
    house.ask(ann, send(written, channel="lobby"))
    assert only(bob.take())["text"] == stored


def test_refusals_carry_the_cid_and_store_nothing(house, ann, bob):
    house.command(bob, "leave-channel", "lobby")
    ann.take()
    for request, code in [
        (send(channel="nowhere"), "not_found"),
        (send(to="nobody"), "not_found"),
        (send(channel="lobby"), "forbidden"),
        (send(to="root", reply_to=99), "bad_request"),
        (send(to="ann", reply_to=1), "bad_request"),
    ]:
        error = only(house.ask(bob, request))
        assert (error["type"], error["code"], error["id"], error["cid"]) == ("error", code, 1, "c")
    assert ann.take() == []
    assert only(house.ask(bob, send(to="ann")))["seq"] == 1, "the cid of what was refused is free"


def test_absent_and_private_channels_are_told_alike(house, ann, bob):
    house.do(d.create_room(house.state, house.account(ann), names.channel_name("den"), "hash", 0))
    ann.take()
    for request in (
        lambda name: send(channel=name),
        lambda name: m.Join(id=1, channel=name),
        lambda name: m.Leave(id=1, channel=name),
        lambda name: m.Members(id=1, channel=name),
        lambda name: m.Commands(id=1, channel=name),
        lambda name: m.Command(id=1, channel=name, text="users"),
        lambda name: it.JoinVerified(id=1, channel=name, room=None, password_version=0),
    ):
        hidden, absent = only(house.ask(bob, request("den"))), only(house.ask(bob, request("ned")))
        assert hidden["code"] == "not_found"
        assert hidden == {**absent, "message": absent["message"].replace("ned", "den")}


def test_a_retry_gets_the_first_ack_again_wherever_it_comes_from(house, ann, bob):
    first = only(house.ask(ann, send(channel="lobby")))
    bob.take()
    phone = house.log_in("ann")
    for line, request in ((ann, send(channel="lobby", id=2)), (phone, send(channel="lobby", id=2))):
        assert only(house.ask(line, request)) == {**first, "id": 2, "dup": True}
    assert bob.take() == []
    told = house.ask(ann, send(channel="lobby", cid="twice"), send(channel="lobby", cid="twice", id=5))
    assert [(message["id"], message.get("dup")) for message in told] == [(1, None), (5, True)]
    assert len(bob.take()) == 1


def test_other_content_with_the_same_cid_is_a_conflict(house, ann, bob):
    house.ask(ann, send(channel="lobby"))
    bob.take()
    for request in (send("other", channel="lobby"), send(to="bob"), send("//users", channel="lobby"), send(channel="nowhere")):
        error = only(house.ask(ann, request))
        assert (error["code"], error["cid"]) == ("cid_conflict", "c")
    assert bob.take() == []
    assert only(house.ask(bob, send(channel="lobby")))["seq"] == 2, "the cid of another account is another"


def test_the_look_up_comes_before_permission(house, ann):
    """Whatever became of the channel and of the membership: what was stored was stored."""
    ack = only(house.ask(ann, send(channel="Lobby")))
    house.ask(ann, m.Leave(id=9, channel="lobby"))
    assert only(house.ask(ann, send(channel="Lobby")))["dup"]
    house.do([fx.DeleteRoom(room=house.state.room("lobby").id)])
    again = only(house.ask(ann, send(channel="Lobby")))
    assert (again["dup"], again["seq"], again["epoch"]) == (True, ack["seq"], ack["epoch"])


def test_a_command_and_the_text_that_it_is_typed_as_have_one_digest(house):
    typed = m.Send(id=1, cid="c", channel="lobby", text="//topic tea")
    asked = m.Command(id=1, cid="c", channel="lobby", text="topic tea")
    assert command_digest(house.desk, 0, typed) == command_digest(house.desk, 0, asked)
    other = m.Command(id=1, cid="c", channel="garden", text="topic tea")
    assert command_digest(house.desk, 0, other) != command_digest(house.desk, 0, asked)


def test_a_command_with_a_cid_is_answered_once_and_for_all(house, ann):
    one = only(house.ask(ann, m.Command(id=1, cid="k", text="user-count")))
    retry = it.Retry(id=2, cid="k", digest=command_digest(house.desk, 0, m.Command(id=1, cid="k", text="user-count")))
    house.log_in("bob")
    assert only(house.ask(ann, retry)) == {**one, "id": 2, "dup": True}
    forgotten = it.Retry(id=3, cid="never", digest=b"x")
    assert only(house.ask(ann, forgotten))["code"] == "busy"


def test_malformed_frames_are_answered_at_their_place(house, ann):
    bad = it.Malformed(error=RemoteProtocolError("bad_request", "no", id=None, cid=None))
    told = house.ask(ann, send(channel="lobby"), bad, send("2", channel="lobby", cid="d", id=2))
    assert [message["type"] for message in told] == ["ack", "error", "ack"]
    assert "id" not in told[1]


def test_an_answer_to_no_question(house, ann):
    assert only(house.ask(ann, m.Answer(id=1, question="q", text="x")))["code"] == "not_found"


def test_commands_lists_what_one_may_use(house, ann):
    there = only(house.ask(ann, m.Commands(id=1, channel="lobby")))["data"]
    anywhere = only(house.ask(ann, m.Commands(id=1)))["data"]
    assert {"topic", "leave-channel"} == {spec["name"] for spec in there} - {spec["name"] for spec in anywhere}
    assert "ban" not in {spec["name"] for spec in there}


def test_one_flush_for_a_batch(house, ann, bob):
    before = house.flushes
    house.ask(ann, *[send(str(n), channel="lobby", cid=f"c{n}") for n in range(50)])
    assert house.flushes == before + 1
    assert [message["seq"] for message in of_type(bob.take(), "message")] == list(range(1, 51))
