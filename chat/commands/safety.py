"""Commands for one's own peace: ignoring somebody, reporting somebody."""

from chat.commands.arguments import Rest, User
from chat.commands.context import Answer, Context
from chat.commands.registry import command
from chat.rooms import safety


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
