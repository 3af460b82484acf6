import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.styles.named_colors import NAMED_COLORS as OTHERS_TABLE

from chat.colors import DARK, LIGHT, MIN_CONTRAST, NAMED, contrast, default_color, is_readable, nearby, parse_color
from chat.errors import ChatError


def outcome(text):
    try:
        return parse_color(text)
    except ChatError as error:
        return error.code


hex_colors = st.integers(0, 0xFFFFFF).map("#{:06x}".format)


def test_the_table_is_that_of_css():
    assert len(NAMED) == 148
    assert {name.lower(): value.lower() for name, value in OTHERS_TABLE.items()} == NAMED


@pytest.mark.parametrize(
    ("a", "b", "ratio"),
    # figures of the WebAIM contrast checker
    [("#000000", "#ffffff", 21), ("#777777", "#ffffff", 4.48), ("#ff0000", "#ffffff", 4.0), ("#0000ff", "#ffffff", 8.59)],
)
def test_contrast_is_that_of_wcag(a, b, ratio):
    assert contrast(a, b) == contrast(b, a) == pytest.approx(ratio, abs=0.006)


@pytest.mark.parametrize(
    ("text", "color"),
    [
        ("teal", "#008080"),
        ("Royal Blue", "#4169e1"),
        ("slate-grey", "#708090"),
        (" RED ", "#ff0000"),
        ("#087", "#008877"),
        ("#C71585", "#c71585"),
    ],
)
def test_names_and_hex_are_taken(text, color):
    assert parse_color(text) == color


@pytest.mark.parametrize(
    ("text", "background"),
    [
        ("black", "dark"),
        ("navy", "dark"),
        ("#00f", "dark"),
        ("yellow", "light"),
        ("white", "light"),
        ("#eee", "light"),
        ("orange", "light"),
    ],
)
def test_a_vanishing_colour_is_refused_with_the_background_and_a_way_out(text, background):
    with pytest.raises(ChatError) as refusal:
        parse_color(text)
    assert refusal.value.code == "bad_request"
    assert f"vanishes on a {background} background" in refusal.value.message
    (way_out,) = re.findall(r"try (#[0-9a-f]{6})", refusal.value.message)
    assert parse_color(way_out) == way_out


@pytest.mark.parametrize(
    "text",
    ["", " ", "#", "#12", "#12345", "#1234567", "#ggg", "123456", "transparent", "rgb(1,2,3)", "#\uff11\uff12\uff13", "x" * 9999],
)
def test_what_is_no_colour_is_refused(text):
    with pytest.raises(ChatError, match="is no colour") as refusal:
        parse_color(text)
    assert refusal.value.code == "bad_request"
    assert len(refusal.value.message) < 200


def test_a_slip_of_the_pen_gets_a_suggestion_that_would_be_accepted():
    with pytest.raises(ChatError, match=r"did you mean .*royalblue"):
        parse_color("royalblu")


def test_the_palette_is_decent():
    usable = {name for name, value in NAMED.items() if is_readable(value)}
    assert len(usable) == 36
    assert {"red", "green", "teal", "olive", "magenta", "gray", "royalblue", "crimson", "chocolate"} <= usable


@given(st.text(max_size=80))
def test_garbage_gives_a_colour_or_bad_request(text):
    assert re.fullmatch("#[0-9a-f]{6}|bad_request", outcome(text))


@given(hex_colors)
def test_accepted_is_readable_on_both_and_refused_has_a_readable_neighbour(color):
    try:
        assert min(contrast(parse_color(color), DARK), contrast(color, LIGHT)) >= MIN_CONTRAST
    except ChatError:
        assert min(contrast(color, DARK), contrast(color, LIGHT)) < MIN_CONTRAST
    assert is_readable(nearby(color))


@given(st.text())
def test_default_colours_are_readable_and_stay(name):
    color = default_color(name)
    assert parse_color(color) == color
    assert min(contrast(color, DARK), contrast(color, LIGHT)) >= 4.0
    assert default_color(name) == color


def test_default_colours_differ_and_survive_a_restart():
    assert len({default_color(f"user{n}") for n in range(1000)}) > 300
    assert default_color("alice") == "#1483bb"
