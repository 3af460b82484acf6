"""The colours of names: what a person may choose, and what is chosen for who did not.

A name is read on dark and on light backgrounds, by people whose background we do not know, so a colour must stand out from both.
The most that any colour can have against both at once is 4.2:1 (our dark against white is 17.8:1, and 4.2 is its square root), so
WCAG's 4.5:1 for body text is out of reach. We ask for 3:1 on both, WCAG's AA for large or bold text and for all that is no text:
clients draw names in bold. It leaves 36 of the 148 CSS names (red, green, teal, royalblue, magenta, gray …) and about every
hue in some lightness; 3.5:1 would leave 22 and lose red's neighbours, 4:1 only 8.

*Source*: WCAG 2.2, "relative luminance", "contrast ratio", 1.4.3 and 1.4.11; CSS Color Module Level 4, section 6.1.
"""

import colorsys
import difflib
import math
import re
import unicodedata
from functools import lru_cache
from typing import Final

from chat.errors import ChatError

DARK: Final = "#16181d"
LIGHT: Final = "#ffffff"
MIN_CONTRAST: Final = 3.0

_TABLE: Final = """
aliceblue=f0f8ff antiquewhite=faebd7 aqua=00ffff aquamarine=7fffd4 azure=f0ffff beige=f5f5dc bisque=ffe4c4 black=000000
blanchedalmond=ffebcd blue=0000ff blueviolet=8a2be2 brown=a52a2a burlywood=deb887 cadetblue=5f9ea0 chartreuse=7fff00
chocolate=d2691e coral=ff7f50 cornflowerblue=6495ed cornsilk=fff8dc crimson=dc143c cyan=00ffff darkblue=00008b darkcyan=008b8b
darkgoldenrod=b8860b darkgray=a9a9a9 darkgreen=006400 darkgrey=a9a9a9 darkkhaki=bdb76b darkmagenta=8b008b darkolivegreen=556b2f
darkorange=ff8c00 darkorchid=9932cc darkred=8b0000 darksalmon=e9967a darkseagreen=8fbc8f darkslateblue=483d8b
darkslategray=2f4f4f darkslategrey=2f4f4f darkturquoise=00ced1 darkviolet=9400d3 deeppink=ff1493 deepskyblue=00bfff
dimgray=696969 dimgrey=696969 dodgerblue=1e90ff firebrick=b22222 floralwhite=fffaf0 forestgreen=228b22 fuchsia=ff00ff
gainsboro=dcdcdc ghostwhite=f8f8ff gold=ffd700 goldenrod=daa520 gray=808080 green=008000 greenyellow=adff2f grey=808080
honeydew=f0fff0 hotpink=ff69b4 indianred=cd5c5c indigo=4b0082 ivory=fffff0 khaki=f0e68c lavender=e6e6fa lavenderblush=fff0f5
lawngreen=7cfc00 lemonchiffon=fffacd lightblue=add8e6 lightcoral=f08080 lightcyan=e0ffff lightgoldenrodyellow=fafad2
lightgray=d3d3d3 lightgreen=90ee90 lightgrey=d3d3d3 lightpink=ffb6c1 lightsalmon=ffa07a lightseagreen=20b2aa lightskyblue=87cefa
lightslategray=778899 lightslategrey=778899 lightsteelblue=b0c4de lightyellow=ffffe0 lime=00ff00 limegreen=32cd32 linen=faf0e6
magenta=ff00ff maroon=800000 mediumaquamarine=66cdaa mediumblue=0000cd mediumorchid=ba55d3 mediumpurple=9370db
mediumseagreen=3cb371 mediumslateblue=7b68ee mediumspringgreen=00fa9a mediumturquoise=48d1cc mediumvioletred=c71585
midnightblue=191970 mintcream=f5fffa mistyrose=ffe4e1 moccasin=ffe4b5 navajowhite=ffdead navy=000080 oldlace=fdf5e6 olive=808000
olivedrab=6b8e23 orange=ffa500 orangered=ff4500 orchid=da70d6 palegoldenrod=eee8aa palegreen=98fb98 paleturquoise=afeeee
palevioletred=db7093 papayawhip=ffefd5 peachpuff=ffdab9 peru=cd853f pink=ffc0cb plum=dda0dd powderblue=b0e0e6 purple=800080
rebeccapurple=663399 red=ff0000 rosybrown=bc8f8f royalblue=4169e1 saddlebrown=8b4513 salmon=fa8072 sandybrown=f4a460
seagreen=2e8b57 seashell=fff5ee sienna=a0522d silver=c0c0c0 skyblue=87ceeb slateblue=6a5acd slategray=708090 slategrey=708090
snow=fffafa springgreen=00ff7f steelblue=4682b4 tan=d2b48c teal=008080 thistle=d8bfd8 tomato=ff6347 turquoise=40e0d0 violet=ee82ee
wheat=f5deb3 white=ffffff whitesmoke=f5f5f5 yellow=ffff00 yellowgreen=9acd32
"""
NAMED: Final[dict[str, str]] = {name: f"#{value}" for name, _, value in (word.partition("=") for word in _TABLE.split())}

