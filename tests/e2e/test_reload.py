"""A reload with a real process: what was told holds, and nobody is cut off."""

import contextlib
import json
import os
import signal
import socket

import pytest
import trio

from chat.background import holder
from chat.transport.certificates import fingerprint, make_self_signed
from tests.e2e.guests import Guest, texts
from tests.e2e.restart import Background

pytestmark = pytest.mark.xdist_group("e2e-reload")

CHEAP = {"registration": "open", "passwords.memory_kib": "8", "passwords.passes": "1"}


class Reloaded(Background):
    """Its configuration is a file."""

    def __init__(self, folder):
        super().__init__(folder / "data", settings=CHEAP)
        self.file = folder / "config.toml"

    async def configured(self, text):
        self.file.write_text(text)
        return await self.chat("reload", check=False)


@contextlib.asynccontextmanager
async def reloadable(folder, text="", **environment):
    server = Reloaded(folder)
    server.file.write_text(text)
    await server.chat("start", "--config", str(server.file))
    try:
        yield server
        assert not [line for line in server.lines_of_log() if "error_id" in line]
    finally:
        with trio.CancelScope(shield=True):
            await server.chat("stop", "--now", check=False)


async def shown(server):
    """The fingerprint of the certificate that a new connection sees."""
    async with await Guest.connect(server, tls=True) as guest:
        return fingerprint(guest.stream.getpeercert(binary_form=True))


async def test_limits_hold_at_once_and_nobody_is_cut_off(tmp_path):
    async with reloadable(tmp_path, "[limits]\nsends_burst = 2\nsends_per_s = 0.01\n") as server:
        async with await Guest.register(server, "ann") as ann, await Guest.register(server, "bob") as bob:
            assert [(await ann.say("lobby", f"{n}"))["type"] for n in range(3)] == ["ack", "ack", "error"]
            pid = holder(server.data_dir / "chat.lock").pid
            told = await server.configured('name = "Other"\n[limits]\nsends_burst = 4\nsends_per_s = 0.01\n[storage]\nbusy_timeout_s = 6\n')
            assert told.splitlines() == [
                'name: "chat" → "Other", for new connections',
                "limits.sends_burst: 2 → 4, at once",
                "storage.busy_timeout_s: 5.0 → 6.0, needs a restart",
                "chat restart takes on what needs a restart; nobody is refused meanwhile.",
            ]
            assert [(await ann.say("lobby", f"again {n}"))["type"] for n in range(5)] == ["ack"] * 4 + ["error"]
            await bob.ping()
            assert len(texts(bob.received)) == 6
            assert holder(server.data_dir / "chat.lock").pid == pid
            async with await Guest.connect(server) as late:
                assert (await late.hello())["name"] == "Other"
        again = await server.configured(server.file.read_text())
        assert again.startswith("storage.busy_timeout_s: "), "told until it has had its restart"
        await server.chat("restart")
        assert await server.configured(server.file.read_text()) == "reloaded; nothing has changed\n"


async def test_a_file_with_a_mistake_changes_nothing(tmp_path):
    async with reloadable(tmp_path, 'registration = "open"\n') as server:
        said = await server.configured('registraton = "closed"\n[limits]\nsends_burst = 1\n')
        assert "registraton" in said
        assert said.endswith("chat: nothing was reloaded\n")
        async with await Guest.register(server, "ann") as ann:
            assert [(await ann.say("lobby", f"{n}"))["type"] for n in range(3)] == ["ack"] * 3


async def test_a_new_certificate_is_for_new_connections_and_a_broken_one_stays_out(tmp_path):
    async with reloadable(tmp_path) as server:
        first = await shown(server)
        async with await Guest.register(server, "ann", tls=True) as ann:
            certificate, key = server.data_dir / "certificate.pem", server.data_dir / "key.pem"
            good = certificate.read_bytes(), key.read_bytes()
            certificate.write_text("broken")
            said = await server.chat("reload", check=False)
            assert said.startswith("chat: certificate: ")
            assert said.endswith("the old one stays in use\n")
            assert await shown(server) == first
            key.unlink()
            make_self_signed(certificate, key)
            said = await server.chat("reload")
            assert await shown(server) not in (first, "")
            assert said.startswith("certificate: a new one, valid until ")
            assert (await shown(server)) in said
            certificate.write_bytes(good[0])
            key.write_bytes(good[1])
            os.kill(holder(server.data_dir / "chat.lock").pid, signal.SIGHUP)
            with trio.fail_after(20):
                while await shown(server) != first:
                    pass
            await ann.ping()


async def test_plugins_and_the_log_are_loaded_anew(tmp_path):
    plugin = 'from chat.commands.registry import command\n\n@command()\ndef hail(ctx) -> str:\n    """Say {0}."""\n    return \'{0}\'\n'
    async with reloadable(tmp_path) as server, await Guest.register(server, "ann") as ann:
        folder = server.data_dir / "plugins"
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / "hail.py").write_text(plugin.format("hello"))
        (folder / "hail.py").chmod(0o600)
        assert "plugins: " in await server.chat("reload")
        assert (await ann.ask("command", text="hail"))["text"] == "hello"
        (folder / "hail.py").write_text("broken (")
        assert "hail" in await server.chat("reload", check=False)
        assert (await ann.ask("command", text="hail"))["text"] == "hello", "the old one stays"
        log = server.data_dir / "log" / "chat.log"
        log.rename(log.with_name("rotated"))
        await server.chat("reload", check=False)
        assert log.exists(), "as after logrotate"
        await server.configured('[log]\nlevel = "error"\n')
        before = log.read_text()
        await server.chat("reload", check=False)
        assert '"reloaded"' not in log.read_text()[len(before) :]


def test_systemd_is_told_when_it_begins_and_ends(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service, pytest.MonkeyPatch.context() as patch:
        service.bind(str(tmp_path / "notify"))
        service.settimeout(30)
        patch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        async def check():
            async with reloadable(tmp_path) as server:
                assert service.recv(200) == b"READY=1"
                await server.chat("reload")
                first, second = service.recv(200).split(b"\n")
                assert first == b"RELOADING=1"
                assert int(second.removeprefix(b"MONOTONIC_USEC=")) > 0
                assert service.recv(200) == b"READY=1"

        trio.run(check)


def test_reports_are_json_too(tmp_path):
    async def check():
        async with reloadable(tmp_path) as server:
            assert json.loads(await server.chat("reload", "--json")) == {"changed": [], "restart": [], "problems": []}

    trio.run(check)
