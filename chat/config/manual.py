"""Explain the configuration: ``config.toml`` is `manual`, ``chat config show`` is `shown`. Both come from `chat.config.sections` alone."""

import inspect
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from chat.config.load import KEYS, SECTIONS, Loaded, bounds
from chat.config.sections import Config

HEAD: Final = """\
The configuration of chat, with the default of every key: it runs as it is, and no key is needed.
Read from: --config FILE, else CHAT_CONFIG, else ~/.config/chat/config.toml if it exists.
Over the file go environment variables, CHAT_ and the key in capitals, its section set off by two underscores
(CHAT_NAME, CHAT_LIMITS__SENDS_BURST), and over them flags (chat serve --set limits.sends_burst=20).
`chat config check` finds the mistakes in a file, `chat config show` tells each value and where it comes from.
Relative paths are relative to this file."""


def toml(value: Any) -> str:
    """*value* as TOML writes it. JSON's strings are TOML's, but that TOML wants DEL escaped and knows no surrogates."""
    if value is None:
        return '""'
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple | list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def explanation(path: str) -> str:
    """The key's explanation with what it may be, in one line."""
    field = KEYS[path]
    text = field.metadata["explanation"]
    return f"{text.removesuffix('.')} ({bounds(field)})." if field.type in (int, float) else str(text)


def default(path: str) -> Any:
    """As it stands in ``config.toml``: a default that is found out is empty there."""
    value = KEYS[path].default
    return None if isinstance(value, attrs.Factory) else value  # type: ignore[arg-type]


def _comment(text: str) -> list[str]:
    return [f"# {line}" for paragraph in text.split("\n") for line in textwrap.wrap(paragraph, 116, break_long_words=False)]


def manual() -> str:
    """The text of ``config.toml``."""
    lines = _comment(HEAD)
    section = ""
    for path in KEYS:
        before, _, name = path.rpartition(".")
        if before != section:
            section = before
            lines += ["", "", *_comment(inspect.getdoc(SECTIONS[section]) or "")]
            lines += [f"[[{section}]]" if section == "listen" else f"[{section}]"]
        lines += ["", *_comment(explanation(path)), f"{name} = {toml(default(path))}"]
    return "\n".join(lines) + "\n"


def values(config: Config) -> Iterator[tuple[str, str, Any]]:
    """(key path as shown, key path, value); every listener has its own."""
    for path in KEYS:
        section, dot, name = path.partition(".")
        if section == "listen":
            for number, listener in enumerate(config.listen):
                yield f"listen[{number}].{name}", path, getattr(listener, name)
        else:
            yield path, path, getattr(getattr(config, section), name) if dot else getattr(config, path)


def shown(loaded: Loaded, *, as_json: bool) -> str:
    """Each key with its value, where it comes from, and its explanation."""
    if as_json:
        plain = [
            {
                "key": label,
                "value": str(value) if isinstance(value, Path) else "" if value is None else value,
                "source": loaded.sources.get(path, "default"),
                "explanation": explanation(path),
            }
            for label, path, value in values(loaded.config)
        ]
        return json.dumps({"file": str(loaded.file) if loaded.file else None, "keys": plain}, indent=1, ensure_ascii=False)
    lines = [f"# file: {loaded.file or 'none'}"]
    for label, path, value in values(loaded.config):
        lines += ["", *_comment(explanation(path)), f"{label} = {toml(value)}    # {loaded.sources.get(path, 'default')}"]
    return "\n".join(lines)
