"""Drivers: what a broker of any class can do, and what is particular to NATS."""

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
from nats.errors import AuthorizationError, ConnectionClosedError, NoServersError

from faststream_adapters import BrokerLifespan
from faststream_adapters.brokers import Code, Driver, driver_for
from faststream_adapters.brokers.nats import NatsDriver, close
from faststream_adapters.brokers.nats_subscriptions import drain
from faststream_adapters.consumers import Consumers
from faststream_adapters.health import RoundTrips
from tests.conftest import NatsFactory
from tests.servers.nats import NatsServer
from tests.support import eventually


class Pinged(NatsBroker):
    """A broker of which nothing is known but its ping."""

    answer: Any = True

    async def ping(self, timeout: float | None) -> bool:  # noqa: ASYNC109 (FastStream's signature)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            await asyncio.Event().wait()
        return bool(self.answer)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (True, "ok"),
        (False, "error"),
        (OSError(), "refused"),
        (TimeoutError(), "timeout"),
        (KeyError(), "error"),
    ],
)
async def test_an_unknown_broker_is_asked_by_its_ping(answer: Any, code: str) -> None:
    broker = Pinged()
    broker.answer = answer
    assert (await RoundTrips(Driver(broker)).ask(1.0)).code == code


async def test_an_unknown_broker_has_no_longer_than_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faststream_adapters.brokers.PING_TIMEOUT", -0.9)
    broker = Pinged()
    broker.answer = None
    trips = RoundTrips(Driver(broker))
    assert (await trips.ask(0.01)).code == "timeout"
    assert (await trips.ask(5.0)).code == "timeout"


async def test_an_unknown_broker_that_does_not_answer_has_not_started(shared_nats: NatsServer) -> None:
    broker = Pinged(shared_nats.url)
    broker.answer = False
    driver = Driver(broker)
    with pytest.raises(TimeoutError):
        await driver.start(consume=True, supervise=True)
    await driver.abort()


async def test_an_error_that_nobody_expects_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    broker = Pinged()
    broker.answer = KeyError("nats://user:secret@host")
    trips = RoundTrips(Driver(broker))
    for _ in range(3):
        assert (await trips.ask(1.0)).code == "error"
    assert [record.message for record in caplog.records] == [
        "Pinged nats://localhost:4222: the check raised KeyError.",
    ]


async def test_only_subscribers_with_a_handler_consume() -> None:
    broker = NatsBroker()
    broker.subscriber("nothing")
    assert list(Consumers(Driver(broker))) == []


async def test_without_consuming_publishers_are_started(shared_nats: NatsServer) -> None:
    broker = NatsBroker(shared_nats.url)
    publisher = broker.publisher("somewhere")
    driver = Driver(broker)
    await driver.start(consume=False, supervise=True)
    await publisher.publish("hello")
    await driver.abort()


async def test_who_waits_is_told_when_the_client_comes_to_know_better() -> None:
    class Losing(Driver):
        lost = False
        go_on = asyncio.Event()

        async def check(self) -> Code:
            await self.go_on.wait()
            return "ok"

        def down(self) -> Code | None:
            return "refused" if self.lost else None

    driver = Losing(NatsBroker())
    trips = RoundTrips(driver)
    asked = trips.ask(60.0)
    await asyncio.sleep(0)
    driver.lost = True
    assert (await asyncio.wait_for(asked, 5)).code == "refused"
    driver.lost = False
    late = trips.ask(60.0)
    driver.go_on.set()
    # The round trip that was in flight all the time has come back.
    assert (await asyncio.wait_for(late, 5)).code == "ok"


async def test_an_unknown_broker_starts_and_stops_by_its_public_methods(shared_nats: NatsServer) -> None:
    broker = NatsBroker(shared_nats.url)
    driver = Driver(broker)
    received: asyncio.Queue[str] = asyncio.Queue()

    @broker.subscriber("unknown")
    async def handle(message: str) -> None:
        await received.put(message)

    await driver.start(consume=True, supervise=True)
    await broker.publish("hello", "unknown")
    assert await asyncio.wait_for(received.get(), 5) == "hello"
    consumers = Consumers(driver)
    consumers.started()
    await consumers.look(ask=True)
    assert consumers.fault is None
    assert list(consumers) == [("Handle", "ok")]
    [subscriber] = broker.subscribers
    assert driver.idle(subscriber)
    await driver.revive(subscriber)
    assert list(consumers) == [("Handle", "ok")]
    assert driver.shared(subscriber) is None
    assert (driver.real, driver.reconnecting, driver.gave_up, driver.down()) == (False, False, False, None)
    await driver.drain()
    await driver.abort()
    assert not broker.running
    assert list(consumers) == [("Handle", "paused")]


