"""Who may use which command where: every cell of `tests.commands.matrix`, through the desk, a real store and everybody's connections.

A denied cell leaves no trace: a dump of the whole database before and after is equal, and nobody but who asked is sent a byte. A private
channel and one that does not exist cannot be told apart: the answers are the same but for the name. An allowed cell is decided and not
stored, and the state is loaded anew, so that one house is good for all of them; what a command does when it is allowed is tested elsewhere.
"""

import json
import math

import pytest

from chat.commands import builtin
from chat.protocol import messages as m
from chat.rooms import effects as fx
from chat.rooms.conversations.runs import Run
from tests.commands.matrix import ALL, ROLES, TABLE
from tests.rooms.house import open_house
from tests.wire import open_lines

DENIED = {"forbidden", "not_found", "unauthorized"}
PLACES = {"own": "garden", "other": "orchard", "private": "den"}
ABSENT = "nix"
# They need a right and change nothing, or nothing of others: all other such commands write into the moderation log.
UNLOGGED = {"audit", "ban-preview", "banned-users", "plugins", "reload-commands", "reports", "sanctions"}


class World:
    """The channels, the people in their roles, and the witnesses: ``lines`` are the connections of all of them."""

    def __init__(self, house):
        self.house = house
        self.lines = {"root": house.owner()}
        for name in (*ROLES.values(), "stranger", "victim", "lone", "guest", "outcast", "exiled"):
            self.lines[name] = house.register(name)
        self.reports = {}
        self.count = 0
        self.effects = ()  # of the last attempt

    async def build(self):
        do = self.do
        await do("root", "set-user-perm admin admin")
        for place, owner in (("garden", "owner"), ("orchard", "stranger"), ('den "open sesame"', "stranger")):
            await do(owner, f"create-channel {place}")
        for name in ("muted", "member", "moderator", "admin", "victim", "exiled"):
            await do(name, "join-channel garden")
        for name in ("victim", "exiled"):
            await do(name, "join-channel orchard")
        await do("victim", 'join-channel den "open sesame"')
        await do("owner", "set-user-perm moderator moderator", "garden")
        await do("owner", "mute muted", "garden")
        await do("root", "ban outcast", None)
        for place, owner in (("garden", "owner"), ("orchard", "stranger"), ("den", "stranger")):
            if place != "den":
                await do(owner, "channel-ban exiled", place)
            await do(owner, "mute victim", place)
            await do(owner, "invite-user guest", place)
            self.house.say(self.lines[owner], place, "good morning")
            await do(owner, "report lone rude", place)
            self.reports[place] = len(self.reports) + 1
        self.house.tick(0)  # what is still to be noted is stored
        self.quiet()

    async def do(self, name, text, channel=None):
        answer = await self.house.command_async(self.lines[name], text, channel)
        assert answer["type"] == "result", (name, text, answer)

    def quiet(self):
        for line in self.lines.values():
            line.take()

    def ask_something(self, place):
        """A question to the channel, asked by the victim. *Returns* its id."""
        house, victim = self.house, self.lines["victim"]
        questions = house.desk.questions
        room = house.state.room(place)
        run = Run(questions=questions, name="poll", account=victim.account, session=victim.session, room=room.id, member=True)
        question = questions.open(run, "tea?", left_s=math.inf, read=str, settled=lambda: None, room=room.id)
        house.commit()
        self.quiet()
        return question

    async def attempt(self, name, row, place):
        """(the refusal or None, what everybody was told): decided, and stored where it was refused."""
        house, line = self.house, self.lines[name]
        known = self.house.state.room(place) is not None
        question = self.ask_something(place) if known and "{question}" in row.line else None
        text = row.line.format(place=place, report=self.reports.get(place, 3), question=question.id if question else "q0")
        self.count += 1
        cid = f"c{self.count}" if self.count % 2 else None
        request = m.Command(id=self.count, cid=cid, text=text, channel=place if row.inside else None)
        house.decide(line, request)
        tasks, house.tasks = house.tasks, []
        for session, run in tasks:
            await session.run(run)
        while house.manager._inbox.statistics().current_buffer_used:
            house.manager._take(house.manager._inbox.receive_nowait())
        (action,) = [action for action in house.desk.actions if action.reply is not None and action.reply.id == self.count]
        refusal, self.effects = action.refusal, action.effects
        if refusal is not None and refusal.code in DENIED:
            house.commit()
            house.tick(0)
        else:  # allowed; whether it comes to something is another matter
            house.desk.actions.clear()
            house.desk.noted_commands.clear()
            house.desk.fresh_cids.discard((line.account, cid))
            house.load()
        if question is not None:
            house.desk.questions.close(question, "ended")
            house.desk.actions.clear()
        told = {who: each.take() for who, each in self.lines.items()}
        return refusal, {who: messages for who, messages in told.items() if messages}

    def dump(self):
        return list(self.house.writer._db.iterdump())


