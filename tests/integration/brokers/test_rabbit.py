"""RabbitMQ: faults and features specific to it, on a real server."""
# ruff: noqa: SLF001 (the tests inject faults into the internals of the client)

import asyncio
import logging
import math
import re
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
    make_liveness_asgi,
    make_ping_asgi,
    make_readiness_asgi,
)
from faststream_adapters._brokers import rabbit as rabbit_module
from faststream_adapters._brokers.driver import Mismatch
from faststream_adapters._brokers.rabbit import RabbitDriver
from faststream_adapters._brokers.registry import driver_for
from faststream_adapters._lifecycle import subscriber_monitor, supervisor
from faststream_adapters._lifecycle.managed import ManagedBroker, managed_broker
from faststream_adapters._utils.errors import BrokerStartError
from tests.docs.blocks import python_blocks
from tests.harness.brokers import HARNESSES
from tests.harness.brokers.shared import shared_server
from tests.harness.clients import client, eventually_status, status
from tests.harness.drivers import start
from tests.harness.servers.rabbit import MEMORY, RabbitServer
from tests.harness.waiting import eventually


@pytest.fixture
def rabbit() -> Iterator[RabbitServer]:
    """Return the server that all tests of this process share, because it takes seconds to start."""
    server = shared_server(HARNESSES["rabbit"])
    assert isinstance(server, RabbitServer)
    yield server
    # A failed test may have left it frozen.
    server.thaw()


