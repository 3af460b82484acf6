"""The configuration: config check, show, example."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chat.cli.base import fail, main, server_options

if TYPE_CHECKING:
    from chat.config import Loaded


@main.group()
def config() -> None:
    """Check and explain the configuration."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
def check(file: Path | None) -> None:
    """Find every mistake in FILE (else in the file that would be used) and in the environment."""
    from chat.config import ConfigError, read

    try:
        loaded = read(file, os.environ)
    except ConfigError as exc:
        raise fail(str(exc)) from None
    click.echo(f"{loaded.file or 'no file'}: fine")


@config.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@server_options
def show(loaded: "Loaded", as_json: bool) -> None:
    """Print each key with its value, where that comes from, and what it means."""
    from chat.config.manual import shown

    click.echo(shown(loaded, as_json=as_json))


@config.command()
def example() -> None:
    """Print a file with the default of every key, explained: a start for your own."""
    from chat.config.manual import manual

    click.echo(manual(), nl=False)
