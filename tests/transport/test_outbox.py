"""The outbox against a naive model: three peers, whose kernels take what the machine lets them take, and one pool."""

import attrs
import pytest
import trio
import trio.testing
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chat.transport.outbox import BRIM_BYTES, STEP, TAKE_BYTES, FlushSet, Outbox, OutboxLimits, OutboxPool

SOFT, HARD, TOTAL = 1000, 3000, 5000
LAGGING, CUT = b"<lagging>", b"<cut>"


@attrs.define(eq=False)
class Kernel:
    """The smallest carrier: a kernel that has room for ``room`` bytes. What it took is ``received``."""

    outbox: Outbox
    room: int = 0
    received: bytes = b""
    unsent: bytes = b""
    aborted: bool = False

    def flush_nowait(self) -> None:
        while not self.aborted:
            if not self.unsent:
                if not self.outbox.chunks:
                    return
                self.unsent = self.outbox.take()
            n = min(self.room, len(self.unsent))
            self.received += self.unsent[:n]
            self.unsent = self.unsent[n:]
            self.room -= n
            self.outbox.sent(n)
            if self.unsent:
                self.outbox.stuck()
                return

    def abort(self) -> None:
        self.aborted = True
        self.unsent = b""
        self.outbox.close()


def make(*, limits=None, total=TOTAL):
    flush, pool = FlushSet(), OutboxPool(total)
    limits = limits or OutboxLimits(soft_bytes=SOFT, hard_bytes=HARD)
    outbox = Outbox(limits=limits, flush_set=flush, pool=pool, lagging_frame=LAGGING, cut_frame=CUT)
    outbox.carrier = Kernel(outbox)
    return outbox, outbox.carrier, flush, pool


class Model:
    """One peer: every byte that it must get, in order, and how much of that its kernel has."""

    def __init__(self, flush, pool):
        limits = OutboxLimits(soft_bytes=SOFT, hard_bytes=HARD)
        self.outbox = Outbox(limits=limits, flush_set=flush, pool=pool, lagging_frame=LAGGING, cut_frame=CUT)
        self.kernel = self.outbox.carrier = Kernel(self.outbox)
        self.expected: list[bytes] = []  # whole frames, in order
        self.cuts: list[str] = []
        self.drained = 0
        self.outbox.on_cut = self.cuts.append
        self.outbox.on_drained = self.note_drained

    def note_drained(self):
        assert not self.outbox.lagging
        assert self.outbox.pending_bytes == 0
        self.drained += 1

    @property
    def waiting(self):
        return sum(map(len, self.expected)) - len(self.kernel.received)

    def forget_cut(self):
        """After a cut: what had not been begun is gone, and the last word follows."""
        got = self.kernel.received + self.kernel.unsent
        kept, size = [], 0
        while size < len(got):
            kept.append(self.expected[len(kept)])
            size += len(kept[-1])
        assert size == len(got), "a frame was torn"
        self.expected = [*kept, CUT]


