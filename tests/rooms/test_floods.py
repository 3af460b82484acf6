"""What the router puts into an outbox at once, when there is much."""

import json

import pytest

from chat.protocol import messages as m
from chat.rooms.router import BLOB_BYTES, joined
from chat.transport.outbox import FlushSet, Outbox, OutboxLimits, OutboxPool
from tests.rooms.house import of_type, open_house
from tests.transport.test_outbox import Kernel


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([1], [1]),
        ([10, 20, 30], [60]),
        ([BLOB_BYTES, 1], [BLOB_BYTES, 1]),
        ([1, BLOB_BYTES, 1], [1, BLOB_BYTES, 1]),
        ([3 * BLOB_BYTES, 5, 6], [3 * BLOB_BYTES, 11]),
        ([BLOB_BYTES // 2] * 5, [BLOB_BYTES, BLOB_BYTES, BLOB_BYTES // 2]),
    ],
)
def test_what_is_joined_fits_into_an_outbox(sizes, expected):
    frames = [bytes([65 + n]) * size for n, size in enumerate(sizes)]
    blobs = joined(frames)
    assert [len(blob) for blob in blobs] == expected
    assert b"".join(blobs) == b"".join(frames)


@pytest.mark.parametrize("who", ["one who wrote too", "one who only reads"])
def test_a_flood_of_long_texts_does_not_make_a_reader_lag_who_keeps_up(who):
    """Two megabytes in one slice, which is more than an outbox may hold; his kernel takes what is sent."""
    with open_house() as house:
        bob, ann = house.register("bob"), house.register("ann")
        outbox = ann.outbox = Outbox(OutboxLimits(), FlushSet(), OutboxPool(1 << 40), lagging_frame=b'{"type":"lagging"}\n')
        kernel = outbox.carrier = Kernel(outbox, room=10**9)
        for n in range(128):
            house.decide(bob, m.Send(id=n, cid=f"c{n}", channel="lobby", text="x" * 16_000))
        if who == "one who wrote too":
            house.decide(ann, m.Send(id=1, cid="c", channel="lobby", text="mine"))
        house.commit()
        kernel.flush_nowait()
        told = [json.loads(line) for line in kernel.received.splitlines()]
        assert len(of_type(told, "message")) == 128
        assert not of_type(told, "lagging")
        assert not ann.skipped
