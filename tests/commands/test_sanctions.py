"""Kick, mute and ban, by name and by address: from a line to what everybody is told, and what the moderation log has of it."""

import pytest

from chat.errors import ChatError
from chat.protocol import messages as m
from chat.rooms import items as it
from tests.commands import moderated
from tests.commands.families import refused, told, told_later
from tests.commands.moderated import H, log, logged, wait
from tests.rooms.house import Line, dump, of_type

house, root, mod, ann, bob = moderated.house, moderated.root, moderated.mod, moderated.ann, moderated.bob  # fixtures

# ---------------------------------------------------------------- kick


def test_kick(house, mod, ann, bob):
    assert told(house, mod, "kick @bob  too much\nnoise") == "kicked bob from #lobby (too much noise)"
    (left,) = ann.take()
    assert (left["type"], left["user"], left["by"], left["reason"]) == ("left", "bob", "mod", "too much noise")
    assert bob.take() == [{"type": "removed", "conv": "#lobby", "reason": "kicked by mod: too much noise"}]
    assert logged(house) == ("mod", "kick", "bob", True, "too much noise", '{"role":"member"}', None)
    assert refused(house, mod, "kick bob") == ("not_found", "bob is not in #lobby")
    assert house.ask(bob, m.Join(id=1, channel="lobby"))[0]["type"] == "ok", "who was kicked may come back"


def test_an_owner_who_is_kicked_is_succeeded(house, root, mod, ann):
    house.ask(ann, m.Join(id=1, channel="lobby"))
    told(house, root, "set-user-perm mod owner")
    assert told(house, root, "kick mod") == "kicked mod from #lobby"
    assert house.state.room("lobby").owner == root.account


def test_nobody_reaches_their_like_or_above(house, root, mod, ann, bob):
    told(house, root, "set-user-perm ann moderator")
    told(house, root, "set-user-perm bob admin", None)
    before = log(house)
    for command in ("kick", "mute", "channel-ban"):
        assert refused(house, mod, f"{command} ann")[0] == "forbidden"
        assert refused(house, mod, f"{command} root")[0] == "forbidden"
        assert refused(house, mod, f"{command} bob")[0] == "forbidden", "an admin of the server"
        assert refused(house, mod, f"{command} mod")[1].startswith("you cannot")
        assert refused(house, bob, f"{command} root")[0] == "forbidden"
    assert refused(house, bob, "ban root")[0] == "forbidden"
    assert log(house) == before
    told(house, bob, "mute mod")
    assert told(house, mod, "unmute mod") == "mod may write in #lobby again", "whoever may moderate lifts it"


@pytest.mark.parametrize(
    "text",
    ["kick bob", "mute bob", "unmute bob", "channel-ban bob", "channel-unban bob", "sanctions", "audit", "ban bob", "ban 203.0.113.9",
     "unban bob", "unban 203.0.113.9", "ban --preview bob", "ban-preview bob"],
)  # fmt: skip
def test_who_may_not_is_told_whom_to_ask_and_nothing_changes(house, ann, text):
    before, entries = dump(house.state), log(house)
    code, message = refused(house, ann, text)
    assert code == "forbidden"
    assert "; ask " in message
    assert dump(house.state) == before
    assert log(house) == entries


# ---------------------------------------------------------------- mute


def test_mute(house, mod, ann, bob):
    assert told(house, mod, "mute bob 10m caps lock") == "muted bob in #lobby for 10 min (caps lock)"
    assert ann.take() == []
    (notice,) = bob.take()
    assert notice["level"] == "warning"
    assert notice["text"].startswith("mod muted you in #lobby (caps lock) for 10 min more")
    (error,) = house.say(bob, "lobby", "HELLO")
    assert error["code"] == "forbidden"
    assert error["message"] == "you are muted in #lobby by mod (caps lock) for 10 min more, until 2023-11-14 22:23 UTC; ask mod or root"
    assert logged(house) == ("mod", "mute", "bob", True, "caps lock", None, f'{{"until":{house.now_ms + 600_000}}}')
    told(house, mod, "kick bob")
    house.ask(bob, m.Join(id=1, channel="lobby"))
    assert house.say(bob, "lobby", "HELLO")[0]["type"] == "error", "leaving and coming back helps nothing"
    assert told(house, mod, "sanctions") == "bob: muted by mod (caps lock), for 10 min more, until 2023-11-14 22:23 UTC"
    assert told(house, mod, "mute bob") == "muted bob in #lobby", "again, without an end"
    assert told(house, mod, "unmute bob be nice") == "bob may write in #lobby again"
    assert of_type(bob.take(), "notice")[-1]["text"] == "you may write in #lobby again"
    assert house.say(bob, "lobby", "hello")[0]["type"] == "ack"
    assert logged(house)[1:5] == ("unmute", "bob", True, "be nice")
    assert house.state.room("lobby").rules is None, "texts pay nothing any more"
    assert refused(house, mod, "unmute bob")[0] == "bad_request"


