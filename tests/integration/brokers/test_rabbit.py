"""RabbitMQ: what only it can do wrong, on a real server."""
# ruff: noqa: SLF001 (what a test breaks, nobody has made for that)

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import aio_pika
import pytest
from faststream import AckPolicy
from faststream.rabbit import (
    Channel,
    ExchangeType,
    QueueType,
    RabbitBroker,
    RabbitExchange,
    RabbitQueue,
    RabbitRouter,
    TestRabbitBroker,
)

from faststream_adapters import (
    BrokerLifespan,
    consumers,
    make_liveness_asgi,
    make_ping_asgi,
    make_readiness_asgi,
    supervision,
)
from faststream_adapters.brokers import driver_for
from faststream_adapters.brokers import rabbit as rabbit_module
from faststream_adapters.brokers.rabbit import RabbitDriver
from faststream_adapters.lifespan import BrokerStartError
from tests.examples.blocks import python_blocks
from tests.servers.rabbit import RabbitServer, missing
from tests.support import client, eventually, eventually_status, status


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitServer]:
    """Return the server of this module: it takes seconds to start, so a test leaves it as it was."""
    if reason := missing():  # pragma: no cover (where nothing may be skipped, nothing is missing)
        pytest.skip(reason)
    with RabbitServer() as server:
        yield server


