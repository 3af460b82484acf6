"""What a server has stored: backup, restore, export, search, retention."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from chat.cli.base import main, server_options
from chat.cli.operator import done, json_option, progress, refusing, sure, yes_option

if TYPE_CHECKING:
    from chat.config import Loaded


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE where it exists.")
@json_option
@server_options
def backup(loaded: "Loaded", file: Path, force: bool, as_json: bool) -> None:
    """Write everything that is stored to FILE, also while the server runs: all that was acknowledged before this began is in it.

    In FILE are the database and the server's own certificate with its key. Keep it as secret as the data folder.
    """
    from chat.admin import safekeeping
    from chat.admin.show import size

    with refusing(), progress("Backup") as shown:
        made = safekeeping.back_up(loaded.config, file, force=force, progress=shown)
    key = "" if made["certificate"] else ", without the certificate, which is not the server's own"
    done(f"{made['file']}: {made['records']} records, {size(made['bytes'])}, checked{key}", made, as_json=as_json)


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
    from chat.admin import safekeeping

    with refusing(), progress("Checking") as shown:
        shown(0, 0, str(file))
        found = safekeeping.look_at(file)
    if loaded.config.database.exists():
        sure(f"Replace what is in {loaded.config.data_dir} by the backup {safekeeping.described(found)}?", yes=yes)
    with refusing(), progress("Restore") as shown:
        told = safekeeping.restore(loaded.config, found, end_sessions=end_sessions, progress=shown)
    before = f"; what was there before: {told['aside']}" if told["aside"] else ""
    done(f"restored the backup {safekeeping.described(found)}{before}; go on with: chat start", told, as_json=as_json)
