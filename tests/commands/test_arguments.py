import contextlib
import time
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from chat.commands import arguments as a
from chat.commands.arguments import ArgumentProblem, Channel, ChannelName, Command, Duration, Rest, Role, Secret, User, arguments_of, bind
from chat.errors import ChatError


class Names:
    """A resolver whose world is small: bob, #lobby, the role owner and the command ban."""

    def __init__(self):
        self.asked = []

    def _find(self, kind, name, known):
        self.asked.append((kind, name))
        if name != known:
            raise ChatError("not_found", f"no {kind} {name}")
        return (kind, name)

    def user(self, name):
        return self._find("user", name, "bob")

    def channel(self, name):
        return self._find("channel", name, "lobby")

    def role(self, name):
        return self._find("role", name, "owner")

    def command(self, name):
        return self._find("command", name, "ban")


def parse(function, text):
    return bind(arguments_of(function), text, Names())


def problem(function, text):
    with pytest.raises(ArgumentProblem) as caught:
        parse(function, text)
    return str(caught.value)


def one(kind):
    """A command with one argument of *kind*."""

    def function(ctx, it): ...

    function.__annotations__["it"] = kind
    return function


def words(ctx, first: str, second: str = ""): ...


def say(ctx, user: User, text: Rest): ...


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a b", ["a", "b"]),
        ("a", ["a"]),
        ("  a \t b \n", ["a", "b"]),
        ('"a b" c', ["a b", "c"]),
        ('"a\nb"', ["a\nb"]),
        (r'"say \"hi\" \\ \n" ok', [r'say "hi" \ \n', "ok"]),
        ('it"s 5"', ['it"s', '5"']),
        ('"" ""', ["", ""]),
        ('"a\\\nb" c', ["a\\\nb", "c"]),
        ("a\u3000b", ["a", "b"]),
    ],
)
def test_words(text, values):
    assert list(parse(words, text).values()) == values


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "<first> is missing"),
        (" \n", "<first> is missing"),
        ("a b c d", '"c d" is too much'),
        ('"a', "quotation mark"),
        ('a "', "quotation mark"),
        ('"a"b', "quotation mark"),
        ('"a\\"', "quotation mark"),
    ],
)
def test_wrong_words(text, says):
    assert says in problem(words, text)


def test_all_that_is_missing_is_named():
    assert problem(say, "") == "<user> and <text> are missing"
    assert problem(say, "bob  ") == "<text> is missing"


def test_rest_is_verbatim():
    assert parse(say, 'bob  "Hi"  there\n\tyou ') == {"user": ("user", "bob"), "text": '"Hi"  there\n\tyou '}

    def shout(ctx, *rest: str): ...

    assert parse(shout, " a  b") == {"rest": "a  b"}
    assert parse(shout, " ") == {}
    assert [str(argument) for argument in arguments_of(shout)] == ["(rest)"]


def sanction(ctx, who: str, duration: Duration | None = None, reason: Rest = ""): ...


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("bob", {"who": "bob"}),
        ("bob 2h", {"who": "bob", "duration": 7200}),
        ("bob 2H spam  and\nmore", {"who": "bob", "duration": 7200, "reason": "spam  and\nmore"}),
        ("bob spam 2h", {"who": "bob", "duration": None, "reason": "spam 2h"}),
        ('bob  "2h" is no', {"who": "bob", "duration": None, "reason": '"2h" is no'}),
        ('bob "spam', {"who": "bob", "duration": None, "reason": '"spam'}),
        ("bob 2hours", {"who": "bob", "duration": None, "reason": "2hours"}),
        ("bob -- 2h", {"who": "bob", "duration": None, "reason": "-- 2h"}),
    ],
)
def test_a_duration_before_the_rest_may_be_left_out(text, values):
    assert parse(sanction, text) == values


def test_one_that_is_none_of_the_allowed_is_no_reason():
    assert problem(sanction, "bob 0s spam") == "(duration): a duration is more than nothing and at most ten years"


