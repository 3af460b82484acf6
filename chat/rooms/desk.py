"""Where requests are decided, one after the other: plain code around the state. `manager` is the task that sits at it.

A handler is a function ``(desk, link, item)`` that adds actions; the tables of handlers are in `texts`, `membership` and `logins`. A
handler that raises ChatError refuses the item; anything else that it raises is a bug, and ends the daemon (the state may be half changed).

*Order*: refusals and answers that change nothing are actions too, so that no answer overtakes the ack of an earlier send.
"""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Final

import attrs
import trio

from chat.errors import ChatError
from chat.protocol import codec
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms.audience import Reply
from chat.rooms.cids import FreshCids, Key
from chat.rooms.conversations.questions import Questions
from chat.rooms.moderation.refusals import Refusals, complete
from chat.rooms.policy import RateLimits, Rates, take
from chat.rooms.reserve import Reserve
from chat.rooms.router import Router
from chat.rooms.state import Account, State
from chat.session import Session

Handler = Callable[["Desk", it.Connection, Any], None]


@attrs.frozen(kw_only=True)
class Settings:
    prefix: str = "//"
    registration: str = "invite"
    default_channels: tuple[str, ...] = ("lobby",)
    resume_window_s: float = 90
    heads_s: float = 30
    token_life_s: float = 24 * 3600  # contract, section 4
    question_s: float = 120
    command_s: float = 3600
    rates: RateLimits = attrs.Factory(RateLimits)


@attrs.frozen(kw_only=True)
class Clock:
    """``now`` is monotonic, in seconds; ``now_ms`` milliseconds since 1970."""

    now: Callable[[], float]
    now_ms: Callable[[], int]


