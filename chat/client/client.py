"""The client as a Trio library: connect, request, send, and every notice exactly once.

    async with open_client("127.0.0.1:7667", store=ClientStore()) as client:
        await client.login("ann", password)
        await client.send("#lobby", "hello")
        async for notice in client.notices():
            ...

One background task keeps the connection (`chat.client.keeper.keep_connected`); what it reads comes to `Client.dispatch`, which
never waits. The reader of `notices` may be slow, or absent: nothing else waits for it (see `delivery`).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import suppress
from typing import Any, Final

import attrs
import trio

from chat.client.calls import Calls
from chat.client.channels import Channels
from chat.client.delivery import Delivery
from chat.client.keeper import Credentials, SessionLost, keep_connected
from chat.client.outbox import Item, new_cid
from chat.client.pages import page_records
from chat.client.questions import OpenQuestions
from chat.client.reconnect import Backoff, Status
from chat.client.sending import Lanes, Sending, error_of
from chat.client.servers import ClientStore, Slot
from chat.client.target import Target
from chat.protocol import messages as m

SAVE_EVERY_S: Final = 0.5


class Client:
    """A session with a server, over as many connections as it takes. Made by `open_client`."""

    def __init__(self, target: Target, store: ClientStore, *, remember: bool, backlog: int, backoff: Backoff) -> None:
        self.target = target
        self.store = store
        self.backoff = backoff
        self.welcome: m.Welcome | None = None
        self.user = ""
        self.channels: Final = Channels()
        self.read_markers: dict[str, int] = {}  # conversation → seq up to which any session of the account has read
        self.questions = OpenQuestions()
        self.slot: Slot | None = None
        self.credentials: Credentials | None = None
        self.greeted = trio.Event()  # a server answered, and is the right one
        self.wanted = trio.Event()  # credentials were given
        self.account: str | None = None
        self.trust: Callable[[Target, str, str | None], Awaitable[bool]] | None = None
        self.ask_password: Callable[[str], Awaitable[str | None]] | None = None
        self.on_status: Callable[[Status], None] = lambda status: None
        self.status = Status(state="connecting")
        self.retry_after: float | None = None
        self.last_heard = 0.0
        self._remember = remember
        self._backlog = backlog
        self._delivery = Delivery(backlog=backlog)
        self._lanes: Lanes | None = None
        self.ignored: set[str] = set()
        self.calls = Calls()
        self._ready = trio.Event()  # something for the reader
        self._pages: dict[int, str] = {}
        self._online = False
        self._ended: Exception | None = None
        self._ended_event = trio.Event()
        self._state_changed = trio.Event()
        self._put_lock = trio.Lock()
        self._unsaved = trio.Event()
        self._current: Any = None  # what the reader is at
        self._reading = False
        self._nursery: trio.Nursery | None = None

    # ------------------------------------------------------------ sessions

    @property
    def has_session(self) -> bool:
        """Whether there is a session to go on with, online or not."""
        return self._online or bool(self.slot is not None and self.slot.session.get("token"))

    @property
    def online(self) -> bool:
        return self._online

    @property
    def prefix(self) -> str:
        return self.welcome.prefix if self.welcome is not None else "//"

    @property
    def pending(self) -> list[Item]:
        """Own texts that are not acknowledged."""
        return self._lanes.pending if self._lanes is not None else []

    def waits(self, cid: str) -> tuple[float, str]:
        """Of an own text that was refused for now: in how many seconds it is sent again, and why it waits; else 0."""
        return self._lanes.waits(cid) if self._lanes is not None else (0.0, "")

    @property
    def unsettled(self) -> list[Sending]:
        """The same, to wait for; those of an earlier process too."""
        return self._lanes.unsettled if self._lanes is not None else []

    @property
    def queued(self) -> int:
        """How many notices wait for the reader."""
        return len(self._delivery)

    async def register(self, name: str, password: str, *, invite: str | None = None, color: str | None = None) -> None:
        """Make an account and open a session. *Raises* ChatError: name_taken, bad_name, forbidden …"""
        invite = invite if invite is not None else self.target.invite
        await self._enter(Credentials(name=name, password=password, register=True, invite=invite, color=color))

    async def login(self, name: str, password: str) -> None:
        """Open a session. *Raises* ChatError: unauthorized, rate_limited …"""
        await self._enter(Credentials(name=name, password=password))

    async def wait_online(self) -> None:
        """Until a session is open. *Raises* what ended the client."""
        while not self._online:
            self._check()
            event = self._state_changed = trio.Event()
            await event.wait()

    async def logout(self, *, everywhere: bool = False) -> None:
        """End the session for good; the outbox and the cursors stay on disk."""
        await self.request(m.Logout(id=0, everywhere=everywhere or None))
        self.end(SessionLost("logged out"))

    # ------------------------------------------------------------ requests

    async def request(self, message: Any) -> Any:
        """Send a request and return its answer; its id is given here. A broken connection is waited out, and the request repeated.

        *Raises* ChatError for an `error`; `Disconnected` for a password, logout or answer whose connection broke.
        """
        self._check()
        answer = await self.calls.call(message)
        if isinstance(answer, m.Error):
            raise error_of(answer)
        return answer

    async def post_text(self, to: str, text: str, *, reply_to: int | None = None) -> Sending:
        """Take a text for ``#channel`` or ``@user``: on return it is on disk and will be sent, whatever happens.

        *Raises* OSError when the disk does not take it: then it is not sent.
        """
        self._check()
        if self.slot is None or self._lanes is None:
            raise RuntimeError("log in before sending")
        if to[:1] not in "#@" or len(to) < 2:
            raise ValueError(f"expected #channel or @user, not {to!r}")
        sending = Sending(Item(cid=new_cid(), to=to, text=text, reply_to=reply_to))
        async with self._put_lock:  # in the order of the calls
            await trio.to_thread.run_sync(self.slot.outbox.put, sending.item)
            self._lanes.add(sending)
        return sending

    async def send(self, to: str, text: str, *, reply_to: int | None = None) -> m.Ack | m.Result:
        """`post_text`, and wait until it is stored. Result where the text was a command. *Raises* ChatError: definitely not stored."""
        sending = await self.post_text(to, text, reply_to=reply_to)
        return await sending.outcome()

    async def join(self, channel: str, password: str | None = None) -> m.Ok:
        answer: m.Ok = await self.request(m.Join(id=0, channel=channel.removeprefix("#"), password=password))
        return answer

    async def leave(self, channel: str) -> m.Ok:
        answer: m.Ok = await self.request(m.Leave(id=0, channel=channel.removeprefix("#")))
        return answer

    async def command(self, text: str, *, channel: str | None = None) -> m.Result:
        """Run a command of the server; with a cid, so that a repetition after a broken connection does nothing twice."""
        where = channel.removeprefix("#") if channel is not None else None
        answer: m.Result = await self.request(m.Command(id=0, cid=new_cid(), channel=where, text=text))
        return answer

    async def members(self, channel: str) -> m.Ok:
        """Who is in *channel*; of a large one the first, and in ``total`` how many there are."""
        answer: m.Ok = await self.request(m.Members(id=0, channel=channel.removeprefix("#")))
        return answer

    async def commands(self, channel: str | None) -> Any:
        """What the person may use there; None: in private."""
        return (await self.request(m.Commands(id=0, channel=channel and channel.removeprefix("#")))).data

    async def end_session(self, session: str) -> None:
        """End another session of the account. *Raises* ChatError not_found: it is none of the account's, or has ended already."""
        await self.request(m.Logout(id=0, session=session))

    async def mark_read(self, conv: str, seq: int) -> None:
        """Everything up to *seq* was read: for this session and the account's others."""
        self._read_up_to(conv, seq)
        await self.request(m.Read(id=0, conv=conv, seq=seq))

    def _read_up_to(self, conv: str, seq: int) -> None:
        self.read_markers[conv] = max(seq, self.read_markers.get(conv, 0))

    async def history(self, conv: str, *, limit: int, after: int | None = None, before: int | None = None) -> list[Any]:
        """A page of the records of *conv*, ascending."""
        page = await self.request(m.HistoryRequest(id=0, conv=conv, limit=limit, after=after, before=before))
        return [record for _, record in page_records(page)]

    # ------------------------------------------------------------ notices

    def notices(self) -> "Client":
        """``async for notice in client.notices()``: one reader. Per conversation every record in order, once, without a gap.

        What the reader finished with (asked for the next) is noted on disk, unless the client was opened with remember=False.
        Ends when the session was replaced or logged out. *Raises* what else ended the client.
        """
        self._reading = True
        self._fill()
        return self

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        self._finished()
        while not len(self._delivery):
            self._fill()
            if self._ended is not None:
                if isinstance(self._ended, SessionLost):
                    raise StopAsyncIteration
                raise self._ended
            self._ready = trio.Event()
            await self._ready.wait()
        await trio.lowlevel.checkpoint()
        self._current = self._delivery.take()
        self._fill()
        return self._current

    def position(self, conv: str) -> int | None:
        """The seq of the next record of *conv* that the reader gets; None when the conversation is unknown."""
        cursor = self._delivery.consumed_cursors.get(conv)
        return cursor[1] if cursor is not None else None

    @property
    def conversations(self) -> list[str]:
        return sorted(self._delivery.cursors)

    def _finished(self) -> None:
        if self._current is not None and self._delivery.consumed(self._current):
            self._unsaved.set()
        self._current = None

    # ------------------------------------------------------------ for keep_connected

    def take_slot(self, slot: Slot) -> None:
        assert self._nursery is not None
        self.slot = slot
        if self._remember:
            self._delivery = Delivery(slot.load_cursors(), backlog=self._backlog)
        self._lanes = Lanes(slot.outbox, self.calls.post, self._later)
        self._nursery.start_soon(self._save_cursors)

    def forget_credentials(self) -> None:
        """They were refused; the next ones may come."""
        self.credentials = None
        self.wanted = trio.Event()

    @property
    def cursors(self) -> dict[str, tuple[str, int]]:
        return self._delivery.cursors

    def session_open(self, answer: Any, *, replayed: Collection[str]) -> None:
        """Token and session are on disk: from here on frames may go out."""
        self.user = answer.user
        self.channels.opened(answer.channels)
        self.ignored = set(answer.ignored or ())
        self.read_markers = dict(answer.read or {})
        self._delivery.opened(answer.heads, replayed=replayed)
        self.questions.opened()
        self._online = True
        self.calls.online()
        assert self._lanes is not None
        self._lanes.online()
        self._fill()
        self.tell(Status(state="online"))
        self._ready.set()

    def connection_lost(self) -> None:
        self._online = False
        self.calls.offline()
        self._pages.clear()
        self._delivery.unasked()
        if self._lanes is not None:
            self._lanes.offline()

    def tell(self, status: Status) -> None:
        self.status = status
        self._state_changed.set()
        self.on_status(status)

    def end(self, error: Exception) -> None:
        """No more connection: whoever waits gets *error*."""
        if self._ended is None:
            self._ended = error
            self._ended_event.set()
        self.calls.fail(self._ended)
        if self._lanes is not None:
            self._lanes.fail(self._ended)
        if self.credentials is not None:
            self.credentials.settle(self._ended)
        self.greeted.set()
        self._ready.set()
        self.tell(Status(state="ended", why=str(self._ended)))

    @property
    def ended(self) -> Exception | None:
        return self._ended

    # ------------------------------------------------------------ what comes from the server

    def dispatch(self, notice: Any) -> None:
        """Take one notice; never waits."""
        match notice:
            case m.Ack():
                self._acknowledged(notice)
            case m.Pong():
                pass
            case m.Ping():
                self.calls.post(m.Pong(id=notice.id))
            case m.HistoryPage() if notice.id in self._pages:
                conv = self._pages.pop(notice.id)
                self._delivery.page(conv, notice.epoch, self._seen(page_records(notice)), more=notice.more, last_seq=notice.last_seq)
            case m.Error() if notice.id in self._pages:
                self._page_refused(self._pages.pop(notice.id), notice)
            case m.Ok() | m.Result() | m.HistoryPage() | m.Error():
                self._answered(notice)
            case m.Heads():
                self._delivery.heads(notice.heads)
            case m.Gap():
                self._delivery.gap(notice.conv, notice.before)
            case m.HistoryReset():
                self._delivery.reset(notice)
            case m.ChannelChanged():
                self.channels.changed(notice)
                self._delivery.control(notice)
            case m.Removed():
                self.channels.left(notice.conv)
                self._delivery.removed(notice)
            case m.Closing():
                self.retry_after = notice.retry_after
                if notice.code == "unauthorized" and self._online:
                    self.credentials = None  # somebody ended this session: whoever goes on shall know the password
                self._delivery.control(notice)
            case m.Replaced():
                self._delivery.control(notice)
                self.end(SessionLost("another client took over this session"))
            case m.ReadMarker():
                self._read_up_to(notice.conv, notice.seq)
                self._delivery.control(notice, droppable=True)
            case m.Ignored():
                self.ignored = set(notice.users)
            case m.Presence() | m.Lagging():
                self._delivery.control(notice, droppable=True)
            case _ if getattr(notice, "seq", None) and getattr(notice, "conv", None) and getattr(notice, "epoch", None):
                self._seen([(notice.seq, notice)])
                self._delivery.record(notice)
            case _:
                self.questions.take(notice)
                self._delivery.control(notice)
        self._fill()
        if len(self._delivery):
            self._ready.set()

    def _acknowledged(self, ack: m.Ack) -> None:
        assert self._lanes is not None
        record: Any = self._lanes.acknowledged(ack)
        if record is not None:
            text = record.text[1:] if record.text.startswith("\\" + self.prefix_of(ack.conv)) else record.text
            record = attrs.evolve(record, from_=self.user, text=text)
            (self._delivery.outside_the_order if ack.dup else self._delivery.record)(record)
        self._lanes.answered(ack)

    def prefix_of(self, conv: str) -> str:
        """The command prefix in a conversation."""
        return self.channels.prefix_of(conv) or self.prefix

    def _answered(self, answer: Any) -> None:
        if self._lanes is not None and self._lanes.answered(answer):
            return
        call = self.calls.waiting(answer.id)
        if call is None:
            if isinstance(answer, m.Error):
                self._delivery.control(answer)
            return
        if isinstance(answer, m.Ok) and answer.conv is not None:
            if isinstance(call.message, m.Join) and answer.epoch is not None:
                self._delivery.joined(answer.conv, answer.epoch, max(answer.seq or 0, answer.last_seq or 0))
                self.channels.joined(answer.conv, answer)
            elif isinstance(call.message, m.Leave):
                self.channels.left(answer.conv)
                self._delivery.left(answer.conv)
        call.settle(answer)

    def _seen(self, records: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
        for _, record in records:
            if isinstance(record, m.Message) and record.cid is not None and self._lanes is not None:
                self._lanes.seen(record)
            elif isinstance(record, m.Topic):
                self.channels.topic(record)
        return records

    # ------------------------------------------------------------ private

    def _check(self) -> None:
        if self._ended is not None:
            raise self._ended

    async def _enter(self, credentials: Credentials) -> None:
        self._check()
        if self._online:
            raise RuntimeError("there is a session already")
        if self.account is not None and self.account.casefold() != credentials.name.casefold():
            raise RuntimeError(f"this client was opened for {self.account}")
        self.credentials = credentials
        self.wanted.set()
        await credentials.done.wait()
        if credentials.error is not None:
            raise credentials.error

    def _fill(self) -> None:
        """Ask for the pages that lack; without a reader there is no hurry."""
        if not self._online or not self._reading:
            return
        for conv, after in self._delivery.wants():
            self._pages[self.calls.post(m.HistoryRequest(id=0, conv=conv, after=after, limit=500))] = conv

    def _page_refused(self, conv: str, error: m.Error) -> None:
        if error.code in ("forbidden", "not_found", "bad_request", "unsupported"):
            self._delivery.never(conv)
        else:
            self._later(error.retry_after or 1.0, lambda: self._delivery.unasked(conv))

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        async def wait() -> None:
            await trio.sleep(delay_s)
            action()
            self._fill()

        assert self._nursery is not None
        self._nursery.start_soon(wait)

    async def _save_cursors(self) -> None:
        assert self.slot is not None
        while self._remember:
            await self._unsaved.wait()
            self._unsaved = trio.Event()
            with suppress(OSError):  # a full disk: after a crash some is shown twice
                await trio.to_thread.run_sync(self.slot.save_cursors, self._delivery.consumed_cursors)
            await trio.sleep(SAVE_EVERY_S)

    def start(self, nursery: trio.Nursery, account: str | None) -> None:
        self._nursery = nursery
        self.account = account
        if account is not None:
            self.take_slot(self.store.open_slot(self.target.key, account))
        nursery.start_soon(keep_connected, self)

    def close(self, *, clean: bool) -> None:
        """*clean*: the reader ended of its own will, so it is done with what it had last."""
        if clean:
            self._finished()
        if self.slot is not None:
            if self._remember:
                with suppress(OSError):
                    self.slot.save_cursors(self._delivery.consumed_cursors)
            self.slot.close()
