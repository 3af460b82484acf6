"""The data: networks in one form, look-ups among many, endings in their order."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.errors import ChatError
from chat.rooms.moderation.sanctions import AddressBans, Endings, Sanction, check_network, contains, ending, network_of, span
from tests.rooms.house import code_of


def ban(until_ms=None):
    return Sanction(by=1, at_ms=0, until_ms=until_ms, reason=None)


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize(
    ("raw", "network"),
    [
        ("203.0.113.7", "203.0.113.7/32"),
        (" 203.0.113.7 ", "203.0.113.7/32"),
        ("203.0.113.7/24", "203.0.113.0/24"),
        ("::ffff:203.0.113.7", "203.0.113.7/32"),
        ("::FFFF:CB00:7107", "203.0.113.7/32"),
        ("::ffff:203.0.113.7/120", "203.0.113.0/24"),
        ("[::ffff:203.0.113.7]", "203.0.113.7/32"),
        ("2001:DB8:0:0:1:2:3:4", "2001:db8::/64"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:0db8:0000:0000:ffff::/128", "2001:db8::/64"),
        ("2001:db8:0:0:8000::/65", "2001:db8::/64"),
        ("2001:db8::/48", "2001:db8::/48"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:0:0/64", "::/64"),
    ],
)
def test_every_spelling_of_a_network_is_one(raw, network):
    assert str(network_of(raw)) == network


@pytest.mark.parametrize(
    "raw",
    ["", "bob", "203.0.113", "203.0.113.007", "203.0.113.7/33", "203.0.113.0/255.255.255.0", "203.0.113.7/", "203.0.113.7/-1", "1/2",
     "203.0.113.7/٢٤", "2001:db8::/129", "12345", "::g", "@203.0.113.7", "203.0.113.7/24/24"],
)  # fmt: skip
def test_what_is_no_network(raw):
    assert network_of(raw) is None


def test_what_is_in_a_network():
    here = network_of("203.0.113.0/24")
    assert [contains(here, host) for host in ("203.0.113.9", "::ffff:203.0.113.9", "203.0.114.9", "2001:db8::1", "no address")] == [
        *(True, True, False, False, False)
    ]
    assert contains(network_of("2001:db8::5"), "2001:db8::ffff:1:2:3")


@pytest.mark.parametrize(
    "raw", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0/0", "::/0", "0.0.0.0/1", "64.0.0.0/2", "128.0.0.0/7"]
)
def test_nobody_bans_this_machine_or_half_the_world(raw):
    assert code_of(check_network, network_of(raw)) == "bad_request"


@pytest.mark.parametrize("raw", ["10.0.0.0/8", "203.0.113.7", "2001:db8::/32", "2001::/19"])
def test_what_may_be_banned(raw):
    check_network(network_of(raw))


addresses = st.one_of(
    st.builds(lambda low: str(ipaddress.IPv4Address(0xCB007100 + low)), st.integers(0, 1023)),
    st.builds(lambda high, low: str(ipaddress.IPv6Address((0x20010DB8 << 96) + (high << 62) + low)), st.integers(0, 15), st.integers(0, 3)),
)
networks = st.builds(lambda host, cut: network_of(f"{host}/{(32 if '.' in host else 66) - cut}"), addresses, st.integers(0, 12))


@given(st.lists(st.tuples(networks, st.none() | st.integers(0, 9))), st.lists(networks), addresses, st.integers(0, 9))
def test_a_look_up_finds_what_looking_at_all_finds(put, dropped, host, now_ms):
    bans, naive = AddressBans(), {}
    for network, until_ms in put:
        bans.put(network, ban(until_ms))
        naive[network] = ban(until_ms)
    for network in dropped:
        bans.drop(network)
        naive.pop(network, None)
    assert dict(bans) == naive
    assert len(bans) == len(naive)
    found = bans.find(host, now_ms)
    holding = [(network, each) for network, each in naive.items() if contains(network, host) and not each.over(now_ms)]
    if found is None:
        assert holding == []
    else:
        assert found in holding
        ends = [10**9 if each.until_ms is None else each.until_ms for _, each in holding]
        assert (10**9 if found[1].until_ms is None else found[1].until_ms) == max(ends)


# ---------------------------------------------------------------- endings


@given(st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 50), st.sampled_from(["put", "drop", "tick"]))))
def test_what_is_due_is_what_looking_at_all_finds(steps):
    endings, naive, now_ms = Endings(), {}, 0
    for account, at_ms, what in steps:
        key = ("mute", 7, account)
        if what == "put":
            endings.put(key, at_ms)
            naive.pop(key, None)
            if at_ms is not None:
                naive[key] = at_ms
        elif what == "drop":
            endings.drop(key)
            naive.pop(key, None)
        else:
            now_ms += at_ms or 0
            due = endings.due(now_ms)
            assert sorted(due) == sorted(key for key, until in naive.items() if until <= now_ms)
            assert [naive[key] for key in due] == sorted(naive[key] for key in due)
            assert endings.due(now_ms) == due, "until it is dropped"
            for key in due:
                endings.drop(key)
                del naive[key]
        assert endings.at == naive


def test_many_changes_do_not_grow_the_heap():
    endings = Endings()
    for n in range(100_000):
        endings.put(("ban", 0, n % 10), 10**9 + n)
    assert len(endings._heap) < 200
    assert len(endings.due(10**12)) == 10


# ---------------------------------------------------------------- words


def test_times_in_words():
    assert [span(ms) for ms in (0, 1, 45_000, 60_000, 90_000, 5_400_000, 3_600_001, 86_400_000 * 9)] == [
        *("0 s", "1 s", "45 s", "1 min", "1 min 30 s", "1 h 30 min", "1 h", "9 d")
    ]
    assert ending(None, 0) == "until somebody lifts it"
    assert ending(7_200_000, 0) == "for 2 h more, until 1970-01-01 02:00 UTC"
    assert ending(5, 10) == "for 0 s more, until 1970-01-01 00:00 UTC"


def test_a_sanction_is_over_at_its_end():
    assert not ban(10).over(9)
    assert ban(10).over(10)
    assert not ban().over(10**15)


def test_a_refusal_is_one():
    with pytest.raises(ChatError, match="this machine itself"):
        check_network(network_of("127.0.0.1"))
