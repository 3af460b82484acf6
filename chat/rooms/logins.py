"""Deciding who gets a session: registration, login, resume, and the end of sessions."""

import secrets
from collections.abc import Sequence
from typing import Any, Final

from chat import accounts
from chat.protocol import messages as m
from chat.rooms import decisions as d
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms.audience import Reply
from chat.rooms.desk import NOBODY, Desk, Handler
from chat.rooms.moderation import bans, safety
from chat.rooms.moderation.sanctions import contains, network_of
from chat.rooms.state import Account
from chat.session import Session


def check_may_enter(desk: Desk, link: it.Connection, account: Account | None) -> None:
    """*account* None: a new one. *Raises* ChatError forbidden, for the ban of the account or of the address."""
    now_ms = desk.clock.now_ms()
    if account is not None:
        bans.check_not_banned(desk.state, account, now_ms)
    bans.check_address(desk.state, link.host, account, now_ms)


def register(desk: Desk, link: it.Connection, item: it.Registration) -> None:
    settings = desk.settings
    check_may_enter(desk, link, None)
    account, effects = d.register(
        desk.state,
        registration=settings.registration,
        name=item.name,
        password_hash=item.password_hash,
        color=item.color,
        invite=item.invite,
        default_channels=settings.default_channels,
        now_ms=desk.clock.now_ms(),
    )
    _open(desk, link, item.id, account, effects)


def log_in(desk: Desk, link: it.Connection, item: it.LoginVerified) -> None:
    check_may_enter(desk, link, desk.state.accounts[item.account])
    renewed = [fx.SetPassword(account=item.account, password_hash=item.renewed_hash)] if item.renewed_hash is not None else []
    _open(desk, link, item.id, item.account, [], item.password_hash, renewed)


def _open(
    desk: Desk,
    link: it.Connection,
    id: int | str,
    account: int,
    effects: list[fx.Effect],
    password_hash: str | None = None,
    renewed: Sequence[fx.Effect] = (),
) -> None:
    """A new session, live from the heads on. Of a login it comes before all else, *renewed* too: see `PutSession`."""
    session, token, now_ms = secrets.token_hex(8), accounts.new_token(), desk.clock.now_ms()
    effects.append(
        fx.PutSession(
            session=session,
            account=account,
            token_hash=accounts.token_hash(token),
            expires_ms=now_ms + int(desk.settings.token_life_s * 1000),
            client=link.client,
            address=link.host,
            at_ms=now_ms,
            password_hash=password_hash,
        )
    )
    effects += renewed

    def opened(outcome: fx.Outcome) -> bytes | None:
        desk.router.open(account, outcome.conversations or ())
        if link.fenced:  # it went away meanwhile: a session that nobody knows of, gone when its window has passed
            desk.sessions[session] = Session(session, account, None, gone_at=desk.clock.now())
            return None
        desk.sessions[session] = Session(session, account, link)
        link.account, link.session = account, session
        desk.router.attach(link)
        if desk.questions.live:
            desk.router.defer(lambda: show_questions(desk, link))
        answer = m.SessionOpened(
            id=id,
            user=desk.state.name_of(account),
            session=session,
            resume_token=token,
            heads=desk.router.heads(account),
            channels=list_channels(desk, desk.state.accounts[account]),
            read=desk.router.read_markers(account, outcome.conversations or ()),
            ignored=safety.ignored_names(desk.state, desk.state.accounts[account]) or None,
        )
        return link.opened(answer)

    def failed(error: Any) -> None:
        desk.state.release(session)
        link.login_failed(error)

    desk.add(fx.Action(effects=tuple(effects), account=account, conversations=True, reply=Reply(link, id, opened, failed=failed)))


def show_questions(desk: Desk, link: it.Connection) -> None:
    """What waits for the account of a session that is new, or back."""
    for question in desk.questions.shown_to(link.account):
        link.tell(question)


def list_channels(desk: Desk, account: Account) -> list[m.ChannelInfo]:
    """The channels that the account is in, with its role, by name."""
    rooms = sorted((desk.state.rooms[room] for room in account.rooms), key=lambda room: room.canonical)
    return [m.ChannelInfo(channel=room.name, topic=room.topic, role=room.members[account.id], prefix=room.prefix) for room in rooms]


