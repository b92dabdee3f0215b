"""Drivers on real NATS servers: checks, draining, and closing the client."""

import asyncio
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from faststream.exceptions import StopConsume
from faststream.nats import JStream, NatsBroker, PullSub
from nats import connect
from nats.aio.client import Client
from nats.aio.msg import Msg

from faststream_adapters import BrokerLifespan
from faststream_adapters._brokers.driver import Driver
from faststream_adapters._brokers.nats.driver import close
from faststream_adapters._brokers.nats.subscriptions import drain
from faststream_adapters._brokers.registry import driver_for
from faststream_adapters._lifecycle.broker_check import BrokerCheck
from faststream_adapters._lifecycle.subscriber_monitor import SubscriberMonitor
from tests.harness.drivers import start
from tests.harness.pinged import Pinged
from tests.harness.servers.nats import NatsFactory, NatsServer
from tests.harness.waiting import eventually


async def test_starting_an_unknown_broker_times_out_when_its_ping_fails(shared_nats: NatsServer) -> None:
    broker = Pinged(shared_nats.url)
    broker.ping_result = False
    driver = Driver(broker)
    with pytest.raises(TimeoutError):
        await start(driver, consume=True, supervise=True)
    await driver.abort()


async def test_publishers_start_without_consuming(shared_nats: NatsServer) -> None:
    broker = NatsBroker(shared_nats.url)
    publisher = broker.publisher("somewhere")
    driver = Driver(broker)
    await start(driver, consume=False, supervise=True)
    await publisher.publish("hello")
    await driver.abort()


async def test_the_base_driver_runs_a_broker_by_its_public_methods(shared_nats: NatsServer) -> None:
    broker = NatsBroker(shared_nats.url)
    driver = Driver(broker)
    received: asyncio.Queue[str] = asyncio.Queue()

    @broker.subscriber("unknown")
    async def handle(message: str) -> None:
        await received.put(message)

    await start(driver, consume=True, supervise=True)
    await broker.publish("hello", "unknown")
    assert await asyncio.wait_for(received.get(), 5) == "hello"
    monitor = SubscriberMonitor(driver)
    monitor.on_started()
    await monitor.poll(ask_server=True)
    assert monitor.fault is None
    [subscriber] = broker.subscribers
    assert monitor.code(subscriber) == "ok"
    assert driver.is_idle(subscriber)
    await driver.restart(subscriber)
    assert monitor.code(subscriber) == "ok"
    assert driver.is_load_balanced(subscriber) is None
    assert (driver.has_client, driver.is_reconnecting, driver.is_closed, driver.local_status()) == (
        False,
        False,
        False,
        None,
    )
    await driver.drain()
    await driver.abort()
    assert not broker.running
    assert monitor.code(subscriber) == "stopped"


async def test_draining_waits_for_messages_between_the_subscription_and_the_limiter(
    shared_nats: NatsServer,
) -> None:
    broker = NatsBroker(shared_nats.url)
    handled: list[object] = []

    async def ignore(message: Msg) -> None:
        raise NotImplementedError

    async with broker:
        subscription = await broker.connection.subscribe("backlog", cb=ignore)
        send_stream, receive_stream = anyio.create_memory_object_stream[str](1)
        limiter = anyio.Semaphore(1)

        async def consume() -> None:
            await eventually(lambda: subscription._closed)  # noqa: SLF001 (nats-py has no public attribute for it)
            message = await receive_stream.receive()
            async with limiter:
                await asyncio.sleep(0)
                handled.append(message)

        send_stream.send_nowait("late")
        with send_stream, receive_stream:
            consuming = asyncio.create_task(consume())
            subscriber = SimpleNamespace(
                subscription=subscription,
                receive_stream=receive_stream,
                limiter=limiter,
                max_workers=1,
                lock=SimpleNamespace(empty=True),
            )
            await asyncio.wait_for(drain(subscriber), 5)
            assert handled == ["late"]
            assert subscriber.subscription is None
            await consuming


