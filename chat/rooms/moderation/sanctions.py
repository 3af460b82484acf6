"""What somebody is under, and when it ends: sanctions, addresses that may not come, and the endings in the order of their time.

Plain data: decisions about it are in `chat.rooms.moderation.decisions`, the state keeps it.

Addresses are compared in canonical form: an IPv4 address mapped into IPv6 is that IPv4 address, zone and spelling do not matter, and of an
IPv6 address the /64 counts, since every customer has at least one to choose addresses from.
"""

import heapq
import ipaddress
import math
import time
from collections.abc import Iterator
from typing import Final

import attrs

from chat.errors import ChatError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

V6_PREFIX: Final = 64
WIDEST: Final = {4: 8, 6: 19}  # bits: a registry's share; wider is no aimed ban any more, and lockdown is the better word for it


@attrs.frozen(kw_only=True)
class Sanction:
    """What somebody is under: who set it (account; 0 the server), since when and until when (ms since 1970; None: until it is lifted)."""

    by: int
    at_ms: int
    until_ms: int | None
    reason: str | None

    def over(self, now_ms: int) -> bool:
        return self.until_ms is not None and self.until_ms <= now_ms


def ending(until_ms: int | None, now_ms: int) -> str:
    """For a person, whose clock may be in another zone: how long still, and when that is."""
    if until_ms is None:
        return "until somebody lifts it"
    return f"for {span(max(0, until_ms - now_ms))} more, until {moment(until_ms)}"


def moment(at_ms: int) -> str:
    """In UTC, since who reads it may be anywhere."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at_ms / 1000))


def span(ms: int) -> str:
    """The two largest units that say something: "2 h 30 min", "45 s"."""
    left = math.ceil(ms / 1000)
    parts: list[tuple[int, str]] = []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append((count, name))
    return " ".join(f"{count} {name}" for count, name in parts[:2] if count) or "0 s"


# ---------------------------------------------------------------- addresses


def network_of(raw: str) -> Network | None:
    """The network that *raw* (an address or CIDR) is for a ban; None where it is neither."""
    address, slash, bits = raw.strip().removeprefix("[").partition("/")
    try:
        host = ipaddress.ip_address(address.removesuffix("]").partition("%")[0])
        if slash and not (bits.isascii() and bits.isdigit()):
            return None  # neither netmasks nor host masks: both are misread too easily
        length = int(bits) if slash else host.max_prefixlen
        if not 0 <= length <= host.max_prefixlen:
            return None
    except ValueError:
        return None
    if isinstance(host, ipaddress.IPv6Address):
        if host.ipv4_mapped is not None and length >= 96:
            return ipaddress.IPv4Network((int(host.ipv4_mapped) >> (128 - length) << (128 - length), length - 96))
        length = min(length, V6_PREFIX)
        return ipaddress.IPv6Network((int(host) >> (128 - length) << (128 - length), length))
    return ipaddress.IPv4Network((int(host) >> (32 - length) << (32 - length), length))


def shown(network: Network) -> str:
    """For a person: one address without its length."""
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def contains(network: Network, host: str) -> bool:
    """Whether the address *host*, in any spelling, is in *network*."""
    found = network_of(host)
    return found is not None and found.version == network.version and found.subnet_of(network)  # type: ignore[arg-type]


def check_network(network: Network) -> None:
    """*Raises* ChatError bad_request for what nobody means to ban: this machine itself, or half the world."""
    loopback = ipaddress.ip_network("127.0.0.0/8" if network.version == 4 else "::1/128")
    if network.overlaps(loopback):
        here = f"{shown(network)} includes this machine itself"
        raise ChatError("bad_request", f"{here}, and proxies on it: everybody behind them would be banned")
    if network.prefixlen < WIDEST[network.version]:
        raise ChatError("bad_request", f"{network} is too wide for a ban: /{WIDEST[network.version]} is the widest")


class AddressBans:
    """Networks that may not come. A look-up costs one get for each length of prefix in use, however many networks there are."""

    def __init__(self) -> None:
        self._by_length: dict[tuple[int, int], dict[int, Network]] = {}  # (version, prefix length) → the prefix's bits → network
        self._bans: dict[Network, Sanction] = {}

    def __len__(self) -> int:
        return len(self._bans)

    def __iter__(self) -> Iterator[tuple[Network, Sanction]]:
        return iter(self._bans.items())

    def get(self, network: Network) -> Sanction | None:
        return self._bans.get(network)

    def put(self, network: Network, ban: Sanction) -> None:
        self._bans[network] = ban
        self._by_length.setdefault((network.version, network.prefixlen), {})[_bits(network)] = network

    def drop(self, network: Network) -> None:
        if self._bans.pop(network, None) is not None:
            key = network.version, network.prefixlen
            del self._by_length[key][_bits(network)]
            if not self._by_length[key]:
                del self._by_length[key]

    def find(self, host: str, now_ms: int) -> tuple[Network, Sanction] | None:
        """The ban that holds for the address *host*, the one that ends last; None: it may come."""
        if not self._bans:
            return None
        own = network_of(host)
        if own is None:
            return None
        address, best = int(own.network_address), None
        for (version, length), networks in self._by_length.items():
            if version == own.version and (network := networks.get(address >> (own.max_prefixlen - length))) is not None:
                ban = self._bans[network]
                if not ban.over(now_ms) and (best is None or _end(ban) > _end(best[1])):
                    best = network, ban
        return best


def _bits(network: Network) -> int:
    return int(network.network_address) >> (network.max_prefixlen - network.prefixlen)


def _end(ban: Sanction) -> float:
    return math.inf if ban.until_ms is None else ban.until_ms


# ---------------------------------------------------------------- endings

Key = tuple[str, int | str, int]  # what kind; its room or network (0: none); its account


class Endings:
    """What ends by itself, and when: a heap, so that a tick looks at what is due and not at all there is.

    What is lifted or changed before its time leaves its old place in the heap behind, which is passed over; when half of the heap is
    such places, it is made anew.
    """

    def __init__(self) -> None:
        self.at: Final[dict[Key, int]] = {}  # key → ms since 1970
        self._heap: list[tuple[int, str, str, int, Key]] = []

    def put(self, key: Key, until_ms: int | None) -> None:
        """*until_ms* None: it does not end by itself (any more)."""
        if until_ms is None:
            self.at.pop(key, None)
            return
        self.at[key] = until_ms
        heapq.heappush(self._heap, _place(key, until_ms))
        if len(self._heap) > 2 * len(self.at) + 64:
            self._heap = [_place(key, until_ms) for key, until_ms in self.at.items()]
            heapq.heapify(self._heap)

    def drop(self, key: Key) -> None:
        self.at.pop(key, None)

    def due(self, now_ms: int) -> list[Key]:
        """What has ended by *now_ms*, in the order of its end. It stays until it is dropped."""
        found: dict[Key, None] = {}
        while self._heap and self._heap[0][0] <= now_ms:
            until_ms, _, _, _, key = heapq.heappop(self._heap)
            if self.at.get(key) == until_ms:
                found[key] = None
        for key in found:
            heapq.heappush(self._heap, _place(key, self.at[key]))
        return list(found)


def _place(key: Key, until_ms: int) -> tuple[int, str, str, int, Key]:
    return until_ms, key[0], str(key[1]), key[2], key
