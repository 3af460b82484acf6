"""When to try again: exponential back-off with full jitter, so that a thousand clients of a restarted server do not come at once."""

import random
from typing import Final, Literal

import attrs

RETRY_LATER: Final = frozenset(
    {"rate_limited", "busy", "shutting_down", "indeterminate", "storage_unavailable", "timeout", "slow_consumer"}
)  # refusals that are none of the request's fault: it is repeated
LOG_IN_LATER: Final = RETRY_LATER | {"storage_full", "internal_error"}  # refusals that say nothing of the session or the password


@attrs.frozen(kw_only=True)
class Status:
    """How it stands with the connection; *why* is for a person, *retry_s* when the next attempt is."""

    state: Literal["connecting", "waiting", "greeted", "online", "ended"]
    why: str = ""
    retry_s: float = 0.0


@attrs.define
class Backoff:
    """Delays in seconds: each try may wait up to *factor* times longer than the one before, from *first* up to *most*."""

    first: float = 0.25
    factor: float = 1.6
    most: float = 20.0
    _tries: int = attrs.field(default=0, init=False)
    _random: random.Random = attrs.field(factory=random.SystemRandom, init=False, repr=False)

    def next_s(self, retry_after: float | None = None) -> float:
        """The next delay. *retry_after*: the server's own word, never undercut, and stretched by up to a quarter."""
        limit = min(self.most, self.first * self.factor**self._tries)
        self._tries = min(self._tries + 1, 64)
        delay = limit * self._random.uniform(0.5, 1.0)
        if retry_after is not None and retry_after > 0:
            delay = max(delay, min(retry_after, 3600.0) * self._random.uniform(1.0, 1.25))
        return delay

    def reset(self) -> None:
        self._tries = 0
