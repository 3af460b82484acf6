"""The people of a server: user and ban."""

from typing import TYPE_CHECKING, Any

import click

from chat.cli.base import main, server_options
from chat.cli.operator import done, json_option, listed, new_password, operate, refusing, span, sure, yes_option

if TYPE_CHECKING:
    from chat.config import Config, Loaded

ROLES = click.Choice(["member", "admin", "owner"])
generate_option = click.option("--generate", is_flag=True, help="Make a password and print it, instead of asking for one.")


@main.group()
def user() -> None:
    """The people: accounts, passwords, roles, sessions."""


def _person(config: "Config", name: str) -> dict[str, Any]:
    """Who is meant, before anything is asked about them."""
    from chat.admin import look

    with refusing(), look.opened(config) as db:
        return look.account_of(db, name)


@user.command("list")
@click.option("--forgotten", is_flag=True, help="Those who were forgotten too.")
@json_option
@server_options
def list_users(loaded: "Loaded", forgotten: bool, as_json: bool) -> None:
    """Who has an account, with which role, and who is online."""
    from chat.admin import look
    from chat.admin.client import is_running
    from chat.admin.show import when

    with refusing(), look.opened(loaded.config) as db:
        rows = look.users(db, forgotten=forgotten, running=is_running(loaded.config))
    shown = [(r["name"], r["role"], r["state"], when(r["since"]), when(r["seen"]), r["reason"]) for r in rows]
    listed(("name", "role", "state", "since", "last seen", "reason"), shown, rows, as_json=as_json, none="nobody has an account yet")


@user.command()
@click.argument("name")
@click.option("--role", type=ROLES, default="member", show_default=True)
@generate_option
@json_option
@server_options
def add(loaded: "Loaded", name: str, role: str, generate: bool, as_json: bool) -> None:
    """Make an account NAME. Its password is asked for, or read as a line of standard input."""
    password_hash, made = new_password(loaded.config, generate)
    told = operate(loaded.config, "user.add", name=name, password_hash=password_hash, role=role)
    text = f"{told['user']} has an account ({role})" + (f"; password: {made}" if made else "")
    done(text, {**told, **({"password": made} if made else {})}, as_json=as_json)


@user.command()
@click.argument("name")
@generate_option
@json_option
@server_options
def passwd(loaded: "Loaded", name: str, generate: bool, as_json: bool) -> None:
    """Give NAME a new password. Every session of theirs ends."""
    password_hash, made = new_password(loaded.config, generate)
    told = operate(loaded.config, "user.passwd", name=name, password_hash=password_hash)
    text = f"{told['user']} has a new password" + (f": {made}" if made else "") + "; every session of theirs has ended"
    done(text, {**told, **({"password": made} if made else {})}, as_json=as_json)


@user.command()
@click.argument("name")
@click.argument("reason", required=False)
@yes_option
@json_option
@server_options
def suspend(loaded: "Loaded", name: str, reason: str | None, yes: bool, as_json: bool) -> None:
    """Let nobody in with NAME's account, until unsuspend. It keeps its channels and roles."""
    person = _person(loaded.config, name)
    if person["role"] == "owner":
        sure(f"{person['name']} owns the server: nobody is above them to lift it but you. Suspend them?", yes=yes)
    told = operate(loaded.config, "user.suspend", name=name, reason=reason)
    done(f"{told['user']} is suspended, and logged out everywhere; to end that: chat user unsuspend {told['user']}", told, as_json=as_json)


@user.command()
@click.argument("name")
@json_option
@server_options
def unsuspend(loaded: "Loaded", name: str, as_json: bool) -> None:
    """Let NAME in again."""
    told = operate(loaded.config, "user.unsuspend", name=name)
    done(f"{told['user']} may log in again", told, as_json=as_json)


@user.command()
@click.argument("name")
@click.argument("role", type=ROLES)
@json_option
@server_options
def role(loaded: "Loaded", name: str, role: str, as_json: bool) -> None:
    """Make NAME a member, an admin or the owner of the server. The owner of before is an admin then."""
    told = operate(loaded.config, "user.role", name=name, role=role)
    what = {"member": "a member", "admin": "an admin", "owner": "the owner"}[role]
    done(f"{told['user']} is {what} of the server now", told, as_json=as_json)


