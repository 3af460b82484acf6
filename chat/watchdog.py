"""Who holds up the loop, and who may be eating the memory: noticed from a thread beside it.

Theory of operation
-------------------
Everything here is one loop in one thread; a command that computes for a minute holds up everybody for a minute, and nothing in the process
can take the loop away from it. What can be done is to say which command it is, while it lasts (it may last for ever).

Every `EVERY_S` the thread asks the loop to do something trivial (`run_sync_soon`). Where that is not done within `LATE_S`, it looks at
the stack of the loop's thread: the innermost function that is a command's tells its name, for an ``async def`` command too, since its
frames are on that stack while it runs. A helper task of a command is not below its function: there the file tells, if one command of
that file is at work. It costs the loop two wake-ups a second, and commands nothing.

A computation of under ``LATE_S + EVERY_S`` may be missed. One within a C function that keeps the interpreter to itself is seen when it
returns, mostly still within its command. Without a command on the stack it is logged all the same, as the machine's or our own slowness.

The memory is looked at in the same breath. Python does not tell whose an object is: when the process has grown by `GROWN_BYTES`, the
commands that are at work are named, and it is said that this is all that is known.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import CodeType, FrameType
from typing import Final

import attrs
import trio

from chat.log import get_logger

log = get_logger("chat.watchdog")

EVERY_S: Final = 0.5
LATE_S: Final = 0.5
LOOK_AGAIN_S: Final = 1.0
GROWN_BYTES: Final = 256 * 2**20


@attrs.define(kw_only=True)
class Watched:
    """What the watchdog asks, and whom it tells. *code* and *at_work* are called in its thread: they only look. The others on the loop."""

    code: Callable[[], Mapping[CodeType, str]]  # of commands → name
    at_work: Callable[[], Iterable[str]]  # names of the commands that run
    held_up: Callable[[str, float, str], None]  # name, seconds, where
    grew: Callable[[str, int], None]  # name, bytes


async def watch(watched: Watched, *, every_s: float = EVERY_S, late_s: float = LATE_S) -> None:
    """Watch the loop that this runs in, until cancelled."""
    dog = _Dog(watched, every_s, late_s)
    thread = threading.Thread(target=dog.run, name="chat-watchdog", daemon=True)
    thread.start()
    try:
        await trio.sleep_forever()
    finally:
        dog.stopped.set()
        thread.join(1.0)


class _Dog:
    def __init__(self, watched: Watched, every_s: float, late_s: float) -> None:
        self.stopped = threading.Event()
        self._watched = watched
        self._every_s, self._late_s = every_s, late_s
        self._token = trio.lowlevel.current_trio_token()
        self._loop = threading.get_ident()
        self._bytes = resident_bytes()

    def run(self) -> None:
        try:
            while not self.stopped.wait(self._every_s):
                self._look_at_memory()
                seen = threading.Event()
                asked_s = time.monotonic()
                self._token.run_sync_soon(seen.set)
                if not seen.wait(self._late_s) and not self.stopped.is_set():
                    self._late(seen, asked_s)
        except trio.RunFinishedError:
            pass

    def _late(self, seen: threading.Event, asked_s: float) -> None:
        name, where = self._culprit()
        if name:
            log.warning("command_blocks", command=name, where=where, seconds=round(time.monotonic() - asked_s, 1))
        while not seen.wait(LOOK_AGAIN_S) and not self.stopped.is_set():
            if not name:
                name, where = self._culprit()
                if name:
                    log.warning("command_blocks", command=name, where=where, seconds=round(time.monotonic() - asked_s, 1))
        seconds = time.monotonic() - asked_s
        (log.warning if name else log.info)("loop_was_held_up", command=name, where=where, seconds=round(seconds, 1))
        if name:
            self._token.run_sync_soon(partial(self._watched.held_up, name, seconds, where))

    def _culprit(self) -> tuple[str | None, str]:
        """The command whose code runs, None for no command's; and where it stands."""
        frame = sys._current_frames().get(self._loop)
        return culprit(frame, self._watched.code(), set(self._watched.at_work()))

    def _look_at_memory(self) -> None:
        now = resident_bytes()
        grown = now - self._bytes
        if grown < GROWN_BYTES:
            self._bytes = min(self._bytes, now)
            return
        self._bytes = now
        names = sorted(set(self._watched.at_work()))
        log.warning("memory_grew", mib=grown >> 20, now_mib=now >> 20, commands=names)
        for name in names:
            self._token.run_sync_soon(partial(self._watched.grew, name, grown))


def culprit(frame: FrameType | None, code: Mapping[CodeType, str], at_work: Iterable[str]) -> tuple[str | None, str]:
    """The name of the command whose code *frame* is below, or None; and the place: of the command's own file where there is one."""
    files: dict[str, set[str]] = {}
    for each, name in code.items():
        files.setdefault(each.co_filename, set()).add(name)
    innermost = _place(frame)
    where = ""
    while frame is not None:
        if frame.f_code.co_filename in files:
            where = where or _place(frame)
            if (found := code.get(frame.f_code)) is not None:
                return found, where
            if len(own := files[frame.f_code.co_filename].intersection(at_work)) == 1:
                return own.pop(), where
        frame = frame.f_back
    return None, where or innermost


def _place(frame: FrameType | None) -> str:
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}" if frame is not None else ""


def resident_bytes() -> int:
    """What the process has in memory; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
