"""Handle a message so that a cancellation does not interrupt its clean-up."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from contextvars import copy_context
from types import TracebackType
from typing import Any, TypeAlias, TypeVar, cast

import anyio
from anyio import to_thread

T = TypeVar("T")

Outcome: TypeAlias = tuple[Any, BaseException | None]
"""A result, or an error."""

HOLD = 10.0
"""Seconds for which a cancellation waits for a clean-up, or for a thread that precedes it."""


class MessageScope:
    """Delays cancellations of a message while it is cleaned up.

    `run` handles the message in a task of its own. A cancellation of the task that waits for it is passed on
    at once, but between `hold` and `release` it waits, for `HOLD` seconds at most. Timeouts and cancel scopes
    inside the message are not affected.
    """

    def __init__(self) -> None:
        self._is_held = False
        self._held: asyncio.CancelledError | None = None
        """The last cancellation that was not passed on."""
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, handle: Callable[[], Awaitable[T]]) -> T:
        """Call a function in a task, and return its result.

        Raises:
            CancelledError: The current task was cancelled; raised when the function has ended.
        """
        # Python 3.11 can only copy a task's context.
        context = getattr(asyncio.current_task(), "get_context", copy_context)()
        # Its result is there one iteration of the event loop before the task's.
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        # Never an eager task: it would run at once, and the current task is still in this context.
        task = asyncio.Task(_outcome(handle, ended), loop=loop, context=context)
        error: BaseException | None = None
        try:
            try:
                result, error = await ended
            except asyncio.CancelledError as cancelled:
                self._cancel(task, cancelled)
                # The scope only keeps anyio from cancelling again at each iteration of the event loop.
                with anyio.CancelScope(shield=True):
                    await self._wait_for(task)
                result, error = self._held_result(task)
            if error is not None:
                raise error
            return cast("T", result)
        finally:
            # The traceback refers to this frame.
            del error
            self._held = None

    def _held_result(self, task: "asyncio.Task[Outcome]") -> Outcome:
        if self._timer is not None:
            self._timer.cancel()
        # Not a new error: anyio recognizes its cancellations by their message.
        return task.result() if self._held is None else (None, self._held)

    async def _wait_for(self, task: "asyncio.Task[Any]") -> None:
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError as error:
                self._cancel(task, error)

    def _cancel(self, task: "asyncio.Task[Any]", error: asyncio.CancelledError) -> None:
        if not self._is_held:
            task.cancel(*error.args)
            return
        self._held = error
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(HOLD, task.cancel)

    def hold(self) -> None:
        """Let cancellations wait from now on."""
        self._is_held = True

    def release(self) -> None:
        """Let cancellations pass.

        Raises:
            CancelledError: One was waiting.
        """
        self._is_held = False
        if self._held is not None:
            raise asyncio.CancelledError(*self._held.args)

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Call a function in a thread, whose end a cancellation waits for."""
        self.hold()
        result = await to_thread.run_sync(function)
        self.release()
        return result


async def _outcome(handle: Callable[[], Awaitable[Any]], ended: "asyncio.Future[Outcome]") -> Outcome:
    """Return the result or the error of a function: SystemExit in a task would end the event loop."""
    outcome: Outcome
    try:
        outcome = await handle(), None
    except BaseException as error:  # noqa: BLE001 (it is raised in the other task)
        outcome = None, error
    if not ended.done():
        ended.set_result(outcome)
    return outcome


class CleanUpStack(AsyncExitStack):
    """Closes the dependencies of a message without interruption; the error of a handler remains an error.

    Args:
        scope: The scope of the message.
    """

    def __init__(self, scope: MessageScope) -> None:
        super().__init__()
        self._scope = scope

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Close the dependencies, from the last to the first."""
        self._scope.hold()
        await super().__aexit__(exc_type, exc_value, traceback)
        # A dependency may have swallowed the error, but the handler has failed nevertheless.
        return False
