"""The driver for a broker of any client while FastStream's TestBroker replaces its connection."""

from contextlib import AbstractAsyncContextManager
from typing import Any

from faststream.exceptions import SetupError

from faststream_adapters._compat.faststream import Broker, count_handlers, is_in_memory, test_broker

from .driver import Driver


class InMemoryDriver(Driver):
    """Starts and stops a broker that has no server: nothing is pinged, declared or drained.

    A message is handled inside the `publish()` that sends it. If the application's test has not entered a
    TestBroker, the driver enters one to connect, and leaves it to stop.
    """

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._entered: AbstractAsyncContextManager[Any] | None = None

    async def connect(self, *, consume: bool, supervise: bool) -> None:  # noqa: ARG002 (of Driver)
        if is_in_memory(self.broker):
            await self.broker.connect()
            return
        entered = test_broker(self.broker)
        if entered is None:
            msg = "it cannot run in memory, because FastStream has no TestBroker for its class."
            raise SetupError(msg)
        await entered.__aenter__()
        self._entered = entered

    async def start_subscribers(self) -> None:
        await super().start_subscribers()
        for subscriber in self.broker.subscribers:
            count_handlers(subscriber)

    async def drain(self) -> None:
        """Do nothing: the TestBroker goes on delivering messages until it ends itself."""

    async def stop(self, seconds: float) -> None:
        entered, self._entered = self._entered, None
        if entered is None:
            await super().stop(seconds)
        else:
            await entered.__aexit__(None, None, None)
