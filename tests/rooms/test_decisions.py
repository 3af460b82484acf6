"""Decisions one by one, where the model of test_state says too little: invites, names, large channels, what is told."""

import pytest

from chat.errors import ChatError
from chat.protocol import names
from chat.rooms import decisions as d
from chat.rooms import effects as fx
from chat.rooms.policy import SMALL_ROOM
from chat.rooms.state import State
from tests.rooms.house import code_of


def apply(state, effects):
    for effect in effects:
        state.apply(effect)


def register(state, name, registration="open", invite=None, now_ms=0, channels=("lobby",)):
    account, effects = d.register(
        state,
        registration=registration,
        name=names.user_name(name),
        password_hash="x",
        color=None,
        invite=invite,
        default_channels=channels,
        now_ms=now_ms,
    )
    apply(state, effects)
    return state.accounts[account]


def invite(state, code, role="member", uses_left=None, expires_ms=None):
    state.apply(fx.PutInvite(code=code, role=role, uses_left=uses_left, expires_ms=expires_ms, by=0, at_ms=0))


def make(state, name, who=None, password=None):
    apply(state, d.create_room(state, who, names.channel_name(name), password, 0))
    return state.room(name)


def appends(effects):
    return [effect for effect in effects if type(effect) is fx.Append]


@pytest.fixture
def state():
    return State()


# ---------------------------------------------------------------- registration


def test_who_may_register(state):
    invite(state, "good")
    assert code_of(register, state, "a", "closed") == "forbidden"
    assert code_of(register, state, "a", "invite") == "forbidden"
    assert code_of(register, state, "a", "invite", "bad") == "forbidden"
    assert code_of(register, state, "a", "open", "bad") == "forbidden"
    assert register(state, "a", "open").role == "member"
    assert register(state, "b", "invite", "good").role == "member"
    invite(state, "own", role="owner", uses_left=1)
    assert code_of(register, state, "c", "closed", "good") == "forbidden"
    assert register(state, "c", "closed", "own").role == "owner", "or there would be nobody"


def test_an_invite_is_used_up_and_expires(state):
    invite(state, "twice", uses_left=2)
    invite(state, "short", expires_ms=1000)
    register(state, "a", "invite", "twice")
    register(state, "b", "invite", "twice")
    assert code_of(register, state, "c", "invite", "twice") == "forbidden"
    assert code_of(register, state, "c", "invite", "short", now_ms=1000) == "forbidden"
    register(state, "c", "invite", "short", now_ms=999)


def test_a_default_channel_is_the_servers_owners_and_until_then_of_who_came_first(state):
    make(state, "lobby")
    first, second = register(state, "first"), register(state, "second")
    assert state.room("lobby").members == {first.id: "owner", second.id: "member"}
    invite(state, "own", role="owner", uses_left=1)
    owner = register(state, "owner", invite="own")
    assert owner.role == "owner"
    assert state.room("lobby").members == {first.id: "moderator", second.id: "member", owner.id: "owner"}
    assert code_of(register, state, "another", invite="own") == "forbidden"


@pytest.mark.parametrize("name", ["Ann", "ANN", "ann", "\u0430nn", "ann\u200b"])
def test_names_that_look_alike_are_taken(state, name):
    register(state, "ann")
    assert code_of(register, state, name) in ("name_taken", "bad_name")


def test_registration_joins_without_a_record(state):
    make(state, "lobby")
    _, effects = d.register(
        state,
        registration="open",
        name=names.user_name("a"),
        password_hash="x",
        color=None,
        invite=None,
        default_channels=("lobby", "absent"),
        now_ms=0,
    )
    assert [type(effect) for effect in effects] == [fx.CreateAccount, fx.PutMember]


# ---------------------------------------------------------------- channels


def test_finding(state):
    ann, bob = register(state, "Ann"), register(state, "bob")
    make(state, "Garden", ann)
    den = make(state, "den", ann, "x")
    for raw in ("Garden", "garden", "#GARDEN"):
        assert state.room(raw) is state.find_room(raw, bob.id) is state.room_for(raw, bob.id)
    for raw in ("ann", "@Ann", "ANN"):
        assert state.find_account(raw) is ann
    assert state.room_for("den", ann.id) is state.room_for("DEN", ann.id) is den
    assert state.room_for("den", bob.id) is state.room_for("DEN", bob.id) is None
    with pytest.raises(ChatError) as absent:
        state.find_room("ned", bob.id)
    with pytest.raises(ChatError) as hidden:
        state.find_room("den", bob.id)
    assert str(hidden.value) == str(absent.value).replace("ned", "den")
    for raw in ("", "#", "a b", "x" * 100_000, "\0"):
        assert state.room(raw) is None
        assert state.account(raw) is None
        with pytest.raises(ChatError) as caught:
            state.find_room(raw, bob.id)
        assert len(str(caught.value)) < 300
    assert [room.name for room in state.rooms_seen_by(bob.id)] == ["Garden"]
    assert state.name_of(ann.id) == "Ann"
    assert state.name_of(0) == state.name_of(None) == "server"


