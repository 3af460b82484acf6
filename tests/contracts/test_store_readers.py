"""What any store answers to its readers, and what becomes of sessions and their tokens."""

import trio

from chat.rooms import effects as e
from chat.rooms.rules import effects as rx
from tests.store.build import ANN, BOB, DEN, EPOCH, LOBBY, do, member, rotate, say, seqs, session

# ---------------------------------------------------------------- readers


async def test_credentials(store):
    found = await store.credentials("ann")
    assert (found.account, found.password_hash) == (ANN, "hash of ann")
    assert await store.credentials("nobody") is None


async def test_history_pages(store):
    store.writer.commit([say(str(n)) for n in range(1, 11)])

    async def page(after, before, limit, max_bytes=10**6):
        found = await store.history(LOBBY, after=after, before=before, limit=limit, max_bytes=max_bytes)
        assert (found.epoch, found.last_seq) == (EPOCH, 10)
        return [row.seq for row in found.rows], found.more

    assert await page(None, None, 3) == ([8, 9, 10], True)
    assert await page(None, 8, 3) == ([5, 6, 7], True)
    assert await page(None, 4, 3) == ([1, 2, 3], False)
    assert await page(None, 1, 3) == ([], False)
    assert await page(0, None, 3) == ([1, 2, 3], True)
    assert await page(7, None, 3) == ([8, 9, 10], False)
    assert await page(2, 5, 9) == ([3, 4], False)
    assert await page(2, 6, 2) == ([3, 4], True)
    assert await page(10, None, 3) == ([], False)
    assert await page(99, None, 3) == ([], False)


async def test_history_ends_early_at_its_bytes_but_never_empty(store):
    store.writer.commit([say("ü" * 50) for _ in range(10)])

    async def page(after, max_bytes):
        found = await store.history(LOBBY, after=after, before=None, limit=100, max_bytes=max_bytes)
        return [row.seq for row in found.rows], found.more

    assert await page(0, 350) == ([1, 2, 3], True)
    assert await page(None, 350) == ([8, 9, 10], True)
    assert await page(0, 1) == ([1], True)
    assert await page(None, 1) == ([10], True)
    assert await page(8, 200) == ([9, 10], False)


async def test_history_rows_are_complete(store):
    store.writer.commit([say("a", "c1"), say("b", reply_to=1, who=BOB)])
    page = await store.history(LOBBY, after=None, before=None, limit=9, max_bytes=10**6)
    assert [(r.seq, r.ts, r.kind, r.author, r.body, r.reply_to, r.cid) for r in page.rows] == [
        (1, 1_000_000, "message", ANN, "a", None, "c1"),
        (2, 1_000_000, "message", BOB, "b", 1, None),
    ]


async def test_tokens_rotate_and_old_ones_are_known_as_stale(store):
    async def states(*tokens):
        found = [await store.session_by_token(token) for token in tokens]
        return [row and row.token for row in found]

    store.writer.commit([do(session("s", ANN, b"t1"))])
    assert await states(b"t1", b"t2") == ["present", None]
    store.writer.commit([do(rotate("s", b"t2", presented=b"t1"))])
    assert await states(b"t1", b"t2") == ["previous", "present"]
    store.writer.commit([do(rotate("s", b"t3", presented=b"t1"))])  # the client never saw t2
    assert await states(b"t1", b"t2", b"t3") == ["previous", "stale", "present"]
    store.writer.commit([do(e.ForgetPreviousToken(session="s"))])
    assert await states(b"t1", b"t3") == ["stale", "present"]
    assert seqs(store.writer.commit([do(rotate("s", b"t4", presented=b"t1"))])) == ["unauthorized"]
    store.writer.commit([do(rotate("s", b"t4"))])
    assert await states(b"t3", b"t4") == ["previous", "present"]
    row = await store.session_by_token(b"t4")
    assert (row.session, row.account, row.generation, row.created_ms, row.seen_ms) == ("s", ANN, 4, 5, 6)
    assert (row.client, row.address, row.online) == ("test", "::2", True)
    store.writer.commit([do(e.DropSession(session="s"))])
    assert await states(b"t1", b"t3", b"t4") == [None, None, None]


