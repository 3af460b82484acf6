"""Decisions: (state, who asks, what) → effects. Plain functions; each checks, then says what changes. None changes the state itself.

All raise `ChatError`: forbidden, not_found, name_taken, bad_request. The manager applies the effects and hands them on. Requests of
the protocol and commands come to the same functions, so that both have the same rules.
"""

import secrets
from collections.abc import Sequence
from typing import Any, Final, Literal

from chat.errors import ChatError
from chat.protocol import names
from chat.protocol.messages import CommandsChanged, ServerNotice
from chat.rooms import effects as fx
from chat.rooms.commands import decisions as command_rules
from chat.rooms.moderation import audit
from chat.rooms.moderation.bans import banned, check_may_join
from chat.rooms.moderation.refusals import complete
from chat.rooms.moderation.sanctions import Sanction, moment
from chat.rooms.moderation.why import refused
from chat.rooms.policy import SERVER_LADDER, SMALL_ROOM, require, require_above
from chat.rooms.rules import effects as rx
from chat.rooms.state import Account, Room, State

ChannelPerm = Literal["owner", "moderator", "member"]
ServerPerm = Literal["admin", "user"]

BY_OPERATOR: Final = "operator"  # in the place of what the configuration says of registration
EPOCH_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def new_epoch() -> str:
    """12 characters of 62: 71 bits, so that two lineages never meet."""
    return "".join(secrets.choice(EPOCH_ALPHABET) for _ in range(12))


def new_id() -> int:
    """A random id for an account or a room, 1 ≤ id < 2**53."""
    return secrets.randbelow(2**53 - 1) + 1


# ---------------------------------------------------------------- accounts


def check_registration(state: State, registration: str, name: names.Name, invite: str | None, now_ms: int) -> fx.ServerRole:
    """May this name register with this invite? Returns the role that the account gets. Cheap: called before the password is hashed too.

    Where registration is closed, the owner's invite of the first start is good all the same: without it there would be nobody. The operator
    (``registration`` `BY_OPERATOR`) adds people at any time.

    *Raises* ChatError forbidden, name_taken.
    """
    role: fx.ServerRole = "member"
    if invite is not None:
        found = state.invites.get(invite)
        if found is None or (found.expires_ms is not None and found.expires_ms <= now_ms):
            raise ChatError("forbidden", "this invite is not valid (any more); ask for a new one")
        role = found.role
    elif registration == "invite":
        raise ChatError("forbidden", "this server takes new accounts by invite; ask somebody who is on it for one")
    if registration == "closed" and role != "owner":
        raise refused("this server takes no new accounts", "registration")
    if state.book.lockdown != "off" and role != "owner" and registration != BY_OPERATOR:
        raise refused("this server is locked down: it takes no new accounts just now", "lockdown")
    if not state.name_is_free(name):
        raise ChatError("name_taken", f"the name {name.shown!r} is taken, or looks like one that is")
    return role


def register(
    state: State,
    *,
    registration: str,
    name: names.Name,
    password_hash: str,
    color: str | None,
    invite: str | None,
    default_channels: Sequence[str],
    now_ms: int,
) -> tuple[int, list[fx.Effect]]:
    """Make an account, a member of the default channels. The server's owner owns them; before it comes, who came first."""
    role = check_registration(state, registration, name, invite, now_ms)
    account = new_id()
    effects: list[fx.Effect] = [
        fx.CreateAccount(
            account=account,
            name=name.shown,
            canonical=name.canonical,
            skeleton=name.skeleton,
            password_hash=password_hash,
            color=color,
            role=role,
            at_ms=now_ms,
        )
    ]
    if invite is not None:
        effects.append(fx.UseInvite(code=invite))
    effects += into_default_channels(state, account, role, default_channels, now_ms)
    return account, effects


def into_default_channels(state: State, account: int, role: fx.ServerRole, default_channels: Sequence[str], now_ms: int) -> list[fx.Effect]:
    effects: list[fx.Effect] = []
    for room in map(state.room, default_channels):
        if room is None or account in room.members or account in room.bans:
            continue
        owner = room.owner
        owns = owner is None or role == "owner"
        effects.append(fx.PutMember(room=room.id, account=account, role="owner" if owns else "member", at_ms=now_ms))
        if owns and owner is not None:
            effects += _role(room, owner, "moderator", 0, now_ms)
    return effects


def set_color(state: State, who: Account, color: str | None) -> list[fx.Effect]:
    return [fx.SetColor(account=who.id, color=color)]


def revoke_sessions(state: State, who: Account, but: str | None) -> list[fx.Effect]:
    """End the account's sessions, ``but`` one, and close their connections."""
    return [fx.DropSessions(account=who.id, but=but), fx.CloseSessions(account=who.id, code="unauthorized", but=but)]


def end_session(who: Account, session: str) -> list[fx.Effect]:
    """End one session of the account, and close its connection if it has one."""
    return [fx.DropSession(session=session, account=who.id), fx.CloseSessions(account=who.id, code="unauthorized", only=session)]


