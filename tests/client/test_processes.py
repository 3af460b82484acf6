"""The commands as processes against the real daemon: exit statuses, a SIGKILL of either side, and a terminal that is left as it was."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
import sys
import termios
import time

import pytest

from chat.client import entry

CHAT = [sys.executable, "-m", "chat"]


class Daemon:
    def __init__(self, folder):
        self.folder = folder
        self.port = 0
        self.lines = []

    def start(self):
        quick = ["--set", "passwords.memory_kib=1024", "--set", "passwords.passes=1", "--set", "storage.min_free_bytes=0"]
        self.process = subprocess.Popen(
            [*CHAT, "serve", "--data-dir", self.folder, "--listen", f"127.0.0.1:{self.port}", *quick],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        while line := self.process.stdout.readline():
            self.lines.append(line)
            if found := re.search(r"127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
            if "Ctrl-C" in line:
                return
        raise AssertionError(self.lines)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stored(self):
        """Every text, in its order: what a client shows of it may be a line of the history, and the same as news a moment later."""
        with contextlib.closing(sqlite3.connect(f"file:{self.folder / 'chat.db'}?mode=ro", uri=True)) as db:
            return [body for (body,) in db.execute("SELECT body FROM records WHERE kind = 'message' ORDER BY conv, seq")]

    @property
    def owner(self):
        return next(line.split("chat connect ")[1].strip() for line in self.lines if "owner" in line)

    @property
    def guest(self):
        return next(line.split("chat connect ")[1].strip() for line in self.lines if "guest" in line.lower())


@pytest.fixture
def daemon(tmp_path):
    daemon = Daemon(tmp_path / "data")
    daemon.start()
    yield daemon
    daemon.kill()


@pytest.fixture
def person(tmp_path):
    def environment(name, **more):
        env = {**os.environ, "XDG_STATE_HOME": str(tmp_path / name), "CHAT_PASSWORD": f"the password of {name}", **more}
        return {key: value for key, value in env.items() if key != "CHAT_DATA_DIR"}

    return environment


def run(*args, env, stdin="", timeout=30):
    return subprocess.run([*CHAT, *args], env=env, input=stdin, capture_output=True, text=True, timeout=timeout, start_new_session=True)


def test_a_pipe_registers_says_and_runs_commands(daemon, person):
    ann = run("connect", daemon.owner, "--name", "ann", env=person("ann"), stdin="hello\n//user-count\n//nonsense\n")
    assert ann.returncode == 0, ann.stderr
    assert "#lobby ann: hello" in ann.stdout
    assert "one person" in ann.stdout
    assert "nonsense" in ann.stderr
    sent = run("send", "lobby", "-", env=person("ann"), stdin="one\n\ntwo\n")
    assert (sent.returncode, sent.stdout, sent.stderr) == (0, "", "")
    tail = subprocess.Popen([*CHAT, "tail", "lobby", "--json"], env=person("ann"), stdout=subprocess.PIPE, text=True)
    records = [json.loads(tail.stdout.readline()) for _ in range(3)]
    assert [record["text"] for record in records] == ["hello", "one", "two"]
    tail.send_signal(signal.SIGINT)
    assert tail.wait(10) == 0
    tail.stdout.close()


def test_refusals_are_one_line_and_a_status(daemon, person):
    assert run("connect", "host:port:x", env=person("ann")).returncode == 2
    lost = run("send", "lobby", "text", "--server", f"127.0.0.1:{daemon.port}", env={**person("ann"), "CHAT_PASSWORD": ""})
    assert lost.returncode == 1
    assert lost.stderr.count("\n") == 1
    assert run("connect", daemon.guest, "--name", "bob", env=person("bob")).returncode == 0
    nowhere = run("send", "nowhere", "text", env=person("bob"))
    assert (nowhere.returncode, nowhere.stderr) == (1, "chat: not sent: there is no channel '#nowhere' that you can see\n")


def test_who_stops_reading_ends_tail_at_once_and_send_not_at_all(daemon, person):
    assert run("connect", daemon.owner, "--name", "ann", env=person("ann"), stdin="one\ntwo\n").returncode == 0
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*CHAT, "tail", "lobby"], env=person("ann"), **pipes) as tail:
        assert "one" in tail.stdout.readline()
        tail.stdout.close()
        try:
            assert (tail.wait(10), tail.stderr.read()) == (0, "")
        finally:
            tail.kill()
    with subprocess.Popen([*CHAT, "send", "lobby", "-"], env=person("ann"), **pipes) as send:
        send.stdout.close()
        send.stdin.write("//user-count\n//user-count\nthree\n")
        send.stdin.close()
        assert (send.wait(10), send.stderr.read()) == (0, "")
    assert daemon.stored() == ["one", "two", "three"], "0 is said only when all of it is stored"


@pytest.mark.parametrize("errors", [1, 2])
def test_a_closed_pipe_that_several_tasks_meet_is_no_traceback(tmp_path, monkeypatch, capfd, errors):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(entry, "forget_stdout", lambda: None)

    async def body(entry):
        raise BaseExceptionGroup("tasks", [BrokenPipeError(32, "Broken pipe") for _ in range(errors)])

    assert entry.start("host", account="ann", body=body, ask=False) == 0
    assert capfd.readouterr().err == ""


def test_a_session_in_use_is_named_with_its_process_and_a_password_opens_another(daemon, person):
    assert run("connect", daemon.owner, "--name", "ann", env=person("ann"), stdin="hello\n").returncode == 0
    alone = {key: value for key, value in person("ann").items() if key != "CHAT_PASSWORD"}
    tail = subprocess.Popen([*CHAT, "tail", "lobby"], env=alone, stdout=subprocess.PIPE, text=True)
    with tail:
        assert "hello" in tail.stdout.readline()
        assert run("send", "lobby", "first", env=person("ann")).returncode == 0, "CHAT_PASSWORD opens another"
        assert "first" in tail.stdout.readline()
        slots = sorted(path.parent.name for path in (daemon.folder.parent / "ann").rglob("session.json"))
        assert slots == ["0", "1"]
        next((daemon.folder.parent / "ann").glob("**/1/session.json")).unlink()
        refused = run("send", "lobby", "second", env=alone)
        tail.kill()
    assert refused.returncode == 1
    assert refused.stderr == (
        f"chat: the session of ann is in use by process {tail.pid}: end that one, or set CHAT_PASSWORD for another session\n"
    )


def test_send_waits_for_a_server_that_is_killed_in_the_middle(daemon, person):
    assert run("connect", daemon.owner, "--name", "ann", env=person("ann")).returncode == 0
    sender = subprocess.Popen([*CHAT, "send", "lobby", "-"], env=person("ann"), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for number in range(4):
        sender.stdin.write(f"before {number}\n")
    sender.stdin.flush()
    time.sleep(0.5)  # wherever it is now
    daemon.kill()
    for number in range(4):
        sender.stdin.write(f"after {number}\n")
    sender.stdin.close()
    daemon.start()
    assert sender.wait(20) == 0
    expected = [f"{word} {number}" for word in ("before", "after") for number in range(4)]
    assert daemon.stored() == expected
    out = run("connect", env=person("ann"), stdin="/history\n").stdout
    assert set(re.findall(r"ann: ((?:before|after) \d)", out)) == set(expected)


def test_what_a_killed_client_had_taken_is_sent_by_the_next(daemon, person):
    ann = subprocess.Popen(
        [*CHAT, "connect", daemon.owner, "--name", "ann"],
        env=person("ann"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with ann:
        ann.stdin.write("before\n")
        ann.stdin.flush()
        while "before" not in ann.stdout.readline():
            pass
        daemon.kill()
        assert "trying again" in ann.stderr.readline()
        ann.stdin.write("typed, then killed\n")
        ann.stdin.flush()
        outbox = next((daemon.folder.parent / "ann").rglob("outbox.jsonl"))
        while "typed, then killed" not in outbox.read_text():
            time.sleep(0.01)
        ann.kill()
    daemon.start()
    assert run("send", "lobby", "last", env=person("ann")).returncode == 0
    assert daemon.stored() == ["before", "typed, then killed", "last"]


class Terminal:
    """A process on a pseudo-terminal."""

    def __init__(self, args, env):
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        termios.tcsetwinsize(self.slave, (24, 80))
        self.process = subprocess.Popen(
            [*CHAT, *args], env={**env, "TERM": "xterm"}, stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True
        )
        self.seen = b""

    def expect(self, text, timeout=15):
        end = time.monotonic() + timeout
        while text.encode() not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536)
        seen, self.seen = self.seen.split(text.encode(), 1)
        return seen

    def type(self, text):
        os.write(self.master, text.encode())

    def close(self):
        os.close(self.master)
        os.close(self.slave)


@pytest.mark.parametrize("end", ["\x04", "\x04\x04", "\x03", "/quit\r", signal.SIGTERM])
def test_the_prompt_leaves_the_terminal_as_it_was(daemon, person, end):
    terminal = Terminal(["connect", daemon.owner, "--name", "ann"], person("ann"))
    try:
        terminal.expect("you are ann")
        terminal.expect("#lobby")
        terminal.type("hello\r")
        terminal.expect("hello")
        if isinstance(end, str):
            terminal.type(end)  # just while the line above is printed: no key is lost
        else:
            terminal.process.send_signal(end)
        while terminal.process.poll() is None:
            if select.select([terminal.master], [], [], 0.1)[0]:
                terminal.seen += os.read(terminal.master, 65536)
        assert terminal.process.returncode == 0
        assert b"Traceback" not in terminal.seen
        assert termios.tcgetattr(terminal.slave) == terminal.before
    finally:
        terminal.process.kill()
        terminal.process.wait()
        terminal.close()