class Outboxes(RuleBasedStateMachine):
    peers = st.integers(0, 2)
    sizes = st.one_of(st.integers(1, 60), st.sampled_from([500, 999, 1000, 1001, 2999, 3000, 3001]))

    def __init__(self):
        super().__init__()
        self.flush_set, self.pool = FlushSet(), OutboxPool(TOTAL)
        self.models = [Model(self.flush_set, self.pool) for _ in range(3)]
        self.n = 0

    def frame(self, size):
        self.n += 1
        return (b"%d|" % self.n).ljust(size, b".")[: max(size, 1)]

    def settle(self):
        for model in self.models:
            if model.cuts and CUT not in model.expected:
                model.forget_cut()

    @rule(peer=peers, size=sizes)
    def put(self, peer, size):
        model, data = self.models[peer], self.frame(size)
        outbox = model.outbox
        refused, lagged = outbox.lagging or outbox.sealed, outbox.lagging
        room = model.kernel.room
        before = outbox.pending_bytes
        taken = outbox.put(data)
        if refused:
            assert not taken
        elif before + len(data) <= SOFT or (before <= room and len(data) <= HARD):  # the kernel took the rest when it was asked
            assert taken
        elif not taken and not outbox.sealed:
            assert outbox.lagging
        if taken:
            model.expected.append(data)
        elif not lagged and outbox.lagging:
            model.expected.append(LAGGING)
        self.settle()

    @rule(peer=peers, size=sizes)
    def put_always(self, peer, size):
        model, data = self.models[peer], self.frame(size)
        sealed, before, room = model.outbox.sealed, model.outbox.pending_bytes, model.kernel.room
        model.outbox.put_always(data)
        if not sealed and not model.cuts:
            model.expected.append(data)
        elif not sealed:
            assert before - room + len(data) > HARD or self.pool.total_limit < HARD * 3
        self.settle()

    @rule(size=sizes)
    def broadcast(self, size):
        """One blob for all, then one flush."""
        for peer in range(3):
            self.put(peer, size)
        self.flush()

    @rule()
    def flush(self):
        self.flush_set.flush()
        assert not self.flush_set.dirty or any(model.cuts for model in self.models)
        self.settle()

    @rule(peer=peers, room=st.integers(0, 4000))
    def kernel_takes(self, peer, room):
        kernel = self.models[peer].kernel
        kernel.room = room
        kernel.flush_nowait()
        self.settle()

    @rule(peer=peers)
    def seal(self, peer):
        self.models[peer].outbox.seal()

    @precondition(lambda self: any(model.outbox.sealed for model in self.models))
    @rule(peer=peers)
    def replace(self, peer):
        """A peer that ended comes back with a new connection."""
        if self.models[peer].outbox.sealed:
            self.models[peer].kernel.abort()
            assert self.models[peer].outbox.pooled_bytes == 0
            self.models[peer] = Model(self.flush_set, self.pool)

    @invariant()
    def every_byte_is_counted(self):
        for model in self.models:
            assert model.outbox.pending_bytes == sum(map(len, model.outbox.chunks)) + len(model.kernel.unsent) == model.waiting

    @invariant()
    def bytes_go_out_whole_and_in_order(self):
        for model in self.models:
            assert b"".join(model.expected).startswith(model.kernel.received)

    @invariant()
    def nothing_exceeds_its_limit(self):
        for model in self.models:
            assert model.outbox.pending_bytes <= HARD + len(CUT)
            assert len(model.cuts) <= 1
            assert not model.cuts or (model.cuts == ["slow_consumer"] and model.outbox.sealed)

    @invariant()
    def lagging_ends_with_the_last_byte(self):
        for model in self.models:
            assert not (model.outbox.lagging and model.outbox.pending_bytes == 0)

    @invariant()
    def the_pool_knows_the_sum_of_what_is_stuck(self):
        if not self.flush_set.dirty:
            stuck = [model.outbox for model in self.models if model.kernel.unsent and not model.cuts]
            assert self.pool.total_bytes == sum(outbox.pending_bytes for outbox in stuck) <= TOTAL


TestOutboxes = Outboxes.TestCase
TestOutboxes.settings = settings(stateful_step_count=40)


# ---------------------------------------------------------------- what the machine does not reach


def test_an_outbox_is_marked_dirty_once_per_flush():
    outbox, kernel, flush, _ = make()
    kernel.room = 10**6
    for _ in range(3):
        outbox.put(b"a")
        outbox.put_always(b"b")
    assert flush.dirty == [outbox]
    flush.flush()
    assert flush.dirty == []
    outbox.put(b"c")
    assert flush.dirty == [outbox]
    flush.flush()
    assert kernel.received == b"ababab" + b"c"


def test_a_burst_goes_out_before_the_flush_when_much_has_gathered():
    outbox, kernel, *_ = make(limits=OutboxLimits())
    kernel.room = 10**9
    for n in range(1, 100):
        assert outbox.put(b"." * 1024 * 10)
        assert outbox.pending_bytes <= BRIM_BYTES
        assert len(kernel.received) + outbox.pending_bytes == n * 1024 * 10


def test_frames_are_put_together_only_where_there_is_nothing_to_think_about():
    outbox, kernel, flush, _ = make(limits=OutboxLimits())
    assert outbox.put_all([b"a", b"b"])
    assert flush.dirty == [outbox]
    assert not outbox.put_all([b"c", b"." * BRIM_BYTES])
    kernel.room = 10**9
    flush.flush()
    assert kernel.received == b"ab"
    outbox.lagging = True
    assert not outbox.put_all([b"c"])
    outbox.lagging = False
    outbox.seal()
    assert not outbox.put_all([b"c"])
    assert outbox.pending_bytes == 0


def test_one_frame_above_the_soft_limit_passes_when_nothing_waits():
    outbox, *_ = make()
    assert outbox.put(b"x" * (SOFT + 1))
    assert not outbox.lagging


def test_shared_bytes_are_not_copied():
    outbox, *_ = make()
    blob = b"x" * 100
    outbox.put(blob)
    assert outbox.take() is blob


