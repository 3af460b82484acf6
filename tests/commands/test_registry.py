import contextlib
import sys
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.commands.arguments import ChannelName, Rest, Secret, User
from chat.commands.registry import (
    Call,
    CommandSpec,
    CommandUsageError,
    Registry,
    command,
    describe,
    misplaced,
    nearest,
)
from chat.errors import ChatError
from tests.commands.test_arguments import Names


@command
def help_(ctx, command: str = "") -> str:
    """Show what there is, or how a command is used."""
    return f"help {command}"


@command
def create_channel(ctx, name: ChannelName, password: Secret | None = None) -> Any:
    """Make a channel.

    With a password it is private: nobody sees it who is not in it.
    """
    return (ctx, name, password)


@command(needs="moderator", where="channel")
def topic(ctx, text: Rest = "") -> str:
    """Show the channel's topic, or set it."""
    return f"topic {text}"


@command(needs="admin", aliases=["kb"])
def ban(ctx, username: User, reason: Rest = "") -> Any:
    """Ban somebody."""
    return (username, reason)


@command
async def ask(ctx, user: User, *question: str) -> Any:
    """Ask somebody."""
    return (user, question)


@command(needs="admin")
def broadcast(ctx, message: Rest):
    """Tell everybody."""


@command
def channels(ctx):
    """List the channels."""


ALL = [help_, create_channel, topic, ban, ask, broadcast, channels]


def everything(spec):
    return None


def only_members(spec):
    return None if spec.needs == "member" else ChatError("forbidden", f"not you: {spec.name}")


@pytest.fixture
def registry():
    return Registry(ALL)


def parse(registry, text, permit=everything):
    return registry.parse(text, resolver=Names(), permit=permit)


def refused(registry, text, permit=everything):
    with pytest.raises(ChatError) as refusal:
        parse(registry, text, permit)
    return refusal.value


# ---------------------------------------------------------------- the decorator


def test_a_function_tells_everything_about_its_command():
    assert isinstance(create_channel, CommandSpec)
    assert create_channel.name == "create-channel"
    assert create_channel.usage == "create-channel <name> (password)"
    assert create_channel.summary == "Make a channel."
    assert create_channel.help == "Make a channel.\n\nWith a password it is private: nobody sees it who is not in it."
    assert (create_channel.needs, create_channel.where) == ("member", "anywhere")
    assert (topic.needs, topic.where) == ("moderator", "channel")
    assert broadcast.usage == "broadcast <message>"
    assert help_.name == "help"
    assert ban.aliases == ("kb",)
    assert "test_registry.create_channel, line " in create_channel.origin


def test_inline_is_what_cannot_wait():
    assert topic.inline
    assert not ask.inline


def test_a_spec_can_be_called_like_its_function():
    assert topic(None, "x") == "topic x"


def test_specs_are_frozen():
    with pytest.raises(AttributeError):
        topic.needs = "member"


def test_what_cannot_be_a_command():
    def silent(ctx): ...

    def generator(ctx):
        """Yield."""
        yield

    def fine(ctx):
        """Fine."""

    def typeless(ctx, x):
        """Typeless."""

    for function, options, says in [
        (silent, {}, "docstring"),
        (generator, {}, "generator"),
        (typeless, {}, "annotation"),
        (fine, {"name": "Two Words"}, "no name"),
        (fine, {"name": "x" * 33}, "no name"),
        (fine, {"aliases": ["a--b"]}, "no name"),
        (fine, {"where": "nowhere"}, "where"),
    ]:
        with pytest.raises(TypeError, match=says) as error:
            command(**options)(function)
        assert function.__qualname__ in str(error.value)


# ---------------------------------------------------------------- parsing


def test_a_line_becomes_a_call(registry):
    call = parse(registry, "create-channel #den  hush")
    assert isinstance(call, Call)
    assert call.spec is create_channel
    assert call.arguments == {"name": "den", "password": "hush"}
    assert call.run("ctx") == ("ctx", "den", "hush")
    assert "hush" not in repr(call)


def test_defaults_are_the_functions(registry):
    assert parse(registry, "create-channel den").run("ctx") == ("ctx", "den", None)


async def test_an_async_one_gives_its_coroutine(registry):
    assert await parse(registry, "ask bob how are  you").run(None) == (("user", "bob"), ("how are  you",))
    assert await parse(registry, "ask bob").run(None) == (("user", "bob"), ())


@pytest.mark.parametrize("text", ["kb @bob", "KB bob", "Ban\tbob", "  ban bob"])
def test_names_are_found_by_alias_and_in_any_case(registry, text):
    assert parse(registry, text).spec is ban


def test_an_option_is_a_command_of_its_own(registry):
    @command(needs="admin")
    def ban_list(ctx, pattern: Rest = ""):
        """List bans."""

    registry.add(ban_list)
    assert parse(registry, "ban --list a b").arguments == {"pattern": "a b"}
    assert parse(registry, "BAN --List").spec is ban_list
    assert parse(registry, "ban-list x").spec is ban_list
    assert refused(registry, "ban --other x").code == "not_found", "nobody's name"
    assert parse(registry, "topic --list").arguments == {"text": "--list"}
    assert refused(registry, "ban --list x", only_members).message == "not you: ban-list"


def test_underscores_are_hyphens(registry):
    assert parse(registry, "create_channel x").spec is create_channel
    assert registry.get("Create_Channel") is create_channel
    assert registry.get("create") is None