def test_the_name_has_no_credentials() -> None:
    broker = NatsBroker(
        "nats://one", specification_url=["nats://user:secret@one:4222/path?token=secret", "two:1"]
    )
    assert driver_for(broker).name == "NatsBroker nats://one:4222/path, two:1"


def test_a_class_of_another_package_has_the_driver_for_all() -> None:
    class Other: ...

    other: Any = Other()
    assert type(driver_for(other)) is Driver


def test_a_nats_broker_has_its_driver_and_so_has_a_subclass() -> None:
    assert type(driver_for(NatsBroker())) is NatsDriver
    assert type(driver_for(Pinged())) is NatsDriver


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AuthorizationError(), "auth"),
        (RuntimeError("nats: 'Authorization Violation'"), "auth"),
        (ConnectionClosedError(), "closed"),
        (NoServersError(), "refused"),
        (ConnectionRefusedError(), "refused"),
        (TimeoutError(), "timeout"),
        (KeyError(), "error"),
    ],
)
def test_errors_of_nats_are_told_apart(error: Exception, code: str) -> None:
    assert driver_for(NatsBroker()).code(error) == code


async def test_a_connect_that_fails_outside_of_the_client_is_raised() -> None:
    class Broken(NatsBroker):
        async def connect(self) -> Any:
            raise KeyError

    with pytest.raises(KeyError):
        await driver_for(Broken()).start(consume=True, supervise=True)


async def test_draining_waits_for_messages_between_the_subscription_and_the_limiter(
    shared_nats: NatsServer,
) -> None:
    broker = NatsBroker(shared_nats.url)
    handled: list[object] = []

    async def ignore(message: Msg) -> None:
        raise NotImplementedError

    async with broker:
        subscription = await broker.connection.subscribe("backlog", cb=ignore)
        put, receive_stream = anyio.create_memory_object_stream[str](1)
        limiter = anyio.Semaphore(1)

        async def consume() -> None:
            await eventually(lambda: subscription._closed)  # noqa: SLF001 (nats-py tells it nowhere else)
            message = await receive_stream.receive()
            async with limiter:
                await asyncio.sleep(0)
                handled.append(message)

        put.send_nowait("late")
        with put, receive_stream:
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


@pytest.mark.parametrize("kind", ["one by one", "with workers", "in batches"])
async def test_draining_finishes_what_a_pull_subscriber_has_fetched(nats_js: NatsServer, kind: str) -> None:
    options: dict[str, dict[str, Any]] = {
        "one by one": {"pull_sub": PullSub(2, timeout=60.0)},
        "with workers": {"pull_sub": PullSub(2, timeout=60.0), "max_workers": 3},
        "in batches": {"pull_sub": PullSub(2, timeout=60.0, batch=True)},
    }
    broker = NatsBroker(nats_js.url)
    subscriber: Any = broker.subscriber("jobs", stream=JStream("jobs"), durable="worker", **options[kind])
    begun, go_on = asyncio.Event(), asyncio.Event()
    handled: list[str] = []

    async def handle(message: str | list[str]) -> None:
        begun.set()
        await go_on.wait()
        handled.extend(message if isinstance(message, list) else [message])

    subscriber(handle)
    async with broker:
        await broker.start()
        fetching = subscriber.subscription
        for number in range(2):
            await broker.publish(f"fetched {number}", "jobs")
        await begun.wait()
        # What an earlier question, given up long since, brings late.
        inbox = fetching._deliver  # noqa: SLF001 (nats-py tells it nowhere else)
        await broker.connection.publish("$JS.API.CONSUMER.MSG.NEXT.jobs.worker", b'{"batch": 2}', inbox)
        for number in range(2):
            await broker.publish(f"late {number}", "jobs")
        async with asyncio.timeout(10):
            # The server has sent all of them.
            while (await fetching.consumer_info()).num_ack_pending < 4:
                ...
        draining = asyncio.create_task(drain(subscriber))
        await eventually(lambda: subscriber.subscription is not fetching)
        go_on.set()
        await asyncio.wait_for(draining, 10)
        assert sorted(handled) == ["fetched 0", "fetched 1", "late 0", "late 1"]
        async with asyncio.timeout(10):
            # The server counts acknowledgements when it comes to it.
            while (await fetching.consumer_info()).num_ack_pending:
                ...


PULLS = {
    "single": PullSub(1, timeout=None),
    "several": PullSub(10, timeout=3600.0),
    "batch": PullSub(10, timeout=3600.0, batch=True),
    "batch-of-one": PullSub(1, timeout=None, batch=True),
}


