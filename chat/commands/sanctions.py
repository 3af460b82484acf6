"""Commands against people who disturb, in a channel and on the server."""

import fnmatch
from typing import Annotated, Any, Final

from chat.commands.arguments import Duration, Kind, Resolver, Rest, User
from chat.commands.context import Answer, Context, Decide
from chat.commands.registry import command
from chat.rooms import decisions as d
from chat.rooms.moderation import decisions as mod
from chat.rooms.moderation.sanctions import Network, contains, ending, network_of, shown, span
from chat.rooms.state import Account, State

PREVIEW_DAYS: Final = 30
SHOWN: Final = 20  # people in one list for eyes; the data has all


def _read_target(word: str, resolver: Resolver) -> Any:
    return (None if word.startswith("@") else network_of(word)) or resolver.user(word.removeprefix("@"))


Target = Annotated[Any, Kind("user", _read_target)]  # an Account, or a Network


def _why(ctx: Context, reason: str) -> str | None:
    return ctx.line(reason, "a reason") or None


def _until(ctx: Context, duration: int | None) -> int | None:
    return None if duration is None else ctx.now_ms + duration * 1000


def _done(what: str, duration: int | None, reason: str | None) -> str:
    return what + (f" for {span(duration * 1000)}" if duration is not None else "") + (f" ({reason})" if reason else "")


# ---------------------------------------------------------------- in a channel


@command(needs="kick", where="channel")
def kick(ctx: Context, username: User, reason: Rest = "") -> str:
    """Put somebody out of this channel. They may come back; channel-ban keeps them out."""
    why = _why(ctx, reason)
    ctx.do(mod.kick(ctx.state, ctx.account, ctx.here(), username, why, ctx.now_ms))
    return _done(f"kicked {username.name} from {ctx.here().conv}", None, why)


@command(needs="mute", where="channel")
def mute(ctx: Context, username: User, duration: Duration | None = None, reason: Rest = "") -> str:
    """Let somebody read this channel and not write in it, for a time (10m, 2h, 7d) or until unmute."""
    why = _why(ctx, reason)
    ctx.do(mod.mute(ctx.state, ctx.account, ctx.here(), username, why, ctx.now_ms, _until(ctx, duration)))
    return _done(f"muted {username.name} in {ctx.here().conv}", duration, why)


@command(needs="mute", where="channel")
def unmute(ctx: Context, username: User, reason: Rest = "") -> str:
    """Let somebody write in this channel again."""
    ctx.do(mod.unmute(ctx.state, ctx.account, ctx.here(), username, _why(ctx, reason)))
    return f"{username.name} may write in {ctx.here().conv} again"


@command(needs="channel-ban", where="channel")
def channel_ban(ctx: Context, username: User, duration: Duration | None = None, reason: Rest = "") -> str:
    """Put somebody out of this channel and keep them out, for a time (10m, 2h, 7d) or until channel-unban."""
    why = _why(ctx, reason)
    ctx.do(mod.channel_ban(ctx.state, ctx.account, ctx.here(), username, why, ctx.now_ms, _until(ctx, duration)))
    return _done(f"banned {username.name} from {ctx.here().conv}", duration, why)


@command(needs="channel-ban", where="channel")
def channel_unban(ctx: Context, username: User, reason: Rest = "") -> str:
    """Let somebody join this channel again."""
    ctx.do(mod.channel_unban(ctx.state, ctx.account, ctx.here(), username, _why(ctx, reason)))
    return f"{username.name} may join {ctx.here().conv} again"


@command(needs="mute", where="channel")
def sanctions(ctx: Context) -> Answer:
    """List who is banned from this channel or muted in it, by whom, why and for how long."""
    room = ctx.here()
    found = [("banned", account, ban) for account, ban in room.bans.items()]
    found += [("muted", account, mute) for account, mute in (room.rules.mutes.items() if room.rules is not None else ())]
    lines, data = [], []
    for what, account, sanction in sorted(found, key=lambda each: (each[0], ctx.state.name_of(each[1]).casefold())):
        name = ctx.state.name_of(account)
        lines.append(f"{name}: {what} {_told(ctx, sanction)}")
        data.append({"user": name, "what": what, **_plain(ctx.state, sanction)})
    return Answer("\n".join(lines) or f"nobody is banned from {room.conv} or muted in it", data)


# ---------------------------------------------------------------- on the server


@command(needs="ban")
def ban(ctx: Context, who: Target, duration: Duration | None = None, reason: Rest = "") -> str:
    """Ban a person or an address from the server, for a time (10m, 2h, 7d) or until unban.

    A person: every session ends at once, and no login is let in. An address (203.0.113.7) or a network (203.0.113.0/24, 2001:db8::/48; of
    IPv6 the /64 counts): nobody registers, logs in or resumes from there, and who is here from there is disconnected; server admins are
    not. "ban --preview" shows whom it would hit.
    """
    why = _why(ctx, reason)
    if isinstance(who, Account):
        ctx.do(d.ban(ctx.state, ctx.account, who, why, ctx.now_ms, _until(ctx, duration)))
        return _done(f"banned {who.name}", duration, why)
    own = [host for account, host in ctx.invocation.live() if account == ctx.account.id]
    ctx.do(mod.ban_address(ctx.state, ctx.account, who, why, ctx.now_ms, _until(ctx, duration), own))
    hit = {account for account, host in ctx.invocation.live() if contains(who, host) and ctx.state.accounts[account].role == "member"}
    return _done(f"banned {shown(who)}", duration, why) + f"; {_people(len(hit))} from there disconnected"