def test_a_take_is_of_whole_chunks_and_bounded():
    outbox, *_ = make(limits=OutboxLimits(soft_bytes=1 << 30, hard_bytes=1 << 30))
    for n in range(5):
        outbox.put_always(bytes([n]) * (TAKE_BYTES // 2))
    outbox.put_always(b"z" * 3 * TAKE_BYTES)
    sizes = []
    while outbox.chunks:
        sizes.append(len(outbox.take()))
    assert sizes == [TAKE_BYTES, TAKE_BYTES, TAKE_BYTES // 2, 3 * TAKE_BYTES]


def test_the_pool_cuts_the_largest_and_nobody_else():
    flush, pool = FlushSet(), OutboxPool(2500)
    models = [Model(flush, pool) for _ in range(3)]
    for model, size in zip(models, (900, 1000, 800), strict=True):
        model.outbox.put(b"x" * 10)
        model.outbox.put(b"y" * (size - 10))
        model.kernel.flush_nowait()
    assert [model.cuts for model in models] == [[], ["slow_consumer"], []]
    assert pool.total_bytes == 1700
    assert models[1].outbox.pending_bytes == 1000 + len(CUT)  # what its carrier had taken, and the last word


def test_a_farewell_can_follow_from_the_callback_only_as_the_last_word():
    outbox, kernel, *_ = make()
    outbox.on_cut = lambda code: outbox.put_always(b"too late")
    outbox.put_always(b"x" * 100)
    outbox.put_always(b"y" * HARD)
    kernel.room = 10**6
    kernel.flush_nowait()
    assert kernel.received.endswith(CUT)
    assert b"too late" not in kernel.received


def test_callbacks_may_put_and_the_flush_goes_on():
    outbox, kernel, flush, _ = make()
    outbox.on_drained = lambda: outbox.put_always(b"<heads>")
    outbox.put(b"x" * SOFT)
    assert not outbox.put(b"y")
    kernel.room = 10**6
    flush.flush()
    assert kernel.received == b"x" * SOFT + LAGGING + b"<heads>"


def test_a_callback_that_fails_ends_that_peer_and_not_the_flush():
    flush, pool = FlushSet(), OutboxPool(TOTAL)
    models = [Model(flush, pool) for _ in range(2)]
    models[0].outbox.on_drained = lambda: 1 / 0
    models[0].outbox.put(b"x" * SOFT)
    models[0].outbox.put(b"y")
    models[1].outbox.put(b"z")
    for model in models:
        model.kernel.room = 10**6
    flush.flush()
    assert models[0].kernel.aborted
    assert models[1].kernel.received == b"z"


async def test_waiting_until_little_waits():
    outbox, kernel, *_ = make()
    outbox.put(b"x" * 900)
    kernel.flush_nowait()
    passed = []

    async def wait(n_bytes):
        await outbox.wait_below(n_bytes)
        passed.append(n_bytes)

    async with trio.open_nursery() as nursery:
        for n_bytes in (1000, 900, 500, 0):
            nursery.start_soon(wait, n_bytes)
        for room, expected in ((0, {1000, 900}), (399, {1000, 900}), (1, {1000, 900, 500}), (500, {1000, 900, 500, 0})):
            kernel.room = room
            kernel.flush_nowait()
            await trio.testing.wait_all_tasks_blocked()
            assert set(passed) == expected


@pytest.mark.parametrize("end", ["seal", "close", "cut"])
async def test_waiting_ends_with_the_outbox(end):
    outbox, kernel, *_ = make()
    outbox.put(b"x" * SOFT)
    outbox.put(b"y")
    kernel.flush_nowait()
    assert outbox.lagging

    async def wait(waiting):
        with pytest.raises(trio.ClosedResourceError):
            await waiting

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, outbox.wait_not_lagging())
        nursery.start_soon(wait, outbox.wait_below(0))
        await trio.testing.wait_all_tasks_blocked()
        getattr(outbox, end)(*(["slow_consumer"] if end == "cut" else []))


# ---------------------------------------------------------------- a flush of many


@pytest.fixture
def many(monkeypatch):
    """Three steps of peers, a flush that may hold the loop for no time at all, and kernels with room."""
    monkeypatch.setattr("chat.transport.outbox.HOLD_S", 0.0)
    flush, pool = FlushSet(), OutboxPool(10**9)
    models = [Model(flush, pool) for _ in range(3 * STEP)]
    for model in models:
        model.kernel.room = 10**6
        model.outbox.put(b"one")
    return flush, models


def reached(models):
    return sum(model.kernel.received != b"" for model in models)


async def test_a_flush_of_many_goes_on_later_in_order_and_others_run_between(many, nursery):
    flush, models = many
    flush.flush()
    assert reached(models) == STEP
    assert models[0].kernel.received == b"one"
    seen = []

    async def look():
        while reached(models) < len(models):
            seen.append(reached(models))
            await trio.lowlevel.checkpoint()

    nursery.start_soon(flush.run)
    nursery.start_soon(look)
    await trio.testing.wait_all_tasks_blocked()
    assert 2 * STEP in seen
    assert all(model.kernel.received == b"one" for model in models)
    nursery.cancel_scope.cancel()


async def test_what_is_put_meanwhile_goes_out_with_the_rest_and_who_is_not_among_them_need_not_wait(many, nursery):
    flush, models = many
    flush.flush()
    models[-1].outbox.put(b"two")
    models[0].outbox.put(b"two")
    flush.flush()
    assert models[0].kernel.received == b"onetwo"
    assert models[-1].kernel.received == b""
    nursery.start_soon(flush.run)
    await trio.testing.wait_all_tasks_blocked()
    assert models[-1].kernel.received == b"onetwo"
    nursery.cancel_scope.cancel()
