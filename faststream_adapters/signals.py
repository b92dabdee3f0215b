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

    Only handlers that the server has set with `signal.signal` before its lifespan starts can be delayed; a
    second SIGINT goes to the server at once.

    Args:
        delay: Seconds between the signal and the server's reaction to it.
        begin: Called in the event loop when the signal arrives.
    """

    def __init__(self, delay: float, begin: Callable[[], None]) -> None:
        self._delay = delay
        self._begin = begin
        self._previous: dict[int, _Handler] = {}
        self._waiting: asyncio.TimerHandle | None = None

    def install(self) -> None:
        """Put our handlers in front of the server's; does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            previous = signal.getsignal(number)
            # A default handler means that no server is listening here: the process just ends.
            if callable(previous) and previous is not signal.default_int_handler:
                self._previous[number] = previous
                signal.signal(number, self._handle)

    def restore(self) -> None:
        """Put the server's handlers back."""
        for number, previous in self._previous.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, previous)
        self._previous.clear()
        if self._waiting is not None:
            self._waiting.cancel()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        previous = self._previous[number]
        if self._waiting is None:
            self._loop.call_soon_threadsafe(self._begin)
            self._waiting = self._loop.call_later(self._delay, previous, number, frame)
        elif number == signal.SIGINT:
            self._waiting.cancel()
            previous(number, frame)
