"""Conversations over real sockets with a real daemon: a plugin asks, people answer, lose their connection, and the daemon goes."""

import json
import os
import signal
import sys
import textwrap

import pytest
import trio

from tests.e2e.guests import PASSWORD, Guest, errors_in_log, make_server
from tests.e2e.server import ROOT
from tests.web.terminal import Terminal

PLUGIN = '''
import time

import trio

from chat.plugin import Context, QuestionClosed, User, command, everyone


@command(where="channel")
async def quiz(ctx: Context) -> str:
    """Who knows it first?"""
    first = await ctx.ask("2 + 2?", of=ctx.channel, parse=int)
    return f"{first.user} said {first.value}"


@command
async def dare(ctx: Context, whom: User) -> str:
    """Ask somebody."""
    return f"{whom} says " + await ctx.ask("Well?", of=whom, choices=["yes", "no"])


@command
async def number(ctx: Context) -> str:
    """Ask the caller for two numbers."""
    a = await ctx.ask("The first?", parse=int)
    b = await ctx.ask("The second?", parse=int)
    return f"the sum is {a + b}"


@command
async def block(ctx: Context, seconds: float) -> str:
    """Hold up everybody."""
    await trio.sleep(0)
    time.sleep(seconds)
    return "sorry"


@command
async def bad(ctx: Context, how: str) -> str:
    """Do something bad."""
    match how:
        case "raise":
            raise KeyError(how)
        case "exit":
            raise SystemExit(1)
        case "interrupt":
            raise KeyboardInterrupt
        case "recurse":
            return str(deep(0))
        case "cancel":
            trio.lowlevel.current_task().parent_nursery.cancel_scope.cancel()
            await trio.sleep(1)
        case "group":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise ValueError(how)
        case "nothing":
            return object()
        case "large":
            return "x" * 2**20
        case "silent":
            await ctx.ask("Anybody?", of=everyone, timeout=0.05)
        case _:
            await trio.sleep_forever()


@command
def badly(ctx: Context, how: str) -> str:
    """Do something bad at once."""
    if how == "exit":
        raise SystemExit(1)
    return str(deep(0)) if how == "recurse" else {}[how]


def deep(n):
    return deep(n + 1)
'''


@pytest.fixture
def make(tmp_path):
    """Makes a server with the plugin above."""

    def make(**settings):
        server = make_server(tmp_path, {"limits.commands_burst": "1000000", **{f"limits.{key}": value for key, value in settings.items()}})
        folder = server.data_dir / "plugins"
        folder.mkdir(parents=True, mode=0o700)
        server.data_dir.chmod(0o700)
        (folder / "bad.py").write_text(textwrap.dedent(PLUGIN))
        return server

    return make


@pytest.fixture
async def server(make):
    server = make()
    await server.start()
    yield server
    await server.kill()


async def give(guest, text, cid, id, channel="lobby"):
    await guest.send({"type": "command", "id": id, "cid": cid, "channel": channel, "text": text})


async def question(guest):
    return await guest.until_type("question")


async def over(guest):
    return (await guest.until_type("question_closed"))["reason"]


async def answer_to(guest, id):
    """Whenever it came."""
    found = [message for message in guest.received if with_id(id)(message)]
    return found[0] if found else await guest.until(with_id(id))


def with_id(id):
    return lambda message: message.get("id") == id and message["type"] != "ping"


async def test_three_people_play_and_the_first_answer_counts(server):
    ann, bob, eve = [await Guest.register(server, name) for name in ("ann", "bob", "eve")]
    async with ann, bob, eve:
        await give(ann, "quiz", "c1", 50)
        asked = [await question(guest) for guest in (ann, bob, eve)]
        assert len({q["question"] for q in asked}) == 1
        assert asked[0] == {**asked[0], "from": "ann", "command": "quiz", "conv": "#lobby", "text": "2 + 2?"}
        q = asked[0]["question"]
        assert (await bob.ask("answer", question=q, text="four"))["code"] == "bad_request"
        assert (await eve.ask("answer", question=q, text="4"))["type"] == "ok"
        assert (await bob.ask("answer", question=q, text="5"))["code"] == "not_found"
        assert (await ann.until(with_id(50)))["text"] == "eve said 4"
        assert [m["reason"] for m in bob.received if m["type"] == "question_closed"] == ["answered"]