def crowd(state, room, n):
    for k in range(n):
        state.apply(
            fx.CreateAccount(
                account=k + 1, name=f"u{k}", canonical=f"u{k}", skeleton=f"u{k}", password_hash="x", color=None, role="member", at_ms=0
            )
        )
        state.apply(fx.PutMember(room=room.id, account=k + 1, role="owner" if k == 0 else "member", at_ms=0))


def test_joining_takes_a_seq_up_to_two_hundred_members(state):
    room = make(state, "big")
    crowd(state, room, SMALL_ROOM - 1)
    a, b = register(state, "a"), register(state, "b")
    effects = d.join(state, a, room, 0)
    assert len(appends(effects)) == 1
    apply(state, effects)
    assert len(room.members) == SMALL_ROOM
    effects = d.join(state, b, room, 0)
    assert appends(effects) == []
    apply(state, effects)
    assert appends(d.leave(state, b, room, 0)) == [], "what came without a record goes without one"
    apply(state, d.leave(state, b, room, 0))
    assert len(appends(d.leave(state, a, room, 0))) == 1
    assert d.join(state, a, room, 0) == []


def test_a_sole_owner_may_leave_and_the_next_to_come_owns(state):
    ann, bob = register(state, "ann"), register(state, "bob")
    room = make(state, "den", ann)
    apply(state, d.leave(state, ann, room, 0))
    assert room.owner is None
    apply(state, d.join(state, bob, room, 0))
    assert room.owner == bob.id
    apply(state, d.join(state, ann, room, 0))
    effects = d.leave(state, bob, room, 0)
    assert [effect.kind for effect in appends(effects)] == ["left", "role"], "who leaves is succeeded"
    apply(state, effects)
    assert room.members == {ann.id: "owner"}


def test_channels_of_before_that_nobody_owns_get_an_owner(state):
    first, admin, last = (register(state, name) for name in ("first", "admin", "last"))
    state.apply(fx.SetServerRole(account=admin.id, role="admin"))
    room, empty = make(state, "old"), make(state, "empty")
    for who in (first, admin, last):
        state.apply(fx.PutMember(room=room.id, account=who.id, role="member", at_ms=0))
    apply(state, d.appoint_owners(state, 0))
    assert room.members == {first.id: "member", admin.id: "owner", last.id: "member"}, "who ranks highest on the server"
    assert not empty.members
    assert d.appoint_owners(state, 0) == []


def test_succession_is_by_role_then_by_time(state):
    root = register(state, "root")
    state.apply(fx.SetServerRole(account=root.id, role="owner"))
    a, b, c = (register(state, name) for name in "abc")
    room = make(state, "den", a)
    for who in (b, c):
        apply(state, d.join(state, who, room, 0))
    apply(state, d.set_room_role(state, a, room, c, "moderator", 0))
    apply(state, d.ban(state, root, a, None, 0))
    assert room.owner == c.id
    apply(state, d.ban(state, root, c, None, 0))
    assert room.owner == b.id
    apply(state, d.ban(state, root, b, None, 0))
    assert room.members == {}


def test_a_ban_is_told_with_its_reason_and_ends_the_sessions(state):
    root = register(state, "root")
    state.apply(fx.SetServerRole(account=root.id, role="owner"))
    bad = register(state, "bad")
    room = make(state, "den", root)
    apply(state, d.join(state, bad, room, 0))
    effects = d.ban(state, root, bad, "rude", 5)
    assert appends(effects) == [
        fx.Append(conv=room.id, kind="banned", author=root.id, body={"user": bad.id, "by": root.id, "reason": "rude"})
    ]
    assert effects[-2:] == [fx.DropSessions(account=bad.id), fx.CloseSessions(account=bad.id, code="unauthorized")]
    assert [type(effect) for effect in effects].index(fx.DropMember) < [type(effect) for effect in effects].index(fx.Append)


def test_epochs_and_ids():
    epochs = {d.new_epoch() for _ in range(1000)}
    assert len(epochs) == 1000
    assert all(8 <= len(epoch) <= 32 and epoch.isascii() and epoch.isalnum() for epoch in epochs)
    ids = [d.new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(1 <= id < 2**53 for id in ids)
