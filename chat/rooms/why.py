"""The rule that a refusal rests on. What is made of it for the person: `chat.rooms.refusals`."""

import attrs

from chat.errors import ChatError


@attrs.frozen(kw_only=True)
class Why:
    """``rule`` is a word for programs: the name of a right, or mute, channel-ban, ban, address-ban … ``room`` None: the server's.

    ``by`` set it, ``until_ms`` is its end, where there are such.
    """

    rule: str
    room: int | None = None
    by: int | None = None
    until_ms: int | None = None


def refused(
    message: str,
    rule: str,
    *,
    room: int | None = None,
    by: int | None = None,
    until_ms: int | None = None,
    code: str = "forbidden",
    retry_after: float | None = None,
) -> ChatError:
    """A refusal whose message says which rule, whose and for how long; whom to ask is added where it is answered."""
    error = ChatError(code, message, retry_after=retry_after)
    error.why = Why(rule=rule, room=room, by=by, until_ms=until_ms)
    return error
