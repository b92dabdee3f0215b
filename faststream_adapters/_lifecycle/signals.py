"""Observe the signal that stops the server: draining begins with it, not with the server's last response."""

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_Handler = Callable[[int, FrameType | None], Any]


class DrainSignals:
    """Begin a drain at SIGTERM and SIGINT, before the server's own handler runs.

    A handler that the server has set with `signal.signal`, as uvicorn does, runs after the delay. A second
    SIGINT does not wait for it. A function that the server has passed to `loop.add_signal_handler`, as
    granian, hypercorn and gunicorn do, runs at once: the event loop calls it, whatever handler is installed.

    Args:
        delay: Seconds between the signal and the server's handler.
        begin: Called in the event loop when the signal arrives.
    """

    def __init__(self, delay: float, begin: Callable[[], None]) -> None:
        self.delay = delay
        self.begin = begin
        self.loop: asyncio.AbstractEventLoop

    def install(self) -> None:
        """Install our handlers in front of the server's; outside the main thread this does nothing."""
        if threading.current_thread() is threading.main_thread():
            self.loop = asyncio.get_running_loop()
            _process.add(self)

    def restore(self) -> None:
        """Restore the server's handlers, unless another lifespan still needs ours."""
        _process.remove(self)


class _Process:
    """The handlers of this process, shared by all lifespans: they drain concurrently at one signal.

        idle ── signal ──▶ delayed ── the delay ends, or SIGINT ──▶ passed on
        idle ── signal, no delay ──▶ passed on
        passed on ── signal ──▶ passed on     it reaches the server at once
        any ── the last lifespan ends ──▶ idle

    Invariant: only the signal that begins the drain is delayed, and a SIGTERM during that delay is ignored.
    """

    def __init__(self) -> None:
        self._drains: list[DrainSignals] = []
        self._previous: dict[int, _Handler] = {}
        self._notified = False
        """Whether the lifespans know of the signal."""
        self._delayed: Callable[[], Any] | None = None
        """Passes the signal on to the server; None if no signal is delayed."""

    def add(self, drain: DrainSignals) -> None:
        # A lifespan that was not left when its event loop ended drains no more.
        self._drains = [each for each in self._drains if not each.loop.is_closed()]
        self._notified = self._notified and bool(self._drains)
        self._drains.append(drain)
        for number in {signal.SIGTERM, signal.SIGINT} - self._previous.keys():
            previous = signal.getsignal(number)
            # With a default handler there is no server: the process just ends.
            if callable(previous) and previous is not signal.default_int_handler:
                self._previous[number] = previous
                signal.signal(number, self._handle)

    def remove(self, drain: DrainSignals) -> None:
        if drain in self._drains:
            self._drains.remove(drain)
        if self._drains:
            return
        for number, previous in self._previous.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, previous)
        self._previous.clear()
        self._notified = False
        self._delayed = None

    def behind(self, number: int) -> Any:
        """Return the handler of a signal, and if that is ours, the one that it calls."""
        handler = signal.getsignal(number)
        return self._previous[number] if handler == self._handle else handler

    def _handle(self, number: int, frame: FrameType | None) -> None:
        previous = self._previous[number]
        if self._notified:
            if self._delayed is not None and number != signal.SIGINT:
                return
            self._delayed = None
        elif drains := [drain for drain in self._drains if not drain.loop.is_closed()]:
            self._notified = True
            # The only calls that are safe here: the signal may have interrupted the loop anywhere.
            for drain in drains:
                drain.loop.call_soon_threadsafe(drain.begin)
            delay = max(drain.delay for drain in drains)
            if delay and not _is_of_event_loop(previous):
                self._delayed = delayed = lambda: previous(number, None)
                loop = drains[-1].loop
                loop.call_soon_threadsafe(loop.call_later, delay, self._end_delay, delayed)
                return
        previous(number, frame)

    def _end_delay(self, delayed: Callable[[], Any]) -> None:
        if self._delayed is delayed:
            self._delayed = None
            delayed()


_process = _Process()


def handler_behind_ours(number: int) -> Any:
    """Return the server's handler of a signal, also while ours is installed in front of it."""
    return _process.behind(number)


def _is_of_event_loop(handler: _Handler) -> bool:
    # asyncio's is a function that does nothing, uvloop's a method of the loop.
    module, owner = getattr(handler, "__module__", None), getattr(handler, "__self__", None)
    return module == "asyncio.unix_events" or isinstance(owner, asyncio.AbstractEventLoop)
