"""Commands switched off and on, in a channel and everywhere, and what they begin with."""

import pytest
import trio

from chat.commands.context import Context
from chat.commands.moderation import disable_command
from chat.commands.registry import command
from chat.protocol import messages as m
from chat.rooms import items as it
from chat.rooms import logins
from chat.rooms.state import State
from chat.rooms.texts import command_digest
from tests.commands.talking import talking
from tests.rooms.house import dump, of_type, open_house


@pytest.fixture
def house():
    """root owns the server, Ann moderates #lobby; bob is a member."""
    with open_house(channels=("lobby", "attic")) as house:
        house.root, house.ann, house.bob = house.owner(), house.register("Ann"), house.register("bob")
        house.command(house.root, "set-user-perm ann moderator", "lobby")
        for line in (house.root, house.ann, house.bob):
            line.take()
        yield house
        assert dump(house.state) == dump(State.load(house.writer.load()))


def told(house, line, text, channel="lobby", **more):
    answer = house.command(line, text, channel, **more)
    return answer.get("text") or (answer["code"], answer["message"])


# ---------------------------------------------------------------- on and off


def test_a_moderator_switches_a_command_off_in_the_channel_only(house):
    assert told(house, house.ann, "disable-command users") == "users is off in #lobby"
    for line in (house.root, house.ann, house.bob):
        code, message = told(house, line, "users")
        assert (code, message.partition(";")[0]) == ("forbidden", "users is switched off in #lobby (enable-command users here)")
    assert "online" in told(house, house.bob, "users", "attic")
    assert "online" in told(house, house.bob, "users", None)
    house.load()
    assert told(house, house.bob, "users")[0] == "forbidden"
    assert told(house, house.ann, "disable-command users here")[0] == "bad_request"
    assert told(house, house.ann, "enable-command users") == "users is on in #lobby"
    assert "online" in told(house, house.bob, "users")
    assert [row[0] for row in house.writer._db.execute("SELECT action FROM audit ORDER BY n")][-2:] == ["disable-command", "enable-command"]


def test_an_admin_switches_off_everywhere_unless_they_say_here(house):
    assert told(house, house.root, "disable-command users") == "users is off"
    assert told(house, house.bob, "users", "attic")[0] == "forbidden"
    assert told(house, house.root, "enable-command users everywhere") == "users is on"
    assert told(house, house.root, "disable-command users here") == "users is off in #lobby"
    assert "online" in told(house, house.bob, "users", "attic")
    assert told(house, house.root, "disable-command channels here", None) == ("bad_request", "say this in a channel")


def test_who_may_not(house):
    assert told(house, house.bob, "disable-command users")[0] == "forbidden"
    assert told(house, house.ann, "disable-command users", "attic")[0] == "forbidden"
    assert told(house, house.ann, "disable-command users everywhere")[0] == "forbidden"
    assert told(house, house.ann, "disable-command help") == ("forbidden", "help cannot be switched off")


def test_what_is_switched_off_is_not_listed_there(house):
    def listed(channel):
        told = house.ask(house.bob, m.Commands(id=1, channel=channel))
        return [spec["name"] for spec in told[-1]["data"]]

    house.command(house.ann, "disable-command users", "lobby")
    assert "users" not in listed("lobby")
    assert "users" in listed("attic")
    assert "users" in listed(None)
    assert "topic" in listed("lobby")
    assert "topic" not in listed(None), "it works in channels only"
    assert "set-prefix" not in listed("lobby"), "it is for moderators"


async def test_whoever_is_in_the_middle_of_it_is_told():
    @command
    async def ask(ctx: Context) -> str:
        """Ask."""
        return await ctx.ask("well?")

    async with talking(ask, disable_command) as talk:
        talk.touched |= {"room_disabled_commands", "audit"}
        root, ann = talk.house.owner(), talk.person("ann")
        asked = await talk.call(ann, "ask")
        elsewhere = await talk.call(ann, "ask", channel=None)
        await talk.call(root, "disable-command ask here")
        assert talk.reply(ann, asked)["message"] == "ask was switched off here"
        assert talk.reply(ann, elsewhere) is None
        await talk.answer(ann, talk.only(ann), "yes")
        await trio.testing.wait_all_tasks_blocked()
        assert talk.reply(ann, elsewhere)["text"] == "yes"


# ---------------------------------------------------------------- the prefix


