"""An independent ledger: what clients saw on their sockets, held against the rules of delivery.

It shares no code with ``chat/`` and looks into no database. Clients tell it what they are about to send (`Ledger.sent`), each ack
(`acked`), each refusal (`refused`), what their streams grew by (`follower.Follower`) and, at the end, whole histories (`history`).
`Ledger.verdict` then holds all of it against the contract, section 3:

- an acknowledged text is in the history exactly once, with that epoch, seq, time and text; whatever was sent was acknowledged in the end;
- no cid twice, and nothing that nobody sent;
- seq is 1, 2, 3 … without gap, time never goes back, the epoch stays, every reader sees the same;
- the texts of a sender stand in the order in which they were sent;
- what each session saw (live, replayed, filled from history) is the history, from 1 to its end.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

LOST, DOUBLED, ORDER, GAP, WRONG = "lost", "doubled", "out of order", "gaps", "wrong"


class Record(NamedTuple):
    """Something that took a seq, in a form that is equal for everybody who saw it (a private conversation has one key for both)."""

    conv: str
    epoch: str
    seq: int
    ts: int
    type: str
    author: str
    text: str
    rest: tuple


def conv_key(me: str, conv: str) -> str:
    """``#channel`` as it is; of a private conversation, which each side names by the other, one name for both sides."""
    return conv if conv.startswith("#") else "@" + "@".join(sorted((me, conv[1:])))


def record_of(me: str, notice: dict) -> Record:
    rest = {k: v for k, v in notice.items() if k not in ("conv", "epoch", "seq", "ts", "type", "from", "text", "cid", "")}
    return Record(
        conv_key(me, notice["conv"]),
        notice["epoch"],
        notice["seq"],
        notice["ts"],
        notice["type"],
        notice.get("from", ""),
        notice.get("text", ""),
        tuple(sorted((k, str(v)) for k, v in rest.items())) if rest else (),
    )


@dataclass
class Sent:
    sender: str
    conv: str
    cid: str
    text: str
    number: int  # of this sender's texts
    ack: tuple | None = None  # conv, epoch, seq, ts
    refused: str = ""


@dataclass
class Verdict:
    """``faults``: how many of each kind; ``examples``: the first of them in words."""

    faults: Counter
    examples: list[str]
    sent: int
    acks: int
    stored: int
    compared: int  # records of streams that were held against the history

    @property
    def green(self) -> bool:
        return not self.faults

    def __str__(self) -> str:
        kinds = (LOST, DOUBLED, ORDER, GAP, WRONG)
        return ", ".join(f"{kind} {self.faults[kind]}" for kind in kinds) + f"; acks {self.acks} of {self.sent} sent"