async def test_connections_of_both_sides_are_lost_and_resumed(server):
    async with await Guest.register(server, "ann") as ann, await Guest.register(server, "bob") as bob:
        await give(ann, "dare bob", "c1", 50)
        first = await question(bob)
    async with await Guest.resume(server, ann.token) as ann2, await Guest.resume(server, bob.token) as bob2:
        again = await question(bob2)
        assert again["question"] == first["question"]
        assert again["expires_in"] < first["expires_in"]
        await give(ann2, "dare bob", "c1", 51)
        await ann2.ping()
        assert (await bob2.ask("answer", question=again["question"], text="no"))["type"] == "ok"
        assert (await ann2.until(with_id(51)))["text"] == "bob says no"
        await give(ann2, "dare bob", "c1", 52)
        assert (await ann2.until(with_id(52))) == {"type": "result", "id": 52, "dup": True, "text": "bob says no"}


async def test_the_asker_stays_away_for_longer_than_the_window(make):
    server = make(resume_window_s="0.5")
    await server.start()
    try:
        async with await Guest.register(server, "bob") as bob:
            async with await Guest.register(server, "ann") as ann:
                await give(ann, "dare bob", "c1", 50)
                await question(bob)
            assert await over(bob) == "asker_gone"
    finally:
        await server.kill()


async def test_the_server_stops_while_a_question_is_open(server):
    async with await Guest.register(server, "ann") as ann, await Guest.register(server, "bob") as bob:
        await give(ann, "dare bob", "c1", 50)
        await give(ann, "bad sleep", "c2", 51)
        await ann.ping()  # both are read
        await question(bob)
        began = trio.current_time()
        server.terminate()
        assert await over(bob) == "stopping"
        assert (await ann.until(with_id(50)))["code"] == "shutting_down"
        assert (await ann.until(with_id(51)))["code"] == "shutting_down"
        assert await server.wait() == 0
        assert trio.current_time() - began < 6
    assert not errors_in_log(server)


async def test_a_plugin_is_edited_and_loaded_anew_while_it_asks(server):
    file = server.data_dir / "plugins" / "bad.py"
    async with await Guest.register(server, "ann") as ann, await Guest.register(server, "bob") as bob:
        await give(ann, "dare bob", "c1", 50)
        await question(bob)
        file.write_text(file.read_text().replace('"Well?"', '"Well, now?"'))
        os.kill(server.pid(), signal.SIGHUP)
        assert await over(bob) == "command_gone"
        assert (await ann.until(with_id(50)))["code"] == "removed"
        await give(ann, "dare bob", "c2", 51)
        asked = await question(bob)
        assert asked["text"] == "Well, now?"
        assert (await bob.ask("answer", question=asked["question"], text="yes"))["type"] == "ok"
        assert (await ann.until(with_id(51)))["text"] == "bob says yes"


async def test_a_killed_server_asks_nothing_any_more(server):
    async with await Guest.register(server, "ann") as ann, await Guest.register(server, "bob") as bob:
        await give(ann, "dare bob", "c1", 50)
        q = (await question(bob))["question"]
        await server.kill()
    await server.start()
    async with await Guest.resume(server, bob.token) as bob2:
        assert (await bob2.ask("answer", question=q, text="yes"))["code"] == "not_found"
        assert not [m for m in bob2.received if m["type"] == "question"]


async def test_a_command_that_holds_up_the_loop_is_named(server):
    async with await Guest.register(server, "ann") as ann, await Guest.register(server, "bob") as bob:
        await give(ann, "block 1.6", "c1", 50)
        await bob.ping()
        await ann.until(with_id(50))
        with trio.fail_after(10):
            while "loop_was_held_up" not in server.log.read_text():
                await bob.ping()
    told = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    lines = [line for line in told if line.get("command") == "block"]
    assert {line["event"] for line in lines} == {"command_blocks", "loop_was_held_up"}
    assert all(line["where"].startswith("bad.py:") for line in lines)


WAYS = ["raise", "exit", "interrupt", "recurse", "cancel", "group", "nothing", "large", "silent", "sleep"]


@pytest.mark.parametrize("times", [3, pytest.param(100, marks=pytest.mark.long)])
async def test_bad_commands_are_their_callers_own(server, times):
    async with await Guest.register(server, "ann") as ann, await Guest.register(server, "bob") as bob:
        answers, slowest_s = {}, 0.0
        for round_ in range(times):
            for place, way in enumerate(WAYS):
                await give(ann, f"bad {way}", f"c{round_}-{place}", 1000 + round_ * 20 + place)
            for place, way in enumerate(("raise", "exit", "recurse")):
                await give(ann, f"badly {way}", f"d{round_}-{place}", 1000 + round_ * 20 + 15 + place)
            began = trio.current_time()
            assert (await bob.say("lobby", f"round {round_}"))["type"] == "ack"
            slowest_s = max(slowest_s, trio.current_time() - began)
        for round_ in range(times):
            for place, way in enumerate(WAYS):
                if way != "sleep":
                    answers.setdefault(way, set()).add((await answer_to(ann, 1000 + round_ * 20 + place))["code"])
            for place in range(3):
                answers.setdefault("badly", set()).add((await answer_to(ann, 1000 + round_ * 20 + 15 + place))["code"])
        assert answers.pop("silent") - {"busy"} == {"timeout"}  # busy: on a slow machine many are at work at once
        assert set().union(*answers.values()) - {"busy"} == {"internal_error"}
        assert slowest_s < 5
        listed = await ann.ask("command", channel="lobby", text="questions")
        assert listed["text"] == "nothing is asked", "a command that waits for nobody is not the caller's question"
        assert (await bob.say("lobby", "all well"))["type"] == "ack"


