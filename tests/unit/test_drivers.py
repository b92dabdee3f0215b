"""Drivers: the driver for a broker, its name, its checks and its codes."""

import asyncio
from typing import Any

import pytest
from faststream.confluent import KafkaBroker as ConfluentBroker
from faststream.kafka import KafkaBroker
from faststream.mqtt import MQTTBroker
from faststream.nats import NatsBroker
from faststream.rabbit import RabbitBroker
from faststream.redis import RedisBroker, RedisClusterBroker, RedisSentinelBroker
from faststream.security import BaseSecurity
from nats.aio.client import Client
from nats.errors import AuthorizationError, ConnectionClosedError, NoServersError
from nats.errors import Error as NatsError

from faststream_adapters._brokers.codes import BrokerCode
from faststream_adapters._brokers.driver import Driver
from faststream_adapters._brokers.nats.driver import NatsDriver, close
from faststream_adapters._brokers.registry import driver_for
from faststream_adapters._lifecycle.broker_check import BrokerCheck
from faststream_adapters._lifecycle.subscriber_monitor import SubscriberMonitor
from tests.harness.pinged import Pinged


@pytest.mark.parametrize(
    ("ping_result", "code"),
    [
        (True, "ok"),
        (False, "error"),
        (OSError(), "unreachable"),
        (TimeoutError(), "timeout"),
        (KeyError(), "error"),
    ],
)
async def test_an_unknown_broker_is_checked_by_its_ping(ping_result: Any, code: str) -> None:
    broker = Pinged()
    broker.ping_result = ping_result
    assert (await BrokerCheck(Driver(broker)).check(1.0)).code == code


async def test_the_check_of_an_unknown_broker_has_the_timeout_of_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("faststream_adapters._brokers.driver.PING_TIMEOUT", -0.9)
    broker = Pinged()
    broker.ping_result = None
    checks = BrokerCheck(Driver(broker))
    assert (await checks.check(0.01)).code == "timeout"
    assert (await checks.check(5.0)).code == "timeout"


async def test_an_unexpected_error_of_a_check_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    broker = Pinged()
    broker.ping_result = KeyError("nats://user:secret@host")
    checks = BrokerCheck(Driver(broker))
    for _ in range(3):
        assert (await checks.check(1.0)).code == "error"
    assert [record.message for record in caplog.records] == [
        "Pinged nats://localhost:4222: the check raised KeyError.",
    ]


async def test_subscribers_without_a_handler_are_not_monitored() -> None:
    broker = NatsBroker()
    subscriber = broker.subscriber("nothing")
    subscriber.running = True
    monitor = SubscriberMonitor(Driver(broker))
    monitor.on_started()
    assert subscriber not in monitor


async def test_no_client_drops_messages_unless_its_driver_says_so() -> None:
    broker = NatsBroker()
    assert Driver(broker).dropped(broker.subscriber("nothing")) is None


async def test_callers_receive_a_new_local_status_of_the_client() -> None:
    class Losing(Driver):
        lost = False
        replied = asyncio.Event()

        async def check(self) -> BrokerCode:
            await self.replied.wait()
            return "ok"

        def local_status(self) -> BrokerCode | None:
            return "unreachable" if self.lost else None

    driver = Losing(NatsBroker())
    checks = BrokerCheck(driver)
    first = checks.check(60.0)
    await asyncio.sleep(0)
    driver.lost = True
    assert (await asyncio.wait_for(first, 5)).code == "unreachable"
    driver.lost = False
    second = checks.check(60.0)
    driver.replied.set()
    # The second caller shares the request that was in flight all the time.
    assert (await asyncio.wait_for(second, 5)).code == "ok"


def test_the_name_has_no_credentials() -> None:
    broker = NatsBroker(
        "nats://one", specification_url=["nats://user:secret@one:4222/path?token=secret", "two:1"]
    )
    assert driver_for(broker).name == "NatsBroker nats://one:4222/path, two:1"


TLS = BaseSecurity(use_ssl=True)


