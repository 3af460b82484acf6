"""The life of a server: serve, start, stop, status."""

import functools
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from chat.cli.base import asked, fail, found_server, main, server_options

if TYPE_CHECKING:
    from chat.config import Config, Loaded

ROOT: Final = "running as root: an account of its own is safer"


@main.command()
@server_options
def serve(loaded: "Loaded") -> None:
    """Run the server here, in the foreground. SIGTERM or Ctrl-C stops it."""
    from chat import background, daemon

    def tell(info: background.ReadyInfo) -> None:
        _tell_ready(info, stop="Ctrl-C")
        _warn(loaded.config)

    try:
        status = background.serve(loaded, daemon.run, tell)
    except background.StartRefused as exc:
        raise fail(str(exc)) from None
    raise click.exceptions.Exit(status)


@main.command()
@server_options
def start(loaded: "Loaded") -> None:
    """Run the server in the background; return when it is ready."""
    from chat import background, daemon

    try:
        info = background.start(loaded, daemon.run)
    except background.StartRefused as exc:
        raise fail(str(exc)) from None
    _tell_ready(info, stop="chat stop")
    _warn(loaded.config)


def _warn(config: "Config") -> None:
    """Of files that others may read, and of a disk that is full, as the doctor sees them."""
    from chat.doctor.files import rights
    from chat.doctor.machine import disk

    for finding in (*rights(config), *disk(config)):
        if finding.state == "wrong":
            click.echo(f"chat: {finding.text}: {finding.todo}", err=True)


def _tell_ready(info: Any, *, stop: str) -> None:
    from chat.greeting import ready_lines

    if os.geteuid() == 0:
        click.echo(f"chat: {ROOT}", err=True)
    try:
        for line in ready_lines(info, stop=stop):
            click.echo(line)
    except BrokenPipeError:  # nobody reads, and the server goes on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@main.command()
@click.option("--now", is_flag=True, help="Wait for nobody: end within a second. What was acknowledged is stored.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@found_server
def stop(loaded: "Loaded", now: bool, as_json: bool) -> None:
    """Stop the server, and wait for its end. Everybody is answered and told when to come back."""
    from chat import background

    done = asked(functools.partial(background.stop, now=now), loaded.config)
    if done.result == "failed":
        raise fail(done.text)
    click.echo(json.dumps({"result": done.result, "text": done.text}) if as_json else done.text)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@server_options
def restart(loaded: "Loaded", as_json: bool) -> None:
    """Replace the running server by a new process, for an upgrade or a changed configuration. Nobody is refused, nothing is lost.

    The new one has the arguments that the server was started with. It checks itself first; if it is not fit, the old one goes on.
    """
    from chat import background
    from chat.admin import client

    try:
        told = background.restart(loaded.config, lambda: client.run(loaded.config, "restart"))
    except (background.StartRefused, client.Refused) as exc:
        raise fail(f"not restarted: {exc}") from None
    click.echo(json.dumps({"result": "restarted", "text": told}) if as_json else told)
    _warn(loaded.config)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@server_options
def reload(loaded: "Loaded", as_json: bool) -> None:
    """Read the configuration, the certificate and the plugins again, without dropping anybody. Exit status 1: something stays as it was.

    The server reads what it was started with: the same file and the same flags.
    """
    from chat.admin import client

    try:
        report = client.run(loaded.config, "reload")
    except client.Refused as exc:
        raise fail(str(exc)) from None
    if as_json:
        click.echo(json.dumps(report))
    else:
        for line in [*report["changed"], *report["restart"]]:
            click.echo(line)
        if report["restart"]:
            click.echo("chat restart takes on what needs a restart; nobody is refused meanwhile.")
        if not any(report.values()):
            click.echo("reloaded; nothing has changed")
    if report["problems"]:
        raise fail("\n".join(report["problems"]))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON object, with every figure.")
@found_server
def status(loaded: "Loaded", as_json: bool) -> None:
    """Tell whether the server runs, where, and how it goes. Exit status 0: it runs, 3: it does not."""
    from chat import background
    from chat import status as asking

    running = asked(background.holder_of, loaded.config)
    found = asking.asked(loaded.config, running)
    if as_json:
        click.echo(json.dumps(asking.json_of(found)))
    else:
        for line in asking.lines(loaded.config, running, found):
            click.echo(line)
    raise click.exceptions.Exit(0 if running else 3)


@main.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what is logged from now on, also when the file is rotated.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=20, show_default=True, help="How many lines of before.")
@click.option("--json", "as_json", is_flag=True, help="The lines as they are in the file.")
@found_server
def logs(loaded: "Loaded", follow: bool, lines: int, as_json: bool) -> None:
    """Print the end of the log of the server in the background."""
    from chat import background
    from chat import logs as reading

    file = background.log_file(loaded.config)
    if (why := background.no_right(file)) is not None:
        raise fail(why)
    shown = reading.raw if as_json else reading.shown
    try:
        here = reading.end(file)
        for line in reading.last(file, lines, here) if file.exists() or not follow else []:
            click.echo(shown(line))
        for line in reading.follow(file, here) if follow else ():
            click.echo(shown(line))
    except FileNotFoundError:
        raise fail(f"there is no log {file}: chat start writes one, chat serve writes to its terminal or journal") from None
    except OSError as exc:
        if exc.filename is None:  # of standard output
            raise
        raise fail(f"{file}: {exc.strerror}") from None
    except KeyboardInterrupt:
        pass


@main.command()
@click.option("--socket", "as_socket", is_flag=True, help="The unit of the sockets, chat.socket: systemd listens.")
@click.option("--user", metavar="NAME", help="The account that it runs as; without it systemd makes one for it.")
@server_options
def systemd(loaded: "Loaded", as_socket: bool, user: str | None) -> None:
    """Print a hardened unit for systemd, chat.service, with the paths of this installation. On standard error: which it would not see."""
    from chat import unit

    for line in [] if as_socket else unit.objections(loaded, user=user):
        click.echo(f"chat: {line}", err=True)
    click.echo(unit.sockets(loaded.config) if as_socket else unit.service(loaded, user=user), nl=False)
