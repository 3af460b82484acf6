"""The ``chat`` command: its arguments. What the commands do is tested where it is done."""

import contextlib
import json
import os
import pwd
import socket
import sqlite3
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from click.testing import CliRunner

from chat import __version__, greeting
from chat.background import DataLock, ReadyInfo, Running, take_lock
from chat.cli import main
from chat.config import Config, Listen
from chat.daemon.bootstrap import ready_info
from chat.joinline import guest_invite, guest_line, guest_link, owner_line
from chat.rooms.effects import PutInvite
from chat.rooms.moderation.audit import START
from chat.rooms.state import State
from chat.store.sqlite_files import prepare
from chat.transport.certificates import fingerprint, make_self_signed

COMMANDS = (
    *("user list", "user add", "user passwd", "user suspend", "user unsuspend", "user role", "user sessions", "user forget"),
    *("ban list", "ban add", "ban remove", "channel list", "channel show", "channel delete", "say", "broadcast"),
    *("invite list", "invite revoke", "backup", "restore", "cert show", "cert generate", "cert import"),
    *("export", "search", "retention"),
    *("serve", "start", "stop", "restart", "reload", "status", "invite", "audit verify"),
    *("prove", "bench", "log-level", "doctor"),
    *("logs", "systemd"),
    *("config check", "config show", "config example", "connect", "send", "tail"),
)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.delenv("CHAT_CONFIG", raising=False)


@pytest.fixture
def chat():
    def run(*arguments):
        return CliRunner().invoke(main, arguments, catch_exceptions=False)

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(chat, command):
    done = chat(*command.split(), "--help")
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) > 3


@pytest.mark.parametrize("command", ["connect", "send", "tail"])
def test_the_help_of_a_client_names_the_variable_with_the_password(chat, command):
    assert "CHAT_PASSWORD" in chat(command, "--help").stdout


def test_the_help_names_every_command_and_no_other(chat):
    listed = {line.split()[0] for line in chat("--help").stdout.partition("Commands:\n")[2].splitlines()}
    assert listed == {command.split()[0] for command in COMMANDS}


def test_the_installed_command_is_this():
    (found,) = entry_points(group="console_scripts", name="chat")
    assert found.load() is main


