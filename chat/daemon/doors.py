"""The listeners, with what the configuration says of them."""

import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from chat import connection
from chat.config import Config
from chat.daemon.parts import Parts
from chat.transport import door, http
from chat.transport.outbox import OutboxLimits


def door_settings(config: Config) -> door.DoorSettings:
    """*Raises* ValueError where descriptors are too few."""
    limits = config.limits
    return door.DoorSettings(
        connections=door.connection_cap(limits.connections),
        connections_per_address=limits.connections_per_address,
        exempt_loopback=limits.exempt_loopback,
        handshake_s=limits.handshake_s,
        frame_bytes=min(8 * 1024, limits.frame_bytes),
        outbox=OutboxLimits(
            soft_bytes=limits.outbox_soft_bytes, hard_bytes=limits.outbox_hard_bytes, write_deadline_s=limits.write_deadline_s
        ),
    )


async def open_doors(
    config: Config,
    sockets: list[list[socket.socket]],
    tls: Any,
    parts: Parts,
    connections: trio.Nursery,
    task_status: trio.TaskStatus[Callable[[door.DoorSettings], None]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """What it is started with takes other settings."""
    listeners = [
        door.BoundListener(sockets=bound, dialects=frozenset(listen.dialects), plaintext=listen.plaintext)
        for listen, bound in zip(config.listen, sockets, strict=True)
    ]
    await door.serve(
        listeners,
        settings=door_settings(config),
        tls=tls,
        flush=parts.flush,
        pool=parts.pool,
        handler=partial(connection.serve, parts.services),
        connections=connections,
        web_handler=partial(http.serve, parts.site),
        task_status=task_status,
    )
