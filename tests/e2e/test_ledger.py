"""The ledger and the follower notice what they are for. Each test breaks one promise."""

import pytest

from tests.e2e.follower import Follower
from tests.e2e.ledger import DOUBLED, GAP, LOST, ORDER, WRONG, Ledger, Record

EPOCH = "abcdefgh"


def text(seq, cid, author="ann", ts=None):
    return Record("#x", EPOCH, seq, seq if ts is None else ts, "message", author, f"{cid} text", ())


def ledger_of(*records, cids=None, acks=()):
    """A ledger of a run in which ann sent a-1, a-2, a-3 … and *acks* (cid, seq) came; the history is *records*."""
    ledger = Ledger()
    for n in range(1, 5):
        ledger.sent("ann", "#x", f"a-{n}", f"a-{n} text")
    for cid, seq in acks:
        ledger.acked("ann", cid, "#x", EPOCH, seq, seq)
    ledger.history("ann", "#x", list(records), cids or [record.text.partition(" ")[0] for record in records])
    return ledger


FOUR = [text(1, "a-1"), text(2, "a-2"), text(3, "a-3"), text(4, "a-4")]
ACKS = [("a-1", 1), ("a-2", 2), ("a-3", 3), ("a-4", 4)]


def test_a_run_without_fault_is_green():
    ledger = ledger_of(*FOUR, acks=ACKS)
    ledger.streams["ann", "#x"] = list(FOUR)
    verdict = ledger.verdict()
    assert verdict.green
    assert (verdict.acks, verdict.sent, verdict.stored, verdict.compared) == (4, 4, 4, 4)


@pytest.mark.parametrize(
    ("records", "acks", "fault"),
    [
        (FOUR[:3], ACKS, LOST),  # an acknowledged one is not there
        ([*FOUR[:3], text(4, "a-4", ts=5)], ACKS, LOST),  # it has another time
        (FOUR, ACKS[:3], LOST),  # never acknowledged
        (FOUR, [*ACKS, ("a-4", 5)], DOUBLED),  # two places
        ([*FOUR, text(5, "a-2")], ACKS, DOUBLED),
        ([text(1, "a-2"), text(2, "a-1"), *FOUR[2:]], [("a-2", 1), ("a-1", 2), *ACKS[2:]], ORDER),
        ([*FOUR[:2], text(4, "a-3"), text(5, "a-4")], [*ACKS[:2], ("a-3", 4), ("a-4", 5)], GAP),
        (FOUR[1:], ACKS, GAP),  # it does not begin at 1
        ([FOUR[0], FOUR[2], FOUR[1], FOUR[3]], ACKS, ORDER),
        ([*FOUR, text(5, "a-9")], ACKS, WRONG),  # nobody sent that
        ([*FOUR[:3], text(4, "a-4", author="bob")], ACKS, LOST),
    ],
)
def test_a_fault_in_the_history(records, acks, fault):
    assert ledger_of(*records, acks=acks).verdict().faults[fault]


def test_time_that_goes_back():
    ledger = ledger_of(text(1, "a-1", ts=5), text(2, "a-2", ts=4), cids=[None, None])
    assert ledger.verdict().faults[ORDER]


def test_two_epochs():
    assert ledger_of(FOUR[0], FOUR[1]._replace(epoch="12345678")).verdict().faults[WRONG]


def test_a_cid_that_is_there_twice():
    assert ledger_of(*FOUR, cids=["a-1", "a-2", "a-3", "a-3"], acks=ACKS).verdict().faults[DOUBLED]


def test_readers_must_agree():
    ledger = ledger_of(*FOUR, acks=ACKS)
    ledger.history("bob", "#x", FOUR[:3], [None] * 3)
    assert ledger.verdict().faults[WRONG]


def test_a_refused_text_must_not_be_acknowledged():
    ledger = ledger_of(*FOUR, acks=ACKS[:3])
    ledger.refused("ann", "a-4", "storage_full")
    before = ledger.faults[WRONG]
    ledger.acked("ann", "a-4", "#x", EPOCH, 4, 4)
    assert ledger.faults[WRONG] > before


@pytest.mark.parametrize("stream", [FOUR[:3], FOUR[1:], [*FOUR[:3], text(4, "a-3")], [*FOUR, text(5, "a-5")]])
def test_a_stream_that_is_not_the_history(stream):
    ledger = ledger_of(*FOUR, acks=ACKS)
    ledger.streams["bob", "#x"] = stream
    assert not ledger.verdict().green


# ---------------------------------------------------------------- the follower


@pytest.fixture
def ledger():
    return Ledger()


@pytest.fixture
def follower(ledger):
    follower = Follower("ann", ledger)
    follower.connect()
    follower.head("#x", EPOCH, 0)
    return follower


def seqs(ledger):
    return [record.seq for record in ledger.streams["ann", "#x"]]


def test_live_records_in_order(follower, ledger):
    for record in FOUR:
        follower.take(record)
    assert seqs(ledger) == [1, 2, 3, 4]
    assert follower.connect() == {"#x": (EPOCH, 5)}
    assert not ledger.faults


def test_a_hole_in_what_is_told_is_a_fault(follower, ledger):
    follower.take(FOUR[0])
    follower.take(FOUR[2])
    assert ledger.faults == {GAP: 1}


def test_a_record_twice_on_one_connection(follower, ledger):
    follower.take(FOUR[0])
    follower.take(FOUR[0])
    assert ledger.faults == {DOUBLED: 1}


def test_a_record_below_the_cursor_after_a_resume(follower, ledger):
    follower.take(FOUR[0])
    follower.connect()
    follower.take(FOUR[0])
    assert ledger.faults == {DOUBLED: 1}


def test_a_lost_tail(follower, ledger):
    follower.take(FOUR[0])
    follower.head("#x", EPOCH, 2)
    assert ledger.faults == {GAP: 1}


def test_the_start_of_a_session_and_live_records_meanwhile(ledger):
    follower = Follower("ann", ledger)
    follower.connect()
    follower.head("#x", EPOCH, 2)
    assert follower.wanted == ["#x"]
    follower.take(FOUR[2])  # while the history is read
    follower.page("#x", FOUR[:3], more=False)  # which has that one already
    follower.take(FOUR[3])
    assert seqs(ledger) == [1, 2, 3, 4]
    assert not ledger.faults


def test_a_gap_is_filled_by_history(follower, ledger):
    follower.take(FOUR[0])
    follower.connect()
    follower.gap("#x", 1, 4)
    follower.take(FOUR[3])
    follower.page("#x", FOUR[1:2], more=True)
    follower.page("#x", FOUR[2:3], more=False)
    assert seqs(ledger) == [1, 2, 3, 4]
    assert not ledger.faults


def test_who_lags_fills_without_fault(follower, ledger):
    follower.lagged = True
    follower.take(FOUR[0])
    follower.head("#x", EPOCH, 3)
    follower.page("#x", FOUR[1:3], more=False)
    follower.take(FOUR[3])
    assert seqs(ledger) == [1, 2, 3, 4]
    assert not ledger.faults


def test_a_history_with_a_hole(follower, ledger):
    follower.head("#x", EPOCH, 0)
    follower.lagged = True
    follower.take(FOUR[3])
    follower.page("#x", [FOUR[0], FOUR[2]], more=False)
    assert ledger.faults == {GAP: 1}
