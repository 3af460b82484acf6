"""A server, the system's Chromium, and people at them: one in a browser, one who types JSON lines."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
from collections import deque
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.web.terminal import Terminal

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTINGS = {
    "name": "Harbour",
    "passwords.memory_kib": "8",
    "passwords.passes": "1",
    "limits.sends_burst": "1000000",
    "limits.sends_per_s": "1000000",
    "limits.commands_burst": "1000",
    "limits.joins_per_min": "1000",
    "limits.new_channels_per_h": "1000",
    "limits.registrations_per_h": "1000",
    "plugins": "tests.web.asks",
}
PASSWORD = "correct horse"
ROOT = Path(__file__).parents[2]
READY_S = 30


class Server:
    """The installed ``chat`` on a port that stays the same over restarts."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        self.process = None
        self.start()
        said = "".join(self.said)
        self.invite = re.search(r"#invite=(\S+)", said)[1]
        self.join_line = re.search(r"guests: chat connect (\S+)", said, re.IGNORECASE)[1]
        self.owner_invite = re.search(r"once\): \S+ \S+ \S+/(\S+)", said)[1]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/"

    def start(self):
        sets = [argument for key, value in SETTINGS.items() for argument in ("--set", f"{key}={value}")]
        command = [f"{sysconfig.get_path('scripts')}/chat", "serve", "--data-dir", f"{self.folder}/data"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
        with open(f"{self.folder}/log", "ab") as log:
            self.process = subprocess.Popen(
                [*command, "--listen", f"127.0.0.1:{self.port}", *sets],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self.folder,
                env=environment,
            )
        self.said = []
        for line in self.process.stdout:
            self.said.append(line)
            if re.search(r"\bstop: ", line, re.IGNORECASE):
                return
        raise RuntimeError(f"the server is not ready: {self.said} {Path(self.folder, 'log').read_text()[-2000:]}")

    def end(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        self.process.wait(READY_S)
        self.process.stdout.close()


class Person:
    """Somebody at a native connection, who types JSON lines."""

    def __init__(self, server, name, invite=None):
        self.sock = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        self.file = self.sock.makefile("rb")
        self.ids = count(1)
        self.notices = deque()
        self.put({"type": "hello", "protocol": 1, "client": "lines"})
        assert self.read()["type"] == "welcome"
        self.ask({"type": "register", "username": name, "password": PASSWORD, "invite": invite or server.invite})

    def put(self, frame):
        self.sock.sendall(json.dumps(frame).encode() + b"\n")

    def read(self):
        return json.loads(self.file.readline())

    def ask(self, frame):
        """The answer; what comes before it is kept. *Raises* AssertionError where it is an error."""
        wanted = next(self.ids)
        self.put({**frame, "id": wanted})
        while (answer := self.read()).get("id") != wanted or answer["type"] == "ping":
            self.notices.append(answer)
        assert answer["type"] != "error", answer
        return answer

    def say(self, text, **where):
        return self.ask({"type": "send", "cid": f"c{next(self.ids)}", "text": text, **(where or {"channel": "lobby"})})

    def say_all(self, texts, channel="lobby"):
        """Many at once, without waiting for each ack."""
        send = {"type": "send", "channel": channel}
        frames = [{**send, "id": next(self.ids), "cid": f"c{next(self.ids)}", "text": text} for text in texts]
        for at in range(0, len(frames), 200):
            part = frames[at : at + 200]
            self.sock.sendall(b"".join(json.dumps(frame).encode() + b"\n" for frame in part))
            left = len(part)
            while left:
                answer = self.read()
                assert answer["type"] != "error", answer
                left -= answer["type"] == "ack"

    def history(self, conv, limit=500):
        return self.ask({"type": "history", "conv": conv, "limit": limit})["messages"]

    def close(self):
        self.file.close()
        self.sock.close()


@pytest.fixture(scope="module")
def chromium():
    """*Owns* the browser and the folder of its profiles."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server():
    with tempfile.TemporaryDirectory() as folder:
        running = Server(folder)
        yield running
        running.end(signal.SIGTERM)


@pytest.fixture
def person(server):
    people = []

    def make(name, **how):
        people.append(Person(server, name, **how))
        return people[-1]

    yield make
    for each in people:
        each.close()


@pytest.fixture
def terminal(server, tmp_path):
    terminals = []

    def open_terminal(name, *, new=False):
        """*new*: who has no account yet, and makes one by the guests' invite."""
        folder = tmp_path / f"terminal{len(terminals)}"
        folder.mkdir()
        target = server.join_line if new else server.join_line.rpartition("/")[0]
        terminals.append(Terminal(target, name, PASSWORD, folder))
        return terminals[-1]

    yield open_terminal
    for each in terminals:
        each.close()


@pytest.fixture
def visit(chromium, server):
    """Opens pages, each in a browser profile of its own; at the end none may have complained or asked anybody else for anything."""
    contexts, complaints = [], []
    if server.process.poll() is not None:  # a test that failed left it dead
        server.start()

    def open_page(path="", *, quiet=True, **context):
        contexts.append(chromium.new_context(locale="en-GB", **{"viewport": {"width": 1280, "height": 800}, **context}))
        page = contexts[-1].new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: complaints.append(f"exception: {error}"))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: _is_ours(request.url, server) or complaints.append(f"off-origin: {request.url}"))
        if quiet:  # a server that is killed makes the browser itself complain
            page.on("console", lambda said: said.type == "error" and complaints.append(f"console: {said.text}"))
        page.goto(server.url + path)
        return page

    open_page.url = server.url
    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _is_ours(url, server):
    parts = urlsplit(url)
    return parts.scheme in ("data", "blob") or parts.netloc == f"127.0.0.1:{server.port}"


@pytest.fixture
def guest(visit, server):
    """Somebody who followed the invite and is in."""

    def enter(name, *, invite=None, **how):
        page = visit(f"#invite={invite or server.invite}", **how)
        page.fill("#username", name)
        page.fill("#password", PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_selector("#composer", state="visible")
        return page

    return enter
