"""Starting, stopping and asking, with real processes; the daemon itself is a stand-in that behaves in every bad way."""

import errno
import fcntl
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import structlog

from chat import __version__, background
from chat.background import Running, StartRefused, holder, take_lock
from chat.config import Config, Listen

STAND_IN = Path(__file__).parent / "stand_in.py"
REAL = ("-m", "chat")


class House:
    """A data folder, the commands on it, and at the end nothing that is still running."""

    def __init__(self, folder):
        self.folder = folder
        self.data = folder / "data"
        self.processes = []
        names = ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
        self.env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[1]), **dict.fromkeys(names, str(folder / "home"))}

    def arguments(self, command, *more, name="behaves", listen="127.0.0.1:0", program=(str(STAND_IN),)):
        settings = ["--data-dir", str(self.data), "--listen", listen, "--set", f"name={name}", "--set", "limits.drain_s=0"]
        return [sys.executable, *program, command, *settings, *more]

    def chat(self, command, *more, **settings):
        return subprocess.run(
            self.arguments(command, *more, **settings), cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=60
        )

    def serve(self, *more, stdout=subprocess.PIPE, **settings):
        process = subprocess.Popen(
            self.arguments("serve", *more, **settings), cwd=self.folder, env=self.env, stdout=stdout, stderr=subprocess.PIPE, text=True
        )
        self.processes.append(process)
        return process

    def running(self):
        return holder(self.data / "chat.lock")

    def end(self):
        for process in self.processes:
            process.kill()
            process.communicate()
        running = self.running()
        if running is not None and running.pid:
            os.kill(running.pid, signal.SIGKILL)
            assert background.wait_free(self.data / "chat.lock", 30)


@pytest.fixture
def house(tmp_path):
    made = House(tmp_path)
    yield made
    made.end()


def told(line):
    """Of the standard error: everything but the warning about root."""
    return [part for part in line.splitlines() if "running as root" not in part]


# ---------------------------------------------------------------- in the foreground


def test_serve_tells_four_lines_and_ends_with_0_after_sigterm(house):
    process = house.serve()
    lines = [process.stdout.readline() for _ in range(4)]
    running = house.running()
    assert lines == [
        "You, the owner (once): chat connect 127.0.0.1:1#f/i\n",
        "Your guests: chat connect 127.0.0.1:1#f/i\n",
        f"Files: {house.data} (listening on {running.addresses[0]})\n",
        "Stop: Ctrl-C\n",
    ]
    assert running.pid == process.pid == int((house.data / "chat.pid").read_text())
    assert running.host == socket.gethostname()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, told(err)) == (0, [])
    assert not (house.data / "chat.pid").exists()
    assert house.running() is None
    assert stat.S_IMODE(house.data.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in house.data.rglob("*")} == {0}


def test_later_starts_tell_one_line(house):
    for expected in (4, 1):
        process = house.serve()
        first = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        lines = [first, *process.stdout]
        assert process.wait(60) == 0
        assert len([line for line in lines if "standard output" not in line]) == expected


def test_a_reader_that_is_gone_does_not_end_the_server(house):
    reader, writer = os.pipe()
    os.close(reader)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(house.env.setdefault("NOTIFY_SOCKET", str(house.folder / "notify")))
        service.settimeout(60)
        process = house.serve(stdout=writer, program=REAL)
        os.close(writer)
        assert service.recv(100) == b"READY=1"
        process.send_signal(signal.SIGTERM)
        assert service.recv(100) == b"STOPPING=1"
    assert process.wait(60) == 0


@pytest.mark.parametrize("command", ["serve", "start"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("refuses", "chat: {data}/chat.db: damaged"),
        ("world", "chat: {data}/certificate.pem: No such file or directory"),
        ("crashes", "chat: internal error"),
    ],
)
def test_a_daemon_that_refuses_is_one_line_and_1(house, command, name, expected):
    done = house.chat(command, name=name)
    assert (done.returncode, done.stdout) == (1, "")
    lines = [line for line in told(done.stderr) if not line.startswith("{")]
    assert len(lines) == 1
    assert lines[0].startswith(expected.format(data=house.data))
    assert "hunter2" not in done.stderr
    assert house.running() is None
    assert not (house.data / "chat.pid").exists()


