"""What a command sees of the server: who asks, where, the state to look at, and a way to change it."""

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import attrs

from chat.commands.registry import Registry
from chat.errors import ChatError
from chat.rooms import effects as fx
from chat.rooms.items import Invocation
from chat.rooms.policy import AccountRates, take
from chat.rooms.state import Account, Room, State

LINE_CHARACTERS: Final = 400  # of a topic, or of the reason of a ban


class Hasher(Protocol):
    """`chat.accounts.Passwords`."""

    async def hash(self, password: str) -> str: ...

    async def verify(self, password_hash: str | None, password: str) -> bool: ...


@attrs.frozen(kw_only=True)
class Surroundings:
    """What is the same for all commands of a server."""

    registry: Registry
    passwords: Hasher
    prefix: str
    default_channels: tuple[str, ...]


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

    def here(self) -> Room:
        """The channel that the command was typed in. *Raises* ChatError bad_request."""
        if self.room is None:
            raise ChatError("bad_request", "say this in a channel")
        return self.room


Decide = Callable[[Context], "str | Answer"]  # what an ``async def`` command may return: the decision, made when its waiting is over
