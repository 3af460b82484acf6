"""Taking messages away, and what an account's history of commands keeps."""

from collections import deque

import pytest

from chat.client.screen import PromptScreen
from chat.client.view import record_line
from chat.protocol import messages as m
from chat.rooms import notices
from tests.commands.test_plugins import ask
from tests.rooms.house import of_type, open_house


@pytest.fixture
def house():
    """root owns the server, Ann moderates #lobby; bob is a member."""
    with open_house(channels=("lobby", "attic")) as house:
        house.root, house.ann, house.bob = house.owner(), house.register("Ann"), house.register("bob")
        house.command(house.root, "set-user-perm ann moderator", "lobby")
        for text in ("one", "two", "three"):
            house.say(house.bob, "lobby", text)
        house.say(house.bob, "attic", "elsewhere")
        for line in (house.root, house.ann, house.bob):
            line.take()
        yield house


def bodies(house, channel="lobby"):
    """seq → (kind, body), as stored."""
    room = house.state.room(channel).id
    rows = house.writer._db.execute("SELECT seq, kind, body FROM records WHERE conv = ? ORDER BY seq", (room,))
    return {seq: (kind, body) for seq, kind, body in rows}


async def test_the_last_messages_are_taken_away_and_their_places_stay(house):
    before = bodies(house)
    async with house.running():
        answer = await ask(house, house.ann, "clear 2")
        assert (answer["text"], answer["data"]) == ("took away 2 messages", {"channel": "lobby", "messages": [3, 4]})
        told = of_type(await house.settle(house.bob), "deleted")
        assert [(each["seq"], each["target"], each["by"]) for each in told] == [(5, 3, "Ann"), (6, 4, "Ann")]
        assert of_type(house.told, "deleted") == told
    after = bodies(house)
    assert {seq: after[seq] for seq in (1, 2)} == {seq: before[seq] for seq in (1, 2)}
    assert (after[3], after[4]) == (("message", None), ("message", None))
    assert "two" not in str(after)
    assert "elsewhere" in str(bodies(house, "attic"))
    assert house.writer._db.execute("SELECT action, after FROM audit ORDER BY n DESC LIMIT 1").fetchone()[0] == "clear"


async def test_who_was_away_gets_them_without_their_texts(house):
    """Out of the ring of the latest records as well as out of the store."""
    room = house.state.room("lobby").id
    async with house.running():
        await ask(house, house.ann, "clear 3")
    ring = [notices.placed("#lobby", item, house.state.name_of) for item in house.router.by_conv[room].ring]
    assert sum(b'"text":"","deleted":true' in each for each in ring) == 3
    page = await house.store.history(room, after=0, before=None, limit=100, max_bytes=10**6)
    stored = [
        notices.record("#lobby", page.epoch, row.seq, row.ts, row.kind, row.author, row.body, row.reply_to, None, house.state.name_of)
        for row in page.rows
    ]
    assert stored == ring
    assert not any(text in each for each in stored for text in (b"one", b"two", b"three"))


async def test_what_is_taken_away_already_is_not_counted_again(house):
    async with house.running():
        await ask(house, house.ann, "clear 2")
        assert (await ask(house, house.ann, "clear"))["data"]["messages"] == [2]
        answer = await ask(house, house.ann, "clear 500")
        assert answer["text"] == "there are no messages to take away"
        assert not of_type(house.told, "deleted")


@pytest.mark.parametrize(("line", "text", "code"), [("bob", "clear 1", "forbidden"), ("ann", "clear 0", "bad_request")])
async def test_what_is_refused_leaves_no_trace(house, line, text, code):
    before = bodies(house)
    async with house.running():
        assert (await ask(house, getattr(house, line), text))["code"] == code
        assert (await ask(house, house.ann, text, "attic"))["code"] in ("forbidden", "bad_request")
    assert bodies(house) == before


# ---------------------------------------------------------------- on a terminal


