"""RabbitMQ: what aio-pika's robust connection can be asked, and how it is ended."""

import asyncio
import logging
import math
from collections.abc import Awaitable
from contextlib import suppress
from socket import gaierror
from ssl import SSLError
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from aio_pika import RobustConnection
from aio_pika.exceptions import AuthenticationError, ProbableAuthenticationError
from aio_pika.robust_queue import RobustQueue
from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    InvalidFrameError,
)
from faststream.rabbit import QueueType, RabbitBroker, RabbitExchange
from yarl import URL

from faststream_adapters._compat import (
    Broker,
    rabbit_channel,
    rabbit_client,
    rabbit_connect_by,
    rabbit_consumer,
    rabbit_forget_connection,
    rabbit_forget_consumer,
    rabbit_forget_queues,
)

from . import PING_TIMEOUT, Code, Driver

logger = logging.getLogger("faststream.adapters")

T = TypeVar("T")

CONNECT_TIMEOUT = 10.0
"""Seconds that one try to connect gets where the user has not said; aio-pika would wait for ever."""

ASK_TIMEOUT = 5.0
"""Seconds that the server gets to tell about a consumer."""

START_TIMEOUT = 30.0
"""Seconds that the server gets to set up all subscribers, or one of them again."""

_CLOSE_TIMEOUT = 5.0

_CHANNEL_MAX = 65535
"""The highest number of a channel where the server sets no limit."""


class _Sockets(TransportFactory):
    """Opens the sockets of one connection, and closes the last one without a word to the server."""

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


