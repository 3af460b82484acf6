"""Join lines: ``HOST:PORT#FINGERPRINT/INVITE``, every part but the host optional; IPv6 as ``[::1]:7667``."""

import ipaddress
import re
from typing import Final

import attrs

DEFAULT_PORT: Final = 7667

_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)\]|(?P<host>[^\s:/#\[\]@]+))(?::(?P<port>[0-9]{1,5}))?")
_FINGERPRINT = re.compile(r"[A-Za-z0-9_-]{43}=?")  # SHA-256 in base64url
_LINK = re.compile(r"(?i:https?)://(?P<where>[^/#\s]+)/?(?:#invite=(?P<invite>[A-Za-z0-9_-]+))?.*")
_INVITE = re.compile(r"[A-Za-z0-9_-]{1,128}")


class BadTarget(ValueError):
    """What was given is no join line; the text says where it goes wrong."""


@attrs.frozen(kw_only=True)
class Target:
    """Where to connect, and what a join line says beside it."""

    host: str
    port: int = DEFAULT_PORT
    fingerprint: str | None = None
    invite: str | None = attrs.field(default=None, repr=False)

    @property
    def key(self) -> str:
        """The name under which the server is known: ``host:port``, the host in small letters, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host.partition("%")[0]).is_loopback
        except ValueError:
            return False


def parse_target(line: str) -> Target:
    """Read a join line. *Raises* `BadTarget`."""
    if link := _LINK.fullmatch(line.strip()):
        instead = link["where"] + (f"/{link['invite']}" if link["invite"] else "")
        whole = "the line HOST:PORT#FINGERPRINT/INVITE that came with it"
        raise BadTarget(f"this link is for browsers; here paste {whole}, or {instead}, which asks you whether the key is right")
    where, mark, rest = line.strip().partition("#")
    fingerprint: str | None
    if mark:
        fingerprint, slash, invite = rest.partition("/")
        if not _FINGERPRINT.fullmatch(fingerprint):
            raise BadTarget(f"the fingerprint after '#' has 43 letters, digits, '-' and '_'; this one has {len(fingerprint)} characters")
        fingerprint = fingerprint.rstrip("=")
    else:
        where, slash, invite = where.partition("/")
        fingerprint = None
    match = _HOST.fullmatch(where)
    if match is None:
        raise BadTarget(f"expected HOST:PORT#FINGERPRINT/INVITE (IPv6 as [::1]:{DEFAULT_PORT})")
    port = int(match["port"] or DEFAULT_PORT)
    if not 1 <= port <= 65535:
        raise BadTarget(f"a port is between 1 and 65535, not {port}")
    if slash and not _INVITE.fullmatch(invite):
        raise BadTarget("the invite after '/' has letters, digits, '-' and '_' alone")
    if match["six"]:
        try:
            ipaddress.IPv6Address(match["six"])
        except ValueError:
            raise BadTarget(f"[{match['six']}] is no IPv6 address") from None
    return Target(host=(match["six"] or match["host"]).lower(), port=port, fingerprint=fingerprint, invite=invite or None)
