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

`lock` is the lock, `prepare` takes what a start needs, `launch` runs it, `control` stops it and asks it, `systemd` speaks to systemd.
"""

from chat.background.control import Stopped, restart, stop
from chat.background.launch import log_file, serve, start
from chat.background.lock import DataLock, Running, StartRefused, holder, last_described, take_lock, wait_free
from chat.background.prepare import Prepared, ReadyInfo, Run, check_folder, holder_of, prepare, refusal
from chat.background.rights import no_right
from chat.background.systemd import notify

__all__ = [
    "DataLock",
    "Prepared",
    "ReadyInfo",
    "Run",
    "Running",
    "StartRefused",
    "Stopped",
    "check_folder",
    "holder",
    "holder_of",
    "last_described",
    "log_file",
    "no_right",
    "notify",
    "prepare",
    "refusal",
    "restart",
    "serve",
    "start",
    "stop",
    "take_lock",
    "wait_free",
]
