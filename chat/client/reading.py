"""What somebody at a terminal has read, and what waits to be: the read markers, which all sessions of the account share.

A terminal does not know whether anybody looks at it, and one that stands open at home must not take the news away from a phone. So
what was shown counts as read once its owner types a line. In the other direction: what another session has read is not counted as
unread here; it is still shown at the next switch, since this terminal has not shown it.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import attrs

from chat.client.calls import Disconnected
from chat.client.client import Client
from chat.client.keeper import SessionLost
from chat.errors import ChatError
from chat.protocol import messages as m

KEPT: Final = 200  # messages of a conversation that wait to be shown; more are in the history


class Reading:
    """*start* runs a task of the console. *Owns* the messages of conversations that are not in front."""

    def __init__(self, client: Client, start: Callable[..., None]) -> None:
        self._client = client
        self._start = start
        self._waiting: dict[str, deque[Any]] = {}
        self._shown: dict[str, int] = {}  # up to where; not yet told

    def keep(self, message: m.Message) -> None:
        """It came to a conversation that is not in front."""
        self._waiting.setdefault(message.conv, deque(maxlen=KEPT)).append(message)

    def take(self, conv: str) -> "deque[Any]":
        """What waits there, oldest first; it is going to be shown."""
        return self._waiting.pop(conv, deque())

    def take_away(self, conv: str, seq: int) -> None:
        """One of them was taken away by a moderator."""
        waiting = self._waiting.get(conv)
        for at, message in enumerate(waiting or ()):
            if message.seq == seq and waiting is not None:
                waiting[at] = attrs.evolve(message, text="", deleted=True)

    def forget(self, conv: str) -> None:
        self._waiting.pop(conv, None)

    def counts(self) -> list[tuple[str, int]]:
        """How many are unread, of each conversation where there are any."""
        markers = self._client.read_markers
        found = ((conv, sum(each.seq > markers.get(conv, 0) for each in waiting)) for conv, waiting in sorted(self._waiting.items()))
        return [(conv, number) for conv, number in found if number]

    def shown(self, conv: str, seq: int | None) -> None:
        """A line of *conv* is on the screen."""
        if seq is not None and seq > max(self._shown.get(conv, 0), self._client.read_markers.get(conv, 0)):
            self._shown[conv] = seq

    def typed(self) -> None:
        """Somebody is here: what is on the screen has been read."""
        if self._shown:
            shown, self._shown = self._shown, {}
            self._start(self._tell, shown)

    async def _tell(self, shown: dict[str, int]) -> None:
        for conv, seq in shown.items():
            with suppress(ChatError, Disconnected, SessionLost):  # gone, or not a member any more: nothing hangs on it
                await self._client.mark_read(conv, seq)

    async def catch_up(self, front: str | None) -> None:
        """At the start: what came since the markers to channels other than *front* waits too. *Waits* for the server."""
        client = self._client
        for conv, marker in list(client.read_markers.items()):
            begins = client.position(conv)  # what comes from there on, the reader gets
            if conv == front or not conv.startswith("#") or begins is None or begins - 1 <= marker:
                continue
            with suppress(ChatError, Disconnected):
                records = await client.history(conv, limit=KEPT, after=max(marker, begins - 1 - KEPT), before=begins)
                older = [record for record in records if isinstance(record, m.Message)]
                self._waiting[conv] = deque([*older, *self.take(conv)], maxlen=KEPT)
                if not self._waiting[conv]:
                    del self._waiting[conv]
