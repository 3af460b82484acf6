"""Commands about commands."""

from chat.commands.arguments import Command
from chat.commands.context import Answer, Context
from chat.commands.dispatch import refusal
from chat.commands.registry import command, describe


@command
def help(ctx: Context, command: Command | None = None) -> Answer:
    """List the commands that you may use here, or explain one."""
    prefix = ctx.around.prefix
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
