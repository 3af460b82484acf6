"""One process of clients: ``python -m chat.bench.worker``, conducted by `run` over lines of JSON on its standard input and output.

Theory of operation
    One loop over one selector. It opens its members' connections, logs them in (a few at a time, since the server queues passwords),
    brings them into their channels, and says ``ready``. From the start on it looks at what arrives in bulk: a chunk of a socket often holds
    hundreds of messages, and a generator that parsed each one would measure itself.

    Every text says who sent it, which of his it is, and when (`STAMP`). Senders, and every ``sample``-th member, look at each text: a
    sender's numbers must follow each other, and the time tells the latency. The other members compare, for each chunk, how many messages
    it holds with its first and last seq. At the end everybody is told how much was sent in all and compares that with what he got. So
    a loss, a double or a wrong order is seen by somebody, wherever it happens; only where within a chunk may stay unknown.
"""

import json
import math
import re
import selectors
import sys
import time
from collections import Counter, deque
from typing import Any, Final

from chat.bench.wire import Gone, Wire, tls_context

OPENING: Final = 24  # logins at a time and process: two processes stay below the server's queue for passwords
STAMP: Final = re.compile(rb'"text":"b(\d+)\.(\d+)\.(\d+)\|')
ACK: Final = re.compile(rb'"type":"ack","id":(\d+)')
SEQ: Final = re.compile(rb'"seq":(\d+)')
MESSAGE: Final = b'"type":"message"'
SETTLE_S: Final = 20.0
BUCKETS_PER_OCTAVE: Final = 16  # of latencies: steps of 4.4 %


class Member:
    """One client. ``stage`` is what it waits for while it comes in."""

    __slots__ = ("acked", "close_look", "due", "expect", "got", "index", "name", "next_seq", "sent", "stage", "token", "waiting", "wire")

    def __init__(self, index: int, name: str) -> None:
        self.index = index
        self.name = name
        self.wire: Wire
        self.stage = ""
        self.token = ""
        self.sent = 0
        self.acked = 0
        self.waiting: deque[int] = deque()  # of a fixed rate: when the next ones are due
        self.due = 0.0
        self.got: Counter[int] = Counter()  # sender → messages; of who does not look closely all under -1
        self.expect: dict[int, int] = {}  # sender → the number that must come next
        self.next_seq = 0
        self.close_look = False


