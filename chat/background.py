"""Run the daemon: in the foreground, or detached from the terminal; stop it; tell whether it runs.

Theory of operation
-------------------
*Who runs?* is answered by a lock (``flock``) on ``chat.lock`` inside the data folder and by nothing else: the kernel gives it up with
the process, however that ends. What stands in the file (pid, host, addresses) describes the holder and means nothing without the lock.
``chat.pid`` is for other programs; it may be stale after a ``kill -9``, and nobody here reads it.

*Order at the start*: first everything that can be refused without touching anything (a running instance, a folder that cannot be
written, the addresses), then the folder is made and locked. So a start that is refused leaves no trace.

*Detaching.* python-daemon ends the process that it is called in, so that cannot be the one that waits: `start` forks once itself, the child
detaches (two more forks) and runs the daemon, the parent waits at a pipe for one line: ready, or refused and why. The end of
the pipe without a line means that the daemon ended. Sockets and lock are made before the fork and inherited: ``flock`` locks belong
to the open file, so they survive it, and the error about a port in use is told by the process that the user is looking at. This
happens before Trio runs and before any thread starts.

Under systemd (``Type=notify``) the daemon stays in the foreground and READY=1 is sent.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, Protocol

import attrs
from daemon import DaemonContext

from chat import log
from chat.config import Config

UMASK: Final = 0o077
LOCK_TRIES: Final = 15  # a `chat status` holds the lock for a moment while it looks: that must not make a start fail
LOCK_WAIT_S: Final = 0.02
STOP_GRACE_S: Final = 2.0  # on top of drain_s

logger = log.get_logger("background")


class StartRefused(Exception):
    """The daemon cannot start; the text is one clear line for a person."""


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
    """`chat.daemon.run`: returns the exit status. *sockets*: one list for each ``[[listen]]``, listening."""

    def __call__(
        self, config: Config, *, sockets: list[list[socket.socket]], lock: "DataLock", on_ready: Callable[[ReadyInfo], None]
    ) -> int: ...


# ---------------------------------------------------------------- the lock


@attrs.frozen(kw_only=True)
class Running:
    """Whoever holds the lock. ``pid`` is 0 and ``addresses`` empty while it is just starting."""

    pid: int = 0
    host: str = ""
    started_s: float = 0.0  # seconds since 1970
    addresses: tuple[str, ...] = ()


@attrs.define(eq=False)
class DataLock:
    """The lock on a data folder. *Owns* its descriptor; the end of the process gives it up, too."""

    path: Path
    fd: int

    def describe(self, running: Running) -> None:
        """Write down who holds it."""
        data = json.dumps(attrs.asdict(running)).encode()
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, data, 0)

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
    raise StartRefused(_already(path.parent, holder(path)))


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
            pid=int(raw["pid"]), host=str(raw["host"]), started_s=float(raw["started_s"]), addresses=tuple(map(str, raw["addresses"]))
        )
    except (ValueError, KeyError, TypeError):
        return Running()


def _already(data_dir: Path, running: Running | None) -> str:
    return f"chat already runs on {data_dir}" + (f" (pid {running.pid})" if running and running.pid else "")


# ---------------------------------------------------------------- what can be refused


@attrs.define(eq=False)
class Prepared:
    """Everything that a start needs, taken. *Owns* the sockets and the lock until they are given to the daemon."""

    sockets: list[list[socket.socket]]
    lock: DataLock

    def close(self) -> None:
        for sockets in self.sockets:
            for sock in sockets:
                sock.close()
        self.lock.release()


def prepare(config: Config) -> Prepared:
    """Take the addresses and the data folder. *Raises* StartRefused, and has touched nothing then."""
    from chat.transport.certificates import server_context
    from chat.transport.door import bind, connection_cap

    os.umask(UMASK)
    running = holder_of(config)
    if running is not None:
        raise StartRefused(_already(config.data_dir, running))
    _check_folder(config.data_dir)
    if config.database.is_dir():
        raise StartRefused(f"the database {config.database} is a folder")
    bound: list[list[socket.socket]] = []
    try:
        if config.tls.certificate is not None:
            server_context(config.certificate, config.key)  # that it works; one of our own making is looked at by the daemon
        connection_cap(config.limits.connections)
        for listen in config.listen:
            bound.append(bind(listen.address))
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = take_lock(config.lock_file)
    except BaseException as exc:
        for sockets in bound:
            for sock in sockets:
                sock.close()
        if isinstance(exc, OSError | ValueError):
            raise StartRefused(_line(exc)) from exc
        raise
    return Prepared(bound, lock)


def holder_of(config: Config) -> Running | None:
    """Who runs on the data folder. *Raises* StartRefused when that cannot be found out."""
    try:
        return holder(config.lock_file)
    except OSError as exc:
        raise StartRefused(_line(exc)) from exc


def _check_folder(folder: Path) -> None:
    """That *folder* can be written or made, without trying."""
    there = folder
    while not os.path.exists(there) and there != there.parent:  # unlike Path.exists it takes "no right to look" for a no
        there = there.parent
    if not there.is_dir():
        raise StartRefused(f"the data folder {folder} cannot be used: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        raise StartRefused(f"the data folder {folder} cannot be {'written' if there == folder else 'made'}: no right to write in {there}")


def _line(exc: BaseException) -> str:
    """*exc* for a person, in one line."""
    text = str(exc)
    if isinstance(exc, OSError) and exc.strerror:
        text = f"{exc.filename}: {exc.strerror}" if exc.filename else exc.strerror
    return " ".join(log.printable(text, keep="\n").split()) or type(exc).__name__


def refusal(exc: BaseException) -> str | None:
    """The line for a person when *exc* (or the one exception in a group) is no mistake of ours, else None."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return _line(exc) if isinstance(exc, StartRefused | OSError) else None


