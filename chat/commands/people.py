"""Commands about people: who is here, private words, colours."""

from chat.colors import parse_color
from chat.commands.arguments import Rest, User
from chat.commands.context import Answer, Context
from chat.commands.registry import command
from chat.errors import ChatError
from chat.rooms import decisions as d
from chat.rooms import effects as fx
from chat.rooms import policy
from chat.rooms.moderation import safety
from chat.rooms.state import Account


@command
def users(ctx: Context) -> Answer:
    """List who is online."""
    online = _online(ctx)
    data = [{"user": account.name, "color": account.color} for account in online]
    return Answer(f"{_count(len(online))}: {', '.join(account.name for account in online)}", data)


@command
def user_count(ctx: Context) -> Answer:
    """Say how many are online."""
    n = len(_online(ctx))
    return Answer(_count(n), {"online": n, "accounts": len(ctx.state.accounts)})


def _online(ctx: Context) -> list[Account]:
    state = ctx.state
    return sorted((state.accounts[account] for account in state.online), key=lambda account: account.canonical)


def _count(n: int) -> str:
    return "one person is online" if n == 1 else f"{n} people are online"


@command
def tell(ctx: Context, username: User, message: Rest) -> str:
    """Say something to one person, in private."""
    if username.ban is not None:
        raise ChatError("not_found", f"there is no user {username.name!r}")
    safety.check_taken(username, ctx.account.id)
    ctx.take(ctx.rates.sends, "messages")
    if refused := ctx.state.book.filtered(message, admin=policy.may("moderate-server", ctx.account)):
        raise refused
    ctx.do([fx.Append(conv=fx.Pair.of(ctx.account.id, username.id), kind="message", author=ctx.account.id, body=message)])
    return f"told {username.name}" + ("" if ctx.state.is_online(username.id) else ", who will read it at the next login")


@command(aliases=["colour"])
def color(ctx: Context, colour: Rest) -> Answer:
    """Choose the colour of your name: a CSS name or #rrggbb."""
    value = parse_color(colour)
    ctx.do(d.set_color(ctx.state, ctx.account, value))
    return Answer(f"your name is {value} now", {"color": value})
