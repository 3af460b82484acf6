"""What a stranger may do, and what he may learn: deadlines, caps, rates, TLS, and channels that he is not to know of."""

import contextlib
import re

import pytest
import trio

from tests.e2e.guests import Guest, errors_in_log, serving, shared

pytestmark = pytest.mark.xdist_group("e2e-limits")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    yield from shared(tmp_path_factory.mktemp("limits"))


# ---------------------------------------------------------------- deadlines


async def test_who_is_silent_is_pinged_and_then_closed_and_who_answers_stays(tmp_path):
    limits = {"limits.idle_ping_s": "0.5", "limits.idle_close_s": "3"}
    async with (
        serving(tmp_path, limits) as server,
        await Guest.register(server, "silent", tls=True) as silent,
        await Guest.register(server, "awake") as awake,
        trio.open_nursery() as nursery,
    ):
        answered = []

        async def answer():
            while True:
                ping = await awake.until_type("ping")
                await awake.send({"type": "pong", "id": ping["id"]})
                answered.append(ping)

        nursery.start_soon(answer)
        began = trio.current_time()
        heard = await silent.to_the_end()
        assert 2.5 <= trio.current_time() - began < 6
        assert [m["type"] for m in heard if m["type"] != "presence"] == ["ping", "closing"]
        assert heard[-1] == {"type": "closing", "code": "timeout"}
        assert len(answered) >= 2
        nursery.cancel_scope.cancel()
        assert "closing" not in {m["type"] for m in awake.received}
    assert errors_in_log(server) == []


async def test_who_does_not_log_in_or_say_anything_is_closed(tmp_path):
    limits = {"limits.login_s": "1", "limits.handshake_s": "0.5"}
    async with serving(tmp_path, limits) as server, await Guest.register(server, "inside") as inside:
        async with await Guest.connect(server) as plain, await Guest.connect(server, tls=True) as encrypted:
            for guest in (plain, encrypted):
                await guest.hello()
            for guest in (plain, encrypted):
                assert await guest.to_the_end() == [{"type": "closing", "code": "timeout"}]
        for first in (b"", b"\x16\x03\x01\x02\x00\x01\x00"):  # nothing; half of a TLS hello
            async with await Guest.connect(server) as guest:
                await guest.stream.send_all(first) if first else None
                began = trio.current_time()
                with trio.fail_after(5):
                    assert await guest.stream.receive_some() == b""
                assert trio.current_time() - began < 3
        await inside.ping()


async def test_twenty_requests_to_log_in(server):
    async with await Guest.connect(server) as guest:
        await guest.hello()
        for n in range(19):
            answer = await guest.ask("login", username="nobody", password=f"guess {n:03}")
            assert answer["code"] == "unauthorized"
        await guest.send({"type": "login", "id": "one more", "username": "nobody", "password": "guess 999"})
        assert await guest.to_the_end() == [{"type": "closing", "code": "timeout"}]


# ---------------------------------------------------------------- caps and rates


async def test_connections_of_an_address_are_counted_unless_loopback_is_exempt(tmp_path):
    limits = {"limits.exempt_loopback": "false", "limits.connections_per_address": "3"}
    async with serving(tmp_path, limits) as server, contextlib.AsyncExitStack() as stack:
        guests = [await stack.enter_async_context(await Guest.connect(server)) for _ in range(3)]
        for guest in guests:
            await guest.hello()
        async with await Guest.connect(server) as one_too_many:
            await one_too_many.send({"type": "hello", "protocol": 1, "client": "x"})
            (busy,) = await one_too_many.to_the_end()
            assert (busy["type"], busy["code"]) == ("error", "busy")
            assert busy["retry_after"] > 0
        async with await Guest.connect(server, source="127.0.0.2") as elsewhere:
            await elsewhere.hello()
        await guests[0].aclose()
        with trio.fail_after(5):
            while True:
                async with await Guest.connect(server) as next_one:
                    await next_one.send({"type": "hello", "protocol": 1, "client": "x"})
                    first = await next_one.until(lambda m: True)
                    if first["type"] == "welcome":
                        break


async def test_registrations_of_an_address_are_counted(tmp_path):
    limits = {"limits.exempt_loopback": "false", "limits.registrations_per_h": "2"}
    async with serving(tmp_path, limits) as server:
        for name, code in (("first", None), ("first", "name_taken"), ("second", None), ("third", "rate_limited")):
            async with await Guest.register(server, name) as guest:
                assert guest.opened.get("code") == code
        assert guest.opened["retry_after"] > 60
        async with await Guest.register(server, "third", source="127.0.0.2") as guest:
            assert guest.opened["type"] == "session"


async def test_wrong_passwords_are_counted_and_a_right_one_waits_too(tmp_path):
    limits = {"limits.exempt_loopback": "false", "limits.wrong_logins_per_min": "3"}
    async with serving(tmp_path, limits) as server, await Guest.register(server, "guarded") as guarded:
        for n in range(3):
            async with await Guest.login(server, "guarded", password=f"guess number {n}") as guest:
                assert guest.opened["code"] == "unauthorized"
        async with await Guest.login(server, "guarded") as guest:
            assert guest.opened["code"] == "rate_limited"
            assert 0 < guest.opened["retry_after"] <= 60
        async with await Guest.login(server, "guarded", source="127.9.9.9") as guest:  # another network: nobody is locked out
            assert guest.opened["type"] == "session"
        await guarded.ping()


