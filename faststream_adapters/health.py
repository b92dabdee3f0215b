"""Is the broker there? One question to the server at a time, a deadline of its own for each who asks."""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, Protocol
from weakref import WeakSet

from .brokers import Code, Driver

logger = logging.getLogger("faststream.adapters")

_LOOK_EVERY = 0.1
"""Seconds between two looks at the client while an answer is awaited."""

SLOW = 0.9
"""Seconds without an answer after which a broker counts as not there, for those too who do not ask anew."""

_LATE = 0.05
"""Seconds by which a timer that is late tells of an event loop that was blocked."""

_END_TIMEOUT = 0.5
"""Seconds that a round trip gets to end when it is given up."""

_MOMENTS = 100
"""In a second: callers are told that their time is up so often, and so late at most."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found.

    Args:
        code: What was found.
        at: When, on the clock of `time.monotonic`.
        seconds: How long it took.
    """

    code: Code
    at: float
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the broker is healthy."""
        return self.code == "ok"


class Observer(Protocol):
    """Who is told at once what others have to ask for; it must not raise."""

    def found(self, driver: Driver, result: Result) -> None:
        """A round trip has this result."""

    def changed(self) -> None:
        """A lifespan has another state."""


class _Waiting:
    """Those whose time is up at about the same moment.

    Args:
        seconds: How long they wait.
        timer: What tells them that their time is up.
    """

    __slots__ = ("callers", "seconds", "timer")

    def __init__(self, seconds: float, timer: asyncio.TimerHandle) -> None:
        self.callers: list[asyncio.Future[Result]] = []
        self.seconds = seconds
        self.timer = timer

    def answer(self, result: Result) -> None:
        self.timer.cancel()
        for caller in self.callers:
            # One that has gone away was cancelled.
            if not caller.done():
                caller.set_result(result)


class RoundTrips:
    """Round trips to one broker: however many ask, one is in flight.

    A round trip is never cancelled because somebody stopped waiting for it: with some clients that would
    break the connection. It is given up only when its answer cannot come any more.

    All of them are made in the event loop that the client belongs to; whoever asks from another one, in
    another thread, waits for what is found there.

    Args:
        driver: The broker's driver.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.last: Result | None = None
        self.last_ok = 0.0
        self.observers: WeakSet[Observer] = WeakSet()
        self._home: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._flight: object = None
        self._began = 0.0
        self._epoch: object = None
        self._watched = False
        self._timer: asyncio.TimerHandle
        self._waiting: dict[tuple[int, float], _Waiting] = {}

    def live_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make round trips in this event loop from now on.

        Args:
            loop: The loop that the client belongs to.
        """
        if self._home is loop:
            return
        # Those who wait elsewhere are gone with their loop, or are told by their timers.
        self._home, self._task, self._flight, self._watched, self._waiting = loop, None, None, False, {}

    def fresh(self, ttl: float) -> Result | None:
        """Return the last result if it is at most this many seconds old."""
        last = self.last
        return last if ttl and last is not None and monotonic() - last.at <= ttl else None

    async def ask(self, timeout: float) -> Result:  # noqa: ASYNC109 (the deadline is the caller's, the check goes on)
        """Return whether the broker is there.

        Args:
            timeout: Seconds after which this caller gets the code `timeout`, whatever happens.
        """
        loop = asyncio.get_running_loop()
        if (home := self._home) is not loop:
            if home is not None and home.is_running():
                return await _ask_there(home, self.ask(timeout), timeout)
            self.live_in(loop)
        if not self._watched and (code := self.driver.down()) is not None:
            return self._found(Result(code, monotonic()))
        caller: asyncio.Future[Result] = loop.create_future()
        # One timer for all whose time is up at about the same moment.
        until = int((loop.time() + timeout) * _MOMENTS) + 1, timeout
        if (waiting := self._waiting.get(until)) is None:
            timer = loop.call_at(until[0] / _MOMENTS, self._time_is_up, loop, self._waiting, until)
            waiting = self._waiting[until] = _Waiting(timeout, timer)
        waiting.callers.append(caller)
        if not self._watched:
            self._fly(loop)
        return await caller

    def _found(self, result: Result) -> Result:
        self.last = result
        for observer in self.observers:
            observer.found(self.driver, result)
        return result

    def _answer(self, result: Result) -> None:
        everybody = list(self._waiting.values())
        self._waiting.clear()
        for waiting in everybody:
            waiting.answer(result)

    def _time_is_up(
        self,
        loop: asyncio.AbstractEventLoop,
        waiting: dict[tuple[int, float], _Waiting],
        until: tuple[int, float],
        *,
        late: bool = False,
    ) -> None:
        if not late and loop.time() - until[0] / _MOMENTS > _LATE:
            # The event loop was blocked: the answer may be here, and nobody has read it yet.
            tell = partial(self._time_is_up, loop, waiting, until, late=True)
            waiting[until].timer = loop.call_later(_LATE, tell)
            return
        now = monotonic()
        result = Result("timeout", now, until[1])
        if waiting is self._waiting and now - self._began >= SLOW:
            # That somebody has less patience says nothing about the broker.
            self._found(result)
        waiting.pop(until).answer(result)

    def _fly(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch the round trip in flight, and begin one if there is none whose answer can come."""
        epoch, task = self.driver.epoch(), self._task
        # Before the task: some event loops run it at once, as far as it goes.
        self._watched = True
        self._timer = loop.call_later(_LOOK_EVERY, self._look, loop)
        if task is None or task.done() or self._epoch != epoch:
            if task is not None:
                task.cancel()
            self._epoch = epoch
            self._flight = flight = object()
            self._began = monotonic()
            self._task = loop.create_task(self._check(flight))

    async def _check(self, flight: object) -> None:
        start = monotonic()
        try:
            code = await self.driver.check()
        except Exception as error:  # noqa: BLE001 (whatever it is, the broker is not healthy)
            code = self.driver.code(error)
            if code == "error" and (self.last is None or self.last.code != code):
                logger.warning("%s: the check raised %s.", self.driver.name, type(error).__name__)
        if self._flight is not flight:
            # It was given up, and has not noticed.
            return
        now = monotonic()
        if code == "ok":
            self.last_ok = now
        self._stop_watching()
        self._answer(self._found(Result(code, now, now - start)))

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer those who wait, or ask once more for them, when the client has come to know better."""
        self._watched = False
        if self._home is not loop or not (self._waiting or self._in_flight):
            return
        if (code := self.driver.down()) is None:
            self._fly(loop)
        else:
            self._answer(self._found(Result(code, monotonic())))

    @property
    def _in_flight(self) -> bool:
        return self._task is not None and not self._task.done()

    def _stop_watching(self) -> None:
        self._watched = False
        self._timer.cancel()

    async def give_up(self) -> None:
        """Forget the round trip in flight: the connection it was made on is gone."""
        task, self._task, self._flight = self._task, None, None
        if task is None or task.done() or self._home is not asyncio.get_running_loop():
            return
        self._stop_watching()
        self._answer(Result("timeout", monotonic()))
        task.cancel()
        await asyncio.wait((task,), timeout=_END_TIMEOUT)


async def _ask_there(
    home: asyncio.AbstractEventLoop,
    asking: Coroutine[Any, Any, Result],
    seconds: float,
) -> Result:
    """Ask in another event loop, and wait for this many seconds."""
    answer = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asking, home))
    done, _ = await asyncio.wait((answer,), timeout=seconds)
    if done and not answer.cancelled():
        return answer.result()
    answer.cancel()
    return Result("timeout", monotonic(), seconds)
