"""The operator's decisions: what they change, in the state and in the store, and what is told to whom."""

import json
import sqlite3

import pytest

from chat.errors import ChatError
from chat.protocol import messages as m
from chat.protocol import names
from chat.rooms import decisions
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms.moderation import audit
from chat.rooms.moderation import operator as a
from chat.rooms.state import State
from chat.store import sqlite_audit
from tests.rooms.house import dump, of_type, open_house


@pytest.fixture
def house():
    with open_house() as house:
        house.root = house.owner()
        yield house
        assert dump(State.load(house.writer.load())) == dump(house.state)  # what was applied is what was stored
        assert audit.verify(sqlite_audit.chain(house.writer._db)).problem is None


def administer(house, decide):
    """As the daemon does it: decided in its turn. *Raises* what the shell is told."""
    told = []
    house.decide(None, it.Administration(decide=decide, done=told.append, failed=told.append))
    house.commit()
    (what,) = told
    if isinstance(what, ChatError):
        raise what
    return what


def rows(house, sql, *args):
    return house.writer._db.execute(sql, args).fetchall()


def add(house, name, role="member"):
    administer(house, lambda state, now_ms: a.add_user(state, names.user_name(name), "hash of secret", role, ("lobby",), now_ms))
    return house.state.find_account(name)


def person(state, name):
    return a.find_person(state, name)


def den(house, line, password_hash=None):
    house.do(decisions.create_room(house.state, house.account(line), names.channel_name("den"), password_hash, house.now_ms))


# ---------------------------------------------------------------- people


def test_a_user_is_added_and_is_where_everybody_is(house):
    bob = add(house, "Bob", "admin")
    assert (bob.role, house.state.room("lobby").members[bob.id]) == ("admin", "member")
    assert house.log_in("Bob").account == bob.id
    with pytest.raises(ChatError, match="taken"):
        add(house, "bob")
    with pytest.raises(ChatError, match="has its owner"):
        add(house, "eve", "owner")


def test_a_new_password_ends_every_session(house):
    line = house.register("bob")
    administer(house, lambda state, _: a.set_password(state, person(state, "bob"), "hash of other"))
    assert line.ended
    assert house.state.held == {house.root.session: house.root.account}
    assert rows(house, "SELECT password_hash FROM accounts WHERE name = 'bob'") == [("hash of other",)]


def test_who_is_suspended_has_no_session_and_keeps_everything_else(house):
    line = house.register("bob")
    administer(house, lambda state, now_ms: a.suspend(state, person(state, "bob"), "holiday", now_ms))
    assert line.ended
    bob = house.state.find_account("bob")
    assert bob.id in house.state.room("lobby").members
    assert of_type(house.root.take(), "banned", "left", "removed") == []
    with pytest.raises(ChatError, match="suspended"):
        house.log_in("bob")
    with pytest.raises(ChatError, match="already"):
        administer(house, lambda state, now_ms: a.suspend(state, person(state, "bob"), None, now_ms))
    house.load()  # and after a restart
    with pytest.raises(ChatError, match="suspended"):
        house.log_in("bob")
    administer(house, lambda state, _: a.unsuspend(state, person(state, "bob")))
    house.log_in("bob")
    with pytest.raises(ChatError, match="not suspended"):
        administer(house, lambda state, _: a.unsuspend(state, person(state, "bob")))


def test_roles_and_the_one_owner(house):
    bob = add(house, "bob")
    with pytest.raises(ChatError, match="owns the server"):
        administer(house, lambda state, _: a.set_role(state, person(state, "root"), "member"))
    administer(house, lambda state, _: a.set_role(state, person(state, "bob"), "owner"))
    assert (bob.role, house.state.find_account("root").role) == ("owner", "admin")
    administer(house, lambda state, _: a.set_role(state, person(state, "root"), "member"))
    assert [account.name for account in house.state.accounts.values() if account.role == "owner"] == ["bob"]


def test_the_log_says_that_it_was_the_shell(house):
    add(house, "bob")
    administer(house, lambda state, now_ms: a.suspend(state, person(state, "bob"), "holiday", now_ms))
    assert rows(house, "SELECT actor, action, reason FROM audit") == [(0, "user-add", None), (0, "user-suspend", "holiday")]


# ---------------------------------------------------------------- forgetting


