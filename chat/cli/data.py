"""What a server has stored: backup, restore, export, search."""

import errno
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chat.cli.base import fail, main, server_options
from chat.cli.operator import done, json_option, progress, refusing, span, sure, yes_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chat.config import Loaded


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE where it is an earlier backup.")
@json_option
@server_options
def backup(loaded: "Loaded", file: Path, force: bool, as_json: bool) -> None:
    """Write everything that is stored to FILE, also while the server runs: all that was acknowledged before this began is in it.

    In FILE are the database and the server's own certificate with its key. Keep it as secret as the data folder.
    """
    from chat.admin import safekeeping
    from chat.admin.show import size, some

    with refusing(), progress("Backup") as shown:
        made = safekeeping.back_up(loaded.config, file, force=force, progress=shown)
    key = "" if made["certificate"] else "; not in it is the certificate that the configuration names (tls.certificate)"
    done(f"{made['file']}: {some(made['records'], 'record')}, {size(made['bytes'])}, checked{key}", made, as_json=as_json)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--end-sessions", is_flag=True, help="Everybody has to log in anew.")
@yes_option
@json_option
@server_options
def restore(loaded: "Loaded", file: Path, end_sessions: bool, yes: bool, as_json: bool) -> None:
    """Put the backup FILE in the place of what is stored. The server must be stopped.

    FILE is checked first. What was there is kept in a folder of its own. Clients that come back are told that the history is another one,
    and go on by themselves. Accounts, passwords, roles and bans are those of the backup. Who was logged in stays so, but for sessions
    that ended since.
    """
    from chat import background
    from chat.admin import safekeeping

    with refusing(), progress("Checking") as shown:
        shown(0, 0, str(file))
        found = safekeeping.look_at(file)
    if (why := background.no_right(loaded.config.database)) is not None:
        raise fail(why)
    if loaded.config.database.exists():
        sure(f"Replace what is in {loaded.config.data_dir} by the backup {safekeeping.described(found)}?", yes=yes)
    with refusing(), progress("Restore") as shown:
        told = safekeeping.restore(loaded.config, found, end_sessions=end_sessions, progress=shown)
    before = f"; what was there before: {told['aside']}" if told["aside"] else ""
    done(f"restored the backup {safekeeping.described(found)}{before}; go on with: chat start", told, as_json=as_json)


# ---------------------------------------------------------------- reading


@main.command()
@click.argument("channel", required=False)
@click.option("--user", metavar="NAME", help="Instead of a channel: all that is stored about NAME.")
@click.option("--format", "form", type=click.Choice(["json", "text", "html"]), default="json", show_default=True, help="json: JSON lines.")
@click.option("--json", "form", flag_value="json", help="The same as --format json.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Write to FILE (new, mode 0600), else to standard output.")
@server_options
def export(loaded: "Loaded", channel: str | None, user: str | None, form: str, output: Path | None) -> None:
    """Write out what was said in CHANNEL, or what is stored about somebody."""
    from chat.admin import look, pages, records

    if (channel is None) == (user is None):
        raise click.UsageError("expected a CHANNEL, or --user NAME")
    with refusing(), look.opened(loaded.config) as db:
        title, found, total = records.of_channel(db, channel) if channel is not None else records.of_person(db, user or "")
        _write(pages.FORMATS[form](title, found), output, total)


def _write(lines: "Iterator[str]", output: Path | None, total: int) -> None:
    from chat.admin.client import Refused

    if output is None:
        for text in lines:
            click.echo(text, nl=False)
        return
    count = 0
    try:
        fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file, progress("Export") as shown:
            for text in lines:
                file.write(text)
                count += 1
                shown(count, total, "records")
    except FileExistsError:
        raise Refused(f"{output} exists already") from None
    except OSError as exc:
        if count or exc.errno == errno.ENOSPC:
            output.unlink(missing_ok=True)  # a part of it, which one might take for all
        raise Refused(f"{output}: {exc.strerror}; nothing was written") from None
    click.echo(f"{output}: written", err=True)


@main.command()
@click.argument("words")
@click.option("--channel", metavar="NAME", help="Only there; else in every channel.")
@click.option("--user", metavar="NAME", help="Only what NAME wrote.")
@click.option("--since", "since", callback=span, metavar="TIME", help="Only the last TIME, such as 7d or 12h.")
@click.option("--private", is_flag=True, help="In private conversations too.")
@json_option
@server_options
def search(loaded: "Loaded", words: str, channel: str | None, user: str | None, since: int | None, private: bool, as_json: bool) -> None:
    """Find the messages in which all of WORDS occur. It looks at every record, beside the server, which does not notice."""
    from chat.admin import look, pages, records, show

    since_ms = int(time.time() * 1000) - since if since is not None else 0
    began, count = time.monotonic(), 0
    looked = 0
    with refusing(), look.opened(loaded.config) as db, progress("Search") as shown:

        def report(done: int, total: int, what: str) -> None:
            nonlocal looked
            looked = done
            shown(done, total, what)

        for record in records.search(db, words, channel=channel, user=user, since_ms=since_ms, private=private, progress=report):
            shown.done()
            click.echo(json.dumps(record, ensure_ascii=False) if as_json else pages.line(record, conv=True))
            count += 1
    if not as_json:
        took = time.monotonic() - began
        click.echo(f"{count} found in {show.some(looked, 'record')}, {took:.1f} s", err=True)
