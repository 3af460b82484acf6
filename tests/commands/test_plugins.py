"""Modules of commands that the configuration names."""

import sys

import pytest

from chat.commands.builtin import PluginBroken, registry

DICE = '''
from chat.commands.context import Context
from chat.commands.registry import command


@command
def roll(ctx: Context, sides: int = 6) -> str:
    """Roll a die."""
    return "4"
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module that can be imported, and is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)

    yield write
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_its_commands_are_there_beside_the_others(module):
    module("dice_of_a_test", DICE)
    commands = registry(["dice_of_a_test"])
    assert commands.get("roll").usage == "roll (sides)"
    assert commands.get("help") is not None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1/0", "ZeroDivisionError"),
        (DICE.replace("def roll", "def topic"), "two commands are named topic"),
        (DICE.replace('"""Roll a die."""', ""), "docstring"),
        ("def", "SyntaxError"),
    ],
)
def test_one_that_cannot_be_loaded_is_named_with_the_reason(module, text, why):
    module("broken_of_a_test", text)
    with pytest.raises(PluginBroken, match=f"the plugin broken_of_a_test cannot be loaded: .*{why}"):
        registry(["broken_of_a_test"])


def test_one_that_is_not_there_is_named():
    with pytest.raises(PluginBroken, match="nowhere_of_a_test"):
        registry(["nowhere_of_a_test"])
