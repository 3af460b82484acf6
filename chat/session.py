"""The logical session: one login of an account on one device. It outlives its connection by the resume window.

It owns the scope in which its commands run, so that they follow the session and not the socket.
"""

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
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)

    def end(self) -> None:
        """Cancel what runs in its name."""
        self.scope.cancel()
