"""chat backup and chat restore as an operator types them: under load, and what their clients see of it."""

import json
import os
import stat

import pytest
import trio

from chat.client import ClientStore, open_client
from chat.protocol import messages as m
from tests.admin.shell import Shell
from tests.admin.underload import scenario
from tests.e2e.guests import PASSWORD, Guest, errors_in_log, serving

pytestmark = pytest.mark.xdist_group("safekeeping")


async def test_a_backup_under_load_has_all_that_was_acknowledged_and_old_clients_go_on(tmp_path):
    found = await scenario(tmp_path, seconds=1.5, rate=200)
    assert found["restored"] >= found["before"] > 100
    assert found["resumed"] == 8


async def test_what_the_operator_reads(tmp_path):
    async with serving(tmp_path) as server:
        shell = Shell(server.data_dir)
        async with await Guest.register(server, "bob") as bob:
            await bob.say("lobby", "hello")
        kept = tmp_path / "kept"
        done = await shell("backup", str(kept))
        assert done.stdout.startswith(f"{kept}: 1 record, "), done.stderr
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert await shell.refused("backup", str(kept)) == f"{kept} exists already; --force replaces it"
        full = ["--set", f"storage.min_free_bytes={10**12}"]  # of this command; the server has another, and that counts
        assert (await shell("backup --force", str(kept), *full)).returncode == 0
        assert "is a folder" in await shell.refused("backup", str(tmp_path))
        assert "No such file" in await shell.refused("backup", str(tmp_path / "nowhere" / "kept"))
        refused = await shell.refused("restore --yes", str(kept))
        assert refused == f"the server runs on {server.data_dir} (pid {server.pid()}); stop it first: chat stop"
        assert await server.stop() == 0
        assert "Nobody can be asked here" in await shell.refused("restore", str(kept))
        bad = tmp_path / "bad"
        bad.write_text("no backup")
        assert "is no backup of chat" in await shell.refused("restore --yes", str(bad))
        told = await shell.json("restore --yes", str(kept))
        assert {"certificate.pem", "chat.db", "key.pem"} <= set(os.listdir(told["aside"]))
        await server.start()
        async with await Guest.login(server, "bob") as bob:
            page = await bob.ask("history", conv="#lobby", limit=10)
            assert [record["text"] for record in page["messages"]] == ["hello"]
        assert json.loads((await shell("user list --json")).stdout)[0]["name"] == "bob"
        assert errors_in_log(server) == []


async def test_the_bundled_client_goes_on_after_a_restore_by_itself(tmp_path):
    async with serving(tmp_path) as server:
        shell = Shell(server.data_dir)
        async with open_client(f"127.0.0.1:{server.port}", store=ClientStore(tmp_path / "client")) as client:
            await client.register("bob", PASSWORD)
            await client.send("#lobby", "before")
            await shell("backup", str(tmp_path / "kept"))
            await client.send("#lobby", "lost with the restore")
            await server.stop()
            done = await shell("restore --yes", str(tmp_path / "kept"))
            assert done.returncode == 0, done.stderr
            await server.start()
            with trio.fail_after(30):
                ack = await client.send("#lobby", "and on")
                assert ack.seq == 2
                async for notice in client.notices():
                    if isinstance(notice, m.HistoryReset):
                        assert (notice.conv, notice.epoch, notice.last_seq) == ("#lobby", ack.epoch, 1)
                        break
