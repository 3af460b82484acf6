"""No control character of a remote ever reaches the terminal: the one function that every text goes through on its way out.

What it takes away: C0, DEL and C1 (so every escape sequence), line and paragraph separators, everything that reorders or hides text
(bidi controls, zero-width characters, tags), half surrogates, noncharacters, and a heap of accents on one letter. C0 is shown as its
picture (ESC as ␛), other controls as U+FFFD, what has no width vanishes. The joiners that emoji and Persian need stay, between
characters that have a width.
"""

import re
import unicodedata
from typing import Final

_ACCENTS: Final = 4
_PLAIN: Final = re.compile(r"[\x20-\x7e]*")
_JOINERS: Final = "\u200c\u200d"


def clean(text: str, *, lines: bool = False) -> str:
    """*text* as it may be shown. With *lines* a newline stays one; a tab becomes four spaces."""
    if _PLAIN.fullmatch(text):
        return text
    shown: list[str] = []
    accents = 0
    for char in text:
        category = unicodedata.category(char)
        if category in ("Mn", "Me"):
            accents += 1
            if accents <= _ACCENTS and shown:
                shown.append(char)
            continue
        if char in _JOINERS:
            if shown and shown[-1] not in _JOINERS and not shown[-1].isspace():
                shown.append(char)
            continue
        accents = 0
        if char == "\n" and lines:
            shown.append(char)
        elif char == "\t" and lines:
            shown.append("    ")
        elif category == "Cc":
            shown.append(chr(0x2400 + ord(char)) if char < " " else "␡" if char == "\x7f" else "\ufffd")
        elif category in ("Zl", "Zp"):
            shown.append("\n" if lines else " ")
        elif category == "Zs":
            shown.append(" ")
        elif category == "Cs" or (category == "Cn" and _noncharacter(ord(char))):
            shown.append("\ufffd")
        elif category != "Cf":
            shown.append(char)
    return "".join(shown)


def _noncharacter(code: int) -> bool:
    return code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
