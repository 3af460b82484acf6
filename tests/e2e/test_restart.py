"""`chat restart` with real processes: who goes on, whatever happens to the new one, and that nobody notices.

The full run is ``python -m tests.e2e.restart --restarts 10 --clients 200``; there is a sample of it here.
"""

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from functools import partial

import pytest
import trio

from chat import __version__
from chat.background import holder, wait_free
from tests.e2e.guests import Guest
from tests.e2e.restart import Background, Plan, run
from tests.e2e.sabotage import command as sabotaged
from tests.e2e.server import CHAT, GENEROUS, ROOT

pytestmark = pytest.mark.xdist_group("e2e-restart")


@contextlib.asynccontextmanager
async def running(folder, command=CHAT, **settings):
    server = Background(folder / "data", command=command, settings={**GENEROUS, **settings})
    await server.chat("start")
    try:
        yield server
    finally:
        with trio.CancelScope(shield=True):
            await server.chat("stop", "--now", check=False)


def holder_of(server):
    return holder(server.data_dir / "chat.lock")


async def history(server, user):
    async with await Guest.login(server, user) as guest:
        page = await guest.ask("history", conv="#lobby", limit=500)
        return [message["text"] for message in page["messages"]]


def schema(server):
    with contextlib.closing(sqlite3.connect(server.data_dir / "chat.db")) as db:
        return db.execute("SELECT schema_version FROM meta").fetchone()[0]


@pytest.mark.long
async def test_nobody_notices(tmp_path):
    report = await run(Plan(seed=7, restarts=2, clients=30, rate=60), tmp_path)
    print(report)
    assert report.green, str(report)
    assert (len(report.shut_s), len(report.pauses_s)) == (2, 60)


async def test_the_answers_that_are_due_come_before_and_the_session_goes_on(tmp_path):
    async with running(tmp_path) as server, await Guest.register(server, "ann") as ann, await Guest.register(server, "bob") as bob:
        before = holder_of(server)
        await ann.send(*({"type": "send", "id": n, "cid": f"c{n}", "channel": "lobby", "text": f"text {n}"} for n in range(100)))
        await ann.until_type("ack")
        said = await server.chat("restart")
        after = holder_of(server)
        assert said.startswith(f"chat {after.version} (pid {after.pid}) goes on for pid {before.pid}\n")
        assert after.addresses == before.addresses
        rest = await ann.to_the_end()
        acks = [m["id"] for m in [*ann.received[: -len(rest)], *rest] if m["type"] == "ack"]
        assert acks == list(range(len(acks)))
        assert (rest[-1]["type"], rest[-1]["code"]) == ("closing", "shutting_down")
        assert 0 < rest[-1]["retry_after"] < 0.5
        async with await Guest.resume(server, bob.token) as again:
            assert (again.opened["type"], again.opened["session"]) == ("resumed", bob.opened["session"])
            assert again.opened["heads"]["#lobby"][1] == len(acks)
            people = (await again.ask("members", channel="lobby"))["data"]
            assert {person["user"]: person["online"] for person in people} == {"ann": True, "bob": True}
        assert len(await history(server, "bob")) == len(acks), "what has no answer is not stored"
        assert (await server.chat("stop")).endswith(f"chat (pid {after.pid}) has stopped\n")


