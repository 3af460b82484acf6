"""What the server keeps, read twice in the end: over the wire, by people who come with nothing but name and password; and from the file."""

import json
import sqlite3
from pathlib import Path
from typing import Any

from chat.prove.device import PASSWORD
from chat.prove.ledger import ALTERED, DOUBLED, LOST, Ledger, Record, conv_key, record_of
from chat.prove.wires import Frame, Wire, open_wire

PAGE = 500


class Refused(Exception):
    """The server did not answer as it must for a run to begin, or to be judged."""


class Visitor:
    """A plain connection: one request, one answer."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._id = 0

    @classmethod
    async def come(cls, kind: str, port: int) -> "Visitor":
        visitor = cls(await open_wire(kind, port))
        await visitor._wire.send({"type": "hello", "protocol": 1, "client": "prove"})
        return visitor

    async def ask(self, type: str, **fields: Any) -> Frame:
        """*Raises* Refused when the server closes, or answers with an error."""
        self._id += 1
        await self._wire.send({"type": type, "id": self._id, **fields})
        while frames := await self._wire.receive():
            for frame in frames:
                if frame.get("id") == self._id and frame["type"] != "ping":
                    if frame["type"] == "error":
                        raise Refused(f"{type} was refused: {frame['code']}, {frame.get('message')}")
                    return frame
        raise Refused(f"the server closed instead of answering {type}")

    def leave(self) -> None:
        self._wire.close()


async def read_over_the_wire(ledger: Ledger, port: int, person: str, kind: str) -> dict[str, int]:
    """Every conversation of *person*, whole, into the ledger. *Returns* their last numbers. *Raises* Refused, or a `wires.ENDED`."""
    visitor = await Visitor.come(kind, port)
    try:
        opened = await visitor.ask("login", username=person, password=PASSWORD)
        for conv in opened["heads"]:
            records: list[Record] = []
            cids: list[str | None] = []
            more = True
            while more:
                page = await visitor.ask("history", conv=conv, after=records[-1].seq if records else 0, limit=PAGE)
                records += [ledger.one(record_of(person, record)) for record in page["messages"]]
                cids += [record.get("cid") for record in page["messages"]]
                more = page["more"] and bool(page["messages"])
            ledger.history(person, conv_key(person, conv), records, cids)
        return {conv_key(person, conv): head for conv, (_, head) in opened["heads"].items()}
    finally:
        visitor.leave()


def read_the_file(ledger: Ledger, path: Path) -> int:
    """Compare the database with what was told; the server is stopped. *Returns* how many records there are."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        (fine,) = db.execute("PRAGMA integrity_check").fetchone()
        if fine != "ok":
            ledger.fault(ALTERED, f"the database is damaged: {fine}")
        names = dict(db.execute("SELECT id, name FROM accounts"))
        convs: dict[int, str] = {}
        for id, kind, name, low, high in db.execute("SELECT id, kind, name, low, high FROM conversations"):
            convs[id] = f"#{name}" if kind == "room" else conv_key(names[low], "@" + names[high])
        count = 0
        for id, conv in convs.items():
            rows = db.execute("SELECT seq, ts, kind, author, coalesce(body, '') FROM records WHERE conv = ? ORDER BY seq", (id,)).fetchall()
            ledger.file(conv, [(seq, ts, kind, names.get(author, ""), body) for seq, ts, kind, author, body in rows])
            count += len(rows)
        _check_cids(ledger, db, names, convs)
        return count
    finally:
        db.close()


def _check_cids(ledger: Ledger, db: sqlite3.Connection, names: dict[int, str], convs: dict[int, str]) -> None:
    """What makes a retry safe next week: every acknowledged cid has its place."""
    rows = db.execute("SELECT account, cid, conv, epoch, seq FROM cids WHERE seq IS NOT NULL")
    known = {(names[account], cid): (convs.get(conv), epoch, seq) for account, cid, conv, epoch, seq in rows}
    for key, text in ledger.texts.items():
        if text.ack is None:
            continue
        if key not in known:
            ledger.fault(LOST, f"{text.cid} was acknowledged, and the database does not know its cid", text)
        elif known[key] != text.ack[:3]:
            conv, _, seq = known[key]
            ledger.fault(DOUBLED, f"{text.cid} was acknowledged as {text.ack}, and the database has number {seq} of {conv} for it", text)


def last_words(log: Path) -> str:
    """What the server's log says of bugs: the last line that does; empty if none."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    bad = [line for line in lines if "error_id" in line or "Traceback" in line]
    if not bad:
        return ""
    try:
        event: dict[str, Any] = json.loads(bad[-1])
        return str(event.get("exception") or event.get("event") or bad[-1])[-1500:]
    except ValueError:
        return "\n".join(lines[-25:])
