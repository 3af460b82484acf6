"""One connection: a socket, and the task that reads it. It knows no rooms; what it reads goes into the manager's inbox.

Theory of operation
-------------------
`Connection.run` is the reader, so an idle connection is one task. It has no nursery, which would cost it 1.4 KB: the transport's pump runs
beside the connections (`chat.transport.door`).
Frames of one chunk are decoded in one go; the room requests among them reach the inbox as one envelope, and only work that waits
(hashing a password, reading the store) is done here, in between: `chat.authentication` and `chat.catchup`.

How a connection ends:

- the peer half-closes: what was asked before is answered (a *barrier* through the inbox comes back behind the last answer); then the socket
  is closed;
- the daemon drains (`stop`): the same, but for what stands in a chunk behind a request that waits just then: the client, told to come back,
  asks for it again;
- somebody ends it (`end`: revoked, replaced, too slow): the last word is put into the outbox, reading stops, the outbox drains;
- the line is broken: nothing more is said.

In every case `Manager.gone` is told by a plain call, and the session is held for the resume window.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import attrs
import trio

from chat import authentication, catchup
from chat.config import Limits
from chat.errors import ChatError, LocalProtocolError, RemoteProtocolError
from chat.log import bind, get_logger
from chat.protocol import messages as m
from chat.protocol.connection import Connection as Protocol
from chat.protocol.states import Role
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms import logins, texts
from chat.rooms.manager import Manager
from chat.rooms.state import Account
from chat.transport.base import Dialect, Transport, framed

log = get_logger("chat.connection")

LOGIN_REQUESTS: Final = 20  # before a session (contract, section 7)
SLICE: Final = 256  # frames that are decoded before others run: 0.4 ms of texts, 3 ms of nonsense
NONSENSE: Final = 32  # frames of a slice that may be none; each more is paid with `NONSENSE_S`, since it costs ten times what a text does
NONSENSE_S: Final = 0.001
FRAMES: Final[dict[Dialect, Callable[[bytes], bytes]]] = {dialect: partial(framed, dialect) for dialect in Dialect}
NONE_SKIPPED: Final = frozenset[int]()  # one for all: each that Python makes takes 216 bytes, empty or not
CLOSE_S: Final = 10.0  # to answer what was asked and to drain, once a connection ends


def _line(payload: bytes) -> bytes:
    return payload + b"\n"


FRAMES[Dialect.LINES] = _line


@attrs.define(kw_only=True)
class Services:
    """What the daemon gives to its connections. ``limits`` may be exchanged while they run."""

    manager: Manager
    guard: authentication.Guard
    store: Any
    flush: Callable[[], None]
    limits: Limits
    welcome: Callable[[], m.Welcome]
    now: Callable[[], float]
    links: "set[Connection]" = attrs.Factory(set)
    stopping: bool = False
    frames_in: int = 0
    refused: Counter[str] = attrs.Factory(Counter)  # by code: what never came to the rooms
    retry_after: Callable[[], float] = lambda: 1.0  # seconds until those whom the end of the daemon cuts off may come back

    def list_channels(self, account: Account) -> list[m.ChannelInfo]:
        return logins.list_channels(self.manager.desk, account)


class Connection:
    """See the module. Implements `chat.rooms.items.Connection`."""

    __slots__ = (
        "__weakref__", "_commands_running", "_ended", "_quiet", "_requests", "_stopped", "_working", "account", "client", "fenced",
        "frame", "fresh_token", "host", "opening", "outbox", "pinged", "protocol", "refused", "replaying", "services", "session",
        "since", "skipped", "transport",
    )  # fmt: skip

    def __init__(self, transport: Transport, services: Services) -> None:
        self.transport: Final = transport
        self.services: Final = services
        self.outbox: Final = transport.outbox
        self.frame: Final = FRAMES[transport.dialect]
        self.protocol: Final = Protocol(Role.SERVER, text_bytes=services.limits.text_bytes)
        self.account = 0
        self.session = ""
        self.client = ""
        self.host: Final = transport.peer.host
        self.fenced = False
        self.skipped = NONE_SKIPPED
        self.since: Final = services.now()
        self.pinged = False
        self.opening: trio.Event | None = None  # the answer to a register, login or resume is out
        self.refused: str | None = None  # and was an error, with this code
        self.replaying: tuple[str, list[fx.Conversation]] | None = None
        self.fresh_token = False  # the client has not spoken since `resumed`
        self._ended = False
        self._stopped = False  # nothing more is read
        self._working: trio.CancelScope | None = None
        self._commands_running = 0
        self._quiet: trio.Event | None = None
        self._requests = 0

    # ------------------------------------------------------------ the task

    async def run(self) -> None:
        """Serve the connection until it ends; close the transport. *Owns* the transport.

        *If cancelled*: the socket is closed at once.
        """
        services = self.services
        self.outbox.on_cut = self._cut
        self.outbox.on_drained = self._drained
        bind(peer=self.host)
        services.links.add(self)
        if services.stopping:  # it has shaken hands meanwhile
            self.stop()
        try:
            whole = await self._read()
            if (whole or services.stopping) and not self._ended:
                with trio.move_on_after(CLOSE_S):
                    await self._settle()
                if services.stopping and not self._ended:
                    self._say(m.Closing(code="shutting_down", retry_after=services.retry_after()))
            await self.transport.aclose()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the line broke, or was cut, while something was being sent: over
        finally:
            services.links.discard(self)
            services.manager.gone(self)
            self.transport.abort()

    async def _read(self) -> bool:
        """Read until the peer says nothing more. Returns whether it ended in order (False: the line is broken, or `_stop_reading`)."""
        while not self._stopped:
            try:
                if self.outbox.lagging:
                    await self._work(self.outbox.wait_not_lagging())
                frames = await self.transport.receive()
            except RemoteProtocolError as error:
                await self._work(self._fatal(error))
                return True
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                return False
            if not frames:
                return True
            self.services.frames_in += len(frames)
            self.pinged = False
            if len(frames) > SLICE:
                await self._take_in_slices(frames)
            else:
                await self._take(frames)
            del frames  # or an idle connection would keep what it said last
        return True

    async def _take(self, frames: list[bytes]) -> None:
        received = self.protocol.receive(frames)
        if not self._hand_over_nowait(received):
            await self._work(self._handle(received))

    async def _take_in_slices(self, frames: list[bytes]) -> None:
        for at in range(0, len(frames), SLICE):
            await self._take(frames[at : at + SLICE])
            if self._ended or self.fenced:
                return
            await trio.lowlevel.checkpoint()

    async def _work(self, what: Awaitable[None]) -> None:
        """Await what waits for others than the peer, until it is done or `_stop_reading` is called. (One scope around all of `_read` would
        cost an idle connection 0.7 KB.)"""
        with trio.CancelScope() as self._working:
            if self._stopped:  # it was called just when something came
                self._working.cancel()
            try:
                await what
            except trio.ClosedResourceError:  # it waited for the outbox, which `end` and a cut seal: the last word is in there
                if not self._stopped:
                    raise
        self._working = None

    def _stop_reading(self) -> None:
        self._stopped = True
        self.transport.stop_receiving()
        if self._working is not None:
            self._working.cancel()

    def _hand_over_nowait(self, received: list[Any]) -> bool:
        """Put *received* into the inbox, if all of it is the rooms' and there is place: nearly always, once there is a session. *Returns*
        whether it was put there."""
        if not self.account or self.fresh_token:
            return False
        prefix = self._prefix()
        for item in received:
            if not _is_for_rooms(item, prefix):
                return False
        try:
            self.services.manager.inbox.send_nowait((self, received))
        except trio.WouldBlock:
            return False
        return True

    async def _handle(self, received: list[Any]) -> None:
        if self.fresh_token:
            self.fresh_token = False
            await self.ask(it.Resumed())
        batch: list[Any] = []
        prefix = self._prefix()
        for item in received:
            if self.account and _is_for_rooms(item, prefix):
                batch.append(item)
                continue
            if batch:
                await self._submit(batch)
                batch = []
            if type(item) is not m.Pong:
                await self._handle_here(item)
                if self._ended:
                    return
        if batch:
            await self._submit(batch)
        if len(received) > NONSENSE and (nonsense := sum(isinstance(item, RemoteProtocolError) for item in received)) > NONSENSE:
            await trio.sleep((nonsense - NONSENSE) * NONSENSE_S)

    def _prefix(self) -> str | tuple[str, ...]:
        """What commands begin with: in the channel that is meant, or elsewhere."""
        desk = self.services.manager.desk
        return (desk.settings.prefix, *desk.state.prefixes) if desk.state.prefixes else desk.settings.prefix

    async def _submit(self, batch: list[Any]) -> None:
        try:
            self.services.manager.inbox.send_nowait((self, batch))
        except trio.WouldBlock:
            await self.services.manager.inbox.send((self, batch))

    async def ask(self, item: Any) -> None:
        """Put one item into the inbox, behind all that came before. *Waits* for room there."""
        await self._submit([item])

    async def _handle_here(self, item: Any) -> None:
        """What waits, or concerns nobody else."""
        try:
            if not self.account:
                await self._before_session(item)
                return
            match item:
                case RemoteProtocolError():
                    await self.ask(it.Malformed(error=item))
                case m.Ping(id=id):
                    self.tell(m.Pong(id=id))
                case m.Send() | m.Command():
                    await self._command(item)
                case m.Members() | m.Commands():
                    await self._list(item)
                case m.HistoryRequest():
                    await catchup.history(self, item)
                case m.Join():
                    await authentication.join(self, item)
                case m.Read():
                    await catchup.read(self, item)
                case m.Logout():
                    await authentication.log_out(self, item)
                case m.PasswordChange():
                    await authentication.change_password(self, item)
                case m.Sessions():
                    await catchup.sessions(self, item)
                case _:
                    raise ChatError("unsupported", f"{item.type} is not known here")
        except ChatError as error:
            self.refuse(item, error)

    async def _command(self, request: m.Send | m.Command) -> None:
        """A retry of a command must not be decided again: what it changed was applied the first time."""
        desk = self.services.manager.desk
        if type(request) is m.Send and not request.text.startswith(texts.prefix_in(desk, request.channel, self.account)):
            await self.ask(request)  # it begins with the prefix of another channel
        elif request.cid is not None and await self.services.store.known_cid(self.account, request.cid) is not None:
            digest = texts.command_digest(desk, self.account, request)
            await self.ask(it.Retry(id=request.id, cid=request.cid, digest=digest))
        else:
            await self.ask(request)

    async def _list(self, request: m.Members | m.Commands) -> None:
        """A list costs what some hundred texts do: who asks for many waits for them, and nobody else does."""
        desk = self.services.manager.desk
        while (wait_s := desk.rates.of(self.account).lists.take(desk.clock.now())) > 0:  # noqa: ASYNC110
            await trio.sleep(wait_s)
        await self.ask(request)

    async def _before_session(self, item: Any) -> None:
        self._requests += 1
        if self._requests > LOGIN_REQUESTS:
            self.end(m.Closing(code="timeout"))
            return
        match item:
            case RemoteProtocolError():
                raise item
            case m.Hello():
                self.client = item.client[:64]
                self.tell(self.services.welcome())
            case m.Ping(id=id):
                self.tell(m.Pong(id=id))
            case m.Register():
                await authentication.register(self, item)
            case m.Login():
                await authentication.log_in(self, item)
            case m.Resume():
                await authentication.resume(self, item)
                if self.replaying is not None:
                    await catchup.replay(self, item.cursors)
        if self.account:
            self.transport.frame_limit = self.services.limits.frame_bytes
            bind(account=self.account)

    async def _fatal(self, error: RemoteProtocolError) -> None:
        """What the peer sent cannot be gone on from: answer what came before, say why, close."""
        if self.account:
            await self._settle()
        self.tell(m.Error(code=error.code, message=error.message, id=error.id))
        self.end(None)

    # ------------------------------------------------------------ plain calls, from the rooms and from the ticker

    def tell(self, message: Any) -> None:
        """Put a message into the outbox, and see that it goes out."""
        self._say(message)
        self.services.flush()

    def put(self, payload: bytes) -> None:
        """Put an encoded answer into the outbox; the caller sees to the flush."""
        self.outbox.put_always(self.frame(payload))

    def _say(self, message: Any) -> None:
        if not self._ended and not self.protocol.closed:
            self.outbox.put_always(self.frame(self.protocol.send(message)))

    def refuse(self, item: Any, error: ChatError) -> None:
        """Answer one request with its refusal."""
        self.services.refused[error.code] += 1
        id = error.id if isinstance(error, RemoteProtocolError) else getattr(item, "id", None)
        cid = error.cid if isinstance(error, RemoteProtocolError) else getattr(item, "cid", None)
        self.tell(m.Error(id=id, cid=cid, code=error.code, message=error.message, retry_after=error.retry_after))

    def opened(self, message: m.SessionOpened) -> bytes | None:
        self._opening_answered()
        return None if self.protocol.closed else self.protocol.send(message)

    def login_failed(self, error: ChatError) -> None:
        self.account, self.session = 0, ""
        self.refused = error.code
        self._opening_answered()
        self.tell(m.Error(id=self.protocol.pending_id, code=error.code, message=error.message, retry_after=error.retry_after))

    def replay(self, token: str, conversations: list[fx.Conversation]) -> None:
        self.replaying = (token, conversations)
        self._opening_answered()

    def _opening_answered(self) -> None:
        if self.opening is not None:
            self.opening.set()

    def end(self, message: Any | None) -> None:
        """Say *message*, take nothing more, and close once the outbox is empty. Idempotent. *Raises* nothing: the rooms call it on the way
        of everybody's messages."""
        if self._ended:
            return
        if message is not None:
            try:
                self._say(message)
            except LocalProtocolError as error:
                log.error("last_word_not_said", reason=str(error))
        self._ended = True
        self.outbox.seal()
        self._stop_reading()
        self.services.flush()

    def stop(self) -> None:
        """The daemon drains: read nothing more, answer what is in the inbox, say goodbye."""
        self._stop_reading()

    def command_started(self) -> None:
        self._commands_running += 1

    def command_ended(self) -> None:
        self._commands_running -= 1
        if not self._commands_running and self._quiet is not None:
            self._quiet.set()

    def tick(self, now: float) -> None:
        """Once a second: the deadline of the login, pings, silence."""
        limits = self.services.limits
        if not self.account:
            if now - self.since > limits.login_s:
                self.end(m.Closing(code="timeout"))
            return
        if self._working is not None:  # it is not read just now: its pongs wait in the kernel
            self.transport.last_received = now
        silent = now - self.transport.last_received
        if silent > limits.idle_close_s:
            self.end(m.Closing(code="timeout"))
        elif silent > limits.idle_ping_s and not self.pinged:
            self.pinged = True
            self._say(m.Ping(id=0))

    async def _settle(self) -> None:
        """Wait until everything that was asked has been answered."""
        while self._commands_running:
            self._quiet = trio.Event()
            await self._quiet.wait()
        if (self.account or self.opening is not None) and not self.fenced:
            reached = trio.Event()
            await self.ask(it.Barrier(reached=reached.set))
            await reached.wait()

    # ------------------------------------------------------------ the outbox's calls

    def _cut(self, code: str) -> None:
        """Over the hard limit, or too slow for too long."""
        log.info("connection_cut", code=code)
        self._ended = True
        self._stop_reading()

    def _drained(self) -> None:
        self.services.manager.desk.router.unlag(self)
        self.services.flush()


IN_ROOMS: Final = frozenset({m.Send, m.Leave, m.Answer})


def _is_for_rooms(item: Any, prefix: str | tuple[str, ...]) -> bool:
    """Whether the manager decides it as it is: not where it may be a command, which may have been decided before."""
    return type(item) in IN_ROOMS and not (type(item) is m.Send and item.text.startswith(prefix))


def serve(services: Services, transport: Transport) -> Awaitable[None]:
    """The door's handler. No coroutine of its own: each on the way down to the kernel costs an idle connection 200 bytes."""
    return Connection(transport, services).run()
