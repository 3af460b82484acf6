"""Sessions against the real process: several at once, resume, tokens, revocation, presence."""

import contextlib
import re

import pytest
import trio

from tests.e2e.guests import PASSWORD, Guest, errors_in_log, serving, shared, texts

pytestmark = pytest.mark.xdist_group("e2e-sessions")

WITHIN_S = 1.0  # contract, section 4: revocation


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    yield from shared(tmp_path_factory.mktemp("sessions"))


def owner_invite(server):
    return re.search(r"#[\w-]+/([0-9a-z-]+)", server.lines[0] + server.lines[1])[1]


async def closed_in_time(guest, *, code="unauthorized"):
    """Its connection ends within a second, and `closing` is the last word. Returns what came before, but for news of others."""
    with trio.fail_after(WITHIN_S):
        *before, last = await guest.to_the_end()
    assert last == {"type": "closing", "code": code}
    return [m for m in before if m["type"] not in ("presence", "heads")]


# ---------------------------------------------------------------- several sessions


async def test_every_other_session_of_the_account_gets_the_notice_and_the_sender_its_ack(server):
    async with (
        await Guest.register(server, "annie") as here,
        await Guest.login(server, "annie", tls=True) as there,
        await Guest.register(server, "annies-friend") as friend,
    ):
        ack = await here.say("lobby", "from here", "annie-1")
        at_home, at_friends = await there.until_type("message"), await friend.until_type("message")
        assert at_home == at_friends
        assert (at_home["from"], at_home["text"], at_home["seq"], at_home["ts"]) == ("annie", "from here", ack["seq"], ack["ts"])
        retry = await there.say("lobby", "from here", "annie-1")
        assert (retry["seq"], retry["ts"], retry["dup"]) == (ack["seq"], ack["ts"], True)
        await here.ping()
        assert [m for m in here.received if m["type"] == "message"] == []
        listed = (await there.ask("sessions"))["data"]
        assert sorted((s["online"], s["current"]) for s in listed) == [(True, False), (True, True)]
        assert {s["session"] for s in listed} == {here.opened["session"], there.opened["session"]}


async def test_default_channels_are_there_at_registration_and_after_a_login(server):
    async with await Guest.register(server, "newcomer") as first, await Guest.login(server, "newcomer") as second:
        for guest in (first, second):
            assert [c["channel"] for c in guest.opened["channels"]] == ["lobby"]
            assert set(guest.opened["heads"]) == {"#lobby"}


# ---------------------------------------------------------------- resume


async def test_a_resume_from_another_address_keeps_name_and_membership_and_fences_the_old_connection(server):
    async with (
        await Guest.register(server, "roamer") as old,
        await Guest.register(server, "stayer") as stayer,
    ):
        await stayer.ask("command", text="create-channel roaming")
        await old.ask("join", channel="roaming")
        await stayer.until_type("joined")
        epoch = old.opened["heads"]["#lobby"][0]
        first = await stayer.say("lobby", "you have this")
        mine = await old.say("lobby", "this is mine")
        await stayer.say("lobby", "you lack this")
        cursors = {"#lobby": [epoch, mine["seq"]]}
        start = len(stayer.received)
        async with await Guest.resume(server, old.token, cursors, source="127.0.0.2") as new:
            assert (await old.to_the_end())[-1] == {"type": "replaced"}
            assert texts(old.received) == ["you have this", "you lack this"]
            assert (new.opened["type"], new.opened["user"], new.opened["session"]) == ("resumed", "roamer", old.opened["session"])
            assert {c["channel"] for c in new.opened["channels"]} == {"lobby", "roaming"}
            replayed = [m for m in new.received if m["type"] == "message"]
            assert [(m["text"], m.get("cid")) for m in replayed] == [("this is mine", mine["cid"]), ("you lack this", None)]
            assert replayed[0]["seq"] == first["seq"] + 1
            await new.say("roaming", "still a member")
            assert (await stayer.until(lambda m: m.get("text") == "still a member"))["from"] == "roamer"
            with contextlib.suppress(OSError, trio.BrokenResourceError, EOFError):  # the socket is closed, sooner or later that is seen
                await old.send(*({"type": "send", "id": n, "cid": f"ghost-{n}", "channel": "lobby", "text": "a ghost"} for n in range(50)))
            row = next(s for s in (await new.ask("sessions"))["data"] if s["current"])
            assert (row["address"], row["online"]) == ("127.0.0.2", True)
            await stayer.ping()
        assert {m["type"] for m in stayer.received[start:]} <= {"message", "pong", "ping", "heads"}  # no part, no join, no presence
        page = await stayer.ask("history", conv="#lobby", limit=500)
        assert "a ghost" not in texts(page["messages"])


