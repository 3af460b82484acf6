"""The rules of who may say what when: each refusal by itself, and the two machines against each other."""

import itertools

import pytest
from hypothesis import Phase, event, find, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from chat.errors import LocalProtocolError, RemoteProtocolError
from chat.protocol import messages as m
from chat.protocol import states
from chat.protocol.codec import Unknown, encode
from chat.protocol.connection import Connection, Role, State
from chat.protocol.fields import evolve
from tests import strategies as gen

HELLO = m.Hello(protocol=1, client="test")
LOGIN = m.Login(id=1, username="ann", password="x")
REGISTER = m.Register(id=1, username="ann", password="x")
RESUME = m.Resume(id=1, token="t", cursors={})
SEND = m.Send(id=2, cid="c", text="hi", channel="lobby")
WELCOME = m.Welcome(protocol=1, server="chat", name="home", limits={}, prefix="//", registration="open")
SESSION = m.SessionOpened(id=1, user="ann", session="s", resume_token="t", heads={}, channels=[])
RESUMED = m.Resumed(id=1, user="ann", session="s", resume_token="t", heads={}, channels=[])
FAILED = m.Error(id=1, code="unauthorized", message="no")
MESSAGE = m.Message(conv="#a", epoch="abcdefgh", seq=1, ts=2, from_="ann", text="hi")
OPENERS = [LOGIN, REGISTER, RESUME]


def server(*steps):
    """A server's connection after *steps*: requests are received, notices sent."""
    return played(Connection(Role.SERVER), steps)


def client(*steps):
    return played(Connection(Role.CLIENT), steps)


def played(connection, steps):
    for message in steps:
        if (type(message) in m.REQUESTS.values()) == (connection.role is Role.CLIENT):
            connection.send(message)
        else:
            assert receive(connection, message) == message
    return connection


def receive(connection, message):
    (received,) = connection.receive([encode(message)])
    return received


def refused(connection, message, code):
    before = (connection.our_state, connection.their_state, connection.pending_id)
    error = receive(connection, message)
    assert isinstance(error, RemoteProtocolError), error
    assert (error.code, error.fatal) == (code, False)
    assert (connection.our_state, connection.their_state, connection.pending_id) == before
    return error


AFTER = {
    "start": [],
    "hello": [HELLO],
    "greeted": [HELLO, WELCOME],
    "opening": [HELLO, WELCOME, LOGIN],
    "resuming": [HELLO, WELCOME, RESUME],
    "open": [HELLO, WELCOME, LOGIN, SESSION],
    "resumed": [HELLO, WELCOME, RESUME, RESUMED],
    "failed": [HELLO, WELCOME, LOGIN, FAILED],
}
NEEDS_A_SESSION = [cls for cls in m.REQUESTS.values() if cls not in (m.Hello, m.Register, m.Login, m.Resume, m.Ping, m.Pong)]

# Some message of each class, where only the class matters. The error is nobody's: with the id of a login it would be its answer.
FIRST = settings(max_examples=1, phases=[Phase.generate], database=None)
SOME = {cls: find(gen.message(cls), lambda _: True, settings=FIRST) for cls in {*m.REQUESTS.values(), *m.NOTICES.values()}}
SOME |= {m.Hello: HELLO, m.Welcome: WELCOME, m.Error: m.Error(code="busy", message="later")}


# ---------------------------------------------------------------- what a server refuses


@pytest.mark.parametrize("state", ["start", "hello", "greeted", "opening", "resuming", "failed"])
def test_without_a_session_a_request_is_unauthorized(state):
    connection = server(*AFTER[state])
    for cls in NEEDS_A_SESSION:
        message = evolve(SOME[cls], id=5)
        error = refused(connection, message, "unauthorized")
        assert (error.id, error.cid) == (5, getattr(message, "cid", None))


@pytest.mark.parametrize("message", [*OPENERS, m.Ping(id=3), m.Pong(id=3)])
def test_the_first_frame_must_be_a_hello(message):
    connection = server()
    assert "hello" in refused(connection, message, "bad_request").message
    assert receive(connection, HELLO) == HELLO


