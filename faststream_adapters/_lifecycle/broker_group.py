"""The brokers of one lifespan: acquired together, awaited with one deadline, released together."""

import asyncio
import math
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from faststream_adapters._compat.faststream import Broker
from faststream_adapters._utils.errors import BrokerStartError
from faststream_adapters._utils.redaction import without_secrets
from faststream_adapters._utils.tasks import uninterrupted

from .managed import POLL_INTERVAL, ManagedBroker, Settings, managed_broker
from .statistics import Collected

if TYPE_CHECKING:
    from .lifespan import BrokerLifespan

_CHECK_TIMEOUT = 1.0
"""Seconds that a check may take while waiting for the handlers."""

_OPTIONAL_TIMEOUT = 1.0
"""Seconds that the start waits for optional subscribers."""

_NOTICE_AFTER = 1.0
"""Seconds of waiting for a broker after which a log line reports it."""


class BrokerGroup:
    """The brokers that a lifespan owns, perhaps together with other lifespans.

    Args:
        owner: The lifespan.
    """

    def __init__(self, owner: "BrokerLifespan") -> None:
        self._owner = owner
        self._gate = asyncio.Event()
        self._managed: list[ManagedBroker] = []

    def __iter__(self) -> Iterator[ManagedBroker]:
        return iter(self._managed)

    @property
    def in_memory(self) -> bool:
        """Whether a broker was started under a TestBroker."""
        return any(managed.in_memory for managed in self._managed)

    def acquire(self, broker: Broker, settings: Settings, host: object, collected: Collected) -> None:
        """Start a broker, unless another owner has started it.

        Args:
            broker: The broker.
            settings: How it is managed.
            host: The application around it.
            collected: What to collect of it.

        Raises:
            SetupError: Another owner runs it with other settings, or in another host.
        """
        managed = managed_broker(broker)
        managed.collect(collected)
        if not self._managed:
            # An event belongs to the event loop in which it was first awaited.
            self._gate = asyncio.Event()
        managed.acquire(self._owner, settings, self._gate, host)
        self._managed.append(managed)

    async def start(self, seconds: float) -> None:
        """Wait until all required brokers are up; release all brokers if one of them fails to start.

        No subscriber starts before every required broker can publish and has made its declarations.

        Args:
            seconds: The timeout of the whole start; it can be infinite.

        Raises:
            BrokerStartError: A required broker failed to start, or did not start in time.
        """
        deadline = None if seconds == math.inf else asyncio.get_running_loop().time() + seconds
        required = [managed for managed in self._managed if not managed.optional]
        for managed in required:
            await self._wait(managed, managed.wait_declared(), seconds, deadline)
        self._gate.set()
        for managed in required:
            await self._wait(managed, managed.wait_up(), seconds, deadline)
        # Not until the deadline: the service works without them.
        waits = (managed.consumption.wait_first_starts(_OPTIONAL_TIMEOUT) for managed in required)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await asyncio.gather(*waits)

    async def _wait(
        self, managed: ManagedBroker, step: Coroutine[Any, Any, None], seconds: float, deadline: float | None
    ) -> None:
        loop = asyncio.get_running_loop()
        notice = loop.call_later(_NOTICE_AFTER, self._log_waiting, managed, seconds)
        try:
            async with asyncio.timeout_at(deadline):
                await step
        except Exception as error:  # noqa: BLE001 (it becomes the cause, unless it holds a secret)
            late = isinstance(error, TimeoutError) and managed.error is None
            failure = managed.start_failure
            self._owner.end_observation()
            await self.release()
            within = f" within {seconds:g} s" if late else ""
            # The release has cancelled a start in progress, and some clients report a reason only then.
            failure = managed.start_failure if late else failure
            msg = f"{managed.driver.name} could not be started{within}: {failure}."
            raise BrokerStartError(msg) from without_secrets(error)
        finally:
            notice.cancel()

    async def wait_idle(self) -> None:
        """Wait until every message that the clients have received is handled."""
        idle = False
        while not idle:
            while not self._is_idle:  # noqa: ASYNC110 (there is no event for the end of the handlers)
                await asyncio.sleep(POLL_INTERVAL)
            # A message that a handler has published may still be on its way: most servers send it before the
            # reply to a later request.
            checks = [each.check(_CHECK_TIMEOUT) for each in self._managed if each.up and not each.in_memory]
            if checks:
                await asyncio.wait(checks)
            idle = self._is_idle

    @property
    def _is_idle(self) -> bool:
        return all(managed.is_idle for managed in self._managed)

    async def drain(self, deadline: float) -> None:
        """Stop the subscribers of all brokers without other owners, and wait until their handlers finish.

        All brokers can still publish.

        Args:
            deadline: The deadline for the handlers, on the event loop's clock.
        """
        async with asyncio.TaskGroup() as group:
            for managed in self._managed:
                group.create_task(managed.drain(self._owner, deadline))

    async def leave_groups(self, deadline: float) -> None:
        """Let other processes have what the drained subscribers keep.

        Args:
            deadline: The deadline, on the event loop's clock.
        """
        async with asyncio.TaskGroup() as group:
            for managed in self._managed:
                group.create_task(managed.leave_groups(self._owner, deadline))

    async def close(self, deadline: float) -> None:
        """Close the drained brokers concurrently.

        Args:
            deadline: The deadline, on the event loop's clock.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for managed in self._managed:
                    group.create_task(managed.close(self._owner, deadline))
        finally:
            # A close that was cancelled before its first step has left its broker open.
            self._managed = [managed for managed in self._managed if managed.is_held_by(self._owner)]

    async def release(self) -> None:
        """Close the brokers now. Nothing is left of them, however often the current task is cancelled."""
        await uninterrupted(self._release())

    async def _release(self) -> None:
        try:
            await self.drain(0.0)
        finally:
            await self.close(0.0)

    def _log_waiting(self, managed: ManagedBroker, seconds: float) -> None:
        limit = "" if seconds == math.inf else f", for at most {seconds:g} s"
        self._owner.loggers["lifecycle"].warning(
            "%s is not up yet; waiting for it%s.",
            managed.driver.name,
            limit,
            extra={"broker": managed.driver.name},
        )