def test_python_dash_m():
    done = subprocess.run([sys.executable, "-m", "chat", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"chat, version {__version__}\n", "")


@pytest.mark.parametrize("arguments", [["config", "example"], ["config", "show"], ["logs"]])
def test_nobody_who_reads_is_no_mistake_and_a_full_disk_is_told_in_a_line(tmp_path, arguments):
    file = Config(data_dir=tmp_path).log_dir / "chat.log"
    file.parent.mkdir()
    file.write_text("a line\n" * 9)
    if arguments != ["config", "example"]:
        arguments = [*arguments, "--data-dir", str(tmp_path)]

    def run(stdout):
        return subprocess.run([sys.executable, "-m", "chat", *arguments], stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60)

    reader, writer = os.pipe()
    os.close(reader)
    done = run(writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as full:
            done = run(full)
        assert (done.returncode, done.stderr) == (1, "chat: standard output: No space left on device\n")


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["serve", "--nonsense"], ["serve", "--set", "nonsense"], ["send", "lobby"], ["tail"], ["config"], ["status", "x"]],
)
def test_wrong_usage_is_2(chat, arguments):
    done = chat(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Usage: " in done.stderr


# ---------------------------------------------------------------- whose the files are

LOOKING = (
    *("user list", "user sessions alice", "invite", "invite list", "channel list", "channel show lobby", "ban list", "search word"),
    *("export lobby", "audit verify", "retention", "retention --keep 1d", "backup /nowhere/file"),
    *("user suspend alice", "status", "stop", "cert show", "logs", "cert generate"),
)


@pytest.fixture
def guarded():
    """A data folder that this user, who is nobody for a moment where it was root, has no right to look into."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        for file in ("chat.db", "chat.lock", "certificate.pem", "key.pem"):
            (folder / "data" / file).touch()
        folder.chmod(0o755)

        @contextlib.contextmanager
        def closed(run):
            run()  # what is imported for it is then
            me = os.geteuid()
            (folder / "data").chmod(0o700 if me == 0 else 0)
            try:
                os.seteuid(65534 if me == 0 else me)
                yield
            finally:
                os.seteuid(me)
                (folder / "data").chmod(0o700)

        yield folder / "data", closed


@pytest.mark.parametrize("command", LOOKING)
def test_a_user_without_rights_is_told_whose_it_is(chat, guarded, command):
    folder, closed = guarded

    def run():
        return chat(*command.split(), "--data-dir", str(folder))

    owner = pwd.getpwuid(os.geteuid()).pw_name
    helps = "run this as root" if os.geteuid() == 0 else f"chmod u+rwx {folder}"
    with closed(run):
        done = run()
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"chat: no right to use the folder {folder}, which belongs to {owner}: {helps}\n"


# ---------------------------------------------------------------- the configuration


def test_check_of_a_file_without_mistakes(chat):
    path = Path(__file__).parent.parent / "config.toml"
    done = chat("config", "check", str(path))
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{path}: fine\n", "")


def test_check_tells_every_mistake(chat, tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('nam = "x"\nprefix = 3\n')
    done = chat("config", "check", str(path))
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (f"chat: {path}: prefix: expected a text, got 3\nchat: {path}: nam: unknown key; the nearest known one is name\n")


def test_check_takes_the_options_of_the_others(chat, tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('name = "x"\n')
    done = chat("config", "check", "--config", str(path), "--set", 'plugins=["json", "re"]', "--set", "limits.sends_burst=3")
    assert (done.exit_code, done.stdout) == (0, f"{path}: fine\n")
    done = chat("config", "check", str(path), "--set", "limits.sends_burst=many")
    assert done.stderr == "chat: command line: limits.sends_burst: expected a whole number, got 'many'\n"
    assert chat("config", "check", str(path), "--config", str(path)).exit_code == 2


@pytest.mark.parametrize(("text", "found"), [('["json", "re"]', ["json", "re"]), ("[]", []), ("json,re", ["json", "re"])])
def test_a_list_is_taken_as_it_is_shown(chat, text, found):
    keys = json.loads(chat("config", "show", "--json", "--set", f"plugins={text}").stdout)["keys"]
    assert next(item["value"] for item in keys if item["key"] == "plugins") == found


def test_stop_restart_and_verify_for_programs(chat, tmp_path):
    prepare(Config(data_dir=tmp_path).database, busy_timeout_s=0)
    where = ("--data-dir", str(tmp_path), "--json")
    done = chat("stop", *where)
    assert (done.exit_code, json.loads(done.stdout)["result"]) == (0, "not_running")
    assert "not running" in chat("restart", *where).stderr
    verified = chat("audit", "verify", *where)
    assert verified.stderr == ""
    found = json.loads(verified.stdout)
    assert found == {"holds": True, "entries": 0, "erased": 0, "head": START.hex(), "problem": None, "noted": None}
    done = chat("audit", "verify", "--head", "1" * 64, *where)
    assert (done.exit_code, json.loads(done.stdout)["holds"]) == (1, False)


def test_check_without_a_file(chat):
    assert chat("config", "check").stdout == "no file: fine\n"


def test_show(chat, monkeypatch):
    monkeypatch.setenv("CHAT_NAME", "here")
    done = chat("config", "show", "--json", "--set", "limits.sends_burst=3", "--listen", "127.0.0.1:1")
    keys = {item["key"]: (item["value"], item["source"]) for item in json.loads(done.stdout)["keys"]}
    assert keys["name"] == ("here", "env")
    assert keys["limits.sends_burst"] == (3, "flag")
    assert keys["listen[0].address"] == ("127.0.0.1:1", "flag")
    assert '\nprefix = "//"    # default\n' in chat("config", "show").stdout


def test_example_is_config_toml(chat):
    text = chat("config", "example").stdout
    assert text == (Path(__file__).parent.parent / "config.toml").read_text()
    assert tomllib.loads(text)["name"] == "chat"


# ---------------------------------------------------------------- what people are told


def info(**changes):
    fields = {
        "addresses": ("0.0.0.0:7667",),
        "data_dir": Path("/d"),
        "owner_line": "chat connect a:1#f/o",
        "guest_line": "chat connect b:1#f/g",
        "first_start": True,
        "web": None,
    }
    return ReadyInfo(**{**fields, **changes})


def test_the_first_start_tells_four_lines():
    assert greeting.ready_lines(info(), stop="Ctrl-C") == [
        "You, the owner (once): chat connect a:1#f/o",
        "Your guests: chat connect b:1#f/g",
        "Files: /d (listening on 0.0.0.0:7667)",
        "Stop: Ctrl-C",
    ]
    assert "In a browser: https://b:1/#invite=g" in greeting.ready_lines(info(web="https://b:1/#invite=g"), stop="Ctrl-C")


def test_later_starts_are_shorter():
    later = {"first_start": False, "owner_line": None, "web": "https://b:1/"}
    assert greeting.ready_lines(info(**later), stop="chat stop") == [
        "chat is ready on 0.0.0.0:7667, files in /d; guests: chat invite, or https://b:1/; stop: chat stop"
    ]
    assert greeting.ready_lines(info(first_start=False), stop="x")[0] == "You, the owner (once): chat connect a:1#f/o"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (3600, "1 h 0 min"), (90061, "1 d 1 h"), (86400 * 400, "400 d 0 h"), (-5, "0 s")],
)
def test_duration(seconds, expected):
    assert greeting.duration(seconds) == expected


def test_status_line():
    config = Config(data_dir=Path("/d"))
    assert greeting.status_line(config, None) == "chat is not running on /d"
    assert greeting.status_line(config, Running(pid=3)) == "chat (pid 3) is starting on /d"
    assert greeting.status_line(config, Running(pid=3, addresses=("a:1", "b:2"))).endswith(" on a:1, b:2, files in /d")


# ---------------------------------------------------------------- join lines and invites


@pytest.fixture
def house(tmp_path):
    """A data folder as a server leaves it."""
    config = Config(data_dir=tmp_path)
    make_self_signed(config.certificate, config.key)
    with sqlite3.connect(config.database) as connection:
        schema = Path(__file__).parent.parent / "chat" / "store" / "migrations" / "sqlite" / "0001.sql"
        connection.executescript(schema.read_text())
    connection.close()
    return config


def put_invites(config, *invites):
    with sqlite3.connect(config.database) as connection:
        connection.executemany("INSERT INTO invites (code, role, uses_left, expires_ms, by, at_ms) VALUES (?, ?, ?, ?, 0, 0)", invites)
    connection.close()


def pin(config):
    return fingerprint(config.certificate.read_bytes())


@pytest.mark.parametrize(
    ("addresses", "owner"),
    [
        (["0.0.0.0:7667"], "127.0.0.1:7667"),
        (["[::]:7667"], "[::1]:7667"),
        ([":7667"], "127.0.0.1:7667"),
        (["10.0.0.5:1"], "10.0.0.5:1"),
        (["10.0.0.5:1", "127.0.0.1:2"], "127.0.0.1:2"),
        (["10.0.0.5:1", "localhost:2"], "localhost:2"),
    ],
)
def test_the_owners_line_leads_to_this_machine(house, addresses, owner):
    assert owner_line(house, addresses, "inv") == f"chat connect {owner}#{pin(house)}/inv"


@pytest.mark.parametrize(
    ("addresses", "public", "guest"),
    [
        (["127.0.0.1:7"], "", "127.0.0.1:7"),
        (["127.0.0.1:7", "10.0.0.5:8"], "", "10.0.0.5:8"),
        (["[::1]:7", "chat.example.org:8"], "", "chat.example.org:8"),
        (["0.0.0.0:7"], "chat.example.org", "chat.example.org:7667"),
        (["0.0.0.0:7"], "chat.example.org:443", "chat.example.org:443"),
        (["0.0.0.0:7"], "[2001:db8::7]", "[2001:db8::7]:7667"),
        (["0.0.0.0:7"], "[2001:db8::7]:1", "[2001:db8::7]:1"),
    ],
)
def test_the_guests_line_leads_here_from_elsewhere(house, addresses, public, guest):
    import attrs

    config = attrs.evolve(house, public_address=public)
    found = guest_line(config, addresses, "inv")
    assert found == f"chat connect {guest}#{pin(house)}/inv" or (public and ":" not in public.rpartition("]")[2] and ":7#" in found)


def test_the_link_for_a_browser_keeps_the_invite_in_its_fragment(house):
    import attrs

    assert guest_link(house, ["127.0.0.1:7"], "7kq2-x0vm") == "https://127.0.0.1:7/#invite=7kq2-x0vm"
    assert guest_link(house, ["[::1]:7"], None) == "https://[::1]:7/"
    named = attrs.evolve(house, public_address="chat.example.org:443")
    assert guest_link(named, ["0.0.0.0:7"], "i") == "https://chat.example.org:443/#invite=i"


def test_the_line_of_every_address_names_one(house):
    found = guest_line(house, ["0.0.0.0:7667"], None)
    assert "0.0.0.0" not in found
    assert found.endswith(f":7667#{pin(house)}")


def test_invite_prints_the_guests_line(house, chat):
    put_invites(
        house, ("owner-code", "owner", 1, None), ("old", "member", None, 1), ("used", "member", 0, None), ("guests", "member", 50, None)
    )
    settings = ["--data-dir", str(house.data_dir), "--listen", "127.0.0.1:7000"]
    done = chat("invite", *settings)
    guest = f"chat connect 127.0.0.1:7000#{pin(house)}/guests"
    assert (done.exit_code, done.stdout) == (0, f"{guest}\nIn a browser: https://127.0.0.1:7000/#invite=guests\n")


def test_a_start_names_the_same_invite_as_chat_invite(house):
    state = State()
    for code, uses in (("single", 1), ("guests", None)):
        put_invites(house, (code, "member", uses, None))
        state.apply(PutInvite(code=code, role="member", uses_left=uses, expires_ms=None, by=0, at_ms=0))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        found = ready_info(house, [[sock]], state, False)
    assert found.guest_line.endswith(f"#{pin(house)}/guests")
    assert found.web.endswith("#invite=guests")


def test_the_link_is_of_a_listener_that_serves_the_page(house):
    import attrs

    native = attrs.evolve(house.listen[0], address="127.0.0.1:7", dialects=("native",))
    web = attrs.evolve(native, address="127.0.0.1:8", dialects=("web",))
    addresses = ["127.0.0.1:7", "127.0.0.1:8"]
    assert greeting.web_addresses(attrs.evolve(house, listen=(native, web)), addresses) == ["127.0.0.1:8"]
    assert greeting.web_addresses(attrs.evolve(house, listen=(native,)), addresses[:1]) == []
    assert greeting.web_addresses(attrs.evolve(house, listen=(web, native)), ["127.0.0.1:8", "127.0.0.1:7", "[::1]:7"]) == ["127.0.0.1:8"]
    assert "browser" not in greeting.invitation(attrs.evolve(house, listen=(native,)), "code")


def test_invite_names_the_port_that_the_server_has(house, chat):
    put_invites(house, ("guests", "member", None, None))
    settings = ["--data-dir", str(house.data_dir), "--listen", "127.0.0.1:0"]
    lock: DataLock = take_lock(house.lock_file)
    lock.describe(Running(pid=1, addresses=("127.0.0.1:4321",)))
    assert ":4321#" in chat("invite", *settings).stdout
    lock.release()
    assert ":4321#" in chat("invite", *settings).stdout
    assert ":1#" in chat("invite", "--data-dir", str(house.data_dir), "--listen", "127.0.0.1:1").stdout


def test_invite_reads_beside_a_writer(house):
    put_invites(house, ("guests", "member", 3, None))
    connection = sqlite3.connect(house.database, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM invites")
    assert guest_invite(house.database) == "guests"
    connection.execute("COMMIT")
    assert guest_invite(house.database) is None
    connection.close()


def test_invite_without_one(house, chat):
    done = chat("invite", "--data-dir", str(house.data_dir))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no invite" in done.stderr
    done = chat("invite", "--data-dir", str(house.data_dir), "--set", "registration=open", "--listen", "127.0.0.1:5")
    assert done.stdout == f"chat connect 127.0.0.1:5#{pin(house)}\nIn a browser: https://127.0.0.1:5/\n"
    put_invites(house, ("guests", "member", None, None))
    assert chat("invite", "--data-dir", str(house.data_dir), "--set", "registration=closed").exit_code == 1


@pytest.mark.parametrize("content", [None, b"not a database, for sure" * 100])
def test_invite_of_what_is_no_server(tmp_path, chat, content):
    if content is not None:
        (tmp_path / "chat.db").write_bytes(content)
    done = chat("invite", "--data-dir", str(tmp_path))
    assert (done.exit_code, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert str(tmp_path / "chat.db") in done.stderr
    assert sorted(item.name for item in tmp_path.iterdir()) == (["chat.db"] if content else [])


def test_a_config_without_listeners_of_its_own_is_fine():
    assert Config().listen == (Listen(),)
