"""The router, by a model that knows nothing of batches, blobs or rings: who is where, who listens, and what each line must be told."""

import shutil
import tempfile

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chat import accounts
from chat.protocol import messages as m
from chat.rooms import decisions as d
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms import router
from chat.store import sqlite_read
from tests.rooms.house import House, Line, of_type

USERS = ["ann", "bob", "cem"]
ROOMS = ["lobby", "garden", "attic"]
RECORDS = tuple(m.RECORDS)


class RouterMachine(RuleBasedStateMachine):
    """Batches of requests are decided together and routed together; lines come, lag, go and resume in between."""

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(router, "RING", 3)  # so that both ways of catching up are taken
        self.folder = tempfile.mkdtemp()
        self.house = House(self.folder)
        self.root = self.house.owner("root")
        self.ids = 100
        # the model
        self.rooms = {}  # account → set of convs it is in, rooms and private ones
        self.pairs = {}  # conv → (low, high)
        self.names = {}  # room → name
        self.heads = {}  # conv → (epoch, seq)
        self.live = []  # lines that are attached
        self.replaying = {}  # line → conv → next seq, as the line itself keeps it
        self.gone = []  # (account name, session, token, cursors) of lines that went
        self.changed = set()  # convs, since heads were told
        self.missed = {}  # line → convs that it lagged in
        self.known = set()  # accounts that the others take for online
        self.events = {}  # account → online, not told yet
        self.seen = {}  # line → conv name → next seq
        for room in ROOMS[1:]:
            self.house.do([fx.CreateRoom(**_room(room, self.house))])
        for room in self.house.state.rooms.values():
            self.names[room.id] = room.name
            self.heads[room.id] = (room.epoch, 0)

    def teardown(self):
        self.house.close()
        shutil.rmtree(self.folder)
        self.patch.undo()

    # ------------------------------------------------------------ the model

    def name(self, conv, viewer):
        if conv in self.names:
            return "#" + self.names[conv]
        low, high = self.pairs[conv]
        return "@" + self.house.state.name_of(high if viewer == low else low)

    def lines_in(self, conv):
        return [line for line in self.live if conv in self.rooms[line.account]]

    def expect(self, outcomes):
        """What every live line must be told of *outcomes*, in order: a list for each."""
        told = {line: [] for line in self.live}
        self.ends = []
        for outcome in outcomes:
            reply = outcome.action.reply
            asker = reply.link if reply is not None else None
            without = asker if reply is not None and reply.replaces else None
            for groups in told.values():
                groups.append([])
            placed = iter(outcome.placed)
            for effect in outcome.action.effects if outcome.error is None and outcome.dup is None else ():
                match effect:
                    case fx.Append():
                        self._expect_record(told, next(placed), without)
                    case fx.PutMember(room=room, account=account):
                        new = room not in self.rooms.setdefault(account, set())
                        self.rooms[account].add(room)
                        for line in self.live if new and not outcome.placed else ():
                            if line.account == account and line is not without:
                                told[line][-1].append(("heads", self.name(room, 0), self.heads[room][1]))
                    case fx.DropMember(room=room, account=account):
                        for line in [line for line in self.lines_in(room) if line.account == account]:
                            self._expect_removed(told, line, room, without)
                        self.rooms[account].discard(room)
                    case fx.DeleteRoom(room=room):
                        for line in self.lines_in(room):
                            self._expect_removed(told, line, room, None)
                        for rooms in self.rooms.values():
                            rooms.discard(room)
                        del self.names[room], self.heads[room]
                        self.changed.discard(room)
                    case fx.CreateRoom(room=room, name=name, epoch=epoch):
                        self.names[room], self.heads[room] = name, (epoch, 0)
                    case fx.CloseSessions():
                        self.ends += [line for line in [*self.live, *self.replaying] if line.account == effect.account]
                    case fx.DropSessions(account=account) | fx.SessionOffline(account=account):
                        if not self.house.state.is_online(account) and account in self.known:
                            self.events[account] = False
            if asker in told and (outcome.error is not None or reply.make is not None or outcome.placed):
                seq = outcome.placed[0].seq if outcome.placed and reply.replaces else None
                told[asker][-1].append(("answer", reply.id, seq))
        return told

    def _expect_record(self, told, placed, without):
        conv, pair = placed.conv, placed.append.conv
        if isinstance(pair, fx.Pair):
            self.pairs[conv] = (pair.low, pair.high)
            for account in self.pairs[conv]:
                self.rooms.setdefault(account, set()).add(conv)
        assert placed.seq == self.heads.get(conv, ("", 0))[1] + 1
        self.heads[conv] = (placed.epoch, placed.seq)
        self.changed.add(conv)
        for line in self.lines_in(conv):
            if line is without:
                continue
            if line.outbox.full:
                self.missed.setdefault(line, set()).add(conv)
            else:
                told[line][-1].append(("notice", self.name(conv, line.account), placed.seq))

    def _expect_removed(self, told, line, room, without):
        if line is not without:
            told[line][-1].append(("removed", self.name(room, 0), None))
        self.missed.get(line, set()).discard(room)

    def compare(self, told, askers):
        for line, groups in told.items():
            got = [token for message in line.take() for token in _tokens(message)]
            expected = [token for group in groups for token in group]
            if line in askers:
                # who asked is told everything in the order of its happening; what one action does in several rooms has no order
                assert len(got) == len(expected)
                for group in groups:
                    part, got = got[: len(group)], got[len(group) :]
                    assert sorted(part, key=_by_conv) == sorted(group, key=_by_conv)
            else:
                convs = {conv for _, conv, _ in expected}
                assert sorted(got, key=str) == sorted(expected, key=str)
                for conv in convs:
                    assert [t for t in got if t[1] == conv] == [t for t in expected if t[1] == conv]
        for line in self.ends:
            self._close(line, resumable=False)

    def _close(self, line, *, resumable=True):
        if line in self.live:
            self.live.remove(line)
            cursors = self.cursors(line)
        else:
            cursors = self.replaying.pop(line, {})
            cursors = {self.name(conv, line.account): (self.heads[conv][0], seq) for conv, seq in cursors.items() if conv in self.heads}
        self.missed.pop(line, None)
        if resumable:
            self.gone.append((line.account, line.session, line.token, cursors))
        self.house.manager.gone(line)

    def cursors(self, line):
        """Where the line is, in all that it is in; behind where it lagged."""
        found = {}
        for conv in self.rooms[line.account]:
            epoch, seq = self.heads[conv]
            behind = 2 if conv in self.missed.get(line, ()) and seq > 2 else 0
            found[self.name(conv, line.account)] = (epoch, seq + 1 - behind)
        return found

    # ------------------------------------------------------------ rules

    @initialize()
    def begin(self):
        for line in [self.root, *map(self.house.register, USERS)]:
            self.rooms[line.account] = {room.id for room in self.house.state.rooms.values() if room.name == "lobby"}
            self._came(line)
        for name in USERS[:2]:
            self._came(self.house.log_in(name))

    def _came(self, line):
        self.live.append(line)
        if line.account not in self.known:
            self.known.add(line.account)
            self.events[line.account] = True

    @rule(data=st.data(), user=st.sampled_from(USERS))
    def log_in(self, data, user):
        account = self.house.state.find_account(user)
        if account.ban is None and len(self.live) < 9:
            line = Line()
            self.house.decide(line, it.LoginVerified(id=1, account=account.id))
            self.house.commit()
            (session,) = line.take()
            wanted = {self.name(conv, account.id): [*self.heads[conv]] for conv in self.rooms[account.id]}
            assert session["heads"] == wanted
            self._came(line)

    @rule(data=st.data(), size=st.integers(1, 7))
    def batch(self, data, size):
        """Requests of several people at once."""
        askers = set()
        for _ in range(size if self.live else 0):
            line = data.draw(st.sampled_from(self.live))
            askers.add(line)
            self.house.decide(line, self._request(data))
        self.house.commit()
        self.compare(self.expect(self.house.outcomes), askers)

    def _request(self, data):
        self.ids += 1
        id, cid = self.ids, f"c{self.ids}"
        room, user = data.draw(st.sampled_from(ROOMS)), data.draw(st.sampled_from(USERS))
        kind = data.draw(st.sampled_from(["send", "send", "send", "to", "to", "join", "join", "leave", "members", "command"]))
        match kind:
            case "send":
                return m.Send(id=id, cid=cid, channel=room, text="hello")
            case "to":
                return m.Send(id=id, cid=cid, to=user, text="psst")
            case "join":
                return m.Join(id=id, channel=room)
            case "leave":
                return m.Leave(id=id, channel=room)
            case "members":
                return m.Members(id=id, channel=room)
        texts = ["topic tea", f"delete-channel {room}", f"set-user-perm {user} owner", f"tell {user} hi", f"ban {user}", "nonsense"]
        command = data.draw(st.sampled_from(texts))
        return m.Command(id=id, channel=room, text=command)

    @rule(user=st.sampled_from(USERS), back=st.booleans())
    def ban(self, user, back):
        state = self.house.state
        who, whom = state.find_account("root"), state.find_account(user)
        if (whom.ban is not None) == back:
            if back:
                effects = d.unban(state, who, whom, ("lobby",), self.house.now_ms)
            else:
                effects = d.ban(state, who, whom, None, self.house.now_ms)
                self.gone = [entry for entry in self.gone if entry[0] != whom.id]
            self.house.do(effects)
            self.compare(self.expect(self.house.outcomes), set())

    @rule(room=st.sampled_from(ROOMS[1:]))
    def make_room(self, room):
        if self.house.state.room(room) is None:
            self.house.do([fx.CreateRoom(**_room(room, self.house))])
            self.compare(self.expect(self.house.outcomes), set())

    @rule(data=st.data())
    def lag(self, data):
        if self.live:
            data.draw(st.sampled_from(self.live)).outbox.full = True

    @rule(data=st.data())
    def drained(self, data):
        lagging = [line for line in self.live if line.outbox.full]
        if lagging:
            line = data.draw(st.sampled_from(lagging))
            line.outbox.full = False
            self.house.router.unlag(line)
            missed = self.missed.pop(line, set())
            got = line.take()
            now = {self.name(conv, line.account): [*self.heads[conv]] for conv in self.rooms[line.account]}
            assert len(got) <= 1
            heads = {name: head for message in got for name, head in message["heads"].items()}
            assert heads.items() <= now.items()
            assert heads.keys() >= {self.name(conv, line.account) for conv in missed}

    @rule(data=st.data())
    def disconnect(self, data):
        if self.live or self.replaying:
            self._close(data.draw(st.sampled_from([*self.live, *self.replaying])))

    @rule(data=st.data(), behind=st.integers(0, 6))
    def resume(self, data, behind):
        """Begin a replay, from somewhat further back than the line had been."""
        if not self.gone:
            return
        entry = data.draw(st.sampled_from(self.gone))
        self.gone.remove(entry)
        account, session, token, cursors = entry
        line = Line()
        self.house.decide(line, it.ResumeVerified(id=1, account=account, session=session, token_hash=accounts.token_hash(token)))
        self.house.commit()
        if session not in self.house.state.held:
            assert line.refused is not None
            return
        assert line.refused is None
        assert line.take() == []
        at = {}
        for conversation in line.replaying:
            conv = conversation.conv
            assert (conversation.epoch, conversation.last_seq) == self.heads[conv]
            name = self.name(conv, account)
            if name in cursors and cursors[name][0] == conversation.epoch:
                at[conv] = max(1, cursors[name][1] - behind)
        assert {conversation.conv for conversation in line.replaying} == self.rooms[account]
        self.replaying[line] = at
        if account not in self.known:
            self.known.add(account)
            self.events[account] = True

    @rule(data=st.data())
    def replay(self, data):
        """One round: read what the router says is lacking, or be live."""
        if not self.replaying:
            return
        line = data.draw(st.sampled_from(list(self.replaying)))
        at = self.replaying[line]
        behind = self.house.router.finish_replay(line, dict(at))
        if behind:
            for conv in behind:
                page = sqlite_read.history(self.house.writer._db, conv, at[conv] - 1, None, 500, 10**6)
                at[conv] = page.last_seq + 1
            assert line.take() == []
            return
        got = {}
        for message in line.take():
            got.setdefault(message["conv"], []).append(message["seq"])
        for conv, next_seq in at.items():
            if conv in self.rooms[line.account]:
                # nothing twice, nothing between
                assert got.pop(self.name(conv, line.account), []) == list(range(next_seq, self.heads[conv][1] + 1))
        assert not got, "of what it is in no more nothing is told"
        del self.replaying[line]
        self.live.append(line)

    @rule()
    def presence(self):
        self.house.tick(0.0)
        assert all(isinstance(effect, fx.NoteCommand) for outcome in self.house.outcomes for effect in outcome.action.effects)
        self._compare_presence()

    @rule()
    def windows_pass(self):
        """A resume window later: sessions without a connection are offline."""
        self.house.tick(100.0)
        for line in self.live:
            changed = self.changed & self.rooms[line.account]
            wanted = {self.name(conv, line.account): [*self.heads[conv]] for conv in changed}
            if line.outbox.full:
                self.missed.setdefault(line, set()).update(changed)
                wanted = {}
            assert [message["heads"] for message in of_type(line.take(), "heads")] == ([wanted] if wanted else [])
        self.changed.clear()
        self.expect(self.house.outcomes)
        for entry in list(self.gone):
            if entry[1] not in self.house.state.held:
                self.gone.remove(entry)
        self.events = {}
        self.house.tick(1.0)
        for line in self.live:
            line.take()
        self.known &= set(self.house.state.online)

    def _compare_presence(self):
        wanted = {}
        for account, online in self.events.items():
            if online == self.house.state.is_online(account):
                for line in self.live:
                    if line.account != account and self.rooms[account] & self.rooms[line.account] and not line.outbox.full:
                        wanted.setdefault(line, {})[self.house.state.name_of(account)] = online
                if not online:
                    self.known.discard(account)
        self.events.clear()
        for line in self.live:
            got = [message["users"] for message in line.take()]
            assert got == ([wanted[line]] if line in wanted else [])

    # ------------------------------------------------------------ what is always true

    @invariant()
    def audiences_are_exact(self):
        found = self.house.router
        for conv, (epoch, seq) in self.heads.items():
            audience = found.by_conv.get(conv)
            if audience is None:
                assert conv in self.pairs, "rooms are always known"
                assert not self.lines_in(conv)
                continue
            assert (audience.epoch, audience.head) == (epoch, seq)
            assert audience.links == set(self.lines_in(conv))
            if audience.ring is not None:
                assert [item.seq for item in audience.ring] == list(range(seq + 1 - len(audience.ring), seq + 1))
        assert set(found.by_conv) <= set(self.heads)
        for line in self.live:
            assert line.skipped & self.rooms[line.account] >= self.missed.get(line, set())


def _tokens(message):
    match message["type"]:
        case "ack" | "ok" | "result" | "error":
            return [("answer", message["id"], message.get("seq"))]
        case "heads":
            return [("heads", conv, head[1]) for conv, head in message["heads"].items()]
        case "removed":
            return [("removed", message["conv"], None)]
        case "closing" | "notice":
            return []
    return [("notice", message["conv"], message["seq"])]


def _by_conv(token):
    return (token[0] == "answer", str(token[1]))  # stable: the order within a conversation stays


def _room(name, house):
    names = {"name": name, "canonical": name, "skeleton": name}
    return {**names, "room": d.new_id(), "epoch": d.new_epoch(), "private": False, "password_hash": None, "at_ms": house.now_ms}


TestRouter = RouterMachine.TestCase
TestRouter.pytestmark = pytest.mark.timeout(1200)
TestRouter.settings = settings(  # an example is 40 steps, each with its commits
    settings.default, max_examples=settings.default.max_examples // 2, stateful_step_count=40, suppress_health_check=list(HealthCheck)
)
