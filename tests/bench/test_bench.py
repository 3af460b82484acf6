"""Small runs against real servers: what they count is right. Never how fast they are."""

import json
import os
import subprocess
import sys
import time

import pytest

from chat.bench.worker import Worker

CHAT = [sys.executable, "-m", "chat", "bench", "--json", "--no-stages"]


def bench(*options):
    done = subprocess.run([*CHAT, *options], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def figures_of_a_load(report):
    assert report["checks"] == {"lost": 0, "doubled": 0, "reordered": 0, "unacked": 0, "errors": {}}
    return report["figures"]


def test_a_schedule_is_kept_and_everybody_gets_everything():
    figures = figures_of_a_load(bench("--members", "12", "--channels", "2", "--senders", "4", "--rate", "40", "--seconds", "1"))
    assert 20 <= figures["messages_per_s"] <= 60
    assert figures["deliveries_per_s"] == pytest.approx(5 * figures["messages_per_s"], rel=0.3)
    assert figures["server_cpu_us_per_delivery"] > 0
    assert figures["latency_p50_ms"] <= figures["latency_p99_ms"] <= figures["latency_max_ms"]


@pytest.mark.long
@pytest.mark.parametrize("transport", ["tls", "web"])
def test_saturated_over_another_transport(transport):
    figures = figures_of_a_load(bench("--members", "8", "--senders", "2", "--seconds", "0.5", "--transport", transport))
    assert figures["messages_per_s"] > 10


@pytest.mark.long
def test_private_messages():
    assert figures_of_a_load(bench("--members", "6", "--private", "--seconds", "0.5"))["messages_per_s"] > 10


@pytest.mark.long
def test_memory_of_idle_sessions():
    assert bench("--idle", "60")["figures"]["memory_per_session_bytes"] > 0


@pytest.mark.long
def test_sessions_are_opened_and_resumed():
    report = bench("--members", "40", "--logins")
    assert report["checks"] == {"lost": 0}
    assert report["figures"]["sessions_resumed_per_s"] > 0


@pytest.mark.long
def test_where_the_time_goes():
    done = subprocess.run([*CHAT[:-1], "--members", "6", "--senders", "2", "--seconds", "0.5"], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    stages = json.loads(done.stdout)["stages"]
    assert sum(stages.values()) == pytest.approx(1)
    assert all(stages[part] > 0 for part in ("decode", "decide", "commit", "route", "flush"))


# ---------------------------------------------------------------- the counting, on bytes that no server sent


def worker(**workload):
    work = {"senders": 2, "channels": 1, "private": False, "sample": 1, "rate": 1, **workload}
    spec = {"workload": work, "secure": False, "first": 0, "count": 3, "run": "r"}
    return Worker(spec)


def texts(*stamps, first_seq=1):
    return b"".join(
        b'{"type":"message","conv":"#c","epoch":"e","seq":%d,"ts":1,"from":"x","text":"b%d.%d.1|xxx"}\n' % (first_seq + i, sender, number)
        for i, (sender, number) in enumerate(stamps)
    )


def counted(made, sent):
    result = made.result(sent)
    return result["lost"], result["doubled"], result["reordered"]


@pytest.fixture(autouse=True)
def stdin_of_its_own(monkeypatch, tmp_path):
    """A worker listens to its standard input; pytest's cannot be listened to."""
    reader, writer = os.pipe()
    with open(reader) as file, open(writer, "w"):
        monkeypatch.setattr(sys, "stdin", file)
        yield


@pytest.mark.parametrize("sample", [1, 100])
@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([((0, 1), (1, 1), (0, 2))], (0, 0, 0)),
        ([((0, 1), (1, 1))], (1, 0, 0)),
    ],
)
def test_what_is_missing_at_the_end_is_lost(sample, chunks, expected):
    made = worker(sample=sample)
    reader = made.members[2]
    for member in made.members[:2]:
        made._look(member, texts(*[(1 - member.index, n + 1) for n in range(2 - (1 - member.index))]))
    for chunk in chunks:
        made._look(reader, texts(*chunk))
    assert counted(made, {0: 2, 1: 1}) == expected


@pytest.mark.parametrize("sample", [1, 100])
def test_a_message_twice_is_a_double(sample):
    made = worker(sample=sample)
    made._look(made.members[2], texts((0, 1)))
    made._look(made.members[2], texts((0, 1)))
    lost, doubled, reordered = counted(made, {0: 1})
    assert doubled == 1
    assert reordered == 1
    assert lost == 1  # member 1 got nothing at all


def test_a_wrong_order_is_seen_by_who_looks_closely():
    made = worker(sample=1)
    made._look(made.members[2], texts((0, 2), (0, 1)))
    assert made.reordered == 2


def test_a_hole_is_seen_by_who_only_compares_seqs():
    made = worker(sample=100)
    made._look(made.members[2], texts((0, 1)) + texts((0, 3), first_seq=3))
    assert made.reordered == 1


# ---------------------------------------------------------------- the end


@pytest.mark.long
def test_sigterm_ends_the_scratch_server_and_the_clients_too():
    process = subprocess.Popen([*CHAT, "--members", "4", "--senders", "2", "--seconds", "60"], stdout=subprocess.PIPE)
    children = []
    while len(children) < 3:  # the server, two of clients
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            children = file.read().split()
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait(30) == 143
    process.stdout.close()
    for child in children:
        for _ in range(100):
            if not os.path.exists(f"/proc/{child}"):
                break
            time.sleep(0.1)
        else:
            raise AssertionError(f"{child} is still there")
