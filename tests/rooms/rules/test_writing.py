"""What restricts writing in a channel, at the one place where texts enter it."""

import pytest

from chat.protocol import messages as m
from chat.rooms.rules.writing import Sanction
from tests.rooms.house import open_house


@pytest.fixture
def house():
    with open_house() as house:
        house.root, house.ann, house.bob = house.owner(), house.register("Ann"), house.register("bob")
        house.lobby = house.state.room("lobby")
        yield house


def only(messages):
    (message,) = messages
    return message


def test_a_channel_without_restrictions_has_no_rules(house):
    assert house.lobby.rules is None
    house.lobby.restrict().slow_s = 5
    house.lobby.rules.slow_s = 0
    house.lobby.relax()
    assert house.lobby.rules is None


def test_slow_mode_says_how_long_to_wait_and_lets_in_after_exactly_that(house):
    house.lobby.restrict().slow_s = 30
    assert only(house.say(house.ann, "lobby", "one"))["type"] == "ack"
    house.now += 12.5
    refused = only(house.say(house.ann, "lobby", "two"))
    assert (refused["code"], refused["retry_after"]) == ("rate_limited", 17.5)
    house.bob.take()
    assert only(house.say(house.bob, "lobby", "mine"))["type"] == "ack", "each has a turn of their own"
    house.now += refused["retry_after"]
    house.ann.take()
    assert only(house.say(house.ann, "lobby", "two"))["type"] == "ack"
    house.root.take()
    for text in ("a", "b"):
        assert only(house.say(house.root, "lobby", text))["type"] == "ack", "who moderates is not slowed"


def test_a_retry_of_what_is_stored_costs_no_turn(house):
    house.lobby.restrict().slow_s = 30
    first = only(house.say(house.ann, "lobby", "one", cid="same"))
    again = only(house.say(house.ann, "lobby", "one", cid="same"))
    assert (again["type"], again["seq"], again["dup"]) == ("ack", first["seq"], True)
    house.now += 31
    assert only(house.say(house.ann, "lobby", "one", cid="same"))["dup"] is True, "this one was let through, and gives its turn back"
    assert only(house.say(house.ann, "lobby", "two"))["type"] == "ack"


def test_a_text_that_could_not_be_stored_costs_no_turn(house):
    house.lobby.restrict().slow_s = 30
    house.decide(house.ann, m.Send(id=1, cid="lost", channel="lobby", text="one"))
    (action,) = house.desk.actions
    house.desk.actions.clear()
    house.desk.refund(action)
    assert only(house.say(house.ann, "lobby", "one"))["type"] == "ack"


def test_counters_outlive_a_reload_of_the_state(house):
    house.lobby.restrict().slow_s = 30
    house.say(house.ann, "lobby", "one")
    house.lobby.rules.forget(house.now + 29)
    assert house.account(house.ann).id in house.lobby.rules.sent
    house.lobby.rules.forget(house.now + 30)
    assert not house.lobby.rules.sent


def test_announcements_are_for_moderators(house):
    house.lobby.restrict().announce_only = True
    refused = only(house.say(house.ann, "lobby", "hello?"))
    assert refused["code"] == "forbidden"
    assert "moderators" in refused["message"]
    assert only(house.say(house.root, "lobby", "hear ye"))["type"] == "ack"


def test_a_mute_binds_until_it_is_over(house):
    ann = house.account(house.ann).id
    mute = Sanction(by=house.account(house.root).id, at_ms=house.now_ms, until_ms=house.now_ms + 60_000, reason="too loud")
    house.lobby.restrict().mutes[ann] = mute
    refused = only(house.say(house.ann, "lobby", "LOUD"))
    assert refused["message"] == "you are muted in #lobby by root (too loud) for 1 min more, until 2023-11-14 22:14 UTC; ask root"
    house.now_ms += 60_000
    assert only(house.say(house.ann, "lobby", "quiet"))["type"] == "ack"
