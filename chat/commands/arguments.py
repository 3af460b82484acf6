"""What commands take: kinds of arguments, read off a function's signature, and the parser of what somebody typed.

A command's parameters after the first (the context) are its arguments, in order. The annotation says the kind:

    str                       one word, or several in "quotation marks" (\\" and \\\\ stand for " and \\ in them)
    int, float                a number, with bounds as Annotated[int, Meta(ge=1, le=500)]
    bool                      yes, no, on, off, true, false
    Literal["a", "b"]         one of these words
    Duration                  30s, 10m, 2h, 7d, 2w, 1h30m: whole seconds, more than none
    User, Channel             somebody's account, a channel: the resolver finds it and says why not
    Role, Command             likewise; a role's name, a command
    ChannelName               a name for the command to judge, such as that of a channel to make
    Secret                    one word that no log and no history should keep
    Rest (or *rest: str)      all the remaining text as it was typed, line breaks and quotation marks too; the last argument

``| None`` changes nothing, a default makes an argument optional. An optional Duration before a Rest may be left out: "ban bob spam" is
"ban bob 2h spam" without an end. "@bob" is a user and "#lobby" a channel, with or without the sigil.

Parsing is one pass, with no more words than arguments cut off, so its time is linear in the text. Nothing is resolved before the
number of arguments is right.
"""

import inspect
import re
import types
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal, Protocol

import attrs
from msgspec import Meta

from chat.rooms.state import Account, Room


class Resolver(Protocol):
    """Finds what names stand for, as the person who typed them may see it. Names come without a sigil; any text may come.

    Each *raises* ChatError where there is none, which is told as it is.
    """

    def user(self, name: str) -> Any: ...

    def channel(self, name: str) -> Any: ...

    def role(self, name: str) -> Any: ...

    def command(self, name: str) -> Any: ...


class ArgumentProblem(ValueError):
    """What is wrong with the arguments, for a person."""


Reader = Callable[[str, Resolver], Any]  # raises ArgumentProblem, or the resolver's ChatError


@attrs.frozen
class Kind:
    """A kind of argument. ``name`` is what clients are told, for completion."""

    name: str
    read: Reader = attrs.field(repr=False)
    choices: tuple[str, ...] = ()


@attrs.frozen
class _Flag:
    name: str


@attrs.frozen(kw_only=True)
class Argument:
    """``parameter`` is the function's name of it, ``name`` the one shown. ``rest``: takes all that remains."""

    parameter: str
    name: str
    kind: Kind
    required: bool
    rest: bool = False
    secret: bool = False
    default: Any = attrs.field(default=None, repr=False)  # of one that may be left out before others

    def __str__(self) -> str:
        return f"<{self.name}>" if self.required else f"({self.name})"


# ---------------------------------------------------------------- reading words


MAX_DURATION_S: Final = 3650 * 86400
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION: Final = re.compile(r"(?:[0-9]{1,9}[smhdw])+")
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,15}")  # longer ones are out of every bound, and int() of a very long one is slow
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15})")
_BOOLEANS: Final = {"yes": True, "on": True, "true": True, "1": True, "no": False, "off": False, "false": False, "0": False}


def _read_word(word: str, _: Resolver) -> str:
    return word


def _read_integer(word: str, _: Resolver) -> int:
    if _INTEGER.fullmatch(word):
        return int(word)
    raise ArgumentProblem(f"{shown(word)} is no whole number")


def _read_number(word: str, _: Resolver) -> float:
    if _NUMBER.fullmatch(word):
        return float(word)
    raise ArgumentProblem(f"{shown(word)} is no number")


def _read_boolean(word: str, _: Resolver) -> bool:
    try:
        return _BOOLEANS[word.lower()]
    except KeyError:
        raise ArgumentProblem(f"{shown(word)} is neither yes nor no") from None


def _read_duration(word: str, _: Resolver) -> int:
    folded = word.lower()
    if not _DURATION.fullmatch(folded):
        raise ArgumentProblem(f"{shown(word)} is no duration; 30s, 10m, 2h, 7d and 1h30m are")
    seconds = sum(int(part[:-1]) * _UNITS_S[part[-1]] for part in re.findall(r"[0-9]+[a-z]", folded))
    if not 0 < seconds <= MAX_DURATION_S:
        raise ArgumentProblem("a duration is more than nothing and at most ten years")
    return seconds


def _choice(values: Sequence[Any]) -> Kind:
    by_word = {str(value).lower(): value for value in values}

    def read(word: str, _: Resolver) -> Any:
        try:
            return by_word[word.lower()]
        except KeyError:
            raise ArgumentProblem(f"{shown(word)} is none of {', '.join(by_word)}") from None

    return Kind("choice", read, tuple(by_word))


