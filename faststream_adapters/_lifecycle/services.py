"""The services that run with a lifespan, such as the management server."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from faststream_adapters._compat.faststream import is_in_memory

from .run_mode import RunMode, Service
from .workers import detect_workers

if TYPE_CHECKING:
    from .lifespan import BrokerLifespan


class Services:
    """The services of a lifespan: from before the hooks and the brokers start until all of them have stopped.

    Args:
        lifespan: The lifespan.
    """

    def __init__(self, lifespan: "BrokerLifespan") -> None:
        self.own: list[Service] = []
        """The services that run unless the mode has others."""
        self._lifespan = lifespan
        self._running = AsyncExitStack()

    async def start(self, mode: RunMode, options: Mapping[str, Any]) -> None:
        """Start the services; if one fails, `stop` ends the others.

        Args:
            mode: How the lifespan runs. Tests in memory run side by side, so that nothing may listen then.
            options: The options that the application was run with.
        """
        if mode.in_memory or any(map(is_in_memory, self._lifespan.brokers)):
            return
        workers = detect_workers(options)
        for service in self.own if mode.services is None else mode.services:
            await self._running.enter_async_context(service(self._lifespan, workers))

    async def stop(self) -> None:
        """Stop the services that have started."""
        running, self._running = self._running, AsyncExitStack()
        await running.aclose()
