"""Detect changes of the health of brokers, subscribers and checks while a lifespan runs."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from faststream_adapters._brokers.codes import Code
from faststream_adapters._brokers.driver import Driver

from .broker_check import Result
from .health_change import HealthChange, Kind
from .health_hook import HealthHook
from .statistics import Collected
from .targets import TargetView

if TYPE_CHECKING:
    from .lifespan import BrokerLifespan

POLL_INTERVAL = 0.5
"""Seconds between two comparisons of the codes; a broker check with another result makes one at once."""

HISTORY_INTERVAL = 1.0
"""The same if nothing but the history needs them; 400 subscribers take 1.5 ms each time."""


class HealthObserver:
    """Compares the codes of a lifespan's components with those that it has reported.

    It reports to the application's `on_health_change`, and to the history that an endpoint shows. Without
    either it does nothing.

    Invariant: the codes are reported while the lifespan is starting or running. The old code of a change is
    the new code of the component's previous one, or "not_started" for the first one since the start. What
    ends in the drain or after a failed start is not reported: the state of the lifespan says that.

    Args:
        lifespan: The lifespan, whose state is followed.
        hook: Receives the changes, if the application has a function for them.
    """

    def __init__(self, lifespan: "BrokerLifespan", hook: HealthHook | None) -> None:
        self._lifespan = lifespan
        self._target = TargetView([lifespan])
        self._hook = hook
        self._codes: dict[tuple[Kind, str], Code] = {}
        self._broker_codes: dict[Driver, Code] = {}
        self._task: asyncio.Task[None] | None = None
        """Compares the codes, while the lifespan is starting or running."""
        self._wake = asyncio.Event()
        self._last_error = ""
        lifespan.status.observers.add(self)

    def on_state_change(self) -> None:
        """Begin with the start of the lifespan, and end with its drain or its failure."""
        state = self._lifespan.state
        if state == "starting":
            self._codes = {}
            # An event belongs to the event loop in which it was first awaited.
            self._wake = asyncio.Event()
        if state in {"starting", "running"}:
            self._wake.set()
            # Hooks may have added brokers that an endpoint shows.
            if self._task is None and self._is_needed:
                self._task = asyncio.create_task(self._watch())
        else:
            self.end()

    @property
    def _is_needed(self) -> bool:
        """Whether the application has a function for the changes, or an endpoint shows them."""
        collected = [self._lifespan.collected, *(each.collected for each in self._target.managed_brokers)]
        return self._hook is not None or any(Collected.HISTORY in each for each in collected)

    def on_check(self, driver: Driver, result: Result) -> None:
        """Compare the codes now if a check has another result than the last comparison."""
        if result.code != self._broker_codes.get(driver):
            self._wake.set()

    def end(self) -> None:
        """Compare the codes for the last time."""
        if self._task is not None:
            self._compare()
            self._task.cancel()
            self._task = None

    async def wait_ended(self) -> None:
        """Wait until the last changes are reported, or the hook gives them up."""
        if self._hook is not None:
            await self._hook.wait_ended()

    def _compare(self) -> None:
        """Report which codes have changed."""
        try:
            codes = dict(self._read())
        except Exception as error:  # noqa: BLE001 (a driver of another package may raise)
            if (kind := type(error).__name__) != self._last_error:
                self._last_error = kind
                self._target.loggers["health"].error("The health could not be read: %s.", kind)
            return
        now = datetime.now(UTC)
        changes = []
        # A component that no longer exists is not started.
        for key in self._codes | codes:
            old, new = self._codes.get(key, "not_started"), codes.get(key, "not_started")
            if old != new:
                changes.append(HealthChange(*key, old, new, now))
        self._codes = codes
        self._lifespan.status.history.add(changes)
        if self._hook is not None:
            for change in changes:
                self._hook.add(change)

    def _read(self) -> Iterator[tuple[tuple[Kind, str], Code]]:
        """Yield the codes as the details of a probe show them; those of brokers without a new check."""
        for name, managed in self._target.named:
            # Brokers may be added to the application until it has started.
            managed.broker_check.observers.add(self)
            self._broker_codes[managed.driver] = code = managed.code
            yield ("broker", name), code
        for each in self._target.named_subscribers:
            yield ("subscriber", each.name), each.managed.subscriber_code(each.subscriber)
        for check in self._target.checks:
            yield ("check", check.name), check.code

    async def _watch(self) -> None:
        interval = HISTORY_INTERVAL if self._hook is None else POLL_INTERVAL
        while True:
            self._wake.clear()
            self._compare()
            for managed in self._target.managed_brokers:
                managed.mark_rates()
            with suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await self._wake.wait()
