"""The driver for FastStream's Kafka brokers that use confluent-kafka.

A client of librdkafka keeps connecting, in its own threads, until its last reference is dropped, and this may
block the thread that drops it for seconds. A parser, a message or an exception may keep FastStream's wrapper
of a client alive. So at the end each client is detached from its wrapper and dropped in a daemon thread.
"""

import asyncio
import logging
import re
import sys
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import Executor, Future, InvalidStateError
from contextlib import suppress
from functools import partial
from socket import gaierror
from ssl import SSLError
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection, TopicPartition

# The type checkers' view of the package does not re-export OffsetSpec.
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from faststream.confluent import KafkaBroker
from faststream.confluent.helpers.client import AsyncConfluentConsumer, AsyncConfluentProducer

from faststream_adapters._compat import confluent as private
from faststream_adapters._compat.faststream import Broker
from faststream_adapters._utils.errors import clear_frames
from faststream_adapters._utils.loggers import Loggers
from faststream_adapters._utils.threads import DaemonThreadExecutor

from .codes import BrokerCode, SubscriberCode
from .draining import wait_handled, waiting_for_worker, warn_unsent
from .driver import PING_TIMEOUT, Driver, Mismatch
from .topics import TIMEOUT as TOPICS_TIMEOUT
from .topics import Found, Topics, publish_arguments

# For the client of MetadataClient: FastStream's clients log each failed connection already.
_silent_logger = logging.getLogger(f"{__name__}.silent")
_silent_logger.addHandler(logging.NullHandler())
_silent_logger.propagate = False

CONNECT_TIMEOUT = 10.0
"""Seconds that the first reply of a server may take."""

_POLL_INTERVAL = 0.05
"""Seconds between two polls of librdkafka, which calls callbacks only when it is polled."""

_GRACE = 0.3
"""Seconds that a server may take to reply after all connections were lost."""

_BACKLOG_TIMEOUT = 0.8
"""Seconds that the positions of a consumer, and then the ends of its partitions, may take."""

_END_TIMEOUT = 2.0
"""Seconds to wait for a consumer to close; after that librdkafka continues in a daemon thread."""

_JOIN_TIMEOUT = 5.0
"""Seconds that a consumer gets to join its group before it is paused; it may get no partitions."""

_OPENSSL_REASON = re.compile(r"SSL routines:[^:]*:([^:(]+)")

_CLOSED = "The consumer was closed."

_REJECTED = {
    private.AUTHENTICATION,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.ILLEGAL_SASL_STATE,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
}
_UNREACHABLE = {private.ALL_BROKERS_DOWN, private.RESOLVE, private.SSL, private.TRANSPORT}
_TIMED_OUT = {private.TIMED_OUT, KafkaError.REQUEST_TIMED_OUT}


_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # confluent-kafka left it untyped

Partition = tuple[str, int]
"""A topic and the number of one of its partitions."""


class ConnectionState:
    """What librdkafka has reported about a client's connections.

    It does not refer to the client: librdkafka keeps this object, so the client would never be freed.
    """

    def __init__(self) -> None:
        self.error: KafkaError | None = None
        """Why there is no connection."""
        self.disconnected = False
        """Whether all connections were lost after the last reply."""

    def on_error(self, error: KafkaError) -> None:
        if error.code() == private.ALL_BROKERS_DOWN:
            self.disconnected = True
            # An earlier error is more specific.
            self.error = self.error or error
        else:
            self.error = error

    def on_reply(self, reply: "Future[Any]") -> None:  # pragma: no cover (librdkafka's thread is not traced)
        if reply.exception() is None:
            self.on_success()

    def on_success(self) -> None:
        self.error, self.disconnected = None, False


