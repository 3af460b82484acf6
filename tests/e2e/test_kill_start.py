"""Samples of ``python -m tests.e2e.kill_start``: SIGKILL at system calls of a first start, and of a start that migrates."""

import pytest

from tests.e2e.kill_start import run


@pytest.mark.long
@pytest.mark.parametrize("what", ["start", "migration"])
async def test_the_next_start_works_and_what_was_there_is_there(tracer, tmp_path, what):
    report = await run(what, tmp_path, samples=6, seed=11)
    print(report)
    assert not report.faults, str(report)
    assert report.killed >= 2
