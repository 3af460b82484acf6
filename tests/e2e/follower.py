"""The cursor rules of a client, kept strictly: what one session's stream of each conversation grows by, and what may not happen to it.

A client keeps (epoch, next) of each conversation. A record with seq = next is taken; one below was seen; one above means that something
is missing, which it asks the history for. The server makes this necessary in three cases only: it said ``gap`` (too much to replay),
it said ``lagging``, or the conversation began to exist for this session with its heads. In every other case a hole, or a record that comes
twice, is the server's fault and is told to the ledger.
"""

from dataclasses import dataclass, field

from tests.e2e.ledger import DOUBLED, GAP, ORDER, WRONG, Ledger, Record


@dataclass
class Line:
    """One conversation. ``stream`` is all that was taken."""

    epoch: str
    stream: list[Record]
    told: int = 0  # the highest seq that this connection brought
    filled: int = 0  # up to here the history was read, maybe before the server told: that much may come again
    filling: bool = False
    ahead: dict[int, Record] = field(default_factory=dict)

    @property
    def next(self) -> int:
        return len(self.stream) + 1


class Follower:
    def __init__(self, session: str, ledger: Ledger) -> None:
        self.session = session
        self.lines: dict[str, Line] = {}
        self.wanted: list[str] = []  # conversations to ask the history of
        self.lagged = False
        self.fills = 0
        self._ledger = ledger

    def connect(self) -> dict[str, tuple[str, int]]:
        """A new connection begins. Returns the cursors."""
        self.lagged = False
        self.wanted = []
        for line in self.lines.values():
            line.told = 0
            line.filling = False
            line.ahead.clear()
        return {conv: (line.epoch, line.next) for conv, line in self.lines.items()}

    def take(self, record: Record) -> None:
        """Told live, replayed, or acknowledged in the place of a notice."""
        line = self._line(record.conv, record.epoch)
        seq = record.seq
        if seq <= line.told:
            kind = DOUBLED if any(seq == old.seq for old in line.stream[-1000:]) else ORDER
            self._fault(kind, record.conv, f"{seq} came after {line.told} on one connection")
            return
        line.told = seq
        if line.filling:
            line.ahead[seq] = record
        elif seq == line.next:
            line.stream.append(self._ledger.one(record))
        elif seq < line.next:
            if seq > line.filled:
                self._fault(DOUBLED, record.conv, f"{seq} came though the cursor was at {line.next}")
            elif line.stream[seq - 1] != record:
                self._fault(WRONG, record.conv, f"{seq} is told as {record} and was {line.stream[seq - 1]} in the history")
        else:
            if not self.lagged:
                self._fault(GAP, record.conv, f"{seq} came where {line.next} was due")
            self._fill(record.conv, line)
            line.ahead[seq] = record

    def head(self, conv: str, epoch: str, seq: int) -> None:
        """Where the server says that the conversation stands, at this place in the bytes."""
        new = conv not in self.lines
        line = self._line(conv, epoch)
        if seq >= line.next and not line.filling:
            if not (new or self.lagged):
                self._fault(GAP, conv, f"the head is {seq} where {line.next} is due")
            self._fill(conv, line)

    def gap(self, conv: str, after: int, before: int) -> None:
        line = self.lines[conv]
        if after != line.next - 1 or before <= line.next:
            self._fault(WRONG, conv, f"gap ({after}, {before}) where {line.next} was due")
        line.told = before - 1
        self._fill(conv, line)

    def page(self, conv: str, records: list[Record], more: bool) -> None:
        """A page of history that was asked for from the cursor on."""
        line = self.lines[conv]
        for record in records:
            if record.seq != line.next:
                self._fault(GAP, conv, f"the history has {record.seq} where {line.next} was due")
                return
            line.stream.append(self._ledger.one(record))
        line.filled = line.next - 1
        line.filling = False
        if more:
            self._fill(conv, line)
            return
        for seq in sorted(line.ahead):
            if seq == line.next:
                line.stream.append(self._ledger.one(line.ahead.pop(seq)))
            elif seq < line.next:
                del line.ahead[seq]
            else:  # the history ended before what was told meanwhile
                self._fill(conv, line)
                return

    def _fill(self, conv: str, line: Line) -> None:
        line.filling = True
        self.fills += 1
        self.wanted.append(conv)

    def _line(self, conv: str, epoch: str) -> Line:
        line = self.lines.get(conv)
        if line is None:
            stream = self._ledger.streams.setdefault((self.session, conv), [])
            line = self.lines[conv] = Line(epoch, stream)
        elif line.epoch != epoch:
            self._fault(WRONG, conv, f"the epoch was {line.epoch} and is {epoch}")
            line.epoch = epoch
        return line

    def _fault(self, kind: str, conv: str, text: str) -> None:
        self._ledger.fault(kind, f"{self.session}, {conv}: {text}")
