"""What any store does, run on every implementation."""

import pytest

from chat.errors import ChatError
from chat.rooms import effects as e
from chat.rooms.effects import Append, Pair
from chat.store.base import CommitFailed
from tests.store.build import (
    ANN,
    BOB,
    CAT,
    DEN,
    EPOCH,
    LOBBY,
    OWNER,
    account,
    do,
    member,
    refused,
    room,
    say,
    seqs,
    session,
)


async def texts(store, conv, **more):
    page = await store.history(conv, **{"after": 0, "before": None, "limit": 500, "max_bytes": 10**9, **more})
    return [row.body for row in page.rows]


# ---------------------------------------------------------------- places


async def test_seqs_begin_at_one_and_have_no_gap(store):
    first = store.writer.commit([say("a"), say("b", conv=DEN), say("c")])
    second = store.writer.commit([say("d"), say("e", conv=DEN)])
    assert seqs(first) == [[1], [1], [2]]
    assert seqs(second) == [[3], [2]]
    assert await texts(store, LOBBY) == ["a", "c", "d"]


async def test_a_place_says_where(store):
    (outcome,) = store.writer.commit([say("a", "c1")])
    (placed,) = outcome.placed
    assert (placed.conv, placed.epoch, placed.seq, placed.ts, placed.cid) == (LOBBY, EPOCH, 1, 1_000_000, "c1")
    assert placed.append is outcome.action.effects[0]


async def test_time_never_goes_back_in_a_conversation(store, clock):
    store.writer.commit([say("a"), say("x", conv=DEN)])
    clock.now_ms -= 500
    later, elsewhere = store.writer.commit([say("b"), say("y", conv=Pair.of(ANN, BOB))])
    assert (later.placed[0].ts, elsewhere.placed[0].ts) == (1_000_000, 999_500)
    clock.now_ms += 501
    assert store.writer.commit([say("c")])[0].placed[0].ts == 1_000_001


async def test_seqs_and_cids_outlive_the_process(opened, store):
    store.writer.commit([say("a", "c1")])
    again = await opened()
    assert seqs(again.writer.commit([say("a", "c1"), say("b", "c2")])) == ["dup", [2]]


