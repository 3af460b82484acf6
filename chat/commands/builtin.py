"""The commands that chat comes with."""

from chat.commands import channels, meta, moderation, people
from chat.commands.context import Hasher, Surroundings
from chat.commands.dispatch import RIGHTS, Dispatcher
from chat.commands.registry import Registry


def registry() -> Registry:
    commands = Registry(rights=RIGHTS)
    for family in (meta, channels, people, moderation):
        commands.add_module(family)
    return commands


def dispatcher(passwords: Hasher, *, prefix: str, default_channels: tuple[str, ...]) -> Dispatcher:
    return Dispatcher(Surroundings(registry=registry(), passwords=passwords, prefix=prefix, default_channels=default_channels))
