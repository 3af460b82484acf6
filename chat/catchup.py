"""What a connection reads from the store by itself: pages of history, what it missed while it was away, its account's sessions.

Long answers are written as the outbox drains: `Outbox.wait_below` first, so that they never trip its hard limit.
"""

from typing import TYPE_CHECKING, Final

from chat.errors import ChatError
from chat.protocol import messages as m
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms import logins, notices
from chat.rooms.moderation import safety
from chat.rooms.texts import not_in
from chat.store.base import FORGOTTEN_MS, HistoryRow

if TYPE_CHECKING:
    from chat.connection import Connection

PAGE_ROWS: Final = 500
PAGE_BYTES: Final = 256 * 1024  # as it is sent: a page ends early there (contract, section 2)
AROUND_BYTES: Final = 1024  # the most that a page has beside its records: an id of 64 bytes, names of 64 letters, what is hidden
REPLAY_ROWS: Final = 500  # of one conversation; more is a gap (contract, section 4)


async def _find(conn: "Connection", conv: str) -> tuple[int, str] | None:
    """A conversation by its name: its number, and its name as this account sees it. None: a private one that nobody began yet.

    *Raises* ChatError not_found, forbidden, bad_request.
    """
    state = conn.services.manager.desk.state
    if conv.startswith("#"):
        room = state.room_for(conv[1:], conn.account)
        if room is None or conn.account not in room.members:
            raise not_in(room, conv[1:])
        return room.id, room.conv
    if not conv.startswith("@"):
        raise ChatError("bad_request", "`conv` must begin with # (a channel) or @ (a person)")
    other = state.find_account(conv[1:])
    pair = fx.Pair.of(conn.account, other.id)
    found = await conn.services.store.pair(pair.low, pair.high)
    return (found.conv, "@" + other.name) if found is not None else None


