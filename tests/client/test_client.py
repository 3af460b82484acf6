"""The client against a small honest server over real sockets: exact delivery, reconnects, the outbox, sessions and pins."""

import socket
import ssl
from contextlib import suppress

import pytest
import trio
import trio.testing
import trustme

from chat.client.delivery import Missing
from chat.client.dial import PinChanged, UnknownHost, UnknownServer, spki_fingerprint
from chat.client.keeper import SessionLost
from chat.client.opening import open_client
from chat.client.outbox import Item, Outbox
from chat.client.reconnect import Backoff
from chat.client.servers import ClientStore
from chat.errors import CODES, ChatError
from chat.protocol import codec
from chat.protocol import messages as m
from chat.protocol.framing import FRAME_BYTES_BEFORE_LOGIN
from tests.client.fake import fake_server

FAST = {"first": 0.001, "most": 0.02}


def connect(server, tmp_path, **options):
    options.setdefault("backoff", Backoff(**FAST))
    return open_client(options.pop("target", server.target), store=ClientStore(tmp_path / "state"), **options)


async def take(client, count):
    """The next *count* records."""
    records = []
    async for notice in client.notices():
        if isinstance(notice, m.Message | Missing | m.HistoryReset | m.Removed):
            records.append(notice)
        if len(records) == count:
            break
    return records


def texts(records):
    return [record.text for record in records]


async def test_login_send_and_hear(tmp_path):
    async with fake_server() as server, connect(server, tmp_path) as ann:
        await ann.login("ann", "correct horse")
        ack = await ann.send("#lobby", "hello")
        assert (ack.conv, ack.seq) == ("#lobby", 1)
        await server.say("bob", "hi ann")
        await ann.send("#lobby", "\\//shrug")
        own, heard, escaped = await take(ann, 3)
        assert (own.from_, own.text, own.seq) == ("ann", "hello", 1)
        assert (heard.from_, heard.text, heard.seq) == ("bob", "hi ann", 2)
        assert escaped.text == "//shrug"


async def test_a_refused_login_says_why_and_another_may_follow(tmp_path):
    async with fake_server() as server, connect(server, tmp_path) as ann:
        with pytest.raises(ChatError, match="wrong name or password"):
            await ann.login("ann", "wrong")
        with pytest.raises(ChatError, match="taken"):
            await ann.register("ann", "correct horse")
        await ann.register("carol", "a password")
        assert ann.user == "carol"


async def test_the_first_connect_waits_for_the_server(tmp_path):
    async with fake_server() as server:
        await server.stop()
        states = []

        def on_status(status):
            states.append(status.state)
            if status.state == "waiting" and states.count("waiting") == 3:
                server.nursery.start_soon(server.start)

        async with connect(server, tmp_path, on_status=on_status) as ann:
            await ann.login("ann", "correct horse")
        assert states.count("waiting") >= 3


async def test_a_name_that_nobody_knows_is_told_at_once_but_not_once_it_was_good(tmp_path):
    class Nameless(trio.abc.HostnameResolver):
        async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        async def getnameinfo(self, sockaddr, flags):
            raise AssertionError("asked")

    trio.socket.set_custom_hostname_resolver(Nameless())
    store = ClientStore(tmp_path / "state")
    with pytest.raises(UnknownHost, match=r"nope\.invalid: no such name is known here"):
        async with open_client("nope.invalid", store=store):
            pass
    store.remember("nope.invalid:7667")
    tries = []
    with trio.move_on_after(0.5) as scope:
        async with open_client("nope.invalid", store=store, backoff=Backoff(**FAST), on_status=lambda s: tries.append(s.state)):
            pass
    assert scope.cancelled_caught
    assert tries.count("waiting") > 2


async def test_missed_notices_are_replayed_after_a_crash_of_the_server(tmp_path):
    async with fake_server() as server, connect(server, tmp_path) as ann:
        await ann.login("ann", "correct horse")
        await server.say("bob", "one")
        assert texts(await take(ann, 1)) == ["one"]
        await server.stop()
        for text in ("two", "three"):
            await server.say("bob", text)
        await server.start()
        assert texts(await take(ann, 2)) == ["two", "three"]
        assert isinstance([r for r in server.requests if not isinstance(r, m.Ping)][-1], m.Resume)