class MetadataClient:
    """An additional client for checks: FastStream's clients do not expose why they have no connection.

    Args:
        settings: librdkafka's settings.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.state = ConnectionState()
        options: dict[str, Any] = {**settings, "error_cb": self.state.on_error}
        self._client: AdminClient | None = AdminClient(options, logger=_silent_logger)
        self._pending: Future[Any] | None = None

    def detach(self) -> AdminClient | None:
        """Remove the client and return it; further checks are aborted."""
        client, self._client = self._client, None
        return client

    def _attached_client(self) -> AdminClient:
        """Return the client; a caller must not keep the reference over an await.

        Raises:
            ConnectionAbortedError: The client was detached.
        """
        if self._client is None:
            raise ConnectionAbortedError
        return self._client

    def _request(self, seconds: float) -> "Future[Any]":
        """Return the future of the request in flight, or of a new one."""
        if self._pending is None or self._pending.done():
            # Unlike `list_topics` this occupies no thread, and does not list topics, of which there may be
            # thousands.
            self._pending = self._attached_client().describe_cluster(request_timeout=seconds)
            self._pending.add_done_callback(self.state.on_reply)
        return self._pending

    async def check(self, seconds: float) -> None:
        """Wait for a reply of a server.

        Args:
            seconds: The timeout of a new request.

        Raises:
            KafkaException: No server replied, or there is no connection to any server.
            ConnectionAbortedError: The client was detached.
        """
        loop, state = asyncio.get_running_loop(), self.state
        start = loop.time()
        reply, replied = self._request(seconds), asyncio.Event()

        def wake(_: object) -> None:  # pragma: no cover (called in librdkafka's thread, which is not traced)
            # The event loop may be closed by now.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(replied.set)

        reply.add_done_callback(wake)
        while not reply.done():
            self._attached_client().poll(0.0)
            if state.disconnected and state.error is not None and loop.time() - start >= _GRACE:
                # The request stays in flight: a later check can still receive its reply.
                raise KafkaException(state.error)
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_INTERVAL):
                    await replied.wait()
        reply.result()
        # librdkafka's thread may not have called `on_reply` yet.
        state.on_success()

    async def describe_topics(self, names: list[str]) -> Found:
        """Return the partitions of topics by name, without creating them."""
        replies = self._attached_client().describe_topics(
            TopicCollection(names), request_timeout=TOPICS_TIMEOUT
        )
        while not all(reply.done() for reply in replies.values()):  # noqa: ASYNC110 (see _POLL_INTERVAL)
            await asyncio.sleep(_POLL_INTERVAL)
        return {name: _partitions(reply) for name, reply in replies.items()}

    async def end_offsets(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """Return the offset after the last message of each partition, of those that the server knows."""
        replies = self._attached_client().list_offsets(
            dict.fromkeys((TopicPartition(*each) for each in partitions), _LATEST),
            request_timeout=_BACKLOG_TIMEOUT,
        )
        while not all(reply.done() for reply in replies.values()):  # noqa: ASYNC110 (see _POLL_INTERVAL)
            await asyncio.sleep(_POLL_INTERVAL)
        found = {each: reply.result().offset for each, reply in replies.items() if not reply.exception()}
        # A request that times out has an invalid offset, and no error.
        return {(each.topic, each.partition): offset for each, offset in found.items() if offset >= 0}


def _partitions(reply: "Future[Any]") -> Collection[int] | None:
    error = reply.exception()
    if error is None:
        return [partition.id for partition in reply.result().partitions]
    is_missing = (
        isinstance(error, KafkaException) and error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
    )
    return () if is_missing else None


class AbortableAdminClient:
    """FastStream's admin client, whose pending requests fail when it is detached.

    librdkafka leaves the futures of a destroyed client pending.

    Args:
        client: librdkafka's client.
    """

    def __init__(self, client: AdminClient) -> None:
        self._client: AdminClient | None = client
        self._replies: list[Future[Any]] = []

    def create_topics(self, topics: Any) -> dict[str, "Future[Any]"]:
        """Create topics; called in the threads of the consumers."""
        if (client := self._client) is None:
            raise ConnectionAbortedError
        replies: dict[str, Future[Any]] = client.create_topics(topics)
        self._replies += replies.values()
        if self._client is None:
            self._fail_pending()
        return replies

    def detach(self) -> AdminClient | None:
        """Remove the client and return it; pending and further requests fail."""
        client, self._client = self._client, None
        self._fail_pending()
        return client

    def _fail_pending(self) -> None:
        for reply in self._replies:
            # It may arrive at the same moment, in another thread.
            with suppress(InvalidStateError):
                reply.set_exception(ConnectionAbortedError())


class PausedConsumer:
    """A consumer that delivers no more messages, also after a rebalance, and remains in its group.

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
        # A poll applies the rebalances of the group, and a rebalance ends a pause.
        sleep(seconds)
        self._consumer.pause(self._consumer.assignment())


