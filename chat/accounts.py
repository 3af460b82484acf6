"""Passwords, tokens, invites, and the throttles in front of them.

A password costs a hash of 19 MiB and some 40 ms of a core, on purpose, so three things stand in front of it. The throttles refuse
before anything is hashed. A limiter of our own lets two hash at a time, in threads, off the loop (argon2 gives the GIL away).
And no more than 64 wait for them: the next is told `busy` at once. A name that nobody has is answered in the time of a wrong
password, by checking against a hash that nothing matches.

What is counted are wrong passwords that were checked, so several right logins from one office at once are let in, however many.
But sixteen guesses sent at once must not all slip through before the first is found wrong: an attempt under way holds a place, and
who finds no place waits until one of those before it is decided.

*Source*: contract, sections 4 and 7; OWASP Password Storage (argon2id, m=19 MiB, t=2, p=1).
"""

import base64
import ipaddress
import math
import secrets
import time
import unicodedata
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from hashlib import sha256
from typing import Any, Final, Protocol, TypeVar

import argon2
import attrs
import trio
from argon2.exceptions import VerifyMismatchError

from chat.errors import ChatError

T = TypeVar("T")

MIN_PASSWORD_BYTES: Final = 8
MAX_PASSWORD_BYTES: Final = 256
MAX_WAITING: Final = 64
BUSY_RETRY_S: Final = 2.0  # 66 hashes of 40 ms, two at a time, are done by then
WRONG_PER_ACCOUNT: Final = 10
WRONG_PER_ACCOUNT_S: Final = 15 * 60.0
MAX_KEYS: Final = 10_000
INVITE_SYMBOLS: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
INVITE_LENGTH: Final = 16  # 80 bits

_EPSILON_S: Final = 1e-6  # who waited exactly as long as told is let in
# A text of 256 bytes in NFC has at most 384 code points in any other form (1.5 a byte, U+03B0); normalizing is quadratic in a run of
# combining marks (32,000 of them: 0.8 s), so nothing much longer is ever normalized.
_MAX_PASSWORD_CHARS: Final = 2 * MAX_PASSWORD_BYTES


# ---------------------------------------------------------------- passwords


class Passwords:
    """Hashes and verifies passwords in threads: *parallel* at a time, ``MAX_WAITING`` waiting. *Owns* its limiter.

    Both may be cancelled: one that still waits is dropped, one that is being hashed is finished first (some 40 ms).
    """

    def __init__(self, *, memory_kib: int = 19 * 1024, passes: int = 2, parallel: int = 2) -> None:
        self._hasher = argon2.PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=1)
        self._limiter = trio.CapacityLimiter(parallel)
        self._capacity = parallel + MAX_WAITING
        self._inside = 0
        self._dummy = nobodys_hash(memory_kib=memory_kib, passes=passes)

    async def hash(self, password: str) -> str:
        """*Raises* ChatError bad_request for a length outside 8 to 256 bytes of NFC, busy. *Waits* for a thread."""
        return await self._in_thread(self._hasher.hash, password_bytes(password))

    def hash_here(self, password: str) -> str:
        """As `hash`, in this thread: for a program that has nothing else to do."""
        return self._hasher.hash(password_bytes(password))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether *password* is the one of *password_hash*. None, where there is no account: False, after the same time.

        *Raises* ChatError busy. *Waits* for a thread; not for a password whose length already says that it is nobody's.
        """
        try:
            secret = password_bytes(password)
        except ChatError:
            await trio.lowlevel.checkpoint()
            return False
        return await self._in_thread(self._matches, self._dummy if password_hash is None else password_hash, secret)

    def needs_rehash(self, password_hash: str) -> bool:
        """Whether it was made with other costs than today's. Its password is known at a login only: hash it again then."""
        return self._hasher.check_needs_rehash(password_hash)

    def _matches(self, password_hash: str, secret: bytes) -> bool:
        try:
            return self._hasher.verify(password_hash, secret)
        except VerifyMismatchError:
            return False  # other errors are a damaged hash or no memory: not the peer's fault

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        if self._inside >= self._capacity:
            raise ChatError("busy", "too many passwords are being checked; try again soon", retry_after=BUSY_RETRY_S)
        self._inside += 1
        try:
            return await trio.to_thread.run_sync(function, *args, limiter=self._limiter)
        finally:
            self._inside -= 1


def nobodys_hash(*, memory_kib: int = 19 * 1024, passes: int = 2) -> str:
    """A hash of random: no password has it, and checking one against it takes the same time as any."""
    return f"$argon2id$v=19$m={memory_kib},t={passes},p=1${_base64(16)}${_base64(32)}"


