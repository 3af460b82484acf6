"""Short words for actions, so that tests read as what happens."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from chat.errors import ChatError
from chat.rooms import effects as e
from chat.rooms.effects import Action, Append, Outcome, Pair

OWNER, ANN, BOB, CAT = 11, 22, 33, 44
LOBBY, DEN = 101, 102
EPOCH = "abcdefgh12345678"


def account(number: int, name: str) -> e.CreateAccount:
    return e.CreateAccount(
        account=number, name=name, canonical=name, skeleton=name, password_hash="hash of " + name, color=None, role="member", at_ms=1
    )


def room(number: int, name: str, *, epoch: str = EPOCH, private: bool = False) -> e.CreateRoom:
    return e.CreateRoom(room=number, name=name, canonical=name, skeleton=name, epoch=epoch, private=private, password_hash=None, at_ms=1)


def member(conv: int, who: int, role: Any = "member") -> e.PutMember:
    return e.PutMember(room=conv, account=who, role=role, at_ms=1)


def session(name: str, who: int, token: bytes, *, expires_ms: int = 10**15) -> e.PutSession:
    return e.PutSession(session=name, account=who, token_hash=token, expires_ms=expires_ms, client="test", address="::1", at_ms=5)


def rotate(name: str, token: bytes, *, presented: bytes | None = None, at_ms: int = 6, expires_ms: int = 10**15) -> e.RotateToken:
    return e.RotateToken(session=name, token_hash=token, presented_hash=presented, expires_ms=expires_ms, address="::2", at_ms=at_ms)


def do(*effects: Any, who: int = OWNER, **more: Any) -> Action:
    return Action(effects=effects, account=who, **more)


def say(text: str, cid: str | None = None, *, who: int = ANN, conv: int | Pair = LOBBY, reply_to: int | None = None, **more: Any) -> Action:
    said = Append(conv=conv, kind="message", author=who, body=text, reply_to=reply_to)
    return Action(effects=(said,), account=who, cid=cid, digest=digest(conv, text) if cid is not None else None, **more)


def refused(cid: str | None, text: str = "", *, who: int = ANN, conv: int | Pair = LOBBY, **more: Any) -> Action:
    error = ChatError("rate_limited", "no", retry_after=1)
    return Action(account=who, cid=cid, digest=digest(conv, text), refusal=error, **more)


def digest(conv: int | Pair, text: str) -> bytes:
    return f"{conv}:{text}".encode()[:32]


def world() -> list[Action]:
    """Four accounts; a lobby in which they are, and a den with the owner alone."""
    people = {OWNER: "owner", ANN: "ann", BOB: "bob", CAT: "cat"}
    return [
        *(do(account(number, name)) for number, name in people.items()),
        do(room(LOBBY, "lobby"), *(member(LOBBY, number) for number in people)),
        do(room(DEN, "den"), member(DEN, OWNER, "owner")),
    ]


def start(program: str, *args: str) -> "subprocess.Popen[bytes]":
    """Run Python in a process of its own; it has said that it is ready. Its stdin and stdout are pipes."""
    here = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", program, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=here)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def seqs(outcomes: list[Outcome]) -> list[Any]:
    """What became of each: its seqs, or "dup", or the code of its error."""
    return [
        outcome.error.code if outcome.error is not None else "dup" if outcome.dup is not None else [placed.seq for placed in outcome.placed]
        for outcome in outcomes
    ]
