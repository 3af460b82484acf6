"""``chat connect`` on a terminal of its own, for tests that look at it from outside."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]P][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
PATIENCE_S = 20


class Terminal:
    """*Owns* the process. ``screen`` is all that was ever written, without escape sequences."""

    def __init__(self, target, name, password, folder):
        state = {"XDG_STATE_HOME": str(folder), "CHAT_PASSWORD": password, "TERM": "xterm-256color"}
        command = [sys.executable, "-m", "chat", "connect", target, "--name", name]
        self.fd, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.process = subprocess.Popen(
            command, env={**os.environ, **state}, stdin=child, stdout=child, stderr=child, start_new_session=True, cwd=folder
        )
        os.close(child)
        self.screen = ""
        self.seen = 0
        self._bytes = b""

    def sees(self, pattern, *, again=False):
        """Wait for what a regular expression finds in what was written since the last time (*again*: ever). *Returns* the match."""
        end = time.monotonic() + PATIENCE_S
        while not (found := re.search(pattern, self.screen[0 if again else self.seen :])):
            assert time.monotonic() < end, f"no {pattern!r} in {self.screen[self.seen :][-1500:]!r}"
            self._read()
        self.seen += 0 if again else found.end()
        return found

    def shows(self, pattern):
        """Wait until the line at the bottom has it. Only what changes of it is drawn, so it is asked for as a whole."""
        end = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.screen[self.seen :]):
            assert time.monotonic() < end, f"no {pattern!r} in {self.screen[self.seen :]!r}"
            self.seen = len(self.screen)
            os.write(self.fd, b"\x0c")  # Ctrl-L
            for _ in range(5):
                self._read()

    def types(self, line):
        os.write(self.fd, line.encode() + b"\r")

    def _read(self):
        if select.select([self.fd], [], [], 0.1)[0]:
            try:
                chunk = os.read(self.fd, 65536)
            except OSError:  # it has ended
                chunk = b""
                time.sleep(0.05)
            if b"\x1b[6n" in chunk:  # it asks where the cursor is
                os.write(self.fd, b"\x1b[1;1R")
            self._bytes += chunk
            self.screen = ESCAPES.sub("", self._bytes.decode(errors="replace"))

    def close(self):
        if self.process.returncode is not None:
            return
        self.process.kill()
        self.process.wait()
        os.close(self.fd)
