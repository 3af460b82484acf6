"""The client's outbox on disk: what was typed is never lost and, by its cid, never stored twice.

Theory. A text gets its cid and is on disk, synced, before its first byte goes out. It leaves the file when the server has
acknowledged or definitely refused it. Whatever happens between - the connection breaks, this process is killed, the machine
loses power - the text is found at the next start and sent again with the same cid; if the server had stored it already, it says
``dup`` and gives the first place. So the loss of a *done* line does no harm (hence it is not synced), the loss of a *put* line would.

The file is a log of JSON lines, ``{"cid", "to", "text"}`` and ``{"done": cid}``, written afresh when it is opened and when most of
it is done. A line torn by a crash is cut off: it was not synced, so nothing of it was sent.

*Owns* the file; exactly one process may have it open, which the slot's lock sees to. `put` waits for the disk: call it in a thread.
"""

import os
import secrets
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec

from chat.client.files import sync_folder

COMPACT_BYTES: Final = 256 * 1024


@attrs.frozen(kw_only=True)
class Item:
    """A text on its way. ``to`` is ``#channel`` or ``@user``."""

    cid: str
    to: str
    text: str = attrs.field(repr=False)
    reply_to: int | None = None


def new_cid() -> str:
    """The time in ms and 72 random bits: unique among all that an account ever sends. In the order of time, since the server keeps an
    index of cids: at 500,000 of them, random ones made 17,000 rows/s and ordered ones 93,000."""
    return f"{time.time_ns() // 1_000_000:011x}{secrets.token_urlsafe(9)}"


class Outbox:
    """What was sent and not yet acknowledged, in the order of sending."""

    def __init__(self, path: Path) -> None:
        """Open the outbox at *path*, or make it. *Raises* OSError."""
        self._path = path
        self._items: dict[str, Item] = {}
        self._lock = threading.Lock()  # over the file's end: `put` runs in a thread, one at a time, `done` in the loop
        self._load()
        self._fd = -1
        self._rewrite()

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, cid: str) -> bool:
        return cid in self._items

    @property
    def items(self) -> list[Item]:
        return list(self._items.values())

    def get(self, cid: str) -> Item | None:
        return self._items.get(cid)

    def put(self, item: Item) -> None:
        """Keep *item*; on return it is on disk. *Raises* OSError: then it is not kept, and must not be sent."""
        with self._lock:
            size = os.fstat(self._fd).st_size
            if size > COMPACT_BYTES and len(self._items) < 16:
                self._rewrite()
                size = os.fstat(self._fd).st_size
            try:
                _write_all(self._fd, _line(attrs.asdict(item)))
            except OSError:
                os.ftruncate(self._fd, size)
                raise
        try:
            os.fsync(self._fd)  # outside the lock: `done` is called from the loop and shall not wait for the disk
        except OSError:
            os.ftruncate(self._fd, size)
            raise
        self._items[item.cid] = item

    def done(self, cid: str) -> None:
        """Forget the item: it is stored, or definitely refused. Unknown: nothing. Does not wait for the disk."""
        if self._items.pop(cid, None) is None:
            return
        with self._lock, suppress(OSError):  # a full disk: the item is sent once more at the next start, and answered `dup`
            _write_all(self._fd, _line({"done": cid}))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _load(self) -> None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        for line in data.split(b"\n")[:-1]:
            try:
                entry = msgspec.json.decode(line)
                if "done" in entry:
                    self._items.pop(entry["done"], None)
                else:
                    item = Item(cid=entry["cid"], to=entry["to"], text=entry["text"], reply_to=entry.get("reply_to"))
                    self._items[item.cid] = item
            except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
                continue  # torn by a crash, therefore never sent; the lines around it are whole

    def _rewrite(self) -> None:
        new = self._path.with_name(self._path.name + ".new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            for item in self._items.values():
                _write_all(fd, _line(attrs.asdict(item)))
            os.fsync(fd)
            os.replace(new, self._path)
            sync_folder(self._path.parent)
        except BaseException:
            os.close(fd)
            raise
        self.close()
        self._fd = fd


def _line(entry: dict[str, Any]) -> bytes:
    return msgspec.json.encode(entry) + b"\n"


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
