"""How long records are kept: retention."""

from typing import TYPE_CHECKING, Any

import click

from chat.cli.base import main, server_options
from chat.cli.operator import done, json_option, listed, operate, refusing, size, span

if TYPE_CHECKING:
    from chat.config import Config, Loaded


@main.command()
@click.argument("channel", required=False)
@click.option("--keep", "keep_ms", callback=span, metavar="TIME", help="Keep what is younger than TIME, such as 90d.")
@click.option("--size", "keep_bytes", callback=size, metavar="SIZE", help="Keep the newest texts, together SIZE, such as 500M.")
@click.option("--forever", is_flag=True, help="Keep everything; in a CHANNEL whatever the server's retention is.")
@click.option("--default", "as_server", is_flag=True, help="In a CHANNEL: keep as long as the server says.")
@click.option("--apply", "really", is_flag=True, help="Do it. Without this only tell what would be deleted.")
@json_option
@server_options
def retention(
    loaded: "Loaded",
    channel: str | None,
    keep_ms: int | None,
    keep_bytes: int | None,
    forever: bool,
    as_server: bool,
    really: bool,
    as_json: bool,
) -> None:
    """How long records are kept: on the server, and in a CHANNEL that has its own. Without options: what is set.

    Only the oldest records go, once an hour. First it is told what would be deleted; --apply does it.
    """
    chosen = [keep_ms is not None or keep_bytes is not None, forever, as_server]
    if sum(chosen) > 1:
        raise click.UsageError("expected --keep and --size, or --forever, or --default")
    if keep_ms == 0 or keep_bytes == 0:
        raise click.UsageError("expected more than nothing; --forever keeps everything")
    if as_server and channel is None:
        raise click.UsageError("--default is for a CHANNEL")
    if not any(chosen):
        if really:
            raise click.UsageError("expected what to --apply: --keep TIME, --size SIZE, --forever or --default")
        _show(loaded.config, channel, as_json=as_json)
        return
    if forever and channel is not None:
        keep_ms = keep_bytes = 0
    if really:
        from chat.admin.show import some

        told = operate(loaded.config, "retention.set", label="Retention", channel=channel, keep_ms=keep_ms, keep_bytes=keep_bytes)
        done(f"{_where(channel)}: {_words(keep_ms, keep_bytes, channel)}; {some(told['deleted'], 'record')} deleted", told, as_json=as_json)
        return
    rows = _preview(loaded.config, channel, keep_ms, keep_bytes)
    _list(rows, as_json=as_json, none="nothing would be deleted now; --apply sets it")
    if rows and not as_json:
        click.echo("Nothing was changed: this is what would be deleted now. --apply does it.", err=True)


def _preview(config: "Config", channel: str | None, keep_ms: int | None, keep_bytes: int | None) -> list[dict[str, Any]]:
    from chat.admin import look
    from chat.store.retention import Keep

    with refusing(), look.opened(config) as db:
        room = look.channel_of(db, channel)["id"] if channel is not None else None
        rows = look.due(db, {room: Keep(ms=keep_ms, bytes=keep_bytes)})
        return [row for row in rows if room is None or row["conv"] == room]


def _list(rows: list[dict[str, Any]], *, as_json: bool, none: str) -> None:
    from chat.admin import show

    shown = [(row["name"], row["records"], show.size(row["bytes"]), row["below"]) for row in rows]
    listed(("would lose", "records", "text", "begins at"), shown, rows, as_json=as_json, none=none)


def _show(config: "Config", channel: str | None, *, as_json: bool) -> None:
    from chat.admin import look

    with refusing(), look.opened(config) as db:
        set_rows = look.retentions(db)
        if channel is not None:
            name = "#" + look.channel_of(db, channel)["name"]
            set_rows = [row for row in set_rows if row["name"] == name]
    shown = [(row["name"], _words(row["keep_ms"], row["keep_bytes"], row["name"])) for row in set_rows]
    listed(("where", "kept"), shown, set_rows, as_json=as_json, none=f"{channel}: as on the server")


def _where(channel: str | None) -> str:
    return "the server" if channel is None else "#" + channel.removeprefix("#")


def _words(keep_ms: int | None, keep_bytes: int | None, channel: str | None) -> str:
    from chat.admin import show

    if not keep_ms and not keep_bytes:
        return "everything" if channel in (None, "server") or keep_ms == 0 or keep_bytes == 0 else "as on the server"
    limits = [f"the last {show.span(keep_ms)}"] if keep_ms else []
    return ", ".join([*limits, *([f"at most {show.size(keep_bytes)} of text"] if keep_bytes else [])])
