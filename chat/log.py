"""Structured logs: one JSON object a line, to standard error or a file; short readable lines where somebody watches a terminal.

Theory of operation
-------------------
``get_logger(name).info("login_failed", address=...)``: the event is a constant word, everything that varies is a field. What a task has
bound (`bind`: connection, account) is in every line that it logs. Three things never get into a line:

- what people wrote and what must stay secret: the fields in `SECRET` are replaced, wherever they stand, and of an object that is not
  plain data only its class is named;
- the message of an exception that may quote what somebody sent: of those not in `OUTSPOKEN` only the class and the places are told;
- control characters: they are escaped, in the readable form, too.

At most `LINES_PER_S` lines a second are written for one key (the part and the event); what was left out is counted, and told in one
line ``suppressed`` as soon as the key is written again, or at `flush`.

A log that cannot be written (disk full, a closed pipe) is no reason to stop: the line is dropped.
"""

import contextlib
import json
import logging
import os
import re
import secrets
import sqlite3
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars, clear_contextvars, merge_contextvars
from structlog.types import EventDict, FilteringBoundLogger

if TYPE_CHECKING:
    from chat.config.sections import Log

LINES_PER_S: Final = 10
KEYS_KEPT: Final = 1000  # of the throttle; events are constant words, so this many mean a mistake, and memory stays bounded
SECRET: Final = frozenset(
    """text password token resume_token token_hash password_hash invite secret old new body topic motd frame payload data answer
    question private_key""".split()  # noqa: SIM905
)
OUTSPOKEN: Final = (OSError, sqlite3.Error, AttributeError, NameError, TypeError, AssertionError, ImportError, MemoryError, RecursionError)
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
MAX_FIELD: Final = 500  # characters

# C0, DEL, C1, what turns the direction of writing, what ends a line elsewhere, lone surrogates.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

bind = bind_contextvars
bound = bound_contextvars
unbind_all = clear_contextvars


def printable(text: str, *, keep: str = "") -> str:
    """*text* with everything escaped that could move a cursor, turn a line around or forge one; characters in *keep* stay."""
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else found[0].encode("unicode_escape").decode(), text)


def new_error_id() -> str:
    """What a person can quote and an administrator can find in the log."""
    return secrets.token_hex(5)


def get_logger(name: str) -> FilteringBoundLogger:
    """The logger of a part of the house. Before `configure` warnings go to standard error."""
    logger: FilteringBoundLogger = structlog.get_logger(part=name)
    return logger


# ---------------------------------------------------------------- where lines go


class RotatedFile:
    """Appends to a file (mode 0600). One that would grow beyond *max_bytes* becomes ``NAME.1``, that ``NAME.2``, up to *keep*.

    *Raises* OSError from `write`. Not thread-safe. *Owns* its descriptor; opened at the first write.
    """

    def __init__(self, path: Path, *, max_bytes: int, keep: int) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._fd = -1
        self._size = 0

    def write(self, data: bytes) -> None:
        if self._fd < 0:
            self._open()
        if self._size and self._size + len(data) > self._max_bytes:
            self._rotate()
        rest = memoryview(data)
        while rest:
            written = os.write(self._fd, rest)
            self._size += written
            rest = rest[written:]

    def close(self) -> None:
        """Close it; the next write opens it again, or a new one where somebody moved it away."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _open(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        self.close()
        for number in range(self._keep, 0, -1):
            older = self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))
        if not self._keep:
            self.path.unlink(missing_ok=True)
        self._open()

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path


last_errors: "deque[EventDict]" = deque(maxlen=10)  # as they were logged, the newest at the end


class Throttle:
    """At most `LINES_PER_S` a second for a key, in a window that begins with the key's first line."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._windows: dict[str, list[float]] = {}  # key → [start, lines in it, suppressed since]

    def admit(self, key: str) -> tuple[bool, int]:
        """Whether to write the line now, and how many were suppressed before it."""
        now = self._clock()
        window = self._windows.get(key)
        if window is None:
            if len(self._windows) >= KEYS_KEPT:
                self._windows.clear()
            window = self._windows[key] = [now, 0, 0]
        if now - window[0] >= 1:
            window[0], window[1] = now, 0
        if window[1] >= LINES_PER_S:
            window[2] += 1
            return False, 0
        window[1] += 1
        suppressed, window[2] = int(window[2]), 0
        return True, suppressed

    def take_suppressed(self) -> Iterator[tuple[str, int]]:
        """(key, how many), and forget them: for the end."""
        for key, window in self._windows.items():
            if window[2]:
                count, window[2] = int(window[2]), 0
                yield key, count


