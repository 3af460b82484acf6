"""Running the daemon: here in the foreground, or detached."""

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn

import attrs
from daemon import DaemonContext

from chat import __version__, log
from chat.background import relay, systemd
from chat.background.handover import HandedOver, Heir
from chat.background.lock import Running, StartRefused
from chat.background.origin import Origin
from chat.background.prepare import UMASK, Prepared, ReadyInfo, Run, line, prepare, refusal
from chat.config import Config, Loaded

logger = log.get_logger("background")


def serve(loaded: Loaded, run: Run, tell: Callable[[ReadyInfo], None]) -> int:
    """Run in the foreground and return the exit status. *tell* is called once, when ready. *Raises* StartRefused."""
    origin = Origin.of(loaded, awaited=not systemd.is_notified())
    heir = Heir.of_environment()
    if heir is not None:
        return _succeed(loaded.config, run, heir, origin, tell)
    prepared = prepare(loaded.config)
    try:
        log.configure(loaded.config.log)
        ended = _run(loaded.config, run, prepared, tell, origin)
    except OSError as exc:
        raise StartRefused(line(exc)) from exc
    finally:
        prepared.close()
        log.close()
    if isinstance(ended, HandedOver):
        return _hand_over(loaded.config, ended, origin)
    return ended


def _hand_over(config: Config, to: HandedOver, origin: Origin) -> int:
    """Another process goes on. This one ends, or stays as a relay where somebody waits for its end."""
    systemd.notify(f"MAINPID={to.pid}")
    if not origin.awaited:
        return 0
    signal.pthread_sigmask(signal.SIG_BLOCK, relay.PASSED_ON)  # until it passes them on
    with contextlib.suppress(OSError):  # then this process does it: the same, in more memory
        os.execv(sys.executable, [sys.executable, "-I", "-S", relay.__file__, str(config.lock_file)])
    return relay.relay(str(config.lock_file))


def _succeed(config: Config, run: Run, heir: Heir, origin: Origin, tell: Callable[[ReadyInfo], None]) -> int:
    """Take over from the daemon that started this process. Returns the exit status."""
    os.umask(UMASK)
    try:
        log.configure(config.log, file=origin.file)
        prepared = heir.take(config)
        try:
            ended = _run(config, run, prepared, tell, origin, heir)
        finally:
            prepared.close()
            log.close()
    except (StartRefused, OSError) as exc:
        heir.refuse(refusal(exc) or str(exc))
        return 1
    except BaseException as exc:
        heir.refuse(f"it failed: {log.describe(exc)}")
        raise
    if isinstance(ended, HandedOver):
        systemd.notify(f"MAINPID={ended.pid}")
        return 0
    return ended


def _run(
    config: Config, run: Run, prepared: Prepared, tell: Callable[[ReadyInfo], None], origin: Origin, heir: Heir | None = None
) -> int | HandedOver:
    """*Raises* StartRefused before readiness. What happens after it is logged, and its status is 1."""
    ready = False
    lock, started_s = prepared.lock, time.time()
    ended: int | HandedOver = 1

    def on_ready(info: ReadyInfo) -> None:
        """Also when the daemon goes on because its successor has failed."""
        nonlocal ready
        again, ready = ready, True
        host = socket.gethostname()
        running = Running(pid=os.getpid(), host=host, started_s=started_s, addresses=info.addresses, version=__version__)
        answers, answer = lock.running.answers, lock.running.answer
        lock.describe(attrs.evolve(running, answers=answers, answer=answer))
        with contextlib.suppress(OSError):  # for others only; nothing depends on it
            config.pid_file.write_text(f"{os.getpid()}\n")
        if heir is not None and not again:
            pause_s = time.monotonic() - heir.since
            logger.info("took_over", pause_s=round(pause_s, 3))
            heir.ready()
        if not again:
            with contextlib.suppress(OSError):  # nobody listens any more
                tell(info)
        systemd.notify("READY=1")

    if heir is None:
        lock.describe(Running(pid=os.getpid(), host=socket.gethostname(), started_s=started_s))
    try:
        ended = run(config, sockets=prepared.sockets, lock=lock, on_ready=on_ready, origin=origin, checked=heir is not None)
        return ended
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
        if ready and not isinstance(ended, HandedOver):
            config.pid_file.unlink(missing_ok=True)


def log_file(config: Config) -> Path:
    """Where the daemon logs in the background."""
    return config.log.file or config.log_dir / "chat.log"


def start(loaded: Loaded, run: Run) -> ReadyInfo:
    """Run detached from the terminal. *Returns* when the daemon is ready. *Raises* StartRefused. *Waits* for its start.

    Call it before any thread is started.
    """
    config = loaded.config
    origin = Origin.of(loaded, file=log_file(config))
    heir = Heir.of_environment()
    if heir is not None:  # detached already, as its predecessor is
        sys.exit(_succeed(config, run, heir, origin, lambda info: None))
    prepared = prepare(config)
    reader, writer = os.pipe()
    prepared.lock.describe(Running())  # no pid until it has its last one
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _detached(config, run, prepared, origin, writer)
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


def _detached(config: Config, run: Run, prepared: Prepared, origin: Origin, writer: int) -> NoReturn:
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
        ended = _run(config, run, prepared, lambda info: tell("ready", attrs.asdict(info)), origin)
        status = 0 if isinstance(ended, HandedOver) else ended
    except BaseException as exc:
        tell("refused", refusal(exc) or f"chat could not start: {log.describe(exc)}")
    finally:
        with contextlib.suppress(Exception):
            log.close()
        os._exit(status)  # not sys.exit: the stack above belongs to the process that was forked
