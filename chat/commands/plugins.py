"""Plugins: where they come from, how they are loaded, and what becomes of them when they are loaded anew.

Three places, in this order; of two plugins of one name the later takes the place of the earlier:

    modules         that the configuration names (``plugins``); the examples of `chat.plugins` are its default
    entry points    of the group ``chat.commands``, of packages that are installed
    files           ``plugins/NAME.py`` in the data folder; names that begin with ``_`` or ``.`` are passed over

A plugin is the commands (``@command``) and background tasks (``@background``) of one module. Its name is the file's, the entry point's
or the module's (of the examples without ``chat.plugins.``); by it the store keeps its values.

Theory of operation
    `Plugins.load` looks at all places and compares what it finds with what is loaded, by content. What is the same stays as it is:
    nothing of it is disturbed. What is new or changed is executed as a fresh module. One that fails, in whatever way, keeps its old
    version, and `problems` says where and why, with file and line. What is not there any more vanishes. Then everything is put
    together: what stays first, so that a newcomer with a name that is taken is the one who is refused. Only when all is done
    `registry` is exchanged; and what has vanished or was replaced ends: its running commands and background tasks are cancelled.

    All this is one plain call, without a wait: no command is found half loaded. (So a module that takes long to load holds up the
    server. It is the admin's own code, as everything about it is: it runs inside the server, and may do what the server may do.)

Files are executed only if they, and the folder, belong to the user of the server or to root and nobody else may write to them: else
whoever may write there would be whoever runs the server. What is checked is the opened file.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import pwd
import stat
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from chat.commands.registry import CommandSpec, Registry
from chat.log import get_logger

log = get_logger("chat.plugins")

ENTRY_POINTS: Final = "chat.commands"
EXAMPLES: Final = "chat.plugins."


class PluginBroken(Exception):
    """A plugin cannot be loaded; the text says which, where and why."""


@attrs.frozen(eq=False)
class BackgroundTask:
    """A function that `background` has marked: run from the load of its plugin on, until it is unloaded."""

    function: Callable[..., Any]

    @property
    def name(self) -> str:
        return self.function.__name__.strip("_").replace("_", "-")


def background(function: Callable[..., Any]) -> BackgroundTask:
    """Make an ``async def`` function of a plugin one that runs by itself, with a `chat.commands.facade.Background` as its argument.

    It starts with the plugin and is cancelled with it. If it fails it is logged, and starts again after a while; returning ends it.
    """
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"{getattr(function, '__name__', function)!s} cannot run in the background: it is no async def")
    return BackgroundTask(function)


@attrs.define(eq=False)
class Plugin:
    """One version of a plugin, loaded. ``origin`` is for people: the file or the module. ``scopes`` are of its background tasks."""

    name: str
    origin: str
    stamp: bytes
    specs: tuple[CommandSpec, ...] = ()
    tasks: tuple[BackgroundTask, ...] = ()
    gone: bool = False
    scopes: set[trio.CancelScope] = attrs.Factory(set)

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """What runs in it is cancelled, and left without a word, when the plugin is unloaded."""
        with trio.CancelScope() as scope:
            if self.gone:
                scope.cancel()
            self.scopes.add(scope)
            try:
                yield
            finally:
                self.scopes.discard(scope)

    def unload(self) -> None:
        """It is not there any more: cancel what it does by itself. Idempotent."""
        self.gone = True
        for scope in self.scopes:
            scope.cancel()

    @property
    def shown(self) -> str:
        names = ", ".join(sorted(spec.name for spec in self.specs))
        return f"{self.name} ({names})" if names else self.name


@attrs.frozen(kw_only=True)
class Source:
    """Where a plugin may be had. ``stamp`` is of its present content. *Raises*, both: whatever is wrong."""

    name: str
    origin: str
    file: str  # in which a line is worth naming
    stamp: Callable[[], bytes]
    load: Callable[[], types.ModuleType]
    required: bool = False


class Plugins:
    """*builtin* are the commands that chat comes with. *folder* is that of the files, None for none; *files* are further ones,
    which must load.

    `registry` has all commands, `loaded` the plugins by name, `problems` why others are not loaded or not in their newest version,
    one line each by origin. ``on_loaded`` is called with each new plugin, ``on_unloaded`` with the names of the commands that are not there
    any more, or are in another version: what runs of them is to end. ``on_changed`` is called once when anything is different.
    """

    def __init__(
        self,
        builtin: Registry,
        *,
        modules: Sequence[str] = (),
        folder: Path | None = None,
        files: Sequence[Path] = (),
        entry_points: bool = False,
    ) -> None:
        self._builtin: Final = builtin
        self.modules = tuple(modules)
        self._folder: Final = folder
        self._files: Final = tuple(files)
        self._entry_points: Final = entry_points
        self.registry: Registry = builtin
        self.loaded: dict[str, Plugin] = {}
        self.problems: dict[str, str] = {}
        self.on_loaded: Callable[[Plugin], None] = lambda plugin: None
        self.on_unloaded: Callable[[frozenset[str]], None] = lambda names: None
        self.on_changed: Callable[[], None] = lambda: None

    def reload(self) -> list[str]:
        """`load`, and all that is wrong afterwards: a line each."""
        return [*self.load(), *(f"{origin}: {problem}" for origin, problem in self.problems.items())]

    def load(self, *, strict: bool = False) -> list[str]:
        """Look at all places and take over what is there now. *Returns* what changed, a line each; see `problems` too.

        *Raises* PluginBroken, where *strict*, for a module of the configuration that cannot be loaded; then nothing has changed.
        """
        problems: dict[str, str] = {}
        kept: dict[str, Plugin] = {}
        fresh: dict[str, tuple[Source, Plugin]] = {}
        for source in self._sources(problems, kept).values():
            before = self.loaded.get(source.name)
            try:
                stamp = source.stamp()
                if before is not None and (before.origin, before.stamp) == (source.origin, stamp):
                    kept[source.name] = before
                else:
                    fresh[source.name] = source, _load(source, stamp)
            except (Exception, SystemExit) as error:
                self._broken(source, error, problems, before, kept, strict)
        registry = self._assemble(kept, fresh, problems, strict)
        return self._exchange(registry, {**kept, **{name: plugin for name, (_, plugin) in fresh.items()}}, problems)

    def _broken(
        self,
        source: Source,
        error: BaseException,
        problems: dict[str, str],
        before: Plugin | None,
        kept: dict[str, Plugin],
        strict: bool,
    ) -> None:
        why = _why(source, error)
        if strict and source.required:
            raise PluginBroken(f"the plugin {source.name} cannot be loaded: {why}") from error
        if before is not None:
            kept[source.name] = before
            why += "; the version of before stays"
        problems[source.origin] = why

    def _assemble(
        self, kept: dict[str, Plugin], fresh: dict[str, tuple[Source, Plugin]], problems: dict[str, str], strict: bool
    ) -> Registry:
        """One registry of everything. Who comes to names that are taken is moved from *fresh* back to *kept*, or left out."""
        while True:
            registry = Registry(self._builtin, rights=self._builtin.rights)
            for plugin in kept.values():
                _add(registry, plugin)  # they were together before
            for name, (source, plugin) in list(fresh.items()):
                try:
                    _add(registry, plugin)
                except ValueError as error:
                    del fresh[name]
                    before = self.loaded.get(name)
                    self._broken(source, error, problems, before, kept, strict)
                    if before is not None:
                        break  # its old version comes before all that is new: once more
            else:
                return registry

    def _exchange(self, registry: Registry, loaded: dict[str, Plugin], problems: dict[str, str]) -> list[str]:
        before, told = self.loaded, self.problems
        changes = [f"{plugin.shown}: gone" for name, plugin in before.items() if name not in loaded]
        for name, plugin in loaded.items():
            if name not in before:
                changes.append(f"{plugin.shown}: loaded from {plugin.origin}")
            elif before[name] is not plugin:
                changes.append(f"{plugin.shown}: loaded anew from {plugin.origin}")
        self.registry, self.loaded, self.problems = registry, loaded, problems
        gone = [plugin for plugin in before.values() if loaded.get(plugin.name) is not plugin]
        for plugin in gone:
            plugin.unload()
        if names := frozenset(spec.name for plugin in gone for spec in plugin.specs):
            self.on_unloaded(names)
        for plugin in loaded.values():
            if before.get(plugin.name) is not plugin:
                self.on_loaded(plugin)
        if changes:
            self.on_changed()
        for change in changes:
            (log.info if before else log.debug)("plugin", change=change)  # at a start it is no news
        for origin, problem in problems.items():
            if told.get(origin) != problem:
                log.error("plugin_broken", origin=origin, reason=problem)
        return changes

    # ------------------------------------------------------------ the places

    def _sources(self, problems: dict[str, str], kept: dict[str, Plugin]) -> dict[str, Source]:
        """By name. What stays as it is, whatever there is now, is put into *kept*."""
        found = {source.name: source for source in map(_module, self.modules)}
        if self._entry_points:
            packages: dict[str, str] = {}
            for point in sorted(importlib.metadata.entry_points(group=ENTRY_POINTS), key=lambda point: (point.name, point.module)):
                if (other := packages.setdefault(point.name, point.module)) == point.module:
                    found[point.name] = _module(point.module, name=point.name, required=False)
                else:
                    problems[point.module] = f"another package has a plugin named {point.name}: {other}"
        found.update((path.stem, _file(path, required=True)) for path in self._files)
        folder = self._folder
        if folder is None or not folder.exists():
            return found
        try:
            _check_owner(folder, os.stat(folder))
            paths = [path for path in sorted(folder.glob("*.py")) if path.name[0] not in "._"]
        except (OSError, PluginBroken) as error:
            problems[f"{folder.name}/"] = f"{error}; nothing in it is executed"
            for name, plugin in self.loaded.items():  # taking it away would be a way to switch commands off
                if plugin.origin == f"{folder.name}/{name}.py":
                    kept[name] = plugin
                    found.pop(name, None)
            return found
        found.update((path.stem, _file(path)) for path in paths)
        return found


def _add(registry: Registry, plugin: Plugin) -> None:
    """All of its commands or none. *Raises* ValueError."""
    taken = Registry(plugin.specs, rights=registry.rights)  # two of one name in itself
    for spec in plugin.specs:
        registry.check(spec)
    for spec in taken:
        registry.add(spec)


# ---------------------------------------------------------------- loading one


def _load(source: Source, stamp: bytes) -> Plugin:
    module = source.load()
    plugin = Plugin(source.name, source.origin, stamp)
    values = list(vars(module).values())
    own = [v for v in values if isinstance(v, CommandSpec | BackgroundTask) and v.function.__module__ == module.__name__]
    plugin.specs = tuple(attrs.evolve(spec, plugin=plugin) for spec in own if isinstance(spec, CommandSpec))
    plugin.tasks = tuple(task for task in own if isinstance(task, BackgroundTask))
    if not own and not source.required:
        raise PluginBroken("it has no commands: decorate functions with @command of chat.plugin")
    return plugin


def _why(source: Source, error: BaseException) -> str:
    """What went wrong and where, on one line."""
    if isinstance(error, PluginBroken):
        return str(error)
    line = None
    if isinstance(error, SyntaxError) and error.filename == source.file:
        line = error.lineno
    else:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == source.file]
        line = lines[-1] if lines else None
    what = error.msg if isinstance(error, SyntaxError) else str(error)
    place = f"line {line}: " if line is not None else ""
    return " ".join(f"{place}{type(error).__name__}: {what}".split())


def _module(module: str, *, name: str | None = None, required: bool = True) -> Source:
    """One that Python finds by itself. What it was imported as before is forgotten when its file is another by now."""
    stamps: list[bytes] = []

    def stamp() -> bytes:
        importlib.invalidate_caches()
        found = sys.modules.get(module) or importlib.import_module(module)
        file = getattr(found, "__file__", None)
        stamps[:] = [sha256(Path(file).read_bytes() if file else b"").digest()]
        return stamps[0]

    def load() -> types.ModuleType:
        found = sys.modules[module]
        if _STAMPS.setdefault(module, stamps[0]) == stamps[0]:
            return found
        family = {key: value for key, value in sys.modules.items() if key == module or key.startswith(module + ".")}
        for key in family:
            del sys.modules[key]
        try:
            fresh = importlib.import_module(module)
        except BaseException:
            sys.modules.update(family)
            raise
        _STAMPS[module] = stamps[0]
        return fresh

    file = None
    with contextlib.suppress(Exception):  # whatever the packages above it do; `stamp` meets the same
        spec = importlib.util.find_spec(module)
        file = spec.origin if spec is not None else None
    return Source(
        name=name or module.removeprefix(EXAMPLES),
        origin=module,
        file=file or "",
        stamp=stamp,
        load=load,
        required=required,
    )


_STAMPS: Final[dict[str, bytes]] = {}  # what was imported, by module, as Python keeps modules: for the whole process


def _file(path: Path, *, required: bool = False) -> Source:
    text = b""

    def stamp() -> bytes:
        nonlocal text
        text = _read(path)
        return sha256(text).digest()

    def load() -> types.ModuleType:
        name = f"chat_plugin_{path.stem}"
        module = types.ModuleType(name)
        module.__file__ = str(path)
        code = compile(text, str(path), "exec", dont_inherit=True)
        before = sys.modules.get(name)
        sys.modules[name] = module  # dataclasses and others look there for where they are defined
        try:
            exec(code, vars(module))  # noqa: S102 (that is what a plugin is; see the module about whose files)
        except BaseException:
            if before is not None:
                sys.modules[name] = before
            else:
                del sys.modules[name]
            raise
        return module

    return Source(name=path.stem, origin=f"{path.parent.name}/{path.name}", file=str(path), stamp=stamp, load=load, required=required)


def _read(path: Path) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # a pipe is not waited for
        _check_owner(path, os.fstat(file.fileno()))
        return file.read()


def _check_owner(path: Path, found: os.stat_result) -> None:
    """*Raises* PluginBroken where somebody else could write what the server would execute."""
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise PluginBroken("it is no ordinary file")
    if found.st_uid not in (os.geteuid(), 0):
        raise PluginBroken(f"it belongs to another user than the server's: chown {_user_name()} {path}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PluginBroken(f"others than its owner may write to it: chmod go-w {path}")


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
