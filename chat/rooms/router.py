"""ROUTE: tell people what was committed, in the order in which it was committed. Plain calls; nothing here waits.

Theory of operation
-------------------
The committer calls `Router.route` with the outcomes of one transaction. Everything that the router knows (who is a member where, who
listens, where each conversation's head is) changes only there and in `attach` / `detach`, so a conversation's audience is exactly its
membership at each place of the order.

A notice is encoded once. Within a batch the records of a conversation are collected, joined into one blob, and the same bytes go into
the outbox of every member who got nothing else in this batch. The few connections that asked for something in this batch (the *singled*
ones) get their own sequence: an ack in the place of their own notice, and everything else at its place between. Before the audience of
a conversation changes in the middle of a batch, what has been collected for it goes out to the audience that it had.

At the end of the batch one flush: one non-blocking send per outbox that has something. Why: architecture, "How bytes leave".

A connection that resumes is in no audience while it is replayed. The router's heads are exact: `finish_replay` succeeds only when for
every conversation the next seq that the connection lacks is head + 1; it may take the last stretch out of the ring of the conversation's
latest records, or a busy one could never be caught. So nothing is sent twice and nothing is missed between replay and live.

A connection whose outbox refuses live notices (it is lagging) has the conversation noted in ``link.skipped``; when its outbox
is empty it gets their heads and is live again.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, Protocol

import attrs

from chat.errors import ChatError
from chat.protocol import codec
from chat.protocol import messages as m
from chat.rooms import effects as fx
from chat.rooms import notices

RING: Final = 64  # records that a conversation keeps at hand for those who are just catching up: several batches' share of a busy one

Frame = Callable[[bytes], bytes]  # puts a payload into the bytes of a dialect; connections of one dialect share one function


class Outlet(Protocol):
    """What the router needs of an outbox (`chat.transport.outbox.Outbox`)."""

    def put(self, data: bytes) -> bool: ...
    def put_always(self, data: bytes) -> None: ...


class Link(Protocol):
    """A connection, as the rooms see it. ``account`` is 0 and ``session`` empty before a session. Hashed by identity."""

    @property
    def outbox(self) -> Outlet: ...
    @property
    def frame(self) -> Frame: ...
    @property
    def account(self) -> int: ...
    @property
    def session(self) -> str: ...
    @property
    def skipped(self) -> set[int]: ...


@attrs.define(eq=False)
class Reply:
    """Whom to answer, and with what. ``make`` builds the answer at its place in the order (None: nothing to say); without it the answer
    is the ack of a send. ``replaces``: the answer stands in the place of the action's own records for this connection."""

    link: Link
    id: int | str | None
    make: Callable[[fx.Outcome], Any] | None = None
    replaces: bool = True
    conv: str = ""  # of an ack: the conversation's name as this connection knows it
    failed: Callable[[ChatError], None] | None = None  # instead of telling the connection


@attrs.define(eq=False)
class Audience:
    """A conversation as committed, and who listens to it. ``pair``: the accounts of a private one."""

    conv: int
    epoch: str
    head: int
    name: str
    pair: tuple[int, int] | None = None
    links: set[Link] = attrs.Factory(set)
    ring: "deque[fx.Placed] | None" = None
    collected: list[tuple[int, fx.Placed, Link | None]] = attrs.Factory(list)


@attrs.define(eq=False)
class Online:
    """An account with a session that is online or within its resume window, and the conversations it is in."""

    links: set[Link] = attrs.Factory(set)
    convs: set[int] = attrs.Factory(set)


@attrs.define(kw_only=True)
class Hooks:
    """What the router tells its neighbours; plain calls."""

    flush: Callable[[], None]
    name_of: Callable[[int], str]
    is_online: Callable[[int], bool]
    close_sessions: Callable[[fx.CloseSessions], None]
    refuse_retry: Callable[[fx.Action], ChatError | None]  # a known cid comes too often
    record: Callable[[str, fx.Placed], None] | None = None  # the message log; the conversation's name as in ``#channel``


