"""The daemon's end of the admin socket: a task beside the doors, and one for each connection.

*Ending.* With the doors the listener ends and nothing more is read; a request that is under way is finished, within the daemon's drain.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, TypeVar, cast

import attrs
import msgspec
import trio

from chat.admin import place, registry
from chat.config import Config
from chat.errors import ChatError
from chat.log import get_logger, new_error_id
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms.state import State
from chat.store.base import CommitFailed, Writer
from chat.store.retention import Cut
from chat.store.sqlite import now_ms

log = get_logger("chat.admin")
T = TypeVar("T")

LINE_BYTES: Final = 1 << 20
CONNECTIONS: Final = 16
PROGRESS_S: Final = 0.1  # no more often than this


class Open:
    """The running daemon, as a `registry.House`."""

    def __init__(self, daemon: registry.Daemon) -> None:
        self._daemon = daemon

    @property
    def config(self) -> Config:
        return self._daemon.config

    @property
    def state(self) -> State:
        return cast(State, self._daemon.parts.manager.desk.state)

    async def decide(self, decide: registry.Decide) -> fx.Outcome:
        found: list[fx.Outcome | ChatError] = []
        settled = trio.Event()

        def done(what: fx.Outcome | ChatError) -> None:
            found.append(what)
            settled.set()

        item = it.Administration(decide=decide, done=done, failed=done)
        try:
            await self._daemon.parts.manager.inbox.send((None, [item]))
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            raise ChatError("shutting_down", "the server is stopping", retry_after=1) from None
        await settled.wait()
        (what,) = found
        if isinstance(what, ChatError):
            raise what
        return what

    async def write(self, step: Callable[[Writer], T]) -> T:
        with _refusing():
            return cast(T, await self._daemon.parts.committer.ask(step))

    async def cuts(self) -> list[Cut]:
        return cast("list[Cut]", await self._daemon.parts.store.cuts(now_ms()))

    async def trim(self, cut: Cut) -> bool:
        with _refusing():
            return cast(bool, await self._daemon.parts.trim(cut))


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """What the store could not do, as it is told."""
    try:
        yield
    except CommitFailed as failed:
        raise ChatError(failed.code, failed.message) from failed


@attrs.define(eq=False)
class _Shells:
    """Who is connected; ``waiting``: to be told what to do."""

    count: int = 0
    waiting: set[trio.CancelScope] = attrs.Factory(set)
    stopping: bool = False

    def stop(self) -> None:
        self.stopping = True
        for scope in self.waiting:
            scope.cancel()


async def serve(daemon: registry.Daemon, connections: trio.Nursery, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Listen until cancelled; requests run in *connections*. Where no socket can be made that is logged, and the daemon does without.

    *Owns* the socket and its name in the data folder, which the caller has locked.
    """
    path = daemon.config.data_dir / place.SOCKET
    registry.load()
    try:
        sock = place.bind(path)
    except OSError as error:
        log.warning("no_admin_socket", path=str(path), reason=str(error))
        task_status.started()
        return
    shells = _Shells()
    try:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        task_status.started()
        await trio.serve_listeners(partial(_serve_one, daemon, shells), [listener], handler_nursery=connections)
    finally:
        shells.stop()
        sock.close()
        with contextlib.suppress(OSError):
            path.unlink()


async def _serve_one(daemon: registry.Daemon, shells: _Shells, stream: trio.SocketStream) -> None:
    shells.count += 1
    try:
        async with stream:
            uid = place.peer_uid(stream.socket)
            if not place.may(uid):
                log.warning("admin_refused", uid=uid)
                await _send(stream, _refusal(None, "forbidden", "only the server's own user and root may do this"))
            elif shells.count > CONNECTIONS:
                await _send(stream, _refusal(None, "busy", f"{CONNECTIONS} shells are connected already; try again soon"))
            else:
                await _answer_all(daemon, shells, stream)
    except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
        pass  # whoever asked has gone; what was decided stays
    finally:
        shells.count -= 1


async def _answer_all(daemon: registry.Daemon, shells: _Shells, stream: trio.SocketStream) -> None:
    held = bytearray()
    while not shells.stopping:
        line = None
        with trio.CancelScope() as scope:
            shells.waiting.add(scope)
            try:
                line = await _line(stream, held)
            finally:
                shells.waiting.discard(scope)
        if line is None:
            return
        await _answer(daemon, stream, line)


async def _line(stream: trio.SocketStream, held: bytearray) -> bytes | None:
    """The next line; None at the end. A line that is too long is the end, too."""
    while b"\n" not in held:
        if len(held) > LINE_BYTES:
            return None
        chunk = await stream.receive_some(65536)
        if not chunk:
            return None
        held += chunk
    line, _, rest = bytes(held).partition(b"\n")
    held[:] = rest
    return line


async def _answer(daemon: registry.Daemon, stream: trio.SocketStream, line: bytes) -> None:
    id: Any = None
    told_s = float("-inf")

    async def report(progress: dict[str, Any]) -> None:
        nonlocal told_s
        now_s = trio.current_time()
        if now_s - told_s >= PROGRESS_S:
            told_s = now_s
            await _send(stream, {"id": id, "progress": progress})

    try:
        request = msgspec.json.decode(line)
        if not isinstance(request, dict) or not isinstance(do := request.pop("do", None), str):
            raise ChatError("bad_request", 'expected {"id": ..., "do": "...", ...}')
        id = request.pop("id", None)
        found = registry.find(do)
        log.info("admin", do=do)
        answer = {"id": id, "ok": await found(registry.Call(house=Open(daemon), running=daemon, report=report), request)}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        answer = _refusal(id, "bad_request", f"no JSON: {error}")
    except ChatError as error:
        answer = _refusal(id, error.code, error.message)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        raise
    except Exception as error:
        error_id = new_error_id()
        log.error("admin_failed", error_id=error_id, exc_info=error)
        answer = _refusal(id, "internal_error", f"internal error {error_id}; the log has more")
    await _send(stream, answer)


def _refusal(id: Any, code: str, message: str) -> dict[str, Any]:
    return {"id": id, "error": {"code": code, "message": message}}


async def _send(stream: trio.SocketStream, answer: dict[str, Any]) -> None:
    await stream.send_all(msgspec.json.encode(answer) + b"\n")
