"""The life of the process, as asked for from a shell: status, reload, restart."""

from typing import Any

import attrs

from chat import log
from chat.admin.registry import Call, handler
from chat.background import StartRefused
from chat.errors import ChatError
from chat.metrics import figures


@handler("status")
async def status(call: Call) -> dict[str, Any]:
    """What `chat status` shows: who runs, where, how it goes, and the last errors."""
    daemon = call.daemon
    running = daemon.course.lock.running
    return {
        "pid": running.pid,
        "started_s": running.started_s,
        "addresses": running.addresses,
        "data_dir": str(daemon.config.data_dir),
        "min_free_bytes": daemon.config.storage.min_free_bytes,
        **figures(daemon.parts),
        "errors": list(log.last_errors),
    }


@handler("reload")
async def reload(call: Call) -> dict[str, Any]:
    """Read configuration, certificate and plugins again; what changed, what needs a restart, and what stays as it was and why."""
    if call.daemon.course.reload is None:
        raise ChatError("shutting_down", "the server is stopping", retry_after=1)
    report: dict[str, Any] = attrs.asdict(await call.daemon.course.reload())
    return report


@handler("restart")
async def restart(call: Call) -> dict[str, Any]:
    """Start a successor and hand over to it; the answer comes when it has checked itself."""
    try:
        return {"version": await call.daemon.course.restart()}
    except StartRefused as refused:
        raise ChatError("unsupported", str(refused)) from refused