@pytest.mark.parametrize("state", [state for state in AFTER if state != "start"])
def test_a_second_hello(state):
    assert refused(server(*AFTER[state]), HELLO, "bad_request").id is None


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("state", ["open", "resumed"])
def test_a_login_on_a_session(state, opener):
    assert refused(server(*AFTER[state]), opener, "bad_request").id == 1


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("state", ["opening", "resuming"])
def test_a_login_beside_another(state, opener):
    connection = server(*AFTER[state])
    assert "another login" in refused(connection, opener, "bad_request").message
    assert connection.pending_id == 1


@pytest.mark.parametrize("protocol", [0, 2, -1])
def test_another_version_is_unsupported_and_can_be_tried_again(protocol):
    connection = server()
    refused(connection, m.Hello(protocol=protocol, client="x"), "unsupported")
    assert receive(connection, HELLO) == HELLO


def test_frames_sent_before_the_resume_is_through_are_refused_but_for_pings():
    connection = server(HELLO, WELCOME, RESUME)
    connection.send(MESSAGE)
    refused(connection, SEND, "unauthorized")
    assert receive(connection, m.Ping(id=9)) == m.Ping(id=9)
    assert connection.send(m.Pong(id=9))
    assert connection.their_state is not State.OPEN
    connection.send(RESUMED)
    assert connection.their_state is State.OPEN
    assert receive(connection, SEND) == SEND


def test_a_client_may_say_hello_log_in_and_talk_in_one_breath_and_is_told_what_was_too_early():
    connection = Connection(Role.SERVER)
    first, second, third, fourth = connection.receive([*map(encode, [HELLO, LOGIN, SEND, m.Ping(id=5)])])
    assert (first, second, fourth) == (HELLO, LOGIN, m.Ping(id=5))
    assert third.code == "unauthorized"
    connection.send(WELCOME)
    connection.send(SESSION)
    assert connection.receive([encode(SEND)] * 2) == [SEND, SEND]


def test_after_a_failed_login_another_may_be_tried_and_the_old_answer_does_not_count():
    connection = server(HELLO, WELCOME, LOGIN)
    connection.send(m.Error(id="1", code="unauthorized", message="another id"))
    connection.send(m.Error(code="unauthorized", message="no id"))
    assert connection.their_state is State.OPENING
    connection.send(FAILED)
    assert connection.pending_id is None
    with pytest.raises(LocalProtocolError):
        connection.send(SESSION)
    again = m.Resume(id=7, token="t", cursors={})
    assert receive(connection, again) == again
    connection.send(m.Error(id=1, code="unauthorized", message="late"))
    assert connection.their_state is State.RESUMING


def test_an_error_for_another_frame_never_ends_a_login_that_uses_the_same_id():
    connection = server(HELLO, WELCOME, LOGIN)
    for bad in (encode(m.Send(id=1, cid="c", text="x", to="b")), b'{"type":"ping","id":1,"id":1}x', b'{"type":"nope","id":1}'):
        (error,) = connection.receive([bad])
        assert error.id is None
        connection.send(m.Error(id=error.id, code=error.code, message=error.message))
    connection.send(SESSION)
    assert connection.their_state is State.OPEN


@pytest.mark.parametrize("bad", [b"", b"{", b"[]", b'{"type":"nope","id":1}', b"\xff", b'{"type":"hello"}'])
@pytest.mark.parametrize("state", list(AFTER))
def test_a_bad_frame_changes_nothing_and_stands_in_its_place(state, bad):
    connection = server(*AFTER[state])
    before = connection.our_state, connection.their_state
    error, *_ = connection.receive([bad])
    assert isinstance(error, RemoteProtocolError)
    assert not error.fatal
    assert (connection.our_state, connection.their_state) == before
    if state == "open":
        assert connection.receive([encode(SEND), bad, encode(SEND)])[::2] == [SEND, SEND]