@pytest.mark.long
async def test_one_that_is_not_fit_is_refused_and_nobody_was_cut_off(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('name = "fine"\n')
    async with running(tmp_path) as server:
        pass
    async with running(tmp_path) as server:
        await server.chat("stop")
        await server.chat("start", "--config", str(config))
        pid = holder_of(server).pid
        async with await Guest.register(server, "ann") as ann:
            for text, why in (
                ('nam = "wrong"\n', "nam: unknown key"),
                ('plugins = ["nowhere"]\n', "the plugin nowhere"),
                ('[tls]\ncertificate = "none.pem"\nkey = "none.pem"\n', "none.pem"),
            ):
                config.write_text(text)
                said = await server.chat("restart", check=False)
                assert said.startswith("chat: not restarted: ")
                assert why in said
                assert len(said.splitlines()) == 1
                assert holder_of(server).pid == pid
            await ann.ping()


async def test_one_that_dies_with_the_data_is_replaced_by_the_old_one(tmp_path):
    async with running(tmp_path, sabotaged("heir_dies")) as server:
        pid = holder_of(server).pid
        async with await Guest.register(server, "ann") as ann:
            await ann.say("lobby", "before")
        said = await server.chat("restart", check=False)
        assert said == f"chat: not restarted: the new process failed, the old one (pid {pid}) goes on: it ended without a word\n"
        assert holder_of(server).pid == pid
        async with await Guest.resume(server, ann.token) as ann:
            await ann.say("lobby", "after")
        assert await history(server, "ann") == ["before", "after"]
        assert "not restarted" in await server.chat("restart", check=False), "and it can be tried again"


async def test_sigterm_while_the_old_one_opens_the_store_again_is_no_failure(tmp_path):
    async with running(tmp_path, sabotaged("opening_held")) as server, trio.open_nursery() as nursery:
        (tmp_path / "hold").touch()
        nursery.start_soon(partial(server.chat, "restart", check=False))
        with trio.fail_after(30):
            while not server.logged("restart_failed"):  # noqa: ASYNC110
                await trio.sleep(0.01)
            os.kill(holder_of(server).pid, signal.SIGTERM)
            while not server.logged("stopping"):  # noqa: ASYNC110
                await trio.sleep(0.01)
        (tmp_path / "hold").unlink()
        assert await trio.to_thread.run_sync(wait_free, server.data_dir / "chat.lock", 10)
        assert not server.logged("daemon_ended")
        assert not (server.data_dir / "chat.pid").exists()


@pytest.mark.long
async def test_a_migration_that_fails_leaves_the_old_one_serving(tmp_path):
    async with running(tmp_path, sabotaged("bad_migration")) as server:
        pid, before = holder_of(server).pid, schema(server)
        said = await server.chat("restart", check=False)
        assert f"the old one (pid {pid}) goes on: " in said
        assert "already exists" in said
        assert len(said.splitlines()) == 1
        async with await Guest.register(server, "ann") as ann:
            assert (await ann.say("lobby", "on"))["type"] == "ack"
        assert schema(server) == before


async def test_a_migration_makes_a_backup_first(tmp_path):
    async with running(tmp_path, sabotaged("upgraded")) as server:
        before = schema(server)
        async with await Guest.register(server, "ann") as ann:
            await ann.say("lobby", "kept")
        await server.chat("restart")
        assert schema(server) == before + 1
        assert await history(server, "ann") == ["kept"]
        (backup,) = (server.data_dir / "backups").iterdir()
        assert backup.name.startswith(f"chat-schema{before}-")
        assert backup.stat().st_mode & 0o077 == 0
        with contextlib.closing(sqlite3.connect(backup)) as db:
            assert db.execute("SELECT schema_version FROM meta").fetchone() == (before,)
            assert db.execute("SELECT body FROM records WHERE kind = 'message'").fetchall() == [("kept",)]
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.long
async def test_an_old_one_does_not_open_what_a_newer_one_has_migrated(tmp_path):
    async with running(tmp_path, sabotaged("dies_migrated")) as server:
        before = schema(server)
        assert "has ended while it restarted" in await server.chat("restart", check=False)
        assert wait_free(server.data_dir / "chat.lock", 10)
        assert schema(server) == before + 1
        assert [found["exception"] for found in server.logged("daemon_ended")], "the log says why"
        said = await server.chat("start", check=False)
        assert said.startswith(f"chat: {server.data_dir}/chat.db: made by a newer chat (schema {before + 1}, this one knows {before})")


@pytest.mark.long
async def test_the_package_was_upgraded_in_between(tmp_path):
    package = tmp_path / "package"
    shutil.copytree(ROOT / "chat", package / "chat", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHONPATH": str(package), "XDG_CONFIG_HOME": str(tmp_path)}

    async def chat(command, *more):
        arguments = [sys.executable, "-P", "-m", "chat", command, "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0", *more]
        done = await trio.run_process(arguments, capture_stdout=True, capture_stderr=True, env=environment, check=False, cwd=tmp_path)
        return done.stdout.decode() + done.stderr.decode()

    await chat("start")
    try:
        assert holder(tmp_path / "data" / "chat.lock").version == __version__
        init = package / "chat" / "__init__.py"
        init.write_text(f"{init.read_text()}\n__version__ = '9.9.9'\n")
        said = await chat("restart")
        assert said.startswith("chat 9.9.9 (pid ")
        assert holder(tmp_path / "data" / "chat.lock").version == "9.9.9"
    finally:
        await chat("stop", "--now")


@pytest.mark.long
@pytest.mark.parametrize("name", ["heir_checks", "heir_hangs"])
async def test_sigterm_meanwhile_ends_both(tmp_path, name):
    """Before and after the successor has the data: no process stays, and the next start works."""
    async with running(tmp_path, sabotaged(name), **{"limits.drain_s": "2"}) as server:
        pid = holder_of(server).pid
        async with trio.open_nursery() as nursery, await Guest.register(server, "ann") as ann:
            await ann.say("lobby", "kept")
            nursery.start_soon(partial(server.chat, "restart", check=False))
            with trio.fail_after(30):
                while not (successors := children(pid)) or (name == "heir_hangs" and not server.logged("stopped")):  # noqa: ASYNC110
                    await trio.sleep(0.01)
            os.kill(pid, signal.SIGTERM)
            assert await trio.to_thread.run_sync(wait_free, server.data_dir / "chat.lock", 10)
            nursery.cancel_scope.cancel()
        assert not any(map(lives, successors))
        await server.chat("start")
        assert await history(server, "ann") == ["kept"]


def children(pid):
    with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]
    return []


def lives(pid):
    with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] not in "ZX"  # an orphan that nobody has reaped yet is over
    return False


