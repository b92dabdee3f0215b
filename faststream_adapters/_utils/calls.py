"""Calls of functions of the application, asynchronous or not."""

import inspect
from collections.abc import Callable
from typing import Any

from .threads import SingleFlight


def is_async(function: Any) -> bool:
    """Return whether a function, or the object that is called like one, is asynchronous."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 (of an object whose class defines it)
    )


def call_problem(name: str, function: object, *arguments: object, how: str) -> str:
    """Return why a function cannot be called, as a sentence, or an empty text if it can be.

    Args:
        name: What the function is called in the sentence.
        function: The function.
        arguments: The arguments of the call.
        how: The arguments in words, as in "without arguments".
    """
    if not callable(function):
        return f"{name} must be a function, not {type(function).__name__}."
    functions = (function, getattr(function, "__call__", None))  # noqa: B004 (as above)
    if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in functions):
        return f"{name} must not be a generator function, because calling it runs nothing."
    try:
        signature = inspect.signature(function)
    except Exception:  # noqa: BLE001 (functions in C may have none; from Python 3.14 on annotations are evaluated)
        return ""
    try:
        signature.bind(*arguments)
    except TypeError as error:
        return f"{name} is called {how} ({error}): bind all others, as with functools.partial."
    return ""


class Call:
    """One call: an asynchronous function runs in the event loop, any other in a thread.

    If a function that has run in a thread returns an awaitable, that is awaited in the event loop.

    Args:
        function: Called without arguments.
        threads: Runs calls in a thread.
    """

    def __init__(self, function: Callable[[], Any], threads: SingleFlight, *, is_async: bool) -> None:
        self.in_thread = False
        """Whether it is running in a thread, where it cannot be cancelled."""
        self.given_up = False
        """Whether its result no longer counts: an awaitable that it returns is not awaited."""
        self._function = function
        self._threads = threads
        self._is_async = is_async

    async def run(self) -> object:
        """Return the result, or raise the error of the function.

        If the task is cancelled while the function is running in a thread, it goes on there.
        """
        if self._is_async:
            result = self._function()
        else:
            self.in_thread = True
            try:
                result = await self._threads.run(self, self._call_in_thread)
            finally:
                self.in_thread = False
        if inspect.isawaitable(result):
            if self.given_up:
                _close(result)
                return None
            result = await result
        return result

    def _call_in_thread(self) -> Any:
        result = self._function()
        if self.given_up:
            # The task that would await it may have been cancelled.
            _close(result)
        return result


def _close(result: object) -> None:
    """Close a coroutine that nothing awaits, or Python would warn about it."""
    if inspect.iscoroutine(result):
        result.close()
