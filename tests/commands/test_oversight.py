"""The moderation log as moderators read it, and //why."""

import re

import pytest

from chat.commands import builtin
from chat.protocol import messages as m
from chat.rooms.moderation import refusals
from tests.commands import moderated
from tests.commands.families import refused, told, told_later
from tests.commands.moderated import logged, wait

house, root, mod, ann, bob = moderated.house, moderated.root, moderated.mod, moderated.ann, moderated.bob  # fixtures

# ---------------------------------------------------------------- the log, read


async def test_moderators_read_of_their_channels_and_admins_everything(house, root, mod, ann, bob):
    await told_later(house, bob, "create-channel garden")
    await told_later(house, ann, "join-channel garden")
    told(house, bob, "mute ann 1h weeds", "garden")
    told(house, mod, "kick ann", "lobby")
    told(house, root, "ban 198.51.100.9")
    told(house, root, "disable-command tell")
    everything = (await told_later(house, root, "audit")).splitlines()
    assert [line.split(": ", 1)[1].split()[0] for line in everything] == ["disable-command", "ban", "kick", "mute", "set-user-perm"]
    assert everything[3].startswith("2. 2023-11-14 22:13 UTC bob: mute ann in #garden: weeds [after until 2023-11-14 23:13 UTC]")
    lobby = await told_later(house, mod, "audit")
    assert [line.split(": ", 1)[1].split()[0] for line in lobby.splitlines()] == ["kick", "set-user-perm"]
    assert (await told_later(house, mod, "audit ann")).count("\n") == 0
    assert await told_later(house, mod, "audit bob") == "nothing was done to bob in the channels that you moderate"
    assert (await told_later(house, root, "audit all 3")).count("\n") == 1
    answer = await house.command_async(mod, "audit ann", "lobby")
    assert [(each["actor"], each["action"], each["where"]) for each in answer["data"]] == [("mod", "kick", "#lobby")]


async def test_a_private_channels_name_is_not_told_to_an_admin_outside(house, root, ann, bob):
    await told_later(house, bob, 'create-channel den "open sesame"')
    await told_later(house, ann, 'join-channel den "open sesame"')
    told(house, bob, "kick ann", "den")
    assert "kick ann in a private channel" in await told_later(house, root, "audit")
    assert "kick ann in #den" in await told_later(house, bob, "audit", "den")


async def test_what_was_before_a_ban_tells_an_admin_no_private_channels(house, root, ann, bob):
    await told_later(house, bob, 'create-channel den "open sesame"')
    await told_later(house, ann, 'join-channel den "open sesame"')
    await told_later(house, ann, "create-channel yard")
    told(house, root, "ban ann")
    answer = await house.command_async(root, "audit ann")
    assert "den" not in str(answer)
    assert answer["data"][0]["before"] == {"channels": {"a private channel": "member", "yard": "owner", "lobby": "member"}}
    told(house, bob, "delete-channel den", "den")
    assert "den" not in str(await house.command_async(root, "audit"))


async def test_who_is_not_in_a_private_channel_learns_nothing_of_it_by_a_sanction(house, ann, bob):
    await told_later(house, bob, 'create-channel den "open sesame"')
    for word in ("channel-ban ann 1h", "mute ann 1h", "channel-unban ann", "unmute ann", "channel-ban ann 1h", "mute ann 1h"):
        told(house, bob, word, "den")
    house.tick(3601)
    assert "den" not in str(ann.take())


async def test_long_logs_come_in_pages(house, mod, bob):
    for _ in range(12):
        told(house, mod, "mute bob")
        told(house, mod, "unmute bob")
    first = (await told_later(house, mod, "audit bob")).splitlines()
    assert len(first) == 21
    assert first[-1] == "older ones: audit bob 6"
    assert [line.split(".")[0] for line in (await told_later(house, mod, "audit bob 6")).splitlines()] == ["5", "4", "3", "2"]


def test_every_command_that_does_something_to_others_is_logged(house, root, ann):
    """set-user-perm of both kinds, commands off and on, broadcast, delete-channel."""
    told(house, root, "set-user-perm ann moderator")
    assert logged(house)[1:] == ("set-user-perm", "ann", True, None, '{"role":"member"}', '{"role":"moderator"}')
    told(house, root, "set-user-perm ann admin", None)
    assert logged(house)[1:] == ("set-user-perm", "ann", False, None, '{"server":"member"}', '{"server":"admin"}')
    told(house, root, "disable-command tell")
    assert logged(house)[1:] == ("disable-command", None, False, None, None, '{"command":"tell"}')
    told(house, root, "enable-command tell")
    told(house, root, "broadcast tea is ready")
    assert logged(house)[1:] == ("broadcast", None, False, None, None, '{"text":"tea is ready"}')


