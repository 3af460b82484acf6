"""What the operator's commands share: asking the server (or its files), tables or JSON, progress, refusals."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from chat.cli.base import fail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chat.admin.show import Progress
    from chat.config import Config

json_option = click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@contextmanager
def refusing() -> "Iterator[None]":
    """What is refused inside is told on standard error; the exit status is 1."""
    from chat.admin.client import Refused

    try:
        yield
    except Refused as exc:
        raise fail(str(exc)) from None


@contextmanager
def progress(label: str) -> "Iterator[Progress]":
    from chat.admin.show import Progress

    shown = Progress(label)
    try:
        yield shown
    finally:
        shown.done()


def operate(config: "Config", do: str, *, label: str = "", **arguments: Any) -> Any:
    """Have it done by the server, or on its files. *label*: of the progress, where it may take long."""
    from chat.admin import client

    with refusing(), progress(label) as shown:
        return client.run(config, do, progress=shown, **arguments)


def done(text: str, data: Any, *, as_json: bool) -> None:
    """The one thing that a command has to say."""
    click.echo(json.dumps(data, ensure_ascii=False) if as_json else text)


def listed(headings: Sequence[str], rows: Iterable[Sequence[Any]], data: Any, *, as_json: bool, none: str) -> None:
    """A table for a person (*none* where it would be empty), *data* for a program."""
    from chat.admin.show import table

    if as_json:
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
    elif not (found := list(rows)):
        click.echo(none)
    else:
        click.echo("\n".join(table(headings, found)))


def sure(question: str, *, yes: bool) -> None:
    """Ask before what cannot be undone. Without a terminal, and without ``--yes``, nothing is done."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise fail(f"{question} Nobody can be asked here: say --yes")
    if not click.confirm(question, err=True):
        raise fail("nothing was done")


def span(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """``90d`` → milliseconds; a click callback."""
    from chat.admin.show import parse_span

    return _parsed(parse_span, value)


def size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """``500M`` → bytes; a click callback. ``forever`` → 0."""
    from chat.admin.show import parse_size

    return _parsed(parse_size, value)


def _parsed(parse: Callable[[str], int], value: str | None) -> int | None:
    if value is None:
        return None
    try:
        return parse(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


def new_password(config: "Config", generate: bool) -> tuple[str, str | None]:
    """Ask for a password (or make one): its hash, and the password where it was made. It never leaves this process."""
    import secrets

    from chat.accounts import Passwords
    from chat.errors import ChatError

    if generate:
        password = secrets.token_urlsafe(12)
    elif sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
        if not password:
            raise fail("expected the password as a line of standard input, or --generate")
    costs = config.passwords
    try:
        hashed = Passwords(memory_kib=costs.memory_kib, passes=costs.passes, parallel=costs.parallel).hash_here(password)
    except ChatError as error:
        raise fail(error.message) from None
    return hashed, password if generate else None