def test_a_mute_ends_by_itself_and_outlives_a_restart(house, mod, bob):
    told(house, mod, "mute bob 2s")
    house.load()
    house.tick(1)
    assert house.say(bob, "lobby", "hello")[-1]["code"] == "forbidden"
    house.now_ms += 1000
    assert house.say(bob, "lobby", "hello")[-1]["type"] == "ack", "at its end, whether or not a tick came"
    house.tick(0)
    assert of_type(bob.take(), "notice")[-1]["text"] == "you may write in #lobby again"
    assert logged(house)[:4] == ("server", "mute-over", "bob", True)
    assert house.writer.load().sanctions == []


# ---------------------------------------------------------------- channel bans


def test_channel_ban(house, mod, ann, bob):
    assert told(house, mod, "channel-ban bob 2h spam") == "banned bob from #lobby for 2 h (spam)"
    (record,) = ann.take()
    assert (record["type"], record["user"], record["by"], record["reason"]) == ("banned", "bob", "mod", "spam")
    assert record["until"] == house.now_ms + 2 * H
    assert bob.take() == [{"type": "removed", "conv": "#lobby", "reason": "banned by mod until 2023-11-15 00:13 UTC: spam"}]
    (error,) = house.ask(bob, m.Join(id=1, channel="lobby"))
    assert error["code"] == "forbidden"
    assert error["message"] == "you are banned from #lobby by mod (spam) for 2 h more, until 2023-11-15 00:13 UTC; ask mod or root"
    assert logged(house) == ("mod", "channel-ban", "bob", True, "spam", '{"role":"member"}', f'{{"until":{house.now_ms + 2 * H}}}')
    assert told(house, mod, "sanctions").startswith("bob: banned by mod (spam)")
    assert told(house, mod, "channel-ban bob") == "banned bob from #lobby", "again, for good; nobody is told twice"
    assert ann.take() == []
    assert told(house, mod, "channel-unban bob") == "bob may join #lobby again"
    assert bob.take()[-1]["text"] == "you may join #lobby again"
    assert house.ask(bob, m.Join(id=1, channel="lobby"))[0]["type"] == "ok"
    assert refused(house, mod, "channel-unban bob")[0] == "bad_request"


def test_a_channel_ban_ends_by_itself_after_a_restart(house, mod, bob):
    told(house, mod, "channel-ban bob 1h")
    wait(house, H - 1000)
    house.load()
    assert house.ask(bob, m.Join(id=1, channel="lobby"))[-1]["code"] == "forbidden"
    wait(house, 1000)
    assert house.ask(bob, m.Join(id=1, channel="lobby"))[-1]["type"] == "ok"
    assert logged(house)[:3] == ("server", "channel-ban-over", "bob")


async def test_the_right_password_does_not_lead_past_a_ban(house, root, bob):
    await told_later(house, root, 'create-channel den "open sesame"')
    await told_later(house, bob, 'join-channel den "open sesame"')
    told(house, root, "channel-ban bob", "den")
    answer = await house.command_async(bob, 'join-channel den "open sesame"', None)
    assert (answer["code"], "banned from #den by root" in answer["message"]) == ("forbidden", True)
    answer = await house.command_async(bob, 'join-channel den "wrong password"', None)
    assert answer["code"] == "not_found", "and who does not know it learns nothing"


def test_who_comes_back_to_the_server_is_not_in_a_channel_that_bans_them(house, root, mod, bob):
    told(house, mod, "channel-ban bob")
    told(house, root, "ban bob")
    told(house, root, "unban bob")
    assert house.account(house.log_in("bob")).rooms == ()


