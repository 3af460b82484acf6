"""The client's own commands, ``/`` in front. Everything else is the server's business."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final

import trio

from chat.client.calls import Disconnected
from chat.client.clean import clean
from chat.client.keeper import SessionLost
from chat.client.questions import Open
from chat.client.view import DIM, Line, name_style, told, when
from chat.errors import ChatError
from chat.protocol import messages as m

if TYPE_CHECKING:
    from chat.client.console import Console

Run = Callable[["Console", str], Awaitable[None]]
COMMANDS: Final[dict[str, tuple[str, str, Run]]] = {}


def _command(usage: str, meaning: str, *names: str) -> Callable[[Run], Run]:
    def add(run: Run) -> Run:
        for name in names:
            COMMANDS[name] = (usage, meaning, run)
        return run

    return add


async def run(console: "Console", text: str) -> None:
    """Run ``name rest``."""
    name, _, rest = text.partition(" ")
    found = COMMANDS.get(name.lower())
    if found is None:
        prefix = console.client.prefix_of(console.current or "")
        console.complain(f"/{clean(name)} is no command of the client: /help lists them. The server's begin with {prefix}.")
        return
    await found[2](console, rest.strip())


def described() -> Iterable[tuple[str, str]]:
    """Each command once, under its first name, with what it does."""
    seen = set()
    for name, (_, meaning, function) in COMMANDS.items():
        if function not in seen:
            seen.add(function)
            yield name, meaning


@_command("/help", "what there is to type", "help", "h", "?")
async def _help(console: "Console", rest: str) -> None:
    prefix = console.client.prefix_of(console.current or "")
    rows = {usage: meaning for usage, meaning, _ in COMMANDS.values()}
    width = max(map(len, rows))
    lines = [f"  {usage:<{width}}  {meaning}" for usage, meaning in rows.items()]
    lines += [
        f"  {prefix + 'help':<{width}}  the server's commands; they work in the channel in front",
        "  A line that shall begin with / : put a space before it. Tab completes, ↑ brings back.",
    ]
    for line in lines:
        console.show(Line(body=(("", line),)))


@_command("/switch #CHANNEL|@USER", "go to a channel (joining it) or to somebody in private", "switch", "s", "join", "j")
async def _switch(console: "Console", rest: str) -> None:
    if not rest:
        others = [conv for conv in console.client.conversations if conv != console.current]
        console.show(told("You can switch to: " + "  ".join(others) if others else "There is nothing else yet.", style=""))
        return
    await console.switch(rest if rest[0] in "#@" else "#" + rest)


@_command("/msg @USER TEXT", "say something in private, staying here", "msg", "m")
async def _msg(console: "Console", rest: str) -> None:
    user, _, text = rest.partition(" ")
    if not user.removeprefix("@") or not text.strip():
        console.complain("/msg @USER TEXT")
        return
    await console.say("@" + user.removeprefix("@"), text.strip())


@_command("/who", "who is in this channel", "who", "w")
async def _who(console: "Console", rest: str) -> None:
    if console.current is None or not console.current.startswith("#"):
        console.complain("/who works in a channel.")
        return
    try:
        people, more = await console.members(console.current)
    except ChatError as error:
        console.complain(error.message)
        return
    people.sort(key=lambda person: (not person.get("online"), str(person["user"]).casefold()))
    for person in people:
        mark = ("fg:ansigreen", "  ● ") if person.get("online") else (DIM, "  ○ ")
        name = str(person["user"])
        role = str(person.get("role") or "member")
        extra = "" if role == "member" else f"  {clean(role)}"
        console.show(Line(body=(mark, (name_style(name, console.colors), clean(name)), (DIM, extra))))
    if more:
        console.show(told(f"  and {more} more"))


@_command("/history [LINES]", "what was said here before", "history")
async def _history(console: "Console", rest: str) -> None:
    if console.current is None:
        return
    if rest and not (rest.isdecimal() and len(rest) < 4 and 0 < int(rest) <= 500):
        console.complain("/history [LINES], from 1 to 500")
        return
    await console.history(console.current, int(rest or 50))


@_command("/sessions [end NUMBER]", "where you are logged in; end one of them", "sessions")
async def _sessions(console: "Console", rest: str) -> None:
    client = console.client
    try:
        listed = [entry for entry in (await client.request(m.Sessions(id=0))).data or () if isinstance(entry, dict)]
        words = rest.split()
        if not words:
            for number, entry in enumerate(listed, 1):
                state = "this one" if entry.get("current") else "online" if entry.get("online") else "away"
                where = f"{clean(str(entry.get('client')))} from {clean(str(entry.get('address')))}"
                console.show(Line(body=(("", f"  {number}  {where}"), (DIM, f"  {state}, last seen {when(entry.get('seen'))}"))))
            return
        if words[0] != "end" or len(words) != 2 or not words[1].isdecimal() or not 0 < int(words[1]) <= len(listed):
            console.complain("/sessions end NUMBER, with a number that /sessions lists")
            return
        chosen = listed[int(words[1]) - 1]
        if chosen.get("current"):
            console.complain("That is this one: /quit leaves it.")
            return
        await client.end_session(str(chosen.get("session")))
    except ChatError as error:
        console.complain(error.message)
        return
    console.show(told("That session has ended.", style=""))


@_command("/answer [N] TEXT", "answer what a command asks (number N, if there are several); alone: list what is asked", "answer", "a")
async def _answer(console: "Console", rest: str) -> None:
    waiting = list(console.client.questions)
    if not waiting:
        console.complain("Nobody asks anything.")
        return
    first, _, text = rest.partition(" ")
    chosen = console.client.questions.numbered(int(first)) if first.isdecimal() and len(first) < 10 else None
    if chosen is not None and text.strip():
        await give_answer(console, chosen, text.strip())
    elif rest and len(waiting) == 1:
        await give_answer(console, waiting[0], rest)
    else:
        for question in waiting:
            console.show(told(_shown(console, question), style="bold"))
        if rest:
            console.complain("There are several questions: /answer N TEXT answers number N.")


@_command("/answering on|off", "whether a plain line answers the newest question (off at first)", "answering")
async def _answering(console: "Console", rest: str) -> None:
    if rest not in ("on", "off"):
        console.complain(f"/answering on|off; it is {'on' if console.answering else 'off'}")
        return
    console.answering = rest == "on"
    console.show(told("Plain lines answer the newest question." if console.answering else "Plain lines are said, as ever."))


async def give_answer(console: "Console", question: Open, text: str) -> None:
    """Answer; whether it will do, the server says."""

    async def give() -> None:
        try:
            await console.client.request(m.Answer(id=0, question=question.message.question, text=text))
        except ChatError as error:
            console.turn.set()
            console.complain(error.message)
        except Disconnected:
            console.complain("The connection broke before the answer was taken. If it is still asked, it will be shown again.")
        except SessionLost:
            return
        console.screen.refresh()

    if console.screen.interactive:
        console.nursery.start_soon(give)
        return
    console.turn = trio.Event()
    await give()
    if console.at_work and all(other is question for other in console.client.questions):
        await console.turn.wait()  # the next line may be for what the command asks next


def newest_question(console: "Console") -> Open | None:
    return next(reversed(list(console.client.questions)), None)


def show_question(console: "Console", notice: m.Question) -> None:
    """A question has come, or come again: after a lost connection it is not told twice."""
    question = console.client.questions.get(notice.question)
    if question is None:
        return  # it is over already
    if console.asked.get(notice.question) != notice.text:
        console.show(told(_shown(console, question), style="bold", where=notice.conv or ""))
    console.asked[notice.question] = notice.text
    console.turn.set()


def _shown(console: "Console", question: Open) -> str:
    asked = question.message
    command = f" ({console.client.prefix}{asked.command})" if asked.command else ""
    choices = f" ({' / '.join(asked.choices)})" if asked.choices else ""
    left_s = console.client.questions.left_s(question)
    return f"? {question.number}: {asked.from_} asks{command}: {asked.text}{choices}  — {left_s} s, /answer {question.number} TEXT"


@_command("/quit", "leave; you stay a member, and see later what was said", "quit", "q", "exit")
async def _quit(console: "Console", rest: str) -> None:
    console.nursery.cancel_scope.cancel()
