"""A house without doors: manager, router and a real SQLite file, driven by plain calls, with lines in the place of connections.

`House.ask` is one request through decide, commit and route. What the two tasks of the pipeline do between their waits is called here by
hand; the tests of the tasks themselves (`test_manager`) run them.
"""

import json
import shutil
import tempfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio

from chat import accounts
from chat.commands import builtin
from chat.errors import ChatError
from chat.protocol import codec, names
from chat.protocol import messages as m
from chat.rooms import decisions, logins
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms.audience import Hooks
from chat.rooms.desk import Clock, Settings
from chat.rooms.manager import Manager
from chat.rooms.policy import RateLimits
from chat.rooms.router import Router
from chat.store.base import CommitFailed
from chat.store.committer import Committer
from chat.store.sqlite import SqliteStore
from chat.store.sqlite_commit import SqliteWriter
from chat.store.sqlite_files import prepare

UNHURRIED = RateLimits(sends_burst=10**6, commands_burst=10**6, joins_per_min=10**6, new_channels_per_h=10**6, retries_per_s=10**6)


class Outlet:
    """An outbox in memory: ``full`` refuses live notices, as a lagging one does, and ``sealed`` everything."""

    def __init__(self):
        self.messages = []
        self.full = False
        self.sealed = False

    def put(self, data):
        if self.full or self.sealed:
            return False
        self._keep(data)
        return True

    def put_all(self, frames):
        return self.put(b"".join(frames))

    def put_always(self, data):
        if not self.sealed:
            self._keep(data)

    def _keep(self, data):
        assert data.endswith(b"\n")
        self.messages += [json.loads(line) for line in data.splitlines()]


def frame(payload):
    return payload + b"\n"


class Line:
    """Implements `chat.rooms.items.Connection`; what it was told is in ``outbox.messages``, until `take` takes it."""

    frame = staticmethod(frame)

    def __init__(self, host="127.0.0.1"):
        self.outbox = Outlet()
        self.account = 0
        self.session = ""
        self.client = "test"
        self.host = host
        self.skipped = frozenset()
        self.fenced = False
        self.token = None
        self.replaying = None
        self.refused = None
        self.commands = 0
        self.ended = False

    def take(self):
        taken, self.outbox.messages = self.outbox.messages, []
        return taken

    def tell(self, message):
        self.outbox.put_always(frame(codec.encode(message)))

    def opened(self, message):
        self.token = message.resume_token
        return codec.encode(message)

    def login_failed(self, error):
        self.account, self.session, self.refused = 0, "", error

    def replay(self, token, conversations):
        self.token, self.replaying = token, conversations

    def command_started(self):
        self.commands += 1

    def command_ended(self):
        self.commands -= 1

    def end(self, message):
        if message is not None and not self.ended:
            self.tell(message)
        self.ended = True
        self.outbox.sealed = True


class Passwords:
    """A hash that costs nothing. ``gate``: who is hashing waits for it."""

    def __init__(self):
        self.gate = None
        self.hashed = 0

    async def hash(self, password):
        await self._pass()
        return f"hash of {password}"

    async def verify(self, password_hash, password):
        await self._pass()
        return password_hash == f"hash of {password}"

    async def _pass(self):
        self.hashed += 1
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()


