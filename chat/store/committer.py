"""The one who commits: takes every batch that waits, stores them in one transaction, and has the outcomes routed in order.

Theory of operation
    `Committer.run` is the only caller of the store's writer, and calls it in one thread of its own. While a transaction is synced
    the next batches gather in the memory channel, and become the next transaction together (group commit). What needs no store
    at all (a refusal without a cid, an answer) skips the thread, but never overtakes: outcomes leave in the order in which actions came.

    When a commit failed, definitely, every action of it that wanted to store gets the error and its rate token back; then the same
    actions are run once more as what they are now, refusals, so that a retry of something stored long ago still learns its place.
    If one of them changed what decisions rest on (`base.changes_state`), the manager's state is wrong: ``on_failure`` tells it
    with a plain call, it asks for `load` and raises its generation, and until then all that stores (`base.stores`), and comes from
    the generations up to the failed one, is refused. Texts change no such state: on a full disk nobody reloads anything.

    When nobody knows what became of a commit, its actions get ``indeterminate`` and the store is *out*: nothing is stored and
    nothing looked up until `Writer.recover` has worked, which is tried with growing pauses. Refusals and answers still go out.
    Then ``on_failure`` is called, since only the store knows what is true. The store is out, too, when not even reading works.

An action that is refused here has its ``refusal`` set.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import attrs
import trio

from chat.errors import ChatError
from chat.histogram import Histogram
from chat.log import describe, get_logger, new_error_id
from chat.rooms.effects import Action, Outcome
from chat.store.base import CommitFailed, Snapshot, Writer, changes_state, stores
from chat.store.thread import OneThread, open_thread

# Actions of one transaction. A group is what came while the last one was committed, so only a flood makes it large, and then each page
# of the database is written once for many rows, and each reader gets many texts by one send.
GROUP_MAX: Final = 8000
# A group as large as this is a flood. The next one waits for what is being read and decided just then: three rounds of the scheduler in
# which nothing comes, all in all: were they counted anew after each batch, a steady load would keep it open (10,000 a second, commits of
# 20 ms: half of all waited 522 ms; 52 ms so, and 118 ms without any rounds). One who is alone never waits.
FLOOD: Final = 256
ON_ITS_WAY: Final = 3
SLICE: Final = 256  # actions that are routed before other tasks run: some 3 to 5 ms; of 512 the whole costs the same
RECOVER_FIRST_S: Final = 0.1
RECOVER_MAX_S: Final = 2.0  # who frees the disk sees texts stored again at once
_STORAGE: Final = frozenset({"storage_unavailable", "storage_full", "internal_error"})  # not the sender's fault

# Upper ends of the buckets in which commits are counted, for who looks at the daemon: seconds, and actions.
COMMIT_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
COMMIT_SIZE: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, GROUP_MAX)

NOT_STORED: Final = ChatError("storage_unavailable", "not stored, please try again")

T = TypeVar("T")
log = get_logger("chat.store")


@attrs.define(eq=False)
class _Ask:
    """Something else for the writer's thread, at its place among the batches.

    *vital*: when it fails the store is out, and a surprise in it is the end of the committer. Any other fails alone.
    """

    call: Callable[[], Any]
    vital: bool
    done: trio.Event = attrs.Factory(trio.Event)
    value: Any = None
    error: CommitFailed | None = None
    abandoned: bool = False


class Committer:
    """*route* gets the outcomes of each transaction, in order and in slices, and *flush* comes behind the last of them; *refund* gets each
    action that was dropped or failed through no fault of its sender, *on_failure* the generation whose state is wrong. All are plain
    calls that never wait. *pause*, between two slices, lets others run; it cannot be cancelled: what was committed is told, also at the
    end of everything.

    ``batches`` is where lists of actions go. Close it (and its clones) to end `run`.
    """

    def __init__(
        self,
        writer: Writer,
        *,
        route: Callable[[list[Outcome]], None],
        flush: Callable[[], None],
        pause: Callable[[], Awaitable[None]],
        on_failure: Callable[[int], None],
        refund: Callable[[Action], None],
    ) -> None:
        # 64: what the manager may decide ahead while one transaction is synced. It sends one batch for all that its inbox held, so
        # a few would do; with 64 even single actions fill a group commit, and when it is full the inbox gathers, then the senders' sockets.
        send, receive = trio.open_memory_channel[Any](64)
        self.batches: trio.MemorySendChannel[list[Action]] = send
        self._receive: trio.MemoryReceiveChannel[list[Action] | _Ask] = receive
        self._writer = writer
        self._route = route
        self._flush = flush
        self._pause = pause
        self._on_failure = on_failure
        self._refund = refund
        self._lost = -1  # the newest generation of which something was not stored that decisions rest on: from then on it is refused
        self._told = -1  # the newest that was reported
        self._late = 0  # how many more batches waited already when a commit failed
        self._error = NOT_STORED  # what those who are refused are told
        self._rounds = 0  # that this group may still wait for what is on its way
        self._surprised = ""  # by which surprise the last ask failed
        self._out = False  # nothing is asked of the store before it has recovered
        self.commit_s = Histogram(COMMIT_S)
        self.commit_size = Histogram(COMMIT_SIZE)
        self.failures: Counter[str] = Counter()  # commits, by code
        self._retry_s = 0.0  # when to try to recover next, and how long to pause after that
        self._pause_s = RECOVER_FIRST_S

    @property
    def out(self) -> str:
        """Why the store cannot be used, and is tried again and again; empty while it can."""
        return self._error.message if self._out else ""

    @property
    def low(self) -> bool:
        """Whether the disk is nearly full, as of the writer's last look: what grows is refused, and all else is stored."""
        return self._writer.low

    async def load(self) -> Snapshot:
        """All that is stored by the batches sent before. *Raises* CommitFailed, at once while the store is out."""
        return await self._ask(self._writer.load, vital=True)

    async def tidy(self, *, cids_before_ms: int, rows: int = 2000) -> bool:
        """See `Writer.tidy`. *Raises* CommitFailed."""
        return await self._ask(lambda: self._writer.tidy(cids_before_ms=cids_before_ms, rows=rows), vital=False)

    async def ask(self, step: Callable[[Writer], T]) -> T:
        """One short step of the writer's, between two transactions. *Raises* CommitFailed: internal_error for a bug in *step*."""
        return await self._ask(lambda: step(self._writer), vital=False)

    async def run(self) -> None:
        """*Waits* until ``batches`` is closed and everything in it was committed and routed, or refused."""
        async with open_thread("chat-writer") as in_thread, self._receive:
            while True:
                try:
                    item = await self._next(in_thread)
                except trio.EndOfChannel:
                    return
                actions: list[Action] = []
                ask: _Ask | None = None
                more: list[Action] | _Ask | None = item
                while more is not None:
                    if isinstance(more, _Ask):
                        ask = more
                        break
                    self._gather(more, actions)
                    more = await self._more() if len(actions) < GROUP_MAX else None
                self._rounds = ON_ITS_WAY if len(actions) >= FLOOD else 0
                if actions:
                    await self._run_batch(in_thread, actions)
                if ask is not None:
                    await self._run_ask(in_thread, ask)

    # ------------------------------------------------------------ batches

    async def _more(self) -> list[Action] | _Ask | None:
        """What waits; in a flood also what is on its way here, through readers and manager. None: nothing, or nothing ever."""
        while True:
            try:
                return self._receive.receive_nowait()
            except trio.EndOfChannel:
                return None
            except trio.WouldBlock:
                if not self._rounds:
                    return None
            self._rounds -= 1
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _gather(self, batch: list[Action], actions: list[Action]) -> None:
        """Put *batch* to the *actions* of the next transaction, refusing what cannot be part of it."""
        if self._late or self._out or self._lost >= 0:
            for action in batch:
                if (self._late or self._out or action.generation <= self._lost) and stores(action):
                    self._refuse(action, self._error)
            self._late = max(0, self._late - 1)
        actions += batch

    async def _run_batch(self, in_thread: OneThread, actions: list[Action]) -> None:
        if self._out or not any(action.cid is not None or action.conversations or stores(action) for action in actions):
            outcomes = [self._unstored(action) for action in actions]
        else:
            outcomes = await self._commit(in_thread, actions)
        for at in range(0, len(outcomes), SLICE):
            self._route(outcomes[at : at + SLICE])
            if len(outcomes) > at + SLICE:
                await self._pause()
        self._flush()
        self._report()

    async def _commit(self, in_thread: OneThread, actions: list[Action]) -> list[Outcome]:
        began_s = trio.current_time()
        try:
            try:
                outcomes = await in_thread(self._writer.commit, actions)
            except CommitFailed as exc:
                if not exc.one_row:
                    raise
                log.warning("batch_split", actions=len(actions), reason=exc.message)
                outcomes = await in_thread(self._writer.commit_one_by_one, actions)
        except CommitFailed as exc:
            self.failures[exc.code] += 1
            log.error("commit_failed", code=exc.code, definite=exc.definite, actions=len(actions), reason=exc.message)
            if exc.definite:
                return await self._after_failure(in_thread, actions, exc)
            return self._after_uncertainty(actions, exc)
        self.commit_s.observe(trio.current_time() - began_s)
        self.commit_size.observe(len(actions))
        for outcome in outcomes:
            if outcome.error is not None or outcome.dup is not None:
                self._drop(outcome)
        return outcomes

    def _drop(self, outcome: Outcome) -> None:
        """Nothing of an action was stored, and the store is well."""
        action = outcome.action
        if action.refusal is not None:
            if outcome.dup is not None and action.charged:
                self._refund(action)
            return
        if outcome.error is not None and outcome.error.code == "internal_error":
            log.error("action_failed", reason=outcome.error.message, exc_info=outcome.error.__cause__)
        if outcome.error is None or outcome.error.code in _STORAGE:
            self._refund(action)
        self._lose(action)

    async def _after_failure(self, in_thread: OneThread, actions: list[Action], exc: CommitFailed) -> list[Outcome]:
        self._fail_what_waits(exc)
        for action in actions:
            if stores(action):
                self._refuse(action, self._error)
        try:
            return await in_thread(self._writer.commit, actions)
        except CommitFailed as again:
            log.error("store_out", code=again.code, reason=again.message)
            self._go_out(again)
            return [self._unstored(action) for action in actions]

    def _fail_what_waits(self, exc: CommitFailed) -> None:
        """The error is for all that waits by now, or each would wait for the lock as long as this one did."""
        waiting = self._receive.statistics()
        self._late = waiting.current_buffer_used + waiting.tasks_waiting_send
        self._error = ChatError(exc.code, exc.message)

    def _after_uncertainty(self, actions: list[Action], exc: CommitFailed) -> list[Outcome]:
        outcomes = []
        for action in actions:
            if stores(action):
                self._refund(action)
                self._lost = max(self._lost, action.generation)  # a text too: nobody knows the heads any more
                error = ChatError("indeterminate", "the server does not know whether this was stored, please try again")
                outcomes.append(Outcome(action=action, error=error))
            else:
                outcomes.append(self._unstored(action))
        self._go_out(exc)
        return outcomes

    def _refuse(self, action: Action, error: ChatError) -> None:
        self._refund(action)
        self._lose(action)
        action.refusal = error

    def _lose(self, action: Action) -> None:
        if changes_state(action):
            self._lost = max(self._lost, action.generation)

    def _unstored(self, action: Action) -> Outcome:
        """The outcome without the store."""
        if action.refusal is None and action.conversations:
            return Outcome(action=action, error=ChatError("storage_unavailable", "the server cannot read just now"))
        return Outcome(action=action, error=action.refusal)

    # ------------------------------------------------------------ asks, and recovery

    async def _ask(self, call: Callable[[], T], *, vital: bool) -> T:
        ask = _Ask(call, vital)
        async with self.batches.clone() as send:
            await send.send(ask)  # type: ignore[arg-type]
        try:
            await ask.done.wait()
        finally:
            ask.abandoned = True  # if it is not done: who asked waits no more
        if ask.error is not None:
            raise ask.error
        value: T = ask.value
        return value

    async def _run_ask(self, in_thread: OneThread, ask: _Ask) -> None:
        try:
            late, self._late = self._late > 0, max(0, self._late - 1)
            if ask.abandoned:
                return
            if self._out:
                raise CommitFailed("storage_unavailable", "the store is out", definite=True)
            if late and not ask.vital:
                raise CommitFailed(self._error.code, self._error.message, definite=True)
            ask.value = await in_thread(ask.call)
        except CommitFailed as exc:
            ask.error = exc  # told by who asked
            if exc.locked:
                self._fail_what_waits(exc)
            if ask.vital:
                log.error("store_does_not_answer", code=exc.code, reason=exc.message)
                self._go_out(exc)
        except Exception as exc:
            if ask.vital:  # without a state nothing can be decided
                raise
            ask.error = self._surprise(exc)
        else:
            self._surprised = ""
        ask.done.set()

    def _surprise(self, exc: Exception) -> CommitFailed:
        """The error of an ask, for a bug. It is logged once: who looks at the store comes back twice a second."""
        what = describe(exc)
        if what != self._surprised:
            self._surprised = what
            log.error("ask_failed", error_id=new_error_id(), exc_info=exc)
        return CommitFailed("internal_error", f"internal error ({what}); the log has more", definite=False)

    async def _next(self, in_thread: OneThread) -> list[Action] | _Ask:
        while self._out:
            with trio.move_on_at(self._retry_s):
                if trio.current_time() < self._retry_s:
                    return await self._receive.receive()
            await self._recover(in_thread)
        return await self._receive.receive()

    async def _recover(self, in_thread: OneThread) -> None:
        try:
            await in_thread(self._writer.recover)
        except (CommitFailed, OSError) as exc:
            log.error("store_still_out", reason=str(exc))
            self._error = _why_out(exc)
            self._pause_s = min(2 * self._pause_s, RECOVER_MAX_S)
            self._retry_s = trio.current_time() + self._pause_s
            return
        log.warning("store_back")
        self._out = False
        self._report()

    def _report(self) -> None:
        """Tell once of a failed generation, as soon as the store can be asked for its state."""
        if self._lost > self._told and not self._out:
            self._told = self._lost
            self._on_failure(self._lost)

    def _go_out(self, exc: CommitFailed) -> None:
        self._error = _why_out(exc)
        if not self._out:
            self._out = True
            self._pause_s = RECOVER_FIRST_S
            self._retry_s = trio.current_time() + self._pause_s


def _why_out(exc: CommitFailed | OSError) -> ChatError:
    """What those are told whose texts are refused while the store is out: a full disk is said as long as it is full."""
    full = isinstance(exc, CommitFailed) and exc.code == "storage_full"
    return ChatError("storage_full", "the server's disk is full") if full else NOT_STORED
