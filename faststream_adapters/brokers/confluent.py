"""Kafka by confluent-kafka: what librdkafka can be asked, and how it is let go of when no server answers."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from socket import gaierror
from threading import Thread
from time import sleep
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from faststream.confluent import KafkaBroker
from faststream.confluent.helpers.client import AsyncConfluentConsumer

from faststream_adapters._compat import (
    Broker,
    confluent_call_in,
    confluent_poller,
    confluent_producer,
    confluent_settings,
    confluent_thread,
)

from . import PING_TIMEOUT, Code, Driver
from .handlers import finished, waiting

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


class _Told:
    """What librdkafka has told of its connections; it does not own the client, which would never end then."""

    def __init__(self) -> None:
        self.error: KafkaError | None = None
        """Why there is no connection."""
        self.cut_off = False
        """Whether all connections were lost since the last answer."""

    def note(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 (as above)
            self.cut_off = True
            # What came before it says more.
            self.error = self.error or error
        else:
            self.error = error

    def answered(self, answer: "Future[Any]") -> None:  # pragma: no cover (librdkafka's thread is not traced)
        if answer.exception() is None:
            self.error, self.cut_off = None, False


class _Asking:
    """A client of our own that asks the servers: FastStream's do not tell why they have no connection.

    Args:
        settings: librdkafka's settings.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.told = _Told()
        options: dict[str, Any] = {**settings, "error_cb": self.told.note}
        self._client = AdminClient(options, logger=_silent)
        self._answer: Future[Any] | None = None

    def _asked(self, seconds: float) -> "Future[Any]":
        """Return the answer that is awaited still, or ask."""
        if self._answer is None or self._answer.done():
            # Unlike `list_topics` it occupies no thread, and asks for no topics: there may be thousands.
            self._answer = self._client.describe_cluster(request_timeout=seconds)
            self._answer.add_done_callback(self.told.answered)
        return self._answer

    async def ask(self, seconds: float) -> None:
        """Return when a server has answered.

        Args:
            seconds: How long that may take.

        Raises:
            KafkaException: None has, or there is no connection to any.
        """
        loop, told = asyncio.get_running_loop(), self.told
        start = loop.time()
        answer, answered = self._asked(seconds), asyncio.Event()

        def wake(_: object) -> None:  # pragma: no cover (called in librdkafka's thread, which is not traced)
            # The event loop may be closed by now.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(answered.set)

        answer.add_done_callback(wake)
        while not answer.done():
            self._client.poll(0.0)
            if told.cut_off and told.error is not None and loop.time() - start >= _GRACE:
                # The answer may come yet, even if it takes that long each time.
                raise KafkaException(told.error)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY):
                    await answered.wait()
        answer.result()


