"""``chat prove``: a server is started, everything that the world does is done to it, and an independent ledger compares.

    run.py        the run: gather, storm, settle, judge; the plan and the report
    device.py     one device of a person: a strict client, and what happens to it
    trouble.py    the schedule, drawn from the seed
    scratch.py    the server as a process; proxy.py: a road that becomes a black hole; wires.py: four ways to connect
    ledger.py     what was promised, seen and kept, and the verdict; cursor.py: one device's stream; evidence.py: the history, read twice
    show.py       the display

Nothing here imports anything else of ``chat``: it is written from the protocol's README alone, so that a mistake in the server's or the
client library's delivery cannot hide behind the same mistake here (tests/test_imports.py).
"""
