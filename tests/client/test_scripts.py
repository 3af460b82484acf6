"""`chat send` as a process, against the small honest server."""

import os
import socket
import subprocess
import sys

import pytest
import trio

from tests.client.fake import fake_server


async def send(tmp_path, *arguments, stdin=b""):
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "CHAT_PASSWORD": "correct horse"}
    command = [sys.executable, "-m", "chat", "send", "--as", "ann", *arguments]
    with trio.fail_after(30):
        done = await trio.run_process(command, stdin=stdin, capture_stdout=True, capture_stderr=True, check=False, env=environment)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_a_server_that_is_down_is_given_up_after_the_timeout(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
    status, out, err = await send(tmp_path, "lobby", "text", "--server", nobody, "--timeout", "1.5")
    assert (status, out) == (1, "")
    waiting, given_up = err.splitlines()
    assert waiting == f"chat: {nobody}: nobody answers there; waiting for it"
    assert given_up == "chat: stopped after 1.5 s, with no session: not sent, and not kept"


async def test_what_is_not_acknowledged_in_time_is_kept_and_sent_by_the_next(tmp_path):
    async with fake_server(swallow_sends=1) as server:
        status, out, err = await send(tmp_path, "lobby", "first", "--server", server.target, "--timeout", "4")
        assert (status, out) == (1, "")
        assert err == "chat: stopped after 4 s: 1 text is not acknowledged; kept, and sent by the next client of this account\n"
        assert await send(tmp_path, "lobby", "second", "--server", server.target) == (0, "", "")
        assert [record.text for record in server.records] == ["first", "second"]


async def test_in_time_the_timeout_is_nothing(tmp_path):
    async with fake_server() as server:
        assert await send(tmp_path, "lobby", "-", "--server", server.target, "--timeout", "25", stdin=b"a\nb\n") == (0, "", "")
        assert [record.text for record in server.records] == ["a", "b"]


@pytest.mark.parametrize("timeout", ["0", "-1", "soon"])
def test_a_timeout_is_a_time(timeout):
    done = subprocess.run([sys.executable, "-m", "chat", "send", "lobby", "x", "--timeout", timeout], capture_output=True, timeout=30)
    assert done.returncode == 2
