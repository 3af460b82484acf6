"""The committer over a real store: the order of outcomes, and who learns what when a commit fails."""

import contextlib
import sqlite3
import threading

import attrs
import pytest
import structlog
import trio

from chat.rooms import effects as e
from chat.rooms.effects import Action
from chat.store.base import CommitFailed
from chat.store.committer import FLOOD, GROUP_MAX, ON_ITS_WAY, SLICE, Committer
from chat.store.sqlite import open_sqlite
from tests.store.build import ANN, BOB, LOBBY, OWNER, account, do, refused, say, seqs, start, world
from tests.store.faults import Faults, error
from tests.store.test_sqlite_commit import LOCKER


@attrs.define(eq=False)
class House:
    """What the committer calls, written down."""

    store: object
    faults: Faults
    committer: Committer = None
    routed: list = attrs.Factory(list)  # a list of outcomes for each call
    flushed: list = attrs.Factory(list)  # how many had been routed, at each flush
    failures: list = attrs.Factory(list)
    refunded: list = attrs.Factory(list)
    _more: trio.Event = attrs.Factory(trio.Event)

    def route(self, outcomes):
        self.routed.append(outcomes)
        self._notify()

    def flush(self):
        self.flushed.append(sum(map(len, self.routed)))

    def on_failure(self, generation):
        self.failures.append(generation)
        self._notify()

    def refund(self, action):
        assert action.refusal is None or action.charged  # or nobody could tell what to give back
        self.refunded.append(action)

    def _notify(self):
        self._more.set()
        self._more = trio.Event()

    async def until(self, true):
        while not true():
            await self._more.wait()

    async def send(self, *actions):
        """Put them in as one batch and wait for their outcomes."""
        await self.committer.batches.send(list(actions))
        await self.until(lambda: actions[-1] in [outcome.action for outcomes in self.routed for outcome in outcomes])
        mine = {id(action) for action in actions}
        return [outcome for outcomes in self.routed for outcome in outcomes if id(outcome.action) in mine]


@pytest.fixture
async def house(tmp_path):
    async with open_sqlite(tmp_path, busy_timeout_s=0.05, min_free_bytes=0, clock=lambda: 1) as store:
        store.writer.commit(world())
        house = House(store, Faults(store.writer))
        house.committer = Committer(
            store.writer,
            route=house.route,
            flush=house.flush,
            pause=trio.lowlevel.cancel_shielded_checkpoint,
            on_failure=house.on_failure,
            refund=house.refund,
        )
        yield house


@contextlib.asynccontextmanager
async def running(house):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.committer.run)
        yield nursery
        await house.committer.batches.aclose()


async def texts(house, conv=LOBBY):
    return [row.body for row in (await house.store.history(conv, after=0, before=None, limit=500, max_bytes=10**9)).rows]


def ban(**more):
    return do(e.PutBan(account=BOB, by=OWNER, at_ms=1, until_ms=None, reason=None), **more)


# ---------------------------------------------------------------- order and groups


async def test_outcomes_leave_in_the_order_of_their_actions(house):
    actions = [say("a", "c1"), refused(None), say("b", "c2"), do(e.Tell(account=None, message=None)), refused("c1", "a"), say("c")]
    async with running(house):
        await house.send(*actions)
    (outcomes,) = house.routed
    assert [outcome.action for outcome in outcomes] == actions
    assert seqs(outcomes) == [[1], "rate_limited", [2], [], "dup", [3]]


async def test_batches_that_wait_are_one_transaction(house):
    for n in range(30):
        house.committer.batches.send_nowait([say(f"{n}a"), say(f"{n}b")])
    async with running(house):
        await house.until(lambda: house.routed)
    assert house.faults.count("BEGIN") == 1
    assert len(house.routed) == 1
    assert await texts(house) == [f"{n}{letter}" for n in range(30) for letter in "ab"]


