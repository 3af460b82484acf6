"""Requests and their answers, over as many connections as it takes: numbers, the queue of what goes out, and who waits for what."""

from typing import Any, Final

import attrs
import trio

from chat.protocol import messages as m
from chat.protocol.fields import evolve

NOT_REPEATED: Final = (m.PasswordChange, m.Logout, m.Answer)  # a second attempt of these would mean something else


class Disconnected(Exception):
    """The connection broke before the answer, and the request is none that may be repeated."""


@attrs.define(eq=False)
class Call:
    """A request whose answer somebody waits for."""

    message: Any
    done: trio.Event = attrs.Factory(trio.Event)
    answer: Any = None

    def settle(self, answer: Any) -> None:
        if not self.done.is_set():
            self.answer = answer
            self.done.set()


class Calls:
    """The requests of one client."""

    def __init__(self) -> None:
        self._calls: dict[int, Call] = {}
        self._outgoing: list[Any] = []
        self._ready = trio.Event()
        self._next = 1
        self._online = False

    def number(self) -> int:
        """A request id that was not used yet."""
        self._next += 1
        return self._next - 1

    def post(self, message: Any) -> int:
        """Queue a message for the writer; an id of 0 is replaced. Does not wait: what is queued is bounded by who waits for answers."""
        if getattr(message, "id", None) == 0:
            message = evolve(message, id=self.number())
        self._outgoing.append(message)
        self._ready.set()
        return getattr(message, "id", 0)

    async def outgoing(self) -> list[Any]:
        """What is to be written now, at least one message."""
        await self._ready.wait()
        self._ready = trio.Event()
        messages, self._outgoing = self._outgoing, []
        return messages

    async def call(self, message: Any) -> Any:
        """The answer to *message*, an `Error` too. *Raises* `Disconnected`, or what ended the client."""
        number = self.number()
        call = self._calls[number] = Call(message)
        try:
            if self._online:
                self.post(evolve(message, id=number))
            await call.done.wait()
        finally:
            del self._calls[number]
        if isinstance(call.answer, Exception):
            raise call.answer
        return call.answer

    def waiting(self, number: Any) -> Call | None:
        """Who waits for the answer with this id."""
        return self._calls.get(number)

    def online(self) -> None:
        """A session is open: what has no answer goes out again."""
        self._online = True
        for number, call in self._calls.items():
            self.post(evolve(call.message, id=number))

    def offline(self) -> None:
        self._online = False
        self._outgoing.clear()
        for call in self._calls.values():
            if isinstance(call.message, NOT_REPEATED):
                call.settle(Disconnected("the connection broke before the answer"))

    def fail(self, error: Exception) -> None:
        for call in self._calls.values():
            call.settle(error)


def single(error: BaseException) -> BaseException:
    """The one error in groups of one: a nursery of ours is nobody else's business."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