@pytest.fixture
def bob(house):
    """Somebody who has left traces everywhere."""
    line = house.register("bob")
    house.say(line, "lobby", "bob was here")
    den(house, line)
    house.command(line, "topic a den", "den")
    house.ask(line, _message(line, to="root", text="a private word"))
    house.ask(line, _message(line, to="bob", text="a note to myself"))
    house.say(house.root, "lobby", "root was here")
    db = house.writer._db
    db.execute("INSERT INTO reports (by, target, at_ms, around) VALUES (?, 1, 0, '[]')", (line.account,))
    db.execute("INSERT INTO command_history VALUES (?, 1, 0, NULL, 'topic')", (line.account,))
    db.execute("INSERT INTO addresses VALUES (?, '192.0.2.1', 0, 0)", (line.account,))
    return line


def _message(line, **fields):
    return m.Send(id=9, cid=f"m{len(fields['text'])}", **fields)


def forget(house, *, keep_texts=False):
    def decide(state, now_ms):
        return a.forget(state, person(state, "bob"), keep_texts=keep_texts, now_ms=now_ms, password_hash="hash of nothing")

    administer(house, decide)
    steps = 0
    while house.writer.erase(rows=2):
        steps += 1
    return steps


def everything(house):
    """Every text in the database."""
    db: sqlite3.Connection = house.writer._db
    return "\n".join(db.iterdump())


def test_of_who_is_forgotten_nothing_is_left_but_the_places(house, bob):
    account = bob.account
    house.command(house.root, "set-user-perm bob moderator", "lobby")
    last = rows(house, "SELECT last_seq FROM conversations WHERE name = 'lobby'")
    steps = forget(house)
    assert steps > 2
    left = everything(house)
    for trace in ("bob", "was here'", "private word", "note to", "192.0.2.1"):
        assert trace not in left.replace("root was here", ""), trace
    assert bob.ended
    gone = house.state.accounts[account]
    assert (gone.forgotten, gone.rooms, gone.name.startswith("deleted-")) == (True, (), True)
    assert house.state.account("bob") is None
    house.register("bob")  # the name is free, and whoever takes it is somebody else
    (seqs,) = rows(house, "SELECT count(*), max(seq) FROM records JOIN conversations c ON c.id = conv WHERE c.name = 'lobby'")
    assert seqs[0] == seqs[1] >= last[0][0]


@pytest.mark.parametrize("keep_texts", [False, True])
def test_in_what_commands_said_the_name_is_replaced(house, bob, keep_texts):
    account, db = bob.account, house.writer._db
    house.command(house.root, "mute bob 10m", "lobby", cid="mute")
    for text in ("Root rolls 5, Bob rolls 4.", "bobby and bob-cat and x.bob", "(BOB)"):
        house.do([fx.Append(conv=house.state.room("lobby").id, kind="message", author=0, body=text)])
    for n, line in enumerate(("mute bob 10m", "broadcast Who saw bob?")):
        db.execute("INSERT INTO command_history VALUES (?, ?, 0, NULL, ?)", (house.root.account, n, line))
    house.say(house.root, "lobby", "root said bob")
    db.execute("INSERT INTO cids (account, cid, ts) VALUES (?, 'old', 0)", (account,))
    assert any(b"bob" in result for (result,) in rows(house, "SELECT result FROM cids WHERE result IS NOT NULL"))
    forget(house, keep_texts=keep_texts)
    name = house.state.accounts[account].name
    said = [body for (body,) in rows(house, "SELECT body FROM records WHERE author = 0 AND kind = 'message' ORDER BY seq")]
    assert said == [f"Root rolls 5, {name} rolls 4.", "bobby and bob-cat and x.bob", f"({name})"]
    assert {line for (line,) in rows(house, "SELECT line FROM command_history")} == {f"mute {name} 10m", f"broadcast Who saw {name}?"}
    results = [json.loads(result) for (result,) in rows(house, "SELECT result FROM cids WHERE result IS NOT NULL")]
    assert any(f"{name}" in result["text"] for result in results)
    left = everything(house).replace("bobby and bob-cat and x.bob", "").replace("root said bob", "").replace("bob was here", "")
    assert "bob" not in left.lower()  # what others wrote stays
    assert rows(house, "SELECT 1 FROM cids WHERE cid = 'old'") == []


