"""A server in the hand, to test a plugin with: people in a channel who type commands and answer questions. No sockets, no waiting.

    from chat.testing import open_room, virtual_time

    @virtual_time
    async def test_a_poll() -> None:
        async with open_room("plugins/poll.py", people=["ann", "bob"]) as room:
            ann, bob = room.people
            poll = await ann.types('//poll 5m "Pizza?"')
            await bob.answers("yes")
            await trio.sleep(300)
            assert room.said[-1] == ("server", "Pizza? yes: 1, no: 0")
            assert poll.text == ""

The parts are the server's own: its state, its decisions, its commands, its store in an SQLite file. Only connections are missing, and
threads: so with `virtual_time` (or the fixture ``autojump_clock`` of pytest-trio) five minutes pass in no time, and the plugin's
``ctx.now`` with them.
"""

import functools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio
import trio.testing

from chat.commands import builtin
from chat.commands.context import Surroundings
from chat.commands.dispatch import Dispatcher
from chat.commands.plugins import Plugins
from chat.errors import ChatError
from chat.protocol import codec, names
from chat.protocol import messages as m
from chat.protocol.fields import evolve
from chat.rooms import decisions, logins
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms.audience import Hooks
from chat.rooms.desk import Clock, Settings
from chat.rooms.manager import Manager
from chat.rooms.policy import RateLimits
from chat.rooms.router import Router
from chat.store.base import CommitFailed, Snapshot
from chat.store.sqlite_commit import SqliteWriter
from chat.store.sqlite_files import prepare

__all__ = ["Call", "Person", "Question", "Room", "open_room", "virtual_time"]

START_MS: Final = 1_767_225_600_000  # of the clock: 2026 begins
TICK_S: Final = 30.0  # the daemon's is one second; a test may let a week pass
UNHURRIED: Final = RateLimits(sends_burst=10**6, commands_burst=10**6, joins_per_min=10**6, new_channels_per_h=10**6)


def virtual_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Make a plain test function of an ``async def`` one, in which time is skipped whenever everybody waits for it."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        trio.run(functools.partial(test, *args, **kwargs), clock=trio.testing.MockClock(autojump_threshold=0))

    return run


# ---------------------------------------------------------------- what people see and do


@attrs.frozen
class Question:
    """Something that a person is asked, and has not answered."""

    id: str
    text: str
    choices: tuple[str, ...]


@attrs.define(eq=False)
class Call:
    """A command that somebody gave. ``text`` is its answer, or ``error`` and ``code`` why it was refused; all None while it runs."""

    text: str | None = None
    data: Any = None
    error: str | None = None
    code: str | None = None

    @property
    def running(self) -> bool:
        return self.text is None and self.error is None


class Person:
    """Somebody in the room. ``told`` is what only this person was told at once (``ctx.reply``)."""

    def __init__(self, room: "Room", name: str) -> None:
        self.name: Final = name
        self.told: list[str] = []
        self._room: Final = room
        self._line: _Line | None = None
        self._ids = 0

    async def types(self, text: str, channel: str | None = None) -> Call:
        """Type something into *channel* (else the room's), such as a command. *Returns* when all that it brings about waits for people
        or time, or is done. A message that is no command is answered by an empty text."""
        call = Call()
        wire: Any = m.Send(id=0, cid="x", channel=channel or self._room.channel, text=text)
        await self._asks(wire, call)
        return call

    async def says_in_private(self, text: str) -> Call:
        """Give a command outside of any channel; without the prefix."""
        call = Call()
        await self._asks(m.Command(id=0, text=text), call)
        return call

    async def answers(self, text: str, question: Question | None = None) -> None:
        """Answer *question*, or else the newest. *Raises* ChatError where the answer will not do; AssertionError where nothing is asked."""
        asked = question or self.question
        assert asked is not None, f"{self.name} is asked nothing"
        call = Call()
        await self._asks(m.Answer(id=0, question=asked.id, text=text), call)
        if call.error is not None:
            raise ChatError(call.code or "bad_request", call.error)

    @property
    def questions(self) -> list[Question]:
        """What waits for this person's answer, the oldest first."""
        return list(self._line.questions.values()) if self._line is not None else []

    @property
    def question(self) -> Question | None:
        """The newest of them."""
        return self.questions[-1] if self.questions else None

    @property
    def notes(self) -> list[str]:
        """What the person was told in private by the server, and finds in their notes."""
        account = self._room._account(self.name)
        return [text for _, text in self._room._texts(fx.Pair.of(account, account))]

    async def goes_away(self) -> None:
        """Nobody is connected for this person any more, for longer than a lost connection is waited for."""
        line, self._line = self._line, None
        assert line is not None, f"{self.name} is away already"
        self._room._manager.gone(line)
        await trio.sleep(self._room._settings.resume_window_s + 2 * TICK_S)

    async def comes_back(self) -> None:
        await self._room._log_in(self)

    async def _asks(self, request: Any, call: Call) -> None:
        line = self._line
        assert line is not None, f"{self.name} is away"
        self._ids += 1
        line.calls[self._ids] = call
        changes = {"id": self._ids, "cid": f"cid-{self.name}-{self._ids}"} if hasattr(request, "cid") else {"id": self._ids}
        await self._room._manager.inbox.send((line, [evolve(request, **changes)]))
        await trio.testing.wait_all_tasks_blocked()


