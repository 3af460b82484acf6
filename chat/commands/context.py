"""What a command sees of the server: who asks, where, the state to look at, and a way to change it."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final, Protocol

import attrs

from chat.commands.interactive import Everyone, ask
from chat.commands.plugins import Plugins
from chat.commands.registry import Registry
from chat.errors import ChatError
from chat.rooms import effects as fx
from chat.rooms.conversations.runs import Run
from chat.rooms.items import Invocation
from chat.rooms.moderation.audit import Entry
from chat.rooms.policy import AccountRates, take
from chat.rooms.state import Account, Room, State

LINE_CHARACTERS: Final = 400  # of a topic, or of the reason of a ban


class Hasher(Protocol):
    """`chat.accounts.Passwords`."""

    async def hash(self, password: str) -> str: ...

    async def verify(self, password_hash: str | None, password: str) -> bool: ...


class Records(Protocol):
    """`chat.store.base.Store`: what commands read from it. All wait for it, and *raise* ChatError storage_unavailable."""

    async def audit(
        self,
        *,
        limit: int,
        before: int | None = None,
        target: int | None = None,
        rooms: Collection[int] | None = None,
        action: str | None = None,
    ) -> list[Entry]: ...

    async def seen(self, since_ms: int) -> Sequence[Any]: ...

    async def command_history(self, account: int, limit: int) -> list[tuple[int, int | None, str]]: ...

    async def last_messages(self, conv: int, limit: int) -> list[int]: ...

    async def reports(self, *, rooms: Collection[int] | None, limit: int) -> Sequence[Any]: ...


class NoRecords:
    """Where there is no store."""

    async def audit(
        self,
        *,
        limit: int,
        before: int | None = None,
        target: int | None = None,
        rooms: Collection[int] | None = None,
        action: str | None = None,
    ) -> list[Entry]:
        return []

    async def seen(self, since_ms: int) -> Sequence[Any]:
        return []

    async def command_history(self, account: int, limit: int) -> list[tuple[int, int | None, str]]:
        return []

    async def last_messages(self, conv: int, limit: int) -> list[int]:
        return []

    async def reports(self, *, rooms: Collection[int] | None, limit: int) -> Sequence[Any]:
        return []


@attrs.frozen(kw_only=True)
class Surroundings:
    """What is the same for all commands of a server."""

    plugins: Plugins
    passwords: Hasher
    prefix: str
    default_channels: tuple[str, ...]
    records: Records = attrs.Factory(NoRecords)

    @property
    def registry(self) -> Registry:
        """All commands, as of this moment: those of plugins come and go."""
        return self.plugins.registry


@attrs.frozen
class Answer:
    """A command's result with data beside the text, for programs."""

    text: str
    data: Any = None


@attrs.define(kw_only=True)
class Context:
    """The first argument of every command. ``room`` is the channel that it was typed in, if any."""

    invocation: Invocation
    around: Surroundings
    effects: list[fx.Effect] = attrs.Factory(list)
    run: Run | None = None  # of an ``async def`` command, while it runs

    @property
    def state(self) -> State:
        return self.invocation.state

    @property
    def account(self) -> Account:
        return self.invocation.account

    @property
    def room(self) -> Room | None:
        return self.invocation.room

    @property
    def rates(self) -> AccountRates:
        return self.invocation.rates

    @property
    def now_ms(self) -> int:
        return self.invocation.now_ms

    @property
    def prefix(self) -> str:
        """What commands begin with here."""
        return self.room.prefix if self.room is not None and self.room.prefix is not None else self.around.prefix

    def line(self, text: str, what: str) -> str:
        """*text* on one line. *Raises* ChatError bad_request above `LINE_CHARACTERS`."""
        flat = " ".join(text.split())
        if len(flat) > LINE_CHARACTERS:
            raise ChatError("bad_request", f"{what} has at most {LINE_CHARACTERS} characters, this one has {len(flat)}")
        return flat

    def do(self, effects: Iterable[fx.Effect]) -> None:
        """Change something: stored with the command's answer, all or nothing."""
        self.effects.extend(effects)

    def take(self, bucket: Any, what: str) -> None:
        """Count against a rate. *Raises* ChatError rate_limited."""
        take(bucket, self.invocation.now, what)

    async def ask(
        self,
        text: str,
        *,
        of: Account | Room | Everyone | None = None,
        choices: Iterable[Any] | None = None,
        parse: Callable[[str], Any] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it is the question's, which people see
        how_many: int | None = 1,
    ) -> Any:
        """Ask a person (``of``; else the caller), a channel's members, or `everyone`, and wait for the answer.

        *choices* are what will do (any objects; their ``str`` is shown), *parse* makes a value of the text (``int``; the text of a
        ValueError is told to who answered). *timeout* is in seconds, else ``limits.question_s``. *how_many* answers are waited for; None:
        all that come in time.

        *Returns* of a person the value; of a channel or everyone an `Answered` with ``user`` and ``value``; with *how_many* above 1 or
        None a list of `Answered` as they came, which may be short when the time is over.
        *Raises* `QuestionClosed`: timeout, target_gone, channel_gone, cancelled.
        *If cancelled*, since the asker is gone: nobody sees the question any more.
        """
        if self.run is None:
            raise TypeError("only an `async def` command can ask, while it runs")
        seconds = self.run.questions.usual_s() if timeout is None else timeout
        target = self.account if of is None else of
        return await ask(self.run, text, of=target, choices=choices, parse=parse, timeout=seconds, how_many=how_many)

    def here(self) -> Room:
        """The channel that the command was typed in. *Raises* ChatError bad_request."""
        if self.room is None:
            raise ChatError("bad_request", "say this in a channel")
        return self.room


Decide = Callable[[Context], "str | Answer"]  # what an ``async def`` command may return: the decision, made when its waiting is over