def test_with_texts_kept_only_the_name_is_gone(house, bob):
    forget(house, keep_texts=True)
    texts = [body for (body,) in rows(house, "SELECT body FROM records WHERE kind = 'message' ORDER BY body")]
    assert texts == ["a private word", "bob was here", "root was here"]


def test_a_reason_about_the_forgotten_goes_and_the_chain_holds(house, bob):
    house.command(house.root, "ban bob (said something about carol)")
    house.command(house.root, "unban bob")
    forget(house)
    assert "carol" not in everything(house)
    verdict = audit.verify(sqlite_audit.chain(house.writer._db))
    assert (verdict.problem, verdict.erased > 0) == (None, True)


def test_what_the_forgotten_owned_has_an_owner(house, bob):
    carol = house.register("carol")
    house.do([fx.PutMember(room=house.state.room("den").id, account=carol.account, role="member", at_ms=1)])
    forget(house)
    assert house.state.room("den").owner == carol.account


def test_erasing_goes_on_after_a_restart_by_itself(house, bob):
    def decide(state, now_ms):
        return a.forget(state, person(state, "bob"), keep_texts=False, now_ms=now_ms, password_hash="hash of nothing")

    administer(house, decide)
    house.writer.erase(rows=1)
    assert "bob was here" in everything(house) or rows(house, "SELECT 1 FROM erasures")
    while house.writer.tidy(cids_before_ms=0, rows=2):
        pass
    assert "bob was here" not in everything(house)
    assert rows(house, "SELECT * FROM erasures") == []


def test_the_owner_cannot_be_forgotten_nor_anybody_twice(house, bob):
    with pytest.raises(ChatError, match="owns the server"):
        administer(house, lambda state, _: a.forget(state, person(state, "root"), keep_texts=False, now_ms=1, password_hash="x"))
    forget(house)
    gone = house.state.accounts[next(account for account in house.state.accounts if house.state.accounts[account].forgotten)]
    with pytest.raises(ChatError, match="was forgotten"):
        person(house.state, gone.name)
    with pytest.raises(ChatError):
        house.log_in(gone.name)


# ---------------------------------------------------------------- invites, channels


def test_an_invite_is_made_and_revoked(house):
    administer(house, lambda state, now_ms: a.put_invite("code", "member", 2, None, now_ms))
    house.register("bob", invite="code")
    administer(house, lambda state, _: a.drop_invite(state, "code"))
    with pytest.raises(ChatError, match="not valid"):
        house.register("carol", invite="code")
    with pytest.raises(ChatError, match="no such invite"):
        administer(house, lambda state, _: a.drop_invite(state, "code"))


def test_a_channel_is_deleted_also_a_private_one(house):
    bob = house.register("bob")
    den(house, bob, "a hash")
    administer(house, lambda state, _: a.delete_room(state, a.find_room(state, "den"), ("lobby",)))
    assert of_type(bob.take(), "removed")[0]["conv"] == "#den"
    with pytest.raises(ChatError, match="default channel"):
        administer(house, lambda state, _: a.delete_room(state, a.find_room(state, "lobby"), ("lobby",)))


def test_the_server_says_something(house):
    house.root.take()
    administer(house, lambda state, _: a.say(a.find_room(state, "lobby"), "good morning"))
    (told,) = of_type(house.root.take(), "message")
    assert (told["from"], told["text"], told["conv"]) == ("server", "good morning", "#lobby")


def test_the_retention_is_stored(house):
    room = house.state.room("lobby")
    administer(house, lambda state, _: a.set_retention(room, 1000, None))
    administer(house, lambda state, _: a.set_retention(None, 5000, 7))
    assert rows(house, "SELECT retain_ms, retain_bytes FROM conversations WHERE name = 'lobby'") == [(1000, None)]
    assert rows(house, "SELECT value FROM settings") == [('{"keep_ms": 5000, "keep_bytes": 7}',)]
    administer(house, lambda state, _: a.set_retention(None, None, None))
    assert rows(house, "SELECT value FROM settings") == []


def test_the_operator_adds_people_to_a_server_that_is_locked_down(house):
    house.command(house.root, "lockdown accounts")
    assert house.state.book.lockdown == "accounts"
    assert add(house, "cora").name == "cora"
