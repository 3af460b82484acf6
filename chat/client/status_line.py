"""What stands around the line that is being typed: the prompt with what is not stored yet above it, and the status below."""

import math
import re
import time
from typing import TYPE_CHECKING, Final

from chat.client import local
from chat.client.clean import clean
from chat.client.client import Client
from chat.client.outbox import Item
from chat.client.view import DIM, PRIVATE, WARN, Fragment

if TYPE_CHECKING:
    from chat.client.console import Console

WAIT: Final = re.compile(r"[;,]? ?wait [0-9.]+ s$")  # the server's own number: it is counted down here
PENDING_SHOWN: Final = 4
PENDING_AFTER_S: Final = 0.25  # most texts are stored before it; no need to flicker


def prompt(console: "Console") -> list[Fragment]:
    if console.asking is not None:
        return [(WARN, console.asking[0])]
    fragments: list[Fragment] = []
    now = time.monotonic()
    late = [item for item in console.client.pending if now - console.posted.get(item.cid, 0.0) > PENDING_AFTER_S]
    for item in late[-PENDING_SHOWN:]:
        who = clean(console.client.user if item.to == console.current else item.to)
        wait_s, _ = console.client.waits(item.cid)
        mark = f"{math.ceil(wait_s):>3} s" if wait_s > 0 else "  …  "
        fragments.append((DIM, f"{mark} {who:<8} {clean(item.text)[:200]}\n"))
    if console.answering and (newest := local.newest_question(console)) is not None:
        fragments += [(WARN, f"answer {newest.number} ({console.client.questions.left_s(newest)} s)"), (DIM, "> ")]
        return fragments
    style = PRIVATE if (console.current or "").startswith("@") else "bold"
    fragments += [(style, clean(console.current or "")), (DIM, "> ")]
    return fragments


def toolbar(console: "Console") -> list[Fragment]:
    client, status, now = console.client, console.status, time.monotonic()
    server = clean(client.welcome.name) if client.welcome is not None else client.target.key
    fragments: list[Fragment]
    if status.state == "online":
        fragments = [("fg:ansigreen", " ● "), (DIM, f"{server} · {clean(client.user)}")]
    elif status.state == "waiting":
        fragments = [("fg:ansiyellow", " ○ "), (WARN, f"{server}: {clean(status.why)}; trying again")]
    else:
        fragments = [("fg:ansiyellow", " ○ "), (WARN, f"{server}: connecting")]
    info = client.channels.get((console.current or "").removeprefix("#"))
    if info is not None and info.topic:
        fragments.append((DIM, f" · {clean(info.topic)[:60]}"))
    if pending := client.pending:
        fragments.append((WARN, f"   {_waiting(client, pending)}"))
    for until, command in console.held_back:
        fragments.append((WARN, f"   {clean(command)[:32]}: again in {math.ceil(max(0.0, until - now))} s"))
    if unread := console.reading.counts():
        fragments.append(("", "   " + "  ".join(f"{clean(conv)} {number}" for conv, number in unread)))
    if waiting := len(client.questions):
        fragments.append((WARN, f"   {waiting} to answer"))
    return fragments


def _waiting(client: Client, pending: list[Item]) -> str:
    """How it stands with what is not stored yet; what was refused for now (slow mode, too fast) counts down."""
    later = min(((*client.waits(item.cid), item) for item in pending), key=lambda each: (each[0] == 0, each[0]))
    wait_s, why, item = later
    if not wait_s:
        return f"{len(pending)} on the way"
    return f"{clean(item.to)}: sent in {math.ceil(wait_s)} s ({clean(WAIT.sub('', why))[:80]})"
