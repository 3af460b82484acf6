"""Exact delivery as a property: whatever is lost, doubled, late or cut, the reader gets 1, 2, 3 … once."""

from hypothesis import given, settings
from hypothesis import strategies as st

from chat.client.delivery import Delivery, Hidden, Missing
from chat.protocol import messages as m

EPOCH = "epoch0001"


def record(seq, conv="@bob", epoch=EPOCH):
    return m.Message(conv=conv, epoch=epoch, seq=seq, ts=seq, from_="bob", text=str(seq))


def page(delivery, conv, after, head, size=3):
    records = [record(seq, conv) for seq in range(after + 1, min(after + size, head) + 1)]
    delivery.page(conv, EPOCH, [(r.seq, r) for r in records], more=after + size < head, last_seq=head)


def drain(delivery):
    items = []
    while len(delivery):
        items.append(delivery.take())
        delivery.consumed(items[-1])
    return items


STEP = st.one_of(
    st.tuples(st.just("say"), st.booleans()),  # a new record, told or lost
    st.tuples(st.just("again"), st.integers(1, 30)),  # an old one once more
    st.tuples(st.just("heads"), st.none()),
    st.tuples(st.just("ask"), st.none()),
    st.tuples(st.just("page"), st.integers(1, 5)),
    st.tuples(st.just("lose the page"), st.none()),
    st.tuples(st.just("read"), st.integers(1, 5)),
    st.tuples(st.just("crash"), st.none()),
)


@settings(max_examples=300)
@given(st.lists(STEP, max_size=60), st.integers(1, 8))
def test_every_record_once_in_order(steps, limit):
    delivery, head, got, asked = Delivery(queue_limit=limit), 0, [], []
    delivery.opened({"@bob": (EPOCH, 0)}, replayed=["@bob"])

    def read(count):
        for _ in range(min(count, len(delivery))):
            item = delivery.take()
            got.append(item.seq)
            delivery.consumed(item)

    for step, value in steps:
        match step:
            case "say":
                head += 1
                if value:
                    delivery.record(record(head))
            case "again" if value <= head:
                delivery.record(record(value))
            case "heads":
                delivery.heads({"@bob": (EPOCH, head)})
            case "ask":
                asked += delivery.wants()
            case "page":  # what was asked for some time ago
                for conv, after in asked:
                    page(delivery, conv, after, head, size=value)
                asked = []
            case "lose the page":
                delivery.unasked()
                asked = []
            case "read":
                read(value)
            case "crash":  # this process dies: what was read stays read
                delivery, asked = Delivery(delivery.consumed_cursors, queue_limit=limit), []
                delivery.opened({"@bob": (EPOCH, head)}, replayed=["@bob"])
    delivery.unasked()
    delivery.heads({"@bob": (EPOCH, head)})
    for _ in range(3 * head + 3):
        read(len(delivery))
        for conv, after in delivery.wants():
            page(delivery, conv, after, head)
    assert got == list(range(1, head + 1))


def test_what_came_live_while_a_page_was_asked_for_is_not_told_again():
    delivery = Delivery({"#lobby": (EPOCH, 1)})
    delivery.record(record(3, "#lobby"))
    assert delivery.wants() == [("#lobby", 0)]
    delivery.record(record(1, "#lobby"))
    page(delivery, "#lobby", 0, 4, size=4)
    assert [item.seq for item in drain(delivery)] == [1, 2, 3, 4]


def test_a_gap_in_a_replay_where_nothing_is_kept_any_more():
    for kept in (range(4, 7), range(7, 7)):
        delivery = Delivery({"#lobby": (EPOCH, 1)})
        delivery.gap("#lobby", kept.start)
        for seq in kept:
            delivery.record(record(seq, "#lobby"))
        assert delivery.wants() == [("#lobby", 0)]
        delivery.page("#lobby", EPOCH, [(seq, record(seq, "#lobby")) for seq in kept], more=False, last_seq=6)
        assert [(type(item), item.seq) for item in drain(delivery)] == [(Missing, kept.start - 1), *((m.Message, seq) for seq in kept)]
        assert delivery.wants() == []


def test_what_the_server_has_no_more_is_told_once():
    delivery = Delivery({"#lobby": (EPOCH, 1)})
    delivery.heads({"#lobby": (EPOCH, 9)})
    assert delivery.wants() == [("#lobby", 0)]
    delivery.page("#lobby", EPOCH, [(3, record(3, "#lobby"))], more=False, last_seq=9)
    kinds = [(type(item), item.seq) for item in drain(delivery)]
    assert kinds == [(Missing, 2), (m.Message, 3), (Missing, 9)]
    assert delivery.wants() == []
    assert delivery.consumed_cursors == {"#lobby": (EPOCH, 10)}


def test_hidden_history_advances_the_cursor():
    delivery = Delivery({"#lobby": (EPOCH, 1)})
    delivery.record(record(6, "#lobby"))
    delivery.wants()
    hidden = Hidden(conv="#lobby", epoch=EPOCH, from_seq=1, seq=4)
    delivery.page("#lobby", EPOCH, [(1, hidden), (5, record(5, "#lobby"))], more=False, last_seq=6)
    assert [item.seq for item in drain(delivery)] == [4, 5, 6]


def test_a_page_of_the_old_lineage_is_ignored_and_a_new_one_is_told():
    delivery = Delivery({"#lobby": (EPOCH, 1)})
    delivery.heads({"#lobby": (EPOCH, 3)})
    delivery.wants()
    delivery.record(record(8, "#lobby", "epoch0002"))
    page(delivery, "#lobby", 0, 3)
    reset, first = drain(delivery)
    assert (reset.epoch, reset.last_seq) == ("epoch0002", 7)
    assert first.seq == 8


def test_a_login_without_replay_tells_what_one_is_not_in_any_more():
    delivery = Delivery({"#gone": (EPOCH, 5), "#lobby": (EPOCH, 2)})
    delivery.opened({"#lobby": (EPOCH, 1), "#new": (EPOCH, 40)})
    (removed,) = drain(delivery)
    assert removed.conv == "#gone"
    assert delivery.cursors == {"#lobby": (EPOCH, 2), "#new": (EPOCH, 41)}


def test_a_new_device_gets_the_last_private_texts():
    delivery = Delivery(backlog=3)
    delivery.opened({"@bob": (EPOCH, 10), "#lobby": (EPOCH, 10)})
    assert delivery.wants() == [("@bob", 7)]
