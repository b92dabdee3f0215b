"""Clean-up that no cancellation interrupts."""

import asyncio

import anyio
import pytest

from faststream_adapters._utils.tasks import cancel_and_wait, uninterrupted
from tests.harness.turns import Turns


class CleanUp:
    """A clean-up that ends when it may."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.started = asyncio.Event()
        self.ended = False
        self.error: Exception | None = None

    async def run(self) -> str:
        self.started.set()
        await self.may_end.wait()
        self.ended = True
        if self.error is not None:
            raise self.error
        return "clean"


async def turn() -> None:
    await asyncio.sleep(0)


async def test_the_result_and_the_error_are_passed_on() -> None:
    clean_up = CleanUp()
    clean_up.may_end.set()
    assert await uninterrupted(clean_up.run()) == "clean"
    clean_up.error = KeyError("server")
    with pytest.raises(KeyError, match="server"):
        await uninterrupted(clean_up.run())


async def test_each_cancellation_waits_for_the_end() -> None:
    clean_up = CleanUp()
    task = asyncio.create_task(uninterrupted(clean_up.run()))
    await clean_up.started.wait()
    for _ in range(3):
        task.cancel()
        await turn()
    assert not task.done()
    clean_up.may_end.set()
    await asyncio.wait((task,))
    assert clean_up.ended
    assert task.cancelled()


async def test_a_task_that_is_cancelled_already_cleans_up() -> None:
    clean_up = CleanUp()

    async def cancelled() -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await uninterrupted(clean_up.run())

    task = asyncio.create_task(cancelled())
    await clean_up.started.wait()
    clean_up.may_end.set()
    await asyncio.wait((task,))
    assert clean_up.ended
    assert task.cancelled()


async def test_an_error_of_a_cancelled_clean_up_is_the_context_of_the_cancellation() -> None:
    clean_up = CleanUp()
    clean_up.error = KeyError("server")
    task = asyncio.create_task(uninterrupted(clean_up.run()))
    await clean_up.started.wait()
    task.cancel()
    await turn()
    clean_up.may_end.set()
    with pytest.raises(asyncio.CancelledError) as raised:
        await task
    assert raised.value.__context__ is clean_up.error


async def test_cancelling_and_waiting_is_not_interrupted() -> None:
    clean_up = CleanUp()

    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await clean_up.run()

    task = asyncio.create_task(run())
    await turn()
    canceller = asyncio.create_task(cancel_and_wait(task, timeout=30.0))
    await clean_up.started.wait()
    canceller.cancel()
    await turn()
    assert not canceller.done()
    clean_up.may_end.set()
    await asyncio.wait((canceller,))
    assert task.cancelled()
    assert canceller.cancelled()


def test_a_cancel_scope_of_anyio_does_not_keep_the_event_loop_busy() -> None:
    turns = Turns()

    async def run() -> None:
        scope = anyio.CancelScope()
        with scope:
            scope.cancel()
            turns.plan(None)
            await uninterrupted(asyncio.sleep(0.1))
            await turn()
        assert scope.cancelled_caught

    with asyncio.Runner(loop_factory=turns.new_loop) as runner:
        runner.run(run())
    assert turns.passed < 50
