import re
import threading
import unicodedata

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chat.accounts import (
    MAX_WAITING,
    Logins,
    Passwords,
    Registrations,
    Throttle,
    fold_invite,
    network_of,
    new_invite,
    new_token,
    password_bytes,
    token_hash,
)
from chat.errors import ChatError

GOOD = "correct horse"


def cheap(**options):
    return Passwords(**{"memory_kib": 8, "passes": 1, **options})


class Gated(Passwords):
    """Real passwords, but a check can be held in its thread until the test lets it go."""

    def __init__(self, **options):
        super().__init__(**{"memory_kib": 8, "passes": 1, **options})
        self.gate = threading.Event()
        self.hashed = 0

    def _matches(self, password_hash, secret):
        assert self.gate.wait(timeout=20)
        self.hashed += 1
        return super()._matches(password_hash, secret)


@attrs.frozen
class From:
    prefix: str
    loopback: bool = False


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


# ---------------------------------------------------------------- passwords


async def test_a_password_matches_its_hash_and_no_other():
    passwords = cheap()
    stored = await passwords.hash(GOOD)
    assert await passwords.verify(stored, GOOD)
    assert not await passwords.verify(stored, GOOD + "!")
    assert stored != await passwords.hash(GOOD)


async def test_the_defaults_are_those_of_the_contract_and_the_dummy_costs_the_same():
    passwords = Passwords()
    costs = "$argon2id$v=19$m=19456,t=2,p=1$"
    assert (await passwords.hash(GOOD)).startswith(costs)
    assert passwords._dummy.startswith(costs)


async def test_nobody_is_hashed_like_somebody():
    passwords = Gated()
    passwords.gate.set()
    assert await passwords.verify(None, GOOD) is False
    assert passwords.hashed == 1
    assert not passwords.needs_rehash(passwords._dummy)


async def test_composed_and_decomposed_are_the_same_password():
    passwords = cheap()
    stored = await passwords.hash(unicodedata.normalize("NFD", "pässwörter"))
    assert await passwords.verify(stored, unicodedata.normalize("NFC", "pässwörter"))


@pytest.mark.parametrize("password", ["", "1234567", "ä" * 3, "x" * 257, "ä" * 129, "x" * 10**6, "longenough\ud800"])
async def test_bad_lengths_are_refused_and_match_nothing(password):
    passwords = Gated()  # its gate is closed: hashing would hang
    with pytest.raises(ChatError) as refusal:
        await passwords.hash(password)
    assert refusal.value.code == "bad_request"
    assert await passwords.verify(passwords._dummy, password) is False
    assert await passwords.verify(None, password) is False


@pytest.mark.parametrize("password", ["12345678", "ä" * 4, "x" * 256, "ä" * 128, unicodedata.normalize("NFD", "\u03b0" * 128)])
def test_the_bounds_themselves_are_allowed(password):
    assert 8 <= len(password_bytes(password)) <= 256


def test_whatever_is_short_in_nfc_is_short_enough_to_be_normalized():
    """The bound on characters before normalizing must refuse nothing that the bound on bytes allows."""
    assert all(
        len(unicodedata.normalize("NFD", char)) <= 2 * len(unicodedata.normalize("NFC", char).encode())
        for char in map(chr, range(0x30000))
        if not 0xD800 <= ord(char) < 0xE000
    )


async def test_old_costs_are_seen():
    stored = await cheap().hash(GOOD)
    assert not cheap().needs_rehash(stored)
    assert cheap(passes=2).needs_rehash(stored)
    assert cheap(memory_kib=16).needs_rehash(stored)
    assert await cheap(passes=2).verify(stored, GOOD)


async def test_a_damaged_hash_is_no_wrong_password():
    with pytest.raises(Exception, match=r"(?i)invalid|decod"):
        await cheap().verify("$argon2id$rubbish", GOOD)


async def test_the_queue_is_bounded_and_works_again_afterwards():
    passwords = Gated(parallel=2)
    right = []

    async def verify():
        right.append(await passwords.verify(None, GOOD))

    async with trio.open_nursery() as nursery:
        for _ in range(2 + MAX_WAITING):
            nursery.start_soon(verify)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ChatError) as refusal:
            await passwords.verify(None, GOOD)
        assert refusal.value.code == "busy"
        assert refusal.value.retry_after > 0
        with pytest.raises(ChatError):
            await passwords.hash(GOOD)
        passwords.gate.set()
    assert right == [False] * (2 + MAX_WAITING)
    assert passwords.hashed == 2 + MAX_WAITING
    assert await passwords.verify(await passwords.hash(GOOD), GOOD)


