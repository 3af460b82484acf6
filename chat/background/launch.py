"""Running the daemon: here in the foreground, or detached."""

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn

import attrs
from daemon import DaemonContext

from chat import log
from chat.background.lock import Running, StartRefused
from chat.background.prepare import UMASK, Prepared, ReadyInfo, Run, line, prepare, refusal
from chat.background.systemd import notify
from chat.config import Config

logger = log.get_logger("background")


def serve(config: Config, run: Run, tell: Callable[[ReadyInfo], None]) -> int:
    """Run in the foreground and return the exit status. *tell* is called once, when ready. *Raises* StartRefused."""
    prepared = prepare(config)
    try:
        log.configure(config.log)
        return _run(config, run, prepared, tell)
    except OSError as exc:
        raise StartRefused(line(exc)) from exc
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
        text = refusal(exc)
        if not ready and text is not None:
            raise StartRefused(text) from exc
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
