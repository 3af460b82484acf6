import pytest

from chat.accounts import token_hash
from chat.errors import ChatError
from chat.protocol import messages as m
from chat.protocol import names
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms.moderation import operator as administration
from chat.store import sqlite_read
from tests.rooms.house import Line, open_house


@pytest.fixture
def house():
    with open_house(registration="invite") as house:
        invite = fx.PutInvite(code="guests", role="member", uses_left=None, expires_ms=None, by=0, at_ms=0)
        house.do([invite])
        yield house


def registration(name, invite="guests", id=1):
    return it.Registration(id=id, name=names.user_name(name), password_hash="x", color="#ff0000", invite=invite)


def login(house, line, account, renewed=None):
    house.decide(line, it.LoginVerified(id=5, account=account, renewed_hash=renewed))
    house.commit()
    return line.take()


def test_a_session_says_all_that_a_client_needs(house):
    line = Line()
    (answer,) = house.ask(line, registration("Ann"))
    room = house.state.room("lobby")
    assert answer == {
        "type": "session",
        "id": 1,
        "user": "Ann",
        "session": line.session,
        "resume_token": line.token,
        "heads": {"#lobby": [room.epoch, 0]},
        "channels": [{"channel": "lobby", "topic": "", "role": "owner"}],
    }
    assert line.account == house.state.account("ann").id
    assert house.state.held == {line.session: line.account}
    assert len(line.token) >= 43, "256 bits"


def test_two_register_one_name_at_once(house):
    one, two = Line(), Line()
    house.decide(one, registration("ann"))
    house.decide(two, registration("ANN"))
    house.commit()
    assert one.refused is None
    assert two.refused.code == "name_taken"
    assert len(house.state.accounts) == 1
    assert (two.account, two.session) == (0, "")


def test_a_refused_registration_leaves_nothing(house):
    line = Line()
    assert house.ask(line, registration("ann", invite="wrong")) == []
    assert line.refused.code == "forbidden"
    assert not house.state.accounts
    assert not house.desk.sessions


def test_messages_at_the_moment_of_the_login_are_in_the_heads_or_live(house):
    ann = house.register("ann", invite="guests")
    line = Line()
    house.decide(ann, m.Send(id=1, cid="a", channel="lobby", text="before"))
    house.decide(line, it.LoginVerified(id=2, account=ann.account))
    house.decide(ann, m.Send(id=3, cid="b", channel="lobby", text="after"))
    house.commit()
    session, notice = line.take()
    assert session["heads"]["#lobby"][1] == 1
    assert (notice["text"], notice["seq"]) == ("after", 2)


def test_a_renewed_hash_is_stored_with_the_login(house):
    ann = house.register("ann", invite="guests")
    login(house, Line(), ann.account, renewed="newer")
    assert sqlite_read.credentials(house.writer._db, "ann").password_hash == "newer"


def test_sessions_are_independent(house):
    ann = house.register("ann", invite="guests")
    phone = Line()
    login(house, phone, ann.account)
    assert ann.session != phone.session
    house.ask(phone, m.Logout(id=1))
    assert phone.ended
    assert not ann.ended
    assert house.state.held == {ann.session: ann.account}


def test_an_old_token_that_comes_again_ends_the_session(house):
    ann = house.register("ann", invite="guests")
    stranger = Line()
    house.ask(stranger, it.TokenReused(account=ann.account, session=ann.session))
    assert ann.take() == [{"type": "closing", "code": "unauthorized"}]
    assert not house.state.held
    assert not house.writer.load().sessions


def test_a_banned_account_gets_no_session(house):
    ann = house.register("ann", invite="guests")
    ban = fx.PutBan(account=ann.account, by=0, at_ms=0, until_ms=None, reason="rude")
    house.do([ban])
    line = Line()
    for item in (it.LoginVerified(id=1, account=ann.account), it.ResumeVerified(id=1, account=ann.account, session="s", token_hash=b"")):
        assert house.ask(line, item) == []
        assert isinstance(line.refused, ChatError)
        assert (line.refused.code, "rude" in line.refused.message) == ("forbidden", True)


def test_a_login_whose_commit_fails_is_told_so(house):
    ann = house.register("ann", invite="guests")
    line = Line()
    house.decide(line, it.LoginVerified(id=1, account=ann.account))
    (action,) = house.desk.actions
    house.desk.actions = []
    house.router.route([fx.Outcome(action=action, error=ChatError("storage_unavailable", "no"))])
    assert line.refused.code == "storage_unavailable"
    assert (line.account, line.session) == (0, "")
    assert set(house.desk.sessions) == {ann.session}


