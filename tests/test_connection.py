"""What a connection keeps while nobody says anything. What it does is in `tests/test_catchup.py`, `tests/e2e` and elsewhere."""

import gc
import json
import sys
import threading
import tracemalloc
from functools import partial
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from chat import connection
from chat.protocol import messages as m
from chat.rooms.policy import LISTS
from tests.rooms.house import open_house
from tests.transport.peers import open_server
from tests.wire import open_lines


@pytest.fixture
def house():
    with open_house() as house:
        house.ann = house.register("ann")
        yield house


async def test_a_connection_is_one_task_and_keeps_nothing_of_what_was_said_last(house):
    async with open_lines(house) as lines:
        wire = lines.wire()
        frame = b'{"type":"hello","protocol":1,"client":"test"}'
        before = sys.getrefcount(frame)
        await wire.to_server.send([frame])
        await wire.hear("welcome")
        await trio.testing.wait_all_tasks_blocked()
        assert sys.getrefcount(frame) == before
        (task,) = lines.nursery.child_tasks
        assert not task.child_nurseries


async def busy(lines, house, how):
    """A wire whose connection is reading: it waits for its peer, for an outbox that lags, or for the store. *Returns* its link too."""
    wire = await lines.resume(house.ann.token, {})
    await wire.hear("resumed")
    (link,) = lines.services.links
    await wire.ask({"type": "ping", "id": 7})
    if how == "lags":
        wire.stalled = True
        while wire.outbox.put(b"x" * 9_999 + b"\n"):
            pass
        await wire.say({"type": "pong", "id": 0})
    elif how == "is busy":
        wire.stalled = True
        wire.outbox.put_always(b"x" * 400_000)
        lines.services.store.history = sleep_forever
        await wire.say({"type": "history", "id": 8, "conv": "#lobby", "limit": 10}, {"type": "ping", "id": 9})
    await trio.testing.wait_all_tasks_blocked()
    wire.messages.clear()
    return wire, link


async def sleep_forever(*args, **kwargs):
    await trio.sleep_forever()


def let_go(wire):
    wire.stalled = False
    wire.outbox.drop()


@pytest.fixture
def decoded(monkeypatch):
    """How many frames were decoded in one go, each time."""
    sizes, receive = [], connection.Protocol.receive
    monkeypatch.setattr(connection.Protocol, "receive", lambda self, frames: (sizes.append(len(frames)), receive(self, frames))[1])
    return sizes


async def test_who_sends_nonsense_before_a_session_is_closed_before_much_of_it_is_read(house, decoded):
    """A chunk holds 65,536 frames of nothing, and each costs as much as some texts."""
    async with open_lines(house) as lines:
        wire = lines.wire()
        await wire.say({"type": "hello", "protocol": 1, "client": "test"})
        await wire.hear("welcome")
        await wire.to_server.send([b"{"] * 65_536)
        told = await wire.hear("closing")
        assert (len(told), told[-1]["code"]) == (connection.LOGIN_REQUESTS, "timeout")
        await trio.testing.wait_all_tasks_blocked()
        assert decoded == [1, connection.SLICE]


async def test_many_frames_of_one_chunk_are_decoded_in_slices_between_which_others_run(house, decoded):
    async with open_lines(house) as lines:
        wire, other = await lines.resume(house.ann.token, {}), await lines.resume(house.register("bob").token, {})
        await wire.hear("resumed")
        await other.hear("resumed")
        decoded.clear()
        ping = {"type": "ping", "id": 2}
        wire.to_server.send_nowait([json.dumps({"type": "ping", "id": n}).encode() for n in range(10 * connection.SLICE)])
        await wire.hear("pong")
        await other.ask(ping)
        assert len(decoded) < 11
        while wire.messages[-1]["id"] != 10 * connection.SLICE - 1:
            await wire.hear_more()
        assert sorted(decoded) == [1, *[connection.SLICE] * 10]


@pytest.mark.parametrize(
    "frame", [b"{", b"", b'{"type":"send"}', b'{"type":"nope"}', b"\xff", b'{"type":"hello","protocol":1,"client":"x"}']
)
def test_what_is_refused_leaves_nothing_for_the_collector(frame):
    protocol = connection.Protocol(connection.Role.SERVER, text_bytes=1000)
    protocol.receive([b'{"type":"hello","protocol":1,"client":"test"}'])
    gc.collect()
    received = protocol.receive([frame] * 100)
    assert len(received) == 100
    del received
    assert gc.collect() < 100


@pytest.mark.parametrize(("nonsense", "answered"), [(connection.NONSENSE, True), (connection.NONSENSE + 1, False)])
async def test_who_sends_nonsense_waits_for_it(house, monkeypatch, nonsense, answered):
    monkeypatch.setattr(connection, "NONSENSE_S", 1000)
    async with open_lines(house) as lines:
        wire = await lines.resume(house.ann.token, {})
        await wire.hear("resumed")
        await wire.to_server.send([b"{"] * nonsense)
        await wire.say({"type": "ping", "id": 2})
        await house.settle()
        await trio.testing.wait_all_tasks_blocked()
        told = [message["type"] for message in wire.messages]
        assert (told.count("error"), told.count("pong")) == (nonsense, answered)


