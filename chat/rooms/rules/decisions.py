"""Decisions about rules: of a channel (slow mode, announcements, invitations, word filter, history) and of the server (filter, lockdown).

Plain functions like those of `decisions`; each writes into the moderation log what it changed.
"""

from typing import Any, Final

from chat.errors import ChatError
from chat.protocol.messages import ServerNotice
from chat.rooms import effects as fx
from chat.rooms.moderation import audit
from chat.rooms.moderation.why import refused
from chat.rooms.policy import may, require
from chat.rooms.rules import effects as rx
from chat.rooms.rules import filters
from chat.rooms.rules.rulebook import Lockdown
from chat.rooms.rules.writing import SLOW_MAX_S
from chat.rooms.state import Account, Room, State

_ACTIONS: Final[dict[rx.RoomSetting, str]] = {
    "slow_s": "slow-mode",
    "announce_only": "announce-only",
    "invite_only": "invite-only",
    "history": "history-mode",
}


def setting(room: Room, key: rx.RoomSetting) -> Any:
    """How it is now."""
    match key:
        case "slow_s":
            return room.rules.slow_s if room.rules is not None else 0
        case "announce_only":
            return room.rules is not None and room.rules.announce_only
        case "invite_only":
            return room.invite_only
        case "history":
            return room.history


def set_room(who: Account, room: Room, key: rx.RoomSetting, value: int | str) -> list[fx.Effect]:
    """*Raises* ChatError forbidden, bad_request. No effect where it is so already."""
    require("history-mode" if key == "history" else "moderate", who, room)
    if key == "slow_s" and not 0 <= int(value) <= SLOW_MAX_S:
        raise ChatError("bad_request", f"slow mode is 0 (off) to {SLOW_MAX_S} seconds")
    before = setting(room, key)
    if before == value:
        return []
    entry = audit.entry(who.id, _ACTIONS[key], room=room.id, before={key: before}, after={key: value})
    return [rx.SetRoomSetting(room=room.id, key=key, value=int(value) if isinstance(value, bool) else value), entry]


def invite(state: State, who: Account, room: Room, target: Account, now_ms: int) -> list[fx.Effect]:
    """Let *target* in, once: past invite-only, and into a private channel without its password. It is told, if it is online."""
    require("moderate", who, room)
    if target.id in room.members:
        raise ChatError("bad_request", f"{target.name} is in {room.conv} already")
    if target.ban is not None:
        raise ChatError("not_found", f"there is no user {target.name!r}")
    if target.id in room.invited:
        return []
    effects: list[fx.Effect] = [
        rx.PutChannelInvite(room=room.id, account=target.id, by=who.id, at_ms=now_ms),
        audit.entry(who.id, "invite-user", target=target.id, room=room.id),
    ]
    if who.id not in target.ignored:
        word = ServerNotice(text=f"{who.name} invites you to {room.conv}: join-channel {room.name} takes you there")
        effects.append(fx.Tell(account=target.id, message=word))
    return effects


def uninvite(who: Account, room: Room, target: Account) -> list[fx.Effect]:
    require("moderate", who, room)
    if target.id not in room.invited:
        raise ChatError("not_found", f"{target.name} has no invitation to {room.conv}")
    return [
        rx.DropChannelInvite(room=room.id, account=target.id),
        audit.entry(who.id, "uninvite-user", target=target.id, room=room.id),
    ]


def check_join(state: State, who: Account, room: Room, absent: ChatError) -> None:
    """May *who*, no member, come in? *Raises* ChatError forbidden; for a private channel that it does not know of *absent*: who has the
    password alone learns nothing."""
    if may("moderate-server", who) or who.id in room.invited:
        return
    if room.invite_only:
        if room.private:
            raise absent
        raise refused(f"{room.conv} is by invitation of its moderators", "invite-only", room=room.id)
    check_lockdown(state, who, "nobody comes into channels")


def check_lockdown(state: State, who: Account, what: str) -> None:
    """*Raises* ChatError forbidden while the server is open to members of its channels only."""
    if state.book.lockdown == "members" and not may("moderate-server", who):
        raise refused(f"this server is locked down: {what} just now", "lockdown")


# ---------------------------------------------------------------- word filters


def add_filter(state: State, who: Account, room: Room | None, rule: str, now_ms: int) -> list[fx.Effect]:
    """*room* None: for the whole server. *Raises* ChatError forbidden, bad_request, quota_exceeded."""
    where = _filters_of(who, room)
    pattern = filters.check(rule)
    have = state.book.filters.get(where, {})
    if pattern in have:
        raise ChatError("bad_request", "there is such a rule already")
    if len(have) >= filters.RULES_MAX:
        raise ChatError("quota_exceeded", f"there are {filters.RULES_MAX} rules already, and no more are possible; remove one first")
    return [rx.PutFilter(room=where, pattern=pattern, by=who.id, at_ms=now_ms), _logged(who, room, None, pattern)]


def remove_filter(state: State, who: Account, room: Room | None, rule: str) -> list[fx.Effect]:
    where = _filters_of(who, room)
    pattern = " ".join(rule.split())
    if pattern not in state.book.filters.get(where, {}):
        raise ChatError("not_found", "there is no such rule; list shows them")
    return [rx.DropFilter(room=where, pattern=pattern), _logged(who, room, pattern, None)]


def list_filters(state: State, who: Account, room: Room | None) -> list[tuple[str, int, int]]:
    """(rule, who made it, when), by rule. *Raises* ChatError forbidden."""
    return sorted((rule, by, at_ms) for rule, (by, at_ms) in state.book.filters.get(_filters_of(who, room), {}).items())


def _filters_of(who: Account, room: Room | None) -> int:
    require("moderate" if room is not None else "moderate-server", who, room)
    return room.id if room is not None else rx.EVERYWHERE


def _logged(who: Account, room: Room | None, before: str | None, after: str | None) -> fx.Audit:
    action = "filter" if room is not None else "server-filter"
    was = {"rule": before} if before is not None else None
    will = {"rule": after} if after is not None else None
    return audit.entry(who.id, action, room=room.id if room is not None else None, before=was, after=will)


# ---------------------------------------------------------------- the server


def lock_down(state: State, who: Account, mode: Lockdown) -> list[fx.Effect]:
    """See `Rulebook.lockdown`. No effect where it is so already."""
    require("lockdown", who)
    before = state.book.lockdown
    if before == mode:
        return []
    return [
        rx.SetSetting(key="lockdown", value=mode if mode != "off" else None),
        audit.entry(who.id, "lockdown", before={"lockdown": before}, after={"lockdown": mode}),
    ]
