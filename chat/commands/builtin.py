"""The commands that chat comes with, and those of the modules that the configuration names."""

import importlib
from collections.abc import Iterable

from chat.commands import channels, meta, moderation, people
from chat.commands.context import Hasher, Surroundings
from chat.commands.dispatch import RIGHTS, Dispatcher
from chat.commands.registry import Registry


class PluginBroken(Exception):
    """A module of commands cannot be loaded; the text says which and why."""


def registry(plugins: Iterable[str] = ()) -> Registry:
    """*plugins* are names of modules. *Raises* PluginBroken."""
    commands = Registry(rights=RIGHTS)
    for family in (meta, channels, people, moderation):
        commands.add_module(family)
    for name in plugins:
        try:
            commands.add_module(importlib.import_module(name))
        except Exception as error:  # whatever a module does when it is imported
            raise PluginBroken(f"the plugin {name} cannot be loaded: {type(error).__name__}: {error}") from error
    return commands


def dispatcher(passwords: Hasher, *, prefix: str, default_channels: tuple[str, ...], plugins: Iterable[str] = ()) -> Dispatcher:
    around = Surroundings(registry=registry(plugins), passwords=passwords, prefix=prefix, default_channels=default_channels)
    return Dispatcher(around)
