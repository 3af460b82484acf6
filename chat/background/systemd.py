"""What systemd is told, and what it gives. *Source*: sd_notify(3)."""

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Tell systemd, where it started us: READY=1, STOPPING=1. Source: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] in ("/", "@"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
