"""Seeing inside: the log's level."""

from typing import TYPE_CHECKING, Final

import click

from chat.cli.base import main, server_options
from chat.cli.operator import done, json_option, operate

if TYPE_CHECKING:
    from chat.config import Loaded

LEVELS: Final = ("debug", "info", "warning", "error")


@main.command("log-level")
@click.argument("level", type=click.Choice(LEVELS), required=False)
@json_option
@server_options
def log_level(loaded: "Loaded", level: str | None, as_json: bool) -> None:
    """Tell, or change, the least that the running server logs. The next start, or reload, takes the configured one again."""
    answer = operate(loaded.config, "log-level", level=level)
    now, before = answer["level"], answer["before"]
    told = now if level is None else f"logs {now} and above" + (f"; before: {before}" if before != now else " already")
    done(told, answer, as_json=as_json)
