"""Keep a client connected: dial, greet, open or resume its session, read, and when that ends begin again.

Theory of a resume. The server has rotated the token when `resumed` arrives, and takes the one before as well until our first frame
after it. So the new token is on disk, synced, before that frame: wherever this process dies, the disk has a token that is good.
During the replay nothing of ours goes out. Only then the requests and texts without an answer are sent again.

A session is forgotten for `unauthorized` alone, which says that it is over. Other refusals are waited out or told, and it is kept.
"""

import json
import socket
import ssl
from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

import attrs
import trio

from chat import __version__
from chat.client.dial import PinChanged, UnknownHost, UnknownServer, Wire, broken, dial
from chat.client.reconnect import LOG_IN_LATER, RETRY_LATER, Status
from chat.client.sending import error_of
from chat.errors import ChatError, RemoteProtocolError
from chat.protocol.connection import VERSION
from chat.protocol.messages import (
    Closing,
    Error,
    Hello,
    Login,
    Ping,
    Register,
    Replaced,
    Resume,
    Resumed,
    SessionOpened,
    Welcome,
)  # fmt: skip

if TYPE_CHECKING:
    from chat.client.client import Client

ATTEMPTS: Final = 3
CURSOR_BYTES: Final = 7 * 1024  # of the 8 KiB that a frame may have before a session
GREET_S: Final = 15
OPEN_S: Final = 60
PING_AFTER_S: Final = 25  # of silence
DEAD_AFTER_S: Final = 50


class SessionLost(Exception):
    """The session is over: logged out, taken over, or refused with no password at hand."""


class _Again(Exception):
    """This connection is of no more use; another may be."""

    def __init__(self, why: str, retry_after: float | None = None) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class _Final(Exception):
    """No connection will be of use."""

    def __init__(self, error: Exception) -> None:
        self.error = error


@attrs.define(eq=False, kw_only=True)
class Credentials:
    """A login or registration that is asked for, and after it what a later login needs. Never on disk."""

    name: str
    password: str = attrs.field(repr=False)
    register: bool = False
    invite: str | None = attrs.field(default=None, repr=False)
    color: str | None = None
    asked: int = 0  # how often it was asked for, when a session could not be resumed
    in_doubt: bool = False  # the connection broke before a registration was answered: it may have been done
    done: trio.Event = attrs.Factory(trio.Event)
    error: Exception | None = None

    def settle(self, error: Exception | None = None) -> None:
        if not self.done.is_set():
            self.error = error
            self.done.set()


_BROKEN: Final = (OSError, ssl.SSLError, trio.BrokenResourceError, trio.ClosedResourceError, RemoteProtocolError)


async def keep_connected(client: "Client") -> None:
    """Until the client has ended. Never raises for what a server or a network does."""
    while client.ended is None:
        client.tell(Status(state="connecting"))
        client.retry_after = None
        retry_after: float | None = None
        try:
            wire = await _connect(client)
            try:
                await _open_session(client, wire)
                client.backoff.reset()
                await _live(client, wire)
                why, retry_after = "the connection was closed", client.retry_after
            finally:
                client.connection_lost()
                await wire.aclose()
        except _BROKEN as error:
            why, retry_after = broken(error), client.retry_after
        except _Again as error:
            why, retry_after = str(error), error.retry_after
        except _Final as final:
            client.end(final.error)
        if client.ended is None:
            delay = client.backoff.next_s(retry_after)
            client.tell(Status(state="waiting", why=why, retry_s=delay))
            await trio.sleep(delay)


