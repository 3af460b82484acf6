"""The ledger and the cursor notice what they are for. Each test breaks one promise."""

import pytest

from chat.prove.cursor import Cursor
from chat.prove.ledger import ALTERED, DOUBLED, GAP, LOST, ORDER, Ledger, Place, Record, conv_key

EPOCH = "abcdefgh"


def text(seq, cid, author="ann", ts=None):
    return Record("#x", EPOCH, seq, seq if ts is None else ts, "message", author, f"{cid} text", ())


def row(record):
    return (record.seq, record.ts, record.type, record.author, record.text)


def ledger_of(*records, cids=None, acks=(), loose=()):
    """Ann's laptop sent a-1 to a-4 and *acks* (cid, seq) came; the history is *records*."""
    ledger = Ledger()
    for n in range(1, 5):
        ledger.sent("ann", "laptop", "#x", f"a-{n}", f"a-{n} text").loose = f"a-{n}" in loose
    for cid, seq in acks:
        ledger.acked("ann", "laptop", cid, Place("#x", EPOCH, seq, seq), dup=False)
    ledger.history("ann", "#x", list(records), cids or [record.text.partition(" ")[0] for record in records])
    return ledger


def faults(ledger, **how):
    ledger.verdict(**how)
    return ledger.faults


FOUR = [text(1, "a-1"), text(2, "a-2"), text(3, "a-3"), text(4, "a-4")]
ACKS = [("a-1", 1), ("a-2", 2), ("a-3", 3), ("a-4", 4)]


def test_a_run_without_fault():
    ledger = ledger_of(*FOUR, acks=ACKS)
    ledger.streams["phone", "#x"] = list(FOUR)
    ledger.file("#x", [row(record) for record in FOUR])
    assert ledger.verdict() == 4
    assert not ledger.faults
    assert ledger.worst() is None


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
        ([*FOUR, text(5, "a-9")], ACKS, ALTERED),  # nobody sent that
        ([*FOUR[:3], text(4, "a-4", author="bob")], ACKS, LOST),
    ],
)
def test_a_fault_in_the_history(records, acks, fault):
    assert faults(ledger_of(*records, acks=acks))[fault]


def test_a_loose_text_may_stand_anywhere():
    swapped = [text(1, "a-2"), text(2, "a-1"), *FOUR[2:]]
    assert not faults(ledger_of(*swapped, acks=[("a-2", 1), ("a-1", 2), *ACKS[2:]], loose=("a-1",)))


def test_time_that_goes_back():
    assert faults(ledger_of(text(1, "a-1", ts=5), text(2, "a-2", ts=4), cids=[None, None]))[ORDER]


def test_two_epochs():
    assert faults(ledger_of(FOUR[0], FOUR[1]._replace(epoch="12345678")))[ALTERED]


def test_a_cid_that_is_there_twice():
    assert faults(ledger_of(*FOUR, cids=["a-1", "a-2", "a-3", "a-3"], acks=ACKS))[DOUBLED]


def test_readers_must_agree():
    ledger = ledger_of(*FOUR, acks=ACKS)
    ledger.history("bob", "#x", FOUR[:3], [None] * 3)
    assert faults(ledger)[ALTERED]


def test_a_refusal_for_now_is_none_and_any_other_is_a_fault():
    ledger = ledger_of(*FOUR, acks=ACKS)
    ledger.refused("ann", "a-4", "rate_limited", for_now=True)
    assert not faults(ledger)
    ledger.refused("ann", "a-4", "forbidden", for_now=False)
    assert ledger.faults == {ALTERED: 1}


def test_the_file_must_agree():
    for rows, fault in (
        ([row(record) for record in FOUR[:3]], LOST),
        ([row(record) for record in [*FOUR, text(5, "a-5")]], GAP),
        ([row(record) for record in [*FOUR[:3], text(4, "a-4", author="bob")]], ALTERED),
    ):
        ledger = ledger_of(*FOUR, acks=ACKS)
        ledger.file("#x", rows)
        assert ledger.faults == {fault: 1}


@pytest.mark.parametrize("stream", [FOUR[:3], FOUR[1:], [*FOUR[:3], text(4, "a-3")], [*FOUR, text(5, "a-5")]])
def test_a_stream_that_is_not_the_history(stream):
    ledger = ledger_of(*FOUR, acks=ACKS)
    ledger.streams["phone", "#x"] = stream
    assert faults(ledger)