def password_bytes(password: str) -> bytes:
    """What of a password is hashed: UTF-8 of its NFC. *Raises* ChatError bad_request unless that is 8 to 256 bytes."""
    if len(password) <= _MAX_PASSWORD_CHARS:
        try:
            secret = unicodedata.normalize("NFC", password).encode()
        except UnicodeEncodeError:  # a lone surrogate
            raise ChatError("bad_request", "the password is no Unicode text") from None
        if MIN_PASSWORD_BYTES <= len(secret) <= MAX_PASSWORD_BYTES:
            return secret
    raise ChatError("bad_request", f"a password has {MIN_PASSWORD_BYTES} to {MAX_PASSWORD_BYTES} bytes")


def _base64(n_bytes: int) -> str:
    return base64.b64encode(secrets.token_bytes(n_bytes)).rstrip(b"=").decode()


# ---------------------------------------------------------------- tokens and invites


def new_token() -> str:
    """A resume token: 256 random bits, url-safe."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes:
    """What is stored of a token. A plain hash is enough for 256 random bits, and any text has one."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def new_invite() -> str:
    """An invite code such as "7kq2-x0vm-93td-hh5e": 80 random bits, url-safe, without letters that look or sound like another."""
    return _grouped("".join(secrets.choice(INVITE_SYMBOLS) for _ in range(INVITE_LENGTH)))


def fold_invite(text: str) -> str:
    """The code that was meant: case, blanks and hyphens do not matter, o is 0, i and l are 1. Garbage gives a code that none has."""
    folded = "".join(text[:64].split()).replace("-", "").lower().translate(_MISREAD)
    return _grouped(folded)


_MISREAD: Final = str.maketrans("oil", "011")


def _grouped(symbols: str) -> str:
    return "-".join(symbols[i : i + 4] for i in range(0, len(symbols), 4))


# ---------------------------------------------------------------- throttles


class Throttle:
    """At most *limit* events of a key in any *window_s* seconds, exactly: the last *limit* times of each key are kept. Pure.

    A *limit* below one or with a fraction changes the window accordingly (0.5 in 60 s is 1 in 120 s). Memory is bounded: a key goes
    when its last event is out of the window, and above *max_keys* the one that was quiet longest goes. So a flood of addresses can
    at worst make a throttle forget; it never makes one refuse who did nothing.

    *now* is monotonic, in seconds, and never goes back.
    """

    def __init__(self, limit: float, window_s: float, *, max_keys: int = MAX_KEYS) -> None:
        if not limit > 0 or max_keys < 1:
            raise ValueError(f"a throttle needs limit > 0 and max_keys ≥ 1, not {limit!r} and {max_keys!r}")
        self.limit = max(1, int(limit))
        self._window_s = window_s * self.limit / limit
        self._max_keys = max_keys
        self._events: OrderedDict[Hashable, deque[float]] = OrderedDict()  # in the order of their last events

    def __len__(self) -> int:
        return len(self._events)

    def count(self, key: Hashable, now: float) -> int:
        """The events of *key* that count now, 0 to *limit*."""
        horizon = now - self._window_s + _EPSILON_S
        return sum(at > horizon for at in self._events.get(key, ()))

    def wait_s(self, key: Hashable, now: float) -> float:
        """0.0 when there is room for another event, else the seconds until there is."""
        events = self._events.get(key)
        if events is None or len(events) < self.limit:
            return 0.0
        wait_s = events[0] + self._window_s - now
        return wait_s if wait_s > _EPSILON_S else 0.0

    def add(self, key: Hashable, now: float) -> None:
        events = self._events.get(key)
        if events is None:
            events = self._events[key] = deque(maxlen=self.limit)
        events.append(now)
        self._events.move_to_end(key)
        while next(iter(self._events.values()))[-1] <= now - self._window_s or len(self._events) > self._max_keys:
            self._events.popitem(last=False)

    def adjusted(self, limit: float, window_s: float) -> "Throttle":
        """One with another limit that remembers the same events, as many of each key as it counts."""
        other = Throttle(limit, window_s, max_keys=self._max_keys)
        other._events.update((key, deque(events, maxlen=other.limit)) for key, events in self._events.items())
        return other

    def take_back(self, key: Hashable) -> None:
        """Undo the last `add` of *key*: what it was for did not happen."""
        events = self._events.get(key)
        if events:
            events.pop()
            if not events:
                del self._events[key]


class Origin(Protocol):
    """Of a `chat.transport.base.Peer`, what throttles go by."""

    @property
    def prefix(self) -> str: ...

    @property
    def loopback(self) -> bool: ...


@attrs.define(eq=False)
class _UnderWay:
    """Attempts that hold a place of one key, and what those without one wait for."""

    count: int = 0
    decided: trio.Event = attrs.Factory(trio.Event)