async def test_nobody_waits_long_for_one_who_does_not_read(tmp_path):
    async with running(tmp_path) as server, await Guest.register(server, "greedy") as greedy:
        for n in range(40):
            await greedy.say("lobby", "x" * 15000, cid=f"c{n}")
        await greedy.send(*({"type": "history", "id": n, "conv": "#lobby", "limit": 500} for n in range(60)))
        await server.chat("restart")
        (found,) = server.logged("took_over")
        print(f"pause {found['pause_s']} s")
        assert found["pause_s"] < 5, "1 s for him, the rest for a machine that runs other tests meanwhile"


# ---------------------------------------------------------------- where somebody waits for the first process


async def test_in_the_foreground_the_first_process_stays_and_passes_signals_on(tmp_path):
    server = Background(tmp_path / "data", settings=GENEROUS)
    await server.start()
    try:
        pids = [holder_of(server).pid]
        assert pids == [server.pid()]
        for _ in range(2):
            await server.chat("restart")
            pids.append(holder_of(server).pid)
        assert len(set(pids)) == 3
        async with await Guest.register(server, "ann") as ann:
            with trio.fail_after(20):
                assert await server.stop() == 0
            assert (await ann.to_the_end())[-1]["code"] == "shutting_down"
        assert holder_of(server) is None
    finally:
        running = holder_of(server)
        if running is not None:
            os.kill(running.pid, signal.SIGKILL)
        await server.kill()


async def test_in_the_foreground_the_end_of_the_last_one_is_its_end(tmp_path):
    server = Background(tmp_path / "data", settings=GENEROUS)
    await server.start()
    try:
        await server.chat("restart")
        os.kill(holder_of(server).pid, signal.SIGKILL)
        with trio.fail_after(20):
            assert await server.wait() == 128 + signal.SIGKILL
        assert holder_of(server) is None
    finally:
        await server.kill()


def test_systemd_is_told_who_goes_on(tmp_path):
    """Its process may end then; no relay stays."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(str(tmp_path / "notify"))
        service.settimeout(30)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": str(tmp_path / "notify"), "XDG_CONFIG_HOME": str(tmp_path)}
        server = Background(tmp_path / "data", settings=GENEROUS)
        process = subprocess.Popen(server.arguments(), env=environment, stdout=subprocess.DEVNULL)
        try:
            assert service.recv(200) == b"READY=1"
            trio.run(server.chat, "restart")
            told = [service.recv(200), service.recv(200), service.recv(200)]
            pid = holder_of(server).pid
            assert process.wait(30) == 0
            assert told[0] == b"STATUS=restarting"
            assert sorted(told[1:]) == sorted([f"MAINPID={pid}".encode(), b"READY=1"])
            os.kill(pid, signal.SIGTERM)
            assert service.recv(200) == b"STOPPING=1"
            assert wait_free(server.data_dir / "chat.lock", 20)
        finally:
            running = holder_of(server)
            if running is not None:
                os.kill(running.pid, signal.SIGKILL)
            process.kill()
            process.wait()
