"""The doctor's findings on a real installation, whole and broken in one way after the other."""

import contextlib
import datetime
import json
import os
import resource
import shutil
import socket
import sqlite3
import tempfile
import time
from pathlib import Path

import attrs
import pytest
import trio
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from chat import doctor
from chat.cli import main
from chat.config import Config, Limits, Listen, Storage
from chat.doctor import machine
from chat.doctor.finding import size, span
from chat.transport.certificates import load_key, make_self_signed
from tests.e2e.guests import Guest, shared

NOBODY = 65534


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A server that runs and in which something was said."""

    async def say(server):
        async with await Guest.register(server, "ann") as ann:
            assert (await ann.say("lobby", "hello"))["type"] == "ack"

    for server in shared(tmp_path_factory.mktemp("doctor")):
        trio.run(say, server)
        yield server


@pytest.fixture(scope="module")
def stopped(running, tmp_path_factory):
    """The files of a server that ended (as they are in a backup: nobody holds the lock of a copy)."""
    folder = tmp_path_factory.mktemp("stopped") / "data"
    shutil.copytree(running.data_dir, folder, ignore=shutil.ignore_patterns("*.sock", "chat.db*"))
    with contextlib.closing(sqlite3.connect(running.data_dir / "chat.db")) as db:
        db.execute("VACUUM INTO ?", (str(folder / "chat.db"),))
    (folder / "chat.db").chmod(0o600)
    return folder


@pytest.fixture
def config(stopped, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(stopped, folder)
    folder.chmod(0o700)
    return Config(data_dir=folder, listen=(Listen(address="127.0.0.1:0"),), storage=Storage(min_free_bytes=0))


def findings(config, name=None):
    found = list(doctor.examine(config))
    return [finding for finding in found if name in (None, finding.name)]


def the(config, name, state):
    """The one finding about *name*."""
    (found,) = findings(config, name)
    assert found.state == state, found
    return found


def wrong_of(config):
    return {finding.name for finding in findings(config) if finding.state == "wrong"}


# ---------------------------------------------------------------- whole


def test_a_stopped_server_is_fine(config):
    found = findings(config)
    assert [finding for finding in found if finding.state != "fine" and finding.name != "clock"] == []
    assert {finding.name for finding in found} >= {"python", "libraries", "disk", "certificate", "database", "schema", "server", "port"}
    assert "whole: 1 record," in the(config, "database", "fine").text


def test_a_server_that_runs_is_fine(running):
    config = Config(data_dir=running.data_dir, storage=Storage(min_free_bytes=0))
    assert not wrong_of(config)
    assert f"pid {running.pid()} runs" in the(config, "server", "fine").text
    assert "answers as chat/" in the(config, "port", "fine").text


def test_nothing_is_there_yet(tmp_path):
    config = Config(data_dir=tmp_path / "none", listen=(Listen(address="127.0.0.1:0"),), storage=Storage(min_free_bytes=0))
    assert not wrong_of(config)
    assert not config.data_dir.exists()


def test_it_changes_nothing(config):
    def state():
        return {path: (path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in
                sorted(config.data_dir.rglob("*")) if not path.name.endswith(("-shm", "-wal"))}  # fmt: skip

    before = state()
    findings(config)
    assert state() == before


# ---------------------------------------------------------------- broken


def test_a_folder_that_is_open_to_others(config):
    config.data_dir.chmod(0o755)
    config.key.chmod(0o640)
    texts = [(finding.text, finding.todo) for finding in findings(config, "rights")]
    assert len(texts) == 2
    assert ("chmod 700 " + str(config.data_dir)) in texts[0][1]
    assert ("chmod 600 " + str(config.key)) in texts[1][1]


@pytest.fixture
def theirs(stopped):
    """The same where every user may go; the server's user is nobody, if this one is root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "data")
        shutil.copytree(stopped, folder)
        Path(name).chmod(0o755)
        if os.geteuid() == 0:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        folder.chmod(0o700)
        yield Config(data_dir=folder, listen=(Listen(address="127.0.0.1:0"),), storage=Storage(min_free_bytes=0))
        folder.chmod(0o700)


@contextlib.contextmanager
def being(user):
    me = os.geteuid()
    try:
        if me == 0:
            os.seteuid(user)
        yield
    finally:
        os.seteuid(me)


def advised(config):
    return {finding.name: finding.todo for finding in findings(config) if finding.state == "wrong"}


