"""Resume and history over whole connections, without sockets: what was missed comes once, in order, with nothing between it and live."""

import json
import threading

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from chat import catchup
from chat.config import Limits
from chat.connection import Connection
from chat.errors import ChatError
from chat.protocol import messages as m
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.store.base import CommitFailed
from tests.rooms.house import of_type, open_house
from tests.wire import open_lines


@pytest.fixture
def house():
    with open_house() as house:
        house.ann, house.bob = house.register("ann"), house.register("bob")
        yield house


def say(house, line, text, channel="lobby", to=None):
    """One committed message. *Returns* its seq."""
    house.count = getattr(house, "count", 0) + 1
    channel = None if to else channel
    (ack,) = of_type(house.ask(line, m.Send(id=1, cid=f"c{house.count}", channel=channel, to=to, text=text)), "ack")
    return ack["seq"]


def room(house, id, name, *lines):
    """A channel with the sessions' accounts in it."""
    names = {"name": name, "canonical": name.lower(), "skeleton": name.lower()}
    create = fx.CreateRoom(room=id, epoch="abcdefgh", private=False, password_hash=None, at_ms=0, **names)
    house.do([create, *(fx.PutMember(room=id, account=line.account, role="member", at_ms=0) for line in lines)])


def epoch(house, channel="lobby"):
    return house.state.room(channel).epoch


def gone(house, line):
    house.manager.gone(line)
    return line.token


async def send(house, line, n, channel="lobby", size=10):
    """*n* messages through the running pipeline."""
    for _ in range(n):
        house.count = getattr(house, "count", 0) + 1
        await house.tell(line, m.Send(id=1, cid=f"c{house.count}", channel=channel, text=f"{house.count} " + "x" * size))


def seqs(messages, conv="#lobby"):
    return [message["seq"] for message in messages if message.get("conv") == conv and "seq" in message]


async def test_what_was_missed_comes_in_order_and_then_live(house):
    for n in range(5):
        say(house, house.ann if n % 2 else house.bob, f"text {n}")
    say(house, house.bob, "private", to="ann")
    token = gone(house, house.ann)
    async with open_lines(house) as lines:
        cursors = {"#lobby": [epoch(house), 3], "@bob": [house.router.heads(house.ann.account)["@bob"][0], 1]}
        wire = await lines.resume(token, cursors)
        told = await wire.hear("resumed")
        assert seqs(told) == [3, 4, 5]
        assert [message.get("cid") for message in told if message.get("conv") == "#lobby"] == [None, "c4", None], "one's own have the cid"
        assert seqs(told, "@bob") == [1]
        resumed = told[-1]
        assert resumed["user"] == "ann"
        assert resumed["session"] == house.ann.session
        assert resumed["resume_token"] != token
        assert {name: head[1] for name, head in resumed["heads"].items()} == {"#lobby": 5, "@bob": 1}
        await send(house, house.bob, 2)
        await house.settle()
        assert seqs(wire.messages) == [6, 7]
        assert seqs(await wire.ask({"type": "send", "id": 9, "cid": "new", "channel": "lobby", "text": "here"})) == [6, 7, 8]


async def test_what_cannot_be_replayed_is_told(house):
    for n in range(510):
        say(house, house.bob, str(n))
    token = gone(house, house.ann)
    async with open_lines(house) as lines:
        other = "zzzzzzzz"
        for cursor, wanted in [
            ([epoch(house), 1], [{"type": "gap", "conv": "#lobby", "after": 0, "before": 511}]),
            ([epoch(house), 10], [{"type": "gap", "conv": "#lobby", "after": 9, "before": 511}]),
            ([epoch(house), 512], [{"type": "history_reset", "conv": "#lobby", "epoch": epoch(house), "last_seq": 510}]),
            ([other, 5], [{"type": "history_reset", "conv": "#lobby", "epoch": epoch(house), "last_seq": 510}]),
            ([epoch(house), 511], []),
        ]:
            wire = await lines.resume(token, {"#lobby": cursor, "#nowhere": [other, 1], "@stranger": [other, 1]})
            told = await wire.hear("resumed")
            assert [message for message in told[:-1] if message["type"] != "removed"] == wanted
            assert {message["conv"] for message in of_type(told, "removed")} == {"#nowhere", "@stranger"}
            token = told[-1]["resume_token"]
        wire = await lines.resume(token, {"#lobby": [epoch(house), 11]})
        assert seqs(await wire.hear("resumed")) == list(range(11, 511)), "exactly 500 are replayed"