def test_the_bound_of_a_text_is_the_connections():
    connection = Connection(Role.SERVER, text_bytes=3)
    played(connection, AFTER["open"])
    assert refused(connection, m.Send(id=2, cid="c", text="hiya", channel="a"), "too_large").cid == "c"
    assert receive(connection, SEND) == SEND


@pytest.mark.parametrize("last", [m.Closing(code="timeout"), m.Replaced()])
@pytest.mark.parametrize("state", ["open", "resuming"])
def test_after_the_last_word_nothing_is_received_or_sent(state, last):
    connection = server(*AFTER[state])
    connection.send(last)
    assert connection.closed
    assert connection.receive([encode(SEND), b"{", encode(m.Ping(id=1))]) == []
    with pytest.raises(LocalProtocolError):
        connection.send(m.Ping(id=1))
    for again in (m.Closing(code="removed"), m.Replaced()):
        with pytest.raises(LocalProtocolError):
            connection.send(again)


@pytest.mark.parametrize("state", list(AFTER))
def test_a_server_can_always_refuse_and_close(state):
    connection = server(*AFTER[state])
    connection.send(m.Error(code="tls_required", message="TLS only"))
    connection.send(m.Closing(code="shutting_down", retry_after=1))
    assert connection.closed


# ---------------------------------------------------------------- what our own side may not send


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("start", WELCOME), ("start", SESSION), ("hello", SESSION), ("hello", MESSAGE), ("greeted", WELCOME), ("greeted", SESSION),
        ("greeted", MESSAGE), ("opening", MESSAGE), ("opening", RESUMED), ("resuming", SESSION), ("open", SESSION), ("open", RESUMED),
        ("open", WELCOME), ("failed", SESSION),
    ],
)  # fmt: skip
def test_a_server_says_nothing_out_of_its_turn(state, message):
    connection = server(*AFTER[state])
    before = connection.our_state, connection.their_state
    with pytest.raises(LocalProtocolError, match=f"`{message.type}` may not be sent"):
        connection.send(message)
    assert (connection.our_state, connection.their_state) == before


@pytest.mark.parametrize(
    ("state", "message"),
    [("start", LOGIN), ("start", SEND), ("greeted", HELLO), ("greeted", SEND), ("opening", LOGIN), ("opening", SEND), ("resuming", SEND),
     ("open", LOGIN), ("open", HELLO), ("open", WELCOME), ("failed", SEND)],
)  # fmt: skip
def test_a_client_says_nothing_out_of_its_turn(state, message):
    with pytest.raises(LocalProtocolError):
        client(*AFTER[state]).send(message)


def test_a_message_that_cannot_be_encoded_changes_nothing():
    connection = Connection(Role.CLIENT)
    with pytest.raises(UnicodeEncodeError):
        connection.send(m.Hello(protocol=1, client="\ud800"))
    assert connection.our_state is State.START


# ---------------------------------------------------------------- what a client takes from a server


def test_a_client_refuses_what_a_server_may_not_say_now():
    too_early = [("start", MESSAGE), ("greeted", SESSION), ("hello", MESSAGE), ("opening", RESUMED)]
    for state, message in [*too_early, ("open", SESSION), ("open", WELCOME)]:
        assert "in state" in refused(client(*AFTER[state]), message, "bad_request").message
    refused(client(HELLO), m.Welcome(protocol=2, server="", name="", limits={}, prefix="//", registration="open"), "unsupported")


def test_a_client_takes_what_it_does_not_know_at_any_time():
    for state in AFTER:
        (notice,) = client(*AFTER[state]).receive([b'{"type":"news","seq":1}'])
        assert type(notice) is Unknown


def test_a_client_is_told_that_tls_is_required_before_anything():
    connection = Connection(Role.CLIENT)
    error = m.Error(code="tls_required", message="TLS only")
    assert connection.receive([encode(error)]) == [error]


@pytest.mark.parametrize("last", [m.Closing(code="shutting_down", retry_after=3), m.Replaced()])
def test_a_client_sees_the_end_and_drops_what_follows(last):
    connection = client(*AFTER["open"])
    follows = [MESSAGE, m.Closing(code="timeout"), m.Error(code="timeout", message="")]
    assert connection.receive([*map(encode, [MESSAGE, last, *follows]), b"{"]) == [MESSAGE, last]
    assert connection.closed
    with pytest.raises(LocalProtocolError):
        connection.send(SEND)


