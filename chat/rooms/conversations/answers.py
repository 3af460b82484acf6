"""Deciding answers to the questions of commands: whether this person may (still) answer, and whether the answer will do."""

from typing import Any, Final

from chat.errors import ChatError
from chat.protocol import messages as m
from chat.rooms import items as it
from chat.rooms.conversations.running import refusal_for
from chat.rooms.desk import Desk, Handler
from chat.rooms.policy import take


def answer(desk: Desk, link: it.Connection, request: m.Answer) -> None:
    """*Raises* ChatError not_found (over, or none of one's business), forbidden (muted there), rate_limited, bad_request (it will not
    do, and the question stays open)."""
    question = desk.questions.get(request.question)
    if question is None or not question.concerns(link.account, desk.state):
        raise ChatError("not_found", "there is no such question (any more)")
    if question.has_answered(link.account):
        raise ChatError("bad_request", "you have answered this question")
    place = desk.state.rooms.get(question.place) if question.place is not None else None
    if place is not None and place.rules is not None:
        muted = place.rules.muted(place.conv, link.account, desk.clock.now_ms(), desk.state.name_of)
        if muted is not None:
            raise muted
    take(desk.rates.of(link.account).commands, desk.clock.now(), "answers")
    try:
        value = question.read(request.text)
    except BaseException as bug:  # the command's own code
        raise refusal_for(question.run.name, bug) from bug
    desk.answer(link, request.id, lambda outcome: m.Ok(id=request.id))
    desk.questions.give(question, link.account, value)


HANDLERS: Final[dict[type[Any], Handler]] = {m.Answer: answer}
