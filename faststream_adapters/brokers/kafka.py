"""Kafka by aiokafka: what its clients can be asked, and how they are ended without asking the server.

aiokafka has no public way for most of this: the private attributes that are used are its own.
"""
# ruff: noqa: SLF001

import asyncio
import random
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from traceback import walk_tb
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # type: ignore[import-untyped]  # aiokafka ships no types
from aiokafka.client import AIOKafkaClient, ConnectionGroup  # type: ignore[import-untyped]  # aiokafka ships no types
from aiokafka.conn import create_conn  # type: ignore[import-untyped]  # aiokafka ships no types
from aiokafka.errors import (  # type: ignore[import-untyped]  # aiokafka ships no types
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    RequestTimedOutError,
    SaslAuthenticationFailed,
    StaleMetadata,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest  # type: ignore[import-untyped]  # aiokafka ships no types
from faststream.exceptions import SetupError
from faststream.kafka import KafkaBroker

from faststream_adapters._compat import (
    Broker,
    kafka_admin,
    kafka_only_consumes,
    kafka_producer,
    kafka_warning,
)

from . import PING_TIMEOUT, Code, Driver
from .handlers import finished, waiting

CONNECT_TIMEOUT = 10.0
"""Seconds that connecting may take; aiokafka's own limit is 40 s for each server that it is given."""

_END_TIMEOUT = 2.0
"""Seconds that each part of a client gets to end."""

_NODES = 3
"""How many of the cluster's servers a round trip asks at once: one of them may be away."""

_PROBES = "probes"
"""The connection of a consumer that carries the round trips: on the others answers wait for messages."""

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
    """The clients of a Kafka broker that uses aiokafka."""

    broker: KafkaBroker
    sharing = "a consumer group (group_id=...)"

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._reconnecting = False

    @property
    def client(self) -> AIOKafkaClient | None:
        """The client that is asked: the administrator's, or a consumer's where there is nothing else."""
        if (admin := kafka_admin(self.broker)) is not None:
            return admin._client
        return next((consumer._client for consumer in self._consumers()), None)

    @property
    def real(self) -> bool:
        return self.client is not None

    @property
    def reconnecting(self) -> bool:
        return self._reconnecting and not self.gave_up

    @property
    def gave_up(self) -> bool:
        producer, client = kafka_producer(self.broker), self.client
        sender = producer and producer._sender.sender_task
        return any(task is not None and task.done() for task in (sender, client and client._sync_task))

    def _consumers(self) -> list[AIOKafkaConsumer]:
        return [consumer for each in self.broker.subscribers for consumer in _consumers(each)]

    def epoch(self) -> object:
        return self.client

    def down(self) -> Code | None:
        return "closed" if self.gave_up else None

    async def check(self) -> Code:
        client = self.client
        if client is None:
            return "ok" if await self.broker.ping(PING_TIMEOUT) else "not_started"
        # A server that takes connections, and does not answer, is not waited for for ever.
        self._reconnecting = False
        try:
            await _ask(client, ConnectionGroup.DEFAULT if kafka_admin(self.broker) else _PROBES)
        except _UNREACHABLE as error:
            self._reconnecting = True
            raise await _why(client) or error from None
        return "ok"

    def code(self, error: BaseException) -> Code:
        if isinstance(error, ExceptionGroup):
            # Some subscribers start several consumers at once.
            return self.code(error.exceptions[0])
        # Some servers reject a password by words that aiokafka looks for the proof of the server's own in.
        if isinstance(error, _REJECTED) or (isinstance(error, KeyError) and error.args == ("v",)):
            return "auth"
        if isinstance(error, RequestTimedOutError):
            return "timeout"
        return "refused" if isinstance(error, _UNREACHABLE) else super().code(error)

    def alive(self, subscriber: Any) -> int:
        return super().alive(subscriber) - sum(map(_is_dead, _consumers(subscriber)))

    def idle(self, subscriber: Any) -> bool:
        return not waiting(subscriber) and super().idle(subscriber)

    def shared(self, subscriber: Any) -> bool | None:
        return bool(subscriber.group_id and not subscriber.partitions)

    async def revive(self, subscriber: Any) -> None:
        consumers = list(_consumers(subscriber))
        with suppress(Exception):
            async with asyncio.timeout(_END_TIMEOUT):
                await self.halt(subscriber)
        # stop() breaks off at a task that has failed.
        _let_go(subscriber)
        await asyncio.gather(*map(_end_consumer, consumers))
        await subscriber.start()

    async def start(self, *, consume: bool, supervise: bool) -> None:  # noqa: ARG002 (aiokafka never gives up)
        if kafka_only_consumes(self.broker) and not (consume and self.broker.subscribers):
            msg = "A broker with consumer_only=True that has no subscribers to start is never connected."
            raise SetupError(msg)
        self.last_error = None
        self._reconnecting = False
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self.broker.connect()
            await self.start_endpoints(consume=consume)
        except BaseException as error:
            # A producer that was connecting is known to nobody.
            if (producer := _producer_in(error)) is not None:
                if isinstance(error, _UNREACHABLE):
                    self.last_error = await _why(producer.client)
                await _end_producer(producer)
            raise

    async def drain(self) -> None:
        for consumer in self._consumers():
            _pause(consumer)
        await asyncio.gather(*map(finished, self.broker.subscribers))

    async def stop(self, seconds: float) -> None:
        consumers = self._consumers()
        try:
            await super().stop(seconds)
            # aiokafka's stop() may break off with a cancellation, which FastStream takes for an end.
            for subscriber in self.broker.subscribers:
                _let_go(subscriber)
            await asyncio.gather(*(_end_consumer(each) for each in consumers if _goes_on(each)))
        finally:
            for consumer in consumers:
                _silence(consumer)

    async def abort(self, seconds: float = 0.0) -> None:
        consumers = self._consumers()
        producer, admin = kafka_producer(self.broker), kafka_admin(self.broker)
        for subscriber in self.broker.subscribers:
            _let_go(subscriber)
        await asyncio.gather(*map(_end_consumer, consumers))
        if producer is not None:
            await _end_producer(producer)
        if admin is not None:
            await _end_client(admin._client)
        await super().abort(seconds)


def _consumers(subscriber: Any) -> Iterator[AIOKafkaConsumer]:
    """Yield aiokafka's consumers of a subscriber; those of a TestBroker are not among them."""
    several = getattr(subscriber, "consumer_subgroup", ())
    for consumer in several or (subscriber.consumer,):
        if isinstance(consumer, AIOKafkaConsumer):
            yield consumer


def _silence(consumer: AIOKafkaConsumer) -> None:
    """Keep FastStream from a warning about a consumer that has ended."""
    if (warning := kafka_warning(consumer)) is not None:
        warning.cancel()


def _let_go(subscriber: Any) -> None:
    """Make a subscriber's stop() leave its consumers alone."""
    subscriber.consumer = None
    if hasattr(subscriber, "consumer_subgroup"):
        subscriber.consumer_subgroup = []


def _pause(consumer: AIOKafkaConsumer) -> None:
    """Make a consumer hand over nothing more, whatever its group gives it."""
    subscription = consumer._subscription
    assign = subscription.assign_from_subscribed

    def assign_paused(partitions: Any) -> None:
        # A pause does not outlast a change of the group.
        assign(partitions)
        consumer.pause(*partitions)

    subscription.assign_from_subscribed = assign_paused
    consumer.pause(*consumer.assignment())


def _tasks(consumer: AIOKafkaConsumer) -> "Iterator[asyncio.Task[Any]]":
    """Yield the tasks without which a consumer consumes nothing, or nothing more after a change."""
    coordinator, fetcher = consumer._coordinator, consumer._fetcher
    for owner, name in (
        (coordinator, "_coordination_task"),
        (coordinator, "_reset_committed_task"),
        (fetcher, "_fetch_task"),
        (consumer._client, "_sync_task"),
    ):
        if (task := getattr(owner, name, None)) is not None:
            yield task


def _is_dead(consumer: AIOKafkaConsumer) -> bool:
    return consumer._closed or any(task.done() for task in _tasks(consumer))


def _goes_on(consumer: AIOKafkaConsumer) -> bool:
    return any(not task.done() for task in _tasks(consumer))


async def _ask(client: AIOKafkaClient, group: object) -> None:
    """Have some of the servers answer, and return when the first does."""
    # A cluster without topics may name no servers: then there is the connection to the first.
    known = [(node.nodeId, group) for node in client.cluster.brokers()]
    nodes = known or [("bootstrap", ConnectionGroup.DEFAULT)]
    # Without topics: a cluster may have thousands of them.
    error: Exception = NodeNotReadyError()
    asked = [
        asyncio.ensure_future(client.send(node, MetadataRequest([]), group=of))
        for node, of in random.sample(nodes, min(len(nodes), _NODES))
    ]
    try:
        for answer in asyncio.as_completed(asked):
            try:
                await answer
            except KafkaError as raised:
                error = raised
            else:
                return
        raise error
    finally:
        for each in asked:
            # An answer that comes later is dropped by aiokafka.
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def _why(client: AIOKafkaClient) -> BaseException | None:
    """Return why there is no connection: aiokafka only writes that into its log."""
    host, port, _ = client.hosts[0]
    try:
        connection = await create_conn(
            host,
            port,
            client_id=client._client_id,
            request_timeout_ms=int(_END_TIMEOUT * 1000),
            ssl_context=client._ssl_context,
            security_protocol=client._security_protocol,
            sasl_mechanism=client._sasl_mechanism,
            sasl_plain_username=client._sasl_plain_username,
            sasl_plain_password=client._sasl_plain_password,
            sasl_kerberos_service_name=client._sasl_kerberos_service_name,
            sasl_kerberos_domain_name=client._sasl_kerberos_domain_name,
            sasl_oauth_token_provider=client._sasl_oauth_token_provider,
        )
    except Exception as error:  # noqa: BLE001 (that is the answer)
        return error
    connection.close()
    return None


def _producer_in(error: BaseException) -> AIOKafkaProducer | None:
    """Return the producer whose method raised this."""
    for frame, _ in walk_tb(error.__traceback__):
        producer = frame.f_locals.get("self")
        # One that was given options that it rejects is made by half.
        if isinstance(producer, AIOKafkaProducer) and hasattr(producer, "_sender"):
            return producer
    # A timeout is raised outside of what it has cancelled.
    return None if error.__context__ is None else _producer_in(error.__context__)


async def _within(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run something that may wait for the server, or raise, and give it up soon."""
    task = asyncio.ensure_future(coroutine)
    await asyncio.wait((task,), timeout=_END_TIMEOUT)
    await _cancelled(task)


async def _cancelled(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.wait((task,), timeout=_END_TIMEOUT)
    if task.done() and not task.cancelled():
        # Asking for the exception keeps the event loop from reporting it as never retrieved.
        task.exception()


async def _end_client(client: AIOKafkaClient) -> None:
    """Close a client's connections: whoever waits for an answer has an error instead."""
    for connection in list(client._conns.values()):
        if connection._writer is not None:
            # Not only close(): that waits until a frozen server has read everything.
            connection._writer.transport.abort()
        connection.close()
    await _within(client.close())


async def _end_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer that neither commits nor tells its group."""
    _silence(consumer)
    coordinator = consumer._coordinator
    others = [getattr(coordinator, name, None) for name in ("_heartbeat_task", "_commit_refresh_task")]
    for task in (*_tasks(consumer), *filter(None, others), *_commits(coordinator)):
        await _cancelled(task)
    if hasattr(coordinator, "generation"):
        # Without one it does not belong to the group, and need not leave it.
        coordinator.generation = -1
    await _end_client(consumer._client)
    await _within(consumer.stop())


def _commits(coordinator: Any) -> "Iterator[asyncio.Task[Any]]":
    """Yield the commits that are under way: aiokafka shields them, and nobody would learn that they fail."""
    for task in asyncio.all_tasks():
        coroutine: Any = task.get_coro()
        named = coroutine.__name__ == "_do_commit_offsets"
        if named and coroutine.cr_frame.f_locals["self"] is coordinator:
            yield task


async def _end_producer(producer: AIOKafkaProducer) -> None:
    """Stop a producer; what it has not sent fails."""
    if (sender := producer._sender.sender_task) is not None:
        # It would send again what its connection has failed with.
        sender.cancel()
        await _end_client(producer.client)
        await _cancelled(sender)
    producer._message_accumulator.fail_all(KafkaConnectionError("The producer was stopped."))
    await _within(producer.stop())


driver = KafkaDriver