async def _connect(client: "Client") -> Wire:
    """A connection to the right server, greeted."""
    target = client.target
    known = client.store.server(target.key)
    pin = target.fingerprint or known.pin
    try:
        wire = await dial(target, pin)
    except PinChanged as changed:
        raise _Final(changed) from None
    except socket.gaierror as error:
        if known.last_used_ms == 0:
            raise _Final(UnknownHost(target, broken(error))) from None
        raise
    try:
        if wire.fingerprint is not None and wire.fingerprint != known.pin:
            await _check_new_pin(client, wire.fingerprint, known.pin)
        with trio.move_on_after(GREET_S):
            await wire.send([Hello(protocol=VERSION, client=f"chat {__version__}")])
            while True:
                for notice in await wire.receive():
                    match notice:
                        case Welcome():
                            client.welcome = notice
                            client.store.remember(target.key, pin=wire.fingerprint, name=notice.name)
                            client.greeted.set()
                            return wire
                        case RemoteProtocolError() if notice.code == "unsupported":
                            raise _Final(ChatError("unsupported", notice.message))
                        case Error() | Closing():
                            _refused(notice, final=("tls_required", "unsupported"))
                        case _:
                            pass
                if wire.ended:
                    raise _Again("the server closed the connection")
        raise _Again(f"no greeting within {GREET_S} s")
    except BaseException:
        await wire.aclose()
        raise


async def _check_new_pin(client: "Client", shown: str, known: str | None) -> None:
    """The server is new, or (with a *known* pin) its join line names the key that it shows, but another than ever before."""
    target = client.target
    if known is None and target.fingerprint == shown:
        return
    if client.trust is not None and await client.trust(target, shown, known):
        return
    raise _Final(UnknownServer(target, shown) if known is None else PinChanged(target, known, shown))


async def _open_session(client: "Client", wire: Wire) -> None:
    while True:
        token = client.slot.session.get("token") if client.slot is not None else None
        if token:
            try:
                await _resume(client, wire, token)
            except ChatError as error:
                if error.code in LOG_IN_LATER:
                    raise _Again(error.message, error.retry_after) from None
                if error.code != "unauthorized":  # a ban, say, from here or just now: the session is kept for when that is over
                    raise _Final(error) from None
                assert client.slot is not None
                user = client.slot.session.get("user") or client.account or client.user
                await trio.to_thread.run_sync(client.slot.forget_session)
                await _find_password(client, user)
                continue
            return
        if client.credentials is None:
            client.tell(Status(state="greeted"))
            await client.wanted.wait()
        credentials = client.credentials
        assert credentials is not None
        try:
            await _enter(client, wire, credentials)
        except ChatError as error:
            later = LOG_IN_LATER if credentials.done.is_set() or credentials.asked else RETRY_LATER
            if error.code in later and (error.code != "rate_limited" or credentials.done.is_set()):
                raise _Again(error.message, error.retry_after) from None
            client.forget_credentials()
            if credentials.done.is_set():  # a password that was good once
                raise _Final(error) from None
            if credentials.asked:
                if error.code != "unauthorized" or credentials.asked >= ATTEMPTS:
                    raise _Final(error) from None
                await _find_password(client, credentials.name, asked=credentials.asked)
                continue
            credentials.settle(error)
            continue
        credentials.settle()
        return


async def _find_password(client: "Client", user: str, asked: int = 0) -> None:
    """The session is gone; log in anew, with the password of this process or by asking."""
    if client.credentials is not None:
        client.credentials.register = False
        return
    password = await client.ask_password(user) if client.ask_password is not None else None
    if not password:
        raise _Final(SessionLost("the session ended, and a password is needed to log in again"))
    client.credentials = Credentials(name=user, password=password, asked=asked + 1)
    client.wanted.set()


async def _resume(client: "Client", wire: Wire, token: str) -> None:
    number, named = client.calls.number(), _that_fit(client.cursors)
    await wire.send([Resume(id=number, token=token, cursors=named)])
    answer = await _answer(client, wire, number)
    await _opened(client, answer, replayed=named)


def _that_fit(cursors: dict[str, tuple[str, int]]) -> dict[str, tuple[str, int]]:
    """As many of *cursors* as a frame before the login has room for. What was missed of the others comes by their heads, and history."""
    left, named = CURSOR_BYTES, {}
    for conv, cursor in cursors.items():
        left -= len(json.dumps([conv, cursor]))
        if left < 0:
            break
        named[conv] = cursor
    return named


