"""The operator's commands, typed at a running server and at a stopped one: what they print, and what the people see."""

import pytest
import trio

from tests.admin.shell import QuickShell as Shell
from tests.e2e.guests import PASSWORD, Guest, errors_in_log, serving


@pytest.fixture
async def served(tmp_path):
    async with serving(tmp_path) as server:
        yield server
        assert errors_in_log(server) == []


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path / "data")


async def test_people_on_a_running_server(served, shell):
    added = await shell("user add Bob --role admin", stdin=PASSWORD + "\n")
    assert (added.returncode, added.stdout) == (0, "Bob has an account (admin)\n"), added.stderr
    assert await shell.refused("user add bob", "--generate") == "the name 'bob' is taken, or looks like one that is"
    assert "8 to 256 bytes" in await shell.refused("user add eve", stdin="short\n")
    async with await Guest.login(served, "Bob") as bob:
        (row,) = await shell.json("user list")
        assert (row["name"], row["role"], row["state"]) == ("Bob", "admin", "online")
        (session,) = await shell.json("user sessions bob")
        assert (session["address"], session["online"]) == ("127.0.0.1", True)
        made = await shell.json("user passwd bob --generate")
        assert (await bob.until_type("closing"))["code"] == "unauthorized"
    async with await Guest.login(served, "bob", password=made["password"]) as bob:
        assert bob.opened["type"] == "session"
        await shell("user suspend bob", "on holiday")
        await bob.until_type("closing")
    async with await Guest.login(served, "bob", password=made["password"]) as bob:
        assert (bob.opened["code"], "suspended" in bob.opened["message"]) == ("forbidden", True)
    assert "on holiday" in (await shell("user list")).stdout
    assert (await shell("user unsuspend bob")).stdout == "Bob may log in again\n"
    assert await shell.refused("user role nobody member") == "there is no user 'nobody'"


async def test_the_same_on_a_stopped_server(served, shell):
    await served.stop()
    await shell("user add bob", stdin=PASSWORD + "\n")
    await shell("user role bob owner")
    await shell("say lobby", "back soon")
    assert "needs" in await shell.refused("broadcast hello")
    await served.start()
    async with await Guest.login(served, "bob") as bob:
        page = await bob.ask("history", conv="#lobby", limit=10)
        assert [m["text"] for m in page["messages"]] == ["back soon"]
    assert [row["role"] for row in await shell.json("user list")] == ["owner"]


async def test_channels_and_what_the_server_says(served, shell):
    async with await Guest.register(served, "bob") as bob:
        await bob.ask("command", text="create-channel den")
        await shell("say #den", "good\x1b[31m morning")
        told = await bob.until(lambda m: m["type"] == "message")
        assert (told["from"], told["conv"]) == ("server", "#den")
        done = await shell("broadcast", "tea is ready")
        assert done.stdout == "told to everybody online (1)\n"
        assert (await bob.until_type("notice"))["text"] == "tea is ready"
        rows = {row["name"]: row for row in await shell.json("channel list")}
        assert {row["records"] == row["messages"] for row in rows.values()} == {True}  # "messages" is the older name
        assert (rows["den"]["owner"], rows["den"]["members"]) == ("bob", 1)
        shown = await shell("channel show den")
        assert "\x1b" not in shown.stdout
        assert "bob     owner" in shown.stdout
        assert "--yes" in await shell.refused("channel delete den")
        assert (await shell("channel delete den --yes")).stdout == "#den is deleted\n"
        assert (await bob.until_type("removed"))["conv"] == "#den"
        assert "default channel" in await shell.refused("channel delete lobby --yes")