@pytest.fixture(autouse=True)
def quick_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let supervision look often."""
    monkeypatch.setattr(supervision, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervision, "CONSUMERS_INTERVAL", 0.1)
    monkeypatch.setattr(consumers, "RETRY_INTERVAL", 0.1)


@pytest.fixture(autouse=True)
def thawed(rabbit: RabbitServer) -> Iterator[None]:
    """Let the server go on after a test that has failed."""
    yield
    rabbit.thaw()


def unique() -> str:
    """Return a name that nobody else uses."""
    return f"test-{uuid.uuid4().hex}"


def passing(**options: Any) -> RabbitQueue:
    """Return a queue that goes when its last consumer goes."""
    return RabbitQueue(unique(), auto_delete=True, **options)


def draining(event: asyncio.Event) -> Callable[[str, str], None]:
    """Return what sets an event when a lifespan begins to stop."""

    def changed(_: str, new: str) -> None:
        if new == "draining":
            event.set()

    return changed


class Service:
    """A consumer, its lifespan and its probes."""

    def __init__(
        self, url: str, queue: RabbitQueue | None = None, *, interval: float = 0.1, **options: Any
    ) -> None:
        self.broker = RabbitBroker(url, reconnect_interval=interval)
        self.queue = passing() if queue is None else queue
        self.seen: set[str] = set()
        self.subscriber: Any = self.broker.subscriber(self.queue, **options)
        self.subscriber(self.handle)
        self.lifespan = BrokerLifespan(self.broker)
        self.ready = make_readiness_asgi(self.broker)

    async def handle(self, message: str) -> None:
        self.seen.add(message)

    @property
    def run(self) -> supervision.BrokerRun:
        return supervision.run_of(self.broker)

    @property
    def driver(self) -> RabbitDriver:
        assert isinstance(self.run.driver, RabbitDriver)
        return self.run.driver

    @property
    def connection(self) -> aio_pika.RobustConnection:
        connection = self.driver.client
        assert connection is not None
        return connection

    async def works(self) -> None:
        """Wait until readiness says 204 and a message goes through."""
        await eventually_status(self.ready, 204)
        message = unique()
        async with asyncio.timeout(20):
            # Again and again: its queue may not be there yet.
            while message not in self.seen:
                await self.broker.publish(message, self.queue)
                with suppress(TimeoutError):
                    await eventually(lambda: message in self.seen, 1.0)

    async def codes(self) -> dict[str, str]:
        """Return what the details say of the broker and of its subscribers."""
        async with client(make_readiness_asgi(self.broker, details=True)) as http:
            [checks] = (await http.get("/")).json()["checks"].values()
        return {check["componentType"]: check["code"] for check in checks}


async def control(rabbit: RabbitServer, *arguments: str) -> list[str]:
    """Run `rabbitmqctl` beside the event loop, and return the words that it has printed."""
    return (await asyncio.to_thread(rabbit.control, *arguments)).split()


async def close_connections(rabbit: RabbitServer) -> None:
    """Have the server close all connections."""
    await control(rabbit, "close_all_connections", "a test wants it")


async def test_a_frozen_server_is_seen_and_no_harm_is_done(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    ping = make_ping_asgi(service.lifespan, timeout=0.1)
    async with service.lifespan:
        await service.works()
        connection, channel = service.connection, service.driver._probe
        for _ in range(3):
            rabbit.freeze()
            assert await status(ping) == 500
            assert await status(ping) == 500
            rabbit.thaw()
            await eventually_status(ping, 204)
            await service.works()
        assert service.connection is connection
        assert service.driver._probe is channel


async def test_many_callers_share_one_round_trip(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    checks = 0

    class Counting(RabbitDriver):
        async def check(self) -> Any:
            nonlocal checks
            checks += 1
            return await super().check()

    service.driver.__class__ = Counting
    service.lifespan = BrokerLifespan(service.broker, supervise=False)
    async with service.lifespan:
        trips = service.run.round_trips
        await trips.ask(10.0)
        rabbit.freeze()
        checks = 0
        asking = [trips.ask(30.0) for _ in range(20)]
        assert (await trips.ask(0.1)).code == "timeout"
        asking.pop().cancel()
        rabbit.thaw()
        assert {result.code for result in await asyncio.gather(*asking)} == {"ok"}
        # Supervision asks too, but joins.
        assert checks == 1


async def test_a_thousand_probes_leave_nothing(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    async with service.lifespan:
        await service.works()
        await eventually(lambda: service.driver._question is not None)
        probed = len(asyncio.all_tasks())
        channels = await control(rabbit, "list_channels", "number")
        for _ in range(1000):
            assert await status(service.ready) == 204
        await eventually(lambda: len(asyncio.all_tasks()) <= probed)
        assert await control(rabbit, "list_channels", "number") == channels
        assert len(await control(rabbit, "list_connections", "pid")) == 2  # a heading and ours
    assert await control(rabbit, "list_connections", "pid") == []


async def test_a_wrong_password_at_the_start(rabbit: RabbitServer, caplog: pytest.LogCaptureFixture) -> None:
    wrong = "not-the-password"
    service = Service(rabbit.url.replace(rabbit.password, wrong))
    caplog.set_level(logging.DEBUG)
    with pytest.raises(BrokerStartError, match="the credentials were rejected") as raised:
        await service.lifespan.enter()
    async with BrokerLifespan(service.broker, startup="background"):
        await eventually(lambda: service.run.error is not None)
        assert service.run.known().code == "auth"
    assert wrong not in f"{raised.value!r} {raised.value.__cause__!r} {caplog.text}"


async def test_a_virtual_host_that_there_is_not(rabbit: RabbitServer) -> None:
    with pytest.raises(BrokerStartError, match="the connection was refused"):
        await Service(f"{rabbit.url}nowhere").lifespan.enter()


async def test_a_host_that_nobody_knows(rabbit: RabbitServer) -> None:
    with pytest.raises(BrokerStartError, match="its host name could not be resolved"):
        await Service("amqp://nobody.invalid").lifespan.enter()
    # A server that does not speak TLS.
    with pytest.raises(BrokerStartError, match="TLS failed"):
        await Service(rabbit.url.replace("amqp:", "amqps:")).lifespan.enter()


async def test_a_password_that_is_changed_while_it_runs(
    rabbit: RabbitServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    service = Service(rabbit.url)
    async with service.lifespan:
        await service.works()
        connection = service.connection
        await control(rabbit, "change_password", "guest", "changed")
        await close_connections(rabbit)
        await eventually_status(service.ready, 503)
        await eventually(lambda: service.driver.down() == "auth")
        assert (await service.codes())["broker"] == "auth"
        assert service.driver.reconnecting
        await control(rabbit, "change_password", "guest", rabbit.password)
        await service.works()
        assert service.connection is connection
    assert rabbit.password not in caplog.text


async def test_a_connection_that_the_server_closes(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    async with service.lifespan:
        await service.works()
        connection, epoch = service.connection, service.driver.epoch()
        await close_connections(rabbit)
        await service.works()
        assert service.connection is connection
        assert service.driver.epoch() != epoch


async def test_a_client_that_was_closed_is_restarted(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    async with service.lifespan:
        await service.works()
        closed = service.connection
        await closed.close()
        assert service.driver.gave_up
        assert not service.driver.reconnecting
        assert (await service.codes())["broker"] == "closed"
        await service.works()
        assert service.connection is not closed


async def test_without_supervision_a_closed_client_stays_closed(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    service.lifespan = BrokerLifespan(service.broker, supervise=False)
    async with service.lifespan:
        assert await status(make_liveness_asgi(service.lifespan)) == 204
        await service.connection.close()
        assert await status(make_readiness_asgi(service.lifespan)) == 503
        assert await status(make_liveness_asgi(service.lifespan)) == 503
        assert await service.driver.ask_consumer(service.subscriber) == "refused"


async def test_a_client_whose_reconnecting_was_cancelled_is_restarted(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    async with service.lifespan:
        await service.works()
        lost = service.connection
        task = vars(lost)["_RobustConnection__reconnection_task"]
        task.cancel()
        await asyncio.wait((task,))
        # As long as it is connected nothing is wrong.
        assert not service.driver.gave_up
        await close_connections(rabbit)
        await eventually(lambda: service.driver.real and service.connection is not lost)
        await service.works()


async def test_a_server_that_stays_frozen(rabbit: RabbitServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "CHECK_TIMEOUT", 0.1)
    monkeypatch.setattr(supervision, "PATIENCE", 0.5)
    monkeypatch.setattr(rabbit_module, "CONNECT_TIMEOUT", 0.5)
    service = Service(rabbit.url)
    async with service.lifespan:
        await service.works()
        frozen = service.connection
        rabbit.freeze()
        # What nobody reads fills the socket: a farewell to the server could not be sent.
        publishing = [
            asyncio.create_task(service.broker.publish(b"x" * 2_000_000, service.queue)) for _ in range(5)
        ]
        await eventually(lambda: frozen.is_closed)
        await asyncio.gather(*publishing, return_exceptions=True)
        await eventually(lambda: service.run.error is not None)
        assert (await service.codes())["broker"] == "timeout"
        rabbit.thaw()
        await service.works()
        assert service.connection is not frozen


async def test_a_start_while_the_server_is_frozen_ends(
    rabbit: RabbitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(rabbit.url)
    rabbit.freeze()
    # Cancelled from outside …
    service.lifespan = BrokerLifespan(service.broker, startup_timeout=0.3)
    with pytest.raises(BrokerStartError, match=r"within 0\.3 s: it did not answer"):
        await service.lifespan.enter()
    # … and by its own limit.
    monkeypatch.setattr(rabbit_module, "CONNECT_TIMEOUT", 0.3)
    service = Service(rabbit.url)
    with pytest.raises(BrokerStartError, match="did not answer in time"):
        await service.lifespan.enter()
    rabbit.thaw()
    service.lifespan = BrokerLifespan(service.broker)
    async with service.lifespan:
        await service.works()


async def test_the_timeout_that_a_user_gave_is_kept(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    service.broker = RabbitBroker(rabbit.url, timeout=0.2)
    service.lifespan = BrokerLifespan(service.broker)
    rabbit.freeze()
    with pytest.raises(BrokerStartError, match="did not answer in time"):
        await service.lifespan.enter()
    rabbit.thaw()


async def test_a_memory_alarm_is_waited_for(rabbit: RabbitServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "CHECK_TIMEOUT", 0.1)
    monkeypatch.setattr(supervision, "PATIENCE", 1.0)
    service = Service(rabbit.url)
    async with service.lifespan:
        await service.works()
        connection = service.connection
        await control(rabbit, "set_vm_memory_high_watermark", "absolute", "1")
        # The server blocks those that publish.
        publishing = asyncio.create_task(service.broker.publish("blocked", service.queue))
        await eventually_status(service.ready, 503)
        await eventually(lambda: service.driver.reconnecting)
        watched = asyncio.get_running_loop().time()
        # For longer than its patience.
        await eventually(lambda: asyncio.get_running_loop().time() - watched > 1.5)
        assert (await service.codes())["broker"] == "timeout"
        await control(rabbit, "set_vm_memory_high_watermark", "absolute", "1GB")
        await publishing
        await service.works()
        assert service.connection is connection


async def test_a_check_on_a_connection_that_is_closed_raises_an_error(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    driver = service.driver
    await driver.start(consume=True, supervise=True)
    assert await driver.check() == "ok"
    rabbit.freeze()
    checking = asyncio.create_task(driver.check())
    asked = asyncio.create_task(driver.ask_consumer(service.subscriber))
    await asyncio.sleep(0)
    await driver.abort()
    # aiormq cancels it, which would end whoever waits.
    with pytest.raises(ConnectionError):
        await checking
    assert await asked != "ok"
    assert await driver.check() == "not_started"
    rabbit.thaw()


async def test_a_queue_that_is_deleted_is_declared_again(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url, RabbitQueue(unique(), durable=False))
    async with service.lifespan:
        await service.works()
        await control(rabbit, "delete_queue", service.queue.name)
        # Perhaps aio-pika is quicker than supervision.
        await eventually(lambda: service.driver.alive(service.subscriber) == 1)
        await service.works()
        await control(rabbit, "delete_queue", service.queue.name)


async def test_a_queue_of_others_that_is_deleted(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url, RabbitQueue(unique(), declare=False))
    others = await aio_pika.connect(rabbit.url)
    channel = await others.channel()
    await channel.declare_queue(service.queue.name)
    async with service.lifespan:
        await service.works()
        await channel.queue_delete(service.queue.name)
        await eventually(lambda: service.run.consumers.fault == "closed")
        assert await service.codes() == {"broker": "ok", "subscriber": "closed"}
        assert await status(service.ready) == 503
        # Nor is the channel there, which the client cannot set up again without the queue.
        with pytest.raises(aio_pika.exceptions.ChannelClosed):
            await service.broker.publish("lost", exchange=RabbitExchange("nowhere", declare=False))
        await channel.declare_queue(service.queue.name)
        await eventually(lambda: service.run.consumers.fault is None, 20.0)
        await service.works()
        await channel.queue_delete(service.queue.name)
    await others.close()


async def test_a_channel_that_the_client_has_given_up_is_set_up_again(rabbit: RabbitServer) -> None:
    # The client's own next try comes after the test.
    service = Service(rabbit.url, RabbitQueue(unique(), declare=False), interval=60.0)
    broker, subscriber = service.broker, service.subscriber
    others = await aio_pika.connect(rabbit.url)
    channel = await others.channel()
    await channel.declare_queue(service.queue.name)
    driver = service.driver
    await driver.start(consume=True, supervise=True)
    await channel.queue_delete(service.queue.name)
    await eventually(lambda: driver.alive(subscriber) == 0)
    with pytest.raises(aio_pika.exceptions.ChannelClosed):
        await broker.publish("lost", exchange=RabbitExchange("nowhere", declare=False))
    await channel.declare_queue(service.queue.name)
    await driver.revive(subscriber)
    assert driver.alive(subscriber) == 1
    await channel.queue_delete(service.queue.name)
    await driver.abort()
    await others.close()


async def test_a_consumer_that_the_server_has_forgotten_is_revived(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url, RabbitQueue(unique(), durable=False))
    async with service.lifespan:
        await service.works()
        # Once the server has counted it.
        await eventually(lambda: service.subscriber in service.driver._counted)
        queue, tag = service.subscriber._queue_obj, service.subscriber._consumer_tag
        known = rabbit_module._consumers_of(queue)
        callback = known[tag]
        await queue.channel._channel.channel.basic_cancel(tag)
        # The client goes on believing in it.
        known[tag] = callback
        await eventually(lambda: service.subscriber._consumer_tag != tag)
        await service.works()
        await control(rabbit, "delete_queue", service.queue.name)


async def test_a_queue_that_is_not_restored_by_the_client(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url, passing(robust=False))
    async with service.lifespan:
        await service.works()
        await close_connections(rabbit)
        await service.works()


async def test_one_of_two_consumers_of_a_queue_is_revived(
    rabbit: RabbitServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Service(rabbit.url, RabbitQueue(unique(), durable=False))
    other: Any = service.broker.subscriber(service.queue)
    other(service.handle)
    async with service.lifespan:
        await service.works()
        await other._queue_obj.cancel(other._consumer_tag)
        # It may be back a moment later.
        await eventually(lambda: "the subscriber Handle does not consume" in caplog.text)
        await eventually(lambda: service.run.consumers.fault is None)
        assert service.driver.alive(service.subscriber) == service.driver.alive(other) == 1
        await service.works()
        await control(rabbit, "delete_queue", service.queue.name)


async def test_a_channel_that_the_server_closes(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    async with service.lifespan:
        await service.works()
        # Acknowledging what was not delivered is a protocol error.
        channel = service.subscriber._queue_obj.channel._channel.channel
        await channel.basic_ack(4711)
        await eventually(lambda: channel.is_closed)
        await service.works()


class Taken(Service):
    """A service with a second subscriber, whose names another application has taken for other things."""

    def __init__(self, url: str) -> None:
        self.parent = RabbitExchange(unique())
        self.exchange = RabbitExchange(unique(), bind_to=self.parent)
        # The client's own next try comes after the test.
        super().__init__(url, RabbitQueue(unique(), durable=False), interval=60.0, exchange=self.exchange)
        self.other = passing()
        self.broker.subscriber(self.other)(self.slow)
        self.begun, self.go_on, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(self, _: str) -> None:
        self.begun.set()
        await self.go_on.wait()
        self.ended.set()

    async def take(self, name: str, channel: Any) -> None:
        """Have one subscriber handle a message, and the other lose its queue for good."""
        await eventually_status(self.ready, 204)
        await self.broker.publish("slow", self.other)
        await asyncio.wait_for(self.begun.wait(), 10)
        await channel.exchange_delete(name)
        await channel.declare_exchange(name, aio_pika.ExchangeType.FANOUT)
        await channel.queue_delete(self.queue.name)
        await eventually(lambda: self.run.consumers.fault == "closed")

    async def finish(self) -> None:
        """Check that nothing was done to the handler of the first."""
        assert list(self.run.consumers.faults) == [self.subscriber]
        self.go_on.set()
        await asyncio.wait_for(self.ended.wait(), 10)

    async def give_back(self, channel: Any) -> None:
        await channel.queue_delete(self.queue.name)
        for exchange in (self.exchange, self.parent):
            await channel.exchange_delete(exchange.name)


@pytest.mark.parametrize("taken", ["exchange", "parent"])
async def test_a_subscriber_that_cannot_be_revived_leaves_the_others_alone(
    rabbit: RabbitServer, caplog: pytest.LogCaptureFixture, taken: str
) -> None:
    service = Taken(rabbit.url)
    name = getattr(service, taken).name
    others = await aio_pika.connect(rabbit.url)
    channel = await others.channel()
    async with service.lifespan:
        underlay = service.subscriber._queue_obj.channel._channel
        await service.take(name, channel)
        await eventually(lambda: "could not be started again" in caplog.text)
        await service.finish()
        assert service.subscriber._queue_obj.channel._channel is underlay
        # It is tried again.
        await channel.exchange_delete(name)
        await eventually_status(service.ready, 204)
        await service.broker.publish("hello", service.queue.name, service.parent.name)
        await service.broker.publish("hello", service.queue, service.exchange)
        await eventually(lambda: "hello" in service.seen)
        await service.give_back(channel)
    await others.close()


async def test_a_subscriber_that_the_client_brings_back_after_all(
    rabbit: RabbitServer, caplog: pytest.LogCaptureFixture
) -> None:
    service = Taken(rabbit.url)
    others = await aio_pika.connect(rabbit.url)
    channel = await others.channel()
    async with service.lifespan:
        await service.take(service.exchange.name, channel)
        await eventually(lambda: "could not be started again" in caplog.text)
        # What the client does every reconnect_interval: it does not mind what the exchange is.
        await service.subscriber._queue_obj.channel._restore_consumers()
        await eventually(lambda: service.run.consumers.fault is None)
        await service.broker.publish("hello", service.queue)
        await eventually(lambda: "hello" in service.seen)
        service.go_on.set()
        await asyncio.wait_for(service.ended.wait(), 10)
        await service.give_back(channel)
    await others.close()


async def test_a_revived_subscriber_has_its_bindings(rabbit: RabbitServer) -> None:
    exchange = RabbitExchange(unique(), ExchangeType.TOPIC, auto_delete=True)
    broker = RabbitBroker(rabbit.url, reconnect_interval=60.0)
    router = RabbitRouter(prefix="prefix.")
    queue = RabbitQueue(unique(), durable=False, routing_key="{animal}.eats")
    received: asyncio.Queue[str] = asyncio.Queue()
    subscriber: Any = router.subscriber(queue, exchange)
    subscriber(received.put)
    broker.include_router(router)
    driver = supervision.run_of(broker).driver
    assert isinstance(driver, RabbitDriver)
    await driver.start(consume=True, supervise=True)
    await control(rabbit, "delete_queue", f"prefix.{queue.name}")
    await eventually(lambda: driver.alive(subscriber) == 0)
    await driver.revive(subscriber)
    for key in ("prefix.cat.eats", "cat.eats"):
        await broker.publish(key, exchange=exchange, routing_key=key)
    assert await asyncio.wait_for(received.get(), 10) == "prefix.cat.eats"
    await control(rabbit, "delete_queue", f"prefix.{queue.name}")
    await driver.abort()


async def test_waiting_for_the_other_questions_is_no_silence(
    rabbit: RabbitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbit_module, "ASK_TIMEOUT", 0.2)
    service = Service(rabbit.url)
    driver = service.driver
    await driver.start(consume=True, supervise=True)
    async with driver._asking:
        asking = asyncio.create_task(driver.ask_consumer(service.subscriber))
        # That others take their time is the case itself.
        await asyncio.sleep(0.5)
        assert not asking.done()
    channel = driver._question
    assert await asking == "ok"
    assert driver._unanswered == -math.inf
    assert service.subscriber in driver._counted
    assert channel is None
    await driver.abort()


async def test_a_server_that_does_not_tell_changes_nothing(
    rabbit: RabbitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbit_module, "ASK_TIMEOUT", 0.5)
    # The client does not bring the queue back meanwhile.
    service = Service(rabbit.url, interval=60.0)
    gone: Any = service.broker.subscriber(RabbitQueue(unique(), durable=False))
    gone(service.handle)
    driver = service.driver
    await driver.start(consume=True, supervise=True)
    ask = driver.ask_consumer
    await control(rabbit, "delete_queue", gone.queue.name)
    for _ in range(2):
        known = await asyncio.gather(*map(ask, (service.subscriber, gone)))
        assert known == ["ok", "deleted"]
        rabbit.freeze()
        begun = time.monotonic()
        answers = await asyncio.gather(*(ask(service.subscriber) for _ in range(40)), ask(gone))
        assert answers == ["ok"] * 40 + ["deleted"]
        # They do not wait for their own silence each.
        assert time.monotonic() - begun < 10
        rabbit.thaw()
    await driver.abort()


async def test_channels_of_our_own_are_in_nobodys_way(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    async with service.lifespan:
        await service.works()
        await eventually(lambda: service.driver._question is not None)
        # With a number and without one.
        late = {unique(): number for number in (2, 3, 4, None, None)}
        for message, number in late.items():
            subscriber: Any = service.broker.subscriber(passing(), channel=Channel(channel_number=number))
            subscriber(service.handle)
            await subscriber.start()
            await service.broker.publish(message, subscriber.queue)
        await eventually(lambda: late.keys() <= service.seen)
        connection: Any = rabbit_module._connection_of(service.connection)
        highest = max(connection.channels)
        assert highest < connection.connection_tune.channel_max
        # A server that grants next to none.
        connection.connection_tune.channel_max = 1
        channel = await service.driver._channel(None)
        assert channel.number == highest + 1
        await channel.close()


async def test_a_drain_whose_connection_is_lost(
    rabbit: RabbitServer, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(rabbit.url)
    driver = service.driver
    await driver.start(consume=True, supervise=True)
    queue = service.subscriber._queue_obj
    rabbit.freeze()
    draining = asyncio.create_task(driver.drain())
    await eventually(lambda: not queue._consumers)
    await driver.abort()
    await draining
    assert "ConnectionError while draining a subscriber." in caplog.text
    rabbit.thaw()


async def test_a_subscriber_that_was_stopped_can_be_revived(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    async with service.lifespan:
        await service.subscriber.stop()
        await service.driver.revive(service.subscriber)
        await service.works()


async def test_who_is_not_connected_has_nothing_to_ask(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url, RabbitQueue(unique(), exclusive=True))
    driver = service.driver
    await driver.start(consume=True, supervise=True)
    assert await driver.ask_consumer(service.subscriber) == "ok"
    await driver.abort()
    assert await driver.ask_consumer(service.subscriber) == "ok"
    assert driver.alive(service.subscriber) == 0


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "classic": ({}, {}, True),
    "quorum": ({"queue_type": QueueType.QUORUM}, {}, True),
    "stream": (
        {"queue_type": QueueType.STREAM},
        {"channel": Channel(prefetch_count=10), "consume_args": {"x-stream-offset": "first"}},
        False,
    ),
    "exclusive": ({"exclusive": True, "durable": False}, {}, True),
    "priority": ({"arguments": {"x-max-priority": 5}}, {}, True),
    "single active": ({"arguments": {"x-single-active-consumer": True}}, {}, True),
    "acknowledged first": ({}, {"ack_policy": AckPolicy.ACK_FIRST}, True),
    "topic": ({}, {"exchange": RabbitExchange("test-topic", ExchangeType.TOPIC, auto_delete=True)}, True),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_subscriber(rabbit: RabbitServer, kind: str) -> None:
    queue_options, options, shared = KINDS[kind]
    service = Service(rabbit.url, RabbitQueue(unique(), **queue_options), **options)
    async with service.lifespan:
        await service.works()
        assert service.driver.shared(service.subscriber) is shared
        assert service.driver.expected(service.subscriber) == 1
        assert service.driver.alive(service.subscriber) == 1
        for _ in range(2):
            assert await service.driver.ask_consumer(service.subscriber) == "ok"
        assert await service.codes() == {"broker": "ok", "subscriber": "ok"}
        await close_connections(rabbit)
        await service.works()
        await (await service.connection.channel()).queue_delete(service.queue.name)


async def test_a_queue_for_each_process(rabbit: RabbitServer) -> None:
    exchange = RabbitExchange(unique(), ExchangeType.FANOUT, auto_delete=True)
    service = Service(rabbit.url, passing(), exchange=exchange)
    broker = service.broker
    received: asyncio.Queue[str] = asyncio.Queue()
    nameless: Any = broker.subscriber(RabbitQueue("", auto_delete=True, durable=False), exchange)
    nameless(received.put)
    async with service.lifespan:
        await broker.publish("to all", exchange=exchange)
        assert await asyncio.wait_for(received.get(), 10) == "to all"
        await eventually(lambda: "to all" in service.seen)
        assert service.driver.shared(nameless) is False
        assert await service.driver.ask_consumer(nameless) == "ok"


async def test_subscribers_without_a_handler_and_requests(rabbit: RabbitServer) -> None:
    broker = RabbitBroker(rabbit.url)
    asked, read = passing(), RabbitQueue(unique(), durable=False)
    reader = broker.subscriber(read)

    @broker.subscriber(asked)
    async def answer(message: str) -> str:
        return f"{message} yourself"

    async with BrokerLifespan(broker) as _:
        response = await broker.request("hello", asked, timeout=10)
        assert await response.decode() == "hello yourself"
        await broker.publish("one", read)
        message = await reader.get_one(timeout=10)
        assert message is not None
        assert await message.decode() == "one"
        await broker.publish("two", read)
        messages = reader.__aiter__()
        message = await anext(messages)
        assert await message.decode() == "two"
        await message.ack()
        await messages.aclose()  # type: ignore[attr-defined]  # it is a generator
        await control(rabbit, "delete_queue", read.name)


@pytest.mark.parametrize("policy", [AckPolicy.REJECT_ON_ERROR, AckPolicy.ACK_FIRST])
async def test_a_graceful_stop_finishes_what_was_delivered(rabbit: RabbitServer, policy: AckPolicy) -> None:
    queue = RabbitQueue(unique(), durable=False)
    broker = RabbitBroker(rabbit.url)
    sent, handled = [str(number) for number in range(50)], list[str]()
    stopping = asyncio.Event()

    @broker.subscriber(queue, ack_policy=policy)
    async def slow(message: str) -> None:
        await stopping.wait()
        await asyncio.sleep(0.1)
        handled.append(message)

    publisher = RabbitBroker(rabbit.url)
    async with BrokerLifespan(publisher):
        lifespan = BrokerLifespan(broker, on_state_change=draining(stopping))
        async with lifespan:
            # The last of them are still on their way when the stop begins.
            await asyncio.gather(*(publisher.publish(number, queue) for number in sent))
        finished = len(handled)
        assert finished
        # What was not delivered any more waits for the next start.
        async with BrokerLifespan(broker):
            await eventually(lambda: len(handled) >= len(sent))
            await control(rabbit, "delete_queue", queue.name)
    assert sorted(handled) == sorted(sent)


async def test_what_was_not_delivered_is_left_in_the_queue(rabbit: RabbitServer) -> None:
    queue = RabbitQueue(unique(), durable=False)
    broker = RabbitBroker(rabbit.url, default_channel=Channel(prefetch_count=2))
    handled: list[str] = []
    stopping = asyncio.Event()

    @broker.subscriber(queue)
    async def slow(message: str) -> None:
        handled.append(message)
        await stopping.wait()
        await asyncio.sleep(0.2)

    async with BrokerLifespan(broker, on_state_change=draining(stopping)):
        for number in range(10):
            await broker.publish(str(number), queue)
        await eventually(lambda: len(handled) == 2)
    assert len(handled) < 10
    async with BrokerLifespan(broker):
        await eventually(lambda: len(handled) == 10)
        await control(rabbit, "delete_queue", queue.name)
    assert handled == [str(number) for number in range(10)]


async def test_a_handler_that_is_cut_off_gets_its_message_again(rabbit: RabbitServer) -> None:
    queue = RabbitQueue(unique(), durable=False)
    broker = RabbitBroker(rabbit.url)
    tries: list[str] = []
    go_on = asyncio.Event()

    @broker.subscriber(queue)
    async def slow(message: str) -> None:
        tries.append(message)
        await go_on.wait()

    async with BrokerLifespan(broker, shutdown_timeout=0.5) as _:
        await broker.publish("important", queue)
        await eventually(lambda: tries == ["important"])
    go_on.set()
    async with BrokerLifespan(broker):
        await eventually(lambda: tries == ["important"] * 2)
        await control(rabbit, "delete_queue", queue.name)


class Interrupted:
    """A service whose handler is interrupted by what becomes of the server."""

    def __init__(self, url: str) -> None:
        self.broker = RabbitBroker(url, reconnect_interval=0.1)
        self.queue = RabbitQueue(unique(), durable=True)
        self.broker.subscriber(self.queue)(self.handle)
        self.tries = 0
        self.go_on, self.cut_off, self.done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(self) -> None:
        self.tries += 1
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            # aiormq does that: the message could not be acknowledged any more.
            self.cut_off.set()
            raise
        self.done.set()

    async def begin(self) -> None:
        await self.broker.publish("important", self.queue, persist=True)
        await eventually(lambda: self.tries == 1)

    async def end(self, rabbit: RabbitServer) -> None:
        self.go_on.set()
        await asyncio.wait_for(self.done.wait(), 20)
        await control(rabbit, "delete_queue", self.queue.name)


async def test_a_handler_whose_connection_is_lost_gets_its_message_again(rabbit: RabbitServer) -> None:
    service = Interrupted(rabbit.url)
    async with BrokerLifespan(service.broker):
        await service.begin()
        await close_connections(rabbit)
        await asyncio.wait_for(service.cut_off.wait(), 10)
        await service.end(rabbit)


@pytest.mark.full
async def test_a_handler_whose_server_is_killed_gets_its_message_again(rabbit: RabbitServer) -> None:
    service = Interrupted(rabbit.url)
    async with BrokerLifespan(service.broker):
        await service.begin()
        # The server confirms a new queue before that is on its disk.
        await control(rabbit, "eval", "mnesia:sync_log().")
        rabbit.kill()
        await asyncio.wait_for(service.cut_off.wait(), 10)
    await asyncio.to_thread(rabbit.start)
    async with BrokerLifespan(service.broker):
        await service.end(rabbit)


async def test_entered_again_and_without_consuming(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    for _ in range(3):
        async with service.lifespan:
            await service.works()
    tasks = len(asyncio.all_tasks())
    for _ in range(20):
        async with service.lifespan:
            assert service.connection.connected.is_set()
    assert len(asyncio.all_tasks()) == tasks
    publishing = Service(rabbit.url)
    publishing.lifespan = BrokerLifespan(publishing.broker, consume=False)
    async with publishing.lifespan:
        assert publishing.driver.alive(publishing.subscriber) == 0
        await publishing.broker.publish("to nobody", mandatory=False)
        assert await status(make_readiness_asgi(publishing.lifespan)) == 204


async def test_a_broker_that_its_user_has_connected(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    await service.broker.connect()
    connection = service.connection
    async with service.lifespan:
        await service.works()
        assert service.connection is connection
    await service.broker.connect()
    await service.driver.abort()
    assert not service.driver.real


async def test_under_the_test_broker(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    async with TestRabbitBroker(service.broker), service.lifespan:
        assert not service.driver.real
        assert not service.driver.reconnecting
        assert not service.driver.gave_up
        assert service.driver.epoch() is None
        assert await status(service.ready) == 204
        await service.broker.publish("hello", service.queue)
        assert service.seen == {"hello"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (aio_pika.exceptions.ProbableAuthenticationError("ACCESS_REFUSED"), "auth"),
        (aio_pika.exceptions.AuthenticationError("PLAIN", []), "auth"),
        (aio_pika.exceptions.AMQPConnectionError("reset"), "refused"),
        (aio_pika.exceptions.ChannelInvalidStateError("closed"), "closed"),
        (aio_pika.exceptions.ChannelPreconditionFailed("inequivalent arg"), "error"),
        (TimeoutError(), "timeout"),
    ],
    ids=repr,
)
def test_codes(error: Exception, code: str) -> None:
    driver = driver_for(RabbitBroker())
    assert type(driver) is RabbitDriver
    assert driver.code(error) == code


async def test_the_example_of_the_page(rabbit: RabbitServer) -> None:
    [block] = python_blocks("docs/brokers/rabbit.md").values()
    assert "amqp://guest:guest@localhost:5672/" in block.code
    names: dict[str, Any] = {}
    exec(block.code.replace("amqp://guest:guest@localhost:5672/", rabbit.url), names)  # noqa: S102 (our own page)
    app = names["app"]
    async with app.router.lifespan_context(app), client(app) as http:
        assert (await http.get("/readyz")).status_code == 204
        assert (await http.post("/orders", params={"number": 7})).status_code == 202
        await eventually(lambda: names["handled"] == [7])