@command(needs="ban")
def unban(ctx: Context, who: Target, reason: Rest = "") -> str:
    """Lift the ban of a person, an address or a network."""
    why = _why(ctx, reason)
    if isinstance(who, Account):
        ctx.do(d.unban(ctx.state, ctx.account, who, ctx.around.default_channels, ctx.now_ms, why))
        return f"{who.name} may come back"
    ctx.do(mod.unban_address(ctx.state, ctx.account, who, why))
    return f"whoever comes from {shown(who)} may come again"


@command(needs="ban")
def banned_users(ctx: Context) -> Answer:
    """List who is banned from the server, and which addresses: by whom, why and for how long."""
    banned = sorted((ctx.state.accounts[account] for account in ctx.state.banned), key=lambda account: account.canonical)
    lines, data = [], []
    for account in banned:
        if account.ban is not None:
            lines.append(f"{account.name}: banned {_told(ctx, account.ban)}")
            data.append({"user": account.name, **_plain(ctx.state, account.ban)})
    for network, sanction in sorted(ctx.state.address_bans, key=lambda each: (each[0].version, each[0].network_address)):
        lines.append(f"{shown(network)}: banned {_told(ctx, sanction)}")
        data.append({"network": str(network), **_plain(ctx.state, sanction)})
    return Answer("\n".join(lines) or "nobody is banned", data)


@command(needs="ban")
async def ban_preview(ctx: Context, whom: str) -> Decide:
    """Show whom a ban would hit, now and in the last 30 days: an address, a network, or a pattern of names such as spam*.

    Also written "ban --preview". Nothing is changed.
    """
    network = None if whom.startswith("@") else network_of(whom)
    seen = await ctx.around.records.seen(ctx.now_ms - PREVIEW_DAYS * 86_400_000)

    def decide(ctx: Context) -> Answer:
        now: dict[int, set[str]] = {}
        before: dict[int, tuple[int, set[str]]] = {}
        hit = _by_network(network) if network is not None else _by_name(ctx.state, whom.removeprefix("@"))
        for account, host in ctx.invocation.live():
            if hit(account, host):
                now.setdefault(account, set()).add(host)
        for each in seen:
            if each.account not in now and each.account in ctx.state.accounts and hit(each.account, each.address):
                last_ms, hosts = before.setdefault(each.account, (each.last_ms, set()))
                before[each.account] = max(last_ms, each.last_ms), hosts | {each.address}
        return _preview(ctx, network, whom, now, before)

    return decide


def _by_network(network: Network) -> Any:
    known: dict[str, bool] = {}

    def hit(account: int, host: str) -> bool:
        if host not in known:
            known[host] = contains(network, host)
        return known[host]

    return hit


def _by_name(state: State, pattern: str) -> Any:
    folded = pattern.casefold()
    return lambda account, host: fnmatch.fnmatchcase(state.accounts[account].canonical, folded)


def _preview(ctx: Context, network: Network | None, whom: str, now: dict[int, set[str]], before: dict[int, tuple[int, set[str]]]) -> Answer:
    name_of = ctx.state.name_of
    what = shown(network) if network is not None else whom
    lines = [f"a ban of {what} would hit nobody" if not now and not before else f"a ban of {what} would hit"]
    if now:
        here = [f"{_marked(ctx, each)} ({', '.join(sorted(now[each]))})" for each in now]
        lines.append(f"  {_people(len(now))} here now: " + _listed(here))
    if before:
        ago = [f"{_marked(ctx, each)} ({span(ctx.now_ms - before[each][0])} ago)" for each in before]
        lines.append(f"  {_people(len(before))} who came in the last {PREVIEW_DAYS} days: " + _listed(ago))
    own = ctx.account.id in now or ctx.account.id in before
    if own:
        lines.append("WARNING: you are among them")
    data = {
        "what": what,
        "now": [{"user": name_of(each), "addresses": sorted(hosts)} for each, hosts in now.items()],
        "before": [{"user": name_of(each), "addresses": sorted(hosts), "seen": last_ms} for each, (last_ms, hosts) in before.items()],
        "yourself": own,
    }
    return Answer("\n".join(lines), data)


def _marked(ctx: Context, account: int) -> str:
    role = ctx.state.accounts[account].role
    return ctx.state.name_of(account) + ("" if role == "member" else f", {role}: an address ban leaves them alone")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _people(n: int) -> str:
    return "1 person" if n == 1 else f"{n} people"


# ---------------------------------------------------------------- words


def _told(ctx: Context, sanction: Any) -> str:
    because = f" ({sanction.reason})" if sanction.reason else ""
    return f"by {ctx.state.name_of(sanction.by)}{because}, {ending(sanction.until_ms, ctx.now_ms)}"


def _plain(state: State, sanction: Any) -> dict[str, Any]:
    return {"by": state.name_of(sanction.by), "reason": sanction.reason, "at": sanction.at_ms, "until": sanction.until_ms}
