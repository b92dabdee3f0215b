"""The only place that imports FastStream's private names or touches private attributes of its objects."""

import asyncio
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from faststream import FastStream
from faststream._internal._compat import json_dumps, json_loads
from faststream._internal.application import catch_startup_validation_error
from faststream._internal.broker import BrokerUsecase
from faststream._internal.constants import EMPTY
from faststream._internal.context import Context as ContextField
from faststream._internal.di import FastDependsConfig
from faststream._internal.utils import apply_types, to_async

if TYPE_CHECKING:
    from concurrent.futures import Executor, ThreadPoolExecutor

    from fast_depends.library.serializer import SerializerProto as SerializerProto
    from faststream._internal.basic_types import AnyCallable as AnyCallable
    from faststream._internal.basic_types import Lifespan as Lifespan
    from faststream._internal.basic_types import LoggerProto as LoggerProto
    from faststream._internal.basic_types import SettingField as SettingField
    from faststream._internal.endpoint.subscriber import SubscriberUsecase
    from faststream.confluent import KafkaBroker as ConfluentBroker
    from faststream.confluent.helpers import AsyncConfluentConsumer, AsyncConfluentProducer
    from faststream.kafka import KafkaBroker
    from faststream.mqtt import MQTTBroker
    from faststream.nats import JStream, NatsBroker
    from faststream.rabbit import RabbitBroker
    from faststream.redis import RedisBroker
    from faststream.specification.base import SpecificationFactory as SpecificationFactory

__all__ = (
    "EMPTY",
    "Broker",
    "BrokerUsecase",
    "ContextField",
    "FastDependsConfig",
    "Subscriber",
    "after_shutdown",
    "after_startup",
    "confluent_poller",
    "confluent_producer",
    "confluent_settings",
    "confluent_thread",
    "graceful_timeout",
    "handlers_of",
    "injected",
    "json_dumps",
    "json_loads",
    "kafka_admin",
    "kafka_producer",
    "kafka_warning",
    "mqtt_client",
    "mqtt_consume_again",
    "mqtt_forget_connection",
    "mqtt_settings",
    "mqtt_subscription",
    "nats_forget_buckets",
    "nats_forget_connection",
    "nats_streams",
    "on_shutdown",
    "on_startup",
    "options_of",
    "rabbit_channel",
    "rabbit_client",
    "rabbit_connect_by",
    "rabbit_consumer",
    "rabbit_forget_connection",
    "rabbit_forget_consumer",
    "rabbit_forget_queues",
    "redis_client",
    "redis_forget_connection",
    "redis_read",
    "redis_read_by",
    "redis_reader",
    "share_state",
    "to_async",
)

Broker: TypeAlias = BrokerUsecase[Any, Any, Any]
"""Any FastStream broker."""

# Whoever has a broker has imported this; without one it would be most of what importing this package takes.
Subscriber: TypeAlias = "SubscriberUsecase[Any]"
"""Any FastStream subscriber."""

_HOOKS = (
    "_on_startup_calling",
    "_after_startup_calling",
    "_on_shutdown_calling",
    "_after_shutdown_calling",
)


def injected(func: Callable[..., Any], config: FastDependsConfig) -> Callable[..., Any]:
    """Return `func` with its parameters injected from this configuration."""
    serializer: dict[str, Any] = {} if config.serializer is EMPTY else {"serializer_cls": config.serializer}
    return apply_types(
        func,
        cast_result=False,
        dependency_provider=config.provider,
        context__=config.context,
        **serializer,
    )


def options_of(app: FastStream) -> set[str] | None:
    """Return which options the lifespan and the startup hooks take; None if one takes whatever there is."""
    taken: set[str] = set()
    for func in (app.lifespan_context, *app._on_startup_calling):
        if (func.__module__ or "").startswith("faststream."):
            # FastStream's own lifespan, which stands for none.
            continue
        for name, parameter in inspect.signature(func).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                return None
            taken.add(name)
    return taken


async def on_startup(app: FastStream, options: Mapping[str, "SettingField"]) -> None:
    """Run the hooks that go before the brokers.

    Raises:
        StartupValidationError: A hook asks for an option that is missing or of another type.
    """
    async with catch_startup_validation_error():
        for hook in app._on_startup_calling:
            await hook(**options)


