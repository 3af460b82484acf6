"""A small honest server for the client's tests: real sockets, the contract's semantics, one channel, everything in memory.

It survives its own "crashes": `stop` cuts every connection, `start` listens on the same port again with what was stored. Its faults
are made on purpose by the tests: `skip_notices` (a notice is stored and not told), `refuse` (errors for the next sends), `refuse_openers`,
`swallow_acks`, `swallow_sends`.
"""

import secrets
import ssl
from contextlib import asynccontextmanager, suppress

import attrs
import trio

from chat.protocol import messages as m
from chat.protocol.connection import Connection
from chat.protocol.framing import LineFramer
from chat.protocol.states import Role

EPOCH = "epoch0001"


@attrs.define(eq=False)
class Peer:
    stream: object
    protocol: Connection
    user: str = ""
    session: str = ""
    ended: bool = False  # it has had the last word
    lock: trio.Lock = attrs.Factory(trio.Lock)

    async def send(self, *messages):
        async with self.lock:
            if self.ended:
                return
            self.ended = any(isinstance(message, m.Closing | m.Replaced) for message in messages)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self.stream.send_all(b"".join(self.protocol.send(message) + b"\n" for message in messages))


@attrs.define(eq=False)
class FakeServer:
    nursery: trio.Nursery
    tls: ssl.SSLContext | None = None
    port: int = 0
    epoch: str = EPOCH
    accounts: dict = attrs.Factory(lambda: {"ann": "correct horse", "bob": "battery staple"})
    records: list = attrs.Factory(list)  # of #lobby
    private: dict = attrs.Factory(dict)  # "@peer" as ann sees it -> records
    cids: dict = attrs.Factory(dict)
    tokens: dict = attrs.Factory(dict)  # token -> (session, user)
    banned: str | None = None  # what who resumes is told
    refuse_openers: list = attrs.Factory(list)  # codes for the next ones to resume or log in
    present: dict = attrs.Factory(dict)  # session -> present token
    peers: list = attrs.Factory(list)
    requests: list = attrs.Factory(list)
    refuse: list = attrs.Factory(list)
    skip_notices: int = 0
    swallow_acks: int = 0
    swallow_sends: int = 0
    replay_limit: int = 500
    page_limit: int = 500
    on_request: object = lambda request: None
    scope: trio.CancelScope | None = None

    @property
    def target(self):
        return f"127.0.0.1:{self.port}"

    async def start(self):
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        self.scope = trio.CancelScope()
        await self.nursery.start(self._serve, listeners, self.scope)

    async def _serve(self, listeners, scope, task_status):
        with scope:
            async with trio.open_nursery() as nursery:
                task_status.started()
                await trio.serve_listeners(self._handle, listeners, handler_nursery=nursery)

    async def stop(self):
        """Like kill -9: every connection breaks."""
        self.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()

    async def say(self, user, text, conv="#lobby", but=None):
        record = self._store(user, text, None, conv)
        if self.skip_notices:
            self.skip_notices -= 1
        else:
            for peer in self.peers:
                if peer.user and peer is not but:
                    await peer.send(record)
        return record

    def _store(self, user, text, cid, conv="#lobby"):
        records = self._of(conv)
        record = m.Message(
            conv=conv, epoch=self.epoch, seq=len(records) + 1, ts=1_700_000_000_000 + len(records), from_=user, text=text, cid=cid
        )
        records.append(record)
        return record if cid is None else attrs.evolve(record, cid=None)

    def _of(self, conv):
        return self.records if conv == "#lobby" else self.private.setdefault(conv, [])

    def heads(self):
        convs = {"#lobby": self.records, **self.private}
        return {conv: (self.epoch, len(records)) for conv, records in convs.items()}

    async def _handle(self, stream):
        if self.tls is not None:
            stream = trio.SSLStream(stream, self.tls, server_side=True)
        peer, framer = Peer(stream, Connection(Role.SERVER)), LineFramer(65536)
        self.peers.append(peer)
        try:
            while data := await stream.receive_some(65536):
                for request in peer.protocol.receive(framer.feed(bytes(data))):
                    assert not isinstance(request, Exception), request
                    self.requests.append(request)
                    self.on_request(request)
                    await self._answer(peer, request)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.peers.remove(peer)
            await trio.aclose_forcefully(stream)

    def _session(self, peer, request, cls, session):
        token = secrets.token_urlsafe(8)
        for old, (name, _) in list(self.tokens.items()):  # the present one becomes the previous one, older ones are stale
            if name == session and old != self.present.get(session):
                del self.tokens[old]
        self.tokens[token] = (session, peer.user)
        self.present[session] = token
        peer.session = session
        channels = [m.ChannelInfo(channel="lobby", topic="", role="member")]
        return cls(id=request.id, user=peer.user, session=session, resume_token=token, heads=self.heads(), channels=channels)

    async def _answer(self, peer, request):
        if isinstance(request, m.Resume | m.Login) and self.refuse_openers:
            await peer.send(m.Error(id=request.id, code=self.refuse_openers.pop(0), message="not as things are"))
            return
        match request:
            case m.Hello():
                await peer.send(m.Welcome(protocol=1, server="fake", name="Fake", limits={}, prefix="//", registration="invite"))
            case m.Register():
                if request.username in self.accounts:
                    await peer.send(m.Error(id=request.id, code="name_taken", message="that name is taken"))
                    return
                self.accounts[request.username] = request.password
                peer.user = request.username
                await peer.send(self._session(peer, request, m.SessionOpened, secrets.token_hex(4)))
            case m.Login():
                if self.accounts.get(request.username) != request.password:
                    await peer.send(m.Error(id=request.id, code="unauthorized", message="wrong name or password"))
                    return
                peer.user = request.username
                await peer.send(self._session(peer, request, m.SessionOpened, secrets.token_hex(4)))
            case m.Resume():
                await self._resume(peer, request)
            case m.Send():
                await self._send(peer, request)
            case m.HistoryRequest() if request.conv[:1] == "@" and request.conv[1:] not in self.accounts:
                await peer.send(m.Error(id=request.id, code="not_found", message=f"there is no user {request.conv[1:]!r}"))
            case m.HistoryRequest():
                records = self._of(request.conv)
                above = [record for record in records if record.seq > (request.after or 0)]
                below = [record for record in records if record.seq < (request.before or len(records) + 1)]
                limit = min(self.page_limit, request.limit)
                page = above[:limit] if request.after is not None else below[-limit:]
                data = [_wire(record) for record in page]
                first, last = (page[0].seq, page[-1].seq) if page else (0, 0)
                more = len(above) > limit if request.after is not None else len(below) > limit
                await peer.send(
                    m.HistoryPage(
                        id=request.id, conv=request.conv, epoch=self.epoch, messages=data, first_seq=first, last_seq=last, more=more
                    )
                )
            case m.Command():
                await peer.send(m.Result(id=request.id, text=f"ran {request.text}"))
            case m.Commands():
                data = [{"name": "help", "arguments": "(command)", "description": "what there is"}]
                await peer.send(m.Ok(id=request.id, data=data))
            case m.Members():
                await peer.send(m.Ok(id=request.id, data=[{"user": "bob", "role": "member", "color": "#ff8800", "online": True}], total=3))
            case m.Ping():
                await peer.send(m.Pong(id=request.id))
            case m.Pong():
                pass
            case _:
                await peer.send(m.Ok(id=request.id))

    async def _resume(self, peer, request):
        if self.banned is not None:
            await peer.send(m.Error(id=request.id, code="forbidden", message=self.banned))
            return
        if request.token not in self.tokens:
            await peer.send(m.Error(id=request.id, code="unauthorized", message="that session is over"))
            return
        session, peer.user = self.tokens[request.token]
        self.present[session] = request.token
        for conv, (epoch, following) in request.cursors.items():
            records = self._of(conv)
            if epoch != self.epoch or following > len(records) + 1:
                await peer.send(m.HistoryReset(conv=conv, epoch=self.epoch, last_seq=len(records)))
                continue
            start = max(following, len(records) + 1 - self.replay_limit)
            if start > following:
                await peer.send(m.Gap(conv=conv, after=following - 1, before=start))
            for record in records[start - 1 :]:
                await peer.send(record)
        await peer.send(self._session(peer, request, m.Resumed, session))

    async def _send(self, peer, request):
        if self.refuse:
            code, retry_after = self.refuse.pop(0)
            await peer.send(m.Error(id=request.id, cid=request.cid, code=code, message="not now", retry_after=retry_after))
            return
        if self.swallow_sends:  # neither stored nor answered
            self.swallow_sends -= 1
            return
        if request.text.startswith("//"):
            await peer.send(m.Result(id=request.id, text=f"ran {request.text}"))
            return
        conv = f"#{request.channel}" if request.channel else f"@{request.to}"
        dup = (peer.user, request.cid) in self.cids
        if not dup:
            text = request.text[1:] if request.text.startswith("\\//") else request.text
            self.cids[peer.user, request.cid] = self._store(peer.user, text, request.cid, conv)
        record = self.cids[peer.user, request.cid]
        if self.swallow_acks:  # stored, and the connection breaks before the ack
            self.swallow_acks -= 1
            await trio.aclose_forcefully(peer.stream)
            return
        ack = m.Ack(id=request.id, cid=request.cid, conv=conv, epoch=record.epoch, seq=record.seq, ts=record.ts, dup=dup or None)
        await peer.send(ack)
        if not dup:
            for other in self.peers:
                if other.user and other is not peer:
                    await other.send(record)


def _wire(record):
    data = {"type": record.type, **{k.rstrip("_"): v for k, v in attrs.asdict(record).items() if v is not None}}
    return data


@asynccontextmanager
async def fake_server(**options):
    async with trio.open_nursery() as nursery:
        server = FakeServer(nursery, **options)
        await server.start()
        yield server
        nursery.cancel_scope.cancel()
