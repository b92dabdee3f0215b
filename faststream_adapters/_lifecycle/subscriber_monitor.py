"""Monitor whether the subscribers of a broker consume, which a reply of the broker does not show."""

import asyncio
import logging
import math
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

from faststream_adapters._brokers.codes import NO_FAULTS, Code
from faststream_adapters._brokers.driver import Driver, Mismatch
from faststream_adapters._compat.faststream import Subscriber
from faststream_adapters._utils.redaction import redact

from .reasons import SUBSCRIBER_REASONS

HANDLERS_TIMEOUT = 30.0
"""Seconds that handlers have to finish before their subscriber is restarted anyway."""

RETRY_INTERVAL = 5.0
"""Seconds between two attempts to restart a subscriber."""

CONCURRENT_CHECKS = 50
"""How many consumers the server is asked about at once.

A task for each of 1,000 subscribers would stall the event loop for 20 ms, and the server would get a burst.
"""

_CHANGES: dict[Code, str] = {
    "ok": "consumes again",
    "stopped": "was stopped by the application",
    "paused": "is paused",
}

_RESTARTED = frozenset({"task_failed", "consumer_missing"})
"""Faults that a restart can repair. The others end on the server, or are intended."""


@dataclass(eq=False, slots=True)
class _Watched:
    """The state of a watched subscriber; times are those of `time.monotonic`.

    Args:
        tasks: How many tasks it consumes with, at least.
        observed: The tasks whose end is observed.
        required: Whether it was started with the broker, so that it is watched also while it is stopped.
        reply: What the server last reported on its consumer.
        status: Whether it consumes, as it was last logged.
        fault_since: When it stopped consuming.
        restarted_at: When it was last restarted because of this fault.
        restarting: The fault because of which it was stopped, until a restart has succeeded.
        refused: Why the last attempt to restart it was not made.
    """

    tasks: int
    observed: "list[asyncio.Task[Any]]" = field(default_factory=list)
    required: bool = False
    reply: Code | Mismatch = "ok"
    status: Code | Mismatch = "ok"
    fault_since: float = 0.0
    restarted_at: float = -math.inf
    restarting: Code | None = None
    refused: Mismatch | None = None

    @property
    def fault(self) -> Code | None:
        """Why it does not consume although it should, as it was last logged."""
        return None if self.status in NO_FAULTS else _code_of(self.status)


