"""What a connection does before it asks the manager: everything about passwords and tokens that waits for a hash or for the store.

Each function does the slow part in the connection's own task, then puts an item with what it found out into the inbox; the manager
decides, and checks again what may have changed meanwhile.

A private channel and one that does not exist are answered alike, in time too: both cost one hash when a password was given, none
when not; and wrong ones are counted alike.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs
import trio

from chat import accounts
from chat.colors import parse_color
from chat.errors import ChatError
from chat.protocol import messages as m
from chat.protocol import names
from chat.rooms import decisions
from chat.rooms import items as it
from chat.rooms.moderation import bans
from chat.rooms.moderation.refusals import complete
from chat.rooms.state import Account

if TYPE_CHECKING:
    from chat.connection import Connection


@attrs.define(kw_only=True)
class Guard:
    """Passwords, and what is counted against guessing them."""

    passwords: accounts.Passwords
    logins: accounts.Logins
    registrations: accounts.Registrations
    bad_tokens: int = 0

    @property
    def failures(self) -> int:
        """Wrong passwords and tokens since the start."""
        return self.logins.wrong + self.bad_tokens


async def register(conn: "Connection", request: m.Register) -> None:
    """*Raises* ChatError bad_name, bad_request (password, colour), forbidden, name_taken, rate_limited, busy."""
    services, desk = conn.services, conn.services.manager.desk
    _check_address(conn, None)
    name = names.user_name(request.username)
    accounts.password_bytes(request.password)
    color = parse_color(request.color) if request.color is not None else None
    invite = accounts.fold_invite(request.invite) if request.invite is not None else None
    now_ms = desk.clock.now_ms()
    services.guard.registrations.take(conn.transport.peer)
    try:
        with _told_whom_to_ask(conn):
            decisions.check_registration(desk.state, desk.settings.registration, name, invite, now_ms)
        password_hash = await services.guard.passwords.hash(request.password)
        await _open(conn, it.Registration(id=request.id, name=name, password_hash=password_hash, color=color, invite=invite))
    finally:
        if not conn.account:
            services.guard.registrations.give_back(conn.transport.peer)


async def log_in(conn: "Connection", request: m.Login) -> None:
    """*Raises* ChatError unauthorized (the same for a wrong name and a wrong password), rate_limited, busy."""
    services = conn.services
    _check_address(conn, services.manager.desk.state.account(request.username))
    try:
        canonical = names.user_name(request.username).canonical
    except ChatError:
        canonical = request.username[:64]  # nobody's: but it costs the same
    known = await services.store.credentials(canonical)
    password_hash = known.password_hash if known is not None else None
    if not await services.guard.logins.check(canonical, request.password, password_hash, conn.transport.peer) or known is None:
        raise ChatError("unauthorized", "wrong name or password")
    renewed = None
    if services.guard.passwords.needs_rehash(known.password_hash):
        with contextlib.suppress(ChatError):  # busy: at the next login then
            renewed = await services.guard.passwords.hash(request.password)
    found = it.LoginVerified(id=request.id, account=known.account, password_hash=known.password_hash, renewed_hash=renewed)
    await _open(conn, found)


async def resume(conn: "Connection", request: m.Resume) -> None:
    """Afterwards ``conn.replaying`` is set, or the refusal is out. *Raises* ChatError unauthorized."""
    services, desk = conn.services, conn.services.manager.desk
    token_hash = accounts.token_hash(request.token)
    row = await services.store.session_by_token(token_hash)
    if row is None or (row.expires_ms <= desk.clock.now_ms() and row.session not in desk.state.held):  # in use it does not expire
        services.guard.bad_tokens += 1
        raise ChatError("unauthorized", "this session has ended; log in again")
    _check_address(conn, desk.state.accounts.get(row.account))
    if row.token == "stale":
        services.guard.bad_tokens += 1
        await conn.ask(it.TokenReused(account=row.account, session=row.session))
        raise ChatError("unauthorized", "this token was used before; the session was ended, log in again")
    await _open(conn, it.ResumeVerified(id=request.id, account=row.account, session=row.session, token_hash=token_hash))
    if conn.refused == "unauthorized":  # the token went stale between the look-up and the commit
        await conn.ask(it.TokenReused(account=row.account, session=row.session))


def _check_address(conn: "Connection", account: Account | None) -> None:
    """Before anything is hashed; the manager asks again. *Raises* ChatError forbidden, with all that there is to say."""
    desk = conn.services.manager.desk
    with _told_whom_to_ask(conn):
        bans.check_address(desk.state, conn.host, account, desk.clock.now_ms())


@contextlib.contextmanager
def _told_whom_to_ask(conn: "Connection") -> Iterator[None]:
    """A refusal from here does not pass the manager's desk, which adds the names."""
    try:
        yield
    except ChatError as error:
        raise complete(conn.services.manager.desk.state, error, 0) from None


async def _open(conn: "Connection", item: it.Registration | it.LoginVerified | it.ResumeVerified) -> None:
    """Ask for a session, and wait until the answer is out."""
    conn.opening, conn.refused = trio.Event(), None
    await conn.ask(item)
    await conn.opening.wait()
    conn.opening = None


async def join(conn: "Connection", request: m.Join) -> None:
    """A private channel's password is checked here. *Raises* ChatError rate_limited, busy."""
    services, state = conn.services, conn.services.manager.desk.state
    room = state.room(request.channel)
    open_to_all = room is not None and (not room.private or room.known_to(conn.account))
    if request.password is None or open_to_all:
        await conn.ask(request)
        return
    known = room.password_hash if room is not None else None
    version = room.password_version if room is not None else 0
    right = await services.guard.logins.check(_counted_as(request.channel), request.password, known, conn.transport.peer)
    found = room.id if right and room is not None else None
    await conn.ask(it.JoinVerified(id=request.id, channel=request.channel, room=found, password_version=version))


def _counted_as(channel: str) -> str:
    """What wrong passwords of a channel are counted under: one form of all its spellings, whether there is such a channel or not."""
    raw = channel.removeprefix("#")
    try:
        return "#" + names.channel_name(raw).canonical
    except ChatError:
        return "#" + raw[: names.CHANNEL_CHARACTERS].casefold()  # nobody's: but it is counted the same


async def log_out(conn: "Connection", request: m.Logout) -> None:
    """Another session is looked for in the store: one that nobody is connected to is known there alone.

    *Raises* ChatError bad_request, not_found.
    """
    if request.session in (None, conn.session):
        await conn.ask(request)
        return
    if request.everywhere:
        raise ChatError("bad_request", "`everywhere` ends all sessions, `session` one: give one of the two")
    found = await conn.services.store.sessions(conn.account)
    if not any(row.session == request.session for row in found):
        raise ChatError("not_found", "you have no such session; it may have ended already")
    await conn.ask(it.SessionFound(id=request.id, session=request.session or ""))


async def change_password(conn: "Connection", request: m.PasswordChange) -> None:
    """*Raises* ChatError forbidden (the old one is wrong), bad_request (the new one), rate_limited, busy."""
    services, who = conn.services, conn.services.manager.desk.state.accounts[conn.account]
    accounts.password_bytes(request.new)
    known = await services.store.credentials(who.canonical)
    password_hash = known.password_hash if known is not None else None
    if not await services.guard.logins.check(who.canonical, request.old, password_hash, conn.transport.peer):
        raise ChatError("forbidden", "the old password is wrong")
    new_hash = await services.guard.passwords.hash(request.new)
    await conn.ask(it.PasswordVerified(id=request.id, password_hash=new_hash))