class House:
    """``now`` and ``now_ms`` are the clocks' hands."""

    def __init__(self, folder, *, rates=UNHURRIED, channels=("lobby",), registration="open", commands=None, plugins=(), plugin_folder=None):
        self.now, self.now_ms = 1000.0, 1_700_000_000_000
        self.path = Path(folder) / "chat.sqlite3"
        self.passwords = Passwords()
        self.flushes = self.said = 0
        prepare(self.path, busy_timeout_s=1)
        self.writer = SqliteWriter(self.path, busy_timeout_s=1, min_free_bytes=0, now_ms=lambda: self.now_ms)
        self.writer._db.execute("PRAGMA synchronous=OFF")  # how it survives a crash is tested elsewhere
        self.store = SqliteStore(self.writer, busy_timeout_s=1)
        settings = Settings(registration=registration, default_channels=tuple(channels), rates=rates)
        clock = Clock(now=lambda: self.now, now_ms=lambda: self.now_ms)
        if commands is None:
            commands = builtin.dispatcher(
                self.passwords, prefix="//", default_channels=tuple(channels), plugins=plugins, folder=plugin_folder, records=self.store
            )
        self.committer = Committer(
            self.writer,
            route=lambda outcomes: self.router.route(outcomes),
            flush=lambda: self.router.hooks.flush(),
            pause=trio.lowlevel.cancel_shielded_checkpoint,
            on_failure=lambda generation: self.manager.commit_failed(generation),
            refund=lambda action: self.desk.refund(action),
        )
        self.manager = Manager(
            settings, commands, clock, batches=self.committer.batches, load=self._snapshot, low=lambda: self.committer.low
        )
        self.desk = self.manager.desk
        hooks = Hooks(
            flush=self._flush,
            name_of=lambda account: self.state.name_of(account),
            is_online=lambda account: self.state.is_online(account),
            close_sessions=lambda effect: logins.close_sessions(self.desk, effect),
            refuse_retry=self.desk.refuse_retry,
        )
        self.router = self.desk.router = Router(hooks)
        self.tasks = []
        self.desk.start_task = lambda session, run: self.tasks.append((session, run))
        self.outcomes = []
        self.load()
        for name in channels:
            if self.state.room(name) is None:
                self.do(decisions.create_room(self.state, None, names.channel_name(name), None, self.now_ms))

    @property
    def state(self):
        return self.desk.state

    def _flush(self):
        self.flushes += 1

    async def _snapshot(self):
        try:
            return await self.committer.load()
        except CommitFailed as failed:
            raise ChatError(failed.code, failed.message) from failed

    @asynccontextmanager
    async def running(self):
        """The pipeline's two tasks run. Afterwards the inbox is closed and everything in it was committed."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.committer.run)
            await nursery.start(self.manager.run)
            yield nursery
            await self.manager.inbox.aclose()

    async def tell(self, line, *items):
        """Put requests into the inbox, as a connection does."""
        await self.manager.inbox.send((line, list(items)))

    async def settle(self, line=None):
        """Wait until everything that was put into the inbox before is decided, committed and routed. *Returns* what *line* was told."""
        reached = trio.Event()
        await self.manager.inbox.send((Line(), [it.Barrier(reached=reached.set)]))
        await reached.wait()
        return line.take() if line is not None else None

    def load(self):
        self.manager._go_on_from(self.writer.load())

    # ------------------------------------------------------------ the pipeline

    def decide(self, line, *items):
        """Decide without committing."""
        self.manager._take((line, list(items)))

    def do(self, effects):
        """Effects that nobody asked for."""
        self.desk.add(fx.Action(effects=tuple(effects)))
        self.commit()

    def tick(self, seconds=1.0):
        """Time passes."""
        self.now += seconds
        self.now_ms += int(seconds * 1000)
        self.manager._take((None, [it.Tick()]))
        self.commit()

    def commit(self):
        """Commit and route everything that was decided. Keeps the outcomes."""
        actions, self.desk.actions = self.desk.actions, []
        self.outcomes = self.writer.commit(actions)
        for outcome in self.outcomes:
            if outcome.dup is not None:
                self.desk.refund(outcome.action)
        self.router.route(self.outcomes)
        self.router.hooks.flush()

    def ask(self, line, *items):
        """Decide, commit, route. *Returns* everything that *line* was told by it, and before."""
        self.decide(line, *items)
        self.commit()
        return line.take()

    async def finish(self, line):
        """Run the ``async def`` commands that were started, and decide what they found out."""
        tasks, self.tasks = self.tasks, []
        for session, run in tasks:
            await session.run(run)
        while True:
            try:
                self.manager._take(self.manager._inbox.receive_nowait())
            except trio.WouldBlock:
                break
        self.commit()
        return line.take()

    # ------------------------------------------------------------ people

    def register(self, name, invite=None, host="127.0.0.1"):
        """A new account, and a line with a session of it."""
        line = Line(host)
        item = it.Registration(id=1, name=names.user_name(name), password_hash="hash of secret", color=None, invite=invite)
        self.decide(line, item)
        self.commit()
        if line.refused is not None:
            raise line.refused
        line.take()
        return line

    def log_in(self, name, host="127.0.0.1"):
        """One more session of an account. *Raises* ChatError, as the line was told."""
        line = Line(host)
        self.decide(line, it.LoginVerified(id=1, account=self.state.find_account(name).id))
        self.commit()
        if line.refused is not None:
            raise line.refused
        line.take()
        return line

    def account(self, line):
        return self.state.accounts[line.account]

    def owner(self, name="root"):
        """The server's owner."""
        put = fx.PutInvite(code="owners", role="owner", uses_left=1, expires_ms=None, by=0, at_ms=self.now_ms)
        self.do([put])
        return self.register(name, invite="owners")

    def say(self, line, channel, text, cid=None, id=7):
        self.said += 1
        return self.ask(line, m.Send(id=id, cid=cid or f"said-{self.said}", channel=channel, text=text))

    def command(self, line, text, channel=None, cid=None, id=7):
        """Run a command. *Returns* its answer: result or error, without its id."""
        answers = self.ask(line, m.Command(id=id, text=text, channel=channel, cid=cid))
        return _answer(answers, id)

    async def command_async(self, line, text, channel=None, cid=None, id=7):
        told = self.ask(line, m.Command(id=id, text=text, channel=channel, cid=cid))
        told += await self.finish(line)
        return _answer(told, id)

    def close(self):
        self.store._close()


