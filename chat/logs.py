"""``chat logs``: the daemon's log file, readable, and followed through its rotations.

A line is one JSON object (`chat.log`). What is no such line (a file that was cut, another program's) is shown as it is, with everything
escaped that could move a cursor. Rotation is seen by the file's identity: the old one is read to its end, then the new one from its
beginning. Following looks four times a second: it needs no right but to read, and works on every file system.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from chat import log

LOOK_S: Final = 0.25
CHUNK_BYTES: Final = 1 << 16


def shown(line: bytes) -> str:
    """A line of the file for a person."""
    try:
        event = json.loads(line)
        if isinstance(event, dict) and "event" in event:
            day = str(event.get("time", ""))[:10]
            return f"{log.printable(day)} {log.for_person(event)}"
    except ValueError:
        pass
    return log.printable(line.decode("utf-8", "replace").rstrip("\n"))


def raw(line: bytes) -> str:
    """As it is in the file, for programs."""
    return line.decode("utf-8", "replace").rstrip("\n")


def end(file: Path) -> int:
    """Where the file ends now, in bytes: what `last` is to read to and `follow` to go on from."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def last(file: Path, count: int, until: int) -> list[bytes]:
    """The last *count* lines of *file* before the byte *until* and, where it has fewer, of the files that it was before.

    *Raises* OSError.
    """
    found: list[bytes] = []
    older, number = file, 0
    while len(found) < count:
        try:
            content = older.read_bytes()
        except FileNotFoundError:
            if not number:
                raise
            break
        lines = (content if number else content[:until]).splitlines()
        found = [*lines[max(0, len(lines) - (count - len(found))) :], *found]
        number += 1
        older = file.with_name(f"{file.name}.{number}")
    return found


def follow(file: Path, start: int, *, wait: Callable[[], None] = lambda: time.sleep(LOOK_S)) -> Iterator[bytes]:
    """The lines from the byte *start* on, for ever; *wait* is called when there are none. A file that is not there yet is waited for."""
    opened: BinaryIO | None = None
    rest = b""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):
            opened = stack.enter_context(file.open("rb"))
            opened.seek(start)
        while True:
            while opened is not None and (chunk := opened.read(CHUNK_BYTES)):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from lines
            if opened is None or _is_another(file, opened):
                try:
                    fresh = file.open("rb")
                except FileNotFoundError:
                    wait()  # it was moved away, and nothing was logged since
                    continue
                if opened is not None:
                    yield from _end_of(opened, rest)  # what was written between the last look and the rotation
                    opened.close()
                opened, rest = stack.enter_context(fresh), b""
                continue
            wait()


def _end_of(opened: BinaryIO, rest: bytes) -> Iterator[bytes]:
    yield from filter(None, (rest + opened.read()).split(b"\n"))


def _is_another(file: Path, opened: BinaryIO) -> bool:
    """Is there a file of this name that is not the opened one, or was it cut?"""
    try:
        there = file.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(opened.fileno())
    if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
        return True
    if here.st_size < opened.tell():
        opened.seek(0)
    return False
