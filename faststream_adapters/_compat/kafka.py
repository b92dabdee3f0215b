"""Private names of FastStream's Kafka broker and of aiokafka.

aiokafka 0.14 has no public equivalents.
"""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # type: ignore[import-untyped]  # aiokafka ships no types
from aiokafka.client import AIOKafkaClient  # type: ignore[import-untyped]  # aiokafka ships no types
from faststream.kafka import KafkaBroker
from faststream.kafka.message import FAKE_CONSUMER

from .faststream import producer_of
from .tasks import tasks_in

_CONNECTION_SETTINGS = (
    "client_id",
    "ssl_context",
    "security_protocol",
    "sasl_mechanism",
    "sasl_plain_username",
    "sasl_plain_password",
    "sasl_kerberos_service_name",
    "sasl_kerberos_domain_name",
    "sasl_oauth_token_provider",
)


def admin(broker: KafkaBroker) -> Any:
    """Return the admin client; None if the broker only consumes or is not connected."""
    return broker.config.broker_config.admin.admin_client


def drop_consumer(subscriber: Any) -> None:
    """Remove the references to a subscriber's consumer, including that of its parser."""
    subscriber.consumer = None
    subscriber.parser._setup(FAKE_CONSUMER)


def replace_consumers(broker: KafkaBroker, create: Callable[..., AIOKafkaConsumer]) -> None:
    """Make the subscribers of a connected broker create their consumers by this class."""
    config: Any = broker.config.broker_config
    config.builder = partial(create, **config.builder.keywords)


def is_consumer_only(broker: KafkaBroker) -> bool:
    """Return whether a broker has no clients except those of its subscribers."""
    return broker.config.broker_config.consumer_only


def unassigned_warning_task(consumer: Any) -> asyncio.Task[None] | None:
    """Return the task that warns about a consumer without partitions; `stop()` leaves it running."""
    listener = consumer._subscription.listener
    listener = getattr(listener, "logging_listener", listener)
    task: asyncio.Task[None] | None = getattr(listener, "_log_unassigned_consumer_task", None)
    return task


def producer(broker: KafkaBroker) -> Any:
    """Return the producer; None if the broker is not connected."""
    state = getattr(producer_of(broker), "_producer", None)
    return state.producer if state else None


def client(owner: Any) -> AIOKafkaClient:
    """Return the client of a consumer or an admin client; that of a producer is public."""
    return owner._client


def connection_settings(client: AIOKafkaClient) -> dict[str, Any]:
    """Return the settings of a client for `create_conn()`, including the credentials."""
    return {name: getattr(client, f"_{name}") for name in _CONNECTION_SETTINGS}


def connections(client: AIOKafkaClient) -> list[Any]:
    """Return the current connections of a client."""
    return list(client._conns.values())


def transport(connection: Any) -> asyncio.WriteTransport | None:
    """Return the transport of a connection, if the connection is open."""
    return None if connection._writer is None else connection._writer.transport


def metadata_task(client: AIOKafkaClient) -> asyncio.Task[None] | None:
    """Return the task that keeps a client's metadata up to date; None before the client has connected."""
    task: asyncio.Task[None] | None = client._sync_task
    return task


def is_complete(producer: AIOKafkaProducer) -> bool:
    """Return whether the constructor of a producer succeeded: if it rejects its options it sets no sender."""
    return hasattr(producer, "_sender")


def sender_task(producer: AIOKafkaProducer) -> asyncio.Task[None] | None:
    """Return the task that sends a producer's messages; None before the producer has started."""
    task: asyncio.Task[None] | None = producer._sender.sender_task
    return task


def unsent(producer: AIOKafkaProducer) -> int:
    """Return how many messages a producer has accepted, and the server has not confirmed."""
    accumulator = producer._message_accumulator
    waiting = [batch for batches in accumulator._batches.values() for batch in batches]
    return sum(batch.record_count for batch in (*waiting, *accumulator._pending_batches))


def fail_unsent(producer: AIOKafkaProducer, error: Exception) -> None:
    """Fail the messages that a producer has accepted but not sent."""
    producer._message_accumulator.fail_all(error)


def subscription(consumer: AIOKafkaConsumer) -> Any:
    """Return the state of a consumer's topics and partitions."""
    return consumer._subscription


def coordinator(consumer: AIOKafkaConsumer) -> Any:
    """Return the object that represents a consumer in its group, if the consumer has started."""
    return consumer._coordinator


def consumer_tasks(consumer: AIOKafkaConsumer) -> Iterator[asyncio.Task[Any]]:
    """Yield the tasks that a consumer needs, also those that it needs only after a rebalance of its group.

    A consumer with a group has a coordination task, a consumer without a group has a reset task instead.
    """
    coordinator, fetcher = consumer._coordinator, consumer._fetcher
    for owner, name in (
        (coordinator, "_coordination_task"),
        (coordinator, "_reset_committed_task"),
        (fetcher, "_fetch_task"),
        (consumer._client, "_sync_task"),
    ):
        if (task := getattr(owner, name, None)) is not None:
            yield task


def group_tasks(coordinator: Any) -> Iterator[asyncio.Task[Any]]:
    """Yield the tasks that send heartbeats, refresh the group's offsets and commit.

    The commits are found among all tasks: aiokafka shields them from cancellation and keeps no reference.
    """
    for name in ("_heartbeat_task", "_commit_refresh_task"):
        if (task := getattr(coordinator, name, None)) is not None:
            yield task
    commits = tasks_in("GroupCoordinator._do_commit_offsets")
    yield from (task for task, owner in commits if owner is coordinator)
