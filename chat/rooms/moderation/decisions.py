"""Decisions about people who disturb: out of a channel, silent in it, off the server, and the same by address; and how each ends.

As in `chat.rooms.decisions`: plain functions from the state to effects, each with its entry for the moderation log. Commands, the shell
and the ticker come to the same ones. ``until_ms`` is in milliseconds since 1970, None: until it is lifted.

All raise `ChatError`: forbidden, not_found, bad_request.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from chat.errors import ChatError
from chat.protocol.messages import ServerNotice
from chat.rooms import effects as fx
from chat.rooms.decisions import expel, into_default_channels, removed_because
from chat.rooms.moderation import audit
from chat.rooms.moderation.bans import banned
from chat.rooms.moderation.refusals import complete
from chat.rooms.moderation.sanctions import Key, Network, Sanction, check_network, contains, ending, network_of, shown
from chat.rooms.policy import require, require_above
from chat.rooms.state import Account, Room, State

# ---------------------------------------------------------------- in a channel


def kick(state: State, who: Account, room: Room, target: Account, reason: str | None, now_ms: int) -> list[fx.Effect]:
    """Out of the channel; who was kicked may join again."""
    require("kick", who, room)
    require_above(who, target, room, "kick")
    role = _role_of(room, target)
    told = removed_because("kicked", who.name, None, reason)
    return [
        audit.entry(who.id, "kick", target=target.id, room=room.id, reason=reason, before={"role": role}),
        *expel(state, room, target.id, "left", told, _by(target.id, who.id, None, reason), now_ms),
    ]


def channel_ban(
    state: State, who: Account, room: Room, target: Account, reason: str | None, now_ms: int, until_ms: int | None
) -> list[fx.Effect]:
    """Out of the channel, and not in again until it ends. Also for who is not in it, or has left. Once more: with another end."""
    require("channel-ban", who, room)
    require_above(who, target, room, "ban")
    before = plain(room.bans.get(target.id))
    role = room.members.get(target.id)
    if role is not None:
        before = {**(before or {}), "role": role}
    effects: list[fx.Effect] = [
        audit.entry(who.id, "channel-ban", target=target.id, room=room.id, reason=reason, before=before, after={"until": until_ms}),
        fx.PutChannelBan(room=room.id, account=target.id, by=who.id, at_ms=now_ms, until_ms=until_ms, reason=reason),
    ]
    if role is not None:
        told = removed_because("banned", who.name, until_ms, reason)
        effects += expel(state, room, target.id, "banned", told, _by(target.id, who.id, until_ms, reason), now_ms)
    return effects


def channel_unban(state: State, who: Account, room: Room, target: Account, reason: str | None = None) -> list[fx.Effect]:
    require("channel-ban", who, room)
    ban = room.bans.get(target.id)
    if ban is None:
        raise ChatError("bad_request", f"{target.name} is not banned from {room.conv}")
    logged = audit.entry(who.id, "channel-unban", target=target.id, room=room.id, reason=reason, before=plain(ban))
    return [logged, fx.DropChannelBan(room=room.id, account=target.id), *_tell(target, room, f"you may join {room.conv} again")]


def mute(state: State, who: Account, room: Room, target: Account, reason: str | None, now_ms: int, until_ms: int | None) -> list[fx.Effect]:
    """May read the channel and not write in it. It stays when the person leaves and comes back."""
    require("mute", who, room)
    require_above(who, target, room, "mute")
    before = plain(muted(room, target.id))
    because = f" ({reason})" if reason else ""
    said = f"{who.name} muted you in {room.conv}{because} {ending(until_ms, now_ms)}: you can read and not write there"
    return [
        audit.entry(who.id, "mute", target=target.id, room=room.id, reason=reason, before=before, after={"until": until_ms}),
        fx.PutMute(room=room.id, account=target.id, by=who.id, at_ms=now_ms, until_ms=until_ms, reason=reason),
        *_tell(target, room, said, "warning"),
    ]


def unmute(state: State, who: Account, room: Room, target: Account, reason: str | None = None) -> list[fx.Effect]:
    require("mute", who, room)
    was = muted(room, target.id)
    if was is None:
        raise ChatError("bad_request", f"{target.name} is not muted in {room.conv}")
    logged = audit.entry(who.id, "unmute", target=target.id, room=room.id, reason=reason, before=plain(was))
    return [logged, fx.DropMute(room=room.id, account=target.id), *_tell(target, room, f"you may write in {room.conv} again")]


def muted(room: Room, account: int) -> Sanction | None:
    return room.rules.mutes.get(account) if room.rules is not None else None


# ---------------------------------------------------------------- addresses


def ban_address(
    state: State, who: Account, network: Network, reason: str | None, now_ms: int, until_ms: int | None, own_hosts: Iterable[str] = ()
) -> list[fx.Effect]:
    """Nobody registers, logs in or resumes from there; who is here from there is told so and disconnected. Not the server's admins:
    what binds them is a ban of their account, by somebody above.

    *own_hosts*: the addresses that *who* is here from.
    """
    require("ban", who)
    check_network(network)
    own = next((host for host in own_hosts if contains(network, host)), None)
    if own is not None:
        raise ChatError("bad_request", f"your own connection comes from {own}; see ban --preview {shown(network)}")
    known = state.address_bans.get(network)
    ban = Sanction(by=who.id, at_ms=now_ms, until_ms=until_ms, reason=reason)
    after = {"network": str(network), "until": until_ms}
    told = complete(state, banned(state, f"{shown(network)}, where you come from, is banned", "address-ban", ban, now_ms), 0)
    return [
        audit.entry(who.id, "ban", reason=reason, before=plain(known), after=after),
        fx.PutAddressBan(network=str(network), by=who.id, at_ms=now_ms, until_ms=until_ms, reason=reason),
        fx.CloseNetwork(network=str(network), text=told.message),
    ]


def unban_address(state: State, who: Account, network: Network, reason: str | None = None) -> list[fx.Effect]:
    require("ban", who)
    known = state.address_bans.get(network)
    if known is None:
        raise ChatError("bad_request", f"{shown(network)} is not banned")
    logged = audit.entry(who.id, "unban", reason=reason, before={"network": str(network), **(plain(known) or {})})
    return [logged, fx.DropAddressBan(network=str(network))]


# ---------------------------------------------------------------- the end of their time


def end(state: State, key: Key, default_channels: Sequence[str], now_ms: int) -> list[fx.Effect]:
    """What is to be done when the time of the sanction *key* is over (`State.endings`)."""
    kind, where, account = key
    if kind == "address-ban":
        network = network_of(str(where))
        known = state.address_bans.get(network) if network is not None else None
        before = {"network": where, **(plain(known) or {})}
        return [audit.entry(0, "ban-over", before=before), fx.DropAddressBan(network=str(where))]
    target = state.accounts[account]
    if kind == "ban":
        logged = audit.entry(0, "ban-over", target=account, before=plain(target.ban))
        return [logged, fx.DropBan(account=account), *into_default_channels(state, account, target.role, default_channels, now_ms)]
    room = state.rooms[int(where)]
    if kind == "mute":
        logged = audit.entry(0, "mute-over", target=account, room=room.id, before=plain(muted(room, account)))
        return [logged, fx.DropMute(room=room.id, account=account), *_tell(target, room, f"you may write in {room.conv} again")]
    logged = audit.entry(0, "channel-ban-over", target=account, room=room.id, before=plain(room.bans.get(account)))
    return [logged, fx.DropChannelBan(room=room.id, account=account), *_tell(target, room, f"you may join {room.conv} again")]


# ---------------------------------------------------------------- words


def plain(sanction: Sanction | fx.PutBan | None) -> Mapping[str, Any] | None:
    """For the moderation log."""
    return None if sanction is None else {"by": sanction.by, "until": sanction.until_ms, "reason": sanction.reason}


def _by(target: int, by: int, until_ms: int | None, reason: str | None) -> dict[str, Any]:
    """The body of the record that tells of it."""
    body: dict[str, Any] = {"user": target, "by": by}
    if until_ms is not None:
        body["until"] = until_ms
    if reason:
        body["reason"] = reason
    return body


def _role_of(room: Room, target: Account) -> fx.RoomRole:
    role = room.members.get(target.id)
    if role is None:
        raise ChatError("not_found", f"{target.name} is not in {room.conv}")
    return role


def _tell(target: Account, room: Room, text: str, level: Any = "info") -> list[fx.Effect]:
    """Of a private channel that it is not in, nobody is told."""
    if room.private and not room.known_to(target.id):
        return []
    return [fx.Tell(account=target.id, message=ServerNotice(text=text, level=level))]
