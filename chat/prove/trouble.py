"""What the world does to a device, and when: drawn beforehand from a generator of its own, so that a seed gives the same schedule again."""

import hashlib
import random
from collections.abc import Iterable
from typing import Final

import attrs

CUT, END, VANISH, LATE, MOVE, NAP, DEAF, FLOOD, REPEAT = "cut", "end", "vanish", "late", "move", "nap", "deaf", "flood", "repeat"
MEANING: Final = {
    CUT: "connections cut with a RST",
    END: "closed on one side",
    VANISH: "black-holed, then dropped",
    LATE: "black-holed, what they held came late",
    MOVE: "moves to another address",
    NAP: "naps",
    DEAF: "times somebody stopped reading",
    FLOOD: "floods",
    REPEAT: "rounds of sending old texts again",
}
# How often, compared with each other: of a device that talks, and of one that mostly listens.
TALKER: Final = {CUT: 3.0, END: 2.0, VANISH: 2.0, LATE: 1.0, MOVE: 3.0, NAP: 1.0, FLOOD: 0.8, REPEAT: 3.0}
LISTENER: Final = {CUT: 2.0, END: 1.0, VANISH: 1.0, LATE: 1.0, MOVE: 2.0, NAP: 1.5, DEAF: 4.0, REPEAT: 1.0}
AMOUNT: Final = {  # seconds or texts, at least and at most
    CUT: (0.0, 0.0),
    END: (0.0, 0.0),
    VANISH: (0.2, 1.2),
    LATE: (0.2, 1.2),
    MOVE: (0.0, 0.0),
    NAP: (0.3, 5.0),
    DEAF: (1.0, 9.0),  # in about 5 s one is cut off, and notices it
    FLOOD: (90, 160),
    REPEAT: (3, 15),
}
GENTLY: Final = 0.25  # of the ends of the server are by SIGTERM; the first is not
PAUSE_S: Final = 2.2  # between two troubles of one device, on average


@attrs.frozen
class Trouble:
    at_s: float
    kind: str
    amount: float


@attrs.frozen
class Kill:
    """Who talks says *texts* at once; the server dies *delay_s* later. *gently*: by SIGTERM, so that it may drain."""

    at_s: float
    texts: int
    delay_s: float
    gently: bool


def troubles(draw: random.Random, seconds: float, weights: dict[str, float], *, tunnel: bool) -> list[Trouble]:
    """*tunnel*: whether the device's connections lead through the proxy, so that they can be black-holed."""
    kinds = [kind for kind in weights if tunnel or kind not in (VANISH, LATE)]
    found = []
    at_s = draw.uniform(0.3, PAUSE_S)
    while at_s < seconds:
        kind = draw.choices(kinds, [weights[kind] for kind in kinds])[0]
        found.append(Trouble(at_s, kind, draw.uniform(*AMOUNT[kind])))
        at_s += 0.2 + draw.expovariate(1 / PAUSE_S)
    return found


def kills(draw: random.Random, seconds: float, count: int) -> list[Kill]:
    """Spread over the run: one in each stretch of it, at a random moment."""
    stretch = seconds / (count + 1) if count else seconds
    return [
        Kill(stretch * (n + draw.uniform(0.6, 1.2)), draw.randint(3, 8), draw.uniform(0, 0.02), n > 0 and draw.random() < GENTLY)
        for n in range(count)
    ]


def fingerprint(schedule: Iterable[object]) -> str:
    """Six characters that tell two schedules apart."""
    return hashlib.sha256("\n".join(map(repr, schedule)).encode()).hexdigest()[:6]
