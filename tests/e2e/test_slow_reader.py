"""One member of 200 never reads. The others have everything, in order; he is told, cut at the limit, and catches up completely.

What it costs the others in time is a figure, not a test: `python -m tests.e2e.measure stalled`.
"""

from contextlib import closing

import pytest
import trio

from tests.e2e.audience import Audience, Member
from tests.e2e.guests import Guest, errors_in_log, serving, texts

pytestmark = pytest.mark.xdist_group("e2e-slow-reader")

TEXT_BYTES = 15_000
WINDOW = 8
LIMITS = {"limits.outbox_soft_bytes": "262144", "limits.outbox_hard_bytes": "524288", "limits.write_deadline_s": "2"}
KERNEL_BYTES = 6 * 1024 * 1024  # more than the kernels of both sides hold


async def send(sender, n, first=0):
    """So many texts, some on their way at a time. Returns the last seq."""
    sent = acked = 0
    seq = 0
    while acked < n:
        burst = min(WINDOW - (sent - acked), n - sent)
        if burst:
            text = "x" * TEXT_BYTES
            await sender.send(
                *(
                    {"type": "send", "id": i, "cid": f"t{i}", "channel": "lobby", "text": f"{i} {text}"}
                    for i in range(first + sent, first + sent + burst)
                )
            )
            sent += burst
        answer = await sender.until(lambda m: m["type"] in ("ack", "error"))
        assert answer["type"] == "ack", answer
        acked, seq = acked + 1, answer["seq"]
    return seq


async def catch_up(guest, conv, epoch, after, head):
    """By history, page by page. Returns the texts in order."""
    found = []
    while after < head:
        page = await guest.ask("history", conv=conv, after=after, limit=500)
        assert (page["epoch"], page["messages"][0]["seq"]) == (epoch, after + 1)
        found += texts(page["messages"])
        after = page["messages"][-1]["seq"]
    return found


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("members", [20, pytest.param(200, marks=pytest.mark.long)])
async def test_who_never_reads_is_told_and_cut_and_misses_nothing_while_the_others_notice_nothing(tmp_path, members, tls):
    async with serving(tmp_path, LIMITS) as server, await Guest.register(server, "sender", tls=tls) as sender:
        stalled = Member(server, "stalled", tls=tls, receive_bytes=4096)
        stalled.register()
        audience = await trio.to_thread.run_sync(lambda: Audience.gather(server, members - 2, tls=tls))
        with audience, closing(stalled.sock):
            n = 0
            with trio.fail_after(100):
                while "connection_cut" not in server.log.read_text():
                    head = await send(sender, 4, first=n)
                    n += 4
                    await trio.to_thread.run_sync(audience.wait_for, head)  # they keep up, however slow this machine is today
                    if n * TEXT_BYTES > KERNEL_BYTES:
                        await trio.sleep(0.05)  # nothing more fits; now it is a matter of time
            head = await send(sender, 4, first=n)
            n += 4
            await trio.to_thread.run_sync(audience.wait_for, head)
            for member in audience.members:
                assert member.seqs == list(range(1, n + 1)), member.name
                assert {m["type"] for m in member.others} <= {"heads", "ping", "presence"}
            await trio.to_thread.run_sync(drain, stalled)
        seen = stalled.seqs
        assert seen == list(range(1, len(seen) + 1))  # in order, without a gap, up to where live notices stopped
        assert len(seen) < n
        said = [m["type"] for m in stalled.others]
        assert said.count("lagging") <= 1
        if "closing" in said:  # the last word goes out if there is room for it
            assert stalled.others[-1]["code"] == "slow_consumer"
        assert '"slow_consumer"' in server.log.read_text()
        epoch = stalled.opened["heads"]["#lobby"][0]
        async with await Guest.resume(server, stalled.opened["resume_token"], {"#lobby": [epoch, len(seen) + 1]}, tls=tls) as back:
            assert back.opened["type"] == "resumed"
            assert back.opened["heads"]["#lobby"] == [epoch, head]
            replayed = texts(back.received)
            if gap := [m for m in back.received if m["type"] == "gap"]:
                assert (gap[0]["after"], gap[0]["before"]) == (len(seen), head + 1)
                assert not replayed
                replayed = await catch_up(back, "#lobby", epoch, len(seen), head)
            assert [t.split()[0] for t in replayed] == [str(i) for i in range(len(seen), n)]
            await send(sender, 1, first=n)
            assert (await back.until(lambda m: m["type"] == "message" and m["seq"] > head))["seq"] == head + 1
    assert errors_in_log(server) == []


def drain(member):
    """Read what there is, to the end of the stream."""
    member.sock.settimeout(20)
    while member.read():
        pass


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_who_reads_again_in_time_is_told_where_things_stand_and_fills_the_rest(tmp_path, tls):
    """Lagging and never cut: the limits are wide, he starts to read after all."""
    limits = {"limits.outbox_soft_bytes": "262144", "limits.outbox_hard_bytes": "100000000", "limits.write_deadline_s": "60"}
    async with (
        serving(tmp_path, limits) as server,
        await Guest.register(server, "sender") as sender,
        await Guest.register(server, "late", tls=tls) as late,
    ):
        n = KERNEL_BYTES // TEXT_BYTES
        head = await send(sender, n)
        await late.until_type("lagging")
        told = await late.until(lambda m: m["type"] == "heads")
        assert told["heads"]["#lobby"][1] == head
        seqs = [m["seq"] for m in late.received if m["type"] == "message"]
        assert seqs == list(range(1, len(seqs) + 1))
        assert len(seqs) < n
        missing = await catch_up(late, "#lobby", told["heads"]["#lobby"][0], seqs[-1], head)
        assert [t.split()[0] for t in missing] == [str(i) for i in range(len(seqs), n)]
        await send(sender, 1, first=n)
        assert (await late.until(lambda m: m["type"] == "message" and m["seq"] > head))["seq"] == head + 1  # live again


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_answers_to_one_who_does_not_read_are_read_from_the_store_as_he_drains(tmp_path, tls):
    """Long pages never trip the hard limit: their producer waits."""
    async with (
        serving(tmp_path, {**LIMITS, "limits.write_deadline_s": "60"}) as server,
        await Guest.register(server, "sender") as sender,
        await Guest.register(server, "reader", tls=tls) as reader,
    ):
        head = await send(sender, 20)
        await reader.until(lambda m: m.get("seq") == head)
        await reader.send(*({"type": "history", "id": f"page {n}", "conv": "#lobby", "limit": 100} for n in range(100)))  # 12 MB
        await sender.ping()
        for n in range(100):
            page = await reader.until(lambda m, n=n: m.get("id") == f"page {n}")
            assert page["type"] == "history"
            assert page["more"] is True
            assert 100_000 < sum(len(m["text"]) for m in page["messages"]) < 262_144
        await reader.ping()
        assert "lagging" not in {m["type"] for m in reader.received}
