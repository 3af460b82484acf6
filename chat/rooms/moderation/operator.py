"""The operator's decisions, from the shell. The operator is nobody's account: `SHELL` stands for them in rules that ask who, and the
moderation log calls them actor 0, like the server itself. Plain functions: (state, …) → effects. All raise `ChatError`.

Whoever has the data folder has everything in it, so no role stands in the way here; what would break the house (a server without an
owner, a deleted default channel) is refused all the same.
"""

import secrets
from collections.abc import Sequence
from typing import Final, Literal

from chat.errors import ChatError
from chat.protocol import names
from chat.rooms import decisions as d
from chat.rooms import effects as fx
from chat.rooms.moderation import audit
from chat.rooms.policy import SMALL_ROOM
from chat.rooms.state import Account, Room, State

SHELL: Final = Account(0, "server", "server", "server", None, "owner")

Role = Literal["owner", "admin", "member"]


def find_room(state: State, raw: str) -> Room:
    """Private ones too."""
    found = state.room(raw)
    if found is None:
        raise ChatError("not_found", f"there is no channel {'#' + raw.removeprefix('#')[:64]!r}")
    return found


def find_person(state: State, raw: str) -> Account:
    found = state.find_account(raw)
    if found.forgotten:
        raise ChatError("bad_request", f"{found.name} is the account of somebody who was forgotten")
    return found


# ---------------------------------------------------------------- people


def add_user(
    state: State, name: names.Name, password_hash: str, role: Role, default_channels: Sequence[str], now_ms: int
) -> list[fx.Effect]:
    if role == "owner" and any(account.role == "owner" for account in state.accounts.values()):
        raise ChatError("forbidden", "the server has its owner; to hand it over: chat user role NAME owner")
    account, effects = d.register(
        state,
        registration=d.BY_OPERATOR,
        name=name,
        password_hash=password_hash,
        color=None,
        invite=None,
        default_channels=default_channels,
        now_ms=now_ms,
    )
    if role != "member":
        effects.append(fx.SetServerRole(account=account, role=role))
    return [*effects, audit.entry(0, "user-add", target=account, after={"name": name.shown, "role": role})]


def set_password(state: State, who: Account, password_hash: str) -> list[fx.Effect]:
    """Every session of it ends."""
    changed = fx.SetPassword(account=who.id, password_hash=password_hash)
    return [changed, *d.revoke_sessions(state, who, None), audit.entry(0, "user-passwd", target=who.id)]


def suspend(state: State, who: Account, reason: str | None, now_ms: int) -> list[fx.Effect]:
    """Nobody gets in with the account; it keeps its channels and roles, and in the channels nothing is said of it."""
    if who.suspended:
        raise ChatError("bad_request", f"{who.name} is suspended already")
    put = fx.SetSuspended(account=who.id, at_ms=now_ms, reason=reason)
    return [put, *d.revoke_sessions(state, who, None), audit.entry(0, "user-suspend", target=who.id, reason=reason)]


def unsuspend(state: State, who: Account) -> list[fx.Effect]:
    if not who.suspended:
        raise ChatError("bad_request", f"{who.name} is not suspended")
    return [fx.SetSuspended(account=who.id, at_ms=None), audit.entry(0, "user-unsuspend", target=who.id)]


def set_role(state: State, who: Account, role: Role) -> list[fx.Effect]:
    """Making somebody the owner hands the server over: the owner of before is an admin then."""
    if who.role == role:
        return []
    if who.role == "owner":
        raise ChatError("forbidden", f"{who.name} owns the server: make somebody else the owner instead (chat user role NAME owner)")
    before = [account for account in state.accounts.values() if role == "owner" and account.role == "owner"]
    effects: list[fx.Effect] = []
    for account in before:
        effects.append(fx.SetServerRole(account=account.id, role="admin"))
        effects.append(audit.entry(0, "user-role", target=account.id, before={"role": "owner"}, after={"role": "admin"}))
    effects.append(fx.SetServerRole(account=who.id, role=role))
    effects.append(audit.entry(0, "user-role", target=who.id, before={"role": who.role}, after={"role": role}))
    return effects


def end_sessions(state: State, who: Account) -> list[fx.Effect]:
    return [*d.revoke_sessions(state, who, None), audit.entry(0, "user-sessions", target=who.id)]


def forget(state: State, who: Account, *, keep_texts: bool, now_ms: int, password_hash: str) -> list[fx.Effect]:
    """Erase a person. *password_hash*: of no password. What goes and what stays: `chat.store.sqlite_upkeep`.

    Out of every channel first, as who leaves; what they owned goes to the longest-serving of the highest role.
    """
    if who.role == "owner":
        raise ChatError("forbidden", f"{who.name} owns the server: make somebody else the owner first (chat user role NAME owner)")
    effects: list[fx.Effect] = []
    for room in (state.rooms[room] for room in sorted(who.rooms)):
        effects.append(fx.DropMember(room=room.id, account=who.id, reason="forgotten"))
        if len(room.members) <= SMALL_ROOM:
            effects.append(fx.Append(conv=room.id, kind="left", author=who.id, body={"user": who.id}))
        effects += d.succession(state, room, who.id, now_ms)
    effects += d.revoke_sessions(state, who, None)
    name = _nobody(state)
    effects.append(
        fx.ForgetAccount(
            account=who.id,
            name=name.shown,
            canonical=name.canonical,
            skeleton=name.skeleton,
            password_hash=password_hash,
            keep_texts=keep_texts,
            at_ms=now_ms,
        )
    )
    effects.append(audit.entry(0, "user-forget", target=who.id, after={"texts": "kept" if keep_texts else "erased"}))
    return effects


def _nobody(state: State) -> names.Name:
    while True:
        name = names.user_name(f"deleted-{secrets.token_hex(4)}")
        if state.name_is_free(name):
            return name


# ---------------------------------------------------------------- invites


def put_invite(code: str, role: Role, uses: int | None, expires_ms: int | None, now_ms: int) -> list[fx.Effect]:
    put = fx.PutInvite(code=code, role=role, uses_left=uses, expires_ms=expires_ms, by=0, at_ms=now_ms)
    return [put, audit.entry(0, "invite", after={"role": role, "uses": uses, "expires": expires_ms})]


def drop_invite(state: State, code: str) -> list[fx.Effect]:
    found = state.invites.get(code)
    if found is None:
        raise ChatError("not_found", "there is no such invite (any more); chat invite list shows them")
    return [fx.DropInvite(code=code), audit.entry(0, "invite-revoke", before={"role": found.role, "uses": found.uses_left})]


# ---------------------------------------------------------------- channels


def delete_room(state: State, room: Room, default_channels: Sequence[str]) -> list[fx.Effect]:
    if any(state.room(name) is room for name in default_channels):
        raise ChatError("forbidden", f"{room.conv} is a default channel: everybody joins it; take it out of default_channels first")
    was = {"channel": room.name, "private": room.private}
    return [fx.DeleteRoom(room=room.id), audit.entry(0, "delete-channel", room=room.id, before=was)]


def say(room: Room, text: str) -> list[fx.Effect]:
    return [fx.Append(conv=room.id, kind="message", author=0, body=text)]


def set_retention(room: Room | None, keep_ms: int | None, keep_bytes: int | None) -> list[fx.Effect]:
    put = fx.SetRetention(room=room.id if room is not None else None, keep_ms=keep_ms, keep_bytes=keep_bytes)
    return [put, audit.entry(0, "retention", room=put.room, after={"keep_ms": keep_ms, "keep_bytes": keep_bytes})]
