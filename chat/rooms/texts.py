"""Deciding texts and commands."""

import math
from collections.abc import Callable
from typing import Any, Final

import attrs

from chat.errors import ChatError
from chat.protocol import messages as m
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms import notices
from chat.rooms.audience import Reply
from chat.rooms.cids import Key
from chat.rooms.conversations.running import perform, refusal_for
from chat.rooms.conversations.runs import Run
from chat.rooms.desk import Desk, Handler, digest
from chat.rooms.moderation import safety
from chat.rooms.moderation.why import refused
from chat.rooms.policy import may, take
from chat.rooms.state import Account, Room, State, unseen

RESULT_BYTES: Final = 256 * 1024  # of a command's answer: as much as a page of history


def send(desk: Desk, link: it.Connection, request: m.Send) -> None:
    text, prefix = request.text, desk.settings.prefix
    if desk.state.prefixes:
        prefix = prefix_in(desk, request.channel, link.account)
    if text.startswith(prefix):
        typed = typed_digest(desk, request) if request.cid is not None else None
        _run(desk, link, Asked(request.id, request.cid, request.channel, text[len(prefix) :], typed))
        return
    if text.startswith("\\" + prefix):
        text = text[1:]
    account, refusal = link.account, None
    conv: int | fx.Pair = 0
    room: Room | None = None
    wait = desk.rates.of(account).sends.take(desk.taken_at)
    if wait > 0:  # nothing is looked up: what is refused takes a token too, or names could be tried without end
        name = "#" + request.channel if request.channel is not None else f"@{request.to}"
        refusal = ChatError("rate_limited", f"too many messages; wait {wait:.1f} s", retry_after=math.ceil(wait * 1000) / 1000)
    elif request.channel is not None:
        room = desk.state.room_for(request.channel, account)
        name = room.conv if room is not None else "#" + request.channel
        if room is not None and account in room.members:
            conv = room.id
        else:
            room, refusal = None, not_in(room, request.channel)
    else:
        other = desk.state.account(request.to or "")
        name = "@" + (other.name if other is not None else request.to or "")
        if other is None or other.ban is not None or other.forgotten:
            refusal = ChatError("not_found", f"there is no user {(request.to or '')[:64]!r}")
        elif account in other.ignored:
            refusal = safety.not_taken(other)
        else:
            conv = fx.Pair.of(account, other.id)
    if desk.calling and (account, request.cid) in desk.calling:  # stored, it would be in the way of what the command has done by now
        refusal = ChatError("cid_conflict", "this cid was used for a command, which still runs")
    if refusal is None:
        if room is not None and room.rules is not None:
            refusal = restrained(desk.state, desk.who(link), room, text, desk.taken_at, desk.clock.now_ms())
        elif room is None and desk.state.book.server_filter is not None:
            refusal = desk.state.book.filtered(text, admin=may("moderate-server", desk.who(link)))
    stored = fx.Append(conv=conv, kind="message", author=account, body=text, reply_to=request.reply_to)
    desk.add(
        fx.Action(
            effects=(stored,) if refusal is None else (),
            account=account,
            cid=request.cid,
            digest=typed_digest(desk, request),
            refusal=refusal,
            reply=Reply(link, request.id, conv=name),
            charged=refusal is not None and wait <= 0,
        )
    )


def typed_digest(desk: Desk, request: m.Send) -> bytes:
    """What is kept with the cid of a text. As written: when the same comes again the channel may be gone, or none that the person can
    see, and with it its prefix. So what begins with a channel's own prefix counts as a message here, command or not."""
    text, prefix = request.text, desk.settings.prefix
    if text.startswith(prefix):
        return digest(request.channel or "", "command", text[len(prefix) :])
    asked_for = "#" + request.channel if request.channel is not None else f"@{request.to}"
    return digest(asked_for.casefold(), "message", text)


def prefix_in(desk: Desk, channel: str | None, account: int) -> str:
    """What commands begin with in a channel, and in private (None)."""
    room = desk.state.room_for(channel, account) if channel is not None else None
    return desk.settings.prefix if room is None or room.prefix is None else room.prefix


def restrained(state: State, who: Account, room: Room, text: str, now: float, now_ms: int) -> ChatError | None:
    """Why *who*, a member, may not say *text* in *room* now, and None where it may, which slow mode counts. Whatever puts a person's text
    into a channel that has ``rules`` asks this first."""
    assert room.rules is not None
    refusal = room.rules.refusal(
        room.conv,
        who.id,
        text,
        moderates=may("moderate", who, room),
        admin=may("moderate-server", who),
        now=now,
        now_ms=now_ms,
        name_of=state.name_of,
    )
    if refusal is not None and refusal.why.rule != "server-filter":
        refusal.why = attrs.evolve(refusal.why, room=room.id)
    return refusal


def not_in(room: Room | None, raw: str) -> ChatError:
    """The refusal for who is no member. *room* is from `State.room_for`: None for an absent one and for a private one alike."""
    return unseen(raw) if room is None else refused(f"you are not in {room.conv}; join it first", "write", room=room.id, ask=False)