WORD: Final = Kind("word", _read_word)
TEXT: Final = Kind("text", _read_word)
INTEGER: Final = Kind("integer", _read_integer)
NUMBER: Final = Kind("number", _read_number)
BOOLEAN: Final = Kind("boolean", _read_boolean, ("yes", "no"))
DURATION: Final = Kind("duration", _read_duration)
USER: Final = Kind("user", lambda word, resolver: resolver.user(word.removeprefix("@")))
CHANNEL: Final = Kind("channel", lambda word, resolver: resolver.channel(word.removeprefix("#")))
CHANNEL_NAME: Final = Kind("channel-name", lambda word, _: word.removeprefix("#"))
ROLE: Final = Kind("role", lambda word, resolver: resolver.role(word))
COMMAND: Final = Kind("command", lambda word, resolver: resolver.command(word.lstrip("/!.")))  # "help //topic" is meant well
SECRET: Final = _Flag("secret")

Rest = Annotated[str, TEXT]
Secret = Annotated[str, SECRET]
Duration = Annotated[int, DURATION]
User = Annotated[Account, USER]
Channel = Annotated[Room, CHANNEL]
ChannelName = Annotated[str, CHANNEL_NAME]
Role = Annotated[Any, ROLE]
Command = Annotated[Any, COMMAND]

_PLAIN: Final[dict[Any, Kind]] = {str: WORD, int: INTEGER, float: NUMBER, bool: BOOLEAN}


# ---------------------------------------------------------------- from a signature


