"""Commands of those who look after the server: roles, and which commands there are. Bans are in `chat.commands.sanctions`."""

from typing import Literal, get_args

from chat.commands.arguments import Command, Rest, Role, User
from chat.commands.context import Answer, Context
from chat.commands.registry import command
from chat.errors import ChatError
from chat.rooms import decisions as d
from chat.rooms import policy
from chat.rooms.commands import decisions as command_rules
from chat.rooms.decisions import ChannelPerm

ALWAYS = frozenset({"help", "enable-command", "disable-command"})  # switching these off would lock everybody out


@command(needs="broadcast")
def broadcast(ctx: Context, message: Rest) -> str:
    """Say something as the server, to everybody who is online. It is not stored."""
    ctx.do(d.broadcast(ctx.account, message))
    return "said to everybody who is online"


Where = Literal["here", "everywhere"]


@command(needs="moderate")
def disable_command(ctx: Context, name: Command, where: Where | None = None) -> str:
    """Switch a command off until it is enabled again: in this channel (here), or on the whole server (everywhere; admins).

    Without a word where, an admin switches it off everywhere and a moderator here. Whoever is in the middle of it is told.
    """
    if name.name in ALWAYS:
        raise ChatError("forbidden", f"{name.name} cannot be switched off")
    return _switch(ctx, name.name, where, False)


@command(needs="moderate")
def enable_command(ctx: Context, name: Command, where: Where | None = None) -> str:
    """Switch a command on again, where it was switched off: here or everywhere."""
    return _switch(ctx, name.name, where, True)


def _switch(ctx: Context, name: str, where: Where | None, on: bool) -> str:
    if where is None:
        where = "everywhere" if policy.may("commands", ctx.account) else "here"
    if where == "everywhere":
        ctx.do(d.set_command_enabled(ctx.state, ctx.account, name, on))
        return f"{name} is {'on' if on else 'off'}"
    room = ctx.here()
    ctx.do(command_rules.set_enabled_here(ctx.account, room, name, on))
    return f"{name} is {'on' if on else 'off'} in {room.conv}"


@command
def perm(ctx: Context, user: User | None = None) -> Answer:
    """Show a person's roles, and the table of rights: what each is for, which roles have it, and whether this person has it here.

    A channel has its owner, moderators and members, the server its owner, admins and users. A role has what those below it have.
    """
    who = user or ctx.account
    role = ctx.room.members.get(who.id) if ctx.room is not None else None
    rights = policy.describe(who, ctx.room)
    named = "user" if who.role == "member" else who.role
    lines = [f"{who.name}: {named} of the server" + (f", {role} of {ctx.room.conv}" if ctx.room is not None and role else "")]
    table = policy.table(who, ctx.room)
    for row in table:
        whose = " or ".join(str(each) for each in (row["channel"], row["server"] and f"server {row['server']}") if each)
        lines.append(f"{'yes' if row['has'] else 'no ':<4} {row['right']:<17}{whose:<26}{row['meaning']}")
    return Answer("\n".join(lines), {"user": who.name, "server": named, "channel": role, "rights": rights, "table": table})


@command
def set_user_perm(ctx: Context, user: User, role: Role) -> str:
    """Give a role: owner, moderator or member of this channel; admin or user of the server.

    Who makes somebody else the owner of a channel is a moderator there afterwards.
    """
    if role in get_args(ChannelPerm):
        room = ctx.here()
        effects = d.set_room_role(ctx.state, ctx.account, room, user, role, ctx.now_ms)
        where = room.conv
    else:
        effects = d.set_server_role(ctx.state, ctx.account, user, "admin" if role == "admin" else "member")
        where = "the server"
    ctx.do(effects)
    return f"{user.name} is {role} of {where} " + ("now" if effects else "already")
