"""The commands about rules, through the desk and a real store: what they answer, whom they bind, and that it holds over a restart."""

import pytest

from chat.protocol import messages as m
from chat.rooms.state import State
from tests.commands.families import refused, refused_later, told, told_later
from tests.rooms.house import dump, of_type, open_house


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


def lobby(house):
    return house.state.room("lobby")


def say(house, line, text, channel="lobby"):
    """The answer to a message."""
    (answer,) = [message for message in house.say(line, channel, text) if message.get("id") == 7]
    return answer


def logged(house):
    rows = house.writer._db.execute("SELECT actor, action, target, room FROM audit ORDER BY n").fetchall()
    name_of = house.state.name_of
    return [(name_of(actor), action, name_of(target) if target else None, bool(room)) for actor, action, target, room in rows]


def restart(house):
    """The state as a new process has it."""
    house.load()


# ---------------------------------------------------------------- of a channel


def test_slow_mode(house):
    assert refused(house, house.ann, "slow-mode 30")[0] == "forbidden"
    assert told(house, house.mod, "slow-mode 30") == "#lobby: a message every 30 s from each"
    assert say(house, house.ann, "one")["type"] == "ack"
    assert say(house, house.ann, "two")["retry_after"] == 30
    for text in "ab":
        assert say(house, house.mod, text)["type"] == "ack", "who moderates is not slowed down"
    restart(house)
    assert say(house, house.ann, "two")["code"] == "rate_limited", "its length holds over restarts of the state, and so do its counters"
    assert told(house, house.mod, "slow-mode 30").endswith("(as before)")
    assert told(house, house.mod, "slow-mode 0") == "#lobby: everybody at their own pace"
    assert lobby(house).rules is None
    assert say(house, house.ann, "two")["type"] == "ack"
    assert logged(house)[-2:] == [("mod", "slow-mode", None, True)] * 2


def test_announcements(house):
    assert told(house, house.mod, "announce-only on") == "#lobby: only moderators write"
    assert say(house, house.ann, "may I?")["code"] == "forbidden"
    restart(house)
    assert say(house, house.ann, "may I?")["code"] == "forbidden"
    assert say(house, house.mod, "hear")["type"] == "ack"
    assert told(house, house.root, "announce-only off") == "#lobby: everybody writes"
    assert say(house, house.ann, "thanks")["type"] == "ack"


async def test_an_invitation_lets_in_once(house):
    await told_later(house, house.ann, "create-channel garden")
    assert told(house, house.ann, "invite-only on", "garden") == "#garden: who wants to join needs an invitation"
    restart(house)
    code, message = await refused_later(house, house.bob, "join-channel garden")
    assert (code, message.endswith("by invitation of its moderators; ask Ann")) == ("forbidden", True)
    (answer,) = house.ask(house.bob, m.Join(id=1, channel="garden"))
    assert answer["message"] == message, "the request has the same rules"
    house.bob.take()
    assert told(house, house.ann, "invite-user bob", "garden") == "bob may join #garden"
    assert "Ann invites you to #garden" in of_type(house.bob.take(), "notice")[0]["text"]
    restart(house)
    await told_later(house, house.bob, "join-channel garden")
    told(house, house.bob, "leave-channel", "garden")
    assert (await refused_later(house, house.bob, "join-channel garden"))[0] == "forbidden", "each is for once"
    told(house, house.ann, "invite-user bob", "garden")
    told(house, house.ann, "uninvite-user bob", "garden")
    assert (await refused_later(house, house.bob, "join-channel garden"))[0] == "forbidden"
    assert refused(house, house.ann, "uninvite-user bob", "garden")[0] == "not_found"
    assert [entry[:3] for entry in logged(house) if "invite" in entry[1]] == [
        ("Ann", "invite-only", None),
        ("Ann", "invite-user", "bob"),
        ("Ann", "invite-user", "bob"),
        ("Ann", "uninvite-user", "bob"),
    ]


async def test_a_private_channel_that_is_invite_only_says_nothing_to_who_has_its_password(house):
    await told_later(house, house.ann, 'create-channel den "sesame or not"')
    absent = await refused_later(house, house.bob, 'join-channel nowhere "sesame or not"')
    told(house, house.ann, "invite-only on", "den")
    found = await refused_later(house, house.bob, 'join-channel den "sesame or not"')
    assert found == (absent[0], absent[1].replace("nowhere", "den"))
    told(house, house.ann, "invite-user bob", "den")
    assert [each["channel"] for each in house.command(house.bob, "channels")["data"]] == ["den", "lobby"], "who is invited sees it"
    assert await told_later(house, house.bob, "join-channel den") == "you are in #den now", "and needs no password"