async def test_a_cursor_names_its_conversation_in_any_spelling(house):
    """The answer has the owner's spelling. Of two of the same the last counts, as of two keys that are equal."""
    room(house, 5, "Den", house.bob, house.ann)
    for n in range(5):
        say(house, house.bob, str(n), "den")
    say(house, house.bob, "private", to="ann")
    private = house.router.heads(house.ann.account)["@bob"][0]
    secret = {"name": "Secret", "canonical": "secret", "skeleton": "secret", "private": True, "password_hash": "x"}
    house.do([fx.CreateRoom(room=6, epoch="abcdefgh", at_ms=0, **secret)])
    token = gone(house, house.ann)
    async with open_lines(house) as lines:
        cursors = {
            "#Den": ["zzzzzzzz", 1],
            "#DEN": ["abcdefgh", 4],
            "@BOB": [private, 1],
            "#SECRET": [private, 1],
            "#LOBBY": ["zzzzzzzz", 1],
        }
        wire = await lines.resume(token, cursors)
        told = await wire.hear("resumed")
        assert (seqs(told, "#Den"), seqs(told, "@bob")) == ([4, 5], [1])
        assert of_type(told, "removed") == [{"type": "removed", "conv": "#SECRET"}], "of what is none of theirs nothing is said, either"
        assert [message["conv"] for message in of_type(told, "history_reset")] == ["#lobby"]
        token = told[-1]["resume_token"]
        wire = await lines.resume(token, {"#den": ["abcdefgh", 3], "#Den": ["abcdefgh", 5], "@Bob": ["zzzzzzzz", 1], "@bob": [private, 2]})
        told = await wire.hear("resumed")
        assert seqs(told, "#Den") == [5]
        assert len(told) == 2


async def test_what_is_not_named_is_not_replayed(house):
    say(house, house.bob, "text")
    token = gone(house, house.ann)
    async with open_lines(house) as lines:
        wire = await lines.resume(token, {})
        (resumed,) = await wire.hear("resumed")
        assert resumed["heads"]["#lobby"][1] == 1


async def test_a_cursor_of_nothing_begins_at_the_first(house):
    say(house, house.bob, "text")
    token = gone(house, house.ann)
    async with open_lines(house) as lines:
        wire = await lines.resume(token, {"#lobby": [epoch(house), 0]})
        assert seqs(await wire.hear("resumed")) == [1]


class Between:
    """Does something while a replay waits for the store."""

    def __init__(self, monkeypatch, *actions):
        self.actions = list(actions)
        real = catchup._stretch

        async def stretch(conn, conv, next_seq):
            if self.actions:
                await self.actions.pop(0)()
            return await real(conn, conv, next_seq)

        monkeypatch.setattr(catchup, "_stretch", stretch)


