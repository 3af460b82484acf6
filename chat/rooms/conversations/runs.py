"""What `chat.rooms.conversations.questions` keeps: a command at work, what it asks, and what was noticed about it."""

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Final

import attrs

from chat.errors import ChatError
from chat.rooms.state import State

if TYPE_CHECKING:
    from chat.rooms.conversations.questions import Questions

REASONS: Final = {
    "answered": "it has been answered",
    "timeout": "nobody answered in time",
    "cancelled": "it was taken back",
    "asker_gone": "who asked is gone",
    "target_gone": "who was asked is gone",
    "channel_gone": "the channel is gone",
    "command_gone": "the command was switched off or loaded anew",
    "stopping": "the server stops",
    "ended": "the command has ended",
}


@attrs.define(eq=False, kw_only=True)
class Run:
    """An ``async def`` command at work. ``room`` is the channel that it was given in; ``member`` whether the caller was in it then.

    ``cancel`` and ``hurry`` (end it in so many seconds, if it is not done) are set by who runs it. ``ended``: what its request is answered
    instead of a result; ``late``: and when its time is over.
    """

    questions: "Questions"
    name: str
    account: int
    session: str
    room: int | None = None
    member: bool = False
    since: float = 0.0
    ended: ChatError | None = None
    cancel: Callable[[], None] = lambda: None
    hurry: Callable[[float], None] = lambda seconds: None
    late: ChatError | None = None
    open: "list[Question]" = attrs.Factory(list)

    def end(self, error: ChatError, reason: str = "ended") -> None:
        """End it at once: its questions are closed with *reason*, its request is answered with *error*. Idempotent."""
        if self.ended is None:
            self.ended = error
        for question in list(self.open):
            self.questions.close(question, reason)
        self.cancel()


@attrs.define(eq=False, kw_only=True)
class Question:
    """Asked of one person (``account``), of a channel's members (``room``), or of everybody (neither).

    ``place`` is the channel that it is shown in. ``read`` makes a value of what was typed: *Raises* ChatError. ``settled`` is called
    when it is over: ``closed`` says why, ``answers`` are (account, value) as they came. ``how_many`` None: as many as come.
    """

    id: str
    run: Run
    text: str
    until: float
    read: Callable[[str], Any]
    settled: Callable[[], None]
    account: int | None = None
    room: int | None = None
    place: int | None = None
    choices: tuple[str, ...] | None = None
    how_many: int | None = 1
    answers: list[tuple[int, Any]] = attrs.Factory(list)
    closed: str | None = None
    rests_on: tuple[Hashable, ...] = ()

    def concerns(self, account: int, state: State) -> bool:
        """May *account* answer it, as far as who was asked goes?"""
        if self.account is not None:
            return account == self.account
        if self.room is not None:
            room = state.rooms.get(self.room)
            return room is not None and account in room.members
        return True

    def has_answered(self, account: int) -> bool:
        """Of many, each is asked once."""
        return self.account is None and any(account == who for who, _ in self.answers)


@attrs.frozen(kw_only=True)
class Noted:
    """A command did what it should not: held up everybody (how often, for how long at worst), or ran while the memory grew.

    ``where`` it stood when somebody looked: file and line. ``grown_bytes``: by so much, with this command at work; it need not be its own.
    """

    name: str
    times: int = 0
    worst_s: float = 0.0
    where: str = ""
    grown_bytes: int = 0

    def __str__(self) -> str:
        said = []
        if self.times:
            often = "once" if self.times == 1 else f"{self.times} times"
            said.append(f"held up everybody {often}, {self.worst_s:.1f} s at worst" + (f" ({self.where})" if self.where else ""))
        if self.grown_bytes:
            said.append(f"the memory grew by {self.grown_bytes >> 20} MiB while it ran")
        return f"{self.name} {' and '.join(said)}"
