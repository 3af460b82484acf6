"""The ledger: what was promised, what everybody saw, and what the history says, held against each other.

It knows no server and opens no database. The devices tell it what they are about to send (`Ledger.sent`), each ack (`acked`), each
refusal (`refused`) and what their streams grow by (`cursor.Cursor`); in the end `history` brings whole conversations, as a fresh client
read them, and `file` the same from the database. `verdict` then says what does not agree:

- **lost**: acknowledged, and not in the history at that place; never acknowledged, however often it was sent; seen, and gone later;
- **doubled**: one cid at two places, told twice, acknowledged as two;
- **out of order**: a conversation goes back, in its numbers or its times; a sender's texts stand in another order than they were sent in;
- **gaps**: a number is missing, in the history or in what somebody saw;
- **altered**: another text than was sent, refused and stored all the same, one place that two people see differently.

Texts of one device are sent in order and sent again in order, so they are stored in order; but for those that are *loose*: also sent by
another device at the same time, or refused for now (`rate_limited`) and sent again later.
"""

from collections import Counter
from typing import Any, Final, NamedTuple

import attrs

LOST, DOUBLED, ORDER, GAP, ALTERED = "lost", "doubled", "out of order", "gaps", "altered"
FAULTS: Final = (LOST, DOUBLED, ORDER, GAP, ALTERED)
KEPT: Final = 40  # violations that are kept in words


class Place(NamedTuple):
    conv: str
    epoch: str
    seq: int
    ts: int

    def __str__(self) -> str:
        return f"number {self.seq} of {self.conv}"


class Record(NamedTuple):
    """What took a place, in a form that is equal for everybody who sees it."""

    conv: str
    epoch: str
    seq: int
    ts: int
    type: str
    author: str
    text: str
    rest: tuple[tuple[str, str], ...]

    @property
    def place(self) -> Place:
        return Place(self.conv, self.epoch, self.seq, self.ts)

    def __str__(self) -> str:
        what = f'"{_short(self.text)}" by {self.author}' if self.type == "message" else f"{self.type} {dict(self.rest)}"
        return f"{self.seq}: {what}"


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def conv_key(me: str, conv: str) -> str:
    """``#channel`` as it is; of a private conversation, which each side names by the other, one name for both."""
    return conv if conv.startswith("#") else "@" + "+".join(sorted((me, conv[1:])))


def record_of(me: str, notice: dict[str, Any]) -> Record:
    rest = {k: v for k, v in notice.items() if k not in ("conv", "epoch", "seq", "ts", "type", "from", "text", "cid")}
    return Record(
        conv_key(me, notice["conv"]),
        notice["epoch"],
        notice["seq"],
        notice["ts"],
        notice["type"],
        notice.get("from", ""),
        notice.get("text", ""),
        tuple(sorted((k, str(v)) for k, v in rest.items())),
    )


@attrs.define(eq=False)
class Text:
    """Something that a person said. ``device``: from where; times are seconds of the run."""

    person: str
    device: str
    conv: str
    cid: str
    body: str
    number: int  # of this device's texts
    at_s: float
    loose: bool = False
    refusals: int = 0
    tries: int = 0
    ack: Place | None = None
    acked_by: str = ""
    acked_s: float = 0.0


@attrs.frozen
class Violation:
    """``about``: the text, or the place (conversation, number), that it is about. ``story``: further lines that explain it, told in the
    end, when everything is known."""

    kind: str
    at_s: float
    what: str
    about: "Text | tuple[str, int] | None" = None
    story: tuple[str, ...] = ()