class SubscriberMonitor:
    """Watches the subscribers of one broker, and restarts those whose task or consumer is gone.

    A subscriber that was started with the broker must keep consuming, unless the application stops it. One
    that the application starts later is watched while it runs. One that is paused is not polled.

    A subscriber that consumes is settled. It is polled again after the end of one of its tasks, which a stop
    causes too, or after another reply of the server, or when it consumes with other tasks: those of before a
    restart may run on, as for a handler in a thread. The others are polled every second.

    Invariant: `fault` is the fault of a watched subscriber, if any has one. It is up to a second old: a
    subscriber that was stopped meanwhile has none any more. A settled subscriber has none.

    Args:
        driver: The broker's driver.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.fault: Code | None = None
        """Why the first subscriber that should consume does not; None if all do."""
        self.last_server_check = 0.0
        """When the server was last asked about the consumers, on the clock of `time.monotonic`."""
        self.paused = driver.paused
        """The subscribers that must not consume; `Consumption` changes them."""
        self._watched: WeakKeyDictionary[Subscriber, _Watched] = WeakKeyDictionary()
        self._unsettled: WeakKeyDictionary[Subscriber, _Watched] = WeakKeyDictionary()
        self._locks: WeakKeyDictionary[Subscriber, asyncio.Lock] = WeakKeyDictionary()

    def code(self, subscriber: Subscriber) -> Code:
        """Return the code of a subscriber."""
        if self.paused and subscriber in self.paused:
            return "paused"
        if (watched := self._watched.get(subscriber)) is not None:
            return _code(subscriber, watched)
        return "ok" if subscriber.running else "not_started"

    def __contains__(self, subscriber: Subscriber) -> bool:
        """Whether a subscriber is watched."""
        return subscriber in self._watched

    @property
    def faults(self) -> dict[Subscriber, Code]:
        """The subscribers that do not consume although they should, with the reason of each."""
        codes = {
            subscriber: _code(subscriber, watched) for subscriber, watched in list(self._unsettled.items())
        }
        return {subscriber: code for subscriber, code in codes.items() if code not in NO_FAULTS}

    @property
    def stopped(self) -> list[Subscriber]:
        """The subscribers that the application has stopped."""
        return [
            subscriber
            for subscriber, watched in list(self._watched.items())
            if not subscriber.running and watched.restarting is None and subscriber not in self.paused
        ]

    def on_started(self) -> None:
        """Watch the subscribers that were started with the broker."""
        self.clear()
        # A lock belongs to the event loop in which a task first waited for it.
        self._locks.clear()
        self._watch_running()
        for watched in self._watched.values():
            watched.required = True

    def clear(self) -> None:
        """Watch no subscriber any more."""
        self._watched.clear()
        self._unsettled.clear()
        self.fault = None

    def on_resumed(self, subscriber: Subscriber) -> None:
        """Watch a subscriber that was started again, as if it had been started with the broker."""
        self.driver.on_started(subscriber)
        watched = self._watched.setdefault(subscriber, _Watched(0))
        watched.tasks = self.driver.expected_tasks(subscriber)
        watched.required = True
        watched.reply, watched.restarting = "ok", None
        self.update(subscriber)

    def on_start_failed(self, subscriber: Subscriber, refused: Mismatch | None) -> None:
        """Watch an optional subscriber that could not be started with its broker.

        Args:
            subscriber: The subscriber.
            refused: What the server has instead of what it declares, if that is the reason.
        """
        self._watched[subscriber] = _Watched(0, required=True, restarting="error", refused=refused)
        self.update(subscriber)

    def update(self, subscriber: Subscriber) -> None:
        """Update the code of one subscriber now and log what has changed."""
        if (watched := self._watched.get(subscriber)) is not None:
            self._update(subscriber, watched)
            self._choose_fault()

    def lock(self, subscriber: Subscriber) -> asyncio.Lock:
        """Return the lock that is held while a subscriber is stopped or started."""
        return self._locks.setdefault(subscriber, asyncio.Lock())

    async def poll(self, *, ask_server: bool) -> None:
        """Update the codes and log what has changed.

        Args:
            ask_server: Whether to ask the server about the consumers too, and to look for subscribers that
                the application has started, or restarted.
        """
        # FastStream replaces a task that has failed, but only in the iteration after it has ended.
        await asyncio.sleep(0)
        if ask_server:
            self._watch_running()
            await self._ask_server()
            self._unsettle_restarted()
        for subscriber, watched in list(self._unsettled.items()):
            if subscriber.running or watched.required or watched.restarting:
                self._update(subscriber, watched)
            else:
                del self._watched[subscriber], self._unsettled[subscriber]
        self._choose_fault()

    async def restart_failed(self) -> None:
        """Restart the subscribers whose task or consumer is gone, when their handlers have finished."""
        for subscriber, watched in list(self._unsettled.items()):
            fault = watched.restarting or watched.fault
            if fault is None or subscriber in self.paused:
                continue
            if watched.restarting is None and fault not in _RESTARTED:
                continue
            lock = self.lock(subscriber)
            if not lock.locked() and self._may_restart(subscriber, watched):
                async with lock:
                    await self._restart(subscriber, watched, fault)

    def _watch_running(self) -> None:
        for subscriber in self.driver.broker.subscribers:
            if subscriber in self._watched or subscriber in self.paused:
                continue
            if subscriber.calls and subscriber.running:
                self.driver.on_started(subscriber)
                watched = _Watched(self.driver.expected_tasks(subscriber))
                self._watched[subscriber] = self._unsettled[subscriber] = watched

    async def _ask_server(self) -> None:
        # Looking up hundreds of subscribers in a WeakSet takes longer than all else here.
        paused = set(self.paused)
        consuming = iter(
            [
                (each, watched)
                for each, watched in self._watched.items()
                if each.running and each not in paused
            ]
        )

        async def ask_in_turn() -> None:
            for subscriber, watched in consuming:
                reply = await self.driver.check_subscriber(subscriber)
                if reply != watched.reply:
                    watched.reply = reply
                    self._unsettle(subscriber)

        await asyncio.gather(*(ask_in_turn() for _ in range(CONCURRENT_CHECKS)))
        self.last_server_check = monotonic()

    def _may_restart(self, subscriber: Subscriber, watched: _Watched) -> bool:
        now = monotonic()
        if now - watched.restarted_at < RETRY_INTERVAL:
            return False
        return self.driver.is_idle(subscriber) or now - watched.fault_since >= HANDLERS_TIMEOUT

    async def _restart(self, subscriber: Subscriber, watched: _Watched, fault: Code) -> None:
        # Only the first failed attempt is logged as a warning.
        level = logging.WARNING if watched.restarted_at == -math.inf else logging.DEBUG
        watched.restarted_at = monotonic()
        watched.restarting = fault
        name = self.driver.subscriber_name(subscriber)
        try:
            watched.refused = await self.driver.restart(subscriber)
        except Exception as error:  # noqa: BLE001 (a later attempt may succeed)
            watched.refused = None
            self.driver.loggers["health"].log(
                level,
                "%s: the subscriber %s could not be restarted: %s.",
                self.driver.name,
                name,
                type(error).__name__,
                extra={"broker": self.driver.name, "subscriber": name},
            )
            return
        if watched.refused is None:
            watched.restarting = None
            watched.reply = "ok"
            self.driver.on_started(subscriber)
            watched.tasks = self.driver.expected_tasks(subscriber)
        if subscriber in self._watched:
            self._update(subscriber, watched)
            self._choose_fault()

    def _status(self, subscriber: Subscriber, watched: _Watched) -> Code | Mismatch:
        if self.paused and subscriber in self.paused:
            return "paused"
        if watched.restarting is not None:
            return watched.refused or watched.restarting
        if not subscriber.running:
            return "stopped"
        if isinstance(watched.reply, Mismatch):
            # Before a task that has ended: a restart cannot help.
            return watched.reply
        if self.driver.running_tasks(subscriber) < watched.tasks:
            return "task_failed"
        return watched.reply

    def _update(self, subscriber: Subscriber, watched: _Watched) -> None:
        status = self._status(subscriber, watched)
        if status != watched.status:
            self._change(subscriber, watched, status)
        if subscriber.running and status != "paused":
            # The application may have stopped and started it since the last poll.
            self.driver.on_started(subscriber)
        tasks = self.driver.consuming_tasks(subscriber)
        if status != "ok" or not tasks or not _is_shown_by_tasks(self.driver):
            self._unsettled[subscriber] = watched
            return
        self._unsettled.pop(subscriber, None)
        new, watched.observed = set(tasks).difference(watched.observed), list(tasks)
        for task in new:
            if not task.done():
                task.add_done_callback(partial(self._on_end, subscriber))

    def _on_end(self, subscriber: Subscriber, _: asyncio.Task[Any]) -> None:
        self._unsettle(subscriber)

    def _unsettle_restarted(self) -> None:
        for subscriber, watched in self._watched.items():
            if self.driver.consuming_tasks(subscriber) != watched.observed:
                self._unsettled[subscriber] = watched

    def _unsettle(self, subscriber: Subscriber) -> None:
        # It may have been removed meanwhile.
        if (watched := self._watched.get(subscriber)) is not None:
            self._unsettled[subscriber] = watched

    def _change(self, subscriber: Subscriber, watched: _Watched, status: Code | Mismatch) -> None:
        name, code = self.driver.subscriber_name(subscriber), _code_of(status)
        old = _code_of(watched.status)
        fields = {"broker": self.driver.name, "subscriber": name, "old": old, "new": code}
        watched.status = status
        logger = self.driver.loggers["health"]
        if code in NO_FAULTS:
            watched.restarted_at = -math.inf
            logger.info("%s: the subscriber %s %s.", self.driver.name, name, _CHANGES[code], extra=fields)
            return
        watched.fault_since = monotonic()
        if isinstance(status, Mismatch):
            logger.warning(
                "%s: the subscriber %s does not match the server: declared %s, found %s.",
                self.driver.name,
                name,
                redact(status.declared),
                redact(status.found),
                extra=fields,
            )
            return
        logger.warning(
            "%s: the subscriber %s does not consume: %s.",
            self.driver.name,
            name,
            SUBSCRIBER_REASONS.get(code, code),
            extra=fields,
        )

    def _choose_fault(self) -> None:
        faults = (watched.fault for watched in self._unsettled.values())
        self.fault = next((fault for fault in faults if fault is not None), None)


def _is_shown_by_tasks(driver: Driver) -> bool:
    """Return whether `running_tasks` changes only with the tasks; a driver may count something else."""
    kind = type(driver)
    return kind.running_tasks is Driver.running_tasks or kind.consuming_tasks is not Driver.consuming_tasks


def _code(subscriber: Subscriber, watched: _Watched) -> Code:
    """Return the code as it was last logged, unless the subscriber was stopped or started since."""
    if watched.restarting is None and not subscriber.running:
        return "stopped"
    code = _code_of(watched.status)
    return "ok" if code in NO_FAULTS else code


def _code_of(status: Code | Mismatch) -> Code:
    return "consumer_mismatch" if isinstance(status, Mismatch) else status