class Desk:
    """The state, what is known of sessions, and the actions decided but not yet handed on."""

    def __init__(self, settings: Settings, commands: it.Commands, clock: Clock, handlers: dict[type[Any], Handler]) -> None:
        self.settings = settings
        self.commands: Final = commands
        self.clock: Final = clock
        self.state = State()
        self.rates: Final = Rates(settings.rates)
        self.sessions: Final[dict[str, Session]] = {}
        self.refusals: Final = Refusals()
        self.reserve: Final = Reserve()
        self.router: Router  # set by who builds both: they know each other
        self.inbox: trio.MemorySendChannel[tuple[it.Connection | None, list[Any]]]  # set by the manager
        self.start_task: Callable[[Session, Callable[[], Awaitable[None]]], None]  # set by the manager
        self.actions: list[fx.Action] = []
        self.taken_at = 0.0  # when what is being decided was taken; monotonic seconds
        self.generation = 0
        self.noted_commands: list[fx.NoteCommand] = []  # at most what the rates allow in a second
        self.calling: Final[dict[Key, Any]] = {}  # ``async def`` commands with a cid that run (`texts.Calling`)
        self.questions: Final = Questions(lambda: self.state, clock.now, self._tell, self.wake, lambda: self.settings.question_s)
        self.fresh_cids: Final = FreshCids(clock.now())
        self._handlers: Final = handlers

    def take(self, link: it.Connection, items: list[Any]) -> None:
        """Decide what one connection asks."""
        handlers, held = self._handlers, self.state.held
        self.taken_at = self.clock.now()
        for item in items:
            try:
                if link.account and link.session not in held:
                    raise ChatError("unauthorized", "this session has ended")
                handlers[type(item)](self, link, item)
            except ChatError as error:
                self.refuse(link, item, error)

    def refuse(self, link: it.Connection, item: Any, error: ChatError) -> None:
        match item:
            case it.Barrier():
                self._handlers[it.Barrier](self, link, item)
            case it.Registration() | it.LoginVerified() | it.ResumeVerified():
                self.add(fx.Action(refusal=error, reply=Reply(link, item.id, failed=link.login_failed)))
            case _ if (id := getattr(item, "id", None)) is not None:
                self.add(fx.Action(refusal=error, reply=Reply(link, id)))

    def add(self, action: fx.Action) -> None:
        """Apply the action's effects and keep it for the committer. On a disk that is nearly full it may be refused here."""
        action.generation = self.generation
        if self.reserve.low and action.refusal is None:
            refusal = self.reserve.refusal(action, self.state.accounts.get(action.account))
            if refusal is not None:
                self.refund(action)
                action.refusal = refusal
        if action.refusal is None:
            if action.cid is not None:
                self.fresh_cids.add((action.account, action.cid))
            for effect in action.effects:
                if type(effect) is not fx.Append:
                    self.state.apply(effect)
            if self.questions.live:
                self.questions.follow(action.effects)
        elif action.reply is not None:
            self._note(action, action.refusal, action.reply)
        self.actions.append(action)

    def _tell(self, effects: list[fx.Effect]) -> None:
        self.add(fx.Action(effects=tuple(effects)))

    def _note(self, action: fx.Action, refusal: ChatError, reply: Reply) -> None:
        account = reply.link.account
        action.refusal = complete(self.state, refusal, account)
        self.refusals.note(account, action.refusal, reply.conv, self.clock.now_ms())

    def answer(self, link: it.Connection, id: int | str, make: Callable[[fx.Outcome], Any], effects: list[fx.Effect] | None = None) -> None:
        """Answer a request at its place in the order, with what *make* builds, once *effects* are stored."""
        self.add(fx.Action(effects=tuple(effects or ()), account=link.account, reply=Reply(link, id, make)))

    def who(self, link: it.Connection) -> Account:
        return self.state.accounts[link.account]

    def refund(self, action: fx.Action) -> None:
        """The action was a retry of something known, or was not stored: it does not count against the rates."""
        if action.refusal is None and action.cid is not None:
            self.fresh_cids.discard((action.account, action.cid))
            rates = self.rates.of(action.account)
            (rates.sends if action.result is None else rates.commands).give_back()
            for effect in action.effects:
                if type(effect) is fx.Append and effect.kind == "message":
                    room = self.state.rooms.get(effect.conv)  # type: ignore[arg-type]
                    if room is not None and room.rules is not None:
                        room.rules.give_back(action.account)
        elif action.charged:
            self.rates.of(action.account).sends.give_back()

    def refuse_retry(self, action: fx.Action) -> ChatError | None:
        """A known cid came again; too often?"""
        try:
            take(self.rates.of(action.account).retries, self.clock.now(), "retries")
        except ChatError as error:
            return error
        return None

    def note_command(self, account: int, channel: str | None, line: str) -> None:
        """For the account's history of commands. Gathered, and stored with the next tick: a command that only looks writes nothing itself,
        and is answered although the disk is full."""
        room = self.state.room_for(channel, account) if channel is not None else None
        noted = fx.NoteCommand(account=account, at_ms=self.clock.now_ms(), room=room.id if room is not None else None, line=line)
        self.noted_commands.append(noted)

    def store_noted_commands(self) -> None:
        noted, self.noted_commands = self.noted_commands, []
        kept = tuple(each for each in noted if not self.state.accounts[each.account].forgotten)
        if kept:
            self.add(fx.Action(effects=kept))

    def wake(self) -> None:
        """Something was added by a plain call, from outside of the manager's turn: see that it is handed on. Never waits."""
        if self.actions:
            with suppress(trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):  # full: its turn comes by itself
                self.inbox.send_nowait((None, []))

    # ------------------------------------------------------------ for code of the server's own that waits: `chat.rooms.items.Host`

    def now(self) -> float:
        return self.clock.now()

    def now_ms(self) -> int:
        return self.clock.now_ms()

    async def carry_out(self, decide: Callable[[State], Iterable[fx.Effect]]) -> fx.Outcome:
        ended = trio.Event()
        found: list[fx.Outcome | BaseException] = []

        def end(what: fx.Outcome | BaseException) -> None:
            found.append(what)
            ended.set()

        if not await self.ask(it.Errand(decide=decide, done=end, failed=end)):
            raise ChatError("shutting_down", "the server stops", retry_after=1)
        await ended.wait()
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]

    def run_errand(self, item: it.Errand) -> None:
        """*item*'s decision, at its place in the order. Its bug is its own: it looks, and changes nothing."""
        try:
            effects = tuple(item.decide(self.state))
        except BaseException as error:  # SystemExit too: a plugin's function may be called
            item.failed(error)
            return
        self.add(fx.Action(effects=effects, reply=Reply(NOBODY, 0, item.done, failed=item.failed)))

    def tell(self, account: int | None, message: Any) -> None:
        payload, online = codec.encode(message), self.router.online
        for each in online.values() if account is None else filter(None, (online.get(account),)):
            for link in each.links:
                link.outbox.put_always(link.frame(payload))
        self.router.hooks.flush()

    async def ask(self, item: Any) -> bool:
        """Have *item* decided, from a task of a session. *Waits* for room in the inbox. *Returns* False where the daemon is ending."""
        try:
            await self.inbox.send((None, [item]))
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            return False
        return True


class _Nobody:
    """Stands in a reply for a connection, where the server itself asks."""

    account, session, skipped = 0, "", frozenset[int]()
    outbox: Any = None

    @staticmethod
    def frame(payload: bytes) -> bytes:
        return payload


NOBODY: Final[Any] = _Nobody()


def digest(conv: str, kind: str, text: str) -> bytes:
    """What is kept with a cid, to tell a retry from another text with the same cid. 16 bytes: nobody gains by a collision with itself."""
    return blake2b(f"{conv}\0{kind}\0{text}".encode(), digest_size=16).digest()
