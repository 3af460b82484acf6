"""The commands about channels: who makes, finds, joins, leaves and deletes one."""

from chat.rooms.policy import RateLimits
from tests.commands import families
from tests.commands.families import command, private, refused, refused_later, told, told_later
from tests.rooms.house import of_type, open_house

house, root, ann, bob = families.house, families.root, families.ann, families.bob  # fixtures


async def test_who_makes_a_channel_owns_it(house, ann, bob):
    assert "you own it" in await told_later(house, ann, "create-channel Garden")
    room = house.state.room("garden")
    assert (room.name, room.private, room.members) == ("Garden", False, {ann.account: "owner"})
    assert (await refused_later(house, bob, "create-channel garden"))[0] == "name_taken"
    assert (await refused_later(house, bob, 'create-channel "a b"'))[0] == "bad_name"
    assert "private" in await told_later(house, bob, "create-channel den sesame-or-not")
    assert house.state.room("den").private


async def test_a_name_taken_while_the_password_was_hashed(house, ann, bob):
    house.ask(ann, command("create-channel same password-1", 1))
    house.ask(bob, command("create-channel same password-2", 2))
    answers = [await house.finish(ann), bob.take()]
    assert sorted(message["type"] for answer in answers for message in answer if message.get("id")) == ["error", "result"]


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
    house.ask(bob, command('join-channel den "sesame or not"', 1))
    told(house, ann, "delete-channel den")
    (answer,) = await house.finish(bob)
    assert answer["code"] == "not_found"


async def test_leaving(house, root, ann, bob):
    assert told(house, bob, "leave-channel") == "you left #lobby"
    assert refused(house, bob, "leave-channel")[0] == "forbidden"
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