async def test_what_was_on_its_way_over_the_old_connection_is_stored_once(server):
    """Texts pour into the old connection while the session is resumed on another; what has no ack is sent again there."""
    async with await Guest.register(server, "hasty") as old:
        requests = [{"type": "send", "id": n, "cid": f"hasty-{n}", "channel": "lobby", "text": f"hasty {n}"} for n in range(400)]
        async with trio.open_nursery() as nursery:

            async def pour():
                try:
                    for at in range(0, len(requests), 20):
                        await old.send(*requests[at : at + 20])
                        await trio.lowlevel.checkpoint()
                except (OSError, trio.BrokenResourceError):
                    pass

            nursery.start_soon(pour)
            await old.until_type("ack")
            new = await Guest.resume(server, old.token, {"#lobby": old.opened["heads"]["#lobby"]})
            heard = await old.to_the_end()
        async with new:
            assert heard[-1] == {"type": "replaced"}
            acked = {m["cid"] for m in old.received if m["type"] == "ack"}
            again = [request for request in requests if request["cid"] not in acked]
            await new.send(*again)
            for request in again:
                assert (await new.until(lambda m, cid=request["cid"]: m.get("cid") == cid and m["type"] != "message"))["type"] == "ack"
            page = await new.ask("history", conv="#lobby", limit=500)
            assert sorted(t for t in texts(page["messages"]) if t.startswith("hasty ")) == sorted(r["text"] for r in requests)


async def test_requests_before_resumed_are_refused(server):
    async with await Guest.register(server, "pusher") as old:
        token = old.token
    async with await Guest.connect(server) as guest:
        await guest.send(
            {"type": "hello", "protocol": 1, "client": "x"},
            {"type": "resume", "id": 1, "token": token, "cursors": {}},
            {"type": "send", "id": 2, "cid": "too-early", "channel": "lobby", "text": "too early"},
            {"type": "history", "id": 3, "conv": "#lobby", "limit": 1},
            {"type": "ping", "id": 4},
        )
        answers = {n: await guest.until(lambda m, n=n: m.get("id") == n) for n in (2, 3)}
        assert {(answer["type"], answer["code"]) for answer in answers.values()} == {("error", "unauthorized")}
        guest.looked = 0
        assert (await guest.until(lambda m: m.get("id") == 1))["type"] == "resumed"
        guest.looked = 0
        assert (await guest.until(lambda m: m.get("id") == 4))["type"] == "pong"
        ack = await guest.say("lobby", "in time", "too-early")  # the cid was not used up
        assert ack["type"] == "ack"
        assert "dup" not in ack


async def test_a_resume_tells_what_cannot_be_replayed(server):
    async with await Guest.register(server, "behind") as old, await Guest.register(server, "talker") as talker:
        await talker.ask("command", text="create-channel busy")
        joined = await old.ask("join", channel="busy")
        await talker.send(*({"type": "send", "id": n, "cid": f"busy-{n}", "channel": "busy", "text": str(n)} for n in range(502)))
        await talker.until(lambda m: m.get("cid") == "busy-501")
        head = joined["seq"] + 502
        cursors = {
            "#busy": [joined["epoch"], joined["seq"] + 1],
            "#lobby": ["x" * 10, 1],
            "#nowhere": ["x" * 10, 1],
            "@talker": ["x" * 10, 1],
        }
        async with await Guest.resume(server, old.token, cursors) as new:
            by_type = {m["type"]: m for m in new.received}
            assert {m["conv"] for m in new.received if m["type"] == "removed"} == {"#nowhere", "@talker"}
            assert by_type["gap"] == {"type": "gap", "conv": "#busy", "after": joined["seq"], "before": head + 1}
            assert by_type["history_reset"]["conv"] == "#lobby"
            assert texts(new.received) == []
            assert new.opened["heads"]["#busy"] == [joined["epoch"], head]
        ahead = {"#busy": [joined["epoch"], head + 2]}
        async with await Guest.resume(server, new.token, ahead) as new:
            assert [m["conv"] for m in new.received if m["type"] == "history_reset"] == ["#busy"]
        exactly = {"#busy": [joined["epoch"], head - 499]}
        async with await Guest.resume(server, new.token, exactly) as new:
            assert texts(new.received) == [str(n) for n in range(2, 502)]


# ---------------------------------------------------------------- tokens


FIRST_FRAMES = {
    "a text": {"type": "send", "id": "x", "cid": "first", "channel": "lobby", "text": "hi"},
    "a ping": {"type": "ping", "id": "x"},
    "a pong": {"type": "pong", "id": "x"},
    "a list": {"type": "sessions", "id": "x"},
    "a page": {"type": "history", "id": "x", "conv": "#lobby", "limit": 1},
    "nonsense": {"type": "nonsense", "id": "x"},
}