async def test_only_so_many_hash_at_a_time():
    passwords = Gated(parallel=3)
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(passwords.verify, None, GOOD)
        await trio.testing.wait_all_tasks_blocked()
        assert passwords._limiter.borrowed_tokens == 3
        assert passwords._limiter.statistics().tasks_waiting == 7
        passwords.gate.set()


async def test_cancelled_ones_leave_their_places():
    passwords = Gated(parallel=1)
    async with trio.open_nursery() as holding:
        holding.start_soon(passwords.verify, None, GOOD)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for _ in range(MAX_WAITING):
                nursery.start_soon(passwords.verify, None, GOOD)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert passwords._inside == 1
        passwords.gate.set()
    assert passwords.hashed == 1
    assert passwords._inside == 0
    assert passwords._limiter.borrowed_tokens == 0


# ---------------------------------------------------------------- tokens and invites


def test_tokens():
    token = new_token()
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
    assert token != new_token()
    assert token_hash(token) == token_hash(token) != token_hash(new_token())
    assert len(token_hash("\ud800 any text")) == 32


def test_invites_are_short_and_can_be_read_aloud():
    codes = {new_invite() for _ in range(100)}
    assert len(codes) == 100
    assert all(re.fullmatch(r"[0-9a-hjkmnp-tv-z]{4}(-[0-9a-hjkmnp-tv-z]{4}){3}", code) for code in codes)
    assert all(fold_invite(code) == code for code in codes)


def test_an_invite_may_be_typed_as_it_was_heard():
    assert fold_invite(" 1A0b C-01d-efgh 1234\n") == "1a0b-c01d-efgh-1234"
    assert fold_invite("lAOb-coId-efgh-i234") == "1a0b-c01d-efgh-1234"


@given(st.text())
def test_any_text_can_be_asked_for_as_an_invite(text):
    assert len(fold_invite(text)) <= 300
    assert fold_invite("x" * 10**5 + text) == fold_invite("x" * 64)


# ---------------------------------------------------------------- throttle


def test_a_throttle_counts_exactly_in_any_window():
    throttle = Throttle(3, 60)
    for now in (0.0, 30.0, 40.0):
        assert throttle.wait_s("a", now) == 0.0
        throttle.add("a", now)
    assert throttle.wait_s("a", 40.0) == 20.0
    assert throttle.wait_s("b", 40.0) == 0.0
    assert throttle.wait_s("a", 60.0) == 0.0
    throttle.add("a", 60.0)
    assert throttle.wait_s("a", 60.0) == 30.0


def test_take_back():
    throttle = Throttle(1, 60)
    throttle.take_back("a")
    throttle.add("a", 0.0)
    throttle.take_back("a")
    assert throttle.wait_s("a", 0.0) == 0.0
    assert len(throttle) == 0


def test_fractions_of_a_limit_change_the_window():
    throttle = Throttle(0.5, 60)
    throttle.add("a", 0.0)
    assert throttle.wait_s("a", 0.0) == 120.0
    with pytest.raises(ValueError, match="limit"):
        Throttle(0, 60)


def test_a_flood_of_keys_eats_no_memory_and_those_who_go_on_are_kept():
    throttle = Throttle(3, 60, max_keys=100)
    for n in range(10_000):
        throttle.add(f"address {n}", n * 1e-6)
        throttle.add("busy", n * 1e-6)
        assert throttle.count("busy", 1.0) == min(3, n + 1)
    assert len(throttle) == 100
    assert throttle.wait_s("address 0", 1.0) == 0.0


def test_what_is_over_is_forgotten():
    throttle = Throttle(3, 60)
    for n in range(1000):
        throttle.add(n, 0.0)
    throttle.add("late", 60.0)
    assert len(throttle) == 1


