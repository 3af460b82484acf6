"""The listener of a real daemon: what it counts of a real conversation, and how it ends."""

import contextlib
import http.client
import socket

import pytest
import trio

from tests.e2e.guests import Guest, serving, shared
from tests.e2e.server import free_port


def get(port, path, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read().decode()
    finally:
        connection.close()


async def fetch(port, path="/metrics", method="GET"):
    return await trio.to_thread.run_sync(get, port, path, method)


async def values(port):
    """Name with labels → value."""
    status, kind, body = await fetch(port)
    assert status == 200
    assert kind.startswith("text/plain; version=0.0.4")
    lines = [line.rsplit(" ", 1) for line in body.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


PORT = free_port()
SETTINGS = {"metrics.address": f"127.0.0.1:{PORT}", "limits.sends_burst": "12", "limits.sends_per_s": "0.001"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    yield from shared(tmp_path_factory.mktemp("metrics"), SETTINGS)


@pytest.fixture
def metrics(server):
    """A daemon, and the port of its metrics."""
    return server, PORT


async def test_a_conversation_is_counted(metrics):
    server, port = metrics
    before = await values(port)
    assert before["chat_ready"] == 1
    async with await Guest.register(server, "ann") as ann, await Guest.register(server, "bob", tls=True) as bob:
        for n in range(12):
            assert (await ann.say("lobby", f"text {n}"))["type"] == "ack"
        assert (await ann.say("lobby", "too much"))["code"] == "rate_limited"
        await bob.until(lambda message: message.get("text") == "text 11")
        async with await Guest.login(server, "ann", password="a wrong one") as wrong:
            assert wrong.opened["code"] == "unauthorized"
        async with await Guest.resume(server, "no such token") as wrong:
            assert wrong.opened["code"] == "unauthorized"
        await ann.ping()
        now = await values(port)
        assert now["chat_accounts"] == 2
        assert now['chat_connections{transport="tcp"}'] == 1
        assert now['chat_connections{transport="tls"}'] == 1
        assert now["chat_logged_in"] == 2
    assert now["chat_records_total"] - before["chat_records_total"] == 12
    assert now["chat_messages_out_total"] - before["chat_messages_out_total"] == 24
    assert now["chat_messages_in_total"] - before["chat_messages_in_total"] == 2 * 2 + 13 + 2 * 2 + 1  # hello and the opening of four
    assert now["chat_rate_limited_total"] == 1
    assert now['chat_refused_total{code="rate_limited"}'] == 1
    assert now["chat_auth_failures_total"] == 2
    assert now["chat_commit_seconds_count"] - before["chat_commit_seconds_count"] >= 14
    buckets = [value for name, value in now.items() if name.startswith("chat_commit_actions_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == now["chat_commit_actions_count"]


async def test_what_else_is_asked(metrics):
    _, port = metrics
    assert (await fetch(port, "/healthz"))[::2] == (200, "alive\n")
    assert (await fetch(port, "/readyz?verbose=1"))[::2] == (200, "ready\n")
    assert (await fetch(port, "/metrics", "HEAD"))[::2] == (200, "")
    assert (await fetch(port, "/"))[0] == 404
    assert (await fetch(port, "/metrics", "POST"))[0] == 405


async def test_garbage_ends_only_its_connection(metrics):
    _, port = metrics

    def garbage():
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            sock.sendall(b"\x16\x03garbage\r\n\r\n" + b"x" * 20000)
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(4096):
                    pass

    await trio.to_thread.run_sync(garbage)
    assert (await fetch(port, "/healthz"))[0] == 200


async def test_several_requests_on_a_connection(metrics):
    _, port = metrics

    def twice():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        statuses = []
        for path in ("/healthz", "/nothing", "/readyz"):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()
        return statuses

    assert await trio.to_thread.run_sync(twice) == [200, 404, 200]


async def test_readiness_flips_while_the_daemon_drains(tmp_path):
    port = free_port()
    async with serving(tmp_path, {"metrics.address": f"127.0.0.1:{port}"}) as server, await Guest.register(server, "ann") as ann:
        assert (await fetch(port, "/readyz"))[0] == 200
        server.terminate()
        await ann.until_type("closing")  # she does not close yet: it waits for her
        assert await fetch(port, "/readyz") == (503, "text/plain; charset=utf-8", "the server is stopping\n")
