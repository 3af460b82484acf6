"""Commands about rules: of a channel, for its moderators, and of the server, for its admins."""

import time
from typing import Annotated, Literal

from msgspec import Meta

from chat.commands.arguments import Rest, User
from chat.commands.context import Answer, Context
from chat.commands.registry import command
from chat.errors import ChatError
from chat.rooms.rules import decisions as ruling
from chat.rooms.rules import effects as rx
from chat.rooms.rules.writing import SLOW_MAX_S
from chat.rooms.state import Room

_HISTORY = {
    "all": "members read all of its history",
    "since_join": "members read what was said since they joined",
    "none": "what is said is kept for ten minutes, to deliver it, and then forgotten",
}
_LOCKDOWN = {
    "off": "people register and join as ever",
    "accounts": "nobody registers",
    "members": "nobody registers, nobody makes a channel, and nobody comes into one that they are not a member of",
}


@command(needs="moderate", where="channel")
def slow_mode(ctx: Context, seconds: Annotated[int, Meta(ge=0, le=SLOW_MAX_S)]) -> Answer:
    """Let each member write once in so many seconds; 0 ends it. Moderators are not slowed down."""
    return _set(ctx, "slow_s", seconds, f"a message every {seconds} s from each" if seconds else "everybody at their own pace")


@command(needs="moderate", where="channel")
def announce_only(ctx: Context, on: bool) -> Answer:
    """Let only moderators write, or everybody again."""
    return _set(ctx, "announce_only", on, "only moderators write" if on else "everybody writes")


@command(needs="moderate", where="channel")
def invite_only(ctx: Context, on: bool) -> Answer:
    """Let only those join whom a moderator has invited (invite-user), or everybody again. Who is in it stays."""
    return _set(ctx, "invite_only", on, "who wants to join needs an invitation" if on else "no invitation is needed")


@command(needs="history-mode", where="channel")
def history_mode(ctx: Context, mode: Literal["all", "since_join", "none"]) -> Answer:
    """Say what members read of the past: all, what was said since_join, or none of it.

    With none, a message is kept for ten minutes, so that whoever is reconnecting gets it, and deleted from the server within the hour.
    Its place in the order and its acknowledgement stay. Copies that people's clients have are theirs.
    """
    return _set(ctx, "history", mode, _HISTORY[mode])


def _set(ctx: Context, key: rx.RoomSetting, value: int | str, said: str) -> Answer:
    room = ctx.here()
    effects = ruling.set_room(ctx.account, room, key, value)
    ctx.do(effects)
    return Answer(f"{room.conv}: {said}" + ("" if effects else " (as before)"), {"channel": room.name, key: value})


@command(needs="moderate", where="channel")
def invite_user(ctx: Context, user: User) -> Answer:
    """Let somebody into this channel, once: past invite-only, and without the password of a private channel."""
    room = ctx.here()
    ctx.do(ruling.invite(ctx.state, ctx.account, room, user, ctx.now_ms))
    return Answer(f"{user.name} may join {room.conv}", {"user": user.name, "channel": room.name})


@command(needs="moderate", where="channel")
def uninvite_user(ctx: Context, user: User) -> Answer:
    """Take an invitation back that was not used yet."""
    room = ctx.here()
    ctx.do(ruling.uninvite(ctx.account, room, user))
    return Answer(f"{user.name} has no invitation to {room.conv} any more", {"user": user.name, "channel": room.name})


# ---------------------------------------------------------------- word filters


@command(name="filter", needs="moderate", where="channel")
def channel_filter(ctx: Context, action: Literal["add", "remove", "list"], rule: Rest = "") -> Answer:
    """Refuse messages with a word in this channel: filter add spam, filter remove spam, filter list.

    A rule is a word, a phrase (buy now), or a pattern, where * stands for any letters of a word and ? for one: *coin*, fr?e. Capitals,
    accents and letters that look alike make no difference. Who is refused is told the rule. Moderators are not filtered.
    """
    return _filter(ctx, ctx.here(), action, rule)


@command(needs="moderate-server")
def server_filter(ctx: Context, action: Literal["add", "remove", "list"], rule: Rest = "") -> Answer:
    """Refuse messages with a word everywhere, private ones too: server-filter add spam, remove spam, list. Admins are not filtered.

    A rule is a word, a phrase (buy now), or a pattern, where * stands for any letters of a word and ? for one: *coin*, fr?e.
    """
    return _filter(ctx, None, action, rule)


def _filter(ctx: Context, room: Room | None, action: str, rule: str) -> Answer:
    where = room.conv if room is not None else "this server"
    if action == "list":
        found = ruling.list_filters(ctx.state, ctx.account, room)
        lines = [f"{each} (by {ctx.state.name_of(by)}, {time.strftime('%Y-%m-%d', time.gmtime(at / 1000))})" for each, by, at in found]
        data = [{"rule": each, "by": ctx.state.name_of(by), "at": at} for each, by, at in found]
        return Answer("\n".join(lines) or f"{where} filters nothing", data)
    if not rule.strip():
        raise ChatError("bad_request", f"say which rule to {action}")
    if action == "add":
        ctx.do(ruling.add_filter(ctx.state, ctx.account, room, rule, ctx.now_ms))
        return Answer(f"{where} refuses messages with {' '.join(rule.split())}")
    ctx.do(ruling.remove_filter(ctx.state, ctx.account, room, rule))
    return Answer(f"{where} takes messages with {' '.join(rule.split())} again")


# ---------------------------------------------------------------- the server


@command(needs="lockdown")
def lockdown(ctx: Context, mode: Literal["off", "accounts", "members"]) -> Answer:
    """Close the server to newcomers for a while: accounts (nobody registers), members (and nobody joins or makes channels), off.

    It holds over restarts, until it is off. Admins may do all of it, and whom a moderator invites (invite-user) may join.
    """
    effects = ruling.lock_down(ctx.state, ctx.account, mode)
    ctx.do(effects)
    return Answer(f"lockdown {mode}: {_LOCKDOWN[mode]}" + ("" if effects else " (as before)"), {"lockdown": mode})
