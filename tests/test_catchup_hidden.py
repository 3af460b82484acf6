"""Channels that keep their history from newcomers, or keep none: what may be read, in history and in a replay."""

import pytest

from chat.protocol import messages as m
from chat.store.base import FORGOTTEN_MS
from tests.rooms.house import of_type, open_house
from tests.test_catchup import epoch, gone, say, seqs
from tests.wire import open_lines


@pytest.fixture
def house():
    """ann owns #lobby; four texts were said before bob joined, two after."""
    with open_house() as house:
        house.ann = house.register("ann")
        for n in range(4):
            say(house, house.ann, f"before {n}")
        house.bob = house.register("bob")
        house.command(house.ann, "leave-channel", "lobby")  # 5: left
        house.ask(house.ann, m.Join(id=1, channel="lobby"))  # 6: joined (7: bob has become the owner in between)
        yield house


def set_mode(house, mode):
    answer = house.command(house.bob, f"history-mode {mode}", "lobby")
    assert answer["type"] == "result", answer
    house.ann.take(), house.bob.take()


async def page(wire, **bounds):
    """What is shown of #lobby: seqs, and (from, to) for what is hidden; and whether there is more."""
    answer = (await wire.ask({"type": "history", "id": 5, "conv": "#lobby", "limit": 100, **bounds}))[-1]
    assert answer["type"] == "history", answer
    shown = [(record["from_seq"], record["to_seq"]) if record["type"] == "hidden" else record["seq"] for record in answer["messages"]]
    return shown, answer["more"]


async def open_as(lines, house, line):
    wire = await lines.resume(gone(house, line), {"#lobby": [epoch(house), house.router.head(house.state.room("lobby").id) + 1]})
    await wire.hear("resumed")
    return wire


async def test_newcomers_read_what_was_said_since_they_joined(house):
    head = house.router.head(house.state.room("lobby").id)
    assert head == 7
    set_mode(house, "since_join")
    async with open_lines(house) as lines:
        ann, bob = await open_as(lines, house, house.ann), await open_as(lines, house, house.bob)
        assert await page(bob) == ([(1, 4), 5, 6, 7], False), "he was registered into the channel behind the fourth"
        assert await page(ann) == ([(1, 6), 7], False), "who left and came again is a newcomer; its own `joined` is the first it sees"
        assert await page(bob, limit=2) == ([6, 7], True)
        assert await page(bob, before=6) == ([(1, 4), 5], False)
        assert await page(bob, before=5) == ([(1, 4)], False)
        assert await page(bob, before=3) == ([(1, 2)], False)
        assert await page(bob, after=0) == ([(1, 4), 5, 6, 7], False)
        assert await page(bob, after=2, limit=2) == ([(3, 4), 5, 6], True)
        assert await page(bob, after=4) == ([5, 6, 7], False)
        assert await page(bob, after=5) == ([6, 7], False)
        assert await page(bob, after=0, before=3) == ([(1, 2)], False)
        assert await page(bob, after=7) == ([], False)
        assert (await bob.ask({"type": "command", "id": 6, "channel": "lobby", "text": "history-mode all"}))[-1]["type"] == "result"
        assert await page(ann) == ([1, 2, 3, 4, 5, 6, 7], False)


async def test_what_is_hidden_is_told_on_the_page_that_reaches_it(house):
    """A page that ends early ends there, and says so."""
    set_mode(house, "since_join")
    for _ in range(12):
        say(house, house.ann, '"' * 16_000)  # 8 to 19, of 32 KB each
    async with open_lines(house) as lines:
        bob = await open_as(lines, house, house.bob)
        assert await page(bob) == ([*range(12, 20)], True)
        assert await page(bob, before=12) == ([(1, 4), *range(5, 12)], False)
        assert await page(bob, after=0) == ([(1, 4), *range(5, 16)], True)


async def test_a_replay_begins_where_one_joined(house):
    set_mode(house, "since_join")
    token = gone(house, house.bob)
    async with open_lines(house) as lines:
        wire = await lines.resume(token, {"#lobby": [epoch(house), 2]})
        told = await wire.hear("resumed")
        assert of_type(told, "gap") == [{"type": "gap", "conv": "#lobby", "after": 1, "before": 5}]
        assert seqs(told) == [5, 6, 7]


async def test_without_history_a_record_is_kept_until_it_is_delivered(house):
    set_mode(house, "none")
    seq = say(house, house.ann, "soon forgotten", "lobby")
    token = gone(house, house.bob)
    async with open_lines(house) as lines:
        ann = await open_as(lines, house, house.ann)
        assert await page(ann) == ([(1, 6), 7, seq], False)
        bob = await lines.resume(token, {"#lobby": [epoch(house), seq]})
        told = await bob.hear("resumed")
        assert seqs(told) == [seq], "who was reconnecting gets it"
        token = told[-1]["resume_token"]
        house.now_ms += FORGOTTEN_MS + 1
        assert await page(ann) == ([(1, seq)], False)
        later = await lines.resume(token, {"#lobby": [epoch(house), seq]})
        told = await later.hear("resumed")
        assert (seqs(told), of_type(told, "gap")[0]["before"]) == ([], seq + 1)
        while await house.committer.tidy(cids_before_ms=0, rows=3):
            pass
        db = house.writer._db
        assert db.execute("SELECT count(*) FROM records").fetchone() == (0,), "nothing is left on the disk"
        send = {"type": "send", "id": 9, "channel": "lobby"}
        assert seqs(await ann.ask(send | {"cid": "next", "text": "next"})) == [seq + 1], "the order goes on without a gap"
        (ack,) = await ann.ask(send | {"cid": f"c{house.count}", "text": "soon forgotten"})
        assert (ack["seq"], ack["dup"]) == (seq, True), "and what was acknowledged stays known"
        assert await page(ann) == ([(1, seq), seq + 1], False)


async def test_a_text_in_the_same_transaction_as_a_join_is_before_it(house):
    """The place of a newcomer is that of the transaction's own order, and not of what is on the disk when it begins."""
    house.command(house.bob, "history-mode since_join", "lobby")
    house.ask(house.ann, m.Leave(id=1, channel="lobby"))
    house.bob.take()
    house.decide(house.bob, m.Send(id=1, cid="x", channel="lobby", text="not for ann"))
    house.decide(house.ann, m.Join(id=2, channel="lobby"))
    house.commit()
    lobby = house.state.room("lobby").id
    ours = (lobby, house.ann.account)
    (from_seq,) = house.writer._db.execute("SELECT from_seq FROM members WHERE room = ? AND account = ?", ours).fetchone()
    (joined,) = of_type(house.bob.take(), "joined")
    assert from_seq == joined["seq"]
