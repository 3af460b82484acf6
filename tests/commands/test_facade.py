"""What a plugin can do, in a server of real parts."""

import pytest
import trio

from chat.commands import facade
from chat.protocol import messages as m
from chat.rooms import effects as fx
from chat.testing import open_room, virtual_time
from tests.commands.test_plugins import ask
from tests.rooms.house import of_type, open_house

PLUGIN = '''
import json
from chat.plugin import *

@command
def who(ctx: Context, user: User | None = None, channel: Channel | None = None) -> str:
    """Say who asks, where, and what was named."""
    return json.dumps([ctx.user.name, ctx.user.role, ctx.user.channel_role, str(ctx.channel),
        [type(user).__name__, str(user)], [type(channel).__name__, str(channel)], [str(one) for one in ctx.members]])

@command
async def say(ctx: Context, text: Rest) -> None:
    """Say it here."""
    await ctx.say(text)

@command
async def whisper(ctx: Context, user: User, text: Rest) -> str:
    """Say it to somebody."""
    await ctx.say(text, to=user)
    ctx.reply(f"told {user}\\x07")
    return "done"

@command
async def into(ctx: Context, channel: str, text: Rest) -> str:
    """Say it in another channel."""
    found = ctx.find_channel(channel)
    if found is None:
        raise Refused("no such channel for you")
    await ctx.say(text, to=found)

@command
async def keep(ctx: Context, key: str, value: str = "") -> str:
    """Keep a value, or forget it."""
    if value:
        await ctx.store.set(key, {"value": value})
    else:
        await ctx.store.delete(key)
    return json.dumps(ctx.store.items())

@command
async def spoil(ctx: Context, what: str) -> str:
    """Do what is not done."""
    if what == "json":
        await ctx.store.set("x", object())
    if what == "size":
        await ctx.store.set("x", "x" * 70_000)
    if what == "update":
        await ctx.store.update("x", lambda n: n / 0, 1)
    if what == "empty":
        await ctx.say("  ")
    if what == "long":
        await ctx.say("x" * 17_000)
    if what == "bytes":
        await ctx.say(b"x")
'''


@pytest.fixture
def house(tmp_path):
    folder = tmp_path / "plugins"
    folder.mkdir(mode=0o700)
    (folder / "mine.py").write_text(PLUGIN)
    with open_house(plugin_folder=folder, channels=("lobby", "attic")) as house:
        house.root, house.ann, house.bob = house.owner(), house.register("Ann"), house.register("bob")
        yield house


async def test_who_and_where(house):
    async with house.running():
        told = (await ask(house, house.ann, "who BOB #Attic"))["text"]
        assert told == '["Ann", "user", "member", "#lobby", ["User", "bob"], ["Channel", "#attic"], ["root", "Ann", "bob"]]'
        told = (await ask(house, house.root, "who", channel="@Ann"))["text"]
        assert told == '["root", "owner", null, "None", ["NoneType", "None"], ["NoneType", "None"], ["root"]]'
        assert (await ask(house, house.ann, "who nobody"))["code"] == "not_found"


async def test_what_is_said_in_a_channel_is_stored_and_comes_from_the_server(house):
    async with house.running():
        assert (await ask(house, house.ann, "say one\ttwo\nthree\x07"))["text"] == ""
        for line in (house.bob, house.root):
            (message,) = of_type(await house.settle(line), "message")
            assert (message["from"], message["text"], message["conv"], message["seq"]) == ("server", "one\ttwo\nthree", "#lobby", 1)
        assert of_type(house.told, "message")[0]["seq"] == 1, "and is told before the command's own answer"


