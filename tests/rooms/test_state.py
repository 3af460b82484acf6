import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chat.errors import ChatError
from chat.protocol import names
from chat.rooms import decisions as d
from chat.rooms import effects as fx
from chat.rooms.moderation import bans, safety
from chat.rooms.moderation import decisions as mod
from chat.rooms.moderation.sanctions import network_of
from chat.rooms.rules import decisions as ruling
from chat.rooms.state import State
from chat.store.sqlite_commit import SqliteWriter
from chat.store.sqlite_files import prepare
from tests.rooms.house import dump
from tests.rooms.machine import Commands

USERS = ["ann", "Bob", "cem", "dora", "eve"]
ROOMS = ["lobby", "Garden", "secret", "attic"]
DEFAULT = ("lobby",)
NOW_MS = 1_700_000_000_000

people = st.sampled_from(USERS)
channels = st.sampled_from(ROOMS)
lasts = st.sampled_from([5, 500, None])  # ms
what_to_do = st.sampled_from(["kick", "channel-ban", "mute", "unmute", "channel-unban"])


class StateMachine(Commands, RuleBasedStateMachine):
    """Decisions are applied to a state and committed to a real store. The model is a dict of lists, and rules that a child could say."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "chat.sqlite3"
        prepare(path, busy_timeout_s=1)
        self.writer = SqliteWriter(path, busy_timeout_s=1, min_free_bytes=0, now_ms=lambda: NOW_MS)
        self.writer._db.execute("PRAGMA synchronous=OFF")  # how it survives a crash is tested elsewhere
        self.state = State()
        self.clock_ms = NOW_MS
        self.generation = 0
        # the model
        self.users = {}  # name → server role
        self.members = {}  # room → {user: role}, in the order of joining
        self.banned = set()
        self.ends = {}  # (what, channel or network, user) → when it ends by itself, None: never
        self.disabled = set()
        self.sessions = {}  # session → user
        self.heads = {}  # conv → seq

    def teardown(self):
        self.writer.close()
        self.folder.cleanup()

    # ------------------------------------------------------------ helpers

    def decide(self, make, *, refused):
        """Make a decision, which must be refused exactly when the model says so, and commit it."""
        self.clock_ms += 1
        before = dump(self.state)
        try:
            effects = make()
        except ChatError:
            if not refused:
                raise  # the model would have taken it
            assert dump(self.state) == before
            return False
        assert not refused, "the model would have refused it"
        assert dump(self.state) == before, "a decision changes nothing itself"
        self.commit(effects)
        return True

    def commit(self, effects):
        for effect in effects:
            self.state.apply(effect)
        (outcome,) = self.writer.commit([fx.Action(effects=tuple(effects))])
        assert outcome.error is None, outcome.error
        for placed in outcome.placed:
            assert placed.seq == self.heads.get(placed.conv, 0) + 1
            self.heads[placed.conv] = placed.seq

    def account(self, name):
        return self.state.find_account(name)

    def out(self, room, who):
        """Of what somebody owned the longest-serving moderator is next; without one, who ranks highest on the server."""
        inside = self.members[room]
        if inside.pop(who, None) == "owner" and inside:
            ladder = ["member", "admin", "owner"]
            heir = max(inside, key=lambda name: (inside[name] == "moderator", ladder.index(self.users[name]), -list(inside).index(name)))
            inside[heir] = "owner"

    def may_manage(self, who, room):
        return self.users[who] in ("admin", "owner") or self.members[room].get(who) == "owner"

    def may_moderate(self, who, found):
        inside = self.members[found.name]
        admin = self.users[who] != "member" and (not found.private or who in inside)
        return admin or inside.get(who) in ("owner", "moderator")

    # ------------------------------------------------------------ accounts

    @initialize()
    def begin(self):
        self.commit(d.create_room(self.state, None, names.channel_name("lobby"), None, self.clock_ms))
        self.members["lobby"] = {}
        self.commit([fx.PutInvite(code="owner", role="owner", uses_left=1, expires_ms=None, by=0, at_ms=self.clock_ms)])

    @rule(name=people, invite=st.sampled_from(["owner", None]))
    def register(self, name, invite):
        used = "owner" in self.users.values()
        made = []

        def make():
            account, effects = d.register(
                self.state,
                registration="open",
                name=names.user_name(name),
                password_hash="x",
                color=None,
                invite=invite,
                default_channels=DEFAULT,
                now_ms=self.clock_ms,
            )
            made.append(account)
            return effects

        closed = self.state.book.lockdown != "off" and not invite
        if self.decide(make, refused=name in self.users or closed or (invite is not None and used)):
            assert self.account(name).id == made[0]
            self.users[name] = "owner" if invite else "member"
            if "lobby" in self.members:
                lobby = self.members["lobby"]
                if invite:
                    for member, role in lobby.items():
                        lobby[member] = "moderator" if role == "owner" else role
                lobby[name] = "owner" if invite or not lobby else "member"

    @rule(name=people, color=st.sampled_from(["#ff0000", None]))
    def color(self, name, color):
        if name in self.users:
            self.decide(lambda: d.set_color(self.state, self.account(name), color), refused=False)
            assert self.account(name).color == color

    @rule(who=people, whom=people, role=st.sampled_from(["admin", "member", "owner"]))
    def set_server_role(self, who, whom, role):
        if who in self.users and whom in self.users:
            refused = self.users[who] != "owner" or "owner" in (self.users[whom], role)
            if self.decide(lambda: d.set_server_role(self.state, self.account(who), self.account(whom), role), refused=refused):
                self.users[whom] = role

    # ------------------------------------------------------------ rooms

    @rule(who=people, room=channels, password=st.sampled_from([None, "x"]))
    def create(self, who, room, password):
        if who in self.users and who not in self.banned:
            make = lambda: d.create_room(self.state, self.account(who), names.channel_name(room), password, self.clock_ms)  # noqa: E731
            if self.decide(make, refused=room in self.members):
                self.members[room] = {who: "owner"}

    @rule(who=people, room=channels)
    def delete(self, who, room):
        if who in self.users and room in self.members:
            found = self.state.room(room)
            unseen = found.private and who not in self.members[room]
            refused = room in DEFAULT or not self.may_manage(who, room) or (unseen and self.members[room].get(who) != "owner")
            conv = found.id
            if self.decide(lambda: d.delete_room(self.state, self.account(who), found, DEFAULT), refused=refused):
                del self.members[room]
                self.ends = {key: until for key, until in self.ends.items() if key[1] != room}
                self.heads.pop(conv, None)

    @rule(who=people, room=channels)
    def join(self, who, room):
        if who in self.users and who not in self.banned and room in self.members:
            inside = self.members[room]
            until = self.ends.get(("channel-ban", room, who), 0)
            banned = who not in inside and (until is None or until > self.clock_ms + 1)
            make = lambda: d.join(self.state, self.account(who), self.state.room(room), self.clock_ms)  # noqa: E731
            if not self.decide(make, refused=banned):
                return
            inside.setdefault(who, "member" if inside else "owner")

    @rule(who=people, room=channels)
    def leave(self, who, room):
        if who in self.users and room in self.members:
            inside = self.members[room]
            make = lambda: d.leave(self.state, self.account(who), self.state.room(room), self.clock_ms)  # noqa: E731
            if self.decide(make, refused=who not in inside):
                self.out(room, who)

    @rule(who=people, whom=people, room=channels, role=st.sampled_from(["owner", "moderator", "member"]))
    def set_room_role(self, who, whom, room, role):
        if {who, whom} <= self.users.keys() and room in self.members:
            inside, found = self.members[room], self.state.room(room)
            blind = found.private and who not in inside
            refused = blind or not self.may_manage(who, room) or whom not in inside or (inside[whom] == "owner" != role)
            accounts = self.account(who), self.account(whom)
            if self.decide(lambda: d.set_room_role(self.state, accounts[0], found, accounts[1], role, self.clock_ms), refused=refused):
                if role == "owner":
                    for name, has in inside.items():
                        inside[name] = "moderator" if has == "owner" else has
                inside[whom] = role

    @rule(who=people, room=channels, text=st.sampled_from(["tea", "cake"]))
    def topic(self, who, room, text):
        if who in self.users and room in self.members:
            inside, found = self.members[room], self.state.room(room)
            admin = self.users[who] != "member" and (not found.private or who in inside)
            refused = not admin and inside.get(who) not in ("owner", "moderator")
            if self.decide(lambda: d.set_topic(self.state, self.account(who), found, text), refused=refused):
                assert found.topic == text

    # ------------------------------------------------------------ bans

    @rule(who=people, whom=people, lasts=lasts)
    def ban(self, who, whom, lasts):
        if {who, whom} <= self.users.keys():
            ladder = ["member", "admin", "owner"]
            above = ladder.index(self.users[who]) > ladder.index(self.users[whom])
            refused = self.users[who] == "member" or who == whom or not above
            until = self.clock_ms + lasts if lasts is not None else None
            make = lambda: d.ban(self.state, self.account(who), self.account(whom), "rude", self.clock_ms, until)  # noqa: E731
            if self.decide(make, refused=refused):
                self.banned.add(whom)
                self.ends["ban", "", whom] = until
                self.sessions = {session: name for session, name in self.sessions.items() if name != whom}
                for room in self.members:
                    self.out(room, whom)

    @rule(who=people, whom=people)
    def unban(self, who, whom):
        if {who, whom} <= self.users.keys():
            refused = self.users[who] == "member" or whom not in self.banned
            make = lambda: d.unban(self.state, self.account(who), self.account(whom), DEFAULT, self.clock_ms)  # noqa: E731
            if self.decide(make, refused=refused):
                self.lifted(whom)

    def lifted(self, whom):
        self.banned.discard(whom)
        self.ends.pop(("ban", "", whom), None)
        if "lobby" in self.members and ("channel-ban", "lobby", whom) not in self.ends:
            self.members["lobby"].setdefault(whom, "member" if self.members["lobby"] else "owner")

    def above(self, who, whom, inside):
        """Is *who*, who may moderate there, above *whom*?"""
        ladder = [None, "member", "moderator", "owner"]
        rank = lambda name: {"admin": 8, "owner": 9}.get(self.users[name], ladder.index(inside.get(name)))  # noqa: E731
        return who != whom and rank(who) > rank(whom)

    @rule(who=people, whom=people, room=channels, lasts=lasts, what=what_to_do)
    def sanction(self, who, whom, room, lasts, what):
        if not {who, whom} <= self.users.keys() or room not in self.members:
            return
        inside, found = self.members[room], self.state.room(room)
        accounts = self.account(who), found, self.account(whom)
        until = self.clock_ms + lasts if lasts is not None else None
        admin = self.users[who] != "member" and (not found.private or who in inside)
        refused = not admin and inside.get(who) not in ("owner", "moderator")
        kind = what.replace("un", "")
        if what in ("unmute", "channel-unban"):
            refused = refused or (kind, room, whom) not in self.ends
            make = {"unmute": mod.unmute, "channel-unban": mod.channel_unban}[what]
            if self.decide(lambda: make(self.state, *accounts), refused=refused):
                del self.ends[kind, room, whom]
            return
        refused = refused or not self.above(who, whom, inside) or (what == "kick" and whom not in inside)
        if what == "kick":
            done = self.decide(lambda: mod.kick(self.state, *accounts, "rude", self.clock_ms), refused=refused)
        else:
            make = {"mute": mod.mute, "channel-ban": mod.channel_ban}[what]
            done = self.decide(lambda: make(self.state, *accounts, "rude", self.clock_ms, until), refused=refused)
        if done and what != "kick":
            self.ends[kind, room, whom] = until
        if done and what != "mute":
            self.out(room, whom)

    @rule(who=people, network=st.sampled_from(["203.0.113.0/24", "203.0.113.7/32", "2001:db8::/64"]), lasts=lasts, lift=st.booleans())
    def ban_address(self, who, network, lasts, lift):
        if who in self.users:
            until = self.clock_ms + lasts if lasts is not None else None
            key, parsed, by = ("address-ban", network, ""), network_of(network), self.account(who)
            if lift:
                refused = self.users[who] == "member" or key not in self.ends
                if self.decide(lambda: mod.unban_address(self.state, by, parsed), refused=refused):
                    del self.ends[key]
            elif self.decide(
                lambda: mod.ban_address(self.state, by, parsed, None, self.clock_ms, until), refused=self.users[who] == "member"
            ):
                self.ends[key] = until

    @rule(ms=st.sampled_from([1, 10, 1000]))
    def time_passes(self, ms):
        """What is due ends, and nothing else."""
        self.clock_ms += ms
        over = {key for key, until in self.ends.items() if until is not None and until <= self.clock_ms}
        for key in self.state.endings.due(self.clock_ms):
            self.commit(mod.end(self.state, key, DEFAULT, self.clock_ms))
        for kind, where, whom in over:
            if kind == "channel-ban":
                del self.ends[kind, where, whom]
        for kind, where, whom in over:
            if kind == "ban":
                self.lifted(whom)
            elif kind != "channel-ban":
                del self.ends[kind, where, whom]

    @rule(who=people, name=st.sampled_from(["tell", "color"]), enabled=st.booleans())
    def switch_command(self, who, name, enabled):
        if who in self.users:
            refused = self.users[who] == "member" or (name not in self.disabled) == enabled
            if self.decide(lambda: d.set_command_enabled(self.state, self.account(who), name, enabled), refused=refused):
                (self.disabled.discard if enabled else self.disabled.add)(name)

    # ------------------------------------------------------------ rules

    @rule(
        who=people,
        room=channels,
        setting=st.sampled_from(
            [("slow_s", 0), ("slow_s", 9), ("announce_only", True), ("announce_only", False), ("invite_only", True), ("invite_only", False)]
        ),
    )
    def set_rule(self, who, room, setting):
        if who in self.users and room in self.members:
            found = self.state.room(room)
            make = lambda: ruling.set_room(self.account(who), found, *setting)  # noqa: E731
            if self.decide(make, refused=not self.may_moderate(who, found)):
                assert ruling.setting(found, setting[0]) == setting[1]

    @rule(who=people, room=channels, mode=st.sampled_from(["all", "since_join", "none"]))
    def set_history(self, who, room, mode):
        if who in self.users and room in self.members:
            found = self.state.room(room)
            refused = not self.may_manage(who, room) or (found.private and who not in self.members[room])
            if self.decide(lambda: ruling.set_room(self.account(who), found, "history", mode), refused=refused):
                assert found.history == mode

    @rule(who=people, whom=people, room=channels, taken_back=st.booleans())
    def invite(self, who, whom, room, taken_back):
        if {who, whom} <= self.users.keys() and room in self.members:
            found, target = self.state.room(room), self.account(whom)
            refused = not self.may_moderate(who, found)
            if taken_back:
                refused = refused or target.id not in found.invited
                done = self.decide(lambda: ruling.uninvite(self.account(who), found, target), refused=refused)
            else:
                refused = refused or whom in self.members[room] or whom in self.banned
                done = self.decide(lambda: ruling.invite(self.state, self.account(who), found, target, self.clock_ms), refused=refused)
            if done:
                assert (target.id in found.invited) is not taken_back

    @rule(who=people, room=st.sampled_from([None, *ROOMS]), pattern=st.sampled_from(["spam", "*coin*"]), adding=st.booleans())
    def filter(self, who, room, pattern, adding):
        if who in self.users and (room is None or room in self.members):
            found = self.state.room(room) if room is not None else None
            may = self.may_moderate(who, found) if found is not None else self.users[who] != "member"
            there = pattern in self.state.book.filters.get(found.id if found is not None else 0, {})
            change = ruling.add_filter if adding else ruling.remove_filter
            args = (self.state, self.account(who), found, pattern, *([self.clock_ms] if adding else []))
            self.decide(lambda: change(*args), refused=not may or there == adding)

    @rule(who=people, mode=st.sampled_from(["off", "accounts", "members"]))
    def lockdown(self, who, mode):
        if who in self.users and self.decide(
            lambda: ruling.lock_down(self.state, self.account(who), mode), refused=self.users[who] == "member"
        ):
            assert self.state.book.lockdown == mode

    @rule(who=people, whom=people, adding=st.booleans())
    def ignore(self, who, whom, adding):
        if {who, whom} <= self.users.keys():
            a, b = self.account(who), self.account(whom)
            refused = who == whom or (b.id in a.ignored) == adding
            if adding:
                self.decide(lambda: safety.ignore(self.state, a, b, self.clock_ms), refused=refused)
            else:
                self.decide(lambda: safety.unignore(self.state, a, b), refused=refused)

    @rule(who=people, whom=people, room=channels)
    def report(self, who, whom, room):
        if {who, whom} <= self.users.keys() and room in self.members:
            a, b, found = self.account(who), self.account(whom), self.state.room(room)
            self.decide(
                lambda: safety.report(self.state, a, found, b, None, self.clock_ms), refused=who == whom or who not in self.members[room]
            )

    # ------------------------------------------------------------ sessions

    @rule(name=people)
    def open_session(self, name):
        if name in self.users:
            account = self.account(name)
            if name in self.banned:
                with pytest.raises(ChatError):
                    bans.check_not_banned(self.state, account, self.clock_ms)
                return
            session = f"s{len(self.sessions)}{self.clock_ms}"
            self.clock_ms += 1
            put = fx.PutSession(
                session=session,
                account=account.id,
                token_hash=session.encode(),
                expires_ms=NOW_MS * 2,
                client="",
                address="",
                at_ms=self.clock_ms,
            )
            self.commit([put])
            self.sessions[session] = name

    @rule(data=st.data(), effect=st.sampled_from([fx.DropSession, fx.SessionOffline]))
    def end_session(self, data, effect):
        if self.sessions:
            session = data.draw(st.sampled_from(sorted(self.sessions)))
            self.commit([effect(session=session, account=self.account(self.sessions.pop(session)).id)])

    @rule(data=st.data(), name=people)
    def revoke(self, data, name):
        if name in self.users:
            own = sorted(session for session, user in self.sessions.items() if user == name)
            but = data.draw(st.sampled_from([None, *own]))
            self.commit(d.revoke_sessions(self.state, self.account(name), but))
            self.sessions = {session: user for session, user in self.sessions.items() if user != name or session == but}

    # ------------------------------------------------------------ what is always true

    @invariant()
    def the_model_agrees(self):
        state = self.state
        name_of = {account.id: name for name in self.users for account in [state.account(name)]}
        assert {name: state.account(name).role for name in self.users} == self.users
        assert len(state.accounts) == len(self.users)
        assert {state.room(room).name: room for room in self.members} == {room: room for room in self.members}
        assert len(state.rooms) == len(self.members)
        for room, inside in self.members.items():
            # as lists: the order of joining is the order of succession
            assert [(name_of[account], role) for account, role in state.room(room).members.items()] == list(inside.items())
        assert {name_of[account] for account in state.banned} == self.banned
        rooms = {room.id: room.name for room in state.rooms.values()}
        under = {("ban", "", name_of[account]): state.accounts[account].ban.until_ms for account in state.banned}
        under |= {("address-ban", str(network), ""): ban.until_ms for network, ban in state.address_bans}
        for room in state.rooms.values():
            under |= {("channel-ban", room.name, name_of[account]): ban.until_ms for account, ban in room.bans.items()}
            mutes = room.rules.mutes if room.rules is not None else {}
            under |= {("mute", room.name, name_of[account]): mute.until_ms for account, mute in mutes.items()}
        assert under == self.ends
        endings = state.endings.at.items()
        ending = {(kind, rooms.get(where, where or ""), name_of.get(account, "")): at for (kind, where, account), at in endings}
        assert ending == {key: until for key, until in self.ends.items() if until is not None}
        assert state.disabled_commands == self.disabled
        assert {session: name_of[account] for session, account in state.held.items()} == self.sessions
        assert {name_of[account] for account in state.online} == set(self.sessions.values())

    @invariant()
    def members_are_in_both_indexes(self):
        state = self.state
        in_rooms = {(room.id, account) for room in state.rooms.values() for account in room.members}
        in_accounts = {(room, account.id) for account in state.accounts.values() for room in account.rooms}
        assert in_rooms == in_accounts

    @invariant()
    def who_is_banned_is_nowhere(self):
        for account in self.state.banned:
            assert not self.state.accounts[account].rooms
            assert account not in self.state.held.values()
            assert self.state.accounts[account].ban is not None

    @invariant()
    def one_owner(self):
        for room in self.members:
            found = self.state.room(room)
            owners = [account for account, role in found.members.items() if role == "owner"]
            assert len(owners) == (1 if found.members else 0)

    @invariant()
    def what_was_applied_is_what_was_stored(self):
        snapshot = self.writer.load()
        assert dump(State.load(snapshot)) == dump(self.state)
        assert {room.room: room.last_seq for room in snapshot.rooms if room.last_seq} == self.heads


TestState = StateMachine.TestCase
TestState.pytestmark = pytest.mark.timeout(1200)
TestState.settings = settings(  # an example is 40 steps, each with its commits
    settings.default, max_examples=settings.default.max_examples // 2, stateful_step_count=40, suppress_health_check=list(HealthCheck)
)


# ---------------------------------------------------------------- look-ups


def test_an_ascii_name_is_looked_up_without_being_normalized(monkeypatch):
    """Whoever makes names up would have each of them normalized, 0.1 ms of everybody's time."""
    state = State()
    for number, shown in enumerate(["Ann", "b-ob_2.0", "stra\u00dfe"], 1):
        name = names.user_name(shown)
        named = {"name": name.shown, "canonical": name.canonical, "skeleton": name.skeleton}
        state.apply(fx.CreateAccount(account=number, password_hash="x", color=None, role="member", at_ms=0, **named))
        state.apply(fx.CreateRoom(room=number, epoch="abcdefgh", private=False, password_hash=None, at_ms=0, **named))
    normalized = []
    for kind in ("user_name", "channel_name"):
        really = getattr(names, kind)
        monkeypatch.setattr(names, kind, lambda raw, really=really: normalized.append(raw) or really(raw))
    for raw, id in [
        ("ann", 1),
        ("@ANN", 1),
        ("B-ob_2.0", 2),
        ("STRASSE", 3),
        ("strase", None),
        ("an n", None),
        ("", None),
        ("x" * 70, None),
    ]:
        assert getattr(state.account(raw), "id", None) == id
        if "@" not in raw:
            assert getattr(state.room(raw), "id", None) == getattr(state.room("#" + raw), "id", None) == id
    assert normalized == []
    assert state.account("Stra\u00dfe") is state.accounts[3]
    assert state.room("#Stra\u00dfe") is state.rooms[3]
    assert state.account("stra\u00dfen") is None
    assert len(normalized) == 3
