"""Handlers that change accounts and invites. The decisions: `chat.rooms.moderation.operator`."""

from typing import Any, Literal

from chat import accounts
from chat.admin.registry import Call, handler
from chat.errors import ChatError
from chat.protocol import names
from chat.rooms import decisions as d
from chat.rooms.moderation import decisions as moderation
from chat.rooms.moderation import operator as a
from chat.rooms.moderation.sanctions import network_of, shown

ERASE_ROWS = 5000  # of one step: some ms of the writer's time


@handler("user.add", offline=True)
async def add(call: Call, name: str, password_hash: str, role: a.Role = "member") -> dict[str, Any]:
    wanted = names.user_name(name.removeprefix("@"))
    defaults = call.house.config.default_channels
    await call.house.decide(lambda state, now_ms: a.add_user(state, wanted, password_hash, role, defaults, now_ms))
    return {"user": wanted.shown, "role": role}


@handler("user.passwd", offline=True)
async def passwd(call: Call, name: str, password_hash: str) -> dict[str, Any]:
    await call.house.decide(lambda state, _: a.set_password(state, a.find_person(state, name), password_hash))
    return {"user": call.house.state.find_account(name).name}


@handler("user.suspend", offline=True)
async def suspend(call: Call, name: str, reason: str | None = None) -> dict[str, Any]:
    await call.house.decide(lambda state, now_ms: a.suspend(state, a.find_person(state, name), reason, now_ms))
    return {"user": call.house.state.find_account(name).name}


@handler("user.unsuspend", offline=True)
async def unsuspend(call: Call, name: str) -> dict[str, Any]:
    await call.house.decide(lambda state, _: a.unsuspend(state, a.find_person(state, name)))
    return {"user": call.house.state.find_account(name).name}


@handler("user.role", offline=True)
async def role(call: Call, name: str, role: a.Role) -> dict[str, Any]:
    await call.house.decide(lambda state, _: a.set_role(state, a.find_person(state, name), role))
    return {"user": call.house.state.find_account(name).name, "role": role}


@handler("user.end-sessions", offline=True)
async def end_sessions(call: Call, name: str) -> dict[str, Any]:
    await call.house.decide(lambda state, _: a.end_sessions(state, a.find_person(state, name)))
    return {"user": call.house.state.find_account(name).name}


@handler("user.forget", offline=True)
async def forget(call: Call, name: str, keep_texts: bool = False) -> dict[str, Any]:
    """The person is gone with the decision; their records are erased behind it, in steps that others do not feel."""
    costs = call.house.config.passwords
    unknown = accounts.nobodys_hash(memory_kib=costs.memory_kib, passes=costs.passes)
    account, was = 0, ""

    def decide(state: Any, now_ms: int) -> Any:
        nonlocal account, was
        who = a.find_person(state, name)
        account, was = who.id, who.name
        return a.forget(state, who, keep_texts=keep_texts, now_ms=now_ms, password_hash=unknown)

    await call.house.decide(decide)
    done = 0
    while await call.house.write(lambda writer: writer.erase(rows=ERASE_ROWS)):
        done += ERASE_ROWS
        await call.progress(done, 0, "records looked through")
    return {"user": was, "now": call.house.state.accounts[account].name, "texts": "kept" if keep_texts else "erased"}


@handler("ban.add", offline=True)
async def ban(call: Call, name: str, reason: str | None = None, for_ms: int | None = None) -> dict[str, Any]:
    """*name*: a person, an address or a network; ``@`` says that it is a person. *for_ms* None: until it is lifted."""
    network, until = network_of(name), None

    def decide(state: Any, now_ms: int) -> Any:
        nonlocal until
        until = now_ms + for_ms if for_ms is not None else None
        if network is not None:
            return moderation.ban_address(state, a.SHELL, network, reason, now_ms, until)
        who = a.find_person(state, name)
        if who.role == "owner":
            raise ChatError("forbidden", f"{who.name} owns the server: make somebody else the owner first (chat user role NAME owner)")
        return d.ban(state, a.SHELL, who, reason, now_ms, until)

    await call.house.decide(decide)
    return {"banned": _banned(call, name), "until": until}


@handler("ban.remove", offline=True)
async def unban(call: Call, name: str) -> dict[str, Any]:
    network, defaults = network_of(name), call.house.config.default_channels

    def decide(state: Any, now_ms: int) -> Any:
        if network is not None:
            return moderation.unban_address(state, a.SHELL, network)
        return d.unban(state, a.SHELL, a.find_person(state, name), defaults, now_ms)

    await call.house.decide(decide)
    return {"banned": _banned(call, name)}


def _banned(call: Call, name: str) -> str:
    network = network_of(name)
    return shown(network) if network is not None else call.house.state.find_account(name).name


# ---------------------------------------------------------------- invites


@handler("invite.add", offline=True)
async def invite(
    call: Call, role: Literal["admin", "member"] = "member", uses: int | None = 1, expires_ms: int | None = None
) -> dict[str, Any]:
    """*uses* None: any number of times. *expires_ms*: that long from now."""
    code, until = accounts.new_invite(), None

    def decide(state: Any, now_ms: int) -> Any:
        nonlocal until
        until = now_ms + expires_ms if expires_ms is not None else None
        return a.put_invite(code, role, uses, until, now_ms)

    await call.house.decide(decide)
    return {"code": code, "role": role, "uses": uses, "expires": until}


@handler("invite.remove", offline=True)
async def uninvite(call: Call, code: str) -> dict[str, Any]:
    folded = accounts.fold_invite(code)
    await call.house.decide(lambda state, _: a.drop_invite(state, folded))
    return {"code": folded}