def test_a_duration_that_must_be_there_is_not_left_out():
    def remind(ctx, when: Duration, what: Rest): ...

    def pause(ctx, when: Duration | None = None, then: str = ""): ...

    assert problem(remind, "tea is ready") == '<when>: "tea" is no duration; 30s, 10m, 2h, 7d and 1h30m are'
    assert problem(pause, "tea") == '(when): "tea" is no duration; 30s, 10m, 2h, 7d and 1h30m are'


def test_nothing_is_resolved_before_the_number_of_arguments_is_right():
    resolver = Names()
    with pytest.raises(ArgumentProblem):
        bind(arguments_of(say), "bob", resolver)
    assert resolver.asked == []


# ---------------------------------------------------------------- kinds


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (str, "x", "x"),
        (int, "-12", -12),
        (int, "+7", 7),
        (float, "2.5", 2.5),
        (float, ".5", 0.5),
        (float, "3", 3.0),
        (bool, "YES", True),
        (bool, "off", False),
        (Literal["Soft", "hard"], "soft", "Soft"),
        (Literal[1, 2], "2", 2),
        (Duration, "30s", 30),
        (Duration, "10M", 600),
        (Duration, "1h30m", 5400),
        (Duration, "7d", 7 * 86400),
        (Duration, "2w", 14 * 86400),
        (User, "bob", ("user", "bob")),
        (User, "@bob", ("user", "bob")),
        (Channel, "lobby", ("channel", "lobby")),
        (Channel, "#lobby", ("channel", "lobby")),
        (ChannelName, "#new", "new"),
        (Role, "owner", ("role", "owner")),
        (Command, "ban", ("command", "ban")),
        (Command, "//ban", ("command", "ban")),
        (Secret, "hush", "hush"),
        (Secret | None, "hush", "hush"),
        (Rest, "a b", "a b"),
        (int | None, "5", 5),
        (Annotated[int, Meta(ge=1, le=500)], "500", 500),
        (Annotated[Duration, Meta(le=3600)], "1h", 3600),
        (Annotated[str, Meta(min_length=2, max_length=3)], "abc", "abc"),
        (Annotated[Rest, Meta(max_length=3)], "a b", "a b"),
    ],
)
def test_kinds(kind, text, value):
    (got,) = parse(one(kind), text).values()
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        (int, "x", '"x" is no whole number'),
        (int, "1.5", "no whole number"),
        (int, "٣", "no whole number"),  # Arabic-Indic 3: int() would take it
        (int, "1_000", "no whole number"),
        (int, "9" * 5000, "no whole number"),
        (float, "nan", "no number"),
        (float, "inf", "no number"),
        (float, "1e5", "no number"),
        (float, ".", "no number"),
        (bool, "maybe", "neither yes nor no"),
        (Literal["soft", "hard"], "medium", '"medium" is none of soft, hard'),
        (Duration, "30", "no duration"),
        (Duration, "0s", "more than nothing"),
        (Duration, "11000d", "at most ten years"),
        (Duration, "1h30", "no duration"),
        (Duration, "-5m", "no duration"),
        (Duration, "9" * 5000 + "s", "no duration"),
        (Annotated[int, Meta(ge=1, le=500)], "501", "it must be 1 to 500"),
        (Annotated[int, Meta(ge=1, le=500)], "0", "it must be 1 to 500"),
        (Annotated[float, Meta(ge=0.5)], "0.4", "at least 0.5"),
        (Annotated[Duration, Meta(le=3600)], "2h", "at most 3600 seconds"),
        (Annotated[str, Meta(max_length=3)], "abcd", "at most 3 characters"),
    ],
)
def test_wrong_kinds(kind, text, says):
    told = problem(one(kind), text)
    assert told.startswith("<it>: ")
    assert says in told
    assert len(told) < 200


def test_what_a_resolver_says_is_told_as_it_is():
    with pytest.raises(ChatError, match="no user alice") as refusal:
        parse(say, "@alice hello")
    assert refusal.value.code == "not_found"


def test_annotations_may_be_nested():
    (argument,) = arguments_of(one(Annotated[Secret | None, Meta(min_length=2)]))
    assert argument.secret
    assert "at least 2" in problem(one(Annotated[Secret | None, Meta(min_length=2)]), "x")


