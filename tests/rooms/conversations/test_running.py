"""What a command does is its own: `perform` returns its value or raises ChatError, whatever the command raises or cancels."""

import pytest
import trio

from chat.errors import ChatError
from chat.rooms.conversations.running import perform, refusal_for
from chat.rooms.conversations.runs import Run


def run():
    return Run(questions=None, name="test", account=1, session="s")


async def outcome(body, limit_s=60, one=None):
    try:
        return await perform(one or run(), body, limit_s)
    except ChatError as error:
        return error.code


async def test_a_value():
    async def body():
        await trio.lowlevel.checkpoint()
        return "fine"

    assert await outcome(body) == "fine"


async def raising(error):
    raise error


def deep():
    return deep()


async def recursing():
    return deep()


async def cancelling_its_nursery():
    trio.lowlevel.current_task().parent_nursery.cancel_scope.cancel()
    await trio.sleep_forever()


async def in_a_nursery_of_its_own():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        raise ValueError("boom")


async def cancelling_what_it_waits_in():
    with trio.CancelScope() as scope:
        scope.cancel()
        await trio.sleep_forever()
    raise KeyError("went on")


@pytest.mark.parametrize(
    "body",
    [
        lambda: raising(ValueError("secret")),
        lambda: raising(SystemExit(3)),
        lambda: raising(KeyboardInterrupt()),
        lambda: raising(GeneratorExit()),
        lambda: raising(BaseExceptionGroup("two", [ValueError(), KeyboardInterrupt()])),
        lambda: raising(MemoryError()),
        recursing,
        cancelling_its_nursery,
        in_a_nursery_of_its_own,
        cancelling_what_it_waits_in,
    ],
)
async def test_everything_else_is_an_internal_error(body):
    assert await outcome(body) == "internal_error"


async def test_what_it_says_itself_is_told_as_it_is_out_of_groups_too():
    assert await outcome(lambda: raising(ChatError("quota_exceeded", "enough"))) == "quota_exceeded"
    assert await outcome(lambda: raising(ExceptionGroup("", [ExceptionGroup("", [ChatError("busy", "later")])]))) == "busy"
    both = ExceptionGroup("", [ChatError("busy", "later"), ValueError()])
    assert refusal_for("test", both).code == "internal_error"


async def test_the_secret_in_an_exception_is_not_told():
    with pytest.raises(ChatError) as told:
        await perform(run(), lambda: raising(ValueError("hunter2")), 60)
    assert "hunter2" not in told.value.message


async def test_one_that_takes_too_long(autojump_clock):
    async def body():
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    ended, began = [], trio.current_time()
    assert await outcome(body, limit_s=30) == "timeout"
    assert ended == [began + 30]


async def test_one_that_is_done_in_spite_of_the_deadline_has_a_result(autojump_clock):
    async def body():
        with trio.CancelScope(shield=True):
            await trio.sleep(40)
        return "done"

    assert await outcome(body, limit_s=30) == "done"


async def test_one_that_is_hurried_has_that_long_and_is_told_why(autojump_clock):
    one = run()
    one.late = ChatError("shutting_down", "the server stops")

    async def body():
        one.hurry(1)
        one.hurry(100)
        await trio.sleep_forever()

    began = trio.current_time()
    assert await outcome(body, one=one) == "shutting_down"
    assert trio.current_time() - began == 1


async def test_what_ends_it_from_outside_is_the_answer_even_where_it_went_on_to_a_result(nursery):
    one = run()
    told = []

    async def body():
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return "never mind"  # a command that swallows its cancellation

    async def task():
        told.append(await outcome(body, one=one))

    nursery.start_soon(task)
    await trio.testing.wait_all_tasks_blocked()
    one.end(ChatError("removed", "gone"))
    await trio.testing.wait_all_tasks_blocked()
    assert told == ["removed"]
    one.end(ChatError("busy", "again"))
    assert one.ended.code == "removed"


async def test_the_end_of_its_session_goes_through_it_and_its_cleanup_runs():
    steps = []

    async def body():
        try:
            await trio.sleep_forever()
        finally:
            steps.append("cleaned up")

    with trio.CancelScope() as session:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome, body)
            await trio.testing.wait_all_tasks_blocked()
            session.cancel()
    assert session.cancelled_caught
    assert steps == ["cleaned up"]


async def test_a_bug_in_the_cleanup_of_a_cancelled_command_is_told_to_the_log_alone():
    async def body():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("in the cleanup")

    with trio.CancelScope() as session:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome, body)
            await trio.testing.wait_all_tasks_blocked()
            session.cancel()
