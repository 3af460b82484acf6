"""Token buckets: how often an account may do something. Pure: the time is passed in.

A bucket is one number, the time at which it will be full again (GCRA, the "leaky bucket as a meter" of ITU-T I.371): taking a
token moves that time one interval on, and a token is there as long as it lies less than ``burst`` intervals ahead. No timer fills
anything, and a bucket whose time has passed cannot be told from a new one: it may be forgotten.
"""

from typing import Final

EPSILON_S: Final = 1e-6  # who waited exactly as long as told is let in: monotonic clocks are floats of up to 1e7 seconds and more

EVER: Final = float("-inf")  # one for all buckets that nobody has taken from


class Pace:
    """*burst* tokens at once (≥ 1), then *per_second* (> 0) of them come back each second. All accounts share it."""

    __slots__ = ("interval_s", "span_s")

    def __init__(self, burst: float, per_second: float) -> None:
        if burst < 1 or not per_second > 0:
            raise ValueError(f"a bucket needs burst ≥ 1 and per_second > 0, not {burst!r} and {per_second!r}")
        self.interval_s: Final = 1.0 / per_second
        self.span_s: Final = burst * self.interval_s


class TokenBucket:
    """Full at first."""

    __slots__ = ("_full_at", "_pace")

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._full_at = EVER

    def take(self, now: float) -> float:
        """Take a token. *now* is monotonic, in seconds.

        *Returns* 0.0; or, when there is none, the seconds to wait, and then nothing is taken.
        """
        full_at = max(self._full_at, now) + self._pace.interval_s
        wait_s = full_at - now - self._pace.span_s
        if wait_s > EPSILON_S:
            return wait_s
        self._full_at = full_at
        return 0.0

    def give_back(self) -> None:
        """Undo a `take` that was granted: what it was for did not happen. There are never more tokens than *burst*."""
        self._full_at -= self._pace.interval_s

    def is_full(self, now: float) -> bool:
        """Whether a new bucket would do the same, so that this one may be forgotten."""
        return self._full_at <= now