def test_a_channel_has_a_prefix_of_its_own(house):
    (changed,) = of_type(house.ask(house.ann, m.Command(id=1, text="set-prefix !", channel="lobby")), "channel")
    assert changed == {"type": "channel", "conv": "#lobby", "prefix": "!"}
    assert of_type(house.bob.take(), "channel") == [changed]
    assert house.say(house.bob, "lobby", "!user-count")[-1]["type"] == "result"
    assert house.say(house.bob, "lobby", "//user-count")[-1]["type"] == "ack"
    assert house.say(house.bob, "lobby", "\\!not a command")[-1]["type"] == "ack"
    assert [message["text"] for message in of_type(house.ann.take(), "message")] == ["//user-count", "!not a command"]
    assert house.say(house.bob, "attic", "//user-count")[-1]["type"] == "result"
    assert house.say(house.bob, "attic", "!user-count")[-1]["type"] == "ack"
    assert house.command(house.bob, "!user-count", "lobby")["type"] == "result"
    assert house.command(house.bob, "help help", "lobby")["text"].startswith("!help")
    house.load()
    assert house.say(house.bob, "lobby", "!user-count")[-1]["type"] == "result"
    assert told(house, house.ann, "set-prefix !") == "commands in #lobby begin with ! (as before)"
    (changed,) = of_type(house.ask(house.ann, m.Command(id=1, text="set-prefix", channel="lobby")), "channel")
    assert changed == {"type": "channel", "conv": "#lobby"}
    assert house.say(house.bob, "lobby", "//user-count")[-1]["type"] == "result"
    assert house.state.prefixes == ()


async def test_it_goes_with_its_channel(house):
    await house.command_async(house.bob, "create-channel garden")
    house.command(house.bob, "set-prefix ?", "garden")
    assert house.state.prefixes == ("?",)
    house.command(house.bob, "delete-channel garden")
    assert house.state.prefixes == ()


def test_it_is_told_with_the_session_and_to_who_joins(house):
    house.command(house.ann, "set-prefix .", "lobby")
    house.ask(house.bob, m.Leave(id=1, channel="lobby"))
    told = house.ask(house.bob, m.Join(id=2, channel="lobby"))
    assert of_type(told, "channel") == [{"type": "channel", "conv": "#lobby", "prefix": "."}]
    listed = {info.channel: info.prefix for info in logins.list_channels(house.desk, house.account(house.bob))}
    assert listed == {"lobby": ".", "attic": None}


@pytest.mark.parametrize("prefix", ["abc", "a", "1", "\\", "!" * 9, '"! "', "\u200b"])
def test_what_is_no_prefix(house, prefix):
    assert told(house, house.ann, f"set-prefix {prefix}")[0] == "bad_request"


def test_only_moderators_set_it(house):
    assert told(house, house.bob, "set-prefix !")[0] == "forbidden"
    assert told(house, house.ann, "set-prefix !", "attic")[0] == "forbidden"


def test_a_retry_of_a_command_with_the_channels_prefix_gets_its_first_result(house):
    house.command(house.ann, "set-prefix !", "lobby")
    request = m.Send(id=1, cid="once", channel="lobby", text="!topic Tea")
    (first,) = of_type(house.ask(house.ann, request), "result")
    digest = command_digest(house.desk, house.ann.account, request)
    (again,) = of_type(house.ask(house.ann, it.Retry(id=2, cid="once", digest=digest)), "result")
    assert again == {**first, "id": 2, "dup": True}


def test_a_retry_of_what_took_one_out_of_the_channel_gets_its_first_result(house):
    house.command(house.ann, "set-prefix !", "lobby")
    left = m.Send(id=1, cid="once", channel="lobby", text="!leave-channel")
    (first,) = of_type(house.ask(house.bob, left), "result")
    room = house.state.room("lobby")
    room.private = True  # he sees it no more
    (again,) = house.ask(house.bob, m.Send(id=2, cid="once", channel="lobby", text="!leave-channel"))
    room.private = False
    assert again == {**first, "id": 2, "dup": True}


def test_a_retry_of_a_message_gets_its_ack_though_it_would_be_a_command_by_now(house):
    said = m.Send(id=1, cid="once", channel="lobby", text="!help")
    (first,) = of_type(house.ask(house.bob, said), "ack")
    house.command(house.ann, "set-prefix !", "lobby")
    digest = command_digest(house.desk, house.bob.account, said)
    (again,) = of_type(house.ask(house.bob, it.Retry(id=2, cid="once", digest=digest)), "ack", "error")
    assert again == {**first, "id": 2, "dup": True}
