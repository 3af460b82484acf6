"""Bytes on their way to one peer, and everything that is decided about a peer that reads too slowly.

Theory. ``put`` is called once per recipient of every message, so it does almost nothing: it counts, appends the shared bytes and,
once per flush, marks the outbox dirty. `FlushSet.flush` then makes one non-blocking send per dirty outbox. ``pending_bytes``
counts all that waits anywhere on our side: whole frames here, the rest of a partial send, ciphertext that the kernel did not
take. The transport tells with `sent` what left. From the count follows the policy, and nobody ever waits on an outbox but those
who ask to (`wait_below`, `wait_not_lagging`):

- over the soft limit a live notice is refused and the outbox is *lagging*: the peer is told so, further live notices are refused
  until all is in the kernel, then ``on_drained`` is called;
- over the hard limit, at the write deadline (the transport's pump measures it), or when all outboxes together are too large and
  this one is the largest, it is *cut*: what waits is dropped but for the bytes already half sent, a last word is put, and
  ``on_cut`` ends the connection. Memory is free at once, whatever the peer does.

Flushing is explicit: who puts, flushes (`FlushSet.flush` for many recipients, ``transport.flush_nowait`` for one). A flush of many
is cut into slices, so that nobody else waits for a large channel.

*Source*: contract section 3 (slow reader) and section 7 (output); architecture section 1 (how bytes leave).
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import attrs
import trio

from chat.log import get_logger

TAKE_BYTES: Final = 128 * 1024  # the most that is joined for one send: a stalled peer's shared bytes are copied up to here, not more
BRIM_BYTES: Final = 64 * 1024  # what may gather before it goes out without waiting for the flush: a burst is no lag
ROUNDS: Final = 64  # of the scheduler that a flood waits for those who encrypt
SLICE_S: Final = 0.001  # of encrypting before other tasks run
HOLD_S: Final = 0.003  # of sending before other tasks run: a send takes 3 to 10 µs, and nobody else shall wait longer than 5 ms
STEP: Final = 64  # sends between two looks at the clock

log = get_logger("transport.outbox")


@attrs.frozen(kw_only=True)
class OutboxLimits:
    soft_bytes: int = 512 * 1024
    hard_bytes: int = 1024 * 1024
    write_deadline_s: float = 10.0


class Carrier(Protocol):
    """What an outbox needs of its transport."""

    def flush_nowait(self) -> None: ...

    def abort(self) -> None: ...


@attrs.define(eq=False)
class Outbox:
    """One peer's queue of framed bytes.

    ``lagging_frame`` and ``cut_frame`` are what a slow peer is told (framed), when live notices stop and when it is cut.
    """

    limits: OutboxLimits
    flush_set: "FlushSet"
    _pool: "OutboxPool"
    lagging_frame: bytes = b""
    cut_frame: bytes = b""
    carrier: Carrier | None = None  # the transport; None before it is there and after it closed
    on_drained: Callable[[], None] | None = None
    on_cut: Callable[[str], None] | None = None
    pending_bytes: int = 0
    lagging: bool = False
    sealed: bool = False
    cut_code: str | None = None
    chunks: list[bytes] = attrs.Factory(list)  # the transport's to take from, with `take`
    dirty: bool = False
    pooled_bytes: int = 0  # what the pool has counted of this one
    _mark: "Callable[[Outbox], None]" = attrs.field(init=False)
    _brim_bytes: int = attrs.field(init=False)
    _moved: trio.Event | None = None

    def __attrs_post_init__(self) -> None:
        self._mark = self.flush_set.mark  # three lookups less in `put`
        self._brim_bytes = min(BRIM_BYTES, self.limits.soft_bytes)

    # ------------------------------------------------------------ for who sends

    def put(self, data: bytes) -> bool:
        """Queue a live notice. *Returns* False when it was not taken: the peer lags, or the outbox is sealed."""
        if self.lagging or self.sealed:
            return False
        pending = self.pending_bytes + len(data)
        if pending > self._brim_bytes:
            return self._put_over(data)
        self.pending_bytes = pending
        self.chunks.append(data)
        if not self.dirty:
            self.dirty = True
            self._mark(self)
        return True

    def put_all(self, frames: list[bytes]) -> bool:
        """Queue live notices and answers together, where there is nothing to think about: little waits. *Returns* False when nothing was
        taken, and each must be put by itself."""
        pending = self.pending_bytes + sum(map(len, frames))
        if self.lagging or self.sealed or pending > self._brim_bytes:
            return False
        self.pending_bytes = pending
        self.chunks += frames
        if not self.dirty:
            self.dirty = True
            self._mark(self)
        return True

    def put_always(self, data: bytes) -> None:
        """Queue an answer, an ack or a control notice. Over the hard limit the peer is cut; nothing is put into a sealed outbox."""
        if self.sealed:
            return
        if self.pending_bytes + len(data) > self.limits.hard_bytes:
            self._flush_now()
            if self.sealed or self.pending_bytes + len(data) > self.limits.hard_bytes:
                self.cut("slow_consumer")
                return
        self._queue(data)

    def put_last(self, data: bytes) -> None:
        """Queue the last frame of the protocol below (a WebSocket's close frame), behind all that waits, also when sealed; then seal.

        Nothing may follow it, so it is not refused for what waits before it.
        """
        if self.carrier is not None:
            self._queue(data)
        self.seal()

    def seal(self) -> None:
        """Take nothing more. What waits still goes out. Who waits in `wait_below` or `wait_not_lagging` gets ClosedResourceError."""
        self.sealed = True
        self.wake()

    def cut(self, code: str) -> None:
        """Give this peer up: drop what waits, put the last word, seal, and tell the connection. Once."""
        if self.cut_code is not None or self.carrier is None:
            return
        self.cut_code = code
        self._pool.cut += 1
        self.drop()
        if self.cut_frame:
            self._queue(self.cut_frame)
        self.seal()
        self._pool.count(self)
        log.info("peer_cut", code=code)
        if not self._call(self.on_cut, code):
            self.carrier.abort()

    async def wait_below(self, n_bytes: int) -> None:
        """Wait until at most *n_bytes* wait: for who reads a long answer from the store. *Raises* ClosedResourceError when sealed."""
        await trio.lowlevel.checkpoint()
        while not self.sealed and self.pending_bytes > n_bytes:
            await self.wait_moved()
        self._check_open()

    async def wait_not_lagging(self) -> None:
        """Wait until a lagging peer has taken all. *Raises* ClosedResourceError when sealed."""
        await trio.lowlevel.checkpoint()
        while not self.sealed and self.lagging:
            await self.wait_moved()
        self._check_open()

    # ------------------------------------------------------------ for the transport

    def take(self) -> bytes:
        """Take whole chunks off the front, about `TAKE_BYTES` (one chunk at least), b"" when there are none. They stay counted."""
        chunks = self.chunks
        if len(chunks) == 1:
            data = chunks[0]
            chunks.clear()
            return data
        if self.pending_bytes <= TAKE_BYTES:
            data = b"".join(chunks)
            chunks.clear()
            return data
        size, n = 0, 0
        while n < len(chunks) and (not n or size + len(chunks[n]) <= TAKE_BYTES):
            size += len(chunks[n])
            n += 1
        data = b"".join(chunks[:n])
        del chunks[:n]
        return data

    def held(self, n_bytes: int) -> None:
        """The transport holds *n_bytes* of its own making (ciphertext, a key update) that the kernel did not take."""
        self.pending_bytes += n_bytes
        if self.pending_bytes > self.limits.hard_bytes + TAKE_BYTES:  # room for what is counted twice while it is encrypted
            self.cut("slow_consumer")

    def sent(self, n_bytes: int) -> None:
        """*n_bytes* of what was counted are in the kernel (or were encrypted, when the ciphertext is counted by `held`)."""
        self.pending_bytes -= n_bytes
        if self.lagging or self.pooled_bytes or self._moved is not None:
            self._settle()

    def stuck(self) -> None:
        """A send left something behind: from now on what waits counts to the sum of all."""
        self._pool.count(self)

    def drop(self) -> None:
        """Forget the frames that wait here; bytes that the transport has taken stay counted."""
        self.pending_bytes -= sum(map(len, self.chunks))
        self.chunks.clear()
        self.wake()

    def close(self) -> None:
        """The transport is closed: forget everything and everybody."""
        self.chunks.clear()
        self.pending_bytes = 0
        self._pool.count(self)
        self.seal()
        self.carrier = self.on_cut = self.on_drained = None

    # ------------------------------------------------------------ inside

    def _put_over(self, data: bytes) -> bool:
        """Much waits: what the peer did not take, or only a burst that was not flushed yet? Over the soft limit, the peer lags."""
        self._flush_now()
        if self.sealed or self.lagging:
            return False
        if self.pending_bytes + len(data) > (self.limits.soft_bytes if self.pending_bytes else self.limits.hard_bytes):
            self.lagging = True
            self._pool.lagging += 1
            if self.lagging_frame:
                self.put_always(self.lagging_frame)
            return False
        self._queue(data)
        return True

    def _settle(self) -> None:
        self._pool.count(self)
        self.wake()
        if self.lagging and self.pending_bytes == 0:
            self.lagging = False
            self._call(self.on_drained)

    def _queue(self, data: bytes) -> None:
        self.pending_bytes += len(data)
        self.chunks.append(data)
        if not self.dirty:
            self.dirty = True
            self._mark(self)

    def _flush_now(self) -> None:
        if self.carrier is not None:
            self.carrier.flush_nowait()

    def _call(self, callback: Callable[..., None] | None, *args: str) -> bool:
        """Call the connection's callback; its exception ends that connection and not the router that flushes. *Returns* done."""
        if callback is None:
            return False
        try:
            callback(*args)
        except Exception:
            log.exception("outbox_callback_failed")
            if self.carrier is not None:
                self.carrier.abort()
        return True

    async def wait_moved(self) -> None:
        """Wait until something left, was dropped or sealed, or a pump ended."""
        if self._moved is None:
            self._moved = trio.Event()
        await self._moved.wait()

    def wake(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None

    def _check_open(self) -> None:
        if self.sealed:
            raise trio.ClosedResourceError("the outbox is sealed")


@attrs.define(eq=False)
class OutboxPool:
    """What waits in all outboxes together, and its cap: over it the largest is cut, until the sum is below.

    Counted are outboxes that a flush could not empty, so `Outbox.put` has no share in it; between a put and the next flush the
    bytes are shared by all recipients anyway. What is cut counts no more: the few bytes that it still holds go with it in seconds,
    and would they count, one cut that frees little would lead to the next.
    """

    total_limit: int
    total_bytes: int = 0
    lagging: int = 0  # how often since the start; the same of those who were cut
    cut: int = 0
    _waiting: dict[Outbox, None] = attrs.Factory(dict)  # in order of arrival, so that of equals the first is cut

    def count(self, outbox: Outbox) -> None:
        pending = outbox.pending_bytes if outbox.cut_code is None else 0
        self.total_bytes += pending - outbox.pooled_bytes
        outbox.pooled_bytes = pending
        if not pending:
            self._waiting.pop(outbox, None)
            return
        self._waiting[outbox] = None
        while self.total_bytes > self.total_limit:
            max(self._waiting, key=_pooled).cut("slow_consumer")


def _pooled(outbox: Outbox) -> int:
    return outbox.pooled_bytes


class Encryptor(Protocol):
    """A transport whose bytes are made by a task: TLS."""

    async def encrypt(self) -> bool: ...

    def abort(self) -> None: ...


@attrs.define(eq=False)
class FlushSet:
    """The dirty outboxes. `flush` is called by the router once per routed batch; `run` is the one task that goes on where it stopped,
    and that encrypts.

    A flush of a large channel holds the loop for milliseconds, so it ends after `HOLD_S`: the rest waits in order for `run`, which
    lets other tasks run between its slices. What is put into an outbox that waits there goes out with it.

    Encrypting goes through ``SSLStream.send_all``, which is async though our stream below it never waits, and which breaks the
    stream when it is cancelled: so one task that no connection's cancel scope reaches does it for all, one slice each in turn.
    """

    dirty: list[Outbox] = attrs.Factory(list)
    mark: Callable[[Outbox], None] = attrs.field(init=False)
    _rest: deque[Outbox] = attrs.Factory(deque)  # of flushes that took too long; these are dirty still
    _encryptors: list[Encryptor] = attrs.Factory(list)
    _wanted: trio.Event = attrs.Factory(trio.Event)

    def __attrs_post_init__(self) -> None:
        self.mark = self.dirty.append

    def flush(self) -> None:
        """One non-blocking send for every dirty outbox (TLS: handed to `run`). Never waits, never raises."""
        if not self.dirty:
            return
        batch = self.dirty.copy()
        self.dirty.clear()
        end = time.monotonic() + HOLD_S if len(batch) > STEP else 0.0
        for at in range(0, len(batch), STEP):
            if at and time.monotonic() >= end:
                self._rest.extend(batch[at:])
                self._wanted.set()
                return
            for outbox in batch[at : at + STEP]:
                _flush_one(outbox)

    def encrypt_soon(self, transport: Encryptor) -> None:
        self._encryptors.append(transport)
        self._wanted.set()

    async def catch_up(self) -> None:
        """Let others run, and have encrypted what was handed over for that: in the middle of a flood, or readers that keep up would lag.

        *Waits* a bounded number of rounds, and cannot be cancelled.
        """
        for _ in range(ROUNDS):
            await trio.lowlevel.cancel_shielded_checkpoint()
            if not self._encryptors:
                break

    async def run(self) -> None:
        """Send and encrypt what waits, for ever, in slices. *If cancelled* the stream under way is broken: cancel it after the
        connections."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            self._go_on()
            batch, self._encryptors = self._encryptors, []
            slice_end = time.monotonic() + SLICE_S
            for transport in batch:
                await _encrypt_one(self, transport)
                if time.monotonic() >= slice_end:
                    await trio.lowlevel.checkpoint()
                    self._go_on()
                    slice_end = time.monotonic() + SLICE_S
            await trio.lowlevel.checkpoint()

    def _go_on(self) -> None:
        """One more slice of the flushes that took too long."""
        rest, end = self._rest, time.monotonic() + HOLD_S
        while rest:
            for _ in range(min(STEP, len(rest))):
                _flush_one(rest.popleft())
            if time.monotonic() >= end:
                break
        if rest:
            self._wanted.set()


def _flush_one(outbox: Outbox) -> None:
    outbox.dirty = False
    if outbox.carrier is not None:
        outbox.carrier.flush_nowait()


async def _encrypt_one(flush: FlushSet, transport: Encryptor) -> None:
    try:
        if await transport.encrypt():
            flush.encrypt_soon(transport)
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
        transport.abort()
    except Exception:
        log.exception("encrypt_failed")
        transport.abort()
