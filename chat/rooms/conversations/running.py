"""An ``async def`` command at work: a scope and a nursery of its own, a deadline, and nothing that it does gets out of them.

Whatever a command raises, `SystemExit`, `KeyboardInterrupt` and groups of exceptions too, becomes the answer to its one request. What it
cancels is its own: the nearest nursery that it can reach is the one made here. What ends it from outside (`Run.end`) is
answered as that says; only where its session has ended, or the daemon ends, the cancellation goes on outwards.

What this cannot do: a command is code in this process. One that does not come back holds up everybody (`chat.watchdog` says which it is),
and one that takes all memory takes it from everybody. Who installs a plugin trusts it.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import trio

from chat.errors import ChatError
from chat.log import get_logger, new_error_id
from chat.protocol import codec
from chat.protocol import messages as m
from chat.rooms.conversations.runs import Run

log = get_logger("chat.commands")
T = TypeVar("T")


async def perform(run: Run, body: Callable[[], Awaitable[T]], limit_s: float) -> T:
    """What *body* returns. *Raises* ChatError: the command's own, ``run.ended``, timeout after *limit_s*, internal_error (logged).

    *If cancelled* from outside, so is the command.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    async def guarded() -> None:
        try:
            results.append(await body())
        except trio.Cancelled:
            raise
        except BaseExceptionGroup as group:
            cancelled, rest = group.split(trio.Cancelled)
            if rest is not None:
                failures.append(rest)
            if cancelled is not None:
                raise cancelled from None
        except BaseException as bug:
            failures.append(bug)

    try:
        with trio.CancelScope(deadline=trio.current_time() + limit_s) as scope:
            run.cancel = scope.cancel
            run.hurry = partial(_hurry, scope)
            async with trio.open_nursery() as own:
                own.start_soon(guarded)
    finally:
        run.cancel = _nothing
        run.hurry = partial(_hurry, trio.CancelScope())
    if run.ended is not None:
        raise run.ended
    if failures:
        raise refusal_for(run.name, failures[0])
    if results:
        return results[0]
    if trio.current_time() >= scope.deadline:
        if run.late is not None:
            raise run.late
        log.warning("command_too_long", command=run.name, limit_s=limit_s)
        raise ChatError("timeout", f"{run.name} took longer than {limit_s:g} s, and was ended")
    raise refusal_for(run.name, RuntimeError("the command cancelled itself"))


def refusal_for(name: str, bug: BaseException) -> ChatError:
    """A ChatError as it is (one in groups of one too), and anything else as internal_error, with an id that the log has too."""
    refused = bug
    while isinstance(refused, BaseExceptionGroup) and len(refused.exceptions) == 1:
        refused = refused.exceptions[0]
    if isinstance(refused, ChatError) and _can_be_said(refused):
        return refused
    error_id = new_error_id()
    log.error("command_failed", command=name[:64], error_id=error_id, exc_info=bug)
    return ChatError("internal_error", f"the command failed; the server's log has it as {error_id}")


def _can_be_said(error: ChatError) -> bool:
    """A command makes its refusals itself, of whatever it has."""
    try:
        codec.encode(m.Error(code=error.code, message=f"{error.message:s}", retry_after=error.retry_after))
    except Exception:
        return False
    return True


def _hurry(scope: trio.CancelScope, seconds: float) -> None:
    scope.deadline = min(scope.deadline, trio.current_time() + seconds)


def _nothing() -> None:
    """What cancels a run that is over."""
