"""Which names are allowed, which are the same, and which look the same."""
# ruff: noqa: RUF001 - that letters look alike is what this is about

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.errors import ChatError
from chat.protocol import names
from chat.protocol.names import channel_conv, channel_name, parse_conv, private_conv, user_name


def refused(make, raw):
    with pytest.raises(ChatError) as caught:
        make(raw)
    assert caught.value.code == "bad_name"
    assert caught.value.message.isascii()  # nothing that was sent is shown back, but for plain characters
    return caught.value.message


def outcome(make, raw):
    """The name, None for a bad one."""
    try:
        return make(raw)
    except ChatError:
        refused(make, raw)
        return None


@pytest.mark.parametrize(
    "raw",
    ["a", "Ann", "ann_b", "ann-b", "ann.b", "_ann_", "1337", "a1", "Алиса", "Ελένη", "שלום", "علی", "名前", "かなカナ漢字", "한국",
     "注音ㄓ", "Ærøskøbing", "नेहा", "ann" * 10],
)  # fmt: skip
def test_names_that_are_allowed(raw):
    for make in (user_name, channel_name):
        name = make(raw)
        assert name.shown == raw
        assert make(name.canonical).canonical == name.canonical
        assert make(name.shown) == name


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("", "empty"), ("a b", "not spaces"), (" a", "not spaces"), ("#a", "'#'"), ("@a", "'@'"), ("a/b", "'/'"), ("a,b", "','"),
        ("a:b", "':'"), ("a;b", "';'"), ("a*", r"'\*'"), ("a\\b", r"'\\'"), ('a"b', "'\"'"), ("a'b", "'.'"), ("<a>", "'<'"), ("a%b", "'%'"),
        ("~a", "'~'"), ("a(b)", r"'\('"), ("a!", "'!'"), ("a?", r"'\?'"), ("a$b", r"'\$'"), ("a&b", "'&'"), ("-a", "begin or end"),
        (".a", "begin or end"), ("a-", "begin or end"), ("a.", "begin or end"), ("..", "begin or end"), ("_", "letter or a digit"),
        ("__", "letter or a digit"), ("a\n", r"U\+000A"), ("a\x00b", r"U\+0000"), ("a\x7f", r"U\+007F"), ("a\x85", r"U\+0085"),
        ("a\u202eb", r"U\+202E"), ("a\u200bb", r"U\+200B"), ("a\u200db", r"U\+200D"), ("a\u2066b", r"U\+2066"), ("\ufeffa", r"U\+FEFF"),
        ("a\u00adb", r"U\+00AD"), ("a\u00a0b", r"U\+00A0"), ("a\u3000b", r"U\+3000"), ("a\u2028b", r"U\+2028"), ("a\ue000", r"U\+E000"),
        ("a\ud800", r"U\+D800"), ("😀", r"U\+1F600"), ("½", r"U\+00BD"), ("a\u034fb", "not allowed"), ("a\ufe0f", "not allowed"),
        ("\u3164", "not allowed"), ("\u115f", "not allowed"), ("ﬁ", "plain one"), ("𝐚", "plain one"), ("\u0301a", "accent"),
        ("a\u0301\u0302\u0303\u0304\u0305", "accent"), ("1א", "right to left"), ("aא", "right to left|mix"),
        ("аlice", "Cyrillic and Latin"), ("aΩ", "Greek and Latin"), ("Алисa", "Cyrillic and Latin"), ("кα", "Cyrillic and Greek"),
        ("ひ한", "mix"),
    ],
)  # fmt: skip
def test_names_that_are_not_allowed_and_why(raw, why):
    for make in (user_name, channel_name):
        message = refused(make, raw)
        assert re.search(why, message), message


def test_lengths_are_of_characters_as_they_are_composed():
    for make, limit in ((user_name, 32), (channel_name, 64)):
        assert make("x" * limit).shown == "x" * limit
        assert make("e\u0301" * limit).shown == "é" * limit
        assert make("名" * limit)
        for raw in ("x" * (limit + 1), "e\u0301" * (limit + 1), "x" * 100_000):
            assert f"at most {limit} characters" in refused(make, raw)


def test_a_name_too_long_never_reaches_the_cache():
    before = names._name.cache_info().currsize
    refused(user_name, "y" * 33)
    assert names._name.cache_info().currsize == before


