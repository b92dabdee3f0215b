"""Call the application's `on_health_change` without waiting for it."""

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import replace
from functools import partial

from faststream_adapters._utils.calls import Call, is_async
from faststream_adapters._utils.loggers import Loggers
from faststream_adapters._utils.redaction import redacted_traceback
from faststream_adapters._utils.threads import SingleFlight

from .health_change import HealthChange, Kind

CALL_TIMEOUT = 5.0
"""Seconds that a call may take."""

END_TIMEOUT = 0.5
"""Seconds that the calls for the last changes get to end when the lifespan ends."""


class HealthHook:
    """Calls a function for each change: one call at a time, in the order of the changes.

        idle ── add ──▶ calling ── no change is left ──▶ idle
        calling ── CALL_TIMEOUT ──▶ overdue ── the call ends ──▶ calling

    Invariant: of the changes of one component, at most one is waiting. A further one is merged with it, so
    that the function gets the latest code, however slow it is. An overdue call is cancelled; if that has no
    effect, such as in a thread, it delays further calls and nothing else.

    Args:
        function: Called with a change.
        loggers: Where errors are logged.
    """

    def __init__(self, function: Callable[[HealthChange], object], loggers: Loggers) -> None:
        self._function = function
        self._is_async = is_async(function)
        self._loggers = loggers
        self._threads = SingleFlight()
        self._waiting: dict[tuple[Kind, str], HealthChange] = {}
        self._task: asyncio.Task[None] | None = None
        self._last_error = ""
        """The class of the error that was logged last; empty after a success."""

    def add(self, change: HealthChange) -> None:
        """Call the function for a change, once the earlier changes are handled."""
        key = change.kind, change.name
        if (earlier := self._waiting.get(key)) is not None:
            change = replace(change, old=earlier.old)
        if change.old == change.new:
            del self._waiting[key]
        else:
            self._waiting[key] = change
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._call_for_all())

    async def wait_ended(self) -> None:
        """Wait for the last calls for at most END_TIMEOUT, and then give them up."""
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=END_TIMEOUT)
            self._task.cancel()
            self._task = None
        self._waiting.clear()

    async def _call_for_all(self) -> None:
        # An eager task would begin the calls inside `add`.
        await asyncio.sleep(0)
        while self._waiting:
            await self._call_for(self._waiting.pop(next(iter(self._waiting))))

    async def _call_for(self, change: HealthChange) -> None:
        function: Callable[[], object] = partial(self._function, change)
        if not self._is_async:
            function = partial(copy_context().run, function)
        call = Call(function, self._threads, is_async=self._is_async)
        task = asyncio.create_task(_error_of(call))
        try:
            await asyncio.wait((task,), timeout=CALL_TIMEOUT)
            if task.done():
                self._log(task.result())
                return
            call.given_up = True
            self._loggers["health"].warning(
                "A call of on_health_change takes longer than %g s. It is cancelled, unless it runs in a "
                "thread, and further changes wait until it ends.",
                CALL_TIMEOUT,
            )
            if not call.in_thread:
                task.cancel()
            await asyncio.wait((task,))
        finally:
            # This has no effect after a regular end.
            call.given_up = True
            task.cancel()

    def _log(self, error: BaseException | None) -> None:
        """Log an error, unless the previous call has raised one of the same class."""
        kind = "" if error is None else type(error).__name__
        if error is not None and kind != self._last_error:
            self._loggers["health"].error("on_health_change raised.\n%s", redacted_traceback(error))
        self._last_error = kind


async def _error_of(call: Call) -> BaseException | None:
    try:
        await call.run()
    except BaseException as error:  # noqa: BLE001 (a SystemExit, for example, would end the event loop)
        return error
    return None
