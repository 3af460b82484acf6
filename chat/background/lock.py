"""The lock on a data folder: who runs."""

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from chat import log

LOCK_TRIES: Final = 15  # a `chat status` holds the lock for a moment while it looks: that must not make a start fail
LOCK_WAIT_S: Final = 0.02
logger = log.get_logger("background")


class StartRefused(Exception):
    """The daemon cannot start; the text is one clear line for a person."""


@attrs.frozen(kw_only=True)
class Running:
    """Whoever holds the lock. ``pid`` is 0 and ``addresses`` empty while it is just starting."""

    pid: int = 0
    host: str = ""
    started_s: float = 0.0  # seconds since 1970
    addresses: tuple[str, ...] = ()
    version: str = ""
    answers: int = 0  # how often it answered to a signal (`DataLock.answer`)
    answer: tuple[str, ...] = ()  # the last one, in lines; the first word is "fine" or "refused"


@attrs.define(eq=False)
class DataLock:
    """The lock on a data folder. *Owns* its descriptor; the end of the process gives it up, too."""

    path: Path
    fd: int
    running: Running = Running()
    _described: bool = False  # by this process: what stands there is not another's

    def describe(self, running: Running) -> None:
        """Write down who holds it. A disk that takes nothing is no reason to end: then what this process wrote before stays, and
        nothing else, since ``chat stop`` sends its signal to whoever stands there."""
        self.running = running
        data = json.dumps(attrs.asdict(running)).encode()
        try:
            os.pwrite(self.fd, data, 0)  # first: over what is there it works on a full disk, too
            os.ftruncate(self.fd, len(data))
            self._described = True
        except OSError as exc:
            logger.error("lock_not_described", path=str(self.path), reason=str(exc))
            if not self._described:
                with contextlib.suppress(OSError):
                    os.ftruncate(self.fd, 0)

    def answer(self, *, fine: bool, lines: Sequence[str]) -> None:
        """Tell whoever sent the last signal what came of it: signals carry no answer, and this file is where he looks."""
        answer = ("fine" if fine else "refused", *lines)
        self.describe(attrs.evolve(self.running, answers=self.running.answers + 1, answer=answer))

    def release(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


def take_lock(path: Path) -> DataLock:
    """*Raises* StartRefused when another process has it, OSError when the file cannot be made."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for attempt in range(LOCK_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return DataLock(path, fd)
        except BlockingIOError:
            if attempt < LOCK_TRIES - 1:
                time.sleep(LOCK_WAIT_S)
        except OSError:
            os.close(fd)
            raise
    os.close(fd)
    raise StartRefused(already(path.parent, holder(path)))


def holder(path: Path) -> Running | None:
    """Who holds the lock file *path*; None if nobody does. Touches nothing."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _described(file.read())
    return None


def last_described(path: Path) -> Running:
    """Who holds the lock file or held it last."""
    try:
        return _described(path.read_bytes())
    except OSError:
        return Running()


def _described(data: bytes) -> Running:
    try:
        raw = json.loads(data)
        return Running(
            pid=int(raw["pid"]),
            host=str(raw["host"]),
            started_s=float(raw["started_s"]),
            addresses=tuple(map(str, raw["addresses"])),
            version=str(raw.get("version", "")),
            answers=int(raw.get("answers", 0)),
            answer=tuple(map(str, raw.get("answer", ()))),
        )
    except (ValueError, KeyError, TypeError):
        return Running()


def already(data_dir: Path, running: Running | None) -> str:
    return f"chat already runs on {data_dir}" + (f" (pid {running.pid})" if running and running.pid else "")


def wait_free(path: Path, timeout_s: float) -> bool:
    """Wait until nobody holds the lock: in a thread, since a ``flock`` can wait but knows no deadline."""
    free = threading.Event()

    def wait() -> None:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
        free.set()

    threading.Thread(target=wait, daemon=True).start()
    return free.wait(timeout_s)