class RabbitDriver(Driver):
    """A RabbitMQ broker's client."""

    broker: RabbitBroker
    sharing = "a queue with a name"

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._made: RobustConnection | None = None
        self._sockets = _Sockets()
        # How often the client had connected when it lost its connection the last time.
        self._connects = -1
        # Channels of our own: what goes wrong on one closes it, and cancels the handlers of its messages.
        self._probe: AbstractChannel | None = None
        self._question: AbstractChannel | None = None
        self._asking = asyncio.Lock()
        self._unanswered = -math.inf
        self._counted: WeakSet[object] = WeakSet()
        self._answers: WeakKeyDictionary[object, Code] = WeakKeyDictionary()

    @property
    def client(self) -> RobustConnection | None:
        """The client, if it is a real one."""
        client = rabbit_client(self.broker)
        return client if isinstance(client, RobustConnection) else None

    @property
    def real(self) -> bool:
        return self.client is not None

    @property
    def reconnecting(self) -> bool:
        client = self.client
        if client is None or self.gave_up:
            return False
        # A server that is short of memory or disk does not read what a publisher sends, until it is not.
        return not self._is_up(client) or _is_blocked(client)

    @property
    def gave_up(self) -> bool:
        client = self.client
        if client is None or self._is_up(client):
            return False
        # Nobody starts the task that reconnects again when somebody has cancelled it.
        task = vars(client).get("_RobustConnection__reconnection_task")
        return client.close_called or (task is not None and task.done())

    def epoch(self) -> object:
        client = self.client
        return client and (client, _connection_of(client))

    def down(self) -> Code | None:
        client = self.client
        if client is None or self._is_up(client):
            return None
        if client.close_called:
            return "closed"
        return "refused" if self.last_error is None else self.code(self.last_error)

    async def check(self) -> Code:
        if not await self.broker.ping(PING_TIMEOUT):
            return "error" if self.real else "not_started"
        if self.client is not None:
            self._probe = await self._channel(self._probe)
            # What it sets is of no use to a channel without consumers, and it needs no permission.
            await _uncancelled(self._probe.basic_qos(prefetch_count=0))
        return "ok"

    def code(self, error: BaseException) -> Code:
        if isinstance(error, AuthenticationError | ProbableAuthenticationError | ChannelAccessRefused):
            return "auth"
        if isinstance(error, ChannelInvalidStateError):
            return "closed"
        # What aiormq makes of a virtual host that is not there, or not for this user.
        closed = isinstance(error, InvalidFrameError) and "Connection.Close" in str(error)
        return "refused" if closed else super().code(error)

    def alive(self, subscriber: Any) -> int:
        queue, tag = rabbit_consumer(subscriber)
        return int(isinstance(queue, RobustQueue) and tag in _consumers_of(queue))

    def expected(self, subscriber: Any) -> int:
        return int(isinstance(rabbit_consumer(subscriber)[0], RobustQueue))

    def shared(self, subscriber: Any) -> bool | None:
        # Each process has a queue without a name for itself, and reads the whole of a stream.
        queue = subscriber.queue
        return bool(queue.name) and queue.arguments.get("x-queue-type") != QueueType.STREAM.value

    async def ask_consumer(self, subscriber: Any) -> Code:
        queue, _ = rabbit_consumer(subscriber)
        if not isinstance(queue, RobustQueue):
            return "ok"
        loop = asyncio.get_running_loop()
        begun = loop.time()
        # One at a time: a queue that is not there closes the channel. Waiting for the others is not counted.
        async with self._asking:
            # One silence is enough: who has waited for it would only wait for the next one.
            if self._unanswered < begun:
                try:
                    async with asyncio.timeout(ASK_TIMEOUT):
                        self._answers[subscriber] = await self._ask(subscriber, queue)
                except TimeoutError:
                    self._unanswered = loop.time()
                except Exception as error:  # noqa: BLE001 (whatever it is, the server did not tell)
                    return self.code(error)
        # That the server is slow to tell is no news of the consumer.
        return self._answers.get(subscriber, "ok")

    async def _ask(self, subscriber: Any, queue: RobustQueue) -> Code:
        try:
            self._question = await self._channel(self._question)
            found = await _uncancelled(self._question.queue_declare(queue.name, passive=True))
        except ChannelNotFoundEntity:
            return "deleted"
        if found.consumer_count:
            self._counted.add(subscriber)
            return "ok"
        # Nobody counts those of a stream.
        return "deleted" if subscriber in self._counted else "ok"

    async def revive(self, subscriber: Any) -> None:
        async with asyncio.timeout(START_TIMEOUT):
            await _uncancelled(self._revive(subscriber))

    async def _revive(self, subscriber: Any) -> None:
        queue, _ = rabbit_consumer(subscriber)
        channel = await rabbit_channel(subscriber)
        # It ends at once if the channel is there, and waits for the client if it is at work on that.
        await channel.restore()
        # Perhaps the client has brought it back, now or since the last try.
        if self.alive(subscriber) and await self.ask_consumer(subscriber) == "ok":
            return
        # There is none if the last try has come as far as that.
        if queue is not None:
            await self._declare(subscriber, queue)
        await self.halt(subscriber)
        rabbit_forget_queues(self.broker)
        if queue is not None and not queue._consumers:  # noqa: SLF001 (aio-pika has no public way)
            # The client would declare it again each time it has reconnected.
            known = channel._queues  # noqa: SLF001 (aio-pika has no public way)
            others = known.pop(queue.name, set()) - {queue}
            # It cannot bear a name without a queue.
            known.update({queue.name: others} if others else {})
        await subscriber.start()
        self._answers.pop(subscriber, None)

    async def _declare(self, subscriber: Any, queue: RobustQueue) -> None:
        """Find out what the server says to a start; on the channel of others an error would close that."""
        async with self._asking:
            channel = self._question = await self._channel(self._question)
            await channel.queue_declare(
                queue.name,
                passive=queue.passive,
                durable=queue.durable,
                exclusive=queue.exclusive,
                auto_delete=queue.auto_delete,
                arguments=queue.arguments,
            )
            exchange = subscriber.exchange
            # FastStream leaves the bindings of a queue that it does not declare to others.
            if exchange.name and not queue.passive:
                await _declare_exchange(channel, exchange)
                await channel.queue_bind(
                    queue.name,
                    exchange.name,
                    routing_key=subscriber.routing(),
                    arguments=subscriber.queue.bind_arguments,
                )

    async def start(self, *, consume: bool, supervise: bool) -> None:  # noqa: ARG002 (it never gives up)
        self.last_error = None
        self._connects = -1
        # A lock belongs to the event loop that it was waited for in.
        self._asking = asyncio.Lock()
        self._answers.clear()
        rabbit_connect_by(self.broker, self._make, CONNECT_TIMEOUT)
        await _uncancelled(self.broker.connect())
        async with asyncio.timeout(START_TIMEOUT):
            await _uncancelled(self.start_endpoints(consume=consume))

    async def drain(self) -> None:
        # One that cannot be drained must not keep the others from it.
        found = await asyncio.gather(*map(_cancel, self.broker.subscribers), return_exceptions=True)
        for error in found:
            if isinstance(error, Exception):
                logger.warning("%s: %s while draining a subscriber.", self.name, type(error).__name__)
        # What came before the server's answer is in tasks that have not yet called FastStream.
        for _ in range(5):
            await asyncio.sleep(0)

    async def abort(self, seconds: float = 0.0) -> None:
        client, self._made = self.client or self._made, None
        if client is not None:
            rabbit_forget_connection(self.broker)
        try:
            await super().abort(seconds)
        finally:
            if client is not None:
                self._sockets.abort()
                with suppress(Exception):
                    async with asyncio.timeout(_CLOSE_TIMEOUT):
                        await _uncancelled(client.close())

    def _make(self, url: URL, **options: Any) -> RobustConnection:
        """Return a connection; one that is never made would else be known to nobody, and go on trying."""
        self._made = RobustConnection(url, **options)
        self._sockets = self._made.kwargs["transport_factory"] = _Sockets()
        self._made.close_callbacks.add(self._note_loss)
        return self._made

    def _note_loss(self, client: Any, error: BaseException | None) -> None:
        self._connects = client.connection_attempt
        # aiormq wraps what says more than itself.
        cause = getattr(error, "__cause__", None)
        told = cause if isinstance(cause, gaierror | SSLError) else error
        self.last_error = told if isinstance(told, Exception) else None

    def _is_up(self, client: RobustConnection) -> bool:
        """Return whether the client is connected, and has set its channels up again."""
        return client.connected.is_set() and client.connection_attempt > self._connects

    async def _channel(self, kept: AbstractChannel | None) -> AbstractChannel:
        """Return this channel if it is still there, else a new one."""
        connection = _connection_of(self.client)
        if connection is None:
            raise ConnectionError
        if kept is not None and kept.connection is connection and not kept.is_closed:
            return kept
        # Low numbers are left to subscribers that ask for one. Not the highest either: aiormq numbers
        # the channels that ask for none from the highest in use on.
        half = (connection.connection_tune.channel_max or _CHANNEL_MAX) // 2
        number = next((number for number in range(half, 0, -1) if number not in connection.channels), None)
        return await _uncancelled(connection.channel(number, publisher_confirms=False))


