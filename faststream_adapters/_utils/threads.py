"""Blocking calls in daemon threads of their own, which neither occupy a pool nor block Python's exit."""

import asyncio
import sys
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Lock, RLock, Thread, stack_size
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonThreadExecutor(Executor):
    """An executor with one daemon thread, which ends after the last call when the executor is shut down.

    Args:
        refusal: The text of the error that a call raises after that.
    """

    def __init__(self, refusal: str = "The executor was shut down.") -> None:
        self._refusal = refusal
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._shut_down = False
        Thread(target=self._work, daemon=True).start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        if self._shut_down:
            raise RuntimeError(self._refusal)
        result: Future[Any] = Future()
        self._calls.put((result, partial(fn, *args, **kwargs)))
        return result

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 (of Executor)
        self._shut_down = True
        self._calls.put(None)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            result, call = item
            if result.set_running_or_notify_cancel():
                _settle(result, call)
            # The call may refer to a consumer and would keep it alive until the next call.
            del item, result, call


class _SharedCall:
    """A call that is running or waits for its turn.

    Args:
        result: The call's future.
    """

    def __init__(self, result: "Future[Any]") -> None:
        self.result = result
        self.callers = 0


class SingleFlight:
    """Runs blocking calls one at a time, in a daemon thread that exists only while there are calls.

    Concurrent calls with the same key are one call, whose result they share. When all its callers have been
    cancelled, a call that is not running yet is dropped.

    Invariant: there is an executor, and with it a thread, exactly while there are calls. Event loops of
    several threads may share the object.
    """

    def __init__(self) -> None:
        # Reentrant, because cancelling a future completes its call.
        self._lock = RLock()
        self._calls: dict[Hashable, _SharedCall] = {}
        self._executor: Executor | None = None

    async def run(self, key: Hashable, call: Callable[[], T]) -> T:
        """Return the result of a call.

        Args:
            key: What the call does. Calls with equal keys have to be equal.
            call: What to call, unless a call with this key is running or waiting.

        Raises:
            Exception: The error of the call.
        """
        with self._lock:
            shared = self._calls.get(key) or self._start(key, call)
            shared.callers += 1
        try:
            await _done(shared.result)
        finally:
            with self._lock:
                shared.callers -= 1
                if not shared.callers:
                    # This has no effect on a call that is running or has ended.
                    shared.result.cancel()
        result: T = shared.result.result()
        return result

    def _start(self, key: Hashable, call: Callable[[], Any]) -> _SharedCall:
        self._executor = executor = self._executor or DaemonThreadExecutor()
        shared = self._calls[key] = _SharedCall(executor.submit(call))
        shared.result.add_done_callback(partial(self._completed, key, executor))
        return shared

    def _completed(self, key: Hashable, executor: Executor, _: object) -> None:
        with self._lock:
            del self._calls[key]
            if not self._calls:
                executor.shutdown()
                self._executor = None


async def _done(future: "Future[Any]") -> None:
    """Wait until a future is done. If the current task is cancelled, the future is not."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def wake(_: object) -> None:
        # The event loop may be closed by now.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(done.set)

    future.add_done_callback(wake)
    await done.wait()


# Frames, and bytes for those among them that need the stack of the thread.
_DEEP_RECURSION = 20_000
_DEEP_STACK = 64 * 1024 * 1024
_deep_call = Lock()


def call_with_deep_stack(call: Callable[[], T]) -> T:
    """Return the result of a call that may recurse deeper than usual, from a thread of its own.

    Meanwhile the limit of recursion is higher in all threads: Python has only one.

    Raises:
        Exception: The error of the call.
    """
    result: Future[T] = Future()
    with _deep_call:
        limit, size = sys.getrecursionlimit(), stack_size(_DEEP_STACK)
        sys.setrecursionlimit(max(limit, _DEEP_RECURSION))
        try:
            Thread(target=_settle, args=(result, call), daemon=True).start()
            return result.result()
        finally:
            stack_size(size)
            sys.setrecursionlimit(limit)


def _settle(result: "Future[Any]", call: Callable[[], Any]) -> None:
    try:
        result.set_result(call())
    except BaseException as error:  # noqa: BLE001 (raised where the result is awaited)
        result.set_exception(error)
