"""What the suite runs in each host: a small service that takes orders."""

import asyncio
import uuid

from faststream.nats import NatsBroker

from tests.hosts import Own


class Orders:
    """A broker with one subscriber, which answers, on a subject of its own.

    Args:
        url: The URL of the NATS server.
    """

    def __init__(self, url: str) -> None:
        # nats-py takes fractions: with two seconds, tests that wait for a server would take that long.
        self.broker = NatsBroker(url, reconnect_time_wait=0.1)  # type: ignore[arg-type]
        self.subject = f"orders.{uuid.uuid4().hex}"
        self.begun = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()

        @self.broker.subscriber(self.subject)
        async def accept(item: str) -> str:
            self.begun.set()
            await self.free.wait()
            return f"{item} ordered"

    async def place(self, item: str = "tea") -> str:
        """Send an order through NATS, and return what came back through NATS."""
        answer = await self.broker.request(item, self.subject, timeout=5.0)
        return str(await answer.decode())

    @property
    def own(self) -> Own:
        """A host application whose route places an order."""
        return Own(hello=self.place)