class ThrottleAgainstAList(RuleBasedStateMachine):
    """The naive model: every event there ever was, in a list."""

    keys = st.sampled_from("abc")

    @initialize(limit=st.integers(1, 4))
    def start(self, limit):
        self.throttle = Throttle(limit, 10.0)
        self.events = {key: [] for key in "abc"}
        self.now = 0.0

    @rule(pause=st.integers(0, 40))
    def wait(self, pause):
        self.now += pause / 4

    @rule(key=keys)
    def ask(self, key):
        wait_s = self.throttle.wait_s(key, self.now)
        assert (wait_s == 0.0) == (self.recent(key) < self.throttle.limit)
        if wait_s:
            self.now += wait_s
            assert self.recent(key) < self.throttle.limit
        self.throttle.add(key, self.now)
        self.events[key].append(self.now)

    @rule(key=keys)
    def take_back(self, key):
        if self.recent(key):
            self.throttle.take_back(key)
            self.events[key].pop()

    @invariant()
    def counts_are_equal(self):
        for key in "abc":
            assert self.throttle.count(key, self.now) == self.recent(key) <= self.throttle.limit

    def recent(self, key):
        return sum(at > self.now - 10.0 for at in self.events[key])


TestThrottleAgainstAList = ThrottleAgainstAList.TestCase


@pytest.mark.parametrize(
    ("prefix", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2::/64", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("somewhere", "somewhere"),
    ],
)
def test_networks(prefix, network):
    assert network_of(prefix) == network


# ---------------------------------------------------------------- logins


async def wrong(logins, name="alice", peer=From("192.0.2.1")):
    """A wrong password: "wrong", or the seconds to wait."""
    try:
        assert not await logins.check(name, "not the password", None, peer)
    except ChatError as refusal:
        return refusal.retry_after if refusal.code == "rate_limited" else refusal.code
    return "wrong"


async def test_three_wrong_ones_a_minute_from_an_address_and_the_refused_cost_no_hash():
    passwords, clock = Gated(), Clock()
    passwords.gate.set()
    logins = Logins(passwords, clock=clock)
    assert [await wrong(logins, name) for name in "abc"] == ["wrong"] * 3
    clock.now += 20
    assert await wrong(logins, "d") == pytest.approx(40)
    assert passwords.hashed == 3
    assert await wrong(logins, "d", From("192.0.2.2")) == "wrong"
    clock.now += 40
    assert await wrong(logins, "d") == "wrong"


async def test_ten_wrong_ones_in_a_quarter_of_an_hour_for_an_account_from_a_network():
    clock = Clock()
    logins = Logins(cheap(), clock=clock)
    assert [await wrong(logins, peer=From(f"192.0.2.{n}")) for n in range(10)] == ["wrong"] * 10
    clock.now += 100
    assert await wrong(logins, peer=From("192.0.2.200")) == pytest.approx(800)
    # nobody else is locked out: not the owner elsewhere, not another account there
    assert await wrong(logins, peer=From("198.51.100.1")) == "wrong"
    assert await wrong(logins, "bob", From("192.0.2.200")) == "wrong"
    clock.now += 800
    assert await wrong(logins, peer=From("192.0.2.200")) == "wrong"


async def test_right_ones_do_not_count_and_are_let_in_all_at_once():
    passwords = cheap()
    stored = await passwords.hash(GOOD)
    logins = Logins(passwords, clock=Clock())
    right = []

    async def login(n):
        right.append(await logins.check(f"user{n}", GOOD, stored, From("192.0.2.1")))

    async with trio.open_nursery() as nursery:
        for n in range(40):
            nursery.start_soon(login, n)
    assert right == [True] * 40
    assert not logins._under_way


async def test_guesses_sent_at_once_do_not_slip_through():
    passwords = Gated(parallel=16)
    logins = Logins(passwords, clock=Clock())
    answers = []

    async def guess():
        answers.append(await wrong(logins))

    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(guess)
        await trio.testing.wait_all_tasks_blocked()
        passwords.gate.set()
    assert answers.count("wrong") == 3 == passwords.hashed
    assert [answer for answer in answers if answer != "wrong"] == [60.0] * 13
    assert not logins._under_way