def change_password(state: State, who: Account, password_hash: str, session: str) -> list[fx.Effect]:
    return [fx.SetPassword(account=who.id, password_hash=password_hash), *revoke_sessions(state, who, session)]


# ---------------------------------------------------------------- channels


def create_room(state: State, who: Account | None, name: names.Name, password_hash: str | None, now_ms: int) -> list[fx.Effect]:
    """A channel; with a password it is private. Who made it owns it (None: the server made it, nobody is in it)."""
    if not state.room_name_is_free(name):
        raise ChatError("name_taken", f"the channel name {name.shown!r} is taken, or looks like one that is")
    room = new_id()
    effects: list[fx.Effect] = [
        fx.CreateRoom(
            room=room,
            name=name.shown,
            canonical=name.canonical,
            skeleton=name.skeleton,
            epoch=new_epoch(),
            private=password_hash is not None,
            password_hash=password_hash,
            at_ms=now_ms,
        )
    ]
    if who is not None:
        effects.append(fx.PutMember(room=room, account=who.id, role="owner", at_ms=now_ms))
        effects.append(fx.Append(conv=room, kind="joined", author=who.id, body={"user": who.id}))
    return effects


def delete_room(state: State, who: Account, room: Room, default_channels: Sequence[str]) -> list[fx.Effect]:
    require("delete-channel", who, room)
    if any(state.room(name) is room for name in default_channels):
        raise ChatError("forbidden", f"{room.conv} is a default channel: everybody joins it; take it out of default_channels first")
    was = {"channel": room.name, "topic": room.topic, "private": room.private, "members": len(room.members)}
    return [audit.entry(who.id, "delete-channel", room=room.id, before=was), fx.DeleteRoom(room=room.id)]


def join(state: State, who: Account, room: Room, now_ms: int) -> list[fx.Effect]:
    """Become a member; no effect for who is one. The password of a private room has been checked by the caller.

    Who comes into an empty room owns it. The caller has asked `ruling.check_join`.
    """
    if who.id in room.members:
        return []
    check_may_join(state, room, who.id, now_ms)
    role: fx.RoomRole = "owner" if room.owner is None else "member"
    effects: list[fx.Effect] = [fx.PutMember(room=room.id, account=who.id, role=role, at_ms=now_ms)]
    if who.id in room.invited:
        effects.append(rx.DropChannelInvite(room=room.id, account=who.id))
    if len(room.members) < SMALL_ROOM:
        effects.append(fx.Append(conv=room.id, kind="joined", author=who.id, body={"user": who.id}))
    if room.prefix is not None:
        effects.append(fx.Tell(account=who.id, message=command_rules.told(room, room.prefix)))
    return effects


def leave(state: State, who: Account, room: Room, now_ms: int) -> list[fx.Effect]:
    """An owner who leaves is succeeded. *Raises* ChatError: forbidden for who is no member, not_found where the channel is private."""
    if who.id not in room.members:
        raise ChatError("not_found" if room.private else "forbidden", f"you are not in {room.conv}")
    effects: list[fx.Effect] = [fx.DropMember(room=room.id, account=who.id)]
    if len(room.members) <= SMALL_ROOM:
        effects.append(fx.Append(conv=room.id, kind="left", author=who.id, body={"user": who.id}))
    return effects + succession(state, room, who.id, now_ms)


def succession(state: State, room: Room, leaving: int | None, now_ms: int) -> list[fx.Effect]:
    """Where the owner is *leaving* (or there is none), somebody else is the owner: a channel with members has exactly one, always.

    It is the longest-serving moderator; without any, who ranks highest on the server; then who is there the longest.
    """
    if room.owner != leaving:
        return []
    others = [
        (role != "moderator", -SERVER_LADDER.index(state.accounts[account].role), place, account)
        for place, (account, role) in enumerate(room.members.items())
        if account != leaving
    ]
    return _role(room, min(others)[3], "owner", 0, now_ms) if others else []


def appoint_owners(state: State, now_ms: int) -> list[fx.Effect]:
    """For channels of an older version that have members and no owner."""
    return [effect for room in state.rooms.values() if room.owner is None for effect in succession(state, room, None, now_ms)]


def set_topic(state: State, who: Account, room: Room, text: str) -> list[fx.Effect]:
    require("topic", who, room)
    return [
        fx.SetTopic(room=room.id, text=text),
        fx.Append(conv=room.id, kind="topic", author=who.id, body={"user": who.id, "text": text}),
    ]


def set_room_role(state: State, who: Account, room: Room, target: Account, role: fx.RoomRole, now_ms: int) -> list[fx.Effect]:
    """Change a member's role. Making somebody the owner hands the channel over: the owner of before becomes a moderator."""
    require("set-channel-role", who, room)
    before = room.members.get(target.id)
    if before is None:
        raise ChatError("not_found", f"{target.name} is not in {room.conv}")
    if before == role:
        return []
    if before == "owner":
        raise ChatError("forbidden", f"{target.name} owns {room.conv}: make somebody else the owner instead")
    effects: list[fx.Effect] = [
        audit.entry(who.id, "set-user-perm", target=target.id, room=room.id, before={"role": before}, after={"role": role})
    ]
    if role == "owner" and room.owner is not None:
        effects += _role(room, room.owner, "moderator", who.id, now_ms)
    return effects + _role(room, target.id, role, who.id, now_ms)


