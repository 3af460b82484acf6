"""Dice: ``//roll``, ``//roll 20``, ``//roll 3d6``, and ``//duel bob``."""

import random
import re

from chat.plugin import Context, QuestionClosed, Refused, User, command

NOTATION = re.compile(r"(?:([0-9]{1,2})?d)?([0-9]{1,4})", re.IGNORECASE)  # 20, d20, 3d6


@command
async def roll(ctx: Context, dice: str = "6") -> str | None:
    """Roll dice: the number of sides, or how many of how many sides, such as 3d6.

    In a channel everybody sees it.
    """
    count, sides = parse(dice)
    rolled = [random.randint(1, sides) for _ in range(count)]
    text = " + ".join(map(str, rolled)) + (f" = {sum(rolled)}" if count > 1 else "")
    if ctx.channel is None:
        return f"you roll {text}"
    await ctx.say(f"{ctx.user} rolls {count}d{sides}: {text}")
    return None  # it is all said


def parse(dice: str) -> tuple[int, int]:
    """How many dice of how many sides."""
    match = NOTATION.fullmatch(dice)
    count, sides = (int(match[1] or 1), int(match[2])) if match else (0, 0)
    if not 1 <= count <= 20 or not 2 <= sides <= 1000:
        raise Refused("say how many sides, or how many dice of how many: 20, 3d6; up to 20 dice of 2 to 1000 sides")
    return count, sides


@command(where="channel")
async def duel(ctx: Context, user: User) -> str | None:
    """Roll against somebody, if they accept. Who wins is counted."""
    if user == ctx.user:
        raise Refused("you would win, and lose")
    try:
        accepted = await ctx.ask(f"{ctx.user} wants to roll against you. Do you?", of=user, choices=["yes", "no"], timeout=60)
    except QuestionClosed:  # no answer in time, or gone
        return f"{user} does not answer"
    if accepted == "no":
        return f"{user} would rather not"
    while (mine := random.randint(1, 6)) == (theirs := random.randint(1, 6)):
        await ctx.say(f"{ctx.user} and {user} both roll {mine}. Again!")
    winner = ctx.user if mine > theirs else user
    won = await ctx.store.update(f"won {winner.id}", lambda n: n + 1, 0)  # counted with nobody in between
    await ctx.say(f"{ctx.user} rolls {mine}, {user} rolls {theirs}: {winner} wins ({won} so far)")
    return None