async def history(conn: "Connection", request: m.HistoryRequest) -> None:
    """Answer with a page. *Raises* ChatError as `_find`, storage_unavailable. *Waits* for the store and for the outbox."""
    found = await _find(conn, request.conv)
    if found is None:
        raise ChatError("not_found", f"nothing was said in {request.conv} yet")
    conv, name = found
    bytes_max, limit = _page_bytes(conn), min(request.limit, PAGE_ROWS)
    first = await _visible_from(conn, conv)
    after = request.after if request.after is None else max(request.after, first - 1)
    page = await conn.services.store.history(conv, after=after, before=request.before, limit=limit, max_bytes=bytes_max)
    shown = [row for row in page.rows if row.seq >= first]
    rows = _encode_up_to(conn, name, page.epoch, shown if after is not None else shown[::-1], bytes_max)
    if after is None:
        rows.reverse()
    more = len(rows) < len(shown) or (page.more and len(shown) == len(page.rows))
    if first > 1 and (after is not None or not more):
        low = (request.after or 0) + 1
        high = min(first, page.last_seq + 1, request.before if request.before is not None else first) - 1
        if low <= high:
            rows.insert(0, notices.hidden(low, high))
    await conn.outbox.wait_below(conn.services.limits.outbox_soft_bytes // 2)
    conn.put(
        b'{"type":"history","id":%b,"conv":%b,"epoch":"%b","messages":[%b],"first_seq":%d,"last_seq":%d,"more":%b}'
        % (
            notices.json_bytes(request.id),
            notices.json_bytes(name),
            page.epoch.encode(),
            b",".join(rows),
            page.first_seq,
            page.last_seq,
            b"true" if more else b"false",
        )
    )
    conn.services.flush()


async def _visible_from(conn: "Connection", conv: int) -> int:
    """The first seq of a conversation that this account may read. *Waits* for the store where a channel hides something."""
    services = conn.services
    room = services.manager.desk.state.rooms.get(conv)
    if room is None or room.history == "all":
        return 1
    since_ms = services.manager.desk.clock.now_ms() - FORGOTTEN_MS if room.history == "none" else None
    return int(await services.store.visible_from(conv, conn.account, since_ms))


def _page_bytes(conn: "Connection") -> int:
    """What the records of a page, or of a stretch that is replayed, may have together as they are sent.

    Less where the outbox is smaller, since it must fit in there beside half of the soft limit. The default outbox takes whole pages.
    """
    return min(PAGE_BYTES, conn.services.limits.outbox_hard_bytes // 4) - AROUND_BYTES


def _encode_up_to(conn: "Connection", name: str, epoch: str, rows: list[HistoryRow], n_bytes: int) -> list[bytes]:
    """As many of *rows*, from the first on, as have *n_bytes* together; one at least. (The store counts texts alone, and JSON may double
    those.)"""
    encoded: list[bytes] = []
    for row in rows:
        data = _encode(conn, name, epoch, row)
        n_bytes -= len(data) + 1  # a comma, or the end of the line
        if n_bytes < 0 and encoded:
            break
        encoded.append(data)
    return encoded


def _encode(conn: "Connection", name: str, epoch: str, row: HistoryRow) -> bytes:
    cid = row.cid if row.author == conn.account else None
    name_of = conn.services.manager.desk.state.name_of
    return notices.record(name, epoch, row.seq, row.ts, row.kind, row.author, row.body, row.reply_to, cid, name_of)


async def read(conn: "Connection", request: m.Read) -> None:
    """Move the read marker. *Raises* ChatError as `_find`."""
    found = await _find(conn, request.conv)
    if found is None:
        raise ChatError("not_found", f"nothing was said in {request.conv} yet")
    await conn.ask(it.ReadMark(id=request.id, conv=found[0], seq=request.seq))


async def sessions(conn: "Connection", request: m.Sessions) -> None:
    """Answer with the account's sessions, the latest first."""
    rows = await conn.services.store.sessions(conn.account)
    data = [
        {
            "session": row.session,
            "client": row.client,
            "address": row.address,
            "created": row.created_ms,
            "seen": row.seen_ms,
            "online": row.online,
            "current": row.session == conn.session,
        }
        for row in sorted(rows, key=lambda row: -row.seen_ms)
    ]
    conn.tell(m.Ok(id=request.id, data=data))


# ---------------------------------------------------------------- resume


async def replay(conn: "Connection", cursors: dict[str, tuple[str, int]]) -> None:
    """Send what was missed since the *cursors*, then `resumed`; afterwards the connection is live. *Waits* for store and outbox.

    *If cancelled*, or if the store fails: the connection ends, the client has part of it, and resumes again from where it is.
    """
    assert conn.replaying is not None
    token, conversations = conn.replaying
    router = conn.services.manager.desk.router
    names = {c.conv: router.conv_name(c.conv, conn.account) for c in conversations}
    at = _start(conn, cursors, {names[c.conv]: c for c in conversations if names[c.conv]})
    try:
        for conv in at:
            first = await _visible_from(conn, conv)
            if at[conv] < first:  # the history says that this is hidden
                conn.tell(m.Gap(conv=names[conv], after=at[conv] - 1, before=first))
                at[conv] = first
        while behind := router.finish_replay(conn, at):
            for conv in behind:
                at[conv] = await _stretch(conn, conv, at[conv])
    except ChatError as error:
        conn.end(m.Closing(code=error.code, retry_after=1))
        return
    desk = conn.services.manager.desk
    account = desk.state.accounts[conn.account]
    convs = router.convs_of(conn.account)
    for conv in at:
        if conv not in convs:  # it left, or it was deleted, while it was replayed
            conn.tell(m.Removed(conv=names[conv]))
    conn.replaying = None
    conn.fresh_token = True
    conn.tell(
        m.Resumed(
            id=conn.protocol.pending_id or 0,
            user=account.name,
            session=conn.session,
            resume_token=token,
            heads=router.heads(conn.account),
            channels=conn.services.list_channels(account),
            read=router.read_markers(conn.account, conversations),
            ignored=safety.ignored_names(desk.state, account) or None,
        )
    )
    logins.show_questions(desk, conn)


def _start(conn: "Connection", cursors: dict[str, tuple[str, int]], known: dict[str, fx.Conversation]) -> dict[int, int]:
    """Where to begin: conversation → next seq. Tells about those that cannot be replayed. Of two spellings of one the last counts."""
    named: dict[str, tuple[str, int]] = {}
    for name, cursor in cursors.items():
        written = name if name in known else _as_written(conn, name)
        if written in known:
            named[written] = cursor
        else:
            conn.tell(m.Removed(conv=name))
    at: dict[int, int] = {}
    for name, (epoch, next_seq) in named.items():
        c = known[name]
        if epoch != c.epoch or next_seq > c.last_seq + 1:
            conn.tell(m.HistoryReset(conv=name, epoch=c.epoch, last_seq=c.last_seq))
        elif c.last_seq + 1 - max(next_seq, 1) > REPLAY_ROWS:
            conn.tell(m.Gap(conv=name, after=max(next_seq, 1) - 1, before=c.last_seq + 1))
            at[c.conv] = c.last_seq + 1
        else:
            at[c.conv] = max(next_seq, 1)
    return at


def _as_written(conn: "Connection", conv: str) -> str:
    """A conversation's name as its owner wrote it, from any spelling that `history` takes; empty for what there is not."""
    state = conn.services.manager.desk.state
    if conv.startswith("#"):
        room = state.room_for(conv[1:], conn.account)
        return room.conv if room is not None else ""
    other = state.account(conv[1:]) if conv.startswith("@") else None
    return "@" + other.name if other is not None else ""


async def _stretch(conn: "Connection", conv: int, next_seq: int) -> int:
    """Send records from *next_seq* on, up to what the router has told others; a gap for what is not kept. Returns the next seq after them.

    *Raises* ChatError storage_unavailable.
    """
    router = conn.services.manager.desk.router
    if not router.is_in(conn.account, conv):
        return next_seq
    head, name = router.head(conv), router.conv_name(conv, conn.account)
    try:
        bytes_max = _page_bytes(conn)
        page = await conn.services.store.history(conv, after=next_seq - 1, before=head + 1, limit=PAGE_ROWS, max_bytes=bytes_max)
    except ChatError as error:
        if error.code != "not_found":
            raise
        return next_seq  # deleted just now; the router is about to know
    await conn.outbox.wait_below(conn.services.limits.outbox_soft_bytes // 2)
    kept_from = min(page.first_seq, head + 1)
    if next_seq < kept_from:  # a retention took it away
        conn.tell(m.Gap(conv=name, after=next_seq - 1, before=kept_from))
        next_seq = kept_from
    encoded = _encode_up_to(conn, name, page.epoch, page.rows, bytes_max)
    for data in encoded:
        conn.put(data)
    conn.services.flush()
    return page.rows[len(encoded) - 1].seq + 1 if encoded else next_seq
