"""What one device saw, by the rules that chat/protocol/README.md gives a client, kept strictly.

A client keeps (epoch, next number) of each conversation. A record with that number is taken; one below was seen; one above means that
something is missing, which is asked of the history. The server makes this necessary in three cases alone: it said ``gap`` (too much to
replay), it said ``lagging``, or the conversation was there before this device. In every other case a hole, or a record that comes twice, is
the server's fault.
"""

import attrs

from chat.prove.ledger import ALTERED, DOUBLED, GAP, LOST, ORDER, Ledger, Record


@attrs.define(eq=False)
class Thread:
    """One conversation. ``stream`` is all that was taken, from the first record on."""

    epoch: str
    stream: list[Record]
    told: int = 0  # the highest number that this connection brought
    filled: int = 0  # up to here the history was read, maybe before the server told: that much may come again
    filling: bool = False
    ahead: dict[int, Record] = attrs.Factory(dict)

    @property
    def next(self) -> int:
        return len(self.stream) + 1


@attrs.define(eq=False)
class Cursor:
    device: str
    ledger: Ledger
    threads: dict[str, Thread] = attrs.Factory(dict)
    wanted: list[str] = attrs.Factory(list)  # conversations to ask the history of
    lagged: bool = False
    lags: int = 0
    fills: int = 0
    taken: int = 0

    def connect(self) -> dict[str, tuple[str, int]]:
        """A new connection begins. *Returns* where to go on in each conversation."""
        self.lagged = False
        self.wanted.clear()
        for thread in self.threads.values():
            thread.told = 0
            thread.filling = False
            thread.ahead.clear()
        return {conv: (thread.epoch, thread.next) for conv, thread in self.threads.items()}

    def lagging(self) -> None:
        self.lagged = True
        self.lags += 1

    def take(self, record: Record) -> None:
        """Told live, told again after a resume, or acknowledged in the place of that."""
        thread = self._thread(record.conv, record.epoch)
        seq = record.seq
        if seq <= thread.told:
            seen = seq < thread.next and thread.stream[seq - 1] == record
            kind = DOUBLED if seen else ORDER
            self._fault(kind, record, f"{self.device} was told {record.place} after {thread.told}, on one connection")
            return
        thread.told = seq
        if thread.filling:
            thread.ahead[seq] = record
        elif seq == thread.next:
            self._append(thread, record)
        elif seq > thread.next:
            if not self.lagged:
                self._fault(GAP, record, f"{self.device} was told {record.place} where {thread.next} was due", (record.conv, thread.next))
            self._fill(record.conv, thread)
            thread.ahead[seq] = record
        elif seq > thread.filled:
            self._fault(DOUBLED, record, f"{self.device} was told {record.place} again: it had asked to go on at {thread.next}")
        elif thread.stream[seq - 1] != record:
            self._fault(ALTERED, record, f"{self.device} was told {record} in {record.conv}, and had {thread.stream[seq - 1]}")

    def head(self, conv: str, epoch: str, seq: int) -> None:
        """The last number of a conversation, as the server says at this place in the bytes."""
        new = conv not in self.threads
        thread = self._thread(conv, epoch)
        if seq >= thread.next and not thread.filling:
            if not (new or self.lagged):
                self.ledger.fault(GAP, f"{self.device} was never told {thread.next} of {conv}, whose last is {seq}", (conv, thread.next))
            self._fill(conv, thread)

    def gap(self, conv: str, after: int, before: int) -> None:
        thread = self.threads[conv]
        if after != thread.next - 1 or before <= thread.next:
            what = f"{self.device} was told of a gap from {after} to {before} in {conv}, where {thread.next} was due"
            self.ledger.fault(GAP, what, (conv, after))
        thread.told = before - 1
        self._fill(conv, thread)

    def page(self, conv: str, records: list[Record], more: bool) -> None:
        """A page of the history, which was asked for from the cursor on."""
        thread = self.threads[conv]
        for record in records:
            if record.seq != thread.next:
                what = f"{self.device} read {record.place} in the history where {thread.next} was due"
                self._fault(GAP, record, what, (conv, thread.next))
                return
            self._append(thread, record)
        thread.filled = thread.next - 1
        thread.filling = False
        if more:
            self._fill(conv, thread)
            return
        for seq in sorted(thread.ahead):
            if seq == thread.next:
                self._append(thread, thread.ahead.pop(seq))
            elif seq < thread.next:
                del thread.ahead[seq]
            else:  # the history ended before what was told meanwhile
                self._fill(conv, thread)
                return

    def reset(self, conv: str, epoch: str, last: int) -> None:
        """The server says that this device knows more than there is."""
        thread = self._thread(conv, epoch)
        gone = thread.stream[last] if last < len(thread.stream) else None
        what = f"{self.device} had seen {len(thread.stream)} records of {conv}; the server says that there are {last}"
        self.ledger.fault(LOST, what, (self.ledger.said(gone) or (conv, gone.seq)) if gone else None)

    def _append(self, thread: Thread, record: Record) -> None:
        thread.stream.append(self.ledger.one(record))
        self.taken += 1

    def _fill(self, conv: str, thread: Thread) -> None:
        thread.filling = True
        self.fills += 1
        self.wanted.append(conv)

    def _thread(self, conv: str, epoch: str) -> Thread:
        thread = self.threads.get(conv)
        if thread is None:
            thread = self.threads[conv] = Thread(epoch, self.ledger.streams.setdefault((self.device, conv), []))
        elif thread.epoch != epoch:
            self.ledger.fault(ALTERED, f"{self.device}: the epoch of {conv} was {thread.epoch} and is {epoch}")
            thread.epoch = epoch
        return thread

    def _fault(self, kind: str, record: Record, what: str, about: tuple[str, int] | None = None) -> None:
        self.ledger.fault(kind, what, about or self.ledger.said(record) or (record.conv, record.seq))