async def test_what_a_deleted_channel_had_does_not_come_back_with_its_name(house, mod, bob):
    await told_later(house, mod, "create-channel garden")
    told(house, mod, "channel-ban bob 1h", "garden")
    told(house, mod, "mute ann 1h", "garden")
    assert len(house.state.endings.at) == 2
    told(house, mod, "delete-channel garden")
    assert house.state.endings.at == {}
    assert house.writer.load().sanctions == []
    wait(house, H)
    await told_later(house, mod, "create-channel garden")
    assert house.ask(bob, m.Join(id=1, channel="garden"))[-1]["type"] == "ok"


# ---------------------------------------------------------------- bans of people


@pytest.mark.parametrize(
    ("text", "until", "reason"),
    [("ban bob", None, None), ("ban bob spam and more", None, "spam and more"), ("ban bob 2h", 2 * H, None),
     ("ban BOB 1h30m 2 much", 1.5 * H, "2 much"), ("ban bob 2hours is long", None, "2hours is long")],
)  # fmt: skip
def test_the_duration_may_be_left_out(house, root, bob, text, until, reason):
    told(house, root, text)
    ban = house.account(bob).ban
    assert (ban.until_ms, ban.reason) == (house.now_ms + until if until is not None else None, reason)
    assert logged(house)[:5] == ("root", "ban", "bob", False, reason)


def test_a_ban_says_all_at_the_login_and_ends_by_itself(house, root, ann, bob):
    phone = house.log_in("bob")
    told(house, root, "ban bob 1h spam")
    (record,) = of_type(ann.take(), "banned")
    assert record["until"] == house.now_ms + H
    for line in (bob, phone):
        assert line.ended
        assert "for 1 h more" in of_type(line.take(), "notice")[0]["text"]
    house.load()
    with pytest.raises(ChatError) as caught:
        house.log_in("Bob")
    assert caught.value.code == "forbidden"
    assert caught.value.message == (
        "this account is banned from this server by root (spam) for 1 h more, until 2023-11-14 23:13 UTC; ask root"
    )
    house.now_ms += H
    house.manager.gone(house.log_in("bob"))  # at its end, whether or not a tick came
    wait(house, 0)
    back = house.log_in("bob")
    assert [house.state.rooms[room].name for room in house.account(back).rooms] == ["lobby"]
    assert logged(house)[:3] == ("server", "ban-over", "bob")


def test_no_other_form_of_the_name_gets_in(house, root, bob):
    told(house, root, "ban bob")
    for name in ("BOB", "Bob", "b\u043eb", "\uff22\uff2f\uff22", "B0B"):  # Cyrillic o, full width, a zero
        with pytest.raises(ChatError) as caught:
            house.register(name)
        assert caught.value.code in ("name_taken", "bad_name"), name


def test_a_retry_of_a_ban_is_logged_once(house, root):
    first = house.command(root, "ban bob", cid="c1")
    again = house.ask(root, it.Retry(id=8, cid="c1", digest=house.outcomes[0].action.digest))
    assert (first["text"], again[-1]["text"], again[-1]["dup"]) == ("banned bob", "banned bob", True)
    assert [entry.action for entry in log(house)].count("ban") == 1


# ---------------------------------------------------------------- bans of addresses


def test_an_address_ban_closes_who_is_here_and_keeps_out_who_comes(house, root, ann, bob):
    phone = house.log_in("ann", host="198.51.100.1")
    neighbour = house.log_in("bob", host="::ffff:203.0.113.99")
    assert (
        told(house, root, "ban ::FFFF:203.0.113.1/120 2h open proxy")
        == "banned 203.0.113.0/24 for 2 h (open proxy); 2 people from there disconnected"
    )
    for line in (ann, neighbour):
        notice, closing = line.take()[-2:]
        assert notice["text"] == (
            "203.0.113.0/24, where you come from, is banned by root (open proxy) for 2 h more, until 2023-11-15 00:13 UTC; ask root"
        )
        assert closing == {"type": "closing", "code": "forbidden"}
        assert line.ended
    assert not phone.ended
    assert not bob.ended
    for come in (lambda: house.log_in("bob", host="203.0.113.200"), lambda: house.register("new", host="::ffff:cb00:7101")):
        with pytest.raises(ChatError) as caught:
            come()
        assert caught.value.code == "forbidden"
        assert "203.0.113.0/24, where you come from, is banned by root (open proxy)" in caught.value.message
        assert caught.value.message.endswith("; ask root")
    house.log_in("ann", host="203.0.114.1")
    assert logged(house) == (
        "root",
        "ban",
        None,
        False,
        "open proxy",
        None,
        f'{{"network":"203.0.113.0/24","until":{house.now_ms + 2 * H}}}',
    )
    assert "203.0.113.0/24: banned by root (open proxy), for 2 h more" in told(house, root, "banned-users")
    assert told(house, root, "unban 203.0.113.44/24") == "whoever comes from 203.0.113.0/24 may come again"
    house.log_in("ann", host="203.0.113.7")
    assert refused(house, root, "unban 203.0.113.0/24")[0] == "bad_request"


