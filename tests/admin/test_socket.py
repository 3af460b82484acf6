"""The admin socket: who may, what is said, where it lies; and the same without a server."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys

import pytest
import trio

from chat.admin import client, place
from chat.admin.client import Refused
from chat.config import Config
from tests.e2e.guests import errors_in_log, serving


def config_of(server):
    return Config(data_dir=server.data_dir)


def lines(path, *requests):
    """Say each, in one go; what was answered up to the end."""
    with place.connect(path) as sock:
        sock.settimeout(20)
        with contextlib.suppress(BrokenPipeError):
            sock.sendall(b"".join(requests))
            sock.shutdown(socket.SHUT_WR)
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := sock.recv(65536):
                said += chunk
        return [json.loads(line) for line in said.splitlines()]


async def test_it_answers_and_is_the_owners_alone(tmp_path):
    async with serving(tmp_path) as server:
        path = server.data_dir / "admin.sock"
        status = path.lstat()
        assert (stat.S_ISSOCK(status.st_mode), stat.S_IMODE(status.st_mode)) == (True, 0o600)
        told = await trio.to_thread.run_sync(client.run, config_of(server), "hello")
        assert (told["pid"], told["running"]) == (server.pid(), True)
        assert "hello" in told["do"]
        assert await server.stop() == 0
        assert not path.exists()


async def test_each_line_is_answered_in_its_turn(tmp_path):
    async with serving(tmp_path) as server:
        path = server.data_dir / "admin.sock"
        bad = [b"nonsense\n", b"[" * 5000 + b"\n", b"\xff\n", b"7\n", b'{"id":3}\n']
        bad += [b'{"id":4,"do":"nothing"}\n', b'{"id":5,"do":"hello","x":1}\n']
        answers = await trio.to_thread.run_sync(lines, path, *bad, b'{"id":9,"do":"hello"}\n')
        assert [a.get("error", {}).get("code") for a in answers] == ["bad_request"] * 5 + ["unsupported", "bad_request", None]
        assert answers[-1]["id"] == 9
        assert await trio.to_thread.run_sync(lines, path, b"x" * (3 << 20)) == []  # no line at all: the connection ends
    assert errors_in_log(server) == []


async def test_a_socket_that_a_killed_server_left_is_replaced(tmp_path):
    async with serving(tmp_path) as server:
        await server.kill()
        path = server.data_dir / "admin.sock"
        assert path.exists()
        with pytest.raises(ConnectionRefusedError):
            place.connect(path)
        await server.start()
        told = await trio.to_thread.run_sync(client.run, config_of(server), "hello")
        assert told["pid"] == server.pid()


async def test_what_is_no_socket_stays_and_the_server_does_without(tmp_path):
    async with serving(tmp_path) as server:
        await server.stop()
        path = server.data_dir / "admin.sock"
        path.write_text("mine")
        await server.start()
        assert path.read_text() == "mine"
        assert "no_admin_socket" in server.log.read_text()


@pytest.mark.parametrize("length", [107, 108, 250])
async def test_a_long_path(tmp_path, length):
    folder = tmp_path
    while len(os.fsencode(folder / "data" / "admin.sock")) < length:
        missing = length - len(os.fsencode(folder / "data" / "admin.sock"))
        folder = folder / ("d" * max(1, min(60, missing - 1)))
    folder.mkdir(parents=True)
    async with serving(folder) as server:
        told = await trio.to_thread.run_sync(client.run, config_of(server), "hello")
        assert told["pid"] == server.pid()


AS_NOBODY = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
try:
    sock.sendall(b'{"id":1,"do":"hello"}\\n')
except BrokenPipeError:
    pass  # it has not waited for a word
print(sock.recv(9999).decode())
"""


async def test_another_user_is_refused_even_with_the_files_rights(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    async with serving(tmp_path) as server:
        path = server.data_dir / "admin.sock"
        path.chmod(0o666)
        for folder in (server.data_dir, *server.data_dir.parents):
            folder.chmod(folder.stat().st_mode | 0o011)
        done = await trio.run_process([sys.executable, "-I", "-c", AS_NOBODY, str(path)], capture_stdout=True)
        assert json.loads(done.stdout)["error"]["code"] == "forbidden"


async def test_who_connects_and_says_nothing_does_not_keep_the_server_from_ending(tmp_path):
    async with serving(tmp_path) as server:
        with place.connect(server.data_dir / "admin.sock"):
            began = trio.current_time()
            assert await server.stop() == 0
            assert trio.current_time() - began < 5


async def test_more_shells_than_there_is_room_for_are_told(tmp_path):
    async with serving(tmp_path) as server:
        path = server.data_dir / "admin.sock"
        held = [place.connect(path) for _ in range(16)]
        try:
            (answer,) = await trio.to_thread.run_sync(lines, path)
            assert answer["error"]["code"] == "busy"
        finally:
            for sock in held:
                sock.close()


# ---------------------------------------------------------------- without a server


def test_without_a_database_nothing_is_made(tmp_path):
    config = Config(data_dir=tmp_path / "nowhere")
    with pytest.raises(Refused, match="was the server ever started"):
        client.run(config, "hello")
    assert not (tmp_path / "nowhere").exists()


async def test_on_the_files_of_a_stopped_server(tmp_path):
    async with serving(tmp_path) as server:
        await server.stop()

        def ask():  # Trio runs in here already
            code = "import sys; from pathlib import Path; from chat.admin import client; from chat.config import Config;"
            code += "print(client.run(Config(data_dir=Path(sys.argv[1])), 'hello'))"
            return subprocess.run([sys.executable, "-c", code, server.data_dir], capture_output=True, text=True, timeout=60)

        done = await trio.to_thread.run_sync(ask)
        assert "'running': False" in done.stdout, done.stderr


async def test_a_server_that_answers_nothing_is_told_of(tmp_path, monkeypatch):
    async with serving(tmp_path) as server:
        monkeypatch.setattr(client, "ANSWER_S", 0.2)
        server.freeze()
        with pytest.raises(Refused, match="did not answer"):
            await trio.to_thread.run_sync(client.run, config_of(server), "hello")
        os.kill(server.pid(), signal.SIGCONT)
