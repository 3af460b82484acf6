"""What a measurement looks like, and what is no measurement."""

import json

import pytest

from chat.bench import report
from chat.bench.workload import BadWorkload, Workload

ONE = {
    "workload": {"title": "1000 members in 1 channel"},
    "machine": {"processors": 2, "model": "a processor", "python": "3.11", "file_system": "ext4"},
    "figures": {"deliveries_per_s": 19980.0, "server_cpu_us_per_delivery": 5.25, "latency_p99_ms": 4.0, "latency_p50_ms": None},
    "checks": {"lost": 0, "doubled": 0, "reordered": 0, "unacked": 0, "errors": {}},
    "stages": {"decode": 0.1, "flush": 0.6, "rest": 0.3},
}


def changed(**more):
    return {**ONE, **more}


def test_the_table_has_the_figures_there_are_and_the_checks_always():
    text = "\n".join(report.lines(ONE))
    assert "19,980" in text
    assert "5.25" in text
    assert "p50" not in text
    assert "lost 0 · doubled 0 · out of order 0" in text
    assert "60 %" in text


def test_a_generator_that_was_the_limit_is_named():
    assert "The clients were the limit" not in "\n".join(report.lines(ONE))
    assert "The clients were the limit" in "\n".join(report.lines(changed(figures={**ONE["figures"], "clients_are_the_limit": True})))


@pytest.mark.parametrize("key", ["lost", "doubled", "reordered", "unacked"])
def test_what_went_wrong_makes_a_run_inexact(key):
    assert report.is_exact(ONE)
    assert not report.is_exact(changed(checks={**ONE["checks"], key: 1}))


def test_an_error_makes_a_run_inexact():
    assert not report.is_exact(changed(checks={**ONE["checks"], "errors": {"rate_limited": 2}}))


def test_two_are_compared_by_their_ratio():
    text = "\n".join(report.compare(ONE, changed(figures={**ONE["figures"], "deliveries_per_s": 9990.0})))
    assert "0.50" in text
    assert "different workloads" not in text
    assert "different workloads" in "\n".join(report.compare(ONE, changed(workload={"title": "another"})))


def test_a_file_that_is_no_report_is_refused_by_name(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("[1]")
    with pytest.raises(ValueError, match=r"a\.json is no report"):
        report.load(file)
    file.write_text(json.dumps(ONE))
    assert report.load(file) == ONE


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_picture_is_drawn(tmp_path, suffix):
    file = tmp_path / f"picture{suffix}"
    report.plot(ONE, file)
    assert file.read_bytes()[:4] in (b"\x89PNG", b"<?xm")


def test_a_measurement_without_latencies_is_drawn_as_its_table(tmp_path):
    file = tmp_path / "picture.png"
    report.plot(changed(figures={"memory_per_session_bytes": 8000.0}, stages={}, checks={}), file)
    assert file.stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"members": 1}, "--members is at least 2"),
        ({"channels": 0}, "--channels is between"),
        ({"members": 5, "channels": 6}, "--channels is between"),
        ({"senders": 1001}, "--senders is between"),
        ({"payload": 10}, "--payload is between 48"),
        ({"rate": 0}, "--rate is more than 0"),
        ({"idle": True, "logins": True}, "two workloads"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, says):
    with pytest.raises(BadWorkload, match=says):
        Workload.of(**options)


def test_private_messages_go_between_pairs():
    workload = Workload.of(private=True, members=5)
    assert (workload.members, workload.senders, workload.channels) == (6, 5, 1)