@dataclass
class Ledger:
    texts: dict[tuple[str, str], Sent] = field(default_factory=dict)  # (sender, cid)
    histories: dict[str, list[Record]] = field(default_factory=dict)
    streams: dict[tuple[str, str], list[Record]] = field(default_factory=dict)  # (session, conv) → as it grew
    faults: Counter = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    acks: int = 0
    _known: dict[Record, Record] = field(default_factory=dict)
    _numbers: Counter = field(default_factory=Counter)

    def fault(self, kind: str, text: str) -> None:
        self.faults[kind] += 1
        if self.faults[kind] <= 6:
            self.examples.append(f"{kind}: {text}")

    def one(self, record: Record) -> Record:
        """The same object for equal records, so that a hundred streams of a long run fit into memory."""
        return self._known.setdefault(record, record)

    # ------------------------------------------------------------ what clients tell

    def sent(self, sender: str, conv: str, cid: str, text: str) -> Sent:
        """Before the bytes go out for the first time."""
        self._numbers[sender] += 1
        sent = self.texts[sender, cid] = Sent(sender, conv, cid, text, self._numbers[sender])
        return sent

    def acked(self, sender: str, cid: str, conv: str, epoch: str, seq: int, ts: int) -> None:
        sent = self.texts.get((sender, cid))
        place = (conv, epoch, seq, ts)
        if sent is None:
            return self.fault(WRONG, f"{sender} has an ack for {cid}, which was never sent")
        if sent.refused:
            self.fault(WRONG, f"{sender}'s {cid} was refused ({sent.refused}) and then acknowledged")
        if sent.ack is None:
            self.acks += 1
            sent.ack = place
        elif sent.ack != place:
            self.fault(DOUBLED, f"{sender}'s {cid} was acknowledged as {sent.ack}, then as {place}")

    def refused(self, sender: str, cid: str, code: str) -> None:
        """A definite error: it must never turn up."""
        self.texts[sender, cid].refused = code
        self.fault(WRONG, f"{sender}'s {cid} was refused: {code}")

    def history(self, reader: str, conv: str, records: list[Record], cids: list[str | None]) -> None:
        """All of a conversation, as *reader* got it in pages from the first record to the last."""
        for cid, count in Counter(cid for cid in cids if cid is not None).items():
            if count > 1:
                self.fault(DOUBLED, f"{reader} finds cid {cid} {count} times in {conv}")
        for record, cid in zip(records, cids, strict=True):
            if cid is not None and ((sent := self.texts.get((record.author, cid))) is None or sent.text != record.text):
                self.fault(WRONG, f"{conv} {record.seq} has cid {cid} and another text than was sent with it")
        known = self.histories.setdefault(conv, records)
        if known is not records and known != records:
            self.fault(WRONG, f"{reader} reads another history of {conv} than others")

    # ------------------------------------------------------------ the verdict

    def verdict(self, *, complete: bool = True) -> Verdict:
        """Not *complete*: the run was broken off, so that the last texts may have no ack and streams may end early."""
        for conv, records in self.histories.items():
            self._check_history(conv, records)
        self._check_texts(complete)
        compared = 0
        for (session, conv), stream in self.streams.items():
            compared += len(stream)
            self._check_stream(session, conv, stream, complete)
        stored = sum(map(len, self.histories.values()))
        return Verdict(self.faults, self.examples, len(self.texts), self.acks, stored, compared)

    def _check_history(self, conv: str, records: list[Record]) -> None:
        latest_number: dict[str, int] = {}
        found: Counter = Counter()
        before = None
        for place, record in enumerate(records, 1):
            expected = 1 if before is None else before.seq + 1
            if record.seq > expected:
                self.fault(GAP, f"{conv}: {expected} to {record.seq - 1} are not in the history")
            elif record.seq < expected:
                self.fault(ORDER, f"{conv}: seq {record.seq} at place {place} of the history")
            if before is not None and record.ts < before.ts:
                self.fault(ORDER, f"{conv}: the time goes back at {record.seq}")
            if before is not None and record.epoch != before.epoch:
                self.fault(WRONG, f"{conv}: two epochs in one history")
            before = record
            if record.type != "message":
                continue
            cid = record.text.partition(" ")[0]
            sent = self.texts.get((record.author, cid))
            if sent is None or sent.text != record.text or sent.conv != conv:
                self.fault(WRONG, f"{conv} {record.seq} was never sent like this")
                continue
            found[record.author, cid] += 1
            if found[record.author, cid] > 1:
                self.fault(DOUBLED, f"{conv} {record.seq}: {cid} is there already")
            elif sent.number < latest_number.get(record.author, 0):
                self.fault(ORDER, f"{conv} {record.seq}: {cid} stands behind a later text of its sender")
            latest_number[record.author] = max(sent.number, latest_number.get(record.author, 0))

    def _check_texts(self, complete: bool) -> None:
        places = {(r.conv, r.epoch, r.seq, r.ts): r for records in self.histories.values() for r in records}
        for sent in self.texts.values():
            if sent.ack is None:
                if complete and not sent.refused:
                    self.fault(LOST, f"{sent.sender}'s {sent.cid} was never acknowledged, however often it was sent")
                continue
            record = places.get(sent.ack)
            if record is None or (record.type, record.author, record.text) != ("message", sent.sender, sent.text):
                self.fault(LOST, f"{sent.sender}'s {sent.cid} was acknowledged as {sent.ack}; the history has {record} there")

    def _check_stream(self, session: str, conv: str, stream: list[Record], complete: bool) -> None:
        history = self.histories.get(conv)
        if history is not None and not complete:
            history = history[: len(stream)]
        if history is None or stream == history:
            if history is None and stream:
                self.fault(LOST, f"{session} saw {len(stream)} records of {conv}, of which there is no history")
            return
        at = next((i for i, (a, b) in enumerate(zip(stream, history, strict=False)) if a != b), min(len(stream), len(history)))
        seen, stored = (repr(records[at]) if at < len(records) else "nothing" for records in (stream, history))
        kind = GAP if at == len(stream) else WRONG
        self.fault(kind, f"{session}'s stream of {conv} leaves the history at {at + 1}: {seen}, not {stored}")
