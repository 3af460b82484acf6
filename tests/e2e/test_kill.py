"""The server is killed under load and started again; the ledger finds nothing lost, doubled, out of order or missing.

The full run is ``python -m tests.e2e.kill --cycles 50``; these are samples of it.
"""

import pytest

from tests.e2e.kill import IN_FLIGHT, Plan, run
from tests.e2e.server import Server
from tests.e2e.trace import PowerCut

PASSWORD = "correct horse battery"


def check(report, cycles):
    print(report)
    assert report.verdict.green, str(report)
    assert len(report.in_flight) == cycles
    assert min(report.in_flight) >= IN_FLIGHT
    assert len(report.first_ack_s) == cycles + 1
    assert report.verdict.acks == report.verdict.sent


async def test_two_kills(data_dir):
    check(await run(Plan(seed=11, cycles=2, acks=(150, 300)), Server(data_dir)), 2)


@pytest.mark.long
async def test_five_kills(data_dir):
    report = await run(Plan(seed=3, cycles=5, early_share=0.5), Server(data_dir))
    check(report, 5)
    assert sum(report.stored_unacked), "no kill fell between a commit and its acks: this run shows too little"


@pytest.mark.long
async def test_two_kills_under_tls(data_dir):
    check(await run(Plan(seed=4, cycles=2, tls=True), Server(data_dir)), 2)


@pytest.mark.long
async def test_two_power_cuts(tracer, data_dir):
    check(await run(Plan(seed=5, cycles=2, acks=(150, 300)), PowerCut(data_dir)), 2)


# ---------------------------------------------------------------- the resume token across a kill


@pytest.fixture
def resume(server, dial):
    async def resume(token):
        """A connection that asked to resume, and the answer; or the last word, where the session is ended just then."""
        wire = await dial(server.port)
        await wire.send({"type": "resume", "id": 1, "token": token, "cursors": {}})
        return wire, await wire.until(lambda message: message.get("id") == 1 or message["type"] == "closing")

    return resume


@pytest.fixture
async def ann(server, dial):
    """The answer to her registration."""
    wire = await dial(server.port)
    return await wire.ask("register", username="ann", password=PASSWORD)


async def kill_and_start(server):
    await server.kill()
    await server.start()


async def test_the_previous_token_is_good_until_the_client_has_used_the_new_one(server, ann, resume):
    """As often as the answer gets lost."""
    first = ann["resume_token"]
    seen = {first}
    for _ in range(3):
        _, resumed = await resume(first)
        assert (resumed["type"], resumed["session"]) == ("resumed", ann["session"])
        assert resumed["resume_token"] not in seen
        seen.add(resumed["resume_token"])
        await kill_and_start(server)  # as if the client had not read that: it says nothing
    assert (await resume(first))[1]["type"] == "resumed"


async def test_the_new_token_is_good_after_a_kill(server, ann, resume):
    _, resumed = await resume(ann["resume_token"])
    await kill_and_start(server)
    _, again = await resume(resumed["resume_token"])
    assert (again["type"], again["session"]) == ("resumed", ann["session"])


async def test_a_token_whose_successor_was_used_ends_the_session_also_after_a_kill(server, ann, resume):
    wire, resumed = await resume(ann["resume_token"])
    assert (await wire.ask("send", cid="1", channel="lobby", text="here I am"))["type"] == "ack"
    await kill_and_start(server)
    assert (await resume(ann["resume_token"]))[1]["code"] == "unauthorized"
    assert (await resume(resumed["resume_token"]))[1]["code"] == "unauthorized"


async def test_a_retry_after_a_kill_has_the_place_of_the_first(server, ann, resume):
    sends = [{"type": "send", "id": f"s{n}", "cid": f"c{n}", "channel": "lobby", "text": f"text {n}"} for n in range(20)]

    async def acks(wire):
        await wire.send(*sends)
        return [await wire.until(lambda message, send=send: message.get("id") == send["id"]) for send in sends]

    wire, resumed = await resume(ann["resume_token"])
    first = await acks(wire)
    assert [ack["seq"] for ack in first] == list(range(1, 21))
    await kill_and_start(server)
    wire, _ = await resume(resumed["resume_token"])
    assert await acks(wire) == [{**ack, "dup": True} for ack in first]
