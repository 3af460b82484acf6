"""The commands that chat comes with, from a line to what it answers and what it changes; the state is the real store's afterwards."""

import pytest

from chat.commands import builtin
from chat.errors import ChatError
from chat.protocol import messages as m
from chat.rooms import items as it
from chat.rooms import policy, texts
from chat.rooms.policy import RateLimits
from chat.rooms.state import State
from tests.commands import families
from tests.commands.families import command, refused, told, told_later
from tests.rooms.house import Line, dump, of_type, open_house

house, root, ann, bob = families.house, families.root, families.ann, families.bob  # fixtures

ALL = [
    "audit",
    "ban",
    "ban-preview",
    "banned-users",
    "broadcast",
    "cancel-question",
    "channel-ban",
    "channel-unban",
    "channels",
    "color",
    "create-channel",
    "delete-channel",
    "disable-command",
    "enable-command",
    "help",
    "join-channel",
    "kick",
    "leave-channel",
    "mute",
    "perm",
    "plugins",
    "questions",
    "reload-commands",
    "sanctions",
    "set-user-perm",
    "tell",
    "topic",
    "unban",
    "unmute",
    "user-count",
    "users",
    "why",
]


# ---------------------------------------------------------------- all of them


def test_every_command_of_the_issue_is_there():
    assert set(ALL) <= {spec.name for spec in builtin.registry().all()}


@pytest.mark.parametrize(
    ("text", "usage"),
    [
        ("create-channel", "create-channel <name> (password)"),
        ("create-channel a b c", "create-channel <name> (password)"),
        ("join-channel", "join-channel <name> (password)"),
        ("leave-channel now", "leave-channel"),
        ("delete-channel", "delete-channel <name>"),
        ("delete-channel lobby please", "delete-channel <name>"),
        ("channels all", "channels"),
        ("users all", "users"),
        ("user-count all", "user-count"),
        ("tell", "tell <username> <message>"),
        ("tell bob", "tell <username> <message>"),
        ("color", "color <colour>"),
        ("perm ann bob", "perm (user)"),
        ("set-user-perm", "set-user-perm <user> <role>"),
        ("set-user-perm bob", "set-user-perm <user> <role>"),
        ("help help help", "help (command)"),
        ("ban", "ban <who> (duration) (reason)"),
        ("unban", "unban <who> (reason)"),
        ("kick", "kick <username> (reason)"),
        ("mute", "mute <username> (duration) (reason)"),
        ("channel-ban", "channel-ban <username> (duration) (reason)"),
        ("ban-preview", "ban-preview <whom>"),
        ("why not", "why"),
        ("banned-users all", "banned-users"),
        ("broadcast", "broadcast <message>"),
        ("disable-command", "disable-command <name> (where)"),
        ("enable-command tell now", "enable-command <name> (where)"),
    ],
)
def test_wrong_arguments_are_answered_with_the_usage_line(house, root, text, usage):
    code, message = refused(house, root, text)
    assert code == "bad_request"
    assert message.endswith("Usage: " + usage)
    assert not house.tasks


@pytest.mark.parametrize(
    "text", ["ban bob", "unban bob", "banned-users", "broadcast hi", "disable-command tell", "enable-command tell", "delete-channel lobby",
             "topic hello", "set-user-perm bob moderator", "set-user-perm bob admin", "ban nobody-of-that-name"]
)  # fmt: skip
def test_who_may_not_is_told_why_and_nothing_changes(house, ann, text):
    before = dump(house.state)
    code, message = refused(house, ann, text)
    assert code == "forbidden"
    assert "only" in message
    assert dump(house.state) == before


@pytest.mark.parametrize(
    ("text", "near"),
    [("usres", "users"), ("colour red", None), ("creat-channel x", "create-channel"), ("chanels", "channels"), ("frobnicate", None)],
)
def test_an_unknown_command_names_its_neighbours(house, ann, text, near):
    if text.startswith("colour"):
        assert "#ff0000" in told(house, ann, text).lower() or "red" in told(house, ann, text)
        return
    code, message = refused(house, ann, text)
    assert code == "not_found"
    assert f"did you mean {near}" in message if near else "help lists" in message


def test_nearest_are_only_those_that_one_may_use(house, ann, root):
    assert "broadcast" not in refused(house, ann, "broadcats hi")[1]
    assert "broadcast" in refused(house, root, "broadcats hi")[1]


def test_the_empty_command(house, ann):
    assert refused(house, ann, " ") == ("bad_request", "a command has a name; help lists them")


@pytest.mark.parametrize("text", ["topic", "leave-channel"])
def test_commands_of_a_channel_work_in_one_only(house, ann, text):
    for channel in (None, "@bob"):
        code, message = refused(house, ann, text, channel)
        assert code == "bad_request"
        assert "channel" in message


def test_a_command_in_a_channel_that_one_cannot_see(house, ann):
    assert refused(house, ann, "users", "nowhere")[0] == "not_found"


