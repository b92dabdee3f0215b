"""Private names of FastStream's Kafka broker for confluent-kafka, and of confluent-kafka."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from confluent_kafka import KafkaError
from faststream.confluent import KafkaBroker
from faststream.confluent.helpers import AsyncConfluentConsumer, AsyncConfluentProducer
from faststream.confluent.message import FAKE_CONSUMER
from faststream.confluent.publisher.state import EmptyProducerState, RealProducer

from .faststream import forget_connection, producer_of

# The codes of errors of librdkafka itself, as opposed to those of the Kafka protocol.
ALL_BROKERS_DOWN = KafkaError._ALL_BROKERS_DOWN
AUTHENTICATION = KafkaError._AUTHENTICATION
RESOLVE = KafkaError._RESOLVE
SSL = KafkaError._SSL
TIMED_OUT = KafkaError._TIMED_OUT
TRANSPORT = KafkaError._TRANSPORT


class _Producer(RealProducer):
    """A producer with another implementation of `stop()`.

    Args:
        producer: FastStream's producer.
        stop: Called with the producer.
    """

    __slots__ = ("_stop",)

    def __init__(
        self, producer: AsyncConfluentProducer, stop: Callable[[AsyncConfluentProducer], Awaitable[None]]
    ) -> None:
        super().__init__(producer)
        self._stop = stop

    async def stop(self) -> None:
        await self._stop(self.producer)


def producer(broker: KafkaBroker) -> AsyncConfluentProducer | None:
    """Return the producer; None if the broker is not connected or the producer's client was detached."""
    state = getattr(producer_of(broker), "_producer", None)
    producer: Any = state.producer if state else None
    return producer if producer is not None and producer.producer is not None else None


def replace_producer_stop(
    broker: KafkaBroker, stop: Callable[[AsyncConfluentProducer], Awaitable[None]]
) -> None:
    """Make a connected broker stop its producer by calling this function."""
    producer = producer_of(broker)
    producer._producer = _Producer(producer._producer.producer, stop)


def poll_task(producer: AsyncConfluentProducer) -> asyncio.Task[None]:
    """Return the task that polls librdkafka for delivery reports."""
    return producer._poll_task


def stop_polling(producer: Any) -> asyncio.Task[None]:
    """Let the poll task end after its current call, and return the task."""
    # It is not cancelled as in stop(): anyio would leave a cycle of frames, which keeps the client alive.
    producer._AsyncConfluentProducer__running = False
    return poll_task(producer)


def detach_client(producer: Any) -> Any:
    """Remove librdkafka's client from a producer and return it."""
    client, producer.producer = producer.producer, None
    return client


def wrap_admin_client(broker: KafkaBroker, wrap: Callable[[Any], Any]) -> None:
    """Replace a broker's admin client by `wrap(client)`, if there is one."""
    service: Any = broker.config.broker_config.admin
    if service.admin_client is not None:  # pragma: no branch (FastStream creates one at each connect)
        service.admin_client = wrap(service.admin_client)


def detach_admin_client(broker: KafkaBroker) -> Any:
    """Remove the admin client from a broker and return it, or None."""
    service = broker.config.broker_config.admin
    client, service.admin_client = service.admin_client, None
    return client


def drop_consumer(subscriber: Any) -> None:
    """Remove the references to a subscriber's consumer, including that of its parser."""
    subscriber.consumer = None
    subscriber.parser._setup(FAKE_CONSUMER)


def drop_connection(broker: KafkaBroker) -> None:
    """Remove a broker's producer, so that `stop()` does not flush it."""
    producer = producer_of(broker)
    producer._producer = EmptyProducerState()
    forget_connection(broker)


def option_config(broker: KafkaBroker) -> Mapping[str, Any]:
    """Return the settings of librdkafka of the options `config=`, which take precedence, and `security=`."""
    return broker.config.broker_config.connection_config.config


def executor(consumer: AsyncConfluentConsumer) -> ThreadPoolExecutor:
    """Return the executor, with one thread, in which librdkafka's consumer is called."""
    return consumer._thread_pool


def set_executor(consumer: Any, executor: Executor) -> None:
    """Set the executor in which librdkafka's consumer is called."""
    consumer._thread_pool = executor


def settings(broker: KafkaBroker) -> dict[str, Any]:
    """Return librdkafka's settings, including the credentials."""
    return broker.config.broker_config.connection_config.admin_config