def test_a_folder_that_its_own_user_cannot_write(theirs):
    theirs.data_dir.chmod(0o500)
    with being(NOBODY):
        found = advised(theirs)
    todo = f"chmod u+rwx {theirs.data_dir}"
    assert found == {"data folder": todo, "rights": f"chmod 700 {theirs.data_dir}", "database": todo}
    if os.geteuid() == 0:  # to whom the bits mean nothing
        assert advised(theirs) == {"rights": f"chmod 700 {theirs.data_dir}"}


@pytest.mark.parametrize("name", ["chat.db", "chat.db-wal", "chat.lock", "key.pem"])
def test_a_file_that_root_left_in_the_folder(theirs, name):
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    path = theirs.data_dir / name
    path.touch(0o600)
    os.chown(path, 0, 0)
    assert advised(theirs)["rights"] == f"chown nobody {path}"  # as root sees it
    with being(NOBODY):
        found = advised(theirs)
    assert found["rights"] == f"as root: chown nobody {path}"
    assert set(found.values()) == {f"as root: chown nobody {path}"}
    assert ("database" in found) == name.startswith("chat.db")


def test_to_another_user_the_doctor_says_whose_it_is(theirs):
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    with being(1):
        found = [finding for finding in findings(theirs) if finding.state == "wrong"]
    assert [(finding.name, finding.todo) for finding in found] == [("data folder", "run this as nobody or root")]
    assert f"{theirs.data_dir}, which belongs to nobody" in found[0].text


def test_plugins_that_others_may_write(config):
    folder = config.data_dir / "plugins"
    folder.mkdir(mode=0o700)
    (folder / "hello.py").touch(0o600)
    assert the(config, "plugins", "fine")
    folder.chmod(0o777)
    (folder / "hello.py").chmod(0o620)
    assert [finding.todo for finding in findings(config, "plugins")] == [f"chmod go-w {folder}", f"chmod go-w {folder / 'hello.py'}"]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "data").write_text("")
    assert "data folder" in wrong_of(Config(data_dir=tmp_path / "data" / "deep"))


@pytest.mark.parametrize(
    ("starts", "ends", "state", "said"),
    [
        (-400, -35, "wrong", "35 days ago"),
        (-400, 10, "advice", "in 9 days"),
        (3, 400, "wrong", "is the clock right?"),
        (-1, 400, "fine", "good until"),
    ],
)
def test_the_dates_of_a_certificate(config, starts, ends, state, said):
    key = load_key(config.key)
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "chat")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + datetime.timedelta(days=starts))
        .not_valid_after(now + datetime.timedelta(days=ends))
        .sign(key, hashes.SHA256())
    )
    config.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    found = the(config, "certificate", state)
    assert said in found.text + found.todo


def test_a_certificate_near_its_end_is_made_anew_by_chat(config, monkeypatch):
    monkeypatch.setattr("chat.doctor.files.SOON_S", 10 * 365 * 86400 + 1)
    assert the(config, "certificate", "advice").todo == "chat cert generate: a new one with the same key, so join lines stay good"


@pytest.mark.parametrize("certificate_too", [False, True])
@pytest.mark.parametrize("damage", [lambda key: key.write_text("junk"), lambda key: key.unlink()])
def test_without_the_key_join_lines_are_lost_and_that_is_said(config, damage, certificate_too):
    damage(config.key)
    if certificate_too:
        config.certificate.unlink()
        if not config.key.exists():
            assert the(config, "certificate", "fine")  # both are made at the start, as at the first
            return
    found = the(config, "certificate", "wrong")
    assert found.text.startswith(str(config.key))
    for said in ("backup", "chat cert generate --new-key", "join line"):
        assert said in found.todo


def test_a_certificate_that_the_key_brings_back(config):
    config.certificate.write_text("junk")
    assert "chat cert generate: " in the(config, "certificate", "wrong").todo
    config.certificate.unlink()
    assert "for the key that is there" in the(config, "certificate", "fine").text


def test_a_certificate_of_another_key(config, tmp_path):
    config.key.unlink()
    make_self_signed(tmp_path / "other.pem", config.key)
    found = the(config, "certificate", "wrong")
    assert "certificate and its key" in found.text
    assert "put the right key back" in found.todo
    assert "join line" in found.todo


def test_a_certificate_for_another_name(config):
    assert "public_address is chat.example.org" in the(attrs.evolve(config, public_address="chat.example.org"), "names", "advice").text
    assert the(attrs.evolve(config, public_address="localhost:7000"), "names", "fine")


def test_a_damaged_database(config):
    data = bytearray(config.database.read_bytes())
    data[4096 * 2 : 4096 * 6] = bytes(4096 * 4)
    config.database.write_bytes(data)
    assert "chat restore" in the(config, "database", "wrong").todo


def test_a_database_that_is_none(config):
    config.database.write_text("a text")
    assert "database" in wrong_of(config)