def test_a_text_with_the_prefix_is_a_command(house, ann):
    (answer,) = house.ask(ann, m.Send(id=1, cid="a", channel="lobby", text="//user-count"))
    assert (answer["type"], answer["data"]["online"]) == ("result", 3)
    (answer,) = house.ask(ann, m.Command(id=2, text="//user-count"))
    assert answer["type"] == "result"


# ---------------------------------------------------------------- people


def test_who_is_online(house, ann, bob):
    told(house, ann, "color red")
    answer = house.command(ann, "users")
    assert answer["text"] == "3 people are online: Ann, bob, root"
    assert answer["data"][0] == {"user": "Ann", "color": house.account(ann).color}
    house.manager.gone(bob)
    house.tick(90)
    assert house.command(ann, "user-count")["data"] == {"online": 2, "accounts": 3}


def test_colours(house, ann):
    assert house.account(ann).color is None
    told(house, ann, "color #ff0000")
    assert house.account(ann).color == "#ff0000"
    told(house, ann, "colour SlateGray")
    assert house.account(ann).color == "#708090"
    code, message = refused(house, ann, "color black")
    assert code == "bad_request"
    assert "dark" in message
    assert refused(house, ann, "color of my heart")[0] == "bad_request"
    assert house.account(ann).color == "#708090"


def test_tell(house, ann, bob):
    assert told(house, ann, "tell bob  how\nare you ") == "told bob"
    (message,) = bob.take()
    assert (message["conv"], message["from"], message["text"]) == ("@Ann", "Ann", "how\nare you ")
    assert refused(house, ann, "tell nobody hi") == ("not_found", "there is no user 'nobody'")
    house.manager.gone(bob)
    house.tick(90)
    assert told(house, ann, "tell @BOB hi") == "told bob, who will read it at the next login"
    back = Line()
    house.decide(back, it.LoginVerified(id=1, account=bob.account))
    house.commit()
    (session,) = back.take()
    assert session["heads"]["@Ann"][1] == 2


def test_tell_counts_as_a_message():
    with open_house(rates=RateLimits(sends_burst=1, sends_per_s=0.1)) as house:
        ann = house.register("ann")
        told(house, ann, "tell ann a note", None)
        assert refused(house, ann, "tell ann a note", None)[0] == "rate_limited"


# ---------------------------------------------------------------- moderation


async def test_bans_hold_everywhere_at_once_and_the_channel_has_a_new_owner(house, root, ann, bob):
    phone = house.log_in("bob")
    await told_later(house, bob, "create-channel garden")
    await told_later(house, ann, "join-channel garden")
    house.command(bob, "set-user-perm ann moderator", "garden")
    ann.take()
    assert told(house, root, "ban bob  spam and\nnoise ") == "banned bob (spam and noise)"
    assert bob.ended
    assert phone.ended
    heard = ann.take()
    assert sorted(message["type"] for message in heard) == ["banned", "banned", "role"]
    (role,) = of_type(heard, "role")
    assert (role["user"], role["role"], role["by"], role["conv"]) == ("Ann", "owner", "server", "#garden")
    assert house.state.room("garden").members == {ann.account: "owner"}
    with pytest.raises(ChatError) as caught:
        house.log_in("bob")
    assert caught.value.code == "forbidden"
    assert "spam and noise" in str(caught.value)
    assert refused(house, ann, "tell bob hello")[0] == "not_found"
    assert house.command(root, "banned-users")["data"][0]["user"] == "bob"
    assert told(house, root, "banned-users") == "bob: banned by root (spam and noise), until somebody lifts it"
    assert told(house, root, "ban bob 2h") == "banned bob for 2 h"
    assert told(house, root, "banned-users") == "bob: banned by root, for 2 h more, until 2023-11-15 00:13 UTC"
    assert State.load(house.writer.load()).banned == {bob.account}
    assert told(house, root, "unban bob") == "bob may come back"
    assert told(house, root, "banned-users") == "nobody is banned"
    assert refused(house, root, "unban bob")[0] == "bad_request"
    back = house.log_in("bob")
    assert [house.state.rooms[room].name for room in house.account(back).rooms] == ["lobby"]


def test_nobody_bans_upwards(house, root, ann, bob):
    told(house, root, "set-user-perm ann admin")
    told(house, root, "set-user-perm bob admin")
    assert refused(house, ann, "ban root")[0] == "forbidden"
    assert refused(house, ann, "ban bob")[0] == "forbidden"
    assert refused(house, root, "ban root") == ("forbidden", "you cannot ban yourself")
    assert refused(house, root, "ban bob " + 401 * "x")[0] == "bad_request"
    told(house, root, "ban bob")


def test_broadcast(house, root, ann, bob):
    assert told(house, root, "broadcast tea is ready") == "said to everybody who is online"
    for line in (ann, bob):
        assert line.take() == [{"type": "notice", "text": "tea is ready", "level": "info"}]
    assert house.writer.load().rooms[0].last_seq == 0, "it is not stored"


