"""The readable log of what is said in channels: one file for each, off by default (``[log] messages``).

Theory of operation
-------------------
`MessageLog.record` is a hook of the router: a plain call for each record of a channel, in its committed order. It puts the
record into a queue and returns; it never waits and never raises. One thread takes everything that waits, makes lines of it, and writes
those of a channel in one go. What cannot be kept is not kept: when more than `MAX_WAITING_CHARS` wait because the disk is slow, or a write
fails, records are left out, and the next line of the log says how many. The history in the database is the truth; this is for people
who read with less and grep.

A line is ``TIME #SEQ <name> text``; further lines of a text are indented, and everything that could forge a line or move a cursor is
escaped. Private conversations never come here.
"""

import hashlib
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from chat import log
from chat.rooms.effects import Placed

MAX_WAITING_CHARS: Final = 16 * 2**20
RECORD_CHARS: Final = 200  # what a record is counted for beside its text
MAX_OPEN_FILES: Final = 64
MAX_NAME: Final = 120  # of a file; systems allow 255 bytes, and ".log.5" comes behind it

logger = log.get_logger("messagelog")


class MessageLog:
    """*Owns* its thread and its files. *name_of* turns an account's id into its name; it is called from the thread, a look-up."""

    def __init__(self, folder: Path, name_of: Callable[[int], str], *, rotate_bytes: int, rotate_keep: int) -> None:
        self._folder = folder
        self._name_of = name_of
        self._rotate_bytes = rotate_bytes
        self._rotate_keep = rotate_keep
        self._queue: queue.SimpleQueue[tuple[str, Placed] | None] = queue.SimpleQueue()  # bounded by MAX_WAITING_CHARS, in `record`
        # Each of these is written by one side only, so that neither needs a lock.
        self._put_chars = 0
        self._lost = 0
        self._done_chars = 0
        self._told_lost = 0
        self._files: OrderedDict[str, log.RotatedFile] = OrderedDict()  # the one used last at the end
        self._thread = threading.Thread(target=self._run, name="messagelog", daemon=True)  # daemon: a hanging disk must not hold the end
        self._thread.start()

    def record(self, conv: str, item: Placed) -> None:
        """Log a record of the channel *conv* (``#name``). Never waits."""
        if not conv.startswith("#"):
            return
        chars = _chars(item)
        if self._put_chars - self._done_chars + chars > MAX_WAITING_CHARS:
            self._lost += 1
            return
        self._put_chars += chars
        self._queue.put((conv, item))

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits and end. *Waits* for the disk, at most *timeout_s*: call it in a thread."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        going = True
        while going:
            batch = [self._queue.get()]
            while len(batch) < 1000 and not self._queue.empty():
                batch.append(self._queue.get())
            texts: dict[str, list[str]] = {}
            chars = 0
            for entry in batch:
                if entry is None:
                    going = False
                    continue
                conv, item = entry
                chars += _chars(item)
                try:
                    texts.setdefault(conv, []).append(line(item, self._name_of))
                except Exception as exc:  # one odd record must not end the log
                    logger.error("record_not_logged", exc_info=exc)
            for conv, lines in texts.items():
                self._write(conv, "".join(lines))
            self._done_chars += chars
        for file in self._files.values():
            file.close()

    def _write(self, conv: str, text: str) -> None:
        lost = self._lost
        if lost > self._told_lost:
            text = f"{_time(None)} * {lost - self._told_lost} records of this server were not logged\n{text}"
        try:
            self._file(conv).write(text.encode())
        except OSError as exc:
            logger.warning("message_log_failed", file=file_name(conv), exception=log.describe(exc))
            self._files.pop(conv).close()
        else:
            self._told_lost = lost

    def _file(self, conv: str) -> log.RotatedFile:
        file = self._files.get(conv)
        if file is None:
            if len(self._files) >= MAX_OPEN_FILES:
                self._files.popitem(last=False)[1].close()
            path = self._folder / file_name(conv)
            file = self._files[conv] = log.RotatedFile(path, max_bytes=self._rotate_bytes, keep=self._rotate_keep)
        self._files.move_to_end(conv)
        return file


def _chars(item: Placed) -> int:
    body = item.append.body
    return RECORD_CHARS + (len(body) if isinstance(body, str) else sum(len(str(value)) for value in body.values()))


def file_name(conv: str) -> str:
    """The log file of a channel: its name, with everything but letters, digits and ``_.-~`` written as ``%XX``; a long one is cut."""
    name = quote(conv.removeprefix("#"), safe="")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > MAX_NAME:
        name = f"{name[: MAX_NAME - 17]}-{hashlib.sha256(conv.encode()).hexdigest()[:16]}"
    return name + ".log"


def _time(ts_ms: int | None) -> str:
    moment = datetime.now(UTC) if ts_ms is None else datetime.fromtimestamp(ts_ms / 1000, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")


def line(item: Placed, name_of: Callable[[int], str]) -> str:
    """The line (or indented lines) of a record, with its newline."""
    append = item.append
    body = append.body
    if isinstance(body, str):
        reply = f" (to #{append.reply_to})" if append.reply_to else ""
        text = f"<{name_of(append.author)}>{reply} {body}"
    else:
        people = {key: name_of(int(str(body[key]))) for key in ("user", "by") if body.get(key) is not None}
        text = f"* {_event(append.kind, people, body)}"
    safe = log.printable(text, keep="\n\t").replace("\n", "\n    ")
    return f"{_time(item.ts)} #{item.seq} {safe}\n"


def _event(kind: str, people: dict[str, str], body: dict[str, object]) -> str:
    user, by = people.get("user", "?"), people.get("by", "the server")
    reason = f": {body['reason']}" if body.get("reason") else ""
    match kind:
        case "joined":
            return f"{user} joined"
        case "left":
            return f"{user} left" if "by" not in body else f"{user} was removed by {by}{reason}"
        case "topic":
            return f"{user} set the topic: {body.get('text', '')}"
        case "role":
            return f"{user} is now {body.get('role')}, by {by}"
        case "banned":
            return f"{user} was banned by {by}{reason}"
        case "edited" | "deleted":
            return f"#{body.get('target')} was {kind} by {by}" + (f": {body['text']}" if body.get("text") else "")
        case _:
            return kind
