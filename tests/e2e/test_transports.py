"""All commands over TCP, TLS and WebSocket: the same lines, those of the rights matrix, have the same answers."""

import re
from contextlib import asynccontextmanager

import trio
from trio_websocket import ConnectionClosed, open_websocket

from tests.commands.matrix import TABLE
from tests.e2e.guests import PASSWORD, PATIENCE_S, Guest, serving

EXAMPLES = {  # plugins that are loaded by themselves
    "remind": "remind 1h tea",
    "reminders": "reminders",
    "forget-reminder": "forget-reminder 1",
    "roll": "roll 1d2",
    "poll-results": "poll-results",
}
CONVERSING = {"duel", "poll", "cancel-question"}  # they need somebody who answers; test_interactive has them
LAST = ["history-mode", "uninvite-user", "unmute", "mute", "kick", "channel-unban", "channel-ban", "ban", "lockdown", "clear", "set-prefix"]
ENDS = ["leave-channel", "join-channel", "delete-channel"]
VOLATILE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC|\d+ (?:d|h|min|s)\b|\d+ms")


class WebSocketLines:
    """A WebSocket as the stream of lines that a `Wire` reads."""

    def __init__(self, ws):
        self.ws = ws

    async def send_all(self, data):
        for line in data.splitlines():
            await self.ws.send_message(line.decode())

    async def receive_some(self, _):
        try:
            return (await self.ws.get_message()).encode() + b"\n"
        except ConnectionClosed:
            return b""


@asynccontextmanager
async def connected(server, transport):
    """The admin, over *transport*."""
    if transport == "websocket":
        async with open_websocket("127.0.0.1", server.port, "/ws", use_ssl=False, subprotocols=["chat.v1"]) as ws:
            guest = Guest(WebSocketLines(ws))
            await guest.hello()
            guest.opened = await guest.ask("login", username="admin", password=PASSWORD)
            yield guest
    else:
        async with await Guest.login(server, "admin", tls=transport == "tls") as guest:
            yield guest


async def furnish(server):
    """Everybody whom the lines name, in the channel garden; what they undo is done."""
    guests = {}
    owners = next(line for line in server.lines if "owner" in line).rpartition("/")[2]
    guests["root"] = await Guest.connect(server)
    await guests["root"].hello()
    assert (await guests["root"].ask("register", username="root", password=PASSWORD, invite=owners))["type"] == "session"
    for name in ("admin", "victim", "lone", "guest", "outcast", "exiled"):
        guests[name] = await Guest.register(server, name)
    for who, channel, text in [
        ("root", None, "set-user-perm admin admin"),
        ("root", None, "create-channel garden"),
        *((name, None, "join-channel garden") for name in ("admin", "victim", "exiled")),
        ("root", "garden", "channel-ban exiled"),
        ("root", "garden", "invite-user guest"),
        ("root", "garden", "mute victim"),
        ("root", None, "ban outcast"),
        ("root", "garden", "report lone rude"),
        ("admin", None, "ignore victim"),
        ("admin", None, "unignore victim"),
    ]:
        answer = await guests[who].ask("command", text=text, **({"channel": channel} if channel else {}))
        assert answer["type"] == "result", (who, text, answer)
    for guest in guests.values():
        await guest.aclose()


def lines():
    """(name, channel or None, text), those that end something last."""
    first = [name for name in TABLE if name not in {*LAST, *ENDS, *CONVERSING}]
    for name in (*first, *LAST, *ENDS):
        row = TABLE[name]
        yield name, "garden" if row.inside else None, row.line.format(place="garden", report=1, question="q0")
    for name, text in EXAMPLES.items():
        yield name, "lobby", text


async def run_all(folder, transport):
    async with serving(folder, {"limits.connections_per_address": "100"}) as server:
        await furnish(server)
        with trio.fail_after(3 * PATIENCE_S):
            async with connected(server, transport) as admin:
                assert admin.opened["type"] == "session", admin.opened
                everything = {each["name"] for each in (await admin.ask("commands", channel="garden"))["data"]}
                answers = []
                for name, channel, text in lines():
                    answer = await admin.ask("command", text=text, cid=f"c-{name}", **({"channel": channel} if channel else {}))
                    assert answer["type"] == "result", (transport, text, answer)
                    answers.append((name, VOLATILE.sub("…", answer["text"])))
                return everything, answers


async def test_all_commands_over_each_transport(tmp_path):
    ran = {}

    async def run(transport):
        (tmp_path / transport).mkdir()
        ran[transport] = await run_all(tmp_path / transport, transport)

    async with trio.open_nursery() as nursery:
        for transport in ("tcp", "tls", "websocket"):
            nursery.start_soon(run, transport)
    everything, answers = ran["tcp"]
    assert everything == {*TABLE, *EXAMPLES, *CONVERSING}, "each command has a line"
    assert {name for name, _ in answers} == everything - CONVERSING
    assert ran["tls"] == ran["tcp"]
    assert ran["websocket"] == ran["tcp"]