@pytest.mark.parametrize("mode", ["one by one", "with workers", "in batches"])
async def test_draining_handles_all_messages_delivered_to_a_pull_subscriber(
    nats_js: NatsServer, mode: str
) -> None:
    options: dict[str, dict[str, Any]] = {
        "one by one": {"pull_sub": PullSub(2, timeout=60.0)},
        "with workers": {"pull_sub": PullSub(2, timeout=60.0), "max_workers": 3},
        "in batches": {"pull_sub": PullSub(2, timeout=60.0, batch=True)},
    }
    broker = NatsBroker(nats_js.url)
    subscriber: Any = broker.subscriber("jobs", stream=JStream("jobs"), durable="worker", **options[mode])
    started, proceed = asyncio.Event(), asyncio.Event()
    handled: list[str] = []

    async def handle(message: str | list[str]) -> None:
        started.set()
        await proceed.wait()
        handled.extend(message if isinstance(message, list) else [message])

    subscriber(handle)
    async with broker:
        await broker.start()
        fetching = subscriber.subscription
        for index in range(2):
            await broker.publish(f"fetched {index}", "jobs")
        await started.wait()
        # Simulate an abandoned fetch whose messages arrive late.
        inbox = fetching._deliver  # noqa: SLF001 (nats-py has no public attribute for it)
        await broker.connection.publish("$JS.API.CONSUMER.MSG.NEXT.jobs.worker", b'{"batch": 2}', inbox)
        for index in range(2):
            await broker.publish(f"late {index}", "jobs")
        async with asyncio.timeout(10):
            # Wait until the server has delivered all four messages.
            while (await fetching.consumer_info()).num_ack_pending < 4:
                ...
        draining = asyncio.create_task(drain(subscriber))
        await eventually(lambda: subscriber.subscription is not fetching)
        proceed.set()
        await asyncio.wait_for(draining, 10)
        assert sorted(handled) == ["fetched 0", "fetched 1", "late 0", "late 1"]
        async with asyncio.timeout(10):
            # Wait until the server has processed every acknowledgement, which it does asynchronously.
            while (await fetching.consumer_info()).num_ack_pending:
                ...


PULL_OPTIONS = {
    "single": PullSub(1, timeout=None),
    "several": PullSub(10, timeout=3600.0),
    "batch": PullSub(10, timeout=3600.0, batch=True),
    "batch-of-one": PullSub(1, timeout=None, batch=True),
}


async def test_draining_does_not_wait_for_a_pending_fetch_without_messages(nats_js: NatsServer) -> None:
    broker = NatsBroker(nats_js.url)
    for name, pull in PULL_OPTIONS.items():
        stream = JStream("jobs", subjects=["jobs.>"])
        broker.subscriber(f"jobs.{name}", stream=stream, durable=name, pull_sub=pull)(print)
    driver = driver_for(broker)
    await start(driver, consume=True, supervise=True)
    for subscriber in broker.subscribers:
        driver.on_started(subscriber)
    await asyncio.wait_for(driver.drain(), 10)
    await driver.abort()


async def test_draining_does_not_wait_for_a_subscriber_stopped_by_its_handler(nats_js: NatsServer) -> None:
    broker = NatsBroker(nats_js.url)
    subscriber: Any = broker.subscriber("jobs", stream=JStream("jobs"), durable="worker", pull_sub=PullSub(1))
    started, proceed = asyncio.Event(), asyncio.Event()

    @subscriber  # type: ignore[untyped-decorator]
    async def handle(message: str) -> None:
        started.set()
        await proceed.wait()
        raise StopConsume

    async with broker:
        await broker.start()
        await broker.publish("last", "jobs")
        await started.wait()
        draining = asyncio.create_task(drain(subscriber))
        await asyncio.sleep(0)
        proceed.set()
        await asyncio.wait_for(draining, 10)
        # A second drain must not wait for the consumer that has stopped.
        await asyncio.wait_for(driver_for(broker).drain(), 10)


