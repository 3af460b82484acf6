"""Deciding who is in a channel, and telling who is."""

from itertools import islice
from typing import Any, Final

from chat.errors import ChatError
from chat.protocol import messages as m
from chat.rooms import decisions as d
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms.audience import Reply
from chat.rooms.desk import Desk, Handler
from chat.rooms.policy import take
from chat.rooms.rules import decisions as ruling
from chat.rooms.state import Room, unseen
from chat.rooms.texts import not_in

MEMBERS_TOLD: Final = 500  # in one answer, some 40 KB: as many as one may ask for at once (`policy.LISTS`) fit into an outbox


def join(desk: Desk, link: it.Connection, request: m.Join) -> None:
    """A public channel, or one that the person is in. The connection has sent private ones through `JoinVerified`."""
    room = desk.state.find_room(request.channel, link.account)
    _join(desk, link, request.id, room, unseen(request.channel))


def join_verified(desk: Desk, link: it.Connection, item: it.JoinVerified) -> None:
    room = desk.state.rooms.get(item.room) if item.room is not None else None
    if room is None or room.password_version != item.password_version:
        raise unseen(item.channel)
    _join(desk, link, item.id, room, unseen(item.channel))


def _join(desk: Desk, link: it.Connection, id: int | str, room: Room, absent: ChatError) -> None:
    if link.account not in room.members:
        ruling.check_join(desk.state, desk.who(link), room, absent)
    effects = d.join(desk.state, desk.who(link), room, desk.clock.now_ms())
    if effects:
        take(desk.rates.of(link.account).joins, desk.clock.now(), "joins")

    def ok(outcome: fx.Outcome) -> m.Ok:
        router = desk.router
        seq = outcome.placed[0].seq if outcome.placed else None
        role = room.members.get(link.account, "member")
        return m.Ok(id=id, conv=room.conv, epoch=room.epoch, seq=seq, last_seq=router.head(room.id), topic=room.topic, role=role)

    desk.add(fx.Action(effects=tuple(effects), account=link.account, reply=Reply(link, id, ok), rests=not effects))


def leave(desk: Desk, link: it.Connection, request: m.Leave) -> None:
    room = desk.state.find_room(request.channel, link.account)

    def ok(outcome: fx.Outcome) -> m.Ok:
        seq = outcome.placed[0].seq if outcome.placed else None
        return m.Ok(id=request.id, conv=room.conv, epoch=room.epoch, seq=seq)

    desk.answer(link, request.id, ok, d.leave(desk.state, desk.who(link), room, desk.clock.now_ms()))


def members(desk: Desk, link: it.Connection, request: m.Members) -> None:
    """Who joined behind ``after``, in the order of joining."""
    state = desk.state
    room = state.room_for(request.channel, link.account)
    if room is None or link.account not in room.members:
        raise not_in(room, request.channel)
    following = iter(room.members.items())
    if request.after is not None:
        after = state.find_account(request.after).id
        if after not in room.members:
            raise ChatError("not_found", f"{state.name_of(after)} is no member of {room.conv}")
        next(account for account, _ in following if account == after)
    listed = [
        {"user": (a := state.accounts[account]).name, "role": role, "color": a.color, "online": state.is_online(account)}
        for account, role in islice(following, min(request.limit or MEMBERS_TOLD, MEMBERS_TOLD))
    ]
    total = len(room.members) if len(listed) < len(room.members) else None
    more = next(following, None) is not None or None
    desk.answer(link, request.id, lambda outcome: m.Ok(id=request.id, conv=room.conv, data=listed, total=total, more=more))


def read(desk: Desk, link: it.Connection, item: it.ReadMark) -> None:
    marker = fx.SetReadMarker(conv=item.conv, account=link.account, seq=item.seq)
    desk.answer(link, item.id, lambda outcome: m.Ok(id=item.id), [marker])


def barrier(desk: Desk, link: it.Connection, item: it.Barrier) -> None:
    desk.answer(link, 0, lambda outcome: item.reached())


HANDLERS: Final[dict[type[Any], Handler]] = {
    m.Join: join,
    m.Leave: leave,
    m.Members: members,
    it.JoinVerified: join_verified,
    it.ReadMark: read,
    it.Barrier: barrier,
}
