"""``chat doctor``."""

import json
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Final

import click

from chat.cli.base import found_server, main

if TYPE_CHECKING:
    from chat.config import Loaded
    from chat.doctor import Finding

SIGNS: Final = {"fine": ("✓", "green"), "advice": ("!", "yellow"), "wrong": ("✗", "red")}
NAME_WIDTH: Final = 14
OF_CONFIGURATION: Final = ("port", "names")  # what cannot be looked at without knowing that


@main.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@found_server
def doctor(loaded: "Loaded", as_json: bool) -> None:
    """Look at this installation: what is fine, what is not, and what to do. Exit status 1: something is wrong.

    It changes nothing, and may be used while the server runs. Where the configuration has mistakes, the rest is looked at all the same.
    """
    from chat import doctor as checks

    found, mistakes = [], _mistakes(loaded)
    if not as_json:
        by = "with mistakes" if mistakes else f"by {loaded.file or 'no file'}"
        click.echo(f"chat on {loaded.config.data_dir}, configured {by}")
    for finding in (*mistakes, *checks.examine(loaded.config)):
        if mistakes and finding.name in OF_CONFIGURATION:
            continue
        found.append(finding)
        if not as_json:
            _show(finding)
    states = [finding.state for finding in found]
    if as_json:
        click.echo(json.dumps({"ok": "wrong" not in states, "findings": [finding.as_json() for finding in found]}, ensure_ascii=False))
    else:
        click.echo(_verdict(states.count("wrong"), states.count("advice")))
    raise click.exceptions.Exit(1 if "wrong" in states else 0)


def _mistakes(loaded: "Loaded") -> "list[Finding]":
    """What keeps the configuration from being used, as a finding; without it the files were found all the same."""
    from chat.config import ConfigError
    from chat.doctor.finding import wrong

    try:
        loaded.again()
    except ConfigError as exc:
        return [wrong("configuration", "; ".join(exc.problems), "chat config check finds each mistake")]
    return []


def _show(finding: "Finding") -> None:
    sign, color = SIGNS[finding.state]
    width = max(60, shutil.get_terminal_size().columns) if sys.stdout.isatty() else 10_000
    indent = " " * (4 + NAME_WIDTH)
    lines = textwrap.wrap(finding.text, width - len(indent), break_on_hyphens=False) or [""]
    click.echo(f"  {click.style(sign, fg=color)} {finding.name:<{NAME_WIDTH}}{lines[0]}")
    lines = [*lines[1:], *(textwrap.wrap(f"→ {finding.todo}", width - len(indent), break_on_hyphens=False) if finding.todo else [])]
    for line in lines:
        click.echo(indent + line)


def _verdict(wrong: int, advice: int) -> str:
    if wrong:
        return click.style(f"{wrong} {'thing is' if wrong == 1 else 'things are'} wrong", fg="red")
    return "All is fine." if not advice else f"All works; {advice} {'thing' if advice == 1 else 'things'} could be better."
