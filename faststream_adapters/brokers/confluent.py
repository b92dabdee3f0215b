"""Kafka by confluent-kafka: what librdkafka can be asked, and how it is let go of when no server answers."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from socket import gaierror
from threading import Thread
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from faststream.confluent import KafkaBroker
from faststream.confluent.helpers.client import AsyncConfluentConsumer

from faststream_adapters._compat import (
    Broker,
    confluent_poller,
    confluent_producer,
    confluent_settings,
    confluent_thread,
)

from . import PING_TIMEOUT, Code, Driver
from .handlers import finished

_silent = logging.getLogger(f"{__name__}.silent")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False

CONNECT_TIMEOUT = 10.0
"""Seconds that the first answer of a server may take."""

_LOOK_EVERY = 0.05
"""Seconds between two looks at what librdkafka has to tell; it does not call anybody by itself."""

_GRACE = 0.3
"""Seconds that a server gets to answer again after all connections were lost."""

_END_TIMEOUT = 2.0
"""Seconds that a consumer gets to end; librdkafka goes on in a thread of its own after them."""

_REJECTED = {
    KafkaError._AUTHENTICATION,  # noqa: SLF001 (that is how librdkafka's own errors are called)
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.ILLEGAL_SASL_STATE,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
}
_UNREACHABLE = {
    KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001 (as above)
    KafkaError._RESOLVE,  # noqa: SLF001
    KafkaError._TRANSPORT,  # noqa: SLF001
}
_TIMED_OUT = {KafkaError._TIMED_OUT, KafkaError.REQUEST_TIMED_OUT}  # noqa: SLF001 (as above)


class _Asking:
    """A client of our own that asks the servers: FastStream's do not tell why they have no connection.

    Args:
        settings: librdkafka's settings.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.error: KafkaError | None = None
        """Why there is no connection, as far as librdkafka has told."""
        self.cut_off = False
        """Whether all connections were lost since the last answer."""
        options: dict[str, Any] = {**settings, "error_cb": self._note}
        self._client = AdminClient(options, logger=_silent)

    def _note(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 (as above)
            self.cut_off = True
            # What came before it says more.
            self.error = self.error or error
        else:
            self.error = error

    async def ask(self, seconds: float) -> None:
        """Return when a server has answered.

        Args:
            seconds: How long that may take.

        Raises:
            KafkaException: None has, or there is no connection to any.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        # Unlike `list_topics` it occupies no thread, and asks for no topics: a cluster may have thousands.
        answer = asyncio.wrap_future(self._client.describe_cluster(request_timeout=seconds))
        try:
            while not answer.done():
                self._client.poll(0.0)
                if self.cut_off and self.error is not None and loop.time() - start >= _GRACE:
                    raise KafkaException(self.error)
                await asyncio.wait((answer,), timeout=_LOOK_EVERY)
            answer.result()
        finally:
            # librdkafka goes on, and what comes later is dropped.
            answer.cancel()
        self.error, self.cut_off = None, False


class ConfluentDriver(Driver):
    """The clients of a Kafka broker that uses confluent-kafka."""

    broker: KafkaBroker
    sharing = "a consumer group (group_id=...) instead of partitions"

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._asking: _Asking | None = None

    @property
    def real(self) -> bool:
        return confluent_producer(self.broker) is not None

    @property
    def reconnecting(self) -> bool:
        return self._asking is not None and self._asking.cut_off

    @property
    def gave_up(self) -> bool:
        producer = confluent_producer(self.broker)
        return producer is not None and confluent_poller(producer).done()

    def epoch(self) -> object:
        return confluent_producer(self.broker)

    def down(self) -> Code | None:
        return "closed" if self.gave_up else None

    async def check(self) -> Code:
        if not self.real:
            self._asking = None
            return "ok" if await self.broker.ping(PING_TIMEOUT) else "not_started"
        await self._ask(PING_TIMEOUT)
        return "ok"

    async def _ask(self, seconds: float) -> None:
        if self._asking is None:
            self._asking = _Asking(confluent_settings(self.broker))
        await self._asking.ask(seconds)

    def code(self, error: BaseException) -> Code:
        code = error.args[0].code() if isinstance(error, KafkaException) else None
        if code in _REJECTED:
            return "auth"
        if code in _TIMED_OUT:
            return "timeout"
        return "refused" if code in _UNREACHABLE else super().code(error)

    def idle(self, subscriber: Any) -> bool:
        stream = getattr(subscriber, "receive_stream", None)
        waiting = 0 if stream is None else stream.statistics().current_buffer_used
        return not waiting and super().idle(subscriber)

    def shared(self, subscriber: Any) -> bool | None:
        # Without a group of their own FastStream puts them all into one.
        return not subscriber.partitions

    async def ask_consumer(self, subscriber: Any) -> Code:
        try:
            async with asyncio.timeout(_END_TIMEOUT):
                await _in_turn(subscriber.consumer, "assignment")
        except TimeoutError:
            # It waits for messages for longer than that.
            return "ok"
        except RuntimeError:
            # FastStream asks a closed consumer again and again.
            return "deleted"
        return "ok"

    async def revive(self, subscriber: Any) -> None:
        await _close(subscriber)
        await super().revive(subscriber)

    async def start(self, *, consume: bool, supervise: bool) -> None:  # noqa: ARG002 (librdkafka never gives up)
        self.last_error = None
        self._asking = None
        await self.broker.connect()
        if self.real:
            # librdkafka connects when it is first used, and never says that it cannot.
            try:
                await self._ask(CONNECT_TIMEOUT)
            except KafkaException as error:
                if error.args[0].code() == KafkaError._RESOLVE:  # noqa: SLF001 (as above)
                    self.last_error = gaierror()
                raise
        await self.start_endpoints(consume=consume)

    async def drain(self) -> None:
        await asyncio.gather(*map(_pause, self.broker.subscribers))
        await asyncio.gather(*map(finished, self.broker.subscribers))

    async def stop(self, seconds: float) -> None:
        await super().stop(seconds)
        self._asking = None

    async def abort(self, seconds: float = 0.0) -> None:
        await asyncio.gather(*map(_close, self.broker.subscribers))
        if (producer := confluent_producer(self.broker)) is not None:
            # stop() would wait for minutes until these are sent.
            producer.producer.purge()
        await super().abort(seconds)


async def _in_turn(consumer: AsyncConfluentConsumer, name: str, *args: Any) -> Any:
    """Call a method of librdkafka's consumer in its own thread, where no other is running."""
    method: Callable[..., Any] = getattr(consumer.consumer, name)
    return await asyncio.get_running_loop().run_in_executor(confluent_thread(consumer), method, *args)


async def _pause(subscriber: Any) -> None:
    """Make a subscriber take nothing more from the server."""
    if isinstance(consumer := subscriber.consumer, AsyncConfluentConsumer):
        await _in_turn(consumer, "pause", await _in_turn(consumer, "assignment"))


async def _close(subscriber: Any) -> None:
    """End a subscriber's consumer, which is waited for a little."""
    consumer, subscriber.consumer = subscriber.consumer, None
    if not isinstance(consumer, AsyncConfluentConsumer):
        return
    for task in subscriber.tasks:
        # It would go on with the next message, from a consumer that is closed.
        task.cancel()
    pool = confluent_thread(consumer)
    await asyncio.get_running_loop().run_in_executor(pool, _close_apart, consumer.consumer)
    pool.shutdown(wait=False)


def _close_apart(consumer: Consumer) -> None:
    """Close librdkafka's consumer; with a frozen server that lasts until it answers again."""

    def close() -> None:
        # It may be closed already.
        with suppress(RuntimeError):
            consumer.close()

    # Python waits for the threads of a pool when it ends, but not for a daemon.
    thread = Thread(target=close, daemon=True)
    thread.start()
    thread.join(_END_TIMEOUT)


driver = ConfluentDriver
