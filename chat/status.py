"""``chat status``: whether the daemon runs, asked of its lock, and how it goes, asked of itself."""

import time
from typing import Any, Final

import attrs

from chat import log
from chat.admin import client
from chat.background import Running
from chat.config import Config
from chat.greeting import status_line

ANSWER_S: Final = 3.0  # a daemon that does not answer by then is told as one


def asked(config: Config, running: Running | None) -> dict[str, Any]:
    """Everything that is known. ``running`` is always there; ``figures`` where the daemon answers, else ``silent`` says why it does not."""
    found: dict[str, Any] = {"running": running is not None, "data_dir": str(config.data_dir)}
    if running is None:
        return found
    found.update(attrs.asdict(running, filter=lambda field, _: field.name in ("pid", "host", "started_s", "addresses", "version")))
    found["uptime_s"] = round(time.time() - running.started_s, 1)
    try:
        found["figures"] = client.ask(config, "status", {}, answer_s=ANSWER_S)
    except PermissionError:
        found["silent"] = "only its own user and root may ask it"
    except TimeoutError:
        found["silent"] = f"it does not answer within {ANSWER_S:g} s"
    except (OSError, client.Refused) as exc:
        found["silent"] = str(exc)
    return found


def lines(config: Config, running: Running | None, found: dict[str, Any]) -> list[str]:
    """For a person."""
    told = [status_line(config, running)]
    figures = found.get("figures")
    if figures is None:
        return [*told, f"no figures: {found['silent']}"] if "silent" in found else told
    kinds = ", ".join(f"{count} {kind}" for kind, count in figures["connections"].items() if count)
    total = sum(figures["connections"].values())
    told += [
        f"version {figures['version']}",
        f"{total} connections{f' ({kinds})' if kinds else ''}, {figures['sessions']} sessions, {figures['people_online']} people online",
        f"{figures['records_per_s']:g} messages/s in, {figures['deliveries_per_s']:g}/s out; waiting: {figures['queue']['inbox']} requests,"
        f" {figures['queue']['batches']} batches, {figures['outbox_bytes']} bytes to {figures['lagging']} slow readers",
        "commits: {p50:.3g} ms at the median, {p99:.3g} ms at the 99th percentile".format(
            **{name: 1000 * figures["commit_s"][name] for name in ("p50", "p99")}
        ),
        *(f"not ready: {problem}" for problem in figures["problems"]),
        *(f"warning: {complaint}" for complaint in figures["complaints"]),
        *(f"error: {str(event.get('time', ''))[:10]} {log.for_person(event)}" for event in figures["errors"][-3:]),
    ]
    return told


def json_of(found: dict[str, Any]) -> dict[str, Any]:
    """One flat object for programs: the figures beside the rest."""
    figures = found.pop("figures", {})
    return {**figures, **found}
