"""What plugins keep: JSON texts by plugin and key, all of it in memory, so that a plugin reads without waiting.

That is what the bounds are for. Who keeps more than this wants a database of its own.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from chat.errors import ChatError

KEY_CHARACTERS: Final = 128
VALUE_BYTES: Final = 64 * 1024  # of one value, as JSON
PLUGIN_BYTES: Final = 4 * 2**20  # of all keys and values of one plugin
PLUGIN_KEYS: Final = 10_000

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class PluginValues:
    """Changes by `put` alone, with what is stored."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, str]] = {}
        self._bytes: dict[str, int] = {}

    def of(self, plugin: str) -> Mapping[str, str]:
        """Key → JSON."""
        values = self._values.get(plugin)
        return MappingProxyType(values) if values is not None else _NOTHING

    def all(self) -> dict[str, dict[str, str]]:
        return {plugin: dict(values) for plugin, values in self._values.items()}

    def put(self, plugin: str, key: str, value: str | None) -> None:
        """Keep a value; None: forget the key."""
        values = self._values.setdefault(plugin, {})
        before = values.get(key)
        self._bytes[plugin] = self._bytes.get(plugin, 0) + _bytes_of(key, value) - _bytes_of(key, before)
        if value is not None:
            values[key] = value
        else:
            values.pop(key, None)
            if not values:
                del self._values[plugin], self._bytes[plugin]

    def check(self, plugin: str, key: str, value: str) -> None:
        """*Raises* ChatError bad_request for the key, quota_exceeded for what is too large or too much."""
        if not 1 <= len(key) <= KEY_CHARACTERS or not key.isprintable():
            raise ChatError("bad_request", f"a key of the store has 1 to {KEY_CHARACTERS} printable characters")
        if len(value.encode()) > VALUE_BYTES:
            raise ChatError("quota_exceeded", f"{key}: a value of the store has at most {VALUE_BYTES >> 10} KiB as JSON")
        values = self._values.get(plugin, {})
        if key not in values and len(values) >= PLUGIN_KEYS:
            raise ChatError("quota_exceeded", f"{plugin} keeps {PLUGIN_KEYS} values already, and may not keep more")
        if self._bytes.get(plugin, 0) + _bytes_of(key, value) - _bytes_of(key, values.get(key)) > PLUGIN_BYTES:
            raise ChatError("quota_exceeded", f"{plugin} keeps {PLUGIN_BYTES >> 20} MiB already, and may not keep more")


def _bytes_of(key: str, value: str | None) -> int:
    return 0 if value is None else len(key.encode()) + len(value.encode())
