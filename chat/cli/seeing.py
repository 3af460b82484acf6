"""Seeing inside: the log's level."""

from typing import TYPE_CHECKING, Final

import click

from chat.cli.base import fail, main, server_options

if TYPE_CHECKING:
    from chat.config import Loaded

LEVELS: Final = ("debug", "info", "warning", "error")


@main.command("log-level")
@click.argument("level", type=click.Choice(LEVELS), required=False)
@server_options
def log_level(loaded: "Loaded", level: str | None) -> None:
    """Tell, or change, the least that the running server logs. The next start, or reload, takes the configured one again."""
    from chat.admin import client

    try:
        answer = client.run(loaded.config, "log-level", level=level)
    except client.Refused as exc:
        raise fail(str(exc)) from None
    now, before = answer["level"], answer["before"]
    click.echo(now if level is None else f"logs {now} and above" + (f"; before: {before}" if before != now else " already"))
