"""Who is just catching up, or lags: rings, their end, and what is told afterwards. With a model: test_router.py."""

from chat.protocol import messages as m
from chat.rooms import effects as fx
from tests.rooms.house import Line, open_house


def test_a_record_that_was_never_routed_leaves_no_hole_in_a_ring():
    """After a commit of which nobody knew what became: who catches up must read it from the store."""
    with open_house() as house:
        ann, bob = house.register("ann"), house.register("bob")
        pair = fx.Pair.of(ann.account, bob.account)
        for n in range(4):
            append = fx.Append(conv=pair, kind="message", author=ann.account, body=f"text {n}")
            outcomes = house.writer.commit([fx.Action(effects=(append,))])
            if n != 1:
                house.router.route(outcomes)
        conv = outcomes[0].placed[0].conv
        assert [message["seq"] for message in bob.take()] == [1, 3, 4]
        late = Line()
        late.account = bob.account
        assert house.router.finish_replay(late, {conv: 2}) == [conv]
        assert house.router.finish_replay(late, {conv: 3}) == []
        assert [message["seq"] for message in late.take()] == [3, 4]


def test_a_long_last_stretch_is_read_from_the_store():
    with open_house() as house:
        ann, late = house.register("ann"), Line()
        late.account = ann.account
        conv = house.state.room("lobby").id
        for _ in range(8):
            house.say(ann, "lobby", "x" * 10_000)
        assert house.router.finish_replay(late, {conv: 1}) == [conv]
        assert late.take() == []
        assert house.router.finish_replay(late, {conv: 3}) == []
        assert [message["seq"] for message in late.take()] == [3, 4, 5, 6, 7, 8]


def test_rings_are_kept_for_those_that_changed_lately():
    with open_house() as house:
        ann = house.register("ann")
        audience = house.router.by_conv[house.state.room("lobby").id]
        house.say(ann, "lobby", "hi")
        house.tick(29)
        assert [item.seq for item in audience.ring] == [1]
        house.tick(30)
        assert audience.ring is None


def test_of_what_it_left_while_it_lagged_a_line_is_told_nothing():
    with open_house() as house:
        ann, phone, bob = house.register("ann"), house.log_in("ann"), house.register("bob")
        phone.outbox.full = True
        house.say(bob, "lobby", "hi")
        house.ask(ann, m.Leave(id=1, channel="lobby"))
        assert [message["type"] for message in phone.take()] == ["removed"]
        phone.outbox.full = False
        house.router.unlag(phone)
        assert phone.take() == []
        assert not phone.skipped


class Number(int):
    """Counts how often it is compared."""

    compared = 0
    __hash__ = int.__hash__

    def __eq__(self, other):
        Number.compared += 1
        return int(self) == int(other)


def test_who_is_in_very_many_channels_holds_nobody_up():
    """Loading anew, and what it missed while it lagged: the work grows with what there is, and not with its square."""
    with open_house() as house:
        ann, n = house.register("ann"), 500
        numbers = [Number(n) for n in range(1000, 1000 + n)]
        rooms = [(number, "abcdefgh", f"room{number}", 0) for number in numbers]
        house.router.load(rooms, lambda account: numbers)
        assert len(house.router.online[ann.account].convs) == n
        ann.take()
        Number.compared = 0
        house.router.load(rooms, lambda account: [Number(number) for number in numbers])
        assert ann.take() == []
        ann.skipped = frozenset(numbers)
        house.router.unlag(ann)
        assert len(ann.take()[-1]["heads"]) == n
        assert Number.compared < 20 * n
