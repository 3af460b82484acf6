"""The life of a server: serve, start, stop, status."""

import os
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from chat.cli.base import asked, fail, main, server_options

if TYPE_CHECKING:
    from chat.config import Loaded

ROOT: Final = "running as root: an account of its own is safer"


@main.command()
@server_options
def serve(loaded: "Loaded") -> None:
    """Run the server here, in the foreground. SIGTERM or Ctrl-C stops it."""
    from chat import background, daemon

    def tell(info: background.ReadyInfo) -> None:
        _tell_ready(info, stop="Ctrl-C")

    try:
        status = background.serve(loaded.config, daemon.run, tell)
    except background.StartRefused as exc:
        raise fail(str(exc)) from None
    raise click.exceptions.Exit(status)


@main.command()
@server_options
def start(loaded: "Loaded") -> None:
    """Run the server in the background; return when it is ready."""
    from chat import background, daemon

    try:
        info = background.start(loaded.config, daemon.run)
    except background.StartRefused as exc:
        raise fail(str(exc)) from None
    _tell_ready(info, stop="chat stop")


def _tell_ready(info: Any, *, stop: str) -> None:
    from chat.greeting import ready_lines

    if os.geteuid() == 0:
        click.echo(f"chat: {ROOT}", err=True)
    try:
        for line in ready_lines(info, stop=stop):
            click.echo(line)
    except BrokenPipeError:  # nobody reads; or Python would fail at the end, when it flushes what it could not write
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@main.command()
@server_options
def stop(loaded: "Loaded") -> None:
    """Stop the server in the background, and wait for its end."""
    from chat import background

    done = asked(background.stop, loaded.config)
    if done.result == "failed":
        raise fail(done.text)
    click.echo(done.text)


@main.command()
@server_options
def status(loaded: "Loaded") -> None:
    """Tell whether the server runs, since when, and where. Exit status 0: it runs, 3: it does not."""
    from chat import background, greeting

    running = asked(background.holder_of, loaded.config)
    click.echo(greeting.status_line(loaded.config, running))
    raise click.exceptions.Exit(0 if running else 3)
