"""What every group of commands uses: the ``chat`` command itself, the options of a server's configuration, and how a refusal is told."""

import errno
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chat import __version__

if TYPE_CHECKING:
    from chat.config import Config


def fail(text: str, status: int = 1) -> "click.exceptions.Exit":
    """Tell why on standard error; raise what this returns."""
    for line in text.splitlines():
        click.echo(f"chat: {line}", err=True)
    return click.exceptions.Exit(status)


def flags_of(data_dir: str | None, listen: tuple[str, ...], settings: tuple[str, ...]) -> dict[str, Any]:
    """What the options say, by key path. *Raises* BadParameter."""
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
    return flags


def configuration_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--config``, ``--data-dir``, ``--listen`` and ``--set``, as they are; see `flags_of`."""
    wrapped = command
    for option in (
        click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Set any key, e.g. limits.sends_burst=20."),
        click.option("--listen", metavar="HOST:PORT", multiple=True, help="Where to listen; may be repeated."),
        click.option("--data-dir", metavar="FOLDER", help="Where everything is kept."),
        click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="The configuration file (else CHAT_CONFIG)."),
    ):
        wrapped = option(wrapped)
    return wrapped


def server_options(command: Callable[..., Any], *, forgiving: bool = False) -> Callable[..., Any]:
    """The options of all that have to do with a server's configuration; the command gets a Loaded. *forgiving*: see `found_server`."""

    @functools.wraps(command)
    def with_loaded(config: Path | None, data_dir: str | None, listen: tuple[str, ...], settings: tuple[str, ...], **rest: Any) -> None:
        from chat.config import ConfigError, Loaded, read, rescue

        flags = flags_of(data_dir, listen, settings)
        try:
            loaded = read(config, os.environ, flags)
        except ConfigError as exc:
            if "CHAT_HANDOVER" in os.environ:
                from chat.background.handover import Heir

                if (heir := Heir.of_environment()) is not None:
                    heir.refuse("; ".join(exc.problems))
            told = fail(str(exc))
            if not forgiving:
                raise told from None
            found = rescue(exc, config, os.environ, flags)
            if found is None:
                where = "so it is not known where the server's files are: say it with --data-dir FOLDER (chat start named it)"
                raise fail(where) from None
            click.echo(f"chat: going on all the same, with the data folder {found.data_dir}", err=True)
            loaded = Loaded(config=found, file=None, sources={}, again=lambda: read(config, os.environ, flags))
        command(loaded, **rest)

    return configuration_options(with_loaded)


def found_server(command: Callable[..., Any]) -> Callable[..., Any]:
    """`server_options` for commands that only have to find a server, to look at it or to stop it: mistakes in its configuration are told,
    and the command goes on where they leave it known which data folder is meant. Who broke the file can still stop the server."""
    return server_options(command, forgiving=True)


def asked(ask: "Callable[[Config], Any]", config: "Config") -> Any:
    """*ask* about a server that may not be asked; tell why, if it cannot."""
    from chat.background import StartRefused

    try:
        return ask(config)
    except StartRefused as exc:
        raise fail(str(exc)) from None


class Commands(click.Group):
    """The ``chat`` command. What cannot be printed ends any of them: quietly where nobody reads any more, else with a line."""

    def invoke(self, context: click.Context) -> Any:
        try:
            try:
                return super().invoke(context)
            finally:
                sys.stdout.flush()  # what was held back fails here, and not at the interpreter's end
        except OSError as exc:
            if exc.filename is not None or exc.errno not in (errno.EPIPE, errno.ENOSPC, errno.EIO):
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if exc.errno == errno.EPIPE:
                raise click.exceptions.Exit(0) from None
            raise fail(f"standard output: {exc.strerror}") from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="chat")
def main() -> None:
    """A chat for your own machine. `chat serve` starts a server, `chat connect LINE` joins one."""