class ClosedConsumer:
    """The replacement of a detached consumer: every use raises an error."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(_CLOSED)


class ConfluentDriver(Driver):
    """The driver for a Kafka broker that uses confluent-kafka."""

    broker: KafkaBroker
    load_balancing_hint = "a consumer group (group_id=...) instead of partitions"
    supports_publishing = True

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._metadata_client: MetadataClient | None = None
        self._topics = Topics(self._describe_topics)
        # The deadline for unsent messages, on the event loop's clock; `_aborted` ends it early.
        self._flush_until = 0.0
        self._aborted = Event()

    @property
    def urls(self) -> Sequence[str]:
        servers: str | None = private.option_config(self.broker).get("bootstrap.servers")
        return super().urls if servers is None else servers.split(",")

    @property
    def settings(self) -> object:
        return [super().settings, private.option_config(self.broker)]

    @property
    def client(self) -> AsyncConfluentProducer | None:
        """The producer; None before the broker connects and for a TestBroker."""
        return private.producer(self.broker)

    @property
    def is_reconnecting(self) -> bool:
        return self._metadata_client is not None and self._metadata_client.state.disconnected

    @property
    def is_closed(self) -> bool:
        producer = self.client
        return producer is not None and private.poll_task(producer).done()

    def local_status(self) -> BrokerCode | None:
        return "closed" if self.is_closed else None

    async def check(self) -> BrokerCode:
        if not self.has_client:
            return await self._ping()
        await self._check_metadata(PING_TIMEOUT)
        return "ok"

    async def _check_metadata(self, seconds: float) -> None:
        if self._metadata_client is None:
            self._metadata_client = MetadataClient(private.settings(self.broker))
        await self._metadata_client.check(seconds)

    def classify(self, error: BaseException) -> BrokerCode:
        code = error.args[0].code() if isinstance(error, KafkaException) else None
        if code in _REJECTED:
            return "auth_failed"
        if code in _TIMED_OUT:
            return "timeout"
        return "unreachable" if code in _UNREACHABLE else super().classify(error)

    def on_started(self, subscriber: Any) -> None:
        if isinstance(consumer := subscriber.consumer, AsyncConfluentConsumer):
            _ensure_daemon_executor(consumer)

    def is_idle(self, subscriber: Any) -> bool:
        return not waiting_for_worker(subscriber) and super().is_idle(subscriber)

    def is_load_balanced(self, subscriber: Any) -> bool | None:
        # Without a group_id, FastStream puts all subscribers into one group.
        return not subscriber.partitions

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
        try:
            async with asyncio.timeout(_END_TIMEOUT):
                await _call_consumer(subscriber.consumer, "assignment")
        except TimeoutError:
            # The consumer's thread is busy with a longer poll for messages.
            pass
        except RuntimeError:
            # The consumer is closed. FastStream polls it forever and does not notice.
            return "consumer_missing"
        return await self._topics.find_mismatch(subscriber, self.broker.subscribers) or "ok"

    async def backlogs(self, subscribers: Sequence[Any]) -> Mapping[Any, int]:
        positions = await asyncio.gather(*map(_positions, subscribers))
        partitions = {partition for each in positions for partition in each or ()}
        ends = await self._end_offsets(partitions)
        return {
            subscriber: sum(max(ends[each] - offset, 0) for each, offset in known.items() if each in ends)
            for subscriber, known in zip(subscribers, positions, strict=True)
            if known is not None and (not known or not ends.keys().isdisjoint(known))
        }

    def is_backlog_shared(self, subscriber: Any) -> bool:  # noqa: ARG002 (never)
        # Each consumer has partitions of its own.
        return False

    async def _end_offsets(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        if self._metadata_client is None or not partitions:
            return {}
        return await self._metadata_client.end_offsets(partitions)

    async def _describe_topics(self, names: list[str]) -> Found:
        return {} if self._metadata_client is None else await self._metadata_client.describe_topics(names)

    async def restart(self, subscriber: Any) -> None:
        with suppress(TimeoutError):
            consumer = _detach_consumer(subscriber)
            if consumer is not None:  # pragma: no branch (only after a restart that has failed)
                await _wait_all(_END_TIMEOUT, [_end_consumer(consumer, _END_TIMEOUT)])
        await super().restart(subscriber)

    async def connect(self, *, consume: bool, supervise: bool) -> None:  # noqa: ARG002 (librdkafka never gives up)
        self.last_error = None
        self._flush_until, self._aborted = 0.0, Event()
        self._topics = Topics(self._describe_topics)
        await self.broker.connect()
        private.wrap_admin_client(self.broker, AbortableAdminClient)
        private.replace_producer_stop(self.broker, self._end_clients)
        # librdkafka connects on first use, and never reports that it cannot connect.
        try:
            await self._check_metadata(CONNECT_TIMEOUT)
        except KafkaException as error:
            self.last_error = network_error(error.args[0])
            raise
        await self.start_publishers()

    async def drain(self) -> None:
        await asyncio.gather(*map(_finish, self.to_drain))

    async def pause(self, subscriber: Any) -> None:
        await _finish(subscriber)
        with suppress(TimeoutError):
            async with asyncio.timeout(_JOIN_TIMEOUT):
                await _wait_assigned(subscriber)
        await self._end_consumers(self.stop_now(subscriber), PING_TIMEOUT, [subscriber])

    async def leave_groups(self) -> None:
        await self._end_consumers(super().drain(), PING_TIMEOUT, self.broker.subscribers)

    async def stop(self, seconds: float) -> None:
        self._flush_until = asyncio.get_running_loop().time() + seconds
        await self._end_consumers(super().stop(seconds), seconds, self.broker.subscribers)

    async def _end_consumers(
        self, stop: Coroutine[Any, Any, None], seconds: float, subscribers: Sequence[Any]
    ) -> None:
        """Stop subscribers by a method of FastStream, and their consumers.

        Args:
            stop: The method's coroutine.
            seconds: How long the consumers may take to end.
            subscribers: The subscribers.

        Raises:
            TimeoutError: They took longer.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        # Ended here, because FastStream's stop() of a consumer never returns while the server is frozen.
        consumers = [each for each in map(_detach_consumer, subscribers) if each is not None]
        try:
            await stop
        finally:
            ending = [_end_consumer(consumer, until - loop.time()) for consumer in consumers]
        await _wait_all(until - loop.time(), ending)

    async def abort(self, seconds: float = 0.0) -> None:
        self._aborted.set()
        producer = private.producer(self.broker)
        subscribers: list[Any] = self.broker.subscribers
        consumers = [each for each in map(_detach_consumer, subscribers) if each is not None]
        if producer is not None:
            private.drop_connection(self.broker)
        # stop() would free it in the event loop.
        clients = self._detach_admin_client()
        replying = False
        try:
            # They would continue with the next message.
            await _cancel([task for subscriber in subscribers for task in subscriber.tasks])
            replying = bool(consumers) and await self._is_replying()
            await super().abort(seconds)
        finally:
            ending = [_end_consumer(consumer, _END_TIMEOUT if replying else None) for consumer in consumers]
            await self._end_clients(producer, clients)
        with suppress(TimeoutError):
            await _wait_all(_END_TIMEOUT, ending)

    async def _is_replying(self) -> bool:
        """Return whether a server replies within `_GRACE`."""
        if self._metadata_client is not None:  # pragma: no branch (a broker that has consumers was checked)
            with suppress(KafkaException, TimeoutError):
                async with asyncio.timeout(_GRACE):
                    await self._metadata_client.check(_GRACE)
                return True
        return False

    def _detach_admin_client(self) -> list[Any]:
        """Remove the admin client from the broker, and return a list that holds the last reference to it."""
        admin = private.detach_admin_client(self.broker)
        return [admin.detach()] if isinstance(admin, AbortableAdminClient) else []

    async def _end_clients(
        self, producer: AsyncConfluentProducer | None, clients: list[Any] | None = None
    ) -> None:
        """End all clients except consumers; the producer first flushes its messages, until the deadline.

        Args:
            producer: The producer.
            clients: A list that holds the last references to other clients.
        """
        clients = clients or []
        try:
            if producer is not None:
                polling = private.stop_polling(producer)
                await asyncio.wait((polling,), timeout=_END_TIMEOUT)
                _clear_cancelled(polling)
        finally:
            clients += self._detach_admin_client()
            if self._metadata_client is not None:
                clients.append(self._metadata_client.detach())
                self._metadata_client = None
            if producer is not None:
                clients.append(private.detach_client(producer))
            seconds = self._flush_until - asyncio.get_running_loop().time()
            ended = _run_in_daemon_thread(
                partial(_drop_clients, clients, seconds, self._aborted, self.name, self.loggers)
            )
        await _wait_all(max(seconds, 0.0) + _END_TIMEOUT, [ended])


