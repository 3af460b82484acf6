"""How connections end, against the real process: what was received whole is answered, what was not is never executed."""

import contextlib
import os
import signal
import ssl

import pytest
import trio

from tests.e2e.guests import Guest, errors_in_log, serving, shared, texts

pytestmark = pytest.mark.xdist_group("e2e-endings")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    yield from shared(tmp_path_factory.mktemp("endings"))


async def test_after_a_half_close_everything_received_is_answered(server):
    async with await Guest.register(server, "parting") as guest:
        requests = [{"type": "send", "id": n, "cid": f"p{n}", "channel": "lobby", "text": f"parting {n}"} for n in range(200)]
        requests += [
            {"type": "history", "id": "page", "conv": "#lobby", "limit": 500},
            {"type": "command", "id": "slow", "text": "create-channel parting-gift"},
            {"type": "command", "id": "quick", "text": "users"},
            {"type": "ping", "id": "ping"},
            {"type": "password", "id": "password", "old": "wrong wrong", "new": "does not matter"},
        ]
        await guest.send(*requests)
        await guest.stream.send_all(b'{"type":"send","id":"unfinished","cid":"unfinished","channel":"lobby","text":"unfinished"}')
        await guest.stream.send_eof()
        answers = await guest.to_the_end()
        assert sorted(str(a["id"]) for a in answers if "id" in a) == sorted(str(r["id"]) for r in requests)
        assert [a["id"] for a in answers if a["type"] == "ack"] == list(range(200))
        assert "closing" not in {a["type"] for a in answers}
    async with await Guest.login(server, "parting") as guest:
        page = await guest.ask("history", conv="#lobby", limit=1)
        assert texts(page["messages"]) == ["parting 199"]
        channels = [c["channel"] for c in guest.opened["channels"]]
        assert "parting-gift" in channels


async def test_after_a_close_notify_everything_received_is_answered(server):
    """A TLS client by hand, since no stream offers to go on reading after it has said that it has nothing more to say."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with stream:
        with trio.fail_after(10):
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await stream.send_all(outgoing.read())
                    incoming.write(await stream.receive_some())
            tls.write(
                b'{"type":"hello","protocol":1,"client":"x"}\n{"type":"register","id":1,"username":"notified","password":"correct horse"}\n'
            )
            await stream.send_all(outgoing.read())
            answers = b""
            while b"session" not in answers:
                incoming.write(await stream.receive_some())
                while incoming.pending:
                    try:
                        answers += tls.read()
                    except ssl.SSLWantReadError:
                        break
            lines = [b'{"type":"send","id":%d,"cid":"n%d","channel":"lobby","text":"notified"}\n' % (n, n) for n in range(50)]
            tls.write(b"".join(lines) + b'{"type":"send","id":"unfinished"')
            with pytest.raises(ssl.SSLWantReadError):
                tls.unwrap()
            await stream.send_all(outgoing.read())
            answers = b""
            while chunk := await stream.receive_some():
                incoming.write(chunk)
            try:
                while more := tls.read():
                    answers += more
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                pass
    assert answers.count(b'"ack"') == 50
    assert b"unfinished" not in answers


@pytest.mark.parametrize(
    "part", [b'{"type":"send"', b'{"type":"send","id":1,"cid":"u","channel":"lobby","text":"unfinished"}', b'{"type":"logout","id":1}']
)
async def test_an_unfinished_line_is_never_executed(server, part):
    name = f"cut-{len(part)}"
    async with await Guest.register(server, name) as guest:
        head = (await guest.ask("history", conv="#lobby", limit=1))["last_seq"]
        await guest.stream.send_all(part)
        await guest.stream.send_eof()
        assert await guest.to_the_end() == []
    async with await Guest.resume(server, guest.token) as guest:
        assert guest.opened["type"] == "resumed"
        assert guest.opened["heads"]["#lobby"][1] == head


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_sigterm_answers_what_was_read_says_goodbye_and_exits_with_0(tmp_path, tls):
    async with serving(tmp_path) as server, contextlib.AsyncExitStack() as stack:
        talkers = [await stack.enter_async_context(await Guest.register(server, f"talker{n}", tls=tls)) for n in range(5)]
        idle = await stack.enter_async_context(await Guest.register(server, "idle", tls=tls))
        nobody = await stack.enter_async_context(await Guest.connect(server, tls=tls))
        await nobody.hello()
        for guest in talkers:
            await guest.send(*({"type": "send", "id": n, "cid": f"t{n}", "channel": "lobby", "text": f"{n}"} for n in range(200)))
        await talkers[0].until_type("ack")
        with trio.fail_after(10):
            assert await server.stop() == 0
        acked = {}
        for guest in [*talkers, idle, nobody]:
            *before, last = [*guest.received, *await guest.to_the_end()]
            assert (last["type"], last["code"]) == ("closing", "shutting_down")
            assert last["retry_after"] > 0
            acked[guest] = {m["id"]: m["seq"] for m in before if m["type"] == "ack"}
            assert list(acked[guest]) == list(range(len(acked[guest])))  # in order, no hole: what was read was answered
        await server.start()
        async with await Guest.login(server, "idle") as guest:
            stored = {}
            after = 0
            while len(stored) < (page := await guest.ask("history", conv="#lobby", after=after, limit=500))["last_seq"]:
                for message in page["messages"]:
                    stored[message["seq"]] = message
                    after = message["seq"]
        assert len(stored) == sum(map(len, acked.values()))  # nothing was stored without its answer
        for n, talker in enumerate(talkers):
            for number, seq in acked[talker].items():
                assert (stored[seq]["from"], stored[seq]["text"]) == (f"talker{n}", str(number))
    assert errors_in_log(server) == []


async def test_a_second_sigterm_does_not_wait(tmp_path):
    """Somebody does not read his last words; the second signal ends it, and what was acknowledged is stored."""
    async with serving(tmp_path, {"limits.drain_s": "600"}) as server, await Guest.register(server, "patient") as guest:
        await guest.say("lobby", "kept")
        await guest.send({"type": "history", "id": 1, "conv": "#lobby", "limit": 1})
        os.kill(server.pid(), signal.SIGTERM)
        with trio.fail_after(10):
            assert await server.stop() == 0


async def test_no_bug_was_logged(server):
    assert errors_in_log(server) == []
