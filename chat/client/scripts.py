"""``chat send`` and ``chat tail``, for scripts: no questions but a password on a terminal, one exit status, and nothing lost in between."""

import json
import math
import select
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from chat.client.clean import clean
from chat.client.client import Client
from chat.client.delivery import Hidden, Missing
from chat.client.entry import Entry, Refused, ask_secret, enter, forget_stdout, start
from chat.client.reconnect import Status
from chat.client.screen import read_lines
from chat.client.view import plain, record_line
from chat.errors import ChatError
from chat.protocol import codec
from chat.protocol import messages as m


def send(channel: str, text: str, *, server: str | None = None, account: str | None = None, timeout_s: float = math.inf) -> int:
    """Say *text* in *channel* (or to ``@user``); with ``-`` each line of standard input, blank ones left out.

    Returns 0 when all of it is stored; a server that restarts meanwhile is waited for, at most *timeout_s*. 1 else: what was taken and not
    yet stored then is kept and sent by the next client of the account on this machine, but for what the server refused.
    """

    async def body(entry: Entry) -> int:
        return await _session(entry, lambda client: _send(client, channel, text), when_stopped=_say_what_is_left, timeout_s=timeout_s)

    return start(server, account=account, ask=False, body=body)


def tail(channel: str, *, server: str | None = None, account: str | None = None, as_json: bool = False, lines: int = 10) -> int:
    """Print the last *lines* records of *channel* (or ``@user``), then what comes, each once, until stopped or not read any more.

    With *as_json* each is one object on a line, all beyond ASCII escaped.
    """

    async def follow(client: Client) -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_unread, nursery.cancel_scope)
            await _tail(client, channel, as_json, lines)
        return 0

    async def body(entry: Entry) -> int:
        return await _session(entry, follow, when_stopped=lambda client, how: 0)

    return start(server, account=account, ask=False, body=body)


async def _session(
    entry: Entry,
    body: Callable[[Client], Awaitable[int]],
    *,
    when_stopped: Callable[[Client | None, str], int],
    timeout_s: float = math.inf,
) -> int:
    """The status that *body* returns; or *when_stopped*, by a signal or after *timeout_s*: it gets the client, if it had a session."""
    waiting = False

    def on_status(status: Status) -> None:
        nonlocal waiting
        if status.state == "waiting" and not waiting:
            print(f"chat: {entry.target.key}: {clean(status.why)}; waiting for it", file=sys.stderr, flush=True)
        waiting = (waiting or status.state == "waiting") and status.state != "online"

    async def ask_password(user: str) -> str | None:
        return ask_secret(f"Password of {clean(user)}: ")

    stopped = False
    status = 1
    entered: Client | None = None
    with trio.move_on_after(timeout_s) as scope:
        async with trio.open_nursery() as nursery:

            async def stop_on_signal() -> None:
                nonlocal stopped
                with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
                    async for _ in signals:
                        stopped = True
                        scope.cancel()

            async with entry.open(on_status=on_status, ask_password=ask_password, remember=False) as client:
                await enter(client, entry)
                nursery.start_soon(stop_on_signal)
                entered = client
                status = await body(client)
            nursery.cancel_scope.cancel()
    if stopped or scope.cancelled_caught:
        return when_stopped(entered, "stopped" if stopped else f"stopped after {timeout_s:g} s")
    return status


def _say_what_is_left(client: Client | None, how: str) -> int:
    left = len(client.pending) if client is not None else 0
    if client is None:
        said = f"{how}, with no session: not sent, and not kept"
    elif left:
        said = (
            f"{how}: {left} {'text is' if left == 1 else 'texts are'} not acknowledged; kept, and sent by the next client of this account"
        )
    else:
        said = f"{how}: what was taken is stored"
    print(f"chat: {said}", file=sys.stderr, flush=True)
    return 1


async def _send(client: Client, channel: str, text: str) -> int:
    to = _conversation(channel)
    count = 0
    try:
        if text != "-":
            _result(await client.send(to, text))
            return 0
        async for line in read_lines():
            if line.strip():
                _result(await client.send(to, line))
                count += 1
    except ChatError as error:
        before = f" (line {count + 1}; those before are stored)" if text == "-" else ""
        raise Refused(f"not sent{before}: {error.message}") from None
    for sending in client.unsettled:  # of an earlier run
        await sending.outcome()
    return 0


def _result(answer: Any) -> None:
    if isinstance(answer, m.Result) and answer.text:
        try:
            print(clean(answer.text, lines=True), flush=True)
        except BrokenPipeError:  # nobody reads it; what is still to be sent is sent all the same
            forget_stdout()


async def _end_unread(scope: trio.CancelScope) -> None:
    """Once nobody reads standard output any more (``| head``), without waiting for the next record to find out."""
    poll = select.poll()
    poll.register(1, 0)  # errors and hang-ups alone
    await trio.to_thread.run_sync(poll.poll, abandon_on_cancel=True)
    scope.cancel()


async def _tail(client: Client, channel: str, as_json: bool, lines: int) -> None:
    wanted = _conversation(channel)
    conv = next((known for known in client.conversations if known.casefold() == wanted.casefold()), wanted)
    if conv.startswith("#") and client.position(conv) is None:
        raise Refused(f"you are not in {conv}")
    first = client.position(conv)
    notices = client.notices()
    if lines > 0 and first is not None and first > 1:
        for record in await client.history(conv, limit=min(lines, 500), before=first):
            _print(client, record, as_json)
    async for notice in notices:
        if getattr(notice, "conv", "").casefold() == conv.casefold():
            _print(client, notice, as_json)
            if isinstance(notice, m.Removed):
                raise Refused(f"you are no longer in {conv}")
    raise client.ended or Refused("the session has ended")


def _print(client: Client, record: Any, as_json: bool) -> None:
    if as_json:
        match record:
            case codec.Unknown():
                data = record.data
            case Hidden() | Missing():
                data = {"type": type(record).__name__.lower(), **attrs.asdict(record)}
            case _:
                data = codec.to_builtins(record)
        print(json.dumps(data), flush=True)
        return
    line = record_line(record, me=client.user, colors={}, current=record.conv)
    if line is not None:
        print(plain(line, where=False), flush=True)


def _conversation(name: str) -> str:
    return name if name[:1] in ("#", "@") else "#" + name