def test_a_daemon_that_fails_later_ends_with_1_and_a_line_in_the_log(house):
    process = house.serve(name="fails later")
    out, err = process.communicate(timeout=60)
    (line,) = told(err)
    assert (process.returncode, json.loads(line)["event"], json.loads(line)["exception"]) == (1, "daemon_ended", "RuntimeError")
    assert len(json.loads(line)["error_id"]) == 10
    assert "hunter2" not in err + out


# ---------------------------------------------------------------- refused, and nothing touched


def everything_in(folder):
    return sorted((str(path), path.is_file() and path.read_bytes()) for path in folder.rglob("*"))


@pytest.mark.parametrize("command", ["serve", "start"])
def test_a_port_in_use(house, command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = house.chat(command, listen=address)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"chat: cannot listen on {address}: the port is in use\n"
    assert not house.data.exists()


@pytest.mark.parametrize("command", ["serve", "start"])
def test_a_second_instance(house, command):
    assert house.chat("start").returncode == 0
    before = everything_in(house.data)
    done = house.chat(command, listen=house.running().addresses[0])  # the port is in use, too; that is not the reason to tell
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"chat: chat already runs on {house.data} (pid {house.running().pid})\n"
    assert everything_in(house.data) == before


@pytest.mark.parametrize("command", ["serve", "start"])
def test_a_folder_that_cannot_be(house, command):
    (house.folder / "file").write_text("")
    house.data = house.folder / "file" / "data"
    done = house.chat(command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"chat: the data folder {house.data} cannot be used: {house.folder / 'file'} is no folder\n"
    assert everything_in(house.folder) == [(str(house.folder / "file"), b"")]


def test_a_folder_that_cannot_be_written():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        user = os.geteuid()
        try:
            if user == 0:  # root may write everywhere: be nobody for a moment
                os.seteuid(65534)
            with pytest.raises(StartRefused, match=f"data cannot be made: no right to write in {folder}"):
                background.check_folder(folder / "deep" / "data")
            with pytest.raises(StartRefused, match=f"{folder} cannot be written: no right"):
                background.check_folder(folder)
        finally:
            os.seteuid(user)
            folder.chmod(0o755)
        background.check_folder(folder)


def test_a_folder_that_the_system_refuses(house):
    house.data = Path("/proc/self/nothing/data")
    done = house.chat("serve")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_too_few_descriptors(house):
    done = subprocess.run(
        house.arguments("serve"),
        env=house.env,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60)),
        timeout=60,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "60" in done.stderr
    assert not house.data.exists()


def test_mistakes_in_the_configuration_are_told_each(house):
    done = house.chat("serve", "--set", "limits.sends_burst=x", "--set", "nam=y")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2
    assert not house.data.exists()


# ---------------------------------------------------------------- in the background


def test_start_status_stop(house):
    done = house.chat("start")
    running = house.running()
    assert (done.returncode, len(done.stdout.splitlines()), told(done.stderr)) == (0, 4, [])
    assert done.stdout.endswith("Stop: chat stop\n")
    assert running.pid == int((house.data / "chat.pid").read_text())
    assert os.getsid(running.pid) != os.getsid(0), "it is detached from our terminal"
    host, port = running.addresses[0].split(":")
    socket.create_connection((host, int(port))).close()

    status = house.chat("status")
    assert status.returncode == 0
    assert status.stdout.startswith(f"chat (pid {running.pid}) is running since ")
    assert running.addresses[0] in status.stdout

    stopped = house.chat("stop")
    assert (stopped.returncode, stopped.stdout, stopped.stderr) == (0, f"chat (pid {running.pid}) has stopped\n", "")
    status = house.chat("status")
    assert (status.returncode, status.stdout) == (3, f"chat is not running on {house.data}\n")
    again = house.chat("stop")
    assert (again.returncode, again.stdout) == (0, f"chat is not running on {house.data}\n")


def test_the_background_one_has_a_log_and_is_silent(house):
    """Nothing of ours stays open in it: a pipe that its parent's output went to ends."""
    done = house.chat("start", name="fails later")
    assert done.returncode == 0
    assert background.wait_free(house.data / "chat.lock", 30)
    (line,) = (house.data / "log" / "chat.log").read_text().splitlines()
    assert json.loads(line)["event"] == "daemon_ended"
    assert (house.data / "log" / "stderr.log").read_text() == ""


def test_a_daemon_that_dies_while_it_starts(house):
    done = house.chat("start", name="dies")
    assert done.returncode == 1
    assert done.stderr == f"chat: chat ended before it was ready; see {house.data}/log/chat.log\n"


def test_after_kill_9_nothing_is_running_and_a_start_works(house):
    house.chat("start")
    pid = house.running().pid
    os.kill(pid, signal.SIGKILL)
    assert background.wait_free(house.data / "chat.lock", 30)
    assert (house.data / "chat.pid").exists(), "stale, and not believed"
    assert house.chat("status").returncode == 3
    assert house.chat("stop").returncode == 0
    done = house.chat("start")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    assert house.running().pid != pid


def test_with_a_broken_configuration_it_is_still_looked_at_and_stopped(house):
    file = house.folder / "some.toml"
    file.write_text('data_dir = "data"\nname = "behaves"\n[[listen]]\naddress = "127.0.0.1:0"\n')

    def chat(command, *more, **env):
        program = [sys.executable, str(STAND_IN), command, "--config", str(file), *more]
        return subprocess.run(program, cwd=house.folder, env={**house.env, **env}, capture_output=True, text=True, timeout=60)

    assert chat("start").returncode == 0
    pid = house.running().pid
    sound = file.read_text()
    file.write_text("nam = 1\n" + sound)
    complaint = f"chat: {file}: nam: unknown key; the nearest known one is name"
    warned = [complaint, f"chat: going on all the same, with the data folder {house.data}"]
    for command, status, said in (
        (("status",), 0, f"chat (pid {pid}) is running"),
        (("status", "--json"), 0, '{"running": true'),
        (("logs",), 0, ""),
    ):
        done = chat(*command)
        assert (done.returncode, done.stderr.splitlines()) == (status, warned)
        assert done.stdout.startswith(said)
    for command in ("start", "serve", "restart", "reload"):
        done = chat(command)
        assert (done.returncode, done.stderr.splitlines()) == (1, [complaint])

    file.write_text("nam = \n" + sound)
    done = chat("stop")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"chat: {file}: not TOML: Invalid value (at line 1, column 7)",
        "chat: so it is not known where the server's files are: say it with --data-dir FOLDER (chat start named it)",
    ]
    assert house.running().pid == pid
    done = chat("status", CHAT_DATA_DIR=str(house.data))
    assert done.stdout.startswith(f"chat (pid {pid}) is running")
    done = chat("stop", "--data-dir", "data")
    assert (done.returncode, done.stdout) == (0, f"chat (pid {pid}) has stopped\n")
    assert done.stderr.splitlines()[-1] == f"chat: going on all the same, with the data folder {house.data}"


