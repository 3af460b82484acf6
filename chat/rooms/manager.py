"""DECIDE: the one task that owns the rooms: membership, roles, bans, sessions and the dispatch of commands.

It takes what connections put into its inbox, has each request decided at the `Desk`, and hands the actions to the committer. It waits
for two things only: its inbox, and room in the committer's channel. That is the backpressure which in the end stops the reading of
sockets.

The state runs ahead of the store by what is being committed. When a commit fails, everything decided since rests on what never was: the
committer refuses it and tells, and the manager loads the state anew and raises its generation. (Texts change nothing in the state; for
those the committer tells nothing, unless nobody knows whether they were stored.) The answer to `load` comes behind everything that
was on its way, so nothing is in flight then, and the router and the sessions are compared with the store too.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from chat.errors import ChatError
from chat.log import get_logger
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms import logins, membership, texts
from chat.rooms.audience import Reply
from chat.rooms.conversations import answers
from chat.rooms.conversations.running import refusal_for
from chat.rooms.desk import NOBODY, Clock, Desk, Handler, Settings
from chat.rooms.moderation import decisions as moderation
from chat.rooms.policy import SMALL_ROOM
from chat.rooms.state import Loaded, State
from chat.session import Session
from chat.watchdog import Watched

log = get_logger("chat.rooms")

Envelope = tuple[it.Connection | None, list[Any]]  # whose, and the items in their order; None: the daemon's own

INBOX: Final = 256  # envelopes, one chunk of a socket each: enough for one batch of a busy server, so that nobody waits long for a turn
MAX_ACTIONS: Final = 256  # decided in one go: some 5 ms; of 512 the whole costs the same (2 cores, pairs of runs in a flood)
TIDY_S: Final = 30.0  # between two looks for counters of slow mode that count nothing any more

HANDLERS: Final[dict[type[Any], Handler]] = {**texts.HANDLERS, **answers.HANDLERS, **membership.HANDLERS, **logins.HANDLERS}


class Manager:
    """*load* reads the snapshot from the store (*Raises* ChatError while it cannot); *batches* is the committer's channel; *low* says
    whether the store's disk is nearly full."""

    def __init__(
        self,
        settings: Settings,
        commands: it.Commands,
        clock: Clock,
        *,
        batches: trio.MemorySendChannel[list[fx.Action]],
        load: Callable[[], Awaitable[Loaded]],
        low: Callable[[], bool] = lambda: False,
    ) -> None:
        self.desk: Final = Desk(settings, commands, clock, HANDLERS)
        self._batches = batches
        self._load = load
        self._low = low
        self._failed = False
        self.inbox, self._inbox = trio.open_memory_channel[Envelope](INBOX)
        self.desk.inbox = self.inbox
        commands.attach(self.desk)
        self._heads_at = self._tidied_at = clock.now()
        self._telling = False  # the task that tells the presence that a tick left untold
        self._start: Callable[[Callable[[], Awaitable[None]]], None] = lambda task: None  # while nothing runs, the next tick goes on

    async def start(self) -> None:
        """Load the state. *Raises* ChatError."""
        self._go_on_from(await self._load())

    def _go_on_from(self, snapshot: Loaded) -> None:
        """At the start, and after a failure: what the store has is true. Sessions that nobody is connected to are held as if just gone;
        those that have ended without anybody being told are closed."""
        desk = self.desk
        before, state = desk.state.rooms, State.load(snapshot)
        desk.state = state
        for room in state.rooms.values():  # counters are no part of the store
            if room.rules is not None and (old := before.get(room.id)) is not None and old.rules is not None:
                room.rules.sent = old.rules.sent
        desk.router.load(
            ((room.room, room.epoch, room.name, room.last_seq) for room in snapshot.rooms), lambda account: state.accounts[account].rooms
        )
        for ended in [session for session in desk.sessions.values() if session.id not in state.held]:
            logins.close_sessions(desk, fx.CloseSessions(account=ended.account, code="unauthorized", only=ended.id))
        for session, account in state.held.items():
            if session not in desk.sessions:
                desk.sessions[session] = Session(session, account, None, gone_at=desk.clock.now())
                desk.router.hold(account, state.accounts[account].rooms)
        desk.questions.recheck()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Decide until `inbox` is closed, then close the committer's channel.

        *If cancelled*: what was decided and not yet handed on is lost, as if it had not been read.
        """
        desk = self.desk
        async with self._batches, trio.open_nursery() as nursery:
            desk.start_task = lambda session, task: nursery.start_soon(session.run, task)
            nursery.start_soon(desk.commands.run)
            self._start = nursery.start_soon
            task_status.started()
            async for envelope in self._inbox:
                if self._failed:
                    await self._recover()
                self._take(envelope)
                while len(desk.actions) < MAX_ACTIONS:
                    try:
                        self._take(self._inbox.receive_nowait())
                    except (trio.WouldBlock, trio.EndOfChannel):
                        break
                if desk.actions:
                    actions, desk.actions = desk.actions, []
                    await self._batches.send(actions)
            desk.store_noted_commands()
            if desk.actions:
                await self._batches.send(desk.actions)
                desk.actions = []
            nursery.cancel_scope.cancel()

    def commit_failed(self, generation: int) -> None:
        """The committer's report: what was decided in *generation* was not stored. A plain call: it never waits in a queue behind what
        it concerns. The manager looks before its next decision."""
        if generation == self.desk.generation:
            self._failed = True

    async def _recover(self) -> None:
        try:
            snapshot = await self._load()
        except ChatError as error:
            log.warning("state_not_loaded", code=error.code, reason=error.message)
            return  # the generation stays: everything is refused, and the next envelope tries again
        self._go_on_from(snapshot)
        self._failed = False
        self.desk.generation += 1

    def _take(self, envelope: Envelope) -> None:
        link, items = envelope
        self.desk.reserve.look(self._low())
        if link is not None:
            if link.fenced:  # nothing that it asks is decided, but who waits for what was asked before is told
                items = [item for item in items if type(item) is it.Barrier]
            self.desk.take(link, items)
            return
        for item in items:
            match item:
                case it.Tick():
                    self._tick()
                case texts.Finished():
                    texts.finished(self.desk, item)
                case it.Errand():
                    self.desk.run_errand(item)
                case it.Bootstrap():
                    self.desk.add(fx.Action(effects=item.effects, reply=Reply(NOBODY, 0, item.done, failed=item.failed)))
                case it.Administration():
                    self._administer(item)

    def _administer(self, item: it.Administration) -> None:
        desk = self.desk
        reply = Reply(NOBODY, 0, item.done, failed=item.failed)
        try:
            effects = tuple(item.decide(desk.state, desk.clock.now_ms()))
        except Exception as error:  # its bug is its own: it has looked, and changed nothing
            desk.add(fx.Action(refusal=refusal_for("administration", error), reply=reply))
        else:
            desk.add(fx.Action(effects=effects, reply=reply))

    def stop_commands(self, *, retry_after: float) -> None:
        """The daemon stops: end the ``async def`` commands that wait for people, and hurry the others. A plain call."""
        self.desk.questions.stop(ChatError("shutting_down", "the server stops", retry_after=retry_after))

    def watched(self) -> Watched:
        """What the watchdog may look at, and whom it tells."""
        desk = self.desk
        return Watched(
            code=desk.commands.code,
            at_work=lambda: [run.name for run in list(desk.questions.runs)],
            held_up=desk.questions.held_up,
            grew=desk.questions.grew,
        )

    def gone(self, link: it.Connection) -> None:
        """A connection has ended: its session is held for the resume window. A plain call, from the connection's own end."""
        session = self.desk.sessions.get(link.session)
        if session is not None and session.link is link:
            session.link, session.gone_at = None, self.desk.clock.now()
        if link.account:
            self.desk.router.detach(link)
        else:
            link.fenced = True  # a session that is just being opened for it is nobody's

    def _tick(self) -> None:
        """Once a second: sessions whose resume window has passed, bans that end, presence, heads."""
        desk, now = self.desk, self.desk.clock.now()
        state, window_s = desk.state, desk.settings.resume_window_s
        for session in [s for s in desk.sessions.values() if s.gone_at is not None and now - s.gone_at >= window_s]:
            del desk.sessions[session.id]
            logins.go_offline(desk, session)
        now_ms = desk.clock.now_ms()
        for key in state.endings.due(now_ms):
            desk.add(fx.Action(effects=tuple(moderation.end(state, key, desk.settings.default_channels, now_ms))))
        desk.store_noted_commands()
        desk.fresh_cids.turn(now)
        if desk.router.bulletins.tell_presence(self._is_small) and not self._telling:
            self._start(self._tell_presence)
        if seconds := int(now - self._heads_at):
            self._heads_at += seconds
            desk.router.bulletins.tell_heads(seconds, desk.settings.heads_s)
        desk.rates.forget_full(now)
        if now - self._tidied_at >= TIDY_S:
            self._tidied_at = now
            for room in state.rooms.values():
                if room.rules is not None:
                    room.rules.forget(now)

    def _is_small(self, room: int) -> bool:
        """Whether presence is told there."""
        found = self.desk.state.rooms.get(room)
        return found is not None and len(found.members) <= SMALL_ROOM

    async def _tell_presence(self) -> None:
        """What a tick left to tell, a slice at a time."""
        self._telling = True
        await trio.lowlevel.checkpoint()
        while self.desk.router.bulletins.tell_presence(self._is_small):
            await trio.lowlevel.checkpoint()
        self._telling = False
