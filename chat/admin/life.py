"""The life of the process, as asked for from a shell: reload, restart."""

from typing import Any

import attrs

from chat.admin.registry import Call, handler
from chat.background import StartRefused
from chat.errors import ChatError


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
