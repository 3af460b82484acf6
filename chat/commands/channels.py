"""Commands about channels."""

from chat.commands.arguments import Channel, ChannelName, Rest, Secret
from chat.commands.context import Answer, Context, Decide
from chat.commands.registry import command
from chat.errors import ChatError
from chat.protocol import names
from chat.rooms import decisions as d
from chat.rooms import effects as fx
from chat.rooms.rules import decisions as ruling
from chat.rooms.state import Room


@command
async def create_channel(ctx: Context, name: ChannelName, password: Secret | None = None) -> Decide:
    """Make a channel; with a password it is private.

    A private channel is hidden from everybody who is not in it. Who makes a channel owns it.
    """
    wanted = names.channel_name(name)
    if not ctx.state.room_name_is_free(wanted):
        raise ChatError("name_taken", f"the channel name {wanted.shown!r} is taken, or looks like one that is")
    password_hash = await ctx.around.passwords.hash(password) if password is not None else None

    ruling.check_lockdown(ctx.state, ctx.account, "nobody makes channels")

    def decide(ctx: Context) -> Answer:
        ruling.check_lockdown(ctx.state, ctx.account, "nobody makes channels")
        effects = d.create_room(ctx.state, ctx.account, wanted, password_hash, ctx.now_ms)
        ctx.take(ctx.rates.new_channels, "new channels")
        ctx.do(effects)
        kind = "private channel" if password_hash is not None else "channel"
        return Answer(f"made the {kind} #{wanted.shown}; you own it", {"channel": wanted.shown})

    return decide


@command
async def join_channel(ctx: Context, name: ChannelName, password: Secret | None = None) -> Decide:
    """Become a member of a channel; a private one asks for its password."""
    seen = ctx.state.room_for(name, ctx.account.id)
    room = seen or await _knock(ctx, name, password)
    version = room.password_version

    def decide(ctx: Context) -> Answer:
        found = ctx.state.rooms.get(room.id)
        if found is None or found.password_version != version:
            raise _unseen(name)
        data = {"channel": found.name, "topic": found.topic}
        if ctx.account.id not in found.members:
            ruling.check_join(ctx.state, ctx.account, found, _unseen(name))
        effects = d.join(ctx.state, ctx.account, found, ctx.now_ms)
        if not effects:
            return Answer(f"you are in {found.conv} already", data)
        if seen is not None:
            ctx.take(ctx.rates.joins, "joins")
        ctx.do(effects)
        return Answer(f"you are in {found.conv} now" + (f": {found.topic}" if found.topic else ""), data)

    return decide


async def _knock(ctx: Context, name: str, password: str | None) -> Room:
    """The private channel, if the password is right. An absent one costs the same and is answered alike. *Waits* for a hash.

    *Raises* ChatError not_found, rate_limited, busy.
    """
    if password is None:
        raise _unseen(name)
    ctx.take(ctx.rates.joins, "joins")  # each attempt counts
    room = ctx.state.room(name)
    right = await ctx.around.passwords.verify(room.password_hash if room is not None else None, password)
    if room is None or not right:
        raise _unseen(name)
    return room


def _unseen(name: str) -> ChatError:
    return ChatError("not_found", f"there is no channel {'#' + name[:64]!r} that you can see, or its password is another")


@command(where="channel")
def leave_channel(ctx: Context) -> Answer:
    """Leave the channel that you are typing in. Its history stays; you may join again."""
    room = ctx.here()
    owned = room.owner == ctx.account.id
    effects = d.leave(ctx.state, ctx.account, room, ctx.now_ms)
    ctx.do(effects)
    heir = next((e.account for e in effects if isinstance(e, fx.PutMember)), None) if owned else None
    handed_on = f"; {ctx.state.name_of(heir)} owns it now" if heir is not None else ""
    return Answer(f"you left {room.conv}{handed_on}", {"channel": room.name})


@command
def delete_channel(ctx: Context, name: Channel) -> Answer:
    """Delete a channel and its history, for everybody. There is no way back."""
    ctx.do(d.delete_room(ctx.state, ctx.account, name, ctx.around.default_channels))
    return Answer(f"deleted {name.conv}", {"channel": name.name})


@command
def channels(ctx: Context) -> Answer:
    """List the channels that you can see."""
    rooms = ctx.state.rooms_seen_by(ctx.account.id)
    data = [
        {
            "channel": room.name,
            "topic": room.topic,
            "members": len(room.members),
            "private": room.private,
            "member": ctx.account.id in room.members,
        }
        for room in rooms
    ]
    return Answer("\n".join(_line(ctx, room) for room in rooms) or "there are no channels yet; make one with create-channel", data)


def _line(ctx: Context, room: Room) -> str:
    marks = [f"{len(room.members)} in it"]
    if ctx.account.id in room.members:
        marks.append("you too")
    if room.private:
        marks.append("private")
    if room.invite_only:
        marks.append("by invitation")
    if ctx.account.id in room.invited:
        marks.append("you are invited")
    return f"{room.conv} ({', '.join(marks)})" + (f": {room.topic}" if room.topic else "")


@command(where="channel")
def topic(ctx: Context, text: Rest = "") -> Answer:
    """Show the channel's topic, or set it (moderators)."""
    room = ctx.here()
    if not text:
        return Answer(f"{room.conv}: {room.topic}" if room.topic else f"{room.conv} has no topic", {"topic": room.topic})
    line = ctx.line(text, "a topic")
    ctx.do(d.set_topic(ctx.state, ctx.account, room, line))
    return Answer(f"the topic of {room.conv} is now: {line}", {"topic": line})