@pytest.mark.parametrize("where", ["channel", "server"])
def test_a_word_filter(house, where):
    name, mod, channel = ("filter", house.mod, "lobby") if where == "channel" else ("server-filter", house.root, None)
    of = "#lobby" if where == "channel" else "this server"
    assert refused(house, house.ann, f"{name} add spam", "lobby")[0] == "forbidden"
    assert told(house, mod, f"{name} add spam", channel) == f"{of} refuses messages with spam"
    told(house, mod, f"{name} add  buy   now", channel)
    told(house, mod, f"{name} add *coin*", channel)
    restart(house)
    answer = say(house, house.ann, "SPÀM for everybody")
    assert answer["code"] == "forbidden"
    assert "(rule: spam)" in answer["message"]
    assert "(rule: buy now)" in say(house, house.ann, "buy -- NOW!")["message"]
    assert "(rule: *coin*)" in say(house, house.ann, "my dogecoins")["message"]
    assert say(house, house.ann, "spammer, buy it now")["type"] == "ack", "other words"
    assert say(house, mod, "no spam please")["type"] == "ack", "who made it may speak of it"
    house.ann.take()
    private = [house.ask(house.ann, m.Send(id=1, cid=f"p{n}", to="bob", text="spam"))[0]["type"] for n in range(2)]
    assert private == (["ack"] * 2 if where == "channel" else ["error"] * 2)
    if where == "server":
        assert refused(house, house.ann, "tell bob spam")[0] == "forbidden", "the command has the same rules"
    assert [each["rule"] for each in house.command(mod, f"{name} list", channel)["data"]] == ["*coin*", "buy now", "spam"]
    assert refused(house, mod, f"{name} add spam", channel)[0] == "bad_request"
    assert refused(house, mod, f"{name} remove eggs", channel)[0] == "not_found"
    for rule in ("spam", "buy now", "*coin*"):
        told(house, mod, f"{name} remove {rule}", channel)
    assert lobby(house).rules is None
    assert say(house, house.ann, "spam")["type"] == "ack"


async def test_a_server_filter_is_in_channels_made_later_and_in_loaded_ones(house):
    told(house, house.root, "server-filter add spam", None)
    await told_later(house, house.ann, "create-channel garden")
    assert say(house, house.ann, "spam", "garden")["code"] == "forbidden", "also for who owns the channel"
    told(house, house.ann, "delete-channel garden")
    restart(house)
    await told_later(house, house.ann, "create-channel garden")
    assert say(house, house.ann, "spam", "garden")["code"] == "forbidden"


def test_rules_that_are_none(house):
    for text in ("filter add", "filter add ***", "filter add " + "x" * 65, "filter shout spam", "slow-mode 999999", "history-mode some"):
        assert refused(house, house.mod if "history" not in text else house.root, text)[0] == "bad_request", text
    for n in range(100):
        told(house, house.mod, f"filter add word{n}")
    assert refused(house, house.mod, "filter add onemore")[0] == "quota_exceeded"


# ---------------------------------------------------------------- of the server


async def test_lockdown(house):
    assert refused(house, house.mod, "lockdown accounts")[0] == "forbidden"
    await told_later(house, house.ann, "create-channel garden")
    assert told(house, house.root, "lockdown accounts", None) == "lockdown accounts: nobody registers"
    restart(house)
    with pytest.raises(Exception, match="locked down"):
        house.register("newcomer")
    await told_later(house, house.bob, "join-channel garden")
    told(house, house.bob, "leave-channel", "garden")
    told(house, house.root, "lockdown members", None)
    with pytest.raises(Exception, match="locked down"):
        house.register("newcomer")
    assert "locked down" in (await refused_later(house, house.bob, "join-channel garden"))[1]
    assert "locked down" in (await refused_later(house, house.bob, "create-channel attic"))[1]
    assert say(house, house.bob, "we talk on")["type"] == "ack"
    await told_later(house, house.root, "join-channel garden")
    told(house, house.ann, "invite-user bob", "garden")
    await told_later(house, house.bob, "join-channel garden")
    assert told(house, house.root, "lockdown off", None).startswith("lockdown off")
    house.register("newcomer")
    assert [entry[1] for entry in logged(house) if entry[1] == "lockdown"] == ["lockdown"] * 3


# ---------------------------------------------------------------- owners


def test_every_change_of_members_leaves_one_owner(house):
    room = lobby(house)
    told(house, house.root, "leave-channel")
    assert house.state.name_of(room.owner) == "mod", "the moderator"
    told(house, house.mod, "leave-channel")
    assert house.state.name_of(room.owner) == "Ann", "who is there the longest"
    told(house, house.root, "ban Ann", None)
    assert house.state.name_of(room.owner) == "bob"
    told(house, house.bob, "leave-channel")
    assert room.owner is None
    assert not room.members
    house.register("newcomer")
    assert house.state.name_of(room.owner) == "newcomer"


# ---------------------------------------------------------------- questions of rights that the table answers


def test_an_admin_moderates_where_it_is_no_member(house):
    told(house, house.root, "leave-channel")
    assert told(house, house.root, "slow-mode 5")
    assert lobby(house).rules.slow_s == 5


def test_what_a_rule_refuses_leaves_the_turn(house):
    """A message that the filter refuses is no message: slow mode does not count it."""
    told(house, house.mod, "slow-mode 30")
    told(house, house.mod, "filter add spam")
    assert say(house, house.ann, "spam")["code"] == "forbidden"
    assert say(house, house.ann, "ham")["type"] == "ack"


def test_a_failed_commit_gives_back_what_was_set(house):
    """The state is loaded anew: rules that were not stored do not bind."""
    house.decide(house.mod, m.Command(id=1, text="announce-only on", channel="lobby"))
    house.desk.actions.clear()
    assert lobby(house).rules.announce_only
    house.load()
    assert lobby(house).rules is None