def test_a_run_that_was_broken_off_may_end_anywhere():
    ledger = ledger_of(*FOUR, acks=ACKS[:3])
    ledger.streams["phone", "#x"] = FOUR[:2]
    assert not faults(ledger, complete=False)


def test_the_first_violation_is_explained():
    ledger = ledger_of(*FOUR, acks=ACKS)
    ledger.streams |= {("ann's phone", "#x"): list(FOUR), ("bob's phone", "#x"): FOUR[:3]}
    ledger.now_s = 2.5
    ledger.happened("SIGKILL number 1")
    ledger.histories["#x"] = FOUR[:3]
    ledger.verdict()
    worst = ledger.worst()
    assert worst.kind == LOST
    story = "\n".join([worst.what, *worst.story])
    assert "a-4" in story
    assert "acknowledged to laptop" in story
    assert "number 4 of #x" in story
    assert "SIGKILL number 1" in story
    assert "seen by ann's phone (at 4)" in story
    assert "not seen by bob's phone" in story


def test_a_private_conversation_has_one_name():
    assert conv_key("ann", "@bob") == conv_key("bob", "@ann")
    assert conv_key("ann", "#x") == "#x"


# ---------------------------------------------------------------- what a device is told


@pytest.fixture
def ledger():
    return Ledger()


@pytest.fixture
def cursor(ledger):
    cursor = Cursor("phone", ledger)
    cursor.connect()
    cursor.head("#x", EPOCH, 0)
    return cursor


def seqs(ledger):
    return [record.seq for record in ledger.streams["phone", "#x"]]


def test_live_records_in_order(cursor, ledger):
    for record in FOUR:
        cursor.take(record)
    assert seqs(ledger) == [1, 2, 3, 4]
    assert cursor.connect() == {"#x": (EPOCH, 5)}
    assert not ledger.faults


@pytest.mark.parametrize(
    ("told", "fault"),
    [([FOUR[0], FOUR[2]], GAP), ([FOUR[0], FOUR[0]], DOUBLED), ([FOUR[0], FOUR[1], text(1, "a-3")], ORDER)],
)
def test_what_may_not_be_told(cursor, ledger, told, fault):
    for record in told:
        cursor.take(record)
    assert ledger.faults == {fault: 1}


def test_a_record_below_the_cursor_after_a_resume(cursor, ledger):
    cursor.take(FOUR[0])
    cursor.connect()
    cursor.take(FOUR[0])
    assert ledger.faults == {DOUBLED: 1}


def test_a_lost_tail(cursor, ledger):
    cursor.take(FOUR[0])
    cursor.head("#x", EPOCH, 2)
    assert ledger.faults == {GAP: 1}


def test_a_server_that_knows_less_than_before(cursor, ledger):
    cursor.take(FOUR[0])
    cursor.connect()
    cursor.reset("#x", EPOCH, 0)
    assert ledger.faults == {LOST: 1}


def test_another_epoch(cursor, ledger):
    cursor.take(FOUR[0]._replace(epoch="12345678"))
    assert ledger.faults == {ALTERED: 1}


def test_the_start_of_a_session_and_live_records_meanwhile(ledger):
    cursor = Cursor("phone", ledger)
    cursor.connect()
    cursor.head("#x", EPOCH, 2)
    assert cursor.wanted == ["#x"]
    cursor.take(FOUR[2])  # while the history is read
    cursor.page("#x", FOUR[:3], more=False)  # which has that one already
    cursor.take(FOUR[3])
    assert seqs(ledger) == [1, 2, 3, 4]
    assert not ledger.faults


def test_a_gap_is_filled_by_history(cursor, ledger):
    cursor.take(FOUR[0])
    cursor.connect()
    cursor.gap("#x", 1, 4)
    cursor.take(FOUR[3])
    cursor.page("#x", FOUR[1:2], more=True)
    cursor.page("#x", FOUR[2:3], more=False)
    assert seqs(ledger) == [1, 2, 3, 4]
    assert not ledger.faults


def test_who_lags_fills_without_fault(cursor, ledger):
    cursor.lagging()
    cursor.take(FOUR[0])
    cursor.head("#x", EPOCH, 3)
    cursor.page("#x", FOUR[1:3], more=False)
    cursor.take(FOUR[3])
    assert seqs(ledger) == [1, 2, 3, 4]
    assert not ledger.faults


def test_a_history_with_a_hole(cursor, ledger):
    cursor.lagging()
    cursor.take(FOUR[3])
    cursor.page("#x", [FOUR[0], FOUR[2]], more=False)
    assert ledger.faults == {GAP: 1}
