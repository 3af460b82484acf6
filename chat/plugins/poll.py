"""Ask a channel: ``//poll 5m "Pizza today?" Margherita, Funghi, none``."""

from collections import Counter
from typing import Annotated

from chat.plugin import Context, Duration, Meta, Refused, Rest, command

KEPT = 10  # results of a channel


@command(where="channel")
async def poll(ctx: Context, time: Annotated[Duration, Meta(ge=10, le=1800)], question: str, choices: Rest = "yes, no") -> str | None:
    """Ask everybody here, for 10s to 30m. A question of several words stands in quotation marks, the choices have commas between them.

    Everybody has one vote. The result is said in the channel, and poll-results shows it again.
    """
    offered = [choice.strip() for choice in choices.split(",") if choice.strip()]
    if len({choice.lower() for choice in offered}) < 2:
        raise Refused("a poll has two different choices at least, with a comma between them: yes, no, perhaps")
    channel = ctx.channel
    assert channel is not None  # where="channel"
    await ctx.say(f"{ctx.user} asks: {question} ({', '.join(offered)})")
    answers = await ctx.ask(question, of=channel, choices=offered, timeout=time, how_many=None)  # all that come in time
    votes = Counter(answer.value for answer in answers)
    result = f"{question} " + ", ".join(f"{choice}: {votes[choice]}" for choice in sorted(offered, key=lambda c: -votes[c]))
    kept = [{"at": ctx.now, "by": ctx.user.name, "result": result}]
    await ctx.store.update(f"results {channel.id}", lambda before: (kept + before)[:KEPT], [])
    await ctx.say(result if answers else f"{question} Nobody voted.")
    return None


@command(where="channel")
def poll_results(ctx: Context) -> str:
    """Show the last results of polls in this channel."""
    channel = ctx.channel
    kept = ctx.store.get(f"results {channel.id}", []) if channel is not None else []
    return "\n".join(f"{each['result']} (asked by {each['by']})" for each in kept) or "there was no poll here yet"
