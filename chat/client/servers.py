"""What the client keeps on disk: the servers it knows with their pins, and for each account the slots of its sessions.

``servers.json`` holds pins and the account used last. Two clients on one machine have a slot each, held by a lock for as long as
the client lives; a slot has the session's resume token, the cursors of what its reader has seen, and the outbox::

    servers.json  servers.lock
    HOST_PORT/ACCOUNT/  slots.lock
    HOST_PORT/ACCOUNT/SLOT/  lock  session.json  cursors.json  outbox.jsonl

Slots are taken, and those that are free and empty removed, under ``slots.lock``: so no process removes the folder that another one is
just taking. There are never more of them than clients at one time, and what those left behind.

Folders are 0700, files 0600; no password is ever kept.
"""

import fcntl
import hashlib
import os
import time
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs
import platformdirs

from chat.client.files import make_folder, read_json, write_json
from chat.client.outbox import Outbox


@attrs.frozen(kw_only=True)
class Known:
    """A server that was used before."""

    key: str
    pin: str | None = None
    name: str | None = None
    accounts: tuple[str, ...] = ()  # the one used last comes first
    last_used_ms: int = 0


@attrs.define(eq=False)
class Slot:
    """One session's place on disk. *Owns* the lock on it until `close`."""

    folder: Path
    outbox: Outbox
    _lock_fd: int

    @property
    def session(self) -> dict[str, Any]:
        """{user, session, token} of the last session, or {}."""
        return read_json(self.folder / "session.json")

    def save_session(self, *, user: str, session: str, token: str) -> None:
        """On return the token is on disk: only now may a frame follow `resumed`."""
        write_json(self.folder / "session.json", {"user": user, "session": session, "token": token})

    def forget_session(self) -> None:
        (self.folder / "session.json").unlink(missing_ok=True)

    def load_cursors(self) -> dict[str, tuple[str, int]]:
        cursors: dict[str, tuple[str, int]] = {}
        for conv, cursor in read_json(self.folder / "cursors.json").items():
            match cursor:
                case [str(epoch), int(following)]:
                    cursors[conv] = (epoch, following)
        return cursors

    def save_cursors(self, cursors: dict[str, tuple[str, int]]) -> None:
        write_json(self.folder / "cursors.json", cursors)

    def close(self) -> None:
        self.outbox.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


class ClientStore:
    """The client's folder; many processes share it."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or platformdirs.user_state_path("chat") / "client"
        make_folder(self.folder)

    def servers(self) -> list[Known]:
        """Every known server, the one used last first."""
        entries = read_json(self.folder / "servers.json")
        known = [_known(key, entry) for key, entry in entries.items() if isinstance(entry, dict)]
        return sorted(known, key=lambda server: -server.last_used_ms)

    def server(self, key: str) -> Known:
        """The server of this ``host:port``, empty when it is new."""
        return next((known for known in self.servers() if known.key == key), Known(key=key))

    def remember(self, key: str, *, pin: str | None = None, name: str | None = None, account: str | None = None) -> None:
        """Note that the server was used, and what is now known of it; what is None stays as it was."""
        with _locked(self.folder / "servers.lock"):
            entries = read_json(self.folder / "servers.json")
            old = _known(key, entries[key]) if isinstance(entries.get(key), dict) else Known(key=key)
            accounts = old.accounts
            if account is not None:
                accounts = (account, *(other for other in accounts if _folded(other) != _folded(account)))
            entries[key] = {
                "pin": pin or old.pin,
                "name": name or old.name,
                "accounts": accounts,
                "last_used_ms": time.time_ns() // 1_000_000,
            }
            write_json(self.folder / "servers.json", entries)

    def open_slot(self, key: str, account: str) -> Slot:
        """Take a free slot: one with unsent texts first, then one with a session, else the lowest; other empty ones are removed.

        *Raises* OSError.
        """
        parent = self._slots(key, account)
        make_folder(parent)
        with _locked(parent / "slots.lock"), ExitStack() as unwanted:
            numbers = _numbers(parent)
            free: list[tuple[int, int, int]] = []
            for number in numbers:
                if (fd := _try_lock(parent / str(number) / "lock")) is not None:
                    unwanted.callback(os.close, fd)
                    free.append((-_worth(parent / str(number)), number, fd))
            if not free:
                number = next(n for n in range(len(numbers) + 1) if n not in numbers)
                make_folder(parent / str(number))
                fd = _try_lock(parent / str(number) / "lock")
                assert fd is not None
                unwanted.callback(os.close, fd)
                free.append((0, number, fd))
            (_, chosen, fd), *others = sorted(free)
            for worth, number, _ in others:
                if worth == 0:
                    _remove_slot(parent / str(number))
            held = os.dup(fd)  # the lock is kept with it
        folder = parent / str(chosen)
        try:
            with suppress(OSError):  # a full disk: who has it is not known then
                os.ftruncate(held, 0)
                os.pwrite(held, b"%d" % os.getpid(), 0)
            return Slot(folder, Outbox(folder / "outbox.jsonl"), held)
        except BaseException:
            os.close(held)
            raise

    def in_use(self, key: str, account: str) -> list[int]:
        """The processes that have a session of the account now, this one too; 0 for one whose number is not known."""
        parent = self._slots(key, account)
        if not parent.is_dir():
            return []
        found: list[int] = []
        with _locked(parent / "slots.lock"):
            for folder in (parent / str(number) for number in _numbers(parent)):
                if not read_json(folder / "session.json").get("token"):
                    continue
                if (fd := _try_lock(folder / "lock")) is not None:
                    os.close(fd)
                    continue
                process = (folder / "lock").read_bytes()
                found.append(int(process) if process.isdigit() else 0)
        return found

    def _slots(self, key: str, account: str) -> Path:
        return self.folder / _file_name(key) / _file_name(_folded(account))


def _known(key: str, entry: dict[str, Any]) -> Known:
    accounts = entry.get("accounts") or ()
    return Known(
        key=key,
        pin=entry.get("pin"),
        name=entry.get("name"),
        accounts=tuple(name for name in accounts if isinstance(name, str)),
        last_used_ms=int(entry.get("last_used_ms") or 0),
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _try_lock(path: Path) -> int | None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _numbers(parent: Path) -> list[int]:
    return sorted(int(entry.name) for entry in parent.iterdir() if entry.name.isascii() and entry.name.isdecimal())


def _worth(folder: Path) -> int:
    """How much it matters that a slot is taken before others; 0: nothing is in it."""
    session = bool(read_json(folder / "session.json").get("token"))
    return _has_unsent(folder) * 4 + session * 2 + bool(read_json(folder / "cursors.json"))


def _remove_slot(folder: Path) -> None:
    """Of one that is free and empty, while nobody takes one. What is not ours in it keeps it."""
    with suppress(OSError):
        for path in (*folder.glob("*.json*"), *folder.glob(".*.new"), folder / "lock"):
            path.unlink(missing_ok=True)
        folder.rmdir()


def _has_unsent(folder: Path) -> bool:
    """Whether the outbox names a cid that was never done. A guess from the bytes is enough for a preference."""
    try:
        data = (folder / "outbox.jsonl").read_bytes()
    except FileNotFoundError:
        return False
    return data.count(b'"cid":') > data.count(b'"done":')


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _file_name(name: str) -> str:
    quoted = quote(name, safe="").replace(".", "%2E")
    return quoted if len(quoted) <= 150 else quoted[:100] + "~" + hashlib.sha256(name.encode()).hexdigest()[:32]