async def test_the_console_in_a_pipe_answers(server, tmp_path):
    """`chat connect` with lines from a pipe: the line after a command that asks may be its answer."""
    async with await Guest.register(server, "ann"):
        pass
    lines = "//number\n/answer many\n/answer 1 40\n/answer 2\nhello\n"
    env = {"XDG_STATE_HOME": str(tmp_path / "ann"), "CHAT_PASSWORD": PASSWORD, "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "chat", "connect", f"127.0.0.1:{server.port}", "--name", "ann"]
    with trio.fail_after(60):
        done = await trio.run_process(command, stdin=lines.encode(), capture_stdout=True, capture_stderr=True, env=env, check=False)
    said, complained = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0, complained
    assert "? 1: ann asks (//number): The first?" in said
    assert "a whole number is expected, not 'many'" in complained
    assert "the sum is 42" in said


async def test_the_terminal_keeps_several_apart_and_plain_lines_answer_only_when_told_to(server, tmp_path):
    (tmp_path / "bob").mkdir()
    ann, eve, bob = [await Guest.register(server, name) for name in ("ann", "eve", "bob")]
    async with ann, eve, bob:
        terminal = Terminal(f"127.0.0.1:{server.port}", "bob", PASSWORD, tmp_path / "bob")

        async def sees(pattern):
            return (await trio.to_thread.run_sync(terminal.sees, pattern))[0]

        try:
            await sees("account here")
            terminal.types("yes")
            await sees("you are bob")
            await give(ann, "dare bob", "c1", 50)
            await sees(r"\? 1: ann asks \(//dare\): Well\? \(yes / no\)  — 1\d\d s, /answer 1 TEXT")
            await give(eve, "dare bob", "c1", 50)
            await sees(r"\? 2: eve asks")
            terminal.types("yes")
            await eve.until(lambda message: message["type"] == "message" and message["text"] == "yes")  # said, not answered
            terminal.types("/answer yes")
            await sees("There are several questions: /answer N TEXT")
            terminal.types("/answer 2 no")
            assert (await eve.until(with_id(50)))["text"] == "bob says no"
            terminal.types("/answering on")
            await sees("Plain lines answer the newest question")
            terminal.types("perhaps")
            await sees("answer one of these: yes, no")
            terminal.types("yes")
            assert (await ann.until(with_id(50)))["text"] == "bob says yes"
            terminal.types("nothing is asked now")
            await ann.until(lambda message: message["type"] == "message" and message["text"] == "nothing is asked now")
        finally:
            terminal.close()


async def test_the_terminal_forgets_what_is_not_asked_any_more(server, tmp_path):
    (tmp_path / "bob").mkdir()
    ann, bob = [await Guest.register(server, name) for name in ("ann", "bob")]
    terminal = Terminal(f"127.0.0.1:{server.port}", "bob", PASSWORD, tmp_path / "bob")
    try:
        async with ann, bob:
            await trio.to_thread.run_sync(terminal.sees, "account here")
            terminal.types("yes")
            await trio.to_thread.run_sync(terminal.sees, "you are bob")
            await give(ann, "dare bob", "c1", 50)
            await trio.to_thread.run_sync(terminal.sees, "1 to answer")
            await server.kill()
            await trio.to_thread.run_sync(terminal.sees, "○")  # or what it is told next would be to the server of before
        await server.start()
        async with await Guest.resume(server, ann.token) as ann:
            await trio.to_thread.run_sync(terminal.sees, "●")
            terminal.types("/answer yes")
            await trio.to_thread.run_sync(terminal.sees, "Nobody asks anything")
            await give(ann, "dare bob", "c2", 51)
            await trio.to_thread.run_sync(terminal.sees, r"\? 1: ann asks")
            terminal.types("/answer yes")
            assert (await ann.until(with_id(51)))["text"] == "bob says yes"
    finally:
        terminal.close()
