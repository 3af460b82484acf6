"""A server that measures where its own time goes: ``python -m chat.bench.stages FILE serve …``, for `chat bench` alone.

The parts of the path of a message are wrapped in stopwatches before the server starts; the first SIGUSR1 sets them to zero, the
second writes FILE (seconds of CPU of each part, and of the whole process). SIGUSR2 is the daemon's. The stopwatches cost about a
microsecond each time, so the figures of a measurement come from a run without them.
"""

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

PARTS: Final = ("decode", "decide", "commit", "route", "flush")


class Watch:
    """CPU seconds of each part. A part that runs within another one is taken off that one."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self.begin = time.process_time()
        self._inside = threading.local()

    def wrap(self, owner: Any, name: str, part: str) -> None:
        inner: Callable[..., Any] = getattr(owner, name)
        spent, inside, clock = self.spent, self._inside, time.thread_time

        def timed(*args: Any, **kwargs: Any) -> Any:
            before = getattr(inside, "took", 0.0)  # by other parts, within the one that calls this
            inside.took = 0.0
            start = clock()
            try:
                return inner(*args, **kwargs)
            finally:
                took = clock() - start
                spent[part] += took - inside.took
                inside.took = before + took

        setattr(owner, name, timed)

    def reset(self) -> None:
        self.spent.clear()
        self.begin = time.process_time()

    def write(self, path: str) -> None:
        whole = time.process_time() - self.begin
        spent = {part: self.spent[part] for part in PARTS}
        data = {**spent, "rest": whole - sum(spent.values()), "whole": whole}
        with open(path + ".new", "w") as file:
            json.dump(data, file)
        os.replace(path + ".new", path)


def main() -> None:
    from chat.cli import main as chat
    from chat.protocol.connection import Connection
    from chat.rooms.manager import Manager
    from chat.rooms.router import Router
    from chat.store.sqlite_commit import SqliteWriter
    from chat.transport.outbox import FlushSet

    path = sys.argv.pop(1)
    watch = Watch()
    watch.wrap(Connection, "receive", "decode")
    watch.wrap(Manager, "_take", "decide")
    watch.wrap(SqliteWriter, "commit", "commit")
    watch.wrap(Router, "route", "route")
    watch.wrap(FlushSet, "flush", "flush")
    watch.wrap(FlushSet, "_go_on", "flush")
    calls = iter((watch.reset, lambda: watch.write(path)))
    signal.signal(signal.SIGUSR1, lambda *_: next(calls, watch.reset)())
    sys.argv[0] = "chat"
    chat()


if __name__ == "__main__":
    main()
