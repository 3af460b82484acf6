from chat.rooms.cids import TURN_S, FreshCids


def test_known_for_one_to_two_turns():
    cids = FreshCids(100.0)
    cids.turn(100.0 + TURN_S - 0.1)
    cids.add((1, "a"))
    assert (1, "a") in cids
    assert (2, "a") not in cids
    cids.turn(100.0 + TURN_S)
    assert (1, "a") in cids
    cids.turn(100.0 + 2 * TURN_S - 0.1)
    assert (1, "a") in cids
    cids.turn(100.0 + 2 * TURN_S)
    assert (1, "a") not in cids


def test_what_was_not_stored_is_not_known():
    cids = FreshCids(0.0)
    cids.add((1, "a"))
    cids.turn(TURN_S)
    cids.add((1, "b"))
    cids.discard((1, "a"))
    cids.discard((1, "b"))
    cids.discard((1, "c"))
    assert (1, "a") not in cids
    assert (1, "b") not in cids