def test_a_session_from_there_is_not_resumed_but_is_from_elsewhere(house, root, ann):
    told(house, root, "ban 203.0.113.7")
    (stored,) = [session for session in house.writer.load().sessions if session.account == ann.account]
    rows = house.writer._db.execute("SELECT token_hash FROM tokens WHERE session = ?", (stored.session,)).fetchone()
    back = Line("203.0.113.7")
    house.ask(back, it.ResumeVerified(id=1, account=ann.account, session=stored.session, token_hash=rows[0]))
    assert back.refused.code == "forbidden"
    back = Line("198.51.100.3")
    house.ask(back, it.ResumeVerified(id=1, account=ann.account, session=stored.session, token_hash=rows[0]))
    assert back.refused is None
    assert back.replaying is not None


def test_ipv6_counts_by_64(house, root):
    told(house, root, "ban 2001:DB8:0:1::5 1h")
    for host in ("2001:db8:0:1::5", "2001:db8:0:1:ffff::1"):
        with pytest.raises(ChatError):
            house.register("new", host=host)
    house.register("new", host="2001:db8:0:2::5")


def test_an_address_ban_ends_by_itself_after_a_restart(house, root):
    told(house, root, "ban 203.0.113.7 1h")
    wait(house, H - 1)
    house.load()
    with pytest.raises(ChatError):
        house.register("new", host="203.0.113.7")
    wait(house, 1)
    house.register("new", host="203.0.113.7")
    assert logged(house)[:2] == ("server", "ban-over")


def test_admins_are_left_alone_and_nobody_bans_where_they_are(house, root, ann):
    told(house, root, "set-user-perm ann admin", None)
    told(house, root, "ban 203.0.113.0/24")
    assert not ann.ended
    house.log_in("ann", host="203.0.113.9")
    code, message = refused(house, ann, "ban 203.0.0.0/16")
    assert code == "bad_request"
    assert "your own connection comes from 203.0.113" in message
    assert "this machine itself" in refused(house, ann, "ban 127.0.0.1")[1]
    assert "too wide" in refused(house, ann, "ban 200.0.0.0/6")[1]
    assert refused(house, ann, "ban 203.0.113.300")[0] == "not_found", "no address, and nobody's name"


def test_a_person_whose_name_is_an_address(house, root):
    odd = house.register("203.0.113.9")
    told(house, root, "ban 203.0.113.9")
    assert not odd.ended
    told(house, root, "ban @203.0.113.9")
    assert odd.ended


# ---------------------------------------------------------------- preview


async def test_preview_by_network(house, root, ann, bob):
    house.register("carl", host="203.0.113.50").ended = True
    carl = house.state.find_account("carl").id
    for session in [each for each in house.desk.sessions.values() if each.account == carl]:
        house.manager.gone(session.link)
    wait(house, 2 * 86_400_000)
    assert await told_later(house, root, "ban --preview 203.0.113.0/24") == (
        "a ban of 203.0.113.0/24 would hit\n  1 person here now: ann (203.0.113.7)\n  1 person who came in the last 30 days: carl (2 d ago)"
    )
    assert not ann.ended
    assert len(house.state.address_bans) == 0
    assert await told_later(house, root, "ban --preview 198.51.100.1") == "a ban of 198.51.100.1 would hit nobody"
    told(house, root, "set-user-perm ann admin", None)
    answer = await told_later(house, ann, "ban --preview 203.0.113.7")
    assert "ann, admin: an address ban leaves them alone (203.0.113.7)" in answer
    assert answer.endswith("WARNING: you are among them")


async def test_preview_by_name(house, root):
    for name in ("spam1", "spam2", "Spamela", "eggs"):
        house.register(name, host="203.0.113.50")
    answer = await house.command_async(root, "ban --preview SPAM?", "lobby")
    assert sorted(each["user"] for each in answer["data"]["now"]) == ["spam1", "spam2"]
    assert not answer["data"]["yourself"]
    answer = await house.command_async(root, "ban --preview *", "lobby")
    assert answer["data"]["yourself"]
