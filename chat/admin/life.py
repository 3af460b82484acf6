"""The life of the process, as asked for from a shell: restart."""

from typing import Any

from chat.admin.registry import Call, handler
from chat.background import StartRefused
from chat.errors import ChatError


@handler("restart")
async def restart(call: Call) -> dict[str, Any]:
    """Start a successor and hand over to it; the answer comes when it has checked itself."""
    try:
        return {"version": await call.daemon.course.restart()}
    except StartRefused as refused:
        raise ChatError("unsupported", str(refused)) from refused