def test_a_daemon_that_does_not_stop_is_told(house):
    house.chat("start", name="stubborn")
    pid = house.running().pid
    done = house.chat("stop")
    assert done.returncode == 1
    assert done.stderr.startswith(f"chat: chat (pid {pid}) is still running after 2 s")
    assert house.running().pid == pid


# ---------------------------------------------------------------- the real daemon


def test_the_real_one_in_the_foreground(house):
    process = house.serve(program=REAL)
    owner, guests, browser, files, stop = (process.stdout.readline() for _ in range(5))
    address = house.running().addresses[0]
    assert re.fullmatch(f"You, the owner \\(once\\): chat connect {address}#[\\w-]{{43}}/[a-z0-9-]+\n", owner)
    assert re.fullmatch(f"Your guests: chat connect {address}#[\\w-]{{43}}/[a-z0-9-]+\n", guests)
    assert browser == f"In a browser: https://{address}/#invite={guests.rpartition('/')[2]}"
    assert (files, stop) == (f"Files: {house.data} (listening on {address})\n", "Stop: Ctrl-C\n")
    assert house.chat("invite", program=REAL).stdout == guests.removeprefix("Your guests: ") + browser
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    events = [json.loads(line) for line in told(err)]
    assert [event["event"] for event in events] == ["started", "stopping", "stopped"]
    began = {"version": __version__, "addresses": [address], "data_dir": str(house.data), "after": "nothing: the first start"}
    assert {key: events[0][key] for key in began} == began
    assert {path.name for path in house.data.rglob("*") if path.stat().st_mode & 0o077} <= {"certificate.pem"}

    done = house.chat("start", program=REAL)
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["You, the owner (once)", "chat is ready on 127.0.0.1"]
    code = guests.rpartition("/")[2]
    assert house.chat("invite", program=REAL).stdout.splitlines()[0].endswith("/" + code.strip()), "the same invite as before"
    os.kill(house.running().pid, signal.SIGKILL)
    assert background.wait_free(house.data / "chat.lock", 30)
    (house.data / "key.pem").chmod(0o644)
    warned = f"chat: {house.data / 'key.pem'} is open to others (0644): chmod 600 {house.data / 'key.pem'}"
    assert warned in house.chat("start", program=REAL).stderr.splitlines()
    assert warned in house.chat("restart", program=REAL).stderr.splitlines()
    assert house.chat("stop", program=REAL).returncode == 0
    log = map(json.loads, (house.data / "log" / "chat.log").read_text().splitlines())
    assert [event["after"] for event in log if event["event"] == "started"] == ["a clean end", "an unclean end", "a restart"]


