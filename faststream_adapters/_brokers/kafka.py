"""The driver for FastStream's Kafka brokers that use aiokafka."""

import asyncio
import random
from collections.abc import Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # type: ignore[import-untyped]  # aiokafka ships no types
from aiokafka.client import AIOKafkaClient, ConnectionGroup  # type: ignore[import-untyped]  # aiokafka ships no types
from aiokafka.conn import AIOKafkaConnection, create_conn  # type: ignore[import-untyped]  # aiokafka ships no types
from aiokafka.errors import (  # type: ignore[import-untyped]  # aiokafka ships no types
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    NoError,
    RequestTimedOutError,
    SaslAuthenticationFailed,
    StaleMetadata,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest  # type: ignore[import-untyped]  # aiokafka ships no types
from faststream.exceptions import SetupError
from faststream.kafka import KafkaBroker

from faststream_adapters._compat import kafka as private
from faststream_adapters._compat.faststream import Broker
from faststream_adapters._utils.tasks import uninterrupted
from faststream_adapters._utils.tracebacks import find_in_traceback, find_locals

from .codes import BrokerCode, SubscriberCode
from .draining import wait_handled, waiting_for_worker, warn_unsent
from .driver import Driver, Mismatch
from .topics import Found, Topics, publish_arguments

CONNECT_TIMEOUT = 10.0
"""Seconds that connecting may take; aiokafka's own limit is 40 s for each configured server."""

_END_TIMEOUT = 2.0
"""Seconds that each part of a client may take to end."""

_BACKLOG_TIMEOUT = 1.5
"""Seconds that the server may take for the backlog of a subscriber, behind its request for messages."""

_NODES = 3
"""How many nodes of the cluster a check sends its request to at once: one of them may be down."""

_PROBES = "probes"
"""The connection group of a consumer's checks: on its other connections a reply waits for messages."""

_REJECTED = (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)
_UNREACHABLE = (KafkaConnectionError, NodeNotReadyError, StaleMetadata)


class KafkaDriver(Driver):
    """The driver for a Kafka broker that uses aiokafka."""

    broker: KafkaBroker
    load_balancing_hint = "a consumer group (group_id=...)"
    supports_publishing = True

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._reconnecting = False
        self._topics = Topics(self._describe_topics)

    @property
    def client(self) -> AIOKafkaClient | None:
        """The client that checks use: the admin client's, or a consumer's if there is no admin client."""
        if (admin := private.admin(self.broker)) is not None:
            return private.client(admin)
        return next(map(private.client, self._consumers()), None)

    @property
    def is_reconnecting(self) -> bool:
        return self._reconnecting and not self.is_closed

    @property
    def is_closed(self) -> bool:
        producer, client = private.producer(self.broker), self.client
        sender = producer and private.sender_task(producer)
        metadata = client and private.metadata_task(client)
        return any(task is not None and task.done() for task in (sender, metadata))

    def _consumers(self) -> list[AIOKafkaConsumer]:
        return [consumer for each in self.broker.subscribers for consumer in _consumers(each)]

    def local_status(self) -> BrokerCode | None:
        return "closed" if self.is_closed else None

    async def check(self) -> BrokerCode:
        client = self.client
        if client is None:
            return await self._ping()
        # Stays false for a server that accepts connections but never replies, so that supervision restarts.
        self._reconnecting = False
        try:
            await _request_metadata(client, self._connection_group())
        except _UNREACHABLE as error:
            self._reconnecting = True
            raise await _connection_error(client) or error from None
        return "ok"

    def _connection_group(self) -> object:
        return ConnectionGroup.DEFAULT if private.admin(self.broker) else _PROBES

    def group(self, subscriber: Any) -> str | None:
        return subscriber.group_id or None

    def publish_arguments(
        self,
        subscriber: Any,
        address: str,
        destination: str = "",  # noqa: ARG002 (not for patterns)
    ) -> Mapping[str, Any] | None:
        return publish_arguments(subscriber, address)

    async def check_subscriber(self, subscriber: Any) -> SubscriberCode | Mismatch:
        return await self._topics.find_mismatch(subscriber, self.broker.subscribers) or "ok"

    async def backlogs(self, subscribers: Sequence[Any]) -> Mapping[Any, int]:
        backlogs = await asyncio.gather(*map(_backlog, subscribers))
        found = zip(subscribers, backlogs, strict=True)
        return {subscriber: backlog for subscriber, backlog in found if backlog is not None}

    def is_backlog_shared(self, subscriber: Any) -> bool:  # noqa: ARG002 (never)
        # Each consumer has partitions of its own.
        return False

    async def _describe_topics(self, names: list[str]) -> Found:
        reply = await _request_metadata(self.client, self._connection_group(), names)
        found: dict[str, Collection[int] | None] = {}
        for error, name, *_, partitions in reply.topics:
            existing = {partition for _, partition, *_ in partitions}
            found[name] = existing if error in {NoError.errno, UnknownTopicOrPartitionError.errno} else None
        return found

    def classify(self, error: BaseException) -> BrokerCode:
        if isinstance(error, ExceptionGroup):
            # Some subscribers start several consumers concurrently.
            return self.classify(error.exceptions[0])
        if isinstance(error, _REJECTED) or _lacks_proof(error):
            return "auth_failed"
        if isinstance(error, RequestTimedOutError):
            return "timeout"
        return "unreachable" if isinstance(error, _UNREACHABLE) else super().classify(error)

    def consuming_tasks(self, subscriber: Any) -> "Sequence[asyncio.Task[Any]]":
        own = super().consuming_tasks(subscriber)
        return [*own, *(task for each in _consumers(subscriber) for task in private.consumer_tasks(each))]

    def is_idle(self, subscriber: Any) -> bool:
        return not waiting_for_worker(subscriber) and super().is_idle(subscriber)

    def is_load_balanced(self, subscriber: Any) -> bool | None:
        return bool(subscriber.group_id and not subscriber.partitions)

    async def restart(self, subscriber: Any) -> None:
        consumers = list(_consumers(subscriber))
        with suppress(Exception):
            async with asyncio.timeout(_END_TIMEOUT):
                await self.stop_now(subscriber)
        # stop() ends early at a task that has failed.
        _detach_consumers(subscriber)
        await asyncio.gather(*map(_end_consumer, consumers))
        await subscriber.start()

    async def connect(self, *, consume: bool, supervise: bool) -> None:  # noqa: ARG002 (aiokafka never gives up)
        if private.is_consumer_only(self.broker) and not (consume and self.broker.subscribers):
            msg = (
                "A broker with consumer_only=True and no subscribers to start would never connect: "
                "give it a subscriber, or leave out consumer_only."
            )
            raise SetupError(msg)
        self.last_error = None
        self._reconnecting = False
        self._topics = Topics(self._describe_topics)
        try:
            with _closing_unfinished():
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await self.broker.connect()
            private.replace_consumers(self.broker, Consumer)
            await self.start_publishers()
        except BaseException as error:
            # Only the traceback refers to a producer whose start failed.
            producer = find_in_traceback(error, AIOKafkaProducer)
            # A producer whose options were rejected is incomplete.
            if producer is not None and private.is_complete(producer):
                try:
                    if isinstance(error, _UNREACHABLE):
                        self.last_error = await _connection_error(producer.client)
                    elif _lacks_proof(error):
                        self.last_error = SaslAuthenticationFailed("the server has sent no proof")
                finally:
                    await uninterrupted(_end_producer(producer))
            raise

    async def drain(self) -> None:
        await asyncio.gather(*map(_finish, self.to_drain))

    async def pause(self, subscriber: Any) -> None:
        await _finish(subscriber)
        await self._end_consumers(self.stop_now(subscriber), [subscriber])

    async def leave_groups(self) -> None:
        await self._end_consumers(super().drain(), self.broker.subscribers)

    async def stop(self, seconds: float) -> None:
        await self._end_consumers(super().stop(seconds), self.broker.subscribers)

    async def _end_consumers(self, stop: Coroutine[Any, Any, None], subscribers: Sequence[Any]) -> None:
        """Stop the consumers of subscribers by a method of FastStream, and those that it has not stopped."""
        consumers = [consumer for each in subscribers for consumer in _consumers(each)]
        try:
            await stop
            # aiokafka's stop() may end early with CancelledError, which FastStream takes for a regular end.
            for subscriber in subscribers:
                _detach_consumers(subscriber)
            await asyncio.gather(*(_end_consumer(each) for each in consumers if _has_running_tasks(each)))
        finally:
            for consumer in consumers:
                _cancel_unassigned_warning(consumer)

    async def abort(self, seconds: float = 0.0) -> None:
        consumers = self._consumers()
        producer, admin = private.producer(self.broker), private.admin(self.broker)
        for subscriber in self.broker.subscribers:
            _detach_consumers(subscriber)
        await asyncio.gather(*map(_end_consumer, consumers))
        if producer is not None:
            warn_unsent(self.name, private.unsent(producer), self.loggers)
            await _end_producer(producer)
        if admin is not None:
            await _end_client(private.client(admin))
        await super().abort(seconds)


def _lacks_proof(error: BaseException) -> bool:
    """Return whether aiokafka misses the server's proof `v` in the text that rejects a SCRAM password."""
    return isinstance(error, KeyError) and error.args == ("v",)


def _consumers(subscriber: Any) -> Iterator[AIOKafkaConsumer]:
    """Yield aiokafka's consumers of a subscriber; a TestBroker has none."""
    subgroup = getattr(subscriber, "consumer_subgroup", ())
    for consumer in subgroup or (subscriber.consumer,):
        if isinstance(consumer, AIOKafkaConsumer):
            yield consumer


async def _backlog(subscriber: Any) -> int | None:
    """Return how many messages the partitions of a subscriber have after its position; None if unknown."""
    backlog: int | None = None
    try:
        async with asyncio.timeout(_BACKLOG_TIMEOUT):
            for consumer in _consumers(subscriber):
                backlog = backlog or 0
                # The consumer knows an end of its own, but only since its last request for messages.
                ends = await consumer.end_offsets(consumer.assignment())
                for partition, end in ends.items():
                    backlog += max(end - await consumer.position(partition), 0)
    except (KafkaError, TimeoutError):
        # Also if the group has just assigned a partition to another consumer.
        return None
    return backlog


def _cancel_unassigned_warning(consumer: AIOKafkaConsumer) -> None:
    """Cancel FastStream's pending warning that a consumer has no partitions."""
    if (task := private.unassigned_warning_task(consumer)) is not None:
        task.cancel()


def _detach_consumers(subscriber: Any) -> None:
    """Detach the consumers from a subscriber, so that its stop() does not stop them."""
    private.drop_consumer(subscriber)
    if hasattr(subscriber, "consumer_subgroup"):
        subscriber.consumer_subgroup = []


def _pause(consumer: AIOKafkaConsumer) -> None:
    """Pause all partitions of a consumer, including those that its group assigns to it later."""
    subscription = private.subscription(consumer)
    assign = subscription.assign_from_subscribed

    def assign_paused(partitions: Any) -> None:
        # A rebalance of the group ends a pause.
        assign(partitions)
        consumer.pause(*partitions)

    subscription.assign_from_subscribed = assign_paused
    consumer.pause(*consumer.assignment())


async def _finish(subscriber: Any) -> None:
    """Let a subscriber receive no more messages, and wait until it has handled those it has received."""
    for consumer in _consumers(subscriber):
        _pause(consumer)
    await wait_handled(subscriber)


def _has_running_tasks(consumer: AIOKafkaConsumer) -> bool:
    return any(not task.done() for task in private.consumer_tasks(consumer))


async def _request_metadata(client: AIOKafkaClient, group: object, topics: Sequence[str] = ()) -> Any:
    """Request metadata from some nodes at once, and return the first reply.

    Args:
        client: The client.
        group: The connection group to use.
        topics: The topics to describe. None by default, because a cluster may have thousands of them.

    Raises:
        KafkaError: All of them failed.
    """
    # A cluster without topics may report no nodes: use the bootstrap connection then.
    known = [(node.nodeId, group) for node in client.cluster.brokers()]
    nodes = known or [("bootstrap", ConnectionGroup.DEFAULT)]
    error: Exception = NodeNotReadyError()
    request = MetadataRequest(list(topics), allow_auto_topic_creation=False)
    requests = [
        asyncio.ensure_future(client.send(node, request, group=node_group))
        for node, node_group in random.sample(nodes, min(len(nodes), _NODES))
    ]
    try:
        for reply in asyncio.as_completed(requests):
            try:
                return await reply
            except KafkaError as raised:
                error = raised
        raise error
    finally:
        for request in requests:
            # aiokafka drops a reply that arrives after this.
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)


