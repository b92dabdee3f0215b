"""Is the broker there? One question to the server at a time, a deadline of its own for each who asks."""

import asyncio
import logging
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple, Protocol
from weakref import WeakSet

from .brokers import Code, Driver

logger = logging.getLogger("faststream.adapters")

_LOOK_EVERY = 0.1
"""Seconds between two looks at the client while an answer is awaited."""

_MOMENTS = 100
"""In a second: callers are told that their time is up so often, and so late at most."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found.

    Args:
        code: What was found.
        at: When, on the event loop's clock.
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


class _Waiting(NamedTuple):
    """Those whose time is up at about the same moment."""

    callers: list[asyncio.Future[Result]]
    timer: asyncio.TimerHandle

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

    Args:
        driver: The broker's driver.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.last: Result | None = None
        self.last_ok = 0.0
        self.observers: WeakSet[Observer] = WeakSet()
        self._task: asyncio.Task[None] | None = None
        self._epoch: object = None
        self._watched_in: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle
        self._waiting: dict[int, _Waiting] = {}

    def fresh(self, ttl: float) -> Result | None:
        """Return the last result if it is at most this many seconds old."""
        last = self.last
        # asyncio's clock, at a fifth of the price.
        return last if ttl and last is not None and monotonic() - last.at <= ttl else None

    async def ask(self, timeout: float, ttl: float = 0.0) -> Result:  # noqa: ASYNC109 (the deadline is the caller's, the check goes on)
        """Return whether the broker is there.

        Args:
            timeout: Seconds after which this caller gets the code `timeout`, whatever happens.
            ttl: A result that is at most this many seconds old will do.
        """
        if (known := self.fresh(ttl)) is not None:
            return known
        loop = asyncio.get_running_loop()
        if self._watched_in is not loop:
            if (code := self.driver.down()) is not None:
                return self._found(Result(code, loop.time()))
            self._fly(loop)
        # One timer for all whose time is up at about the same moment.
        until = int((loop.time() + timeout) * _MOMENTS) + 1
        if (waiting := self._waiting.get(until)) is None:
            timer = loop.call_at(until / _MOMENTS, self._time_is_up, until, timeout)
            waiting = self._waiting[until] = _Waiting([], timer)
        caller: asyncio.Future[Result] = loop.create_future()
        waiting.callers.append(caller)
        return await caller

    def _found(self, result: Result) -> Result:
        self.last = result
        for observer in self.observers:
            observer.found(self.driver, result)
        return result

    def _answer(self, result: Result) -> None:
        for waiting in self._waiting.values():
            waiting.answer(result)
        self._waiting.clear()

    def _time_is_up(self, until: int, seconds: float) -> None:
        now = asyncio.get_running_loop().time()
        self._waiting.pop(until).answer(self._found(Result("timeout", now, seconds)))

    def _fly(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch the round trip in flight, and begin one if there is none whose answer can come."""
        epoch, task = self.driver.epoch(), self._task
        if task is None or task.done() or task.get_loop() is not loop or self._epoch != epoch:
            self._cancel()
            if task is not None and task.get_loop() is not loop:
                # Those who waited there are gone with their event loop.
                self._waiting.clear()
            self._epoch = epoch
            self._task = loop.create_task(self._check())
        self._watched_in = loop
        self._timer = loop.call_later(_LOOK_EVERY, self._look, loop)

    async def _check(self) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            code = await self.driver.check()
        except Exception as error:  # noqa: BLE001 (whatever it is, the broker is not healthy)
            code = self.driver.code(error)
            if code == "error" and (self.last is None or self.last.code != code):
                logger.warning("%s: the check raised %s.", self.driver.name, type(error).__name__)
        if self._task is not asyncio.current_task():
            # It was given up, and has not noticed.
            return
        now = loop.time()
        if code == "ok":
            self.last_ok = now
        self._stop_watching()
        self._answer(self._found(Result(code, now, now - start)))

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer those who wait, or ask once more for them, when the client has come to know better."""
        self._watched_in = None
        if (code := self.driver.down()) is None:
            self._fly(loop)
        else:
            self._answer(self._found(Result(code, loop.time())))

    def _stop_watching(self) -> None:
        self._watched_in = None
        self._timer.cancel()

    def give_up(self) -> None:
        """Forget the round trip in flight: the connection it was made on is gone."""
        if self._cancel():
            self._answer(Result("timeout", asyncio.get_running_loop().time()))

    def _cancel(self) -> bool:
        task, self._task = self._task, None
        if task is None or task.done() or task.get_loop().is_closed():
            return False
        self._stop_watching()
        task.cancel()
        return True
