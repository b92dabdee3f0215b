"""Phases of several brokers: all can publish before any consumes, and all drain before any closes."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from faststream.exceptions import IncorrectState
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue
from faststream.redis import RedisBroker, StreamSub

from faststream_adapters import BrokerLifespan, BrokerStartError
from faststream_adapters._lifecycle.managed import managed_broker
from tests.harness.brokers import HARNESSES
from tests.harness.brokers.shared import shared_server
from tests.harness.servers.nats import NatsServer
from tests.harness.servers.rabbit import RabbitServer, missing
from tests.harness.servers.redis import RedisServer
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from faststream_adapters._compat.faststream import Broker


class Bridge:
    """Forward messages from a source broker to a target broker, after a delay in the handler."""

    def __init__(self, source: str, target: str, seconds: float) -> None:
        self.source = HARNESSES[source].broker(shared_server(HARNESSES[source]).url)
        self.target = HARNESSES[target].broker(shared_server(HARNESSES[target]).url)
        self.source_harness, self.target_harness = HARNESSES[source], HARNESSES[target]
        self.channel, self.out = f"in-{uuid.uuid4().hex}", f"out-{uuid.uuid4().hex}"
        self.seconds = seconds
        self.started: list[int] = []
        self.published: list[int] = []
        self.source_harness.subscribe(self.source, self.channel, self.handle)

    async def handle(self, number: int) -> None:
        self.started.append(number)
        await asyncio.sleep(self.seconds)  # the handler's work
        await self.target_harness.publish(self.target, number, self.out)
        self.published.append(number)

    async def send(self, *numbers: int) -> None:
        """Publish each number until its handler starts: a Kafka consumer may have no position yet."""
        for number in numbers:
            async with asyncio.timeout(60.0):
                while number not in self.started:
                    await self.source_harness.publish(self.source, number, self.channel)
                    with suppress(TimeoutError):
                        await eventually(partial(self.started.__contains__, number), 1.0)


def broker_pairs() -> list[Any]:
    """Return all pairs of clients; those not marked as full have servers that start at once."""
    default = {("nats", "redis"), ("redis", "mqtt"), ("mqtt", "nats")}
    return [
        pytest.param(
            source,
            target,
            id=f"{source}-{target}",
            marks=[] if (source, target) in default else pytest.mark.full,
        )
        for source in HARNESSES
        for target in HARNESSES
        if source != target
    ]


@pytest.mark.parametrize(("source", "target"), broker_pairs())
@pytest.mark.parametrize(
    "target_first",
    [pytest.param(False, marks=pytest.mark.full), True],
    ids=["source first", "target first"],
)
async def test_a_handler_can_publish_to_another_broker_while_draining(
    source: str, target: str, target_first: bool
) -> None:
    bridge = Bridge(source, target, 0.5)
    brokers = (bridge.target, bridge.source) if target_first else (bridge.source, bridge.target)
    async with BrokerLifespan(*brokers):
        await bridge.send(1)
    assert set(bridge.published) == set(bridge.started)
    assert not bridge.source.running
    assert not bridge.target.running


@pytest.mark.parametrize("startup", ["strict", pytest.param("background", marks=pytest.mark.full)])
async def test_draining_finishes_the_batch_of_a_pull_subscriber(nats_js: NatsServer, startup: Any) -> None:
    source, target = NatsBroker(nats_js.url), RedisBroker(shared_server(HARNESSES["redis"]).url)
    started: list[int] = []
    done: list[int] = []

    @source.subscriber(
        "jobs", stream=JStream("jobs"), durable="worker", pull_sub=PullSub(batch_size=20), max_workers=20
    )
    async def handle(number: int) -> None:
        started.append(number)
        await asyncio.sleep(0.5)  # the handler's work
        await target.publish(number, "done")
        done.append(number)

    async with NatsBroker(nats_js.url) as other:
        await other.start()
        context = other.connection.jetstream()
        await context.add_stream(name="jobs", subjects=["jobs"])
        for number in range(40):
            await other.publish(number, "jobs", stream="jobs")
        async with BrokerLifespan(source, target, startup=startup):
            await eventually(lambda: bool(started), 20.0)
    assert sorted(done) == sorted(started)


@pytest.mark.full
@pytest.mark.skipif(bool(missing()), reason=str(missing()))
async def test_a_handler_can_publish_to_two_other_brokers_while_draining() -> None:
    first = HARNESSES["nats"].broker(shared_server(HARNESSES["nats"]).url)
    second = HARNESSES["redis"].broker(shared_server(HARNESSES["redis"]).url)
    third = HARNESSES["rabbit"].broker(shared_server(HARNESSES["rabbit"]).url)
    name = uuid.uuid4().hex
    done: list[str] = []
    started = asyncio.Event()

    async def handle(number: int) -> None:
        started.set()
        await asyncio.sleep(0.3)  # the handler's work
        await HARNESSES["redis"].publish(second, number, name)
        await HARNESSES["rabbit"].publish(third, number, name)
        done.append("published")

    HARNESSES["nats"].subscribe(first, name, handle)
    async with BrokerLifespan(third, first, second):
        await HARNESSES["nats"].publish(first, 1, name)
        await started.wait()
    assert done == ["published"]


def is_connected(broker: NatsBroker) -> bool:
    """Return whether the broker has a connected client."""
    with suppress(IncorrectState):
        return broker.connection.is_connected
    return False


@pytest.mark.parametrize("target_first", [False, True], ids=["source first", "target first"])
async def test_a_lost_broker_comes_back_for_the_handlers_of_a_draining_one(
    nats: NatsServer, target_first: bool
) -> None:
    source, target = RedisBroker(shared_server(HARNESSES["redis"]).url), NatsBroker(nats.url)
    name = uuid.uuid4().hex
    started, proceed = asyncio.Event(), asyncio.Event()
    published: list[int] = []

    @source.subscriber(name)
    async def handle(number: int) -> None:
        started.set()
        await proceed.wait()
        await target.publish(number, name)
        published.append(number)

    lifespan = BrokerLifespan(*((target, source) if target_first else (source, target)))
    await lifespan.enter()
    await source.publish(1, name)
    await started.wait()
    nats.kill()
    # Supervision restarts a broker whose client is closed, and the server is away.
    await target.connection.close()
    await eventually(lambda: not is_connected(target))
    leaving = asyncio.create_task(lifespan.leave())
    # From here on supervision has ended.
    await eventually(lambda: not managed_broker(target).owners)
    nats.start()
    await eventually(lambda: is_connected(target))
    proceed.set()
    await leaving
    assert published == [1]
    assert not is_connected(target)


def is_running(subscriber: Any) -> bool:
    """Return whether the subscriber has started."""
    return bool(subscriber.running)


class DelayedConnect:
    """Delay the `connect` of a broker until `proceed` is set; `requested` is set when it is called."""

    def __init__(self, broker: Broker) -> None:
        self.requested, self.proceed = asyncio.Event(), asyncio.Event()
        connect: Callable[[], Any] = broker.connect

        async def connect_later() -> Any:
            self.requested.set()
            await self.proceed.wait()
            return await connect()

        vars(broker)["connect"] = connect_later


@pytest.mark.parametrize("startup", ["strict", "background"])
@pytest.mark.parametrize("source_first", [True, False], ids=["source first", "target first"])
async def test_no_message_is_handled_before_every_broker_can_publish(
    nats_js: NatsServer, startup: Any, source_first: bool
) -> None:
    source, target = NatsBroker(nats_js.url), RedisBroker(shared_server(HARNESSES["redis"]).url)
    called: list[int] = []
    done: list[int] = []

    @source.subscriber("jobs", stream=JStream("jobs"), durable="worker", pull_sub=True)
    async def handle(number: int) -> None:
        called.append(number)
        await target.publish(number, "done")
        done.append(number)

    async with NatsBroker(nats_js.url) as other:
        await other.start()
        await other.connection.jetstream().add_stream(name="jobs", subjects=["jobs"])
        for number in range(40):
            await other.publish(number, "jobs", stream="jobs")
        delayed = DelayedConnect(target)
        lifespan = BrokerLifespan(*((source, target) if source_first else (target, source)), startup=startup)
        entering = asyncio.create_task(lifespan.enter())
        await delayed.requested.wait()
        # The source connects meanwhile, but does not consume.
        await eventually(lambda: is_connected(source))
        assert called == []
        delayed.proceed.set()
        await entering
        await eventually(lambda: len(done) >= 40, 20.0)
        await lifespan.leave()
    # No call failed, or its message would have been handled again.
    assert sorted(called) == sorted(done) == list(range(40))


async def test_an_unreachable_optional_broker_does_not_prevent_consuming(nats: NatsServer) -> None:
    required, optional = NatsBroker(nats.url), RedisBroker("redis://127.0.0.1:1")
    handled = asyncio.Event()

    @required.subscriber("jobs")
    async def handle(number: int) -> None:
        handled.set()

    async with BrokerLifespan(required, optional, optional=[optional]):
        await required.publish(1, "jobs")
        async with asyncio.timeout(10.0):
            await handled.wait()


async def test_an_optional_broker_consumes_only_after_the_required_ones_have_declared(
    nats: NatsServer,
) -> None:
    optional, required = NatsBroker(nats.url), RedisBroker(shared_server(HARNESSES["redis"]).url)
    subscriber = optional.subscriber("jobs")
    subscriber(_ignore)
    delayed = DelayedConnect(required)
    lifespan = BrokerLifespan(optional, required, optional=[optional])
    entering = asyncio.create_task(lifespan.enter())
    await delayed.requested.wait()
    await eventually(lambda: is_connected(optional))
    assert not is_running(subscriber)
    delayed.proceed.set()
    await entering
    await eventually(lambda: is_running(subscriber))
    await lifespan.leave()


async def _ignore(number: int) -> None: ...


class TestPublishBeforeSubscribersStart:
    """A message that is published just before the target's subscribers start is delivered."""

    @pytest.mark.parametrize("target_first", [False, True], ids=["source first", "target first"])
    async def test_a_jetstream_stream_keeps_the_message(
        self, nats_js: NatsServer, target_first: bool
    ) -> None:
        target = NatsBroker(nats_js.url)
        received = asyncio.Event()

        @target.subscriber("out", stream=JStream("out"), durable="worker", pull_sub=True)
        async def handle(number: int) -> None:
            received.set()

        await self.check_delivery(
            target, lambda: target.publish(1, "out", stream="out"), received, target_first
        )

    @pytest.mark.full
    @pytest.mark.parametrize("target_first", [False, True], ids=["source first", "target first"])
    @pytest.mark.skipif(bool(missing()), reason=str(missing()))
    async def test_a_bound_rabbitmq_queue_keeps_the_message(self, target_first: bool) -> None:
        server = shared_server(HARNESSES["rabbit"])
        assert isinstance(server, RabbitServer)
        target = RabbitBroker(server.url)
        name = uuid.uuid4().hex
        received = asyncio.Event()
        exchange = RabbitExchange(name, type=ExchangeType.TOPIC)

        @target.subscriber(RabbitQueue(name, routing_key="jobs.*"), exchange)
        async def handle(number: int) -> None:
            received.set()

        await self.check_delivery(
            target,
            lambda: target.publish(1, exchange=exchange, routing_key="jobs.new"),
            received,
            target_first,
        )

    @pytest.mark.parametrize("target_first", [False, True], ids=["source first", "target first"])
    @pytest.mark.parametrize("last_id", [None, "0"], ids=["new messages", "all messages"])
    async def test_a_redis_consumer_group_receives_the_message(
        self, target_first: bool, last_id: str | None
    ) -> None:
        server = shared_server(HARNESSES["redis"])
        assert isinstance(server, RedisServer)
        target = RedisBroker(server.url)
        name = uuid.uuid4().hex
        received = asyncio.Event()
        options: dict[str, Any] = {} if last_id is None else {"last_id": last_id}

        @target.subscriber(stream=StreamSub(name, group="workers", consumer="worker", **options))
        async def handle(number: int) -> None:
            received.set()

        await self.check_delivery(target, lambda: target.publish(1, stream=name), received, target_first)

    async def check_delivery(
        self,
        target: Broker,
        publish: Callable[[], Any],
        received: asyncio.Event,
        target_first: bool,
    ) -> None:
        """Assert that a message published just before the target's subscribers start is received."""
        source = HARNESSES["redis"].broker(shared_server(HARNESSES["redis"]).url)
        name = uuid.uuid4().hex
        published: list[int] = []
        start: Callable[[], Any] = target.start

        async def handle(number: int) -> None:
            raise AssertionError

        async def publish_first() -> None:
            # The last moment before the subscribers start.
            await publish()
            published.append(1)
            await start()

        HARNESSES["redis"].subscribe(source, name, handle)
        vars(target)["start"] = publish_first
        async with BrokerLifespan(*((target, source) if target_first else (source, target))):
            async with asyncio.timeout(10.0):
                await received.wait()
        assert published == [1]


async def test_a_start_error_in_the_last_phase_leaves_nothing_running(nats: NatsServer) -> None:
    good, bad = NatsBroker(nats.url), NatsBroker(nats.url)
    good.subscriber("jobs")(_ignore)

    async def fail() -> None:
        raise KeyError

    vars(bad)["start"] = fail
    with pytest.raises(BrokerStartError, match="could not be started: KeyError"):
        await BrokerLifespan(good, bad).enter()
    assert not good.running
    assert not bad.running


async def test_a_start_cancelled_between_the_phases_leaves_nothing_running(nats: NatsServer) -> None:
    connected, waiting = NatsBroker(nats.url), RedisBroker(shared_server(HARNESSES["redis"]).url)
    connected.subscriber("jobs")(_ignore)
    delayed = DelayedConnect(waiting)
    entering = asyncio.create_task(BrokerLifespan(connected, waiting).enter())
    await delayed.requested.wait()
    entering.cancel()
    await asyncio.wait((entering,))
    assert entering.cancelled()
    assert not connected.running
