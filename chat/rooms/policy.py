"""Who may do what, and how often. The table of rights is data; `may` is the one place that reads it.

Two ladders of roles: the server's (member, admin, owner) and each channel's (member, moderator, owner). A server admin has the
rights of an owner in every channel that it can see; a private channel that it is not in, it cannot see.
"""

from typing import Final

import attrs

from chat.errors import ChatError
from chat.rooms.effects import RoomRole, ServerRole
from chat.rooms.moderation.why import refused
from chat.rooms.rates import Pace, TokenBucket
from chat.rooms.state import Account, Room

SERVER_LADDER: Final[tuple[ServerRole, ...]] = ("member", "admin", "owner")
ROOM_LADDER: Final[tuple[RoomRole, ...]] = ("member", "moderator", "owner")

SMALL_ROOM: Final = 200  # members; above, joining takes no seq and presence is not told (contract, section 2)

# right → (the least role in the channel, or None; the least role on the server, or None)
RIGHTS: Final[dict[str, tuple[RoomRole | None, ServerRole | None]]] = {
    "write": ("member", None),
    "topic": ("moderator", "admin"),
    "moderate": ("moderator", "admin"),  # the rules of a channel, and who breaks them
    "kick": ("moderator", "admin"),
    "mute": ("moderator", "admin"),
    "channel-ban": ("moderator", "admin"),
    "audit": ("moderator", "admin"),  # the moderation log: of the channels that one moderates, or all of it
    "reports": ("moderator", "admin"),  # those of the channels that one moderates, or all of them
    "delete-channel": ("owner", "admin"),
    "history-mode": ("owner", "admin"),
    "set-channel-role": ("owner", "admin"),
    "broadcast": (None, "admin"),
    "ban": (None, "admin"),
    "moderate-server": (None, "admin"),  # the same for all channels
    "lockdown": (None, "admin"),
    "commands": (None, "admin"),
    "set-server-role": (None, "owner"),
}


def rank(account: Account, room: Room | None = None) -> int:
    """Of two people, who is above: the server's ladder stands on top of the channel's. 0 and less are members, and who is none."""
    if account.role != "member":
        return len(ROOM_LADDER) + SERVER_LADDER.index(account.role)
    role = room.members.get(account.id) if room is not None else None
    return ROOM_LADDER.index(role) if role is not None else -1


def require_above(who: Account, target: Account, room: Room | None, verb: str) -> None:
    """Nobody sanctions somebody of their own rank or above, nor oneself. *Raises* ChatError forbidden."""
    if target.id == who.id:
        raise ChatError("forbidden", f"you cannot {verb} yourself")
    if rank(target, room) >= rank(who, room):
        role = room.members.get(target.id) if room is not None and target.role == "member" else target.role
        where = f"of {room.conv}" if room is not None and target.role == "member" else "of the server"
        article = "an" if str(role)[0] in "aeiou" else "a"
        raise refused(
            f"{target.name} is {article} {role} {where}: only somebody above may {verb} them", "rank", room=room.id if room else None
        )


def may(right: str, account: Account, room: Room | None = None) -> bool:
    """Has *account* this right, in *room* where it is a channel's?"""
    room_role, server_role = RIGHTS[right]
    if server_role is not None and SERVER_LADDER.index(account.role) >= SERVER_LADDER.index(server_role):
        return room is None or not room.private or account.id in room.members
    if room_role is not None and room is not None:
        role = room.members.get(account.id)
        return role is not None and ROOM_LADDER.index(role) >= ROOM_LADDER.index(room_role)
    return False


def require(right: str, account: Account, room: Room | None = None) -> None:
    """*Raises* ChatError forbidden, naming who may."""
    if not may(right, account, room):
        room_role, server_role = RIGHTS[right]
        who = " or ".join(w for w in (room_role and f"a channel's {room_role}", server_role and f"a server {server_role}") if w)
        raise refused(f"only {who} may do that ({right})", right, room=room.id if room is not None and room_role else None)


