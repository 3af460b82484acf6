"""Between the receipt of a text and its ack lies the text's writing to the database's log and a completed
sync of it: strace looks on."""

import pytest

from tests.e2e import sabotage
from tests.e2e.kill import Plan, run
from tests.e2e.server import CHAT
from tests.e2e.trace import Traced, witness

TEXTS = 200


async def trace_of(data_dir, command):
    server = Traced(data_dir, command=command)
    report = await run(Plan(seed=2, cycles=1, senders=8, listeners=2, acks=(TEXTS, TEXTS)), server)
    return report, witness(data_dir.with_name("data.trace1"))


async def test_every_ack_is_behind_a_sync(tracer, data_dir):
    report, seen = await trace_of(data_dir, CHAT)
    assert report.verdict.green, str(report)
    assert seen.acks > TEXTS
    assert not seen.unsynced


@pytest.mark.long
@pytest.mark.parametrize("name", ["no_sync", "ack_before_commit"])
async def test_it_notices(tracer, data_dir, name):
    _, seen = await trace_of(data_dir, sabotage.command(name))
    assert seen.acks > TEXTS
    assert len(seen.unsynced) == seen.acks if name == "no_sync" else seen.unsynced