class Terminal:
    """What a terminal shows, as far as these tests go: erasing the screen and its scrolled lines empties it."""

    def __init__(self):
        self.written = []

    def erase_screen(self):
        self.written.clear()

    def write_raw(self, data):
        assert data == "\x1b[3J"

    def cursor_goto(self, row, column): ...


def test_a_terminal_takes_the_text_off_the_screen():
    screen = PromptScreen.__new__(PromptScreen)
    terminal = Terminal()
    screen._output, screen._waiting, screen._printed, screen._gone = terminal, deque(), deque(), deque()
    screen._loop = None

    def message(seq, text):
        return m.Message(conv="#lobby", epoch="e" * 8, seq=seq, ts=seq, from_="bob", text=text)

    def printed():
        screen._forget_gone()
        while screen._waiting:
            line = screen._waiting.popleft()
            screen._printed.append(line)
            terminal.written.append(line.text)
        return [text.split(" ", 1)[1] for text in terminal.written]

    for seq, text in enumerate(("one", "two"), 1):
        screen.show(record_line(message(seq, text), me="ann", colors={}, current="#lobby"))
    assert printed() == ["bob one", "bob two"]
    screen.show(record_line(message(3, "three"), me="ann", colors={}, current="#lobby"))
    screen.take_away(("#lobby", 2))
    screen.take_away(("#lobby", 3))
    screen.take_away(("#attic", 1))
    assert printed() == ["bob one", "bob (taken away)", "bob (taken away)"]


def test_a_message_of_the_history_that_was_taken_away():
    gone = m.Message(conv="#lobby", epoch="e" * 8, seq=1, ts=1, from_="bob", text="", deleted=True)
    assert record_line(gone, me="ann", colors={}, current="#lobby").text.endswith("a text of bob was taken away")


# ---------------------------------------------------------------- the history of commands


async def test_the_last_commands_of_an_account_without_their_secrets(house):
    async with house.running():
        await ask(house, house.ann, "USERS", None)
        await ask(house, house.ann, "create-channel cellar  hunter2", None)
        await ask(house, house.ann, 'topic  "Tea"  and cake')
        await ask(house, house.ann, "topic " + "x" * 300)
        await ask(house, house.bob, "user-count")
        assert (await ask(house, house.ann, "ban bob"))["code"] == "forbidden"
        assert (await ask(house, house.ann, "nonsense"))["code"] == "not_found"
        fresh = await ask(house, house.ann, "command-history")
        house.now_ms += 60_000
        house.manager._tick()
        await house.settle()
        stored = await ask(house, house.ann, "command-history 3")
    lines = [each["line"] for each in fresh["data"]]
    assert lines == ["users", "create-channel cellar •••", 'topic "Tea"  and cake', "topic " + "x" * 193 + "…"]
    assert fresh["text"].splitlines()[2].endswith('#lobby topic "Tea"  and cake')
    assert [each["line"] for each in stored["data"]] == [*lines[2:], "command-history"]
    everything = str(list(house.writer._db.iterdump()))
    assert "hunter2" not in everything.replace("hash of hunter2", ""), "(the stand-in for a hash is readable)"


async def test_it_is_bounded_and_only_the_last_are_kept(house):
    async with house.running():
        for n in range(60):
            await ask(house, house.bob, f"help {'help' if n % 2 else 'users'}")
        house.manager._tick()
        await house.settle()
        told = await ask(house, house.bob, "command-history 50")
        assert len(told["data"]) == 50
    kept = house.writer._db.execute("SELECT count(*) FROM command_history WHERE account = ?", (house.bob.account,)).fetchone()
    assert kept == (50,)


async def test_what_is_noted_is_stored_at_the_end(house):
    async with house.running():
        await ask(house, house.bob, "users")
        assert house.writer._db.execute("SELECT * FROM command_history").fetchall() == []
    assert [row[0] for row in house.writer._db.execute("SELECT line FROM command_history WHERE line = 'users'")] == ["users"]
