"""``GET /metrics``, ``/healthz`` and ``/readyz``, on a listener of this machine alone.

/healthz is 200 while the loop answers at all; /readyz is 200 while a message would be taken and stored, else 503, one reason a line. The
listener stays while the daemon drains, so that a load balancer sees it go. Where its port is taken (by the daemon that this one takes over
from, say) that is logged, told by `chat status` and `chat doctor`, and tried again each second: no reason for a chat not to start.
"""

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import h11
import trio

from chat.config import split_address
from chat.log import get_logger
from chat.metrics import prometheus

if TYPE_CHECKING:
    from chat.daemon.parts import Parts
    from chat.metrics.watch import Watch

REQUEST_S: Final = 10.0
CONNECTIONS: Final = 32
AGAIN_S: Final = 1.0
PLAIN: Final = "text/plain; charset=utf-8"

Page = Callable[[], tuple[int, str, bytes]]  # status, content type, body
log = get_logger("chat.metrics")


async def serve(address: str, parts: "Parts") -> None:
    """Until cancelled. *address* is HOST:PORT of a loopback interface; empty: nothing is served."""
    if not address:
        return
    host, port = split_address(address)
    pages = pages_of(parts)
    listeners = await _listen(host, port, parts.watch)
    log.info("metrics", address=":".join(map(str, listeners[0].socket.getsockname()[:2])))
    places = trio.Semaphore(CONNECTIONS)
    await trio.serve_listeners(partial(_serve_one, pages, places), listeners)


async def _listen(host: str, port: int, watch: "Watch") -> list[trio.SocketListener]:
    """Again and again: after a restart the server of before has the port for a moment."""
    while True:
        try:
            listeners = await trio.open_tcp_listeners(port, host=host)
        except OSError as error:
            if not watch.metrics_problem:
                log.warning("metrics_not_served", address=f"{host}:{port}", reason=str(error))
            watch.metrics_problem = f"no figures are served at {host}:{port} (metrics.address): {error.strerror or error}"
            await trio.sleep(AGAIN_S)
        else:
            watch.metrics_problem = ""
            return listeners


def pages_of(parts: "Parts") -> dict[bytes, Page]:
    render = prometheus.exposition(parts)

    def ready() -> tuple[int, str, bytes]:
        problems = parts.watch.problems()
        return (503, PLAIN, "".join(f"{problem}\n" for problem in problems).encode()) if problems else (200, PLAIN, b"ready\n")

    return {
        b"/metrics": lambda: (200, prometheus.CONTENT_TYPE, render()),
        b"/healthz": lambda: (200, PLAIN, b"alive\n"),
        b"/readyz": ready,
    }


async def _serve_one(pages: dict[bytes, Page], places: trio.Semaphore, stream: trio.SocketStream) -> None:
    """A connection. A mistake in here is logged, and is no reason for a chat to end."""
    async with stream:
        try:
            places.acquire_nowait()
        except trio.WouldBlock:
            return
        try:
            await _converse(stream, h11.Connection(h11.SERVER, max_incomplete_event_size=8192), pages)
        except (h11.ProtocolError, trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass
        except Exception:
            log.exception("metrics_failed")
        finally:
            places.release()


async def _converse(stream: trio.SocketStream, http: h11.Connection, pages: dict[bytes, Page]) -> None:
    """Requests one after the other, as Prometheus keeps its connection; `REQUEST_S` for each, and for the pause before it."""
    more = True
    while more:
        more = False
        with trio.move_on_after(REQUEST_S):
            request = await _request(stream, http)
            if request is not None:
                more = await _respond(stream, http, request, pages)


async def _respond(stream: trio.SocketStream, http: h11.Connection, request: h11.Request, pages: dict[bytes, Page]) -> bool:
    """*Returns* whether another request may follow."""
    status, kind, body = _answer(request, pages)
    headers = [("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("Allow", "GET, HEAD"))
    data = http.send(h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode())) or b""
    if request.method != b"HEAD":
        data += http.send(h11.Data(data=body)) or b""
    data += http.send(h11.EndOfMessage()) or b""
    await stream.send_all(data)
    if http.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
        return False
    http.start_next_cycle()
    return True


async def _request(stream: trio.SocketStream, http: h11.Connection) -> h11.Request | None:
    """A whole request without its body; None at the end. *Raises* h11.RemoteProtocolError."""
    request: h11.Request | None = None
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some(8192)))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage):
            return request
        elif not isinstance(event, h11.Data):
            return None


def _answer(request: h11.Request, pages: dict[bytes, Page]) -> tuple[int, str, bytes]:
    if request.method not in (b"GET", b"HEAD"):
        return 405, PLAIN, b"GET or HEAD\n"
    page = pages.get(request.target.partition(b"?")[0])
    return page() if page is not None else (404, PLAIN, b"here are /metrics, /healthz and /readyz\n")
