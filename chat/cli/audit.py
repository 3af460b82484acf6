"""The moderation log, from the shell of the machine that has the database."""

import contextlib
import re
from typing import TYPE_CHECKING

import click

from chat.cli.base import fail, main, server_options
from chat.cli.operator import done, json_option, refusing

if TYPE_CHECKING:
    from chat.config import Loaded

CANNOT_KNOW = """\
What a chain cannot show by itself: that entries were cut off at its end, or that somebody who may write the file made all of it anew.
Note the head elsewhere, and compare with it later: chat audit verify --head HASH"""


@main.group()
def audit() -> None:
    """The log of what moderators did."""


def _hash(context: click.Context, parameter: click.Parameter, value: str | None) -> bytes | None:
    if value is None:
        return None
    if not re.fullmatch(r"[0-9a-fA-F]{64}", value.strip()):
        raise click.BadParameter("expected the 64 hexadecimal digits that verify printed as the head")
    return bytes.fromhex(value.strip())


@audit.command()
@click.option("--head", "noted", metavar="HASH", callback=_hash, help="A head that was noted earlier: it must be in the chain.")
@json_option
@server_options
def verify(loaded: "Loaded", noted: bytes | None, as_json: bool) -> None:
    """Check the chain of the moderation log, also while the server runs. Exit status 0: it holds, 1: it does not."""
    import sqlite3

    import attrs

    from chat.admin import look
    from chat.rooms.moderation.audit import verify as follow
    from chat.store.sqlite_audit import chain
    from chat.store.sqlite_files import connect

    file = loaded.config.database
    with refusing():
        look.there(loaded.config)
    try:
        with contextlib.closing(connect(file, busy_timeout_s=5, read_only=True)) as db:
            db.execute("BEGIN")
            verdict = follow(chain(db), noted)
    except sqlite3.Error as exc:
        raise fail(f"the moderation log in {file} cannot be read: {exc}") from None
    if as_json:
        holds = verdict.problem is None and (noted is None or verdict.noted is not None)
        done("", {"holds": holds, **attrs.asdict(verdict), "head": verdict.head.hex()}, as_json=True)
        raise click.exceptions.Exit(0 if holds else 1)
    entries = "1 entry" if verdict.entries == 1 else f"{verdict.entries} entries"
    if verdict.problem is not None:
        raise fail(f"the moderation log was tampered with: {verdict.problem}\n{entries} before that hold, head {verdict.head.hex()}")
    erased = f", the texts of {verdict.erased} erased" if verdict.erased else ""
    click.echo(f"The chain holds: {entries}{erased}.\nhead {verdict.head.hex()}")
    if noted is not None and verdict.noted is None:
        raise fail("no entry has the noted head: since it was noted entries were cut off at the end, or the log was made anew")
    if noted is not None:
        click.echo(f"The noted head is that of entry {verdict.noted}: up to there nothing was changed, put in or taken out since.")
    click.echo(CANNOT_KNOW)
