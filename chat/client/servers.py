"""What the client keeps on disk: the servers it knows with their pins, and for each account the slots of its sessions.

``servers.json`` holds pins and the account used last. Two clients on one machine have a slot each, held by a lock for as long as
the client lives; a slot has the session's resume token, the cursors of what its reader has seen, and the outbox::

    servers.json  servers.lock
    HOST_PORT/ACCOUNT/SLOT/  lock  session.json  cursors.json  outbox.jsonl

Folders are 0700, files 0600; no password is ever kept.
"""

import fcntl
import hashlib
import os
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
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
        write_json(self.folder / "session.json", {})

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
        with self._locked():
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
        """Take a free slot: one with unsent texts first, then one with a session, else the lowest. *Raises* OSError."""
        parent = self.folder / _file_name(key) / _file_name(_folded(account))
        make_folder(parent)
        numbers = sorted(int(entry.name) for entry in parent.iterdir() if entry.name.isdigit())
        best: tuple[tuple[int, int], Path, int] | None = None
        for number in [*numbers, *(n for n in range(len(numbers) + 1) if n not in numbers)]:
            folder = parent / str(number)
            make_folder(folder)
            fd = _try_lock(folder / "lock")
            if fd is None:
                continue
            rank = (-_has_unsent(folder) * 2 - bool(read_json(folder / "session.json").get("token")), number)
            if best is None or rank < best[0]:
                if best is not None:
                    os.close(best[2])
                best = (rank, folder, fd)
            else:
                os.close(fd)
            if number not in numbers:
                break
        if best is None:  # somebody took the new one at this very moment
            return self.open_slot(key, account)
        _, folder, fd = best
        try:
            return Slot(folder, Outbox(folder / "outbox.jsonl"), fd)
        except BaseException:
            os.close(fd)
            raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self.folder / "servers.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _known(key: str, entry: dict[str, Any]) -> Known:
    accounts = entry.get("accounts") or ()
    return Known(
        key=key,
        pin=entry.get("pin"),
        name=entry.get("name"),
        accounts=tuple(name for name in accounts if isinstance(name, str)),
        last_used_ms=int(entry.get("last_used_ms") or 0),
    )


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