class _Line:
    """Implements `chat.rooms.items.Connection` for one person."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.outbox = self
        self.account = 0
        self.session = ""
        self.client = "test"
        self.host = "127.0.0.1"
        self.fenced = False
        self.skipped: frozenset[int] = frozenset()
        self.calls: dict[int | str, Call] = {}
        self.questions: dict[str, Question] = {}

    @staticmethod
    def frame(payload: bytes) -> bytes:
        return payload + b"\n"

    def put(self, data: bytes) -> bool:
        for line in data.splitlines():
            self._take(json.loads(line))
        return True

    def put_all(self, frames: list[bytes]) -> bool:
        return self.put(b"".join(frames))

    def put_always(self, data: bytes) -> None:
        self.put(data)

    def tell(self, message: Any) -> None:
        self.put(codec.encode(message))

    def opened(self, message: Any) -> bytes:
        return codec.encode(message)

    def _take(self, message: Mapping[str, Any]) -> None:
        match message["type"]:
            case "notice":
                self.person.told.append(message["text"])
            case "question":
                self.questions.pop(message["question"], None)
                question = Question(message["question"], message["text"], tuple(message.get("choices", ())))
                self.questions[question.id] = question
            case "question_closed":
                self.questions.pop(message["question"], None)
            case "result" | "ack" | "ok" | "error" if (call := self.calls.get(message.get("id", ""))) is not None:
                if message["type"] == "error":
                    call.error, call.code = message["message"], message["code"]
                else:
                    call.text, call.data = message.get("text", ""), message.get("data")

    def login_failed(self, error: ChatError) -> None:
        raise error

    def replay(self, token: str, conversations: Any) -> None: ...
    def command_started(self) -> None: ...
    def command_ended(self) -> None: ...

    def end(self, message: Any) -> None:
        self.fenced = True


# ---------------------------------------------------------------- the room


class Room:
    """A channel with people in it, on a server of its own. ``people`` are in the order in which they were named."""

    def __init__(self, folder: Path, nursery: trio.Nursery, plugins: Plugins, people: Sequence[str], channel: str) -> None:
        self.channel: Final = channel
        self.people: Final = [Person(self, name) for name in people]
        self._nursery: Final = nursery
        self._plugins: Final = plugins
        start_s = trio.current_time()
        self._clock: Final = Clock(now=trio.current_time, now_ms=lambda: START_MS + round(1000 * (trio.current_time() - start_s)))
        self._scope = trio.CancelScope()
        self._path: Final = folder / "chat.sqlite3"
        self._settings: Final = Settings(registration="open", default_channels=(channel,), rates=UNHURRIED)
        prepare(self._path, busy_timeout_s=1)

    def __getitem__(self, name: str) -> Person:
        return next(person for person in self.people if person.name == name)

    @property
    def said(self) -> list[tuple[str, str]]:
        """The channel's messages in their order: (who, text). What a plugin says is from ``server``."""
        room = self._state.room(self.channel)
        return self._texts(room.id) if room is not None else []

    def stored(self, plugin: str | None = None) -> dict[str, Any]:
        """What a plugin keeps in its store, by key; without a name that of the one plugin that was opened."""
        name = plugin or next(iter(self._plugins.loaded))
        return {key: json.loads(value) for key, value in self._state.plugin_values.of(name).items()}

    async def reload(self) -> list[str]:
        """As ``//reload-commands``. *Returns* the lines that it answers."""
        lines = self._dispatcher.reload()
        await trio.testing.wait_all_tasks_blocked()
        return lines

    async def restarts(self, down_s: float = 0) -> None:
        """The server stops and comes back after *down_s* with what it has stored; whoever was here is here again."""
        here = [person for person in self.people if person._line is not None]
        for person in here:
            person._line = None
        self._scope.cancel()
        await self._stopped.wait()
        await trio.sleep(down_s)
        await self._nursery.start(self._serve)
        for person in here:
            await person.comes_back()

    async def _serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """One run of the server. The file stays."""
        self._stopped = trio.Event()
        self._writer = SqliteWriter(self._path, busy_timeout_s=1, min_free_bytes=0, now_ms=self._clock.now_ms)
        self._writer._db.execute("PRAGMA synchronous=OFF")  # whether it survives a crash of the machine is not what is tested
        self._dispatcher = Dispatcher(
            Surroundings(plugins=self._plugins, passwords=_NoPasswords(), prefix="//", default_channels=(self.channel,))
        )
        batches, decided = trio.open_memory_channel[list[fx.Action]](1)  # one: a batch is stored before the next but one is decided
        self._manager = manager = Manager(self._settings, self._dispatcher, self._clock, batches=batches, load=self._load)
        desk = manager.desk
        desk.router = Router(
            Hooks(
                flush=lambda: None,
                name_of=lambda account: desk.state.name_of(account),
                is_online=lambda account: desk.state.is_online(account),
                close_sessions=lambda effect: logins.close_sessions(desk, effect),
                refuse_retry=desk.refuse_retry,
            )
        )
        try:
            await manager.start()
            with trio.CancelScope() as self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._commit, decided)
                    await nursery.start(manager.run)
                    nursery.start_soon(self._tick)
                    task_status.started()
        finally:
            self._writer.close()
            self._stopped.set()

    async def _load(self) -> Snapshot:
        return self._writer.load()

    async def _commit(self, batches: trio.MemoryReceiveChannel[list[fx.Action]]) -> None:
        """The committer's work without its thread."""
        async for actions in batches:
            try:
                outcomes = self._writer.commit(actions)
            except CommitFailed as failed:
                if not failed.one_row:
                    raise
                outcomes = self._writer.commit_one_by_one(actions)
            self._manager.desk.router.route(outcomes)

    async def _tick(self) -> None:
        while True:
            await trio.sleep(TICK_S)
            await self._manager.inbox.send((None, [it.Tick()]))

    # ------------------------------------------------------------ people

    async def _fill(self) -> None:
        state, at_ms = self._state, self._clock.now_ms()
        put = fx.PutInvite(code="first", role="owner", uses_left=1, expires_ms=None, by=0, at_ms=at_ms)
        await self._do([put, *decisions.create_room(state, None, names.channel_name(self.channel), None, at_ms)])
        for place, person in enumerate(self.people):
            line = person._line = _Line(person)
            invite = "first" if place == 0 else None
            item = it.Registration(id=0, name=names.user_name(person.name), password_hash="none", color=None, invite=invite)
            await self._manager.inbox.send((line, [item]))
            await trio.testing.wait_all_tasks_blocked()

    async def _log_in(self, person: Person) -> None:
        assert person._line is None, f"{person.name} is here"
        line = person._line = _Line(person)
        await self._manager.inbox.send((line, [it.LoginVerified(id=0, account=self._account(person.name))]))
        await trio.testing.wait_all_tasks_blocked()

    async def _do(self, effects: list[fx.Effect]) -> None:
        await self._manager.desk.carry_out(lambda state: effects)

    @property
    def _state(self) -> Any:
        return self._manager.desk.state

    def _account(self, name: str) -> int:
        account: int = self._state.find_account(name).id
        return account

    def _texts(self, conv: int | fx.Pair) -> list[tuple[str, str]]:
        low, high, room = (conv.low, conv.high, None) if isinstance(conv, fx.Pair) else (None, None, conv)
        rows = self._writer._db.execute(
            "SELECT author, body FROM records r JOIN conversations c ON c.id = r.conv"
            " WHERE (c.id = ? OR c.low = ? AND c.high = ?) AND r.kind = 'message' AND body IS NOT NULL ORDER BY seq",
            (room, low, high),
        ).fetchall()
        return [(self._state.name_of(author), body) for author, body in rows]


