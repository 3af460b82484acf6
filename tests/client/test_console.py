"""What a person at `chat connect` sees, on a screen that only keeps the lines."""

from contextlib import asynccontextmanager

import pytest
import trio

from chat.client.console import Console
from chat.client.opening import open_client
from chat.client.reconnect import Backoff
from chat.client.servers import ClientStore
from chat.protocol import messages as m
from tests.client.fake import fake_server

PASSWORD = "correct horse"


class Paper:
    """``lines`` is all that was shown since the last `sees`."""

    interactive = True

    def __init__(self):
        self.lines = []
        self.ready = trio.Event()
        self._changed = trio.Event()

    def show(self, line):
        self.complain(line.text)

    def complain(self, text):
        self.lines.append(text)
        self.refresh()

    def take_away(self, key):
        pass

    def refresh(self):
        self._changed.set()

    async def run(self, typed):
        self._typed = typed
        self.ready.set()
        await trio.sleep_forever()

    async def types(self, line):
        await self._typed.send(line)

    async def until(self, condition):
        with trio.fail_after(5):
            while not condition():
                self._changed = trio.Event()
                await self._changed.wait()

    async def sees(self, text):
        """Wait for it. Returns the lines up to it, which are taken away."""
        await self.until(lambda: any(text in line for line in self.lines))
        end = 1 + next(at for at, line in enumerate(self.lines) if text in line)
        seen, self.lines = self.lines[:end], self.lines[end:]
        return seen


@asynccontextmanager
async def at_a_terminal(server, tmp_path, name="ann"):
    """A console of somebody who has just logged in; its ``screen`` is a `Paper`."""
    console = Console(plain=True)
    console.screen = Paper()
    async with open_client(
        server.target,
        store=ClientStore(tmp_path / "state"),
        backoff=Backoff(first=0.001, most=0.02),
        on_status=console.on_status,
        ask_password=console.ask_password,
    ) as client:
        await client.login(name, PASSWORD)
        console.client = client
        async with trio.open_nursery() as nursery:
            nursery.start_soon(console.run)
            await console.screen.ready.wait()
            yield console
            nursery.cancel_scope.cancel()


async def ban(server):
    """As the real server does it."""
    server.tokens.clear()
    for peer in list(server.peers):
        await peer.send(m.Removed(conv="#lobby", reason="banned by root"))
        await peer.send(m.ServerNotice(text="you were banned from this server by root for 1 h more", level="warning"))
        await peer.send(m.Closing(code="unauthorized"))
        await trio.aclose_forcefully(peer.stream)


async def test_a_channel_that_is_in_front_is_not_switched_to_again(tmp_path):
    async with fake_server() as server, at_a_terminal(server, tmp_path) as console:
        await console.screen.types("/switch @bob")
        await console.screen.sees("── @bob ──")
        for line in ("//create-channel lobby", "/switch lobby"):
            await console.screen.types(line)
            await console.screen.until(lambda: not console.client.calls._calls)
        seen = await console.screen.sees("You are in #lobby already.")
        assert sum("── #lobby ──" in line for line in seen) == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("//", "// begins a command of the server: //help lists them."),
        ("//  ", "// begins a command of the server: //help lists them."),
        ("/history x", "/history [LINES], from 1 to 500"),
        ("/history 501", "/history [LINES], from 1 to 500"),
        ("/history 0", "/history [LINES], from 1 to 500"),
        ("/switch @nix", "there is no user 'nix'"),
    ],
)
async def test_what_means_nothing_is_told(tmp_path, line, told):
    async with fake_server() as server, at_a_terminal(server, tmp_path) as console:
        await console.screen.types(line)
        await console.screen.sees(told)


async def test_who_comes_back_after_a_ban_is_in_the_channel_again(tmp_path):
    async with fake_server() as server, at_a_terminal(server, tmp_path) as console:
        await server.say("bob", "before")
        await console.screen.sees("before")
        await ban(server)
        told = await console.screen.sees("your password opens another")
        assert told[-1].endswith("The session ended (see above); your password opens another as soon as you may come back.")
        assert console.current is None
        await server.say("bob", "meanwhile")
        await console.screen.types(PASSWORD)
        await console.screen.sees("── #lobby ──")
        await console.screen.sees("meanwhile")
        await console.screen.types("I am back")
        await console.screen.sees("I am back")
        assert server.records[-1].text == "I am back"


async def test_a_session_that_was_only_ended_says_nothing_of_coming_back(tmp_path):
    async with fake_server() as server, at_a_terminal(server, tmp_path) as console:
        server.tokens.clear()
        for peer in list(server.peers):
            await peer.send(m.Closing(code="unauthorized"))
            await trio.aclose_forcefully(peer.stream)
        assert (await console.screen.sees("your password"))[-1].endswith("The session ended; your password opens another.")
        await console.screen.types(PASSWORD)
        await console.screen.until(lambda: console.status.state == "online")
        assert console.current == "#lobby"
