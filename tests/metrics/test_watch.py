"""Readiness: over a real store that fails in real ways."""

import socket
import sqlite3
import time

import attrs
import pytest
import trio
import trio.testing

from chat.metrics import server
from chat.metrics.watch import ANSWER_S, DELAY_S, LOOK_S, Watch
from chat.store import sqlite_commit
from chat.store.committer import Committer
from chat.store.sqlite import open_sqlite
from tests.store.build import ANN, do, say, session, world
from tests.store.faults import Faults

WITHIN_S = 2.0  # what is promised


async def reached(condition):
    """What looks at the world by the clock can only be waited for by the clock."""
    while True:
        if condition():
            return
        await trio.sleep(0.01)


@attrs.define(eq=False)
class House:
    store: object
    committer: Committer
    watch: Watch
    stopping: bool = False

    async def until(self, *problems):
        """Wait until the watch says so; it may take as long as is promised."""

        def says():
            found = self.watch.problems()
            return len(found) == len(problems) and all(part in said for part, said in zip(problems, found, strict=True))

        with trio.fail_after(WITHIN_S):
            await reached(says)


@pytest.fixture
async def house(tmp_path):
    class Router:
        records = told = 0

    async with open_sqlite(tmp_path, busy_timeout_s=5, min_free_bytes=0, clock=lambda: 1) as store:
        store.writer.commit(world())
        committer = Committer(
            store.writer,
            route=lambda outcomes: None,
            flush=lambda: None,
            pause=trio.lowlevel.checkpoint,
            on_failure=lambda generation: None,
            refund=lambda action: None,
        )
        house = House(store, committer, Watch(committer=committer, router=Router, stopping=lambda: house.stopping))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(committer.run)
            nursery.start_soon(house.watch.run_store)
            await trio.testing.wait_all_tasks_blocked()
            yield house
            nursery.cancel_scope.cancel()


def test_it_is_in_time():
    assert LOOK_S + ANSWER_S < WITHIN_S


async def test_a_full_disk(house, monkeypatch):
    await house.until()
    house.store.writer.min_free_bytes = 2**62
    await house.until("disk is nearly full")
    monkeypatch.setattr(sqlite_commit, "ROOM_BYTES", 2**62)
    await house.until("disk is full")
    monkeypatch.undo()
    house.store.writer.min_free_bytes = 0
    await house.until()


async def test_a_commit_is_no_proof_that_texts_are_taken(house):
    """On a disk that is nearly full sessions are stored, however many, and texts are not."""
    house.store.writer.min_free_bytes = 2**62
    await house.until("disk is nearly full")
    for n in range(20):
        await house.committer.batches.send([do(session(f"s{n}", ANN, b"%d" % n))])
        await trio.sleep(LOOK_S / 5)
        assert house.watch.problems()
    assert house.committer.commit_s.count >= 20
    house.store.writer.min_free_bytes = 0
    await house.until()


async def test_a_database_that_is_locked_by_another(house):
    other = sqlite3.connect(house.store.writer.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    await house.until("has not answered")
    other.execute("ROLLBACK")
    other.close()
    with trio.fail_after(8):  # SQLite's own pauses while it waits
        await reached(lambda: not house.watch.problems())


async def test_a_store_that_fails(house):
    faults = Faults(house.store.writer)
    faults.fail(("BEGIN",))
    await house.until("nothing can be stored")
    faults.heal()
    await house.until()


async def test_a_database_that_is_gone(house):
    path = house.store.writer.path
    path.rename(path.with_name("away"))
    await house.until("is gone")
    path.with_name("away").rename(path)
    await house.until()


async def test_the_daemon_drains(house):
    house.stopping = True
    assert house.watch.problems() == ["the server is stopping"]


async def test_a_busy_store_is_not_asked(house):
    await house.until()
    faults = Faults(house.store.writer)
    looks = faults.count("SELECT generation")
    for n in range(20):
        await house.committer.batches.send([say(f"text {n}")])
        await trio.sleep(LOOK_S / 5)
    assert house.committer.commit_s.count >= 20
    assert faults.count("SELECT generation") <= looks + 1
    assert not house.watch.problems()


async def test_the_delay_of_the_loop(nursery, tmp_path):
    class Router:
        records = told = 0

    watch = Watch(committer=None, router=Router, stopping=lambda: False)
    nursery.start_soon(watch.run_delay)
    await trio.testing.wait_all_tasks_blocked()
    held_s = DELAY_S + 0.1
    time.sleep(held_s)  # noqa: ASYNC251  (somebody holds the loop)
    Router.records, Router.told = 5, 50
    await reached(lambda: watch.loop_delay.count >= 2)
    assert watch.worst_delay_s >= 0.1
    assert watch.loop_delay.sum >= 0.1
    assert watch.deliveries_per_s == pytest.approx(10 * watch.records_per_s)


async def test_a_port_that_is_taken_is_complained_of_and_tried_again(house, autojump_clock):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with trio.open_nursery() as nursery:
            listeners = []

            async def listen():
                listeners.extend(await server._listen("127.0.0.1", port, house.watch))

            nursery.start_soon(listen)
            await reached(lambda: house.watch.metrics_problem)
            assert house.watch.metrics_problem == f"no figures are served at 127.0.0.1:{port} (metrics.address): Address already in use"
            assert house.watch.problems() == []  # it stores messages all the same
            taken.close()
    assert house.watch.metrics_problem == ""
    for listener in listeners:
        await listener.aclose()