# ---------------------------------------------------------------- tables


def test_the_tables_name_every_message_and_every_state():
    for role, table in states.TRANSITIONS.items():
        assert set(table) == set(State) - ({State.WELCOMING} if role is Role.CLIENT else set())
        named = set(itertools.chain.from_iterable(table.values()))
        assert named == set((m.REQUESTS if role is Role.CLIENT else m.NOTICES).values())


def test_a_coupling_leads_to_a_pair_that_stays():
    for pair in itertools.product(State, State):
        seen = []
        while pair in states.COUPLED:
            assert pair not in seen
            seen.append(pair)
            pair = states.COUPLED[pair]


# ---------------------------------------------------------------- in a pair


class Pair(RuleBasedStateMachine):
    """A client and a server say whatever each may, over a wire that takes its time. Neither ever sees an error of the protocol, and
    when the wire is empty they agree on everything."""

    def __init__(self):
        super().__init__()
        self.ends = {role: Connection(role) for role in Role}
        self.wire = {role: [] for role in Role}  # what travels towards it
        self.ids = itertools.count()

    def say(self, role, message):
        self.wire[role.peer].append(self.ends[role].send(message))

    @rule(role=st.sampled_from(Role), number=st.integers(0, 99))
    def says_something_that_its_table_allows(self, role, number):
        row = states.TRANSITIONS[role][self.ends[role].our_state]
        allowed = sorted(set(row) - {m.Closing, m.Replaced}, key=lambda cls: (row[cls] is self.ends[role].our_state, cls.__name__))
        if not allowed:
            return
        message = SOME[allowed[number % len(allowed) if number < 60 else 0]]  # often what leads on
        if type(message) in states.OPENERS:
            message = evolve(message, id=next(self.ids))
        self.say(role, message)

    @rule(now=st.integers(0, 3))
    def the_login_fails(self, now):
        if now != 3 or self.ends[Role.SERVER].pending_id is None:
            return
        self.say(Role.SERVER, m.Error(id=self.ends[Role.SERVER].pending_id, code="unauthorized", message="no"))
        assert self.ends[Role.SERVER].pending_id is None

    @rule(word=st.sampled_from([m.Closing(code="timeout"), m.Replaced()]), now=st.integers(0, 9))
    def the_server_says_its_last_word(self, word, now):
        if now > 7 and type(word) in states.TRANSITIONS[Role.SERVER][self.ends[Role.SERVER].our_state]:
            self.say(Role.SERVER, word)

    @rule(role=st.sampled_from(Role), count=st.integers(1, 4))
    def the_wire_delivers(self, role, count):
        frames, self.wire[role] = self.wire[role][:count], self.wire[role][count:]
        for message in self.ends[role].receive(frames):
            assert not isinstance(message, RemoteProtocolError), message
            event(f"{role.value}: {self.ends[role].our_state.value}")

    def teardown(self):
        for role in (Role.SERVER, Role.CLIENT):
            self.the_wire_delivers(role, len(self.wire[role]))
        one, other = self.ends[Role.CLIENT], self.ends[Role.SERVER]
        assert (one.our_state, one.their_state) == (other.their_state, other.our_state)
        assert (one.closed, one.pending_id) == (other.closed, other.pending_id)


TestPair = Pair.TestCase
TestPair.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=40)


@given(st.lists(gen.garbage() | gen.requests.map(encode), max_size=12), st.sampled_from(sorted(AFTER)), st.sampled_from(Role))
def test_whatever_arrives_only_remote_errors_come_of_it(frames, state, role):
    connection = (server if role is Role.SERVER else client)(*AFTER[state])
    received = connection.receive(frames)
    assert len(received) == len(frames) or connection.closed
    known = (*m.REQUESTS.values(), *m.NOTICES.values(), Unknown, RemoteProtocolError)
    assert all(isinstance(message, known) for message in received)
