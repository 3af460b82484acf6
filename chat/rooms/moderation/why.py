"""The rule that a refusal rests on. What is made of it for the person: `chat.rooms.moderation.refusals`."""

import attrs

from chat.errors import ChatError


@attrs.frozen(kw_only=True)
class Why:
    """``rule`` is a word for programs: the name of a right, or of the command that made the rule (mute, slow-mode, lockdown …).

    ``room`` None: it is the server's. ``by`` set it, ``until_ms`` is its end, where there are such. ``ask``: somebody may lift it, and who
    is refused is told their names.
    """

    rule: str
    room: int | None = None
    by: int | None = None
    until_ms: int | None = None
    ask: bool = True


def refused(
    message: str,
    rule: str,
    *,
    room: int | None = None,
    by: int | None = None,
    until_ms: int | None = None,
    code: str = "forbidden",
    retry_after: float | None = None,
    ask: bool = True,
) -> ChatError:
    """A refusal whose message says which rule, whose and for how long; whom to ask is added where it is answered."""
    error = ChatError(code, message, retry_after=retry_after)
    error.why = Why(rule=rule, room=room, by=by, until_ms=until_ms, ask=ask)
    return error
