"""What people do for themselves: ignoring somebody, and reporting somebody to those who moderate. Plain decisions."""

from typing import Final

from chat.errors import ChatError
from chat.protocol.messages import Ignored, ServerNotice
from chat.rooms import effects as fx
from chat.rooms.moderation import audit
from chat.rooms.policy import may, require
from chat.rooms.rules import effects as rx
from chat.rooms.state import Account, Room, State

IGNORED_MAX: Final = 500


def ignored_names(state: State, who: Account) -> list[str]:
    return sorted(state.name_of(account) for account in who.ignored)


def ignore(state: State, who: Account, target: Account, now_ms: int) -> list[fx.Effect]:
    """No private messages and no questions from *target* any more; clients fold what it says in channels. Nobody is told."""
    if who.id == target.id:
        raise ChatError("bad_request", "you cannot ignore yourself")
    if target.id in who.ignored:
        raise ChatError("bad_request", f"you ignore {target.name} already")
    if len(who.ignored) >= IGNORED_MAX:
        raise ChatError("quota_exceeded", f"you ignore {IGNORED_MAX} people, and more are not possible")
    return [rx.PutIgnore(account=who.id, ignored=target.id, at_ms=now_ms), _told(state, who, who.ignored | {target.id})]


def unignore(state: State, who: Account, target: Account) -> list[fx.Effect]:
    if target.id not in who.ignored:
        raise ChatError("bad_request", f"you do not ignore {target.name}")
    return [rx.DropIgnore(account=who.id, ignored=target.id), _told(state, who, who.ignored - {target.id})]


def _told(state: State, who: Account, ignored: frozenset[int]) -> fx.Tell:
    return fx.Tell(account=who.id, message=Ignored(users=sorted(map(state.name_of, ignored))))


def check_taken(target: Account, sender: int) -> None:
    """*Raises* ChatError forbidden where *target* takes nothing private from *sender*."""
    if sender in target.ignored:
        raise not_taken(target)


def not_taken(target: Account) -> ChatError:
    return ChatError("forbidden", f"{target.name} takes no private messages from you")


def report(state: State, who: Account, room: Room | None, target: Account, reason: str | None, now_ms: int) -> list[fx.Effect]:
    """Kept with what was said last in the channel (or, outside of one, between the two in private) for those who moderate; told to those of
    them who are online. In a channel these are its moderators and the admins, who see everything that is reported; the accused is none
    of them."""
    if who.id == target.id:
        raise ChatError("bad_request", "you cannot report yourself")
    if room is not None and who.id not in room.members:
        raise ChatError("forbidden", f"you are not in {room.conv}; join it first")
    effects: list[fx.Effect] = [
        rx.PutReport(by=who.id, target=target.id, room=room.id if room is not None else None, at_ms=now_ms, reason=reason)
    ]
    because = f": {reason}" if reason else ""
    told = {account for account in state.online if may("reports", state.accounts[account])}
    if room is not None:
        told |= {account for account, role in room.members.items() if role != "member" and account in state.online}
    for account in sorted(told - {target.id, who.id}):
        said = f"{who.name} reports {target.name} {where(room, account)}{because}; the command reports shows what was said"
        effects.append(fx.Tell(account=account, message=ServerNotice(text=said, level="warning")))
    return effects


def where(room: Room | None, account: int) -> str:
    """For *account* to read: of a private channel that it is not in, it learns that there is one."""
    if room is None:
        return "in private"
    return f"in {room.conv}" if not room.private or room.known_to(account) else "in a private channel"


def rooms_reported_to(state: State, who: Account) -> list[int] | None:
    """Whose reports *who* may read: those of these channels, or all (None). *Raises* ChatError forbidden for whom it is none."""
    if may("reports", who):
        return None
    rooms = [room for room in sorted(who.rooms) if may("moderate", who, state.rooms[room])]
    if not rooms:
        require("reports", who)
    return rooms


def close_report(who: Account, report: int, target: int, room: int | None) -> list[fx.Effect]:
    """It was dealt with: it is taken off the list, and the log keeps that. The caller has checked that *who* may read it."""
    return [rx.DropReport(report=report), audit.entry(who.id, "close-report", target=target, room=room, before={"report": report})]
