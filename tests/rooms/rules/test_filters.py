"""The word filter: what it finds, that a naive matcher finds the same, and that no rule makes it slow."""

import fnmatch
import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.errors import ChatError
from chat.rooms.rules import filters
from chat.rooms.rules.filters import WordFilter, check, fold


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("spam", "Spam!"),
        ("spam", "no more SPAM, please"),
        ("spam", "sp\u0430m"),  # a Cyrillic a
        ("spam", "s\u200bpam"),
        ("spam", "späm"),
        ("spam", "\uff53\uff50\uff41\uff4d"),  # full width
        ("SPÄM", "spam"),
        ("buy now", "BUY... now?"),
        ("buy now", "buy\nnow"),
        ("example.com", "see http://example.com/x"),
        ("spam*", "spammers"),
        ("spam*", "spam"),
        ("*coin*", "altcoins"),
        ("fr?e", "free, frie"),
        ("f*k y*", "funk yeah"),
        ("straße", "STRASSE"),
        ("*词*", "生词表"),
    ],
)
def test_what_a_rule_finds(rule, text):
    assert WordFilter(["other", "two words", "un*related", rule]).find(text) == rule


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("spam", "spammer"),
        ("buy now", "now buy"),
        ("buy now", "buy it now"),
        ("fr?e", "fre"),
        ("*coin", "coins"),
        ("a*b", "a b"),
        ("bum", "burn"),
    ],
)
def test_what_it_does_not(rule, text):
    assert WordFilter([rule]).find(text) is None


@pytest.mark.parametrize("rule", ["", "  ", "*", "?*", "...", "x" * 65])
def test_no_rules(rule):
    with pytest.raises(ChatError) as refused:
        check(rule)
    assert refused.value.code == "bad_request"


def naive(rules, text):
    """Word by word, with the matcher of the standard library."""
    words = re.findall(r"\w+", fold(text))
    for rule in rules:
        wanted = [fnmatch.translate(part) for part in rule.split()]
        for at in range(len(words) - len(wanted) + 1):
            if all(re.match(part, word) for part, word in zip(wanted, words[at:], strict=False)):
                return True
    return False


letters = st.text("ab", min_size=1, max_size=6)
globs = st.text("ab*?", min_size=1, max_size=6).filter(lambda rule: re.search("[ab]", rule))
phrases = st.lists(globs, min_size=1, max_size=3).map(" ".join)


@given(st.lists(phrases, min_size=1, max_size=4), st.lists(letters, max_size=6).map(" ".join))
def test_it_finds_what_a_naive_matcher_finds(rules, text):
    assert (WordFilter(rules).find(text) is not None) == naive(rules, text)


@pytest.mark.parametrize("rule", ["a*" * 31 + "b", "*a" * 31 + "b", "?*" * 15 + "b c", "a* " * 20 + "b", "*a*a*a*a*a*a*a*a*a*a*a*b"])
@pytest.mark.parametrize("text", ["{a}", "{a} b", "x{a}b", "a ", "aa "])
def test_no_text_and_no_rule_keep_it_busy(rule, text):
    """About 10 ms, and often less. With the square of the text's length it would be seconds, and with backtracking for ever."""
    words = WordFilter([rule])
    long = text.format(a="a" * 16_000) if "{a}" in text else text * (16_000 // len(text))
    start = time.thread_time()
    words.find(long)
    assert time.thread_time() - start < 0.3


MARKS = sorted((c for c in map(chr, range(0x3100)) if unicodedata.combining(c)), key=unicodedata.combining, reverse=True)


def fold_at_once(text):
    """`fold` as it is meant: it sorts the marks of the whole text."""
    flat = unicodedata.normalize("NFKD", text).translate(filters._INVISIBLE)
    flat = "".join(character for character in flat if not unicodedata.combining(character))
    return unicodedata.normalize("NFKC", flat).casefold().translate(filters._look_alikes())


odd = st.sampled_from(
    ["\u0301", "\u0327", "\u0f73", "\uff9e", "\u1100", "\u1161", "\u11a8", "\uac00", "\u200b", "\ufdfa", "\u0344", "ﬁ", "\u0430"]
)


@given(st.text(st.one_of(st.characters(), odd, st.sampled_from(MARKS)), max_size=120))
def test_folding_piece_by_piece_is_folding_at_once(text):
    assert fold(text) == fold_at_once(text)


@pytest.mark.parametrize(
    "text", ["a" + "".join(MARKS[i * len(MARKS) // 8000] for i in range(8000)), "\u0f73" * 5000, "\uff9e\u0f73" * 2500]
)
def test_marks_are_never_sorted_many_at_once(text, monkeypatch):
    """Sorting takes the square of how many stand in a row: 160 ms for the first of these."""
    runs = []

    def normalize(form, what, really=unicodedata.normalize):
        runs.append(max(map(len, re.findall("x*", "".join("x" if unicodedata.combining(c) else " " for c in really("NFKD", what))))))
        return really(form, what)

    expected = fold_at_once(text)
    monkeypatch.setattr(unicodedata, "normalize", normalize)
    assert fold(text) == expected
    assert max(runs) <= 64
