"""One connection as a protocol: frames in, messages out, and the rules of who may say what when. No sockets, no waiting.

The same class is the server's side and the client's. It keeps both states of `chat.protocol.states` from what it receives and what it
sends. For each state it keeps the set of types that leave it as it is, so that a message of an open session costs one look-up more than
its decoding.

Messages of the hot path (records, acks, answers of an open session) may be encoded by others with `chat.protocol.codec.encode` and go
around this class, because they change no state. What must pass through `Connection.send` is: welcome, session, resumed, replaced,
closing, and every error before there is a session.
"""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final

import attrs

from chat.errors import LocalProtocolError, RemoteProtocolError
from chat.protocol import states
from chat.protocol.codec import TEXT_BYTES, Unknown, decode_notice, decode_request, decode_sends, encode
from chat.protocol.messages import Error, Hello, Send, Welcome
from chat.protocol.states import Role, State

VERSION: Final = 1

_START: Final[Mapping[Role, State]] = MappingProxyType(dict.fromkeys(Role, State.START))
_NOTHING_CALM: Final[Mapping[Role, frozenset[type[Any]]]] = MappingProxyType(dict.fromkeys(Role, frozenset()))


@attrs.define(eq=False)
class Connection:
    """The protocol's side of one connection, as *role*; *text_bytes* bounds a text that a server receives."""

    role: Role
    text_bytes: int = attrs.field(default=TEXT_BYTES, kw_only=True)
    _states: Mapping[Role, State] = attrs.field(factory=lambda: _START, init=False)
    _pending: int | str | None = attrs.field(default=None, init=False)
    _calm: Mapping[Role, frozenset[type[Any]]] = attrs.field(factory=lambda: _NOTHING_CALM, init=False, repr=False)

    @property
    def our_state(self) -> State:
        return self._states[self.role]

    @property
    def their_state(self) -> State:
        return self._states[self.role.peer]

    @property
    def closed(self) -> bool:
        """Whether ``replaced`` or ``closing`` has passed: what is received from now on is dropped."""
        return self._states[Role.CLIENT] is State.CLOSED

    @property
    def pending_id(self) -> int | str | None:
        """The id of the register, login or resume that is being answered."""
        return self._pending

    # ---------------------------------------------------------------- receiving

    def receive(self, frames: list[bytes]) -> list[Any]:
        """The messages that *frames* hold, in their order; in the place of one that may not be, the RemoteProtocolError.

        A server gets Requests and answers each of the errors; a client gets Notices and `Unknown`. What follows a ``closing`` or
        ``replaced`` is dropped. None of the errors is fatal.
        """
        received: list[Any] = []
        peer = self.role.peer
        calm = self._calm[peer]
        server = self.role is Role.SERVER
        text_bytes = self.text_bytes
        if server and Send in calm and (sends := decode_sends(frames, text_bytes)) is not None:
            return sends
        for frame in frames:
            try:
                message = decode_request(frame, text_bytes) if server else decode_notice(frame)
                if type(message) not in calm:
                    if self.closed:
                        break
                    self._step_theirs(message)
                    calm = self._calm[peer]
                received.append(message)
            except RemoteProtocolError as error:
                if self.closed:
                    break
                if error.id is not None and error.id == self._pending:
                    error.id = None  # that id is the opener's, whose own answer is still to come
                received.append(error.untied())
        return received

    def _step_theirs(self, message: Any) -> None:
        cls = type(message)
        state = self.their_state
        allowed = states.TRANSITIONS[self.role.peer][state]
        if cls is Unknown:
            return
        if cls not in allowed:
            if self.role is Role.CLIENT:
                raise RemoteProtocolError("bad_request", f"the server sent `{cls.type}` in state {state.value}")
            code, reason = states.refusal(state, cls)
            raise RemoteProtocolError(code, reason, id=getattr(message, "id", None), cid=getattr(message, "cid", None))
        if (cls is Hello or cls is Welcome) and message.protocol != VERSION:
            raise RemoteProtocolError("unsupported", f"this side speaks protocol {VERSION}, the other {message.protocol}")
        self._step(self.role.peer, message, allowed[cls])

    # ---------------------------------------------------------------- sending

    def send(self, message: Any) -> bytes:
        """The frame of *message*, after it has changed the state that it changes.

        *Raises* LocalProtocolError for what may not be sent now: a bug on this side.
        """
        if type(message) not in self._calm[self.role]:
            state = self.our_state
            allowed = states.TRANSITIONS[self.role][state]
            if type(message) not in allowed:
                raise LocalProtocolError(f"`{type(message).type}` may not be sent in state {state.value}")
            frame = encode(message)  # first: a message that cannot be encoded changes nothing
            self._step(self.role, message, allowed[type(message)])
            return frame
        return encode(message)

    # ---------------------------------------------------------------- both

    def _step(self, sender: Role, message: Any, to: State) -> None:
        self._states = {**self._states, sender: to}
        if type(message) in states.OPENERS:
            self._pending = message.id
        elif type(message) is Error and message.id is not None and message.id == self._pending:
            self._states = {role: states.REFUSED.get(state, state) for role, state in self._states.items()}
            self._pending = None
        pair = (self._states[Role.CLIENT], self._states[Role.SERVER])
        while pair in states.COUPLED:
            pair = states.COUPLED[pair]
        if pair[0] in (State.OPEN, State.CLOSED):
            self._pending = None
        self._states, self._calm = _tables(*pair, self._pending is not None)


@cache
def _tables(client: State, server: State, pending: bool) -> tuple[Mapping[Role, State], Mapping[Role, frozenset[type[Any]]]]:
    """Both states, and for each side the types that leave its state as it is: an error does not while an opener is *pending*.

    There are few of these, and connections without number: they share them.
    """
    both = {Role.CLIENT: client, Role.SERVER: server}
    calm = _CALM_PENDING if pending else _CALM
    return MappingProxyType(both), MappingProxyType({role: calm[role, state] for role, state in both.items()})


_CALM: Final = {
    (role, state): frozenset(cls for cls, to in row.items() if to is state)
    for role, table in states.TRANSITIONS.items()
    for state, row in table.items()
}
_CALM_PENDING: Final = {key: types - {Error} for key, types in _CALM.items()}
