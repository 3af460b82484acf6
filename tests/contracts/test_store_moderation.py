"""Bans, mutes, the moderation log and where people came from, in any store."""

import attrs

from chat.rooms import effects as e
from chat.rooms.moderation import audit
from chat.store.base import Seen, changes_state
from tests.store.build import ANN, BOB, DEN, LOBBY, OWNER, do, rotate, seqs, session

DAY_MS = 86_400_000
CHANNEL_BAN = e.PutChannelBan(room=LOBBY, account=ANN, by=OWNER, at_ms=7, until_ms=99, reason="spam")
MUTE = e.PutMute(room=DEN, account=BOB, by=ANN, at_ms=8, until_ms=None, reason=None)
ADDRESS_BAN = e.PutAddressBan(network="203.0.113.0/24", by=OWNER, at_ms=9, until_ms=None, reason="é ☃ '\"")


# ---------------------------------------------------------------- sanctions


async def test_sanctions_are_loaded_as_they_were_put(opened, store):
    store.writer.commit([do(CHANNEL_BAN, MUTE), do(ADDRESS_BAN)])
    loaded = (await opened()).writer.load().sanctions
    assert set(loaded) == {CHANNEL_BAN, MUTE, ADDRESS_BAN}


async def test_one_that_is_put_again_takes_the_place_of_the_first(store):
    later = [attrs.evolve(each, until_ms=1000, reason="worse", by=BOB) for each in (CHANNEL_BAN, MUTE, ADDRESS_BAN)]
    store.writer.commit([do(CHANNEL_BAN, MUTE, ADDRESS_BAN), do(*later)])
    assert set(store.writer.load().sanctions) == set(later)


async def test_one_that_is_dropped_is_gone_and_others_stay(store):
    other = attrs.evolve(CHANNEL_BAN, account=BOB)
    store.writer.commit([do(CHANNEL_BAN, MUTE, ADDRESS_BAN, other)])
    store.writer.commit([do(e.DropChannelBan(room=LOBBY, account=ANN), e.DropMute(room=DEN, account=BOB))])
    assert set(store.writer.load().sanctions) == {other, ADDRESS_BAN}
    store.writer.commit([do(e.DropAddressBan(network="203.0.113.0/24"), e.DropAddressBan(network="198.51.100.0/24"))])
    assert set(store.writer.load().sanctions) == {other}


async def test_they_go_with_their_room(store):
    store.writer.commit([do(CHANNEL_BAN, MUTE), do(e.DeleteRoom(room=LOBBY))])
    assert store.writer.load().sanctions == [MUTE]


async def test_one_for_a_room_that_is_gone_fails_alone(store):
    store.writer.commit([do(e.DeleteRoom(room=LOBBY))])
    outcomes = store.writer.commit_one_by_one([do(CHANNEL_BAN), do(MUTE, generation=1)])
    assert outcomes[0].error is not None
    assert seqs(outcomes)[1] == []
    assert store.writer.load().sanctions == [MUTE]


def test_decisions_rest_on_them():
    drops = (e.DropChannelBan(room=1, account=2), e.DropMute(room=1, account=2), e.DropAddressBan(network="x"))
    assert all(changes_state(do(each)) for each in (CHANNEL_BAN, MUTE, ADDRESS_BAN, *drops))


# ---------------------------------------------------------------- the moderation log


async def test_the_log_is_read_by_target_room_and_action(store):
    store.writer.commit(
        [
            do(audit.entry(OWNER, "kick", target=BOB, room=LOBBY, reason="rude")),
            do(audit.entry(OWNER, "mute", target=ANN, room=LOBBY, after={"until": 7})),
            do(audit.entry(OWNER, "kick", target=BOB, room=DEN)),
            do(audit.entry(0, "broadcast")),
        ]
    )

    async def found(**wanted):
        return [entry.n for entry in await store.audit(**{"limit": 10, **wanted})]

    assert await found() == [4, 3, 2, 1]
    assert await found(limit=2) == [4, 3]
    assert await found(before=3) == [2, 1]
    assert await found(target=BOB) == [3, 1]
    assert await found(rooms=[LOBBY]) == [2, 1]
    assert await found(rooms=[]) == []
    assert await found(action="kick", rooms=[LOBBY, DEN]) == [3, 1]
    first = (await store.audit(limit=1, before=3))[0]
    assert (first.at_ms, first.actor, first.action, first.after) == (1_000_000, OWNER, "mute", '{"until":7}')


# ---------------------------------------------------------------- where people came from


def come(name, who, address, at_ms, token):
    return attrs.evolve(session(name, who, token), address=address, at_ms=at_ms)


async def test_a_login_and_a_resume_leave_where_they_came_from(store):
    store.writer.commit([do(come("s1", ANN, "203.0.113.7", 100, b"t1")), do(come("s2", BOB, "2001:db8::1", 200, b"t2"))])
    store.writer.commit([do(attrs.evolve(rotate("s1", b"t3", at_ms=300), address="203.0.113.8"))])
    store.writer.commit([do(come("s3", ANN, "203.0.113.7", 400, b"t4"))])
    assert await store.seen(0) == [
        Seen(account=ANN, address="203.0.113.7", last_ms=400),
        Seen(account=ANN, address="203.0.113.8", last_ms=300),
        Seen(account=BOB, address="2001:db8::1", last_ms=200),
    ]
    assert [each.account for each in await store.seen(300)] == [ANN, ANN]


async def test_a_resume_that_is_refused_leaves_nothing(store):
    store.writer.commit([do(come("s1", ANN, "203.0.113.7", 100, b"t1"))])
    (outcome,) = store.writer.commit([do(attrs.evolve(rotate("s1", b"t2", presented=b"other"), address="203.0.113.8"))])
    assert outcome.error.code == "unauthorized"
    assert [each.address for each in await store.seen(0)] == ["203.0.113.7"]


async def test_addresses_are_forgotten_after_30_days(store, clock):
    clock.now_ms = 40 * DAY_MS
    store.writer.commit([do(come(f"s{n}", ANN, f"203.0.113.{n}", n * DAY_MS, f"t{n}".encode())) for n in range(1, 41)])
    while store.writer.tidy(cids_before_ms=0, rows=3):
        pass
    assert [each.last_ms // DAY_MS for each in await store.seen(0)] == list(range(40, 9, -1))


async def test_who_changes_the_address_for_every_login_does_not_fill_the_table(store):
    store.writer.commit([do(come(f"s{n}", ANN, f"2001:db8::{n:x}", n, f"t{n}".encode())) for n in range(1, 151)])
    store.writer.commit([do(come("bob", BOB, "203.0.113.7", 5, b"bob"))])
    seen = await store.seen(0)
    assert [each.last_ms for each in seen if each.account == ANN] == list(range(150, 50, -1))
    assert [each.last_ms for each in seen if each.account == BOB] == [5]
