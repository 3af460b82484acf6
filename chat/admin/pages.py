"""Records as text, as JSON lines, and as a page of HTML that needs nothing but itself. Streams: a line or more for each record."""

import html
import json
from collections.abc import Iterator
from typing import Any, Final

from chat.admin.show import when
from chat.client.clean import clean

Row = dict[str, Any]

HEAD: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }}
article {{ margin: .4rem 0 }} time {{ color: #767676; font-size: .8rem; margin-right: .5rem }} b {{ margin-right: .5rem }}
p {{ display: inline; white-space: pre-wrap; overflow-wrap: anywhere }} .note {{ color: #666; font-style: italic }}
@media (prefers-color-scheme: dark) {{ body {{ color: #ddd; background: #1b1b1b }} time, .note {{ color: #999 }} }}
</style></head><body><h1>{title}</h1>
"""


def as_json(title: str, records: Iterator[Row]) -> Iterator[str]:
    for record in records:
        yield json.dumps(record, ensure_ascii=False) + "\n"


def as_text(title: str, records: Iterator[Row]) -> Iterator[str]:
    for record in records:
        yield line(record, conv=record.get("conv") != title) + "\n"


def as_html(title: str, records: Iterator[Row]) -> Iterator[str]:
    yield HEAD.format(title=html.escape(title))
    for record in records:
        at = f"<time>{when(record['ts'])}</time>" if "ts" in record else ""
        if record["type"] == "message":
            who = html.escape(record["from"]) + (f" in {html.escape(record['conv'])}" if record["conv"] != title else "")
            yield f'<article id="m{record["seq"]}">{at}<b>{who}</b><p>{html.escape(record["text"])}</p></article>\n'
        else:
            yield f'<article class="note">{at}{html.escape(_told(record))}</article>\n'
    yield "</body></html>\n"


FORMATS: Final = {"json": as_json, "text": as_text, "html": as_html}


def line(record: Row, *, conv: bool) -> str:
    """For a terminal: nothing in it moves a cursor."""
    where = f"{record['conv']} " if conv and "conv" in record and "ts" in record else ""
    at = f"{when(record['ts'])} " if "ts" in record else ""
    said = f"{record['from']}: {record['text'] or '(deleted)'}" if record["type"] == "message" else _told(record)
    return at + clean(where + said, lines=True).replace("\n", "\n    ")


def _told(record: Row) -> str:
    """What is no message, in words."""
    match record["type"]:
        case "left" if record.get("by") not in (None, record["user"]):
            return f"* {record['user']} was removed by {record['by']}{_because(record)}"
        case "joined" | "left":
            return f"* {record['user']} {record['type']}{_because(record)}"
        case "topic":
            return f"* {record['user']} set the topic: {record['text']}"
        case "role":
            return f"* {record['user']} is {record['role']} now"
        case "banned":
            until = f" until {when(record['until'])}" if record.get("until") is not None else ""
            return f"* {record['user']} was banned by {record['by']}{until}{_because(record)}"
    rest = {key: value for key, value in record.items() if key not in ("type", "conv", "seq", "ts")}
    shown = ", ".join(f"{key} {when(value) if key in TIMES else value}" for key, value in rest.items() if value not in (None, ""))
    return f"* {record['type']}: {shown}" + (f" ({record['conv']})" if record["type"] == "membership" else "")


def _because(record: Row) -> str:
    return f" ({record['reason']})" if record.get("reason") else ""


TIMES: Final = ("since", "seen", "expires", "first_ms", "last_ms")