_HEX: Final = re.compile(r"#(?:[0-9a-f]{3}|[0-9a-f]{6})", re.ASCII)
_MAX_CHARS: Final = 64  # longer than any name: nothing longer is looked at


def parse_color(text: str) -> str:
    """A CSS name, #rgb or #rrggbb as "#rrggbb" in small letters. Case, and blanks or hyphens within a name, do not matter.

    *Raises* ChatError bad_request, with what would be accepted: for what is no colour, and for what cannot be read on dark or light.
    """
    color = _parse(text)
    for background, name in ((DARK, "dark"), (LIGHT, "light")):
        if contrast(color, background) < MIN_CONTRAST:
            raise ChatError(
                "bad_request",
                f"{_shown(text)} vanishes on a {name} background "
                f"(contrast {_floor(contrast(color, background))}, needed {MIN_CONTRAST:g} on dark and on light); try {nearby(color)}",
            )
    return color


def default_hue(name: str) -> int:
    """The hue, in degrees of OKLCH, of who chose no colour: FNV-1a of the folded name. The page reckons it in the same way (person.js)."""
    value = 2166136261
    for char in unicodedata.normalize("NFKC", name).lower():
        value = (value ^ ord(char)) * 16777619 & 0xFFFFFFFF
    return value % 360


def default_color(name: str) -> str:
    """The colour of who chose none, where the background is not known: always the same for *name*, well readable on dark and on light.

    The lightness is the one with equal contrast on both, about 4.2:1. (The page knows its background: it takes the hue lighter or darker.)
    """
    return _palette(default_hue(name))


def nearby(color: str) -> str:
    """The colour of the same hue that is nearest to *color* and readable on both."""
    if is_readable(color):
        return color
    hue, _, saturation = colorsys.rgb_to_hls(*_channels(color))
    dark_edge = (luminance(DARK) + 0.05) * MIN_CONTRAST - 0.05
    light_edge = (luminance(LIGHT) + 0.05) / MIN_CONTRAST - 0.05
    # a little inside the edge, for the rounding to whole bytes
    target = dark_edge * 1.05 if luminance(color) < dark_edge else light_edge * 0.96
    return _with_luminance(hue, saturation, target)


def is_readable(color: str) -> bool:
    return min(contrast(color, DARK), contrast(color, LIGHT)) >= MIN_CONTRAST


def contrast(a: str, b: str) -> float:
    """WCAG's contrast ratio of two colours "#rrggbb": 1 (the same) to 21 (black and white), whichever is the brighter."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def luminance(color: str) -> float:
    """WCAG's relative luminance of "#rrggbb": 0 (black) to 1 (white)."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in _channels(color))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _parse(text: str) -> str:
    folded = text.strip().lower() if len(text) <= _MAX_CHARS else ""
    if _HEX.fullmatch(folded):
        return folded if len(folded) == 7 else "#" + "".join(digit * 2 for digit in folded[1:])
    if found := NAMED.get(re.sub(r"[\s_-]", "", folded)):
        return found
    near = difflib.get_close_matches(folded, [name for name in NAMED if is_readable(NAMED[name])], n=3, cutoff=0.6)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise ChatError("bad_request", f"{_shown(text)} is no colour: a CSS name such as teal, or #rrggbb{hint}")


def _channels(color: str) -> tuple[float, float, float]:
    value = int(color[1:], 16)
    return (value >> 16) / 255, (value >> 8 & 255) / 255, (value & 255) / 255


def _with_luminance(hue: float, saturation: float, target: float) -> str:
    """The lightness of HLS that gives *target*, by bisection: luminance rises with it. 12 steps are finer than a byte."""
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        if luminance(_hex(hue, middle, saturation)) < target:
            low = middle
        else:
            high = middle
    return _hex(hue, high, saturation)


def _hex(hue: float, lightness: float, saturation: float) -> str:
    return "#" + "".join(f"{round(channel * 255):02x}" for channel in colorsys.hls_to_rgb(hue, lightness, saturation))


@lru_cache(maxsize=360)  # all there are
def _palette(hue: int) -> str:
    """By bisection: luminance rises with OKLCH's lightness too."""
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        if luminance(_oklch(middle, 0.125, hue)) < _MIDDLE:
            low = middle
        else:
            high = middle
    return _oklch(high, 0.125, hue)


def _oklch(lightness: float, chroma: float, hue: float) -> str:
    """OKLCH to "#rrggbb"; what is out of sRGB is clipped. *Source*: CSS Color Module Level 4, sections 9.2 and 18."""
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3  # noqa: E741
    m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    s = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
        -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
        -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s,
    )
    encoded = (12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055 for c in (min(1.0, max(0.0, c)) for c in linear))
    return "#" + "".join(f"{round(c * 255):02x}" for c in encoded)


def _floor(ratio: float) -> str:
    return f"{int(ratio * 10) / 10:g}"  # never rounded up to the limit that it misses


def _shown(text: str) -> str:
    return f'"{text[:32]}…"' if len(text) > 32 else f'"{text}"'


_MIDDLE: Final = ((luminance(DARK) + 0.05) * (luminance(LIGHT) + 0.05)) ** 0.5 - 0.05
