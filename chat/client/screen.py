"""Where lines are shown and typed: `PromptScreen` on a terminal, `PlainScreen` in a pipe or on a dumb one.

prompt_toolkit runs on asyncio and not on Trio, so it has a thread of its own with its own loop, for as long as the console lives:
one Application that never ends between two lines. What is typed comes to Trio by `TrioToken.run_sync_soon`; what is to be shown goes
to its loop by `call_soon_threadsafe`, where all that waits is printed in the place of the prompt, in one go, and the prompt drawn again
below, so that it never tears the line being typed. Neither side ever waits for the other. (Trio as a guest of asyncio's loop would save
the thread, but tie every exception and signal of one loop to the other.)

In a thread that is not the main one prompt_toolkit polls the terminal's size and leaves all signals alone: they are Trio's.
Ctrl-C is a key there. Whatever ends the console, the Application is told to exit and restores the terminal.

*Owns* the terminal between `run` and its end.
"""

import asyncio
import os
import re
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from contextlib import suppress
from typing import Any, Protocol

import attrs
import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application, get_app
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import Completer
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, create_output
from prompt_toolkit.renderer import print_formatted_text
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import get_cwidth

from chat.client.view import DIM, WARN, Fragment, Line, plain, told

STYLE = Style.from_dict({"bottom-toolbar": "noreverse bg:default", "bottom-toolbar.text": ""})
NAME_COLUMNS = 8
PRINTED_KEPT = 1000  # lines that can be printed again, when one of them was taken away
_TABLE = re.compile(r" {0,4}\S+(?: \S+){0,4} {2,}(?=\S)")


class Screen(Protocol):
    """What the console needs of a terminal."""

    interactive: bool  # whether there is a status line: quiet news go there and not among the lines

    def show(self, line: Line) -> None:
        """Print; never waits."""
        ...

    def take_away(self, key: tuple[str, int]) -> None:
        """A message was taken away by a moderator: it is not to be read here any more, where that is possible."""
        ...

    def complain(self, text: str) -> None:
        """A word about the connection or a mistake, never mixed into what a pipe reads."""
        ...

    def refresh(self) -> None:
        """The status or the prompt changed."""
        ...

    async def run(self, typed: "trio.MemorySendChannel[str]") -> None:
        """Send every line typed, and end at the end of the input. *If cancelled*: the terminal is as before."""
        ...