@settings(max_examples=settings.default.max_examples // 4)  # each is a house of its own, with 120 commits before it begins
@given(rounds=st.lists(st.integers(0, 100), min_size=1, max_size=4), behind=st.integers(1, 120))
async def test_nothing_twice_and_nothing_between_however_much_comes_meanwhile(rounds, behind):
    with open_house() as house:
        house.ann, house.bob = house.register("ann"), house.register("bob")
        for n in range(120):
            say(house, house.bob, str(n))
        token = gone(house, house.ann)
        house.router.by_conv[house.state.room("lobby").id].ring = None
        async with open_lines(house) as lines:

            def round_of(n):
                async def meanwhile():
                    await send(house, house.bob, n)
                    await house.settle()

                return meanwhile

            with pytest.MonkeyPatch.context() as patch:
                Between(patch, *map(round_of, rounds))
                wire = await lines.resume(token, {"#lobby": [epoch(house), 121 - behind]})
                told = await wire.hear("resumed")
            await send(house, house.bob, 1)
            await house.settle()
            head = told[-1]["heads"]["#lobby"][1]
            assert seqs(told) == list(range(121 - behind, head + 1))
            assert seqs(wire.messages) == [head + 1]


async def test_what_is_stored_and_not_yet_told_to_others_comes_live(house, monkeypatch):
    """The reader of the store sees more than the router has told: it must not be sent now and then again."""
    for n in range(3):
        say(house, house.bob, str(n))
    token = gone(house, house.ann)
    lobby = house.state.room("lobby").id
    house.router.by_conv[lobby].ring = None
    async with open_lines(house) as lines:
        stored = []

        async def meanwhile():
            text = fx.Append(conv=lobby, kind="message", author=house.bob.account, body="just stored")
            stored.extend(house.writer.commit([fx.Action(effects=(text,))]))

        Between(monkeypatch, meanwhile)
        wire = await lines.resume(token, {"#lobby": [epoch(house), 1]})
        told = await wire.hear("resumed")
        assert seqs(told) == [1, 2, 3]
        assert told[-1]["heads"]["#lobby"][1] == 3
        house.router.route(stored)
        house.router.hooks.flush()
        assert seqs(wire.messages) == [4]


@pytest.mark.parametrize("how", ["delete", "leave"])
async def test_a_channel_that_goes_while_it_is_replayed(house, monkeypatch, how):
    room(house, 5, "den", house.bob, house.ann)
    phone = house.log_in("ann")
    for n in range(3):
        say(house, house.bob, str(n), "den")
        say(house, house.bob, str(n))
    token = gone(house, house.ann)
    for audience in house.router.by_conv.values():
        audience.ring = None
    async with open_lines(house) as lines:

        async def meanwhile():
            if how == "leave":
                await house.tell(phone, m.Leave(id=1, channel="den"))
            else:
                effects = (fx.DeleteRoom(room=5),)
                house.desk.add(fx.Action(effects=effects))
            await house.settle()

        Between(monkeypatch, meanwhile)
        wire = await lines.resume(token, {"#den": ["abcdefgh", 1], "#lobby": [epoch(house), 1]})
        told = await wire.hear("resumed")
        assert seqs(told) == [1, 2, 3]
        assert [message["conv"] for message in of_type(told, "removed")] == ["#den"]
        assert list(told[-1]["heads"]) == ["#lobby"]
        assert [channel["channel"] for channel in told[-1]["channels"]] == ["lobby"]


async def test_who_is_ended_while_it_is_brought_up_to_date_is_told_and_no_error(house, monkeypatch):
    """It waits for the store just then, and a thread cannot be cancelled: replay goes on for a moment."""
    room(house, 5, "den", house.bob, house.ann)
    say(house, house.bob, "x", "den")
    token = gone(house, house.ann)
    house.router.by_conv[5].ring = None
    async with open_lines(house) as lines:

        async def meanwhile():
            (link,) = lines.services.links
            house.desk.add(fx.Action(effects=(fx.DropMember(room=5, account=house.ann.account),)))
            link.outbox.carrier.stalled = True
            link.end(m.Closing(code="unauthorized"))
            with trio.CancelScope(shield=True):
                await house.settle()
            link.outbox.carrier.stalled = False

        Between(monkeypatch, meanwhile)
        wire = await lines.resume(token, {"#den": ["abcdefgh", 1]})
        (closing,) = await wire.hear("closing")
        assert closing["code"] == "unauthorized"
        await trio.testing.wait_all_tasks_blocked()
        assert not lines.services.links


@pytest.mark.parametrize("name", ["#none", "#lobby"])
async def test_who_is_replaced_as_soon_as_its_resume_is_stored_is_told_and_no_error(house, monkeypatch, name):
    token = gone(house, house.ann)
    replay = Connection.replay

    def replay_and_end(link, *args):
        replay(link, *args)
        link.outbox.carrier.stalled = True
        link.end(m.Replaced())
        link.outbox.carrier.stalled = False

    monkeypatch.setattr(Connection, "replay", replay_and_end)
    async with open_lines(house) as lines:
        wire = await lines.resume(token, {name: ["bcdefghi", 99]})
        assert [message["type"] for message in await wire.hear("replaced")] == ["replaced"]
        await trio.testing.wait_all_tasks_blocked()
        assert not lines.services.links


async def test_a_session_does_not_expire_while_it_is_in_use_nor_for_a_day_after(house):
    """Or a restart would ask everybody for the password who has been connected for longer."""
    day_s = 24 * 3600
    house.now_ms += 30 * day_s * 1000
    async with open_lines(house) as lines:
        wire = await lines.resume(gone(house, house.ann), {})
        token = (await wire.hear("resumed"))[-1]["resume_token"]
        house.now_ms += 2 * day_s * 1000
        wire.to_server.close()
        await trio.testing.wait_all_tasks_blocked()
        house.now += 100
        await house.manager.inbox.send((None, [it.Tick()]))
        await house.settle()
        assert not house.state.is_online(house.ann.account)
        house.now_ms += (day_s - 1) * 1000
        wire = await lines.resume(token, {})
        token = (await wire.hear("resumed"))[-1]["resume_token"]
        wire.to_server.close()
        await trio.testing.wait_all_tasks_blocked()
        house.now += 100
        await house.manager.inbox.send((None, [it.Tick()]))
        await house.settle()
        house.now_ms += day_s * 1000
        wire = await lines.resume(token, {})
        assert (await wire.hear("error"))[-1]["code"] == "unauthorized"


async def decided(house, wire):
    """Wait until ann's session is meant to be this wire's."""
    while house.desk.sessions[house.ann.session].link.outbox is not wire.outbox:  # noqa: ASYNC110
        await trio.sleep(0.001)


async def test_resumes_of_one_session_that_cross(house):
    """The second comes with the token of before the first, which is worth nothing any more; the third with the first's. All three are
    decided before one is stored. (The second used to be told `replaced` after its refusal, which ended the daemon.)"""
    before = gone(house, house.ann)
    commit, stored = house.writer.commit, threading.Event()
    async with open_lines(house) as lines:
        wire = await lines.resume(before, {})
        token = (await wire.hear("resumed"))[-1]["resume_token"]
        house.writer.commit = lambda actions: (stored.wait(10), commit(actions))[1]
        await house.tell(house.bob, m.Send(id=1, cid="c", channel="lobby", text="being stored"))
        wires = []
        for each in (token, before, token):
            wires.append(await lines.resume(each, {}))
            await decided(house, wires[-1])
        stored.set()
        told = [[message["type"] for message in await each.hear("replaced", "error", "resumed", "closing")] for each in wires]
        assert told == [["closing"], ["error"], ["resumed"]]
        await trio.testing.wait_all_tasks_blocked()
        assert [each.aborted for each in wires] == [True, True, False]
        assert (await wires[2].ask({"type": "ping", "id": 2}))[-1]["type"] == "pong"


async def test_a_resume_that_was_not_stored_and_its_retry_on_another_connection_that_was(house):
    """It is decided while the refusal of the first is being looked up, and is no part of what failed."""
    commit, stored, token = house.writer.commit, threading.Event(), gone(house, house.ann)

    def fail(actions):
        house.writer.commit = wait
        raise CommitFailed("storage_unavailable", "locked", definite=True)

    def wait(actions):
        house.writer.commit = commit
        stored.wait(10)
        return commit(actions)

    async with open_lines(house) as lines:
        house.writer.commit = fail
        first = await lines.resume(token, {})
        while house.writer.commit is not commit:  # noqa: ASYNC110
            await trio.sleep(0.001)
        second = await lines.resume(token, {})
        await decided(house, second)
        stored.set()
        assert (await second.hear("resumed"))[-1]["user"] == "ann"
        assert [message["type"] for message in await first.hear("error")] == ["error"]
        await trio.testing.wait_all_tasks_blocked()
        assert first.aborted


async def test_a_channel_that_the_store_deleted_and_the_router_does_not_know_yet(house, monkeypatch):
    room(house, 5, "den", house.bob, house.ann)
    say(house, house.bob, "x", "den")
    token = gone(house, house.ann)
    house.router.by_conv[5].ring = None
    async with open_lines(house) as lines:
        later = []

        async def meanwhile():
            outcomes = house.writer.commit([fx.Action(effects=(fx.DeleteRoom(room=5),))])
            later.append(outcomes)

        async def routed():
            house.state.apply(fx.DeleteRoom(room=5))
            house.router.route(later[0])
            house.router.hooks.flush()

        Between(monkeypatch, meanwhile, routed)
        wire = await lines.resume(token, {"#den": ["abcdefgh", 1]})
        told = await wire.hear("resumed")
        assert [message["conv"] for message in of_type(told, "removed")] == ["#den"]


async def test_a_store_that_cannot_be_read_ends_the_connection_and_the_token_stays_good(house, monkeypatch):
    say(house, house.bob, "text")
    token = gone(house, house.ann)
    house.router.by_conv[house.state.room("lobby").id].ring = None
    async with open_lines(house) as lines:

        async def fails():
            raise ChatError("storage_unavailable", "no")

        Between(monkeypatch, fails)
        wire = await lines.resume(token, {"#lobby": [epoch(house), 1]})
        (closing,) = await wire.hear("closing")
        assert closing["code"] == "storage_unavailable"
        wire = await lines.resume(token, {"#lobby": [epoch(house), 1]})
        assert seqs(await wire.hear("resumed")) == [1]


async def test_many_rooms_with_long_texts_never_cut_a_slow_peer(house):
    """What is replayed waits for the outbox, whether it comes from the store or out of the rings."""
    for n in range(8):
        room(house, 10 + n, f"r{n}", house.bob, house.ann)
        for _ in range(20):
            say(house, house.bob, "x" * 10_000, f"r{n}")
    token = gone(house, house.ann)
    async with open_lines(house) as lines:
        wire = lines.wire()
        await wire.say({"type": "hello", "protocol": 1, "client": "test"})
        await wire.hear("welcome")
        wire.stalled = True
        cursors = {f"#r{n}": ["abcdefgh", 1] for n in range(8)}
        await wire.say({"type": "resume", "id": 1, "token": token, "cursors": cursors})
        most = 0
        while not wire.messages or wire.messages[-1]["type"] != "resumed":
            with trio.move_on_after(0.02):
                await wire.outbox.wait_moved()
            most = max(most, wire.outbox.pending_bytes)
            assert wire.outbox.cut_code is None
            wire.stalled = False
            wire.flush_nowait()
            wire.stalled = True
        assert most > 200_000, "or nothing was tried"
        for n in range(8):
            assert seqs(wire.messages, f"#r{n}") == list(range(1, 21))


async def test_history(house):
    for n in range(30):
        say(house, house.bob if n % 2 else house.ann, f"text {n}")
    say(house, house.ann, "psst", to="bob")
    token = gone(house, house.ann)
    async with open_lines(house) as lines:
        wire = await lines.resume(token, {})
        await wire.hear("resumed")

        async def page(conv="#lobby", **bounds):
            return (await wire.ask({"type": "history", "id": 5, "conv": conv, "limit": 10, **bounds}))[-1]

        first = await page(after=0)
        assert seqs(first["messages"]) == list(range(1, 11))
        assert (first["first_seq"], first["last_seq"], first["more"], first["epoch"]) == (1, 30, True, epoch(house))
        assert [message.get("cid") for message in first["messages"][:2]] == ["c1", None]
        assert seqs((await page(before=21))["messages"]) == list(range(11, 21))
        assert seqs((await page())["messages"]) == list(range(21, 31))
        assert seqs((await page(after=5, before=8))["messages"]) == [6, 7]
        assert (await page(after=30))["messages"] == []
        assert seqs((await page(after=0, limit=10_000))["messages"]) == list(range(1, 31))
        assert seqs((await page("@bob"))["messages"], "@bob") == [1]
        assert (await page("lobby"))["code"] == "bad_request"
        assert (await page("#nowhere"))["code"] == "not_found"
        assert (await page("@nobody"))["code"] == "not_found"
        assert (await page("@ann"))["code"] == "not_found"


@pytest.mark.parametrize(("text", "n"), [('"' * 16_000, 20), ("ä" * 225, 700), ("x", 500)], ids=["escaped", "many", "short"])
async def test_a_page_has_at_most_256_kib_as_it_is_sent(house, text, n):
    lobby = house.state.room("lobby").id
    house.do([fx.Append(conv=lobby, kind="message", author=house.bob.account, body=text)] * n)
    async with open_lines(house) as lines:
        wire = await lines.resume(gone(house, house.ann), {})
        await wire.hear("resumed")

        async def page(**bounds):
            found = (await wire.ask({"type": "history", "id": '"' * 64, "conv": "#lobby", "limit": 500, **bounds}))[-1]
            sent = len(json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode())
            assert sent <= 256 * 1024
            assert sent > 220_000 or len(found["messages"]) == 500 or not found["more"], "nor less than it could be"
            return found

        up, after, more = [], 0, True
        while more:
            found = await page(after=after)
            up, after, more = up + seqs(found["messages"]), found["messages"][-1]["seq"], found["more"]
        assert up == list(range(1, n + 1))
        down, before, more = [], n + 1, True
        while more:
            found = await page(before=before)
            down, before, more = seqs(found["messages"]) + down, found["messages"][0]["seq"], found["more"]
        assert down == up


async def test_a_replay_of_what_grows_when_it_is_written_does_not_cut_a_slow_peer(house, monkeypatch):
    """A stretch is counted as it is sent, like a page."""
    for _ in range(30):
        say(house, house.bob, '"' * 16_000)
    token = gone(house, house.ann)
    house.router.by_conv[house.state.room("lobby").id].ring = None
    put, waiting = Connection.put, [0]
    monkeypatch.setattr(Connection, "put", lambda conn, data: (put(conn, data), waiting.append(conn.outbox.pending_bytes))[0])
    async with open_lines(house) as lines:
        wire = await lines.resume(token, {"#lobby": [epoch(house), 1]})
        assert seqs(await wire.hear("resumed")) == list(range(1, 31))
    assert 220_000 < max(waiting) <= 256 * 1024, "what a stretch adds to what waits already"


async def test_read_markers_and_sessions(house):
    say(house, house.bob, "text")
    token = gone(house, house.ann)
    async with open_lines(house) as lines:
        wire = await lines.resume(token, {})
        await wire.hear("resumed")
        (ok,) = await wire.ask({"type": "read", "id": 2, "conv": "#lobby", "seq": 1})
        assert ok["type"] == "ok"
        (error,) = await wire.ask({"type": "read", "id": 3, "conv": "@bob", "seq": 1})
        assert error["code"] == "not_found"
        (ok,) = await wire.ask({"type": "sessions", "id": 4})
        assert [(row["session"], row["current"], row["online"]) for row in ok["data"]] == [(house.ann.session, True, True)]


async def test_a_resume_tells_the_read_markers_also_those_that_move_meanwhile(house):
    for _ in range(3):
        say(house, house.bob, "text")
    phone, lobby = house.log_in("ann"), house.state.room("lobby").id
    house.ask(phone, it.ReadMark(id=1, conv=lobby, seq=1))
    token = gone(house, house.ann)
    async with open_lines(house) as lines:
        wire = await lines.resume(token, {"#lobby": (epoch(house), 1)})
        assert (await wire.hear("resumed"))[-1]["read"] == {"#lobby": 1}
        assert house.router.read_markers(phone.account, []) is None
        stale = fx.Conversation(conv=lobby, epoch=epoch(house), last_seq=3, role="member", peer=None, read_seq=0)
        assert house.router.read_markers(phone.account, [stale]) == {"#lobby": 1}, "it moved after the store was asked"


async def test_one_session_of_the_account_is_ended_by_another(house):
    phone, lost = house.log_in("ann"), house.log_in("ann")
    house.manager.gone(lost)
    house.tick(100)
    token = gone(house, house.ann)
    async with open_lines(house) as lines:
        wire = await lines.resume(token, {})
        await wire.hear("resumed")
        (error,) = await wire.ask({"type": "logout", "id": 2, "session": house.bob.session})
        assert error["code"] == "not_found", "not one's own"
        (error,) = await wire.ask({"type": "logout", "id": 3, "session": phone.session, "everywhere": True})
        assert error["code"] == "bad_request"
        for number, session in enumerate((phone.session, lost.session), 4):  # with a connection; and known to the store alone
            (ok,) = await wire.ask({"type": "logout", "id": number, "session": session})
            assert ok == {"type": "ok", "id": number}
            (error,) = await wire.ask({"type": "logout", "id": number + 10, "session": session})
            assert error["code"] == "not_found", "once"
        assert phone.take()[-1] == {"type": "closing", "code": "unauthorized"}
        assert not house.bob.ended
        (ok,) = await wire.ask({"type": "sessions", "id": 20})
        assert [row["session"] for row in ok["data"]] == [house.ann.session]
        again = await lines.resume(lost.token, {})
        assert (await again.hear("error"))[-1]["code"] == "unauthorized"
        (ok,) = await wire.ask({"type": "logout", "id": 21, "session": house.ann.session})
        assert ok["type"] == "ok", "one's own is a plain logout"
        assert (await wire.hear("closing"))[-1]["code"] == "unauthorized"


@pytest.mark.parametrize("below", [3, 6], ids=["some of it is gone", "all of it is gone"])
async def test_what_a_retention_took_away_is_a_gap_that_is_not_waited_for(house, below):
    for n in range(5):
        say(house, house.bob, f"text {n}")
    token = gone(house, house.ann)
    house.writer.trim(house.state.room("lobby").id, below)
    house.router.by_conv[house.state.room("lobby").id].ring = None  # as after a restart
    async with open_lines(house) as lines:
        wire = await lines.resume(token, {"#lobby": [epoch(house), 1]})
        told = await wire.hear("resumed")
        assert seqs(told) == list(range(below, 6))
        assert told[0] == {"type": "gap", "conv": "#lobby", "after": 0, "before": below}, "and it is said that it is gone"
        assert len(of_type(told, "gap")) == 1
        page = (await wire.ask({"type": "history", "id": 5, "conv": "#lobby", "after": 0, "limit": 10}))[-1]
        assert (page["first_seq"], page["last_seq"], page["more"]) == (below, 5, False)


async def test_what_a_retention_takes_away_while_it_is_replayed_is_a_gap_too(house, monkeypatch):
    for n in range(9):
        say(house, house.bob, f"text {n} " + "x" * 300)
    token = gone(house, house.ann)
    house.router.by_conv[house.state.room("lobby").id].ring = None
    async with open_lines(house) as lines:

        async def nothing():
            lines.services.limits = Limits(outbox_soft_bytes=8192, outbox_hard_bytes=8192)  # some records at a time

        async def meanwhile():
            house.writer.trim(house.state.room("lobby").id, 8)

        Between(monkeypatch, nothing, meanwhile)
        wire = await lines.resume(token, {"#lobby": [epoch(house), 2]})
        told = await wire.hear("resumed")
        (gap,) = of_type(told, "gap")
        assert gap["before"] == 8
        assert seqs(told[: told.index(gap)]) == list(range(2, gap["after"] + 1)) != []
        assert seqs(told[told.index(gap) :]) == [8, 9]
