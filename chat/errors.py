"""The errors of chat, by cause: the peer's fault or a refusal (with the contract's code), our own bug, or the world.

``ChatError`` carries one of the closed list of codes of the contract, section 5, and becomes an ``error`` message on the wire.
``RemoteProtocolError`` says that the peer broke the protocol; ``LocalProtocolError`` that our own code tried to.
An ``OSError`` is the world's and is left alone.
"""

from typing import Any, Final, Self

CODES: Final = frozenset(
    """bad_request too_large unsupported unauthorized forbidden not_found name_taken bad_name cid_conflict offset_conflict
    quota_exceeded rate_limited busy slow_consumer timeout history_reset removed tls_required storage_unavailable storage_full
    shutting_down indeterminate internal_error""".split()  # noqa: SIM905
)


class ChatError(Exception):
    """A refusal that the peer is told: *code* is from `CODES`, *message* is for a person, *retry_after* is in seconds.

    rate_limited, busy and shutting_down always carry *retry_after*. ``why`` is the rule that a refusal rests on, where the server knows
    one (`chat.rooms.moderation.why.Why`); it is not sent.
    """

    why: Any = None

    def __init__(self, code: str, message: str, *, retry_after: float | None = None) -> None:
        assert code in CODES, code
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def untied(self) -> Self:
        """This, without traceback and context, for who keeps it: the frames there hold it in turn, and only the collector would free the
        circle."""
        self.__traceback__ = self.__context__ = None
        return self


class LocalProtocolError(Exception):
    """Our own code tried to send what the protocol does not allow in this state. A bug on this side."""


class RemoteProtocolError(ChatError):
    """The peer sent what the protocol does not allow. *fatal*: the connection cannot go on after the answer.

    *id* is the request's id where it could be read, else None.
    """

    def __init__(self, code: str, message: str, *, id: int | str | None = None, cid: str | None = None, fatal: bool = False) -> None:
        super().__init__(code, message)
        self.id = id
        self.cid = cid
        self.fatal = fatal
