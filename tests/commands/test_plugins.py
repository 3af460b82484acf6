"""Where plugins come from, how they are loaded anew, and what becomes of what is running of them."""

import os
import re
import sys

import pytest
import trio

from chat.commands import builtin
from chat.commands.builtin import PluginBroken
from chat.commands.plugins import Plugins, background
from chat.protocol import messages as m
from tests.rooms.house import of_type, open_house

DICE = '''
from chat.plugin import Context, command


@command
def dice(ctx: Context, sides: int = 6) -> str:
    """Roll a die."""
    return "4"
'''


def load(modules):
    plugins = Plugins(builtin.registry(), modules=modules)
    plugins.load(strict=True)
    return plugins.registry


# ---------------------------------------------------------------- modules that the configuration names


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module that can be imported, and is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)

    yield write
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_its_commands_are_there_beside_the_others(module):
    module("dice_of_a_test", DICE)
    commands = load(["dice_of_a_test"])
    assert commands.get("dice").usage == "dice (sides)"
    assert commands.get("help") is not None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1/0", "line 1: ZeroDivisionError"),
        (DICE.replace("def dice", "def topic"), "two commands are named topic"),
        (DICE.replace('"""Roll a die."""', ""), "docstring"),
        ("def", "line 1: SyntaxError"),
    ],
)
def test_one_that_cannot_be_loaded_is_named_with_the_reason(module, text, why):
    name = f"broken_{abs(hash(text))}"
    module(name, text)
    with pytest.raises(PluginBroken, match=f"the plugin {name} cannot be loaded: .*{why}"):
        load([name])


def test_one_that_is_not_there_is_named():
    with pytest.raises(PluginBroken, match="nowhere_of_a_test"):
        load(["nowhere_of_a_test"])


def test_a_changed_module_is_loaded_anew_and_a_broken_one_keeps_its_old_version(module):
    module("changing_of_a_test", DICE)
    plugins = Plugins(builtin.registry(), modules=["changing_of_a_test"])
    plugins.load(strict=True)
    assert plugins.load() == []
    module("changing_of_a_test", DICE.replace("def dice", "def dice_two"))
    assert plugins.load() == ["changing_of_a_test (dice-two): loaded anew from changing_of_a_test"]
    assert plugins.registry.get("dice") is None
    module("changing_of_a_test", DICE + "\n1/0\n")
    assert plugins.load() == []
    assert plugins.problems == {"changing_of_a_test": "line 10: ZeroDivisionError: division by zero; the version of before stays"}
    assert plugins.registry.get("dice-two") is not None


def test_a_package_that_is_installed_brings_its_commands(module, tmp_path):
    module("package_of_a_test", DICE)
    info = tmp_path / "package_of_a_test-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: package-of-a-test\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[chat.commands]\ndice-of-a-package = package_of_a_test\nmissing = nowhere_of_a_test\n")
    second = tmp_path / "second_of_a_test-1.0.dist-info"
    second.mkdir()
    (second / "METADATA").write_text("Metadata-Version: 2.1\nName: second-of-a-test\nVersion: 1.0\n")
    (second / "entry_points.txt").write_text("[chat.commands]\ndice-of-a-package = second_of_a_test\n")
    plugins = Plugins(builtin.registry(), entry_points=True)
    plugins.load(strict=True)
    assert plugins.loaded["dice-of-a-package"].origin == "package_of_a_test"
    assert plugins.registry.get("dice") is not None
    assert "named dice-of-a-package: package_of_a_test" in plugins.problems["second_of_a_test"]
    assert "No module named" in plugins.problems["nowhere_of_a_test"], "a broken package does not keep the server from starting"


# ---------------------------------------------------------------- files


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "plugins"
    folder.mkdir(mode=0o700)
    yield folder
    for name in [name for name in sys.modules if name.startswith("chat_plugin_")]:
        del sys.modules[name]


@pytest.fixture
def plugins(folder):
    return Plugins(builtin.registry(), folder=folder)


def names(plugins):
    return sorted(spec.name for spec in plugins.registry if spec.plugin is not None)


