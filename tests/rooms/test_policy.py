import pytest

from chat.errors import ChatError
from chat.rooms import policy
from chat.rooms.policy import RIGHTS, ROOM_LADDER, SERVER_LADDER, RateLimits, Rates, describe, may, rank, require, require_above, take
from chat.rooms.state import Account, Room


def account(role="member", id=1):
    return Account(id, f"u{id}", f"u{id}", f"u{id}", None, role)


def room(members=None, private=False):
    return Room(9, "den", "den", "den", "abcdefgh", "", private, None, members or {})


@pytest.mark.parametrize("right", RIGHTS)
@pytest.mark.parametrize("server_role", SERVER_LADDER)
@pytest.mark.parametrize("room_role", [None, *ROOM_LADDER])
@pytest.mark.parametrize("private", [False, True])
def test_the_table_of_rights(right, server_role, room_role, private):
    least_room, least_server = RIGHTS[right]
    who = account(server_role)
    where = room({1: room_role} if room_role else {}, private)
    by_server = least_server is not None and SERVER_LADDER.index(server_role) >= SERVER_LADDER.index(least_server)
    by_room = least_room is not None and room_role is not None and ROOM_LADDER.index(room_role) >= ROOM_LADDER.index(least_room)
    seen = not private or room_role is not None
    assert may(right, who, where) == (by_room or (by_server and seen))
    assert may(right, who) == by_server
    assert describe(who, where)[right] == may(right, who, where)


def test_a_higher_role_never_may_less():
    for right in RIGHTS:
        for n in range(1, 3):
            assert may(right, account(SERVER_LADDER[n])) >= may(right, account(SERVER_LADDER[n - 1]))
            assert may(right, account(), room({1: ROOM_LADDER[n]})) >= may(right, account(), room({1: ROOM_LADDER[n - 1]}))


def test_an_owner_of_the_server_who_moderates_a_private_channel_does_not_lose_by_it():
    assert may("delete-channel", account("owner"), room({1: "member"}, private=True))
    assert not may("delete-channel", account("owner"), room({}, private=True))


@pytest.mark.parametrize(
    ("right", "who"),
    [("topic", "a channel's moderator or a server admin"), ("ban", "a server admin"), ("write", "a channel's member")],
)
def test_a_refusal_says_who_may(right, who):
    with pytest.raises(ChatError, match=f"only {who} may do that") as caught:
        require(right, account(), room())
    assert caught.value.code == "forbidden"
    require(right, account("owner"), room({1: "owner"}))


def test_rank():
    """The server's ladder stands on the channel's; a role of another channel counts for nothing."""
    there = room({1: "owner"}), room({1: "moderator"}), room({1: "member"}), room()
    ranks = [*(rank(account(role), there[0]) for role in ("owner", "admin")), *(rank(account(), each) for each in there)]
    assert ranks == sorted(set(ranks), reverse=True)
    assert rank(account("admin"), there[0]) == rank(account("admin"))
    assert rank(account()) == rank(account(), there[3])


def test_nobody_sanctions_their_like_nor_themselves():
    def other(role, id=2):
        found = account(role)
        found.id, found.name = id, "bob"
        return found

    here = room({1: "moderator", 2: "moderator", 3: "member", 4: "owner"})
    with pytest.raises(ChatError, match="you cannot mute yourself"):
        require_above(account(), account(), here, "mute")
    with pytest.raises(ChatError, match=r"bob is a moderator of #.*: only somebody above may mute them"):
        require_above(account(), other("member"), here, "mute")
    with pytest.raises(ChatError, match=r"bob is an owner of #.*"):
        require_above(account(), other("member", 4), here, "mute")
    with pytest.raises(ChatError, match="bob is an admin of the server"):
        require_above(account(), other("admin", 3), here, "mute")
    require_above(account(), other("member", 3), here, "mute")
    require_above(account("admin"), other("member", 4), here, "mute")


def test_rates_are_an_accounts_own_and_those_of_who_rests_are_forgotten():
    rates = Rates(RateLimits(sends_burst=1, sends_per_s=1))
    take(rates.of(1).sends, 10.0, "messages")
    take(rates.of(2).sends, 10.0, "messages")
    with pytest.raises(ChatError, match=r"too many messages; wait 0\.8 s") as caught:
        take(rates.of(1).sends, 10.25, "messages")
    assert (caught.value.code, caught.value.retry_after) == ("rate_limited", 0.75)
    rates.forget_full(10.5)
    assert rates.of(1).sends.take(10.5) > 0, "not forgotten while it counts"
    rates.forget_full(11.0)
    assert not rates._accounts


def test_a_look_at_the_rates_is_short_and_goes_round():
    rates = Rates(RateLimits(sends_burst=1, sends_per_s=1))
    for account in range(10):
        take(rates.of(account).sends, 0.0 if account % 2 else 5.0, "messages")
    for left in (8, 7, 5, 5):  # of the latest three, two had a second to fill; of the next, one …
        rates.forget_full(5.5, most=3)
        assert len(rates._accounts) == left
    assert set(rates._accounts) == {0, 2, 4, 6, 8}
    for account in (20, 21):  # they are looked at in the next round
        take(rates.of(account).sends, 5.5, "messages")
    for _ in range(3):
        rates.forget_full(9.0, most=3)
    assert not rates._accounts
    for account in range(4):
        take(rates.of(account).sends, 9.0, "messages")
    rates.forget_full(9.0, most=3)
    rates.adjust(RateLimits(sends_burst=2))  # in the middle of a round
    rates.forget_full(9.0, most=3)
    assert not rates._accounts


def test_a_rate_below_one_an_hour_still_lets_the_first_through():
    rates = Rates(RateLimits(joins_per_min=0.5, new_channels_per_h=0.1))
    take(rates.of(1).joins, 0.0, "joins")
    take(rates.of(1).new_channels, 0.0, "new channels")


def test_every_right_is_explained():
    assert list(policy.MEANINGS) == list(policy.RIGHTS)


def test_other_limits_hold_at_once_and_the_same_change_nothing():
    rates = Rates(RateLimits(sends_burst=1, sends_per_s=0.1))
    take(rates.of(1).sends, 10.0, "messages")
    rates.adjust(RateLimits(sends_burst=1, sends_per_s=0.1))
    assert rates.of(1).sends.take(10.0) > 0
    rates.adjust(RateLimits(sends_burst=2, sends_per_s=0.1))
    assert [rates.of(1).sends.take(10.0) > 0 for _ in range(3)] == [False, False, True]
