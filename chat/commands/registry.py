"""Commands as data: one decorated function is a command, with its parsing, usage line, rights and help.

    @command(needs="moderator", where="channel")
    def topic(ctx: Context, text: Rest = "") -> str:
        \"\"\"Show the channel's topic, or set it.\"\"\"

The name is the function's (``create_channel`` is create-channel), the arguments are its parameters (see `arguments`), the help is its
docstring, whose first line is the summary in lists. A ``def`` is decided where it stands in the order of requests; an ``async def``,
which may wait, runs beside it.

A `Registry` finds commands and parses lines. It knows no state: who may do what is told by a *permit*, a function that gives None or
the refusal for a command, and what names stand for by a resolver. The functions themselves are called by the dispatcher.
"""

import difflib
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from types import ModuleType
from typing import Any, Final, Literal, overload

import attrs

from chat.commands.arguments import Argument, ArgumentProblem, Resolver, arguments_of, bind, shown
from chat.errors import ChatError

Where = Literal["anywhere", "channel"]

RIGHTS: Final = ("member", "moderator", "owner", "admin")  # each has those before it

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_MAX_NAME: Final = 32


class CommandUsageError(ChatError):
    """The arguments are wrong: what about them, and how the command is used."""

    def __init__(self, problem: str, usage: str) -> None:
        super().__init__("bad_request", f"{problem}. Usage: {usage}")
        self.problem = problem
        self.usage = usage


@attrs.frozen(kw_only=True, eq=False)
class CommandSpec:
    """A command. ``needs`` is a right, ``origin`` where it was written (module, function and line), ``inline`` whether it cannot wait.

    ``plugin`` is the `chat.commands.plugins.Plugin` that it belongs to, None for those that chat comes with.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Argument, ...]
    summary: str
    help: str
    needs: str
    where: Where
    aliases: tuple[str, ...]
    origin: str
    inline: bool
    plugin: Any = None

    @property
    def usage(self) -> str:
        """Such as "create-channel <name> (password)": required ones in <>, optional ones in ()."""
        return " ".join([self.name, *map(str, self.arguments)])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


Permit = Callable[[CommandSpec], ChatError | None]


@attrs.frozen(kw_only=True, eq=False)
class Call:
    """A command with the values of its arguments, by their parameters' names; optional ones that were not given are absent."""

    spec: CommandSpec
    arguments: dict[str, Any] = attrs.field(repr=False)

    def run(self, ctx: Any) -> Any:
        """Call the function: its result, or for an ``async def`` the coroutine to await."""
        return self.spec.function(ctx, *self.arguments.values())


@overload
def command(function: Callable[..., Any], /) -> CommandSpec: ...


@overload
def command(
    *, needs: str = ..., where: Where = ..., name: str | None = ..., aliases: Iterable[str] = ...
) -> Callable[[Callable[..., Any]], CommandSpec]: ...


def command(
    function: Callable[..., Any] | None = None,
    /,
    *,
    needs: str = "member",
    where: Where = "anywhere",
    name: str | None = None,
    aliases: Iterable[str] = (),
) -> Any:
    """Make a command of a function, with or without options. *Raises* TypeError where the function cannot be one."""

    def decorate(function: Callable[..., Any]) -> CommandSpec:
        origin = f"{function.__module__}.{function.__qualname__}, line {function.__code__.co_firstlineno}"
        try:
            return _spec(function, origin, needs, where, name or function.__name__.strip("_").replace("_", "-"), tuple(aliases))
        except TypeError as error:
            raise TypeError(f"{origin} cannot be a command: {error}") from None

    return decorate if function is None else decorate(function)


def _spec(function: Callable[..., Any], origin: str, needs: str, where: Where, name: str, aliases: tuple[str, ...]) -> CommandSpec:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError("it is a generator")
    if where not in ("anywhere", "channel"):
        raise TypeError(f"where is anywhere or channel, not {where!r}")
    for each in (name, *aliases):
        if len(each) > _MAX_NAME or not _NAME.fullmatch(each):
            raise TypeError(f"{each!r} is no name: small letters, digits and single hyphens, {_MAX_NAME} at most")
    help_text = inspect.cleandoc(function.__doc__ or "")
    if not help_text:
        raise TypeError("it has no docstring, which is its help")
    return CommandSpec(
        name=name,
        function=function,
        arguments=arguments_of(function),
        summary=help_text.splitlines()[0].strip(),
        help=help_text,
        needs=needs,
        where=where,
        aliases=aliases,
        origin=origin,
        inline=not inspect.iscoroutinefunction(function),
    )


