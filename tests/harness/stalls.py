"""Find what blocks an event loop."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import traceback
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

LIMIT = 0.1 if sys.gettrace() is None else 0.5
"""Seconds for which the event loop may be blocked; more while coverage traces, which slows all threads."""

_TICK = 0.01
"""Seconds between two checks of the event loop."""

_THREADS = Path("/proc/self/task")
"""Where Linux tells how long each thread has waited for a processor, in the file `schedstat`."""

_ATTEMPTS = 10


class LoopWatch:
    """Watches the event loop in which it is started.

    The time for which a thread of the process waits for a processor does not count: it may be the loop's, or
    another one that holds the interpreter lock meanwhile.
    """

    def __init__(self) -> None:
        self.stalls: list[str] = []
        """The stalls longer than `LIMIT`, each with its stack if another thread could run meanwhile."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._stopped = threading.Event()
        self._stack = ""
        self._last_tick = time.monotonic()
        self._waits = ProcessorWaits()
        self._last_waited = self._waits.total()
        self._timer = self._loop.call_later(_TICK, self._tick)
        self._sampler = threading.Thread(target=self._sample)
        self._sampler.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()
        self._sampler.join()
        self._timer.cancel()

    def _tick(self) -> None:
        blocked = time.monotonic() - self._last_tick - _TICK
        if blocked > LIMIT:
            # Only now: the file of each thread is read, and in a busy process each file takes a turn of the
            # interpreter lock, which would block the event loop itself.
            blocked -= self._waits.total() - self._last_waited
        if blocked > LIMIT:
            self.stalls.append(f"blocked for {blocked:.2f} s in\n{self._stack}")
        self._last_tick, self._last_waited, self._stack = time.monotonic(), self._waits.last, ""
        self._timer = self._loop.call_later(_TICK, self._tick)

    def _sample(self) -> None:
        while not self._stopped.wait(_TICK):
            # Before a thread ends, and with it what is known of its waits.
            self._waits.total()
            if time.monotonic() - self._last_tick > LIMIT / 2:
                frame = sys._current_frames()[self._thread]  # noqa: SLF001 (documented; the name only warns of misuse)
                self._stack = "".join(traceback.format_stack(frame)[-8:])


class ProcessorWaits:
    """For how long the threads of this process have waited for a processor, also those that have ended."""

    def __init__(self) -> None:
        self._nanoseconds: dict[Path, int] = {}
        self._ended = 0
        self.last = 0.0
        """What `total` has returned last."""
        self._lock = threading.Lock()

    def total(self) -> float:
        """Return the seconds so far. Only Linux tells; elsewhere it is 0."""
        with self._lock:
            current: dict[Path, int] = {}
            for thread in _THREADS.glob("*/schedstat"):
                # The thread may have ended.
                with suppress(OSError):
                    current[thread] = int(thread.read_text(encoding="ascii").split()[1])
            # The number of a thread that has ended can be that of a new one.
            self._ended += sum(
                waited for thread, waited in self._nanoseconds.items() if current.get(thread, -1) < waited
            )
            self._nanoseconds = current
            self.last = (self._ended + sum(current.values())) / 1e9
            return self.last


@asynccontextmanager
async def watched_loop() -> AsyncIterator[LoopWatch]:
    """Watch the event loop."""
    # A collection of all objects of a long test run takes longer than LIMIT.
    gc.collect()
    gc.freeze()
    watch = LoopWatch()
    try:
        yield watch
    finally:
        watch.stop()
        gc.unfreeze()


async def assert_never_blocks(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run something, and fail if it blocks the event loop for longer than `LIMIT`.

    It has to block in each of several runs: on a busy machine a thread that it waits for may start late, or
    lose its processor while it holds the interpreter lock.
    """
    stalls: list[str] = []
    for _ in range(_ATTEMPTS):
        async with watched_loop() as watch:
            await scenario()
        stalls = watch.stalls
        if not stalls:
            return
    raise AssertionError("\n".join(stalls))