class Router:
    """Owns the audiences. ``heads`` of rooms are given at the start; those of private conversations come with the sessions."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._audiences: dict[int, Audience] = {}
        self._online: dict[int, Online] = {}
        self._changed: set[int] = set()
        self._presence: dict[int, bool] = {}
        self._singled: dict[Link, list[tuple[int, int, bytes]]] = {}
        self._touched: list[Audience] = []
        self._deferred: list[Callable[[], None]] = []

    def load(self, rooms: Iterable[tuple[int, str, str, int]]) -> None:
        """Rooms as (id, epoch, name, last_seq), once before the first batch."""
        for conv, epoch, name, last_seq in rooms:
            self._audiences[conv] = Audience(conv, epoch, last_seq, "#" + name)

    # ------------------------------------------------------------ one batch

    def route(self, outcomes: Sequence[fx.Outcome]) -> None:
        """Tell everybody concerned, then flush. Called once per committed batch, in commit order."""
        singled = self._singled = {o.action.reply.link: [] for o in outcomes if o.action.reply is not None}
        for place, outcome in enumerate(outcomes):
            self._route(2 * place, outcome)  # its records at the even place, its answer behind them
        for audience in self._touched:
            self._send_out(audience)
        self._touched.clear()
        for link, frames in singled.items():
            if len(frames) > 1:
                frames.sort(key=_place)
            self._put_singled(link, frames)
        self._singled = {}
        for call in self._deferred:
            call()
        self._deferred.clear()
        self._hooks.flush()

    def defer(self, call: Callable[[], None]) -> None:
        """Do it after everything of the batch that is being routed is in the outboxes, before they are flushed."""
        self._deferred.append(call)

    def _route(self, place: int, outcome: fx.Outcome) -> None:
        action = outcome.action
        reply: Reply | None = action.reply
        if outcome.error is None and outcome.dup is None:
            if outcome.placed or len(action.effects) > 1 or (action.effects and type(action.effects[0]) is not fx.Append):
                self._take_effects(place, outcome, reply.link if reply is not None and reply.replaces else None)
            elif action.effects:
                raise AssertionError("a stored append without a place")
        if reply is None:
            return
        payload = self._answer(outcome, reply)
        if payload is not None:
            self._singled[reply.link].append((place + 1, 0, reply.link.frame(payload)))

    def _answer(self, outcome: fx.Outcome, reply: Reply) -> bytes | None:
        action = outcome.action
        error = outcome.error
        if outcome.dup is not None and error is None:
            error = self._hooks.refuse_retry(action)
        if error is not None:
            if reply.failed is not None:
                reply.failed(error)
                return None
            answer = m.Error(id=reply.id, cid=action.cid, code=error.code, message=error.message, retry_after=error.retry_after)
            return codec.encode(answer)
        dup = outcome.dup
        if isinstance(dup, bytes):
            return b'{"type":"result","id":%b,"dup":true,%b' % (notices.json_bytes(reply.id), dup[1:])
        if dup is not None:
            _, epoch, seq, ts = dup
            return notices.ack(reply.id, action.cid or "", reply.conv, epoch, seq, ts, True)
        if reply.make is not None:
            made = reply.make(outcome)
            return made if made is None or isinstance(made, bytes) else codec.encode(made)
        item = outcome.placed[0]
        return notices.ack(reply.id, action.cid or "", reply.conv, item.epoch, item.seq, item.ts, False)

    def _take_effects(self, place: int, outcome: fx.Outcome, without: Link | None) -> None:
        placed = iter(outcome.placed)
        for effect in outcome.action.effects:
            match effect:
                case fx.Append():
                    self._collect(place, next(placed), without)
                case fx.PutMember(room=room, account=account):
                    self._put_member(place, room, account, recorded=bool(outcome.placed), without=without)
                case fx.DropMember(room=room, account=account, reason=reason):
                    self._drop_member(place, self._audiences[room], account, reason, without)
                case fx.CreateRoom():
                    self._audiences[effect.room] = Audience(effect.room, effect.epoch, 0, "#" + effect.name)
                case fx.DeleteRoom(room=room):
                    self._delete_room(place, room)
                case fx.Tell(account=account, message=message):
                    self._tell_account(place, account, codec.encode(message))
                case fx.CloseSessions():
                    self.defer(partial(self._hooks.close_sessions, effect))
                case fx.SessionOffline(account=account) | fx.DropSession(account=account) | fx.DropSessions(account=account):
                    if not self._hooks.is_online(account):
                        self.presence(account, False)
                case _:
                    pass

    def _collect(self, place: int, item: fx.Placed, without: Link | None) -> None:
        audience = self._audiences.get(item.conv)
        if audience is None:
            audience = self._open_pair(item)
        audience.head = item.seq
        ring = audience.ring
        if ring is None:
            ring = audience.ring = deque(maxlen=RING)
        ring.append(item)
        if not audience.collected:
            self._touched.append(audience)
        audience.collected.append((place, item, without))
        if self._hooks.record is not None and audience.pair is None:
            self._hooks.record(audience.name, item)

    def _open_pair(self, item: fx.Placed) -> Audience:
        """The first record of a private conversation that nobody had open: whoever of the two is online has it now."""
        pair = item.append.conv
        assert isinstance(pair, fx.Pair)
        audience = self._audiences[item.conv] = Audience(item.conv, item.epoch, item.seq - 1, "", (pair.low, pair.high))
        for account in {pair.low, pair.high}:
            online = self._online.get(account)
            if online is not None:
                online.convs.add(item.conv)
                audience.links |= online.links
        return audience

    def _send_out(self, audience: Audience) -> None:
        """What was collected for a conversation goes out to the audience that it has now."""
        collected = audience.collected
        if not collected:
            return
        conv = audience.conv
        self._changed.add(conv)
        payloads: dict[int, list[bytes]] = {}  # by viewer: of a private conversation each side sees its own name for it
        blobs: dict[tuple[int, Frame], bytes] = {}
        pair, singled = audience.pair, self._singled
        for link in audience.links:
            viewer = link.account if pair is not None else 0
            encoded = payloads.get(viewer)
            if encoded is None:
                name, name_of = self.conv_name(conv, viewer), self._hooks.name_of
                encoded = payloads[viewer] = [notices.placed(name, item, name_of) for _, item, _ in collected]
            frame = link.frame
            frames = singled.get(link)
            if frames is None:
                blob = blobs.get((viewer, frame))
                if blob is None:
                    blob = blobs[viewer, frame] = b"".join(map(frame, encoded))
                if not link.outbox.put(blob):
                    link.skipped.add(conv)
            else:
                for (place, _, without), payload in zip(collected, encoded, strict=True):
                    if without is not link:
                        frames.append((place, conv, frame(payload)))
        collected.clear()

    def _put_singled(self, link: Link, frames: list[tuple[int, int, bytes]]) -> None:
        outbox = link.outbox
        for _, conv, data in frames:
            if not conv:
                outbox.put_always(data)
            elif not outbox.put(data):
                link.skipped.add(conv)

    def _tell(self, place: int, link: Link, payload: bytes) -> None:
        """Something that is always taken, at its place."""
        frames = self._singled.get(link)
        if frames is None:
            link.outbox.put_always(link.frame(payload))
        else:
            frames.append((place, 0, link.frame(payload)))

    def _tell_account(self, place: int, account: int | None, payload: bytes) -> None:
        onlines = self._online.values() if account is None else filter(None, (self._online.get(account),))
        for online in onlines:
            for link in online.links:
                self._tell(place, link, payload)

    # ------------------------------------------------------------ membership

    def _put_member(self, place: int, room: int, account: int, *, recorded: bool, without: Link | None) -> None:
        online = self._online.get(account)
        if online is None or room in online.convs:
            return
        audience = self._audiences[room]
        self._send_out(audience)
        online.convs.add(room)
        audience.links |= online.links
        if not recorded:  # no notice will tell the account's other sessions: the head does
            payload = codec.encode(m.Heads(heads={audience.name: (audience.epoch, audience.head)}))
            for link in online.links:
                if link is not without:
                    self._tell(place, link, payload)

    def _drop_member(self, place: int, audience: Audience, account: int, reason: str | None, without: Link | None) -> None:
        self._send_out(audience)
        online = self._online.get(account)
        if online is None:
            return
        online.convs.discard(audience.conv)
        audience.links -= online.links
        payload = codec.encode(m.Removed(conv=audience.name, reason=reason))
        for link in online.links:
            link.skipped.discard(audience.conv)
            if link is not without:
                self._tell(place, link, payload)

    def _delete_room(self, place: int, room: int) -> None:
        audience = self._audiences[room]
        self._send_out(audience)
        payload = codec.encode(m.Removed(conv=audience.name, reason="deleted"))
        for link in audience.links:
            link.skipped.discard(room)
            self._tell(place, link, payload)
        for online in self._online.values():
            online.convs.discard(room)
        del self._audiences[room]
        self._changed.discard(room)

    # ------------------------------------------------------------ connections come and go

    def open(self, account: int, conversations: Iterable[fx.Conversation]) -> None:
        """An account's session begins or resumes: from here on the heads of all its conversations are known. Called at its place."""
        online = self._online.get(account)
        if online is None:
            online = self._online[account] = Online()
            self.presence(account, True)
        for c in conversations:
            if c.conv not in self._audiences:
                assert c.peer is not None, "rooms are known from the start"
                pair = (min(account, c.peer), max(account, c.peer))
                audience = self._audiences[c.conv] = Audience(c.conv, c.epoch, c.last_seq, "", pair)
                peer = self._online.get(c.peer)
                if peer is not None:
                    peer.convs.add(c.conv)
                    audience.links |= peer.links
            online.convs.add(c.conv)

    def hold(self, account: int, rooms: Iterable[int]) -> None:
        """At the start: a session of the account was online when the server ended, and may come back within the resume window."""
        self._online.setdefault(account, Online()).convs.update(rooms)

    def attach(self, link: Link) -> None:
        """*link* is live from the heads on, in every conversation of its account. Its account was opened."""
        online = self._online[link.account]
        for conv in online.convs:
            audience = self._audiences[conv]
            self._send_out(audience)
            audience.links.add(link)
        online.links.add(link)

    def detach(self, link: Link) -> None:
        online = self._online.get(link.account)
        if online is not None:
            for conv in online.convs:
                self._audiences[conv].links.discard(link)
            online.links.discard(link)

    def forget(self, account: int) -> None:
        """The account is offline: drop what is kept for it, and the private conversations that nobody else has open."""
        online = self._online.pop(account, None)
        for conv in online.convs if online is not None else ():
            pair = self._audiences[conv].pair
            if pair is not None and not any(other in self._online for other in pair):
                del self._audiences[conv]
                self._changed.discard(conv)

    def finish_replay(self, link: Link, cursors: dict[int, int]) -> list[int]:
        """Make *link* live if it has seen everything up to the heads; *cursors* are the next seqs that it lacks.

        Returns the conversations that must be read further from the store; empty: it is live, and the last stretches are in its outbox.
        """
        behind: list[int] = []
        stretches: list[tuple[Audience, list[fx.Placed]]] = []
        convs = self._online[link.account].convs
        for conv, next_seq in cursors.items():
            audience = self._audiences.get(conv)
            if audience is None or conv not in convs:
                continue
            missing = audience.head + 1 - next_seq
            if missing > 0:
                ring = audience.ring
                if ring is None or len(ring) < missing:
                    behind.append(conv)
                else:
                    stretches.append((audience, list(islice(ring, len(ring) - missing, None))))
        if behind:
            return behind
        for audience, items in stretches:
            name = self.conv_name(audience.conv, link.account)
            for item in items:
                link.outbox.put_always(link.frame(notices.placed(name, item, self._hooks.name_of, link.account)))
        self.attach(link)
        return []

    def unlag(self, link: Link) -> None:
        """The outbox of a lagging connection is empty: tell where the conversations that it missed stand, and go on live."""
        if link.skipped:
            link.outbox.put_always(link.frame(codec.encode(m.Heads(heads=self.heads(link.account, link.skipped)))))
            link.skipped.clear()

    # ------------------------------------------------------------ what others ask

    def conv_name(self, conv: int, viewer: int) -> str:
        """``#channel``, or ``@`` and the other's name for *viewer*; empty for what does not exist any more."""
        audience = self._audiences.get(conv)
        if audience is None:
            return ""
        if audience.pair is None:
            return audience.name
        low, high = audience.pair
        return "@" + self._hooks.name_of(high if viewer == low else low)

    def head(self, conv: int) -> int:
        return self._audiences[conv].head

    def heads(self, account: int, convs: Iterable[int] | None = None) -> dict[str, tuple[str, int]]:
        """Name → (epoch, last seq) of *convs*, or of all that the account is in."""
        online = self._online.get(account)
        chosen = online.convs if convs is None and online is not None else convs or ()
        audiences = (self._audiences[conv] for conv in chosen if conv in self._audiences)
        return {self.conv_name(a.conv, account): (a.epoch, a.head) for a in audiences}

    def is_in(self, account: int, conv: int) -> bool:
        online = self._online.get(account)
        return online is not None and conv in online.convs

    # ------------------------------------------------------------ now and then

    def tell_heads(self) -> None:
        """The heads of the conversations that changed since the last time: they reveal a lost tail."""
        per_link: dict[Link, list[int]] = {}
        for conv in self._changed:
            audience = self._audiences.get(conv)
            for link in audience.links if audience is not None else ():
                per_link.setdefault(link, []).append(conv)
        self._changed.clear()
        encoded: dict[tuple[int, tuple[int, ...]], bytes] = {}
        for link, convs in per_link.items():
            private = any((a := self._audiences[conv]).pair is not None for conv in convs)
            key = (link.account if private else 0, tuple(convs))
            payload = encoded.get(key)
            if payload is None:
                payload = encoded[key] = codec.encode(m.Heads(heads=self.heads(link.account, convs)))
            if not link.outbox.put(link.frame(payload)):
                link.skipped.update(convs)
        self._hooks.flush()

    def presence(self, account: int, online: bool) -> None:
        """An account came or went; told with the next `tell_presence`."""
        self._presence[account] = online

    def tell_presence(self, is_small: Callable[[int], bool]) -> None:
        """Who came and who went, to those who share a small channel or a private conversation with them. *is_small*: by room id."""
        if not self._presence:
            return
        per_link: dict[Link, dict[str, bool]] = {}
        for account, is_online in self._presence.items():
            if is_online != self._hooks.is_online(account):
                continue  # it has changed again; that change is on its way
            online = self._online.get(account)
            seen: set[Link] = set()
            for conv in online.convs if online is not None else ():
                audience = self._audiences[conv]
                if audience.pair is not None or is_small(conv):
                    seen |= audience.links
            for link in seen:
                if link.account != account:
                    per_link.setdefault(link, {})[self._hooks.name_of(account)] = is_online
            if not is_online:
                self.forget(account)
        self._presence.clear()
        for link, users in per_link.items():
            link.outbox.put(link.frame(codec.encode(m.Presence(users=users))))
        self._hooks.flush()


def _place(frame: tuple[int, int, bytes]) -> int:
    return frame[0]
