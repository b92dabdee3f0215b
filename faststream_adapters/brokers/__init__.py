"""What the lifespan and the probes ask of a broker's client: one module per client, loaded when in use."""

import asyncio
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Literal

from faststream_adapters._compat import Broker, graceful_timeout
from faststream_adapters.redaction import without_credentials

Code = Literal["ok", "timeout", "refused", "auth", "closed", "not_started", "draining", "error"]
"""Why a broker is, or is not, healthy; never an exception's text, which may hold a secret."""

PING_TIMEOUT = 5.0
"""Seconds that a broker's own `ping()` gets; callers of a check have deadlines of their own."""


class Driver:
    """What any FastStream broker can do through its public methods.

    Args:
        broker: The broker.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.last_error: BaseException | None = None
        """What kept the client from connecting, where the client does not raise it."""

    @property
    def name(self) -> str:
        """The broker's class and addresses, without credentials."""
        urls = ", ".join(map(without_credentials, self.broker.specification.url))
        return f"{type(self.broker).__name__} {urls}"

    @property
    def real(self) -> bool:
        """Whether there is a client that can lose its connection (FastStream's TestBroker has none)."""
        return False

    @property
    def reconnecting(self) -> bool:
        """Whether the client is at work on getting its connection back."""
        return False

    @property
    def gave_up(self) -> bool:
        """Whether the client has lost its connection and will not try to get it back."""
        return False

    def epoch(self) -> object:
        """Return a value that changes when an answer still awaited can no longer come."""
        return None

    def down(self) -> Code | None:
        """Return what the client knows to be wrong without asking the server."""
        return None

    async def check(self) -> Code:
        """Ask the server for a sign of life; cancelling this may harm the connection."""
        # Some clients ignore the timeout they are given.
        async with asyncio.timeout(PING_TIMEOUT + 1.0):
            return "ok" if await self.broker.ping(PING_TIMEOUT) else "error"

    def code(self, error: BaseException) -> Code:
        """Classify what `check` or `start` raised."""
        if isinstance(error, TimeoutError):
            return "timeout"
        return "refused" if isinstance(error, OSError) else "error"

    def consumers(self) -> Iterator[tuple[str, Code]]:
        """Yield each subscriber's name and whether it consumes, as far as can be known here."""
        for subscriber in self.broker.subscribers:
            if subscriber.calls:
                yield subscriber.specification.call_name, "ok" if subscriber.running else "closed"

    async def start(self, *, consume: bool, supervise: bool) -> None:  # noqa: ARG002 (for clients that can give up)
        """Connect, and start the publishers and, if wanted, the subscribers."""
        await self.broker.connect()
        await self.start_endpoints(consume=consume)
        # Some clients connect when they are first used, and a start that says "up" has to be true.
        if not await self.broker.ping(PING_TIMEOUT):
            raise TimeoutError

    async def start_endpoints(self, *, consume: bool) -> None:
        """Start the publishers and, if wanted, the subscribers of a broker that is connected."""
        if consume:
            await self.broker.start()
            return
        for publisher in self.broker.publishers:
            await publisher.start()

    async def drain(self) -> None:
        """Stop taking messages, and let the handlers finish those that were delivered."""

    async def stop(self, seconds: float) -> None:
        """Stop in good order; handlers get this many seconds to finish."""
        previous = graceful_timeout(self.broker, seconds)
        try:
            await self.broker.stop()
        finally:
            graceful_timeout(self.broker, previous)

    async def abort(self, seconds: float = 0.0) -> None:
        """Stop without asking the server, so that the broker can be started again.

        Args:
            seconds: What handlers get to finish.
        """
        await self.stop(seconds)


def driver_for(broker: Broker) -> Driver:
    """Return the driver for a broker, chosen by the FastStream package that its class comes from."""
    for cls in type(broker).__mro__:
        package, _, client = cls.__module__.partition(".")
        name = f"{__name__}.{client.partition('.')[0]}"
        if package == "faststream" and not client.startswith("_") and find_spec(name):
            driver: Driver = import_module(name).driver(broker)
            return driver
    return Driver(broker)
