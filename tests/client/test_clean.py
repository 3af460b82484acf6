"""Nothing of a remote can move the cursor, colour, reorder or hide."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.client.clean import clean

STEERING = "\x1b\x9b[]0;m\x07\x00\r\n\t\x7f\x85\u202e\u2066\u200b\u200d\u0301\u2028a"
NASTY = st.text(alphabet=st.one_of(st.characters(), st.sampled_from(STEERING)))


@given(NASTY, st.booleans())
def test_nothing_that_steers_a_terminal_is_left(text, lines):
    shown = clean(text, lines=lines)
    for char in shown:
        if char == "\n":
            assert lines
        elif char not in "\u200c\u200d":
            assert unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
    shown.encode()


@given(NASTY)
def test_cleaning_twice_is_cleaning_once(text):
    assert clean(clean(text, lines=True), lines=True) == clean(text, lines=True)


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"])))
def test_what_is_harmless_stays(text):
    assert clean(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "␛[2J␛]0;title␇"),
        ("\x9b31mred", "\ufffd31mred"),
        ("evil\u202etxt.exe", "eviltxt.exe"),
        ("two\nlines", "two␊lines"),
        ("👩\u200d💻 日本語", "👩\u200d💻 日本語"),
        ("e" + "\u0301" * 50, "e" + "\u0301" * 4),
        ("\u0301\u200dstart", "start"),
    ],
)
def test_examples(text, shown):
    assert clean(text) == shown