async def test_who_is_in_more_conversations_than_a_resume_can_name_misses_nothing(tmp_path):
    """The frame would be longer than what is read before a session, and refused again and again."""
    pairs = [f"@somebody-{n}" for n in range(400)]
    async with fake_server() as server, connect(server, tmp_path) as ann:
        await ann.login("ann", "correct horse")
        for pair in pairs:
            server.accounts[pair[1:]] = "staple battery"
            await server.say("bob", "one", conv=pair)
        await take(ann, 400)
        await server.stop()
        await server.say("bob", "two", conv=pairs[0])
        await server.say("bob", "two", conv=pairs[-1])
        await server.start()
        assert {(record.conv, record.text) for record in await take(ann, 2)} == {(pairs[0], "two"), (pairs[-1], "two")}
        (resume,) = [request for request in server.requests if isinstance(request, m.Resume)]
        assert 100 < len(resume.cursors) < 400
        assert len(codec.encode(resume)) < FRAME_BYTES_BEFORE_LOGIN


async def test_a_gap_and_a_lost_tail_are_filled_from_history(tmp_path):
    async with fake_server(page_limit=3) as server, connect(server, tmp_path) as ann:
        await ann.login("ann", "correct horse")
        server.skip_notices = 7
        for number in range(8):
            await server.say("bob", f"text {number}")
        assert texts(await take(ann, 8)) == [f"text {number}" for number in range(8)]
        server.skip_notices = 2
        await server.say("bob", "tail 1")
        await server.say("bob", "tail 2")
        await server.peers[0].send(m.Heads(heads={"#lobby": (server.epoch, 10)}))
        assert texts(await take(ann, 2)) == ["tail 1", "tail 2"]


async def test_own_acks_reveal_gaps_too(tmp_path):
    async with fake_server() as server, connect(server, tmp_path) as ann:
        await ann.login("ann", "correct horse")
        server.skip_notices = 1
        await server.say("bob", "lost")
        await ann.send("#lobby", "mine")
        assert texts(await take(ann, 2)) == ["lost", "mine"]


async def test_a_long_absence_is_a_gap_that_is_filled(tmp_path):
    async with fake_server(replay_limit=2, page_limit=4) as server, connect(server, tmp_path) as ann:
        await ann.login("ann", "correct horse")
        await server.stop()
        for number in range(15):
            await server.say("bob", f"text {number}")
        await server.start()
        assert texts(await take(ann, 15)) == [f"text {number}" for number in range(15)]


async def test_a_stored_text_whose_ack_was_lost_is_not_stored_twice(tmp_path):
    async with fake_server(swallow_acks=1) as server, connect(server, tmp_path) as ann:
        await ann.login("ann", "correct horse")
        ack = await ann.send("#lobby", "once")
        assert ack.seq == 1
        assert len(server.records) == 1
        assert texts(await take(ann, 1)) == ["once"]
        assert not ann.pending


async def test_texts_refused_for_now_keep_their_order(tmp_path):
    async with fake_server() as server, connect(server, tmp_path) as ann:
        await ann.login("ann", "correct horse")
        server.refuse = [("rate_limited", 0.01), ("busy", 0.01), ("storage_unavailable", 0.01)]
        sendings = [await ann.post_text("#lobby", f"text {number}") for number in range(5)]
        for sending in sendings:
            await sending.outcome()
        assert texts(server.records) == [f"text {number}" for number in range(5)]


async def test_how_long_a_text_waits_is_known_and_other_conversations_do_not_wait_for_it(tmp_path):
    async with fake_server() as server, connect(server, tmp_path) as ann:
        await ann.login("ann", "correct horse")
        server.refuse = [("rate_limited", 30)]
        slow = await ann.post_text("#lobby", "slow")
        assert (await ann.send("@bob", "meanwhile")).seq == 1
        wait_s, why = ann.waits(slow.item.cid)
        assert 25 < wait_s <= 30
        assert why
        assert [item.text for item in ann.pending] == ["slow"], "the text is kept"
        assert ann.waits("unknown") == (0.0, "")


async def test_whom_one_ignores_is_told_with_the_session_and_when_it_changes(tmp_path):
    async with fake_server() as server, connect(server, tmp_path) as ann:
        await ann.login("ann", "correct horse")
        assert ann.ignored == set()
        ann.dispatch(m.Ignored(users=["bob"]))
        assert ann.ignored == {"bob"}
        ann.dispatch(m.Ignored(users=[]))
        assert ann.ignored == set()


async def test_a_definite_refusal_is_raised_and_leaves_the_outbox(tmp_path):
    async with fake_server() as server, connect(server, tmp_path) as ann:
        await ann.login("ann", "correct horse")
        server.refuse = [("forbidden", None)]
        with pytest.raises(ChatError, match="forbidden"):
            await ann.send("#lobby", "text")
        assert not ann.pending
        assert (await ann.send("#lobby", "//help")).text == "ran //help"