class Output:
    """The last processor: throttles, renders, writes. Called from any thread."""

    def __init__(self, write: Callable[[str], None], *, readable: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._render = for_person if readable else _json
        self._throttle = Throttle(clock)
        self._lock = threading.Lock()

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> str:
        key = f"{event.get('part', '')}.{event['event']}"
        if event.get("level") == "error":
            last_errors.append(event)
        with self._lock:
            fine, suppressed = self._throttle.admit(key)
            if suppressed:
                self._put(_suppressed(key, suppressed))
            if fine:
                self._put(event)
        raise structlog.DropEvent

    def flush(self) -> None:
        with self._lock:
            for key, count in self._throttle.take_suppressed():
                self._put(_suppressed(key, count))

    def _put(self, event: EventDict) -> None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
            self._write(self._render(event) + "\n")


def _suppressed(key: str, count: int) -> EventDict:
    return {"time": _now(), "level": "warning", "event": "suppressed", "key": key, "count": count}


def _json(event: EventDict) -> str:
    return json.dumps(event, separators=(",", ":"))  # printable ASCII: json escapes all else


def for_person(event: EventDict) -> str:
    """One line for a person, with nothing in it that moves a cursor. *event*: as it is logged."""
    fields = dict(event)
    clock = str(fields.pop("time", ""))[11:19]
    level, part, name = fields.pop("level", ""), fields.pop("part", ""), fields.pop("event", "")
    rest = " ".join(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in fields.items())
    return printable(f"{clock} {level:<7} {part}: {name} {rest}".rstrip())


# ---------------------------------------------------------------- what is in a line


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _stamp(_logger: Any, method: str, event: EventDict) -> EventDict:
    level = "error" if method in ("exception", "critical", "fatal") else "warning" if method == "warn" else method
    return {"time": _now(), "level": level, "event": event.pop("event", ""), **event}


def _exception(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """``exc_info`` (true, or the exception) becomes ``exception`` and ``where``."""
    exc = event.pop("exc_info", None)
    if exc and not isinstance(exc, BaseException):
        exc = sys.exc_info()[1]
    if exc:
        event["exception"], event["where"] = describe(exc), places(exc)
    return event


def _redact(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {key: "[redacted]" if key in SECRET else _plain(value) for key, value in event.items()}


def _plain(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value if len(value) <= MAX_FIELD else value[:MAX_FIELD] + "..."
    if depth < 4 and isinstance(value, dict):
        return {str(key): "[redacted]" if key in SECRET else _plain(inner, depth + 1) for key, inner in value.items()}
    if depth < 4 and isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner, depth + 1) for inner in list(value)[:50]]
    if isinstance(value, Path):
        return str(value)
    return describe(value) if isinstance(value, BaseException) else f"<{type(value).__name__}>"


def describe(exc: BaseException) -> str:
    """The class of *exc*, and what it says where that cannot quote what somebody sent. Of a group: of all that are in it."""
    if isinstance(exc, BaseExceptionGroup):
        return ", ".join(describe(inner) for inner in exc.exceptions)
    text = str(exc) if isinstance(exc, OUTSPOKEN) else ""
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def places(exc: BaseException) -> list[str]:
    """Where *exc* came from, the innermost place first: ``file:line function``."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    frames = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(traceback.extract_tb(exc.__traceback__))]
    cause = exc.__cause__
    return frames[:20] + ([f"from {describe(cause)}", *places(cause)[:5]] if cause is not None else [])


# ---------------------------------------------------------------- setting up


class _Library(logging.Handler):
    """What libraries log through the standard module goes the same way, without its arguments' objects."""

    def emit(self, record: logging.LogRecord) -> None:
        level = max((name for name in LEVELS if LEVELS[name] <= max(record.levelno, 10)), key=LEVELS.__getitem__)
        exc = record.exc_info[1] if record.exc_info else None
        getattr(get_logger(record.name), level)("library", format=str(record.msg), exc_info=exc)


_output: Output | None = None
_level = "warning"
_file: RotatedFile | None = None


def configure(settings: "Log", *, file: Path | None = None, stream: TextIO | None = None) -> None:
    """Where to log from now on: to the configured file, else to *file*, else to *stream* (standard error if it is None).

    *Raises* OSError when the file cannot be written.
    """
    global _file
    path = settings.file or file
    close()
    if path is not None:
        rotated = _file = RotatedFile(path, max_bytes=settings.rotate_bytes, keep=settings.rotate_keep)
        rotated.write(b"")
        output = Output(lambda line: rotated.write(line.encode()), readable=False)
    else:
        output = _to_stream(stream)
    _use(output, settings.level)
    _take_libraries()


def _to_stream(stream: TextIO | None) -> Output:
    def write(line: str) -> None:
        target = stream or sys.stderr  # looked up each time: standard error may be another by now
        target.write(line)
        target.flush()

    return Output(write, readable=(stream or sys.stderr).isatty())


def level() -> str:
    """The least that is logged."""
    return _level


def set_level(level: str) -> None:
    """Log from *level* on: one of `LEVELS`. Where to, stays."""
    assert _output is not None
    _use(_output, level)


def _use(output: Output, level: str) -> None:
    global _output, _level
    _output, _level = output, level
    structlog.configure(
        processors=[merge_contextvars, _exception, _redact, _stamp, output],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,  # or a second `configure` would not reach loggers made at import
    )


def _take_libraries() -> None:
    library = logging.getLogger()
    library.handlers[:] = [handler for handler in library.handlers if not isinstance(handler, _Library)] + [_Library(logging.WARNING)]


def flush() -> None:
    """Tell what was suppressed and not told yet."""
    if _output is not None:
        _output.flush()


def close() -> None:
    """The end, or before another `configure`."""
    flush()
    reopen()


def reopen() -> None:
    """After the file was moved away: the next line begins a new one."""
    if _file is not None:
        _file.close()


_use(_to_stream(None), "warning")
