"""Everything that can be refused, before anything is touched; then what a start needs is taken."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from chat import log
from chat.background import systemd
from chat.background.lock import DataLock, Running, StartRefused, already, holder, take_lock
from chat.background.rights import no_right
from chat.config import Config
from chat.transport.certificates import server_context
from chat.transport.door import bind, connection_cap

if TYPE_CHECKING:
    from chat.background.handover import HandedOver
    from chat.background.origin import Origin

UMASK: Final = 0o077


@attrs.frozen(kw_only=True)
class ReadyInfo:
    """What the daemon tells when its doors are open. The lines are complete: ``chat connect …``."""

    addresses: tuple[str, ...]  # listened on, with the real ports
    data_dir: Path
    owner_line: str | None = attrs.field(repr=False)  # None: there is an owner already
    guest_line: str | None = attrs.field(repr=False)  # None: nobody can register
    first_start: bool
    web: str | None = attrs.field(default=None, repr=False)  # the guests' link to the page; None: there is none, or nobody can register


class Run(Protocol):
    """`chat.daemon.run`: returns the exit status, or who goes on. *sockets*: one list for each ``[[listen]]``, listening."""

    def __call__(
        self,
        config: Config,
        *,
        sockets: list[list[socket.socket]],
        lock: "DataLock",
        on_ready: Callable[[ReadyInfo], None],
        origin: "Origin | None" = None,
        checked: bool = False,
    ) -> "int | HandedOver": ...


@attrs.define(eq=False)
class Prepared:
    """Everything that a start needs, taken. *Owns* the sockets and the lock until they are given to the daemon."""

    sockets: list[list[socket.socket]]
    lock: DataLock

    def bind(self, config: Config, inherited: dict[str, list[socket.socket]]) -> None:
        """Sockets for each ``[[listen]]``: those *inherited* for its address, which are taken out of there, else new ones.

        *Raises* OSError, ValueError.
        """
        for listen in config.listen:
            self.sockets.append(inherited.pop(listen.address, []) or bind(listen.address))

    def close(self) -> None:
        for sockets in self.sockets:
            for sock in sockets:
                sock.close()
        self.lock.release()


def prepare(config: Config) -> Prepared:
    """Take the addresses and the data folder. *Raises* StartRefused, and has touched nothing then."""
    os.umask(UMASK)
    running = holder_of(config)
    if running is not None:
        raise StartRefused(already(config.data_dir, running))
    prepared = Prepared([], DataLock(config.lock_file, -1))
    try:
        check_before(config)
        prepared.bind(config, systemd.activated(config))
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        prepared.lock = take_lock(config.lock_file)
    except BaseException as exc:
        prepared.close()
        if isinstance(exc, OSError | ValueError):
            raise StartRefused(line(exc)) from exc
        raise
    return prepared


def check_before(config: Config) -> None:
    """What can be seen without touching anything. *Raises* StartRefused, OSError, ValueError."""
    check_folder(config.data_dir)
    if config.database.is_dir():
        raise StartRefused(f"the database {config.database} is a folder")
    if config.tls.certificate is not None:
        server_context(config.certificate, config.key)  # that it works; one of our own making is looked at by the daemon
    connection_cap(config.limits.connections)


def holder_of(config: Config) -> Running | None:
    """Who runs on the data folder. *Raises* StartRefused when that cannot be found out."""
    try:
        return holder(config.lock_file)
    except PermissionError as exc:
        raise StartRefused(no_right(config.lock_file) or line(exc)) from exc
    except OSError as exc:
        raise StartRefused(line(exc)) from exc


def check_folder(folder: Path) -> None:
    """That *folder* can be written or made, without trying."""
    there = folder
    while not os.path.exists(there) and there != there.parent:  # unlike Path.exists it takes "no right to look" for a no
        there = there.parent
    if not there.is_dir():
        raise StartRefused(f"the data folder {folder} cannot be used: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        raise StartRefused(f"the data folder {folder} cannot be {'written' if there == folder else 'made'}: no right to write in {there}")


def line(exc: BaseException) -> str:
    """*exc* for a person, in one line."""
    text = str(exc)
    if isinstance(exc, OSError) and exc.strerror:
        text = f"{exc.filename}: {exc.strerror}" if exc.filename else exc.strerror
    return " ".join(log.printable(text, keep="\n").split()) or type(exc).__name__


def refusal(exc: BaseException) -> str | None:
    """The line for a person when *exc* (or the one exception in a group) is no mistake of ours, else None."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return line(exc) if isinstance(exc, StartRefused | OSError) else None
