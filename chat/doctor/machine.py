"""The machine: Python and libraries, descriptors, disk, clock."""

import contextlib
import ctypes
import os
import re
import resource
import sqlite3
import ssl
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

import chat
from chat.background import holder
from chat.config import Config
from chat.doctor.finding import Finding, advice, fine, size, span, wrong
from chat.store.sqlite_commit import ROOM_BYTES
from chat.store.sqlite_files import SQLITE_MIN
from chat.transport.door import SPARE_DESCRIPTORS, connection_cap

PYTHON_MIN: Final = (3, 11)
INODES_MIN: Final = 1000
CLOCK_S: Final = 120.0  # so far may the newest message be ahead of the clock: machines that it moved between
TIME_ERROR: Final = 5  # of adjtimex: nobody sets the clock right


def python(config: Config) -> Iterator[Finding]:
    tls = " ".join(ssl.OPENSSL_VERSION.split()[:2])
    versions = f"Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}, {tls}"
    if sys.version_info < PYTHON_MIN:
        yield wrong("python", f"{versions}: Python {_dotted(PYTHON_MIN)} or newer is needed", "install a newer Python and chat with it")
    elif sqlite3.sqlite_version_info < SQLITE_MIN:
        yield wrong("python", f"{versions}: SQLite {_dotted(SQLITE_MIN)} or newer is needed", "use a Python that brings a newer SQLite")
    else:
        yield fine("python", f"chat {chat.__version__}, {versions}")


def libraries(config: Config) -> Iterator[Finding]:
    try:
        required = metadata.requires("chat") or []
    except metadata.PackageNotFoundError:
        yield advice("libraries", "chat runs from a folder and is not installed", "pip install . in that folder")
        return
    count, bad = 0, False
    for line in required:
        found = re.match(r"([A-Za-z0-9._-]+)\s*(?:>=\s*([0-9.]+))?[^;]*$", line)
        if found is None:  # of an extra
            continue
        name, least = found[1], found[2] or "0"
        count += 1
        try:
            there = metadata.version(name)
        except metadata.PackageNotFoundError:
            there = ""
        if not there or _numbers(there) < _numbers(least):
            bad = True
            yield wrong("libraries", f"{name} {there or 'is missing'}: {least} or newer is needed", "pip install --upgrade chat")
    if not bad:
        yield fine("libraries", f"all {count} are there and recent enough")


def descriptors(config: Config) -> Iterator[Finding]:
    running = holder(config.lock_file)
    soft = _limit_of(running.pid) if running is not None and running.pid else None
    if soft is None:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    wanted = config.limits.connections
    try:
        possible = connection_cap(wanted, soft)
    except ValueError as error:
        yield wrong("descriptors", str(error), "ulimit -n 4096, or LimitNOFILE= in the unit")
        return
    if possible < wanted:
        enough = wanted + SPARE_DESCRIPTORS
        todo = f"ulimit -n {enough} before the start, or LimitNOFILE={enough} in the unit; or lower limits.connections"
        yield advice("descriptors", f"{soft} files may be open: enough for {possible} of {wanted} connections", todo)
    else:
        many = "any number of" if soft == resource.RLIM_INFINITY else str(soft)
        yield fine("descriptors", f"{many} files may be open, for {wanted} connections")


def _limit_of(pid: int) -> int | None:
    """How many files process *pid* may open."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
            if line.startswith("Max open files"):
                soft = line.split()[3]
                return resource.RLIM_INFINITY if soft == "unlimited" else int(soft)
    return None


def disk(config: Config) -> Iterator[Finding]:
    place = existing(config.database.parent)
    found = os.statvfs(place)
    free, least = found.f_bavail * found.f_frsize, config.storage.min_free_bytes
    todo = f"make room on the disk of {place}, or lower storage.min_free_bytes ({size(least)})"
    if free < ROOM_BYTES:
        yield wrong("disk", f"{size(free)} are free: nothing can be stored (storage_full)", f"make room on the disk of {place}")
    elif free < least:
        kept = "what is left is kept for logins, moderation and deleting"
        yield wrong("disk", f"{size(free)} are free: new messages, people and channels are refused (storage_full); {kept}", todo)
    elif found.f_files and found.f_favail < INODES_MIN:
        yield wrong("disk", f"only {found.f_favail} more files can be made", f"delete files on the disk of {place}")
    elif free < 2 * least:
        yield advice("disk", f"{size(free)} are free; below {size(least)} new messages, people and channels are refused", todo)
    else:
        yield fine("disk", f"{size(free)} are free")


def clock(config: Config) -> Iterator[Finding]:
    now = time.time()
    todo = "set the clock (timedatectl set-ntp true); until then new messages get the time of the newest one"
    made = Path(chat.__file__).stat().st_mtime
    newest = _newest_s(config.database)
    if newest > now + CLOCK_S:
        yield wrong("clock", f"it says {_said(now)}, and there is a message from {_said(newest)}, {span(newest - now)} later", todo)
    elif made > now + 86400:
        yield wrong("clock", f"it says {_said(now)}, and chat was installed {span(made - now)} later", todo)
    elif _is_unkept():
        yield advice("clock", f"it says {_said(now)}, and nothing sets it right", "timedatectl set-ntp true (or chrony, ntpd)")
    else:
        yield fine("clock", f"it says {_said(now)}")


def _newest_s(database: Path) -> float:
    """The time of the newest record; 0.0 when there is none."""
    try:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            (newest,) = db.execute("SELECT max(last_ts) FROM conversations").fetchone()
    except sqlite3.Error:  # the check of the database says why
        return 0.0
    return (newest or 0) / 1000


def _is_unkept() -> bool:
    """Whether the kernel says that nobody disciplines the clock. False where it cannot be asked."""
    with contextlib.suppress(OSError, AttributeError):
        return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(1024))) == TIME_ERROR  # struct timex, all zero: only ask
    return False


def existing(path: Path) -> Path:
    """*path*, or the nearest folder above it that there is."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _said(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])
