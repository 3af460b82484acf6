"""Ignoring and reporting, through the desk and a real store."""

import json

import pytest

from chat.protocol import messages as m
from chat.rooms import items as it
from chat.rooms.policy import RateLimits
from chat.rooms.state import State
from tests.commands.families import refused, told, told_later
from tests.rooms.house import Line, dump, of_type, open_house


@pytest.fixture
def house():
    """root owns the server and #lobby; mod is a moderator there, ann and bob are members."""
    with open_house() as house:
        house.root, house.mod = house.owner(), house.register("mod")
        house.ann, house.bob = house.register("Ann"), house.register("bob")
        told(house, house.root, "set-user-perm mod moderator")
        for line in (house.root, house.mod, house.ann, house.bob):
            line.take()
        yield house
        assert dump(house.state) == dump(State.load(house.writer.load()))


def write(house, line, to, text="psst"):
    """The answer to a private message."""
    house.said += 1
    (answer,) = [each for each in house.ask(line, m.Send(id=8, cid=f"w{house.said}", to=to, text=text)) if each.get("id") == 8]
    return answer


def test_the_ignored_cannot_write_in_private_and_are_told_so(house):
    phone = house.log_in("ann")
    assert told(house, house.ann, "ignore @Bob") == "you ignore bob now; unignore bob ends it"
    assert of_type(phone.take(), "ignored") == [{"type": "ignored", "users": ["bob"]}], "other sessions are told"
    assert house.bob.take() == [], "the ignored are not"
    house.load()
    assert write(house, house.bob, "ann") == {
        "type": "error",
        "id": 8,
        "cid": f"w{house.said}",
        "code": "forbidden",
        "message": "Ann takes no private messages from you",
    }
    assert refused(house, house.bob, "tell Ann psst") == ("forbidden", "Ann takes no private messages from you")
    assert write(house, house.ann, "bob")["type"] == "ack", "the other way is open"
    house.say(house.bob, "lobby", "hello")
    assert of_type(house.ann.take(), "message"), "in channels it is the client that folds"
    assert told(house, house.ann, "ignored") == "bob"
    told(house, house.ann, "unignore bob")
    assert of_type(phone.take(), "ignored") == [{"type": "ignored", "users": []}]
    assert write(house, house.bob, "ann")["type"] == "ack"
    assert told(house, house.ann, "ignored") == "you ignore nobody"


def test_a_session_begins_with_whom_one_ignores(house):
    told(house, house.ann, "ignore bob")
    told(house, house.ann, "ignore mod")
    line = Line()
    house.decide(line, it.LoginVerified(id=1, account=house.ann.account))
    house.commit()
    (session,) = of_type(line.take(), "session")
    assert session["ignored"] == ["bob", "mod"]
    house.decide(other := Line(), it.LoginVerified(id=1, account=house.bob.account))
    house.commit()
    assert "ignored" not in of_type(other.take(), "session")[0]


def test_what_cannot_be_ignored(house):
    assert refused(house, house.ann, "ignore ann")[0] == "bad_request"
    assert refused(house, house.ann, "ignore nobody")[0] == "not_found"
    told(house, house.ann, "ignore bob")
    assert refused(house, house.ann, "ignore bob")[0] == "bad_request"
    assert refused(house, house.ann, "unignore mod")[0] == "bad_request"


def stored(house):
    rows = house.writer._db.execute("SELECT by, target, room, reason, around FROM reports ORDER BY id").fetchall()
    return [
        (house.state.name_of(by), house.state.name_of(target), room, reason, [text for *_, text in json.loads(around)])
        for by, target, room, reason, around in rows
    ]


def test_a_report_reaches_who_moderates_with_what_was_said(house):
    for n in range(25):
        house.say(house.bob, "lobby", f"rude {n}")
    for line in (house.root, house.mod, house.ann, house.bob):
        line.take()
    told(house, house.ann, "report bob he  is rude")
    lobby = house.state.room("lobby").id
    assert stored(house) == [("Ann", "bob", lobby, "he is rude", [f"rude {n}" for n in range(5, 25)])]
    for line in (house.root, house.mod):
        (notice,) = of_type(line.take(), "notice")
        assert notice["text"] == "Ann reports bob in #lobby: he is rude; the command reports shows what was said"
        assert notice["level"] == "warning"
    assert house.bob.take() == [], "the reported does not learn of it"
    told(house, house.ann, "report mod")
    assert of_type(house.mod.take(), "notice") == [], "nor a moderator of a report about itself"