async def test_who_reads_slowly_is_not_taken_for_silent(house):
    """While it lags nothing of it is read, so its pongs wait in the kernel, for longer than one may be silent."""
    async with open_lines(house) as lines:
        wire, link = await busy(lines, house, "lags")
        now = wire.last_received
        for seconds in range(200):
            link.tick(now + seconds)
        while taken := wire.outbox.take():
            wire.outbox.sent(len(taken))
        wire.stalled = False
        await trio.testing.wait_all_tasks_blocked()
        link.tick(now + 200)
        assert not wire.aborted
        for seconds in range(200, 320):
            link.tick(now + seconds)
        await trio.testing.wait_all_tasks_blocked()
        assert wire.aborted


@pytest.mark.parametrize("asked", [{"type": "members", "channel": "lobby"}, {"type": "commands"}], ids=["members", "commands"])
async def test_who_asks_for_many_lists_waits_and_is_refused_nothing(house, asked):
    async with open_lines(house) as lines:
        wire, other = await lines.resume(house.ann.token, {}), await lines.resume(house.register("bob").token, {})
        await wire.hear("resumed")
        await other.hear("resumed")
        wire.to_server.send_nowait([json.dumps({**asked, "id": n}).encode() for n in range(LISTS + 2)])
        await other.ask({"type": "ping", "id": 2})
        await house.settle()
        await trio.testing.wait_all_tasks_blocked()
        assert [message["id"] for message in wire.messages] == list(range(LISTS))
        house.now += 0.2
        while len(wire.messages) < LISTS + 2:
            await wire.hear_more()
        assert {message["type"] for message in wire.messages} == {"ok"}


async def test_an_end_with_a_word_that_may_not_be_said_is_an_end_all_the_same(house):
    """The rooms end connections in the middle of telling others what is stored: nothing may come back from it."""
    async with open_lines(house) as lines:
        wire = lines.wire()
        await wire.say({"type": "hello", "protocol": 1, "client": "test"})
        await wire.hear("welcome")
        (link,) = lines.services.links
        link.end(m.Replaced())
        await trio.testing.wait_all_tasks_blocked()
        assert wire.aborted
        assert not lines.services.links


@pytest.mark.parametrize("how", ["waits", "lags", "is busy"])
async def test_who_is_ended_is_told_whatever_it_was_doing(house, how):
    house.manager.gone(house.ann)
    async with open_lines(house) as lines:
        wire, link = await busy(lines, house, how)
        let_go(wire)
        link.end(m.Closing(code="forbidden"))
        await trio.testing.wait_all_tasks_blocked()
        assert wire.aborted
        assert [message["type"] for message in wire.messages] == ["closing"]
        assert not lines.services.links
        assert not lines.nursery.child_tasks


@pytest.mark.parametrize("how", ["waits", "lags", "is busy"])
async def test_the_end_of_the_daemon_is_not_held_up_by_what_a_connection_waits_for(house, how):
    house.manager.gone(house.ann)
    async with open_lines(house) as lines:
        wire, link = await busy(lines, house, how)
        let_go(wire)
        lines.services.stopping = True
        link.stop()
        with trio.fail_after(5):
            while not wire.aborted:  # a barrier goes through the pipeline, and its threads
                await wire.hear_more()
        assert [message.get("code") for message in wire.messages] == ["shutting_down"]
        assert not lines.nursery.child_tasks


@pytest.mark.parametrize("how", ["ended", "cut"])
async def test_who_waits_for_its_outbox_is_told_when_it_is_ended(house, how):
    """A page of history waits until the peer has taken what is there already."""
    house.manager.gone(house.ann)
    async with open_lines(house) as lines:
        wire = await lines.resume(house.ann.token, {})
        await wire.hear("resumed")
        (link,) = lines.services.links
        await wire.ask({"type": "ping", "id": 7})
        wire.outbox.cut_frame = b'{"type":"closing","code":"slow_consumer"}\n'
        wire.stalled = True
        wire.outbox.put_always(b'"' + b"x" * 400_000 + b'"\n')
        await wire.say({"type": "history", "id": 8, "conv": "#lobby", "limit": 10})
        asked = trio.current_time()
        while wire.outbox._moved is None:  # the store is asked in a thread
            assert trio.current_time() < asked + 5
            await trio.sleep(0.01)
        wire.messages.clear()
        if how == "ended":
            link.end(m.Closing(code="unauthorized"))
        else:
            wire.outbox.cut("slow_consumer")
        wire.stalled = False  # the peer reads on
        await trio.testing.wait_all_tasks_blocked()
        assert wire.aborted
        assert wire.messages
        assert wire.messages[-1]["type"] == "closing"
        assert not lines.nursery.child_tasks


async def test_who_has_shaken_hands_when_the_daemon_drains_is_told_at_once(house):
    async with open_lines(house) as lines:
        lines.services.stopping = True
        wire = lines.wire()
        with trio.fail_after(5):
            (closing,) = await wire.hear("closing")
        assert closing["code"] == "shutting_down"
        await trio.testing.wait_all_tasks_blocked()
        assert wire.aborted


