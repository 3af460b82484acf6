"""What is left of a process that somebody waits for, when the daemon in it has handed over to another: ``relay.py LOCK_FILE``.

It passes signals on to whoever holds the data folder, and ends as the last of its descendants does. As a subreaper it becomes the
parent of each next one when the one before ends. Standard library only, and nothing of chat: it may be of another version.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import types

PR_SET_CHILD_SUBREAPER = 36
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


def relay(lock_file: str) -> int:
    """*Returns* the exit status of the last descendant."""

    def pass_on(number: int, _frame: types.FrameType | None) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError), open(lock_file, "rb") as file:
            pid = int(json.loads(file.read())["pid"])
            if pid > 1 and pid != os.getpid():
                os.kill(pid, number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    with contextlib.suppress(OSError, AttributeError):  # not Linux: a grandchild's end is not seen then
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    status = 0
    while True:
        try:
            _, found = os.waitpid(-1, 0)
        except ChildProcessError:
            return status
        status = os.waitstatus_to_exitcode(found)
        status = 128 - status if status < 0 else status


if __name__ == "__main__":
    sys.exit(relay(sys.argv[1]))
