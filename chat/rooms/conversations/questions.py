"""The commands that run, and the questions that they have open: plain bookkeeping. The waiting is done in `chat.commands.interactive`.

Theory of operation
-------------------
A `Run` is one ``async def`` command at work. A `Question` is one thing that it waits for: something asked of one person, of a
channel's members, or of everybody. Both belong to people and places, and end with them:

- the *asker* is whose command it is. When its session ends, when it leaves (is kicked or banned) the channel that the command was
  given in or that is asked, or when the command is switched off, the run itself is ended, whatever it is doing with its questions;
- the *target* is who was asked. When a person that was asked leaves the channel that the question was put in, is banned or goes
  offline, or when the channel goes, the question is closed, and the command is told and may go on.

`follow` looks at every effect that is decided, so a question is over in the same step as the kick that ends it. What decides is who is
a member, and whose session is held: neither knows of sockets, so a lost connection changes nothing within the resume window.

People are told through the router, in order, by notices that always pass; `shown_to` is what somebody who comes (back) is shown again.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from typing import Any, Final

import attrs

from chat.errors import ChatError
from chat.protocol import messages as m
from chat.rooms import effects as fx
from chat.rooms.conversations.runs import Noted, Question, Run
from chat.rooms.rules.effects import PutIgnore
from chat.rooms.state import Account, State

RUNS_MAX: Final = 128  # commands of one person that may be at work at once
OPEN_MAX: Final = 16  # questions that one person's commands may have open at once
ASKED_MAX: Final = 32  # questions that may wait for one person
ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"  # of ids, which people type: nothing that looks like something else
ID_LENGTH: Final = 5
STOP_S: Final = 1.0
NOTED_MAX: Final = 20  # commands of which something is remembered


class Questions:
    """Everything that is asked and that runs. *tell* adds effects to the order, before those that `follow` is told of; *wake* sees
    that they are handed on, where a plain call from outside of the order has told something.

    ``live`` is false while there is nothing: the one thing that is looked at for each message.
    """

    def __init__(
        self,
        state: Callable[[], State],
        now: Callable[[], float],
        tell: Callable[[list[fx.Effect]], None],
        wake: Callable[[], None],
        usual_s: Callable[[], float],
    ) -> None:
        self._state: Final = state
        self._now: Final = now
        self._tell: Final = tell
        self.wake: Final = wake
        self.usual_s: Final = usual_s  # the timeout of a question that does not say
        self.runs: Final[dict[Run, None]] = {}  # in the order of their start
        self.noted: Final[dict[str, Noted]] = {}  # the latest last
        self._at_work: Final = Counter[int]()  # account → runs
        self._by_id: Final[dict[str, Question]] = {}
        self._by: Final[dict[Hashable, dict[Question, None]]] = {}
        self.live = False

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Question]:
        return iter(list(self._by_id.values()))

    def person(self, account: int) -> Account:
        return self._state().accounts[account]

    def get(self, id: str) -> Question | None:
        return self._by_id.get(id.strip().lower())

    # ------------------------------------------------------------ runs

    def start(self, run: Run) -> None:
        """*Raises* ChatError busy where too many of the person's commands are at work."""
        if self._at_work[run.account] >= RUNS_MAX:
            raise ChatError("busy", f"{RUNS_MAX} of your commands are at work; wait until one is done", retry_after=5)
        self._at_work[run.account] += 1
        self.runs[run] = None
        self.live = True

    def finish(self, run: Run) -> None:
        """It is over, whichever way. What it still asks is asked for nobody."""
        for question in list(run.open):
            self.close(question, "ended")
        if run in self.runs:
            del self.runs[run]
            self._at_work[run.account] -= 1
            if not self._at_work[run.account]:
                del self._at_work[run.account]
        self.live = bool(self.runs)

    def end_commands(self, names: Collection[str], error: ChatError, *, room: int | None = None) -> None:
        """Commands were switched off (in one *room*, or everywhere) or loaded anew: end those that run."""
        for run in [run for run in self.runs if run.name in names and room in (None, run.room)]:
            run.end(error, "command_gone")
        self.wake()

    def stop(self, error: ChatError) -> None:
        """The server stops: nobody waits for a person any more, and whatever else a command does may take `STOP_S`."""
        for run in list(self.runs):
            if run.open:
                run.end(error, "stopping")
            else:
                run.late = error
                run.hurry(STOP_S)
        self.wake()

    # ------------------------------------------------------------ questions

    def open(
        self,
        run: Run,
        text: str,
        *,
        left_s: float,
        read: Callable[[str], Any],
        settled: Callable[[], None],
        account: int | None = None,
        room: int | None = None,
        choices: tuple[str, ...] | None = None,
        how_many: int | None = 1,
    ) -> Question:
        """Ask. A question of a person whose account is not online is closed from the start (``target_gone``).

        *Raises* ChatError busy where too many are open, forbidden where the person ignores the asker.
        Ends the run where the asker has gone meanwhile.
        """
        state = self._state()
        if account is not None and run.account in state.accounts[account].ignored:
            raise ChatError("forbidden", f"{state.name_of(account)} takes no questions from you")
        place, rests_on = self._rests_on(run, account, room, state)
        question = Question(
            id=self._new_id(),
            run=run,
            text=text,
            until=self._now() + left_s,
            read=read,
            settled=settled,
            account=account,
            room=room,
            place=place,
            choices=choices,
            how_many=how_many,
            rests_on=rests_on,
        )
        if (gone := run.ended or self._asker_gone(run, state)) is not None:  # ended: it asks while it is being cancelled
            run.end(gone, "asker_gone")
            question.closed = "asker_gone"
        elif account is not None and not state.is_online(account):
            question.closed = "target_gone"
        elif room is not None and room not in state.rooms:
            question.closed = "channel_gone"
        if question.closed is not None:
            settled()
            return question
        if len(self._by.get(("asker", run.account), ())) >= OPEN_MAX:
            raise ChatError("busy", f"your commands ask {OPEN_MAX} questions already; wait until one is over", retry_after=5)
        if account is not None and len(self._by.get(("target", account), ())) >= ASKED_MAX:
            raise ChatError("busy", f"{state.name_of(account)} is asked too much already", retry_after=5)
        self._by_id[question.id] = question
        run.open.append(question)
        for key in rests_on:
            self._by.setdefault(key, {})[question] = None
        self._show(question)
        return question

    def give(self, question: Question, account: int, value: Any) -> None:
        """An answer that will do. Whoever is asked once is told that it is over."""
        question.answers.append((account, value))
        if question.how_many is not None and len(question.answers) >= question.how_many:
            self.close(question, "answered")
        elif question.account is None:
            self._tell([fx.Tell(account=account, message=m.QuestionClosed(question=question.id, reason="answered"))])
        else:
            self._show(question)  # to the same person again

    def close(self, question: Question, reason: str) -> None:
        """It is over: tell who was asked. Idempotent."""
        if question.closed is not None:
            return
        question.closed = reason
        del self._by_id[question.id]
        question.run.open.remove(question)
        for key in question.rests_on:
            rest = self._by[key]
            del rest[question]
            if not rest:
                del self._by[key]
        self._announce(question, m.QuestionClosed(question=question.id, reason=reason))
        question.settled()

    def message(self, question: Question) -> m.Question:
        """As it is shown, with the time that is left."""
        state = self._state()
        place = state.rooms.get(question.place) if question.place is not None else None
        return m.Question(
            question=question.id,
            from_=state.name_of(question.run.account),
            command=question.run.name,
            text=question.text,
            conv=place.conv if place is not None else None,
            choices=list(question.choices) if question.choices else None,
            expires_in=round(max(0.0, question.until - self._now()), 3),
        )

    def shown_to(self, account: int) -> list[m.Question]:
        """What waits for *account*, the oldest first: told again to a session that comes or comes back."""
        if not self._by_id:
            return []
        state = self._state()
        return [self.message(q) for q in self._by_id.values() if q.concerns(account, state) and not q.has_answered(account)]

    def _rests_on(self, run: Run, account: int | None, room: int | None, state: State) -> tuple[int | None, tuple[Hashable, ...]]:
        """Where a question is shown, and what it ends with."""
        keys: list[Hashable] = [("person", run.account), ("asker", run.account), ("session", run.session)]
        place = room
        if run.room is not None and run.member:
            keys += [("member", run.room, run.account), ("room", run.room)]
        if account is not None:
            keys += [("person", account), ("target", account)]
            here = state.rooms.get(run.room) if run.room is not None else None
            if here is not None and account in here.members:
                place = here.id
                keys += [("member", here.id, account), ("room", here.id)]
        elif room is not None:
            keys += [("room", room), ("asked", room)]
            if room in state.rooms and run.account in state.rooms[room].members:
                keys.append(("member", room, run.account))
        return place, tuple(dict.fromkeys(keys))

    def _new_id(self) -> str:
        while True:
            id = "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))
            if id not in self._by_id:
                return id

    def _show(self, question: Question) -> None:
        self._announce(question, self.message(question))

    def _announce(self, question: Question, message: Any) -> None:
        if question.room is not None:
            self._tell([fx.TellRoom(room=question.room, message=message)])
        else:
            self._tell([fx.Tell(account=question.account, message=message)])

    # ------------------------------------------------------------ what happens to people and places

    def follow(self, effects: Iterable[fx.Effect]) -> None:
        """*effects* were decided and applied to the state: end what rested on what they took away."""
        for effect in effects:
            match effect:
                case fx.Append():
                    pass
                case fx.DropMember(room=room, account=account):
                    self._left(room, account)
                case fx.PutMember(room=room, account=account):
                    for question in self._at("asked", room):
                        if not question.has_answered(account):
                            self._tell([fx.Tell(account=account, message=self.message(question))])
                case fx.PutBan(account=account) | fx.DropSessions(account=account):
                    self._recheck(account, banned=type(effect) is fx.PutBan)
                case fx.DropSession(session=session, account=account) | fx.SessionOffline(session=session, account=account):
                    for question in self._at("session", session):
                        self._asker_left(question, _session_ended())
                    self._recheck(account)
                case fx.SetCommandEnabled(name=name, enabled=False):
                    self.end_commands((name,), ChatError("forbidden", f"{name} was switched off"))
                case fx.SetRoomCommandEnabled(room=room, name=name, enabled=False):
                    self.end_commands((name,), ChatError("forbidden", f"{name} was switched off here"), room=room)
                case fx.DeleteRoom(room=room):
                    self._deleted(room)
                case PutIgnore(account=account, ignored=ignored):
                    for question in self._at("person", account):
                        if question.account == account and question.run.account == ignored:
                            self.close(question, "target_gone")
                case _:
                    pass

    def recheck(self) -> None:
        """The state was loaded anew: whatever rests on what is not there any more ends."""
        state = self._state()
        for question in self:
            if (gone := self._asker_gone(question.run, state)) is not None:
                self._asker_left(question, gone)
            elif question.account is not None:
                room = state.rooms.get(question.place) if question.place is not None else None
                left = question.place is not None and (room is None or question.account not in room.members)
                if left or not state.is_online(question.account):
                    self.close(question, "target_gone")
            elif question.room is not None and question.room not in state.rooms:
                self.close(question, "channel_gone")

    def _at(self, *key: Hashable) -> list[Question]:
        return list(self._by.get(key, ()))

    def _left(self, room: int, account: int) -> None:
        for question in self._at("member", room, account):
            if question.run.account == account:
                self._asker_left(question, _not_there())
            else:
                self.close(question, "target_gone")
        for question in self._at("asked", room):
            self._tell([fx.Tell(account=account, message=m.QuestionClosed(question=question.id, reason="target_gone"))])

    def _deleted(self, room: int) -> None:
        for question in self._at("room", room):
            if question.run.room == room and question.run.member:
                question.run.end(ChatError("removed", "the channel was deleted; the command has ended"), "channel_gone")
            else:
                self.close(question, "channel_gone")

    def _recheck(self, account: int, banned: bool = False) -> None:
        state = self._state()
        for question in self._at("person", account):
            if question.run.account == account and (banned or question.run.session not in state.held):
                self._asker_left(question, _session_ended())
            elif question.account == account and (banned or not state.is_online(account)):
                self.close(question, "target_gone")

    def _asker_left(self, question: Question, error: ChatError) -> None:
        question.run.end(error, "asker_gone")

    def _asker_gone(self, run: Run, state: State) -> ChatError | None:
        if run.session not in state.held:
            return _session_ended()
        if run.member and (run.room not in state.rooms or run.account not in state.rooms[run.room].members):
            return _not_there()
        return None

    # ------------------------------------------------------------ what the watchdog saw

    def held_up(self, name: str, seconds: float, where: str) -> None:
        """A command held up the loop. Kept for ``//questions``."""
        before = self.noted.get(name) or Noted(name=name)
        self._note(attrs.evolve(before, times=before.times + 1, worst_s=max(before.worst_s, seconds), where=where))

    def grew(self, name: str, grown_bytes: int) -> None:
        """The memory grew while a command was at work."""
        before = self.noted.get(name) or Noted(name=name)
        self._note(attrs.evolve(before, grown_bytes=before.grown_bytes + grown_bytes))

    def _note(self, noted: Noted) -> None:
        self.noted.pop(noted.name, None)
        self.noted[noted.name] = noted
        while len(self.noted) > NOTED_MAX:
            del self.noted[next(iter(self.noted))]


def _session_ended() -> ChatError:
    return ChatError("unauthorized", "this session has ended")


def _not_there() -> ChatError:
    return ChatError("removed", "you are not in the channel any more; the command has ended")