@pytest.fixture(autouse=True)
def fast_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the intervals of supervision."""
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervisor, "SUBSCRIBERS_INTERVAL", 0.1)
    monkeypatch.setattr(subscriber_monitor, "RETRY_INTERVAL", 0.1)


def unique() -> str:
    """Return a unique name."""
    return f"test-{uuid.uuid4().hex}"


def temporary_queue(**options: Any) -> RabbitQueue:
    """Return a queue that the server deletes when its last consumer leaves."""
    return RabbitQueue(unique(), auto_delete=True, **options)


def set_when_draining(event: asyncio.Event) -> Callable[[str, str], None]:
    """Return an `on_state_change` callback that sets an event when the state becomes `draining`."""

    def changed(_: str, new: str) -> None:
        if new == "draining":
            event.set()

    return changed


class Service:
    """A broker with one subscriber, its lifespan and its readiness probe."""

    def __init__(
        self, url: str, queue: RabbitQueue | None = None, *, interval: float = 0.1, **options: Any
    ) -> None:
        self.broker = RabbitBroker(url, reconnect_interval=interval)
        self.queue = temporary_queue() if queue is None else queue
        self.seen: set[str] = set()
        self.subscriber: Any = self.broker.subscriber(self.queue, **options)
        self.subscriber(self.handle)
        self.lifespan = BrokerLifespan(self.broker)
        self.ready = make_readiness_asgi(self.broker)

    async def handle(self, message: str) -> None:
        self.seen.add(message)

    @property
    def managed(self) -> ManagedBroker:
        return managed_broker(self.broker)

    @property
    def driver(self) -> RabbitDriver:
        assert isinstance(self.managed.driver, RabbitDriver)
        return self.managed.driver

    @property
    def connection(self) -> aio_pika.RobustConnection:
        connection = self.driver.client
        assert connection is not None
        return connection

    async def wait_until_working(self) -> None:
        """Wait until readiness answers 200 and the subscriber handles a message."""
        await eventually_status(self.ready, 200)
        message = unique()
        async with asyncio.timeout(20):
            # Repeatedly, because the queue may not exist yet.
            while message not in self.seen:
                await self.broker.publish(message, self.queue)
                with suppress(TimeoutError):
                    await eventually(lambda: message in self.seen, 0.2)

    async def reconnect(self, rabbit: RabbitServer) -> None:
        """Let the server close the connection, and wait until the client has another one."""
        lost = self.driver.connection_id()
        rabbit.close_connections()
        # Until the client notices, what is published on the lost connection fails.
        await eventually(lambda: self.driver.connection_id() not in {lost, (self.connection, None)})

    async def codes(self) -> dict[str, str]:
        """Return the codes of the broker and its subscribers from the probe details."""
        async with client(make_readiness_asgi(self.broker, details=True)) as http:
            [checks] = (await http.get("/")).json()["checks"].values()
        return {check["componentType"]: check["code"] for check in checks}


@pytest.mark.full
async def test_ping_fails_while_the_server_is_frozen_and_recovers_on_the_same_connection(
    rabbit: RabbitServer,
) -> None:
    service = Service(rabbit.url)
    ping = make_ping_asgi(service.lifespan, timeout=0.1)
    async with service.lifespan:
        await service.wait_until_working()
        connection, channel = service.connection, service.driver._check_channel
        for _ in range(3):
            rabbit.freeze()
            assert await status(ping) == 500
            assert await status(ping) == 500
            rabbit.thaw()
            await eventually_status(ping, 204)
            await service.wait_until_working()
        assert service.connection is connection
        assert service.driver._check_channel is channel


async def test_concurrent_checks_share_one_request(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    requests = 0

    class CountingDriver(RabbitDriver):
        async def check(self) -> Any:
            nonlocal requests
            requests += 1
            return await super().check()

    service.driver.__class__ = CountingDriver
    service.lifespan = BrokerLifespan(service.broker, supervise=False)
    async with service.lifespan:
        broker_check = service.managed.broker_check
        await broker_check.check(10.0)
        rabbit.freeze()
        requests = 0
        pending = [broker_check.check(30.0) for _ in range(20)]
        assert (await broker_check.check(0.1)).code == "timeout"
        pending.pop().cancel()
        rabbit.thaw()
        assert {result.code for result in await asyncio.gather(*pending)} == {"ok"}
        # A check by supervision would also share the request.
        assert requests == 1


@pytest.mark.full
async def test_a_thousand_probes_leak_no_tasks_channels_or_connections(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    async with service.lifespan:
        await service.wait_until_working()
        await eventually(lambda: service.driver._subscriber_channel is not None)
        tasks = len(asyncio.all_tasks())
        channels = rabbit.channels()
        for _ in range(1000):
            assert await status(service.ready) == 200
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
        assert rabbit.channels() == channels
        assert rabbit.connections() == 1
    await eventually(lambda: rabbit.connections() == 0)


async def test_a_wrong_password_fails_the_start_and_is_not_logged(
    rabbit: RabbitServer, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = "not-the-password"
    service = Service(rabbit.url.replace(rabbit.password, wrong))
    caplog.set_level(logging.DEBUG)
    with pytest.raises(BrokerStartError, match="the credentials were rejected") as raised:
        await service.lifespan.enter()
    async with BrokerLifespan(service.broker, startup="background"):
        await eventually(lambda: service.managed.error is not None)
        assert service.managed.last_result().code == "auth_failed"
    assert wrong not in f"{raised.value!r} {raised.value.__cause__!r} {caplog.text}"


async def test_an_unknown_virtual_host_fails_the_start(rabbit: RabbitServer) -> None:
    with pytest.raises(BrokerStartError, match="the connection was refused"):
        await Service(f"{rabbit.url}nowhere").lifespan.enter()


async def test_an_unknown_host_or_a_failed_tls_handshake_fails_the_start(rabbit: RabbitServer) -> None:
    with pytest.raises(BrokerStartError, match="its host name could not be resolved"):
        await Service("amqp://unknown.invalid").lifespan.enter()
    # The server does not support TLS.
    with pytest.raises(BrokerStartError, match="TLS failed"):
        await Service(rabbit.url.replace("amqp:", "amqps:")).lifespan.enter()


async def test_a_changed_password_is_reported_as_auth_failed_until_it_is_restored(
    rabbit: RabbitServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    service = Service(rabbit.url)
    async with service.lifespan:
        await service.wait_until_working()
        connection = service.connection
        rabbit.change_password("changed")
        rabbit.close_connections()
        await eventually_status(service.ready, 503)
        await eventually(lambda: service.driver.local_status() == "auth_failed")
        assert (await service.codes())["broker"] == "auth_failed"
        assert service.driver.is_reconnecting
        rabbit.change_password(rabbit.password)
        await service.wait_until_working()
        assert service.connection is connection
    assert rabbit.password not in caplog.text


async def test_a_connection_closed_by_the_server_is_reestablished_by_the_client(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    async with service.lifespan:
        await service.wait_until_working()
        connection, connection_id = service.connection, service.driver.connection_id()
        await service.reconnect(rabbit)
        await service.wait_until_working()
        assert service.connection is connection
        assert service.driver.connection_id() != connection_id


async def test_a_closed_client_is_restarted(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    async with service.lifespan:
        await service.wait_until_working()
        closed = service.connection
        await closed.close()
        await eventually(lambda: service.driver.client not in {None, closed})
        await service.wait_until_working()


async def test_without_supervision_a_closed_client_stays_closed(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    service.lifespan = BrokerLifespan(service.broker, supervise=False)
    async with service.lifespan:
        assert await status(make_liveness_asgi(service.lifespan)) == 200
        await service.connection.close()
        assert service.driver.is_closed
        assert not service.driver.is_reconnecting
        assert (await service.codes())["broker"] == "closed"
        assert await status(make_readiness_asgi(service.lifespan)) == 503
        assert await status(make_liveness_asgi(service.lifespan)) == 503
        assert await service.driver.check_subscriber(service.subscriber) == "error"


async def test_a_client_whose_reconnecting_was_cancelled_is_restarted(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    async with service.lifespan:
        await service.wait_until_working()
        lost = service.connection
        task = vars(lost)["_RobustConnection__reconnection_task"]
        task.cancel()
        await asyncio.wait((task,))
        # The client counts as closed only once its connection is lost.
        assert not service.driver.is_closed
        rabbit.close_connections()
        await eventually(lambda: service.driver.has_client and service.connection is not lost)
        await service.wait_until_working()


@pytest.mark.full
async def test_the_connection_is_replaced_while_the_server_stays_frozen(
    rabbit: RabbitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "CHECK_TIMEOUT", 0.1)
    monkeypatch.setattr(supervisor, "PATIENCE", 0.5)
    monkeypatch.setattr(rabbit_module, "CONNECT_TIMEOUT", 0.5)
    service = Service(rabbit.url)
    async with service.lifespan:
        await service.wait_until_working()
        frozen = service.connection
        rabbit.freeze()
        # Fills the socket's send buffer, so that the client cannot send a close frame.
        publishing = [
            asyncio.create_task(service.broker.publish(b"x" * 2_000_000, service.queue)) for _ in range(5)
        ]
        await eventually(lambda: frozen.is_closed)
        await asyncio.gather(*publishing, return_exceptions=True)
        await eventually(lambda: service.managed.error is not None)
        assert (await service.codes())["broker"] == "timeout"
        rabbit.thaw()
        await service.wait_until_working()
        assert service.connection is not frozen


@pytest.mark.full
async def test_a_start_fails_in_time_while_the_server_is_frozen(
    rabbit: RabbitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(rabbit.url)
    rabbit.freeze()
    # By the timeout of the lifespan, which cancels it …
    service.lifespan = BrokerLifespan(service.broker, startup_timeout=0.3)
    with pytest.raises(BrokerStartError, match=r"within 0\.3 s: it did not reply"):
        await service.lifespan.enter()
    # … and by the timeout of the driver.
    monkeypatch.setattr(rabbit_module, "CONNECT_TIMEOUT", 0.3)
    service = Service(rabbit.url)
    with pytest.raises(BrokerStartError, match="did not reply in time"):
        await service.lifespan.enter()
    rabbit.thaw()
    service.lifespan = BrokerLifespan(service.broker)
    async with service.lifespan:
        await service.wait_until_working()


async def test_the_timeout_passed_to_the_broker_limits_the_start(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    service.broker = RabbitBroker(rabbit.url, timeout=0.2)
    service.lifespan = BrokerLifespan(service.broker)
    rabbit.freeze()
    with pytest.raises(BrokerStartError, match="did not reply in time"):
        await service.lifespan.enter()
    rabbit.thaw()


@pytest.mark.full
async def test_a_connection_blocked_by_a_memory_alarm_is_not_replaced(
    rabbit: RabbitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "CHECK_TIMEOUT", 0.1)
    monkeypatch.setattr(supervisor, "PATIENCE", 1.0)
    service = Service(rabbit.url)
    async with service.lifespan:
        await service.wait_until_working()
        connection = service.connection
        rabbit.limit_memory("1")
        # The server blocks connections that publish.
        publishing = asyncio.create_task(service.broker.publish("blocked", service.queue))
        await eventually_status(service.ready, 503)
        await eventually(lambda: service.driver.is_reconnecting)
        started_at = asyncio.get_running_loop().time()
        # Longer than PATIENCE, after which supervision replaces a frozen connection.
        await eventually(lambda: asyncio.get_running_loop().time() - started_at > 1.5)
        assert (await service.codes())["broker"] == "timeout"
        rabbit.limit_memory(MEMORY)
        await publishing
        await service.wait_until_working()
        assert service.connection is connection


async def test_closing_the_connection_ends_pending_checks_with_an_error(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    driver = service.driver
    await start(driver, consume=True, supervise=True)
    assert await driver.check() == "ok"
    rabbit.freeze()
    checking = asyncio.create_task(driver.check())
    subscriber_check = asyncio.create_task(driver.check_subscriber(service.subscriber))
    await asyncio.sleep(0)
    await driver.abort()
    # aiormq cancels the pending call. A CancelledError would end the calling task, so the driver converts it.
    with pytest.raises(ConnectionError):
        await checking
    assert await subscriber_check != "ok"
    assert await driver.check() == "not_started"
    rabbit.thaw()


async def test_a_deleted_queue_is_declared_again(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url, RabbitQueue(unique(), durable=False))
    async with service.lifespan:
        await service.wait_until_working()
        rabbit.delete_queue(service.queue.name)
        # Either aio-pika or supervision restores the consumer, whichever comes first.
        await eventually(lambda: service.driver.running_tasks(service.subscriber) == 1)
        await service.wait_until_working()
        rabbit.delete_queue(service.queue.name)


async def test_a_deleted_queue_that_is_not_declared_here_is_reported_until_it_exists_again(
    rabbit: RabbitServer,
) -> None:
    service = Service(rabbit.url, RabbitQueue(unique(), declare=False))
    others = await aio_pika.connect(rabbit.url)
    channel = await others.channel()
    await channel.declare_queue(service.queue.name)
    async with service.lifespan:
        await service.wait_until_working()
        await channel.queue_delete(service.queue.name)
        await eventually(lambda: service.managed.monitor.fault == "task_failed")
        assert await service.codes() == {"broker": "ok", "subscriber": "task_failed"}
        assert await status(service.ready) == 503
        # The channel is closed as well: the client cannot restore it without the queue.
        with pytest.raises(aio_pika.exceptions.ChannelClosed):
            await service.broker.publish("lost", exchange=RabbitExchange("nowhere", declare=False))
        await channel.declare_queue(service.queue.name)
        await eventually(lambda: service.managed.monitor.fault is None, 20.0)
        await service.wait_until_working()
        await channel.queue_delete(service.queue.name)
    await others.close()


async def test_restart_replaces_a_channel_that_the_client_could_not_restore(rabbit: RabbitServer) -> None:
    # The client's next attempt comes after the end of the test.
    service = Service(rabbit.url, RabbitQueue(unique(), declare=False), interval=60.0)
    broker, subscriber = service.broker, service.subscriber
    others = await aio_pika.connect(rabbit.url)
    channel = await others.channel()
    await channel.declare_queue(service.queue.name)
    driver = service.driver
    await start(driver, consume=True, supervise=True)
    await channel.queue_delete(service.queue.name)
    await eventually(lambda: driver.running_tasks(subscriber) == 0)
    with pytest.raises(aio_pika.exceptions.ChannelClosed):
        await broker.publish("lost", exchange=RabbitExchange("nowhere", declare=False))
    await channel.declare_queue(service.queue.name)
    await driver.restart(subscriber)
    assert driver.running_tasks(subscriber) == 1
    await channel.queue_delete(service.queue.name)
    await driver.abort()
    await others.close()


async def test_a_consumer_cancelled_on_the_server_is_restarted(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url, RabbitQueue(unique(), durable=False))
    async with service.lifespan:
        await service.wait_until_working()
        # Wait until the driver has seen the server count the consumer.
        await eventually(lambda: service.subscriber in service.driver._counted)
        queue, tag = service.subscriber._queue_obj, service.subscriber._consumer_tag
        consumers = rabbit_module._live_consumers(queue)
        callback = consumers[tag]
        await queue.channel._channel.channel.basic_cancel(tag)
        # Makes the client believe that it still consumes.
        consumers[tag] = callback
        await eventually(lambda: service.subscriber._consumer_tag != tag)
        await service.wait_until_working()
        rabbit.delete_queue(service.queue.name)


async def test_a_queue_that_the_client_does_not_restore_is_consumed_again_after_a_reconnect(
    rabbit: RabbitServer,
) -> None:
    service = Service(rabbit.url, temporary_queue(robust=False))
    async with service.lifespan:
        await service.wait_until_working()
        await service.reconnect(rabbit)
        await service.wait_until_working()


async def test_one_of_two_consumers_of_a_queue_is_restarted(
    rabbit: RabbitServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Service(rabbit.url, RabbitQueue(unique(), durable=False))
    other: Any = service.broker.subscriber(service.queue)
    other(service.handle)
    async with service.lifespan:
        await service.wait_until_working()
        await other._queue_obj.cancel(other._consumer_tag)
        # It may be restarted only a moment later.
        await eventually(lambda: re.search("#[12] does not consume", caplog.text) is not None)
        await eventually(lambda: service.managed.monitor.fault is None)
        assert service.driver.running_tasks(service.subscriber) == service.driver.running_tasks(other) == 1
        await service.wait_until_working()
        rabbit.delete_queue(service.queue.name)


async def test_a_subscriber_consumes_again_after_the_server_closes_its_channel(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    async with service.lifespan:
        await service.wait_until_working()
        # Acknowledging an unknown delivery is a protocol error, for which the server closes the channel.
        robust = service.subscriber._queue_obj.channel
        channel = robust._channel.channel
        await channel.basic_ack(4711)
        await eventually(lambda: channel.is_closed)
        # The broker publishes on the same channel: not while the client opens it again.
        await eventually(lambda: robust._channel is not None and not robust._channel.channel.is_closed)
        await service.wait_until_working()


class ServiceWithConflict(Service):
    """A service with two subscribers, one of which another application prevents from restarting.

    The other application redeclares an exchange with a different type and deletes the queue.
    """

    def __init__(self, url: str) -> None:
        self.parent = RabbitExchange(unique())
        self.exchange = RabbitExchange(unique(), bind_to=self.parent)
        # The client's next attempt comes after the end of the test.
        super().__init__(url, RabbitQueue(unique(), durable=False), interval=60.0, exchange=self.exchange)
        self.other = temporary_queue()
        self.broker.subscriber(self.other)(self.slow)
        self.started, self.release, self.finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(self, _: str) -> None:
        self.started.set()
        await self.release.wait()
        self.finished.set()

    async def create_conflict(self, exchange: str, channel: Any) -> None:
        """Start the slow handler, then change an exchange's type and delete the other subscriber's queue."""
        await eventually_status(self.ready, 200)
        await self.broker.publish("slow", self.other)
        await asyncio.wait_for(self.started.wait(), 10)
        await channel.exchange_delete(exchange)
        await channel.declare_exchange(exchange, aio_pika.ExchangeType.FANOUT)
        await channel.queue_delete(self.queue.name)
        await eventually(lambda: self.managed.monitor.fault == "consumer_mismatch")

    async def assert_slow_handler_finishes(self) -> None:
        """Check that the slow handler was not interrupted."""
        assert list(self.managed.monitor.faults) == [self.subscriber]
        self.release.set()
        await asyncio.wait_for(self.finished.wait(), 10)

    async def clean_up(self, channel: Any) -> None:
        await channel.queue_delete(self.queue.name)
        for exchange in (self.exchange, self.parent):
            await channel.exchange_delete(exchange.name)


@pytest.mark.full
@pytest.mark.parametrize("conflicting", ["exchange", "parent"])
async def test_a_subscriber_that_cannot_be_restarted_does_not_affect_the_others(
    rabbit: RabbitServer, caplog: pytest.LogCaptureFixture, conflicting: str
) -> None:
    service = ServiceWithConflict(rabbit.url)
    name = getattr(service, conflicting).name
    others = await aio_pika.connect(rabbit.url)
    channel = await others.channel()
    async with service.lifespan:
        underlay = service.subscriber._queue_obj.channel._channel
        await service.create_conflict(name, channel)
        assert "found PRECONDITION_FAILED - inequivalent arg 'type' for exchange" in caplog.text
        await service.assert_slow_handler_finishes()
        assert service.subscriber._queue_obj.channel._channel is underlay
        # Supervision keeps trying to restart it.
        await channel.exchange_delete(name)
        await eventually_status(service.ready, 200)
        await service.broker.publish("hello", service.queue.name, service.parent.name)
        await service.broker.publish("hello", service.queue, service.exchange)
        await eventually(lambda: "hello" in service.seen)
        await service.clean_up(channel)
    await others.close()


@pytest.mark.parametrize("deleted", ["exchange", "parent"])
async def test_a_deleted_exchange_is_declared_and_bound_again(
    rabbit: RabbitServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, deleted: str
) -> None:
    monkeypatch.setattr(rabbit_module, "EXCHANGES_INTERVAL", 0.0)
    parent = RabbitExchange(unique(), ExchangeType.FANOUT)
    exchange = RabbitExchange(unique(), ExchangeType.FANOUT, bind_to=parent)
    service = Service(rabbit.url, RabbitQueue(unique(), durable=False), exchange=exchange)
    others = await aio_pika.connect(rabbit.url)
    channel = await others.channel()
    async with service.lifespan:
        await service.wait_until_working()
        with caplog.at_level(logging.INFO, "faststream.adapters"):
            await channel.exchange_delete((exchange if deleted == "exchange" else parent).name)
            await eventually(lambda: "consumes again." in caplog.text)
        await service.broker.publish("hello", service.queue.name, parent.name)
        await eventually(lambda: "hello" in service.seen)
        await eventually_status(service.ready, 200)
    await channel.queue_delete(service.queue.name)
    for each in (exchange, parent):
        await channel.exchange_delete(each.name)
    await others.close()


async def test_messages_that_no_queue_receives_are_reported(
    rabbit: RabbitServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(rabbit.url)
    text = "published messages, because no queue receives them; the last one was for the exchange"
    async with service.lifespan:
        for number in range(3):
            await service.broker.publish(f"lost {number}", "undeclared")
        await service.broker.publish("not reported", "undeclared", mandatory=False)
        await service.wait_until_working()
        assert caplog.text.count(f"returned 1 {text} '' and the routing key 'undeclared'.") == 1
        # The channel is opened again by the client, and still reports.
        await service.reconnect(rabbit)
        await service.wait_until_working()
        monkeypatch.setattr(rabbit_module, "RETURNED_INTERVAL", 0.0)
        await service.broker.publish("lost", "nowhere")
        assert caplog.text.count(f"returned 3 {text} '' and the routing key 'nowhere'.") == 1
        monkeypatch.setattr(rabbit_module, "RETURNED_INTERVAL", 60.0)
        await service.broker.publish("lost", "nowhere")
        assert caplog.text.count(text) == 2
    assert caplog.text.count(f"returned 1 {text} '' and the routing key 'nowhere'.") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"arguments": {"x-max-length": 10}}, "PRECONDITION_FAILED - inequivalent arg 'x-max-length'"),
        ({"exclusive": True}, "RESOURCE_LOCKED - cannot obtain exclusive access to locked"),
    ],
)
async def test_a_queue_that_another_application_declares_differently_is_reported(
    rabbit: RabbitServer, caplog: pytest.LogCaptureFixture, options: dict[str, Any], words: str
) -> None:
    # The client's next attempt comes after the end of the test.
    service = Service(rabbit.url, RabbitQueue(unique(), durable=False), interval=60.0)
    name = service.queue.name
    others = await aio_pika.connect(rabbit.url)
    channel = await others.channel()
    restart, refused = service.driver.restart, 0

    async def declare_first(subscriber: Any) -> Mismatch | None:
        nonlocal refused
        if not refused:
            await channel.declare_queue(name, **options)
        mismatch = await restart(subscriber)
        refused += mismatch is not None
        return mismatch

    service.driver.restart = declare_first  # type: ignore[method-assign]  # the order of events matters
    async with service.lifespan:
        await service.wait_until_working()
        await channel.queue_delete(name)
        await eventually(lambda: refused > 1)
        assert await service.codes() == {"broker": "ok", "subscriber": "consumer_mismatch"}
        assert await status(service.ready) == 503
        assert await status(make_liveness_asgi(service.broker)) == 200
        await channel.queue_delete(name)
        await service.wait_until_working()
        await channel.queue_delete(name)
    assert caplog.text.count(f"declared the queue '{name}', found {words}") == 1
    await others.close()


async def test_a_subscriber_restored_by_the_client_is_no_longer_faulty(rabbit: RabbitServer) -> None:
    service = ServiceWithConflict(rabbit.url)
    others = await aio_pika.connect(rabbit.url)
    channel = await others.channel()
    async with service.lifespan:
        await service.create_conflict(service.exchange.name, channel)
        # The client does this every reconnect_interval. It ignores the changed type of the exchange.
        await service.subscriber._queue_obj.channel._restore_consumers()
        await eventually(lambda: service.managed.monitor.fault is None)
        await service.broker.publish("hello", service.queue)
        await eventually(lambda: "hello" in service.seen)
        service.release.set()
        await asyncio.wait_for(service.finished.wait(), 10)
        await service.clean_up(channel)
    await others.close()


async def test_a_restarted_subscriber_has_its_bindings(rabbit: RabbitServer) -> None:
    exchange = RabbitExchange(unique(), ExchangeType.TOPIC, auto_delete=True)
    broker = RabbitBroker(rabbit.url, reconnect_interval=60.0)
    router = RabbitRouter(prefix="prefix.")
    queue = RabbitQueue(unique(), durable=False, routing_key="{animal}.eats")
    received: asyncio.Queue[str] = asyncio.Queue()
    subscriber: Any = router.subscriber(queue, exchange)
    subscriber(received.put)
    broker.include_router(router)
    driver = managed_broker(broker).driver
    assert isinstance(driver, RabbitDriver)
    await start(driver, consume=True, supervise=True)
    rabbit.delete_queue(f"prefix.{queue.name}")
    await eventually(lambda: driver.running_tasks(subscriber) == 0)
    await driver.restart(subscriber)
    for key in ("prefix.cat.eats", "cat.eats"):
        await broker.publish(key, exchange=exchange, routing_key=key)
    assert await asyncio.wait_for(received.get(), 10) == "prefix.cat.eats"
    rabbit.delete_queue(f"prefix.{queue.name}")
    await driver.abort()


async def test_waiting_for_the_lock_does_not_count_as_a_timeout_of_the_server(
    rabbit: RabbitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbit_module, "SUBSCRIBER_TIMEOUT", 0.2)
    service = Service(rabbit.url)
    driver = service.driver
    await start(driver, consume=True, supervise=True)
    async with driver._subscriber_lock:
        checking = asyncio.create_task(driver.check_subscriber(service.subscriber))
        # Longer than SUBSCRIBER_TIMEOUT.
        await asyncio.sleep(0.5)
        assert not checking.done()
    channel = driver._subscriber_channel
    assert await checking == "ok"
    assert driver._last_timeout == -math.inf
    assert service.subscriber in driver._counted
    assert channel is None
    await driver.abort()


async def test_subscribers_keep_their_codes_while_the_server_does_not_reply(
    rabbit: RabbitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbit_module, "SUBSCRIBER_TIMEOUT", 0.5)
    # The client does not restore the queue during the test.
    service = Service(rabbit.url, interval=60.0)
    gone: Any = service.broker.subscriber(RabbitQueue(unique(), durable=False))
    gone(service.handle)
    driver = service.driver
    await start(driver, consume=True, supervise=True)
    check = driver.check_subscriber
    rabbit.delete_queue(gone.queue.name)
    for _ in range(2):
        codes = await asyncio.gather(*map(check, (service.subscriber, gone)))
        assert codes == ["ok", "consumer_missing"]
        rabbit.freeze()
        started_at = time.monotonic()
        codes = await asyncio.gather(*(check(service.subscriber) for _ in range(40)), check(gone))
        assert codes == ["ok"] * 40 + ["consumer_missing"]
        # One timeout applies to all checks, not one to each.
        assert time.monotonic() - started_at < 10
        rabbit.thaw()
    await driver.abort()


async def test_channels_of_the_driver_do_not_conflict_with_those_of_subscribers(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    async with service.lifespan:
        await service.wait_until_working()
        await eventually(lambda: service.driver._subscriber_channel is not None)
        # With and without an explicit channel number.
        late = {unique(): number for number in (2, 3, 4, None, None)}
        for message, number in late.items():
            subscriber: Any = service.broker.subscriber(
                temporary_queue(), channel=Channel(channel_number=number)
            )
            subscriber(service.handle)
            await subscriber.start()
            await service.broker.publish(message, subscriber.queue)
        await eventually(lambda: late.keys() <= service.seen)
        connection: Any = rabbit_module._connection_of(service.connection)
        highest = max(connection.channels)
        assert highest < connection.connection_tune.channel_max
        # Simulates a server that allows only one channel.
        connection.connection_tune.channel_max = 1
        channel = await service.driver._open_channel(None)
        assert channel.number == highest + 1
        await channel.close()


async def test_a_drain_ends_when_its_connection_is_lost(
    rabbit: RabbitServer, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(rabbit.url)
    driver = service.driver
    await start(driver, consume=True, supervise=True)
    queue = service.subscriber._queue_obj
    rabbit.freeze()
    drain = asyncio.create_task(driver.drain())
    await eventually(lambda: not queue._consumers)
    await driver.abort()
    await drain
    assert "ConnectionError while draining a subscriber." in caplog.text
    rabbit.thaw()


async def test_a_stopped_subscriber_can_be_restarted(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    async with service.lifespan:
        await service.subscriber.stop()
        await service.driver.restart(service.subscriber)
        await service.wait_until_working()


async def test_check_subscriber_answers_ok_without_a_connection(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url, RabbitQueue(unique(), exclusive=True))
    driver = service.driver
    await start(driver, consume=True, supervise=True)
    assert await driver.check_subscriber(service.subscriber) == "ok"
    await driver.abort()
    assert await driver.check_subscriber(service.subscriber) == "ok"
    assert driver.running_tasks(service.subscriber) == 0


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


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.full if number else []) for number, kind in enumerate(KINDS)],
)
async def test_every_kind_of_subscriber_consumes_again_after_a_reconnect(
    rabbit: RabbitServer, kind: str
) -> None:
    queue_options, options, shared = KINDS[kind]
    service = Service(rabbit.url, RabbitQueue(unique(), **queue_options), **options)
    async with service.lifespan:
        await service.wait_until_working()
        assert service.driver.is_load_balanced(service.subscriber) is shared
        assert service.driver.expected_tasks(service.subscriber) == 1
        assert service.driver.running_tasks(service.subscriber) == 1
        for _ in range(2):
            assert await service.driver.check_subscriber(service.subscriber) == "ok"
        assert await service.codes() == {"broker": "ok", "subscriber": "ok"}
        await service.reconnect(rabbit)
        await service.wait_until_working()
        await (await service.connection.channel()).queue_delete(service.queue.name)


async def test_a_queue_named_by_the_server_receives_from_a_fanout_exchange(rabbit: RabbitServer) -> None:
    exchange = RabbitExchange(unique(), ExchangeType.FANOUT, auto_delete=True)
    service = Service(rabbit.url, temporary_queue(), exchange=exchange)
    broker = service.broker
    received: asyncio.Queue[str] = asyncio.Queue()
    nameless: Any = broker.subscriber(RabbitQueue("", auto_delete=True, durable=False), exchange)
    nameless(received.put)
    async with service.lifespan:
        await broker.publish("to all", exchange=exchange)
        assert await asyncio.wait_for(received.get(), 10) == "to all"
        await eventually(lambda: "to all" in service.seen)
        assert service.driver.is_load_balanced(nameless) is False
        assert await service.driver.check_subscriber(nameless) == "ok"


async def test_requests_and_subscribers_without_a_handler(rabbit: RabbitServer) -> None:
    broker = RabbitBroker(rabbit.url)
    requests, read = temporary_queue(), RabbitQueue(unique(), durable=False)
    reader = broker.subscriber(read)

    @broker.subscriber(requests)
    async def answer(message: str) -> str:
        return f"{message} yourself"

    async with BrokerLifespan(broker) as _:
        response = await broker.request("hello", requests, timeout=10)
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
        rabbit.delete_queue(read.name)


@pytest.mark.parametrize("policy", [AckPolicy.REJECT_ON_ERROR, AckPolicy.ACK_FIRST])
async def test_a_graceful_stop_handles_delivered_messages(rabbit: RabbitServer, policy: AckPolicy) -> None:
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
        lifespan = BrokerLifespan(broker, on_state_change=set_when_draining(stopping))
        async with lifespan:
            # The last messages are still in transit when the stop starts.
            await asyncio.gather(*(publisher.publish(number, queue) for number in sent))
        finished = len(handled)
        assert finished
        # Messages that were not delivered remain for the next start.
        async with BrokerLifespan(broker):
            await eventually(lambda: len(handled) >= len(sent))
            rabbit.delete_queue(queue.name)
    assert sorted(handled) == sorted(sent)


async def test_a_stop_leaves_undelivered_messages_in_the_queue(rabbit: RabbitServer) -> None:
    queue = RabbitQueue(unique(), durable=False)
    broker = RabbitBroker(rabbit.url, default_channel=Channel(prefetch_count=2))
    handled: list[str] = []
    stopping = asyncio.Event()

    @broker.subscriber(queue)
    async def slow(message: str) -> None:
        handled.append(message)
        await stopping.wait()
        await asyncio.sleep(0.2)

    async with BrokerLifespan(broker, on_state_change=set_when_draining(stopping)):
        for number in range(10):
            await broker.publish(str(number), queue)
        await eventually(lambda: len(handled) == 2)
    assert len(handled) < 10
    async with BrokerLifespan(broker):
        await eventually(lambda: len(handled) == 10)
        rabbit.delete_queue(queue.name)
    assert handled == [str(number) for number in range(10)]


async def test_the_message_of_a_cancelled_handler_is_redelivered(rabbit: RabbitServer) -> None:
    queue = RabbitQueue(unique(), durable=False)
    broker = RabbitBroker(rabbit.url)
    tries: list[str] = []
    release = asyncio.Event()

    @broker.subscriber(queue)
    async def slow(message: str) -> None:
        tries.append(message)
        await release.wait()

    async with BrokerLifespan(broker, shutdown_timeout=0.5) as _:
        await broker.publish("important", queue)
        await eventually(lambda: tries == ["important"])
    release.set()
    async with BrokerLifespan(broker):
        await eventually(lambda: tries == ["important"] * 2)
        rabbit.delete_queue(queue.name)


class InterruptedService:
    """A service whose handler is cancelled when it loses its connection."""

    def __init__(self, url: str) -> None:
        self.broker = RabbitBroker(url, reconnect_interval=0.1)
        self.queue = RabbitQueue(unique(), durable=True)
        self.broker.subscriber(self.queue)(self.handle)
        self.tries = 0
        self.release, self.cancelled, self.done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(self) -> None:
        self.tries += 1
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            # aiormq cancels the handler, because its message can no longer be acknowledged.
            self.cancelled.set()
            raise
        self.done.set()

    async def start_handling(self) -> None:
        await self.broker.publish("important", self.queue, persist=True)
        await eventually(lambda: self.tries == 1)

    async def finish_handling(self, rabbit: RabbitServer) -> None:
        self.release.set()
        await asyncio.wait_for(self.done.wait(), 20)
        rabbit.delete_queue(self.queue.name)


async def test_a_message_is_redelivered_after_its_connection_is_lost(rabbit: RabbitServer) -> None:
    service = InterruptedService(rabbit.url)
    async with BrokerLifespan(service.broker):
        await service.start_handling()
        rabbit.close_connections()
        await asyncio.wait_for(service.cancelled.wait(), 10)
        await service.finish_handling(rabbit)


@pytest.mark.full
async def test_a_message_is_redelivered_after_the_server_is_killed(rabbit: RabbitServer) -> None:
    service = InterruptedService(rabbit.url)
    async with BrokerLifespan(service.broker):
        await service.start_handling()
        # The server confirms a new queue before it has written it to disk.
        rabbit.evaluate("mnesia:sync_log()")
        rabbit.kill()
        await asyncio.wait_for(service.cancelled.wait(), 10)
    await asyncio.to_thread(rabbit.start)
    async with BrokerLifespan(service.broker):
        await service.finish_handling(rabbit)


@pytest.mark.full
async def test_a_lifespan_can_be_entered_again_and_without_consuming(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    for _ in range(3):
        async with service.lifespan:
            await service.wait_until_working()
    tasks = len(asyncio.all_tasks())
    for _ in range(20):
        async with service.lifespan:
            assert service.connection.connected.is_set()
    assert len(asyncio.all_tasks()) == tasks
    publishing = Service(rabbit.url)
    publishing.lifespan = BrokerLifespan(publishing.broker, consume=False)
    async with publishing.lifespan:
        assert publishing.driver.running_tasks(publishing.subscriber) == 0
        await publishing.broker.publish("not consumed", mandatory=False)
        assert await status(make_readiness_asgi(publishing.lifespan)) == 200


async def test_a_connection_made_before_the_start_is_kept(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    await service.broker.connect()
    connection = service.connection
    async with service.lifespan:
        await service.wait_until_working()
        assert service.connection is connection
    await service.broker.connect()
    await service.driver.abort()
    assert not service.driver.has_client


async def test_a_test_broker_never_connects(rabbit: RabbitServer) -> None:
    service = Service(rabbit.url)
    async with TestRabbitBroker(service.broker), service.lifespan:
        assert not service.driver.has_client
        assert not service.driver.is_reconnecting
        assert not service.driver.is_closed
        assert service.driver.connection_id() is None
        assert await status(service.ready) == 200
        await service.broker.publish("hello", service.queue)
        assert service.seen == {"hello"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (aio_pika.exceptions.ProbableAuthenticationError("ACCESS_REFUSED"), "auth_failed"),
        (aio_pika.exceptions.AuthenticationError("PLAIN", []), "auth_failed"),
        (aio_pika.exceptions.AMQPConnectionError("reset"), "unreachable"),
        (aio_pika.exceptions.ChannelInvalidStateError("closed"), "closed"),
        (aio_pika.exceptions.ChannelPreconditionFailed("inequivalent arg"), "error"),
        (TimeoutError(), "timeout"),
    ],
    ids=repr,
)
def test_errors_are_classified_by_code(error: Exception, code: str) -> None:
    driver = driver_for(RabbitBroker())
    assert type(driver) is RabbitDriver
    assert driver.classify(error) == code


async def test_the_example_of_the_documentation_runs(rabbit: RabbitServer) -> None:
    [block] = python_blocks("docs/brokers/rabbit.md").values()
    assert "amqp://guest:guest@localhost:5672/" in block.code
    names: dict[str, Any] = {}
    exec(block.code.replace("amqp://guest:guest@localhost:5672/", rabbit.url), names)  # noqa: S102 (our own page)
    app = names["app"]
    async with app.router.lifespan_context(app), client(app) as http:
        assert (await http.get("/readyz")).status_code == 200
        assert (await http.post("/orders", params={"number": 7})).status_code == 202
        await eventually(lambda: names["handled"] == [7])
