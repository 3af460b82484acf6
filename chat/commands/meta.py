"""Commands about commands, and the one that takes messages away."""

import time
from typing import Annotated

from msgspec import Meta

from chat.commands.arguments import Command
from chat.commands.context import Answer, Context, Decide
from chat.commands.dispatch import refusal
from chat.commands.registry import command, describe
from chat.errors import ChatError
from chat.rooms.commands import decisions as command_rules
from chat.rooms.moderation import clearing
from chat.rooms.moderation.clearing import AMOUNT_MAX


@command
def help(ctx: Context, command: Command | None = None) -> Answer:
    """List the commands that you may use here, or explain one."""
    prefix = ctx.prefix
    if command is not None:
        refused = refusal(command, ctx.invocation)
        lines = [f"{prefix}{command.usage}", command.help]
        if command.aliases:
            lines.append(f"also: {', '.join(command.aliases)}")
        if refused is not None:
            lines.append(f"not for you here: {refused.message}")
        return Answer("\n".join(lines), describe(command))
    usable = ctx.around.registry.usable(lambda spec: refusal(spec, ctx.invocation))
    width = max((len(spec.usage) for spec in usable), default=0)
    lines = [f"{prefix}{spec.usage:<{width}}  {spec.summary}" for spec in usable]
    return Answer("\n".join(lines), [describe(spec) for spec in usable])


@command
async def command_history(ctx: Context, number: Annotated[int, Meta(ge=1, le=50)] = 20) -> Decide:
    """Show the last commands that you used. Passwords in them are not kept, and nobody else sees them."""
    before = await ctx.around.records.command_history(ctx.account.id, number)

    def decide(ctx: Context) -> Answer:
        found = [*before, *((each.at_ms, each.room, each.line) for each in ctx.invocation.noted())][-number:]
        lines, data = [], []
        for at_ms, room, line in found:
            where = ctx.state.rooms.get(room or 0)
            place = where.conv if where is not None and ctx.account.id in where.members else ""
            lines.append(" ".join(part for part in (time.strftime("%Y-%m-%d %H:%M", time.gmtime(at_ms / 1000)), place, line) if part))
            data.append({"at": at_ms, "channel": place[1:] or None, "line": line})
        return Answer("\n".join(lines) or "you have used no commands yet", data)

    return decide


@command(needs="moderate", where="channel")
async def clear(ctx: Context, amount: Annotated[int, Meta(ge=1, le=AMOUNT_MAX)] = 1) -> Decide:
    """Take away the last messages of this channel, for everybody: their texts are erased, their places stay."""
    room = ctx.here()
    seqs = await ctx.around.records.last_messages(room.id, amount)

    def decide(ctx: Context) -> Answer:
        if ctx.here().id != room.id:
            raise ChatError("not_found", "the channel is another one by now; try again")
        ctx.do(clearing.clear(ctx.account, room, seqs))
        said = "there are no messages to take away" if not seqs else f"took away {len(seqs)} message{'s' if len(seqs) > 1 else ''}"
        return Answer(said, {"channel": room.name, "messages": sorted(seqs)})

    return decide


@command(needs="moderate", where="channel")
def set_prefix(ctx: Context, prefix: str | None = None) -> Answer:
    """Set what commands begin with in this channel, such as !; without one, what they begin with on the server."""
    room = ctx.here()
    effects = command_rules.set_prefix(ctx.account, room, prefix)
    ctx.do(effects)
    now = prefix if prefix is not None else ctx.around.prefix
    return Answer(f"commands in {room.conv} begin with {now}" + ("" if effects else " (as before)"), {"channel": room.name, "prefix": now})


@command(needs="commands")
def reload_commands(ctx: Context) -> Answer:
    """Load the plugins anew: new and changed ones at once, without anybody's connection being touched.

    What a changed plugin is in the middle of ends. One that cannot be loaded keeps the version of before, and you are told why.
    """
    plugins = ctx.around.plugins
    changes = plugins.load()
    problems = [f"{origin}: {problem}" for origin, problem in plugins.problems.items()]
    lines = [*changes, *problems] if changes else ["nothing has changed", *problems]
    return Answer("\n".join(lines), {"changes": changes, "problems": problems})


@command(needs="commands")
def plugins(ctx: Context) -> Answer:
    """List the plugins: their commands, where they come from, and what is wrong with those that could not be loaded."""
    found = ctx.around.plugins
    lines, data = [], []
    for plugin in found.loaded.values():
        lines.append(f"{plugin.shown}, from {plugin.origin}")
        data.append({"plugin": plugin.name, "origin": plugin.origin, "commands": [spec.name for spec in plugin.specs]})
    problems = [f"{origin}: {problem}" for origin, problem in found.problems.items()]
    return Answer("\n".join([*lines, *problems]) or "there are no plugins", {"plugins": data, "problems": problems})