async def test_a_batch_larger_than_any_statement(store):
    outcomes = store.writer.commit([say(str(n), f"c{n}", conv=(LOBBY, DEN)[n % 2]) for n in range(3000)])
    assert [outcome.placed[0].seq for outcome in outcomes] == [n // 2 + 1 for n in range(3000)]
    assert await texts(store, DEN, after=1490) == [str(n) for n in range(2981, 3000, 2)]
    assert set(seqs(store.writer.commit([say(str(n), f"c{n}", conv=(LOBBY, DEN)[n % 2]) for n in range(3000)]))) == {"dup"}


async def test_a_text_for_a_conversation_that_is_not_there_costs_itself_only(store):
    assert seqs(store.writer.commit([say("a"), say("b", conv=999), say("c")])) == [[1], "not_found", [2]]


async def test_everything_survives_as_it_was_written(store):
    odd = "é ☃ 👩‍👩‍👧 \u2028 \ufffe '\"\\ \t\n %s ? NULL"
    store.writer.commit([say(odd), do(Append(conv=LOBBY, kind="left", author=0, body={"user": ANN, "by": None, "reason": odd}))])
    page = await store.history(LOBBY, after=0, before=None, limit=10, max_bytes=10**6)
    assert [row.body for row in page.rows] == [odd, {"user": ANN, "by": None, "reason": odd}]
    assert [(row.kind, row.author) for row in page.rows] == [("message", ANN), ("left", 0)]


# ---------------------------------------------------------------- all or nothing


async def test_reply_to_must_be_a_seq_of_the_conversation(store):
    outcomes = store.writer.commit(
        [say("a", reply_to=1), say("b"), say("c", "c1", reply_to=1), say("d", "c2", reply_to=3), say("e", conv=DEN, reply_to=1)]
    )
    assert seqs(outcomes) == ["bad_request", [1], [2], "bad_request", "bad_request"]
    assert seqs(store.writer.commit([say("d", "c2")])) == [[3]]  # the cid was not used up


async def test_of_an_action_everything_is_stored_or_nothing(store):
    action = do(
        e.SetTopic(room=LOBBY, text="new"),
        Append(conv=LOBBY, kind="topic", author=OWNER, body={"user": OWNER, "text": "new"}),
        Append(conv=LOBBY, kind="message", author=OWNER, body="x", reply_to=77),
        cid="c1",
        digest=b"d",
    )
    with pytest.raises(CommitFailed) as failed:
        store.writer.commit([say("a"), action, say("b")])
    assert failed.value.definite
    assert failed.value.one_row
    assert await texts(store, LOBBY) == []
    outcomes = store.writer.commit_one_by_one([say("a", generation=1), action, say("b", generation=1)])
    assert seqs(outcomes) == [[1], "bad_request", [2]]
    assert store.writer.load().rooms[0].topic == ""
    assert await store.known_cid(OWNER, "c1") is None


async def test_one_bad_row_does_not_fail_its_neighbours(store):
    def actions():
        return [
            say("a", "c1", generation=1),
            do(account(55, "ann")),
            say("b", "c2", generation=1),
            say("\ud800", generation=1),
            say("c", "c4", generation=1),
        ]

    with pytest.raises(CommitFailed) as failed:
        store.writer.commit(actions())
    assert failed.value.one_row
    outcomes = store.writer.commit_one_by_one(actions())
    assert seqs(outcomes) == [[1], "name_taken", [2], "internal_error", [3]]
    assert await texts(store, LOBBY) == ["a", "b", "c"]
    assert seqs(store.writer.commit(actions()[:1])) == ["dup"]


async def test_an_action_that_fell_leaves_no_trace_in_what_comes_after_it(store):
    half = do(Append(conv=LOBBY, kind="message", author=ANN, body="x"), e.SetTopic(room=999, text="t"), who=ANN)
    unwritable = say("?", "c1", generation=1)
    unwritable.effects[0].body = "\ud800"
    look = do(who=ANN, conversations=True)
    sound = say("?", "c1", generation=1), say("b", generation=1)
    outcomes = store.writer.commit_one_by_one([half, say("y", conv=DEN, generation=1), look, unwritable, *sound])
    assert seqs(outcomes) == ["not_found", [1], [], "internal_error", [1], [2]]
    assert listed(outcomes[2])[LOBBY][1] == 0
    assert await texts(store, LOBBY) == ["?", "b"]


async def test_what_was_decided_after_an_action_that_fell_is_refused(store):
    outcomes = store.writer.commit_one_by_one(
        [
            do(account(55, "ann"), generation=4),
            say("b", generation=4),
            do(e.Tell(account=None, message=None), generation=4),
            say("c", generation=5),
        ]
    )
    assert seqs(outcomes) == ["name_taken", "storage_unavailable", [], [1]]


# ---------------------------------------------------------------- cids


async def test_a_retry_gets_the_first_place_and_stores_nothing(store):
    (first,) = store.writer.commit([say("a", "c1")])
    (second,) = store.writer.commit([say("a", "c1")])
    assert second.dup == (LOBBY, EPOCH, 1, first.placed[0].ts)
    assert second.placed == []
    assert await texts(store, LOBBY) == ["a"]


async def test_a_retry_within_the_batch(store):
    outcomes = store.writer.commit([say("a", "c1"), say("a", "c1"), say("b", "c1"), say("a", "c1", who=BOB)])
    assert seqs(outcomes) == [[1], "dup", "cid_conflict", [2]]
    assert outcomes[1].dup == (LOBBY, EPOCH, 1, 1_000_000)


async def test_other_content_is_a_conflict_and_leaves_the_first_alone(store):
    store.writer.commit([say("a", "c1")])
    assert seqs(store.writer.commit([say("b", "c1"), say("a", "c1", conv=DEN), say("a", "c1")])) == ["cid_conflict", "cid_conflict", "dup"]
    assert await texts(store, LOBBY) == ["a"]


async def test_a_refusal_looks_its_cid_up_and_stores_nothing(store):
    outcomes = store.writer.commit([refused("c1", "a"), say("a", "c1"), refused("c1", "a"), refused("c1", "b"), refused(None)])
    assert seqs(outcomes) == ["rate_limited", [1], "dup", "cid_conflict", "rate_limited"]
    assert seqs(store.writer.commit([refused("c1", "a"), refused("c2", "a")])) == ["dup", "rate_limited"]
    assert outcomes[0].error is outcomes[0].action.refusal


async def test_a_command_keeps_its_result(store):
    command = do(e.SetTopic(room=LOBBY, text="t"), cid="c1", digest=b"d", result=b'{"text":"done"}')
    retry = do(cid="c1", digest=b"d", result=b'{"text":"again"}')
    outcomes = store.writer.commit([command, retry])
    assert seqs(outcomes) == [[], "dup"]
    assert outcomes[1].dup == b'{"text":"done"}'
    assert store.writer.commit([retry])[0].dup == b'{"text":"done"}'
    known = await store.known_cid(OWNER, "c1")
    assert (known.digest, known.dup) == (b"d", b'{"text":"done"}')
    assert await store.known_cid(ANN, "c1") is None


async def test_a_command_that_also_says_something_is_answered_with_its_result(store):
    command = do(Append(conv=LOBBY, kind="topic", author=OWNER, body={"text": "t"}), cid="c1", digest=b"d", result=b"r")
    first, second = store.writer.commit([command, command])
    assert first.placed[0].cid is None  # a cid belongs to what its author wrote
    assert second.dup == b"r"


async def test_after_a_dropped_decision_its_generation_is_refused(store):
    ban = do(e.PutBan(account=ANN, by=OWNER, at_ms=1, until_ms=None, reason=None), cid="c1", digest=b"d", result=b"r")
    store.writer.commit([ban, do(e.DropBan(account=ANN))])
    retry = do(*ban.effects, cid="c1", digest=b"d", result=b"r", generation=3)
    outcomes = store.writer.commit(
        [retry, say("decided after it", generation=3), refused("c9", generation=3), say("on new state", generation=4)]
    )
    assert seqs(outcomes) == ["dup", "storage_unavailable", "rate_limited", [1]]
    assert store.writer.load().bans == []


async def test_old_cids_are_tidied_in_steps(store, clock):
    store.writer.commit([say(str(n), f"old{n}") for n in range(25)])
    clock.now_ms += 1000
    store.writer.commit([say(str(n), f"new{n}", who=BOB) for n in range(25)])
    steps = 0
    while store.writer.tidy(cids_before_ms=clock.now_ms - 500, rows=10):
        steps += 1
    assert 4 <= steps <= 6
    assert await store.known_cid(ANN, "old3") is None
    assert await store.known_cid(BOB, "new24") is not None
    assert len(await texts(store, LOBBY)) == 50


# ---------------------------------------------------------------- private conversations


async def test_a_private_conversation_is_made_by_its_first_text(store):
    assert await store.pair(ANN, BOB) is None
    a, b, notes = store.writer.commit(
        [say("hi", conv=Pair.of(ANN, BOB)), say("ho", who=BOB, conv=Pair.of(BOB, ANN)), say("note", conv=Pair.of(ANN, ANN))]
    )
    assert (a.placed[0].conv, a.placed[0].epoch) == (b.placed[0].conv, b.placed[0].epoch)
    assert a.placed[0].conv != notes.placed[0].conv
    assert (a.placed[0].seq, b.placed[0].seq, notes.placed[0].seq) == (1, 2, 1)
    assert store.writer.commit([say("ha", conv=Pair.of(ANN, BOB))])[0].placed[0].seq == 3
    found = await store.pair(ANN, BOB)
    assert (found.conv, found.last_seq, found.role, found.peer, found.read_seq) == (a.placed[0].conv, 3, "member", BOB, 0)


async def test_a_text_that_is_refused_makes_no_private_conversation(store):
    pair = Pair.of(ANN, BOB)
    outcomes = store.writer.commit([say("hi", "c1", conv=pair, reply_to=1), refused("c2", conv=pair), say("?", conv=pair, reply_to=1)])
    assert seqs(outcomes) == ["bad_request", "rate_limited", "bad_request"]
    assert await store.pair(ANN, BOB) is None
    outcomes = store.writer.commit([say("hi", conv=Pair.of(ANN, BOB)), say("ho", conv=Pair.of(ANN, BOB), reply_to=1)])
    assert seqs(outcomes) == [[1], [2]]


# ---------------------------------------------------------------- conversations of an account, at a place


def listed(outcome):
    return {each.conv: (each.role, each.last_seq, each.peer, each.read_seq) for each in outcome.conversations}


async def test_conversations_as_they_stand_at_this_place(store):
    store.writer.commit([say("a")])
    look = do(who=OWNER, conversations=True)
    outcomes = store.writer.commit(
        [
            say("b"),
            look,
            say("c"),
            do(room(103, "new"), member(103, OWNER, "moderator"), conversations=True),
            do(e.DropMember(room=LOBBY, account=OWNER)),
            say("note", who=OWNER, conv=Pair.of(OWNER, OWNER)),
            say("hi", who=OWNER, conv=Pair.of(OWNER, ANN)),
            say("d"),
            look,
        ]
    )
    den = ("owner", 0, None, 0)
    assert listed(outcomes[1]) == {LOBBY: ("member", 2, None, 0), DEN: den}
    assert listed(outcomes[3]) == {LOBBY: ("member", 3, None, 0), DEN: den, 103: ("moderator", 0, None, 0)}
    assert set(listed(outcomes[8]).values()) == {den, ("moderator", 0, None, 0), ("member", 1, OWNER, 0), ("member", 1, ANN, 0)}
    (seen_by_ann,) = store.writer.commit([do(who=ANN, conversations=True)])
    assert ("member", 1, OWNER, 0) in listed(seen_by_ann).values()
    assert listed(seen_by_ann)[LOBBY] == ("member", 4, None, 0)


async def test_a_refused_action_lists_nothing(store):
    outcomes = store.writer.commit([refused(None, conversations=True), do(who=ANN, conversations=True)])
    assert outcomes[0].conversations is None
    assert outcomes[1].conversations is not None


async def test_read_markers_move_forward_only_and_not_past_the_end(store):
    def mark(seq):
        return do(e.SetReadMarker(conv=LOBBY, account=ANN, seq=seq), who=ANN, conversations=True)

    nowhere = do(e.SetReadMarker(conv=999, account=ANN, seq=1))
    outcomes = store.writer.commit([say("a"), say("b"), mark(2), mark(1), mark(99), say("c"), nowhere])
    assert [listed(outcome)[LOBBY][3] for outcome in outcomes[2:5]] == [2, 2, 2]
    assert listed(store.writer.commit([mark(99)])[0])[LOBBY][3] == 3
    assert listed(store.writer.commit([do(who=BOB, conversations=True)])[0])[LOBBY][3] == 0


# ---------------------------------------------------------------- what decisions rest on


async def test_a_snapshot_has_everything(opened, store):
    store.writer.commit(
        [
            do(
                e.CreateRoom(
                    room=103, name="Geheim", canonical="geheim", skeleton="geheirn", epoch="Z" * 8, private=True, password_hash="h", at_ms=9
                ),
                member(103, CAT, "owner"),
                member(103, ANN),
                member(103, BOB),
            ),
            do(member(103, BOB, "moderator"), e.DropMember(room=103, account=ANN), e.SetTopic(room=103, text="tee")),
            do(member(103, ANN)),
            do(e.SetColor(account=ANN, color="#aabbcc"), e.SetServerRole(account=ANN, role="admin")),
            do(e.SetPassword(account=ANN, password_hash="new")),
            do(e.PutBan(account=BOB, by=OWNER, at_ms=7, until_ms=99, reason="spam")),
            do(e.PutInvite(code="x", role="owner", uses_left=2, expires_ms=None, by=0, at_ms=1)),
            do(e.PutInvite(code="y", role="member", uses_left=None, expires_ms=5, by=OWNER, at_ms=1)),
            do(e.UseInvite(code="x"), e.UseInvite(code="y")),
            do(e.SetCommandEnabled(name="tell", enabled=False, by=OWNER), e.SetCommandEnabled(name="ban", enabled=False, by=OWNER)),
            do(e.SetCommandEnabled(name="ban", enabled=True, by=OWNER)),
            do(session("s1", ANN, b"t1"), session("s2", ANN, b"t2")),
            do(e.SessionOffline(session="s2")),
            say("x", conv=103),
            do(Append(conv=Pair.of(ANN, BOB), kind="message", author=ANN, body="no room")),
        ]
    )
    snapshot = (await opened()).writer.load()
    ann = next(row for row in snapshot.accounts if row.account == ANN)
    assert (ann.name, ann.canonical, ann.skeleton, ann.color, ann.role, ann.at_ms) == ("ann", "ann", "ann", "#aabbcc", "admin", 1)
    assert len(snapshot.accounts) == 4
    rooms = {row.room: row for row in snapshot.rooms}
    assert rooms.keys() == {LOBBY, DEN, 103}
    secret = rooms[103]
    assert (secret.name, secret.canonical, secret.skeleton, secret.epoch) == ("Geheim", "geheim", "geheirn", "Z" * 8)
    assert (secret.last_seq, secret.topic, secret.private, secret.password_hash) == (1, "tee", True, "h")
    assert list(secret.members.items()) == [(CAT, "owner"), (BOB, "moderator"), (ANN, "member")]  # in the order of joining
    assert rooms[LOBBY].private is False
    (ban,) = snapshot.bans
    assert (ban.account, ban.by, ban.at_ms, ban.until_ms, ban.reason) == (BOB, OWNER, 7, 99, "spam")
    assert {(row.code, row.role, row.uses_left, row.expires_ms, row.by) for row in snapshot.invites} == {
        ("x", "owner", 1, None, 0),
        ("y", "member", None, 5, OWNER),
    }
    assert snapshot.disabled_commands == ["tell"]
    assert [(row.session, row.account, row.online, row.token) for row in snapshot.sessions] == [("s1", ANN, True, "")]


async def test_an_invite_ends_with_its_last_use(store):
    store.writer.commit([do(e.PutInvite(code="x", role="member", uses_left=1, expires_ms=None, by=0, at_ms=1))])
    store.writer.commit([do(e.UseInvite(code="x"))])
    assert store.writer.load().invites == []
    assert seqs(store.writer.commit_one_by_one([do(account(55, "late"), e.UseInvite(code="x"))])) == ["forbidden"]
    assert len(store.writer.load().accounts) == 4


async def test_a_deleted_room_is_gone_and_its_cids_stay(store):
    store.writer.commit([say("a", "c1"), do(e.SetReadMarker(conv=LOBBY, account=ANN, seq=1))])
    outcomes = store.writer.commit(
        [say("b", "c2"), do(e.DeleteRoom(room=LOBBY)), say("c", "c3"), say("b", "c2"), do(who=ANN, conversations=True)]
    )
    assert seqs(outcomes) == [[2], [], "not_found", "dup", []]
    assert listed(outcomes[4]) == {}
    with pytest.raises(ChatError) as absent:
        await texts(store, LOBBY)
    assert absent.value.code == "not_found"
    assert seqs(store.writer.commit([say("a", "c1")])) == ["dup"]
    again = store.writer.commit([do(room(LOBBY, "lobby", epoch="n" * 8)), say("x", "c9")])
    assert seqs(again) == [[], [1]]
    assert again[1].placed[0].epoch == "n" * 8
    assert await texts(store, LOBBY) == ["x"]


async def test_a_large_room_is_deleted_in_steps(store):
    store.writer.commit([say(str(n), conv=DEN) for n in range(4500)])
    store.writer.commit([do(e.DeleteRoom(room=DEN))])
    with pytest.raises(ChatError):
        await texts(store, DEN)
    while store.writer.tidy(cids_before_ms=0, rows=1000):
        pass
    store.writer.commit([do(room(DEN, "den", epoch="n" * 8))])
    assert await texts(store, DEN) == []


async def test_a_room_with_the_number_of_one_half_deleted_begins_empty(store):
    store.writer.commit([say(str(n), conv=DEN) for n in range(4500)])
    store.writer.commit([do(e.DeleteRoom(room=DEN)), do(room(DEN, "den", epoch="n" * 8)), say("first", conv=DEN)])
    while store.writer.tidy(cids_before_ms=0, rows=1000):
        pass
    assert await texts(store, DEN) == ["first"]


async def test_a_person_is_forgotten_in_the_transaction_of_its_notes_to_itself(store):
    notes = Pair.of(ANN, ANN)
    forget = e.ForgetAccount(account=ANN, name="nobody", canonical="nobody", skeleton="nobody", password_hash="", keep_texts=False, at_ms=9)
    store.writer.commit([say("known", "c0", conv=notes)])
    outcomes = store.writer.commit([say("a", "c1"), say("a note", "c2", conv=notes), do(forget), say("b", "c3", who=BOB)])
    assert seqs(outcomes) == [[1], [2], [], [2]]
    assert await store.pair(ANN, ANN) is None
    assert seqs(store.writer.commit([say("c", "c4", who=BOB)])) == [[3]]
