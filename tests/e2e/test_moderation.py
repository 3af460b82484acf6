"""Bans and mutes against the real process: within their second, over a kill, and until their time is over."""

import contextlib
import json
import re
import sqlite3
import subprocess
import sys
import time

import pytest
import trio

from tests.e2e import elsewhere
from tests.e2e.guests import PASSWORD, Guest, errors_in_log
from tests.e2e.server import GENEROUS, Server

pytestmark = pytest.mark.xdist_group("e2e-moderation")

WITHIN_S = 1.0
AWAY = "127.0.0.7"  # which is 203.0.113.7 to this server


@pytest.fixture
async def server(tmp_path):
    server = Server(tmp_path / "data", command=elsewhere.command(), settings=GENEROUS)
    try:
        await server.start()
        yield server
        assert errors_in_log(server) == []
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 20):
            await server.kill()


@contextlib.asynccontextmanager
async def owner_of(server):
    invite = re.search(r"#[\w-]+/([0-9a-z-]+)", server.lines[0] + server.lines[1])[1]
    async with await Guest.connect(server) as owner:
        await owner.hello()
        owner.opened = await owner.ask("register", username="owner", password=PASSWORD, invite=invite)
        yield owner


async def come(server, how, *args):
    """From away, over TLS, as who is not on the machine must."""
    return await getattr(Guest, how)(server, *args, tls=True, source=AWAY)


async def told(owner, text, channel=None):
    answer = await owner.ask("command", text=text, **({"channel": channel} if channel else {}))
    assert answer["type"] == "result", answer
    return answer["text"]


async def ends_in_time(guest, code):
    with trio.fail_after(WITHIN_S):
        *before, last = await guest.to_the_end()
    assert last == {"type": "closing", "code": code}
    return before


def verify(server, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "chat", "audit", "verify", "--data-dir", str(server.data_dir), *arguments], capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


async def test_a_ban_with_an_end(server):
    async with owner_of(server) as owner, await Guest.register(server, "rude") as here:
        await told(owner, "ban rude 2h swearing")
        before = await ends_in_time(here, "unauthorized")
        (notice,) = [each for each in before if each["type"] == "notice"]
        assert "by owner (swearing) for 2 h more" in notice["text"]
        (removed,) = [each for each in before if each["type"] == "removed"]
        assert removed["reason"].startswith("banned by owner until ")
    await server.kill()
    await server.start()
    async with await Guest.login(server, "RUDE") as late:
        assert late.opened["code"] == "forbidden"
        said = r"banned from this server by owner \(swearing\) for (2 h|1 h 59 min) more, until .* UTC; ask owner$"
        assert re.search(said, late.opened["message"])
    await server.kill()
    with contextlib.closing(sqlite3.connect(server.data_dir / "chat.db")) as db, db:  # two hours pass, while nobody is there
        assert db.execute("UPDATE bans SET until_ms = ?", (time.time_ns() // 1_000_000,)).rowcount == 1
    await server.start()
    async with await Guest.login(server, "rude") as back:
        assert back.opened["type"] == "session"
        if not back.opened["channels"]:  # it came before the first tick
            await back.until_type("heads")
        assert (await back.say("lobby", "sorry"))["type"] == "ack"


async def test_an_address_is_shut_out_at_once_over_a_kill_and_let_in_again(server):
    async with owner_of(server) as owner, await come(server, "register", "ann") as ann, await Guest.register(server, "bob"):
        preview = await told(owner, "ban --preview 203.0.113.0/24")
        assert "1 person here now: ann (203.0.113.7)" in preview
        assert "127.0.0.1 includes" in (await owner.ask("command", text="ban 127.0.0.1"))["message"]
        assert (await told(owner, "ban 203.0.113.0/24 1h proxy")).endswith("1 person from there disconnected")
        (notice,) = [each for each in await ends_in_time(ann, "forbidden") if each["type"] == "notice"]
        assert "203.0.113.0/24, where you come from, is banned by owner (proxy) for 1 h more" in notice["text"]
        for restarted in (False, True):
            if restarted:
                await server.kill()
                await server.start()
            for attempt in (("login", "ann"), ("login", "bob"), ("register", "new"), ("resume", ann.token)):
                async with await come(server, *attempt) as refused:
                    assert refused.opened["code"] == "forbidden", attempt
                    assert "203.0.113.0/24, where you come from, is banned by owner (proxy)" in refused.opened["message"]
                    assert refused.opened["message"].endswith("; ask owner")
        async with await Guest.resume(server, ann.token) as moved:
            assert moved.opened["type"] == "resumed", "from elsewhere the same session goes on"
    async with await Guest.login(server, "owner") as owner:
        await told(owner, "unban 203.0.113.0/24")
        async with await come(server, "login", "ann") as back:
            assert back.opened["type"] == "session"


async def test_kick_mute_and_channel_ban_while_they_type(server):
    async with owner_of(server) as owner, await Guest.register(server, "loud") as loud, await Guest.login(server, "loud") as phone:
        await told(owner, "mute loud 1h caps", "lobby")
        refused = await loud.say("lobby", "HELLO")
        assert (refused["code"], "muted in #lobby by owner (caps)" in refused["message"]) == ("forbidden", True)
        assert "in force: you are muted" in (await loud.ask("command", text="why", channel="lobby"))["text"]
        await told(owner, "channel-ban loud 1h still", "lobby")
        for session in (loud, phone):
            assert (await session.until_type("removed"))["reason"].endswith(": still")
        assert (await phone.ask("join", channel="lobby"))["code"] == "forbidden"
        await told(owner, "channel-unban loud", "lobby")
        assert (await phone.ask("join", channel="lobby"))["type"] == "ok"
        assert (await phone.say("lobby", "hello"))["code"] == "forbidden", "the mute outlived it"


async def test_the_log_is_verified_while_the_server_runs(server):
    async with owner_of(server) as owner, await Guest.register(server, "bob"):
        await told(owner, "kick bob noise", "lobby")
        status, said = verify(server)
        assert (status, "1 entry." in said) == (0, True)
        head = re.search(r"head ([0-9a-f]{64})", said)[1]
        await told(owner, "ban bob")
        answer = await owner.ask("command", text="audit bob")
        assert [each["action"] for each in answer["data"]] == ["ban", "kick"]
        assert json.dumps(answer["data"]).count("noise") == 1
        status, said = verify(server, "--head", head)
        assert (status, "that of entry 1" in said) == (0, True)
        assert verify(server, "--head", "0" * 63 + "1")[0] == 1