async def _enter(client: "Client", wire: Wire, credentials: Credentials) -> None:
    name, password = credentials.name, credentials.password
    if credentials.register and credentials.in_doubt:
        with suppress(ChatError):
            await _login(client, wire, name, password)
            credentials.register = False
            return
    if credentials.register:
        credentials.in_doubt = True
        number = client.calls.number()
        register = Register(
            id=number, username=name, password=password, invite=credentials.invite, color=credentials.color
        )  # fmt: skip
        await wire.send([register])
        try:
            answer = await _answer(client, wire, number)
        except ChatError:
            credentials.in_doubt = False
            raise
        credentials.register = False
        await _opened(client, answer)
    else:
        await _login(client, wire, name, password)


async def _login(client: "Client", wire: Wire, name: str, password: str) -> None:
    number = client.calls.number()
    await wire.send([Login(id=number, username=name, password=password)])
    await _opened(client, await _answer(client, wire, number))


async def _answer(client: "Client", wire: Wire, number: int) -> Any:
    """The answer to the opener *number*; what comes before it is replay. *Raises* ChatError for an error."""
    with trio.move_on_after(OPEN_S) as scope:
        while True:
            batch = await wire.receive()
            scope.deadline = trio.current_time() + OPEN_S  # a long replay is no silence
            for index, notice in enumerate(batch):
                match notice:
                    case SessionOpened() | Resumed() if notice.id == number:
                        wire.push_back(batch[index + 1 :])
                        return notice
                    case Error() if notice.id == number:
                        raise error_of(notice)
                    case Error(id=None) | Closing() | Replaced():
                        _refused(notice)
                    case Ping() | RemoteProtocolError():
                        pass
                    case _:
                        client.dispatch(notice)
            if wire.ended:
                raise _Again("the server closed the connection")
    raise _Again("no answer")


def _refused(notice: Any, *, final: tuple[str, ...] = ()) -> NoReturn:
    """The server ends the connection before there is a session."""
    code = getattr(notice, "code", "closing")
    message = getattr(notice, "message", "") or code.replace("_", " ")
    if code in final:
        raise _Final(error_of(notice))
    raise _Again(f"the server says: {message}", getattr(notice, "retry_after", None))


async def _opened(client: "Client", answer: Any, *, replayed: Collection[str] = ()) -> None:
    """*replayed*: the conversations of which everything that was missed has come, or why it has not."""
    if client.slot is None:
        client.take_slot(await trio.to_thread.run_sync(client.store.open_slot, client.target.key, answer.user))
    slot = client.slot
    assert slot is not None
    await trio.to_thread.run_sync(lambda: slot.save_session(user=answer.user, session=answer.session, token=answer.resume_token))
    client.store.remember(client.target.key, account=answer.user)
    client.session_open(answer, replayed=replayed)


async def _live(client: "Client", wire: Wire) -> None:
    """Read until the connection ends."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_write, client, wire)
        nursery.start_soon(_watch, client, wire, nursery.cancel_scope)
        client.last_heard = trio.current_time()
        with suppress(*_BROKEN):
            while not wire.ended and client.ended is None:
                for notice in await wire.receive():
                    if not isinstance(notice, RemoteProtocolError):
                        client.dispatch(notice)
                client.last_heard = trio.current_time()
        nursery.cancel_scope.cancel()


async def _write(client: "Client", wire: Wire) -> None:
    with suppress(*_BROKEN):  # the reader learns of it, after what the server still said
        while True:
            await wire.send(await client.calls.outgoing())


async def _watch(client: "Client", wire: Wire, scope: trio.CancelScope) -> None:
    """Ask a silent server whether it is there; give up on a dead one."""
    while True:
        silent = trio.current_time() - client.last_heard
        if silent >= DEAD_AFTER_S:
            scope.cancel()
        elif silent >= PING_AFTER_S:
            client.calls.post(Ping(id=0))
            await trio.sleep(DEAD_AFTER_S - silent)
        else:
            await trio.sleep(PING_AFTER_S - silent)