class _Turns(Executor):
    """One thread for calls of a consumer, as FastStream's, that does not keep Python from ending."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._over = False
        Thread(target=self._work, daemon=True).start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        if self._over:
            msg = "The consumer was closed."
            raise RuntimeError(msg)
        result: Future[Any] = Future()
        self._calls.put((result, partial(fn, *args, **kwargs)))
        return result

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 (of Executor)
        self._over = True
        self._calls.put(None)

    def _work(self) -> None:
        while (turn := self._calls.get()) is not None:
            result, call = turn
            if result.set_running_or_notify_cancel():
                try:
                    result.set_result(call())
                except BaseException as error:  # noqa: BLE001 (raised where it is waited for)
                    result.set_exception(error)
            # What was called keeps a consumer alive.
            del turn, result, call


class _Paused:
    """A consumer that hands over nothing more, whatever its group gives it, and stays in the group.

    Args:
        consumer: librdkafka's consumer.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def poll(self, timeout: float) -> Any:
        self._pause(timeout)
        return self._consumer.poll(0.0)

    def consume(self, num_messages: int, timeout: float) -> Any:
        self._pause(timeout)
        return self._consumer.consume(num_messages=num_messages, timeout=0.0)

    def _pause(self, seconds: float) -> None:
        # The group's changes come with a poll, and a pause does not outlast them.
        sleep(seconds)
        self._consumer.pause(self._consumer.assignment())


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
        return self._asking is not None and self._asking.told.cut_off

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
        return not waiting(subscriber) and super().idle(subscriber)

    def adopt(self, subscriber: Any) -> None:
        if isinstance(consumer := subscriber.consumer, AsyncConfluentConsumer):
            _adopt(consumer)

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
        with suppress(TimeoutError):
            await _closed(_END_TIMEOUT, _close(_take(subscriber)))
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
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        # FastStream's stop() of a consumer has no end while the server is frozen.
        consumers = list(map(_take, self.broker.subscribers))
        try:
            await super().stop(seconds)
        finally:
            closing = [each for consumer in consumers for each in _close(consumer)]
            self._asking = None
        await _closed(until - loop.time(), closing)

    async def abort(self, seconds: float = 0.0) -> None:
        subscribers: list[Any] = self.broker.subscribers
        for task in (task for subscriber in subscribers for task in subscriber.tasks):
            # It would go on with the next message.
            task.cancel()
        closing = [each for subscriber in subscribers for each in _close(_take(subscriber))]
        with suppress(TimeoutError):
            await _closed(_END_TIMEOUT, closing)
        if (producer := confluent_producer(self.broker)) is not None:
            # stop() would wait for minutes until these are sent.
            producer.producer.purge()
        await super().abort(seconds)


def _adopt(consumer: AsyncConfluentConsumer) -> Executor:
    """Return the one thread that a consumer is called in, which has to be ours."""
    pool: Executor = confluent_thread(consumer)
    if not isinstance(pool, _Turns):
        before, pool = pool, _Turns()
        pool.submit(before.submit(int).result)
        before.shutdown(wait=False)
        confluent_call_in(consumer, pool)
    return pool


async def _in_turn(consumer: AsyncConfluentConsumer, name: str, *args: Any) -> Any:
    """Call a method of librdkafka's consumer in its own thread, where no other is running."""
    method: Callable[..., Any] = getattr(consumer.consumer, name)
    return await asyncio.get_running_loop().run_in_executor(confluent_thread(consumer), method, *args)


async def _pause(subscriber: Any) -> None:
    """Make a subscriber take nothing more from the server."""
    if isinstance(consumer := subscriber.consumer, AsyncConfluentConsumer):
        taking: Any = consumer
        taking.consumer = _Paused(consumer.consumer)
        # After the call that may run now.
        await _in_turn(consumer, "pause", await _in_turn(consumer, "assignment"))


def _take(subscriber: Any) -> AsyncConfluentConsumer | None:
    """Take a subscriber's consumer, so that its stop() does without."""
    if not isinstance(consumer := subscriber.consumer, AsyncConfluentConsumer):
        return None
    # It would look for the consumer otherwise; stop() does the same a moment later.
    subscriber.running = False
    subscriber.consumer = None
    return consumer


def _close(consumer: AsyncConfluentConsumer | None) -> list[asyncio.Event]:
    """Have a consumer commit what was handled, and closed; a frozen server has to answer again before."""
    if consumer is None:
        return []
    closed, loop = asyncio.Event(), asyncio.get_running_loop()

    def close() -> None:
        # It may be closed already.
        with suppress(RuntimeError):
            consumer.consumer.close()
        # The event loop may be closed by now.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(closed.set)

    pool = _adopt(consumer)
    pool.submit(close)
    pool.shutdown(wait=False)
    return [closed]


async def _closed(seconds: float, closing: list[asyncio.Event]) -> None:
    """Wait until consumers are closed, or raise a TimeoutError after these many seconds."""
    async with asyncio.timeout(seconds):
        for closed in closing:
            await closed.wait()


driver = ConfluentDriver