@pytest.mark.skipif(shutil.disk_usage(tempfile.gettempdir()).free >= 10**12, reason="no configuration can say that so large a disk is full")
def test_a_disk_that_is_full_is_told_at_the_start(house):
    full = ("--set", f"storage.min_free_bytes={10**12}")
    done = house.chat("start", *full, program=REAL)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert f"MiB are free at {house.data}, storage.min_free_bytes is 953,674 MiB" in done.stderr
    assert house.chat("start", program=REAL).returncode == 0
    assert house.chat("stop", program=REAL).returncode == 0
    done = house.chat("start", *full, program=REAL)
    assert done.returncode == 0
    assert "messages, people and channels are refused (storage_full)" in done.stderr
    assert house.chat("stop", program=REAL).returncode == 0


@pytest.mark.parametrize("command", ["serve", "start"])
def test_a_damaged_database_is_one_line_and_stays_as_it_is(house, command):
    house.data.mkdir()
    (house.data / "chat.db").write_bytes(b"no database " * 1000)
    done = house.chat(command, program=REAL)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert done.stderr.startswith(f"chat: {house.data}/chat.db: ")
    assert (house.data / "chat.db").read_bytes() == b"no database " * 1000
    assert {path.name for path in house.data.iterdir()} <= {"chat.db", "chat.lock", "log"}


@pytest.mark.parametrize("what", ["tls.certificate=/nothing.pem", "storage.url=sqlite:/"])
def test_what_can_be_seen_before_is_refused_before(house, what):
    more = ["--set", what, "--set", "tls.key=/nothing.pem"] if "tls" in what else ["--set", f"storage.url=sqlite:{house.folder}"]
    done = house.chat("serve", *more, program=REAL)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert not house.data.exists()


# ---------------------------------------------------------------- the lock, and systemd