async def test_draining_does_not_wait_for_a_fetch_that_brings_nothing(nats_js: NatsServer) -> None:
    broker = NatsBroker(nats_js.url)
    for name, pull in PULLS.items():
        stream = JStream("jobs", subjects=["jobs.>"])
        broker.subscriber(f"jobs.{name}", stream=stream, durable=name, pull_sub=pull)(print)
    driver = driver_for(broker)
    await driver.start(consume=True, supervise=True)
    for subscriber in broker.subscribers:
        driver.adopt(subscriber)
    await asyncio.wait_for(driver.drain(), 10)
    await driver.abort()


async def test_draining_does_not_wait_for_a_subscriber_that_has_stopped_itself(nats_js: NatsServer) -> None:
    broker = NatsBroker(nats_js.url)
    subscriber: Any = broker.subscriber("jobs", stream=JStream("jobs"), durable="worker", pull_sub=PullSub(1))
    begun, go_on = asyncio.Event(), asyncio.Event()

    @subscriber  # type: ignore[untyped-decorator]
    async def handle(message: str) -> None:
        begun.set()
        await go_on.wait()
        raise StopConsume

    async with broker:
        await broker.start()
        await broker.publish("last", "jobs")
        await begun.wait()
        draining = asyncio.create_task(drain(subscriber))
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.wait_for(draining, 10)
        # Nobody is left to handle anything.
        await asyncio.wait_for(driver_for(broker).drain(), 10)


async def test_one_that_cannot_be_drained_does_not_keep_the_others_from_it(
    nats: NatsServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = NatsBroker(nats.url)
    begun, handled = asyncio.Event(), []
    closed: Any = broker.subscriber("closed")
    closed(print)

    @broker.subscriber("slow")
    async def handle(message: str) -> None:
        begun.set()
        await asyncio.sleep(0.01)
        handled.append(message)

    async with BrokerLifespan(broker, supervise=False):
        await closed.subscription.unsubscribe()
        for number in range(3):
            await broker.publish(str(number), "slow")
        await begun.wait()
    assert handled == ["0", "1", "2"]
    assert "BadSubscriptionError while draining a subscriber." in caplog.text


async def test_a_user_who_is_revoked_is_told_apart(nats_factory: NatsFactory) -> None:
    server = nats_factory(user="user", password="right")
    broker = NatsBroker(server.url, reconnect_time_wait=0)
    driver = driver_for(broker)
    await driver.start(consume=True, supervise=False)
    server.password = "changed"
    server.reload()
    await eventually(lambda: driver.down() == "auth")
    await driver.abort()


async def test_a_client_that_never_connected_can_be_closed() -> None:
    await close(Client())


@pytest.mark.parametrize("back", [False, True])
async def test_no_client_that_was_closed_goes_on_reconnecting(nats_factory: NatsFactory, back: bool) -> None:
    """One that is told to stop in the moment in which a try to connect has ended does not hear it."""
    server = nats_factory()
    clients = [
        await connect(server.url, max_reconnect_attempts=-1, reconnect_time_wait=0, error_cb=_ignore)
        for _ in range(30)
    ]
    server.kill()
    await eventually(lambda: all(client.is_reconnecting for client in clients))
    starting = asyncio.create_task(asyncio.to_thread(server.start if back else server.kill))
    # Not a moment later than they connect.
    while back and not any(client.is_connecting or client.is_connected for client in clients):  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(0)
    for client in clients:
        await close(client)
    await starting
    await eventually(lambda: not [task for task in asyncio.all_tasks() if "Client." in repr(task)])
    assert all(client.is_closed for client in clients)


async def test_a_client_stays_closed_although_its_closing_was_cancelled(nats_factory: NatsFactory) -> None:
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


async def test_a_client_on_a_websocket_is_asked_by_its_own_round_trip(
    shared_nats: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = NatsBroker(shared_nats.url)
    async with broker:
        driver = driver_for(broker)
        monkeypatch.setattr(Client, "connected_url", urlsplit("wss://127.0.0.1"))
        assert driver.send() is None
        assert (await RoundTrips(driver).ask(1.0)).ok


async def test_a_ping_that_was_patched_for_all_counts(
    shared_nats: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def ping(self: NatsBroker, timeout: float | None) -> bool:  # noqa: ASYNC109 (FastStream's signature)
        return False

    broker = NatsBroker(shared_nats.url)
    async with broker:
        trips = RoundTrips(driver_for(broker))
        assert (await trips.ask(1.0)).ok
        monkeypatch.setattr(NatsBroker, "ping", ping)
        assert (await trips.ask(1.0)).code == "error"


async def test_a_ping_of_the_users_own_counts(shared_nats: NatsServer) -> None:
    broker = Pinged(shared_nats.url)
    async with broker:
        trips = RoundTrips(driver_for(broker))
        assert (await trips.ask(1.0)).ok
        broker.answer = False
        assert (await trips.ask(1.0)).code == "error"
