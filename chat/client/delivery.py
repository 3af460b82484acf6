"""Exact delivery: every record of every conversation once, in order, without a gap, whatever the connections in between did.

Theory. For each conversation there is a cursor (epoch, next). A record below `next` is dropped, the one at `next` goes to the
reader, one above it waits in a small buffer while the history is asked for what lies between. What tells that something is missing:
a record above `next`, a `gap`, `heads`, the acknowledgement of an own text. All of them only raise `head`, the highest seq known
to exist; as long as ``next <= head`` the conversation is *behind*, and `wants` names the page to ask for.

A reader that is slow must not make the connection wait (its own requests' answers come over it), nor fill the memory: with the
queue full, records are left out like by a lagging server, and asked for once the queue has room.

There are two cursors: of what was queued (for a resume within this process) and of what the reader has *consumed* (for the disk).
After a crash of this process the reader sees again what it had not finished with, and misses nothing.

Synchronous and without I/O; `chat.client.client` feeds it.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import attrs

from chat.protocol.messages import HistoryReset, ReadMarker, Removed

QUEUE_LIMIT: Final = 2000  # records that wait for the reader
AHEAD_LIMIT: Final = 1024  # records of one conversation that wait for the gap before them to be filled
PAGES_AT_ONCE: Final = 4
PAGE_LIMIT: Final = 500

Cursors = dict[str, tuple[str, int]]


@attrs.frozen(kw_only=True)
class Hidden:
    """What one may not see: sent before one joined a channel that keeps its history from newcomers. Both ends inclusive."""

    conv: str
    epoch: str
    from_seq: int
    seq: int


@attrs.frozen(kw_only=True)
class Missing:
    """What the server does not have any more. Both ends inclusive."""

    conv: str
    epoch: str
    from_seq: int
    seq: int


@attrs.define
class _Conversation:
    epoch: str
    next: int
    head: int
    start: int
    ahead: dict[int, Any] = attrs.Factory(dict)
    asked: tuple[str, int] | None = None  # (epoch, head) when a page was asked for

    @property
    def behind(self) -> bool:
        return self.next <= self.head


class Delivery:
    """The queue between the connection and the reader."""

    def __init__(self, cursors: Mapping[str, tuple[str, int]] | None = None, *, backlog: int = 0, queue_limit: int = QUEUE_LIMIT) -> None:
        """*backlog*: how many of the last records of a private conversation a reader without any cursor gets at first."""
        self._conversations = {conv: _Conversation(epoch, n, n - 1, n) for conv, (epoch, n) in (cursors or {}).items()}
        self._consumed: Cursors = dict(cursors or {})
        self._behind: set[str] = set()
        self._queue: deque[Any] = deque()
        self._limit = queue_limit
        self._backlog = backlog

    # ------------------------------------------------------------ the reader's side

    def __len__(self) -> int:
        return len(self._queue)

    def take(self) -> Any:
        """The next item. *Raises* IndexError."""
        return self._queue.popleft()

    def consumed(self, item: Any) -> bool:
        """The reader is done with *item*. Returns whether a cursor moved, so that the disk should know."""
        match item:
            case HistoryReset():
                self._consumed[item.conv] = (item.epoch, item.last_seq + 1)
            case Removed():
                self._consumed.pop(item.conv, None)
                if (again := self._conversations.get(item.conv)) is not None:  # joined again meanwhile
                    self._consumed[item.conv] = (again.epoch, again.start)
            case ReadMarker():
                return False  # of where another session is
            case _ if (seq := getattr(item, "seq", None)) is not None:
                self._consumed[item.conv] = (item.epoch, seq + 1)
            case _:
                return False
        return True

    @property
    def cursors(self) -> Cursors:
        """What a resume in this process names."""
        return {conv: (c.epoch, c.next) for conv, c in self._conversations.items()}

    @property
    def consumed_cursors(self) -> Cursors:
        """What a resume after this process's end shall name."""
        return dict(self._consumed)

    # ------------------------------------------------------------ the connection's side

    def control(self, notice: Any, *, droppable: bool = False) -> None:
        """A notice outside the conversations. *droppable*: worth nothing to a reader that is far behind."""
        if len(self._queue) < (self._limit if droppable else 4 * self._limit):
            self._queue.append(notice)

    def record(self, record: Any, *, last: int | None = None) -> None:
        """A record with conv, epoch and seq: live, replayed, or an own text at the place its ack gave it."""
        conversation = self._conversations.get(record.conv)
        if conversation is None:
            start = 1 if record.conv.startswith("@") else record.seq
            conversation = self._begin(record.conv, record.epoch, start)
        elif conversation.epoch != record.epoch:
            self.reset(HistoryReset(conv=record.conv, epoch=record.epoch, last_seq=record.seq - 1))
            conversation = self._conversations[record.conv]
        self._raise_head(record.conv, conversation, record.seq)
        if record.seq >= conversation.next and (record.seq == conversation.next or len(conversation.ahead) < AHEAD_LIMIT):
            conversation.ahead[record.seq] = record
            self._advance(record.conv, conversation)

    def outside_the_order(self, record: Any) -> None:
        """An own text whose ack was a ``dup``: its place is certain, but says nothing about what is new."""
        conversation = self._conversations.get(record.conv)
        if conversation is not None and conversation.epoch == record.epoch:
            self.record(record)

    def opened(self, heads: Mapping[str, tuple[str, int]], *, replayed: Collection[str] = ()) -> None:
        """A session was opened with these heads. What is not in them is gone; of the conversations that were *replayed* that was told."""
        fresh = not self._conversations
        for conv in [conv for conv in self._conversations if conv not in heads and conv not in replayed]:
            self.removed(Removed(conv=conv))
        for conv, (epoch, last) in heads.items():
            if conv in self._conversations:
                self._head(conv, epoch, last)
            elif not conv.startswith("@"):
                self._begin(conv, epoch, last + 1)
            else:
                start = max(1, last + 1 - self._backlog) if fresh else 1
                self._raise_head(conv, self._begin(conv, epoch, start), last)

    def heads(self, heads: Mapping[str, tuple[str, int]]) -> None:
        for conv, (epoch, last) in heads.items():
            self._head(conv, epoch, last)

    def joined(self, conv: str, epoch: str, last: int) -> None:
        """One's own join, answered by ``ok``: live from here on."""
        self._head(conv, epoch, last)

    def gap(self, conv: str, before: int) -> None:
        if (conversation := self._conversations.get(conv)) is not None:
            self._raise_head(conv, conversation, before - 1)

    def reset(self, notice: HistoryReset) -> None:
        """A new lineage: what was before means nothing, and the stream goes on behind its head of now."""
        self._begin(notice.conv, notice.epoch, notice.last_seq + 1)
        self.control(notice)

    def removed(self, notice: Removed) -> None:
        self._behind.discard(notice.conv)
        self._conversations.pop(notice.conv, None)
        self.control(notice)

    def left(self, conv: str) -> None:
        """One's own leave: nothing more is expected."""
        self._behind.discard(conv)
        self._conversations.pop(conv, None)
        self._consumed.pop(conv, None)

    # ------------------------------------------------------------ filling

    def wants(self) -> list[tuple[str, int]]:
        """The pages to ask for now, as (conv, after). Each counts as asked until `page` or `unasked`."""
        if len(self._queue) > self._limit // 2:
            return []
        pages: list[tuple[str, int]] = []
        asked = sum(1 for conv in self._behind if self._conversations[conv].asked)
        for conv in sorted(self._behind):
            conversation = self._conversations[conv]
            if conversation.asked:
                continue
            self._advance(conv, conversation)
            if conversation.behind and asked < PAGES_AT_ONCE:
                asked += 1
                conversation.asked = (conversation.epoch, conversation.head)
                pages.append((conv, conversation.next - 1))
        return pages

    def unasked(self, conv: str | None = None) -> None:
        """The page will not come; without *conv* none will: the connection is gone."""
        for name in [conv] if conv is not None else list(self._behind):
            if (conversation := self._conversations.get(name)) is not None:
                conversation.asked = None

    def page(self, conv: str, epoch: str, records: Iterable[tuple[int, Any]], *, more: bool, last_seq: int) -> None:
        """A page came: *records* are (first seq, record), ascending; a `Hidden` spans several."""
        conversation = self._conversations.get(conv)
        if conversation is None or conversation.asked is None:
            return
        (asked_epoch, asked_head), conversation.asked = conversation.asked, None
        if asked_epoch != conversation.epoch:
            return  # it answers a question about the old lineage
        if epoch != conversation.epoch:
            self.reset(HistoryReset(conv=conv, epoch=epoch, last_seq=last_seq))
            return
        for first, record in records:
            if record.seq >= conversation.next:
                self._skip(conv, conversation, first)
                self._accept(conversation, record)
                self._raise_head(conv, conversation, record.seq)
        if not more:  # what was known to exist when we asked, and is not there, will never come
            self._skip(conv, conversation, asked_head + 1)
        self._advance(conv, conversation)

    def never(self, conv: str) -> None:
        """The history is refused: go on behind what was asked for."""
        conversation = self._conversations.get(conv)
        if conversation is not None and conversation.asked is not None:
            self.page(conv, conversation.epoch, (), more=False, last_seq=conversation.head)

    # ------------------------------------------------------------ private

    def _begin(self, conv: str, epoch: str, start: int) -> _Conversation:
        conversation = self._conversations[conv] = _Conversation(epoch, start, start - 1, start)
        self._behind.discard(conv)
        self._consumed.setdefault(conv, (epoch, start))
        return conversation

    def _head(self, conv: str, epoch: str, last: int) -> None:
        conversation = self._conversations.get(conv)
        if conversation is None:
            conversation = self._begin(conv, epoch, 1 if conv.startswith("@") else last + 1)
        elif conversation.epoch != epoch:
            self.reset(HistoryReset(conv=conv, epoch=epoch, last_seq=last))
            return
        self._raise_head(conv, conversation, last)

    def _raise_head(self, conv: str, conversation: _Conversation, seq: int) -> None:
        conversation.head = max(conversation.head, seq)
        if conversation.behind:
            self._behind.add(conv)

    def _advance(self, conv: str, conversation: _Conversation) -> None:
        """Queue what follows on without a gap, as far as there is room."""
        while len(self._queue) < self._limit and (record := conversation.ahead.pop(conversation.next, None)) is not None:
            self._accept(conversation, record)
        if not conversation.behind:
            conversation.ahead.clear()
            self._behind.discard(conv)

    def _accept(self, conversation: _Conversation, record: Any) -> None:
        self._queue.append(record)
        if record.seq > conversation.next:  # it spans several
            for seq in [seq for seq in conversation.ahead if seq <= record.seq]:
                del conversation.ahead[seq]
        conversation.next = record.seq + 1

    def _skip(self, conv: str, conversation: _Conversation, following: int) -> None:
        """The records from `next` to before *following* are not to be had, but for those that came live."""
        while conversation.next < following:
            if (record := conversation.ahead.pop(conversation.next, None)) is not None:
                self._accept(conversation, record)
                continue
            end = min([following, *(seq for seq in conversation.ahead if seq > conversation.next)])
            self._accept(conversation, Missing(conv=conv, epoch=conversation.epoch, from_seq=conversation.next, seq=end - 1))
