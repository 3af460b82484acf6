"""Read the configuration: the defaults, over them the file, then ``CHAT_…`` of the environment, then the flags.

Environment: the key path in capitals, the section set off by two underscores: ``CHAT_NAME``, ``CHAT_LIMITS__SENDS_BURST``,
``CHAT_LISTEN__ADDRESS``. Lists are separated by commas. Flags are given by key path (``limits.sends_burst``), as text or as a value.
``listen.address`` from there stands for the whole list of listeners: one for each address, otherwise like the first in the file.

All mistakes are found in one go and told together, each with where it stands, its key path and what was expected.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import attrs
import cattrs
import platformdirs
from cattrs.errors import ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override

from chat.config.sections import Config, ConfigError, Listen, default_data_dir, disagreements

ENV: Final = "CHAT_"
TRUE: Final = ("true", "yes", "on", "1")
FALSE: Final = ("false", "no", "off", "0")
NEAREST: Final = "the nearest known one is"
FOLDERS: Final = ("dir", "folder", "path", "home")  # what a key for one may be called
RESCUED: Final = ("data_dir", "log.file", "limits.drain_s")

Source = Literal["default", "file", "env", "flag"]


@attrs.frozen(kw_only=True)
class Loaded:
    """A configuration and where it comes from. *sources*: key path → source; keys that are not in it have their default."""

    config: Config
    file: Path | None
    sources: Mapping[str, Source]
    again: "Callable[[], Loaded]" = attrs.field(repr=False, eq=False)  # read the file once more, with the same environment and flags


def fields(cls: type) -> dict[str, "attrs.Attribute[Any]"]:
    return attrs.fields_dict(attrs.resolve_types(cls))


def keys() -> Iterator[tuple[str, "attrs.Attribute[Any]"]]:
    """Every key path with its attribute, those of the top level first."""
    sections = []
    for name, field in fields(Config).items():
        if "section" in field.metadata:
            sections.append((name, field.metadata["section"]))
        else:
            yield name, field
    for name, section in sections:
        for inner, field in fields(section).items():
            yield f"{name}.{inner}", field


KEYS: Final = dict(keys())
SECTIONS: Final[dict[str, type]] = {name: f.metadata["section"] for name, f in fields(Config).items() if "section" in f.metadata}


def env_name(path: str) -> str:
    return ENV + path.upper().replace(".", "__")


# ---------------------------------------------------------------- the parts


def find_file(path: Path | None, env: Mapping[str, str]) -> Path | None:
    """The file to read: *path*, else ``CHAT_CONFIG``, else chat/config.toml in the user's configuration folder where it exists."""
    if path is not None:
        return path
    if env.get("CHAT_CONFIG"):
        return Path(env["CHAT_CONFIG"])
    folder = Path(env["XDG_CONFIG_HOME"]) / "chat" if env.get("XDG_CONFIG_HOME") else Path(platformdirs.user_config_dir("chat"))
    file = folder / "config.toml"
    return file if os.path.isfile(file) else None  # unlike Path.is_file it takes "no right to look" for a no


def load(path: Path | None, env: Mapping[str, str], flags: Mapping[str, Any] | None = None) -> Config:
    """The configuration. *Raises* ConfigError with every mistake."""
    return read(path, env, flags).config


def read(path: Path | None, env: Mapping[str, str], flags: Mapping[str, Any] | None = None, *, cwd: Path | None = None) -> Loaded:
    """Like `load`, but tells also where each value comes from. Paths of the environment and of flags are relative to *cwd*."""
    cwd = cwd or Path.cwd()  # kept for `Loaded.again`: a daemon changes its folder
    env = dict(env)
    file = find_file(path, env)
    raw: dict[str, Any] = _parse(file, cwd) if file else {}
    problems: list[str] = []
    sources: dict[str, Source] = dict.fromkeys(_given(raw), "file")
    names: dict[str, str] = {}  # key path → what to call its source in a message
    over: dict[str, Any] = {}
    for source, given in (("env", _from_env(env, problems)), ("flag", _from_flags(flags or {}, problems))):
        for key_path, (label, value) in given.items():
            try:
                over[key_path] = _from_text(KEYS[key_path], key_path, value) if isinstance(value, str) else value
            except ValueError as exc:
                problems.append(f"{label}: {key_path}: expected {exc}")
                continue
            names[key_path], sources[key_path] = label, source  # type: ignore[assignment]
    try:
        folder = Path(cwd, file).parent if file else cwd
        config = _structure(_merged(raw, over), folder, over, cwd)
    except ConfigError as exc:
        for problem in exc.problems:
            key_path, _, text = problem.partition("\t")
            label = names.get(_plain(key_path)) or str(file or "configuration")
            problems.append(f"{label}: {key_path}: {text}" if key_path else f"{label}: {text}")
        raise ConfigError(problems) from None
    if problems:
        raise ConfigError(problems)
    return Loaded(config=config, file=file, sources=sources, again=lambda: read(path, env, flags, cwd=cwd))


