"""The decision state: who has an account, who is a member where, who is banned, which sessions are held.

It is a cache of the store, and changes in one way only: by `State.apply`, with the same effects that the store is given. So a state
built from the effects of a run equals the state loaded from the store at its end; a test holds that. Plain synchronous code: no
Trio, no SQL, no clock of its own.

A room's members are kept in the order in which they joined, which is the order of succession.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

import attrs

from chat.errors import ChatError
from chat.protocol import names
from chat.rooms import effects as fx
from chat.rooms.commands.plugin_values import PluginValues
from chat.rooms.moderation.sanctions import AddressBans, Endings, Key, Sanction, network_of
from chat.rooms.rules import effects as rx
from chat.rooms.rules.rulebook import Rulebook
from chat.rooms.rules.writing import Rules


@attrs.define(eq=False)
class Account:
    id: int
    name: str
    canonical: str
    skeleton: str
    color: str | None
    role: fx.ServerRole
    ban: fx.PutBan | None = None
    rooms: tuple[int, ...] = ()  # of which it is a member; most are in few, and a set of one takes 216 bytes
    suspended: bool = False
    forgotten: bool = False
    ignored: frozenset[int] = frozenset()  # whose private messages it does not take

    def enter(self, room: int) -> None:
        if room not in self.rooms:
            self.rooms += (room,)

    def leave(self, room: int) -> None:
        self.rooms = tuple(other for other in self.rooms if other != room)


@attrs.define(eq=False)
class Room:
    """``password_version``: a password that was checked outside the decision is checked against it again. It stays 0, since nothing changes
    the password of a channel: whatever will, has to raise it.

    ``rules`` is what restricts writing, None while nothing does: see `chat.rooms.rules.writing`.
    """

    id: int
    name: str
    canonical: str
    skeleton: str
    epoch: str
    topic: str
    private: bool
    password_hash: str | None
    members: dict[int, fx.RoomRole] = attrs.Factory(dict)
    password_version: int = 0
    rules: Rules | None = None
    invite_only: bool = False
    invited: set[int] = attrs.Factory(set)  # who may come all the same, or into a private one without its password
    history: rx.HistoryMode = "all"
    bans: dict[int, Sanction] = attrs.Factory(dict)  # account → the channel's ban
    prefix: str | None = None  # of commands; None: the server's
    disabled_commands: set[str] = attrs.Factory(set)  # in this channel

    @property
    def conv(self) -> str:
        return "#" + self.name

    @property
    def owner(self) -> int | None:
        return next((account for account, role in self.members.items() if role == "owner"), None)

    def known_to(self, account: int) -> bool:
        """Whether *account* knows of the room although it is private."""
        return account in self.members or account in self.invited

    def restrict(self) -> Rules:
        """The rules, to put one in."""
        if self.rules is None:
            self.rules = Rules()
        return self.rules

    def relax(self) -> None:
        """One was taken out: without any left, texts pay nothing."""
        if self.rules is not None and self.rules.empty:
            self.rules = None


@attrs.define(eq=False)
class Invite:
    code: str = attrs.field(repr=False)
    role: fx.ServerRole
    uses_left: int | None
    expires_ms: int | None


class Loaded(Protocol):
    """What `State.load` reads: a store's snapshot, field for field (rooms/ imports no store)."""

    @property
    def accounts(self) -> Iterable[Any]: ...
    @property
    def bans(self) -> Iterable[Any]: ...
    @property
    def sanctions(self) -> Iterable[Any]: ...
    @property
    def rooms(self) -> Iterable[Any]: ...
    @property
    def invites(self) -> Iterable[Any]: ...
    @property
    def disabled_commands(self) -> Iterable[str]: ...
    @property
    def sessions(self) -> Iterable[Any]: ...
    @property
    def plugin_values(self) -> Iterable[tuple[str, str, str]]: ...
    @property
    def filters(self) -> Iterable[tuple[int, str, int, int]]: ...
    @property
    def ignores(self) -> Iterable[tuple[int, int]]: ...
    @property
    def settings(self) -> Mapping[str, object]: ...


_RULES: Final = frozenset(rx.RuleEffect.__args__)


def unseen(raw: str) -> ChatError:
    """What who asks for a channel is told when there is none of that name, and when it is private and none of theirs."""
    return ChatError("not_found", f"there is no channel {'#' + raw.removeprefix('#')[:64]!r} that you can see")


