"""The storage fails under the running daemon: a lock that another process holds, a full disk, errors in the middle of a commit.

What is seen from outside: nobody gets an ack without storage, everybody who waits gets a definite answer (or `indeterminate`, where nobody
can know), reading goes on, and when the fault is over so is the trouble, without a restart. What was refused is sent again with its cid
and is there once.
"""

import contextlib
import json
import os
import re
import resource
import sqlite3
import subprocess

import pytest
import trio

from tests.e2e.guests import PASSWORD, Guest, errors_in_log, serving
from tests.e2e.server import CHAT

pytestmark = pytest.mark.xdist_group("e2e-storage")

BUSY_S = 0.5
BACK_S = 5.0
RESENT = {"storage_unavailable", "storage_full", "indeterminate"}


class Senders:
    """Several people with several texts each; what became of every text."""

    def __init__(self, guests):
        self.guests = guests
        self.acks = {}  # (user, cid): (seq, dup)
        self.refused = {}  # (user, cid): code
        self.uncertain = set()
        self.number = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def gathered(cls, server, n):
        async with contextlib.AsyncExitStack() as stack:
            yield cls([await stack.enter_async_context(await Guest.register(server, f"sender{i}")) for i in range(n)])

    async def send(self, per_head):
        """Everybody sends so many at once and waits for the answers."""
        first, self.number = self.number, self.number + per_head
        cids = [f"text-{n}" for n in range(first, self.number)]
        async with trio.open_nursery() as nursery:
            for guest in self.guests:
                nursery.start_soon(self._send, guest, cids)

    async def send_again(self):
        """Whatever has no ack, in its order."""
        async with trio.open_nursery() as nursery:
            for guest in self.guests:
                cids = [cid for who, cid in self.refused if who == guest.opened["user"]]
                nursery.start_soon(self._send, guest, cids)

    async def _send(self, guest, cids):
        who = guest.opened["user"]
        await guest.send(*({"type": "send", "id": cid, "cid": cid, "channel": "lobby", "text": f"{who} {cid}"} for cid in cids))
        for cid in cids:
            answer = await guest.until(lambda m, cid=cid: m.get("id") == cid)
            assert answer["cid"] == cid
            if answer["type"] == "ack":
                self.acks[who, cid] = (answer["seq"], answer.get("dup", False))
                if self.refused.pop((who, cid), None) and (who, cid) not in self.uncertain:
                    assert "dup" not in answer  # it was said for certain that it is not stored
            else:
                assert answer["code"] in RESENT, answer
                self.refused[who, cid] = answer["code"]
                if answer["code"] == "indeterminate":
                    self.uncertain.add((who, cid))

    async def check(self, reader):
        """Every text that was ever acknowledged is in the history once, at that place, and nothing else is."""
        stored, after = {}, 0
        while True:
            page = await reader.ask("history", conv="#lobby", after=after, limit=500)
            stored |= {m["seq"]: m["text"] for m in page["messages"]}
            if not page["messages"]:
                break
            after = page["messages"][-1]["seq"]
        assert sorted(stored) == list(range(1, len(stored) + 1))
        assert stored == {seq: f"{who} {cid}" for (who, cid), (seq, _) in self.acks.items()}


# ---------------------------------------------------------------- a lock


