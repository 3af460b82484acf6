"""Commands about what other commands ask, and about those that run."""

from typing import Any

from chat.commands.context import Answer, Context
from chat.commands.registry import command
from chat.errors import ChatError
from chat.rooms import policy
from chat.rooms.conversations.runs import Question, Run
from chat.rooms.moderation import audit

LONG_S = 60.0  # a command that runs for longer is worth a word


@command
def questions(ctx: Context) -> Answer:
    """List the questions that commands ask: yours, those for you, and those of the channels that you moderate."""
    me, now, asked = ctx.account.id, ctx.invocation.now, ctx.invocation.questions
    lines: list[str] = []
    data: dict[str, list[Any]] = {"questions": [], "running": [], "noted": []}
    for question in asked:
        mine = question.run.account == me or question.concerns(me, ctx.state)
        if mine or _may_end(ctx, question):
            left_s = max(0, round(question.until - now))
            text = f": {_short(question.text)}" if mine else ""
            lines.append(f"{question.id}  {_asks(ctx, question)}, {left_s} s left{text}")
            data["questions"].append({"question": question.id, "command": question.run.name, "mine": mine, "left": left_s})
    overseer = policy.may("moderate-server", ctx.account)
    for run in asked.runs:
        ran_s = round(now - run.since)
        if (run.account == me and run.open) or (overseer and (run.open or ran_s >= LONG_S)):
            lines.append(f"running: {_name(ctx, run)}, for {ran_s} s, waits for {_count(run)}")
            data["running"].append({"command": run.name, "user": ctx.state.name_of(run.account), "seconds": ran_s, "open": len(run.open)})
    if overseer:
        for noted in asked.noted.values():
            lines.append(f"noted: {noted}")
            data["noted"].append({"command": noted.name, "blocked": noted.times, "worst": noted.worst_s, "where": noted.where})
    return Answer("\n".join(lines) or "nothing is asked", data)


@command
def cancel_question(ctx: Context, question: str = "") -> str:
    """Take a question back: one of your own (the newest, if you do not say which), or one of a channel that you moderate."""
    asked = ctx.invocation.questions
    if question:
        found = asked.get(question)
        if found is None or not (found.run.account == ctx.account.id or found.concerns(ctx.account.id, ctx.state) or _may_end(ctx, found)):
            raise ChatError("not_found", f"there is no question {question[:16]!r}; questions lists them")
        if found.run.account != ctx.account.id and not _may_end(ctx, found):
            raise ChatError("forbidden", "a question is taken back by who asks, and by the channel's moderators")
    else:
        own = [each for each in asked if each.run.account == ctx.account.id]
        if not own:
            raise ChatError("not_found", "you ask nothing; questions lists what is asked")
        found = own[-1]
    if found.run.account != ctx.account.id:
        after = {"command": found.run.name}
        ctx.do([audit.entry(ctx.account.id, "cancel-question", target=found.run.account, room=found.place, after=after)])
    asked.close(found, "cancelled")
    return f"took back the question of {found.run.name}: {_short(found.text)}"


def _may_end(ctx: Context, question: Question) -> bool:
    room = ctx.state.rooms.get(question.place) if question.place is not None else None
    return policy.may("moderate", ctx.account, room) if room is not None else policy.may("moderate-server", ctx.account)


def _asks(ctx: Context, question: Question) -> str:
    state = ctx.state
    if question.account is not None:
        whom = state.name_of(question.account)
    elif question.room is not None:
        whom = state.rooms[question.room].conv
    else:
        whom = "everybody"
    return f"{_name(ctx, question.run)} asks {whom}"


def _name(ctx: Context, run: Run) -> str:
    room = ctx.state.rooms.get(run.room) if run.room is not None else None
    hidden = room is not None and room.private and ctx.account.id not in room.members
    where = f" in {room.conv}" if room is not None and not hidden else ""
    return f"{ctx.around.prefix}{run.name} ({ctx.state.name_of(run.account)}{where})"


def _count(run: Run) -> str:
    if not run.open:
        return "nobody"
    return "an answer" if len(run.open) == 1 else f"{len(run.open)} answers"


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 100 else flat[:99] + "…"
