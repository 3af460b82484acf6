"""What a reload takes on: the table, the difference, and what holds afterwards."""

import attrs
import pytest

from chat.config import Config, Limits, Listen, Log, Storage
from chat.config.live import EFFECTS, NEXT, NOW, RESTART, changes, merged
from chat.config.load import KEYS


def test_every_key_is_live_or_needs_a_restart():
    assert EFFECTS.keys() == KEYS.keys()
    assert set(EFFECTS.values()) == {NOW, NEXT, RESTART}


def other(path):
    """A configuration that differs from the default in one key."""
    section, _, name = path.rpartition(".")
    holder = getattr(Config(), section or "name") if section else Config()
    if section == "listen":
        (holder,) = holder
    old = getattr(holder, name)
    new = {bool: lambda: not old, int: lambda: old + 1, float: lambda: old + 1, tuple: lambda: (*old, "other")}.get(
        type(old), lambda: f"{old}-other"
    )()
    if not section:
        return Config(**{name: new}), old, new
    changed = attrs.evolve(holder, **{name: new})
    return Config(**{section: (changed,) if section == "listen" else changed}), old, new


@pytest.mark.parametrize("path", KEYS)
def test_one_key_that_differs_is_told_and_holds_or_waits(path):
    before = Config()
    after, old, new = other(path)
    (change,) = changes(before, after)
    assert (change.key, change.effect) == (path, EFFECTS[path])
    assert (change.before, change.after) == (([old], [new]) if path.startswith("listen.") else (old, new))
    assert merged(before, after) == (before if change.effect == RESTART else after)


def test_what_waits_for_a_restart_is_told_again_and_the_rest_is_not():
    before = Config()
    after = Config(name="new", storage=Storage(url="sqlite:other.db"), limits=Limits(sends_burst=11))
    assert [change.key for change in changes(before, after)] == ["name", "storage.url", "limits.sends_burst"]
    assert [change.key for change in changes(merged(before, after), after)] == ["storage.url"]


def test_another_list_of_listeners_needs_a_restart_as_a_whole():
    before = Config()
    after = Config(listen=(Listen(), Listen(address="127.0.0.1:1", origins=("https://x",))))
    (change,) = changes(before, after)  # and none of the empty lists that the new one brings
    assert (change.key, change.effect) == ("listen.address", RESTART)
    assert merged(before, after) == before


def test_a_change_is_a_line_that_a_person_reads():
    before, after = Config(), Config(registration="open", limits=Limits(exempt_loopback=False), log=Log(level="debug"))
    assert [str(change) for change in changes(before, after)] == [
        'registration: "invite" → "open", at once',
        "limits.exempt_loopback: true → false, at once",
        'log.level: "info" → "debug", at once',
    ]
