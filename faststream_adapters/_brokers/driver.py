"""The driver contract: what the life cycle and the health checks need from a broker's client."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple
from weakref import WeakSet

from faststream_adapters._compat.faststream import (
    Broker,
    Subscriber,
    connection_settings,
    forget_connection,
    graceful_timeout,
    handler_name,
)
from faststream_adapters._utils.addresses import without_credentials
from faststream_adapters._utils.loggers import DEFAULT, Loggers

from .codes import BrokerCode, SubscriberCode

_OF_SUBSCRIBER: dict[BrokerCode, SubscriberCode] = {"auth_failed": "not_permitted", "timeout": "timeout"}

PING_TIMEOUT = 5.0
"""Seconds for a broker's own `ping()`; callers of a check have timeouts of their own."""


class Mismatch(NamedTuple):
    """The server has something else than what a subscriber declares: the code "consumer_mismatch".

    A restart of the subscriber cannot change that. The texts are logged, redacted.

    Args:
        declared: What the code declares, as in "filter_subject 'orders'".
        found: What the server has instead.
    """

    declared: str
    found: str


class Driver:
    """One broker's client, seen by the life cycle and the health checks.

    This class works for every FastStream broker through its public methods. A driver for one client
    overrides what the client can do better. Nothing is required; the members are grouped by what overriding
    them gives:

    - truthful probes: `client`, `check`, `classify`, `local_status`, `connection_id`, `start_check`
    - supervision: `is_closed`, `is_reconnecting`, `reconnect`, `abort`, `forget_connection`
    - subscribers: `consuming_tasks`, `running_tasks`, `expected_tasks`, `is_idle`, `check_subscriber`,
      `on_started`, `restart`, `dropped`, `backlogs`, `is_backlog_shared`
    - start and stop: `connect`, `declare`, `start_subscribers`, `drain`, `leave_groups`, `stop`, `stop_now`
    - single subscribers: `pause`, `resume`
    - names: `destination`, `group`
    - publishing over HTTP: `supports_publishing`, `supports_patterns`, `publish_arguments`,
      `is_returned`, `supports_request`, `send_request`, `is_confirmation`, `is_reserved_header`
    - warnings about several workers: `is_load_balanced`, `load_balancing_hint`, `client_id`

    Concurrency: all members are called in the event loop that the client belongs to. `connect`, `drain`,
    `stop` and `abort` of one broker never overlap, but a `check`, `check_subscriber` or `backlogs` may be
    under way while one of them begins. So may `pause` and `resume` of a subscriber, and `drain` leaves out
    those in `pausing`. Members that are not coroutines are called often, up to a hundred times per second,
    and must neither block nor raise.

    Cancellation: `connect`, `declare` and `start_subscribers` may be cancelled at any await; `abort` follows
    and must leave no connection, task or thread behind. `abort` itself is cancelled only after 15 s. `check`
    may be cancelled at any await too, and must then leave the client usable. The future of `start_check` is
    cancelled only when its connection is gone.

    A driver must never log or raise an address with credentials: use `name`.

    Args:
        broker: The broker.
    """

    load_balancing_hint: ClassVar[str] = "something that hands each message to one of them"
    """The option of a subscriber by which each message goes to one of several processes, for a warning."""

    supports_publishing: ClassVar[bool] = False
    """Whether `make_publish_asgi` may publish: all its publishers take `headers` and `correlation_id`, and
    `publish_arguments` returns where its subscribers consume."""

    supports_patterns: ClassVar[bool] = False
    """Whether `publish_arguments` takes the destinations that are meant with the pattern of a subscriber."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.optional: frozenset[Subscriber] = frozenset()
        """The subscribers that the service works without: `declare` leaves them out, `resume` starts them."""
        self.paused: WeakSet[Subscriber] = WeakSet()
        """The subscribers that must not consume: the start of the broker leaves them out."""
        self.pausing: set[Subscriber] = set()
        """Those of them whose `pause` is under way."""
        self._waiting_stops = 0
        """How many uses of `_graceful_timeout` have not ended."""
        self._own_timeout: float | None = None
        """The timeout of the application meanwhile."""
        self.last_error: BaseException | None = None
        """Why the client could not connect, if the client does not raise it."""
        self.loggers: Loggers = DEFAULT
        """Where to log: `loggers["brokers"]`; the life cycle sets the loggers of the application."""
        self.subscriber_name: Callable[[Subscriber], str] = handler_name
        """Returns the name of a subscriber for logs and errors; the life cycle sets one with unique names."""

    @property
    def name(self) -> str:
        """The broker's class and addresses, without credentials."""
        urls = ", ".join(map(without_credentials, self.urls))
        return f"{type(self.broker).__name__} {urls}"

    @property
    def urls(self) -> Sequence[str]:
        """The addresses of the servers for `name`, which removes credentials from them."""
        return self.broker.specification.url

    @property
    def settings(self) -> object:
        """What the client is configured with; the credentials in it are removed from logs and errors.

        Mappings and lists, whose keys tell what is a secret ("password") or an address ("url").
        """
        return connection_settings(self.broker)

    @property
    def client(self) -> object:
        """The client that can lose its connection; None before the broker connects and for a TestBroker."""
        return None

    @property
    def has_client(self) -> bool:
        """Whether there is a client."""
        return self.client is not None

    @property
    def client_id(self) -> str:
        """The name under which the server accepts only one client, or an empty string."""
        return ""

    @property
    def is_reconnecting(self) -> bool:
        """Whether the client is restoring its connection: supervision then leaves it alone."""
        return False

    @property
    def is_closed(self) -> bool:
        """Whether the client will not reconnect any more: supervision then restarts the broker."""
        return False

    def connection_id(self) -> object:
        """Return a value that changes when a pending reply can no longer arrive."""
        return self.client

    def local_status(self) -> BrokerCode | None:
        """Return the fault that the client knows of without a request to the server, or None."""
        return None

    def start_check(self) -> asyncio.Future[Any] | None:
        """Send a request and return a future for the reply, or None to have `check` called instead.

        This saves a task for each check. An exception, raised or set on the future, is passed to `classify`.
        """
        return None

    async def check(self) -> BrokerCode:
        """Make a round trip to the server.

        Returns:
            "ok" only after a reply from the server itself; a flag of the client is not enough.
        """
        # Some clients ignore the timeout that is passed to them.
        async with asyncio.timeout(PING_TIMEOUT + 1.0):
            return "ok" if await self.broker.ping(PING_TIMEOUT) else "error"

    async def _ping(self) -> BrokerCode:
        """Call the broker's own `ping()`, which the application may have overridden."""
        if await self.broker.ping(PING_TIMEOUT):
            return "ok"
        return "error" if self.has_client else "not_started"

    def classify(self, error: BaseException) -> BrokerCode:
        """Return the code for an error raised by a check or a start."""
        if isinstance(error, TimeoutError):
            return "timeout"
        return "unreachable" if isinstance(error, OSError) else "error"

    def classify_subscriber(self, error: BaseException) -> SubscriberCode:
        """Return the code for an error that occurs in `check_subscriber`."""
        return _OF_SUBSCRIBER.get(self.classify(error), "error")

    def consuming_tasks(self, subscriber: Any) -> "Sequence[asyncio.Task[Any]]":
        """Return the tasks that a subscriber consumes with, without which it no longer consumes.

        While it consumes, `running_tasks` is called only after one of them has ended, or there are others.

        Returns:
            Nothing if the client has no such tasks: then `running_tasks` is called every second. So it is in
            a driver that overrides only `running_tasks`.
        """
        tasks: Sequence[asyncio.Task[Any]] = getattr(subscriber, "tasks", ())
        return tasks

    def running_tasks(self, subscriber: Any) -> int:
        """Return how many tasks of a subscriber are running."""
        return sum(not task.done() for task in self.consuming_tasks(subscriber))

    def expected_tasks(self, subscriber: Any) -> int:
        """Return how many tasks a subscriber that was just started needs."""
        own = getattr(subscriber, "tasks", ())
        # FastStream replaces its own tasks, but one of the client may have ended already.
        ended = sum(task.done() and task not in own for task in self.consuming_tasks(subscriber))
        return max(self.running_tasks(subscriber) + ended, int(hasattr(subscriber, "tasks")))

    def on_started(self, subscriber: Subscriber) -> None:
        """Prepare a started subscriber for a later drain; called repeatedly, so it must be idempotent."""

    def is_idle(self, subscriber: Any) -> bool:
        """Return whether a subscriber can be restarted without losing a message that was delivered to it."""
        return bool(getattr(subscriber.lock, "empty", True))

    def is_load_balanced(self, subscriber: Subscriber) -> bool | None:  # noqa: ARG002 (for clients that know)
        """Return whether each message goes to only one of several processes; None if that is unknown."""
        return None

    def destination(self, subscriber: Any) -> str:
        """Return where a subscriber's messages come from: a subject, a queue, topics, a channel."""
        context: dict[str, str] = subscriber.get_log_context(None)
        return next((text for key, text in context.items() if key != "message_id"), "")

    def group(self, subscriber: Any) -> str | None:  # noqa: ARG002 (for clients that have groups)
        """Return the group that shares a subscriber's messages, such as a consumer group, or None."""
        return None

    def publish_arguments(
        self,
        subscriber: Any,  # noqa: ARG002 (for clients that publish)
        address: str,  # noqa: ARG002
        destination: str = "",  # noqa: ARG002
    ) -> Mapping[str, Any] | None:
        """Return the keywords of the broker's `publish()` for a message that a subscriber shall consume.

        Args:
            subscriber: The subscriber.
            address: One of its addresses in the AsyncAPI document.
            destination: The destination that is meant, if the address is a pattern.

        Returns:
            None if the address is a pattern, unless the subscriber gets what is sent to the destination.
        """
        return None

    def is_returned(self, result: object) -> bool:  # noqa: ARG002 (for servers that return messages)
        """Return whether the result of `publish()` means that the server has not accepted the message."""
        return False

    def supports_request(self, subscriber: Any) -> bool:  # noqa: ARG002 (for clients that have requests)
        """Return whether the broker's `request()` works with a subscriber."""
        return False

    async def send_request(self, message: object, **arguments: Any) -> Any:
        """Call the broker's `request()`, and return the message that is the reply.

        Args:
            message: The message.
            arguments: Those of `publish_arguments`, with `headers`, `correlation_id` and `timeout`.
        """
        broker: Any = self.broker
        return await broker.request(message, **arguments)

    def is_confirmation(self, reply: Any) -> bool:  # noqa: ARG002 (for servers that confirm a request)
        """Return whether a reply is one of the server itself, not of the subscriber."""
        return False

    def is_reserved_header(self, name: str) -> bool:
        """Return whether a header of a message means something to the broker or to FastStream.

        Such a header could divert a message or its reply. Clients of `make_publish_asgi` cannot set it.

        Args:
            name: The name in lower case.
        """
        return name in {"content-type", "correlation_id", "message_id", "reply_to"}

    def dropped(self, subscriber: Subscriber) -> int | None:  # noqa: ARG002 (for clients that drop messages)
        """Return how many messages the client has dropped because a subscriber was too slow.

        Returns:
            None for a client that drops none.
        """
        return None

    async def backlogs(self, subscribers: Sequence[Subscriber]) -> Mapping[Subscriber, int]:  # noqa: ARG002 (for servers that report it)
        """Return how many messages wait on the server for each subscriber, without those delivered to it.

        Called every few seconds, after `check_subscriber`, while an endpoint shows the backlogs; cancelled
        after two seconds. A subscriber whose backlog is unknown is left out.

        Args:
            subscribers: The subscribers that consume.
        """
        return {}

    def is_backlog_shared(self, subscriber: Subscriber) -> bool:
        """Return whether the backlog of a subscriber is the same in every process that consumes with it.

        Otherwise each process has a backlog of its own, and the service has their sum.
        """
        return self.is_load_balanced(subscriber) is not False

    async def check_subscriber(self, subscriber: Subscriber) -> SubscriberCode | Mismatch:  # noqa: ARG002 (for servers that report it)
        """Check on the server that it would deliver messages to a subscriber.

        Must not raise and must not take longer than a few seconds.
        """
        return "ok"

    async def restart(self, subscriber: Subscriber) -> Mismatch | None:
        """Restart a subscriber whose task or consumer is gone; its handlers have finished or timed out.

        Called again every few seconds until it succeeds.

        Returns:
            None, or why the subscriber was not restarted: the server has something else than it declares.
        """
        await self.stop_now(subscriber)
        await subscriber.start()
        return None

    async def pause(self, subscriber: Subscriber) -> None:
        """Stop a subscriber, and wait until it has handled what was delivered to it.

        What it has not handled stays on the server, if that keeps messages. The handlers have no time limit.
        """
        await self._drain_subscriber(subscriber)

    async def resume(self, subscriber: Subscriber) -> Mismatch | None:
        """Start a subscriber that was paused, that was never started, or that is optional.

        Returns:
            None, or why the subscriber was not started: the server has something else than it declares.
        """
        return await self.restart(subscriber)

    async def stop_now(self, subscriber: Subscriber) -> None:
        """Stop a subscriber without waiting for its handlers."""
        with self._graceful_timeout(None):
            await subscriber.stop()

    @contextmanager
    def _graceful_timeout(self, seconds: float | None) -> Iterator[None]:
        """Set for a while how long a subscriber's `stop()` waits for its handlers."""
        previous = graceful_timeout(self.broker, seconds)
        if not self._waiting_stops:
            self._own_timeout = previous
        self._waiting_stops += 1
        try:
            yield
        finally:
            # Uses for several subscribers overlap, and end in any order.
            self._waiting_stops -= 1
            if not self._waiting_stops:
                graceful_timeout(self.broker, self._own_timeout)

    async def connect(self, *, consume: bool, supervise: bool) -> None:  # noqa: ARG002 (for clients that need them)
        """Connect and start the publishers: the application can publish after `declare`.

        Returns only after a reply from the server.

        Args:
            consume: Whether the subscribers will be started.
            supervise: Whether the client must reconnect without a limit.
        """
        await self.broker.connect()
        await self.start_publishers()
        # Some clients connect on first use.
        if not await self.broker.ping(PING_TIMEOUT):
            raise TimeoutError

    async def start_publishers(self) -> None:
        """Start the publishers of a connected broker."""
        for publisher in self.broker.publishers:
            await publisher.start()

    async def declare(self) -> None:
        """Create the declared streams, queues, bindings and groups on the server.

        From then on the server keeps published messages, also before the subscribers have started.
        """

    async def start_subscribers(self) -> None:
        """Start the subscribers of a connected broker."""
        # Not each subscriber by itself: a TestBroker replaces this method, and some brokers declare in it.
        await self.broker.start()

    async def drain(self) -> None:
        """Stop all subscribers from receiving messages, and wait until their handlers have finished."""
        await self.drain_each(self._drain_subscriber)

    @property
    def to_declare(self) -> list[Any]:
        """The subscribers whose queues, bindings and groups `declare` has to create: the required ones."""
        return [subscriber for subscriber in self.broker.subscribers if subscriber not in self.optional]

    @property
    def to_drain(self) -> list[Any]:
        """The subscribers that `drain` has to drain: all that are not being paused."""
        return [subscriber for subscriber in self.broker.subscribers if subscriber not in self.pausing]

    async def leave_groups(self) -> None:
        """Let other processes have what drained subscribers keep, such as the partitions of a Kafka group.

        Called after a drain if the broker stays connected for open responses.
        """

    async def _drain_subscriber(self, subscriber: Any) -> None:
        # FastStream's limit for the handlers is lifted: the life cycle ends the drain at its own deadline.
        with self._graceful_timeout(math.inf):
            await subscriber.stop()

    async def drain_each(self, drain: Callable[[Any], Awaitable[None]]) -> None:
        """Drain these subscribers concurrently; a failure is logged and does not affect the others."""
        results = await asyncio.gather(*map(drain, self.to_drain), return_exceptions=True)
        for error in results:
            if isinstance(error, Exception):
                self.loggers["brokers"].warning(
                    "%s: %s while draining a subscriber.",
                    self.name,
                    type(error).__name__,
                    extra={"broker": self.name},
                )

    async def stop(self, seconds: float) -> None:
        """Stop the broker.

        Args:
            seconds: The time that handlers have to finish.
        """
        with self._graceful_timeout(seconds):
            await self.broker.stop()

    async def reconnect(self) -> bool:
        """Make the client reconnect if that loses no delivered message; return whether it reconnects."""
        return False

    async def abort(self, seconds: float = 0.0) -> None:
        """End everything without waiting for the server, so that the broker can be started again.

        Args:
            seconds: The time that handlers have to finish.
        """
        await self.stop(seconds)

    def forget_connection(self) -> None:
        """Remove the broker's reference to its client.

        For an `abort` that closes the client itself: `stop()` then neither closes it nor waits for the
        server, and the next `connect()` creates another one.
        """
        forget_connection(self.broker)