class _NoPasswords:
    async def hash(self, password: str) -> str:
        await trio.lowlevel.checkpoint()
        return f"hash of {password}"

    async def verify(self, password_hash: str | None, password: str) -> bool:
        await trio.lowlevel.checkpoint()
        return password_hash == f"hash of {password}"


@asynccontextmanager
async def open_room(*plugins: str | Path, people: Sequence[str] = ("ann", "bob"), channel: str = "lobby") -> AsyncIterator[Room]:
    """A room with *people* and *plugins*: paths of files (which end with ``.py``), or names of modules.

    The first of *people* owns the server and the channel, the others are members. *Raises* PluginBroken, with file and line.
    """
    files = [Path(plugin) for plugin in plugins if str(plugin).endswith(".py")]
    modules = [str(plugin) for plugin in plugins if not str(plugin).endswith(".py")]
    found = Plugins(builtin.registry(), modules=modules, files=files)
    found.load(strict=True)
    folder = Path(tempfile.mkdtemp(prefix="chat-room-"))
    failed: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            room = Room(folder, nursery, found, people, channel)
            await nursery.start(room._serve)
            await room._fill()
            try:
                yield room
            except Exception as error:  # it is the test's own: without the nursery's wrapping
                failed = error
            nursery.cancel_scope.cancel()
    finally:
        shutil.rmtree(folder)
    if failed is not None:
        raise failed
