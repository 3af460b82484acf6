"""Stopping a daemon, or having it replaced, from another process."""

import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, Final, Literal

import attrs

from chat.background.lock import StartRefused, holder, wait_free
from chat.background.prepare import holder_of
from chat.config import Config

STOP_GRACE_S: Final = 2.0  # on top of drain_s
LOOK_S: Final = 0.02


@attrs.frozen(kw_only=True)
class Stopped:
    """What `stop` did: ``stopped``, ``not_running``, or ``failed``; *text* says it."""

    result: Literal["stopped", "not_running", "failed"]
    text: str


def stop(config: Config, *, now: bool = False) -> Stopped:
    """Send SIGTERM to whoever holds the lock and *wait* until it is free, at most drain_s + 2. *now*: nobody is waited for."""
    running = holder_of(config)
    if running is None:
        return Stopped(result="not_running", text=f"chat is not running on {config.data_dir}")
    if not running.pid:
        return Stopped(result="failed", text=f"chat on {config.data_dir} is just starting; try again")
    if running.host != socket.gethostname():
        return Stopped(result="failed", text=f"chat on {config.data_dir} runs on another host ({running.host}), pid {running.pid}")
    try:
        os.kill(running.pid, signal.SIGTERM)
        if now:
            os.kill(running.pid, signal.SIGINT)  # another number, since two of one may become one
    except ProcessLookupError:
        pass  # it has ended just now
    except PermissionError:
        return Stopped(result="failed", text=f"chat (pid {running.pid}) belongs to another user; no right to stop it")
    wait_s = config.limits.drain_s + STOP_GRACE_S
    if wait_free(config.lock_file, wait_s):
        return Stopped(result="stopped", text=f"chat (pid {running.pid}) has stopped")
    return Stopped(result="failed", text=f"chat (pid {running.pid}) is still running after {wait_s:g} s; chat stop --now ends it at once")


def restart(config: Config, ask: Callable[[], Any]) -> str:
    """Have the daemon replaced by a new process; *ask* asks it through the admin socket. *Returns* a line about it. *Waits* for it.

    *Raises* StartRefused with why it was not, or not well; and what *ask* raises.
    """
    before = holder_of(config)
    if before is None:
        raise StartRefused(f"chat is not running on {config.data_dir} (chat start)")
    version = ask()["version"]
    while True:
        running = holder(config.lock_file)
        if running is None:
            raise StartRefused("chat has ended while it restarted; its log says why")
        if running.pid != before.pid and running.addresses:
            return f"chat {version} (pid {running.pid}) goes on for pid {before.pid}"
        if running.pid == before.pid and running.answers > before.answers and running.answer[:1] == ("refused",):
            raise StartRefused(f"the new process failed, the old one (pid {before.pid}) goes on: {' '.join(running.answer[1:])}")
        time.sleep(LOOK_S)