# ---------------------------------------------------------------- running


def serve(config: Config, run: Run, tell: Callable[[ReadyInfo], None]) -> int:
    """Run in the foreground and return the exit status. *tell* is called once, when ready. *Raises* StartRefused."""
    prepared = prepare(config)
    try:
        log.configure(config.log)
        return _run(config, run, prepared, tell)
    except OSError as exc:
        raise StartRefused(_line(exc)) from exc
    finally:
        prepared.close()
        log.close()


def _run(config: Config, run: Run, prepared: Prepared, tell: Callable[[ReadyInfo], None]) -> int:
    """*Raises* StartRefused before readiness. What happens after it is logged, and its status is 1."""
    ready = False
    lock, started_s = prepared.lock, time.time()

    def on_ready(info: ReadyInfo) -> None:
        nonlocal ready
        ready = True
        lock.describe(Running(pid=os.getpid(), host=socket.gethostname(), started_s=started_s, addresses=info.addresses))
        with contextlib.suppress(OSError):  # for others only; nothing depends on it
            config.pid_file.write_text(f"{os.getpid()}\n")
        with contextlib.suppress(OSError):  # nobody listens any more
            tell(info)
        notify("READY=1")

    lock.describe(Running(pid=os.getpid(), host=socket.gethostname(), started_s=started_s))
    try:
        return run(config, sockets=prepared.sockets, lock=lock, on_ready=on_ready)
    except Exception as exc:
        line = refusal(exc)
        if not ready and line is not None:
            raise StartRefused(line) from exc
        error_id = log.new_error_id()
        logger.error("daemon_ended", error_id=error_id, exc_info=exc)
        if not ready:
            raise StartRefused(f"internal error {error_id}: {log.describe(exc)}; the log has more") from exc
        return 1
    finally:
        if ready:
            config.pid_file.unlink(missing_ok=True)


def log_file(config: Config) -> Path:
    """Where the daemon logs in the background."""
    return config.log.file or config.log_dir / "chat.log"