async def test_what_is_read_just_when_the_daemon_drains_holds_nothing_up(house):
    """Under TLS and a WebSocket what had come already may be given out behind the stop."""
    house.manager.gone(house.ann)
    async with open_lines(house) as lines:
        wire = await lines.resume(house.ann.token, {})
        await wire.hear("resumed")
        (link,) = lines.services.links
        await wire.ask({"type": "ping", "id": 7})
        receive, wire.stalled = wire.receive, True
        wire.outbox.put_always(b"x" * 400_000 + b"\n")

        async def receive_and_stop():
            frames = await receive()
            lines.services.stopping = True
            link.stop()
            return frames

        wire.receive = receive_and_stop
        await wire.say({"type": "pong", "id": 0})
        await trio.testing.wait_all_tasks_blocked()
        await wire.say({"type": "history", "id": 8, "conv": "#lobby", "limit": 10})  # it waits for the outbox
        with trio.fail_after(5):
            while not wire.aborted:
                await wire.hear_more()


async def test_what_was_read_with_a_command_is_answered_when_the_daemon_drains(house):
    """The command's cid is looked up in a thread, which cannot be cancelled; what came behind it needs nothing more."""
    house.manager.gone(house.ann)
    async with open_lines(house) as lines:
        wire = await lines.resume(house.ann.token, {})
        await wire.hear("resumed")
        (link,) = lines.services.links
        await wire.ask({"type": "ping", "id": 7})

        async def known_cid(account, cid):
            lines.services.stopping = True
            link.stop()

        lines.services.store.known_cid = known_cid
        command = {"type": "command", "id": 1, "cid": "a", "text": "help"}
        await wire.say(command, {"type": "send", "id": 2, "cid": "b", "channel": "lobby", "text": "hi"})
        with trio.fail_after(5):
            told = await wire.hear("closing")
        assert [(message["type"], message.get("id")) for message in told] == [("result", 1), ("ack", 2), ("closing", None)]


async def yes(*args):
    return True


ANYBODY = SimpleNamespace(logins=SimpleNamespace(check=yes), passwords=SimpleNamespace(needs_rehash=lambda password_hash: False))


@pytest.mark.parametrize(("how", "told"), [("ended", ["welcome", "closing"]), ("stopped", ["welcome", "session", "closing"])])
async def test_a_login_that_is_stored_behind_the_end_of_its_connection(house, monkeypatch, how, told):
    """The time to log in is over, or the daemon drains, while the session is being committed."""
    house.manager.gone(house.ann)
    begun, go_on, over = threading.Event(), threading.Event(), trio.Event()
    commit = house.writer.commit

    def slowly(actions):
        begun.set()
        assert go_on.wait(5)
        return commit(actions)

    async def linger():
        await wire.drain()
        await over.wait()
        wire.abort()

    async with open_lines(house) as lines:
        lines.services.guard = ANYBODY
        wire = lines.wire()
        wire.aclose = linger  # its peer does not close
        await wire.say({"type": "hello", "protocol": 1, "client": "test"})
        await trio.testing.wait_all_tasks_blocked()
        monkeypatch.setattr(house.writer, "commit", slowly)
        await wire.say({"type": "login", "id": 1, "username": "ann", "password": "password"})
        assert await trio.to_thread.run_sync(begun.wait, 5)
        (link,) = lines.services.links
        if how == "ended":
            link.end(m.Closing(code="timeout"))
        else:
            lines.services.stopping = True
            link.stop()
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        await house.settle()
        await trio.testing.wait_all_tasks_blocked()
        over.set()
        await trio.testing.wait_all_tasks_blocked()
        assert [message["type"] for message in wire.messages] == told
        session = house.desk.sessions[link.session]
        assert session.link is None
        assert session.gone_at is not None


async def resumed(server, token):
    """A socket with a session. It costs the process little itself."""
    sock = trio.socket.socket()
    await sock.connect(("127.0.0.1", server.port))
    for message in {"type": "hello", "protocol": 1, "client": "test"}, {"type": "resume", "id": 1, "token": token, "cursors": {}}:
        await sock.send(json.dumps(message).encode() + b"\n")
    told = b""
    while b'"resumed"' not in told:
        told += await sock.recv(65536)
    return sock


async def test_an_idle_session_takes_little_memory(house):
    """5.9 KB, a part of them the test's own socket: a nursery, a scope or a few sets more would show. The account is not counted."""
    people = [house.register(f"person{n}") for n in range(60)]
    for line in people:
        house.manager.gone(line)
    async with open_lines(house) as lines, open_server(partial(connection.serve, lines.services)) as server:
        lines.services.flush = house.router.hooks.flush = server.flush.flush
        socks = [await resumed(server, line.token) for line in people[:10]]  # what is made once, is made
        await trio.testing.wait_all_tasks_blocked()
        tracemalloc.start()
        try:
            socks += [await resumed(server, line.token) for line in people[10:]]
            await trio.testing.wait_all_tasks_blocked()
            taken, _most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert taken / 50 < 6_400
        for sock in socks:
            sock.close()