async def _declare_exchange(channel: AbstractChannel, exchange: RabbitExchange) -> None:
    """Declare an exchange, and what it is bound to, as FastStream does."""
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


async def _uncancelled(answer: Awaitable[T]) -> T:
    """Await something; aiormq raises CancelledError in who waits on a connection that is closed."""
    try:
        return await answer
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ConnectionError from error


def _connection_of(client: RobustConnection | None) -> AbstractConnection | None:
    """Return the connection that the client has at the moment."""
    return None if client is None or client.transport is None else client.transport.connection


def _is_blocked(client: RobustConnection) -> bool:
    """Return whether the server has said that it does not read from this connection for now."""
    unblocked = vars(_connection_of(client)).get("_Connection__connection_unblocked")
    return unblocked is not None and not unblocked.is_set()


def _consumers_of(queue: RobustQueue) -> dict[str, Any]:
    """Return the consumers that the server knows of on a queue's channel."""
    channel: Any = queue.channel
    if channel.is_closed:
        return {}
    consumers: dict[str, Any] = channel._channel.channel.consumers  # noqa: SLF001 (aio-pika has no public way)
    return consumers


async def _cancel(subscriber: Any) -> None:
    """Have the server send nothing more to a subscriber."""
    queue, tag = rabbit_consumer(subscriber)
    if isinstance(queue, RobustQueue) and tag in _consumers_of(queue):
        await _uncancelled(queue.cancel(tag))
        rabbit_forget_consumer(subscriber)


driver = RabbitDriver
