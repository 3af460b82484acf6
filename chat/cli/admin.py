"""Who may come: invite."""

from typing import TYPE_CHECKING

import click

from chat.cli.base import fail, main, server_options
from chat.cli.operator import done, json_option, listed, operate, refusing, span

if TYPE_CHECKING:
    from chat.config import Config, Loaded


@main.group(invoke_without_command=True)
@click.option("--role", type=click.Choice(["member", "admin"]), help="What who comes by it is.")
@click.option("--uses", type=click.IntRange(min=1), metavar="N", help="How often it is good; without it once.")
@click.option("--expires", "expires_ms", callback=span, metavar="TIME", help="How long it is good, such as 7d or 12h; without it for ever.")
@json_option
@server_options
@click.pass_context
def invite(context: click.Context, loaded: "Loaded", role: str | None, uses: int | None, expires_ms: int | None, as_json: bool) -> None:
    """Print what guests need to come in: a line for the terminal, and a link for the browser.

    Without options those that the server made at its start, good for many; with any of them a new one.
    """
    if context.invoked_subcommand is not None:
        return
    if role is None and uses is None and expires_ms is None:
        _guests(loaded.config, as_json=as_json)
        return
    if loaded.config.registration == "closed":
        raise fail('registration is "closed": nobody could use an invite')
    told = operate(loaded.config, "invite.add", role=role or "member", uses=uses or 1, expires_ms=expires_ms)
    text = _lines(loaded.config, told["code"])
    done(text, {**told, "lines": text.splitlines()}, as_json=as_json)


def _guests(config: "Config", *, as_json: bool) -> None:
    from chat import background, greeting

    if (why := background.no_right(config.database)) is not None:
        raise fail(why)
    try:
        text = greeting.guests(config)
    except (OSError, ValueError) as exc:
        raise fail(background.refusal(exc) or str(exc)) from None
    if text is None:
        raise fail("nobody can register: there is no invite for guests, or registration is closed; a new one: chat invite --uses 1")
    done(text, {"lines": text.splitlines()}, as_json=as_json)


def _lines(config: "Config", code: str) -> str:
    from chat import background, greeting

    try:
        return greeting.invitation(config, code)
    except (OSError, ValueError) as exc:
        raise fail(f"the invite is {code}, but its join line cannot be made: {background.refusal(exc) or exc}") from None


@invite.command("list")
@json_option
@server_options
def list_invites(loaded: "Loaded", as_json: bool) -> None:
    """The invites that are still good."""
    from chat.admin import look
    from chat.admin.show import when

    with refusing(), look.opened(loaded.config) as db:
        rows = look.invites(db)
    shown = [
        (r["code"], r["role"], r["uses"] if r["uses"] is not None else "any", when(r["expires"]) or "never", r["by"], when(r["since"]))
        for r in rows
    ]
    listed(("code", "role", "uses left", "expires", "by", "since"), shown, rows, as_json=as_json, none="there is no invite")


@invite.command()
@click.argument("code")
@json_option
@server_options
def revoke(loaded: "Loaded", code: str, as_json: bool) -> None:
    """Make the invite CODE worth nothing."""
    told = operate(loaded.config, "invite.remove", code=code)
    done(f"the invite {told['code']} is worth nothing now", told, as_json=as_json)