def resume(desk: Desk, link: it.Connection, item: it.ResumeVerified) -> None:
    """The connection that the session had is fenced from here on: nothing more that it asks is decided."""
    account = desk.state.accounts[item.account]
    check_may_enter(desk, link, account)
    token, now_ms = accounts.new_token(), desk.clock.now_ms()
    session = desk.sessions.get(item.session)
    if session is None:
        session = desk.sessions[item.session] = Session(item.session, item.account, None)
    before = session.link
    if before is not None:
        before.fenced = True
    session.link, session.gone_at = link, None
    rotate = fx.RotateToken(
        session=item.session,
        token_hash=accounts.token_hash(token),
        expires_ms=now_ms + int(desk.settings.token_life_s * 1000),
        address=link.host,
        at_ms=now_ms,
        presented_hash=item.token_hash,
        account=item.account,
    )

    def committed(outcome: fx.Outcome) -> None:
        if before is not None:
            desk.router.defer(lambda: before.end(m.Replaced()))
        desk.router.open(item.account, outcome.conversations or ())
        if not link.fenced:
            link.account, link.session = item.account, item.session
            link.replay(token, outcome.conversations or [])
        elif session.link is link:  # it went away meanwhile
            session.link, session.gone_at = None, desk.clock.now()

    def failed(error: Any) -> None:
        if before is not None:
            before.end(m.Closing(code=error.code, retry_after=None if error.code == "unauthorized" else 1))
        if session.link is link:
            session.link, session.gone_at = None, desk.clock.now()
            if error.code == "unauthorized":  # the store has no such session: it is over at once, and not in its window
                _is_over(desk, session)
        link.login_failed(error)
        if link.fenced:  # another has resumed meanwhile: nothing that this one asks would be decided any more
            link.end(None)

    reply = Reply(link, item.id, committed, failed=failed)
    desk.add(fx.Action(effects=(rotate,), account=item.account, conversations=True, reply=reply))


def _is_over(desk: Desk, session: Session) -> None:
    if desk.sessions.get(session.id) is session:
        del desk.sessions[session.id]
    go_offline(desk, session)
    desk.wake()


def go_offline(desk: Desk, session: Session) -> None:
    """*session* is held no more. While that cannot be stored it is held on, as if it had just lost its connection, and tried again."""
    session.end()

    def failed(error: Any) -> None:
        if session.id not in desk.sessions:
            desk.sessions[session.id] = Session(session.id, session.account, None, gone_at=desk.clock.now())
            desk.state.hold(session.id, session.account)

    expires_ms = desk.clock.now_ms() + int(desk.settings.token_life_s * 1000)
    offline = fx.SessionOffline(session=session.id, account=session.account, expires_ms=expires_ms)
    desk.add(fx.Action(effects=(offline,), reply=Reply(NOBODY, 0, lambda outcome: None, failed=failed)))


def resumed(desk: Desk, link: it.Connection, item: it.Resumed) -> None:
    """The first frame after `resumed`: the token of before is worth nothing any more."""
    desk.add(fx.Action(effects=(fx.ForgetPreviousToken(session=link.session),), account=link.account))


def token_reused(desk: Desk, link: it.Connection, item: it.TokenReused) -> None:
    end_session(desk, item.account, item.session)


def end_session(desk: Desk, account: int, session: str) -> None:
    """Revoke one session and close its connection."""
    desk.add(fx.Action(effects=tuple(d.end_session(desk.state.accounts[account], session)), account=account))


def close_sessions(desk: Desk, effect: fx.CloseSessions | fx.CloseNetwork) -> None:
    """Sessions have ended: cancel what runs in their name, close their connections. The router calls it at its place in the order.

    One that is held was opened since that was decided, or is just being resumed and will be refused.
    """
    if isinstance(effect, fx.CloseNetwork):
        _close_network(desk, effect)
        return
    for session in [s for s in desk.sessions.values() if s.account == effect.account]:
        if session.id != effect.but and effect.only in (None, session.id) and session.id not in desk.state.held:
            del desk.sessions[session.id]
            session.end()
            if session.link is not None and session.link.account:
                session.link.end(m.Closing(code=effect.code))


def _close_network(desk: Desk, effect: fx.CloseNetwork) -> None:
    """The sessions stay: they may be resumed from elsewhere."""
    network = network_of(effect.network)
    assert network is not None
    inside: dict[str, bool] = {}
    for link in [session.link for session in desk.sessions.values() if session.link is not None]:
        host = link.host
        if host not in inside:
            inside[host] = contains(network, host)
        if inside[host] and link.account and desk.who(link).role == "member":
            link.tell(m.ServerNotice(text=effect.text, level="warning"))
            link.end(m.Closing(code="forbidden"))


def change_password(desk: Desk, link: it.Connection, item: it.PasswordVerified) -> None:
    effects = d.change_password(desk.state, desk.who(link), item.password_hash, link.session)
    desk.answer(link, item.id, lambda outcome: m.Ok(id=item.id), effects)


def log_out(desk: Desk, link: it.Connection, request: m.Logout) -> None:
    who = desk.who(link)
    effects = d.revoke_sessions(desk.state, who, None) if request.everywhere else d.end_session(who, link.session)
    desk.answer(link, request.id, lambda outcome: m.Ok(id=request.id), effects)


def end_another(desk: Desk, link: it.Connection, item: it.SessionFound) -> None:
    desk.answer(link, item.id, lambda outcome: m.Ok(id=item.id), d.end_session(desk.who(link), item.session))


HANDLERS: Final[dict[type[Any], Handler]] = {
    it.Registration: register,
    it.LoginVerified: log_in,
    it.ResumeVerified: resume,
    it.TokenReused: token_reused,
    it.Resumed: resumed,
    it.PasswordVerified: change_password,
    it.SessionFound: end_another,
    m.Logout: log_out,
}
