"""The commands that chat comes with, and those of plugins."""

from collections.abc import Iterable
from pathlib import Path

from chat.commands import channels, conversations, meta, moderation, oversight, people, rules, safety, sanctions
from chat.commands.context import Hasher, NoRecords, Records, Surroundings
from chat.commands.dispatch import RIGHTS, Dispatcher
from chat.commands.plugins import PluginBroken, Plugins
from chat.commands.registry import Registry

__all__ = ["PluginBroken", "dispatcher", "registry"]


def registry() -> Registry:
    """Without those of plugins."""
    commands = Registry(rights=RIGHTS)
    for family in (meta, channels, people, moderation, sanctions, oversight, rules, safety, conversations):
        commands.add_module(family)
    return commands


def dispatcher(
    passwords: Hasher,
    *,
    prefix: str,
    default_channels: tuple[str, ...],
    plugins: Iterable[str] = (),
    folder: Path | None = None,
    entry_points: bool = False,
    records: Records | None = None,
) -> Dispatcher:
    """*plugins* are names of modules, *folder* that of the files of plugins. *Raises* PluginBroken for a module."""
    found = Plugins(registry(), modules=tuple(plugins), folder=folder, entry_points=entry_points)
    found.load(strict=True)
    around = Surroundings(
        plugins=found, passwords=passwords, prefix=prefix, default_channels=default_channels, records=records or NoRecords()
    )
    return Dispatcher(around)
