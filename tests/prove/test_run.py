"""Whole runs: the server as it is passes, and each broken promise is found. A storm of half a minute is ``chat prove``."""

import json
import sys

import pytest
from click.testing import CliRunner

from chat.cli import main
from chat.prove.ledger import DOUBLED, GAP, LOST, ORDER
from chat.prove.run import Plan, prove
from tests.e2e import sabotage
from tests.prove import mischief


async def test_a_short_storm():
    report = await prove(Plan(seed=3, seconds=2.5, people=4, kills=1))
    assert report.green, report.violation
    assert report.kinds == ("tcp", "ws", "tls", "wss")
    assert report.kills == 2  # one more when everything is settled
    assert min(report.in_flight) > 0
    assert report.texts > 20
    assert report.deliveries > report.texts
    assert report.retries
    assert report.resumes >= 2 * report.devices - 1


# What is acknowledged too early is lost in a kill; or somebody who reads the store meanwhile misses it, and sees what comes behind it.
NOTICED = {
    "ack_before_commit": {LOST, GAP},
    "dedupe_off": {DOUBLED},
    "seq_from_memory": {GAP},
    "delivery_dropped": {GAP},
    "live_too_early": {GAP},
    "replayed_again": {DOUBLED},
    "chunk_reversed": {ORDER},
}


def command(name):
    return (mischief if name in mischief.MISCHIEF else sabotage).command(name)


def test_all_are_tried():
    assert NOTICED.keys() == mischief.MISCHIEF.keys() | {"ack_before_commit", "dedupe_off", "seq_from_memory"}


@pytest.mark.long
@pytest.mark.parametrize("name", NOTICED)
async def test_a_broken_promise_is_found(name):
    report = await prove(Plan(seed=1, seconds=30, people=6, kills=8, command=command(name)))
    assert report.stopped_early
    assert not report.green
    assert report.violation.kind in NOTICED[name]
    assert report.violation.story, "it is not explained"


@pytest.mark.long
def test_the_command():
    done = CliRunner().invoke(main, ["prove", "--seconds", "4", "--seed", "11", "--people", "4", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["ok"]
    assert report["seed"] == 11
    again = CliRunner().invoke(main, ["prove", "--seconds", "4", "--seed", "11", "--people", "4", "--json"])
    assert json.loads(again.stdout)["schedule"] == report["schedule"]


@pytest.mark.long
def test_a_server_that_does_not_start():
    plan = Plan(seed=1, command=(sys.executable, "-c", "raise SystemExit('no such server')"))
    import trio

    from chat.prove.scratch import CannotStart

    with pytest.raises(CannotStart, match="no such server"):
        trio.run(prove, plan)