def test_a_resume_whose_commit_fails_leaves_the_session_to_the_next_one(house):
    ann, line = house.register("ann", invite="guests"), Line()
    house.decide(line, it.ResumeVerified(id=1, account=ann.account, session=ann.session, token_hash=b"x"))
    (action,) = house.desk.actions
    house.desk.actions = []
    house.router.route([fx.Outcome(action=action, error=ChatError("storage_unavailable", "no"))])
    assert line.refused.code == "storage_unavailable"
    assert ann.take()[-1]["code"] == "storage_unavailable"
    assert ann.ended, "it was fenced when the resume was decided"
    session = house.desk.sessions[ann.session]
    assert (session.link, session.gone_at) == (None, house.now)


def test_a_password_change_closes_the_others(house):
    ann, phone = house.register("ann", invite="guests"), Line()
    login(house, phone, ann.account)
    assert house.ask(ann, it.PasswordVerified(id=1, password_hash="new"))[0]["type"] == "ok"
    assert phone.take() == [{"type": "closing", "code": "unauthorized"}]
    assert not ann.ended
    assert list(house.desk.sessions) == [ann.session]


def test_a_password_that_is_changed_while_the_old_one_is_checked_lets_nobody_in(house):
    ann = house.register("ann", invite="guests")
    guest, stranger = Line(), Line()
    house.decide(ann, it.PasswordVerified(id=1, password_hash="new"))
    old = it.LoginVerified(id=2, account=ann.account, password_hash="hash of secret", renewed_hash="hash of secret, renewed")
    house.decide(stranger, old)
    house.commit()
    assert (stranger.refused.code, stranger.session) == ("busy", ""), "who comes again has it checked anew"
    assert house.writer.load().sessions[0].session == ann.session
    house.load()
    house.decide(guest, it.LoginVerified(id=3, account=ann.account, password_hash="new", renewed_hash="new, renewed"))
    house.commit()
    assert guest.session in house.state.held
    assert sqlite_read.credentials(house.writer._db, "ann").password_hash == "new, renewed"


def resumption(house, line):
    return it.ResumeVerified(id=1, account=line.account, session=line.session, token_hash=token_hash(line.token))


def test_who_logs_in_while_all_sessions_end_has_the_new_one(house):
    ann, new = house.register("ann", invite="guests"), Line()
    house.decide(ann, m.Logout(id=1, everywhere=True))
    house.decide(new, it.LoginVerified(id=2, account=ann.account))
    house.commit()
    assert (ann.ended, new.ended) == (True, False)
    assert list(house.desk.sessions) == list(house.state.held) == [new.session]
    house.manager.gone(new)
    house.tick(91)
    assert (house.state.held, house.state.online) == ({}, {})


@pytest.mark.parametrize("in_one_batch", [True, False])
@pytest.mark.parametrize("offline", [True, False])
def test_who_resumes_a_session_that_ends_is_not_online_for_ever(house, in_one_batch, offline):
    ann, back = house.register("ann", invite="guests"), Line()
    phone = house.log_in("ann")
    if offline:
        house.manager.gone(ann)
        house.tick(91)
    house.decide(phone, it.SessionFound(id=1, session=ann.session))
    if not in_one_batch:
        later, house.desk.actions = house.desk.actions, []
    house.decide(back, resumption(house, ann))
    if not in_one_batch:
        after, house.desk.actions = house.desk.actions, later
        house.commit()
        house.desk.actions = after
    house.commit()
    assert back.refused.code == "unauthorized"
    house.manager.gone(back)
    house.manager.gone(phone)
    house.tick(91)
    assert (house.state.held, house.state.online, house.desk.sessions) == ({}, {}, {})


def test_of_who_was_forgotten_no_command_is_noted_and_nothing_said_to_them_is_kept(house):
    ann = house.register("ann", invite="guests")
    house.command(ann, "user-count")
    state, who = house.state, house.account(ann)
    house.do(administration.forget(state, who, keep_texts=False, now_ms=house.now_ms, password_hash=""))
    house.tick()
    bob = house.register("bob", invite="guests")
    (answer,) = house.ask(bob, m.Send(id=1, cid="c", to=who.name, text="still there?"))
    assert (answer["type"], answer["code"]) == ("error", "not_found"), "it is nobody's account"
    assert house.writer._db.execute("SELECT count(*) FROM command_history").fetchone() == (0,)


def test_a_bug_in_what_the_shell_decides_is_told_to_the_shell(house):
    told = []
    bug = it.Administration(decide=lambda state, now_ms: [][0], done=told.append, failed=told.append)
    house.manager._take((None, [bug]))
    house.commit()
    assert [error.code for error in told] == ["internal_error"]
