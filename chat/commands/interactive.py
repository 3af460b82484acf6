"""Asking people from a command: ``await ctx.ask("Pick a number", parse=int)``.

Theory of operation
-------------------
`ask` opens a `chat.rooms.conversations.runs.Question`, and waits until it is over or its time is. Who may answer (``answers``, beside it)
and what ends it early (``questions``) is decided there, in the order of everything else. What it comes to for a command:

- an answer that will not do (none of *choices*, or *parse* raises ValueError) is refused to who gave it, and the waiting goes on;
- `QuestionClosed` is raised where nobody answered in time, who was asked is gone, the channel is gone, or somebody took the question
  back; a command that does not catch it is answered with its text, which is made for people;
- where the asker itself is gone, or the command is switched off, or the server stops, the command is cancelled, as Trio does it: at its
  ``await``, with ``finally`` blocks run.

However the waiting ends, the question is over: nobody sees a form that leads nowhere.
"""

import inspect
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs
import trio

from chat.errors import ChatError
from chat.rooms.conversations.runs import REASONS, Run
from chat.rooms.state import Account, Room

CHOICES_MAX: Final = 25
CHOICE_CHARACTERS: Final = 100
QUESTION_CHARACTERS: Final = 2000
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # no text on the wire has them
_CODES: Final = {"timeout": "timeout", "target_gone": "not_found", "channel_gone": "removed", "cancelled": "removed"}
_TEXTS: Final = {
    "timeout": "nobody answered in time",
    "target_gone": "{who} is gone, and has not answered",
    "channel_gone": "the channel is gone",
    "cancelled": "the question was taken back",
}


@attrs.frozen
class Everyone:
    """Everybody who is online: ``of=everyone``."""


everyone: Final = Everyone()


@attrs.frozen
class Answered:
    """What one of many answered. ``user`` is an account with its ``name``, ``value`` what *parse* or *choices* made of the text."""

    user: Any
    value: Any


class QuestionClosed(ChatError):
    """A question ended without its answer. ``reason``: timeout, target_gone, channel_gone, cancelled; ``answers`` are those that came."""

    def __init__(self, reason: str, who: str = "who was asked", answers: Iterable[Answered] = ()) -> None:
        super().__init__(_CODES.get(reason, "removed"), _TEXTS.get(reason, REASONS.get(reason, reason)).format(who=who))
        self.reason = reason
        self.answers = list(answers)


async def ask(
    run: Run,
    text: str,
    *,
    of: Account | Room | Everyone,
    choices: Iterable[Any] | None = None,
    parse: Callable[[str], Any] | None = None,
    timeout: float,  # noqa: ASYNC109 - it is the question's, which people see
    how_many: int | None = 1,
) -> Any:
    """What `chat.commands.context.Context.ask` says, with *timeout* in seconds. *Waits* for people.

    *Raises* QuestionClosed; ChatError busy where too much is asked already; TypeError, ValueError for arguments that make no sense.
    *If cancelled*: the question is over.
    """
    text = _checked(text)
    offered = _offered(choices)
    if not (isinstance(timeout, int | float) and 0 < timeout < math.inf):
        raise ValueError(f"timeout is a number of seconds above 0, not {timeout!r}")
    if how_many is not None and (not isinstance(how_many, int) or how_many < 1):
        raise ValueError(f"how_many is 1 or more, or None for all that come in time, not {how_many!r}")
    target = {}
    match of:
        case Account():
            target["account"] = of.id
        case Room():
            target["room"] = of.id
        case Everyone():
            pass
        case _:
            raise TypeError(f"of is a person, a channel or everyone, not {type(of).__name__}")
    over = trio.Event()
    now = trio.current_time()
    question = run.questions.open(
        run,
        text,
        left_s=timeout,
        read=_reader(offered, parse),
        settled=over.set,
        choices=tuple(offered) if offered is not None else None,
        how_many=how_many,
        **target,
    )
    try:
        run.questions.wake()
        with trio.move_on_at(now + timeout):
            await over.wait()
        run.questions.close(question, "timeout")
    finally:
        run.questions.close(question, "ended")
        run.questions.wake()
    if run.ended is not None:  # its scope is cancelled: it goes no further than this
        await trio.sleep_forever()
    answers = [Answered(run.questions.person(account), value) for account, value in question.answers]
    if question.closed == "answered" or (question.closed == "timeout" and how_many != 1):
        if how_many != 1:
            return answers
        return answers[0].value if isinstance(of, Account) else answers[0]
    raise QuestionClosed(question.closed or "ended", of.name if isinstance(of, Account) else "who was asked", answers)


def _checked(text: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ValueError("a question has a text")
    if len(text) > QUESTION_CHARACTERS:
        raise ChatError("bad_request", f"a question has at most {QUESTION_CHARACTERS} characters, this one has {len(text)}")
    return _CONTROL.sub("", text)


def _offered(choices: Iterable[Any] | None) -> dict[str, Any] | None:
    """What is shown, and the value that it stands for."""
    if choices is None:
        return None
    offered = {_shown(choice): choice for choice in choices}
    if not 0 < len(offered) <= CHOICES_MAX:
        raise ValueError(f"a question has 1 to {CHOICES_MAX} choices, not {len(offered)}")
    return offered


def _shown(choice: Any) -> str:
    shown = _CONTROL.sub("", " ".join(str(choice).split()))
    if not 0 < len(shown) <= CHOICE_CHARACTERS:
        raise ValueError(f"a choice has 1 to {CHOICE_CHARACTERS} characters: {shown[:CHOICE_CHARACTERS]!r}")
    return shown


def _reader(offered: dict[str, Any] | None, parse: Callable[[str], Any] | None) -> Callable[[str], Any]:
    """Makes a value of what somebody typed. Of a choice it is the choice itself, or with *parse* what that makes of it."""
    if parse is not None and (not callable(parse) or inspect.iscoroutinefunction(parse)):
        raise TypeError("parse is a plain function of one text")
    folded = {shown.casefold(): shown for shown in offered} if offered is not None else {}

    def read(text: str) -> Any:
        text = text.strip()
        if offered is not None:
            shown = folded.get(" ".join(text.split()).casefold())
            if shown is None:
                raise ChatError("bad_request", f"answer one of these: {', '.join(offered)}")
            if parse is None:
                return offered[shown]
            text = shown
        if parse is None:
            return text
        try:
            return parse(text)
        except ValueError as error:
            if parse in _EXPECTED:
                raise ChatError("bad_request", f"{_EXPECTED[parse]} is expected, not {text[:64]!r}") from None
            raise ChatError("bad_request", str(error)[:400] or f"{text[:64]!r} will not do") from None

    return read


_EXPECTED: Final[dict[Any, str]] = {int: "a whole number", float: "a number"}