def arguments_of(function: Callable[..., Any]) -> tuple[Argument, ...]:
    """The arguments of a command's function. *Raises* TypeError, naming the parameter, where the signature cannot be one."""
    parameters = list(inspect.signature(function).parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or parameters[0].kind not in positional:
        raise TypeError("its first parameter is the context")
    arguments: list[Argument] = []
    for parameter in parameters[1:]:
        try:
            if arguments and arguments[-1].rest:
                raise TypeError("nothing can follow the rest of the text")
            arguments.append(_argument(parameter, _annotation(function, parameter)))
        except TypeError as error:
            raise TypeError(f"its parameter {parameter.name}: {error}") from None
    return tuple(arguments)


def _annotation(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Evaluated where it is a string. (Those of the context and of the result are left alone: they may be for type checkers only.)"""
    holder = types.SimpleNamespace(__annotations__={"it": parameter.annotation})
    try:
        return typing.get_type_hints(holder, globalns=getattr(function, "__globals__", {}), include_extras=True)["it"]
    except NameError as error:
        raise TypeError(f"its annotation cannot be read: {error}") from None


def _argument(parameter: inspect.Parameter, annotation: Any) -> Argument:
    variadic = parameter.kind is inspect.Parameter.VAR_POSITIONAL
    if parameter.kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
        raise TypeError("arguments are positional")
    if annotation is inspect.Parameter.empty:
        raise TypeError("it needs an annotation, which says its kind")
    base, extras = _unwrap(annotation)
    kinds = [extra for extra in extras if isinstance(extra, Kind)]
    if variadic and (base is not str or kinds):
        raise TypeError("of all kinds only *rest: str takes several words")
    if variadic:
        kind = TEXT
    elif kinds:
        kind = kinds[-1]
    elif typing.get_origin(base) is Literal:
        kind = _choice(typing.get_args(base))
    elif base in _PLAIN:
        kind = _PLAIN[base]
    elif isinstance(plain := getattr(base, "argument_kind", None), Kind):  # of chat.commands.plain
        kind = plain
    else:
        raise TypeError(f"no kind of argument is written {annotation!r}")
    for meta in extras:
        if isinstance(meta, Meta):
            kind = _bounded(kind, meta)
    return Argument(
        parameter=parameter.name,
        name=parameter.name.strip("_").replace("_", "-"),
        kind=kind,
        required=not variadic and parameter.default is inspect.Parameter.empty,
        rest=kind.name == TEXT.name,
        secret=SECRET in extras,
        default=None if parameter.default is inspect.Parameter.empty else parameter.default,
    )


def _unwrap(annotation: Any) -> tuple[Any, list[Any]]:
    """What is below Annotated and ``| None``, and all that Annotated added."""
    extras: list[Any] = []
    while True:
        origin = typing.get_origin(annotation)
        if origin is Annotated:
            extras[:0] = annotation.__metadata__
            annotation = annotation.__origin__
        elif origin in (typing.Union, types.UnionType):
            others = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
            if len(others) != 1:
                raise TypeError("one argument has one kind")
            (annotation,) = others
        else:
            return annotation, extras


def _bounded(kind: Kind, meta: Meta) -> Kind:
    """*kind* within the bounds of *meta*: ge and le of numbers, min_length and max_length (characters) of texts."""
    numeric = kind in (INTEGER, NUMBER, DURATION)
    bounds = ("ge", "le") if numeric else ("min_length", "max_length")
    unknown = [field for field in _META_FIELDS if getattr(meta, field) is not None and field not in bounds]
    if unknown or not (numeric or kind in (WORD, TEXT)):
        raise TypeError(f"{meta} is no bound of a {kind.name}")
    low, high = (getattr(meta, field) for field in bounds)
    if low is not None and high is not None:
        allowed = f"{low:g} to {high:g}"
    else:
        allowed = f"at least {low:g}" if low is not None else f"at most {high:g}"

    def read(word: str, resolver: Resolver) -> Any:
        value = kind.read(word, resolver)
        size = value if numeric else len(value)
        if (low is None or low <= size) and (high is None or size <= high):
            return value
        raise ArgumentProblem(f"it must be {allowed}{_UNITS.get(kind.name, ' characters')}")

    return Kind(kind.name, read, kind.choices)


_META_FIELDS: Final = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz")
_UNITS: Final = {INTEGER.name: "", NUMBER.name: "", DURATION.name: " seconds"}


# ---------------------------------------------------------------- from a text


_SPACE: Final = re.compile(r"\s*")
_BARE: Final = re.compile(r"\S+")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"(?=\s|\Z)', re.DOTALL)
_ESCAPED: Final = re.compile(r'\\(["\\])')


def cut_word(text: str, at: int = 0) -> tuple[str | None, int]:
    """The word at or after *at*, unquoted, and where it ends; None where nothing but white space is left.

    *Raises* ArgumentProblem for a quotation mark that is not closed.
    """
    start = _end(_SPACE, text, at)
    if start == len(text):
        return None, start
    if text[start] != '"':
        end = _end(_BARE, text, start)
        return text[start:end], end
    if (quoted := _QUOTED.match(text, start)) is None:
        raise ArgumentProblem("a quotation mark is not closed, or no blank follows the closing one")
    return _ESCAPED.sub(r"\1", quoted[1]), quoted.end()


def bind(arguments: Sequence[Argument], text: str, resolver: Resolver) -> dict[str, Any]:
    """The values of *arguments* by their parameters' names, in order; optional ones that were not given are left out.

    *Raises* ArgumentProblem, or the resolver's ChatError.
    """
    words: list[str | None] = []  # None: left out, though more follow
    at = 0
    for place, argument in enumerate(arguments):
        at = _end(_SPACE, text, at)
        if at == len(text):
            break
        if argument.rest:
            word, at = text[at:], len(text)
        elif _may_be_left_out(arguments, place) and not _DURATION.fullmatch(text[at : _end(_BARE, text, at)].lower()):
            word = None
        else:
            word, at = cut_word(text, at)
        words.append(word)
    missing = [argument for argument in arguments[len(words) :] if argument.required]
    if missing:
        raise ArgumentProblem(f"{' and '.join(map(str, missing))} {'is' if len(missing) == 1 else 'are'} missing")
    at = _end(_SPACE, text, at)
    if at < len(text):
        raise ArgumentProblem(f"{shown(text[at:])} is too much")
    values: dict[str, Any] = {}
    for argument, word in zip(arguments, words, strict=False):
        if word is None:
            values[argument.parameter] = argument.default
            continue
        try:
            values[argument.parameter] = argument.kind.read(word, resolver)
        except ArgumentProblem as problem:
            raise ArgumentProblem(f"{argument}: {problem}") from None
    return values


def _may_be_left_out(arguments: Sequence[Argument], place: int) -> bool:
    """An optional duration, and the rest of the text behind it."""
    argument = arguments[place]
    return not argument.required and argument.kind.name == DURATION.name and place + 1 < len(arguments) and arguments[place + 1].rest


def masked(arguments: Sequence[Argument], text: str) -> str:
    """*text*, which `bind` has taken, with dots in the place of secrets."""
    parts, at = [], 0
    for argument in arguments:
        start = _end(_SPACE, text, at)
        if argument.rest:
            at = len(text)
        else:
            word, at = cut_word(text, start)
            if word is None:
                break
        parts.append("•••" if argument.secret else text[start:at])
    return " ".join(part for part in parts if part)


def shown(word: str) -> str:
    """A word in a message about it: in quotation marks, on one line and not too long."""
    flat = " ".join(word[:64].split())
    return f'"{flat[:32]}…"' if len(flat) > 32 else f'"{flat}"'


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at
