"""Handlers that change channels, and those that speak."""

from typing import Any

from chat.admin.registry import Call, handler
from chat.errors import ChatError
from chat.rooms import decisions as d
from chat.rooms.moderation import operator as a
from chat.store.retention import ROWS


@handler("channel.delete", offline=True)
async def delete(call: Call, channel: str) -> dict[str, Any]:
    defaults, name = call.house.config.default_channels, ""

    def decide(state: Any, now_ms: int) -> Any:
        nonlocal name
        room = a.find_room(state, channel)
        name = room.name
        return a.delete_room(state, room, defaults)

    await call.house.decide(decide)
    return {"channel": name}


@handler("say", offline=True)
async def say(call: Call, channel: str, text: str) -> dict[str, Any]:
    """As the server; stored and told like every message. While the server is stopped: for those who come back."""
    limit = call.house.config.limits.text_bytes
    if not text.strip() or len(text.encode()) > limit:
        raise ChatError("bad_request", f"a text has 1 to {limit} bytes, and not blanks alone")
    outcome = await call.house.decide(lambda state, _: a.say(a.find_room(state, channel), text))
    placed = outcome.placed[0]
    return {"channel": call.house.state.rooms[placed.conv].name, "seq": placed.seq}


@handler("broadcast")
async def broadcast(call: Call, text: str) -> dict[str, Any]:
    """To everybody online; not stored."""
    online = len(call.house.state.online)
    await call.house.decide(lambda state, _: d.broadcast(a.SHELL, text))
    return {"online": online}


@handler("retention.set", offline=True)
async def retention(call: Call, channel: str | None = None, keep_ms: int | None = None, keep_bytes: int | None = None) -> dict[str, Any]:
    """See `chat.rooms.effects.SetRetention`. What is to go by it goes at once, in steps that others do not feel."""

    def decide(state: Any, now_ms: int) -> Any:
        room = a.find_room(state, channel) if channel is not None else None
        return a.set_retention(room, keep_ms, keep_bytes)

    await call.house.decide(decide)
    found = await call.house.cuts()
    total, done = sum(cut.records for cut in found), 0
    for cut in found:
        while await call.house.trim(cut):
            done += ROWS
            await call.progress(done, total, "records")
    return {"channel": channel, "keep_ms": keep_ms, "keep_bytes": keep_bytes, "deleted": total}
