"""Own texts on their way: one at a time for each conversation, so that their order survives refusals, retries and reconnects.

Theory. A text that is refused for now (``rate_limited``, ``busy`` …) is sent again later; had the next one of that conversation already
been on its way, it could be stored before. So each conversation has a lane, and only the head of a lane is on the wire. The server
commits within milliseconds, and a person's rate is 5 a second: nothing is lost by it.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
import trio

from chat.client.outbox import Item, Outbox
from chat.client.reconnect import RETRY_LATER
from chat.errors import CODES, ChatError
from chat.protocol.messages import Ack, Error, Message, Result, Send


@attrs.define(eq=False)
class Sending:
    """A text that is on disk. `outcome` waits for what the server says."""

    item: Item
    again_at: float = 0.0  # refused for now: when it is sent again (`time.monotonic`), and why
    why: str = ""
    _done: trio.Event = attrs.Factory(trio.Event)
    _answer: "Ack | Result | Exception | None" = None

    async def outcome(self) -> "Ack | Result":
        """Result where the text was a command. *Raises* ChatError: definitely not stored. *If cancelled*: it is still sent."""
        await self._done.wait()
        assert self._answer is not None
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def settle(self, answer: "Ack | Result | Exception") -> None:
        if not self._done.is_set():
            self._answer = answer
            self._done.set()


class Lanes:
    """The items of an outbox, on the wire one by one. *post* sends a request; *later* calls back after some seconds."""

    def __init__(self, outbox: Outbox, post: Callable[[Any], int], later: Callable[[float, Callable[[], None]], None]) -> None:
        self._outbox = outbox
        self._post = post
        self._later = later
        self._lanes: dict[str, deque[Sending]] = {}
        self._by_cid: dict[str, Sending] = {}
        self._on_wire: dict[int, str] = {}  # request id → cid
        self._online = False
        for item in outbox.items:  # of an earlier process
            self.add(Sending(item))

    def __len__(self) -> int:
        return len(self._by_cid)

    @property
    def pending(self) -> list[Item]:
        return [sending.item for sending in self._by_cid.values()]

    def waits(self, cid: str) -> tuple[float, str]:
        """See `chat.client.client.Client.waits`."""
        sending = self._by_cid.get(cid)
        return (max(0.0, sending.again_at - time.monotonic()), sending.why) if sending is not None else (0.0, "")

    @property
    def unsettled(self) -> list[Sending]:
        return list(self._by_cid.values())

    def add(self, sending: Sending) -> None:
        """The item is on disk: send it when its turn comes."""
        lane = self._lanes.setdefault(sending.item.to, deque())
        lane.append(sending)
        self._by_cid[sending.item.cid] = sending
        if len(lane) == 1:
            self._transmit(sending)

    def online(self) -> None:
        """A session is open: what was not acknowledged goes out again."""
        self._online = True
        for lane in self._lanes.values():
            self._transmit(lane[0])

    def offline(self) -> None:
        self._online = False
        self._on_wire.clear()

    def answered(self, answer: Any) -> bool:
        """An answer came; returns whether it was one to a text of ours."""
        cid = self._on_wire.pop(answer.id, None) if answer.id is not None else None
        if cid is None:
            return False
        sending = self._by_cid.get(cid)
        if sending is None:  # settled meanwhile by its record in a replay
            return True
        if isinstance(answer, Error) and (answer.code in RETRY_LATER or answer.code == "unauthorized"):
            delay_s = answer.retry_after or 1.0
            sending.again_at, sending.why = time.monotonic() + delay_s, answer.message
            self._later(delay_s, lambda: self._again(sending))
        else:
            self._settle(sending, error_of(answer) if isinstance(answer, Error) else answer)
        return True

    def acknowledged(self, ack: Ack) -> Message | None:
        """The text of an ack as the record it became; None when it is none of ours, or was settled before."""
        sending = self._by_cid.get(ack.cid)
        return None if sending is None else _record(sending.item, ack)

    def seen(self, record: Message) -> None:
        """A record with a cid came in replay or history: that is as good as its ack."""
        if record.cid is not None and (sending := self._by_cid.get(record.cid)) is not None:
            ack = Ack(id=0, cid=record.cid, conv=record.conv, epoch=record.epoch, seq=record.seq, ts=record.ts, dup=True)
            self._settle(sending, ack)

    def fail(self, error: Exception) -> None:
        """There will be no more connection in this process. The items stay on disk."""
        self._online = False
        for sending in self._by_cid.values():
            sending.settle(error)

    def _transmit(self, sending: Sending) -> None:
        if not self._online:
            return
        item = sending.item
        target = {"channel": item.to[1:]} if item.to.startswith("#") else {"to": item.to[1:]}
        number = self._post(Send(id=0, cid=item.cid, text=item.text, reply_to=item.reply_to, **target))
        self._on_wire[number] = item.cid

    def _again(self, sending: Sending) -> None:
        lane = self._lanes.get(sending.item.to)
        if lane and lane[0] is sending and sending.item.cid not in self._on_wire.values():
            self._transmit(sending)

    def _settle(self, sending: Sending, answer: "Ack | Result | Exception") -> None:
        self._outbox.done(sending.item.cid)
        del self._by_cid[sending.item.cid]
        lane = self._lanes[sending.item.to]
        head = lane[0] is sending
        lane.remove(sending)
        if not lane:
            del self._lanes[sending.item.to]
        elif head:
            self._transmit(lane[0])
        sending.settle(answer)


def error_of(answer: Error) -> ChatError:
    code = answer.code if answer.code in CODES else "internal_error"
    return ChatError(code, answer.message, retry_after=answer.retry_after)


def _record(item: Item, ack: Ack) -> Message:
    return Message(
        conv=ack.conv, epoch=ack.epoch, seq=ack.seq, ts=ack.ts, from_="", text=item.text, reply_to=item.reply_to, cid=item.cid
    )  # fmt: skip
