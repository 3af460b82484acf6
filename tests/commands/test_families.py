"""The commands that chat comes with, from a line to what it answers and what it changes; the state is the real store's afterwards."""

import pytest

from chat.commands import builtin
from chat.errors import ChatError
from chat.protocol import messages as m
from chat.rooms import items as it
from chat.rooms import policy, texts
from chat.rooms.policy import RateLimits
from chat.rooms.state import State
from tests.rooms.house import Line, dump, of_type, open_house

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


@pytest.fixture
def house():
    """root owns the server and #lobby; ann and bob are in #lobby."""
    with open_house() as house:
        house.root, house.ann, house.bob = house.owner(), house.register("Ann"), house.register("bob")
        yield house
        assert dump(house.state) == dump(State.load(house.writer.load()))


@pytest.fixture
def root(house):
    return house.root


@pytest.fixture
def ann(house):
    return house.ann


@pytest.fixture
def bob(house):
    return house.bob


def told(house, line, text, channel="lobby", **more):
    """What a command that may be used answers."""
    answer = house.command(line, text, channel, **more)
    assert answer["type"] == "result", answer
    return answer["text"]


def refused(house, line, text, channel="lobby"):
    answer = house.command(line, text, channel)
    assert answer["type"] == "error", answer
    return answer["code"], answer["message"]


async def told_later(house, line, text, channel="lobby"):
    answer = await house.command_async(line, text, channel)
    assert answer["type"] == "result", answer
    return answer["text"]


async def refused_later(house, line, text, channel="lobby"):
    answer = await house.command_async(line, text, channel)
    assert answer["type"] == "error", answer
    return answer["code"], answer["message"]


async def private(house, line, name="den", password="sesame or not"):
    await told_later(house, line, f'create-channel {name} "{password}"')
    house.root.take()


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


# ---------------------------------------------------------------- channels


async def test_who_makes_a_channel_owns_it(house, ann, bob):
    assert "you own it" in await told_later(house, ann, "create-channel Garden")
    room = house.state.room("garden")
    assert (room.name, room.private, room.members) == ("Garden", False, {ann.account: "owner"})
    assert (await refused_later(house, bob, "create-channel garden"))[0] == "name_taken"
    assert (await refused_later(house, bob, 'create-channel "a b"'))[0] == "bad_name"
    assert "private" in await told_later(house, bob, "create-channel den sesame-or-not")
    assert house.state.room("den").private


async def test_a_name_taken_while_the_password_was_hashed(house, ann, bob):
    house.ask(ann, _command("create-channel same password-1", 1))
    house.ask(bob, _command("create-channel same password-2", 2))
    answers = [await house.finish(ann), bob.take()]
    assert sorted(message["type"] for answer in answers for message in answer if message.get("id")) == ["error", "result"]


def _command(text, id):
    return m.Command(id=id, text=text)


async def test_new_channels_are_limited():
    with open_house(rates=RateLimits(new_channels_per_h=2)) as house:
        ann = house.register("ann")
        for name in ("a", "b"):
            await told_later(house, ann, f"create-channel {name}", None)
        assert (await refused_later(house, ann, "create-channel c", None))[0] == "rate_limited"
        assert house.state.room("c") is None


async def test_joining(house, ann, bob):
    await told_later(house, ann, "create-channel garden")
    house.command(ann, "topic roses", "garden")
    assert await told_later(house, bob, "join-channel #garden") == "you are in #garden now: roses"
    assert "already" in await told_later(house, bob, "join-channel Garden")
    (joined,) = of_type(ann.take(), "joined")
    assert joined["user"] == "bob"


async def test_a_private_channel_and_an_absent_one_are_answered_alike(house, ann, bob):
    await private(house, ann)
    for text in (
        "join-channel {}",
        "join-channel {} wrong-password",
        "delete-channel {}",
    ):
        house.passwords.hashed = 0
        one = await refused_later(house, bob, text.format("den"))
        spent = house.passwords.hashed
        two = await refused_later(house, bob, text.format("ned"))
        assert one == (two[0], two[1].replace("ned", "den"))
        assert one[0] == "not_found"
        assert house.passwords.hashed == 2 * spent, "and cost the same"
    assert "den" not in told(house, bob, "channels")
    assert refused(house, bob, "users", "den") == (
        "not_found",
        refused(house, bob, "users", "ned")[1].replace("ned", "den"),
    )
    assert (await told_later(house, bob, 'join-channel den "sesame or not"')) == "you are in #den now"
    assert "den (2 in it, you too, private)" in told(house, bob, "channels")


async def test_an_admin_cannot_see_a_private_channel_either(house, root, ann):
    await private(house, ann)
    assert refused(house, root, "delete-channel den")[0] == "not_found"
    assert "den" not in told(house, root, "channels")


async def test_guessing_a_channels_password_is_limited():
    with open_house(rates=RateLimits(joins_per_min=2)) as house:
        ann, bob = house.register("ann"), house.register("bob")
        await house.command_async(ann, "create-channel den sesame-or-not")
        for n in range(2):
            assert (await refused_later(house, bob, f"join-channel den guess-{n}-no", None))[0] == "not_found"
        assert (await refused_later(house, bob, "join-channel den guess-3-no", None))[0] == "rate_limited"
        house.now += 30
        assert "you are in" in await told_later(house, bob, "join-channel den sesame-or-not", None)


async def test_a_channel_deleted_while_its_password_was_checked(house, ann, bob):
    await private(house, ann)
    house.ask(bob, _command('join-channel den "sesame or not"', 1))
    told(house, ann, "delete-channel den")
    (answer,) = await house.finish(bob)
    assert answer["code"] == "not_found"


async def test_leaving(house, root, ann, bob):
    assert told(house, bob, "leave-channel") == "you left #lobby"
    assert refused(house, bob, "leave-channel")[0] == "not_found"
    assert told(house, root, "leave-channel") == "you left #lobby; Ann owns it now"
    await told_later(house, ann, "create-channel garden")
    assert told(house, ann, "leave-channel", "garden") == "you left #garden"
    assert house.state.room("garden").members == {}


async def test_deleting(house, ann, bob, root):
    await told_later(house, ann, "create-channel garden")
    await told_later(house, bob, "join-channel garden")
    bob.take()
    assert refused(house, bob, "delete-channel garden")[0] == "forbidden"
    assert refused(house, root, "delete-channel lobby") == (
        "forbidden",
        "#lobby is a default channel: everybody joins it; take it out of default_channels first",
    )
    assert told(house, ann, "delete-channel #garden") == "deleted #garden"
    assert bob.take() == [{"type": "removed", "conv": "#garden", "reason": "deleted"}]
    assert house.state.room("garden") is None
    await told_later(house, bob, "create-channel garden")
    assert house.state.room("garden").owner == bob.account


def test_topics(house, root, ann):
    assert told(house, ann, "topic") == "#lobby has no topic"
    assert told(house, root, "topic  cake\n and tea ") == "the topic of #lobby is now: cake and tea"
    (notice,) = of_type(ann.take(), "topic")
    assert (notice["user"], notice["text"]) == ("root", "cake and tea")
    assert told(house, ann, "topic") == "#lobby: cake and tea"
    assert refused(house, root, "topic " + 401 * "x")[0] == "bad_request"
    assert "cake and tea" in told(house, ann, "channels")


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
    house.ask(ann, _command("create-channel late password", 1))
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