@pytest.mark.parametrize("frame", FIRST_FRAMES)
async def test_an_old_token_is_good_until_the_first_frame_after_resumed_and_then_revokes_the_session(server, frame):
    name = f"rotating-{list(FIRST_FRAMES).index(frame)}"
    async with await Guest.register(server, name) as first:
        token = first.token
    async with await Guest.resume(server, token) as lost:  # its answer is lost, as far as the server knows
        pass
    async with await Guest.resume(server, token) as second, await Guest.login(server, name) as bystander:
        assert second.opened["type"] == "resumed", second.opened
        assert len({token, lost.token, second.token}) == 3
        await second.send(FIRST_FRAMES[frame])
        await second.ping()
        async with await Guest.resume(server, token) as thief:
            assert (thief.opened["type"], thief.opened["code"]) == ("error", "unauthorized")
            await closed_in_time(second)
        async with await Guest.resume(server, second.token) as late:
            assert late.opened["code"] == "unauthorized"
        await bystander.ping()  # another session of the account is another matter
    async with await Guest.login(server, name) as again:
        assert again.opened["type"] == "session"


async def test_tokens_hold_over_a_kill_and_garbage_is_nobodys(tmp_path):
    async with serving(tmp_path) as server:
        async with await Guest.register(server, "keeper") as guest:
            old, _ = guest.token, await guest.say("lobby", "before the end")
        async with await Guest.resume(server, old) as guest:
            new = guest.token
            await guest.ping()
        await server.kill()
        await server.start()
        for token in ("", "x", "é" * 50, new[:-1], new + "x"):
            async with await Guest.resume(server, token) as stranger:
                assert stranger.opened["code"] == "unauthorized"
        async with await Guest.resume(server, new, {"#lobby": [guest.opened["heads"]["#lobby"][0], 1]}) as guest:
            assert texts(guest.received) == ["before the end"]
            await guest.ping()
            async with await Guest.resume(server, old) as thief:
                assert thief.opened["code"] == "unauthorized"
            await closed_in_time(guest)


# ---------------------------------------------------------------- revocation


async def test_a_new_password_closes_the_other_sessions(server):
    async with (
        await Guest.register(server, "careful") as here,
        await Guest.login(server, "careful") as there,
        await Guest.login(server, "careful", tls=True) as elsewhere,
    ):
        wrong = await here.ask("password", old="not this one", new="another one entirely")
        assert (wrong["type"], wrong["code"]) == ("error", "forbidden")
        done = await here.ask("password", old=PASSWORD, new="another one entirely")
        assert done["type"] == "ok"
        await closed_in_time(there)
        await closed_in_time(elsewhere)
        assert (await here.say("lobby", "I stay"))["type"] == "ack"
        for token in (there.token, elsewhere.token):
            async with await Guest.resume(server, token) as late:
                assert late.opened["code"] == "unauthorized"
        async with await Guest.login(server, "careful") as late:
            assert late.opened["code"] == "unauthorized"
        async with await Guest.login(server, "careful", password="another one entirely") as late:
            assert late.opened["type"] == "session"


async def test_logging_out_everywhere_closes_all_and_plain_logging_out_one(server):
    async with (
        await Guest.register(server, "leaving") as first,
        await Guest.login(server, "leaving") as second,
        await Guest.login(server, "leaving") as third,
    ):
        await first.send({"type": "logout", "id": "bye"})
        (answer,) = await closed_in_time(first)
        assert (answer["type"], answer["id"]) == ("ok", "bye")
        await second.ping()
        await second.send({"type": "logout", "id": "all", "everywhere": True})
        (answer,) = await closed_in_time(second)
        assert (answer["type"], answer["id"]) == ("ok", "all")
        await closed_in_time(third)
        for guest in (first, second, third):
            async with await Guest.resume(server, guest.token) as late:
                assert late.opened["code"] == "unauthorized"


async def test_a_ban_closes_every_session_and_holds_over_a_kill(tmp_path):
    async with serving(tmp_path) as server:
        async with (
            await Guest.connect(server) as owner,
            await Guest.register(server, "rude") as here,
            await Guest.login(server, "rude", tls=True) as there,
        ):
            await owner.hello()
            owner.opened = await owner.ask("register", username="owner", password=PASSWORD, invite=owner_invite(server))
            # more texts than are decided before the ban is: none is stored behind it
            await here.send(*({"type": "send", "id": n, "cid": f"r{n}", "channel": "lobby", "text": "rude"} for n in range(300)))
            banned = await owner.ask("command", text="ban rude swearing")
            assert banned["type"] == "result", banned
            last = (await owner.ask("history", conv="#lobby", limit=1))["last_seq"]
            heard = await closed_in_time(here)
            await closed_in_time(there)
            assert max((m["seq"] for m in heard if m["type"] == "ack"), default=0) <= last
            assert (await owner.ask("history", conv="#lobby", limit=1))["last_seq"] == last
        for restarted in (False, True):
            if restarted:
                await server.kill()
                await server.start()
            async with await Guest.login(server, "rude") as late:
                assert (late.opened["type"], late.opened["code"]) == ("error", "forbidden")
            async with await Guest.resume(server, here.token) as late:
                assert (late.opened["type"], late.opened["code"]) in (("error", "unauthorized"), ("error", "forbidden"))
        async with await Guest.login(server, "owner") as owner:
            refused = await owner.ask("send", to="rude", text="are you there?", cid="to-rude")
            assert refused["code"] == "not_found"
            assert (await owner.ask("command", text="unban rude"))["type"] == "result"
            async with await Guest.login(server, "rude") as back:
                assert [c["channel"] for c in back.opened["channels"]] == ["lobby"]