class State:
    """Look-ups answer None for what is not there; those named ``find_…`` raise not_found, with what was looked for."""

    def __init__(self) -> None:
        self.accounts: Final[dict[int, Account]] = {}
        self.rooms: Final[dict[int, Room]] = {}
        self.invites: Final[dict[str, Invite]] = {}
        self.disabled_commands: Final[set[str]] = set()
        self.held: Final[dict[str, int]] = {}  # session → account: online, or within the resume window
        self.online: Final[dict[int, int]] = {}  # account → number of held sessions
        self.banned: Final[set[int]] = set()
        self.plugin_values: Final = PluginValues()
        self.prefixes: tuple[str, ...] = ()  # of all channels that have one of their own; nearly always none
        self.book: Final = Rulebook()
        self.admins: Final[set[int]] = set()  # the owner too
        self.address_bans: Final = AddressBans()
        self.endings: Final = Endings()
        self._accounts_by_canonical: Final[dict[str, Account]] = {}
        self._accounts_by_skeleton: Final[dict[str, Account]] = {}
        self._rooms_by_canonical: Final[dict[str, Room]] = {}
        self._rooms_by_skeleton: Final[dict[str, Room]] = {}
        self._rooms_by_name: Final[dict[str, Room]] = {}

    @classmethod
    def load(cls, snapshot: Loaded) -> "State":
        state = cls()
        for a in snapshot.accounts:
            account = Account(a.account, a.name, a.canonical, a.skeleton, a.color, a.role, suspended=a.suspended, forgotten=a.forgotten)
            state._add_account(account)
        for r in snapshot.rooms:
            room = Room(r.room, r.name, r.canonical, r.skeleton, r.epoch, r.topic, r.private, r.password_hash, dict(r.members))
            room.invite_only, room.history, room.invited = r.invite_only, r.history, set(r.invited)
            room.prefix, room.disabled_commands = r.prefix, set(r.disabled_commands)
            if r.slow_s or r.announce_only:
                room.rules = Rules(slow_s=r.slow_s, announce_only=r.announce_only)
            state._add_room(room)
            for member in room.members:
                state.accounts[member].rooms += (room.id,)
        state._gather_prefixes()
        for b in snapshot.bans:
            state.apply(fx.PutBan(account=b.account, by=b.by, at_ms=b.at_ms, until_ms=b.until_ms, reason=b.reason))
        for effect in snapshot.sanctions:
            state.apply(effect)
        for i in snapshot.invites:
            state.invites[i.code] = Invite(i.code, i.role, i.uses_left, i.expires_ms)
        state.disabled_commands.update(snapshot.disabled_commands)
        for plugin, key, value in snapshot.plugin_values:
            state.plugin_values.put(plugin, key, value)
        state.book.load(state, snapshot.filters, snapshot.settings)
        for ignoring, ignored in snapshot.ignores:
            state.accounts[ignoring].ignored |= {ignored}
        for s in snapshot.sessions:
            state.hold(s.session, s.account)
        return state

    # ------------------------------------------------------------ look-ups

    def account(self, raw: str) -> Account | None:
        """By any form of the name; a leading ``@`` is allowed."""
        found = self._accounts_by_canonical.get(raw)
        if found is None:
            raw = raw.removeprefix("@")
            if raw.isascii():  # whoever makes names up shall not have each normalized: the canonical form is this one
                return self._accounts_by_canonical.get(raw.lower())
            try:
                found = self._accounts_by_canonical.get(names.user_name(raw).canonical)
            except ChatError:
                return None
        return found

    def find_account(self, raw: str) -> Account:
        found = self.account(raw)
        if found is None:
            raise ChatError("not_found", f"there is no user {raw.removeprefix('@')[:64]!r}")
        return found

    def room(self, raw: str) -> Room | None:
        """By any form of the name; a leading ``#`` is allowed. Whether somebody may know of it, the caller has to ask."""
        raw = raw.removeprefix("#")
        if raw.isascii():
            return self._rooms_by_canonical.get(raw.lower())
        try:
            return self._rooms_by_canonical.get(names.channel_name(raw).canonical)
        except ChatError:
            return None

    def room_for(self, raw: str, account: int) -> Room | None:
        """As `room`, if *account* may know of it. A private one that it is not in takes the way and the time of one that is not there."""
        found = self._rooms_by_name.get(raw)  # written as its owner wrote it: nearly always, and no normalizing for each message
        if found is None or (found.private and not found.known_to(account)):
            found = self.room(raw)
        return None if found is None or (found.private and not found.known_to(account)) else found

    def find_room(self, raw: str, account: int) -> Room:
        """As `room_for`. *Raises* ChatError not_found, in the same words for a private room and for none."""
        room = self.room_for(raw, account)
        if room is None:
            raise unseen(raw)
        return room

    def rooms_seen_by(self, account: int) -> list[Room]:
        """Public rooms and the ones that *account* is in, by name."""
        return sorted((r for r in self.rooms.values() if not r.private or r.known_to(account)), key=lambda room: room.canonical)

    def name_is_free(self, name: names.Name) -> bool:
        return name.canonical not in self._accounts_by_canonical and name.skeleton not in self._accounts_by_skeleton

    def room_name_is_free(self, name: names.Name) -> bool:
        return name.canonical not in self._rooms_by_canonical and name.skeleton not in self._rooms_by_skeleton

    def is_online(self, account: int) -> bool:
        return account in self.online

    def name_of(self, account: int | None) -> str:
        """As its owner wrote it; account 0 and None are the server."""
        found = self.accounts.get(account or 0)
        return found.name if found is not None else "server"

    # ------------------------------------------------------------ changes

    def apply(self, effect: fx.Effect) -> None:
        """Change the state as *effect* says. Effects that change nothing that decisions rest on are taken and do nothing."""
        match effect:
            case fx.Append():
                pass
            case fx.PutMember(room=room, account=account, role=role):
                self.rooms[room].members[account] = role
                self.accounts[account].enter(room)
            case fx.DropMember(room=room, account=account):
                self.rooms[room].members.pop(account, None)
                self.accounts[account].leave(room)
            case fx.CreateRoom():
                e = effect
                self._add_room(Room(e.room, e.name, e.canonical, e.skeleton, e.epoch, "", e.private, e.password_hash))
            case fx.DeleteRoom(room=room):
                self._drop_room(self.rooms[room])
            case fx.SetTopic(room=room, text=text):
                self.rooms[room].topic = text
            case fx.CreateAccount():
                self._add_account(Account(effect.account, effect.name, effect.canonical, effect.skeleton, effect.color, effect.role))
            case fx.SetColor(account=account, color=color):
                self.accounts[account].color = color
            case fx.SetServerRole(account=account, role=server_role):
                self.accounts[account].role = server_role
                (self.admins.discard if server_role == "member" else self.admins.add)(account)
            case fx.PutBan(account=account):
                self.accounts[account].ban = effect
                self.banned.add(account)
                self.endings.put(("ban", 0, account), effect.until_ms)
            case fx.DropBan(account=account):
                self.accounts[account].ban = None
                self.banned.discard(account)
                self.endings.drop(("ban", 0, account))
            case fx.PutChannelBan(room=room, account=account):
                self.rooms[room].bans[account] = self._sanction(("channel-ban", room, account), effect)
            case fx.DropChannelBan(room=room, account=account):
                self.rooms[room].bans.pop(account, None)
                self.endings.drop(("channel-ban", room, account))
            case fx.PutMute(room=room, account=account):
                self.rooms[room].restrict().mutes[account] = self._sanction(("mute", room, account), effect)
            case fx.DropMute(room=room, account=account):
                self._drop_mute(self.rooms[room], account)
            case fx.PutAddressBan(network=network):
                if (parsed := network_of(network)) is not None:
                    self.address_bans.put(parsed, self._sanction(("address-ban", network, 0), effect))
            case fx.DropAddressBan(network=network):
                if (parsed := network_of(network)) is not None:
                    self.address_bans.drop(parsed)
                    self.endings.drop(("address-ban", network, 0))
            case fx.PutInvite():
                self.invites[effect.code] = Invite(effect.code, effect.role, effect.uses_left, effect.expires_ms)
            case fx.DropInvite(code=code):
                self.invites.pop(code, None)
            case fx.SetSuspended(account=account, at_ms=since):
                self.accounts[account].suspended = since is not None
            case fx.ForgetAccount():
                self._forget(effect)
            case fx.UseInvite(code=code):
                self._use_invite(self.invites[code])
            case fx.SetCommandEnabled(name=name, enabled=enabled):
                (self.disabled_commands.discard if enabled else self.disabled_commands.add)(name)
            case fx.PutPluginValue(plugin=plugin, key=key, value=value):
                self.plugin_values.put(plugin, key, value)
            case fx.PutSession(session=session, account=account) | fx.RotateToken(session=session, account=account):
                self.hold(session, account)
            case fx.DropSession(session=session) | fx.SessionOffline(session=session):
                self.release(session)
            case fx.DropSessions(account=account, but=but):
                for session in [s for s, a in self.held.items() if a == account and s != but]:
                    self.release(session)
            case fx.SetRoomCommandEnabled(room=room, name=name, enabled=enabled):
                here = self.rooms[room].disabled_commands
                (here.discard if enabled else here.add)(name)
            case fx.SetPrefix(room=room, prefix=prefix):
                self.rooms[room].prefix = prefix
                self._gather_prefixes()
            case _ if type(effect) in _RULES:
                self.book.apply(self, effect)  # type: ignore[arg-type]
            case _:
                pass

    def _gather_prefixes(self) -> None:
        self.prefixes = tuple({room.prefix for room in self.rooms.values() if room.prefix is not None})

    def hold(self, session: str, account: int) -> None:
        """The session is online, or within its resume window."""
        if session not in self.held:
            self.held[session] = account
            self.online[account] = self.online.get(account, 0) + 1

    def release(self, session: str) -> None:
        account = self.held.pop(session, None)
        if account is not None:
            self.online[account] -= 1
            if not self.online[account]:
                del self.online[account]

    def _sanction(self, key: Key, effect: fx.PutChannelBan | fx.PutMute | fx.PutAddressBan) -> Sanction:
        self.endings.put(key, effect.until_ms)
        return Sanction(by=effect.by, at_ms=effect.at_ms, until_ms=effect.until_ms, reason=effect.reason)

    def _drop_mute(self, room: Room, account: int) -> None:
        self.endings.drop(("mute", room.id, account))
        if room.rules is not None:
            room.rules.mutes.pop(account, None)
            room.relax()

    def _add_account(self, account: Account) -> None:
        self.accounts[account.id] = account
        if account.role != "member":
            self.admins.add(account.id)
        self._accounts_by_canonical[account.canonical] = account
        self._accounts_by_skeleton[account.skeleton] = account

    def _forget(self, x: fx.ForgetAccount) -> None:
        account = self.accounts[x.account]
        del self._accounts_by_canonical[account.canonical], self._accounts_by_skeleton[account.skeleton]
        account.name, account.canonical, account.skeleton = x.name, x.canonical, x.skeleton
        account.color, account.role, account.ban, account.suspended, account.forgotten = None, "member", None, False, True
        self.banned.discard(account.id)
        self.book.forget(self, account.id)
        self.admins.discard(account.id)
        self.endings.drop(("ban", 0, account.id))
        for room in self.rooms.values():
            if room.bans.pop(account.id, None) is not None:
                self.endings.drop(("channel-ban", room.id, account.id))
            self._drop_mute(room, account.id)
        self._add_account(account)

    def _add_room(self, room: Room) -> None:
        self.rooms[room.id] = room
        self._rooms_by_canonical[room.canonical] = room
        self._rooms_by_skeleton[room.skeleton] = room
        self._rooms_by_name[room.name] = room
        self.book.add_room(room)

    def _drop_room(self, room: Room) -> None:
        for account in room.members:
            self.accounts[account].leave(room.id)
        for account in room.bans:
            self.endings.drop(("channel-ban", room.id, account))
        for account in room.rules.mutes if room.rules is not None else ():
            self.endings.drop(("mute", room.id, account))
        del self.rooms[room.id], self._rooms_by_canonical[room.canonical], self._rooms_by_skeleton[room.skeleton]
        del self._rooms_by_name[room.name]
        self.book.drop_room(room.id)
        if room.prefix is not None:
            self._gather_prefixes()

    def _use_invite(self, invite: Invite) -> None:
        if invite.uses_left is not None:
            invite.uses_left -= 1
            if invite.uses_left <= 0:
                del self.invites[invite.code]
