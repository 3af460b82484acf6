"""The way in, for the console and the scripts: which server, which account, trust, password, and what ends with which exit status.

A password is asked for on the terminal, never taken from the command line; where there is no terminal it comes from CHAT_PASSWORD.
"""

import getpass
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import attrs
import trio

from chat.client.clean import clean
from chat.client.client import Client
from chat.client.dial import PinChanged, UnknownHost, UnknownServer
from chat.client.keeper import SessionLost
from chat.client.opening import open_client
from chat.client.servers import ClientStore
from chat.client.target import DEFAULT_PORT, BadTarget, Target, parse_target
from chat.errors import ChatError
from chat.protocol.names import user_name

ATTEMPTS: Final = 3
PASSWORD: Final = "CHAT_PASSWORD"  # the name of the variable
NEW_HERE: Final = "; who is new here needs a line with an invite from the server's owner: chat connect HOST:PORT#FINGERPRINT/INVITE"


class Refused(Exception):
    """It cannot go on; the text is one clear line."""


@attrs.frozen(kw_only=True)
class Entry:
    """Whom to connect to as whom. ``account`` None: nobody is known yet. ``known``: there was a session of it on this machine."""

    store: ClientStore
    target: Target
    account: str | None
    known: bool
    ask: bool

    def open(self, **options: Any) -> AbstractAsyncContextManager[Client]:
        """`open_client` with all that."""
        trust = ask_trust if self.ask else None
        account = self.account if self.known else None
        return open_client(self.target, store=self.store, account=account, trust=trust, **options)


def start(target: str | None, *, account: str | None, body: Callable[[Entry], Awaitable[int]], ask: bool = True) -> int:
    """Find the server and the account, run *body* under Trio, and turn what ends it into one line and an exit status."""
    try:
        entry = find(target, account=account, ask=ask and interactive())
        return trio.run(body, entry)
    except BaseException as error:
        single: BaseException = error
        while isinstance(single, BaseExceptionGroup) and len(single.exceptions) == 1:
            single = single.exceptions[0]
        if isinstance(single, BaseExceptionGroup) and single.split(BrokenPipeError)[1] is None:
            single = BrokenPipeError()  # several tasks met it
        match single:
            case BadTarget():
                return _complain(f"chat: {single}", 2)
            case KeyboardInterrupt() | EOFError():
                return _complain("", 1)
            case BrokenPipeError():
                forget_stdout()
                return 0
            case Refused() | UnknownHost() | UnknownServer() | PinChanged() | SessionLost():
                return _complain(f"chat: {single}", 1)
            case ChatError():
                return _complain(f"chat: {single.message}", 1)
            case OSError():
                where = f"{single.filename}: " if single.filename else ""
                return _complain(f"chat: {where}{single.strerror or single}", 1)
            case _:
                raise


def find(line: str | None, *, account: str | None, ask: bool) -> Entry:
    """The target of *line*, or the server used last, or the one on this machine. *Raises* `BadTarget`."""
    store = ClientStore()
    if line is not None:
        target = parse_target(line)
    elif servers := store.servers():
        target = parse_target(servers[0].key)
    else:
        target = Target(host="127.0.0.1", port=DEFAULT_PORT)
    accounts = store.server(target.key).accounts
    name = account if account is not None else accounts[0] if accounts else None
    known = name is not None and name.casefold() in (other.casefold() for other in accounts)
    return Entry(store=store, target=target, account=name, known=known, ask=ask)


async def enter(client: Client, entry: Entry, *, color: str | None = None) -> None:
    """Open a session: the one on disk, else by a dialogue. *Raises* `Refused`, ChatError, SessionLost; KeyboardInterrupt, EOFError."""
    if not client.has_session:
        register = entry.target.invite is not None and not entry.known
        if client.welcome is not None and client.welcome.registration == "open" and not entry.known:
            register = register or (entry.ask and _wants_account())
        await (_register(client, entry, color) if register else _login(client, entry))
    await client.wait_online()