def test_files_come_go_and_change(folder, plugins):
    assert plugins.load() == []
    (folder / "a.py").write_text(DICE)
    (folder / "b.py").write_text(DICE.replace("dice", "coin"))
    (folder / "_half.py").write_text("1/0")
    (folder / "notes.txt").write_text("1/0")
    assert plugins.load() == ["a (dice): loaded from plugins/a.py", "b (coin): loaded from plugins/b.py"]
    untouched = plugins.loaded["b"]
    (folder / "a.py").write_text(DICE.replace("dice", "cards"))
    assert plugins.load() == ["a (cards): loaded anew from plugins/a.py"]
    assert names(plugins) == ["cards", "coin"]
    assert plugins.loaded["b"] is untouched
    (folder / "a.py").unlink()
    assert plugins.load() == ["a (cards): gone"]
    assert names(plugins) == ["coin"]
    assert not plugins.problems


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x = 1\nx.y\n", "line 2: AttributeError: 'int' object has no attribute 'y'"),
        ("x = 1\ndef (\n", "line 2: SyntaxError: "),
        ("import sys\n\nsys.exit('no')", "line 3: SystemExit: no"),
        ("def f():\n  f()\nf()\n", "line 2: RecursionError"),
        (DICE.replace("sides: int", "sides: dict"), "line 5: TypeError: .*sides.*no kind of argument"),
        (DICE.replace("def dice", "def help"), "two commands are named help"),
        (DICE.replace("@command", "@command(needs='magic')"), ".*no right 'magic'"),
        ("x = 1", "it has no commands"),
        ("from chat.plugin import background\n@background\ndef f(ctx): ...", "line 2: TypeError: f cannot run in the background"),
    ],
)
def test_a_broken_file_keeps_its_old_version_and_says_where(folder, plugins, text, why):
    (folder / "a.py").write_text(DICE)
    plugins.load()
    before = plugins.loaded["a"]
    (folder / "a.py").write_text(text)
    (folder / "b.py").write_text(text)
    assert plugins.load() == []
    assert plugins.loaded == {"a": before}
    assert not before.gone
    assert re.match(f"(ValueError: )?{why}.*; the version of before stays$", plugins.problems["plugins/a.py"])
    assert re.match(f"(ValueError: )?{why}", plugins.problems["plugins/b.py"])
    assert "stays" not in plugins.problems["plugins/b.py"]
    (folder / "a.py").write_text(DICE)
    (folder / "b.py").unlink()
    assert plugins.load() == [], "as it is loaded"
    assert not plugins.problems


def test_who_comes_later_to_a_name_is_refused_even_if_its_file_comes_first(folder, plugins):
    (folder / "b.py").write_text(DICE)
    plugins.load()
    (folder / "a.py").write_text(DICE)
    assert plugins.load() == []
    assert "two commands are named dice: chat_plugin_b.dice, line 5, and chat_plugin_a.dice, line 5" in plugins.problems["plugins/a.py"]


def test_two_plugins_may_exchange_names(folder, plugins):
    (folder / "a.py").write_text(DICE)
    (folder / "b.py").write_text(DICE.replace("dice", "coin"))
    plugins.load()
    (folder / "a.py").write_text(DICE.replace("dice", "coin"))
    (folder / "b.py").write_text(DICE)
    assert len(plugins.load()) == 2
    assert names(plugins) == ["coin", "dice"]
    assert not plugins.problems


def test_who_keeps_its_old_version_keeps_its_names_too(folder, plugins):
    (folder / "a.py").write_text(DICE)
    (folder / "b.py").write_text(DICE.replace("dice", "coin"))
    plugins.load()
    before = dict(plugins.loaded)
    (folder / "a.py").write_text(DICE.replace("dice", "coin"))
    (folder / "b.py").write_text(DICE.replace("dice", "help"))
    assert plugins.load() == []
    assert plugins.loaded == before
    assert names(plugins) == ["coin", "dice"]
    assert sorted(plugins.problems) == ["plugins/a.py", "plugins/b.py"]


def test_a_module_that_fails_leaves_the_one_before_where_others_look_for_it(folder, plugins):
    (folder / "a.py").write_text(DICE)
    plugins.load()
    module = sys.modules["chat_plugin_a"]
    (folder / "a.py").write_text("1/0")
    (folder / "b.py").write_text("1/0")
    plugins.load()
    assert sys.modules["chat_plugin_a"] is module
    assert "chat_plugin_b" not in sys.modules


def test_a_file_takes_the_place_of_the_module_of_its_name(module, folder):
    module("dice_of_a_name", DICE)
    (folder / "dice_of_a_name.py").write_text(DICE.replace('"4"', '"5"'))
    plugins = Plugins(builtin.registry(), modules=["dice_of_a_name"], folder=folder)
    plugins.load(strict=True)
    assert plugins.loaded["dice_of_a_name"].origin == "plugins/dice_of_a_name.py"
    (folder / "dice_of_a_name.py").unlink()
    assert plugins.load() == ["dice_of_a_name (dice): loaded anew from dice_of_a_name"]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_not_executed(folder, plugins, mode):
    (folder / "a.py").write_text("raise AssertionError('executed')")
    (folder / "a.py").chmod(mode)
    assert plugins.load() == []
    assert plugins.problems["plugins/a.py"] == f"others than its owner may write to it: chmod go-w {folder / 'a.py'}"


