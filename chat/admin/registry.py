"""What can be asked through the admin socket: the handlers, and what they work on.

    @handler("log-level")
    async def log_level(call: Call, level: str, seconds: float = 0) -> dict[str, Any]:
        \"\"\"Change what is logged.\"\"\"
        ...
        return {"level": level}

The parameters behind ``call`` are the fields of the request; their annotations are checked (as msgspec does). What is returned becomes
``ok``: anything that is JSON. A ChatError becomes ``error`` with its code and its message, which a person reads.

``call.house`` is what it works on: ``house.config``, ``house.state``, ``await house.decide(...)`` for a change. ``call.daemon`` is the
running daemon with its parts, for what concerns the process itself. ``offline=True``: it may also be run on the files of a stopped
server; then there is no ``call.daemon``. ``await call.progress(done, total, "what")`` tells how far long work is, as often as it likes.

A module with handlers is named in `load`. From a shell: ``chat.admin.client.run(config, "log-level", level="debug")``.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import Any, Final, Protocol, TypeVar, get_type_hints

import attrs
import msgspec

from chat.config import Config
from chat.errors import ChatError
from chat.rooms import effects as fx
from chat.rooms.state import State
from chat.store.base import Writer
from chat.store.retention import Cut

Decide = Callable[[State, int], Sequence[fx.Effect]]  # the state and the time (milliseconds since 1970) at the decision
Run = Callable[..., Awaitable[Any]]
T = TypeVar("T")

MODULES: Final = ("chat.admin.basics", "chat.admin.people", "chat.admin.channels", "chat.admin.life", "chat.admin.seeing")


class House(Protocol):
    """A server, running or stopped."""

    @property
    def config(self) -> Config: ...

    @property
    def state(self) -> State:
        """As it is now; a decision gets its own."""
        ...

    async def decide(self, decide: Decide) -> fx.Outcome:
        """Have *decide* called in its turn, its effects stored and told. *Raises* ChatError: its own, or why nothing was stored.
        *Waits* until it is committed."""
        ...

    async def write(self, step: Callable[[Writer], T]) -> T:
        """One short step of the store's writer, in its thread. *Raises* ChatError storage_unavailable, storage_full."""
        ...

    async def cuts(self) -> list[Cut]:
        """What the retention says is to go now. *Raises* ChatError storage_unavailable."""
        ...

    async def trim(self, cut: Cut) -> bool:
        """Delete some of it. *Returns* whether some is left. *Raises* ChatError storage_unavailable, storage_full."""
        ...


@attrs.frozen(kw_only=True)
class Daemon:
    """The running daemon: `chat.daemon.parts.Parts`, and `chat.daemon.course.Course`, which says what the process does next."""

    parts: Any
    course: Any

    @property
    def config(self) -> Config:
        """As it is since the last reload."""
        config: Config = self.course.config
        return config


@attrs.define(eq=False, kw_only=True)
class Call:
    """One request under way."""

    house: House
    running: Daemon | None
    report: Callable[[dict[str, Any]], Awaitable[None]]

    @property
    def daemon(self) -> Daemon:
        """*Raises* ChatError where the server is stopped."""
        if self.running is None:
            raise ChatError("unsupported", "this needs the server to run")
        return self.running

    async def progress(self, done: int, total: int, what: str = "") -> None:
        """*total* 0: nobody knows."""
        await self.report({"done": done, "total": total, "what": what})


@attrs.frozen(kw_only=True)
class Handler:
    name: str
    run: Run
    fields: type[msgspec.Struct]
    offline: bool

    async def __call__(self, call: Call, arguments: dict[str, Any]) -> Any:
        """*Raises* ChatError."""
        try:
            checked = msgspec.structs.asdict(msgspec.convert(arguments, self.fields))
        except msgspec.ValidationError as error:
            raise ChatError("bad_request", f"{self.name}: {error}") from None
        return await self.run(call, **checked)


_HANDLERS: Final[dict[str, Handler]] = {}


def handler(name: str, *, offline: bool = False) -> Callable[[Run], Run]:
    """See the module."""

    def register(run: Run) -> Run:
        assert name not in _HANDLERS, name
        hints = get_type_hints(run)
        fields: list[Any] = []
        for parameter in list(inspect.signature(run).parameters.values())[1:]:
            field = (parameter.name, hints[parameter.name])
            fields.append(field if parameter.default is inspect.Parameter.empty else (*field, parameter.default))
        made = msgspec.defstruct("Fields", fields, kw_only=True, forbid_unknown_fields=True)
        _HANDLERS[name] = Handler(name=name, run=run, fields=made, offline=offline)
        return run

    return register


def load() -> dict[str, Handler]:
    """Every handler, by name."""
    for module in MODULES:
        import_module(module)
    return _HANDLERS


def find(name: str) -> Handler:
    """*Raises* ChatError unsupported."""
    found = load().get(name)
    if found is None:
        raise ChatError("unsupported", f"this server knows no {name!r}; is it an older chat?")
    return found
