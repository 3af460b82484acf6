"""Names of people and channels: which are allowed, and when two are the same or look the same.

A name has three forms. *shown* is what its owner wrote (in NFC). *canonical* is what it is looked up by: PRECIS UsernameCaseMapped, then
casefolded NFKC, so that ``Straße`` is found as ``STRASSE``. *skeleton* is equal for names that look alike, and a name is taken when
either its canonical form or its skeleton is: ``paypaI`` and ``paypal`` cannot be two people.

What is allowed: letters and digits of any script, the marks that belong to them, and ``_``, ``-``, ``.`` inside. PRECIS alone would let
all of printable ASCII pass; the rest of its punctuation means something in commands, conversations and shells. A name begins and ends
with a letter, a digit or ``_`` (no ``-x`` that a shell takes for an option, no ``.x`` that hides a file, no ``x.`` that ends a sentence),
and has a letter or digit somewhere. Digits alone are a name: nothing here addresses anything by number.

Invisible and bidi characters, spaces and emoji are not in PRECIS's identifier class. The direction of a name is checked by its bidi
rule. Joiners are refused although PRECIS allows them after a virama: nobody sees the difference. Scripts are not mixed, but for the
usual companies of Chinese, Japanese and Korean (UTS 39, "highly restrictive"). At most three marks follow one letter.

The skeleton is UTS 39's, made twice: of the name as it is written, because ``AIice`` looks like ``Alice`` and a Russian VOV like ``BOB``
only in capitals, and again after casefolding. ``i`` and ``l`` stay two letters, or Ali would be kept out where there is an All.

*Source*: contract, section 7, "names". Measured: 16 to 30 µs for a name seen first, 0.2 µs from the cache; the tables are read at first use
(50 ms), since a client that only shows names does not need them.
"""

import functools
import json
import re
import unicodedata
from collections.abc import Callable
from typing import Final, Literal

import attrs

from chat.errors import ChatError

USER_CHARACTERS: Final = 32
CHANNEL_CHARACTERS: Final = 64

# Not to be had by anybody: what a client, a command or a person could take for something else than an account.
RESERVED: Final = ("me", "server", "system", "everyone", "all", "here")

_MARKS_IN_A_ROW: Final = 3
_CACHED_NAMES: Final = 8192  # about 4 MiB when full
_SPECIAL: Final = frozenset("_-.")


@attrs.frozen(kw_only=True)
class Name:
    """A valid name. Two are the same when their ``canonical`` is, and too alike for both to be when their ``skeleton`` is."""

    shown: str
    canonical: str
    skeleton: str


def warm_up() -> None:
    """Read the tables now, and not at first use. It takes 0.1 s and, for a moment, 9 MB: a server does it while nobody waits for it."""
    channel_name("warm")


def user_name(raw: str) -> Name:
    """The user name *raw*, 1 to 32 characters. *Raises* ChatError bad_name, saying why."""
    _check_length("user", raw, USER_CHARACTERS)
    name = _name(raw)
    if name.skeleton in _reserved():
        raise ChatError("bad_name", "this name is reserved")
    return name


def channel_name(raw: str) -> Name:
    """The channel name *raw*, 1 to 64 characters, without the ``#`` of a conversation. *Raises* ChatError bad_name, saying why."""
    _check_length("channel", raw, CHANNEL_CHARACTERS)
    return _name(raw)


# ---------------------------------------------------------------- conversations


Sigil = Literal["#", "@"]


def channel_conv(shown: str) -> str:
    """The conversation of a channel, as it is on the wire."""
    return f"#{shown}"


def private_conv(shown: str) -> str:
    """The private conversation with a person (the other one), as it is on the wire."""
    return f"@{shown}"


def parse_conv(conv: str) -> tuple[Sigil, str]:
    """``#lobby`` is ``("#", "lobby")``, ``@ann`` is ``("@", "ann")``. The name itself is not checked.

    *Raises* ChatError bad_request for anything else.
    """
    name = conv[1:]
    if name and conv[0] == "#":
        return "#", name
    if name and conv[0] == "@":
        return "@", name
    raise ChatError("bad_request", "`conv` must be #channel or @user")


# ---------------------------------------------------------------- what is allowed


def _check_length(kind: str, raw: str, characters: int) -> None:
    # Before anything else: what follows takes time by the character, and the cache keeps the key.
    if not raw:
        raise ChatError("bad_name", f"a {kind} name must not be empty")
    if len(raw) > 2 * characters or len(unicodedata.normalize("NFC", raw)) > characters:
        raise ChatError("bad_name", f"a {kind} name must have at most {characters} characters")