async def after_startup(app: FastStream) -> None:
    """Run the hooks that come after the brokers are up."""
    for hook in app._after_startup_calling:
        await hook()


async def on_shutdown(app: FastStream) -> None:
    """Run the hooks that go before the brokers' end."""
    for hook in app._on_shutdown_calling:
        await hook()


async def after_shutdown(app: FastStream) -> None:
    """Run the hooks that come after the brokers are down."""
    for hook in app._after_shutdown_calling:
        await hook()


def share_state(source: FastStream, target: FastStream) -> None:
    """Make `target` another face of `source`: what is added to one later reaches the other.

    Sharing is by reference, because adding a broker to a second app breaks injection in its subscribers.
    """
    for name in ("config", "brokers", "schema", "lifespan_context", *_HOOKS):
        setattr(target, name, getattr(source, name))
    target.config.context.set_global("app", target)


def graceful_timeout(broker: Broker, seconds: float | None) -> float | None:
    """Set how long a subscriber's `stop()` waits for its handlers, and return what it was."""
    config = broker.config.broker_config
    previous: float | None = config.graceful_timeout
    config.graceful_timeout = seconds
    return previous


def handlers_of(broker: Broker) -> Iterator[Callable[..., Any]]:
    """Return the functions behind a broker's subscribers, as they were written."""
    for subscriber in broker.subscribers:
        for item in subscriber.calls:
            yield item.handler._declared_call


def nats_streams(broker: "NatsBroker") -> "list[tuple[JStream, list[str]]]":
    """Return the JetStream streams that `start()` declares, with their subjects."""
    streams = broker._stream_builder.objects.values()
    return [(stream, list(subjects)) for stream, subjects in streams if stream.declare]


def nats_forget_buckets(broker: "NatsBroker") -> None:
    """Let go of key-value and object stores of an earlier connection."""
    broker.config.kv_declarer.buckets.clear()
    broker.config.os_declarer.buckets.clear()


def nats_forget_connection(broker: "NatsBroker") -> None:
    """Let go of a connection that `stop()` would try to drain."""
    subscriber: Any
    for subscriber in broker.subscribers:
        subscriber.subscription = subscriber._fetch_sub = None
    broker._connection = None
    broker.config.disconnect()
    broker.running = False


def mqtt_client(broker: "MQTTBroker") -> object:
    """Return what a broker is connected by; None if it is not."""
    return broker._connection


def mqtt_settings(broker: "MQTTBroker") -> Mapping[str, Any]:
    """Return what a broker makes its client with."""
    return broker._connection_kwargs


def mqtt_subscription(subscriber: Any) -> Any:
    """Return the client's subscription that messages come in by, if there is one."""
    return subscriber._subscription


def mqtt_consume_again(subscriber: Any) -> None:
    """Start those of a subscriber's tasks again that have ended; its subscription stays."""
    subscriber.tasks[:] = [task for task in subscriber.tasks if not task.done()]
    alive = {task.get_coro().__name__ for task in subscriber.tasks}
    if "_consume_loop" not in alive:
        subscriber.add_task(subscriber._consume_loop, restart_on_failure=False)
    if "_serve_consume_queue" not in alive and hasattr(subscriber, "start_consume_task"):
        subscriber.start_consume_task()


def mqtt_forget_connection(broker: "MQTTBroker") -> None:
    """Let go of a connection whose server `stop()` would wait for."""
    subscriber: Any
    for subscriber in broker.subscribers:
        subscriber._subscription = None
    broker._connection = None
    broker.config.disconnect()
    broker.running = False


def redis_client(broker: "RedisBroker") -> object:
    """Return the client of a broker that is connected."""
    return broker._connection


def redis_forget_connection(broker: "RedisBroker") -> None:
    """Let go of a connection, so that `start()` makes another one."""
    broker._connection = None
    broker.running = False


def redis_read(subscriber: Any) -> Callable[..., Any]:
    """Return how FastStream reads what comes next for a subscriber, and let it do so again."""
    vars(subscriber).pop("_get_msgs", None)
    read: Callable[..., Any] = subscriber._get_msgs
    return read