@pytest.fixture(scope="module")
def house():
    with open_house() as house:
        yield house


@pytest.fixture(scope="module")
def worlds():
    return []


@pytest.fixture
async def world(house, worlds):
    """One for all cells."""
    if not worlds:
        worlds.append(World(house))
        await worlds[0].build()
    return worlds[0]


def test_every_command_has_a_row():
    """A new command without one fails here: who may use it, and where, is written down first."""
    assert set(TABLE) == {spec.name for spec in builtin.registry().all()}


@pytest.mark.parametrize("name", TABLE)
async def test_a_row(world, name):
    row = TABLE[name]
    wrong, logged = [], 0
    moderates = builtin.registry().get(name).needs != "member" and name not in UNLOGGED
    for column, place in PLACES.items():
        allowed = {"own": row.own, "other": row.other, "private": ""}[column]
        for letter in ALL:
            before = world.dump()
            refusal, told = await world.attempt(ROLES[letter], row, place)
            denied = refusal is not None and refusal.code in DENIED
            if denied == (letter in allowed):
                wrong.append(f"{ROLES[letter]} in the {column} channel: {refusal or 'allowed'}")
            elif refusal is None and world.effects and moderates:
                assert any(type(effect) is fx.Audit for effect in world.effects), "what it changes is in the moderation log, or none of it"
                logged += 1
            elif denied:
                assert set(told) == {ROLES[letter]}, "nobody else hears of it"
                assert [message["type"] for message in told[ROLES[letter]]] == ["error"]
            if denied or letter == "m":
                assert world.dump() == before
    assert not wrong
    assert logged or not moderates or name == "enable-command", "which finds nothing that is off"


@pytest.mark.parametrize("name", TABLE)
async def test_a_private_channel_and_an_absent_one_are_answered_alike(world, name):
    row = TABLE[name]
    for letter in ALL:
        answers = []
        for place in (PLACES["private"], ABSENT):
            before = world.dump()
            _, told = await world.attempt(ROLES[letter], attrs_line(row), place)
            assert world.dump() == before
            assert list(told) == [ROLES[letter]]
            (answer,) = told[ROLES[letter]]
            answers.append(json.dumps({**answer, "id": 0, "cid": ""}).replace(place, "PLACE"))
        assert answers[0] == answers[1]


def attrs_line(row):
    """The same question and report in both places: their numbers are no secret of the channel's."""
    return type(row)(row.line.replace("{question}", "q0").replace("{report}", "3"), row.own, row.other, row.inside)


async def test_who_has_not_logged_in_may_nothing():
    """Nothing of a command is looked at: each is refused in the same words, and the connection goes on until it has asked too often."""
    with open_house() as house:
        root = house.owner()
        async with open_lines(house) as lines:
            names = list(TABLE)
            for part in (names[at : at + 15] for at in range(0, len(names), 15)):
                wire = lines.wire()
                await wire.say({"type": "hello", "protocol": 1, "client": "test"})
                await wire.hear("welcome")
                before = list(house.writer._db.iterdump())
                for name in part:
                    row = TABLE[name]
                    request = {"type": "command", "id": name, "text": row.line.format(place="lobby", report=1, question="q0")}
                    (answer,) = await wire.ask(request | ({"channel": "lobby"} if row.inside else {}))
                    assert (answer["type"], answer["code"]) == ("error", "unauthorized"), name
                assert list(house.writer._db.iterdump()) == before
            assert root.take() == []
