import trio

from chat.session import Session


def session():
    return Session("s", 1, None)


async def test_tasks_run_side_by_side_and_all_end_with_the_session(nursery):
    one, ended = session(), []

    async def task(name):
        try:
            await trio.sleep_forever()
        finally:
            ended.append(name)

    nursery.start_soon(one.run, lambda: task("a"))
    nursery.start_soon(one.run, lambda: task("b"))
    await trio.testing.wait_all_tasks_blocked()
    assert not ended
    one.end()
    await trio.testing.wait_all_tasks_blocked()
    assert sorted(ended) == ["a", "b"]


async def test_a_task_of_an_ended_session_is_cancelled_at_its_first_checkpoint():
    one, steps = session(), []
    one.end()

    async def task():
        steps.append("begun")
        await trio.lowlevel.checkpoint()
        steps.append("gone on")

    await one.run(task)
    assert steps == ["begun"]


async def test_what_has_ended_is_not_kept():
    one = session()
    for _ in range(3):
        await one.run(trio.lowlevel.checkpoint)
    assert not one._scopes
    one.end()
    one.end()
