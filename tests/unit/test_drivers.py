"""Drivers: what a broker of any class can do, and what is particular to NATS."""

import asyncio
from typing import Any

import pytest
from faststream.nats import NatsBroker
from nats.errors import AuthorizationError, ConnectionClosedError, NoServersError

from faststream_adapters.brokers import Driver, driver_for
from faststream_adapters.brokers.nats import NatsDriver
from faststream_adapters.health import RoundTrips
from tests.servers.nats import NatsServer


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


async def test_a_ping_of_the_users_own_counts(shared_nats: NatsServer) -> None:
    broker = Pinged(shared_nats.url)
    async with broker:
        trips = RoundTrips(driver_for(broker))
        assert (await trips.ask(1.0)).ok
        broker.answer = False
        assert (await trips.ask(1.0)).code == "error"