async def test_what_is_said_to_a_person_is_in_their_notes_though_they_are_away(house):
    house.router.detach(house.bob)
    async with house.running():
        assert (await ask(house, house.ann, "whisper bob psst"))["text"] == "done"
        assert house.told == [{"type": "notice", "level": "info", "text": "told bob"}]
    again = house.log_in("bob")
    conv = next(conv for name, (epoch, conv) in house.router.heads(again.account).items() if name == "@bob")
    assert conv == 1
    assert house.writer._db.execute("SELECT author, body FROM records WHERE body = 'psst'").fetchall() == [(0, "psst")]


async def test_a_command_speaks_where_its_person_may(house):
    async with house.running():
        await ask(house, house.ann, "into attic hello")
        assert [message["conv"] for message in of_type(await house.settle(house.bob), "message")] == ["#attic"]
        await house.tell(house.ann, m.Leave(id=5, channel="attic"))
        refused = await ask(house, house.ann, "into attic hello")
        assert (refused["code"], refused["message"]) == ("forbidden", "you are not in #attic; join it first")
        house.state.room("lobby").restrict().announce_only = True
        refused = await ask(house, house.ann, "say hello")
        assert "for announcements" in refused["message"]
        assert "result" in (await ask(house, house.root, "say hello"))["type"]


async def test_a_private_channel_is_not_found_by_who_is_not_in_it(house):
    async with house.running():
        await ask(house, house.bob, "create-channel cellar secret")
        refused = await ask(house, house.ann, "into cellar hello")
        assert (refused["code"], refused["message"]) == ("bad_request", "no such channel for you")
        assert (await ask(house, house.bob, "into cellar hello"))["type"] == "result"
        assert (await ask(house, house.ann, "who bob cellar"))["code"] == "not_found"


async def test_the_store(house):
    async with house.running():
        assert (await ask(house, house.ann, "keep b 1"))["text"] == '[["b", {"value": "1"}]]'
        assert (await ask(house, house.ann, "keep a 2"))["text"] == '[["a", {"value": "2"}], ["b", {"value": "1"}]]'
        assert (await ask(house, house.ann, "keep b"))["text"] == '[["a", {"value": "2"}]]'
        assert (await ask(house, house.ann, "keep b"))["text"] == '[["a", {"value": "2"}]]'
    assert house.writer._db.execute("SELECT * FROM plugin_values").fetchall() == [("mine", "a", '{"value":"2"}')]


@pytest.mark.parametrize(
    ("what", "code"),
    [(what, "internal_error") for what in ("json", "update", "empty", "long", "bytes")] + [("size", "quota_exceeded")],
)
async def test_what_is_not_done_fails_alone(house, what, code):
    async with house.running():
        assert (await ask(house, house.ann, f"spoil {what}"))["code"] == code
        assert (await ask(house, house.ann, "keep a 1"))["text"] == '[["a", {"value": "1"}]]'
        assert not of_type(await house.settle(house.bob), "message")


def test_who_is_nobody_any_more_and_a_channel_that_is_gone(house):
    ctx = facade.Background(house.desk, "mine")
    assert ctx.find_user("Ann").id == ctx.find_user(house.ann.account).id
    assert ctx.find_user("nobody") is ctx.find_user(5) is ctx.find_channel("nowhere") is ctx.find_channel(5) is None
    attic = ctx.find_channel("attic")
    assert attic == ctx.find_channel(attic.id)
    assert [str(user) for user in ctx.members_of(attic)] == ["root", "Ann", "bob"]
    house.do([fx.DeleteRoom(room=attic.id)])
    assert ctx.members_of(attic) == []


async def test_what_cannot_be_done_any_more_is_refused(house):
    ctx = facade.Background(house.desk, "mine")
    lobby = ctx.find_channel("lobby")
    async with house.running():
        await ctx.say("here", to=lobby)
    with pytest.raises(facade.ChatError, match="shutting_down"):
        await ctx.say("too late", to=lobby)


def test_a_picture_is_of_one_moment(house):
    ctx = facade.Background(house.desk, "mine")
    before = ctx.find_user("Ann")
    house.do([fx.SetColor(account=house.ann.account, color="#123456")])
    after = ctx.find_user("Ann")
    assert (before.color, after.color) == (None, "#123456")
    assert before == after
    assert {before: 1}[after] == 1


