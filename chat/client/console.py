"""``chat connect``: talk, line by line.

One conversation is in front; its lines are shown as they come, own ones when the server has stored them (until then they stand, dim,
above the prompt). Private texts are shown wherever one is; other channels count as unread and are shown on ``/switch``. A line that
begins with the server's prefix (``//``) goes to the server as a command, with the channel in front as its context; one that begins
with ``/`` is for the client itself (`chat.client.local`); anything else is said. (After ``/answering on`` it answers the newest question
instead, while there is one: never by default, for a word that is meant for people must not become an answer.)
"""

import os
import random
import re
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import trio

from chat.client import local, status_line
from chat.client.calls import Disconnected
from chat.client.clean import clean
from chat.client.client import Client
from chat.client.completion import WordCompleter
from chat.client.entry import Entry, enter, fit_for_prompt, interactive, start
from chat.client.keeper import SessionLost
from chat.client.reading import Reading
from chat.client.reconnect import Status
from chat.client.screen import PlainScreen, PromptScreen, Screen
from chat.client.sending import Sending
from chat.client.view import WARN, Line, day, folded, record_line, rule, told
from chat.errors import ChatError
from chat.protocol import messages as m

_COLOR: Final = re.compile("#[0-9A-Fa-f]{6}")
PATIENCE_S: Final = 60  # a command that was too fast is tried again by itself, if it need not wait longer
CONTEXT: Final = 15
TYPED_AHEAD: Final = 1000  # lines typed while one is being dealt with; a person does not reach it, and a pipe waits


def run(target: str | None, *, name: str | None = None, color: str | None = None, plain: bool = False) -> int:
    """The command. Returns the exit status: 0 after leaving, 1 when it could not go on, 2 for a target that is none."""
    return start(target, account=name, body=lambda entry: _main(entry, color=color, plain=plain or not fit_for_prompt()))


async def _main(entry: Entry, *, color: str | None, plain: bool) -> int:
    console = Console(plain=plain)
    try:
        async with entry.open(on_status=console.on_status, ask_password=console.ask_password, backlog=10) as client:
            await enter(client, entry, color=color)
            console.client = client
            return await console.run()
    finally:
        console.farewell()