# ---------------------------------------------------------------- why


async def test_why(house, mod, ann, bob):
    assert await told_later(house, bob, "why") == "nothing was refused to you lately"
    told(house, mod, "mute bob 10m caps")
    house.say(bob, "lobby", "HELLO")
    wait(house, 60_000)
    text = await told_later(house, bob, "why")
    assert text.splitlines() == [
        "refused 1 min ago in #lobby: you are muted in #lobby by mod (caps) for 10 min more, until 2023-11-14 22:23 UTC; ask mod or root",
        "in force: you are muted in #lobby by mod (caps) for 9 min more, until 2023-11-14 22:23 UTC",
    ]
    data = (await house.command_async(bob, "why", "lobby"))["data"]
    assert (data["refused"]["rule"], data["refused"]["by"], data["refused"]["until"]) == ("mute", "mod", house.now_ms + 540_000)
    assert [each["rule"] for each in data["in_force"]] == ["mute"]
    refused(house, bob, "topic mine now")
    assert await told_later(house, bob, "why", None) == (
        "refused 0 s ago: only a channel's moderator or a server admin may do that (topic); ask mod or root"
    )
    told(house, mod, "channel-ban bob")
    text = await told_later(house, bob, "why", None)
    assert text.splitlines()[-1] == "in force: you are banned from #lobby by mod until somebody lifts it"
    assert await told_later(house, ann, "why") == "nothing was refused to you lately", "each their own"


def test_what_is_remembered_of_refusals_is_bounded(house, bob, monkeypatch):
    monkeypatch.setattr(refusals, "REMEMBERED", 3)
    for n in range(5):
        line = house.register(f"guest{n}")
        refused(house, line, "ban bob")
    assert len(house.desk.refusals._last) == 3


async def test_a_rule_of_the_channel_is_explained_with_who_made_it(house, root, mod, bob):
    told(house, mod, "announce-only on")
    wait(house, 60_000)
    error = house.say(bob, "lobby", "hello")[-1]
    assert error["message"] == "#lobby is for announcements: only its moderators write here; ask mod or root"
    assert (await told_later(house, bob, "why")).splitlines() == [
        "refused 0 s ago in #lobby: #lobby is for announcements: only its moderators write here; ask mod or root (set by mod 1 min ago)",
        "in force: #lobby is for announcements: only its moderators write here (set by mod 1 min ago)",
    ]
    told(house, root, "lockdown members", None)
    assert "in force: this server is locked down" in await told_later(house, bob, "why", None)
    assert "(set by root 0 s ago)" in await told_later(house, bob, "why", None)


async def test_what_happened_elsewhere_takes_no_place_in_a_moderators_page(house, root, mod, bob):
    told(house, mod, "mute bob")
    for _ in range(25):
        told(house, root, "broadcast hello")
    assert "mute bob in #lobby" in await told_later(house, mod, "audit")


async def test_who_is_no_moderator_any_more_when_the_page_has_been_read_sees_nothing_of_that_channel(house, root, mod, ann, bob):
    await told_later(house, ann, "create-channel garden")
    await told_later(house, mod, "join-channel garden")
    told(house, ann, "set-user-perm mod moderator", "garden")
    told(house, mod, "mute bob 1h weeds", "garden")
    mod.take()
    house.ask(mod, m.Command(id=9, text="audit bob", channel="lobby"))
    told(house, ann, "set-user-perm mod member", "garden")
    (answer,) = [message for message in await house.finish(mod) if message.get("id") == 9]
    assert (answer["type"], answer["data"]) == ("result", [])


@pytest.mark.parametrize("name", [spec.name for spec in builtin.registry() if spec.needs != "member"])
def test_no_refusal_is_bare(house, bob, name):
    code, message = refused(house, bob, name)
    assert code == "forbidden"
    assert re.fullmatch(r"only .* may do that \([a-z-]+\); ask (mod or )?root", message)


async def test_a_command_that_is_off_says_whose_doing_it_is(house, root, mod, bob):
    told(house, root, "disable-command users")
    assert refused(house, bob, "users")[1] == "users is switched off on this server (enable-command users); ask root"
    assert (await told_later(house, bob, "why", None)).endswith("; ask root (set by root 0 s ago)")