def test_a_command_that_is_switched_off(house, root, ann):
    assert told(house, root, "disable-command //tell") == "tell is off"
    code, message = refused(house, ann, "tell bob hi")
    assert (code, "switched off" in message) == ("forbidden", True)
    assert refused(house, root, "tell bob hi")[0] == "forbidden"
    assert refused(house, root, "disable-command tell")[0] == "bad_request"
    for name in ("help", "enable-command", "disable-command"):
        assert refused(house, root, f"disable-command {name}")[0] == "forbidden"
    assert refused(house, root, "disable-command tlel")[0] == "not_found"
    assert State.load(house.writer.load()).disabled_commands == {"tell"}
    assert "tell" not in [spec["name"] for spec in house.desk.commands.describe(invocation(house, ann))]
    assert told(house, root, "enable-command tell") == "tell is on"
    assert refused(house, root, "enable-command tell")[0] == "bad_request"
    assert told(house, ann, "tell bob hi") == "told bob"


async def test_switched_off_while_it_ran(house, root, ann):
    house.ask(ann, command("create-channel late password", 1))
    told(house, root, "disable-command create-channel")
    (answer,) = of_type(await house.finish(ann), "result", "error")
    assert answer["code"] == "forbidden"
    assert house.state.room("late") is None


def invocation(house, line, channel=None):
    return texts.invocation(house.desk, line, channel, "")


def test_roles_of_a_channel(house, root, ann, bob):
    assert told(house, root, "set-user-perm ann moderator") == "Ann is moderator of #lobby now"
    assert told(house, root, "set-user-perm ann Moderator") == "Ann is moderator of #lobby already"
    assert told(house, ann, "topic by a moderator")
    assert refused(house, ann, "set-user-perm bob moderator")[0] == "forbidden"
    assert refused(house, root, "set-user-perm bob king")[0] == "bad_request"
    assert refused(house, root, "set-user-perm root member")[0] == "forbidden"
    assert refused(house, root, "set-user-perm bob owner", None)[0] == "bad_request"
    told(house, bob, "leave-channel")
    assert refused(house, root, "set-user-perm bob moderator") == ("not_found", "bob is not in #lobby")


def test_handing_a_channel_over(house, root, ann, bob):
    bob.take()
    assert told(house, root, "set-user-perm ann owner") == "Ann is owner of #lobby now"
    room = house.state.room("lobby")
    assert room.members == {root.account: "moderator", ann.account: "owner", bob.account: "member"}
    heard = [(notice["user"], notice["role"], notice["by"]) for notice in of_type(bob.take(), "role")]
    assert heard == [("root", "moderator", "root"), ("Ann", "owner", "root")]
    assert told(house, root, "leave-channel") == "you left #lobby"
    assert told(house, ann, "leave-channel") == "you left #lobby; bob owns it now"


def test_roles_of_the_server(house, root, ann, bob):
    assert told(house, root, "set-user-perm ann admin", None) == "Ann is admin of the server now"
    assert told(house, ann, "broadcast hello", None)
    assert refused(house, ann, "set-user-perm bob admin")[0] == "forbidden"
    assert refused(house, root, "set-user-perm root user")[0] == "forbidden"
    assert told(house, root, "set-user-perm ann user") == "Ann is user of the server now"
    assert refused(house, ann, "broadcast hello")[0] == "forbidden"


def test_perm(house, root, ann):
    head, *lines = told(house, ann, "perm").splitlines()
    assert head == "Ann: user of the server, member of #lobby"
    assert [line.split()[1] for line in lines] == list(policy.RIGHTS), "the whole table"
    assert [line.split()[1] for line in lines if line.startswith("yes")] == ["write"]
    assert "no   topic            moderator or server admin set the topic" in lines
    assert not any(line.startswith("yes") for line in told(house, ann, "perm", None).splitlines()[1:])
    answer = house.command(ann, "perm root", "lobby")
    assert (answer["data"]["server"], answer["data"]["channel"]) == ("owner", "owner")
    assert all(answer["data"]["rights"].values())


# ---------------------------------------------------------------- help


def test_help_lists_what_one_may_use_here(house, root, ann):
    def listed(line, channel):
        return [spec["name"] for spec in house.command(line, "help", channel)["data"]]

    every = builtin.registry().all()
    assert listed(root, "lobby") == [spec.name for spec in every]
    assert listed(ann, "lobby") == [spec.name for spec in every if spec.needs == "member"]
    assert listed(ann, None) == [spec.name for spec in every if spec.needs == "member" and spec.where == "anywhere"]
    assert not {"ban", "broadcast", "lockdown", "slow-mode"} & set(listed(ann, "lobby"))
    assert "//create-channel <name> (password)  Make a channel" in told(house, ann, "help")


def test_help_about_one(house, ann):
    text = told(house, ann, "help //create-channel")
    assert text.startswith("//create-channel <name> (password)\nMake a channel; with a password it is private.")
    assert "also: colour" in told(house, ann, "help color")
    assert "not for you here: only a server admin" in told(house, ann, "help ban")
    assert refused(house, ann, "help bna")[0] == "not_found"


def test_every_command_has_help(house, root):
    for name in ALL:
        assert len(told(house, root, f"help {name}").splitlines()[1]) > 5