async def test_too_many_texts_are_refused_one_by_one_and_none_is_dropped(tmp_path):
    limits = {"limits.sends_burst": "5", "limits.sends_per_s": "2"}
    async with serving(tmp_path, limits) as server, await Guest.register(server, "eager") as eager:
        await eager.send(*({"type": "send", "id": n, "cid": f"c{n}", "channel": "lobby", "text": "x"} for n in range(30)))
        answers = [await eager.until(lambda m, n=n: m.get("id") == n) for n in range(30)]
        acks = [a for a in answers if a["type"] == "ack"]
        refused = [a for a in answers if a["type"] == "error"]
        assert 5 <= len(acks) <= 7
        assert {a["code"] for a in refused} == {"rate_limited"}
        assert all(0 < a["retry_after"] <= 5 for a in refused)
        retry = await eager.say("lobby", "x", acks[0]["cid"])  # a retry is no new text
        assert retry["dup"] is True
        assert (await eager.ask("history", conv="#lobby", limit=50))["last_seq"] == len(acks)


async def test_texts_of_the_limit_are_stored_as_they_are(server):
    async with await Guest.register(server, "verbatim") as guest:
        for n, text in enumerate(("x" * 16384, "\u2028\uffff\u200d\n\t<b>\\", "é" * 8192, " ", "\\//x", "\U0001f4a5")):
            assert (await guest.say("lobby", text, f"v{n}"))["type"] == "ack"
            page = await guest.ask("history", conv="#lobby", limit=1)
            assert page["messages"][0]["text"] == ("//x" if n == 4 else text)
        await guest.stream.send_all(b'{"type":"send","id":"cr","cid":"cr","channel":"lobby","text":"with a CR before the end"}\r\n')
        assert (await guest.until(lambda m: m.get("id") == "cr"))["type"] == "ack"


# ---------------------------------------------------------------- TLS


async def test_plaintext_is_refused_before_anything_is_parsed_where_it_is_not_allowed(tmp_path):
    async with serving(tmp_path, {"listen.plaintext": "never"}) as server:
        async with await Guest.connect(server) as guest:
            await guest.stream.send_all(b"{ this is not even JSON")
            (answer,) = await guest.to_the_end()
            assert (answer["type"], answer["code"]) == ("error", "tls_required")
        async with await Guest.register(server, "careful", tls=True) as guest:
            assert (await guest.say("lobby", "over TLS"))["type"] == "ack"


async def test_tls_in_plain_in_tls_is_nothing(server):
    async with await Guest.connect(server, tls=True) as guest:
        await guest.stream.send_all(b"\x16\x03\x01\x00\x05hello")
        assert await guest.to_the_end() == []


# ---------------------------------------------------------------- what is hidden

ASKING = [
    {"type": "join", "channel": "NAME"},
    {"type": "join", "channel": "NAME", "password": "a wrong password"},
    {"type": "leave", "channel": "NAME"},
    {"type": "members", "channel": "NAME"},
    {"type": "commands", "channel": "NAME"},
    {"type": "send", "channel": "NAME", "cid": "CID", "text": "is anybody there?"},
    {"type": "history", "conv": "#NAME", "limit": 1},
    {"type": "read", "conv": "#NAME", "seq": 1},
    *(
        {"type": "command", "text": text}
        for text in ("join-channel NAME", "join-channel NAME a-wrong-password", "delete-channel NAME", "channels", "help", "perm")
    ),
    *(
        {"type": "command", "channel": "NAME", "text": text}
        for text in ("topic", "topic mine now", "users", "leave-channel", "user-count", "perm")
    ),
    {"type": "command", "channel": "NAME", "text": "set-user-perm curious owner"},
    {"type": "send", "channel": "NAME", "cid": "CID", "text": "//topic"},
]


async def test_a_private_channel_and_an_absent_one_answer_alike(server):
    """Byte by byte, but for the id and the name that was asked for."""
    async with await Guest.register(server, "hider") as hider, await Guest.register(server, "curious") as curious:
        made = await hider.ask("command", text="create-channel vault1 open-sesame")
        assert made["type"] == "result"
        await hider.say("vault1", "a secret")
        for number, request in enumerate(ASKING):
            answers = []
            for name in ("vault1", "vault2"):
                id = f"{number}-{name}"
                filled = {k: v.replace("NAME", name).replace("CID", id) if isinstance(v, str) else v for k, v in request.items()}
                await curious.send({**filled, "id": id})
                answer = dict(await curious.until(lambda m, id=id: m.get("id") == id))
                answers.append(re.sub(rf"{id}|{name}", "…", repr(answer)))
            assert answers[0] == answers[1], request
            assert "vault1" not in answers[0]
        await curious.ping()
        assert {m.get("conv") for m in curious.received} <= {None, "#lobby"}
        assert (await curious.ask("join", channel="vault1", password="open-sesame"))["type"] == "ok"
        assert (await hider.until_type("joined"))["user"] == "curious"
        page = await curious.ask("history", conv="#vault1", limit=10)
        assert "a secret" in [m.get("text") for m in page["messages"]]


async def test_a_resume_tells_nothing_of_a_private_channel(server):
    async with await Guest.register(server, "hider2") as hider, await Guest.register(server, "curious2") as curious:
        await hider.ask("command", text="create-channel cellar1 open-sesame")
        epoch = hider.opened["heads"]["#lobby"][0]
        cursors = {"#cellar1": [epoch, 1], "#cellar2": [epoch, 1]}
        async with await Guest.resume(server, curious.token, cursors) as back:
            told = [{k: v for k, v in m.items() if k != "conv"} for m in back.received if m.get("conv") in cursors]
            assert told == [{"type": "removed"}, {"type": "removed"}]
            assert [c["channel"] for c in back.opened["channels"]] == ["lobby"]


async def test_no_bug_was_logged(server):
    assert errors_in_log(server) == []