class Registry:
    """Commands by name. *rights* are all the words that ``needs`` may be; where they are a ladder, from the least to the highest."""

    def __init__(self, specs: Iterable[CommandSpec] = (), *, rights: Collection[str] = RIGHTS) -> None:
        self.rights = tuple(rights)
        self._by_name: dict[str, CommandSpec] = {}  # aliases too
        self._specs: list[CommandSpec] = []
        for spec in specs:
            self.add(spec)

    @classmethod
    def layered(cls, *registries: "Registry") -> "Registry":
        """One of several, such as the built-in commands and those of plugins. *Raises* ValueError for a name that two of them have."""
        rights = {right: None for registry in registries for right in registry.rights}
        return cls((spec for registry in registries for spec in registry), rights=rights)

    def __iter__(self) -> Iterator[CommandSpec]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def add(self, spec: CommandSpec) -> None:
        """*Raises* ValueError as `check`."""
        self.check(spec)
        self._by_name.update(dict.fromkeys((spec.name, *spec.aliases), spec))
        self._specs.append(spec)

    def check(self, spec: CommandSpec) -> None:
        """*Raises* ValueError for a name or alias that is taken, naming both origins, and for a right that there is not."""
        if spec.needs not in self.rights:
            raise ValueError(f"{spec.origin}: there is no right {spec.needs!r}, only {', '.join(self.rights)}")
        for name in (spec.name, *spec.aliases):
            if other := self._by_name.get(name):
                raise ValueError(f"two commands are named {name}: {other.origin}, and {spec.origin}")

    def add_module(self, module: ModuleType) -> None:
        """Add the commands that *module* defines, in their order; not those that it imports."""
        for value in vars(module).values():
            if isinstance(value, CommandSpec) and value.function.__module__ == module.__name__:
                self.add(value)

    def get(self, name: str) -> CommandSpec | None:
        """By name or alias; case and underscores for hyphens do not matter."""
        return self._by_name.get(_folded(name))

    def all(self) -> list[CommandSpec]:
        """By name, ascending."""
        return sorted(self._specs, key=lambda spec: spec.name)

    def usable(self, permit: Permit) -> list[CommandSpec]:
        """Those that *permit* allows, by name."""
        return [spec for spec in self.all() if permit(spec) is None]

    def find(self, name: str, permit: Permit) -> CommandSpec:
        """*Raises* ChatError not_found, with the nearest names of what the person may use. Itself it may be forbidden."""
        if spec := self.get(name):
            return spec
        near = nearest(name, self.usable(permit))
        hint = f"did you mean {_or(near)}?" if near else "help lists what there is"
        raise ChatError("not_found", f"there is no command {shown(name)}; {hint}")

    def parse(self, text: str, *, resolver: Resolver, permit: Permit) -> Call:
        """The call that *text* is, without the prefix: the name, then the arguments. Rights come before arguments: nothing is looked up
        for who may not.

        *Raises* ChatError not_found (an unknown command), the *permit*'s refusal, `CommandUsageError`, or the resolver's.
        """
        words = self._words(text)
        if not words:
            raise ChatError("bad_request", "a command has a name; help lists them")
        spec = self.find(words[0], permit)
        if refusal := permit(spec):
            raise refusal
        try:
            return Call(spec=spec, arguments=bind(spec.arguments, words[1] if len(words) == 2 else "", resolver))
        except ArgumentProblem as problem:
            raise CommandUsageError(str(problem), spec.usage) from None

    def _words(self, text: str) -> list[str]:
        """The command's name and its arguments. "ban --preview bob" is ban-preview, where there is such a command."""
        words = text.split(maxsplit=1)
        if len(words) == 2 and words[1].startswith("--"):
            option, *rest = words[1].split(maxsplit=1)
            if self.get(name := f"{words[0]}-{option[2:]}"):
                return [name, *rest]
        return words

    def refusal(self, spec: CommandSpec, *, held: str | None, in_channel: bool) -> ChatError | None:
        """A permit's usual answer where *rights* are a ladder: *held* is the highest right that the person has there, None for none."""
        if refused := misplaced(spec, in_channel=in_channel):
            return refused
        if held is not None and self.rights.index(held) >= self.rights.index(spec.needs):
            return None
        have = f"you are {held}" if held is not None else "you have no rights here"
        return ChatError("forbidden", f"{spec.name} is for {spec.needs}s and above; {have}")


def misplaced(spec: CommandSpec, *, in_channel: bool) -> ChatError | None:
    """The refusal of a channel's command that was typed elsewhere."""
    if spec.where == "channel" and not in_channel:
        return ChatError("bad_request", f"{spec.name} works in a channel only; say it in one")
    return None


def describe(spec: CommandSpec) -> dict[str, Any]:
    """A command as the `commands` request lists it: plain data."""
    described: dict[str, Any] = {
        "name": spec.name,
        "usage": spec.usage,
        "description": spec.summary,
        "arguments": [_described(argument) for argument in spec.arguments],
        "needs": spec.needs,
        "where": spec.where,
    }
    if spec.aliases:
        described["aliases"] = list(spec.aliases)
    return described


def _described(argument: Argument) -> dict[str, Any]:
    described: dict[str, Any] = {"name": argument.name, "kind": argument.kind.name, "required": argument.required}
    if argument.kind.choices:
        described["choices"] = list(argument.kind.choices)
    if argument.secret:
        described["secret"] = True
    return described


def nearest(word: str, specs: Iterable[CommandSpec], limit: int = 3) -> list[str]:
    """The names that *word* may have been meant for, the likeliest first: one that begins with it, one with a part that does (channel:
    create-channel), the same parts in another order, or nearly the same letters."""
    folded = _folded(word)
    parts = folded.split("-")
    letters = difflib.SequenceMatcher(b=folded, autojunk=False)
    scored = []
    for spec in specs:
        score = max(_likeness(folded, parts, letters, name) for name in (spec.name, *spec.aliases))
        if score:
            scored.append((-score, spec.name))
    strong = any(score <= -2.0 for score, _ in scored)
    return [name for score, name in sorted(scored)[:limit] if score <= -2.0 or not strong]


def _likeness(word: str, parts: list[str], letters: "difflib.SequenceMatcher[str]", name: str) -> float:
    if sorted(parts) == sorted(name.split("-")):
        return 4.0
    if name.startswith(word):
        return 3.0
    if len(word) >= 3 and any(part.startswith(word) for part in name.split("-")):
        return 2.0
    letters.set_seq1(name)
    if letters.real_quick_ratio() < 0.6 or letters.quick_ratio() < 0.6:
        return 0.0
    ratio = letters.ratio()
    return 2.0 + ratio if ratio >= 0.8 else ratio if ratio >= 0.6 else 0.0


def _folded(name: str) -> str:
    return name[: _MAX_NAME + 1].lower().replace("_", "-")


def _or(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
