"""ROUTE: tell people what was committed, in the order in which it was committed. Plain calls; nothing here waits.

Theory of operation
-------------------
The committer calls `Router.route` with the outcomes of one transaction, of a large one slice by slice. Everything that the router knows
(who is a member where, who listens, where each conversation's head is) changes only there and in `attach` / `detach`, so a
conversation's audience is exactly its membership at each place of the order.

A notice is encoded once. Within such a batch the records of a conversation are collected, joined into one blob, and the same bytes go into
the outbox of every member who got nothing else in this batch. The few connections that asked for something in this batch (the *singled*
ones) get their own sequence: an ack in the place of their own notice, and everything else at its place between. Before the audience of
a conversation changes in the middle of a batch, what has been collected for it goes out to the audience that it had.

At the end of the transaction one flush: one non-blocking send per outbox that has something. Why: architecture, "How bytes leave".

A connection that resumes is in no audience while it is replayed. The router's heads are exact: `finish_replay` succeeds only when for
every conversation the next seq that the connection lacks is head + 1; it may take the last stretch out of the ring of the conversation's
latest records, or a busy one could never be caught. So nothing is sent twice and nothing is missed between replay and live. A ring
has no hole: after a commit of which nobody knew what became, a seq may be on the disk that was never routed, and the ring starts anew.

A connection whose outbox refuses live notices (it is lagging) has the conversation noted in ``link.skipped``; when its outbox
is empty it gets their heads and is live again.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final

import msgspec

from chat.protocol import codec
from chat.protocol import messages as m
from chat.rooms import effects as fx
from chat.rooms import notices
from chat.rooms.audience import Audience, Audiences, Hooks, Link, Online, Reply
from chat.rooms.bulletins import Bulletins

RING: Final = 64  # records that a conversation keeps at hand for those who are just catching up: several batches' share of a busy one
BLOB_BYTES: Final = 64 * 1024
LAST_STRETCH_BYTES: Final = 64 * 1024  # taken out of rings at once: more is read from the store, whose reader waits for the outbox


class Router(Audiences):
    """Owns the audiences. ``heads`` of rooms are given at the start; those of private conversations come with the sessions."""

    def __init__(self, hooks: Hooks) -> None:
        super().__init__(hooks)
        self.bulletins: Final = Bulletins(self, self.forget)
        self._encoded: dict[int, list[bytes]] = {}  # of the audience that is being sent out, by viewer
        self._singled: dict[Link, list[tuple[int, int, bytes]]] = {}
        self._touched: list[Audience] = []
        self._deferred: list[Callable[[], None]] = []
        self.records = 0  # told since the start; times their listeners; refusals by code: for who looks at the daemon
        self.told = 0
        self.refused: Counter[str] = Counter()

    def load(self, rooms: Iterable[tuple[int, str, str, int]], rooms_of: Callable[[int], Collection[int]]) -> None:
        """Take over what the store has: rooms as (id, epoch, name, last_seq), and those that an account is in.

        At the start; and again, while nothing is on its way, after a commit of which nobody knew what became. Then most is known and the
        same, and who is concerned by a difference is told by `removed` and heads.
        """
        known = {conv for conv, audience in self.by_conv.items() if audience.pair is None}
        for conv, epoch, name, last_seq in rooms:
            audience = self.by_conv.setdefault(conv, Audience(conv, epoch, last_seq, "#" + name))
            if audience.head != last_seq:
                audience.head, audience.ring = last_seq, None
                self.bulletins.changed(conv)
            known.discard(conv)
        for conv in known:
            self._delete_room(0, conv)
        for account, online in self.online.items():
            before, wanted = {*online.convs}, {*rooms_of(account)}
            for conv in [conv for conv in before - wanted if self.by_conv[conv].pair is None]:
                self._drop_member(0, self.by_conv[conv], account, None, None)
            for conv in wanted - before:
                self._put_member(0, conv, account, recorded=False, without=None)
        self.hooks.flush()

    # ------------------------------------------------------------ one batch

    def route(self, outcomes: Sequence[fx.Outcome]) -> None:
        """Tell everybody concerned. Called in commit order; who calls sees to the flush, once for all that was committed together."""
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

    def defer(self, call: Callable[[], None]) -> None:
        """Do it after everything of the batch that is being routed is in the outboxes, before they are flushed."""
        self._deferred.append(call)

    def _route(self, place: int, outcome: fx.Outcome) -> None:
        action = outcome.action
        reply: Reply | None = action.reply
        effects = action.effects
        if effects and outcome.error is None and outcome.dup is None:
            without = reply.link if reply is not None and reply.replaces else None
            if len(effects) == 1 and type(effects[0]) is fx.Append:  # nearly all
                self._collect(place, outcome.placed[0], without)
            else:
                self._take_effects(place, outcome, without)
        if reply is None:
            return
        payload = self._answer(outcome, reply)
        if payload is not None:
            self._singled[reply.link].append((place + 1, 0, reply.link.frame(payload)))

    def _answer(self, outcome: fx.Outcome, reply: Reply) -> bytes | None:
        action = outcome.action
        error = outcome.error
        if outcome.dup is not None and error is None:
            error = self.hooks.refuse_retry(action)
        if error is not None:
            self.refused[error.code] += 1
            if reply.failed is not None:
                reply.failed(error)
                return None
            answer = m.Error(id=reply.id, cid=action.cid, code=error.code, message=error.message, retry_after=error.retry_after)
            return codec.encode(answer)
        dup = outcome.dup
        if isinstance(dup, bytes):
            return b'{"type":"result","id":%b,"dup":true,%b' % (notices.json_bytes(reply.id), dup[1:])
        if dup is not None:
            conv, epoch, seq, ts = dup
            name = self.conv_name(conv, reply.link.account) or reply.conv
            return notices.ack(reply.id, action.cid or "", name, epoch, seq, ts, True)
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
                    self._drop_member(place, self.by_conv[room], account, reason, without)
                case fx.CreateRoom():
                    self.by_conv[effect.room] = Audience(effect.room, effect.epoch, 0, "#" + effect.name)
                case fx.DeleteRoom(room=room):
                    self._delete_room(place, room)
                case fx.Tell(account=account, message=message):
                    self._tell_account(place, account, codec.encode(message))
                case fx.EraseTexts(conv=conv, seqs=seqs):
                    self._erase(conv, set(seqs))
                case fx.ForgetAccount():
                    self.read_anew(*self.by_conv)
                case fx.TellRoom(room=room, message=message):
                    self._tell_room(place, room, codec.encode(message))
                case fx.CloseSessions() | fx.CloseNetwork():
                    self.defer(partial(self.hooks.close_sessions, effect))
                case fx.SetReadMarker(conv=conv, account=account, seq=seq):
                    self._read(place, conv, account, seq, without)
                case fx.SessionOffline(account=account) | fx.DropSession(account=account) | fx.DropSessions(account=account):
                    if not self.hooks.is_online(account):
                        self.bulletins.presence(account, False)
                case _:
                    pass

    def _collect(self, place: int, item: fx.Placed, without: Link | None) -> None:
        audience = self.by_conv.get(item.conv)
        if audience is None:
            audience = self._open_pair(item)
        ring = audience.ring
        if ring is None or item.seq != audience.head + 1:
            ring = audience.ring = deque(maxlen=RING)
        ring.append(item)
        audience.head = item.seq
        if not audience.collected:
            self._touched.append(audience)
        audience.collected.append((place, item, without))
        if self.hooks.record is not None and audience.pair is None:
            self.hooks.record(audience.name, item)

    def _erase(self, conv: int, seqs: set[int]) -> None:
        """Texts were taken away: whoever is just catching up finds them gone, too."""
        audience = self.by_conv.get(conv)
        if audience is not None and audience.ring is not None:
            for at, item in enumerate(audience.ring):
                if item.seq in seqs and item.append.kind == "message":
                    erased = msgspec.structs.replace(item.append, body=None)  # as in the store; it is told only
                    audience.ring[at] = fx.Placed(erased, item.conv, item.epoch, item.seq, item.ts, item.cid)

    def read_anew(self, *convs: int) -> None:
        """Records of *convs* are erased or deleted in the store, in steps: who is catching up reads all of them there."""
        for conv in convs:
            if (audience := self.by_conv.get(conv)) is not None:
                audience.ring = None

    def _open_pair(self, item: fx.Placed) -> Audience:
        """The first record of a private conversation that nobody had open: whoever of the two is online has it now."""
        pair = item.append.conv
        assert isinstance(pair, fx.Pair)
        audience = self.by_conv[item.conv] = Audience(item.conv, item.epoch, item.seq - 1, "", (pair.low, pair.high))
        for account in {pair.low, pair.high}:
            online = self.online.get(account)
            if online is not None:
                online.enter((item.conv,))
                audience.links.update(online.links)
        return audience

    def _send_out(self, audience: Audience) -> None:
        """What was collected for a conversation goes out to the audience that it has now."""
        collected = audience.collected
        if not collected:
            return
        conv = audience.conv
        self.bulletins.changed(conv)
        links, singled = audience.links, self._singled
        self.records += len(collected)
        self.told += len(collected) * len(links)
        private = audience.pair is not None
        if singled:
            self._send_singled(audience, links & singled.keys())
            links = links - singled.keys()
        blobs: dict[Any, list[bytes]] = {}  # by dialect; of a private conversation by viewer too: each side sees its own name for it
        for link in links:
            key = (link.account, link.frame) if private else link.frame
            parts = blobs.get(key)
            if parts is None:
                parts = blobs[key] = joined([*map(link.frame, self._encode(audience, link.account))])
            for part in parts:
                if not link.outbox.put(part):
                    if conv not in link.skipped:
                        link.skipped |= {conv}
                    break
        collected.clear()
        self._encoded.clear()

    def _send_singled(self, audience: Audience, links: Iterable[Link]) -> None:
        """Each gets what was collected but its own, which its ack stands for."""
        conv, collected, singled = audience.conv, audience.collected, self._singled
        if audience.pair is not None:
            name_of = self.hooks.name_of
            for link in links:
                frame, name = link.frame, self.conv_name(conv, link.account)
                singled[link] += [
                    (place, conv, frame(notices.placed(name, item, name_of))) for place, item, without in collected if without is not link
                ]
            return
        told: dict[Any, list[tuple[int, int, bytes]]] = {}  # by dialect
        withouts = [without for _, _, without in collected]
        for link in links:
            frame = link.frame
            frames = told.get(frame)
            if frames is None:
                payloads = self._encode(audience, 0)
                frames = told[frame] = [(place, conv, frame(payload)) for (place, _, _), payload in zip(collected, payloads, strict=True)]
            singled[link] += [each for each, without in zip(frames, withouts, strict=True) if without is not link]

    def _encode(self, audience: Audience, viewer: int) -> list[bytes]:
        """What was collected, as *viewer* sees it; once for all who see the same."""
        viewer = viewer if audience.pair is not None else 0
        encoded = self._encoded.get(viewer)
        if encoded is None:
            name, name_of = self.conv_name(audience.conv, viewer), self.hooks.name_of
            encoded = self._encoded[viewer] = [notices.placed(name, item, name_of) for _, item, _ in audience.collected]
        return encoded

    def _put_singled(self, link: Link, frames: list[tuple[int, int, bytes]]) -> None:
        outbox = link.outbox
        if len(frames) > 1 and outbox.put_all([data for _, _, data in frames]):
            return
        for _, conv, data in frames:
            if not conv:
                outbox.put_always(data)
            elif not outbox.put(data) and conv not in link.skipped:
                link.skipped |= {conv}

    def _tell(self, place: int, link: Link, payload: bytes) -> None:
        """Something that is always taken, at its place."""
        frames = self._singled.get(link)
        if frames is None:
            link.outbox.put_always(link.frame(payload))
        else:
            frames.append((place, 0, link.frame(payload)))

    def _tell_account(self, place: int, account: int | None, payload: bytes) -> None:
        onlines = self.online.values() if account is None else filter(None, (self.online.get(account),))
        for online in onlines:
            for link in online.links:
                self._tell(place, link, payload)

    def _read(self, place: int, conv: int, account: int, seq: int, without: Link | None) -> None:
        """A read marker moved: the account's other sessions are told. The store lets none go beyond the head, or back."""
        online, audience = self.online.get(account), self.by_conv.get(conv)
        if online is None or audience is None:
            return
        seq = min(seq, audience.head)
        if seq <= online.read.get(conv, 0):
            return
        online.read[conv] = seq
        payload = codec.encode(m.ReadMarker(conv=self.conv_name(conv, account), seq=seq))
        for link in online.links:
            if link is not without:
                self._tell(place, link, payload)

    def _tell_room(self, place: int, room: int, payload: bytes) -> None:
        audience = self.by_conv.get(room)
        for link in audience.links if audience is not None else ():
            self._tell(place, link, payload)

    # ------------------------------------------------------------ membership

    def _put_member(self, place: int, room: int, account: int, *, recorded: bool, without: Link | None) -> None:
        online = self.online.get(account)
        if online is None or room in online.convs:
            return
        audience = self.by_conv[room]
        self._send_out(audience)
        online.enter((room,))
        audience.links.update(online.links)
        if not recorded:  # no notice will tell the account's other sessions: the head does
            payload = codec.encode(m.Heads(heads={audience.name: (audience.epoch, audience.head)}))
            for link in online.links:
                if link is not without:
                    self._tell(place, link, payload)

    def _drop_member(self, place: int, audience: Audience, account: int, reason: str | None, without: Link | None) -> None:
        self._send_out(audience)
        online = self.online.get(account)
        if online is None:
            return
        online.leave(audience.conv)
        audience.links.difference_update(online.links)
        payload = codec.encode(m.Removed(conv=audience.name, reason=reason))
        for link in online.links:
            if link is not without:
                self._tell(place, link, payload)

    def _delete_room(self, place: int, room: int) -> None:
        audience = self.by_conv[room]
        self._send_out(audience)
        payload = codec.encode(m.Removed(conv=audience.name, reason="deleted"))
        for link in audience.links:
            self._tell(place, link, payload)
        for online in self.online.values():
            if room in online.convs:
                online.leave(room)
        del self.by_conv[room]
        self.bulletins.ended(room)

    # ------------------------------------------------------------ connections come and go

    def open(self, account: int, conversations: Iterable[fx.Conversation]) -> None:
        """An account's session begins or resumes: from here on the heads of all its conversations are known. Called at its place."""
        online = self.online.get(account)
        if online is None:
            online = self.online[account] = Online()
            self.bulletins.presence(account, True)
        conversations = list(conversations)
        for c in conversations:
            if c.conv not in self.by_conv:
                assert c.peer is not None, "rooms are known from the start"
                pair = (min(account, c.peer), max(account, c.peer))
                audience = self.by_conv[c.conv] = Audience(c.conv, c.epoch, c.last_seq, "", pair)
                peer = self.online.get(c.peer)
                if peer is not None:
                    peer.enter((c.conv,))
                    audience.links.update(peer.links)
        online.enter(c.conv for c in conversations)

    def hold(self, account: int, rooms: Iterable[int]) -> None:
        """At the start: a session of the account was online when the server ended, and may come back within the resume window."""
        self.online.setdefault(account, Online()).enter(rooms)

    def attach(self, link: Link) -> None:
        """*link* is live from the heads on, in every conversation of its account. Its account was opened."""
        online = self.online[link.account]
        for conv in online.convs:
            audience = self.by_conv[conv]
            self._send_out(audience)
            audience.links.add(link)
        online.links = (*online.links, link)

    def detach(self, link: Link) -> None:
        online = self.online.get(link.account)
        if online is not None:
            for conv in online.convs:
                self.by_conv[conv].links.discard(link)
            online.links = tuple(other for other in online.links if other is not link)

    def forget(self, account: int) -> None:
        """The account is offline: drop what is kept for it, and the private conversations that nobody else has open.

        A connection of a session that was revoked may still be saying its last words.
        """
        online = self.online.pop(account, None)
        if online is None:
            return
        for conv in online.convs:
            audience = self.by_conv[conv]
            audience.links.difference_update(online.links)
            if audience.pair is not None and not any(other in self.online for other in audience.pair):
                del self.by_conv[conv]
                self.bulletins.ended(conv)

    def finish_replay(self, link: Link, cursors: dict[int, int]) -> list[int]:
        """Make *link* live if it has seen everything up to the heads; *cursors* are the next seqs that it lacks.

        Returns the conversations that must be read further from the store; empty: it is live, and the last stretches are in its outbox.
        What it is in no more is passed over. An account whose last session has ended has nobody to be made live.
        """
        online = self.online.get(link.account)
        if online is None:
            return []
        convs = self.convs_of(link.account)
        lacking = {conv: self.by_conv[conv] for conv in cursors if conv in convs and cursors[conv] <= self.by_conv[conv].head}
        frames: list[bytes] = []
        for conv, audience in lacking.items():
            missing = audience.head + 1 - cursors[conv]
            ring = audience.ring
            if ring is None or len(ring) < missing:
                return list(lacking)
            name = self.conv_name(conv, link.account)
            for item in islice(ring, len(ring) - missing, None):
                frames.append(link.frame(notices.placed(name, item, self.hooks.name_of, link.account)))
        if sum(map(len, frames)) > LAST_STRETCH_BYTES:
            return list(lacking)
        for data in frames:
            link.outbox.put_always(data)
        self.attach(link)
        return []

    def unlag(self, link: Link) -> None:
        """The outbox of a lagging connection is empty: tell where the conversations that it missed stand, and go on live."""
        missed = link.skipped & self.convs_of(link.account)  # of what it left meanwhile it is told nothing
        link.skipped = frozenset()
        if missed:
            link.outbox.put_always(link.frame(codec.encode(m.Heads(heads=self.heads(link.account, missed)))))


def joined(frames: list[bytes]) -> list[bytes]:
    """*frames* joined into as few blobs as possible, none longer than `BLOB_BYTES` unless one frame is: an outbox takes a blob or
    refuses it, and one that a reader who keeps up has room for must not be larger than its limits."""
    blobs: list[bytes] = []
    start = size = 0
    for at, frame in enumerate(frames):
        if size and size + len(frame) > BLOB_BYTES:
            blobs.append(b"".join(frames[start:at]))
            start, size = at, 0
        size += len(frame)
    blobs.append(b"".join(frames[start:]))
    return blobs


def _place(frame: tuple[int, int, bytes]) -> int:
    return frame[0]
