"""A NATS broker with one subscriber."""

import asyncio
from typing import Any

from faststream.nats import NatsBroker


def consumer(url: str, **options: Any) -> tuple[NatsBroker, "asyncio.Queue[Any]"]:
    """Return a broker, and the queue of the messages that its subscriber receives."""
    broker = NatsBroker(url, **options)
    received: asyncio.Queue[Any] = asyncio.Queue()

    @broker.subscriber("greetings")
    async def handle(message: str) -> None:
        await received.put(message)

    return broker, received


async def round_trip(broker: NatsBroker, received: "asyncio.Queue[Any]", message: str = "hello") -> None:
    """Publish a message and wait until it is received."""
    await broker.publish(message, "greetings")
    assert await asyncio.wait_for(received.get(), 5) == message