def test_nothing_of_a_folder_that_others_may_write_is_executed(folder, plugins):
    (folder / "a.py").write_text(DICE)
    plugins.load()
    folder.chmod(0o777)
    (folder / "a.py").write_text("raise AssertionError('executed')")
    (folder / "b.py").write_text("raise AssertionError('executed')")
    assert plugins.load() == []
    assert names(plugins) == ["dice"], "what is loaded stays"
    assert f"chmod go-w {folder}; nothing in it is executed" in plugins.problems["plugins/"]


def test_a_file_of_somebody_else_is_not_executed(folder, plugins, monkeypatch):
    (folder / "a.py").write_text("raise AssertionError('executed')")
    if os.geteuid() == 0:
        os.chown(folder / "a.py", 12345, -1)
    else:  # one cannot give files away: be somebody else instead
        somebody = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: somebody)
    assert plugins.load() == []
    assert "belongs to another user" in next(iter(plugins.problems.values()))


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(folder, plugins):
    os.mkfifo(folder / "a.py")
    assert plugins.load() == []
    assert "no ordinary file" in plugins.problems["plugins/a.py"]


def test_only_what_waits_can_run_in_the_background():
    with pytest.raises(TypeError, match="no async def"):
        background(lambda ctx: None)


# ---------------------------------------------------------------- in a server

WAITING = '''
import trio
from chat.plugin import Background, Context, User, background, command

@command
async def wait(ctx: Context) -> str:
    """Wait."""
    ctx.reply("waiting")
    await trio.sleep_forever()

@background
async def tick(ctx: Background) -> None:
    await ctx.store.update("version A", lambda n: n + 1, 0)
    try:
        await trio.sleep_forever()
    finally:
        ended.append("version A")

ended = []
'''


@pytest.fixture
def house(folder):
    with open_house(plugin_folder=folder) as house:
        house.root, house.ann, house.bob = house.owner(), house.register("Ann"), house.register("bob")
        house.folder = folder
        yield house


async def ask(house, line, text, channel="lobby", id=1, **more):
    """The command's answer; what else the line is told is left in `house.told`."""
    await house.tell(line, m.Command(id=id, text=text, channel=channel, **more))
    house.told = []
    with trio.fail_after(5):
        while True:
            for message in await house.settle(line):
                if message.get("id") == id:
                    return message
                house.told.append(message)


COMMANDS_CHANGED = {"type": "commands_changed"}


async def test_admins_reload_and_are_told_what_changed_and_what_is_wrong(house):
    async with house.running():
        assert (await ask(house, house.ann, "reload-commands"))["code"] == "forbidden"
        assert (await ask(house, house.root, "reload-commands"))["text"] == "nothing has changed"
        (house.folder / "a.py").write_text(DICE)
        (house.folder / "b.py").write_text("\n1/0")
        answer = await ask(house, house.root, "reload-commands")
        assert answer["text"] == "a (dice): loaded from plugins/a.py\nplugins/b.py: line 2: ZeroDivisionError: division by zero"
        assert of_type(house.told, "commands_changed") == of_type(await house.settle(house.ann), "commands_changed") == [COMMANDS_CHANGED]
        assert (await ask(house, house.bob, "dice"))["text"] == "4"
        answer = await ask(house, house.root, "plugins")
        assert answer["text"] == "a (dice), from plugins/a.py\nplugins/b.py: line 2: ZeroDivisionError: division by zero"
        (house.folder / "a.py").unlink()
        (house.folder / "b.py").unlink()
        assert house.desk.commands.reload() == ["a (dice): gone"]
        assert (await ask(house, house.bob, "dice"))["code"] == "not_found"