def _clear_cancelled(task: "asyncio.Task[None]") -> None:
    """Clear the frames of a cancelled task: their variables keep the client alive that it has called."""
    if task.cancelled():
        try:
            task.result()
        except asyncio.CancelledError as error:
            clear_frames(error)


def network_error(error: KafkaError) -> OSError | None:
    """Return the error that other clients raise for an error of librdkafka, or None."""
    if error.code() == private.RESOLVE:
        return gaierror()
    # librdkafka reports a rejected certificate by one of two codes and texts.
    if match := _OPENSSL_REASON.search(error.str()):
        return SSLError(1, match[1].strip().replace(" ", "_").upper())
    return SSLError(1, error.str()) if error.code() == private.SSL else None


def _run_in_daemon_thread(call: Callable[[], None]) -> asyncio.Event:
    """Run a blocking call in a daemon thread; return an event that is set when it has returned."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    Thread(target=_call_and_set, args=(call, ended, loop), daemon=True).start()
    return ended


def _call_and_set(call: Callable[[], None], ended: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    call()
    # The event loop may be closed by now.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(ended.set)


def _drop_clients(
    clients: list[Any], seconds: float, aborted: Event, broker_name: str, loggers: Loggers
) -> None:
    """Drop the last references to clients; a producer first flushes its messages.

    Args:
        clients: The list that holds the last references.
        seconds: How long the flush may take.
        aborted: Ends the flush early.
        broker_name: The broker's name for the log.
        loggers: Where lost messages are logged.
    """
    _flush(clients, monotonic() + seconds, aborted, broker_name, loggers)
    free(clients)


def _flush(clients: list[Any], until: float, aborted: Event, broker_name: str, loggers: Loggers) -> None:
    for client in clients:
        if isinstance(client, Producer):
            # Delivery reports are passed to the event loop, which may be closed by now.
            with suppress(RuntimeError):
                while (left := client.flush(_POLL_INTERVAL)) and monotonic() < until and not aborted.is_set():
                    pass  # pragma: no cover (only if the server takes longer than the interval)
                warn_unsent(broker_name, left, loggers)
                # Fail the messages that were not sent.
                client.purge()
                client.flush(_END_TIMEOUT)


def free(clients: list[Any]) -> None:
    """Drop clients, but only when no other thread refers to them: the last one to do so frees them.

    A cancelled task of the event loop may still wait for a call to a client, and refer to it.

    Args:
        clients: The list that holds the references.
    """
    until = monotonic() + _END_TIMEOUT
    while clients:
        while _references(clients) > _ONLY_REFERENCE and monotonic() < until:
            sleep(_POLL_INTERVAL)
        clients.pop()


def _references(objects: list[Any]) -> int:
    return sys.getrefcount(objects[-1])


_ONLY_REFERENCE = _references([object()])
"""The number of references to an object in a list, if there are no others."""


def _ensure_daemon_executor(consumer: AsyncConfluentConsumer) -> Executor:
    """Replace the executor in which a consumer is called by a DaemonThreadExecutor, and return it."""
    executor: Executor = private.executor(consumer)
    if not isinstance(executor, DaemonThreadExecutor):
        previous, executor = executor, DaemonThreadExecutor(refusal=_CLOSED)
        # Calls must not overlap: the new thread first waits until the previous one is idle.
        executor.submit(previous.submit(int).result)
        previous.shutdown(wait=False)
        private.set_executor(consumer, executor)
    return executor


async def _call_consumer(consumer: AsyncConfluentConsumer, name: str, *args: Any) -> Any:
    """Call a method of librdkafka's consumer in its thread, where calls do not overlap."""
    method: Callable[..., Any] = getattr(consumer.consumer, name)
    return await asyncio.get_running_loop().run_in_executor(private.executor(consumer), method, *args)


