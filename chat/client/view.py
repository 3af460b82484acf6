"""How notices look: each becomes lines of (style, text) fragments, cleaned, for whichever screen shows them.

A fragment's style is prompt_toolkit's (``fg:#rrggbb bold``); a screen without colours drops it. `Line` is what a screen prints: the
stamp and name on the left, the text on the right, so that the screen can wrap with the text's own margin.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

import attrs

from chat.client.clean import clean
from chat.client.delivery import Hidden, Missing
from chat.colors import default_color
from chat.protocol import messages as m
from chat.protocol.codec import Unknown

DIM: Final = "fg:ansibrightblack"
WARN: Final = "fg:ansiyellow"
PRIVATE: Final = "fg:ansimagenta"

Fragment = tuple[str, str]


@attrs.frozen(kw_only=True)
class Line:
    """One notice as shown. ``head`` is stamp and name, ``body`` the text, both clean; ``where`` the conversation it belongs to."""

    head: tuple[Fragment, ...] = ()
    body: tuple[Fragment, ...] = ()
    where: str = ""
    key: tuple[str, int] | None = None  # of a message: its conversation and seq, to take it away by

    @property
    def text(self) -> str:
        return " ".join(part for part in ("".join(t for _, t in self.head), "".join(t for _, t in self.body)) if part)


def stamp(ts_ms: int | None = None) -> str:
    """The local time of day."""
    try:
        return time.strftime("%H:%M", time.localtime(time.time() if ts_ms is None else ts_ms / 1000))
    except (OverflowError, ValueError, OSError):
        return "--:--"


def day(ts_ms: int) -> str:
    try:
        return time.strftime("%A, %d %B %Y", time.localtime(ts_ms / 1000))
    except (OverflowError, ValueError, OSError):
        return ""


def when(ts_ms: object) -> str:
    """Day and time, local; for what may be any JSON."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(ts_ms / 1000))  # type: ignore[operator]
    except (TypeError, OverflowError, ValueError, OSError):
        return "?"


def day_and_time(ts_ms: int) -> str:
    """Local; the day only where it is not today."""
    try:
        at = time.localtime(ts_ms / 1000)
    except (OverflowError, ValueError, OSError):
        return "a time to come"
    return time.strftime("%H:%M" if at[:3] == time.localtime()[:3] else "%d %B %Y, %H:%M", at)


def name_style(name: str, colors: Mapping[str, str]) -> str:
    return f"fg:{colors.get(name) or default_color(name)}"


def told(text: str, *, style: str = DIM, where: str = "") -> Line:
    """A word of the client or the server itself."""
    return Line(head=((DIM, stamp()),), body=((style, clean(text, lines=True)),), where=where)


def folded(name: str, conv: str) -> Line:
    """In the place of what somebody said whom one ignores."""
    return Line(head=((DIM, stamp()),), body=((DIM, f"· {clean(name)}, whom you ignore, says something"),), where=conv)


def rule(title: str) -> Line:
    """The head of another conversation, or of another day."""
    return Line(body=((DIM, f"── {clean(title)} ──"),))


def record_line(record: Any, *, me: str, colors: Mapping[str, str], current: str | None) -> Line | None:
    """How a record looks to somebody whose present conversation is *current*; None for what is not for eyes."""
    conv = record.conv
    when = stamp(getattr(record, "ts", None)) if getattr(record, "ts", None) is not None else stamp()
    match record:
        case m.Message() if record.deleted:
            what = f"a text of {clean(record.from_)} was taken away"
        case m.Message():
            style = name_style(record.from_, colors) + (" bold" if record.from_ == me else "")
            who: tuple[Fragment, ...] = ((style, clean(record.from_)),)
            if conv.startswith("@") and conv != current:
                other = conv[1:]
                who = (*who, (PRIVATE, " → " + clean(other if record.from_ == me else me)))
            return Line(head=((DIM, when + " "), *who), body=(("", clean(record.text, lines=True)),), where=conv, key=(conv, record.seq))
        case m.Joined():
            what = f"{clean(record.user)} joined"
        case m.Left():
            if record.by and record.by != record.user:
                what = f"{clean(record.user)} was removed by {clean(record.by)}{_because(record.reason)}"
            else:
                what = f"{clean(record.user)} left{_because(record.reason)}"
        case m.Topic():
            what = f"{clean(record.user)} set the topic: {clean(record.text)}"
        case m.Role():
            what = f"{clean(record.user)} is now {clean(record.role)} (by {clean(record.by)})"
        case m.Banned():
            until = f" until {day_and_time(record.until)}" if record.until is not None else ""
            what = f"{clean(record.user)} was banned by {clean(record.by)}{until}{_because(record.reason)}"
        case m.Edited():
            what = f"{clean(record.by)} changed a text to: {clean(record.text)}"
        case m.Deleted():
            what = f"{clean(record.by)} took messages away"
        case Hidden():
            what = "what was said before you joined is not shown"
        case Missing():
            what = f"{record.seq - record.from_seq + 1} lines are not kept any more"
        case m.HistoryReset():
            what = f"the history of {clean(conv)} begins anew here"
        case m.Removed():
            what = f"you are no longer in {clean(conv)}{_because(record.reason)}"
        case Unknown():
            return None
        case _:
            return None
    return Line(head=((DIM, when),), body=((DIM, f"· {what}"),), where=conv)


def plain(line: Line, *, where: bool) -> str:
    """A line for a pipe: ``18:52 #lobby ann: text``, one line for each text."""
    head = [text.strip() for _, text in line.head]
    body = "".join(text for _, text in line.body).replace("\n", "\n    ")
    if len(head) < 2:
        return " ".join(part for part in (*head[:1], line.where if where else "", body) if part)
    return " ".join(part for part in (head[0], line.where if where else "", " ".join(head[1:]) + ":", body) if part)


def _because(reason: str | None) -> str:
    return f": {clean(reason)}" if reason else ""