def test_a_secret_is_never_repeated():
    assert "hunter2" not in problem(one(Annotated[Secret, Meta(min_length=8)]), "hunter2")


# ---------------------------------------------------------------- signatures


def test_what_a_signature_tells():
    def function(ctx, channel_name: ChannelName, mode: Literal["a", "b"], password: Secret | None = None): ...

    name, mode, password = arguments_of(function)
    assert (name.parameter, name.name, name.kind.name, name.required, name.secret) == (
        "channel_name",
        "channel-name",
        "channel-name",
        True,
        False,
    )
    assert mode.kind.choices == ("a", "b")
    assert (password.required, password.secret, password.kind.name) == (False, True, "word")


def test_annotations_may_be_strings_and_those_of_the_context_unknown():
    def function(ctx: "NeverImported", text: "Rest" = "") -> "AlsoNever": ...  # noqa: F821

    (argument,) = arguments_of(function)
    assert argument.rest


def no_context(): ...
def only_keyword(ctx, *, x: str): ...
def many_keywords(ctx, **x: str): ...
def bare(ctx, x): ...
def two_kinds(ctx, x: int | str): ...
def unknown(ctx, x: bytes): ...
def anything(ctx, x: Any): ...
def after_rest(ctx, x: Rest, y: str): ...
def many_numbers(ctx, *x: int): ...
def missing_name(ctx, x: "Nowhere"): ...  # noqa: F821
def wrong_bound(ctx, x: Annotated[int, Meta(max_length=3)]): ...
def open_bound(ctx, x: Annotated[int, Meta(gt=3)]): ...
def bounded_user(ctx, x: Annotated[User, Meta(min_length=3)]): ...


@pytest.mark.parametrize(
    "function",
    [
        *(no_context, only_keyword, many_keywords, bare, two_kinds, unknown, anything, after_rest, many_numbers, missing_name),
        *(wrong_bound, open_bound, bounded_user),
    ],
)
def test_signatures_that_cannot_be_commands(function):
    with pytest.raises(TypeError, match=r"parameter"):
        arguments_of(function)


# ---------------------------------------------------------------- properties


def everything(
    ctx,
    word: str,
    number: Annotated[int, Meta(ge=0)],
    real: float,
    switch: bool,
    choice: Literal["a", "b"],
    how_long: Duration,
    user: User,
    channel: Channel = None,
    role: Role = None,
    command: Command = None,
    text: Rest = "",
): ...


TOKENS = st.sampled_from(
    ["a", "0", "1.5", "yes", "5m", "bob", "@bob", "#lobby", "owner", "ban", '"', '"a b"', "\\", '\\"', "-", "\n", "\u2028"]
)


@given(st.one_of(st.text(), st.lists(TOKENS, max_size=14).map(" ".join), st.lists(TOKENS, max_size=14).map("".join)))
def test_any_text_gives_values_or_the_two_refusals(text):
    for function in (everything, words, say):
        try:
            values = parse(function, text)
        except (ArgumentProblem, ChatError):
            continue
        assert set(values) <= {argument.parameter for argument in arguments_of(function)}
        assert all(argument.parameter in values for argument in arguments_of(function) if argument.required)


@given(st.lists(st.text(), min_size=2, max_size=2))
def test_quoting_lets_any_words_through(pair):
    quoted = " ".join('"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"' for word in pair)
    assert list(parse(words, quoted).values()) == pair


@pytest.mark.parametrize("unit", ['"', '\\"', '"a', "a ", '"" ', " ", "\\", "9", "@", "/", '"\\'])
def test_the_time_is_linear(unit):
    """Quadratic would be hours here; what is allowed is a hundred times what it takes."""
    text = unit * 200_000
    began = time.perf_counter()
    for function in (everything, words, say, one(Duration), one(int), one(Command)):
        for start in ("", "bob ", '"'):
            with contextlib.suppress(ArgumentProblem, ChatError):
                parse(function, start + text)
    assert time.perf_counter() - began < 3


def test_shown_is_short_and_flat():
    assert a.shown("a\n b") == '"a b"'
    assert len(a.shown("x" * 10**6)) < 40
