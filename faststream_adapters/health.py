"""Is the broker there? One question to the server at a time, a deadline of its own for each who asks."""

import asyncio
import logging
from dataclasses import dataclass

from .brokers import Code, Driver

logger = logging.getLogger("faststream.adapters")

_LOOK_EVERY = 0.1
"""Seconds between two looks at the client while an answer is awaited."""


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
        self._task: asyncio.Task[None] | None = None
        self._epoch: object = None
        self._answer: asyncio.Future[Result]
        self._timer: asyncio.TimerHandle

    async def ask(self, timeout: float, ttl: float = 0.0) -> Result:  # noqa: ASYNC109 (the deadline is the caller's, the check goes on)
        """Return whether the broker is there.

        Args:
            timeout: Seconds after which this caller gets the code `timeout`, whatever happens.
            ttl: A result that is at most this many seconds old will do.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        if ttl and self.last is not None and now - self.last.at <= ttl:
            return self.last
        if (code := self.driver.down()) is not None:
            self.last = Result(code, now)
            return self.last
        answer = self._in_flight(loop)
        done, _ = await asyncio.wait((answer,), timeout=timeout)
        if done and not answer.cancelled():
            return answer.result()
        self.last = Result("timeout", now + timeout, timeout)
        return self.last

    def _in_flight(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Result]:
        epoch = self.driver.epoch()
        if self._task is not None and not self._task.done():
            if self._task.get_loop() is loop and self._epoch == epoch:
                return self._answer
            self.give_up()
        self._epoch = epoch
        self._answer = loop.create_future()
        self._timer = loop.call_later(_LOOK_EVERY, self._look, loop)
        self._task = loop.create_task(self._check(self._answer))
        return self._answer

    async def _check(self, answer: asyncio.Future[Result]) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            code = await self.driver.check()
        except Exception as error:  # noqa: BLE001 (whatever it is, the broker is not healthy)
            code = self.driver.code(error)
            if code == "error" and (self.last is None or self.last.code != code):
                logger.warning("%s: the check raised %s.", self.driver.name, type(error).__name__)
        now = loop.time()
        if code == "ok":
            self.last_ok = now
        self._timer.cancel()
        self.last = Result(code, now, now - start)
        if not answer.done():
            answer.set_result(self.last)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer those who wait when the client has come to know better."""
        if (code := self.driver.down()) is None:
            self._timer = loop.call_later(_LOOK_EVERY, self._look, loop)
            return
        self.last = Result(code, loop.time())
        self._answer.set_result(self.last)

    def give_up(self) -> None:
        """Forget the round trip in flight: the connection it was made on is gone."""
        task, self._task = self._task, None
        if task is not None and not task.done() and not task.get_loop().is_closed():
            self._timer.cancel()
            self._answer.cancel()
            task.cancel()
