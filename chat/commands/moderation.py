"""Commands of those who look after the server: roles, and which commands there are. Bans are in `chat.commands.sanctions`."""

from typing import get_args

from chat.commands.arguments import Command, Rest, Role, User
from chat.commands.context import Answer, Context
from chat.commands.registry import command
from chat.errors import ChatError
from chat.rooms import decisions as d
from chat.rooms import policy
from chat.rooms.decisions import ChannelPerm

ALWAYS = frozenset({"help", "enable-command", "disable-command"})  # switching these off would lock everybody out


@command(needs="broadcast")
def broadcast(ctx: Context, message: Rest) -> str:
    """Say something as the server, to everybody who is online. It is not stored."""
    ctx.do(d.broadcast(ctx.account, message))
    return "said to everybody who is online"


@command(needs="commands")
def disable_command(ctx: Context, name: Command) -> str:
    """Switch a command off, for everybody, until it is enabled again."""
    if name.name in ALWAYS:
        raise ChatError("forbidden", f"{name.name} cannot be switched off")
    ctx.do(d.set_command_enabled(ctx.state, ctx.account, name.name, False))
    return f"{name.name} is off"


@command(needs="commands")
def enable_command(ctx: Context, name: Command) -> str:
    """Switch a command on again."""
    ctx.do(d.set_command_enabled(ctx.state, ctx.account, name.name, True))
    return f"{name.name} is on"


@command
def perm(ctx: Context, user: User | None = None) -> Answer:
    """Show a person's roles, and what they allow here."""
    who = user or ctx.account
    role = ctx.room.members.get(who.id) if ctx.room is not None else None
    rights = policy.describe(who, ctx.room)
    named = "user" if who.role == "member" else who.role
    lines = [f"{who.name}: {named} of the server" + (f", {role} of {ctx.room.conv}" if ctx.room is not None and role else "")]
    allowed = [right for right, has in rights.items() if has]
    lines.append("may here: " + (", ".join(allowed) if allowed else "read and use the commands for everybody"))
    return Answer("\n".join(lines), {"user": who.name, "server": named, "channel": role, "rights": rights})


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
