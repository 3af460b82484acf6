"""Counts of values by size, for who is asked later: what a part keeps as a plain attribute, at the cost of one search in a short list."""

from bisect import bisect_left
from collections.abc import Sequence

import attrs


@attrs.define(eq=False)
class Histogram:
    """``bounds`` are the upper ends of the buckets, rising, each belonging to its bucket; a last bucket takes all above."""

    bounds: Sequence[float]
    counts: list[int] = attrs.field(init=False)  # each bucket for itself
    sum: float = 0.0
    count: int = 0

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value
        self.count += 1

    def quantile(self, q: float) -> float:
        """The upper end of the bucket in which the share *q* (0 to 1) is reached, at most the last bound; 0.0 when nothing was observed."""
        due, seen = q * self.count, 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            seen += count
            if seen >= due and seen:
                return bound
        return float(self.bounds[-1]) if self.count else 0.0