def test_a_report_of_texts_that_are_being_stored_has_them(house):
    """In one transaction: what was said just before the report is in it."""
    house.decide(house.bob, m.Send(id=1, cid="x", channel="lobby", text="just now"))
    house.decide(house.ann, m.Command(id=2, text="report bob", channel="lobby"))
    house.commit()
    assert stored(house)[0][4] == ["just now"]


def test_outside_of_a_channel_it_is_about_the_private_conversation(house):
    write(house, house.bob, "ann", "mean")
    write(house, house.bob, "mod", "none of ann's business")
    for line in (house.root, house.mod):
        line.take()
    assert told(house, house.ann, "report bob", None) == "reported to the server's admins"
    assert stored(house) == [("Ann", "bob", None, None, ["mean"])]
    assert of_type(house.root.take(), "notice")
    assert of_type(house.mod.take(), "notice") == [], "a channel's moderator has no part in it"


async def test_what_cannot_be_reported(house):
    assert refused(house, house.ann, "report ann")[0] == "bad_request"
    assert refused(house, house.ann, "report nobody")[0] == "not_found"
    await told_later(house, house.mod, "create-channel garden")
    assert refused(house, house.ann, "report mod", "garden")[0] == "forbidden", "one reports what one has seen"
    assert stored(house) == []


def test_reports_are_rationed():
    with open_house(rates=RateLimits()) as house:
        ann, _ = house.register("ann"), house.register("bob")
        answers = [house.command(ann, "report bob", "lobby") for _ in range(7)]
        assert [answer["type"] for answer in answers] == ["result"] * 6 + ["error"]
        assert (answers[-1]["code"], answers[-1]["retry_after"] > 0) == ("rate_limited", True)


def told_of(house, line, text="reports", channel=None):
    return house.command_async(line, text, channel)


async def test_reports_are_read_by_who_moderates_and_not_by_whom_they_are_about(house):
    house.say(house.bob, "lobby", "rude")
    told(house, house.ann, "report bob he is rude")
    told(house, house.ann, "report mod too strict")
    told(house, house.ann, "report bob", None)
    answer = await told_of(house, house.root)
    assert [(each["user"], each["where"], each["reason"]) for each in answer["data"]] == [
        ("bob", "in private", None),
        ("mod", "in #lobby", "too strict"),
        ("bob", "in #lobby", "he is rude"),
    ]
    (said,) = house.writer._db.execute("SELECT max(seq) FROM records WHERE body = 'rude'").fetchone()
    assert answer["data"][-1]["messages"] == [{"seq": said, "ts": house.now_ms, "from": "bob", "text": "rude"}]
    assert "Ann reports bob in #lobby: he is rude\n    bob: rude" in answer["text"]
    answer = await told_of(house, house.mod, channel="lobby")
    assert [each["user"] for each in answer["data"]] == ["bob"], "of the own channel, and not about oneself"
    assert (await told_of(house, house.bob, channel="lobby"))["code"] == "forbidden"
    assert (await told_of(house, house.mod, "close-report 2", "lobby"))["code"] == "not_found"
    assert (await told_of(house, house.mod, "close-report 1", "lobby"))["text"] == "report 1 is closed"
    assert (await told_of(house, house.mod, channel="lobby"))["text"] == "nothing was reported"
    assert [each["report"] for each in (await told_of(house, house.root))["data"]] == [3, 2]


async def test_an_admin_learns_of_a_report_in_a_private_channel_and_not_its_name(house):
    await told_later(house, house.bob, 'create-channel den "sesame or not"')
    await told_later(house, house.ann, 'join-channel den "sesame or not"', None)
    house.root.take()
    house.say(house.bob, "den", "mean")
    told(house, house.ann, "report bob", "den")
    (notice,) = of_type(house.root.take(), "notice")
    assert notice["text"].startswith("Ann reports bob in a private channel;")
    (report,) = (await told_of(house, house.root))["data"]
    assert (report["where"], [each["text"] for each in report["messages"]]) == ("in a private channel", ["mean"])
