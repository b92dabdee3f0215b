"""Clean-up that no cancellation interrupts, and tasks that swallow cancellation or outlive another."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import anyio

from .loggers import DEFAULT, Loggers

T = TypeVar("T")

CANCEL_TIMEOUT = 0.5
"""Seconds to wait for a cancelled task before it is cancelled again."""

_ATTEMPTS = 20

_TURNS = 5
"""Iterations of the event loop in which the callbacks of an ended task run."""


def outlive_current_task() -> "asyncio.Task[None]":
    """Start a task that ends soon after the current one.

    A server that stops its event loop as soon as a startup has failed, such as gunicorn's own worker, runs
    the loop again only to cancel tasks. Without one, the callbacks of its main task never run, and anyio's
    threads wait for such a callback: the process would not end.
    """
    current = cast("asyncio.Task[object]", asyncio.current_task())

    async def outlive() -> None:
        await asyncio.wait((current,))
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    return asyncio.create_task(outlive())


async def uninterrupted(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, however often the current task is cancelled meanwhile.

    Args:
        coroutine: What to run. It runs in a task of its own, and has to end in a bounded time.

    Returns:
        The coroutine's result.

    Raises:
        CancelledError: The current task was cancelled; raised when the coroutine has ended.
    """
    task = asyncio.create_task(coroutine)
    cancelled: asyncio.CancelledError | None = None
    try:
        # The scope only keeps anyio from cancelling again at each iteration of the event loop.
        with anyio.CancelScope(shield=True):
            while not task.done():
                try:
                    await asyncio.wait((task,))
                except asyncio.CancelledError as error:
                    cancelled = error
        try:
            return task.result()
        finally:
            if cancelled is not None:
                # Not a new one: anyio recognizes its cancellations by their message.
                raise cancelled
    finally:
        # The traceback refers to this frame, and so would keep alive what the caller is cleaning up.
        del cancelled


async def cancel_and_wait(
    task: "asyncio.Task[Any]",
    timeout: float = CANCEL_TIMEOUT,  # noqa: ASYNC109 (of each attempt)
    *,
    loggers: Loggers = DEFAULT,
) -> None:
    """Cancel a task until it ends, because some clients swallow the first cancellation.

    Args:
        task: The task.
        timeout: Seconds to wait before the task is cancelled again.
        loggers: Where a task that does not end is logged.

    Raises:
        CancelledError: The current task was cancelled; raised when the other task has ended.
    """
    await uninterrupted(_cancel_until_done(task, timeout, loggers))


async def _cancel_until_done(
    task: "asyncio.Task[Any]",
    timeout: float,  # noqa: ASYNC109 (of each attempt)
    loggers: Loggers,
) -> None:
    for _ in range(_ATTEMPTS):
        task.cancel()
        await asyncio.wait((task,), timeout=timeout)
        if task.done():
            return
    loggers["lifecycle"].error("A task is still running after %d cancellations: %r", _ATTEMPTS, task)