# ---------------------------------------------------------------- commands


@attrs.frozen
class Asked:
    """A command as it was asked for; ``text`` has no prefix. ``typed``: its digest, where it was typed as a text."""

    id: int | str
    cid: str | None
    channel: str | None
    text: str
    typed: bytes | None = None

    @property
    def name(self) -> str:
        return next(iter(self.text.split(maxsplit=1)), "")

    @property
    def digest(self) -> bytes | None:
        """What is kept with its cid."""
        return self.typed or (digest(self.channel or "", "command", self.text) if self.cid is not None else None)


@attrs.frozen(kw_only=True, eq=False)
class Calling:
    """An ``async def`` command that runs, and who waits for its result: (connection, request id), the first who asked first."""

    asked: Asked
    run: Run
    waiting: list[tuple[it.Connection, int | str]]

    @property
    def key(self) -> Key | None:
        return (self.run.account, self.asked.cid) if self.asked.cid is not None else None


@attrs.frozen(kw_only=True, eq=False)
class Finished:
    """An ``async def`` command has run: ``decide`` is called at this place of the order, or ``error`` is answered.

    It is the session's, not the connection's: it is decided although the connection has been replaced, and then answered to who asked
    again with the same cid.
    """

    calling: Calling
    decide: Callable[[it.Invocation], it.Done] | None
    error: ChatError | None


def command(desk: Desk, link: it.Connection, request: m.Command) -> None:
    _run(desk, link, _asked(desk, link.account, request))


def command_digest(desk: Desk, account: int, request: m.Send | m.Command) -> bytes:
    """What is kept with the cid of a command."""
    if type(request) is m.Send:
        return typed_digest(desk, request)
    return _asked(desk, account, request).digest or b""


def _asked(desk: Desk, account: int, request: m.Send | m.Command) -> Asked:
    prefix = prefix_in(desk, request.channel, account)
    return Asked(request.id, request.cid, request.channel, request.text.removeprefix(prefix))


def _run(desk: Desk, link: it.Connection, asked: Asked) -> None:
    """A ``def`` command is decided here and now, an ``async def`` one is started.

    Its connection has looked the cid up, so that what is stored is not decided again (`Retry`). What is not stored yet is refused here,
    and the committer, who looks every cid up in its order, answers with the first result all the same if there is one by then.
    """
    try:
        if asked.cid is not None and (calling := desk.calling.get((link.account, asked.cid))) is not None:
            _join_in(link, asked, calling)
            return
        if asked.cid is not None and (link.account, asked.cid) in desk.fresh_cids:
            raise ChatError("busy", "this command is still being worked on", retry_after=1)
        take(desk.rates.of(link.account).commands, desk.clock.now(), "commands")
        done = _guarded(asked, lambda: desk.commands.start(invocation(desk, link, asked.channel, asked.text)))
        if isinstance(done, it.Later):
            _start(desk, link, asked, done)
        else:
            _finish(desk, link, asked, done)
    except ChatError as error:
        _refuse(desk, link, asked, error)


def _start(desk: Desk, link: it.Connection, asked: Asked, later: it.Later) -> None:
    """Run it in a task of its session's. *Raises* ChatError unauthorized, busy."""
    session = desk.sessions.get(link.session)
    if session is None:
        raise ChatError("unauthorized", "this session has ended")
    room = later.room
    run = Run(
        questions=desk.questions,
        name=later.name,
        account=link.account,
        session=link.session,
        room=room.id if room is not None else None,
        member=room is not None and link.account in room.members,
        since=desk.clock.now(),
    )
    desk.questions.start(run)
    calling = Calling(asked=asked, run=run, waiting=[(link, asked.id)])
    if calling.key is not None:
        desk.calling[calling.key] = calling
    link.command_started()

    async def task() -> None:
        handed_on = False
        try:
            decide, error = None, None
            try:
                decide = await perform(run, lambda: later.run(run), desk.settings.command_s)
            except ChatError as refused:
                error = refused.untied()
            desk.questions.finish(run)
            handed_on = await desk.ask(Finished(calling=calling, decide=decide, error=error))
        finally:
            desk.questions.finish(run)
            if not handed_on:  # cancelled with its session, or the daemon ends
                there = [(waiter, id) for waiter, id in calling.waiting if waiter.session in desk.state.held]
                _over(desk, calling, ChatError("shutting_down", "the server stops", retry_after=1), there)
            desk.wake()

    desk.start_task(session, task)


def _join_in(link: it.Connection, asked: Asked, calling: Calling) -> None:
    """The same cid while the command runs: a retry of who lost the connection. It gets the result when there is one.

    *Raises* ChatError cid_conflict where it is another command.
    """
    if asked.digest != calling.asked.digest:
        raise ChatError("cid_conflict", "this cid was used for another command, which still runs")
    link.command_started()
    calling.waiting.append((link, asked.id))


