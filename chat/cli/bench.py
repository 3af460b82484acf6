"""How much a server carries on this machine."""

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click

from chat.cli.base import fail, main


@main.command()
@click.option("--members", type=click.IntRange(min=2), default=1000, show_default=True, help="Sessions.")
@click.option("--channels", type=click.IntRange(min=1), default=1, show_default=True, help="The members are spread over them.")
@click.option("--senders", type=click.IntRange(min=1), default=10, show_default=True, help="How many of the members write.")
@click.option("--payload", type=int, default=100, show_default=True, metavar="BYTES", help="Of each text.")
@click.option("--rate", type=float, metavar="N", help="Messages a second in all. Without it: as many as the server takes.")
@click.option("--window", type=click.IntRange(min=1), default=16, show_default=True, help="Without --rate: messages of a sender in flight.")
@click.option("--private", is_flag=True, help="Private messages between pairs instead of channels.")
@click.option("--idle", type=click.IntRange(min=2), metavar="N", help="Measure the memory of N sessions that say nothing.")
@click.option("--logins", is_flag=True, help="Measure how fast sessions are opened, and resumed after all connections were cut.")
@click.option("--transport", type=click.Choice(["tcp", "tls", "web"]), default="tcp", show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="How long to measure.")
@click.option("--workers", type=click.IntRange(min=1, max=64), default=2, show_default=True, help="Processes of clients.")
@click.option("--server", metavar="JOIN-LINE", help="A running server that lets people register, instead of one of its own.")
@click.option("--no-stages", is_flag=True, help="Do not run once more to see where the server's time goes.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Draw it too, as .png or .svg.")
@click.option("--compare", nargs=2, type=click.Path(path_type=Path), metavar="A.json B.json", help="Compare two earlier ones.")
def bench(
    members: int,
    channels: int,
    senders: int,
    payload: int,
    rate: float | None,
    window: int,
    private: bool,
    idle: int | None,
    logins: bool,
    transport: str,
    seconds: float,
    workers: int,
    server: str | None,
    no_stages: bool,
    as_json: bool,
    plot: Path | None,
    compare: tuple[Path, Path] | None,
) -> None:
    """Measure what a server carries here: deliveries/s, CPU, latency, memory; lost, doubled and reordered messages are counted.

    It starts a server of its own on this machine, with limits raised and everything else as it comes, and ends it again.
    Exit status 1 when something was lost, doubled or out of order.
    """
    from chat.bench import report as reports
    from chat.bench.run import Failed, measure
    from chat.bench.scratch import NoServer, Server
    from chat.bench.workload import BadWorkload, Workload
    from chat.client.target import BadTarget, parse_target

    if compare is not None:
        try:
            click.echo("\n".join(reports.compare(*map(reports.load, compare))))
        except (OSError, ValueError) as exc:
            raise fail(str(exc)) from None
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended too
    if plot is not None and plot.suffix not in (".png", ".svg"):
        raise click.BadParameter("a picture is .png or .svg", param_hint="--plot")
    tell, done = _progress()
    try:
        workload = Workload.of(
            members=idle or members,
            channels=channels,
            senders=senders if idle is None else min(senders, idle),
            payload=payload,
            rate=rate,
            window=window,
            private=private,
            idle=idle is not None,
            logins=logins,
            transport=transport,
            seconds=seconds,
        )
        where = None
        if server is not None:
            target = parse_target(server)
            where = Server(host=target.host, port=target.port, invite=target.invite, secure=target.fingerprint is not None)
        result = measure(workload, server=where, stages=not no_stages, workers=workers, tell=tell)
    except BadWorkload as exc:
        raise click.UsageError(str(exc)) from None
    except (Failed, NoServer, BadTarget, OSError) as exc:
        done()
        raise fail(str(exc)) from None
    done()
    click.echo(json.dumps(result, indent=2) if as_json else "\n".join(reports.lines(result)))
    if plot is not None:
        try:
            reports.plot(result, plot)
        except ImportError:
            raise fail("--plot needs matplotlib: pip install 'chat[bench]'") from None
    if not reports.is_exact(result):
        raise click.exceptions.Exit(1)


def _progress() -> tuple[Callable[[str], None], Callable[[], None]]:
    """Two calls: one shows a line of progress where somebody is looking, the other takes it away."""
    if not sys.stderr.isatty():
        return (lambda text: None), (lambda: None)

    def tell(text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()

    return tell, lambda: tell("")
