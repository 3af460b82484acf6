"""The logical session: one login of an account on one device. It outlives its connection by the resume window.

It owns the scopes in which its commands run, so that they follow the session and not the socket.
"""

import weakref

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
    _ended: bool = False
    _scopes: "weakref.WeakSet[trio.CancelScope]" = attrs.Factory(weakref.WeakSet)

    @property
    def scope(self) -> trio.CancelScope:
        """A new scope for one task in its name: a scope can be entered once only. Cancelled already where the session has ended."""
        scope = trio.CancelScope()
        self._scopes.add(scope)
        if self._ended:
            scope.cancel()
        return scope

    def end(self) -> None:
        """Cancel what runs in its name."""
        self._ended = True
        for scope in self._scopes:
            scope.cancel()