class Worker:
    """*spec*: host, port, secure, transport, invite, run, first and count of the members, workload."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.work: dict[str, Any] = spec["workload"]
        self.context = tls_context() if spec["secure"] else None
        self.selector = selectors.DefaultSelector()
        self.selector.register(sys.stdin, selectors.EVENT_READ)
        self.members = [Member(i, f"{spec['run']}{i}") for i in range(spec["first"], spec["first"] + spec["count"])]
        self.senders = [m for m in self.members if m.index < self.work["senders"]]
        for member in self.members:
            member.close_look = member.index < self.work["senders"] or member.index % self.work["sample"] == 0
        self.filler = ""
        self.errors: Counter[str] = Counter()
        self.reordered = 0
        self.latencies: Counter[int] = Counter()
        self.in_window = 0
        self.sent_in_window = 0
        self.window = (math.inf, math.inf)
        self.running = False

    # ------------------------------------------------------------ coming in

    def open_all(self) -> None:
        """Log everybody in, and into their channels. *Waits*."""
        todo = deque(self.members)
        pending: set[Member] = set()
        done = 0
        while todo or pending:
            while todo and len(pending) < OPENING:
                member = todo.popleft()
                member.wire = Wire(self.spec["host"], self.spec["port"], self.spec["transport"], self.context)
                member.stage = "session"
                member.wire.ask(type="hello", protocol=1, client="chat-bench")
                member.wire.ask(
                    type="register", id=1, username=member.name, password="bench-" + self.spec["run"], invite=self.spec["invite"]
                )
                self.selector.register(member.wire, selectors.EVENT_READ, member)
                pending.add(member)
            for key, _ in self.selector.select(1):
                member = key.data
                if member is None:
                    raise SystemExit(1)  # whoever conducts has gone
                for frame in member.wire.frames():
                    if self._came_in(member, json.loads(frame)):
                        pending.discard(member)
                        done += 1
                        if done % 50 == 0 or not (todo or pending):
                            say(opened=done)

    def _came_in(self, member: Member, message: dict[str, Any]) -> bool:
        """One step of the way in. *Returns* whether that was the last."""
        kind, stage = message["type"], member.stage
        if kind == "error" and stage == "join" and message["code"] in ("not_found", "name_taken"):
            channel = self.channel(member.index % self.work["channels"])  # whoever comes first makes it
            if message["code"] == "not_found":
                member.wire.ask(type="command", id=2, text=f"create-channel {channel}")
            else:
                member.wire.ask(type="join", id=2, channel=channel)
            return False
        if kind == "error":
            raise Gone(f"{stage}: {message['code']}: {message['message']}")
        if kind == "session" and stage == "session":
            member.token = message["resume_token"]
            if self.work["private"] or self.work["logins"]:
                return True
            member.stage = "join"
            member.wire.ask(type="join", id=2, channel=self.channel(member.index % self.work["channels"]))
        elif stage == "join" and message.get("id") == 2:
            return True
        return False

    def channel(self, index: int) -> str:
        return f"{self.spec['run']}-{index}"

    # ------------------------------------------------------------ the load

    def run(self, at: float) -> None:
        """From *at* (monotonic seconds) on: send, read, count, until everything sent is acknowledged and it has become quiet. *Waits*."""
        work = self.work
        begin, end = at + work["warm"], at + work["warm"] + work["seconds"]
        self.window = (begin, end)
        self.filler = "x" * work["payload"]
        while time.monotonic() < at:
            self._read(at - time.monotonic())
        self.running = True
        rate, all_senders = work["rate"], work["senders"]
        if rate is None:
            for member in self.senders:
                self._say(member, work["window"])
        else:
            for member in self.senders:
                member.due = at + member.index / rate
        while (now := time.monotonic()) < end:
            timeout = end - now
            if rate is not None:
                step = all_senders / rate
                for member in self.senders:
                    while member.due <= now:
                        self._say(member, 1, due=member.due)
                        member.due += step
                    timeout = min(timeout, member.due - now)
            self._read(timeout)
        self.running = False
        quiet, give_up = time.monotonic(), end + SETTLE_S
        while (now := time.monotonic()) < give_up and (now - quiet < 0.5 or any(m.acked < m.sent for m in self.senders)):
            if self._read(0.1):
                quiet = now

    def _read(self, timeout: float) -> bool:
        ready = self.selector.select(max(0.0, timeout))
        for key, events in ready:
            member = key.data
            if member is None:
                raise SystemExit(1)  # whoever conducts has gone
            if events & selectors.EVENT_WRITE and not member.wire.more():
                self.selector.modify(member.wire, selectors.EVENT_READ, member)
            if events & selectors.EVENT_READ:
                data = member.wire.bulk()
                if data:
                    self._look(member, data)
        return bool(ready)

    def _say(self, member: Member, count: int, due: float | None = None) -> None:
        now = time.monotonic()
        stamp = int((due if due is not None else now) * 1e6)
        work, wire = self.work, member.wire
        if work["private"]:
            where = f'"to":"{self.spec["run"]}{member.index ^ 1}"'
        else:
            where = f'"channel":"{self.channel(member.index % work["channels"])}"'
        frames = []
        for _ in range(count):
            member.sent += 1
            text = f"b{member.index}.{member.sent}.{stamp}|"
            text += self.filler[: work["payload"] - len(text)]
            cid = f"{int(now * 1000):011x}-{member.sent}"  # the time first, as the bundled clients do
            frames.append(wire.frame(f'{{"type":"send","id":{member.sent},"cid":"{cid}",{where},"text":"{text}"}}'.encode()))
        if self.window[0] <= now < self.window[1]:
            self.sent_in_window += count
        wire.send(b"".join(frames))
        if wire.more():
            self.selector.modify(wire, selectors.EVENT_READ | selectors.EVENT_WRITE, member)

    def _look(self, member: Member, data: bytes) -> None:
        count = data.count(MESSAGE)
        now = time.monotonic()
        if count:
            if self.window[0] <= now < self.window[1]:
                self.in_window += count
            if member.close_look:
                self._look_closely(member, data, int(now * 1e6))
            else:
                member.got[-1] += count
                first = SEQ.search(data, data.find(MESSAGE))
                last = SEQ.search(data, data.rfind(MESSAGE))
                if first is not None and last is not None:
                    low, high = int(first[1]), int(last[1])
                    if (member.next_seq and low < member.next_seq) or high - low + 1 != count:
                        self.reordered += 1
                    member.next_seq = high + 1
        if member.index < self.work["senders"] and b'"type":"ack"' in data:
            acks = ACK.findall(data)
            if [int(n) for n in acks] != list(range(member.acked + 1, member.acked + 1 + len(acks))):
                self.errors["acks out of order"] += 1
            member.acked += len(acks)
            if self.running and self.work["rate"] is None:
                self._say(member, len(acks))
        if b'"type":"ping"' in data:
            member.wire.ask(type="pong", id=0)
        if b'"type":"error"' in data:
            found = re.search(rb'"code":"([a-z_]+)"', data)
            self.errors[found[1].decode() if found is not None else "error"] += data.count(b'"type":"error"')

    def _look_closely(self, member: Member, data: bytes, now_us: int) -> None:
        expect, got, latencies = member.expect, member.got, self.latencies
        in_window = self.window[0] <= now_us / 1e6 < self.window[1]
        for raw_sender, raw_number, raw_us in STAMP.findall(data):
            sender, number = int(raw_sender), int(raw_number)
            if number != expect.get(sender, 1):
                self.reordered += 1
            expect[sender] = number + 1
            got[sender] += 1
            if in_window:
                latencies[int(BUCKETS_PER_OCTAVE * math.log2(max(1, now_us - int(raw_us))))] += 1

    # ------------------------------------------------------------ the end

    def result(self, sent: dict[int, int]) -> dict[str, Any]:
        """*sent*: of every sender there is, how many."""
        work = self.work
        per_channel: Counter[int] = Counter()
        for sender, n in sent.items():
            per_channel[sender % work["channels"]] += n
        lost = doubled = 0
        for member in self.members:
            if work["private"]:
                wanted = {member.index ^ 1: sent.get(member.index ^ 1, 0)}
            elif member.close_look:
                wanted = {s: n for s, n in sent.items() if s % work["channels"] == member.index % work["channels"] and s != member.index}
            else:
                wanted = {-1: per_channel[member.index % work["channels"]]}
            for sender in wanted.keys() | member.got.keys():
                difference = wanted.get(sender, 0) - member.got[sender]
                lost += max(0, difference)
                doubled += max(0, -difference)
        return {
            "lost": lost,
            "doubled": doubled,
            "reordered": self.reordered,
            "deliveries": self.in_window,
            "sent": self.sent_in_window,
            "unacked": sum(m.sent - m.acked for m in self.senders),
            "latencies": dict(self.latencies),
            "errors": dict(self.errors),
            "cpu_s": time.process_time(),
        }

    # ------------------------------------------------------------ resuming

    def resume_all(self) -> dict[str, Any]:
        """Close every connection, then open and resume them all, a few at a time. *Waits*."""
        for member in self.members:
            self.selector.unregister(member.wire)
            member.wire.close()
        say(closed=True)
        read_command()
        begin = time.monotonic()
        todo, pending, done = deque(self.members), set[Member](), 0
        while todo or pending:
            while todo and len(pending) < 4 * OPENING:
                member = todo.popleft()
                member.wire = Wire(self.spec["host"], self.spec["port"], self.spec["transport"], self.context)
                hello = json.dumps({"type": "hello", "protocol": 1, "client": "chat-bench"}).encode()
                resume = json.dumps({"type": "resume", "id": 1, "token": member.token, "cursors": {}}).encode()
                member.wire.send(member.wire.frame(hello) + member.wire.frame(resume))
                self.selector.register(member.wire, selectors.EVENT_READ, member)
                pending.add(member)
            for key, _ in self.selector.select(1):
                if key.data is None:
                    raise SystemExit(1)
                for frame in key.data.wire.frames():
                    message = json.loads(frame)
                    if message["type"] == "error":
                        raise Gone(f"resume: {message['code']}: {message['message']}")
                    if message["type"] == "resumed":
                        pending.discard(key.data)
                        done += 1
        return {"resumed": done, "seconds": time.monotonic() - begin, "begin": begin, "end": time.monotonic()}


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def read_command() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        raise SystemExit(1)
    command: dict[str, Any] = json.loads(line)
    return command


def main() -> None:
    spec = read_command()
    worker = Worker(spec)
    try:
        worker.open_all()
        say(ready=True)
        while True:
            command = read_command()
            match command["do"]:
                case "go":
                    worker.run(command["at"])
                    say(sent={m.index: m.sent for m in worker.senders})
                case "check":
                    say(result=worker.result({int(k): v for k, v in command["sent"].items()}))
                case "resume":
                    say(result=worker.resume_all())
                case _:
                    return
    except (Gone, OSError) as problem:
        say(failed=str(problem))


if __name__ == "__main__":
    main()
