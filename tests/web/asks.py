"""A module of commands that the servers of these tests load: they ask."""

from chat.commands.arguments import User
from chat.commands.context import Context
from chat.commands.registry import command


@command
async def order(ctx: Context) -> str:
    """Ask what there shall be for dinner."""
    dish = await ctx.ask("What shall it be?", choices=["soup", "cake"], timeout=60)
    size = await ctx.ask("For how many?", parse=int, timeout=60)
    return f"{dish} for {size}"


@command
async def poke(ctx: Context, whom: User, seconds: int = 60) -> str:
    """Ask somebody whether he is there."""
    answer = await ctx.ask("Are you there?", of=whom, timeout=seconds)
    return f"{whom.name} says: {answer}"