def test_records_beyond_the_last_number(config):
    with contextlib.closing(sqlite3.connect(config.database)) as db, db:
        db.execute("UPDATE conversations SET last_seq = 0 WHERE last_seq > 0")
    assert "beyond their last number" in the(config, "database", "wrong").text


def test_a_database_of_a_newer_chat(config):
    with contextlib.closing(sqlite3.connect(config.database)) as db, db:
        db.execute("UPDATE meta SET schema_version = 99")
    assert "newer chat" in the(config, "database", "wrong").todo


def test_a_database_that_another_program_keeps(config):
    with contextlib.closing(sqlite3.connect(config.database)) as db:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")
        kept = attrs.evolve(config, storage=Storage(min_free_bytes=0, busy_timeout_s=0.1))
        assert "fuser" in the(kept, "database", "wrong").todo


def test_a_disk_that_is_full(config, monkeypatch):
    full = attrs.evolve(config, storage=Storage(min_free_bytes=10**12 * 50))
    text = the(full, "disk", "wrong").text
    assert "storage_full" in text
    assert "logins" in text
    monkeypatch.setattr(machine, "ROOM_BYTES", 10**12 * 50)
    assert "nothing can be stored" in the(full, "disk", "wrong").text


def test_few_descriptors(config, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    assert "enough for 768 of 10000" in the(config, "descriptors", "advice").text
    assert the(attrs.evolve(config, limits=Limits(connections=500)), "descriptors", "fine")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (60, 60))
    assert "ulimit -n" in the(config, "descriptors", "wrong").todo


def test_a_clock_that_went_back(config, monkeypatch):
    late = time.time() - 7200
    monkeypatch.setattr(machine.time, "time", lambda: late)
    assert "1 hour later" in the(config, "clock", "wrong").text


def test_a_port_that_is_taken(config):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        taken = f"127.0.0.1:{sock.getsockname()[1]}"
        found = the(attrs.evolve(config, listen=(Listen(address=taken),)), "port", "wrong")
        assert taken in found.text
        assert "ss -ltnp" in found.todo


def test_a_server_that_hangs(running, monkeypatch):
    monkeypatch.setattr("chat.doctor.network.ANSWER_S", 0.2)
    config = Config(data_dir=running.data_dir, storage=Storage(min_free_bytes=0))
    running.freeze()
    try:
        assert wrong_of(config) == {"server", "port"}
    finally:
        running.thaw()


def test_a_pid_file_of_a_server_that_was_killed(config):
    config.pid_file.write_text("12345\n")
    assert "harmless" in the(config, "server", "fine").text


def test_a_check_that_fails_is_a_finding(config, monkeypatch):
    def broken(config):
        raise RuntimeError("no idea")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (broken,))
    (found,) = findings(config)
    assert found.state == "wrong"
    assert "no idea" in found.text


# ---------------------------------------------------------------- the command


def test_the_command(config):
    arguments = ["doctor", "--data-dir", str(config.data_dir), "--listen", "127.0.0.1:0", "--set", "storage.min_free_bytes=0"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "✓ database" in done.output
    config.key.chmod(0o644)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert "→ chmod 600" in done.output
    assert done.output.endswith("1 thing is wrong\n")
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert done.exit_code == 1
    report = json.loads(done.output)
    assert not report["ok"]
    assert [finding["name"] for finding in report["findings"] if finding["state"] == "wrong"] == ["rights"]


def test_the_command_with_a_configuration_that_has_mistakes(config, tmp_path):
    file = tmp_path / "broken.toml"
    file.write_text(f"data_dir = '{config.data_dir}'\nprefix = 3\nnam = 'x'\n")
    done = CliRunner().invoke(main, ["doctor", "--config", str(file)])
    assert done.exit_code == 1
    assert "✗ configuration" in done.stdout
    assert "prefix: expected a text, got 3" in done.stdout
    assert "→ chat config check" in done.stdout
    assert "✓ database" in done.stdout
    assert " port " not in done.stdout  # which one is meant is not known
    found = json.loads(CliRunner().invoke(main, ["doctor", "--json", "--config", str(file)]).stdout)
    assert [finding["name"] for finding in found["findings"] if finding["state"] == "wrong"] == ["configuration"]


def test_words_for_people():
    assert [size(n) for n in (0, 1023, 2048, 5 * 2**20, 3 * 2**30)] == ["0 B", "1023 B", "2 KiB", "5.0 MiB", "3.0 GiB"]
    assert [span(n) for n in (0, 1, 59, 60, 7200, 86400 * 3)] == ["a moment", "1 second", "59 seconds", "1 minute", "2 hours", "3 days"]