def redis_read_by(subscriber: Any, read: Callable[..., Any]) -> None:
    """Have a subscriber's task call something else to read what comes next."""
    subscriber._get_msgs = read


def redis_reader(subscriber: Any) -> Any:
    """Return what a subscriber's task calls instead of FastStream's own; None if it does not."""
    return vars(subscriber).get("_get_msgs")


def kafka_admin(broker: "KafkaBroker") -> Any:
    """Return the administrator's client; one that only consumes, or is not connected, has none."""
    return broker.config.broker_config.admin.admin_client


def kafka_only_consumes(broker: "KafkaBroker") -> bool:
    """Return whether a broker has no client beside those of its subscribers."""
    return broker.config.broker_config.consumer_only


def kafka_warning(consumer: Any) -> "asyncio.Task[None] | None":
    """Return the task that will warn of a consumer without partitions; `stop()` leaves it running."""
    listener = consumer._subscription.listener
    listener = getattr(listener, "logging_listener", listener)
    task: asyncio.Task[None] | None = getattr(listener, "_log_unassigned_consumer_task", None)
    return task


def kafka_producer(broker: "KafkaBroker") -> Any:
    """Return the producer, if the broker is connected and it is a real one."""
    state = getattr(broker.config.broker_config.producer, "_producer", None)
    return state.producer if state else None


def confluent_producer(broker: "ConfluentBroker") -> "AsyncConfluentProducer | None":
    """Return the producer, if the broker is connected and it is a real one."""
    state = getattr(broker.config.broker_config.producer, "_producer", None)
    return state.producer if state else None


def confluent_poller(producer: "AsyncConfluentProducer") -> "asyncio.Task[None]":
    """Return the task that lets librdkafka tell what has become of messages."""
    return producer._poll_task


def confluent_thread(consumer: "AsyncConfluentConsumer") -> "ThreadPoolExecutor":
    """Return the one thread that librdkafka's consumer is called in."""
    return consumer._thread_pool


def confluent_call_in(consumer: Any, thread: "Executor") -> None:
    """Have librdkafka's consumer called in another thread from now on."""
    consumer._thread_pool = thread


def confluent_settings(broker: "ConfluentBroker") -> dict[str, Any]:
    """Return librdkafka's settings, the credentials among them."""
    return broker.config.broker_config.connection_config.admin_config


async def rabbit_channel(subscriber: Any) -> Any:
    """Return the channel that a subscriber uses, perhaps with others."""
    return await subscriber._outer_config.channel_manager.get_channel(subscriber.channel)


def rabbit_client(broker: "RabbitBroker") -> object:
    """Return what a broker is connected by; None if it is not."""
    return broker._connection


def rabbit_connect_by(broker: "RabbitBroker", make: Callable[..., Any], timeout: float) -> None:
    """Have a broker's connections made by a function, and a try to connect end.

    Args:
        broker: The broker.
        make: Called like the class of a connection.
        timeout: Seconds that a try gets, unless the broker was given a timeout.
    """
    options = broker._connection_kwargs
    options["connection_class"] = make
    if options["timeout"] is None:
        options["timeout"] = timeout


def rabbit_consumer(subscriber: Any) -> tuple[Any, str]:
    """Return the queue that a subscriber consumes from, and the tag of its consumer."""
    return subscriber._queue_obj, subscriber._consumer_tag or ""


def rabbit_forget_consumer(subscriber: Any) -> None:
    """Let go of a consumer that the server has cancelled."""
    subscriber._consumer_tag = None


def rabbit_forget_queues(broker: "RabbitBroker") -> None:
    """Let go of the queues and exchanges that were declared, so that who needs one declares it again."""
    broker.config.declarer.disconnect()


def rabbit_forget_connection(broker: "RabbitBroker") -> None:
    """Let go of a connection whose server `stop()` would ask."""
    subscriber: Any
    for subscriber in broker.subscribers:
        subscriber._queue_obj = subscriber._consumer_tag = None
    broker._channel = None
    broker._connection = None
    broker.config.disconnect()
    broker.running = False