@functools.lru_cache(maxsize=_CACHED_NAMES)
def _name(raw: str) -> Name:
    shown = unicodedata.normalize("NFC", raw)
    _check_characters(shown)
    try:
        mapped: str = _precis()(shown)
    except UnicodeEncodeError as problem:
        raise ChatError("bad_name", _precis_reason(shown, problem.reason)) from None
    _check_scripts(mapped)
    canonical = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", mapped).casefold())
    return Name(shown=shown, canonical=canonical, skeleton=_skeleton(shown))


def _check_characters(shown: str) -> None:
    marks = 0
    for index, character in enumerate(shown):
        category = unicodedata.category(character)
        marks = marks + 1 if category[0] == "M" else 0
        if (marks and index == 0) or marks > _MARKS_IN_A_ROW:
            raise ChatError("bad_name", "a name must not begin with an accent or pile accents up")
        if not (category[0] in "LM" or category == "Nd" or character in _SPECIAL):
            raise ChatError("bad_name", f"a name may have letters, digits, '_', '-' and '.', but not {_harmless(character)}")
    if shown[0] in "-." or shown[-1] in "-.":
        raise ChatError("bad_name", "a name must not begin or end with '-' or '.'")
    if all(character in _SPECIAL for character in shown):
        raise ChatError("bad_name", "a name must have a letter or a digit")


def _harmless(character: str) -> str:
    """A character in words: what is no plain ASCII could do harm where the message is shown."""
    if character == " ":
        return "spaces"
    return f"'{character}'" if character.isascii() and character.isprintable() else f"U+{ord(character):04X}"


_REASONS: Final = {
    "bidi_rule": "letters written from right to left do not go with this",
    "has_compat": "a character of it is only another form of a plain one",
    "unassigned": "a character of it is unknown to this version of Unicode",
}


def _precis_reason(shown: str, reason: str) -> str:
    rule = reason.rpartition("/")[2]
    return "this name is not allowed: " + _REASONS.get(rule, f"the rules for user names refuse it ({rule.replace('_', ' ')})")


_COMPANIES: Final = tuple(
    frozenset(scripts.split()) for scripts in ("LATIN HAN HIRAGANA KATAKANA", "LATIN HAN HANGUL", "LATIN HAN BOPOMOFO")
)


def _check_scripts(mapped: str) -> None:
    from confusable_homoglyphs import categories  # type: ignore[import-untyped]

    scripts = {script.upper() for script in map(categories.alias, mapped)} - {"COMMON", "INHERITED"}
    if len(scripts) > 1 and not any(scripts <= company for company in _COMPANIES):
        raise ChatError("bad_name", f"a name must not mix the letters of {' and '.join(sorted(map(str.title, scripts)))}")


@functools.cache
def _precis() -> Callable[[str], str]:
    from precis_i18n import get_profile

    enforce: Callable[[str], str] = get_profile("UsernameCaseMapped").enforce
    return enforce


# ---------------------------------------------------------------- what looks alike


@functools.cache
def _reserved() -> frozenset[str]:
    return frozenset(_name(word).skeleton for word in RESERVED)


def _skeleton(shown: str) -> str:
    prototypes = look_alikes()
    as_written = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", shown)).translate(prototypes)
    return unicodedata.normalize("NFD", unicodedata.normalize("NFKC", as_written.casefold())).translate(prototypes)


@functools.cache
def look_alikes() -> dict[int, str]:
    """Every character that looks like another, with the one that stands for all of its kind: 0 → O, 1 → l, m → rn, a Cyrillic a → a.

    The package's file lists each pair in both directions: what has many partners is what they all look like.
    """
    from confusable_homoglyphs import utils

    with open(utils.path("confusables.json"), encoding="utf-8") as file:  # not its `confusables` module, which keeps all of it
        pairs: dict[str, list[dict[str, str]]] = json.load(file)
    likes = {_plain(key): [_plain(item["c"]) for item in items] for key, items in pairs.items()}
    return {
        ord(character): others[0]
        for character, others in likes.items()
        if len(character) == 1
        and len(others) == 1
        and (len(others[0]) > 1 or len(likes[others[0]]) > 1 or others[0] < character)  # of a pair alone, the first stands for both
    }


_DIRECTION_MARKS: Final = re.compile("[\u200e\u200f]")


def _plain(characters: str) -> str:
    return _DIRECTION_MARKS.sub("", characters)  # the file wraps what is written from right to left