def start(config: Config, run: Run) -> ReadyInfo:
    """Run detached from the terminal. *Returns* when the daemon is ready. *Raises* StartRefused. *Waits* for its start.

    Call it before any thread is started.
    """
    prepared = prepare(config)
    reader, writer = os.pipe()
    prepared.lock.describe(Running())  # no pid until it has its last one
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _detached(config, run, prepared, writer)
    os.close(writer)
    prepared.close()  # this process's copies; the child has its own
    with open(reader, "rb") as pipe:
        first = pipe.readline()
    os.waitpid(child, 0)
    if not first:
        raise StartRefused(f"chat ended before it was ready; see {log_file(config)}")
    told = json.loads(first)
    if "refused" in told:
        raise StartRefused(told["refused"])
    info = told["ready"]
    return ReadyInfo(**{**info, "addresses": tuple(info["addresses"]), "data_dir": Path(info["data_dir"])})


def _detached(config: Config, run: Run, prepared: Prepared, writer: int) -> NoReturn:
    """The child of `start`: never returns."""
    pipe = os.fdopen(writer, "w")

    def tell(key: Literal["ready", "refused"], value: Any) -> None:
        if not pipe.closed:
            with contextlib.suppress(OSError):  # whoever started us may be gone
                pipe.write(json.dumps({key: value}, default=str) + "\n")
                pipe.close()

    status = 1
    try:
        config.log_dir.mkdir(mode=0o700, exist_ok=True)
        last_words = (config.log_dir / "stderr.log").open("a")  # of the interpreter itself; empty, as a rule
        keep = [sock for sockets in prepared.sockets for sock in sockets]
        DaemonContext(
            detach_process=True,
            umask=UMASK,
            signal_map={},
            working_directory="/",
            files_preserve=[*keep, prepared.lock.fd, pipe],
            stderr=last_words,
        ).open()
        log.configure(config.log, file=log_file(config))
        status = _run(config, run, prepared, lambda info: tell("ready", attrs.asdict(info)))
    except BaseException as exc:
        tell("refused", refusal(exc) or f"chat could not start: {log.describe(exc)}")
    finally:
        with contextlib.suppress(Exception):
            log.close()
        os._exit(status)  # not sys.exit: the stack above belongs to the process that was forked


# ---------------------------------------------------------------- stopping and asking


@attrs.frozen(kw_only=True)
class Stopped:
    """What `stop` did: ``stopped``, ``not_running``, or ``failed``; *text* says it."""

    result: Literal["stopped", "not_running", "failed"]
    text: str


def stop(config: Config) -> Stopped:
    """Send SIGTERM to whoever holds the lock and *wait* until it is free, at most drain_s + 2."""
    running = holder_of(config)
    if running is None:
        return Stopped(result="not_running", text=f"chat is not running on {config.data_dir}")
    if not running.pid:
        return Stopped(result="failed", text=f"chat on {config.data_dir} is just starting; try again")
    if running.host != socket.gethostname():
        return Stopped(result="failed", text=f"chat on {config.data_dir} runs on another host ({running.host}), pid {running.pid}")
    try:
        os.kill(running.pid, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it has ended just now
    except PermissionError:
        return Stopped(result="failed", text=f"chat (pid {running.pid}) belongs to another user; no right to stop it")
    wait_s = config.limits.drain_s + STOP_GRACE_S
    if _wait_free(config.lock_file, wait_s):
        return Stopped(result="stopped", text=f"chat (pid {running.pid}) has stopped")
    return Stopped(result="failed", text=f"chat (pid {running.pid}) is still running after {wait_s:g} s; chat stop again ends it at once")


def _wait_free(path: Path, timeout_s: float) -> bool:
    """Wait until nobody holds the lock: in a thread, since a ``flock`` can wait but knows no deadline."""
    free = threading.Event()

    def wait() -> None:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
        free.set()

    threading.Thread(target=wait, daemon=True).start()
    return free.wait(timeout_s)


def notify(state: str) -> None:
    """Tell systemd, where it started us: READY=1, STOPPING=1. Source: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] in ("/", "@"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
