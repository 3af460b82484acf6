"""Whom a ban keeps out: of a channel, of the server, by account and by address. Asked before anybody comes in."""

from chat.errors import ChatError
from chat.rooms.moderation.sanctions import Sanction, ending, shown
from chat.rooms.moderation.why import refused
from chat.rooms.state import Account, Room, State


def check_may_join(state: State, room: Room, account: int, now_ms: int) -> None:
    """*Raises* ChatError forbidden for who is banned from the channel."""
    ban = room.bans.get(account)
    if ban is not None and not ban.over(now_ms):
        raise banned(state, f"you are banned from {room.conv}", "channel-ban", ban, now_ms, room)


def check_address(state: State, host: str, account: Account | None, now_ms: int) -> None:
    """May *account* (None: a new one) come from the address *host*? *Raises* ChatError forbidden."""
    if not len(state.address_bans) or (account is not None and account.role != "member"):
        return
    found = state.address_bans.find(host, now_ms)
    if found is not None:
        network, ban = found
        raise banned(state, f"{shown(network)}, where you come from, is banned", "address-ban", ban, now_ms)


def check_not_banned(state: State, account: Account, now_ms: int) -> None:
    """*Raises* ChatError forbidden with who banned the account, why and for how long; or that it is suspended, or nobody's any more."""
    if account.suspended or account.forgotten:
        raise refused("this account is suspended", "suspended")
    ban = account.ban
    if ban is not None and (ban.until_ms is None or ban.until_ms > now_ms):
        sanction = Sanction(by=ban.by, at_ms=ban.at_ms, until_ms=ban.until_ms, reason=ban.reason)
        raise banned(state, "this account is banned from this server", "ban", sanction, now_ms)


def banned(state: State, what: str, rule: str, ban: Sanction, now_ms: int, room: Room | None = None) -> ChatError:
    """*what* somebody is told, with who did it, why and for how long."""
    because = f" ({ban.reason})" if ban.reason else ""
    said = f"{what} by {state.name_of(ban.by)}{because} {ending(ban.until_ms, now_ms)}"
    return refused(said, rule, room=room.id if room is not None else None, by=ban.by, until_ms=ban.until_ms)