async def test_bans_and_invites(served, shell):
    async with await Guest.register(served, "bob") as bob:
        await shell("ban add bob", "spam")
        await bob.until_type("closing")
    (row,) = await shell.json("ban list")
    assert (row["banned"], row["by"], row["reason"]) == ("bob", "server", "spam")
    await shell("ban remove bob")
    assert (await shell("ban list")).stdout == "nobody is banned\n"
    assert (await shell("ban add 203.0.113.7/24 --for 2h", "open proxy")).stdout.startswith("203.0.113.0/24 is banned until 20")
    assert "this machine itself" in await shell.refused("ban add 127.0.0.1")
    (row,) = await shell.json("ban list")
    assert (row["banned"], row["reason"], row["until"] - row["since"]) == ("203.0.113.0/24", "open proxy", 7_200_000)
    assert (await shell("ban remove 203.0.113.0/24")).returncode == 0
    assert (await shell("ban list")).stdout == "nobody is banned\n"
    made = await shell.json("invite --uses 1 --expires 2d --role admin")
    assert made["lines"][0].endswith("/" + made["code"])
    async with await Guest.connect(served) as carol:
        await carol.hello()
        opened = await carol.ask("register", username="carol", password=PASSWORD, invite=made["code"])
        assert opened["type"] == "session"
    assert {row["name"]: row["role"] for row in await shell.json("user list")}["carol"] == "admin"
    made = await shell.json("invite --uses 5")
    listed = {row["code"]: row["uses"] for row in await shell.json("invite list")}
    assert listed[made["code"]] == 5
    await shell("invite revoke", made["code"].replace("-", " ").upper())
    assert made["code"] not in (await shell("invite list")).stdout
    assert "no such invite" in await shell.refused("invite revoke", made["code"])


async def test_somebody_is_forgotten(served, shell):
    async with await Guest.register(served, "bob") as bob, await Guest.register(served, "carol") as carol:
        await bob.say("lobby", "I live at 5 Elm Street")
        await bob.say("lobby", "really")
        assert "--yes" in await shell.refused("user forget bob")
        done = await shell("user forget bob --yes")
        assert done.stdout.startswith("bob is forgotten: deleted-"), done.stderr
        await bob.until_type("closing")
        page = await carol.ask("history", conv="#lobby", limit=10)
        assert [m["seq"] for m in page["messages"]] == list(range(1, page["last_seq"] + 1))
        assert {m.get("text", "") for m in page["messages"]} == {""}
        assert "bob" not in str(page)
    assert (await shell("audit verify")).returncode == 0

    def stored():
        return b"".join(path.read_bytes() for path in served.data_dir.glob("chat.db*"))

    assert b"I live at" not in stored()  # nor in the log of the database that runs
    await served.stop()
    assert b"I live at" not in stored()
    assert b"bob" not in stored()


async def test_what_would_hit_the_owner_or_nobody_is_said_first(served, shell):
    await shell.json("user add alice --role owner --generate")
    await shell.json("user add dave --role admin --generate")
    said = await shell.refused("ban add alice")
    assert said == "alice owns the server: make somebody else the owner first (chat user role NAME owner)"
    assert await shell.refused("user forget nobody-here") == "there is no user 'nobody-here'"  # and not: say --yes
    said = await shell.refused("user suspend alice")
    assert said == "alice owns the server: nobody is above them to lift it but you. Suspend them? Nobody can be asked here: say --yes"
    assert await shell.refused("user suspend nobody-here") == "there is no user 'nobody-here'"
    assert (await shell("user suspend dave")).returncode == 0
    assert (await shell("user suspend alice --yes")).returncode == 0


async def test_nobody_is_online_at_a_server_that_was_killed(served, shell):
    async with await Guest.register(served, "bob"):
        assert {row["name"]: row["state"] for row in await shell.json("user list")}["bob"] == "online"
        await served.kill()
        assert {row["name"]: row["state"] for row in await shell.json("user list")}["bob"] == ""
        assert [row["online"] for row in await shell.json("user sessions bob")] == [False]


async def test_a_member_is_no_operator(served, shell, tmp_path):
    stranger = Shell(tmp_path / "elsewhere")
    assert "was the server ever started" in await stranger.refused("user list")
    with trio.fail_after(20):
        assert (await shell("user list")).stdout == "nobody has an account yet\n"