async def test_the_next_process_sends_what_the_last_one_could_not(tmp_path):
    async with fake_server() as server:
        async with connect(server, tmp_path) as ann:
            await ann.login("ann", "correct horse")
            await server.stop()
            with trio.move_on_after(0.05):
                await ann.send("#lobby", "typed in the dark")
        assert not server.records
        await server.start()
        async with connect(server, tmp_path, account="ann") as ann:
            await ann.wait_online()
            assert texts(await take(ann, 1)) == ["typed in the dark"]
        assert texts(server.records) == ["typed in the dark"]


async def test_the_reader_goes_on_where_the_last_process_ended(tmp_path):
    async with fake_server() as server:
        async with connect(server, tmp_path) as ann:
            await ann.login("ann", "correct horse")
            await server.say("bob", "seen")
            assert texts(await take(ann, 1)) == ["seen"]
            await server.say("bob", "arrived, not read")
            await trio.testing.wait_all_tasks_blocked(0.02)
        await server.say("bob", "while away")
        async with connect(server, tmp_path, account="ann") as ann:
            assert texts(await take(ann, 2)) == ["arrived, not read", "while away"]


async def test_a_reader_that_fails_sees_again_only_what_it_had_not_finished(tmp_path):
    class Boom(Exception):
        pass

    async def fail_at_the_second(server):
        async with connect(server, tmp_path) as ann:
            await ann.login("ann", "correct horse")
            for text in ("one", "two", "three"):
                await server.say("bob", text)
            async for notice in ann.notices():
                if notice.text == "two":
                    raise Boom

    async with fake_server() as server:
        with pytest.raises(Boom):
            await fail_at_the_second(server)
        async with connect(server, tmp_path, account="ann") as ann:
            assert texts(await take(ann, 2)) == ["two", "three"]


async def test_the_new_token_is_on_disk_before_the_first_frame_after_resumed(tmp_path):
    async with fake_server() as server:
        async with connect(server, tmp_path) as ann:
            await ann.login("ann", "correct horse")
        slot_file = next((tmp_path / "state").glob("*/ann/0/session.json"))
        old = slot_file.read_bytes()
        on_disk = []

        def look(request):
            if not isinstance(request, m.Hello | m.Resume):
                on_disk.append(slot_file.read_bytes())

        server.on_request = look
        async with connect(server, tmp_path, account="ann") as ann:
            await ann.send("#lobby", "first")
        present = next(iter(server.present.values()))
        assert on_disk[0] != old
        assert present.encode() in on_disk[0]


async def test_a_refused_token_logs_in_again_and_loses_nothing(tmp_path):
    async with fake_server() as server, connect(server, tmp_path) as ann:
        await ann.login("ann", "correct horse")
        await server.say("bob", "one")
        await take(ann, 1)
        await server.stop()
        server.tokens.clear()
        await server.say("bob", "two")
        sending = await ann.post_text("#lobby", "three")
        await server.start()
        await sending.outcome()
        assert texts(await take(ann, 2)) == ["two", "three"]


async def test_without_a_password_the_session_is_lost_and_the_outbox_kept(tmp_path):
    async with fake_server() as server:
        async with connect(server, tmp_path) as ann:
            await ann.login("ann", "correct horse")
        server.tokens.clear()
        asked = []

        async def ask(user):
            asked.append(user)
            return None

        async with connect(server, tmp_path, account="ann", ask_password=ask) as ann:
            with pytest.raises(SessionLost):
                await ann.wait_online()
        assert asked == ["ann"]


async def test_a_lost_session_asks_again_after_a_wrong_password_but_not_for_ever(tmp_path):
    async with fake_server() as server:
        async with connect(server, tmp_path) as ann:
            await ann.login("ann", "correct horse")
        server.tokens.clear()
        answers = ["wrong", "correct horse"]

        async def ask(user):
            return answers.pop(0) if answers else "wrong"

        async with connect(server, tmp_path, account="ann", ask_password=ask) as ann:
            assert (await ann.send("#lobby", "back")).seq == 1
        server.tokens.clear()
        async with connect(server, tmp_path, account="ann", ask_password=ask) as ann:
            with pytest.raises(ChatError, match="wrong name or password"):
                await ann.wait_online()
        assert len([r for r in server.requests if isinstance(r, m.Login)]) == 1 + 2 + 3


