"""Handlers that look into the running daemon."""

from typing import Any, Literal

from chat import log
from chat.admin.registry import Call, handler
from chat.metrics import figures as all_figures

Level = Literal["debug", "info", "warning", "error"]


@handler("figures")
async def figures(call: Call) -> dict[str, Any]:
    """What the daemon knows of itself: see `chat.metrics.figures`."""
    return all_figures(call.daemon.parts)


@handler("log-level")
async def log_level(call: Call, level: Level | None = None) -> dict[str, Any]:
    """The least that is logged from now on, until the server is started or its configuration read again; without *level* only ask."""
    before = log.level()
    if call.daemon and level is not None:  # a stopped server is refused
        log.set_level(level)
    return {"level": log.level(), "before": before}
