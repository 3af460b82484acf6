"""The part of the state that is about rules: word filters, settings of the server, and how their `effects` change rooms and
accounts. `State` owns the one `Rulebook`."""

from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

from chat.errors import ChatError
from chat.rooms.rules import effects as rx
from chat.rooms.rules.filters import WordFilter
from chat.rooms.rules.writing import refused_everywhere

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chat.rooms.state import Room, State

Lockdown = Literal["off", "accounts", "members"]


class Rulebook:
    """``filters``: room (`EVERYWHERE` for all) → rule → (who made it, when). ``settings``: what was set, by key."""

    def __init__(self) -> None:
        self.filters: Final[dict[int, dict[str, tuple[int, int]]]] = {}
        self.settings: Final[dict[str, Any]] = {}
        self.server_filter: WordFilter | None = None

    @property
    def lockdown(self) -> Lockdown:
        """``accounts``: nobody registers. ``members``: and nobody comes into a channel, and none is made."""
        found = self.settings.get("lockdown")
        return cast("Lockdown", found) if found in get_args(Lockdown) else "off"

    def filtered(self, text: str, *, admin: bool) -> ChatError | None:
        """Why *text* is said nowhere on this server. Channels ask their own `Rules`."""
        rule = self.server_filter.find(text) if self.server_filter is not None and not admin else None
        return refused_everywhere(rule) if rule is not None else None

    def load(self, state: "State", filters: "Iterable[tuple[int, str, int, int]]", settings: "Mapping[str, object]") -> None:
        """What the store has, once the rooms are there."""
        self.settings.update((key, value) for key, value in settings.items() if key in get_args(rx.Setting))
        for room, rule, by, at_ms in filters:
            self.filters.setdefault(room, {})[rule] = (by, at_ms)
        for room in self.filters:
            self._refresh(state, room)

    def add_room(self, room: "Room") -> None:
        """A room that is new, or loaded, has the filters too."""
        own = self.filters.get(room.id)
        if own or self.server_filter is not None:
            rules = room.restrict()
            rules.filter, rules.server_filter = WordFilter(own) if own else None, self.server_filter

    def drop_room(self, room: int) -> None:
        self.filters.pop(room, None)

    def forget(self, state: "State", account: int) -> None:
        """A person was erased."""
        state.accounts[account].ignored = frozenset()
        for other in state.accounts.values():
            other.ignored -= {account}
        for room in state.rooms.values():
            room.invited.discard(account)

    def apply(self, state: "State", effect: rx.RuleEffect) -> None:
        match effect:
            case rx.SetRoomSetting(room=room, key=key, value=value):
                _set(state.rooms[room], key, value)
            case rx.PutChannelInvite(room=room, account=account):
                state.rooms[room].invited.add(account)
            case rx.DropChannelInvite(room=room, account=account):
                state.rooms[room].invited.discard(account)
            case rx.PutFilter(room=room, pattern=pattern, by=by, at_ms=at_ms):
                self.filters.setdefault(room, {})[pattern] = (by, at_ms)
                self._refresh(state, room)
            case rx.DropFilter(room=room, pattern=pattern):
                self.filters.get(room, {}).pop(pattern, None)
                if not self.filters.get(room):
                    self.filters.pop(room, None)
                self._refresh(state, room)
            case rx.SetSetting(key=key, value=None):
                self.settings.pop(key, None)
            case rx.SetSetting(key=key, value=value):
                self.settings[key] = value
            case rx.PutIgnore(account=account, ignored=ignored):
                state.accounts[account].ignored |= {ignored}
            case rx.DropIgnore(account=account, ignored=ignored):
                state.accounts[account].ignored -= {ignored}
            case rx.PutReport() | rx.DropReport():
                pass

    def _refresh(self, state: "State", room: int) -> None:
        """Compile the filter of *room* anew, and put it where it is asked."""
        own = self.filters.get(room)
        compiled = WordFilter(own) if own else None
        if room == rx.EVERYWHERE:
            self.server_filter = compiled
            for each in state.rooms.values():
                each.restrict().server_filter = compiled
                each.relax()
        else:
            state.rooms[room].restrict().filter = compiled
            state.rooms[room].relax()


def _set(room: "Room", key: rx.RoomSetting, value: Any) -> None:
    match key:
        case "slow_s":
            rules = room.restrict()
            rules.slow_s = value
            rules.sent.clear()
        case "announce_only":
            room.restrict().announce_only = bool(value)
        case "invite_only":
            room.invite_only = bool(value)
        case "history":
            room.history = value
    room.relax()