async def test_a_drain_error_of_one_subscriber_does_not_prevent_draining_the_others(
    nats: NatsServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = NatsBroker(nats.url)
    started, handled = asyncio.Event(), []
    closed: Any = broker.subscriber("closed")
    closed(print)

    @broker.subscriber("slow")
    async def handle(message: str) -> None:
        started.set()
        await asyncio.sleep(0.01)
        handled.append(message)

    async with BrokerLifespan(broker, supervise=False):
        await closed.subscription.unsubscribe()
        for index in range(3):
            await broker.publish(str(index), "slow")
        await started.wait()
    assert handled == ["0", "1", "2"]
    assert "BadSubscriptionError while draining a subscriber." in caplog.text


async def test_revoked_credentials_are_reported_as_auth_failed(nats_factory: NatsFactory) -> None:
    server = nats_factory(user="user", password="right")
    broker = NatsBroker(server.url, reconnect_time_wait=0)
    driver = driver_for(broker)
    await start(driver, consume=True, supervise=False)
    server.password = "changed"
    server.reload()
    await eventually(lambda: driver.local_status() == "auth_failed")
    await driver.abort()


@pytest.mark.parametrize(
    ("server_restarts", "client_count"),
    [(True, 30), (False, 5), pytest.param(False, 30, marks=pytest.mark.full)],
)
async def test_a_closed_client_does_not_reconnect(
    nats_factory: NatsFactory, server_restarts: bool, client_count: int
) -> None:
    """Close clients while their attempts to connect end: nats-py swallows a cancellation at that moment."""
    server = nats_factory()
    clients = [
        await connect(server.url, max_reconnect_attempts=-1, reconnect_time_wait=0, error_cb=_ignore)
        for _ in range(client_count)
    ]
    server.kill()
    await eventually(lambda: all(client.is_reconnecting for client in clients))
    starting = asyncio.create_task(asyncio.to_thread(server.start if server_restarts else server.kill))
    # Close the clients at the moment when they connect.
    while server_restarts and not any(client.is_connecting or client.is_connected for client in clients):  # noqa: ASYNC110 (no event to wait for)
        await asyncio.sleep(0)
    for client in clients:
        await close(client)
    await starting
    await eventually(lambda: not [task for task in asyncio.all_tasks() if "Client." in repr(task)])
    assert all(client.is_closed for client in clients)


async def test_a_client_is_closed_although_close_was_cancelled(nats_factory: NatsFactory) -> None:
    server = nats_factory()
    client = await connect(server.url, max_reconnect_attempts=-1, reconnect_time_wait=0, error_cb=_ignore)
    server.kill()
    await eventually(lambda: client.is_reconnecting)
    closing = asyncio.create_task(close(client))
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait((closing,))
    assert client.is_closed


async def _ignore(error: Exception) -> None:
    pass


async def test_closing_a_client_ends_the_tasks_of_a_cancelled_drain(nats: NatsServer) -> None:
    client, other = await connect(nats.url), await connect(nats.url)
    for each in client, other:
        await each.subscribe("subject")
    await client.flush()
    before = asyncio.all_tasks()
    nats.freeze()
    drains = [asyncio.create_task(each.drain()) for each in (client, other)]
    # Each has started its tasks, and does not wait for them yet.
    await asyncio.sleep(0)
    for drain_task in drains:
        drain_task.cancel()
    await asyncio.wait(drains)
    assert len(asyncio.all_tasks() - before) == 2
    await close(client)
    await eventually(lambda: len(asyncio.all_tasks() - before) == 1, 2.0)
    await close(other)
    await eventually(lambda: asyncio.all_tasks() <= before, 2.0)
    nats.thaw()


async def test_a_websocket_client_is_checked_by_its_own_round_trip(
    shared_nats: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = NatsBroker(shared_nats.url)
    async with broker:
        driver = driver_for(broker)
        monkeypatch.setattr(Client, "connected_url", urlsplit("wss://127.0.0.1"))
        assert driver.start_check() is None
        assert (await BrokerCheck(driver).check(1.0)).ok


async def test_a_patched_ping_determines_the_check_result(
    shared_nats: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def ping(self: NatsBroker, timeout: float | None) -> bool:  # noqa: ASYNC109 (FastStream's signature)
        return False

    broker = NatsBroker(shared_nats.url)
    async with broker:
        broker_check = BrokerCheck(driver_for(broker))
        assert (await broker_check.check(1.0)).ok
        monkeypatch.setattr(NatsBroker, "ping", ping)
        assert (await broker_check.check(1.0)).code == "error"


async def test_an_overridden_ping_determines_the_check_result(shared_nats: NatsServer) -> None:
    broker = Pinged(shared_nats.url)
    async with broker:
        broker_check = BrokerCheck(driver_for(broker))
        assert (await broker_check.check(1.0)).ok
        broker.ping_result = False
        assert (await broker_check.check(1.0)).code == "error"