def test_wrong_arguments_get_the_usage_line(registry):
    error = refused(registry, "create-channel")
    assert isinstance(error, CommandUsageError)
    assert error.code == "bad_request"
    assert error.message == "<name> is missing. Usage: create-channel <name> (password)"
    assert refused(registry, "channels now").message == '"now" is too much. Usage: channels'


def test_a_resolvers_refusal_stays_what_it_is(registry):
    assert refused(registry, "ban alice").code == "not_found"


def test_an_unknown_command_gets_its_neighbours(registry):
    error = refused(registry, "crate-chanel x")
    assert error.code == "not_found"
    assert error.message == 'there is no command "crate-chanel"; did you mean create-channel?'
    assert "did you mean channels or create-channel?" in refused(registry, "channel").message
    assert "help lists" in refused(registry, "xyzzy").message


def test_only_neighbours_that_may_be_used_are_named(registry):
    assert "broadcast" in refused(registry, "brodcast x").message
    assert "broadcast" not in refused(registry, "brodcast x", only_members).message


def test_forbidden_comes_before_the_arguments_and_looks_nobody_up(registry):
    resolver = Names()
    with pytest.raises(ChatError, match="forbidden: not you: ban"):
        registry.parse("ban", resolver=resolver, permit=only_members)
    with pytest.raises(ChatError, match="forbidden"):
        registry.parse("ban bob", resolver=resolver, permit=only_members)
    assert resolver.asked == []


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_no_command_at_all(registry, text):
    assert refused(registry, text).code == "bad_request"


@given(st.one_of(st.text(), st.tuples(st.sampled_from([spec.name for spec in ALL]), st.text()).map(" ".join)))
def test_garbage_gives_a_call_or_a_chat_error(text):
    with contextlib.suppress(ChatError):
        assert parse(Registry(ALL), text).spec in ALL


def test_a_long_name_costs_nothing_and_is_not_repeated(registry):
    assert len(refused(registry, "x" * 10**6).message) < 100


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("channel-create", ["create-channel"]),
        ("chan", ["channels", "create-channel"]),
        ("topci", ["topic"]),
        ("bann", ["ban"]),
        ("kbb", ["ban"]),
        ("hlep", ["help"]),
        ("qqqq", []),
    ],
)
def test_nearest(word, near):
    assert nearest(word, ALL) == near


# ---------------------------------------------------------------- rights


def test_rights_are_a_ladder(registry):
    assert registry.refusal(topic, held="moderator", in_channel=True) is None
    assert registry.refusal(topic, held="admin", in_channel=True) is None
    for held in ("member", None):
        refusal = registry.refusal(topic, held=held, in_channel=True)
        assert refusal.code == "forbidden"
        assert "moderators and above" in refusal.message
    assert registry.refusal(ban, held="owner", in_channel=False).code == "forbidden"


def test_a_channels_command_elsewhere(registry):
    assert misplaced(topic, in_channel=True) is None
    assert misplaced(ban, in_channel=False) is None
    refusal = registry.refusal(topic, held="member", in_channel=False)
    assert refusal.code == "bad_request"
    assert "in a channel only" in refusal.message


def test_unknown_rights_are_refused():
    with pytest.raises(ValueError, match="no right 'moderator'"):
        Registry([topic], rights=["member", "broadcast"])


# ---------------------------------------------------------------- registries


def test_lists(registry):
    assert [spec.name for spec in registry.all()] == sorted(spec.name for spec in ALL)
    assert list(registry) == ALL
    assert len(registry) == len(ALL)
    assert registry.usable(only_members) == [ask, channels, create_channel, help_]


def test_two_of_one_name_are_refused_naming_both(registry):
    @command(name="topic")
    def other(ctx):
        """Another."""

    @command(aliases=["ban"])
    def mine(ctx):
        """Mine."""

    for spec in (other, mine):
        with pytest.raises(ValueError, match="two commands are named") as error:
            registry.add(spec)
        assert spec.origin in str(error.value)
    assert topic.origin not in str(error.value)
    assert ban.origin in str(error.value)
    assert registry.get("mine") is None
    with pytest.raises(ValueError, match="two commands are named topic"):
        Registry.layered(registry, Registry([other]))


def test_layers():
    below, above = Registry([topic, ban]), Registry([ask], rights=["member", "plugin"])
    both = Registry.layered(below, above)
    assert list(both) == [topic, ban, ask]
    assert both.rights == ("member", "moderator", "owner", "admin", "plugin")
    assert len(below) == 2


def test_a_module_gives_its_own_commands_in_order():
    module = types.ModuleType(__name__)
    vars(module).update({"b": topic, "a": ban, "imported": 3})
    registry = Registry()
    registry.add_module(module)
    assert list(registry) == [topic, ban]
    elsewhere = types.ModuleType("elsewhere")
    vars(elsewhere).update(vars(sys.modules[__name__]))
    elsewhere.__name__ = "elsewhere"
    empty = Registry()
    empty.add_module(elsewhere)
    assert len(empty) == 0


def test_describe():
    assert describe(create_channel) == {
        "name": "create-channel",
        "usage": "create-channel <name> (password)",
        "description": "Make a channel.",
        "arguments": [
            {"name": "name", "kind": "channel-name", "required": True},
            {"name": "password", "kind": "word", "required": False, "secret": True},
        ],
        "needs": "member",
        "where": "anywhere",
    }
    assert describe(ban)["aliases"] == ["kb"]
    assert describe(ban)["arguments"][0]["kind"] == "user"