async def _positions(subscriber: Any) -> dict[Partition, int] | None:
    """Return the position in each partition of a subscriber's consumer; None if it has none or is busy."""
    consumer, loop = subscriber.consumer, asyncio.get_running_loop()
    if consumer is None:
        return None
    with suppress(KafkaException, RuntimeError, TimeoutError):
        async with asyncio.timeout(_BACKLOG_TIMEOUT):
            return await loop.run_in_executor(private.executor(consumer), _read_positions, consumer.consumer)
    return None


def _read_positions(client: Any) -> dict[Partition, int]:
    """Read the position in each partition; called in the consumer's thread."""
    positions = client.position(client.assignment())
    unknown = [each for each in positions if each.offset < 0]
    if unknown:
        # It has received nothing from them since they were assigned to it.
        positions += client.committed(unknown, timeout=_GRACE)
    return {(each.topic, each.partition): each.offset for each in positions if each.offset >= 0}


async def _pause(subscriber: Any) -> None:
    """Stop a subscriber from receiving messages."""
    if isinstance(consumer := subscriber.consumer, AsyncConfluentConsumer):
        untyped: Any = consumer
        untyped.consumer = PausedConsumer(consumer.consumer)
        # This runs after the call that may be in progress.
        await _call_consumer(consumer, "pause", await _call_consumer(consumer, "assignment"))


