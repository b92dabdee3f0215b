"""Drivers: what a broker of any class can do, and what is particular to NATS."""

import asyncio
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from faststream.nats import NatsBroker
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import AuthorizationError, ConnectionClosedError, NoServersError

from faststream_adapters.brokers import Code, Driver, driver_for
from faststream_adapters.brokers.nats import NatsDriver, close, drain
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
    assert list(Driver(broker).consumers()) == []


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
    asked = asyncio.create_task(trips.ask(60.0))
    await asyncio.sleep(0)
    driver.lost = True
    assert (await asyncio.wait_for(asked, 5)).code == "refused"
    driver.lost = False
    late = asyncio.create_task(trips.ask(60.0))
    driver.go_on.set()
    assert (await asyncio.wait_for(late, 5)).code == "refused"
    assert (await trips.ask(60.0)).code == "ok"


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
    assert list(driver.consumers()) == [("Handle", "ok")]
    assert (driver.real, driver.reconnecting, driver.gave_up, driver.down()) == (False, False, False, None)
    await driver.drain()
    await driver.abort()
    assert not broker.running
    assert list(driver.consumers()) == [("Handle", "closed")]


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
            )
            await asyncio.wait_for(drain(subscriber), 5)
            assert handled == ["late"]
            assert subscriber.subscription is None
            await consuming


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


async def test_a_ping_of_the_users_own_counts(shared_nats: NatsServer) -> None:
    broker = Pinged(shared_nats.url)
    async with broker:
        trips = RoundTrips(driver_for(broker))
        assert (await trips.ask(1.0)).ok
        broker.answer = False
        assert (await trips.ask(1.0)).code == "error"