def _role(room: Room, account: int, role: fx.RoomRole, by: int, now_ms: int) -> list[fx.Effect]:
    return [
        fx.PutMember(room=room.id, account=account, role=role, at_ms=now_ms),
        fx.Append(conv=room.id, kind="role", author=by, body={"user": account, "role": role, "by": by}),
    ]


# ---------------------------------------------------------------- the server


def set_server_role(state: State, who: Account, target: Account, role: fx.ServerRole) -> list[fx.Effect]:
    require("set-server-role", who)
    if target.role == "owner" or role == "owner":
        raise ChatError("forbidden", "the server has one owner, from its first invite on")
    if target.role == role:
        return []
    logged = audit.entry(who.id, "set-user-perm", target=target.id, before={"server": target.role}, after={"server": role})
    return [logged, fx.SetServerRole(account=target.id, role=role)]


def ban(state: State, who: Account, target: Account, reason: str | None, now_ms: int, until_ms: int | None = None) -> list[fx.Effect]:
    """Off the server: out of every channel (what it owned goes to the longest-serving of the highest role), every session ended.

    ``until_ms`` None: until somebody lifts it. Who is banned already is banned anew, with another end or reason.
    """
    require("ban", who)
    require_above(who, target, None, "ban")
    before: dict[str, object] = {
        "channels": {state.rooms[room].name: state.rooms[room].members[target.id] for room in sorted(target.rooms)}
    }
    if target.ban is not None:
        before |= {"by": target.ban.by, "until": target.ban.until_ms, "reason": target.ban.reason}
    effects: list[fx.Effect] = [
        audit.entry(who.id, "ban", target=target.id, reason=reason, before=before, after={"until": until_ms}),
        fx.PutBan(account=target.id, by=who.id, at_ms=now_ms, until_ms=until_ms, reason=reason),
    ]
    body: dict[str, object] = {"user": target.id, "by": who.id}
    if until_ms is not None:
        body["until"] = until_ms
    if reason:
        body["reason"] = reason
    told = removed_because("banned", who.name, until_ms, reason)
    for room in (state.rooms[room] for room in sorted(target.rooms)):
        effects += expel(state, room, target.id, "banned", told, body, now_ms)
    ban = Sanction(by=who.id, at_ms=now_ms, until_ms=until_ms, reason=reason)
    refusal = complete(state, banned(state, "you were banned from this server", "ban", ban, now_ms), target.id)
    effects.append(fx.Tell(account=target.id, message=ServerNotice(text=refusal.message, level="warning")))
    return effects + revoke_sessions(state, target, None)


def expel(state: State, room: Room, target: int, kind: str, told: str, body: dict[str, Any], now_ms: int) -> list[fx.Effect]:
    """Out of *room*, with a record of *kind*; *told* to the person. An owner is succeeded."""
    return [
        fx.DropMember(room=room.id, account=target, reason=told),
        fx.Append(conv=room.id, kind=kind, author=body["by"], body=body),
        *succession(state, room, target, now_ms),
    ]


def removed_because(what: str, by: str, until_ms: int | None, reason: str | None) -> str:
    """Why somebody is a member no more, in words for that person: "banned by root until 2026-11-22 23:10 UTC: spam"."""
    until = f" until {moment(until_ms)}" if until_ms is not None else ""
    return f"{what} by {by}{until}" + (f": {reason}" if reason else "")


def unban(
    state: State, who: Account, target: Account, default_channels: Sequence[str], now_ms: int, reason: str | None = None
) -> list[fx.Effect]:
    """Lift a ban; the account is in the default channels again, and joins others by itself."""
    require("ban", who)
    if target.ban is None:
        raise ChatError("bad_request", f"{target.name} is not banned")
    was = {"by": target.ban.by, "until": target.ban.until_ms, "reason": target.ban.reason}
    logged = audit.entry(who.id, "unban", target=target.id, reason=reason, before=was)
    return [logged, fx.DropBan(account=target.id), *into_default_channels(state, target.id, target.role, default_channels, now_ms)]


def set_command_enabled(state: State, who: Account, name: str, enabled: bool) -> list[fx.Effect]:
    require("commands", who)
    if (name not in state.disabled_commands) == enabled:
        raise ChatError("bad_request", f"the command {name} is {'enabled' if enabled else 'disabled'} already")
    logged = audit.entry(who.id, "enable-command" if enabled else "disable-command", after={"command": name})
    return [
        logged,
        fx.SetCommandEnabled(name=name, enabled=enabled, by=who.id),
        fx.Tell(account=None, message=CommandsChanged()),
    ]


def broadcast(who: Account, text: str) -> list[fx.Effect]:
    """A word from the server to everybody online; not stored."""
    require("broadcast", who)
    return [audit.entry(who.id, "broadcast", after={"text": text}), fx.Tell(account=None, message=ServerNotice(text=text))]
