"""Reminders: ``//remind 2h take the cake out``. They are in the store, so they outlive a restart, and reach people who are away."""

from typing import Any

import trio

from chat.plugin import Background, Context, Duration, Refused, Rest, background, command

MOST = 20  # of one person
LOOK_S = 60  # the server's clock may be set while this sleeps

changed = trio.Event()  # there is a new reminder, which may be the next one


@command
async def remind(ctx: Context, when: Duration, text: Rest = "") -> str:
    """Be told something in 30s, 10m, 2h, 7d …

    It comes as a message in your notes, whether you are there or not.
    """
    global changed
    if not text:
        text = await ctx.ask("Remind you of what?", timeout=120)
    mine = own(ctx)
    if len(mine) >= MOST:
        raise Refused(f"you have {MOST} reminders already; forget-reminder takes one back")
    number = max((reminder["number"] for _, reminder in mine), default=0) + 1
    due = ctx.now + when
    await ctx.store.set(f"{due:017.3f} {ctx.user.id} {number}", {"user": ctx.user.id, "number": number, "text": text})
    changed.set()
    changed = trio.Event()
    return f"reminder {number}: in {shown(when)}"


@command
def reminders(ctx: Context) -> str:
    """List your reminders."""
    lines = [f"{reminder['number']}: {reminder['text']} (in {shown(float(key.split()[0]) - ctx.now)})" for key, reminder in own(ctx)]
    return "\n".join(lines) or "you have no reminders"


@command
async def forget_reminder(ctx: Context, number: int) -> str:
    """Take a reminder back."""
    for key, reminder in own(ctx):
        if reminder["number"] == number:
            await ctx.store.delete(key)
            return f"reminder {number} is forgotten: {reminder['text']}"
    raise Refused(f"you have no reminder {number}; reminders lists them")


@background
async def tell_when_due(ctx: Background) -> None:
    """Starts with the plugin, so what became due while the server was down is told at once."""
    while True:
        next_s = float(LOOK_S)
        for key, reminder in ctx.store.items():  # by key: the next one first
            left = float(key.split()[0]) - ctx.now
            if left > 0:
                next_s = min(next_s, left)
                break
            if user := ctx.find_user(reminder["user"]):
                await ctx.say(f"Reminder: {reminder['text']}", to=user)
            await ctx.store.delete(key)  # only now: after a crash in between it is told twice, and never not at all
        with trio.move_on_after(next_s):
            await changed.wait()


def own(ctx: Context) -> list[tuple[str, dict[str, Any]]]:
    return [(key, reminder) for key, reminder in ctx.store.items() if reminder["user"] == ctx.user.id]


def shown(seconds: float) -> str:
    """Roughly, for people."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g}{unit}"
    return f"{max(0, seconds):.0f}s"