@pytest.mark.parametrize("raw", ["me", "Me", "ME", "server", "system", "everyone", "all", "aII", "a11", "here", "rne"])
def test_reserved_names_are_for_nobody_but_channels_may_have_them(raw):
    assert "reserved" in refused(user_name, raw)
    assert channel_name(raw)


@pytest.mark.parametrize("raw", ["ali", "mel", "hero", "servers"])
def test_names_near_the_reserved_ones_are_free(raw):
    assert user_name(raw)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Ann", "ann"), ("Straße", "STRASSE"), ("Ａnn", "ann"), ("Zoe\u0308", "Zoë"), ("ΣΊΣΥΦΟΣ", "σίσυφος"), ("Алиса", "АЛИСА"),
     ("ｶﾅ", "カナ")],
)  # fmt: skip
def test_the_same_name_written_otherwise(one, other):
    assert user_name(one).canonical == user_name(other).canonical


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("alice", "AIice"), ("alice", "a1ice"), ("alice", "aIice"), ("allie", "aIIie"), ("bob", "b0b"), ("BOB", "ВОВ"), ("mary", "rnary"),
        ("tom", "torn"), ("cop", "сор"), ("paypal", "paypaI"), ("O0", "0O"), ("lI1", "1lI"), ("TOM", "ΤΟΜ"), ("ooo", "ооо"),
    ],
)  # fmt: skip
def test_names_that_look_alike(one, other):
    assert user_name(one).canonical != user_name(other).canonical
    assert user_name(one).skeleton == user_name(other).skeleton


@pytest.mark.parametrize(
    ("one", "other"), [("Ali", "All0"), ("Neil", "Nell"), ("ann", "anna"), ("jon", "john"), ("bat", "ват"), ("a-b", "a_b"), ("ab", "a.b")]
)
def test_names_that_are_only_similar(one, other):
    assert user_name(one).canonical != user_name(other).canonical
    assert user_name(one).skeleton != user_name(other).skeleton


def test_after_the_warm_up_no_table_is_left_to_be_read():
    names.look_alikes.cache_clear()
    names._name.cache_clear()
    names.warm_up()
    read = names.look_alikes.cache_info().misses
    user_name("ann")
    assert (names.look_alikes.cache_info().misses, read) == (1, 1)


def test_what_is_shown_is_what_was_written():
    assert user_name("McDuck").shown == "McDuck"
    assert user_name("Zoe\u0308").shown == "Zoë"


@given(st.text(st.characters() | st.sampled_from("aAzZ09_-.éжאعか漢\u0301"), max_size=40))
def test_any_string_is_a_name_or_bad_name(raw):
    if (name := outcome(user_name, raw)) is None:
        return
    assert 1 <= len(name.shown) <= 32
    assert unicodedata.normalize("NFC", name.shown) == name.shown
    assert not any(unicodedata.category(character)[0] in "CZ" for character in name.shown)
    assert name.canonical == unicodedata.normalize("NFKC", name.canonical)
    for variant in (name.shown.upper(), name.shown.lower(), unicodedata.normalize("NFD", raw)):
        if (same := outcome(user_name, variant)) is None:
            continue  # capitals can be more characters: ß is SS
        if variant.casefold() == name.shown.casefold():
            assert same.canonical == name.canonical


@given(st.text(st.sampled_from("abcilmnrostvwxyzIO01_.-ABCM"), min_size=1, max_size=32))
def test_the_same_canonical_form_in_ascii_means_lower_case(raw):
    name = outcome(channel_name, raw)
    assert (name is None) == (raw[0] in "-." or raw[-1] in "-." or not raw.strip("_-."))
    if name is None:
        return
    assert name.canonical == raw.lower()
    assert channel_name(raw.replace("m", "rn")).skeleton == name.skeleton
    assert channel_name(raw.replace("0", "O").replace("1", "l").replace("I", "l")).skeleton == name.skeleton


# ---------------------------------------------------------------- conversations


def test_a_conversation_is_a_sigil_and_a_name():
    assert parse_conv("#lobby") == ("#", "lobby")
    assert parse_conv("@ann") == ("@", "ann")
    assert parse_conv(channel_conv("Straße")) == ("#", "Straße")
    assert parse_conv(private_conv("Zoë")) == ("@", "Zoë")
    assert parse_conv("##") == ("#", "#")  # the name is looked up, or not found


@pytest.mark.parametrize("conv", ["", "#", "@", "lobby", " #lobby", "!lobby", "＃lobby"])
def test_anything_else_is_no_conversation(conv):
    with pytest.raises(ChatError, match="bad_request"):
        parse_conv(conv)
