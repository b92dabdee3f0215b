"""Private names of FastStream's RabbitMQ broker, of aio-pika and of aiormq.

aio-pika 10.2 and aiormq 7.2 have no public equivalents.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from aio_pika import RobustConnection
from aio_pika.abc import AbstractChannel
from aio_pika.robust_queue import RobustQueue
from aiormq.abc import AbstractConnection
from faststream.rabbit import RabbitBroker

from .faststream import forget_connection


async def declare(subscriber: Any) -> None:
    """Declare and bind the queue of a subscriber, as its `start()` does before it consumes."""
    config = subscriber._outer_config
    queue = subscriber.queue.add_prefix(config.prefix)
    declared = await config.declarer.declare_queue(queue, channel=subscriber.channel)
    if queue.declare and subscriber.exchange.name:
        exchange = await config.declarer.declare_exchange(subscriber.exchange, channel=subscriber.channel)
        await declared.bind(
            exchange,
            routing_key=queue.routing(),
            arguments=queue.bind_arguments,
            timeout=queue.timeout,
            robust=subscriber.queue.robust,
        )


def queue_name(subscriber: Any) -> str:
    """Return the name of a subscriber's queue; empty if the server names it."""
    name: str = subscriber.queue.name
    return name and f"{subscriber._outer_config.prefix}{name}"


async def channel(subscriber: Any) -> Any:
    """Return the channel of a subscriber, which it may share with others."""
    return await subscriber._outer_config.channel_manager.get_channel(subscriber.channel)


def client(broker: RabbitBroker) -> object:
    """Return the client of a broker, also that of a TestBroker; None if it is not connected."""
    return broker._connection


def configure_connections(broker: RabbitBroker, factory: Callable[..., Any], timeout: float) -> None:
    """Set how a broker creates its connections.

    Args:
        broker: The broker.
        factory: Called in place of the connection class, with the same arguments.
        timeout: Seconds that an attempt to connect may take, unless the broker has a timeout.
    """
    options = broker._connection_kwargs
    options["connection_class"] = factory
    if options["timeout"] is None:
        options["timeout"] = timeout


async def restore_return_callback(channel: Any) -> None:
    """Make a channel that was opened again report returned messages, which aio-pika forgets."""
    underlay = await channel.get_underlay_channel()
    underlay.on_return_callbacks.add(channel._on_return)


def consumer(subscriber: Any) -> tuple[Any, str]:
    """Return the queue that a subscriber consumes from and the tag of its consumer."""
    return subscriber._queue_obj, subscriber._consumer_tag or ""


def clear_consumer_tag(subscriber: Any) -> None:
    """Clear the tag of a cancelled consumer, so that `stop()` does not cancel it again."""
    subscriber._consumer_tag = None


def clear_declarations(broker: RabbitBroker) -> None:
    """Clear the cache of declared queues and exchanges, so that they are declared again when needed."""
    broker.config.declarer.disconnect()


def drop_connection(broker: RabbitBroker) -> None:
    """Remove a broker's references to its connection, so that `stop()` does not wait for the server."""
    subscriber: Any
    for subscriber in broker.subscribers:
        subscriber._queue_obj = subscriber._consumer_tag = None
    broker._channel = None
    forget_connection(broker)
    broker.config.disconnect()


def reconnection_task(client: RobustConnection) -> asyncio.Task[None] | None:
    """Return the task that connects and reconnects; aio-pika does not replace it when it has ended."""
    task: asyncio.Task[None] | None = getattr(client, "_RobustConnection__reconnection_task", None)
    return task


def unblocked_event(connection: AbstractConnection | None) -> asyncio.Event | None:
    """Return the event that aiormq clears while the server has blocked the connection."""
    event: asyncio.Event | None = getattr(connection, "_Connection__connection_unblocked", None)
    return event


def channel_consumers(channel: AbstractChannel) -> dict[str, Any]:
    """Return the consumers of an open channel by their tags, without those that the server has cancelled.

    The list of `RobustQueue` contains the consumers that it restores, including cancelled ones.
    """
    consumers: dict[str, Any] = channel._channel.channel.consumers  # type: ignore[attr-defined]
    return consumers


def has_restored_consumers(queue: RobustQueue) -> bool:
    """Return whether aio-pika restores consumers of this queue after a reconnect."""
    return bool(queue._consumers)


def forget_consumer(queue: Any, tag: str) -> None:
    """Keep aio-pika from restoring a consumer after a reconnect."""
    queue._consumers.pop(tag, None)


def exclude_from_restore(channel: Any, queue: RobustQueue) -> None:
    """Keep aio-pika from declaring a queue again after each reconnect."""
    queues: dict[str, set[RobustQueue]] = channel._queues
    others = queues.pop(queue.name, set()) - {queue}
    if others:
        # aio-pika fails on a name with an empty set, so an empty set is not put back.
        queues[queue.name] = others
