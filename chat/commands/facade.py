"""What a plugin sees of the server: `Context` in its commands, `Background` in what it does by itself. Authors get both from `chat.plugin`.

Neither gives out anything of the server's insides: people and channels are plain pictures (`chat.commands.plain`), and what a plugin
wants done goes the way of everything else, through `chat.rooms.items.Host.carry_out`: decided in its turn, stored, told. So when a call
of `say` or of the store returns, it is on the disk.

Who speaks: what a plugin says comes from ``server``, a name that nobody can have, nor one that looks like it. In a channel it is an
ordinary message. To one person it is a message in their notes, the conversation with oneself, so that they find it although they were
away; nobody is asked to answer a server there.

A command speaks for the person who gave it: it says something only in channels where that person may write, and where the word filter lets
it pass. What a plugin says by itself is its author's and the admin's business.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import msgspec
import trio

from chat.commands.interactive import Answered, Everyone, QuestionClosed, ask
from chat.commands.plain import Channel, User, channel_of, user_of
from chat.errors import ChatError
from chat.protocol.messages import ServerNotice
from chat.rooms import effects as fx
from chat.rooms.conversations.runs import Run
from chat.rooms.items import Host, Invocation
from chat.rooms.state import Account, Room, State
from chat.rooms.texts import not_in, restrained

TEXT_BYTES: Final = 16 * 1024  # of what a plugin says at once; as for people

T = TypeVar("T")
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


class Refused(ChatError):
    """Raise it in a command to say no: the text is all that the person sees."""

    def __init__(self, message: str) -> None:
        super().__init__("bad_request", message)


class Store:
    """What a plugin keeps: JSON values by key, its own alone. Reading does not wait; a change is on the disk when the call returns.

    A key has up to 128 characters, a value up to 64 KiB as JSON, all of a plugin's together up to 4 MiB. What is read is a copy.
    """

    def __init__(self, host: Host, plugin: str) -> None:
        self._host = host
        self._plugin = plugin

    def get(self, key: str, default: Any = None) -> Any:
        found = self._host.state.plugin_values.of(self._plugin).get(key)
        return default if found is None else _decode(found)

    def items(self, prefix: str = "") -> list[tuple[str, Any]]:
        """Those whose keys begin with *prefix*, by key."""
        values = self._host.state.plugin_values.of(self._plugin)
        return [(key, _decode(values[key])) for key in sorted(values) if key.startswith(prefix)]

    async def set(self, key: str, value: Any) -> None:
        """*Raises* ChatError quota_exceeded for what is too large, storage_unavailable; TypeError for what is no JSON."""
        await self.update(key, lambda _: value)

    async def delete(self, key: str) -> None:
        """Forget a key; one that is not there is forgotten already."""

        def decide(state: State) -> Iterable[fx.Effect]:
            known = key in state.plugin_values.of(self._plugin)
            return [fx.PutPluginValue(plugin=self._plugin, key=key, value=None)] if known else []

        await self._host.carry_out(decide)

    async def update(self, key: str, change: Callable[[Any], T], default: Any = None) -> T:
        """Set a key to ``change(value)``, *default* where there is none, with nobody in between: what to count votes with.

        *Returns* the new value. *change* must not wait. Where it raises, nothing changes, and that is raised here.
        """
        changed: list[T] = []

        def decide(state: State) -> Iterable[fx.Effect]:
            found = state.plugin_values.of(self._plugin).get(key)
            value = change(default if found is None else _decode(found))
            encoded = _encode(value).decode()
            state.plugin_values.check(self._plugin, key, encoded)
            changed.append(value)
            return [fx.PutPluginValue(plugin=self._plugin, key=key, value=encoded)]

        await self._host.carry_out(decide)
        return changed[0]


class Background:
    """The argument of a plugin's ``@background`` function, and what a command's `Context` has as well."""

    def __init__(self, host: Host, plugin: str) -> None:
        self._host = host
        self.store: Final = Store(host, plugin)

    @property
    def now(self) -> float:
        """Seconds since 1970."""
        return self._host.now_ms() / 1000

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    def find_user(self, who: int | str) -> User | None:
        """By id or name; None where there is nobody."""
        state = self._host.state
        account = state.accounts.get(who) if isinstance(who, int) else state.account(who)
        return self._user(account) if account is not None else None

    def find_channel(self, which: int | str) -> Channel | None:
        """By id or name; None where there is none (that the person who gave the command may know of)."""
        room = self._find_room(which)
        return channel_of(room) if room is not None else None

    def members_of(self, channel: Channel) -> list[User]:
        """Who is in it, in the order of joining."""
        room = self._host.state.rooms.get(channel.id)
        return [user_of(self._host.state, self._host.state.accounts[a], room) for a in room.members] if room is not None else []

    async def say(self, text: str, to: Channel | User) -> None:
        """Say something as the server. It is stored: whoever is away reads it later. See the module for who may be told what where.

        *Raises* ChatError not_found for a channel that is gone, forbidden.
        """
        body = _speakable(text)

        def decide(state: State) -> Iterable[fx.Effect]:
            if isinstance(to, Channel):
                room = state.rooms.get(to.id)
                if room is None:
                    raise ChatError("not_found", f"there is no channel {to} any more")
                self._check(state, room, body)
                return [fx.Append(conv=room.id, kind="message", author=0, body=body)]
            if to.id not in state.accounts:
                raise ChatError("not_found", f"there is no user {to.name!r} any more")
            return [fx.Append(conv=fx.Pair.of(to.id, to.id), kind="message", author=0, body=body)]

        await self._host.carry_out(decide)

    def _user(self, account: Account) -> User:
        return user_of(self._host.state, account, None)

    def _find_room(self, which: int | str) -> Room | None:
        state = self._host.state
        return state.rooms.get(which) if isinstance(which, int) else state.room(which)

    def _check(self, state: State, room: Room, text: str) -> None:
        """*Raises* ChatError where this may not be said there."""


class Context(Background):
    """The first argument of a plugin's command: who gave it, where, and what it can do."""

    def __init__(self, host: Host, plugin: str, invocation: Invocation) -> None:
        super().__init__(host, plugin)
        self._account = invocation.account
        self._room = invocation.room.id if invocation.room is not None else None
        self.run: Run | None = None  # set while an ``async def`` runs

    @property
    def user(self) -> User:
        """Who gave the command, as they are now."""
        return self._user(self._host.state.accounts.get(self._account.id, self._account))

    @property
    def channel(self) -> Channel | None:
        """Where it was given; None in private, and when the channel is gone. (``@command(where="channel")``: in channels only.)"""
        room = self._host.state.rooms.get(self._room or 0)
        return channel_of(room) if room is not None else None

    @property
    def members(self) -> list[User]:
        """Who is in the channel, in the order of joining; in private only who gave the command."""
        channel = self.channel
        return self.members_of(channel) if channel is not None else [self.user]

    async def say(self, text: str, to: Channel | User | None = None) -> None:
        """As `Background.say`; without *to* it is said where the command was given: in the channel, or in private to the person alone."""
        await super().say(text, to or self.channel or self.user)

    async def ask(
        self,
        text: str,
        *,
        of: User | Channel | Everyone | None = None,
        choices: Iterable[Any] | None = None,
        parse: Callable[[str], Any] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it is the question's, which people see
        how_many: int | None = 1,
    ) -> Any:
        """Ask a person (``of``; else who gave the command), a channel's members, or `everyone`, and wait for the answer.

        *choices* are what will do (any objects; their ``str`` is shown), *parse* makes a value of the text (``int``; the text of a
        ValueError is told to who answered). *timeout* is in seconds, else the server's usual one. *how_many* answers are waited for;
        None: all that come in time.

        *Returns* of a person the value; of a channel or everyone an `Answered` with ``user`` and ``value``; with *how_many* above 1 or
        None a list of `Answered` as they came, which may be short when the time is over.
        *Raises* `QuestionClosed`, whose ``reason`` is timeout, target_gone, channel_gone or cancelled; who does not catch it has it told
        to who gave the command.
        """
        if self.run is None:
            raise TypeError("only an `async def` command can ask, while it runs")
        seconds = self.run.questions.usual_s() if timeout is None else timeout
        target: Account | Room | Everyone
        match of:
            case None:
                target = self._account
            case User():
                if (account := self._host.state.accounts.get(of.id)) is None:
                    raise QuestionClosed("target_gone", of.name)
                target = account
            case Channel():
                if (room := self._host.state.rooms.get(of.id)) is None:
                    raise QuestionClosed("channel_gone")
                self._check(self._host.state, room, text)
                target = room
            case _:
                target = of
        try:
            found = await ask(self.run, text, of=target, choices=choices, parse=parse, timeout=seconds, how_many=how_many)
        except QuestionClosed as closed:
            closed.answers = [self._answered(each) for each in closed.answers]
            raise
        if isinstance(found, list) and all(isinstance(each, Answered) for each in found):
            return [self._answered(each) for each in found]
        return self._answered(found) if isinstance(found, Answered) else found

    def _answered(self, answered: Answered) -> Answered:
        return Answered(self._user(answered.user), answered.value)

    def reply(self, text: str) -> None:
        """Say something to the person alone, at once: only who is connected sees it, and it is not stored. (What the function returns
        is the command's answer.)"""
        self._host.tell(self._account.id, ServerNotice(text=_speakable(text)))

    def _user(self, account: Account) -> User:
        return user_of(self._host.state, account, self._host.state.rooms.get(self._room or 0))

    def _find_room(self, which: int | str) -> Room | None:
        room = super()._find_room(which)
        return room if room is None or not room.private or self._account.id in room.members else None

    def _check(self, state: State, room: Room, text: str) -> None:
        who = state.accounts.get(self._account.id)
        if who is None or who.id not in room.members:
            raise not_in(None if room.private else room, room.name)
        if room.rules is not None and (refusal := restrained(state, who, room, text, self._host.now(), self._host.now_ms())):
            raise refusal


def _speakable(text: Any) -> str:
    """*text* without control characters but line feeds and tabs, which no text on the wire has. *Raises* TypeError, ValueError."""
    if not isinstance(text, str):
        raise TypeError(f"what is said is a text, not {type(text).__name__}")
    clean = "".join(c for c in text if c in "\n\t" or not (c < " " or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff"))
    if not clean.strip():
        raise ValueError("there is nothing to say in an empty text")
    if len(clean.encode()) > TEXT_BYTES:
        raise ValueError(f"a text has at most {TEXT_BYTES >> 10} KiB")
    return clean
