"""The operator's commands: invite."""

from typing import TYPE_CHECKING

import click

from chat.cli.base import fail, main, server_options

if TYPE_CHECKING:
    from chat.config import Loaded


@main.command()
@server_options
def invite(loaded: "Loaded") -> None:
    """Print the join line for guests again, whether the server runs or not."""
    from chat import background, greeting

    try:
        line = greeting.guests(loaded.config)
    except (OSError, ValueError) as exc:
        raise fail(background.refusal(exc) or str(exc)) from None
    if line is None:
        raise fail("nobody can register: there is no invite for guests, or registration is closed")
    click.echo(line)