class Console:
    """The state of what one person sees."""

    def __init__(self, *, plain: bool) -> None:
        self.client: Client = None  # type: ignore[assignment]  # set before `run`
        self.current: str | None = None
        self.colors: dict[str, str] = {}
        self.people: dict[str, list[str]] = {}  # channel → members, as last heard
        self.commands: list[tuple[str, str]] = []
        self.reading: Reading
        self.answering = False  # a plain line answers the newest question (`/answering on`)
        self.turn = trio.Event()  # a command has ended, or asks something
        self.at_work = 0  # commands that run, of a pipe
        self.asked: dict[str, str] = {}  # questions that were shown → their text, until they are over
        self.screen: Screen = (
            PlainScreen(where=lambda: True)
            if plain
            else PromptScreen(
                prompt=lambda: status_line.prompt(self),
                toolbar=lambda: status_line.toolbar(self),
                completer=WordCompleter(self._words),
                hidden=lambda: self.asking is not None,
                colored=not os.environ.get("NO_COLOR"),
            )
        )
        self.nursery: trio.Nursery
        self._running = False
        self.status = Status(state="connecting")
        self._tries = 0  # to connect, that failed one after the other
        self._said = ""  # the last word about the connection
        self.posted: dict[str, float] = {}  # cid → when
        self._day = ""
        self._cleared = ("", "", 0)  # the last message that was taken away: where, by whom, and the record's seq
        self._folded: tuple[str, str] | None = None  # the last line stands for what this person says there, whom one ignores
        self._shown: set[str] = set()  # conversations of which something was shown
        self.asking: tuple[str, list[str | None], trio.Event] | None = None
        self.held_back: list[tuple[float, str]] = []  # commands that were too fast: when they are tried again, and their names
        self._warned = False  # the server has warned of something since the session was opened
        self._lost = False
        self._left_behind = 0

    async def run(self) -> int:
        """Until the person leaves. Returns the exit status."""
        client = self.client
        self._running = True
        send_typed, typed = trio.open_memory_channel[str](TYPED_AHEAD)
        lost: SessionLost | None = None
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            self.reading = Reading(client, nursery.start_soon)
            nursery.start_soon(self._leave_on_signal)
            nursery.start_soon(self._run_screen, send_typed)
            nursery.start_soon(self._listen)
            self._greet()
            nursery.start_soon(self._read)
            await self._type(typed)
            nursery.cancel_scope.cancel()
        self._running = False
        if isinstance(client.ended, SessionLost):
            lost = client.ended
        self._left_behind = len(client.pending)
        if lost is not None:
            self.screen.complain(f"{lost}.")
        return 1 if lost is not None or self._lost else 0

    def farewell(self) -> None:
        if self._left_behind:
            lines = "1 line is" if self._left_behind == 1 else f"{self._left_behind} lines are"
            print_err = PlainScreen(where=lambda: False).complain
            print_err(f"{lines} not stored yet: kept here, and sent by the next `chat connect`.")

    def show(self, line: Line) -> None:
        self.screen.show(line)

    def complain(self, text: str) -> None:
        self.screen.complain(clean(text, lines=True))

    # ------------------------------------------------------------ the tasks

    async def _run_screen(self, typed: "trio.MemorySendChannel[str]") -> None:
        async with typed:
            try:
                await self.screen.run(typed)
            except BrokenPipeError:
                self.nursery.cancel_scope.cancel()

    async def _leave_on_signal(self) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async for _ in signals:
                self.nursery.cancel_scope.cancel()

    async def _type(self, typed: "trio.MemoryReceiveChannel[str]") -> None:
        async for line in typed:
            await self._typed(line)
            self.screen.refresh()
        if not self.screen.interactive:  # a pipe has ended: leave when all of it is stored
            while self.at_work:
                self.turn = trio.Event()
                await self.turn.wait()
            for sending in self.client.unsettled:
                with suppress(ChatError, SessionLost):
                    await sending.outcome()
            while self.client.queued and self.client.ended is None:
                await trio.lowlevel.checkpoint()  # `_listen` never waits for anything else

    async def _listen(self) -> None:
        """Show what comes."""
        client = self.client
        try:
            async for notice in client.notices():
                self._notice(notice)
        except (ChatError, SessionLost) as error:
            self._lost = True
            self.complain(error.message if isinstance(error, ChatError) else str(error))
        self.nursery.cancel_scope.cancel()

    async def _read(self) -> None:
        """What the console wants to know of the server, now and after each switch."""
        await self.client.wait_online()
        if self.screen.interactive:
            with suppress(SessionLost):
                await self.reading.catch_up(self.current)
        await self.refresh()

    async def _refresh_soon(self) -> None:
        """Not with everybody else at the same moment."""
        await trio.sleep(random.uniform(0, 3))
        await self.refresh()

    async def refresh(self) -> None:
        """Ask for names, colours and commands of the conversation in front."""
        channel = self.current if self.current is not None and self.current.startswith("#") else None
        with suppress(ChatError, SessionLost, Disconnected):
            self.commands = list(_commands(await self.client.commands(channel)))
            if channel is not None:
                await self.members(channel)
        self.screen.refresh()

    async def members(self, channel: str) -> tuple[list[dict[str, Any]], int]:
        """People, and how many more there are."""
        answer = await self.client.members(channel)
        entries = answer.data if isinstance(answer.data, list) else []
        people = [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("user"), str)]
        self.people[channel] = [entry["user"] for entry in people]
        for entry in people:
            color = entry.get("color")
            if isinstance(color, str) and _COLOR.fullmatch(color):
                self.colors[entry["user"]] = color
            else:
                self.colors.pop(entry["user"], None)
        return people, max(0, (answer.total or 0) - len(people))

    # ------------------------------------------------------------ what comes

    def _greet(self) -> None:
        client = self.client
        self.current = self._first_channel()
        if client.welcome is not None and client.welcome.motd:
            self.show(told(client.welcome.motd))
        if self.screen.interactive:
            self.show(told(f"{clean(client.welcome.name) if client.welcome else ''}: you are {clean(client.user)}. /help says how."))
        if self.current is not None:
            self.nursery.start_soon(self._bring_to_front, self.current)

    def _first_channel(self) -> str | None:
        names = sorted(self.client.channels)
        return "#lobby" if "lobby" in names else f"#{names[0]}" if names else None

    def _come_back(self) -> None:
        """A session is open; where none was left in front (after a ban, say), there may be a channel again."""
        self._warned = False
        if self.current is None and (channel := self._first_channel()) is not None:
            self.nursery.start_soon(self.switch, channel)

    def _notice(self, notice: Any) -> None:
        match notice:
            case m.Presence():
                for user, online in notice.users.items():
                    if self.screen.interactive and user != self.client.user:
                        self.show(told(f"· {clean(user)} is {'here' if online else 'gone'}"))
            case m.ServerNotice():
                self._warned = self._warned or notice.level == "warning"
                self.show(told(f"! {notice.text}", style="bold" if notice.level == "info" else WARN + " bold"))
            case m.Question():
                local.show_question(self, notice)
            case m.QuestionClosed():
                if (text := self.asked.pop(notice.question, None)) is not None and notice.reason != "answered":
                    self.show(told(f"? over ({notice.reason.replace('_', ' ')}): {text}"))
            case m.CommandsChanged():
                self.nursery.start_soon(self._refresh_soon)
            case m.ChannelChanged():
                self.show(told(f"· commands in {clean(notice.conv)} begin with {clean(self.client.prefix_of(notice.conv))} now"))
            case m.Replaced() | m.Lagging() | m.Closing() | m.ReadMarker():
                pass
            case m.Error():
                self.complain(f"the server says: {notice.message}")
            case _ if hasattr(notice, "conv"):
                self._record(notice)
            case _:
                pass
        self.screen.refresh()

    def _record(self, record: Any) -> None:
        conv = record.conv
        if isinstance(record, m.Deleted):
            self.screen.take_away((conv, record.target))
            self.reading.take_away(conv, record.target)
            if self._cleared == (conv, record.by, record.seq - 1):  # one of several: said once
                self._cleared = (conv, record.by, record.seq)
                return
            self._cleared = (conv, record.by, record.seq)
        if isinstance(record, m.Message):
            if record.cid is not None:
                self.posted.pop(record.cid, None)
            if record.from_ not in self.people.get(conv, (record.from_,)):
                self.people[conv].append(record.from_)
                self.nursery.start_soon(self.refresh)
        elif isinstance(record, m.Joined | m.Left) and conv == self.current:
            self.nursery.start_soon(self.refresh)
        if self.current is None and conv.startswith("#") and not isinstance(record, m.Removed):
            self.current = conv
        if conv == self.current or conv.startswith("@") or not self.screen.interactive or isinstance(record, m.Removed):
            self.show_record(record)
        elif isinstance(record, m.Message) and not self._folds(record):
            self.reading.keep(record)
        if isinstance(record, m.HistoryReset) and self.screen.interactive:  # what came into it while we were away is in its history alone
            self._shown.discard(conv)
            if conv == self.current:
                self.nursery.start_soon(partial(self.history, conv, CONTEXT, before=record.last_seq + 1))
        if isinstance(record, m.Removed):
            self.reading.forget(conv)
            self._shown.discard(conv)
        if isinstance(record, m.Removed) and conv == self.current:
            self.current = self._first_channel()

    def _folds(self, record: m.Message) -> bool:
        return record.conv.startswith("#") and record.from_ in self.client.ignored

    def show_record(self, record: Any) -> None:
        if isinstance(record, m.Message) and self._folds(record):
            self.reading.shown(record.conv, record.seq)
            if self._folded != (record.conv, record.from_):  # one line for all that follows on
                self._folded = (record.conv, record.from_)
                self.show(folded(record.from_, record.conv))
            return
        line = record_line(record, me=self.client.user, colors=self.colors, current=self.current)
        if line is None:
            return
        if isinstance(record, m.Message) and self.screen.interactive:
            today = day(record.ts)
            if self._day and today != self._day:
                self.show(rule(today))
            self._day = today
        self._folded = None
        self._shown.add(record.conv)
        self.reading.shown(record.conv, getattr(record, "seq", None))
        self.show(line)

    # ------------------------------------------------------------ what is typed

    async def _typed(self, line: str) -> None:
        if self.asking is not None:
            _, answer, event = self.asking
            answer.append(line)
            event.set()
            return
        text = "".join(char for char in line.rstrip() if char >= " " or char in "\n\t")
        if self.screen.interactive:
            self.reading.typed()
        if not text.strip():
            return
        prefix = self.client.prefix_of(self.current or "")
        first = text.split(maxsplit=1)[0]
        if first.startswith(prefix) and not (prefix == "/" and first[1:] in local.COMMANDS):
            if self.screen.interactive:
                self.nursery.start_soon(self.command, text[len(prefix) :])
            else:
                await self._command_in_turn(text[len(prefix) :])
        elif first.startswith("/") and not text.startswith(" "):
            await local.run(self, text[1:])
        elif self.answering and (newest := local.newest_question(self)) is not None:
            await local.give_answer(self, newest, text.strip())
        elif self.current is None:
            self.complain(f"You are in no channel: {prefix}channels lists them, /switch #NAME goes there.")
        else:
            await self.say(self.current, text)

    async def say(self, to: str, text: str) -> None:
        """Put it on disk, and let it be sent."""
        try:
            sending = await self.client.post_text(to, text)
        except OSError as error:
            self.complain(f"not sent, since it cannot be kept: {error.strerror}: {text[:60]}")
            return
        except SessionLost:
            return
        self.posted[sending.item.cid] = time.monotonic()
        self.nursery.start_soon(self._outcome, sending)

    async def _outcome(self, sending: Sending) -> None:
        try:
            answer = await sending.outcome()
        except ChatError as error:
            self._lost = self._lost or not self.screen.interactive
            self.complain(f"not sent: {error.message}: {sending.item.text[:60]}")
        except SessionLost:
            return
        else:
            if isinstance(answer, m.Result):
                self.show(told(answer.text, style=""))
        self.posted.pop(sending.item.cid, None)
        self.screen.refresh()

    async def _command_in_turn(self, text: str) -> None:
        """In a pipe a line waits for the one before it; but where that asks something, the next line may be the answer."""
        self.at_work += 1
        turn = self.turn = trio.Event()

        async def run() -> None:
            try:
                await self.command(text)
            finally:
                self.at_work -= 1
                self.turn.set()

        self.nursery.start_soon(run)
        await turn.wait()

    async def command(self, text: str) -> None:
        """A command of the server, in the channel in front."""
        words = text.split()
        if not words:
            prefix = self.client.prefix_of(self.current or "")
            self.complain(f"{prefix} begins a command of the server: {prefix}help lists them.")
            return
        channel = self.current if self.current is not None and self.current.startswith("#") else None
        try:
            while (result := await self._try_command(text, channel)) is None:
                pass
        except ChatError as error:
            self.complain(error.message)
            return
        except (SessionLost, Disconnected):
            return
        if result.text:
            self.show(told(result.text, style=""))
        if words[0] in ("join-channel", "create-channel") and len(words) > 1:
            await self.switch("#" + words[1].removeprefix("#"))
        else:
            await self.refresh()

    async def _try_command(self, text: str, channel: str | None) -> m.Result | None:
        """None: it was too fast, has waited as long as the server said, and is to be tried again."""
        try:
            return await self.client.command(text, channel=channel)
        except ChatError as error:
            wait_s = error.retry_after or 0.0
            if error.code != "rate_limited" or not 0 < wait_s <= PATIENCE_S:
                raise
        waiting = (time.monotonic() + wait_s, text.split()[0])
        self.held_back.append(waiting)
        self.screen.refresh()
        await trio.sleep(wait_s)
        self.held_back.remove(waiting)
        return None

    # ------------------------------------------------------------ conversations

    async def switch(self, conv: str) -> None:
        """Bring another conversation to the front; a channel one is not in is joined."""
        if conv.startswith("#") and conv[1:] not in self.client.channels:
            try:
                conv = (await self.client.join(conv)).conv or conv
            except ChatError as error:
                self.complain(error.message)
                return
        if conv == self.current:
            self.show(told(f"You are in {conv} already."))
            return
        self.current = conv
        self.screen.refresh()
        info = self.client.channels.get(conv.removeprefix("#"))
        self.show(rule(f"{conv}: {info.topic}" if info is not None and info.topic and conv.startswith("#") else conv))
        await self._bring_to_front(conv)

    async def _bring_to_front(self, conv: str) -> None:
        unread = self.reading.take(conv)
        if conv not in self._shown and self.screen.interactive:
            await self.history(conv, CONTEXT, before=unread[0].seq if unread else self.client.position(conv))
        for record in unread:
            self.show_record(record)
        await self.refresh()

    async def history(self, conv: str, limit: int, *, before: int | None = None) -> None:
        try:
            records = await self.client.history(conv, limit=limit, before=before)
        except ChatError as error:
            if error.code == "not_found":  # nobody has that name, or nothing was said yet: the server says which
                self.show(told(error.message, where=conv))
            else:
                self.complain(error.message)
            return
        except (SessionLost, Disconnected):
            return
        for record in records:
            self.show_record(record)

    # ------------------------------------------------------------ the status

    def on_status(self, status: Status) -> None:
        self.status = status
        if self._running and status.state == "online":
            self._come_back()
        if self._running and self.screen.interactive:
            if status.state == "online":
                self.nursery.start_soon(self.refresh)
            self.screen.refresh()
            return
        self._tries = self._tries + 1 if status.state == "waiting" else 0 if status.state == "online" else self._tries
        leave = "" if self._running or not interactive() else "; Ctrl-C ends it"
        said = {
            # The first time it is nothing yet: a server that restarts takes half a second, and is not worth a word.
            "waiting": f"no connection ({status.why}); trying again{leave}" if self._tries > 1 else "",
            "online": "connected" if self._said else "",
        }.get(status.state, "")
        if said and said != self._said:
            self._said = said
            PlainScreen(where=lambda: False).complain(clean(said))

    async def ask_password(self, user: str) -> str | None:
        """The session is gone; asked in the prompt, or before it runs on the terminal."""
        from chat.client.entry import ask_secret

        if not self._running:
            return ask_secret(f"Password of {clean(user)}: ")
        if not self.screen.interactive:
            return None
        event, answer = trio.Event(), list[str | None]()
        if self._warned:  # the last word of the server, as of a ban
            self.complain("The session ended (see above); your password opens another as soon as you may come back.")
        else:
            self.complain("The session ended; your password opens another.")
        self.asking = (f"password of {clean(user)}: ", answer, event)
        self.screen.refresh()
        await event.wait()
        self.asking = None
        self.screen.refresh()
        return answer[0]

    def _words(self, before: str) -> Iterable[tuple[str, str]]:
        """What Tab may put behind *before*."""
        prefix = self.client.prefix_of(self.current or "")
        if not before:
            yield from ((prefix + name, meaning) for name, meaning in self.commands)
            yield from (("/" + name, meaning) for name, meaning in local.described())
        people = sorted({user for users in self.people.values() for user in users})
        yield from (("#" + name, "") for name in sorted(self.client.channels))
        yield from (("@" + name, "") for name in people)
        yield from ((name, "") for name in people)


def _commands(data: Any) -> Iterable[tuple[str, str]]:
    for entry in data if isinstance(data, list) else ():
        if isinstance(entry, dict) and isinstance(name := entry.get("name"), str):
            yield name, str(entry.get("description") or "")
