"""Notice the signal that stops the server, so that readiness turns before the server stops listening."""

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_Handler = Callable[[int, FrameType | None], Any]


class DrainSignals:
    """Delay the server's own reaction to SIGTERM and SIGINT by a drain phase.

    Only a server that has set its handlers with `signal.signal` before its lifespan starts can be delayed, as
    uvicorn does. A second SIGINT goes to the server at once.

    Args:
        delay: Seconds between the signal and the server's reaction to it.
        begin: Called in the event loop when the signal arrives.
    """

    def __init__(self, delay: float, begin: Callable[[], None]) -> None:
        self.delay = delay
        self.begin = begin

    def install(self) -> None:
        """Put our handlers in front of the server's; does nothing outside the main thread."""
        if threading.current_thread() is threading.main_thread():
            _process.add(self)

    def restore(self) -> None:
        """Put the server's handlers back, unless somebody else still drains."""
        _process.remove(self)


class _Process:
    """The handlers of this process: several lifespans drain at one signal, side by side."""

    def __init__(self) -> None:
        self._drains: list[DrainSignals] = []
        self._previous: dict[int, _Handler] = {}
        self._waiting: asyncio.TimerHandle | None = None
        self._notified = False
        self._loop: asyncio.AbstractEventLoop

    def add(self, drain: DrainSignals) -> None:
        self._loop = asyncio.get_running_loop()
        self._drains.append(drain)
        for number in {signal.SIGTERM, signal.SIGINT} - self._previous.keys():
            previous = signal.getsignal(number)
            # A default handler means that no server is listening here: the process just ends. And asyncio's
            # own reacts whatever stands in front of it.
            of_asyncio = getattr(previous, "__module__", None) == "asyncio.unix_events"
            if callable(previous) and previous is not signal.default_int_handler and not of_asyncio:
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
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._notified:
            self._notified = True
            # Nothing else of the loop may be touched here: the signal may have interrupted it anywhere.
            self._loop.call_soon_threadsafe(self._drain, number, frame)
        elif number == signal.SIGINT:
            self._previous[number](number, frame)

    def _drain(self, number: int, frame: FrameType | None) -> None:
        for drain in self._drains:
            drain.begin()
        if self._drains:
            delay = max(drain.delay for drain in self._drains)
            self._waiting = self._loop.call_later(delay, self._previous[number], number, frame)


_process = _Process()
