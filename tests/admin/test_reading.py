"""export, search and retention, on a running server with people in it."""

import json
import os
import stat

import pytest
import trio

from chat.admin import pages
from chat.admin.client import Refused
from chat.cli.data import _write
from tests.admin.shell import QuickShell as Shell
from tests.e2e.guests import Guest, errors_in_log, serving

EVIL = "<script>alert(1)</script>\nsecond line"


@pytest.fixture
async def served(tmp_path):
    async with serving(tmp_path) as server:
        async with await Guest.register(server, "bob") as bob, await Guest.register(server, "carol") as carol:
            await bob.say("lobby", "where is the Straße to the zoo")
            await carol.say("lobby", EVIL)
            await bob.ask("send", to="carol", text="a private straße", cid="p1")
            server.carol = carol
            yield server
        assert errors_in_log(server) == []


async def test_export_of_a_channel(served, tmp_path):
    shell = Shell(served.data_dir)
    records = [json.loads(line) for line in (await shell("export lobby")).stdout.splitlines()]
    assert [(r["seq"], r["from"], r["text"]) for r in records] == [(1, "bob", "where is the Straße to the zoo"), (2, "carol", EVIL)]
    assert [json.loads(line) for line in (await shell("export lobby --json")).stdout.splitlines()] == records
    text = (await shell("export #lobby --format text")).stdout
    assert len(text.splitlines()) == 3
    page = tmp_path / "page.html"
    assert (await shell("export lobby --format html --output", str(page))).returncode == 0
    written = await trio.Path(page).read_text()
    assert "<script>" not in written
    assert "&lt;script&gt;" in written
    assert stat.S_IMODE(os.stat(page).st_mode) == 0o600
    assert "exists already" in await shell.refused("export lobby --output", str(page))
    assert await shell.refused("export nowhere") == "there is no channel '#nowhere'"


async def test_export_of_a_person(served):
    records = [json.loads(line) for line in (await Shell(served.data_dir)("export --user bob")).stdout.splitlines()]
    kinds = [record["type"] for record in records]
    assert kinds[:3] == ["account", "membership", "session"]
    assert [r["text"] for r in records if r["type"] == "message"] == ["a private straße", "where is the Straße to the zoo"]
    assert "password" not in json.dumps(records)


async def test_search(served):
    shell = Shell(served.data_dir)
    found = await shell("search", "STRASSE zoo")
    assert found.stdout.endswith("#lobby bob: where is the Straße to the zoo\n")
    assert "1 found in 2 records" in found.stderr
    found = await shell("search strasse --private --json")
    assert [json.loads(line)["conv"] for line in found.stdout.splitlines()] == ["#lobby", "@bob and @carol"]
    assert (await shell("search strasse --user carol")).stdout == ""
    assert (await shell("search strasse --since 1h --channel lobby")).stdout
    assert "there is no user" in await shell.refused("search x --user nobody")


@pytest.mark.parametrize("how", ["retention lobby --size 45b --apply", "user forget bob --yes"])
async def test_what_is_gone_is_not_replayed_from_memory(served, how):
    """The router keeps the latest records for who catches up."""
    carol = served.carol
    epoch = carol.opened["heads"]["#lobby"][0]
    await Shell(served.data_dir)(how)
    async with await Guest.resume(served, carol.opened["resume_token"], {"#lobby": [epoch, 1]}) as back:
        said = {m["seq"]: m["text"] for m in back.received if m["type"] == "message"}
        assert said.get(1, "") == ""
        assert said[2] == EVIL
        replayed = [m for m in back.received if m.get("conv") == "#lobby" and "seq" in m]
        assert (await back.ask("history", conv="#lobby", limit=9))["messages"] == replayed


async def test_retention_tells_first_and_then_does(served):
    shell = Shell(served.data_dir)
    assert (await shell("retention")).stdout.split() == ["WHERE", "KEPT", "server", "everything"]
    told = await shell("retention lobby --size 1k")
    assert "nothing would be deleted now" in told.stdout
    told = await shell("retention lobby --size 45")
    assert told.returncode == 2  # a number without a unit
    told = await shell.json("retention lobby --size 45b")
    assert [(row["name"], row["records"], row["below"]) for row in told] == [("#lobby", 1, 2)]
    page = await served.carol.ask("history", conv="#lobby", limit=10)
    assert (page["first_seq"], len(page["messages"])) == (1, 2)
    done = await shell("retention lobby --size 45b --apply")
    assert done.stdout == "#lobby: at most 45 B of text; 1 record deleted\n", done.stderr
    page = await served.carol.ask("history", conv="#lobby", limit=10)
    assert (page["first_seq"], [m["seq"] for m in page["messages"]], page["last_seq"]) == (2, [2], 2)
    assert [row["keep_bytes"] for row in await shell.json("retention")] == [None, 45]
    await shell("retention --keep 90d --apply")
    assert "90 d" in (await shell("retention")).stdout
    await shell("retention lobby --default --apply")
    assert [row["name"] for row in await shell.json("retention")] == ["server"]


def test_what_is_shown_moves_no_cursor():
    record = {"type": "message", "conv": "#a", "seq": 1, "ts": 0, "from": "bob", "text": "\x1b[2J\x9b1m\u202e"}
    for text in (pages.line(record, conv=True), *pages.as_text("#a", iter([record]))):
        assert not set(text) & set("\x1b\x9b\u202e")


async def test_the_level_of_the_log_for_programs(served):
    shell = Shell(served.data_dir)
    assert await shell.json("log-level debug") == {"level": "debug", "before": "info"}
    assert (await shell("log-level")).stdout == "debug\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
async def test_an_export_that_has_no_room_leaves_no_part_of_it(tmp_path, monkeypatch):
    """The file is made, and then each write fails."""
    target = tmp_path / "page"
    made = os.open

    def on_a_full_disk(path, flags, *rest, **more):
        made_fd = made(path, flags, *rest, **more)
        if path == target:
            os.close(made_fd)
            return made("/dev/full", os.O_WRONLY)
        return made_fd

    monkeypatch.setattr(os, "open", on_a_full_disk)
    with pytest.raises(Refused, match="No space left on device; nothing was written"):
        _write(iter(["a line\n"] * 3), target, 3)
    assert not target.exists()
