"""The daemon's life as an operator sees it, with real processes: draining, ending at once, status, systemd's sockets and watchdog."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import trio

from chat.background import holder, wait_free
from tests.e2e.guests import Guest, serving
from tests.e2e.restart import Background
from tests.e2e.sabotage import command as sabotaged
from tests.e2e.server import CHAT, GENEROUS, ROOT, Server

pytestmark = pytest.mark.xdist_group("e2e-life")

# The code that systemd runs between fork and exec: the socket becomes descriptor 3, and the number of the process is its own.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""


def takes_connections(port):
    with socket.socket() as sock:
        sock.settimeout(5)
        return sock.connect_ex(("127.0.0.1", port)) == 0


async def until(condition, *arguments):
    """Of what another process does there is no event to wait for."""
    while not condition(*arguments):  # noqa: ASYNC110
        await trio.sleep(0.005)


def refuses(port):
    return not takes_connections(port)


def hangs(server):
    return "disk_hangs" in server.log.read_text()


# ---------------------------------------------------------------- the end


async def test_accepting_stops_within_100_ms_while_somebody_is_drained(tmp_path):
    """Somebody who does not read his answers is waited for; nobody else comes in."""
    async with serving(tmp_path) as server, await Guest.register(server, "greedy") as greedy:
        for n in range(40):
            await greedy.say("lobby", "x" * 15000, cid=f"c{n}")
        await greedy.send(*({"type": "history", "id": n, "conv": "#lobby", "limit": 500} for n in range(60)))
        server.terminate()
        began = time.monotonic()
        await until(refuses, server.port)
        stopped_s = time.monotonic() - began
        print(f"accepting stopped after {1000 * stopped_s:.0f} ms")
        assert stopped_s < 0.3, "100 ms, and as much again for a machine that runs other tests meanwhile"
        with trio.fail_after(10 - stopped_s):
            assert await server.wait() == 0


async def test_whoever_does_not_read_is_not_waited_for_longer_than_the_drain(tmp_path):
    async with serving(tmp_path, {"limits.drain_s": "3"}) as server, await Guest.register(server, "greedy") as greedy:
        for n in range(40):
            await greedy.say("lobby", "x" * 15000, cid=f"c{n}")
        await greedy.send(*({"type": "history", "id": n, "conv": "#lobby", "limit": 500} for n in range(60)))
        began = time.monotonic()
        with trio.fail_after(10):
            assert await server.stop() == 0
        print(f"ended after {time.monotonic() - began:.2f} s")
        assert time.monotonic() - began < 3.5


async def test_clients_are_told_different_times(tmp_path):
    async with serving(tmp_path) as server:
        guests = [await Guest.register(server, f"guest{n}") for n in range(6)]
        server.terminate()
        told = [(await guest.to_the_end())[-1] for guest in guests]
        assert {(last["type"], last["code"]) for last in told} == {("closing", "shutting_down")}
        times = [last["retry_after"] for last in told]
        assert len(set(times)) > 3
        assert min(times) > 0
        assert await server.wait() == 0
        for guest in guests:
            await guest.aclose()


@pytest.mark.parametrize("how", ["hangs", "signals"])
async def test_a_second_signal_ends_it_within_a_second(tmp_path, how):
    """Also when the disk hangs in a sync: nothing that waits for a thread can be cancelled."""
    command = sabotaged("disk_hangs") if how == "hangs" else CHAT
    server = Background(tmp_path / "data", settings={**GENEROUS, "limits.drain_s": "600"}, command=command)
    await server.start()
    try:
        async with await Guest.register(server, "ann") as ann:
            if how == "hangs":
                await ann.say("lobby", "kept")
                await ann.send({"type": "send", "id": "last", "cid": "last", "channel": "lobby", "text": "hang"})
                await until(hangs, server)
            else:
                await ann.send({"type": "history", "id": 1, "conv": "#lobby", "limit": 1})
            server.terminate()
            await until(refuses, server.port)
            began = time.monotonic()
            server.terminate()
            with trio.fail_after(10):
                assert await server.wait() == 0
            print(f"ended after {time.monotonic() - began:.2f} s")
            assert time.monotonic() - began < 1.5, "1 s, and half of one for a machine that runs other tests meanwhile"
            assert not (server.data_dir / "chat.pid").exists()
    finally:
        await server.kill()


async def test_a_signal_while_the_database_is_opened_is_no_failure(tmp_path):
    """Checking one of some GB takes its time."""
    server = Server(tmp_path / "data", command=sabotaged("opening_held"))
    (tmp_path / "hold").touch()
    await server.launch()
    try:
        await until(lambda: "opening" in server.log.read_text())
        server.terminate()
        await until(lambda: "stopping" in server.log.read_text())
        (tmp_path / "hold").unlink()
        with trio.fail_after(10):
            assert await server.wait() == 0
        assert "Bad file descriptor" not in server.log.read_text()
    finally:
        await server.kill()


async def test_stop_now_waits_for_nobody(tmp_path):
    server = Background(tmp_path / "data", settings={**GENEROUS, "limits.drain_s": "600"})
    await server.chat("start")
    pid = holder(server.data_dir / "chat.lock").pid
    async with await Guest.register(server, "greedy") as greedy:
        for n in range(40):
            await greedy.say("lobby", "x" * 15000, cid=f"c{n}")
        await greedy.send(*({"type": "history", "id": n, "conv": "#lobby", "limit": 500} for n in range(60)))
        assert await server.chat("stop", "--now") == f"chat (pid {pid}) has stopped\n"
    assert holder(server.data_dir / "chat.lock") is None


# ---------------------------------------------------------------- asking


async def test_status_tells_how_it_goes(tmp_path):
    server = Background(tmp_path / "data", settings=GENEROUS)
    said = json.loads(await server.chat("status", "--json", check=False))
    assert said == {"running": False, "data_dir": str(server.data_dir)}
    await server.chat("start")
    try:
        async with await Guest.register(server, "ann") as ann:
            await ann.say("lobby", "hello")
            said = json.loads(await server.chat("status", "--json"))
            running = holder(server.data_dir / "chat.lock")
            assert (said["running"], said["pid"], said["addresses"]) == (True, running.pid, [f"127.0.0.1:{server.port}"])
            assert (said["connections"]["tcp"], said["people_online"], said["errors"]) == (1, 1, [])
            first, *lines = (await server.chat("status")).splitlines()
            assert first.startswith(f"chat (pid {running.pid}) is running since ")
            assert lines[1].startswith("1 connections (1 tcp), 1 sessions, 1 people online")
        os.kill(running.pid, signal.SIGSTOP)
        try:
            said = await server.chat("status")
            assert said.endswith("no figures: it does not answer within 3 s\n")
        finally:
            os.kill(running.pid, signal.SIGCONT)
    finally:
        await server.chat("stop", "--now", check=False)


# ---------------------------------------------------------------- systemd


@pytest.mark.parametrize("name", ["", "0.0.0.0:7667"])
def test_a_socket_of_systemd_is_used(tmp_path, name):
    """The one address of the configuration is in nobody's way: it is not bound."""
    data = tmp_path / "data"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(tmp_path)}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = "127.0.0.1:{1}".format(*listening.getsockname())
        os.set_inheritable(listening.fileno(), True)
        serve = [sys.executable, "-m", "chat", "serve", "--data-dir", str(data)]
        command = [sys.executable, "-c", ACTIVATE, str(listening.fileno()), name, *serve]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, close_fds=False)
    try:
        assert process.stdout.readline().startswith("You, the owner")
        assert holder(data / "chat.lock").addresses == (address,)
        assert takes_connections(int(address.partition(":")[2]))
    finally:
        process.terminate()
        assert process.wait(20) == 0
        process.stdout.close()


def test_the_watchdog_is_fed_only_while_all_is_well(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service, pytest.MonkeyPatch.context() as patch:
        service.bind(str(tmp_path / "notify"))
        service.settimeout(20)
        patch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        patch.setenv("WATCHDOG_USEC", "200000")

        async def check():
            server = Background(tmp_path / "data", command=sabotaged("disk_hangs"), settings=GENEROUS)
            await server.start()
            try:
                while service.recv(200) != b"READY=1":
                    pass
                assert [service.recv(200) for _ in range(5)] == [b"WATCHDOG=1"] * 5
                async with await Guest.register(server, "ann") as ann:
                    await ann.send({"type": "send", "id": "last", "cid": "last", "channel": "lobby", "text": "hang"})
                    await until(hangs, server)
                    service.settimeout(1)
                    heard = 0
                    with contextlib.suppress(TimeoutError):
                        while heard < 20:
                            heard += len(service.recv(200)) > 0
                    assert heard < 20, "what was on its way, and then nothing for five times as long as it may take"
            finally:
                await server.kill()
            assert wait_free(server.data_dir / "chat.lock", 20)

        trio.run(check)
