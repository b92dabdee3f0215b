"""What the lifespan and the probes ask of a broker's client: one module per client, loaded when in use."""

import asyncio
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

from faststream_adapters._compat import Broker, Subscriber, graceful_timeout
from faststream_adapters.redaction import without_credentials

Code = Literal[
    "ok", "timeout", "refused", "auth", "closed", "not_started", "draining", "error", "deleted", "paused"
]
"""Why a broker or a subscriber is, or is not, healthy; never an exception's text, which may hold a secret."""

PING_TIMEOUT = 5.0
"""Seconds that a broker's own `ping()` gets; callers of a check have deadlines of their own."""


class Driver:
    """What any FastStream broker can do through its public methods.

    Args:
        broker: The broker.
    """

    sharing: ClassVar[str] = "something that hands each message to one of them"
    """What a subscriber is given so that each message goes to one of several processes."""

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
    def exclusive_id(self) -> str:
        """By what the server knows this client, if it lets in only one client of that name; else empty."""
        return ""

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

    def send(self) -> asyncio.Future[Any] | None:
        """Ask the server for a sign of life without a task; return what ends when the answer has come.

        None, or an exception, where only `check` can ask. `code` classifies an exception that it ends with.
        """
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

    def alive(self, subscriber: Any) -> int:
        """Return how many tasks a subscriber consumes with."""
        return sum(not task.done() for task in getattr(subscriber, "tasks", ()))

    def adopt(self, subscriber: Subscriber) -> None:
        """Prepare a subscriber that was started for what comes."""

    def expected(self, subscriber: Any) -> int:
        """Return how many tasks a subscriber that was just started has to have at least."""
        return max(self.alive(subscriber), int(hasattr(subscriber, "tasks")))

    def idle(self, subscriber: Any) -> bool:
        """Return whether a subscriber has nothing left to handle of what was delivered to it."""
        return bool(getattr(subscriber.lock, "empty", True))

    def shared(self, subscriber: Subscriber) -> bool | None:  # noqa: ARG002 (for clients that know)
        """Return whether a message goes to one of several processes only; None if that is not known."""
        return None

    async def ask_consumer(self, subscriber: Subscriber) -> Code:  # noqa: ARG002 (for servers that know)
        """Ask the server whether it would deliver to a subscriber."""
        return "ok"

    async def revive(self, subscriber: Subscriber) -> None:
        """Start a subscriber again whose task or consumer is gone; its handlers have had their time."""
        await self.halt(subscriber)
        await subscriber.start()

    async def halt(self, subscriber: Subscriber) -> None:
        """Stop a subscriber without waiting for its handlers."""
        previous = graceful_timeout(self.broker, None)
        try:
            await subscriber.stop()
        finally:
            graceful_timeout(self.broker, previous)

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

    async def reconnect(self) -> bool:
        """Have the client connect anew, if that harms nothing that was delivered; return whether it does."""
        return False

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
