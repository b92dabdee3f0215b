"""Shared by the tests of both Kafka clients, which differ only in a few names."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Any

from faststream_adapters import BrokerLifespan
from faststream_adapters._lifecycle.managed import ManagedBroker, managed_broker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TOPIC = "jobs"


class Service:
    """A broker with one subscriber that records the numbers it handles.

    Args:
        client: `kafka` or `confluent`.
        url: The server's address.
        subscriber: Options of the subscriber. By default it has a fixed partition and no group to join.
        handler: Called with each number before the number is recorded as handled.
        lifespan: Options of the lifespan.
        broker: Options of the broker.
    """

    def __init__(
        self,
        client: str,
        url: str,
        *,
        subscriber: dict[str, Any] | None = None,
        handler: Callable[[int], Awaitable[None]] | None = None,
        lifespan: dict[str, Any] | None = None,
        **broker: Any,
    ) -> None:
        module = import_module(f"faststream.{client}")
        self.broker: Any = module.KafkaBroker(url, **broker)
        self.handled: list[int] = []
        self.handler = handler
        if subscriber is None:
            subscriber = {"partitions": [module.TopicPartition(TOPIC, 0)]}
        # The server creates topics with four partitions.
        self.partition = 0 if "partitions" in subscriber else None
        options = {"auto_offset_reset": "earliest", **subscriber}
        topics = () if {"partitions", "pattern"} & options.keys() else (TOPIC,)
        handle = self.handle_batch if options.get("batch") else self.handle
        self.subscriber: Any = self.broker.subscriber(*topics, **options)
        self.subscriber(handle)
        self.lifespan = BrokerLifespan(self.broker, **(lifespan or {}))

    @property
    def managed(self) -> ManagedBroker:
        return managed_broker(self.broker)

    async def handle(self, number: int) -> None:
        if self.handler is not None:
            await self.handler(number)
        self.handled.append(number)

    async def handle_batch(self, numbers: list[int]) -> None:
        self.handled += numbers

    async def publish(self, *numbers: int) -> None:
        for number in numbers:
            await self.broker.publish(number, TOPIC, partition=self.partition)

    async def publish_until_handled(self, number: int, seconds: float = 20.0) -> None:
        """Publish a number, repeatedly if necessary, until the subscriber has handled it."""
        async with asyncio.timeout(seconds):
            while number not in self.handled:
                await self.publish(number)
                for _ in range(20):
                    await asyncio.sleep(0.01)
                    if number in self.handled:
                        break
