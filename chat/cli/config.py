"""The configuration: config check, show, example."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chat.cli.base import configuration_options, fail, flags_of, main, server_options

if TYPE_CHECKING:
    from chat.config import Loaded


@main.group()
def config() -> None:
    """Check and explain the configuration."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@configuration_options
def check(file: Path | None, config: Path | None, data_dir: str | None, listen: tuple[str, ...], settings: tuple[str, ...]) -> None:
    """Find every mistake in FILE (else in the file that would be used), in the environment and in the options."""
    from chat.config import ConfigError, read

    if file is not None and config is not None:
        raise click.UsageError("expected FILE or --config FILE, not both")
    try:
        loaded = read(file or config, os.environ, flags_of(data_dir, listen, settings))
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
