"""The server's certificate: cert show, generate, import."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chat.cli.base import fail, main, server_options
from chat.cli.operator import done, json_option, refusing, sure, yes_option

if TYPE_CHECKING:
    from chat.config import Loaded

NEW_KEY = "It has another key: every join line that was given out is worth nothing then, and clients warn of a changed server. Go on?"


@main.group()
def cert() -> None:
    """The certificate that clients know the server by."""


def _lines(found: dict[str, Any]) -> str:
    from chat.admin.show import when

    left = f"{found['days_left']} days left" if found["days_left"] >= 0 else f"EXPIRED {-found['days_left']} days ago"
    rows = [
        ("certificate", f"{found['file']}{', self-signed' if found['self_signed'] else ''}"),
        ("key", found["key"]),
        ("fingerprint", f"{found['fingerprint']} (of the public key: what join lines name)"),
        ("names", ", ".join(found["names"]) or "none"),
        ("valid", f"{when(found['from'])} to {when(found['until'])}, {left}"),
    ]
    return "\n".join(f"{label + ':':<13}{value}" for label, value in rows)


@cert.command()
@json_option
@server_options
def show(loaded: "Loaded", as_json: bool) -> None:
    """Fingerprint, names and dates, and whether the key belongs to it."""
    from chat.admin import certificate

    with refusing():
        found = certificate.look(loaded.config)
    done(_lines(found), found, as_json=as_json)
    if found["problem"]:
        raise fail(found["problem"])


@cert.command()
@click.option(
    "--name",
    "names",
    metavar="NAME",
    multiple=True,
    help="A host name or address that it is for, instead of those of before; may be repeated.",
)
@click.option("--new-key", is_flag=True, help="With a new key too: the old one may have been copied.")
@yes_option
@json_option
@server_options
def generate(loaded: "Loaded", names: tuple[str, ...], new_key: bool, yes: bool, as_json: bool) -> None:
    """Make a new self-signed certificate, with the same key and names: nobody notices. The old one is kept beside it."""
    from chat.admin import certificate

    with refusing():
        certificate.may_replace(loaded.config)
    if new_key:
        sure(NEW_KEY, yes=yes)
    with refusing():
        made = certificate.generate(loaded.config, names, new_key=new_key)
    done(_told(made), made, as_json=as_json)


@cert.command("import")
@click.argument("certificate_file", metavar="CERTIFICATE", type=click.Path(path_type=Path))
@click.argument("key_file", metavar="KEY", type=click.Path(path_type=Path))
@yes_option
@json_option
@server_options
def import_(loaded: "Loaded", certificate_file: Path, key_file: Path, yes: bool, as_json: bool) -> None:
    """Use CERTIFICATE (PEM, with its chain) and its KEY from now on. The old ones are kept beside them.

    For files that something else renews, name them in the configuration instead: tls.certificate and tls.key.
    """
    from chat.admin import certificate

    for file in (certificate_file, key_file):
        if not file.is_file():
            raise fail(f"{file}: No such file or directory")
    with refusing():
        certificate.may_replace(loaded.config)
        certificate.belong_together(certificate_file, key_file)
        known = certificate.same_key(loaded.config, certificate_file)
    if not known:
        sure(NEW_KEY, yes=yes)
    with refusing():
        made = certificate.install(loaded.config, certificate_file, key_file)
    done(_told(made), made, as_json=as_json)


def _told(made: dict[str, Any]) -> str:
    used = "In use for new connections." if made["in_use"] else "It will be used from the next start on."
    kept = f"\nThe old files: {', '.join(made['kept'])}" if made["kept"] else ""
    names = [(said, made.get(key)) for said, key in (("Kept from the one before", "names_kept"), ("Not in it any more", "names_dropped"))]
    about = "".join(f"\n{said}: {', '.join(found)}" for said, found in names if found)
    return f"{_lines(made)}{about}\n{used}{kept}"