async def test_who_is_banned_is_told_so_and_the_session_is_kept_for_when_it_is_over(tmp_path):
    async with fake_server() as server:
        async with connect(server, tmp_path) as ann:
            await ann.login("ann", "correct horse")
        server.banned = "203.0.113.0/24, where you come from, is banned by root for 2 h more; ask root"
        async with connect(server, tmp_path, account="ann") as ann:
            with pytest.raises(ChatError, match="is banned by root for 2 h more; ask root"):
                await ann.wait_online()
        server.banned = None
        async with connect(server, tmp_path, account="ann") as ann:
            await ann.wait_online()
        assert len([r for r in server.requests if isinstance(r, m.Login)]) == 1


@pytest.mark.parametrize("code", sorted(CODES - {"unauthorized"}))
async def test_a_session_is_kept_whatever_refuses_it_unless_that_says_that_it_is_over(tmp_path, code):
    """A full disk of the server once cost every client its login."""
    async with fake_server() as server:
        async with connect(server, tmp_path) as ann:
            await ann.login("ann", "correct horse")
        server.refuse_openers = [code]
        states, reasons = [], []

        def on_status(status):
            states.append(status.state)
            reasons.append(status.why)

        with suppress(ChatError):
            async with connect(server, tmp_path, account="ann", on_status=on_status) as ann:
                await ann.wait_online()
        assert any("not as things are" in reason for reason in reasons)
        if code in ("storage_full", "storage_unavailable", "internal_error"):
            assert "online" in states, "it is waited out"
        async with connect(server, tmp_path, account="ann") as ann:
            await ann.wait_online()
        assert len([r for r in server.requests if isinstance(r, m.Login)]) == 1


async def test_a_login_that_was_good_once_outlasts_a_full_disk(tmp_path):
    async with fake_server() as server, connect(server, tmp_path) as ann:
        await ann.login("ann", "correct horse")
        await server.stop()
        server.tokens.clear()
        server.refuse_openers = ["storage_full", "unauthorized", "storage_full"]
        await server.start()
        assert (await ann.send("#lobby", "back")).seq == 1
        assert server.refuse_openers == []


async def test_replaced_does_not_reconnect(tmp_path):
    async with fake_server() as server, connect(server, tmp_path) as ann:
        await ann.login("ann", "correct horse")
        await server.peers[0].send(m.Replaced())
        notices = [notice async for notice in ann.notices()]
        assert isinstance(notices[-1], m.Replaced)
        with pytest.raises(SessionLost):
            await ann.request(m.Members(id=0, channel="lobby"))
        assert len([r for r in server.requests if isinstance(r, m.Hello)]) == 1


async def test_retry_after_of_closing_is_honoured(tmp_path):
    waits = []

    def on_status(status):
        if status.state == "waiting":
            waits.append(status.retry_s)

    async with fake_server() as server, connect(server, tmp_path, on_status=on_status) as ann:
        await ann.login("ann", "correct horse")
        await server.peers[0].send(m.Closing(code="shutting_down", retry_after=0.2))
        await server.peers[0].stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert waits
        assert 0.2 <= waits[0] <= 0.26


async def test_a_new_lineage_is_told_and_goes_on(tmp_path):
    async with fake_server() as server, connect(server, tmp_path) as ann:
        await ann.login("ann", "correct horse")
        await server.say("bob", "old")
        await take(ann, 1)
        await server.stop()
        server.epoch, server.records = "epoch0002", server.records[:0]
        await server.say("bob", "restored")
        await server.start()
        (reset,) = await take(ann, 1)
        assert (reset.epoch, reset.last_seq) == ("epoch0002", 1)
        await ann.send("#lobby", "new")
        assert texts(await take(ann, 1)) == ["new"]


async def test_requests_wait_for_the_connection_and_are_repeated(tmp_path):
    async with fake_server() as server, connect(server, tmp_path) as ann:
        await ann.login("ann", "correct horse")
        await server.stop()
        async with trio.open_nursery() as nursery:
            answers = []

            async def ask():
                answers.append(await ann.command("help"))

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            await server.start()
        assert answers[0].text == "ran help"


async def test_private_conversations_that_began_while_away_come_whole(tmp_path):
    async with fake_server() as server:
        async with connect(server, tmp_path) as ann:
            await ann.login("ann", "correct horse")
        await server.say("bob", "psst", conv="@bob")
        await server.say("bob", "are you there?", conv="@bob")
        async with connect(server, tmp_path, account="ann") as ann:
            assert texts(await take(ann, 2)) == ["psst", "are you there?"]


