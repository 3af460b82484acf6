"""Figures of the real process on this machine:

    python -m tests.e2e.measure [stored] [fanout] [browsers] [memory] [stalled] [hidden] [--json FILE]

stored   texts stored per second: one sender who waits for each ack; 200 senders with one, and with 20 on their way
fanout   CPU of the server per delivered message in one channel of 1,000 members: at 20 texts a second, and saturated
memory   of the server per idle session, plain and TLS, with 1,000 of each
browsers the same for 500 members on TCP and 500 on WebSockets, one server, in turns; all plain, and all with TLS
stalled  how long a text takes to 198 members of a channel, with and without another who never reads; plain and TLS
hidden   how long a private channel and an absent one take to be refused

The clients are in this process: on a machine with few cores they share it with the server, and rates are what both together do.
"""

import argparse
import json
import os
import resource
import select
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from tests.e2e.audience import Audience, Member, WebMember, p99_ms
from tests.e2e.guests import make_server
from tests.e2e.server import Server

TICKS = os.sysconf("SC_CLK_TCK")
TEXT = "x" * 100
Figures = dict[str, float]


@contextmanager
def running(settings: dict[str, str] | None = None) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        server = make_server(Path(folder), {"passwords.parallel": "40", **(settings or {})})
        trio.run(server.start)
        try:
            yield server
        finally:
            trio.run(server.kill)


