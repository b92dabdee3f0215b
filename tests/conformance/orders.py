"""The service that the suite runs in each host: it accepts orders."""

import asyncio
import uuid

from faststream.nats import NatsBroker

from tests.harness.hosts import HostApp


class Orders:
    """A broker with one subscriber, which replies, on a unique subject.

    Args:
        url: The URL of the NATS server.
    """

    def __init__(self, url: str) -> None:
        # nats-py accepts fractions of a second. Its default of 2 s would slow down tests that reconnect.
        self.broker = NatsBroker(url, reconnect_time_wait=0.1)  # type: ignore[arg-type]
        self.subject = f"orders.{uuid.uuid4().hex}"
        self.started = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()

        @self.broker.subscriber(self.subject)
        async def accept(item: str) -> str:
            self.started.set()
            await self.free.wait()
            return f"{item} ordered"

    async def place(self, item: str = "tea") -> str:
        """Send an order through NATS, and return the reply."""
        reply = await self.broker.request(item, self.subject, timeout=5.0)
        return str(await reply.decode())

    @property
    def host_app(self) -> HostApp:
        """A host application whose route places an order."""
        return HostApp(hello=self.place)
