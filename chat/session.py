"""The logical session: one login of an account on one device. It outlives its connection by the resume window.

What runs in its name (an ``async def`` command) follows the session and not the socket.
"""

from collections.abc import Awaitable, Callable

import attrs
import trio

from chat.rooms.items import Connection


@attrs.define(eq=False)
class Session:
    """``link`` is its connection, None while it has none; ``gone_at`` (monotonic seconds) is since when."""

    id: str
    account: int
    link: Connection | None
    gone_at: float | None = None
    _ended: bool = attrs.field(default=False, init=False)
    _scopes: tuple[trio.CancelScope, ...] = attrs.field(default=(), init=False)

    async def run(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run *task* in its name: it is cancelled when the session ends, at once if it has ended. Several may run side by side."""
        with trio.CancelScope() as scope:
            self._scopes += (scope,)
            if self._ended:
                scope.cancel()
            try:
                await task()
            finally:
                self._scopes = tuple(other for other in self._scopes if other is not scope)

    def end(self) -> None:
        """Cancel what runs in its name, and whatever will."""
        self._ended = True
        for scope in self._scopes:
            scope.cancel()