async def _register(client: Client, entry: Entry, color: str | None) -> None:
    server = clean(client.welcome.name) if client.welcome is not None else entry.target.key
    if entry.ask and PASSWORD not in os.environ:
        _say(f"A new account on {server}.")
    name = entry.account
    while True:
        name = name or _ask_name(entry)
        try:
            user_name(name)
        except ChatError as error:  # before two passwords are typed for it
            if not entry.ask or PASSWORD in os.environ:
                raise
            _say(error.message)
            name = None
            continue
        password = _new_password()
        try:
            await client.register(name, password, color=color)
            return
        except ChatError as error:
            if not entry.ask or error.code not in ("name_taken", "bad_name", "bad_request") or PASSWORD in os.environ:
                raise
            _say(error.message)
            if error.code != "bad_request" or color is not None:
                name, color = (None, color) if error.code != "bad_request" else (name, None)


async def _login(client: Client, entry: Entry) -> None:
    name = entry.account or _ask_name(entry)
    busy = _in_use(entry, name)
    if busy and PASSWORD not in os.environ and can_ask_secret():
        _say(f"{busy}; your password opens another.")
    for attempt in range(ATTEMPTS):
        password = ask_secret(f"Password of {clean(name)}: ")
        if password is None and busy:
            raise Refused(f"{busy}: end that one, or set {PASSWORD} for another session")
        if password is None:
            raise Refused(f"no session of {name} to go on with: set {PASSWORD}, or run `chat connect` on a terminal")
        try:
            await client.login(name, password)
            return
        except ChatError as error:
            if error.code != "unauthorized":
                raise
            told = error.message + ("" if entry.known else NEW_HERE)
            if attempt == ATTEMPTS - 1 or PASSWORD in os.environ or not interactive():
                raise Refused(told) from None
            _say(told)


def _in_use(entry: Entry, name: str) -> str:
    """Which processes have the sessions of the account on this machine; empty: none."""
    processes = entry.store.in_use(entry.target.key, name)
    if not processes:
        return ""
    known = ", ".join(str(process) for process in processes if process)
    who = f"process {known}" if len(processes) == 1 else f"the processes {known}"
    return f"the session of {name} is in use by {who if known else 'another process'}"


def interactive() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin is not None and sys.stdin.isatty()


def fit_for_prompt() -> bool:
    """Whether the terminal can do more than lines."""
    return interactive() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


def ask_secret(question: str) -> str | None:
    """CHAT_PASSWORD, or typed and not shown; None where nobody can be asked. Waits for the person, in the calling thread."""
    if (given := os.environ.get(PASSWORD)) is not None:
        return given
    return getpass.getpass(question) if can_ask_secret() else None


def can_ask_secret() -> bool:
    """Whether there is a terminal, even where standard input is none."""
    try:
        with open("/dev/tty"):
            return True
    except OSError:
        return False


async def ask_trust(target: Target, shown: str, known: str | None) -> bool:
    """Whether a key that is new is the right one."""
    if known is not None:
        _say(f"{target.key} SHOWS ANOTHER KEY THAN BEFORE. The join line names it, so its owner may have made a new one.")
        _say(f"  before {known}\n  now    {shown}")
        return _ask("Type 'replace' to trust the new key: ").lower() == "replace"
    _say(f"{target.key} is new here. Its fingerprint is\n  {shown}\nIts owner can tell you whether that is right.")
    return _ask("Connect? (yes/no) ").lower() in ("y", "yes")


def _wants_account() -> bool:
    return _ask("Do you have an account here? (yes/no) ").lower() in ("n", "no")


def _ask_name(entry: Entry) -> str:
    if not entry.ask:
        raise Refused("no account is known for this server: give one with --name (chat connect) or --as")
    while not (name := _ask("Name: ")):
        pass
    return name


def _new_password() -> str:
    if (given := os.environ.get(PASSWORD)) is not None:
        return given
    while True:
        password = ask_secret("Password (8 characters or more): ")
        if password is None:
            raise Refused(f"no terminal to ask for a password: set {PASSWORD}")
        if len(password.encode()) < 8:
            _say("That is too short.")
        elif ask_secret("The same again: ") != password:
            _say("These were two.")
        else:
            return password


def _ask(question: str) -> str:
    print(question, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()


def _say(text: str) -> None:
    print(clean(text, lines=True), file=sys.stderr, flush=True)


def _complain(text: str, status: int) -> int:
    print(clean(text, lines=True), file=sys.stderr, flush=True)
    return status


def forget_stdout() -> None:
    """Whoever read us is gone: let the interpreter not complain about it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