def rescue(
    error: ConfigError, path: Path | None, env: Mapping[str, str], flags: Mapping[str, Any] | None = None, *, cwd: Path | None = None
) -> Config | None:
    """What can be had of a configuration for which `read` raised *error*, for who looks at a server or stops it: where its files are, and
    how long it drains. All else has its default.

    None: they may be anywhere. A folder is not guessed, since another server may run on the usual one: where the file cannot be read, or
    something looks like a misspelled ``data_dir``, or like a folder under a name that nobody knows, it has to be given in the environment
    or by a flag. In a file that is no TOML nothing may look like a file or a folder at all.
    """
    cwd = cwd or Path.cwd()
    file = find_file(path, env)
    given = {**_from_env(env, []), **_from_flags(flags or {}, [])}
    raw: dict[str, Any] = {}
    try:
        raw = _parse(file, cwd) if file else {}
        unsaid = any(problem.endswith((f"{NEAREST} data_dir", f"{NEAREST} {env_name('data_dir')}")) for problem in error.problems)
        unsaid = unsaid or any(_names_a_folder(dict(flags or {}), "")) or ("data_dir" not in raw and any(_names_a_folder(raw, "")))
    except ConfigError:
        unsaid = _may_name_a_file(Path(cwd, file)) if file else True
    if unsaid and "data_dir" not in given:
        return None
    folder = Path(cwd, file).parent if file else cwd
    for wanted in (RESCUED, RESCUED[:1]):
        try:
            over = {at: _from_text(KEYS[at], at, value) for at, (_, value) in given.items() if at in wanted}
            return _structure(_merged(_only(wanted, raw), over), folder, over, cwd)
        except (ConfigError, ValueError):
            continue
    return None


def _may_name_a_file(file: Path) -> bool:
    """Whether a line of *file*, which is no TOML, may say where something is."""
    try:
        lines = [line.partition(" #")[0].strip() for line in file.read_text("utf-8").lower().splitlines()]
    except (OSError, UnicodeDecodeError):
        return True
    said = [line for line in lines if not line.startswith("#") and not re.fullmatch("data_dir *= *(\"\"|'')", line)]
    return any(word in line for line in said for word in (*FOLDERS, "file", "/", "~", "\\"))


