"""A house in which commands ask: the pipeline runs, people are lines, and what must be gone afterwards is looked at."""

from contextlib import asynccontextmanager

import trio

from chat.commands.context import Surroundings
from chat.commands.dispatch import RIGHTS, Dispatcher
from chat.commands.plugins import Plugins
from chat.commands.registry import Registry
from chat.protocol import messages as m
from tests.rooms.house import Passwords, of_type, open_house


class Talk:
    """``house`` runs. People: `join`. What they type: `call`, `answer`. What they see: `see`."""

    def __init__(self, house, nursery):
        self.house = house
        self.nursery = nursery
        self.ids = 100
        self.before = None  # the database when the first command was given
        self.touched = set()  # tables that the test itself changes afterwards

    @property
    def questions(self):
        return self.house.desk.questions

    async def settle(self):
        """Until everything that can go on by itself has."""
        for _ in range(3):
            await self.house.settle()
            await trio.testing.wait_all_tasks_blocked()

    def person(self, name):
        return self.house.register(name)

    async def call(self, line, text, channel="lobby", cid=None):
        """Give a command. *Returns* the id of the request."""
        self.ids += 1
        self.before = self.before or dump(self.house)
        await self.house.tell(line, m.Command(id=self.ids, text=text, channel=channel, cid=cid))
        await self.settle()
        return self.ids

    async def answer(self, line, question, text):
        """*Returns* ok or the error."""
        self.ids += 1
        await self.house.tell(line, m.Answer(id=self.ids, question=question, text=text))
        await self.settle()
        return self.reply(line, self.ids)

    def reply(self, line, id):
        found = [message for message in line.outbox.messages if message.get("id") == id]
        assert len(found) <= 1
        return found[0] if found else None

    def asked(self, line):
        """What this line was asked, and has not been told to be over: id → question."""
        open_ = {}
        for message in line.outbox.messages:
            if message["type"] == "question":
                open_[message["question"]] = message
            elif message["type"] == "question_closed":
                open_.pop(message["question"], None)
        return open_

    def only(self, line):
        ((id, _),) = self.asked(line).items()
        return id

    def closed(self, line):
        """The reasons that it was told."""
        return [message["reason"] for message in of_type(line.outbox.messages, "question_closed")]

    async def all_over(self):
        """No task, no row and no question is left."""
        await self.settle()
        desk, questions = self.house.desk, self.questions
        assert len(questions) == 0
        assert not questions.runs
        assert not questions.live
        assert not questions._by
        assert not desk.calling
        assert not desk.actions
        for session in desk.sessions.values():
            assert not session._scopes
            assert session.link is None or session.link.commands == 0
        assert count(self.nursery) == 3, "the manager, beside it that of plugins, and the committer"
        after = dump(self.house)
        assert [name for name, rows in (self.before or after).items() if after[name] != rows and name not in self.touched] == []


@asynccontextmanager
async def talking(*commands, **settings):
    """*commands* in a house with #lobby. Afterwards nothing is left of any conversation."""
    registry = Registry(commands, rights=RIGHTS)
    dispatcher = Dispatcher(Surroundings(plugins=Plugins(registry), passwords=Passwords(), prefix="//", default_channels=("lobby",)))
    with open_house(commands=dispatcher, **settings) as house:
        async with house.running() as nursery:
            talk = Talk(house, nursery)
            yield talk
            await talk.all_over()


def dump(house):
    """Everything in the database: table → rows."""
    db = house.writer._db
    names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")]
    return {name: sorted(map(repr, db.execute(f'SELECT * FROM "{name}"'))) for name in names}  # noqa: S608


def count(nursery):
    """The tasks in a nursery, and in theirs."""
    return sum(1 + sum(map(count, task.child_nurseries)) for task in nursery.child_tasks)