@attrs.define(eq=False)
class Ledger:
    texts: dict[tuple[str, str], Text] = attrs.Factory(dict)  # (person, cid)
    histories: dict[str, list[Record]] = attrs.Factory(dict)
    streams: dict[tuple[str, str], list[Record]] = attrs.Factory(dict)  # (device, conv) → as it grew
    faults: Counter[str] = attrs.Factory(Counter)
    violations: list[Violation] = attrs.Factory(list)
    events: list[tuple[float, str]] = attrs.Factory(list)  # what happened to the server
    acks: int = 0
    dups: int = 0
    orphans: int = 0  # stored by an attempt whose ack was lost
    refusals: Counter[str] = attrs.Factory(Counter)
    now_s: float = 0.0  # the clock of the run, kept by who drives it
    _known: dict[Record, Record] = attrs.Factory(dict)
    _numbers: Counter[str] = attrs.Factory(Counter)

    def fault(self, kind: str, what: str, about: Text | tuple[str, int] | None = None) -> None:
        self.faults[kind] += 1
        if len(self.violations) < KEPT:
            self.violations.append(Violation(kind, self.now_s, what, about))

    def one(self, record: Record) -> Record:
        """The same object for equal records, so that many streams of a long run fit into memory."""
        return self._known.setdefault(record, record)

    # ------------------------------------------------------------ what devices tell

    def sent(self, person: str, device: str, conv: str, cid: str, body: str) -> Text:
        """Before its bytes go out for the first time."""
        self._numbers[device] += 1
        text = self.texts[person, cid] = Text(person, device, conv, cid, body, self._numbers[device], self.now_s)
        return text

    def acked(self, person: str, device: str, cid: str, place: Place, *, dup: bool) -> Text | None:
        """*Returns* what was acknowledged."""
        self.acks += 1
        self.dups += dup
        text = self.texts.get((person, cid))
        if text is None:
            self.fault(ALTERED, f"{device} got an ack for {cid}, which was never sent")
        elif text.ack is None:
            self.orphans += dup and not text.loose
            text.ack, text.acked_by, text.acked_s = place, device, self.now_s
        elif text.ack != place:
            self.fault(DOUBLED, f"{cid} was acknowledged as {text.ack}, and to {device} as {place}", text)
        return text

    def refused(self, person: str, cid: str, code: str, *, for_now: bool) -> Text | None:
        """*for_now*: the server asks to try again; else there is no reason for it, and it is a fault."""
        self.refusals[code] += 1
        text = self.texts.get((person, cid))
        if text is None or not for_now:
            self.fault(ALTERED, f"{cid} was refused: {code}", text)
        else:
            text.refusals += 1
            text.loose = True
        return text

    def happened(self, what: str) -> None:
        self.events.append((self.now_s, what))

    # ------------------------------------------------------------ the evidence

    def history(self, reader: str, conv: str, records: list[Record], cids: list[str | None]) -> None:
        """All of a conversation, as *reader* got it in pages from the first record to the last; *cids* of his own."""
        for own, count in Counter(cid for cid in cids if cid is not None).items():
            if count > 1:
                self.fault(DOUBLED, f"{reader} finds cid {own} {count} times in {conv}", self.texts.get((reader, own)))
        for record, cid in zip(records, cids, strict=True):
            if cid is not None and ((text := self.texts.get((reader, cid))) is None or text.body != record.text):
                self.fault(ALTERED, f"{record.place} has cid {cid} and another text than was sent with it", text)
        known = self.histories.setdefault(conv, records)
        if known is not records and known != records:
            at = _first_difference(known, records)
            self.fault(ALTERED, f"{reader} reads another history of {conv} than others, from the {at + 1}. record on")

    def file(self, conv: str, rows: list[tuple[int, int, str, str, str]]) -> None:
        """All of a conversation, straight from the database: (seq, ts, type, author, text or JSON), in the order of seq."""
        told = self.histories.get(conv, [])
        stored = {seq: (ts, type, author, text) for seq, ts, type, author, text in rows}
        for record in told:
            row = stored.pop(record.seq, None)
            if row is None:
                self.fault(LOST, f"{record.place} was read over the wire, and is not in the database", (conv, record.seq))
            elif record.type == "message" and row != (record.ts, record.type, record.author, record.text):
                self.fault(ALTERED, f"{record.place} is another one in the database", (conv, record.seq))
        for seq in stored:
            self.fault(GAP, f"number {seq} of {conv} is in the database, and not in the history that is told", (conv, seq))

    # ------------------------------------------------------------ the verdict

    def verdict(self, *, complete: bool = True) -> int:
        """Compare everything. *Returns* how many records of streams were compared.

        Not *complete*: the run was broken off, so that the last texts may have no ack and streams may end early.
        """
        for conv, records in self.histories.items():
            self._check_history(conv, records)
        self._check_texts(complete)
        compared = 0
        for (device, conv), stream in self.streams.items():
            compared += len(stream)
            self._check_stream(device, conv, stream, complete)
        return compared

    def _check_history(self, conv: str, records: list[Record]) -> None:
        latest: dict[str, Text] = {}  # of each device, of those that must be in order
        found: dict[tuple[str, str], Record] = {}
        before: Record | None = None
        for record in records:
            due = 1 if before is None else before.seq + 1
            if record.seq > due:
                missing = f"number {due} is" if record.seq == due + 1 else f"numbers {due} to {record.seq - 1} are"
                self.fault(GAP, f"{missing} missing in the history of {conv}", (conv, due))
            elif record.seq < due:
                self.fault(ORDER, f"the history of {conv} has {record.seq} behind {due - 1}", (conv, record.seq))
            if before is not None and record.ts < before.ts:
                self.fault(ORDER, f"the time of {conv} goes back at {record.seq}", (conv, record.seq))
            if before is not None and record.epoch != before.epoch:
                self.fault(ALTERED, f"{conv} has two epochs in one history")
            before = record
            if record.type != "message":
                continue
            key = record.author, record.text.partition(" ")[0]
            text = self.texts.get(key)
            if text is None or text.body != record.text or text.conv != conv:
                self.fault(ALTERED, f"nobody sent what stands in {conv} at {record}", text)
                continue
            if key in found:
                self.fault(DOUBLED, f"{text.cid} is in the history twice: at {found[key].seq} and at {record.seq} of {conv}", text)
            found[key] = record
            if not text.loose:
                last = latest.get(text.device)
                if last is not None and last.number > text.number:
                    self.fault(ORDER, f"{text.cid} was sent before {last.cid} and stands behind it in {conv}", text)
                else:
                    latest[text.device] = text

    def _check_texts(self, complete: bool) -> None:
        places = {record.place: record for records in self.histories.values() for record in records}
        for text in self.texts.values():
            if text.ack is None:
                if complete:
                    self.fault(LOST, f"{text.cid} was never acknowledged, though it was sent {text.tries} times", text)
                continue
            if text.conv not in self.histories and not complete:
                continue
            record = places.get(text.ack)
            if record is None or (record.type, record.author, record.text) != ("message", text.person, text.body):
                stands = next((str(r) for r in self.histories.get(text.conv, ()) if r.seq == text.ack.seq), "nothing")
                self.fault(LOST, f"{text.cid} was acknowledged and is not in the history; at its place stands {stands}", text)

    def _check_stream(self, device: str, conv: str, stream: list[Record], complete: bool) -> None:
        history = self.histories.get(conv)
        if history is None:
            if complete and stream:
                self.fault(LOST, f"{device} saw {len(stream)} records of {conv}, of which there is no history")
            return
        if not complete:
            history = history[: len(stream)]
        if stream == history:
            return
        at = _first_difference(stream, history)
        if at == len(stream):
            self.fault(GAP, f"{device} never got {history[at].place} (and {len(history) - at - 1} more)", (conv, history[at].seq))
        elif at == len(history):
            self.fault(LOST, f"{device} saw {stream[at].place}, which is not in the history", self.said(stream[at]))
        else:
            kind = LOST if stream[at].type == "message" and stream[at] not in history else ALTERED
            self.fault(kind, f"{device} saw {stream[at]} in {conv} where the history has {history[at]}", self.said(stream[at]))

    # ------------------------------------------------------------ the explanation

    def first(self) -> Violation | None:
        """In the order of time, with its story."""
        return self._told(self.violations[0]) if self.violations else None

    def worst(self) -> Violation | None:
        """The first one of the gravest kind, rather one that is about something, with its story."""
        ranked = sorted(self.violations, key=lambda v: (FAULTS.index(v.kind), v.about is None))  # stable: the first comes first
        return self._told(ranked[0]) if ranked else None

    def _told(self, violation: Violation) -> Violation:
        return attrs.evolve(violation, about=None, story=tuple(self._story_of(violation.about)))

    def said(self, record: Record) -> Text | None:
        return self.texts.get((record.author, record.text.partition(" ")[0])) if record.type == "message" else None

    def _story_of(self, about: Text | tuple[str, int] | None) -> list[str]:
        if about is None or isinstance(about, Text):
            return self._story(about) if about is not None else []
        conv, seq = about
        for text in self.texts.values():
            if text.ack is not None and text.ack.conv == conv and text.ack.seq == seq:
                return self._story(text)
        saw = {device: stream for (device, where), stream in self.streams.items() if where == conv}
        found = {device: record for device, stream in saw.items() for record in stream if record.seq == seq}
        kept = next((record for record in self.histories.get(conv, ()) if record.seq == seq), None)
        return [
            f"number {seq} of {conv} was never acknowledged to anybody; the history has {kept or 'nothing'} there",
            *(f"{device} saw {record}" for device, record in sorted(found.items())),
            *([f"not seen by {', '.join(sorted(saw.keys() - found.keys()))}"] if saw.keys() - found.keys() else []),
        ]

    def _story(self, text: Text) -> list[str]:
        lines = [f'{text.cid} is the text "{_short(text.body)}" of {text.device} to {text.conv}, first sent at {text.at_s:.2f} s']
        if text.ack is None:
            lines.append(f"never acknowledged; sent {text.tries} times, refused {text.refusals} times")
        else:
            lines.append(f"acknowledged to {text.acked_by} at {text.acked_s:.2f} s as {text.ack} (epoch {text.ack.epoch})")
            last = max((event for event in self.events if event[0] <= text.acked_s), default=None)
            after = min((event for event in self.events if event[0] > text.acked_s), default=None)
            if last:
                lines.append(f"before that, at {last[0]:.2f} s: {last[1]}")
            if after:
                lines.append(f"after it, at {after[0]:.2f} s: {after[1]}")
        saw = {device: [r.seq for r in s if r.text == text.body] for (device, conv), s in self.streams.items() if conv == text.conv}
        seen = sorted(f"{device} (at {', '.join(map(str, seqs))})" for device, seqs in saw.items() if seqs)
        lacks = sorted(device for device, seqs in saw.items() if not seqs)
        lines.append("seen by " + (", ".join(seen) or "nobody"))
        if lacks:
            lines.append("not seen by " + ", ".join(lacks))
        return lines


def _first_difference(one: list[Record], other: list[Record]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
