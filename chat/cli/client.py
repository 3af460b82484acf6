"""The client: connect, send, tail."""

import math
from collections.abc import Callable
from typing import Any

import click

from chat.cli.base import main


def client_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--as", "account", metavar="NAME", help="The account; else the one used last there."),
        click.option("--server", metavar="HOST:PORT", help="The server; else the one used last, or the one on this machine."),
    ):
        command = option(command)
    return command


@main.command()
@click.argument("target", required=False)
@click.option("--name", metavar="NAME", help="The account to use, or to make.")
@click.option("--color", metavar="COLOUR", help="The colour of your name for a new account: a CSS name or #rrggbb.")
@click.option("--plain", is_flag=True, help="No colours, no editing of the line: for dumb terminals and pipes.")
def connect(target: str | None, name: str | None, color: str | None, plain: bool) -> None:
    """Chat. TARGET is HOST[:PORT][#FINGERPRINT][/INVITE]; without it the server used last, or the one on this machine.

    A password is asked for, or taken from the variable CHAT_PASSWORD.
    """
    from chat.client import console

    raise click.exceptions.Exit(console.run(target, name=name, color=color, plain=plain))


@main.command()
@click.argument("channel")
@click.argument("text")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=math.inf,
    metavar="SECONDS",
    help="Give up after that long, with exit status 1, and say what is kept; else the server is waited for.",
)
@client_options
def send(channel: str, text: str, timeout: float, server: str | None, account: str | None) -> None:
    """Send TEXT to CHANNEL (or @NAME); with - each line of standard input. Exit status 0 only when all of it is stored.

    It goes on with the session that `chat connect` left. Where there is none, or another process is in it, it logs in with the password
    in the variable CHAT_PASSWORD, or asks for it.
    """
    from chat.client import scripts

    raise click.exceptions.Exit(scripts.send(channel, text, server=server, account=account, timeout_s=timeout))


@main.command()
@click.argument("channel")
@click.option("--json", "as_json", is_flag=True, help="Each record as one JSON object.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=10, show_default=True, help="How many earlier records come first.")
@client_options
def tail(channel: str, as_json: bool, lines: int, server: str | None, account: str | None) -> None:
    """Print the last records of CHANNEL (or @NAME), then what comes, each once.

    It goes on with the session that `chat connect` left. Where there is none, or another process is in it, it logs in with the password
    in the variable CHAT_PASSWORD, or asks for it.
    """
    from chat.client import scripts

    raise click.exceptions.Exit(scripts.tail(channel, as_json=as_json, lines=lines, server=server, account=account))
