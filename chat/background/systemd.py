"""What systemd is told, and what it gives.

*Source*: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3).
"""

import contextlib
import os
import socket
import time
from typing import Final

from chat.config import Config, split_address

FIRST_FD: Final = 3  # SD_LISTEN_FDS_START


def notify(*states: str) -> None:
    """Tell systemd, where it started us: READY=1, STOPPING=1, …; several in one message. Never fails."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] in ("/", "@"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto("\n".join(states).encode(), "\0" + address[1:] if address[0] == "@" else address)


def is_notified() -> bool:
    return os.environ.get("NOTIFY_SOCKET", "")[:1] in ("/", "@")


def reloading() -> tuple[str, str]:
    """What is told before a reload; READY=1 ends it."""
    return "RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"


def watchdog_s() -> float | None:
    """How often the watchdog wants to hear of us, in seconds: half of its limit. None: it is not there, or is for another process."""
    try:
        limit_us = int(os.environ.get("WATCHDOG_USEC", ""))
        pid = int(os.environ.get("WATCHDOG_PID") or os.getpid())
    except ValueError:
        return None
    return limit_us / 2e6 if limit_us > 0 and pid == os.getpid() else None


def activated(config: Config) -> dict[str, list[socket.socket]]:
    """The listening sockets that systemd opened for us (``chat.socket``), by the address of the ``[[listen]]`` that each is for.

    A socket belongs to the one whose address is its name (``FileDescriptorName=``), else to the one whose address it has, else to the
    first. *Owns*: the caller. The variables are taken out of the environment. *Raises* ValueError, OSError.
    """
    given = {key: os.environ.pop(key, "") for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    found: dict[str, list[socket.socket]] = {}
    try:
        if int(given["LISTEN_PID"]) != os.getpid():
            return found
        count = int(given["LISTEN_FDS"])
    except ValueError:
        return found
    names = given["LISTEN_FDNAMES"].split(":") if given["LISTEN_FDNAMES"] else []
    for number in range(count):
        fd = FIRST_FD + number
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) or sock.family == socket.AF_UNIX:
            raise ValueError(f"systemd's socket number {number + 1} is no listening TCP socket: ListenStream=7667 makes one")
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        name = names[number] if number < len(names) else ""
        found.setdefault(_address_for(config, sock, name), []).append(sock)
    return found


def _address_for(config: Config, sock: socket.socket, name: str) -> str:
    addresses = [listen.address for listen in config.listen]
    if name in addresses:
        return name
    host, port = sock.getsockname()[:2]
    for address in addresses:
        wanted_host, wanted_port = split_address(address)
        if port == wanted_port and wanted_host in ("", host):
            return address
    return addresses[0]
