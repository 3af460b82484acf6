"""Deciding texts and commands."""

import math
from collections.abc import Callable
from typing import Any, Final

from chat.errors import ChatError
from chat.log import get_logger, new_error_id
from chat.protocol import messages as m
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms import notices
from chat.rooms.desk import Desk, Handler, digest
from chat.rooms.policy import take
from chat.rooms.router import Reply
from chat.rooms.state import Room

log = get_logger("chat.commands")


def send(desk: Desk, link: it.Connection, request: m.Send) -> None:
    text, prefix = request.text, desk.settings.prefix
    if text.startswith(prefix):
        _run(desk, link, _Asked(request.id, request.cid, request.channel, text[len(prefix) :]))
        return
    if text.startswith("\\" + prefix):
        text = text[1:]
    account, refusal = link.account, None
    conv: int | fx.Pair = 0
    if request.channel is not None:
        room = desk.state.room(request.channel)
        name = room.conv if room is not None else "#" + request.channel
        if room is not None and account in room.members:
            conv = room.id
        else:
            refusal = not_in(room, request.channel)
    else:
        other = desk.state.account(request.to or "")
        name = "@" + (other.name if other is not None else request.to or "")
        if other is None or other.ban is not None:
            refusal = ChatError("not_found", f"there is no user {request.to!r}")
        else:
            conv = fx.Pair.of(account, other.id)
    if refusal is None:
        wait = desk.rates.of(account).sends.take(desk.clock.now())
        if wait > 0:
            refusal = ChatError("rate_limited", f"too many messages; wait {wait:.1f} s", retry_after=math.ceil(wait * 1000) / 1000)
    desk.add(
        fx.Action(
            effects=(fx.Append(conv=conv, kind="message", author=account, body=text, reply_to=request.reply_to),) if refusal is None else (),
            account=account,
            cid=request.cid,
            digest=digest(name, "message", text),
            refusal=refusal,
            reply=Reply(link, request.id, conv=name),
        )
    )


def not_in(room: Room | None, raw: str) -> ChatError:
    """Absent and private are told in the same words."""
    if room is None or room.private:
        return ChatError("not_found", f"there is no channel {'#' + raw.removeprefix('#')!r} that you can see")
    return ChatError("forbidden", f"you are not in {room.conv}; join it first")


# ---------------------------------------------------------------- commands


class _Asked:
    """A command as it was asked for."""

    __slots__ = ("channel", "cid", "digest", "id", "text")

    def __init__(self, id: int | str, cid: str | None, channel: str | None, text: str) -> None:
        self.id, self.cid, self.channel, self.text = id, cid, channel, text
        self.digest = digest(channel or "", "command", text) if cid is not None else None


def command(desk: Desk, link: it.Connection, request: m.Command) -> None:
    _run(desk, link, _Asked(request.id, request.cid, request.channel, request.text.removeprefix(desk.settings.prefix)))


def command_digest(desk: Desk, request: m.Send | m.Command) -> bytes:
    """What is kept with the cid of a command."""
    return _Asked(request.id, request.cid, request.channel, request.text.removeprefix(desk.settings.prefix)).digest or b""


def _run(desk: Desk, link: it.Connection, asked: _Asked) -> None:
    """A ``def`` command is decided here and now. An ``async def`` one with a cid is looked up first, so that a retry never runs again."""
    try:
        if (link.account, asked.cid) in desk.running_cids:
            raise ChatError("busy", "this command is still running", retry_after=1)
        take(desk.rates.of(link.account).commands, desk.clock.now(), "commands")
        done = _guarded(asked, lambda: desk.commands.start(invocation(desk, link, asked.channel, asked.text)))
    except ChatError as error:
        _refuse(desk, link, asked, error)
        return
    if isinstance(done, it.Done):
        _finish(desk, link, asked, done)
    elif asked.cid is None:
        _start(desk, link, asked, done)
    else:
        not_known = ChatError("internal_error", "not known yet")

        def looked_up(error: ChatError) -> None:
            if error is not_known:
                _start(desk, link, asked, done)
            else:
                desk.running_cids.discard((link.account, asked.cid or ""))
                link.tell(m.Error(id=asked.id, cid=asked.cid, code=error.code, message=error.message, retry_after=error.retry_after))

        desk.running_cids.add((link.account, asked.cid))
        reply = Reply(link, asked.id, failed=looked_up)
        desk.add(fx.Action(account=link.account, cid=asked.cid, digest=asked.digest, refusal=not_known, reply=reply))