def finished(desk: Desk, item: Finished) -> None:
    """Decide what an ``async def`` command found out. The first who asked is answered in its place; who came again, as a retry."""
    asked, decide, run = item.calling.asked, item.decide, item.calling.run
    (link, _), *others = item.calling.waiting
    try:
        if run.session not in desk.state.held:
            raise ChatError("unauthorized", "this session has ended")
        if item.error is not None:
            raise item.error
        assert decide is not None
        done = _guarded(asked, lambda: decide(invocation(desk, link, asked.channel, asked.text)))
        assert isinstance(done, it.Done)
        _finish(desk, link, asked, done)
        again = ChatError("busy", "this command is being forgotten; try again", retry_after=1)
    except ChatError as error:
        again = error.untied()
        _refuse(desk, link, asked, again)
    _over(desk, item.calling, again, others)


def _over(desk: Desk, calling: Calling, error: ChatError, unanswered: list[tuple[it.Connection, int | str]]) -> None:
    """Nobody can join it any more; the *unanswered* are told *error*, if the committer knows no result for them.

    Who asked again from another session than the one that the command ended with may simply give it once more.
    """
    if calling.key is not None:
        desk.calling.pop(calling.key, None)
    held = desk.state.held
    elsewhere = ChatError("busy", "the session that gave this command has ended, and the command with it; try again", retry_after=1)
    for link, id in unanswered:
        told = elsewhere if calling.run.session not in held and link.session in held else error
        _refuse(desk, link, attrs.evolve(calling.asked, id=id), told)
    for link, _ in calling.waiting:
        link.command_ended()


def _finish(desk: Desk, link: it.Connection, asked: Asked, done: it.Done) -> None:
    """*Raises* ChatError internal_error for an answer that cannot be said."""
    encoded = _encoded(asked, done)
    if done.line:
        desk.note_command(link.account, asked.channel, done.line)
    opening = b'{"type":"result","id":%b,' % notices.json_bytes(asked.id)
    desk.add(
        fx.Action(
            effects=done.effects,
            account=link.account,
            cid=asked.cid,
            digest=asked.digest,
            result=encoded if asked.cid is not None else None,
            reply=Reply(link, asked.id, lambda outcome: opening + encoded[1:], replaces=False),
        )
    )


def _encoded(asked: Asked, done: it.Done) -> bytes:
    try:
        encoded = notices.json_bytes({"text": done.text} if done.data is None else {"text": done.text, "data": done.data})
        if len(encoded) > RESULT_BYTES:
            raise ValueError(f"an answer of {len(encoded)} bytes; at most {RESULT_BYTES}")
        return encoded
    except Exception as bug:
        raise refusal_for(asked.name, bug) from bug


def _refuse(desk: Desk, link: it.Connection, asked: Asked, error: ChatError) -> None:
    error = refusal_for(asked.name, error)
    desk.add(fx.Action(account=link.account, cid=asked.cid, digest=asked.digest, refusal=error, reply=Reply(link, asked.id)))


def invocation(desk: Desk, link: it.Connection, channel: str | None, text: str) -> it.Invocation:
    """*Raises* ChatError not_found for a channel that the person cannot see. In a private conversation there is no channel."""
    room = None
    if channel is not None and not channel.startswith("@"):
        room = desk.state.find_room(channel, link.account)
    rates = desk.rates.of(link.account)
    return it.Invocation(
        state=desk.state,
        account=desk.who(link),
        room=room,
        rates=rates,
        questions=desk.questions,
        text=text,
        now=desk.clock.now(),
        now_ms=desk.clock.now_ms(),
        refused=desk.refusals.of(link.account),
        noted=lambda: [noted for noted in desk.noted_commands if noted.account == link.account],
        live=lambda: [(session.account, session.link.host) for session in desk.sessions.values() if session.link is not None],
    )


def _guarded(asked: Asked, call: Callable[[], it.Done | it.Later]) -> it.Done | it.Later:
    """A command's bug is that one command's: internal_error with an id that the log has too. SystemExit is a bug like any other."""
    try:
        return call()
    except ChatError:
        raise
    except BaseException as bug:
        raise refusal_for(asked.name, bug) from bug


def commands(desk: Desk, link: it.Connection, request: m.Commands) -> None:
    listed = desk.commands.describe(invocation(desk, link, request.channel, ""))
    desk.answer(link, request.id, lambda outcome: m.Ok(id=request.id, data=listed))


def retry(desk: Desk, link: it.Connection, item: it.Retry) -> None:
    forgotten = ChatError("busy", "this command is being forgotten; try again", retry_after=1)
    desk.add(fx.Action(account=link.account, cid=item.cid, digest=item.digest, refusal=forgotten, reply=Reply(link, item.id)))


def malformed(desk: Desk, link: it.Connection, item: it.Malformed) -> None:
    error = item.error
    answer = m.Error(id=error.id, cid=error.cid, code=error.code, message=error.message)
    desk.add(fx.Action(account=link.account, reply=Reply(link, error.id, lambda outcome: answer)))


HANDLERS: Final[dict[type[Any], Handler]] = {
    m.Send: send,
    m.Command: command,
    m.Commands: commands,
    it.Malformed: malformed,
    it.Retry: retry,
}
