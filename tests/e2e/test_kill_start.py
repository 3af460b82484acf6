"""Samples of ``python -m tests.e2e.kill_start``: SIGKILL at system calls of a first start, of one that migrates, of one that
rotates its log."""

import pytest

from tests.e2e.kill_start import KINDS, run


@pytest.mark.long
@pytest.mark.parametrize("what", KINDS)
async def test_the_next_start_works_and_what_was_there_is_there(tracer, tmp_path, what):
    report = await run(what, tmp_path, samples=6, seed=11)
    print(report)
    assert not report.faults, str(report)
    assert report.killed >= 2
