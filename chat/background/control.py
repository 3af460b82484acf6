"""Stopping a daemon from another process."""

import os
import signal
import socket
from typing import Final, Literal

import attrs

from chat.background.lock import wait_free
from chat.background.prepare import holder_of
from chat.config import Config

STOP_GRACE_S: Final = 2.0  # on top of drain_s


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
    if wait_free(config.lock_file, wait_s):
        return Stopped(result="stopped", text=f"chat (pid {running.pid}) has stopped")
    return Stopped(result="failed", text=f"chat (pid {running.pid}) is still running after {wait_s:g} s; chat stop again ends it at once")
