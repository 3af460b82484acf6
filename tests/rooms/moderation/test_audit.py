import attrs
import pytest

from chat.rooms.moderation import audit


def chain(*reasons, erased=()):
    entries, previous = [], audit.START
    for n, reason in enumerate(reasons, 1):
        effect = audit.entry(7, "kick", target=8, room=9, reason=reason, before={"role": "member"}, after=None)
        made = audit.link(effect, n, previous, 1000 + n)
        previous = made.hash
        if n in erased:
            made = attrs.evolve(made, reason=None, before=None, after=None, salt=None)
        entries.append(made)
    return entries


def test_a_chain_holds():
    entries = chain("a", "b", "c")
    verdict = audit.verify(entries)
    assert verdict == audit.Verdict(entries=3, head=entries[-1].hash, erased=0, problem=None, noted=None)


def test_an_empty_log_holds_and_its_head_is_the_start():
    assert audit.verify([]) == audit.Verdict(entries=0, head=audit.START, erased=0, problem=None, noted=None)
    assert audit.verify(chain("a"), audit.START).noted == 0


def test_the_same_twice_has_other_hashes():
    one, two = chain("a")[0], chain("a")[0]
    assert one.texts_hash != two.texts_hash  # the salt: nobody finds out by guessing what was erased


def test_erased_texts_leave_the_chain_whole():
    verdict = audit.verify(chain("a", "b", "c", erased=(2,)))
    assert (verdict.problem, verdict.erased) == (None, 1)


@pytest.mark.parametrize(
    ("change", "n"),
    [
        ({"reason": "x"}, 2),
        ({"reason": None}, 2),
        ({"before": None}, 2),
        ({"after": "{}"}, 2),
        ({"salt": bytes(16)}, 2),
        ({"actor": 8}, 2),
        ({"action": "ban"}, 2),
        ({"target": None}, 2),
        ({"room": 10}, 2),
        ({"at_ms": 1}, 2),
        ({"texts_hash": bytes(32)}, 2),
        ({"hash": bytes(32)}, 2),
        ({"salt": None}, 2),  # erased, but the texts are there
    ],
)
def test_every_column_is_covered(change, n):
    entries = chain("a", "b", "c")
    entries[n - 1] = attrs.evolve(entries[n - 1], **change)
    verdict = audit.verify(entries)
    assert f"entry {n}" in verdict.problem
    assert verdict.entries == n - 1


def test_one_made_anew_breaks_at_the_next():
    entries = chain("a", "b", "c")
    entries[1] = audit.link(audit.entry(7, "kick", reason="other"), 2, entries[0].hash, 1002)
    assert "entry 3" in audit.verify(entries).problem


def test_rows_that_are_missing_or_exchanged():
    a, b, c, d = chain("a", "b", "c", "d")
    assert audit.verify([a, c, d]).problem == "entry 2 is missing"
    assert audit.verify([a, d]).problem == "entries 2 to 3 are missing"
    assert audit.verify([b, c, d]).problem == "entry 1 is missing"
    exchanged = [a, attrs.evolve(c, n=2), attrs.evolve(b, n=3), d]
    assert "entry 2" in audit.verify(exchanged).problem
    closed_up = [a, attrs.evolve(c, n=2), attrs.evolve(d, n=3)]
    assert "entry 2" in audit.verify(closed_up).problem


def test_a_cut_tail_shows_against_a_noted_head_alone():
    entries = chain("a", "b", "c")
    assert audit.verify(entries[:2]).problem is None
    assert audit.verify(entries, entries[1].hash).noted == 2
    assert audit.verify(entries[:2], entries[2].hash).noted is None
    assert audit.verify(chain("a", "b", "c"), entries[2].hash).noted is None  # made anew, to the letter