@user.command()
@click.argument("name")
@click.option("--end", is_flag=True, help="End all of them: NAME has to log in anew.")
@json_option
@server_options
def sessions(loaded: "Loaded", name: str, end: bool, as_json: bool) -> None:
    """Where NAME is logged in."""
    from chat.admin import look
    from chat.admin.client import is_running
    from chat.admin.show import when

    if end:
        told = operate(loaded.config, "user.end-sessions", name=name)
        done(f"every session of {told['user']} has ended", told, as_json=as_json)
        return
    with refusing(), look.opened(loaded.config) as db:
        rows = look.sessions(db, look.account_of(db, name)["id"], running=is_running(loaded.config))
    shown = [(r["client"], r["address"], when(r["since"]), when(r["seen"]), r["online"]) for r in rows]
    listed(("client", "address", "since", "last seen", "online"), shown, rows, as_json=as_json, none=f"{name} is logged in nowhere")


@user.command()
@click.argument("name")
@click.option("--keep-messages", is_flag=True, help="What they wrote stays, under the name of nobody.")
@yes_option
@json_option
@server_options
def forget(loaded: "Loaded", name: str, keep_messages: bool, yes: bool, as_json: bool) -> None:
    """Erase NAME: name, password, sessions, addresses, and every text they wrote (its place stays, empty). It cannot be undone.

    In what the server said, and in the commands that others used, the name is replaced. What others wrote themselves stays, and what
    plugins keep; the moderation log holds, the name is free for others. Backups, exports and the readable logs (log.messages) that were
    made before are yours to clean. What goes in detail: chat/store/sqlite_upkeep.py.
    """
    what = "name, sessions and addresses" if keep_messages else "name, sessions, addresses and every text they wrote"
    shown = _person(loaded.config, name)["name"]
    sure(f"Erase {shown}: {what}? It cannot be undone.", yes=yes)
    told = operate(loaded.config, "user.forget", label=f"Forgetting {shown}", name=name, keep_texts=keep_messages)
    texts = "their texts stay, without their name" if keep_messages else "their texts are erased"
    text = f"{told['user']} is forgotten: {told['now']} now, {texts}; what others wrote about them stays"
    done(text, told, as_json=as_json)


# ---------------------------------------------------------------- bans


@main.group()
def ban() -> None:
    """Who is banned from the server."""


@ban.command("list")
@json_option
@server_options
def list_bans(loaded: "Loaded", as_json: bool) -> None:
    """Who is banned, by whom, until when, and why."""
    from chat.admin import look
    from chat.admin.show import when

    with refusing(), look.opened(loaded.config) as db:
        rows = look.bans(db)
    shown = [(r["banned"], r["by"], when(r["since"]), when(r["until"]) or "it is lifted", r["reason"]) for r in rows]
    listed(("banned", "by", "since", "until", "reason"), shown, rows, as_json=as_json, none="nobody is banned")


@ban.command("add")
@click.argument("who")
@click.argument("reason", required=False)
@click.option("--for", "for_ms", callback=span, metavar="TIME", help="How long, such as 7d or 12h; without it until it is lifted.")
@json_option
@server_options
def add_ban(loaded: "Loaded", who: str, reason: str | None, for_ms: int | None, as_json: bool) -> None:
    """Ban WHO: a person (out of every channel, every session ends, no login is let in), an address, or a network such as 192.0.2.0/24."""
    from chat.admin.show import when

    told = operate(loaded.config, "ban.add", name=who, reason=reason, for_ms=for_ms)
    until = f" until {when(told['until'])}" if told["until"] is not None else ""
    done(f"{told['banned']} is banned{until}; to lift it: chat ban remove {told['banned']}", told, as_json=as_json)


@ban.command("remove")
@click.argument("who")
@json_option
@server_options
def remove_ban(loaded: "Loaded", who: str, as_json: bool) -> None:
    """Lift the ban of WHO: a person, an address or a network."""
    told = operate(loaded.config, "ban.remove", name=who)
    done(f"{told['banned']} may come back", told, as_json=as_json)
