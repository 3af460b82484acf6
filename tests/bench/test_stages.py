"""Where the time of a server goes: each part has its own, and not that of what runs within it."""

import json
import threading
import time

import pytest

from chat.bench.stages import Watch

STEP_S = 0.02


def work():
    until = time.thread_time() + STEP_S
    while time.thread_time() < until:
        pass


class Server:
    def decide(self):
        work()

    def route(self):
        work()
        self.flush()
        self.flush()

    def flush(self):
        work()


@pytest.fixture
def watch(monkeypatch):
    watch = Watch()
    for part in ("decide", "route", "flush"):
        monkeypatch.setattr(Server, part, getattr(Server, part))  # put back afterwards
        watch.wrap(Server, part, part)
    return watch


def test_what_runs_within_a_part_is_taken_off_it_and_what_runs_beside_it_is_not(watch):
    server = Server()
    server.decide()
    server.route()
    server.flush()
    server.decide()
    assert watch.spent["decide"] == pytest.approx(2 * STEP_S, rel=0.3)
    assert watch.spent["route"] == pytest.approx(STEP_S, rel=0.3)
    assert watch.spent["flush"] == pytest.approx(3 * STEP_S, rel=0.3)


def test_another_thread_is_no_part_of_what_waits_for_it(watch, tmp_path, monkeypatch):
    def commit(self):
        thread = threading.Thread(target=self.decide)
        thread.start()
        thread.join()

    monkeypatch.setattr(Server, "flush", commit)
    watch.wrap(Server, "flush", "flush")
    Server().flush()
    assert watch.spent["decide"] == pytest.approx(STEP_S, rel=0.3)
    assert watch.spent["flush"] < STEP_S / 4
    watch.write(str(tmp_path / "file"))
    found = json.loads((tmp_path / "file").read_text())
    assert found["whole"] == pytest.approx(sum(found.values()) - found["whole"])
    watch.reset()
    assert not watch.spent
