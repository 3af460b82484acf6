"""From a line to what it does: finds the command, checks that it is enabled and allowed here, parses, calls."""

from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any, Final

import attrs
import trio

from chat.commands.arguments import masked
from chat.commands.context import Answer, Context, Surroundings
from chat.commands.facade import Background
from chat.commands.facade import Context as Facade
from chat.commands.plain import channel_of, user_of
from chat.commands.plugins import BackgroundTask, Plugin
from chat.commands.registry import Call, CommandSpec, Permit, Registry, describe, misplaced
from chat.errors import ChatError
from chat.log import get_logger, new_error_id
from chat.protocol.messages import CommandsChanged
from chat.rooms import policy
from chat.rooms.conversations.runs import Run
from chat.rooms.items import Done, Host, Invocation, Later
from chat.rooms.moderation.why import refused
from chat.rooms.state import Account, Room

log = get_logger("chat.plugins")
LINE_KEPT: Final = 200  # characters of a command in its author's history
TASK_PAUSE_S: Final = 0.5  # before a background task that failed is started again, twice that the first time
TASK_PAUSE_MAX_S: Final = 60.0
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
        self._host: Host  # set by `attach`
        self._nursery: trio.Nursery | None = None
        around.plugins.on_loaded = self._start

    @property
    def _registry(self) -> Registry:
        return self._around.registry

    def attach(self, host: Host) -> None:
        self._host = host
        self._around.plugins.on_unloaded = lambda names: host.questions.end_commands(names, _unloaded())
        self._around.plugins.on_changed = lambda: host.tell(None, CommandsChanged())

    def start(self, invocation: Invocation) -> Done | Later:
        names = _Names(invocation, self._registry)
        call = self._registry.parse(invocation.text, resolver=names, permit=self._permit(invocation))
        context = Context(invocation=invocation, around=self._around)
        given: Context | Facade = context
        plugin: Plugin | None = call.spec.plugin
        if plugin is not None:
            given = Facade(self._host, plugin.name, invocation)
            call = Call(spec=call.spec, arguments={name: _picture(value, invocation) for name, value in call.arguments.items()})
        line = _line(call.spec, invocation.text)
        if call.spec.inline:
            return _done(context, call.run(given), line, plugin)
        return Later(name=call.spec.name, run=lambda run: self._run(call, given, run, line), room=invocation.room)

    # ------------------------------------------------------------ plugins

    def reload(self, modules: Iterable[str] | None = None) -> list[str]:
        """Load plugins anew, without touching anybody's connection. *modules*: those of the configuration, None: as before.

        *Returns* what changed and what could not be loaded, a line each.
        """
        if modules is not None:
            self._around.plugins.modules = tuple(modules)
        return self._around.plugins.reload()

    @property
    def problems(self) -> dict[str, str]:
        """Where a plugin could not be loaded the last time, and why."""
        return self._around.plugins.problems

    async def run(self) -> None:
        """The background tasks of plugins, those of later ones too, until it is cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for plugin in self._around.plugins.loaded.values():
                self._start(plugin)
            await trio.sleep_forever()

    def _start(self, plugin: Plugin) -> None:
        if self._nursery is not None:
            for task in plugin.tasks:
                self._nursery.start_soon(self._run_task, plugin, task)

    async def _run_task(self, plugin: Plugin, task: BackgroundTask) -> None:
        """Its failure is its own: told in the log, and tried again, each time after twice as long a pause."""
        pause_s = TASK_PAUSE_S
        with plugin.scope():
            while True:
                started_s = trio.current_time()
                try:
                    await task.function(Background(self._host, plugin.name))
                    return
                except (trio.Cancelled, GeneratorExit):
                    raise
                except BaseException as bug:  # SystemExit too: whatever a plugin raises is its own
                    log.error("background_failed", plugin=plugin.name, task=task.name, error_id=new_error_id(), exc_info=bug)
                pause_s = TASK_PAUSE_S if trio.current_time() - started_s > TASK_PAUSE_MAX_S else min(2 * pause_s, TASK_PAUSE_MAX_S)
                await trio.sleep(pause_s)

    # ------------------------------------------------------------ commands

    def describe(self, invocation: Invocation) -> list[dict[str, Any]]:
        return [describe(spec) for spec in self._registry.usable(self._permit(invocation))]

    async def _run(self, call: Call, given: "Context | Facade", run: Run, line: str) -> Callable[[Invocation], Done]:
        plugin: Plugin | None = call.spec.plugin
        given.run = run
        value = await call.run(given)

        def decide(invocation: Invocation) -> Done:
            """At its place in the order: whether it is still allowed is asked again."""
            if refusal := self._permit(invocation)(call.spec):
                raise refusal
            now = Context(invocation=invocation, around=self._around)
            return _done(now, value(now) if plugin is None and callable(value) else value, line, plugin)

        return decide

    def code(self) -> dict[CodeType, str]:
        """The code of every command's function, and its name: to tell whose code is running."""
        return {spec.function.__code__: spec.name for spec in self._registry}

    def _permit(self, invocation: Invocation) -> Permit:
        return lambda spec: refusal(spec, invocation)


def refusal(spec: CommandSpec, invocation: Invocation) -> ChatError | None:
    """Why this person may not use the command here and now; None: it may."""
    if spec.name in invocation.state.disabled_commands:
        return refused(f"{spec.name} is switched off on this server (enable-command {spec.name})", "disable-command")
    if invocation.room is not None and spec.name in invocation.room.disabled_commands:
        off = f"{spec.name} is switched off in {invocation.room.conv} (enable-command {spec.name} here)"
        return refused(off, "disable-command", room=invocation.room.id)
    if wrong := misplaced(spec, in_channel=invocation.room is not None):
        return wrong
    if spec.needs != ANYBODY:
        try:
            policy.require(spec.needs, invocation.account, invocation.room)
        except ChatError as error:
            return error
    return None


def _unloaded() -> ChatError:
    return ChatError("removed", "the command was taken away or loaded anew while it ran, and has ended; give it again")


def _picture(value: Any, invocation: Invocation) -> Any:
    """An argument as a plugin is given it: nothing of the server's insides."""
    match value:
        case Account():
            return user_of(invocation.state, value, invocation.room)
        case Room():
            return channel_of(value)
        case CommandSpec():
            return value.name
    return value


def _line(spec: CommandSpec, text: str) -> str:
    """The command as its author's history keeps it."""
    words = text.split(maxsplit=1)
    line = f"{spec.name} {masked(spec.arguments, words[1] if len(words) == 2 else '')}".rstrip()
    return line if len(line) <= LINE_KEPT else line[: LINE_KEPT - 1] + "…"


def _done(context: Context, value: "str | Answer | None", line: str, plugin: Plugin | None = None) -> Done:
    """What a command returned. A plugin's need not say anything: it may have said it all in the channel."""
    if value is None and plugin is not None:
        value = ""
    answer = value if isinstance(value, Answer) else Answer(value)  # type: ignore[arg-type]
    if not isinstance(answer.text, str):
        raise TypeError(f"a command returns a text or an Answer, not {type(answer.text).__name__}")
    return Done(text=answer.text, data=answer.data, effects=tuple(context.effects), line=line)
