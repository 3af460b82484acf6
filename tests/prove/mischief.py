"""Runs ``chat`` with delivery broken in further ways than tests/e2e/sabotage.py has: ``python -m tests.prove.mischief NAME serve …``."""

import sys
from itertools import count


def delivery_dropped() -> None:
    """Every hundredth live record never reaches its reader, and nobody is told."""
    from chat.transport.outbox import Outbox

    put, number = Outbox.put, count(1)

    def forgetful(self: Outbox, data: bytes) -> bool:
        return True if next(number) % 100 == 0 else put(self, data)

    Outbox.put = forgetful


def live_too_early() -> None:
    """Who resumes is live before the last stretch of what he missed."""
    from chat.rooms.router import Router

    def hasty(self: Router, link: object, cursors: dict) -> list:
        self.attach(link)
        return []

    Router.finish_replay = hasty


def replayed_again() -> None:
    """The last stretch begins with what was replayed already."""
    from chat.rooms.router import Router

    finish = Router.finish_replay

    def stuttering(self: Router, link: object, cursors: dict) -> list:
        return finish(self, link, {conv: max(1, seq - 1) for conv, seq in cursors.items()})

    Router.finish_replay = stuttering


def chunk_reversed() -> None:
    """What came in one piece is decided from its end."""
    from chat.rooms.desk import Desk

    take = Desk.take
    Desk.take = lambda self, link, items: take(self, link, items[::-1])


MISCHIEF = {f.__name__: f for f in (delivery_dropped, live_too_early, replayed_again, chunk_reversed)}


def command(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.prove.mischief", name)


if __name__ == "__main__":
    from chat.cli import main

    MISCHIEF[sys.argv.pop(1)]()
    main()