@pytest.mark.parametrize(
    ("broker", "name"),
    [
        (NatsBroker(["nats://user:secret@one:1", "tls://two:2"]), "NatsBroker nats://one:1, tls://two:2"),
        (NatsBroker("nats://secret@[::1]:4222"), "NatsBroker nats://[::1]:4222"),
        (KafkaBroker(["one:1", "two:2"]), "KafkaBroker one:1, two:2"),
        (ConfluentBroker("one:1,two:2"), "KafkaBroker one:1,two:2"),
        (ConfluentBroker("[::1]:9092"), "KafkaBroker [::1]:9092"),
        (ConfluentBroker(config={"bootstrap.servers": "one:1,two:2"}), "KafkaBroker one:1, two:2"),
        (RabbitBroker("amqps://user:secret@host:1/orders"), "RabbitBroker amqps://host:1/orders"),
        (RabbitBroker(host="::1", port=1, security=TLS), "RabbitBroker amqps://[::1]:1/"),
        (MQTTBroker("mqtts://user:secret@host:1"), "MQTTBroker mqtts://host:1"),
        (MQTTBroker("host", port=1, security=TLS), "MQTTBroker mqtts://host:1"),
        (RedisBroker(), "RedisBroker redis://localhost:6379"),
        (RedisBroker("redis://user:secret@host/3"), "RedisBroker redis://host/3"),
        (RedisBroker("unix://user:secret@/run/redis.sock?db=1"), "RedisBroker unix:///run/redis.sock"),
        (RedisBroker(host="host", port=1), "RedisBroker redis://host:1/0"),
        (RedisBroker("redis://:secret@host", port="1", db=3), "RedisBroker redis://host:1/3"),
        (RedisBroker("redis://host", security=TLS), "RedisBroker rediss://host:6379/0"),
        (RedisBroker("rediss://[::1]:1"), "RedisBroker rediss://[::1]:1"),
        (RedisBroker(host="::1"), "RedisBroker redis://[::1]:6379/0"),
        (RedisBroker("redis://host:1", specification_url="docs:2"), "RedisBroker redis://host:1/0"),
        (
            RedisBroker("unix:///run/redis.sock", specification_url="redis://docs"),
            "RedisBroker unix:///run/redis.sock",
        ),
        (
            RedisSentinelBroker(
                "redis://:secret@ignored:1",
                sentinels=[("one", 26379), ("::1", 2)],
                sentinel_master_name="main",
                sentinel_kwargs={"password": "secret"},
            ),
            "RedisSentinelBroker redis-sentinel://one:26379,[::1]:2/main",
        ),
        (RedisClusterBroker("redis://:secret@one:1"), "RedisClusterBroker redis://one:1"),
        (
            RedisClusterBroker(host="one", port=1, startup_nodes=[("two", 2)], security=TLS),
            "RedisClusterBroker rediss://one:1, rediss://two:2",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_name_shows_where_the_client_connects_to(broker: Any, name: str) -> None:
    assert driver_for(broker).name == name


def test_a_class_without_a_driver_gets_the_base_class() -> None:
    class Other: ...

    other: Any = Other()
    assert type(driver_for(other)) is Driver


def test_a_nats_broker_and_a_subclass_get_the_nats_driver() -> None:
    assert type(driver_for(NatsBroker())) is NatsDriver
    assert type(driver_for(Pinged())) is NatsDriver


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AuthorizationError(), "auth_failed"),
        (RuntimeError("nats: 'Authorization Violation'"), "auth_failed"),
        (RuntimeError("nats: 'user authentication expired'"), "auth_failed"),
        (ConnectionClosedError(), "closed"),
        (NoServersError(), "unreachable"),
        (ConnectionRefusedError(), "unreachable"),
        (FileNotFoundError(2, "No such file or directory", "/run/secrets/user.creds"), "error"),
        (TimeoutError(), "timeout"),
        (KeyError(), "error"),
    ],
)
def test_errors_of_nats_are_classified(error: Exception, code: str) -> None:
    assert driver_for(NatsBroker()).classify(error) == code


async def test_an_error_of_connect_outside_of_the_client_is_raised() -> None:
    class Broken(NatsBroker):
        async def connect(self) -> Any:
            raise KeyError

    with pytest.raises(KeyError):
        await driver_for(Broken()).connect(consume=True, supervise=True)


async def test_a_client_that_never_connected_can_be_closed() -> None:
    await close(Client())


def test_a_connection_that_a_rejected_login_has_closed_does_not_hide_the_rejection() -> None:
    broker = NatsBroker("nats://127.0.0.1:1")
    driver = NatsDriver(broker)
    rejected, reset, other = NatsError("nats: 'Authorization Violation'"), ConnectionResetError(), OSError()
    report = driver._on_connect_error  # noqa: SLF001 (with a server it is a race which error comes last)
    for error, kept in ((reset, reset), (rejected, rejected), (reset, rejected), (other, other)):
        report(error)
        assert driver.last_error is kept