async def test_two_clients_have_a_slot_each(tmp_path):
    async with fake_server() as server, connect(server, tmp_path) as one:
        await one.login("ann", "correct horse")
        async with connect(server, tmp_path, account="ann") as two:
            assert not two.has_session
            await two.login("ann", "correct horse")
            assert one.slot.folder != two.slot.folder
            await one.send("#lobby", "from one")
            assert texts(await take(two, 1)) == ["from one"]


async def test_a_slow_reader_blocks_nothing_and_gets_all(tmp_path):
    async with fake_server(page_limit=50) as server, connect(server, tmp_path) as ann:
        await ann.login("ann", "correct horse")
        ann._delivery._limit = 20
        for number in range(300):
            await server.say("bob", f"text {number}")
        await ann.send("#lobby", "and mine")
        assert len(ann._delivery) <= 20
        assert texts(await take(ann, 301)) == [*(f"text {number}" for number in range(300)), "and mine"]


@pytest.fixture
def tls():
    def make():
        authority = trustme.CA()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate = authority.issue_cert("localhost")
        certificate.configure_cert(context)
        pem = certificate.cert_chain_pems[0].bytes().decode()
        return context, spki_fingerprint(ssl.PEM_cert_to_DER_cert(pem))

    return make


async def test_tls_by_the_fingerprint_of_the_join_line_and_a_changed_key_is_refused(tmp_path, tls):
    context, fingerprint = tls()
    other, _ = tls()
    async with fake_server(tls=context) as server:
        line = f"{server.target}#{fingerprint}/invite-1"
        async with connect(server, tmp_path, target=line) as ann:
            await ann.register("carol", "a password")
            assert (await ann.send("#lobby", "over tls")).seq == 1
        assert ClientStore(tmp_path / "state").server(server.target).pin == fingerprint
        async with connect(server, tmp_path, account="carol") as ann:  # pinned: no fingerprint needed any more
            await ann.wait_online()
        server.tls = other
        before = len(server.requests)
        with pytest.raises(PinChanged, match="ANOTHER KEY"):
            async with connect(server, tmp_path, account="carol"):
                pass
        assert len(server.requests) == before


async def test_a_server_without_the_join_lines_key_is_refused_and_nobody_asked(tmp_path, tls):
    context, _ = tls()

    async def trust(target, shown, known):
        raise AssertionError("asked")

    async with fake_server(tls=context) as server:
        with pytest.raises(PinChanged):
            async with connect(server, tmp_path, target=f"{server.target}#{'B' * 43}", trust=trust):
                pass
        assert not server.requests


async def test_a_join_line_with_another_key_than_the_pin_asks(tmp_path, tls):
    context, fingerprint = tls()
    async with fake_server(tls=context) as server:
        store = ClientStore(tmp_path / "state")
        store.remember(server.target, pin="A" * 43)
        with pytest.raises(PinChanged):
            async with connect(server, tmp_path, target=f"{server.target}#{fingerprint}"):
                pass
        asked = []

        async def trust(target, shown, known):
            asked.append((shown, known))
            return True

        async with connect(server, tmp_path, target=f"{server.target}#{fingerprint}", trust=trust):
            pass
        assert asked == [(fingerprint, "A" * 43)]
        assert store.server(server.target).pin == fingerprint


async def test_a_server_that_is_new_and_not_on_loopback_needs_trust(tmp_path, tls, monkeypatch):
    context, fingerprint = tls()
    monkeypatch.setattr("chat.client.target.Target.loopback", property(lambda self: False))
    async with fake_server(tls=context) as server:
        with pytest.raises(UnknownServer, match=fingerprint):
            async with connect(server, tmp_path):
                pass
        assert not server.requests

        async def trust(target, shown, known):
            return known is None and shown == fingerprint

        async with connect(server, tmp_path, trust=trust):
            pass


async def test_a_killed_client_leaves_its_texts_to_the_next(tmp_path):
    """What `put` wrote is all that a SIGKILL leaves; the next client of the account finds it whatever slot it lies in."""
    store = ClientStore(tmp_path / "state")
    async with fake_server() as server:
        first, second = store.open_slot(server.target, "ann"), store.open_slot(server.target, "ann")
        first.close()
        second.close()
        box = Outbox(second.folder / "outbox.jsonl")
        box.put(Item(cid="a-cid", to="#lobby", text="survived"))
        box.close()
        async with connect(server, tmp_path, account="ann") as ann:
            await ann.login("ann", "correct horse")
            assert texts(await take(ann, 1)) == ["survived"]
        assert server.records[0].cid == "a-cid"
