"""`open_client`: a client, from its first connection to its end."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from chat.client.calls import single
from chat.client.client import Client
from chat.client.keeper import SessionLost
from chat.client.reconnect import Backoff, Status
from chat.client.servers import ClientStore
from chat.client.target import Target, parse_target


@asynccontextmanager
async def open_client(
    target: Target | str,
    *,
    store: ClientStore,
    account: str | None = None,
    remember: bool = True,
    backlog: int = 50,
    backoff: Backoff | None = None,
    trust: Callable[[Target, str, str | None], Awaitable[bool]] | None = None,
    ask_password: Callable[[str], Awaitable[str | None]] | None = None,
    on_status: Callable[[Status], None] | None = None,
) -> AsyncIterator[Client]:
    """Connect to *target* and keep connected, trying for as long as it takes; the body runs once a server answered.

    With *account* a session of it that is kept on disk is resumed; without, or when there is none, `login` or `register`.
    *trust* (target, fingerprint shown, pin known before) decides about a server that is new, or whose join line names another
    key than the pin; without it such a server is refused. *ask_password* is asked when a session cannot be resumed.
    *remember* False: start at the heads, and leave the cursors on disk alone.

    *Raises* `UnknownServer`, `PinChanged`; `UnknownHost` where the name of a server that was never reached does not resolve; ChatError
    where the server refuses the connection for good. *Waits* for the server.
    """
    parsed = parse_target(target) if isinstance(target, str) else target
    limits = backoff or Backoff(most=2.0 if parsed.loopback else 20.0)
    client = Client(parsed, store, remember=remember, backlog=backlog, backoff=limits)
    client.trust = trust
    client.ask_password = ask_password
    client.on_status = on_status or client.on_status
    clean = False
    try:
        async with trio.open_nursery() as nursery:
            client.start(nursery, account)
            await client.greeted.wait()
            if client.ended is not None and not isinstance(client.ended, SessionLost):
                nursery.cancel_scope.cancel()
                raise client.ended
            yield client
            clean = True
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise single(group) from None
    finally:
        client.close(clean=clean)
