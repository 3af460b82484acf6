"""What happens once, at the start: the certificate, what a new server needs, and what is told when the doors are open."""

import os
import socket
from typing import Any

import trio

from chat import accounts, joinline
from chat.background import ReadyInfo, StartRefused
from chat.config import Config
from chat.daemon.parts import Parts
from chat.errors import ChatError
from chat.protocol import names
from chat.rooms import decisions
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms.state import State
from chat.store.sqlite import now_ms
from chat.transport import certificates


def open_certificate(config: Config) -> Any:
    """*Raises* StartRefused. Makes a self-signed one where none is configured and none is there, or ours lacks where guests connect to.

    It is for what the link names, so that a browser has nothing to object to but the issuer. A key that is there stays, and with it every
    join line; one that is missing, with its certificate there, is not made anew: those would be worth nothing.
    """
    certificate, key = config.certificate, config.key
    try:
        if config.tls.certificate is None:
            wanted = joinline.outward_names(config)
            if not certificate.exists():
                certificates.make_self_signed(certificate, key, wanted)
            elif key.exists():
                certificates.name_also(certificate, key, wanted)
        return certificates.server_context(certificate, key)
    except (OSError, ValueError) as error:
        raise StartRefused(
            f"the certificate {certificate} with the key {key} cannot be used: {error}; chat doctor says what helps"
        ) from error


async def bootstrap(config: Config, parts: Parts) -> bool:
    """Make what a server needs and this one lacks: the default channels, an invite for the owner, one for the guests.

    Returns whether this is the first start.
    """
    names.warm_up()
    state, at_ms = parts.manager.desk.state, now_ms()
    first = not state.accounts and not state.rooms
    effects: list[fx.Effect] = []
    for raw in config.default_channels:
        if state.room(raw) is None:
            effects += decisions.create_room(state, None, names.channel_name(raw), None, at_ms)
    effects += decisions.appoint_owners(state, at_ms)
    for role, uses in (("owner", 1), ("member", None)):
        if not _invited(state, role, at_ms) and not (role == "owner" and any(a.role == "owner" for a in state.accounts.values())):
            code = accounts.new_invite()
            effects.append(fx.PutInvite(code=code, role=role, uses_left=uses, expires_ms=None, by=0, at_ms=at_ms))  # type: ignore[arg-type]
    if effects:
        outcome: list[fx.Outcome | ChatError] = []
        stored = trio.Event()

        def done(what: fx.Outcome | ChatError) -> None:
            outcome.append(what)
            stored.set()

        await parts.manager.inbox.send((None, [it.Bootstrap(effects=tuple(effects), done=done, failed=done)]))
        await stored.wait()
        if isinstance(outcome[0], ChatError):
            raise StartRefused(f"the database cannot be written: {outcome[0].message}{_room(config, outcome[0])}")
    return first


def _room(config: Config, refused: ChatError) -> str:
    """On a full disk: how full, and what it is measured by."""
    if refused.code != "storage_full":
        return ""
    disk = os.statvfs(config.database.parent)
    free, least = (count / 2**20 for count in (disk.f_bavail * disk.f_frsize, config.storage.min_free_bytes))
    return f" ({free:,.0f} MiB are free at {config.database.parent}, storage.min_free_bytes is {least:,.0f} MiB)"


def _invited(state: State, role: str, at_ms: int) -> bool:
    """Is there an invite with this role that is good for everybody's use?"""
    return any(i.role == role and (i.expires_ms is None or i.expires_ms > at_ms) for i in state.invites.values())


def ready_info(config: Config, sockets: list[list[socket.socket]], state: State, first: bool) -> ReadyInfo:
    """*Raises* OSError when the database cannot be read."""
    addresses = tuple(_shown(sock) for listening in sockets for sock in listening)
    owner = next((code for code, invite in state.invites.items() if invite.role == "owner"), None)
    guest = joinline.guest_invite(config.database)  # the one that `chat invite` prints, of those that there are
    may_register = config.registration != "closed"
    web = [_shown(sock) for listen, listening in zip(config.listen, sockets, strict=True) if "web" in listen.dialects for sock in listening]
    return ReadyInfo(
        addresses=addresses,
        data_dir=config.data_dir,
        owner_line=joinline.owner_line(config, addresses, owner) if owner is not None else None,
        guest_line=joinline.guest_line(config, addresses, guest) if may_register else None,
        first_start=first,
        web=joinline.guest_link(config, web, guest) if may_register and web else None,
    )


def _shown(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