async def test_a_group_is_bounded(house):
    for _ in range(5):
        house.committer.batches.send_nowait([say("x") for _ in range(GROUP_MAX // 2)])
    async with running(house):
        await house.until(lambda: sum(map(len, house.routed)) == 5 * GROUP_MAX // 2)
    assert house.faults.count("BEGIN") == 3
    assert house.flushed == [GROUP_MAX, 2 * GROUP_MAX, 2 * GROUP_MAX + GROUP_MAX // 2]


async def test_in_a_flood_what_is_on_its_way_comes_into_the_same_group(house):
    async with running(house):
        await house.send(*[say(f"a{n}") for n in range(FLOOD)])
        began = house.faults.count("BEGIN")
        house.committer.batches.send_nowait([say("b")])
        for _ in range(ON_ITS_WAY):
            await trio.lowlevel.checkpoint()
        house.committer.batches.send_nowait([say("c")])
        await house.until(lambda: sum(map(len, house.routed)) == FLOOD + 2)
    assert house.faults.count("BEGIN") == began + 1


async def test_a_steady_load_does_not_keep_a_group_open(house):
    async with running(house):
        await house.send(*[say(f"a{n}") for n in range(FLOOD)])
        for n in range(30):
            await house.committer.batches.send([say(f"b{n}")])
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        await house.until(lambda: sum(map(len, house.routed)) == FLOOD + 30)
    assert house.flushed[1] < FLOOD + 30


async def test_a_large_group_is_told_in_slices_between_which_others_run_and_flushed_at_its_end(house):
    actions = [say(str(n)) for n in range(3 * SLICE + 1)]
    seen = []

    async def look():
        while sum(map(len, house.routed)) < len(actions):
            await trio.lowlevel.checkpoint()
            seen.append((len(house.routed), len(house.flushed)))

    house.committer.batches.send_nowait(actions)
    async with running(house) as nursery:
        nursery.start_soon(look)
    assert [len(outcomes) for outcomes in house.routed] == [SLICE, SLICE, SLICE, 1]
    assert any(0 < routed < 4 and not flushed for routed, flushed in seen)
    assert house.flushed == [len(actions)]
    assert [outcome.action for outcomes in house.routed for outcome in outcomes] == actions


async def test_a_large_group_is_told_to_its_end_though_all_is_cancelled(house):
    actions = [say(str(n)) for n in range(3 * SLICE)]
    async with trio.open_nursery() as nursery:
        told = house.route

        def route(outcomes):
            told(outcomes)
            nursery.cancel_scope.cancel()

        house.committer._route = route
        nursery.start_soon(house.committer.run)
        house.committer.batches.send_nowait(actions)
    assert sum(map(len, house.routed)) == len(actions)
    assert house.flushed == [len(actions)]


async def test_what_needs_no_store_does_not_ask_it(house):
    async with running(house):
        await house.send(refused(None), do(e.Tell(account=None, message=None)), Action(reply="hello"))
    assert house.faults.log == []
    assert seqs(house.routed[0]) == ["rate_limited", [], []]


async def test_everything_sent_before_the_end_is_committed(house):
    for n in range(10):
        house.committer.batches.send_nowait([say(str(n)) for _ in range(GROUP_MAX // 2)])
    await house.committer.batches.aclose()
    await house.committer.run()
    assert sum(map(len, house.routed)) == 10 * GROUP_MAX // 2
    assert (await house.store.history(LOBBY, after=None, before=None, limit=1, max_bytes=1)).last_seq == 10 * GROUP_MAX // 2


async def test_a_commit_under_way_is_routed_even_when_cancelled(house):
    token = trio.lowlevel.current_trio_token()
    async with trio.open_nursery() as nursery:
        house.faults.before = lambda sql: token.run_sync_soon(nursery.cancel_scope.cancel) if sql == "COMMIT" else None
        nursery.start_soon(house.committer.run)
        house.committer.batches.send_nowait([say("a")])
    assert [seqs(outcomes) for outcomes in house.routed] in ([], [[[1]]])
    assert house.faults.count("COMMIT") == len(house.routed) == len(await texts(house))


async def test_load_stands_behind_the_batches_sent_before_it(house):
    async with running(house):
        house.committer.batches.send_nowait([say("a"), ban()])
        snapshot = await house.committer.load()
        assert [row.last_seq for row in snapshot.rooms if row.room == LOBBY] == [1]
        assert len(snapshot.bans) == 1
        assert await house.committer.tidy(cids_before_ms=0) is False


# ---------------------------------------------------------------- dropped, refunded


async def test_a_retry_is_refunded_and_a_conflict_is_not(house):
    async with running(house):
        first, retry, conflict = say("a", "c1"), say("a", "c1"), say("b", "c1")
        charged, fresh = refused("c1", "a", charged=True), refused("c2", "a", charged=True)
        outcomes = await house.send(first, retry, conflict, refused("c1", "a"), charged, fresh, say("x", reply_to=99))
    assert seqs(outcomes) == [[1], "dup", "cid_conflict", "dup", "dup", "rate_limited", "bad_request"]
    assert house.refunded == [retry, charged]
    assert house.failures == []


async def test_a_decision_that_was_dropped_fails_its_generation(house):
    async with running(house):
        await house.send(ban(cid="c1", digest=b"d", result=b"r"), do(e.DropBan(account=BOB)))
        retry = ban(cid="c1", digest=b"d", result=b"r", generation=4)
        assert seqs(await house.send(retry, say("a", generation=4))) == ["dup", "storage_unavailable"]
        assert house.failures == [4]
        assert seqs(await house.send(say("b", generation=4))) == ["storage_unavailable"]
        assert (await house.committer.load()).bans == []
        assert seqs(await house.send(say("c", generation=5))) == [[1]]
    assert house.failures == [4]


async def test_one_bad_row_fails_alone(house):
    async with running(house):
        outcomes = await house.send(say("a", generation=1), do(account(55, "ann"), generation=0), say("b", generation=1))
    assert seqs(outcomes) == [[1], "name_taken", [2]]
    assert house.failures == [0]


# ---------------------------------------------------------------- definite failures


async def test_a_failed_batch_of_texts_is_told_and_nothing_more(house):
    house.faults.fail("INSERT INTO records", sqlite3.SQLITE_FULL, times=1)
    async with running(house):
        text = say("a", "c1")
        outcomes = await house.send(text, refused(None), do(who=ANN, conversations=True))
        assert seqs(outcomes) == ["storage_full", "rate_limited", []]
        assert len(outcomes[2].conversations) == 1
        assert house.refunded == [text]
        assert seqs(await house.send(say("a", "c1"))) == [[1]]
    assert house.failures == []


async def test_in_a_failed_batch_a_retry_still_learns_its_place(house):
    async with running(house):
        await house.send(say("a", "c1"))
        house.faults.fail("INSERT INTO records", sqlite3.SQLITE_FULL, times=1)
        assert seqs(await house.send(say("a", "c1"), say("b", "c2"))) == ["dup", "storage_full"]


async def test_after_a_failed_decision_everything_older_is_refused_until_the_state_was_loaded(house):
    house.faults.fail("INSERT OR REPLACE INTO bans", sqlite3.SQLITE_FULL, times=1)
    async with running(house):
        await house.send(say("a", "c1"))
        assert seqs(await house.send(ban(generation=2), say("b", generation=2))) == ["storage_full", "storage_full"]
        assert house.failures == [2]
        outcomes = await house.send(
            say("c", generation=1), say("a", "c1", generation=2), refused(None, generation=2), do(who=ANN, conversations=True, generation=2)
        )
        assert seqs(outcomes) == ["storage_full", "dup", "rate_limited", []]
        assert (await house.committer.load()).bans == []
        assert seqs(await house.send(say("d", generation=3), say("e", generation=2))) == [[2], "storage_full"]
    assert house.failures == [2]
    assert await texts(house) == ["a", "d"]


async def test_nothing_rides_into_a_transaction_beside_what_it_rests_on_and_was_refused(house):
    """A text fails while a ban waits; the ban is refused for having waited. What was decided after the ban comes too late to have
    waited, and is in the same group."""
    begun, go_on = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()
    rider = say("rides", generation=1)

    def before(sql):
        if sql == "BEGIN IMMEDIATE":
            house.faults.heal()
            token.run_sync_soon(begun.set)
            assert go_on.wait(10)
            raise error(sqlite3.SQLITE_BUSY)

    def route(outcomes):
        if not house.routed:
            house.committer.batches.send_nowait([rider])
        house.route(outcomes)

    house.committer._route = route
    house.faults.before = before
    async with running(house):
        await house.committer.batches.send([say("a", generation=1)])
        await begun.wait()
        house.committer.batches.send_nowait([ban(generation=1)])
        go_on.set()
        await house.until(lambda: sum(map(len, house.routed)) == 3)
        assert [seqs(outcomes) for outcomes in house.routed] == [["storage_unavailable"], ["storage_unavailable", "storage_unavailable"]]
        assert house.routed[1][1].action is rider
        assert house.failures == [1]
        assert seqs(await house.send(say("b", generation=1), say("c", generation=2))) == ["storage_unavailable", [1]]


async def test_a_full_disk_and_its_end(house):
    writer = house.store.writer
    async with running(house):
        writer.min_free_bytes, writer._space_checked_s = 1 << 60, float("-inf")
        assert seqs(await house.send(say("a", "c1"), refused("c9"))) == ["storage_full", "rate_limited"]
        writer.min_free_bytes = 0
        assert seqs(await house.send(say("a", "c1"))) == [[1]]


async def test_a_disk_that_is_nearly_full_fails_nobody_but_those_whose_texts_it_does_not_take(house):
    writer = house.store.writer
    async with running(house):
        writer.min_free_bytes = 1 << 60
        text = say("a", "c1")
        assert seqs(await house.send(text, ban(), say("b", "c2"))) == ["storage_full", [], "storage_full"]
        assert house.committer.low
        assert house.refunded[0] is text
        assert not house.failures
        assert not house.committer.failures
        assert seqs(await house.send(ban())) == [[]]


async def test_a_decision_that_a_nearly_full_disk_does_not_take_fails_its_generation(house):
    """Only what was on its way when the disk became so: from then on the desk decides nothing of the kind."""
    writer = house.store.writer
    async with running(house):
        writer.min_free_bytes = 1 << 60
        newcomer = do(account(55, "dan"), generation=2)
        outcomes = await house.send(ban(generation=2), newcomer, ban(generation=2), ban(generation=3))
        assert seqs(outcomes) == [[], "storage_full", "storage_unavailable", []]
        await house.until(lambda: house.failures == [2])
        assert seqs(await house.send(ban(generation=2), ban(generation=3))) == ["storage_unavailable", []]


async def test_a_lock_is_waited_for_once_by_all_that_wait(house):
    locker = await trio.to_thread.run_sync(lambda: start(LOCKER, str(house.store.writer.path)))
    with locker:
        async with running(house):
            begun = trio.Event()
            token = trio.lowlevel.current_trio_token()
            house.faults.before = lambda sql: token.run_sync_soon(begun.set) if sql == "BEGIN IMMEDIATE" else None
            await house.committer.batches.send([say("a", "c1")])
            await begun.wait()
            for n in range(5):
                house.committer.batches.send_nowait([say(str(n), f"d{n}"), refused(None)])
            await house.until(lambda: sum(map(len, house.routed)) == 11)
            assert house.faults.count("BEGIN IMMEDIATE") == 1
            codes = [outcome.error.code for outcomes in house.routed for outcome in outcomes]
            assert codes == ["storage_unavailable", *["storage_unavailable", "rate_limited"] * 5]
            locker.stdin.close()
            await trio.to_thread.run_sync(locker.wait)
            assert seqs(await house.send(say("a", "c1"))) == [[1]]
            assert house.failures == []


async def test_a_lock_that_a_look_at_the_store_waited_for_was_waited_for_by_all(house):
    """Looks come all the time, and each would have kept a text back for as long as the lock may be waited for."""
    locker = await trio.to_thread.run_sync(lambda: start(LOCKER, str(house.store.writer.path)))
    with locker:
        async with running(house), trio.open_nursery() as nursery:
            begun, failed = trio.Event(), []
            token = trio.lowlevel.current_trio_token()
            house.faults.before = lambda sql: token.run_sync_soon(begun.set) if sql == "BEGIN IMMEDIATE" else None

            async def look():
                try:
                    await house.committer.ask(lambda writer: writer.check())
                except CommitFailed as exc:
                    failed.append(exc.code)

            async def look_in_a_hurry():
                with trio.move_on_after(0):
                    await house.committer.ask(lambda writer: writer.check())

            nursery.start_soon(look)
            await begun.wait()
            for _ in range(3):
                nursery.start_soon(look)
                nursery.start_soon(look_in_a_hurry)
            await trio.testing.wait_all_tasks_blocked()
            house.committer.batches.send_nowait([say("a", "c1")])
            await house.until(lambda: house.routed)
            assert house.faults.count("BEGIN IMMEDIATE") == 1
            assert house.routed[0][0].error.code == "storage_unavailable"
            locker.stdin.close()
            await trio.to_thread.run_sync(locker.wait)
            assert seqs(await house.send(say("a", "c1"))) == [[1]]
            assert failed == ["storage_unavailable"] * 4
            await house.committer.ask(lambda writer: writer.check())


async def test_nobody_looks_for_who_has_gone(house):
    looked = []
    async with running(house), trio.open_nursery() as nursery:
        release = threading.Event()
        nursery.start_soon(house.committer.ask, lambda writer: release.wait(10))
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.01):
            await house.committer.ask(lambda writer: looked.append(1))
        release.set()
        await house.committer.ask(lambda writer: None)
    assert not looked


# ---------------------------------------------------------------- the store is out


def break_commits(house):
    """COMMIT fails, the fence too, and reopening does not help."""

    def before(sql):
        if sql == "COMMIT" or sql.startswith("UPDATE meta"):
            raise error(sqlite3.SQLITE_IOERR_FSYNC)

    house.faults.before = before


async def test_when_nobody_knows_it_is_said_and_then_found_out(house, mock_clock):
    async with running(house):
        await house.send(say("a", "c1"))
        break_commits(house)
        text = say("b", "c2", generation=1)
        outcomes = await house.send(text, refused("c1", "a", generation=1), do(who=ANN, conversations=True))
        assert seqs(outcomes) == ["indeterminate", "rate_limited", "storage_unavailable"]
        assert house.refunded == [text]
        assert house.failures == []  # it could not load yet

        asked = len(house.faults.log)
        assert seqs(await house.send(say("c", "c3"), refused("c1", "a"), do(e.Tell(account=None, message=None)))) == [
            "storage_unavailable",
            "rate_limited",
            [],
        ]
        with pytest.raises(CommitFailed):
            await house.committer.load()
        assert len(house.faults.log) == asked  # nothing is asked of a store that is out

        tried = trio.Event()
        token = trio.lowlevel.current_trio_token()
        still_broken = house.faults.before

        def before(sql):
            token.run_sync_soon(tried.set)
            still_broken(sql)

        house.faults.before = before
        mock_clock.jump(0.2)
        await tried.wait()
        await house.send(refused(None))  # the attempt is over: refusals go out again
        assert house.failures == []

        house.faults.heal()
        mock_clock.jump(10)
        await house.until(lambda: house.failures)
        assert house.failures == [1]
        assert (await house.committer.load()).rooms[0].last_seq == 1
        assert seqs(await house.send(say("x", generation=1), say("b", "c2", generation=2))) == ["storage_unavailable", [2]]
    assert await texts(house) == ["a", "b"]


async def test_a_store_that_cannot_even_be_read_is_out_until_it_recovers(house, mock_clock):
    async with running(house):

        def before(sql):
            raise error(sqlite3.SQLITE_IOERR_READ)

        house.faults.before = before
        assert seqs(await house.send(ban(generation=1), refused("c1"))) == ["storage_unavailable", "rate_limited"]
        assert house.failures == []
        house.faults.heal()
        mock_clock.jump(1)
        await house.until(lambda: house.failures)
        assert house.failures == [1]
        assert seqs(await house.send(ban(generation=2))) == [[]]


async def test_recovery_is_tried_under_load_too(house, mock_clock):
    async with running(house):
        break_commits(house)
        assert seqs(await house.send(say("a"))) == ["indeterminate"]
        house.faults.heal()
        mock_clock.jump(1)
        for _ in range(100):
            if seqs(await house.send(say("b", generation=1))) == [[1]]:
                break
        else:
            pytest.fail("never recovered")


async def test_the_end_comes_even_while_the_store_is_out(house):
    async with running(house):
        break_commits(house)
        assert seqs(await house.send(say("a"))) == ["indeterminate"]
        house.committer.batches.send_nowait([say("b"), refused(None)])
    assert seqs(house.routed[-1]) == ["storage_unavailable", "rate_limited"]


async def test_a_tidy_that_fails_takes_nobody_out(house):
    house.faults.fail("DELETE", sqlite3.SQLITE_BUSY)
    async with running(house):
        with pytest.raises(CommitFailed):
            await house.committer.tidy(cids_before_ms=0)
        assert seqs(await house.send(say("a"))) == [[1]]


async def test_a_surprise_ends_the_committer(house):
    def before(sql):
        raise RuntimeError("a bug")

    house.faults.before = before
    house.committer.batches.send_nowait([say("a")])
    with pytest.raises(RuntimeError):
        await house.committer.run()
    house.faults.heal()
    assert await texts(house) == []


async def test_a_surprise_in_an_ask_is_told_to_who_asked_and_logged_once(house):
    def surprise(writer):
        raise ValueError("of no kind that is known")

    with structlog.testing.capture_logs() as logged:
        async with running(house):
            for _ in range(3):
                with pytest.raises(CommitFailed) as failed:
                    await house.committer.ask(surprise)
                assert (failed.value.code, failed.value.definite) == ("internal_error", False)
            assert not house.committer.out
            assert seqs(await house.send(say("a"))) == [[1]]
            assert [line["event"] for line in logged] == ["ask_failed"]
            await house.committer.ask(lambda writer: writer.check())
            with pytest.raises(CommitFailed):
                await house.committer.ask(surprise)
    assert [line["event"] for line in logged] == ["ask_failed", "ask_failed"]  # it was well in between


async def test_a_surprise_in_loading_is_the_end(house, monkeypatch):
    """No state, nothing to decide on: who starts the daemon anew is to see it."""

    def surprise():
        raise ValueError("a row of no kind that is known")

    async def load():
        async with running(house) as nursery:
            nursery.start_soon(house.committer.load)
            await trio.sleep_forever()

    monkeypatch.setattr(house.store.writer, "load", surprise)
    with pytest.raises(ExceptionGroup) as ended:
        await load()
    assert ended.group_contains(ValueError)
