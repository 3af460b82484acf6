"""A server with one promise broken turns the ledger red: each way of breaking it for itself."""

import pytest

from tests.e2e.kill import Plan, run
from tests.e2e.ledger import DOUBLED, GAP, LOST
from tests.e2e.sabotage import BREACHES, command
from tests.e2e.server import Server
from tests.e2e.trace import PowerCut

PLAN = Plan(seed=1, cycles=5, acks=(150, 300), stuck_s=10, moves=0, hasty=True)
NOTICED = {"ack_before_commit": LOST, "dedupe_off": DOUBLED, "seq_from_memory": GAP, "no_sync": LOST}


def test_all_are_tried():
    assert NOTICED.keys() == {breach.__name__ for breach in BREACHES}


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in NOTICED if name != "no_sync"])
async def test_a_kill_finds_it(name, data_dir):
    report = await run(PLAN, Server(data_dir, command=command(name)))
    assert report.verdict.faults[NOTICED[name]], str(report)


@pytest.mark.long
async def test_a_power_cut_finds_it(tracer, data_dir):
    """Mere SIGKILL does not: the kernel still writes what the process has given it."""
    report = await run(PLAN, PowerCut(data_dir, command=command("no_sync")))
    assert report.verdict.faults[NOTICED["no_sync"]], str(report)
