"""What plugins keep, and how much."""

import pytest

from chat.errors import ChatError
from chat.rooms import effects as fx
from chat.rooms.commands import plugin_values
from chat.rooms.commands.plugin_values import PluginValues
from chat.rooms.state import State
from tests.rooms.house import code_of, dump, open_house


def test_values_by_plugin_and_key():
    values = PluginValues()
    values.put("a", "x", "1")
    values.put("b", "x", "2")
    values.put("a", "x", "3")
    assert (dict(values.of("a")), dict(values.of("b")), dict(values.of("c"))) == ({"x": "3"}, {"x": "2"}, {})
    values.put("a", "x", None)
    values.put("a", "x", None)
    assert values.all() == {"b": {"x": "2"}}


def test_bounds(monkeypatch):
    monkeypatch.setattr(plugin_values, "PLUGIN_BYTES", 100)
    monkeypatch.setattr(plugin_values, "PLUGIN_KEYS", 3)
    monkeypatch.setattr(plugin_values, "VALUE_BYTES", 60)
    values = PluginValues()
    assert code_of(values.check, "a", "", "1") == "bad_request"
    assert code_of(values.check, "a", "k" * 129, "1") == "bad_request"
    assert code_of(values.check, "a", "k\n", "1") == "bad_request"
    assert code_of(values.check, "a", "k", "é" * 31) == "quota_exceeded"
    assert code_of(values.check, "a", "k", "é" * 30) is None
    values.put("a", "k", "1" * 60)
    assert code_of(values.check, "a", "l", "1" * 39) == "quota_exceeded"
    assert code_of(values.check, "a", "l", "1" * 38) is None
    assert code_of(values.check, "a", "k", "2" * 60) is None, "in the place of the old one"
    values.put("a", "k", None)
    assert code_of(values.check, "a", "l", "1" * 39) is None
    for key in "xyz":
        values.put("a", key, "1")
    assert code_of(values.check, "a", "w", "1") == "quota_exceeded"
    assert code_of(values.check, "a", "x", "2") is None
    with pytest.raises(ChatError, match="a keeps 3 values already"):
        values.check("a", "w", "1")


def test_they_are_stored():
    with open_house() as house:
        house.do([fx.PutPluginValue(plugin="a", key=key, value=f'"{key}"') for key in "cab"])
        house.do([fx.PutPluginValue(plugin="a", key="c", value="2"), fx.PutPluginValue(plugin="a", key="b", value=None)])
        assert house.state.plugin_values.all() == {"a": {"c": "2", "a": '"a"'}}
        assert dump(State.load(house.writer.load())) == dump(house.state)
