"""Which subscribers of a broker consume: selected by `consume=`, paused, resumed."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Literal
from weakref import WeakKeyDictionary, WeakSet

from faststream_adapters._compat.faststream import Subscriber, is_connected, replaced_starts
from faststream_adapters._utils.errors import BrokerStartError
from faststream_adapters._utils.redaction import redact, without_secrets
from faststream_adapters._utils.tasks import cancel_and_wait

from .reasons import class_and_text

if TYPE_CHECKING:
    from .managed import ManagedBroker

Selected = Literal[True] | frozenset[Subscriber]
"""The subscribers that `consume=` selects; True for all, and for those that are declared later."""

_REACHABLE_TIMEOUT = 1.0
"""Seconds that a check before a change may take."""

_CHECK_INTERVAL = 0.1
"""Seconds between two such checks, and between two polls of handlers that finish."""


class Consumption:
    """Pauses and resumes the subscribers of one broker, and decides which ones its start leaves out.

        consuming ── pause ──▶ pausing ── its handlers have finished ──▶ paused
        paused, left out by consume=, stopped by the application ── resume ──▶ consuming
        pausing ── resume ──▶ pausing ──▶ consuming
        optional ── its broker is up ──▶ consuming, or faulty, which the monitor repairs

    Invariant: one task at a time changes a subscriber, and goes on until the subscriber is as it should be.
    Callers only wait for it, so that a cancelled call leaves no subscriber half changed. While the broker is
    not up nothing is changed, and its start leaves out what is paused. Subscribers stay paused, whatever
    happens to the broker and its connection, until they are resumed or the last lifespan has stopped.

    Args:
        managed: The broker.
    """

    def __init__(self, managed: "ManagedBroker") -> None:
        self._managed = managed
        self._driver = managed.driver
        self._monitor = managed.monitor
        self._selected: Selected = True
        self._optional: frozenset[Subscriber] = frozenset()
        self._first_starts: set[Subscriber] = set()
        """The optional subscribers that are started because their broker has started."""
        self._decided: WeakKeyDictionary[Subscriber, bool] = WeakKeyDictionary()
        """Overrides `consume=`: whether a subscriber that was started or stopped since should consume."""
        self._tasks: dict[Subscriber, asyncio.Task[Exception | None]] = {}
        """The tasks that change a subscriber."""
        self._starting = asyncio.Lock()
        """Held while the broker starts its subscribers."""
        self._context = Context()
        """The context of the start; that of a request or a message must not become that of a subscriber."""

    @property
    def paused(self) -> WeakSet[Subscriber]:
        """The subscribers that must not consume."""
        return self._monitor.paused

    def begin(self, selected: Selected, optional: frozenset[Subscriber]) -> None:
        """Begin with the subscribers that `consume=` selects, of which some are optional."""
        self._selected = selected
        self._optional = optional
        self._decided.clear()
        # A lock belongs to the event loop in which a task first waited for it.
        self._starting = asyncio.Lock()
        self._context = copy_context()

    def wants(self, subscriber: Subscriber) -> bool:
        """Return whether a subscriber should consume, unless it is paused."""
        selected = self._selected
        return self._decided.get(subscriber, selected is True or subscriber in selected)

    @property
    def starts_any(self) -> bool:
        """Whether the start of the broker has to start subscribers."""
        return bool(self._selected) or any(self._decided.values())

    async def start(self, start: Callable[[], Awaitable[None]]) -> None:
        """Start the subscribers that should consume, except the optional ones.

        Args:
            start: Starts all subscribers of the broker.
        """
        async with self._starting:
            with self._left_out():
                await start()

    @contextmanager
    def _left_out(self) -> Iterator[None]:
        async def leave_out() -> None:
            pass

        subscribers = self._managed.broker.subscribers
        left_out = (
            each
            for each in subscribers
            if each in self._optional or each in self.paused or not self.wants(each)
        )
        with replaced_starts(dict.fromkeys(left_out, leave_out)):
            yield

    def remember(self) -> None:
        """Keep for the restart of the broker which subscribers consume, and which were stopped."""
        for subscriber in self._managed.broker.subscribers:
            if subscriber.running:
                self._decided[subscriber] = True
        for subscriber in self._monitor.stopped:
            # One that is being resumed was not stopped by the application.
            if subscriber not in self._tasks:
                self._decided[subscriber] = False

    async def pause(self, subscriber: Subscriber) -> None:
        """Stop a subscriber from consuming, and wait until its handlers have finished."""
        self.paused.add(subscriber)
        self._monitor.update(subscriber)
        await self._settle(subscriber)

    async def resume(self, subscriber: Subscriber) -> None:
        """Let a subscriber consume.

        Raises:
            BrokerStartError: It could not be started. It stays paused.
        """
        self.paused.discard(subscriber)
        self._first_starts.discard(subscriber)
        self._decided[subscriber] = True
        if (error := await self._settle(subscriber)) is not None:
            raise error
        if subscriber.running and subscriber not in self.paused:
            # Its pause was logged, but has not begun while the server is down.
            self._monitor.update(subscriber)

    def on_started(self) -> None:
        """Begin to start the optional subscribers, and to change what was paused or resumed meanwhile."""
        self._first_starts = {each for each in self._optional if self.wants(each)}
        self._decided.update(dict.fromkeys(self._first_starts, True))
        for subscriber in self._managed.broker.subscribers:
            if self._is_due(subscriber):
                self._task(subscriber)

    async def wait_first_starts(self, seconds: float) -> None:
        """Wait until the optional subscribers have started or failed to, for at most so many seconds."""
        if tasks := [task for each, task in self._tasks.items() if each in self._first_starts]:
            await asyncio.wait(tasks, timeout=seconds)

    async def wait_resumed(self) -> None:
        """Wait until no subscriber is being started any more."""
        while starting := [task for each, task in self._tasks.items() if each not in self.paused]:
            await asyncio.wait(starting)

    async def wait(self) -> None:
        """Wait until no subscriber is being changed any more."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())

    async def cancel(self) -> None:
        """End the tasks. Their subscribers may then be in any state, so that the broker must be stopped."""
        for task in list(self._tasks.values()):
            await cancel_and_wait(task, loggers=self._driver.loggers)

    def _is_due(self, subscriber: Subscriber) -> bool:
        """Return whether a subscriber has to be changed now."""
        if not self._managed.up or not self._managed.owners:
            return False
        if self._managed.is_stopping or not is_connected(self._managed.broker):
            # The application has stopped it. A Kafka subscriber would start now, and again with its broker.
            return False
        if subscriber in self.paused:
            return subscriber.running
        return not subscriber.running and self._decided.get(subscriber, False)

    async def _settle(self, subscriber: Subscriber) -> Exception | None:
        """Wait until a subscriber is as it should be; return why it is not."""
        # Until then it is unknown whether this one has started.
        async with self._starting:
            pass
        error = None
        while self._is_due(subscriber) or subscriber in self._tasks:
            task = self._task(subscriber)
            if self._managed.broker.context.get("handler_") is subscriber:
                # A handler of the subscriber itself is waiting, which cannot wait for its own end.
                return None
            await asyncio.wait((task,))
            # A restart of the broker cancels it.
            error = None if task.cancelled() else task.result()
        return error

    def _task(self, subscriber: Subscriber) -> "asyncio.Task[Exception | None]":
        """Return the task that changes a subscriber."""
        if (task := self._tasks.get(subscriber)) is None:
            task = asyncio.create_task(self._change(subscriber), context=self._context.copy())
            self._tasks[subscriber] = task
            task.add_done_callback(lambda _: self._tasks.pop(subscriber))
        return task

    async def _change(self, subscriber: Subscriber) -> Exception | None:
        error = None
        async with self._monitor.lock(subscriber):
            while self._is_due(subscriber):
                if not await self._is_reachable():
                    # Without the server a client can neither unsubscribe nor subscribe.
                    await asyncio.sleep(_CHECK_INTERVAL)
                elif not self._is_due(subscriber):
                    # It was paused or resumed during the check, and is as it should be.
                    break
                elif subscriber in self.paused:
                    await self._pause(subscriber)
                else:
                    error = await self._resume(subscriber)
        return error

    async def _is_reachable(self) -> bool:
        if not self._driver.has_client:
            return True
        return (await self._managed.broker_check.check(_REACHABLE_TIMEOUT)).ok

    async def _pause(self, subscriber: Subscriber) -> None:
        self._driver.pausing.add(subscriber)
        # The application may have started it since the last poll.
        self._driver.on_started(subscriber)
        try:
            await self._driver.pause(subscriber)
        except Exception as error:  # noqa: BLE001 (as when its connection is lost meanwhile)
            self._warn("could not be paused cleanly", subscriber, class_and_text(error))
            while not self._driver.is_idle(subscriber):  # noqa: ASYNC110 (there is no event for the end of the handlers)
                await asyncio.sleep(_CHECK_INTERVAL)
            await self._cut_off(subscriber)
        finally:
            self._driver.pausing.discard(subscriber)

    async def _cut_off(self, subscriber: Subscriber) -> None:
        try:
            await self._driver.stop_now(subscriber)
        except Exception as error:  # noqa: BLE001 (as when its connection is lost)
            self._warn("could not be stopped", subscriber, class_and_text(error))
        subscriber.running = False

    async def _resume(self, subscriber: Subscriber) -> Exception | None:
        mismatch, cause = None, None
        try:
            mismatch = await self._driver.resume(subscriber)
        except Exception as error:  # noqa: BLE001 (it is passed to the callers)
            await self._cut_off(subscriber)
            if not await self._is_reachable():
                # It is tried again when the server replies.
                return None
            reason, cause = class_and_text(error), without_secrets(error)
        else:
            if mismatch is None:
                self._monitor.on_resumed(subscriber)
                return None
            await self._cut_off(subscriber)
            reason = f"declared {redact(mismatch.declared)}, found {redact(mismatch.found)}"
        if subscriber in self._first_starts:
            del self._decided[subscriber]
            self._warn("is optional and could not be started", subscriber, reason)
            self._monitor.on_start_failed(subscriber, mismatch)
            return None
        self.paused.add(subscriber)
        self._warn("could not be resumed and stays paused", subscriber, reason)
        name = self._driver.subscriber_name(subscriber)
        failure = BrokerStartError(
            f"{self._driver.name}: the subscriber {name} could not be resumed: {reason}. "
            "It stays paused until resume() succeeds."
        )
        failure.__cause__ = cause
        return failure

    def _warn(self, what: str, subscriber: Subscriber, reason: str) -> None:
        broker, name = self._driver.name, self._driver.subscriber_name(subscriber)
        self._driver.loggers["lifecycle"].warning(
            "%s: the subscriber %s %s: %s.",
            broker,
            name,
            what,
            reason,
            extra={"broker": broker, "subscriber": name},
        )