def _answer(told, id):
    (answer,) = [message for message in told if message.get("id") == id]
    return answer


def send(id, text, channel="lobby", cid=None):
    return m.Send(id=id, cid=cid or f"cid{id}", channel=channel, text=text)


def ids(told):
    return [message["id"] for message in told if "id" in message]


def resume(line, account, session, token):
    return it.ResumeVerified(id=1, account=account, session=session, token_hash=accounts.token_hash(token))


def of_type(messages, *types):
    return [message for message in messages if message["type"] in types]


@contextmanager
def open_house(**settings):
    folder = tempfile.mkdtemp()
    house = House(folder, **settings)
    try:
        yield house
    finally:
        house.close()
        shutil.rmtree(folder)


def code_of(function, *args, **kwargs):
    """The code with which *function* refuses, or None."""
    try:
        function(*args, **kwargs)
    except ChatError as error:
        return error.code
    return None


def dump(state):
    """All of a state, as plain data that can be compared. Of what is kept twice both sides are in it."""
    accounts = {
        a.id: (a.name, a.canonical, a.skeleton, a.color, a.role, a.ban, a.suspended, a.forgotten, sorted(a.rooms), sorted(a.ignored))
        for a in state.accounts.values()
    }
    rooms = {
        r.id: (
            *(r.name, r.canonical, r.skeleton, r.epoch, r.topic, r.private, r.password_hash, list(r.members.items())),
            *(r.invite_only, sorted(r.invited), r.history, _rules(r, state.book.server_filter), dict(r.bans)),
            *(r.prefix, sorted(r.disabled_commands)),
        )
        for r in state.rooms.values()
    }
    invites = {i.code: (i.role, i.uses_left, i.expires_ms) for i in state.invites.values()}
    indexes = [
        {key: found.id for key, found in index.items()}
        for index in (
            state._accounts_by_canonical,
            state._accounts_by_skeleton,
            state._rooms_by_canonical,
            state._rooms_by_skeleton,
            state._rooms_by_name,
        )
    ]
    return {
        "accounts": accounts,
        "rooms": rooms,
        "invites": invites,
        "disabled": set(state.disabled_commands),
        "held": dict(state.held),
        "online": dict(state.online),
        "banned": set(state.banned),
        "plugin values": state.plugin_values.all(),
        "admins": set(state.admins),
        "address_bans": dict(state.address_bans),
        "endings": dict(state.endings.at),
        "indexes": indexes,
        "filters": {room: sorted(rules.items()) for room, rules in state.book.filters.items()},
        "settings": dict(state.book.settings),
    }


def _rules(room, server_filter):
    """What restricts writing; the counters of slow mode are no part of it."""
    rules = room.rules
    if rules is None:
        assert server_filter is None
        return None
    assert not rules.empty
    assert rules.server_filter is server_filter
    return rules.slow_s, rules.announce_only, dict(rules.mutes), rules.filter is not None
