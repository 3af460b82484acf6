"""Commands that show what was done and why: the moderation log, and the rule behind a refusal."""

import json
from typing import Annotated, Any, Final

from msgspec import Meta

from chat.commands.arguments import Kind, Resolver
from chat.commands.context import Answer, Context, Decide
from chat.commands.registry import command
from chat.rooms.moderation import in_force
from chat.rooms.moderation.audit import Entry
from chat.rooms.moderation.sanctions import moment, span
from chat.rooms.policy import may
from chat.rooms.state import State

PAGE: Final = 20  # entries of one answer


def _read_whom(word: str, resolver: Resolver) -> Any:
    return None if word.lower() == "all" else resolver.user(word.removeprefix("@"))


Whom = Annotated[Any, Kind("user", _read_whom)]  # an Account; None: everybody


@command(needs="audit")
async def audit(ctx: Context, username: Whom = None, before: Annotated[int, Meta(ge=1)] | None = None) -> Decide:
    """Show what moderators did, the latest first: all of it, or to one person. "audit all 120" shows what is older than entry 120.

    Moderators see the channels that they moderate, admins everything.
    """
    target = username.id if username is not None else None
    found = await ctx.around.records.audit(limit=PAGE, before=before, target=target, rooms=_rooms(ctx))

    def decide(ctx: Context) -> Answer:
        rooms = _rooms(ctx)  # asked again: some time has passed
        entries = [entry for entry in found if rooms is None or entry.room in rooms]
        lines = [_line(ctx, entry) for entry in entries]
        if len(found) == PAGE:
            lines.append(f"older ones: audit {username.name if username is not None else 'all'} {found[-1].n}")
        nothing = f"nothing was done to {username.name}" if username is not None else "nothing was done yet"
        where = "" if rooms is None else " in the channels that you moderate"
        return Answer("\n".join(lines) or nothing + where, [_plain(ctx, entry) for entry in entries])

    return decide


def _rooms(ctx: Context) -> list[int] | None:
    """Those that the person moderates; None: all, and what is in none."""
    if may("audit", ctx.account):
        return None
    return [room for room in sorted(ctx.account.rooms) if may("audit", ctx.account, ctx.state.rooms[room])]


def _line(ctx: Context, entry: Entry) -> str:
    state = ctx.state
    target = f" {state.name_of(entry.target)}" if entry.target is not None else ""
    where = f" in {_room(ctx, entry.room)}" if entry.room is not None else ""
    reason = f": {entry.reason}" if entry.reason else ""
    change = "; ".join(
        f"{when} {told}" for when, text in (("before", entry.before), ("after", entry.after)) if (told := _fields(ctx, text))
    )
    erased = " (its texts were erased)" if entry.salt is None else ""
    return f"{entry.n}. {moment(entry.at_ms)} {state.name_of(entry.actor)}: {entry.action}{target}{where}{reason}{erased}" + (
        f" [{change}]" if change else ""
    )


def _room(ctx: Context, room: int) -> str:
    """Of a private channel that one is not in, an admin sees that there is one."""
    found = ctx.state.rooms.get(room)
    if found is None:
        return "a channel that is gone"
    return found.conv if not found.private or ctx.account.id in found.members else "a private channel"


def _changed(ctx: Context, text: str | None) -> dict[str, Any] | None:
    """Before or after; what it says of private channels that one is not in is left out."""
    fields: dict[str, Any] | None = json.loads(text) if text is not None else None
    if fields is not None and "channels" in fields:
        fields["channels"] = {_channel(ctx, name): role for name, role in fields["channels"].items()}
    if fields is not None and fields.get("private"):  # of a channel that was deleted
        fields.pop("topic", None)
        fields["channel"] = "a private channel"
    return fields


def _channel(ctx: Context, name: str) -> str:
    room = ctx.state.room(name)
    if room is None:
        return "a channel that is gone"
    return name if not room.private or ctx.account.id in room.members else "a private channel"


def _fields(ctx: Context, text: str | None) -> str:
    fields = _changed(ctx, text) or {}
    return ", ".join(f"{key} {_value(ctx.state, key, value)}" for key, value in fields.items() if value not in (None, {}, ""))


def _value(state: State, key: str, value: Any) -> str:
    if key == "until":
        return moment(value)
    if key == "by":
        return state.name_of(value)
    if isinstance(value, dict):
        return ", ".join(f"{name} ({each})" for name, each in value.items())
    return str(value)


def _plain(ctx: Context, entry: Entry) -> dict[str, Any]:
    state = ctx.state
    return {
        "n": entry.n,
        "at": entry.at_ms,
        "actor": state.name_of(entry.actor),
        "action": entry.action,
        "target": state.name_of(entry.target) if entry.target is not None else None,
        "where": _room(ctx, entry.room) if entry.room is not None else None,
        "reason": entry.reason,
        "before": _changed(ctx, entry.before),
        "after": _changed(ctx, entry.after),
    }


SET_BY_COMMAND: Final = frozenset({"slow-mode", "announce-only", "invite-only", "filter", "server-filter", "lockdown", "disable-command"})


@command
async def why(ctx: Context) -> Decide:
    """Explain the last refusal that you got: which rule, whose, how long, whom to ask; and what binds you here."""
    last = ctx.invocation.refused
    wanted = {(each.rule, each.room) for each in in_force.binding(ctx.state, ctx.account, ctx.room, ctx.now_ms)}
    if last is not None and last.why is not None:
        wanted.add((last.why.rule, last.why.room))
    setters: dict[tuple[str, int | None], Entry] = {}
    for rule, room in wanted:
        if rule in SET_BY_COMMAND:
            for entry in await ctx.around.records.audit(limit=1, rooms=None if room is None else [room], action=rule):
                setters[rule, room] = entry

    def decide(ctx: Context) -> Answer:
        lines, data = ["nothing was refused to you lately"], None
        if last is not None:
            where = f" in {last.where}" if last.where else ""
            rule = last.why
            entry = setters.get((rule.rule, rule.room)) if rule is not None else None
            lines = [f"refused {span(max(0, ctx.now_ms - last.at_ms))} ago{where}: {last.message}{_set_by(ctx, entry)}"]
            by = entry.actor if entry is not None else rule.by if rule is not None else None
            data = {
                "code": last.code,
                "message": last.message,
                "at": last.at_ms,
                "where": last.where or None,
                "rule": rule.rule if rule is not None else None,
                "by": ctx.state.name_of(by) if by is not None else None,
                "until": rule.until_ms if rule is not None else None,
            }
        binding = in_force.binding(ctx.state, ctx.account, ctx.room, ctx.now_ms)
        lines += [f"in force: {each.text}{_set_by(ctx, setters.get((each.rule, each.room)))}" for each in binding]
        return Answer("\n".join(lines), {"refused": data, "in_force": [{"rule": each.rule, "text": each.text} for each in binding]})

    return decide


def _set_by(ctx: Context, entry: Entry | None) -> str:
    return "" if entry is None else f" (set by {ctx.state.name_of(entry.actor)} {span(max(0, ctx.now_ms - entry.at_ms))} ago)"
