"""What may be said when, as tables that do not know which side they are used on.

A connection is two states: what the client may send, and what the server may send. Whoever sends a message moves its own state by
`TRANSITIONS`; a type that the table does not name may not be sent. Then `COUPLED` moves the pair: a client that said hello has made a
welcome due, a server that opened a session has opened it for both. Each side of a connection keeps both states, in the same way, from
what it sends and what it receives.

    client   START ──hello──► GREETED ──register, login──► OPENING ──┐   (session)
                                 ▲  └────────resume──────► RESUMING ─┤   (resumed)     ┌─────► everything but the openers
                                 └── error with the opener's id ─────┘──► OPEN ────────┘
    server   START ─(hello)─► WELCOMING ──welcome──► GREETED ─(login…)─► OPENING | RESUMING ──session | resumed──► OPEN
             anywhere: closing ──► CLOSED, and with a session or a resume: replaced ──► CLOSED

The client may say hello and log in in one breath: while the welcome is due, the login waits in the client's state, and the server's
follows when it has sent the welcome. What is said before ``session`` or ``resumed`` was sent is refused.

*Source*: contract, sections 1 ("One port") and 4; the manner is that of h11's ``_state.py``.
"""

import enum
from typing import Any, Final

from chat.protocol.messages import (
    NOTICES,
    REQUESTS,
    Closing,
    Error,
    Hello,
    Login,
    Ping,
    Pong,
    Register,
    Replaced,
    Resume,
    Resumed,
    ServerNotice,
    SessionOpened,
    Welcome,
)


class Role(enum.Enum):
    CLIENT = "client"
    SERVER = "server"

    @property
    def peer(self) -> "Role":
        return Role.SERVER if self is Role.CLIENT else Role.CLIENT


class State(enum.Enum):
    START = "start"
    WELCOMING = "welcoming"  # the server owes a welcome
    GREETED = "greeted"
    OPENING = "opening"  # a register or login is being answered
    RESUMING = "resuming"  # a resume is being answered: what was missed, then resumed
    OPEN = "open"  # there is a session
    CLOSED = "closed"  # the server said closing or replaced: its last word, and what follows is not heard


Type = type[Any]
Table = dict[State, dict[Type, State]]

OPENERS: Final[frozenset[Type]] = frozenset({Register, Login, Resume})


def _staying(state: State, *types: Type) -> dict[Type, State]:
    return dict.fromkeys(types, state)


_CLIENT: Final[Table] = {
    State.START: {Hello: State.GREETED},
    State.GREETED: {
        **_staying(State.GREETED, Ping, Pong),
        Register: State.OPENING,
        Login: State.OPENING,
        Resume: State.RESUMING,
    },
    State.OPENING: _staying(State.OPENING, Ping, Pong),
    State.RESUMING: _staying(State.RESUMING, Ping, Pong),
    State.OPEN: _staying(State.OPEN, *(cls for cls in REQUESTS.values() if cls is not Hello and cls not in OPENERS)),
    State.CLOSED: {},
}


def _live(state: State) -> dict[Type, State]:
    """All that a server tells a session, and how that can end."""
    openings = (Welcome, SessionOpened, Resumed)
    return {
        **_staying(state, *(cls for cls in NOTICES.values() if cls not in openings)),
        Replaced: State.CLOSED,
        Closing: State.CLOSED,
    }


_SERVER: Final[Table] = {
    State.START: {Error: State.START, Closing: State.CLOSED},
    State.WELCOMING: {Error: State.WELCOMING, Welcome: State.GREETED, Closing: State.CLOSED},
    State.GREETED: {**_staying(State.GREETED, Error, ServerNotice, Ping, Pong), Closing: State.CLOSED},
    State.OPENING: {**_staying(State.OPENING, Error, ServerNotice, Ping, Pong), SessionOpened: State.OPEN, Closing: State.CLOSED},
    State.RESUMING: {**_live(State.RESUMING), Resumed: State.OPEN},
    State.OPEN: _live(State.OPEN),
    State.CLOSED: {},
}

TRANSITIONS: Final[dict[Role, Table]] = {Role.CLIENT: _CLIENT, Role.SERVER: _SERVER}

# (client, server) → (client, server), looked up after every transition until nothing is found.
COUPLED: Final[dict[tuple[State, State], tuple[State, State]]] = {
    (State.GREETED, State.START): (State.GREETED, State.WELCOMING),
    (State.OPENING, State.GREETED): (State.OPENING, State.OPENING),
    (State.RESUMING, State.GREETED): (State.RESUMING, State.RESUMING),
    (State.OPENING, State.OPEN): (State.OPEN, State.OPEN),
    (State.RESUMING, State.OPEN): (State.OPEN, State.OPEN),
    **{(state, State.CLOSED): (State.CLOSED, State.CLOSED) for state in State if state is not State.CLOSED},
}

# An error with the id of the opener that is being answered: it failed, and the client may try another.
REFUSED: Final[dict[State, State]] = {State.OPENING: State.GREETED, State.RESUMING: State.GREETED}


def refusal(state: State, cls: Type) -> tuple[str, str]:
    """The code and the reason with which a server refuses a *cls* that `TRANSITIONS` does not allow a client in *state*.

    What needs a session is unauthorized as long as there is none. What can only be out of its turn is bad_request: something other
    than hello at first, a second hello, a login beside another or on a session.
    """
    if cls is Hello:
        return "bad_request", "hello was said already"
    if cls in OPENERS or cls is Ping or cls is Pong:
        match state:
            case State.START:
                return "bad_request", "the first frame must be a hello"
            case State.OPEN:
                return "bad_request", "there is a session on this connection already"
            case _:
                return "bad_request", "another login is being answered on this connection"
    match state:
        case State.START:
            return "unauthorized", "say hello and log in first"
        case State.OPENING | State.RESUMING:
            return "unauthorized", "wait for the answer to the login first"
        case _:
            return "unauthorized", "log in first"
