"""What a check found."""

from typing import Any, Literal

import attrs

State = Literal["fine", "advice", "wrong"]


@attrs.frozen
class Finding:
    """``name``: of what; ``todo``: what a person can do about it, where there is something. *advice*: it works, and could be better."""

    name: str
    state: State
    text: str
    todo: str = ""

    def as_json(self) -> dict[str, Any]:
        return attrs.asdict(self)


def fine(name: str, text: str) -> Finding:
    return Finding(name, "fine", text)


def advice(name: str, text: str, todo: str = "") -> Finding:
    return Finding(name, "advice", text, todo)


def wrong(name: str, text: str, todo: str = "") -> Finding:
    return Finding(name, "wrong", text, todo)


def size(n_bytes: float) -> str:
    """For a person: ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} {unit}" if unit in ("B", "KiB") else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} TiB"


def span(seconds: float) -> str:
    """For a person, in its largest unit."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        count = int(seconds // length)
        if count:
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return "a moment"
