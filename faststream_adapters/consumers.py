"""Do the subscribers consume? That the broker answers does not say so."""

import asyncio
import logging
import math
import time
from collections.abc import Iterator
from weakref import WeakKeyDictionary, WeakSet

from ._compat import Subscriber
from .brokers import Code, Driver
from .health import changes

logger = logging.getLogger("faststream.adapters")

HANDLERS_TIMEOUT = 30.0
"""Seconds that handlers get to finish before their subscriber is started again all the same."""

RETRY_INTERVAL = 5.0
"""Seconds between two tries to start a subscriber again."""

_REASONS: dict[Code, str] = {
    "auth": "the server does not allow it to subscribe",
    "closed": "its task has ended",
    "deleted": "the server does not have its consumer or its stream any more",
    "error": "the server could not tell about its consumer",
    "paused": "it is paused or stopped",
    "timeout": "the server did not tell about its consumer in time",
}


class Consumers:
    """The subscribers that have to consume, and what has become of them.

    Those that a start has started have to go on. One that its user starts later is watched for as long as it
    runs, and may be stopped.

    Args:
        driver: The broker's driver.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.faults: WeakKeyDictionary[Subscriber, Code] = WeakKeyDictionary()
        """The subscribers that do not consume although they have to, each with the reason."""
        self.fault: Code | None = None
        """The first of these reasons; None when all consume. Every probe asks."""
        self._tasks: WeakKeyDictionary[Subscriber, int] = WeakKeyDictionary()
        self._later: WeakSet[Subscriber] = WeakSet()
        self._answers: WeakKeyDictionary[Subscriber, Code] = WeakKeyDictionary()
        self._since: WeakKeyDictionary[Subscriber, float] = WeakKeyDictionary()
        self._tried: WeakKeyDictionary[Subscriber, float] = WeakKeyDictionary()
        self._halted: WeakKeyDictionary[Subscriber, Code] = WeakKeyDictionary()

    def __iter__(self) -> Iterator[tuple[str, Code]]:
        """Yield the name of each subscriber that has a handler, and whether it consumes."""
        for subscriber in self.driver.broker.subscribers:
            if subscriber in self._tasks:
                yield subscriber.specification.call_name, self._code(subscriber)
            elif subscriber.calls:
                yield subscriber.specification.call_name, "ok" if subscriber.running else "not_started"

    @property
    def stopped(self) -> list[Subscriber]:
        """The subscribers that their user has stopped."""
        return [
            subscriber
            for subscriber in list(self._tasks)
            if not subscriber.running and subscriber not in self._halted
        ]

    def started(self) -> None:
        """Remember what a start has started: from now on it has to consume."""
        self.forget()
        self._adopt()
        # Unlike those that come later, they may not stop.
        self._later.clear()

    def forget(self) -> None:
        """Forget everything: nothing has to consume any more."""
        for memory in (self.faults, self._tasks, self._answers, self._since, self._tried, self._halted):
            memory.clear()
        self._later.clear()
        self._choose_fault()

    def _adopt(self) -> None:
        for subscriber in self.driver.broker.subscribers:
            if not (subscriber.calls and subscriber.running):
                continue
            # Each time: a user may have stopped and started it since.
            self.driver.adopt(subscriber)
            if subscriber not in self._tasks:
                self._tasks[subscriber] = self.driver.expected(subscriber)
                self._later.add(subscriber)

    async def look(self, *, ask: bool) -> None:
        """Find out which subscribers consume, and log what has changed.

        Args:
            ask: Whether the server is asked too, or only what is known here is looked at.
        """
        # FastStream replaces a task that has failed, but only after it has ended.
        await asyncio.sleep(0)
        self._adopt()
        for subscriber in list(self._later):
            if not subscriber.running and subscriber not in self._halted:
                self._later.discard(subscriber)
                self._tasks.pop(subscriber, None)
                self.faults.pop(subscriber, None)
                self._choose_fault()
        if ask:
            running = [subscriber for subscriber in self._tasks if subscriber.running]
            answers = await asyncio.gather(*map(self.driver.ask_consumer, running))
            self._answers.update(zip(running, answers, strict=True))
        for subscriber, code in self._codes().items():
            self._note(subscriber, code)
        if self.fault is not None:
            # Its subscriber may be gone, as one that nobody uses any more is.
            self._choose_fault()

    async def revive(self) -> None:
        """Start those again that have lost their task or consumer, when their handlers have finished."""
        for subscriber, code in list(self.faults.items()):
            # The rest is the user's own wish, or a server that will come back by itself.
            if code in {"closed", "deleted"} and self._may_try(subscriber):
                await self._revive(subscriber, code)

    def _may_try(self, subscriber: Subscriber) -> bool:
        now = time.monotonic()
        if now - self._tried.get(subscriber, -math.inf) < RETRY_INTERVAL:
            return False
        return self.driver.idle(subscriber) or now - self._since[subscriber] >= HANDLERS_TIMEOUT

    async def _revive(self, subscriber: Subscriber, code: Code) -> None:
        level = logging.DEBUG if subscriber in self._tried else logging.WARNING
        self._tried[subscriber] = time.monotonic()
        self._halted[subscriber] = code
        try:
            await self.driver.revive(subscriber)
        except Exception as error:  # noqa: BLE001 (what is missing may be back later)
            what = f"{self.driver.name}: the subscriber {subscriber.specification.call_name}"
            logger.log(level, "%s could not be started again: %s.", what, type(error).__name__)
            return
        self._halted.pop(subscriber, None)
        self._answers.pop(subscriber, None)
        self.driver.adopt(subscriber)
        if subscriber in self._tasks:
            self._note(subscriber, self._code(subscriber))

    def _codes(self) -> dict[Subscriber, Code]:
        return {subscriber: self._code(subscriber) for subscriber in list(self._tasks)}

    def _code(self, subscriber: Subscriber) -> Code:
        if (code := self._halted.get(subscriber)) is not None:
            return code
        if not subscriber.running:
            return "paused"
        if self.driver.alive(subscriber) < self._tasks[subscriber]:
            return "closed"
        return self._answers.get(subscriber, "ok")

    def _note(self, subscriber: Subscriber, code: Code) -> None:
        if code == self.faults.get(subscriber, "ok"):
            return
        name = subscriber.specification.call_name
        if code == "ok":
            del self.faults[subscriber]
            self._tried.pop(subscriber, None)
            self._choose_fault()
            logger.info("%s: the subscriber %s consumes again.", self.driver.name, name)
            return
        self.faults[subscriber] = code
        self._choose_fault()
        self._since[subscriber] = time.monotonic()
        reason = _REASONS.get(code, code)
        logger.warning("%s: the subscriber %s does not consume: %s.", self.driver.name, name, reason)

    def _choose_fault(self) -> None:
        self.fault = next(iter(self.faults.values()), None)
        changes.mark()
