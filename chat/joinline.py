"""Join lines for people: ``chat connect HOST:PORT#FINGERPRINT/INVITE``, complete and ready to paste. And the guests' invite, read back.

`chat.client.target` reads such lines.
"""

import ipaddress
import socket
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from chat.config import Config, split_address
from chat.config.sections import DEFAULT_PORT
from chat.transport.certificates import fingerprint


def owner_line(config: Config, addresses: Sequence[str], invite: str) -> str:
    """For whoever started the server, on this machine. *addresses*: those listened on, with the real ports."""
    local = min(addresses, key=lambda address: _rank(address, here=True))
    return _line(config, _reachable(local, here=True), invite)


def guest_line(config: Config, addresses: Sequence[str], invite: str | None) -> str:
    """For everybody else: it names ``public_address`` where it is set, else the address of this machine that others are likely to see."""
    return _line(config, public_address(config, addresses), invite)


def guest_link(config: Config, addresses: Sequence[str], invite: str | None) -> str:
    """The same for a browser. The invite is in the fragment, which a browser neither sends nor tells anybody."""
    host, port = public_address(config, addresses)
    shown = f"[{host}]" if ":" in host else host
    return f"https://{shown}:{port}/" + (f"#invite={invite}" if invite else "")


def public_address(config: Config, addresses: Sequence[str]) -> tuple[str, int]:
    """Where those elsewhere connect to: host and port. *addresses*: those listened on, with the real ports."""
    public = min(addresses, key=lambda address: _rank(address, here=False))
    host, port = _reachable(public, here=False)
    if config.public_address:
        text = config.public_address
        named = ":" in text.rpartition("]")[2]
        host, given = split_address(text if named else f"{text}:{DEFAULT_PORT}")
        port = given if named else port
    return host, port


def outward_names(config: Config) -> list[str]:
    """By what name or address those elsewhere may come: ``public_address``, and this machine's own on the way out."""
    named = [public_address(config, ["0.0.0.0:0"])[0]] if config.public_address else []
    return [*named, *filter(None, (_outward(4), _outward(6)))]


def guest_invite(database: Path) -> str | None:
    """The invite for guests: of those for members that are still good the one that is good for most. None without one.

    Reads only, also beside a running daemon. *Raises* OSError when there is no database or it cannot be read.
    """
    if not database.exists():
        raise FileNotFoundError(2, "no database; was the server ever started?", str(database))
    try:
        connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            found = connection.execute(
                """SELECT code FROM invites
                WHERE role = 'member' AND coalesce(uses_left, 1) > 0 AND (expires_ms IS NULL OR expires_ms > ?)
                ORDER BY uses_left IS NULL DESC, uses_left DESC, at_ms, code LIMIT 1""",
                (int(time.time() * 1000),),
            ).fetchone()
        finally:
            connection.close()
    except sqlite3.Error as exc:
        raise OSError(5, f"the database cannot be read: {exc}", str(database)) from exc
    return found[0] if found else None


def _line(config: Config, where: tuple[str, int], invite: str | None) -> str:
    host, port = where
    pin = fingerprint(config.certificate.read_bytes())
    shown = f"[{host}]" if ":" in host else host
    return f"chat connect {shown}:{port}#{pin}" + (f"/{invite}" if invite else "")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _rank(address: str, *, here: bool) -> int:
    """How well an address serves those on this machine, or those elsewhere; less is better."""
    host, _ = split_address(address)
    ip = _address(host or "0.0.0.0")
    if ip is None:
        return 1 if here == (host == "localhost") else 2
    if ip.is_unspecified:
        return 0 if ip.version == 4 else 1
    return 1 if ip.is_loopback == here else 3


def _reachable(address: str, *, here: bool) -> tuple[str, int]:
    """Where to connect to what listens on *address*: "every address" becomes one."""
    host, port = split_address(address)
    ip = _address(host or "0.0.0.0")
    if ip is None or not ip.is_unspecified:
        return host, port
    loopback = "127.0.0.1" if ip.version == 4 else "::1"
    return loopback if here else _outward(ip.version) or loopback, port


def _outward(version: int) -> str | None:
    """This machine's address on the way out. Connecting a datagram socket sends nothing: it asks the routing table."""
    family, elsewhere = (socket.AF_INET, "192.0.2.1") if version == 4 else (socket.AF_INET6, "2001:db8::1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((elsewhere, 9))
            host = str(sock.getsockname()[0])
    except OSError:
        return None
    return None if ipaddress.ip_address(host).is_loopback else host
