"""Runs ``chat`` where who connects from 127.0.0.N, N above 1, comes from 203.0.113.N: ``python -m tests.e2e.elsewhere serve …``.

So that a test can come from other addresses than the machine's own, over real sockets, wherever it runs. Nothing in ``chat/`` knows of it.
"""

import sys
from typing import Any


def come_from_elsewhere() -> None:
    from chat.transport.base import Peer

    of = Peer.of.__func__  # type: ignore[attr-defined]

    def moved(cls: type[Peer], address: tuple[Any, ...]) -> Peer:
        host = str(address[0])
        if host.startswith("127.0.0.") and host != "127.0.0.1":
            address = (host.replace("127.0.0.", "203.0.113."), *address[1:])
        found: Peer = of(cls, address)
        return found

    Peer.of = classmethod(moved)  # type: ignore[method-assign, assignment]


def command() -> tuple[str, ...]:
    """How `Server` runs it."""
    return sys.executable, "-m", "tests.e2e.elsewhere"


if __name__ == "__main__":
    from chat.cli import main

    come_from_elsewhere()
    main()