def _names_a_folder(value: Any, path: str) -> Iterator[bool]:
    """Of each text under a key that nobody knows: whether it may be the data folder."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _names_a_folder(inner, f"{path}.{name}".removeprefix("."))
    elif isinstance(value, list):
        for inner in value:
            yield from _names_a_folder(inner, path)
    elif isinstance(value, str) and path not in KEYS:
        yield ("/" in value and "://" not in value) or any(word in path.lower() for word in FOLDERS)


def _only(wanted: Sequence[str], raw: dict[str, Any]) -> dict[str, Any]:
    """*raw* without all other keys."""
    kept: dict[str, Any] = {}
    for at in wanted:
        section, dot, name = at.rpartition(".")
        table = raw.get(section) if dot else raw
        if isinstance(table, dict) and name in table:
            (kept.setdefault(section, {}) if dot else kept)[name] = table[name]
    return kept


def _parse(file: Path, cwd: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(cwd, file).read_text("utf-8"))
    except OSError as exc:
        raise ConfigError([f"{file}: cannot be read: {exc.strerror}"]) from None
    except UnicodeDecodeError as exc:
        raise ConfigError([f"{file}: not UTF-8 at byte {exc.start}"]) from None
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError([f"{file}: not TOML: {exc}"]) from None


def _given(raw: dict[str, Any]) -> Iterator[str]:
    for name, value in raw.items():
        for item in value if isinstance(value, list) and name in SECTIONS else [value]:
            if isinstance(item, dict):
                yield from (f"{name}.{inner}" for inner in item)
            else:
                yield name


def _plain(path: str) -> str:
    """``listen[0].address`` → ``listen.address``."""
    head, bracket, rest = path.partition("[")
    return head + rest.partition("]")[2] if bracket else path


def _from_env(env: Mapping[str, str], problems: list[str]) -> dict[str, tuple[str, Any]]:
    known = {env_name(path): path for path in KEYS}
    found = {}
    for name, value in env.items():
        if name in known:
            found[known[name]] = (name, value)
        elif name.startswith(ENV):
            near = difflib.get_close_matches(name.removeprefix(ENV), [other.removeprefix(ENV) for other in known], 1, 0.88)
            # Others may use names in CHAT_ too (Kubernetes makes CHAT_PORT for a service "chat"): only what looks like a mistake is one.
            section, sep, _ = name.removeprefix(ENV).lower().partition("__")
            if near or (sep and section in SECTIONS):
                known_here = [path for path in KEYS if not (sep and section in SECTIONS) or path.startswith(f"{section}.")]
                nearest = env_name(_nearest(name.removeprefix(ENV).lower().replace("__", "."), "", known_here))
                problems.append(f"{name}: unknown; {NEAREST} {nearest}")
    return found


def _from_flags(flags: Mapping[str, Any], problems: list[str]) -> dict[str, tuple[str, Any]]:
    found = {}
    for path, value in flags.items():
        if path in KEYS:
            found[path] = ("command line", value)
        else:
            problems.append(f"command line: {path}: unknown key; {NEAREST} {_nearest(path, '')}")
    return found


def _from_text(field: "attrs.Attribute[Any]", path: str, text: str) -> Any:
    kind = field.type
    if kind is bool:
        if text.lower() in TRUE + FALSE:
            return text.lower() in TRUE
        raise ValueError(f"true or false, got {text!r}")
    if kind is int or kind is float:
        try:
            return int(text) if kind is int else float(text)
        except ValueError:
            raise ValueError(f"{'a whole number' if kind is int else 'a number'}, got {text!r}") from None
    if get_origin(kind) is tuple and text.lstrip().startswith("["):  # as TOML writes it, and `chat config show`
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            raise ValueError(f'a list such as a,b or ["a", "b"], got {text!r}') from None
    if get_origin(kind) is tuple or path == "listen.address":
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _merged(raw: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """*raw* with *over* written into copies of its tables."""
    merged = dict(raw)
    for path, value in over.items():
        section, dot, name = path.partition(".")
        if not dot:
            merged[path] = value
        elif section != "listen":
            if isinstance(merged.get(section, {}), dict):  # else the mistake is told when it is structured
                merged[section] = {**merged.get(section, {}), name: value}
        else:
            listeners = merged.get("listen", [{}])
            if not isinstance(listeners, list) or not all(isinstance(item, dict) for item in listeners):
                continue
            if name == "address":
                addresses = [value] if isinstance(value, str) else list(value)
                merged["listen"] = [{**(listeners or [{}])[0], "address": address} for address in addresses]
            else:
                merged["listen"] = [{**item, name: value} for item in listeners]
    return merged


# ---------------------------------------------------------------- checking


def _structure(raw: dict[str, Any], folder: Path, over: Mapping[str, Any], cwd: Path) -> Config:
    """*Raises* ConfigError whose problems are "key path TAB text". Paths are relative to *folder*, those of *over* to *cwd*."""
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    for name, cls in [*SECTIONS.items(), ("", Config)]:  # in this order: hooks are looked up when one is made
        converter.register_structure_hook(cls, _section_hook(converter, name, cls, folder, over, cwd))
    problems: list[str] = []
    try:
        config = converter.structure(raw, Config)
    except Exception as exc:
        for line in cattrs.transform_error(exc, "", _explain):
            text, _, where = line.rpartition(" @ ")
            where = where.removeprefix(".")
            for part in text.split("\n"):
                unknown, tab, rest = part.rpartition("\t")
                path = f"{where}.{unknown}".removeprefix(".") if tab else where
                problems.append(f"{path}\t{rest}")
        raise ConfigError(problems) from None
    problems = [f"{path}\texpected {text}" for path, text in disagreements(config)]
    if problems:
        raise ConfigError(problems)
    return config


def _section_hook(converter: cattrs.Converter, name: str, cls: type, folder: Path, over: Mapping[str, Any], cwd: Path) -> Any:
    overrides: dict[str, Any] = {}
    for inner in fields(cls):
        path = f"{name}.{inner}".removeprefix(".")
        if path in KEYS:
            overrides[inner] = override(struct_hook=_key_hook(path, cwd if path in over else folder))
    inside: Any = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True, **overrides)

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"a table [{name}], got {_shown(value)}")
        return inside(value, cls)

    if cls is not Listen:
        return hook
    converter.register_structure_hook_func(lambda kind: kind == tuple[Listen, ...], lambda value, _: _listeners(value, converter))
    return hook


def _key_hook(path: str, folder: Path) -> Any:
    return lambda value, _: _value(value, path, KEYS[path], folder)


def _listeners(value: Any, converter: cattrs.Converter) -> tuple[Listen, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"one or more tables [[listen]], got {_shown(value)}")
    return tuple(converter.structure(value, list[Listen]))


def _value(value: Any, path: str, field: "attrs.Attribute[Any]", folder: Path) -> Any:
    """*value* as the field wants it. *Raises* ValueError with what was expected."""
    kind, expected = field.type, expectation(field)
    wrong = ValueError(f"{expected}, got {_shown(value)}")
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise wrong
    elif kind is bool:
        if type(value) is not bool:
            raise wrong
    elif kind in (int, float):
        if type(value) not in ((int,) if kind is int else (int, float)):
            raise wrong
        low, high = field.metadata["low"], field.metadata["high"]
        if not low <= value <= high:  # so written that NaN is refused, too
            raise wrong
        value = kind(value)  # type: ignore[misc]
    elif get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise wrong
        value = tuple(value)
    elif not isinstance(value, str) or "\0" in value:
        raise wrong
    elif kind is not str:  # a path
        if not value:
            return default_data_dir() if path == "data_dir" else None
        try:
            return Path(folder, Path(value).expanduser())
        except RuntimeError:  # ~nobody
            raise wrong from None
    if field.metadata["check"] is not None:
        try:
            field.metadata["check"](value)
        except ValueError as exc:
            raise ValueError(f"{exc}, got {_shown(value)}") from None
    return value


def bounds(field: "attrs.Attribute[Any]") -> str:
    low, high = (f"{field.metadata[end]:,.15g}" for end in ("low", "high"))
    return f"{low} to {high}"


def expectation(field: "attrs.Attribute[Any]") -> str:
    """What is allowed, in words."""
    kind = field.type
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(f'"{word}"' for word in get_args(kind))
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        return f"{'a whole number' if kind is int else 'a number'} from {bounds(field)}"
    if get_origin(kind) is tuple:
        return "a list of texts"
    return "a text" if kind is str else "a path"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _explain(exc: BaseException, _: Any) -> str:
    if isinstance(exc, ForbiddenExtraKeysError):
        section = next((name for name, cls in SECTIONS.items() if cls is exc.cl), "")
        return "\n".join(
            f"{name}\tunknown key; {NEAREST} {_nearest(f'{section}.{name}'.removeprefix('.'), section)}"
            for name in sorted(exc.extra_fields)
        )
    return f"expected {exc}"


def _nearest(path: str, section: str, among: Sequence[str] = (*KEYS, *SECTIONS)) -> str:
    """The known key or section that looks most like *path*; of equals the one in the same *section*."""
    name = path.rpartition(".")[2]

    def alike(other: str) -> float:
        other_section, _, other_name = other.rpartition(".")
        whole = difflib.SequenceMatcher(None, path, other).ratio()
        part = difflib.SequenceMatcher(None, name, other_name).ratio()
        return max(whole, part) + (0.1 if other_section == section else 0)

    return max(among, key=alike)