def cpu_s(server: Server) -> float:
    fields = Path(f"/proc/{server.pid()}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_bytes(server: Server) -> int:
    status = Path(f"/proc/{server.pid()}/status").read_text()
    return 1024 * int(status.split("VmRSS:")[1].split()[0])


def registered(server: Server, n: int, prefix: str = "sender") -> list[Member]:
    members = [Member(server, f"{prefix}{i}") for i in range(n)]
    for member in members:
        member.register()
    return members


# ---------------------------------------------------------------- stored


def stored() -> Figures:
    with running() as server:
        return {
            "1 sender, one at a time (texts/s)": closed_loop(server, registered(server, 1, "alone"), 1, 4),
            "200 senders, one at a time (texts/s)": closed_loop(server, registered(server, 200), 1, 6),
            "200 senders, 20 at a time (texts/s)": closed_loop(server, registered(server, 200, "busy"), 20, 6),
        }


def closed_loop(server: Server, senders: list[Member], window: int, seconds: float) -> float:
    """Everybody writes notes to himself, so that storing is what is measured, and not telling others."""
    poll = select.epoll()
    number = 0

    def texts(sender: Member, n: int) -> bytes:
        nonlocal number
        lines = []
        for _ in range(n):
            number += 1
            lines.append(
                b'{"type":"send","id":%d,"cid":"c%d","to":"%b","text":"%b"}\n' % (number, number, sender.name.encode(), TEXT.encode())
            )
        return b"".join(lines)

    by_fd = {}
    for sender in senders:
        by_fd[sender.sock.fileno()] = sender
        poll.register(sender.sock, select.EPOLLIN)
    began = time.monotonic()
    for sender in senders:
        sender.sock.sendall(texts(sender, window))
    acks, warm_acks, warm_at = 0, 0, 0.0
    while (now := time.monotonic()) - began < seconds + 1:
        if not warm_at and now - began > 1:
            warm_acks, warm_at = acks, now
        for fd, _ in poll.poll(0.1):
            sender = by_fd[fd]
            got = sender.sock.recv(65536).count(b'"type":"ack"')
            acks += got
            if got:
                sender.sock.sendall(texts(sender, got))
    rate = (acks - warm_acks) / (time.monotonic() - warm_at)
    for sender in senders:
        sender.sock.close()
    poll.close()
    return round(rate)


# ---------------------------------------------------------------- fanout


def fanout(members: int = 1000) -> Figures:
    with running() as server:
        (sender,) = registered(server, 1)
        with Audience.gather(server, members - 1) as audience:
            idle = cpu_of(server, lambda: time.sleep(5)) / 5
            steady = 200
            cost = cpu_of(server, lambda: steadily(sender, steady, 20))
            audience.wait_for(steady)
            many = 3000
            began = time.monotonic()
            saturated = cpu_of(server, lambda: (flood(sender, many, 200), audience.wait_for(steady + many)))
            took_s = time.monotonic() - began
            wrong = [m.name for m in audience.members if m.seqs != list(range(1, steady + many + 1))]
        assert not wrong, wrong[:3]
        sender.sock.close()
        return {
            "at 20 texts/s (µs of CPU a delivery)": round(1e6 * cost / (steady * (members - 1)), 2),
            "saturated (µs of CPU a delivery)": round(1e6 * saturated / (many * (members - 1)), 3),
            "saturated (deliveries/s)": round(many * (members - 1) / took_s),
            "idle, 1,000 members (share of a core)": round(idle, 4),
        }


def cpu_of(server: Server, work: Callable[[], object]) -> float:
    before = cpu_s(server)
    work()
    return cpu_s(server) - before


def steadily(sender: Member, n: int, rate: float, text: str = TEXT, channel: str = "lobby", first: int = 0) -> list[float]:
    """So many texts at a steady rate. *first* makes the cids of another time others. Returns when each was written."""
    at = []
    began = time.monotonic()
    for i in range(n):
        time.sleep(max(0.0, began + i / rate - time.monotonic()))
        at.append(time.monotonic())
        sender.send({"type": "send", "id": i, "cid": f"s{first + i}", "channel": channel, "text": text})
    return at


def flood(sender: Member, n: int, window: int, channel: str = "lobby", first: int = 0) -> None:
    sent = acked = 0
    while acked < n:
        burst = min(window - (sent - acked), n - sent)
        if burst:
            numbers = range(first + sent, first + sent + burst)
            sender.send(*({"type": "send", "id": i, "cid": f"f{i}", "channel": channel, "text": TEXT} for i in numbers))
            sent += burst
        acked += sender.sock.recv(262144).count(b'"cid":"f')


# ---------------------------------------------------------------- browsers

KINDS = {"native": Member, "web": WebMember}


def browsers(members: int = 500, rounds: int = 5) -> Figures:
    """Two channels with nothing in common but who speaks, now in one and now in the other; medians of the rounds are compared."""
    found: Figures = {}
    patient = {"limits.idle_ping_s": "3000", "limits.idle_close_s": "3600"}  # nobody here answers a ping
    for tls in (False, True):
        costs: dict[tuple[str, str], list[float]] = {}
        with running(patient) as server:
            (sender,) = registered(server, 1)
            audiences = {name: _join(server, sender, name, members, tls) for name in KINDS}
            with audiences["native"], audiences["web"]:
                said = 0
                for _ in range(rounds):
                    for name, audience in audiences.items():
                        slow = _told(server, audience, 100, steadily, sender, 100, 20, TEXT, name, said)
                        fast = _told(server, audience, 1000, flood, sender, 1000, 200, name, said)
                        costs.setdefault((name, "20 texts/s"), []).append(slow)
                        costs.setdefault((name, "saturated"), []).append(fast)
                        said += 1000
            sender.sock.close()
        for load in ("20 texts/s", "saturated"):
            native, web = (statistics.median(costs[name, load]) for name in KINDS)
            key = f"{'TLS' if tls else 'plain'}, {load}"
            found[f"{key}: TCP (µs of CPU a delivery)"] = round(native, 3)
            found[f"{key}: WebSocket (µs of CPU a delivery)"] = round(web, 3)
            found[f"{key}: WebSocket to TCP"] = round(web / native, 2)
    return found


def _told(server: Server, audience: Audience, n: int, speak: Callable[..., object], *how: object) -> float:
    """What a delivery costs (µs) while *n* texts are said."""
    before = len(audience.members[0].seqs)

    def work() -> None:
        speak(*how)
        while any(len(member.seqs) < before + n for member in audience.members):
            time.sleep(0.005)

    return 1e6 * cpu_of(server, work) / (n * len(audience.members))


def _join(server: Server, sender: Member, name: str, n: int, tls: bool) -> Audience:
    """A channel of its own, so large that coming into it leaves no record."""
    sender.send({"type": "command", "id": name, "text": f"create-channel {name}"})
    while b'"result"' not in sender.sock.recv(65536):
        pass
    audience = Audience.gather(server, n, tls=tls, prefix=name, kind=KINDS[name])
    for member in audience.members:
        member.send({"type": "join", "id": 2, "channel": name})
    for member in audience.members:
        told = b""
        while b'"type":"ok"' not in told:
            told += member.sock.recv(65536)
        member.rest = told[told.rfind(b"\n") + 1 :]  # of lines; the beginning of one may have come
    return audience


# ---------------------------------------------------------------- memory


def memory(n: int = 1000) -> Figures:
    found = {}
    for tls in (False, True):
        with running() as server:
            for i in range(n):  # the accounts first, which cost something too
                member = Member(server, f"account{i}")
                member.register()
                member.sock.close()
            time.sleep(1)
            before = rss_bytes(server)
            members = []
            for i in range(n):
                member = Member(server, f"account{i}", tls=tls)
                member.register("login")
                members.append(member)
            time.sleep(2)
            found[f"{'TLS' if tls else 'plain'} (KiB a session)"] = round((rss_bytes(server) - before) / n / 1024, 2)
            for member in members:
                member.sock.close()
    return found


# ---------------------------------------------------------------- stalled


def stalled(members: int = 200, rate: float = 40, n: int = 600) -> Figures:
    """12 kB a text: the kernel is full in some ten seconds, the member lags, and is cut three seconds later."""
    found: Figures = {}
    limits = {"limits.outbox_soft_bytes": "262144", "limits.outbox_hard_bytes": "524288", "limits.write_deadline_s": "3"}
    for tls in (False, True):
        for with_it in (False, True):
            with running(limits) as server:
                (sender,) = registered(server, 1)
                audience = Audience.gather(server, members - 2, tls=tls)
                other = Member(server, "other", tls=tls, receive_bytes=4096 if with_it else 0)
                other.register()
                if not with_it:
                    audience.members.append(other)
                with audience:
                    sent = steadily(sender, n, rate, "x" * 12_000)
                    audience.wait_for(n)
                    latencies = [at - sent[seq - 1] for m in audience.members for seq, at in zip(m.seqs, m.at, strict=True)]
                    wrong = [m.name for m in audience.members if m.seqs != list(range(1, n + 1))]
                assert not wrong, wrong[:3]
                assert ("connection_cut" in server.log.read_text()) is with_it, f"cut or not: tls {tls}, {with_it}"
                key = f"{'TLS' if tls else 'plain'}, {'one never reads' if with_it else 'all read'}"
                found[f"{key}: median (ms)"] = round(1000 * statistics.median(latencies), 2)
                found[f"{key}: p99 (ms)"] = p99_ms(latencies)
                other.sock.close()
                sender.sock.close()
    return found


# ---------------------------------------------------------------- hidden


def hidden() -> Figures:
    """Passwords cost here what they cost by default."""
    found: Figures = {}
    with running({"passwords.memory_kib": "19456", "passwords.passes": "2", "passwords.parallel": "2"}) as server:
        hider, asker = registered(server, 2)
        hider.send({"type": "command", "id": 2, "text": "create-channel vault1 open-sesame"})
        assert b"made the private channel" in hider.sock.recv(65536)
        questions = {
            "join": (400, {"type": "join"}),
            "join, wrong password": (40, {"type": "join", "password": "not the password"}),
            "send": (400, {"type": "send", "text": "anybody?"}),
            "members": (400, {"type": "members"}),
        }
        for what, (n, request) in questions.items():
            took: dict[str, list[float]] = {"vault1": [], "vault2": []}
            for i in range(2 * n):
                name = ("vault1", "vault2")[i % 2]
                cid = {"cid": f"{what[:4]}-{i}"} if request["type"] == "send" else {}
                began = time.perf_counter()
                asker.send({**request, **cid, "id": i, "channel": name})
                answer = b""
                while b'"error"' not in answer:
                    answer = asker.sock.recv(65536)
                assert b"not_found" in answer, answer
                took[name].append(1000 * (time.perf_counter() - began))
            there, absent = (sorted(took[name]) for name in ("vault1", "vault2"))
            found[f"{what}: private (median ms)"] = round(statistics.median(there), 4)
            found[f"{what}: absent (median ms)"] = round(statistics.median(absent), 4)
            found[f"{what}: quarter to quarter of one (ms)"] = round(absent[3 * n // 4] - absent[n // 4], 4)
        for member in (hider, asker):
            member.sock.close()
    return found


# ---------------------------------------------------------------- the command

PARTS: dict[str, Callable[[], Figures]] = {f.__name__: f for f in (stored, fanout, browsers, memory, stalled, hidden)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Figures of the real process on this machine.")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all of them where none is named")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 65536, hard))  # the server inherits it
    figures: dict[str, Figures] = {}
    for name in arguments.parts or PARTS:
        figures[name] = PARTS[name]()
        width = max(map(len, figures[name]))
        print(f"\n{name}")
        for what, value in figures[name].items():
            print(f"  {what:<{width}}  {value:>12,}", flush=True)
    print("\n" + json.dumps(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
