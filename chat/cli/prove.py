"""``chat prove``: shows that nothing is lost."""

import json
import random
import sys

import click

from chat.cli.base import fail, main


@main.command()
@click.option("--seconds", type=click.FloatRange(min=1, max=86400), default=30.0, show_default=True, help="How long it storms.")
@click.option("--seed", type=click.IntRange(min=0), help="Repeat the schedule of an earlier run (with the same other options).")
@click.option("--kills", type=click.IntRange(min=0), help="How often the server is killed; else once in 5 s.")
@click.option("--people", type=click.IntRange(2, 100), default=8, show_default=True, help="Each has two devices.")
@click.option("--rate", type=click.FloatRange(min=0.1, max=50), default=12.0, show_default=True, help="Texts a second of each.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
def prove(seconds: float, seed: int | None, kills: int | None, people: int, rate: float, as_json: bool) -> None:
    """Try the delivery: nothing lost, doubled, out of order or missing.

    Starts a server of its own with fresh data on this machine, lets people talk over TCP, TLS and WebSocket, and does to them what
    the world does: kill -9, cut and black-holed connections, other addresses, readers who stop reading, floods, retries of
    everything. In the end it compares what was acknowledged, what each device saw and what the history says. Exit status 1: a
    violation, explained.
    """
    import trio

    from chat.prove import run, show
    from chat.prove.evidence import Refused
    from chat.prove.scratch import CannotStart

    if seed is None:
        seed = random.SystemRandom().randrange(10**6)
    plan = run.Plan(seed=seed, seconds=seconds, people=people, rate=rate, kills=kills)
    try:
        report = trio.run(run.prove, plan, show.Progress(sys.stderr))
    except (CannotStart, Refused) as exc:
        raise fail(f"the server that was to be tried: {exc}") from None
    except KeyboardInterrupt:
        raise fail("interrupted: nothing is proved", status=130) from None
    click.echo(json.dumps(report.as_json(), ensure_ascii=False) if as_json else show.page(report))
    raise click.exceptions.Exit(0 if report.green else 1)
