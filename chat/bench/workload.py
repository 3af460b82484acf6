"""What is to be measured."""

from typing import Any, Literal

import attrs

Transport = Literal["tcp", "tls", "web"]

PAYLOAD_MIN = 48  # bytes: who sent it, which one, and when


class BadWorkload(ValueError):
    """The options do not go together; the text says which and why."""


@attrs.frozen(kw_only=True)
class Workload:
    """``members`` sessions, member i in channel i % ``channels``; the first ``senders`` of them send ``payload`` bytes each time.

    ``rate``: messages a second in all, on a fixed schedule; None: saturated, each sender with ``window`` messages unacknowledged.
    ``private``: no channels; member i writes to member i ^ 1. ``idle``: nobody writes, memory is measured. ``logins``: sessions are
    opened, then resumed. Seconds: ``warm`` before the measuring, ``seconds`` of it. ``sample``: every so many-th member looks at each
    message; the others compare counts and seqs.
    """

    members: int = 1000
    channels: int = 1
    senders: int = 10
    payload: int = 100
    rate: float | None = None
    window: int = 16
    private: bool = False
    idle: bool = False
    logins: bool = False
    transport: Transport = "tcp"
    seconds: float = 5.0
    warm: float = 1.0
    sample: int = 16

    @classmethod
    def of(cls, **given: Any) -> "Workload":
        """From the options of the command line. *Raises* BadWorkload."""
        workload = cls(**given)
        if workload.private:
            workload = attrs.evolve(workload, channels=1, senders=workload.members, members=workload.members + workload.members % 2)
        if workload.idle and workload.logins:
            raise BadWorkload("--idle and --logins are two workloads; give one of them")
        if workload.members < 2:
            raise BadWorkload("--members is at least 2: one writes, one reads")
        if not 1 <= workload.channels <= workload.members:
            raise BadWorkload("--channels is between 1 and --members")
        if not workload.private and not 1 <= workload.senders <= workload.members:
            raise BadWorkload("--senders is between 1 and --members")
        if not PAYLOAD_MIN <= workload.payload <= 16_000:
            raise BadWorkload(f"--payload is between {PAYLOAD_MIN} and 16000 bytes")
        if workload.rate is not None and not 0 < workload.rate <= 1_000_000:
            raise BadWorkload("--rate is more than 0 and at most 1000000 messages a second")
        return workload

    @property
    def title(self) -> str:
        """In a line, for a person."""
        if self.logins:
            return f"{self.members} sessions opened and resumed over {self.transport}"
        if self.idle:
            return f"{self.members} idle sessions over {self.transport}"
        pace = f"{self.rate:g} messages/s" if self.rate is not None else f"saturated, {self.window} in flight for each sender"
        if self.private:
            return f"private messages between {self.members} people over {self.transport}, {self.payload} bytes, {pace}"
        where = f"{self.members} members in {self.channels} channel{'s' if self.channels > 1 else ''}"
        return f"{where}, {self.senders} sending over {self.transport}, {self.payload} bytes, {pace}"