# ---------------------------------------------------------------- who is not there


async def test_private_messages_reach_who_is_offline(server):
    async with await Guest.register(server, "away") as away:
        pass
    async with await Guest.register(server, "writer") as writer:
        for n in range(3):
            ack = await writer.ask("send", to="away", text=f"letter {n}", cid=f"letter-{n}")
            assert (ack["type"], ack["conv"], ack["seq"]) == ("ack", "@away", n + 1)
        async with await Guest.resume(server, away.token) as resumed:
            assert resumed.opened["heads"]["@writer"][1] == 3
        async with await Guest.login(server, "away") as away:
            epoch, head = away.opened["heads"]["@writer"]
            assert (epoch, head) == (ack["epoch"], 3)
            page = await away.ask("history", conv="@writer", limit=10)
            assert [(m["from"], m["conv"], m["text"]) for m in page["messages"]] == [("writer", "@writer", f"letter {n}") for n in range(3)]
            assert (await away.ask("send", to="writer", text="thanks", cid="thanks"))["seq"] == 4
            notice = await writer.until_type("message")
            assert (notice["conv"], notice["epoch"], notice["seq"], notice["text"]) == ("@away", epoch, 4, "thanks")


async def test_others_see_who_is_gone_after_the_resume_window_and_not_before(tmp_path):
    """Both lose their connection; one comes back: the other's absence, told after the window, is the only one."""
    window_s = 1.5
    limits = {"limits.resume_window_s": str(window_s)}
    async with serving(tmp_path, limits) as server, await Guest.register(server, "watcher") as watcher:
        returning, leaving = await Guest.register(server, "returning"), await Guest.register(server, "leaving")
        await watcher.until(lambda m: m["type"] == "presence" and m["users"].get("leaving"))
        start = len(watcher.received)
        await returning.aclose()
        lost = trio.current_time()
        await leaving.aclose()
        async with await Guest.resume(server, returning.token, source="127.0.0.3"):
            await watcher.until_type("presence")
            gone_s = trio.current_time() - lost
            seen = [m["users"] for m in watcher.received[start:] if m["type"] == "presence"]
            assert seen == [{"leaving": False}]
            assert window_s <= gone_s < window_s + 3.5  # a tick, and presence at most once a second
        assert (await watcher.ask("members", channel="lobby"))["data"][2]["online"] is False
        async with await Guest.login(server, "leaving"):
            assert (await watcher.until_type("presence"))["users"] == {"leaving": True}
        assert {m["type"] for m in watcher.received} & {"joined", "left"} == set()


async def test_after_a_kill_nobody_is_seen_to_come_or_go(tmp_path):
    async with serving(tmp_path) as server:
        guests = [await Guest.register(server, f"guest{n}", tls=n == 1) for n in range(3)]
        await guests[0].ask("command", text="create-channel small")
        for guest in guests[1:]:
            assert (await guest.ask("join", channel="small"))["type"] == "ok"
        ack = await guests[0].say("small", "the last word before")
        await guests[2].until_type("message")
        await server.kill()
        for guest in guests:
            await guest.aclose()
        await server.start()
        back = []
        for guest in guests:
            cursors = {"#small": [ack["epoch"], ack["seq"]], "#lobby": guest.opened["heads"]["#lobby"]}
            back.append(await Guest.resume(server, guest.token, cursors, tls=guest is guests[1]))
        for n, guest in enumerate(back):
            assert guest.opened["user"] == f"guest{n}"
            assert (await guest.say("small", f"back {n}"))["seq"] == ack["seq"] + 1 + n
        for guest in back:
            await guest.ping()
            members = (await guest.ask("members", channel="small"))["data"]
            assert [member["online"] for member in members] == [True, True, True]
            seen = [m["type"] for m in guest.received]
            assert not {"joined", "left", "presence", "removed"} & set(seen)
            await guest.aclose()


async def test_no_bug_was_logged(server):
    assert errors_in_log(server) == []