def _start(desk: Desk, link: it.Connection, asked: _Asked, later: it.Later) -> None:
    session = desk.sessions.get(link.session)
    if session is None:
        desk.running_cids.discard((link.account, asked.cid or ""))
        return
    link.command_started()

    async def run() -> None:
        decide, error = None, None
        try:
            decide = await later.run()
        except ChatError as refused:
            error = refused
        except Exception as bug:
            error = _internal(later.name, bug)
        finally:
            desk.running_cids.discard((link.account, asked.cid or ""))
            if decide is None and error is None:  # cancelled: its session has ended
                link.command_ended()
        await desk.ask(link, _Finished(asked, decide, error))
        link.command_ended()

    desk.start_task(session, run)


class _Finished:
    """An ``async def`` command has run: ``decide`` is called at this place, or ``error`` answered."""

    def __init__(self, asked: _Asked, decide: Callable[[it.Invocation], it.Done] | None, error: ChatError | None) -> None:
        self.id = asked.id
        self.asked, self.decide, self.error = asked, decide, error


def _finished(desk: Desk, link: it.Connection, item: _Finished) -> None:
    asked, decide = item.asked, item.decide
    try:
        if item.error is not None:
            raise item.error
        assert decide is not None
        done = _guarded(asked, lambda: decide(invocation(desk, link, asked.channel, asked.text)))
    except ChatError as error:
        _refuse(desk, link, asked, error)
    else:
        assert isinstance(done, it.Done)
        _finish(desk, link, asked, done)


def _finish(desk: Desk, link: it.Connection, asked: _Asked, done: it.Done) -> None:
    answer = {"text": done.text} if done.data is None else {"text": done.text, "data": done.data}
    encoded = notices.json_bytes(answer)
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


def _refuse(desk: Desk, link: it.Connection, asked: _Asked, error: ChatError) -> None:
    desk.add(fx.Action(account=link.account, cid=asked.cid, digest=asked.digest, refusal=error, reply=Reply(link, asked.id)))


def invocation(desk: Desk, link: it.Connection, channel: str | None, text: str) -> it.Invocation:
    """*Raises* ChatError not_found for a channel that the person cannot see. In a private conversation there is no channel."""
    room = None
    if channel is not None and not channel.startswith("@"):
        room = desk.state.find_room(channel, link.account)
    rates = desk.rates.of(link.account)
    return it.Invocation(
        state=desk.state, account=desk.who(link), room=room, rates=rates, text=text, now=desk.clock.now(), now_ms=desk.clock.now_ms()
    )


def _guarded(asked: _Asked, call: Callable[[], it.Done | it.Later]) -> it.Done | it.Later:
    """A command's bug is that one command's: internal_error with an id that the log has too."""
    try:
        return call()
    except ChatError:
        raise
    except Exception as bug:
        raise _internal(asked.text.split(maxsplit=1)[0] if asked.text.strip() else "", bug) from bug


def _internal(name: str, bug: Exception) -> ChatError:
    error_id = new_error_id()
    log.error("command_failed", command=name[:64], error_id=error_id, exc_info=bug)
    return ChatError("internal_error", f"the command failed; the server's log has it as {error_id}")


def answer(desk: Desk, link: it.Connection, request: m.Answer) -> None:
    raise ChatError("not_found", "there is no such question (any more)")


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
    m.Answer: answer,
    it.Malformed: malformed,
    it.Retry: retry,
    _Finished: _finished,
}