def test_the_lock_is_one_process_deep(tmp_path):
    path = tmp_path / "chat.lock"
    assert holder(path) is None
    assert not path.exists(), "asking touches nothing"
    lock = take_lock(path)
    assert holder(path) == Running()
    lock.describe(Running(pid=7, host="h", started_s=1.5, addresses=("a:1",)))
    assert holder(path) == background.last_described(path) == Running(pid=7, host="h", started_s=1.5, addresses=("a:1",))
    lock.describe(Running(pid=8))
    assert holder(path) == Running(pid=8)
    with pytest.raises(StartRefused, match="pid 8"):
        take_lock(path)
    lock.release()
    lock.release()
    assert holder(path) is None
    take_lock(path).release()


def test_someone_who_looks_does_not_make_a_start_fail(tmp_path, monkeypatch):
    path = tmp_path / "chat.lock"
    path.touch()
    with path.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        monkeypatch.setattr(background.lock.time, "sleep", lambda _: fcntl.flock(looking, fcntl.LOCK_UN))
        take_lock(path).release()


@pytest.mark.parametrize("content", [b"", b"garbage", b"[]", b'{"pid": "x"}', b"\xff"])
def test_a_lock_file_with_anything_in_it(tmp_path, content):
    path = tmp_path / "chat.lock"
    lock = take_lock(path)
    path.write_bytes(content)
    assert holder(path) == Running()
    lock.release()


def full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_on_a_full_disk_the_lock_tells_what_it_told_before(tmp_path, monkeypatch):
    path = tmp_path / "chat.lock"
    lock = take_lock(path)
    lock.describe(Running(pid=7, host="h"))
    monkeypatch.setattr(os, "pwrite", full)
    with structlog.testing.capture_logs() as logged:
        lock.describe(Running(pid=7, host="h", addresses=("a:1",)))
        lock.answer(fine=True, lines=["done"])
    assert holder(path) == Running(pid=7, host="h")
    assert {line["event"] for line in logged} == {"lock_not_described"}
    monkeypatch.undo()
    lock.answer(fine=True, lines=["done"])
    assert holder(path) == Running(pid=7, host="h", addresses=("a:1",), answers=2, answer=("fine", "done"))
    lock.release()


def test_on_a_full_disk_nobody_is_taken_for_the_one_before(tmp_path, monkeypatch):
    """``chat stop`` sends its signal to whoever stands there."""
    path = tmp_path / "chat.lock"
    before = take_lock(path)
    before.describe(Running(pid=7, host="h"))
    before.release()
    lock = take_lock(path)
    monkeypatch.setattr(os, "pwrite", full)
    lock.describe(Running(pid=8, host="h"))
    assert holder(path) == Running()
    lock.release()


def test_on_a_full_disk_it_serves(house):
    """No file may grow: neither the lock's nor that with the pid."""
    house.processes.append(
        process := subprocess.Popen(
            house.arguments("serve"),
            env=house.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
        )
    )
    assert process.stdout.readline().startswith("You, the owner")
    assert house.running() == Running()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert {json.loads(line)["event"] for line in told(err)} == {"lock_not_described"}


def test_a_lock_held_on_another_host_is_left_alone(tmp_path):
    config = Config(data_dir=tmp_path)
    lock = take_lock(config.lock_file)
    lock.describe(Running(pid=os.getpid(), host="elsewhere.example"))
    assert background.stop(config).result == "failed"
    lock.release()


def test_prepare_gives_up_what_it_took(tmp_path):
    config = Config(data_dir=tmp_path / "data", listen=(Listen(address="127.0.0.1:0"), Listen(address="nowhere.invalid:1")))
    before = len(os.listdir("/proc/self/fd"))
    umask = os.umask(0o022)
    try:
        with pytest.raises(StartRefused, match=r"cannot listen on nowhere\.invalid:1"):
            background.prepare(config)
    finally:
        os.umask(umask)
    assert len(os.listdir("/proc/self/fd")) == before
    assert not config.data_dir.exists()


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path, monkeypatch, abstract):
    address = f"@chat-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind("\0" + address[1:] if abstract else address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        background.notify("READY=1")
        assert select.select([service], [], [], 10)[0]
        assert service.recv(100) == b"READY=1"
    background.notify("STOPPING=1")  # nobody there: no reason to stop