# ---------------------------------------------------------------- asking

ASKING = '''
from chat.plugin import *

@command(where="channel")
async def survey(ctx: Context, how_many: int = 2) -> str:
    """Ask everybody here."""
    try:
        answers = await ctx.ask("How old?", of=ctx.channel, parse=int, timeout=10, how_many=how_many)
    except QuestionClosed as closed:
        return f"{closed.reason} {[(type(each.user).__name__, each.user.name) for each in closed.answers]}"
    if how_many == 1:
        answers = [answers]
    return str([(type(each.user).__name__, each.user.name, each.value) for each in answers])

@command
async def of(ctx: Context, what: str) -> str:
    """Ask all sorts of people."""
    nobody = User(id=1, name="nobody", color=None, role="user", channel_role=None, online=True)
    nowhere = Channel(id=1, name="nowhere", topic="", private=False)
    return await ctx.ask("?", of={"me": None, "nobody": nobody, "nowhere": nowhere, "all": everyone, "text": "bob"}[what], timeout=5)
'''


@virtual_time
async def test_who_is_asked_and_who_answers_are_pictures_of_people(tmp_path):
    (tmp_path / "asking.py").write_text(ASKING)
    async with open_room(tmp_path / "asking.py", people=["ann", "bob", "cem"]) as room:
        ann, bob, cem = room.people
        call = await ann.types("//survey")
        await bob.answers("41")
        with pytest.raises(facade.ChatError, match="a whole number is expected"):
            await cem.answers("old")
        await cem.answers("42")
        assert call.text == "[('User', 'bob', 41), ('User', 'cem', 42)]"
        call = await ann.types("//survey 1")
        await bob.answers("7")
        assert call.text == "[('User', 'bob', 7)]"
        call = await ann.types("//survey 3")
        await bob.answers("7")
        await trio.sleep(11)
        assert call.text == "[('User', 'bob', 7)]", "the time is over, and this is what came"
        call = await ann.types("//survey 1")
        await trio.sleep(11)
        assert call.text == "timeout []"


@virtual_time
async def test_whom_one_can_ask(tmp_path):
    (tmp_path / "asking.py").write_text(ASKING)
    async with open_room(tmp_path / "asking.py") as room:
        ann, bob = room.people
        call = await ann.types("//of me")
        await ann.answers("I")
        assert call.text == "I"
        assert (await ann.types("//of nobody")).error == "nobody is gone, and has not answered"
        assert (await ann.types("//of nowhere")).code == "removed"
        assert (await ann.types("//of text")).code == "internal_error"
        call = await ann.types("//of all")
        await bob.answers("here")
        assert call.code == "internal_error", "an Answered is no text"


@virtual_time
async def test_a_command_asks_only_where_its_person_may_write(tmp_path):
    (tmp_path / "asking.py").write_text(ASKING)
    async with open_room(tmp_path / "asking.py") as room:
        ann, bob = room.people
        await ann.types("//announce-only on")
        call = await bob.types("//survey")
        assert "for announcements" in call.error
        assert ann.question is None


COUNTING = '''
from chat.plugin import *

@command
async def count(ctx: Context) -> str:
    """Count, as many do at once."""
    return str(await ctx.store.update("n", lambda n: n + 1, 0))
'''


@virtual_time
async def test_many_count_at_once_and_nobody_is_left_out(tmp_path):
    (tmp_path / "counting.py").write_text(COUNTING)
    async with open_room(tmp_path / "counting.py", people=[f"p{n}" for n in range(20)]) as room:
        async with trio.open_nursery() as nursery:
            for person in room.people:
                nursery.start_soon(person.types, "//count")
        await trio.testing.wait_all_tasks_blocked()
        assert room.stored() == {"n": 20}
