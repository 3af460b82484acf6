"""Commands for one's own peace: ignoring somebody, reporting somebody."""

from typing import Annotated, Any, Final

from msgspec import Meta

from chat.commands.arguments import Rest, User
from chat.commands.context import Answer, Context, Decide
from chat.commands.registry import command
from chat.errors import ChatError
from chat.rooms.moderation import safety
from chat.rooms.moderation.sanctions import moment

REPORTS: Final = 20  # of one answer; more are kept
REPORTS_MAX: Final = 1000  # that are looked through to close one


@command
def ignore(ctx: Context, user: User) -> Answer:
    """Take no private messages and no questions from somebody; what they say in channels is folded. They are not told."""
    ctx.do(safety.ignore(ctx.state, ctx.account, user, ctx.now_ms))
    return Answer(f"you ignore {user.name} now; unignore {user.name} ends it", {"user": user.name})


@command
def unignore(ctx: Context, user: User) -> Answer:
    """Hear somebody again."""
    ctx.do(safety.unignore(ctx.state, ctx.account, user))
    return Answer(f"you hear {user.name} again", {"user": user.name})


@command
def ignored(ctx: Context) -> Answer:
    """List whom you ignore."""
    names = safety.ignored_names(ctx.state, ctx.account)
    return Answer(", ".join(names) or "you ignore nobody", names)


@command
def report(ctx: Context, user: User, reason: Rest = "") -> str:
    """Tell those who moderate about somebody, with the last messages of this channel.

    In a channel its moderators and the server's admins see it; outside of one it is about your private conversation, and the admins see the
    last messages of that.
    """
    why = ctx.line(reason, "a reason")
    effects = safety.report(ctx.state, ctx.account, ctx.room, user, why or None, ctx.now_ms)
    ctx.take(ctx.rates.reports, "reports")
    ctx.do(effects)
    return "reported; who moderates here sees it, with what was said last" if ctx.room is not None else "reported to the server's admins"


@command(needs="reports")
async def reports(ctx: Context) -> Decide:
    """Show what people reported, the latest first, with what was said before it.

    Moderators see the channels that they moderate, admins everything; nobody sees what is about themselves.
    """
    found = await ctx.around.records.reports(rooms=safety.rooms_reported_to(ctx.state, ctx.account), limit=REPORTS)

    def decide(ctx: Context) -> Answer:
        shown = [row for row in found if _may_read(ctx, row)]
        text = "\n".join(line for row in shown for line in _lines(ctx, row))
        return Answer(text or "nothing was reported", [_plain(ctx, row) for row in shown])

    return decide


@command(needs="reports")
async def close_report(ctx: Context, number: Annotated[int, Meta(ge=1)]) -> Decide:
    """Take a report off the list: it was dealt with."""
    found = await ctx.around.records.reports(rooms=safety.rooms_reported_to(ctx.state, ctx.account), limit=REPORTS_MAX)
    row = next((row for row in found if row.report == number), None)

    def decide(ctx: Context) -> str:
        if row is None or not _may_read(ctx, row):
            raise ChatError("not_found", f"there is no report {number}; reports lists them")
        ctx.do(safety.close_report(ctx.account, row.report, row.target, row.room))
        return f"report {number} is closed"

    return decide


def _may_read(ctx: Context, row: Any) -> bool:
    rooms = safety.rooms_reported_to(ctx.state, ctx.account)  # asked again: some time has passed
    return row.target != ctx.account.id and (rooms is None or row.room in rooms)


def _lines(ctx: Context, row: Any) -> list[str]:
    name_of, because = ctx.state.name_of, f": {row.reason}" if row.reason else ""
    head = f"{row.report}. {moment(row.at_ms)} {name_of(row.by)} reports {name_of(row.target)} {_where(ctx, row)}{because}"
    return [head, *(f"    {name_of(author)}: {body if body is not None else '(deleted)'}" for _, _, author, body in row.around)]


def _where(ctx: Context, row: Any) -> str:
    room = ctx.state.rooms.get(row.room) if row.room is not None else None
    return "in a channel that is gone" if row.room is not None and room is None else safety.where(room, ctx.account.id)


def _plain(ctx: Context, row: Any) -> dict[str, Any]:
    name_of = ctx.state.name_of
    return {
        "report": row.report,
        "at": row.at_ms,
        "by": name_of(row.by),
        "user": name_of(row.target),
        "where": _where(ctx, row),
        "reason": row.reason,
        "messages": [{"seq": seq, "ts": ts, "from": name_of(author), "text": body} for seq, ts, author, body in row.around],
    }
