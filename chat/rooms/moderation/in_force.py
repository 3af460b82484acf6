"""What binds a person here and now, in words: the sanctions and the rules of a channel, for //why."""

import attrs

from chat.rooms.moderation.sanctions import Sanction, ending
from chat.rooms.policy import may
from chat.rooms.state import Account, Room, State


@attrs.frozen
class Binding:
    """``rule`` and ``room`` are those of `chat.rooms.moderation.why.Why`."""

    rule: str
    text: str
    room: int | None = None


def binding(state: State, who: Account, room: Room | None, now_ms: int) -> list[Binding]:
    """In *room*, and the channels that *who* is banned from. Of a private one that it is not in, nothing is said."""
    found = _here(state, who, room, now_ms) if room is not None else []
    for each in state.rooms.values():
        ban = each.bans.get(who.id)
        if ban is not None and not ban.over(now_ms) and not each.private:
            found.append(Binding("channel-ban", f"you are banned from {each.conv} {_by(state, ban, now_ms)}", each.id))
    if state.book.lockdown != "off" and not may("moderate-server", who):
        closed = "no new accounts" if state.book.lockdown == "accounts" else "no new accounts and channels, and nobody comes into channels"
        found.append(Binding("lockdown", f"this server is locked down: {closed}"))
    return found


def _here(state: State, who: Account, room: Room, now_ms: int) -> list[Binding]:
    found: list[Binding] = []
    if who.id not in room.members:
        found.append(Binding("write", f"you are not in {room.conv}: join it to write there", room.id))
    rules = room.rules
    if rules is None:
        return found
    mute = rules.mutes.get(who.id)
    if mute is not None and not mute.over(now_ms):
        found.append(Binding("mute", f"you are muted in {room.conv} {_by(state, mute, now_ms)}", room.id))
    moderates = may("moderate", who, room)
    if rules.announce_only and not moderates:
        found.append(Binding("announce-only", f"{room.conv} is for announcements: only its moderators write here", room.id))
    if rules.slow_s and not moderates:
        found.append(Binding("slow-mode", f"{room.conv} is in slow mode: a message every {rules.slow_s:g} s", room.id))
    if rules.filter is not None and not moderates:
        found.append(Binding("filter", f"{room.conv} has a word filter", room.id))
    if rules.server_filter is not None and not may("moderate-server", who):
        found.append(Binding("server-filter", "this server has a word filter"))
    return found


def _by(state: State, sanction: Sanction, now_ms: int) -> str:
    because = f" ({sanction.reason})" if sanction.reason else ""
    return f"by {state.name_of(sanction.by)}{because} {ending(sanction.until_ms, now_ms)}"