async def test_a_cancelled_guess_is_counted_once_it_was_hashed_and_not_before():
    passwords = Gated(parallel=1)
    logins = Logins(passwords, clock=Clock())
    async with trio.open_nursery() as nursery:
        for _ in range(5):  # one hashing, two in the queue for a thread, two waiting for a place
            nursery.start_soon(wrong, logins)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        passwords.gate.set()
    assert passwords.hashed == 1
    assert not logins._under_way
    assert [await wrong(logins) for _ in range(3)] == ["wrong", "wrong", 60.0]


async def test_busy_is_no_attempt():
    passwords = Gated(parallel=1)
    logins = Logins(passwords, clock=Clock())
    async with trio.open_nursery() as nursery:
        for _ in range(1 + MAX_WAITING):
            nursery.start_soon(passwords.verify, None, GOOD)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(20):
            with pytest.raises(ChatError, match="busy"):
                await logins.check("alice", GOOD, None, From("192.0.2.1"))
        passwords.gate.set()
    assert await wrong(logins) == "wrong"


async def test_loopback_is_exempt_unless_told_otherwise():
    home = From("127.0.0.1", loopback=True)
    logins = Logins(cheap(), clock=Clock())
    assert [await wrong(logins, peer=home) for _ in range(20)] == ["wrong"] * 20
    logins = Logins(cheap(), clock=Clock(), exempt_loopback=False)
    assert [await wrong(logins, peer=home) for _ in range(4)] == ["wrong"] * 3 + [60.0]


async def test_names_of_any_length_are_kept_short():
    logins = Logins(cheap(), clock=Clock(), wrong_per_min=1e9)
    await wrong(logins, "x" * 10**5)
    assert all(len(name) <= 64 for name, _ in logins._by_account._events)


def test_three_registrations_an_hour_from_an_address():
    clock = Clock()
    registrations = Registrations(clock=clock)
    here, home = From("192.0.2.1"), From("127.0.0.1", loopback=True)
    for _ in range(3):
        registrations.take(here)
        registrations.take(home)
    with pytest.raises(ChatError, match="rate_limited") as refusal:
        registrations.take(here)
    assert refusal.value.retry_after == 3600.0
    registrations.take(home)
    registrations.take(From("192.0.2.2"))
    registrations.give_back(here)
    registrations.give_back(home)
    registrations.take(here)
    clock.now += 3600
    registrations.take(here)


def test_registrations_from_loopback_count_when_told_so():
    registrations = Registrations(per_h=1, exempt_loopback=False, clock=Clock())
    registrations.take(From("127.0.0.1", loopback=True))
    with pytest.raises(ChatError, match="rate_limited"):
        registrations.take(From("127.0.0.1", loopback=True))


# ---------------------------------------------------------------- other limits while it runs


def test_a_throttle_with_another_limit_remembers():
    throttle = Throttle(3, 60)
    for now in (0, 1, 2):
        throttle.add("x", now)
    assert throttle.adjusted(5, 60).wait_s("x", 3) == 0
    assert throttle.adjusted(3, 60).wait_s("x", 3) == 57
    assert throttle.adjusted(2, 60).wait_s("x", 3) == 58, "the last two count"
    assert throttle.wait_s("x", 3) == 57, "the one of before is as it was"


@attrs.frozen
class Somewhere:
    prefix: str = "203.0.113.7"
    loopback: bool = False


def test_registrations_have_another_limit_at_once():
    now = [0.0]
    registrations = Registrations(per_h=1, exempt_loopback=True, clock=lambda: now[0])
    registrations.take(Somewhere())
    registrations.adjust(per_h=2, exempt_loopback=False)
    registrations.take(Somewhere())
    with pytest.raises(ChatError):
        registrations.take(Somewhere())
    for _ in range(2):
        registrations.take(Somewhere(prefix="127.0.0.1", loopback=True))
    with pytest.raises(ChatError):
        registrations.take(Somewhere(prefix="127.0.0.1", loopback=True))


async def test_logins_have_another_limit_at_once():
    passwords = Passwords(memory_kib=8, passes=1)
    logins = Logins(passwords, wrong_per_min=1, clock=lambda: 0.0)
    right = await passwords.hash("right password")
    assert not await logins.check("ann", "wrong password", right, Somewhere())
    with pytest.raises(ChatError):
        await logins.check("ann", "right password", right, Somewhere())
    logins.adjust(wrong_per_min=2, exempt_loopback=True)
    assert await logins.check("ann", "right password", right, Somewhere())