class Logins:
    """Checks passwords of accounts, and refuses before hashing whoever gave too many wrong ones.

    10 in 15 minutes for each (account, /24 or /64), so that nobody can lock an owner out from elsewhere; *wrong_per_min* for each
    address, so that nobody can try many accounts. Loopback is exempt unless told otherwise. *clock* is monotonic, in seconds.
    """

    def __init__(
        self,
        passwords: Passwords,
        *,
        wrong_per_min: float = 3,
        exempt_loopback: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._passwords = passwords
        self._by_account = Throttle(WRONG_PER_ACCOUNT, WRONG_PER_ACCOUNT_S)
        self._by_address = Throttle(wrong_per_min, 60.0)
        self._exempt_loopback = exempt_loopback
        self._clock = clock
        self._under_way: dict[Hashable, _UnderWay] = {}
        self.wrong = 0  # since the start

    def adjust(self, *, wrong_per_min: float, exempt_loopback: bool) -> None:
        """Other limits, from the next attempt on; what was counted stays counted."""
        self._by_address = self._by_address.adjusted(wrong_per_min, 60.0)
        self._exempt_loopback = exempt_loopback

    async def check(self, name: str, password: str, password_hash: str | None, peer: Origin) -> bool:
        """Whether *password* is that of the account *name* (canonical), whose hash is *password_hash*; None where there is none.

        For a login, and for the old password of a change.
        *Raises* ChatError rate_limited, without hashing; busy, which counts as no attempt. *Waits* for a thread and, while as many
        attempts are under way as might still be wrong, for one of them. *If cancelled* while hashing, a wrong one is still counted.
        """
        if peer.loopback and self._exempt_loopback:
            right = await self._passwords.verify(password_hash, password)
            self.wrong += not right
            return right
        places = (
            (self._by_account, (name[:64], network_of(peer.prefix))),
            (self._by_address, peer.prefix),
        )
        await self._enter(places)
        try:
            right = await self._passwords.verify(password_hash, password)
            if not right:
                self.wrong += 1
                now = self._clock()
                for throttle, key in places:
                    throttle.add(key, now)
        finally:
            self._leave(places)
        return right

    async def _enter(self, places: "tuple[tuple[Throttle, Hashable], ...]") -> None:
        while True:
            now = self._clock()
            wait_s = max(throttle.wait_s(key, now) for throttle, key in places)
            if wait_s:
                raise _rate_limited("wrong passwords", wait_s)
            for throttle, key in places:
                under_way = self._under_way.get(key)
                if under_way and throttle.count(key, now) + under_way.count >= throttle.limit:
                    await under_way.decided.wait()
                    break
            else:
                break
        for _, key in places:
            self._under_way.setdefault(key, _UnderWay()).count += 1

    def _leave(self, places: "tuple[tuple[Throttle, Hashable], ...]") -> None:
        for _, key in places:
            under_way = self._under_way[key]
            under_way.count -= 1
            under_way.decided.set()
            if under_way.count:
                under_way.decided = trio.Event()
            else:
                del self._under_way[key]


class Registrations:
    """So many new accounts an hour from one address. Loopback is exempt unless told otherwise. Pure but for its clock."""

    def __init__(self, *, per_h: float = 3, exempt_loopback: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self._by_address = Throttle(per_h, 3600.0)
        self._exempt_loopback = exempt_loopback
        self._clock = clock

    def adjust(self, *, per_h: float, exempt_loopback: bool) -> None:
        """Other limits, from the next one on; what was counted stays counted."""
        self._by_address = self._by_address.adjusted(per_h, 3600.0)
        self._exempt_loopback = exempt_loopback

    def take(self, peer: Origin) -> None:
        """Count one, before its password is hashed. *Raises* ChatError rate_limited."""
        if peer.loopback and self._exempt_loopback:
            return
        now = self._clock()
        if wait_s := self._by_address.wait_s(peer.prefix, now):
            raise _rate_limited("registrations", wait_s)
        self._by_address.add(peer.prefix, now)

    def give_back(self, peer: Origin) -> None:
        """No account came of it: the name was taken, the invite unknown, or nothing could be stored."""
        if not (peer.loopback and self._exempt_loopback):
            self._by_address.take_back(peer.prefix)


def network_of(prefix: str) -> str:
    """The neighbourhood of a `Peer.prefix`: an IPv4 address's /24; an IPv6 /64 is one already. What is no address is its own."""
    try:
        address = ipaddress.ip_address(prefix)
    except ValueError:
        return prefix
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 64), strict=False))


def _rate_limited(what: str, wait_s: float) -> ChatError:
    return ChatError("rate_limited", f"too many {what}; wait {math.ceil(wait_s)} s", retry_after=math.ceil(wait_s * 1000) / 1000)