async def _connection_error(client: AIOKafkaClient) -> BaseException | None:
    """Return why a client cannot connect, found by a new connection: aiokafka only logs the reason."""
    host, port, _ = client.hosts[0]
    try:
        connection = await create_conn(
            host,
            port,
            request_timeout_ms=int(_END_TIMEOUT * 1000),
            **private.connection_settings(client),
        )
    except Exception as error:  # noqa: BLE001 (it is the result)
        return error
    connection.close()
    return None


async def _run_briefly(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run something that may raise or wait for the server, for at most `_END_TIMEOUT`, and ignore errors."""
    task = asyncio.ensure_future(coroutine)
    try:
        await asyncio.wait((task,), timeout=_END_TIMEOUT)
    finally:
        await _cancel_task(task)


async def _cancel_task(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.wait((task,), timeout=_END_TIMEOUT)
    if task.done() and not task.cancelled():
        # Retrieve the exception, or else the event loop logs that it was never retrieved.
        task.exception()


@contextmanager
def _closing_unfinished() -> Iterator[None]:
    """Close the connections of a start that fails: aiokafka forgets the first one if it is cancelled."""
    try:
        yield
    except BaseException as error:
        for connection in find_locals(error, AIOKafkaConnection):
            _close_connection(connection)
        raise


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka ships no types
    """A consumer that closes the connections of its start if that fails.

    FastStream starts several consumers of a subscriber in tasks, whose errors it may never see.
    """

    async def start(self) -> None:
        with _closing_unfinished():
            await super().start()


def _close_connection(connection: AIOKafkaConnection) -> None:
    if (transport := private.transport(connection)) is not None:
        # close() alone would wait until a frozen server has read everything.
        transport.abort()
    connection.close()


async def _end_client(client: AIOKafkaClient) -> None:
    """Close a client and its connections; pending requests fail."""
    for connection in private.connections(client):
        _close_connection(connection)
    await _run_briefly(client.close())


async def _end_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer without a commit, and without leaving its group."""
    _cancel_unassigned_warning(consumer)
    coordinator = private.coordinator(consumer)
    for task in (*private.consumer_tasks(consumer), *private.group_tasks(coordinator)):
        await _cancel_task(task)
    if hasattr(coordinator, "generation"):
        # Without a generation it is no member of the group, and does not send a request to leave it.
        coordinator.generation = -1
    await _end_client(private.client(consumer))
    await _run_briefly(consumer.stop())


async def _end_producer(producer: AIOKafkaProducer) -> None:
    """Stop a producer; its unsent messages fail."""
    if (sender := private.sender_task(producer)) is not None:
        # Otherwise it would send the messages again whose connection is closed below.
        sender.cancel()
        await _end_client(producer.client)
        await _cancel_task(sender)
    private.fail_unsent(producer, KafkaConnectionError("The producer was stopped."))
    await _run_briefly(producer.stop())


driver_class = KafkaDriver
