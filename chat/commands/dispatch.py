"""From a line to what it does: finds the command, checks that it is enabled and allowed here, parses, calls."""

from collections.abc import Callable
from typing import Any, Final

import attrs

from chat.commands.context import Answer, Context, Surroundings
from chat.commands.registry import Call, CommandSpec, Permit, Registry, describe, misplaced
from chat.errors import ChatError
from chat.rooms import policy
from chat.rooms.items import Done, Invocation, Later
from chat.rooms.questions import Run
from chat.rooms.state import Account, Room

ANYBODY: Final = "member"  # what a command needs that everybody may use
RIGHTS: Final = (ANYBODY, *policy.RIGHTS)
ROLES: Final = ("owner", "moderator", "member", "admin", "user")


@attrs.frozen
class _Names:
    """What names in arguments stand for, as the person who typed them may see it."""

    invocation: Invocation
    registry: Registry

    def user(self, name: str) -> Account:
        return self.invocation.state.find_account(name)

    def channel(self, name: str) -> Room:
        return self.invocation.state.find_room(name, self.invocation.account.id)

    def role(self, name: str) -> str:
        if name.lower() not in ROLES:
            raise ChatError("bad_request", f"there is no role {name[:64]!r}; there are {', '.join(ROLES)}")
        return name.lower()

    def command(self, name: str) -> CommandSpec:
        return self.registry.find(name, lambda spec: refusal(spec, self.invocation))


class Dispatcher:
    """Implements `chat.rooms.items.Commands`."""

    def __init__(self, around: Surroundings) -> None:
        self._around: Final = around
        self._registry: Final = around.registry

    def start(self, invocation: Invocation) -> Done | Later:
        names = _Names(invocation, self._registry)
        call = self._registry.parse(invocation.text, resolver=names, permit=self._permit(invocation))
        context = Context(invocation=invocation, around=self._around)
        if call.spec.inline:
            return _done(context, call.run(context))
        return Later(name=call.spec.name, run=lambda run: self._run(call, context, run), room=invocation.room)

    def describe(self, invocation: Invocation) -> list[dict[str, Any]]:
        return [describe(spec) for spec in self._registry.usable(self._permit(invocation))]

    async def _run(self, call: Call, context: Context, run: Run) -> Callable[[Invocation], Done]:
        context.run = run
        value = await call.run(context)

        def decide(invocation: Invocation) -> Done:
            """At its place in the order: whether it is still allowed is asked again."""
            if refusal := self._permit(invocation)(call.spec):
                raise refusal
            now = Context(invocation=invocation, around=self._around)
            return _done(now, value(now) if callable(value) else value)

        return decide

    def _permit(self, invocation: Invocation) -> Permit:
        return lambda spec: refusal(spec, invocation)


def refusal(spec: CommandSpec, invocation: Invocation) -> ChatError | None:
    """Why this person may not use the command here and now; None: it may."""
    if spec.name in invocation.state.disabled_commands:
        return ChatError("forbidden", f"{spec.name} is switched off on this server (enable-command {spec.name})")
    if refused := misplaced(spec, in_channel=invocation.room is not None):
        return refused
    if spec.needs != ANYBODY:
        try:
            policy.require(spec.needs, invocation.account, invocation.room)
        except ChatError as refused:
            return refused
    return None


def _done(context: Context, value: str | Answer) -> Done:
    answer = value if isinstance(value, Answer) else Answer(value)
    if not isinstance(answer.text, str):
        raise TypeError(f"a command returns a text or an Answer, not {type(answer.text).__name__}")
    return Done(text=answer.text, data=answer.data, effects=tuple(context.effects))
