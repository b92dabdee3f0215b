"""The driver for FastStream's RabbitMQ brokers: checks, restart and shutdown of aio-pika's client."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from socket import gaierror
from ssl import SSLError
from time import monotonic
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from aio_pika import RobustConnection
from aio_pika.abc import AbstractRobustChannel
from aio_pika.exceptions import AuthenticationError, ProbableAuthenticationError
from aio_pika.robust_queue import RobustQueue
from aiormq import spec
from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelInvalidStateError,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionClosed,
    InvalidFrameError,
)
from faststream.rabbit import ExchangeType, QueueType, RabbitBroker, RabbitExchange
from yarl import URL

from faststream_adapters._compat import rabbit as private
from faststream_adapters._compat.faststream import Broker
from faststream_adapters._utils.tracebacks import find_locals

from .codes import BrokerCode, SubscriberCode
from .draining import wait_handled
from .driver import Driver, Mismatch
from .patterns import rabbit_covers

T = TypeVar("T")

CONNECT_TIMEOUT = 10.0
"""Seconds that an attempt to connect may take if the broker has no timeout; aio-pika would wait forever."""

SUBSCRIBER_TIMEOUT = 5.0
"""Seconds that the server may take to report on a consumer."""

START_TIMEOUT = 30.0
"""Seconds that the start of all subscribers, or the restart of one, may take."""

EXCHANGES_INTERVAL = 60.0
"""Seconds between two requests for the exchanges of a subscriber."""

RETURNED_INTERVAL = 60.0
"""Seconds between two warnings about messages that the server has returned."""

_CLOSE_TIMEOUT = 5.0

_CHANNEL_MAX = 65535
"""The highest channel number if the server sets no limit."""


class AbortableTransportFactory(TransportFactory):
    """Opens the transports of one client, and can close the last one without notifying the server."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None

    async def create(self, url: URL, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await factory.create(url, **options)
        self._transport = writer.transport
        return reader, writer

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class ReturnedMessages:
    """Warns about published messages that the server returns because no queue receives them.

    Such a publish does not fail, unless the channel has `on_return_raises`.

    Args:
        driver: The broker's driver.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._count = 0
        self._last: Any = None
        self._logged_at = -math.inf

    def __call__(self, channel: object, message: Any) -> None:  # noqa: ARG002 (aio-pika's signature)
        """Count a message; log the first one, and then at most one warning per `RETURNED_INTERVAL`."""
        self._count += 1
        self._last = message.exchange or "", message.routing_key
        if monotonic() - self._logged_at >= RETURNED_INTERVAL:
            self.log()

    def log(self) -> None:
        """Log how many messages were returned since the last time."""
        if self._count:
            self._driver.loggers["brokers"].warning(
                "%s: the server returned %d published messages, because no queue receives them; the last one "
                "was for the exchange %r and the routing key %r. Declare and bind the queue first, "
                "or publish with mandatory=False.",
                self._driver.name,
                self._count,
                *self._last,
                extra={"broker": self._driver.name},
            )
            self._count, self._logged_at = 0, monotonic()


class ReportingConnection(RobustConnection):
    """A connection whose channels report returned messages.

    Args:
        args: The arguments of the base class.
        returned: Called with the channel and the message.
        options: The options of the base class.
    """

    def __init__(self, *args: Any, returned: Callable[[Any, Any], None], **options: Any) -> None:
        super().__init__(*args, **options)
        self._returned = returned

    def channel(self, *args: Any, **options: Any) -> AbstractRobustChannel:
        channel = super().channel(*args, **options)
        channel.return_callbacks.add(self._returned)
        channel.reopen_callbacks.add(private.restore_return_callback)
        return channel


class RabbitDriver(Driver):
    """The driver for a RabbitMQ broker."""

    broker: RabbitBroker
    load_balancing_hint = "a queue with a name"
    supports_publishing = True
    supports_patterns = True

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._created_client: RobustConnection | None = None
        self._transports = AbortableTransportFactory()
        self._returned = ReturnedMessages(self)
        # The client's number of connection attempts when it last lost its connection.
        self._attempts_at_loss = -1
        # Checks have their own channels: an error closes its channel and cancels the handlers there.
        self._check_channel: AbstractChannel | None = None
        self._subscriber_channel: AbstractChannel | None = None
        # Guards the channel of the subscriber checks.
        self._subscriber_lock = asyncio.Lock()
        # When a subscriber check last timed out, on the event loop's clock.
        self._last_timeout = -math.inf
        # The subscribers whose consumers the server has counted at least once.
        self._counted: WeakSet[object] = WeakSet()
        # When the exchanges of a subscriber were last found, on the event loop's clock.
        self._exchanges_checked: WeakKeyDictionary[object, float] = WeakKeyDictionary()
        # The result of the last completed check of each subscriber.
        self._subscriber_codes: WeakKeyDictionary[object, SubscriberCode] = WeakKeyDictionary()
        # How many messages are ready in the queue of each subscriber, as the server last reported.
        self._ready: WeakKeyDictionary[object, int] = WeakKeyDictionary()

    @property
    def client(self) -> RobustConnection | None:
        """The client; None before the broker connects and for a TestBroker."""
        client = private.client(self.broker)
        return client if isinstance(client, RobustConnection) else None

    @property
    def is_reconnecting(self) -> bool:
        client = self.client
        if client is None or self.is_closed:
            return False
        # A server that is short of memory or disk space reads nothing from publishers until it has recovered.
        return not self._is_up(client) or _is_blocked(client)

    @property
    def is_closed(self) -> bool:
        client = self.client
        if client is None or self._is_up(client):
            return False
        # aio-pika does not restart its reconnection task after that was cancelled.
        task = private.reconnection_task(client)
        return client.close_called or (task is not None and task.done())

    def connection_id(self) -> object:
        client = self.client
        return client and (client, _connection_of(client))

    def local_status(self) -> BrokerCode | None:
        client = self.client
        if client is None or self._is_up(client):
            return None
        if client.close_called:
            return "closed"
        return "unreachable" if self.last_error is None else self.classify(self.last_error)

    async def check(self) -> BrokerCode:
        code = await self._ping()
        if code == "ok" and self.client is not None:
            self._check_channel = await self._open_channel(self._check_channel)
            # This request has no effect on a channel without consumers, and needs no permission.
            await _await_reply(self._check_channel.basic_qos(prefetch_count=0))
        return code

    def classify(self, error: BaseException) -> BrokerCode:
        if isinstance(error, AuthenticationError | ProbableAuthenticationError | ChannelAccessRefused):
            return "auth_failed"
        if isinstance(error, ChannelInvalidStateError):
            return "closed"
        # aiormq raises this for a virtual host that does not exist or that the user may not access.
        closed = isinstance(error, InvalidFrameError) and "Connection.Close" in str(error)
        return "unreachable" if closed else super().classify(error)

    def consuming_tasks(self, subscriber: Any) -> "Sequence[asyncio.Task[Any]]":  # noqa: ARG002 (it has none)
        # aio-pika has no event for a consumer that the server cancels.
        return ()

    def running_tasks(self, subscriber: Any) -> int:
        queue, tag = private.consumer(subscriber)
        return int(isinstance(queue, RobustQueue) and tag in _live_consumers(queue))

    def expected_tasks(self, subscriber: Any) -> int:
        return int(isinstance(private.consumer(subscriber)[0], RobustQueue))

    def is_load_balanced(self, subscriber: Any) -> bool | None:
        # A queue without a name belongs to one process, and each process reads all messages of a stream.
        return bool(subscriber.queue.name) and not _is_stream(subscriber)

    async def backlogs(self, subscribers: Sequence[Any]) -> Mapping[Any, int]:
        # The checks of the consumers have just asked for them.
        return {each: self._ready[each] for each in subscribers if each in self._ready}

    def publish_arguments(
        self,
        subscriber: Any,
        address: str,  # noqa: ARG002 (the queue knows)
        destination: str = "",
    ) -> Mapping[str, Any] | None:
        key, exchange = subscriber.routing(), subscriber.exchange
        if exchange.type == ExchangeType.TOPIC and {"*", "#"}.intersection(key.split(".")):
            if not rabbit_covers(key, destination):
                return None
            key = destination
        return {"routing_key": key, "exchange": exchange}

    def is_returned(self, result: object) -> bool:
        # Because no queue receives the message.
        return isinstance(getattr(result, "delivery", None), spec.Basic.Return)

    def supports_request(self, subscriber: Any) -> bool:  # noqa: ARG002 (each of them)
        return True

    def is_reserved_header(self, name: str) -> bool:
        # The server also routes a message to the keys in these.
        return name in {"cc", "bcc"} or super().is_reserved_header(name)

    def destination(self, subscriber: Any) -> str:
        return private.queue_name(subscriber) or subscriber.exchange.name

    async def check_subscriber(self, subscriber: Any) -> SubscriberCode:
        queue, _ = private.consumer(subscriber)
        if not isinstance(queue, RobustQueue):
            return "ok"
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._ready.pop(subscriber, None)
        # One at a time, because a missing queue closes the channel. The timeout does not include this wait.
        async with self._subscriber_lock:
            # If another check timed out during the wait, this one would only time out too.
            if self._last_timeout < started:
                try:
                    async with asyncio.timeout(SUBSCRIBER_TIMEOUT):
                        self._subscriber_codes[subscriber] = await self._consumer_code(subscriber, queue)
                except TimeoutError:
                    self._last_timeout = loop.time()
                except Exception as error:  # noqa: BLE001 (the check failed, whatever the error is)
                    return self.classify_subscriber(error)
        # A timeout says nothing about the consumer: the last result remains valid.
        return self._subscriber_codes.get(subscriber, "ok")

    async def _consumer_code(self, subscriber: Any, queue: RobustQueue) -> SubscriberCode:
        try:
            self._subscriber_channel = await self._open_channel(self._subscriber_channel)
            reply = await _await_reply(self._subscriber_channel.queue_declare(queue.name, passive=True))
            if not _is_stream(subscriber):
                self._ready[subscriber] = reply.message_count or 0
            await self._check_exchanges(subscriber, self._subscriber_channel)
        except ChannelNotFoundEntity:
            return "consumer_missing"
        if reply.consumer_count:
            self._counted.add(subscriber)
            return "ok"
        # The server does not count the consumers of a stream.
        return "consumer_missing" if subscriber in self._counted else "ok"

    async def _check_exchanges(self, subscriber: Any, channel: AbstractChannel) -> None:
        """Check that the exchanges exist through which a subscriber receives: their bindings end with them.

        Raises:
            ChannelNotFoundEntity: One does not exist.
        """
        now = asyncio.get_running_loop().time()
        if now - self._exchanges_checked.get(subscriber, -math.inf) < EXCHANGES_INTERVAL:
            return
        # FastStream does not bind a queue that it does not declare.
        exchange = subscriber.exchange if subscriber.queue.declare else None
        while exchange is not None and exchange.name:
            await _await_reply(channel.exchange_declare(exchange.name, passive=True))
            exchange = exchange.bind_to
        self._exchanges_checked[subscriber] = now

    async def restart(self, subscriber: Any) -> Mismatch | None:
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await _await_reply(self._restart(subscriber))
        except (ChannelPreconditionFailed, ChannelLockedResource) as error:
            # The server's words contain both values.
            return Mismatch(_declared(subscriber), str(error))
        return None

    async def _restart(self, subscriber: Any) -> None:
        queue, _ = private.consumer(subscriber)
        channel = await private.channel(subscriber)
        # This returns at once if the channel is open, and waits if the client is restoring it.
        await channel.restore()
        # The client may have restored the consumer meanwhile.
        if self.running_tasks(subscriber) and await self.check_subscriber(subscriber) == "ok":
            return
        # There is no queue if the last attempt stopped the subscriber and then failed to start it.
        if name := private.queue_name(subscriber) if queue is None else queue.name:
            await self._try_declare(subscriber, name)
        await self.stop_now(subscriber)
        private.clear_declarations(self.broker)
        if queue is not None and not private.has_restored_consumers(queue):
            private.exclude_from_restore(channel, queue)
        await subscriber.start()
        self._subscriber_codes.pop(subscriber, None)

    async def _try_declare(self, subscriber: Any, name: str) -> None:
        """Make the declarations of a start on our own channel, so that an error closes no other channel."""
        async with self._subscriber_lock:
            channel = self._subscriber_channel = await self._open_channel(self._subscriber_channel)
            queue, exchange = subscriber.queue, subscriber.exchange
            await channel.queue_declare(
                name,
                passive=not queue.declare,
                durable=queue.durable,
                exclusive=queue.exclusive,
                auto_delete=queue.auto_delete,
                arguments=queue.arguments,
            )
            # FastStream does not bind a queue that it does not declare.
            if exchange.name and queue.declare:
                await _declare_exchange(channel, exchange)
                await channel.queue_bind(
                    name,
                    exchange.name,
                    routing_key=subscriber.routing(),
                    arguments=queue.bind_arguments,
                )

    async def connect(self, *, consume: bool, supervise: bool) -> None:  # noqa: ARG002 (it never gives up)
        self.last_error = None
        # A lock is bound to the event loop in which a task first waited for it.
        self._subscriber_lock = asyncio.Lock()
        self._subscriber_codes.clear()
        self._exchanges_checked.clear()
        private.configure_connections(self.broker, self._create_client, CONNECT_TIMEOUT)
        try:
            await _await_reply(self.broker.connect())
        except InvalidFrameError as error:
            # aiormq drops the words of a server that refuses the virtual host.
            for close in find_locals(error, spec.Connection.Close):
                self.last_error = ConnectionClosed(close.reply_code, close.reply_text)
            raise
        async with asyncio.timeout(START_TIMEOUT):
            await _await_reply(self.start_publishers())

    async def declare(self) -> None:
        async with asyncio.timeout(START_TIMEOUT):
            for subscriber in self.to_declare:
                await _await_reply(private.declare(subscriber))

    async def start_subscribers(self) -> None:
        async with asyncio.timeout(START_TIMEOUT):
            await _await_reply(super().start_subscribers())

    async def drain(self) -> None:
        await self.drain_each(_cancel_consumer)
        await _let_arrive()

    async def pause(self, subscriber: Any) -> None:
        queue, tag = private.consumer(subscriber)
        await _cancel_consumer(subscriber)
        # If the connection is lost at this moment, the client must not restore the consumer.
        private.forget_consumer(queue, tag)
        await _let_arrive()
        await wait_handled(subscriber)
        # Not stop(): with the queue, resume() makes the declarations on a channel of its own first.
        subscriber.running = False

    async def stop(self, seconds: float) -> None:
        await super().stop(seconds)
        self._returned.log()
        self._created_client = self._check_channel = self._subscriber_channel = None

    async def abort(self, seconds: float = 0.0) -> None:
        client = self.client or self._created_client
        self._returned.log()
        self._created_client = self._check_channel = self._subscriber_channel = None
        if client is not None:
            private.drop_connection(self.broker)
        try:
            await super().abort(seconds)
        finally:
            if client is not None:
                self._transports.abort()
                with suppress(Exception):
                    async with asyncio.timeout(_CLOSE_TIMEOUT):
                        await _await_reply(client.close())

    def _create_client(self, url: URL, **options: Any) -> RobustConnection:
        """Create the client and keep a reference, so that it can be closed even if it never connects."""
        # Here, because the application may have restarted its broker by itself.
        self._attempts_at_loss = -1
        self._returned = ReturnedMessages(self)
        self._created_client = ReportingConnection(url, returned=self._returned, **options)
        self._transports = self._created_client.kwargs["transport_factory"] = AbortableTransportFactory()
        self._created_client.close_callbacks.add(self._on_connection_lost)
        return self._created_client

    def _on_connection_lost(self, client: Any, error: BaseException | None) -> None:
        self._attempts_at_loss = client.connection_attempt
        # aiormq wraps these errors, which are more specific than its own.
        cause = getattr(error, "__cause__", None)
        reason = cause if isinstance(cause, gaierror | SSLError) else error
        self.last_error = reason if isinstance(reason, Exception) else None

    def _is_up(self, client: RobustConnection) -> bool:
        """Return whether the client is connected and has restored its channels."""
        return client.connected.is_set() and client.connection_attempt > self._attempts_at_loss

    async def _open_channel(self, current: AbstractChannel | None) -> AbstractChannel:
        """Return the current channel if it is still open, otherwise a new one."""
        connection = _connection_of(self.client)
        if connection is None:
            raise ConnectionError
        if current is not None and current.connection is connection and not current.is_closed:
            return current
        # Low numbers are left to subscribers with a fixed number. The highest is not used either: aiormq
        # numbers other channels upwards from the highest number in use.
        half = (connection.connection_tune.channel_max or _CHANNEL_MAX) // 2
        number = next((number for number in range(half, 0, -1) if number not in connection.channels), None)
        return await _await_reply(connection.channel(number, publisher_confirms=False))


def _is_stream(subscriber: Any) -> bool:
    """Return whether the queue of a subscriber is a stream, which keeps the messages that were consumed."""
    return bool(subscriber.queue.arguments.get("x-queue-type") == QueueType.STREAM.value)


def _declared(subscriber: Any) -> str:
    """Return what a subscriber declares, in words."""
    exchange = f" bound to the exchange {subscriber.exchange.name!r}" if subscriber.exchange.name else ""
    return f"the queue {subscriber.queue.name!r}{exchange}"


async def _declare_exchange(channel: AbstractChannel, exchange: RabbitExchange) -> None:
    """Declare an exchange and the exchanges that it is bound to, as FastStream does."""
    await channel.exchange_declare(
        exchange.name,
        exchange_type=exchange.type.value,
        passive=not exchange.declare,
        durable=exchange.durable,
        auto_delete=exchange.auto_delete,
        arguments=exchange.arguments,
    )
    if (parent := exchange.bind_to) is not None:
        await _declare_exchange(channel, parent)
        await channel.exchange_bind(
            exchange.name,
            parent.name,
            routing_key=exchange.routing(),
            arguments=exchange.bind_arguments,
        )


async def _await_reply(reply: Awaitable[T]) -> T:
    """Await a reply of the server.

    Raises:
        ConnectionError: The connection was closed; aiormq raises CancelledError then.
    """
    try:
        return await reply
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ConnectionError from error


def _connection_of(client: RobustConnection | None) -> AbstractConnection | None:
    """Return the client's current connection, or None."""
    return None if client is None or client.transport is None else client.transport.connection


def _is_blocked(client: RobustConnection) -> bool:
    """Return whether the server has announced that it does not read from this connection for now."""
    unblocked = private.unblocked_event(_connection_of(client))
    return unblocked is not None and not unblocked.is_set()


def _live_consumers(queue: RobustQueue) -> dict[str, Any]:
    """Return the consumers on a queue's channel that the server has not cancelled."""
    channel = queue.channel
    return {} if channel.is_closed else private.channel_consumers(channel)


async def _let_arrive() -> None:
    """Wait for messages that arrived before a reply: their tasks have not called FastStream yet."""
    for _ in range(5):
        await asyncio.sleep(0)


async def _cancel_consumer(subscriber: Any) -> None:
    """Cancel a subscriber's consumer, so that the server sends it no more messages."""
    queue, tag = private.consumer(subscriber)
    if isinstance(queue, RobustQueue) and tag in _live_consumers(queue):
        await _await_reply(queue.cancel(tag))
        private.clear_consumer_tag(subscriber)


driver_class = RabbitDriver