class PromptScreen:
    interactive = True

    def __init__(
        self,
        *,
        prompt: Callable[[], list[Fragment]],
        toolbar: Callable[[], list[Fragment]],
        completer: Completer,
        colored: bool,
        hidden: Callable[[], bool],
    ) -> None:
        self._prompt = prompt
        self._toolbar = toolbar
        self._completer = completer
        self._hidden = hidden
        self._depth = None if colored else ColorDepth.DEPTH_1_BIT
        self._output = create_output()
        self._waiting: deque[Line] = deque()
        self._printed: deque[Line] = deque(maxlen=PRINTED_KEPT)  # only the thread's
        self._gone: deque[tuple[str, int]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: PromptSession[str] | None = None
        self._ended = False

    def show(self, line: Line) -> None:
        self._waiting.append(line)
        self._call(self._print_soon)

    def take_away(self, key: tuple[str, int]) -> None:
        self._gone.append(key)
        self._call(self._print_soon)

    def complain(self, text: str) -> None:
        self.show(told(text, style=WARN))

    def refresh(self) -> None:
        self._call(self._invalidate)

    async def run(self, typed: "trio.MemorySendChannel[str]") -> None:
        token = trio.lowlevel.current_trio_token()

        def deliver(line: str) -> None:
            with suppress(trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                typed.send_nowait(line)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._exit_when_cancelled)
            try:
                await trio.to_thread.run_sync(lambda: asyncio.run(self._edit(lambda line: token.run_sync_soon(deliver, line))))
            finally:
                self._ended = True
                self._print()
            nursery.cancel_scope.cancel()

    async def _exit_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._call(self._exit)

    # ------------------------------------------------------------ in the thread

    async def _edit(self, deliver: Callable[[str], None]) -> None:
        output = self._output
        session: PromptSession[str] = PromptSession(
            message=lambda: FormattedText(self._prompt()),
            bottom_toolbar=lambda: FormattedText(self._toolbar()),
            completer=self._completer,
            is_password=Condition(self._hidden),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            history=InMemoryHistory(),  # lines may hold channel passwords: they are not written down
            key_bindings=_keys(),
            output=output,
            style=STYLE,
            color_depth=self._depth,
            refresh_interval=0.5,
            erase_when_done=True,
            reserve_space_for_menu=0,
        )

        # Where the cursor is the terminal is not asked: each print would wait for its answer, over a slow line or for one that never
        # comes. Two rows are always enough for the prompt and the status below it, so that is the answer.
        output.ask_for_cpr = lambda: session.app.renderer.report_absolute_cursor_row(output.get_size().rows - 1)  # type: ignore[method-assign]

        def accept(buffer: Buffer) -> bool:
            deliver(buffer.text)
            if self._hidden():  # a password is no history
                buffer.reset()
                return True
            return False  # empty the line and go on

        session.default_buffer.accept_handler = accept
        self._session = session
        self._loop = asyncio.get_running_loop()
        if self._ended:
            return
        with suppress(EOFError, KeyboardInterrupt):
            await session.prompt_async(pre_run=self._print_soon, handle_sigint=False)
        self._loop = None
        await asyncio.sleep(0)  # a print that has begun ends

    def _call(self, action: Callable[[], None]) -> None:
        if (loop := self._loop) is not None:
            with suppress(RuntimeError):  # it is closing
                loop.call_soon_threadsafe(action)

    def _invalidate(self) -> None:
        if self._session is not None:
            self._session.app.invalidate()

    def _exit(self) -> None:
        if self._session is not None and self._session.app.is_running:
            _leave(self._session.app)

    def _print_soon(self) -> None:
        """In the place of the prompt, and the prompt again below it.

        Not by `run_in_terminal` (nor the shortcut `print_formatted_text`, which uses it): that one leaves the raw mode for the time of
        the print, and a key typed just then is lost or echoed.
        """
        if (self._waiting or self._gone) and self._session is not None and (app := self._session.app).is_running:
            app.renderer.erase()
            self._print()
            app.renderer.request_absolute_cursor_position()
            app.invalidate()

    def _print(self) -> None:
        fragments: list[Fragment] = []
        columns = self._columns()
        self._forget_gone()
        while self._waiting:
            line = self._waiting.popleft()
            self._printed.append(line)
            fragments += laid_out(line, columns)
            fragments.append(("", "\n"))
        if fragments:
            print_formatted_text(self._output, FormattedText(fragments), STYLE, color_depth=self._depth)
            self._output.flush()

    def _forget_gone(self) -> None:
        """What was taken away is blotted out of what is about to be printed; where it is on the screen already, all is printed again."""
        gone: set[tuple[str, int]] = set()
        while self._gone:
            gone.add(self._gone.popleft())
        if not gone:
            return
        lines = [*self._printed, *self._waiting]
        again = any(line.key in gone for line in self._printed)
        lines = [_blotted(line) if line.key in gone else line for line in lines]
        if again:
            self._output.erase_screen()
            self._output.write_raw("\x1b[3J")  # what was scrolled out, too
            self._output.cursor_goto(0, 0)
            self._printed.clear()
        else:
            lines = lines[len(self._printed) :]
        self._waiting.clear()
        self._waiting.extend(lines)

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(sys.stdout.fileno()).columns
        except OSError:
            return 80


def _blotted(line: Line) -> Line:
    return attrs.evolve(line, body=((DIM, "(taken away)"),), key=None)


class PlainScreen:
    interactive = False

    def __init__(self, *, where: Callable[[], bool]) -> None:
        self._where = where

    def show(self, line: Line) -> None:
        print(plain(line, where=self._where()), flush=True)

    def take_away(self, key: tuple[str, int]) -> None:
        """What a pipe has taken cannot be had back."""

    def complain(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def refresh(self) -> None:
        pass

    async def run(self, typed: "trio.MemorySendChannel[str]") -> None:
        async for line in read_lines():
            await typed.send(line)


async def read_lines() -> AsyncIterator[str]:
    """The lines of standard input, without their ends, as they come. A read that is waited for is given up when cancelled."""
    rest = b""
    while chunk := await trio.to_thread.run_sync(os.read, 0, 65536, abandon_on_cancel=True):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace").removesuffix("\r")
    if rest:
        yield rest.decode(errors="replace")


def laid_out(line: Line, columns: int) -> list[Fragment]:
    """The fragments of a line, its text wrapped between words beside its own margin."""
    head = list(line.head)
    if not head:
        return list(line.body)
    used = sum(get_cwidth(text) for _, text in head)
    margin = used + 1
    if len(head) > 1:
        margin = max(used, len("00:00 ") + NAME_COLUMNS) + 1
    head.append(("", " " * (margin - used)))
    if margin > columns // 2:
        margin = 6
    room = max(columns - margin - 1, 10)
    for style, text in line.body:
        for index, row in enumerate(row for part in text.split("\n") for row in _rows(part, room)):
            head.append((style, ("\n" + " " * margin if index else "") + row))
    return head


def _rows(text: str, room: int) -> Iterable[str]:
    """*text* wrapped; of a table (two spaces between columns, as help has) the last column keeps its own margin."""
    table = _TABLE.match(text)
    inner = get_cwidth(table[0]) if table is not None else 0
    if table is None or inner > room * 2 // 3:
        yield from wrapped(text, room)
        return
    for index, row in enumerate(wrapped(text[table.end() :], room - inner)):
        yield (" " * inner if index else table[0]) + row


def wrapped(text: str, room: int) -> Iterable[str]:
    """*text* in rows of at most *room* columns, broken at spaces; a longer word is broken too, but for one with a ``/``, which may be an
    address: whole, it can be copied."""
    row, *words = text.split(" ")
    row = yield from _full_rows(row, room)
    width = get_cwidth(row)
    for word in words:
        columns = get_cwidth(word)
        if row.strip() and width + 1 + columns > room:
            yield row
            row = word
        else:
            row = f"{row} {word}"
        row = yield from _full_rows(row, room)
        width = get_cwidth(row)
    yield row


def _full_rows(row: str, room: int) -> Generator[str, None, str]:
    """As many as a single word fills. Returns what remains."""
    while get_cwidth(row) > room and "/" not in row:
        width, end = 0, 0
        while (width := width + get_cwidth(row[end])) <= room:
            end += 1
        yield row[: max(end, 1)]
        row = row[max(end, 1) :]
    return row


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("c-c")
    def interrupt(event: KeyPressEvent) -> None:
        """Clear the line; on an empty one, leave."""
        if event.app.current_buffer.text:
            event.app.current_buffer.reset()
        else:
            _leave(event.app)

    @keys.add("c-d", filter=Condition(lambda: not get_app().current_buffer.text))
    def end(event: KeyPressEvent) -> None:
        _leave(event.app)

    return keys


def _leave(app: Application[Any]) -> None:
    if app.future is not None and not app.future.done():  # pressed twice, it would raise
        app.exit(exception=EOFError())