async def test_what_runs_of_a_plugin_ends_with_it_and_its_caller_is_told(house):
    (house.folder / "a.py").write_text(WAITING)
    (house.folder / "b.py").write_text(WAITING.replace("def wait", "def other"))
    house.desk.commands.reload()
    async with house.running():
        await house.tell(house.ann, m.Command(id=1, text="wait", channel="lobby"))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await house.settle(house.ann) == [COMMANDS_CHANGED, {"type": "notice", "text": "waiting", "level": "info"}]
        assert house.state.plugin_values.all() == {"a": {"version A": "1"}, "b": {"version A": "1"}}
        (ended,) = [sys.modules["chat_plugin_a"].ended]
        (house.folder / "a.py").write_text(WAITING.replace("version A", "version B"))
        house.desk.commands.reload()
        await trio.testing.wait_all_tasks_blocked(0.05)
        (answer,) = of_type(await house.settle(house.ann), "error", "result")
        assert (answer["code"], answer["id"]) == ("removed", 1)
        assert "taken away or loaded anew while it ran" in answer["message"]
        assert ended == ["version A"]
        assert not sys.modules["chat_plugin_b"].ended, "the other one is not disturbed"
        assert house.state.plugin_values.all()["a"] == {"version A": "1", "version B": "1"}
        assert (house.ann.commands, len(house.desk.commands._around.plugins.loaded["b"].scopes)) == (0, 1)


async def test_a_background_task_that_fails_is_tried_again(house, autojump_clock):
    (house.folder / "a.py").write_text(
        """
from chat.plugin import background
runs = []
@background
async def fail(ctx):
    runs.append(ctx.now)
    if len(runs) < 3:
        raise SystemExit("no") if len(runs) == 1 else ValueError("no")
"""
    )
    house.desk.commands.reload()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.desk.commands.run)
        with trio.move_on_after(10):
            await trio.sleep_forever()
        assert len(sys.modules["chat_plugin_a"].runs) == 3
        nursery.cancel_scope.cancel()


async def test_a_retry_of_a_plugins_command_gets_the_first_result(house):
    (house.folder / "a.py").write_text(
        '''
from chat.plugin import Context, command
@command
async def count(ctx: Context) -> str:
    """Count."""
    n = await ctx.store.update("n", lambda n: n + 1, 0)
    await ctx.say(f"that makes {n}")
    return f"{n} times"
'''
    )
    house.desk.commands.reload()
    async with house.running():
        first = await ask(house, house.ann, "count", cid="once")
        again = await ask(house, house.ann, "count", id=2, cid="once")
        assert first == {"type": "result", "id": 1, "text": "1 times"}
        assert again == {"type": "result", "id": 2, "text": "1 times", "dup": True}
        said = [message["text"] for message in of_type(await house.settle(house.bob), "message")]
        assert said == ["that makes 1"]


UNSAYABLE = '''
from chat.errors import ChatError
from chat.plugin import Context, command


class Strange(ChatError):
    def __init__(self):
        pass


REFUSALS = [
    lambda: ChatError("forbidden", "half a pair: \\ud800"),
    lambda: ChatError("forbidden", object()),
    lambda: ChatError("busy", "later", retry_after=object()),
    Strange,
]


@command
def refuse(ctx: Context, which: int) -> str:
    """Refuse."""
    raise REFUSALS[which]()


@command
async def refuse_later(ctx: Context, which: int) -> str:
    """Refuse."""
    raise REFUSALS[which]()


@command
async def leave(ctx: Context) -> str:
    """End the process, or so it thinks."""
    def change(value):
        raise SystemExit("bye")
    await ctx.store.update("n", change)
    return "left"


@command
async def wonder(ctx: Context) -> str:
    """Ask what no answer will do for."""
    def parse(text):
        raise Strange() if text == "strange" else ChatError("bad_request", "\\ud800")
    return await ctx.ask("what?", parse=parse)
'''


async def test_a_refusal_that_cannot_be_said_is_that_commands_failure(house):
    (house.folder / "a.py").write_text(UNSAYABLE)
    house.desk.commands.reload()
    async with house.running():
        for which in range(4):
            assert (await ask(house, house.ann, f"refuse {which}"))["code"] == "internal_error"
            assert (await ask(house, house.ann, f"refuse-later {which}", id=2))["code"] == "internal_error"
        assert (await ask(house, house.ann, "leave"))["code"] == "internal_error"
        assert house.state.plugin_values.all() == {}


async def test_a_refusal_of_an_answer_that_cannot_be_said_is_that_commands_failure(house):
    (house.folder / "a.py").write_text(UNSAYABLE)
    house.desk.commands.reload()
    async with house.running():
        await house.tell(house.ann, m.Command(id=1, text="wonder", channel="lobby"))
        told = []
        while not told:
            told = of_type(await house.settle(house.ann), "question")
        for text in ("strange", "something"):
            await house.tell(house.ann, m.Answer(id=3, question=told[0]["question"], text=text))
            (answer,) = await house.settle(house.ann)
            assert (answer["id"], answer["code"]) == (3, "internal_error")
