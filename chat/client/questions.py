"""The questions of commands that wait for this account, with a number each that a person can type.

What counts is what the server showed since the session opened: it shows again what is still open, so `opened` drops the rest.
"""

import time
from collections.abc import Callable, Iterator
from typing import Final

import attrs

from chat.protocol import messages as m


@attrs.define(eq=False)
class Open:
    """``number`` stays while the question is open; ``until`` is monotonic seconds."""

    number: int
    message: m.Question
    until: float


class OpenQuestions:
    """The oldest first. ``now``: monotonic seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now: Final = now
        self._open: dict[str, Open] = {}
        self._before: dict[str, int] = {}  # numbers of the connection before: what is shown again keeps its own

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __iter__(self) -> Iterator[Open]:
        now = self.now()
        return iter([question for question in self._open.values() if question.until > now])

    def get(self, id: str) -> Open | None:
        return self._open.get(id)

    def numbered(self, number: int) -> Open | None:
        return next((question for question in self if question.number == number), None)

    def left_s(self, question: Open) -> int:
        return max(0, round(question.until - self.now()))

    def take(self, notice: object) -> None:
        """A question, perhaps shown again, or the end of one; anything else is let pass."""
        if isinstance(notice, m.QuestionClosed):
            self._open.pop(notice.question, None)
        if not isinstance(notice, m.Question):
            return
        self._open = {question.message.question: question for question in self if question.message.question != notice.question} | {
            notice.question: Open(self._number(notice.question), notice, self.now() + notice.expires_in)
        }

    def opened(self) -> None:
        """A session is open: what the server does not show again is over."""
        self._before = {id: question.number for id, question in self._open.items()}
        self._open.clear()

    def _number(self, id: str) -> int:
        """The number that it had, or the lowest that is free."""
        known = self._open.get(id)
        taken = {question.number for question in self}
        if known is not None:
            return known.number
        before = self._before.get(id)
        if before is not None and before not in taken:
            return before
        return next(number for number in range(1, len(taken) + 2) if number not in taken)
