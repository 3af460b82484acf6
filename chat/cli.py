"""The ``chat`` command: arguments only. What they mean is in `chat.config`, `chat.background`, `chat.daemon` and `chat.client`.

Exit status: 0 done (a server: ended by SIGTERM), 1 refused or failed, with a line on standard error, 2 wrong usage;
of ``chat status``: 3 not running.
"""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chat import __version__

if TYPE_CHECKING:
    from chat.config import Config, Loaded

ROOT = "running as root: an account of its own is safer"


def fail(text: str, status: int = 1) -> "click.exceptions.Exit":
    """Tell why on standard error; raise what this returns."""
    for line in text.splitlines():
        click.echo(f"chat: {line}", err=True)
    return click.exceptions.Exit(status)


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of all that have to do with a server's configuration; the command gets a Loaded."""

    @functools.wraps(command)
    def with_loaded(config: Path | None, data_dir: str | None, listen: tuple[str, ...], settings: tuple[str, ...], **rest: Any) -> None:
        from chat.config import ConfigError, read

        flags: dict[str, Any] = {}
        for setting in settings:
            key, equals, value = setting.partition("=")
            if not equals:
                raise click.BadParameter(f"expected KEY=VALUE, got {setting!r}", param_hint="--set")
            flags[key.strip()] = value
        if data_dir is not None:
            flags["data_dir"] = data_dir
        if listen:
            flags["listen.address"] = list(listen)
        try:
            loaded = read(config, os.environ, flags)
        except ConfigError as exc:
            raise fail(str(exc)) from None
        command(loaded, **rest)

    wrapped: Callable[..., Any] = with_loaded
    for option in (
        click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Set any key, e.g. limits.sends_burst=20."),
        click.option("--listen", metavar="HOST:PORT", multiple=True, help="Where to listen; may be repeated."),
        click.option("--data-dir", metavar="FOLDER", help="Where everything is kept."),
        click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="The configuration file (else CHAT_CONFIG)."),
    ):
        wrapped = option(wrapped)
    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="chat")
def main() -> None:
    """A chat for your own machine. `chat serve` starts a server, `chat connect LINE` joins one."""


# ---------------------------------------------------------------- the server


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

    done = _asked(background.stop, loaded.config)
    if done.result == "failed":
        raise fail(done.text)
    click.echo(done.text)


@main.command()
@server_options
def status(loaded: "Loaded") -> None:
    """Tell whether the server runs, since when, and where. Exit status 0: it runs, 3: it does not."""
    from chat import background, greeting

    running = _asked(background.holder_of, loaded.config)
    click.echo(greeting.status_line(loaded.config, running))
    raise click.exceptions.Exit(0 if running else 3)


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


def _asked(ask: "Callable[[Config], Any]", config: "Config") -> Any:
    from chat.background import StartRefused

    try:
        return ask(config)
    except StartRefused as exc:
        raise fail(str(exc)) from None


# ---------------------------------------------------------------- the configuration


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


# ---------------------------------------------------------------- the client


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
    """Chat. TARGET is HOST[:PORT][#FINGERPRINT][/INVITE]; without it the server used last, or the one on this machine."""
    from chat.client import console

    raise click.exceptions.Exit(console.run(target, name=name, color=color, plain=plain))


@main.command()
@click.argument("channel")
@click.argument("text")
@client_options
def send(channel: str, text: str, server: str | None, account: str | None) -> None:
    """Send TEXT to CHANNEL (or @NAME); with - each line of standard input. Exit status 0 only when all of it is stored."""
    from chat.client import scripts

    raise click.exceptions.Exit(scripts.send(channel, text, server=server, account=account))


@main.command()
@click.argument("channel")
@click.option("--json", "as_json", is_flag=True, help="Each record as one JSON object.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=10, show_default=True, help="How many earlier records come first.")
@client_options
def tail(channel: str, as_json: bool, lines: int, server: str | None, account: str | None) -> None:
    """Print the last records of CHANNEL (or @NAME), then what comes, each once."""
    from chat.client import scripts

    raise click.exceptions.Exit(scripts.tail(channel, as_json=as_json, lines=lines, server=server, account=account))


if __name__ == "__main__":
    sys.exit(main())