async def _finish(subscriber: Any) -> None:
    """Let a subscriber receive no more messages, and wait until it has handled those it has received."""
    await _pause(subscriber)
    await wait_handled(subscriber)


async def _wait_assigned(subscriber: Any) -> None:
    """Wait until a consumer has partitions.

    The other members of a group would wait for one that ends while it joins, until its session has timed out.
    """
    while not await _call_consumer(subscriber.consumer, "assignment"):  # noqa: ASYNC110 (see _POLL_INTERVAL)
        await asyncio.sleep(_POLL_INTERVAL)


def _detach_consumer(subscriber: Any) -> AsyncConfluentConsumer | None:
    """Remove the consumer from a subscriber, so that stop() does not stop it, and return it."""
    if not isinstance(consumer := subscriber.consumer, AsyncConfluentConsumer):
        return None
    # Otherwise its task would use the missing consumer; stop() sets this too, a moment later.
    subscriber.running = False
    private.drop_consumer(subscriber)
    return consumer


def _end_consumer(consumer: Any, seconds: float | None) -> asyncio.Event:
    """End a consumer in its thread, after the calls that are queued there; return an event that is set then.

    Args:
        consumer: FastStream's consumer.
        seconds: How long the last commit may take; None to end the consumer without one.
    """
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    # The list holds the last reference.
    client, consumer.consumer = [consumer.consumer], ClosedConsumer()
    end = partial(free, client)
    if seconds is not None:
        commits = consumer.config.get("enable.auto.commit", True)
        end = partial(_close_client, client, max(seconds, 0.0), commits=commits)
    executor = _ensure_daemon_executor(consumer)
    executor.submit(_call_and_set, end, ended, loop)
    executor.shutdown(wait=False)
    return ended


def _close_client(client: list[Any], seconds: float, *, commits: bool) -> None:
    """Commit and leave the group, if the server confirms the commit in time; drop the client in any case."""
    _close(client[0], seconds, commits=commits)
    free(client)


def _close(consumer: Any, seconds: float, *, commits: bool) -> None:
    # It may be closed already.
    with suppress(KafkaException, RuntimeError):
        if commits:
            consumer.commit(asynchronous=True)
        # While a commit is unconfirmed, close() waits for a frozen server without limit, and cannot be
        # interrupted. A client that is dropped waits for 60 s at most (librdkafka 2.16).
        if assigned := consumer.assignment():
            consumer.committed(assigned, timeout=seconds)
        consumer.close()


async def _cancel(tasks: "list[asyncio.Task[Any]]") -> None:
    """Cancel tasks that call consumers: a cancelled task keeps the frames of its last call."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_GRACE)


async def _wait_all(seconds: float, ending: list[asyncio.Event]) -> None:
    """Wait until all of these events are set.

    Raises:
        TimeoutError: They were not set within `seconds`.
    """
    async with asyncio.timeout(seconds):
        for ended in ending:
            await ended.wait()


driver_class = ConfluentDriver
