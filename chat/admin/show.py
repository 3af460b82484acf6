"""What a person reads: tables, times, sizes, and how far long work is. Everything that others wrote is cleaned on its way to a terminal."""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, TextIO

from chat.client.clean import clean

BAR: Final = 24  # characters
EVERY_S: Final = 0.1
WIDEST: Final = 60  # characters of a cell

UNITS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
SIZES: Final = {"b": 1, "k": 1 << 10, "kb": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "g": 1 << 30, "gb": 1 << 30}


# ---------------------------------------------------------------- words for numbers


def when(ms: int | None) -> str:
    """In this machine's time zone."""
    return datetime.fromtimestamp(ms / 1000).strftime("%Y-%m-%d %H:%M") if ms is not None else ""


def some(count: int, what: str) -> str:
    """``1 record``, ``2 records``."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def size(count: int) -> str:
    """``512 B``, ``1.5 MiB``."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def span(ms: int | None) -> str:
    """``90 d``, ``12 h``; the largest unit that says it exactly."""
    if ms is None:
        return ""
    seconds = ms / 1000
    for unit in ("d", "h", "min"):
        if seconds >= UNITS[unit] and seconds % UNITS[unit] == 0:
            return f"{seconds / UNITS[unit]:g} {unit}"
    return f"{seconds:g} s"


def _number(text: str, units: dict[str, int], expected: str) -> float:
    digits = text.strip().lower()
    unit = digits.lstrip("0123456789. ")
    try:
        number = float(digits[: len(digits) - len(unit)]) * units[unit]
    except (ValueError, KeyError):
        raise ValueError(f"expected {expected}, got {text!r}") from None
    return number


def parse_span(text: str) -> int:
    """``90d``, ``12 h``, ``30min`` → milliseconds. *Raises* ValueError, saying what was expected."""
    return int(1000 * _number(text, UNITS, "a time such as 90d, 12h or 30min"))


def parse_size(text: str) -> int:
    """``500M``, ``2 GB`` → bytes. *Raises* ValueError, saying what was expected."""
    return int(_number(text, SIZES, "a size such as 500M or 2G"))


# ---------------------------------------------------------------- tables


def cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    text = clean(str(value))
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Columns below their headings; numbers stand to the right."""
    found = list(rows)
    shown = [[cell(value) for value in row] for row in found]
    right = [bool(found) and all(isinstance(row[n], int) and not isinstance(row[n], bool) for row in found) for n in range(len(headings))]
    widths = [max([len(heading), *(len(row[n]) for row in shown)]) for n, heading in enumerate(headings)]

    def line(cells: Sequence[str]) -> str:
        padded = (text.rjust(width) if to_right else text.ljust(width) for text, width, to_right in zip(cells, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    return [line([heading.upper() for heading in headings]), *map(line, shown)]


# ---------------------------------------------------------------- how far it is


class Progress:
    """A line on standard error that is written over, where that is a terminal; elsewhere nothing. Call `done` at the end."""

    def __init__(self, label: str, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._label = label
        self._stream = stream if stream is not None else sys.stderr
        self._shown = self._stream.isatty()
        self._clock = clock
        self._at_s = float("-inf")
        self._width = 0

    def __call__(self, done: int, total: int, what: str = "") -> None:
        now_s = self._clock()
        if not self._shown or now_s - self._at_s < EVERY_S:
            return
        self._at_s = now_s
        if total > 0:
            part = min(1.0, done / total)
            filled = round(part * BAR)
            line = f"{self._label} [{'#' * filled}{'.' * (BAR - filled)}] {part:4.0%}"
        else:
            line = f"{self._label} {done:,} {what}".rstrip()
        self._stream.write("\r" + line.ljust(self._width))
        self._stream.flush()
        self._width = len(line)

    def done(self) -> None:
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
            self._width = 0
