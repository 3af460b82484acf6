"""Handlers that say who is there."""

import os
from typing import Any

from chat import __version__
from chat.admin.registry import Call, handler, load


@handler("hello", offline=True)
async def hello(call: Call) -> dict[str, Any]:
    """Who answers, and what can be asked."""
    return {"version": __version__, "pid": os.getpid(), "running": call.running is not None, "do": sorted(load())}
