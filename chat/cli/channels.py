"""The channels of a server: channel, say, broadcast."""

from typing import TYPE_CHECKING

import click

from chat.cli.base import main, server_options
from chat.cli.operator import done, json_option, listed, operate, refusing, sure, yes_option

if TYPE_CHECKING:
    from chat.config import Loaded


@main.group()
def channel() -> None:
    """The channels, private ones too."""


@channel.command("list")
@json_option
@server_options
def list_channels(loaded: "Loaded", as_json: bool) -> None:
    """Every channel, its owner, and how much is said in it."""
    from chat.admin import look
    from chat.admin.show import when

    with refusing(), look.opened(loaded.config) as db:
        rows = look.channels(db)
    shown = [("#" + r["name"], r["kind"], r["owner"], r["members"], r["records"], when(r["last"]), r["topic"]) for r in rows]
    headings = ("channel", "", "owner", "members", "records", "last", "topic")
    listed(headings, shown, rows, as_json=as_json, none="there is no channel")


@channel.command()
@click.argument("name")
@json_option
@server_options
def show(loaded: "Loaded", name: str, as_json: bool) -> None:
    """What is set in the channel NAME, what it keeps, and who is in it."""
    from chat.admin import look
    from chat.admin.show import size, span, when

    with refusing(), look.opened(loaded.config) as db:
        found = look.channel(db, name)
    if as_json:
        done("", found, as_json=True)
        return
    kept = f"{found['kept']} of {found['records']} records, {size(found['bytes'])}"
    rules = [word.replace("_", "-") for word in ("private", "invite_only", "announce_only") if found[word]]
    lines = [("channel", "#" + found["name"]), ("since", when(found["since"])), ("topic", found["topic"]), ("kept", kept)]
    lines += [("rules", ", ".join([*rules, *([f"slow mode {found['slow_s']} s"] if found["slow_s"] else [])]) or "none")]
    lines += [("history", found["history"])]
    if found["keep_ms"] is not None or found["keep_bytes"] is not None:
        lines.append(("keeps", " ".join(filter(None, [span(found["keep_ms"]), size(found["keep_bytes"]) if found["keep_bytes"] else ""]))))
    from chat.admin.show import cell, table

    for label, value in lines:
        click.echo(f"{label + ':':<10}{cell(value)}")
    click.echo("\n" + "\n".join(table(("member", "role", "since"), [(m["name"], m["role"], when(m["since"])) for m in found["members"]])))


@channel.command()
@click.argument("name")
@yes_option
@json_option
@server_options
def delete(loaded: "Loaded", name: str, yes: bool, as_json: bool) -> None:
    """Delete the channel NAME with all that was said in it. It cannot be undone."""
    sure(f"Delete #{name.removeprefix('#')} and all that was said in it? It cannot be undone.", yes=yes)
    told = operate(loaded.config, "channel.delete", channel=name)
    done(f"#{told['channel']} is deleted", told, as_json=as_json)


@main.command()
@click.argument("channel")
@click.argument("text")
@json_option
@server_options
def say(loaded: "Loaded", channel: str, text: str, as_json: bool) -> None:
    """Say TEXT in CHANNEL as the server. It is stored like every message."""
    told = operate(loaded.config, "say", channel=channel, text=text)
    done(f"said in #{told['channel']}", told, as_json=as_json)


@main.command()
@click.argument("text")
@json_option
@server_options
def broadcast(loaded: "Loaded", text: str, as_json: bool) -> None:
    """Tell TEXT to everybody who is online, as the server. It is not stored."""
    told = operate(loaded.config, "broadcast", text=text)
    done(f"told to everybody online ({told['online']})", told, as_json=as_json)