async def test_a_locked_database_is_told_to_all_who_wait_and_is_forgotten_when_it_is_free(tmp_path):
    async with serving(tmp_path, {"storage.busy_timeout_s": str(BUSY_S)}) as server, Senders.gathered(server, 8) as senders:
        reader = senders.guests[0]
        await senders.send(5)
        assert not senders.refused
        known = next(key for key in senders.acks if key[0] == "sender0")
        with contextlib.closing(sqlite3.connect(server.data_dir / "chat.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = trio.current_time()
            await senders.send(25)
            took_s = trio.current_time() - began
            assert set(senders.refused.values()) == {"storage_unavailable"}
            assert len(senders.refused) == 8 * 25
            assert BUSY_S <= took_s < 3  # for all who wait at once, not for one after the other
            page = await reader.ask("history", conv="#lobby", limit=500)
            assert (page["last_seq"], len(page["messages"])) == (40, 40)
            retry = await reader.say("lobby", " ".join(known), known[1])  # what is stored has its place also now
            assert (retry["type"], retry["seq"], retry["dup"]) == ("ack", senders.acks[known][0], True)
            made = await reader.ask("command", text="create-channel locked-out")
            assert (made["type"], made["code"]) == ("error", "storage_unavailable")
            async with await Guest.login(server, "sender1") as late:
                assert late.opened["code"] == "storage_unavailable"
            other.execute("ROLLBACK")
        async with await Guest.login(server, "sender1") as watcher:
            await senders.send_again()
            assert not senders.refused
            assert not any(dup for _, dup in senders.acks.values())
            await senders.send(5)
            assert not senders.refused
            made = await reader.ask("command", text="create-channel locked-out")
            assert made["type"] == "result", made
            await watcher.until(lambda m: m.get("seq") == 8 * 35)
            seqs = [m["seq"] for m in watcher.received if m["type"] == "message"]
            assert seqs == list(range(41, 8 * 35 + 1))  # live notices of what was stored, of each once
            await senders.check(watcher)
    assert errors_in_log(server) == []


async def test_a_short_lock_is_only_waited_for(tmp_path):
    async with serving(tmp_path) as server, Senders.gathered(server, 3) as senders:
        with contextlib.closing(sqlite3.connect(server.data_dir / "chat.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(senders.send, 10)
                await trio.sleep(0.3)
                assert not senders.acks
                other.execute("ROLLBACK")
        assert len(senders.acks) == 30
        await senders.check(senders.guests[0])


# ---------------------------------------------------------------- a full disk


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 MiB of one's own."""
    where = tmp_path / "disk"
    where.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root mounts a tmpfs")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", where], capture_output=True, text=True, timeout=20)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield where
    subprocess.run(["umount", "-l", where], check=True, timeout=20)


def fill(folder, *, leave):
    """Write until so many bytes are free. Returns the file."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize > leave and file.write(b"x" * size):
                    pass
    return ballast


@pytest.mark.parametrize("min_free_bytes", [4 << 20, 0], ids=["below min_free_bytes", "to the brim"])
async def test_a_full_disk_refuses_texts_and_nothing_else_until_there_is_room(small_disk, min_free_bytes):
    """With nothing at all left a commit fails half way, and nobody knows what became of it (`indeterminate`), before all is refused."""
    async with serving(small_disk, {"storage.min_free_bytes": str(min_free_bytes)}) as server, Senders.gathered(server, 4) as senders:
        reader = senders.guests[0]
        await senders.send(10)
        assert not senders.refused
        known = next(key for key in senders.acks if key[0] == "sender0")
        ballast = fill(small_disk, leave=min_free_bytes // 2)
        for _ in range(20):  # what there is of room in the database's own files may still be used
            await senders.send(25)
            if len(senders.refused) >= 200:
                break
        assert set(senders.refused.values()) <= {"storage_full", *([] if min_free_bytes else ["indeterminate"])}
        assert len(senders.refused) >= 200
        page = await reader.ask("history", conv="#lobby", limit=500)
        assert page["last_seq"] == len(senders.acks)
        retry = await reader.say("lobby", " ".join(known), known[1])  # what is stored has its place also now
        assert retry.get("seq") == senders.acks[known][0] or (not min_free_bytes and retry["code"] == "storage_full")
        ballast.unlink()
        freed = trio.current_time()
        while senders.refused:
            assert trio.current_time() - freed < BACK_S, set(senders.refused.values())
            await senders.send_again()
        await senders.send(5)
        assert not senders.refused
        await senders.check(reader)
    assert errors_in_log(server) == []


# ---------------------------------------------------------------- a disk that is nearly full


@contextlib.asynccontextmanager
async def owned(folder, settings=None):
    """A server with its owner, and with bob, who is online."""
    async with serving(folder, settings) as server:
        invite = re.search(r"#[\w-]+/([0-9a-z-]+)", server.lines[0] + server.lines[1])[1]
        owner = await Guest.connect(server)
        await owner.hello()
        owner.opened = await owner.ask("register", username="owner", password=PASSWORD, invite=invite)
        async with owner, await Guest.register(server, "bob") as bob:
            yield server, owner, bob


async def keeps_order(server, owner_token, bob_token):
    """On a nearly full disk people come and go, the one who fills it is banned, and nothing new is taken."""
    async with await Guest.resume(server, owner_token) as owner, await Guest.resume(server, bob_token) as bob:
        assert (owner.opened["type"], bob.opened["type"]) == ("resumed", "resumed")
        with trio.fail_after(BACK_S):  # the first looks find out
            while (answer := await bob.say("lobby", "flood"))["type"] == "ack":
                pass
        assert (answer["code"], "nearly full" in answer["message"]) == ("storage_full", True)
        commands = [{"type": "command", "id": f"room{n}", "text": f"create-channel room{n}", "cid": f"room{n}"} for n in range(5)]
        await bob.send(*commands)
        async with await Guest.login(server, "bob") as phone:  # beside what is refused
            assert phone.opened["type"] == "session", phone.opened
            assert (await phone.ask("logout"))["type"] == "ok"
        for each in commands:
            answer = await bob.until(lambda m, each=each: m.get("id") == each["id"])
            assert answer["code"] == "storage_full"
        assert (await bob.ask("leave", channel="lobby"))["type"] == "ok"
        assert (await bob.ask("join", channel="lobby"))["type"] == "ok"
        async with await Guest.register(server, "cem") as newcomer:
            assert newcomer.opened["code"] == "storage_full"
        banned = await owner.ask("command", text="ban bob 7d floods the disk", cid="ban1")
        assert banned["type"] == "result", banned
        closing = await bob.until_type("closing")
        assert closing["code"] == "unauthorized"
        again = await owner.ask("command", text="ban bob 7d floods the disk", cid="ban1")
        assert again["dup"] is True
        audit = await owner.ask("command", text="audit")
        assert "floods the disk" in audit["text"]


async def test_a_server_on_a_nearly_full_disk_keeps_its_order(small_disk):
    """It fills up while people are there, and is emptied again."""
    room = 8 << 20
    async with owned(small_disk, {"storage.min_free_bytes": str(room)}) as (server, owner, bob):
        assert (await bob.say("lobby", "before"))["type"] == "ack"
        ballast = fill(small_disk, leave=room // 2)
        await keeps_order(server, owner.token, bob.token)
        command = [*CHAT, "status", "--json", "--data-dir", str(server.data_dir)]
        with trio.fail_after(BACK_S):  # its looks are half a second apart
            while not (problems := json.loads((await trio.run_process(command, capture_stdout=True)).stdout)["problems"]):
                pass
        assert "nearly full" in problems[0]
        ballast.unlink()
        async with await Guest.login(server, "owner") as back:
            with trio.fail_after(BACK_S):
                while (answer := await back.say("lobby", "after"))["type"] == "error":
                    pass
                while (await back.ask("command", text="create-channel later"))["type"] == "error":
                    pass
            page = await back.ask("history", conv="#lobby", limit=500)
            assert (page["messages"][-1]["text"], page["last_seq"]) == ("after", answer["seq"])
    assert errors_in_log(server) == []


async def test_a_server_that_starts_on_a_nearly_full_disk_lets_people_in(tmp_path):
    async with owned(tmp_path) as (server, owner, bob):
        tokens = owner.token, bob.token
        assert await server.stop() == 0
        server._settings = {**server._settings, "storage.min_free_bytes": str(10**12)}
        await server.start()
        await keeps_order(server, *tokens)
    assert errors_in_log(server) == []


# ---------------------------------------------------------------- errors in the middle of a commit


@pytest.mark.parametrize("room_bytes", [0, 9_000, 50_000])
@pytest.mark.parametrize("killed", [False, True], ids=["goes on", "killed"])
async def test_an_error_in_a_commit_leaves_nothing_acknowledged_that_is_not_stored(tmp_path, room_bytes, killed):
    """The log of the database cannot grow further, at a place that lies somewhere in a transaction; then it can again, or it is killed."""
    async with serving(tmp_path) as server:
        async with Senders.gathered(server, 6) as senders:
            await senders.send(10)
            assert not senders.refused
            size = (server.data_dir / "chat.db-wal").stat().st_size
            resource.prlimit(server.pid(), resource.RLIMIT_FSIZE, (size + room_bytes, resource.RLIM_INFINITY))
            for _ in range(10):
                await senders.send(25)
                if senders.refused:
                    break
            assert senders.refused
            made = await senders.guests[0].ask("command", text="create-channel unlucky")
            assert (made["type"], made["code"] in RESENT) == ("error", True)
            page = await senders.guests[0].ask("history", conv="#lobby", limit=1)
            assert page["last_seq"] >= len(senders.acks)
            if not killed:
                resource.prlimit(server.pid(), resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                over = trio.current_time()
                while senders.refused:
                    assert trio.current_time() - over < BACK_S, set(senders.refused.values())
                    await senders.send_again()
        if killed:
            await server.kill()
            await server.start()
            senders.guests = [await Guest.login(server, f"sender{n}") for n in range(6)]
            await senders.send_again()
            assert not senders.refused
            for guest in senders.guests:
                await guest.aclose()
        async with await Guest.login(server, "sender0") as reader:
            assert (await reader.ask("command", text="create-channel unlucky"))["type"] == "result"
            await senders.check(reader)