async def test_tokens_that_are_asked_for_together(store):
    """After a restart: each gets its own, and who is unknown nobody's."""
    n = 150
    store.writer.commit([do(session(f"s{i}", ANN if i % 2 else BOB, b"\xfa%d" % i)) for i in range(n)])
    store.writer.commit([do(rotate(f"s{i}", b"\xfb%d" % i, presented=b"\xfa%d" % i)) for i in range(0, n, 3)])
    found = {}

    async def ask(token):
        found[token] = await store.session_by_token(token)

    async with trio.open_nursery() as nursery:
        for i in range(n):
            for token in (b"\xfa%d" % i, b"\xfb%d" % i, b"\xfa%d" % i):
                nursery.start_soon(ask, token)
    for i in range(n):
        old, new = found[b"\xfa%d" % i], found[b"\xfb%d" % i]
        assert (old.session, old.account, old.token) == (f"s{i}", ANN if i % 2 else BOB, "present" if i % 3 else "previous")
        assert new is None if i % 3 else (new.session, new.token) == (f"s{i}", "present")


async def test_a_session_that_ended_meanwhile_refuses_its_token_alone(store):
    outcomes = store.writer.commit([say("a"), do(rotate("gone", b"t"), conversations=True), say("b")])
    assert seqs(outcomes) == [[1], "unauthorized", [2]]


async def test_sessions_of_an_account(store):
    store.writer.commit([do(session(f"s{n}", who, b"%d" % n)) for n, who in enumerate([ANN, ANN, ANN, BOB], 1)])
    assert [row.session for row in await store.sessions(ANN)] == ["s1", "s2", "s3"]
    store.writer.commit([do(e.DropSessions(account=ANN, but="s2"))])
    assert [row.session for row in await store.sessions(ANN)] == ["s2"]
    assert await store.session_by_token(b"1") is None
    store.writer.commit([do(e.DropSessions(account=ANN))])
    assert await store.sessions(ANN) == []
    assert [row.session for row in await store.sessions(BOB)] == ["s4"]


async def test_expired_sessions_are_tidied(store, clock):
    expired = clock.now_ms - 1
    store.writer.commit([do(session(name, ANN, name.encode(), expires_ms=expired)) for name in ("s1", "s2")])
    store.writer.commit([do(session("s3", ANN, b"3"))])
    store.writer.commit([do(e.SessionOffline(session="s1"), e.SessionOffline(session="s3"))])
    assert store.writer.tidy(cids_before_ms=0, rows=100) is False
    assert [row.session for row in await store.sessions(ANN)] == ["s2", "s3"]


async def test_stale_tokens_do_not_grow_without_bound(store):
    store.writer.commit([do(session("s", ANN, b"0"))])
    store.writer.commit([do(rotate("s", str(n).encode())) for n in range(1, 400)])
    assert await store.session_by_token(b"0") is None
    assert (await store.session_by_token(b"397")).token == "stale"
    assert (await store.session_by_token(b"398")).token == "previous"


# ---------------------------------------------------------------- what a channel shows, and what was reported


async def test_what_a_member_may_read_begins_where_it_joined(store, clock):
    store.writer.commit([say("1"), say("2"), do(member(DEN, ANN))])
    assert await store.visible_from(DEN, ANN, None) == 1
    store.writer.commit([do(e.DropMember(room=LOBBY, account=BOB)), say("3"), do(member(LOBBY, BOB)), say("4")])
    assert [await store.visible_from(LOBBY, who, None) for who in (ANN, BOB, 999)] == [1, 4, 1]
    store.writer.commit([do(member(LOBBY, BOB, "moderator"))])
    assert await store.visible_from(LOBBY, BOB, None) == 4, "another role is no other joining"
    clock.now_ms += 1000
    store.writer.commit([say("5")])
    assert await store.visible_from(LOBBY, ANN, clock.now_ms) == 5, "nothing that is older"
    assert await store.visible_from(LOBBY, ANN, clock.now_ms + 1) == 6, "nothing at all"
    assert await store.visible_from(LOBBY, ANN, 0) == 1


async def test_reports_have_what_was_said_last(store):
    reports = [rx.PutReport(by=ANN, target=BOB, room=room, at_ms=7, reason="rude") for room in (LOBBY, DEN, None)]
    store.writer.commit([*(say(str(n)) for n in range(25)), do(*reports)])
    found = await store.reports(rooms=None, limit=10)
    assert [(row.room, row.by, row.target, row.at_ms, row.reason) for row in found] == [
        (room, ANN, BOB, 7, "rude") for room in (None, DEN, LOBBY)
    ]
    assert [(seq, author, text) for seq, _, author, text in found[-1].around] == [(n + 1, ANN, str(n)) for n in range(5, 25)]
    assert [row.room for row in await store.reports(rooms=[DEN], limit=10)] == [DEN]
    assert await store.reports(rooms=[], limit=10) == []
    store.writer.commit([do(rx.DropReport(report=found[0].report))])
    assert [row.room for row in await store.reports(rooms=None, limit=1)] == [DEN]