# What each right is for, as //perm shows it.
MEANINGS: Final[dict[str, str]] = {
    "write": "write in a channel",
    "topic": "set the topic",
    "moderate": "slow mode, announcements, invitations, word filter",
    "kick": "take somebody out of a channel",
    "mute": "silence somebody in a channel",
    "channel-ban": "ban somebody from a channel",
    "audit": "read the moderation log",
    "reports": "read what people reported",
    "delete-channel": "delete a channel",
    "history-mode": "say what of its history a channel shows",
    "set-channel-role": "make owner, moderators and members",
    "broadcast": "say something to everybody",
    "ban": "ban people and addresses from the server",
    "moderate-server": "the word filter of the whole server",
    "lockdown": "close the server to newcomers",
    "commands": "switch commands on and off",
    "set-server-role": "make and unmake admins",
}


def table(account: Account, room: Room | None) -> list[dict[str, str | bool | None]]:
    """Every right: what it is for, the least role in a channel and on the server that has it, and whether *account* has it here."""
    return [
        {
            "right": right,
            "meaning": MEANINGS.get(right, ""),
            "channel": room_role,
            "server": server_role,
            "has": may(right, account, room),
        }
        for right, (room_role, server_role) in RIGHTS.items()
    ]


def describe(account: Account, room: Room | None) -> dict[str, bool]:
    """Every right and whether *account* has it here."""
    return {right: may(right, account, room) for right in RIGHTS}


@attrs.frozen(kw_only=True)
class RateLimits:
    """Per account. Numbers: contract, section 7."""

    sends_burst: int = 10
    sends_per_s: float = 5
    commands_burst: int = 20
    commands_per_s: float = 5
    joins_per_min: float = 10
    new_channels_per_h: float = 5
    retries_per_s: int = 50
    reports_per_h: float = 6


@attrs.define(eq=False)
class AccountRates:
    sends: TokenBucket
    commands: TokenBucket
    joins: TokenBucket
    new_channels: TokenBucket
    retries: TokenBucket
    reports: TokenBucket
    lists: TokenBucket


_BUCKETS: Final = tuple(f.name for f in attrs.fields(AccountRates))
LISTS: Final = 20  # of members or commands that one may ask for at once; half as many a second. Who asks for more waits (`Connection`)
LOOKED_AT: Final = 500  # accounts at a time: 2 ms at most


def _paces(li: RateLimits) -> dict[str, Pace]:
    """Of each of the `AccountRates`."""
    return {
        "sends": Pace(li.sends_burst, li.sends_per_s),
        "commands": Pace(li.commands_burst, li.commands_per_s),
        "joins": Pace(max(1, li.joins_per_min), li.joins_per_min / 60),
        "new_channels": Pace(max(1, li.new_channels_per_h), li.new_channels_per_h / 3600),
        "retries": Pace(li.retries_per_s, li.retries_per_s),
        "reports": Pace(max(1, li.reports_per_h), li.reports_per_h / 3600),
        "lists": Pace(LISTS, LISTS / 2),
    }


class Rates:
    """The rates of every account that did something lately. ``now`` is monotonic seconds; `forget_full` bounds the memory."""

    def __init__(self, limits: RateLimits) -> None:
        self.limits = limits
        self._paces = _paces(limits)
        self._accounts: dict[int, AccountRates] = {}
        self._to_look_at: list[int] = []

    def of(self, account: int) -> AccountRates:
        rates = self._accounts.get(account)
        if rates is None:
            rates = self._accounts[account] = AccountRates(**{what: TokenBucket(pace) for what, pace in self._paces.items()})
        return rates

    def adjust(self, limits: RateLimits) -> None:
        """Other limits, at once. Who had used up his tokens has all of the new ones: once, and rarely."""
        if limits != self.limits:
            self.limits, self._paces = limits, _paces(limits)
            self._accounts.clear()

    def forget_full(self, now: float, most: int = LOOKED_AT) -> None:
        """Look at *most* of the accounts that did something, and drop what a new bucket would do as well. Each call goes on where the last
        one ended, and round again: call it once a second."""
        if not self._to_look_at:
            self._to_look_at = list(self._accounts)
        for account in self._to_look_at[-most:]:
            rates = self._accounts.get(account)
            if rates is not None and all(getattr(rates, bucket).is_full(now) for bucket in _BUCKETS):
                del self._accounts[account]
        del self._to_look_at[-most:]


def take(bucket: TokenBucket, now: float, what: str) -> None:
    """*Raises* ChatError rate_limited with the seconds to wait."""
    wait = bucket.take(now)
    if wait > 0:
        raise ChatError("rate_limited", f"too many {what}; wait {wait:.1f} s", retry_after=round(wait, 3))
