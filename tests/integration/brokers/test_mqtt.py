"""MQTT: connections, subscriptions and delivery under faults, on real servers.

zmqtt exposes little of its state, so some tests read its private attributes.
"""
# ruff: noqa: SLF001

import asyncio
import gc
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zmqtt
from faststream import AckPolicy
from faststream.mqtt import MQTTBroker, TestMQTTBroker
from zmqtt.client import MQTTClient

from faststream_adapters import BrokerLifespan, make_ping_asgi, make_readiness_asgi
from faststream_adapters._brokers import mqtt as mqtt_driver
from faststream_adapters._brokers.mqtt import MqttDriver
from faststream_adapters._brokers.registry import driver_for
from faststream_adapters._lifecycle import subscriber_monitor, supervisor
from faststream_adapters._lifecycle.managed import managed_broker
from faststream_adapters._utils.errors import BrokerStartError
from tests.docs.blocks import load, python_blocks, served
from tests.harness.brokers.mqtt import SERVER
from tests.harness.clients import client, eventually_status, status
from tests.harness.drivers import start
from tests.harness.servers import HOST
from tests.harness.servers.mqtt import SERVERS, Amqtt, Mosquitto, MqttServer
from tests.harness.waiting import eventually

FAST_RECONNECT = zmqtt.ReconnectConfig(initial_delay=0.05, max_delay=0.05)
NO_RECONNECT = zmqtt.ReconnectConfig(enabled=False)

Handler = Callable[[int], Awaitable[None]]

KINDS: dict[str, dict[str, Any]] = {
    "QoS 0": {},
    "QoS 1": {"qos": zmqtt.QoS.AT_LEAST_ONCE},
    "QoS 2": {"qos": zmqtt.QoS.EXACTLY_ONCE},
    "acknowledged first": {"qos": zmqtt.QoS.AT_LEAST_ONCE, "ack_policy": AckPolicy.ACK_FIRST},
    "workers": {"qos": zmqtt.QoS.AT_LEAST_ONCE, "max_workers": 3},
    "shared": {"qos": zmqtt.QoS.AT_LEAST_ONCE, "shared": "group"},
}
SUPPORTED_BY_ALL = [kind for kind in KINDS if kind != "shared"]
"""The kinds that amqtt supports too."""


@pytest.fixture(autouse=True)
def fast_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervisor, "SUBSCRIBERS_INTERVAL", 0.05)
    monkeypatch.setattr(subscriber_monitor, "RETRY_INTERVAL", 0.05)


EACH_SERVER = [
    pytest.param(kind, id=kind.__name__, marks=[] if kind is SERVER else pytest.mark.full) for kind in SERVERS
]
"""The preferred available server in every run, all servers in the full one."""


def _running(kind: type[MqttServer], **options: Any) -> Iterator[MqttServer]:
    if reason := kind.missing():  # pragma: no cover (environments that forbid skips have every server)
        pytest.skip(reason)
    with kind(**options) as server:
        yield server


@pytest.fixture(params=EACH_SERVER)
def any_server(request: pytest.FixtureRequest) -> Iterator[MqttServer]:
    """Return a server of each kind that belongs to this test alone."""
    yield from _running(request.param)


@pytest.fixture
def server() -> Iterator[MqttServer]:
    """Return a server of the preferred kind that belongs to this test alone."""
    yield from _running(SERVER)


@pytest.fixture
def mosquitto() -> Iterator[MqttServer]:
    """Return a mosquitto server, for features that amqtt lacks."""
    yield from _running(Mosquitto)


@pytest.fixture(params=EACH_SERVER)
def password_server(request: pytest.FixtureRequest) -> Iterator[MqttServer]:
    """Return a server that requires a password."""
    yield from _running(request.param, user="user", password="secret")


class Service:
    """A broker with one subscriber of `jobs/#` that records the numbers it handles.

    Args:
        kind: One of `KINDS`.
        handler: Called with each number before the number is recorded as handled.
        options: Options of the broker.
    """

    def __init__(
        self, server: MqttServer, kind: str = "QoS 1", *, handler: Handler | None = None, **options: Any
    ) -> None:
        defaults = {"version": server.version, "reconnect": FAST_RECONNECT, "logger": None}
        self.broker = MQTTBroker(server.url, **(defaults | options))
        self.handled: list[int] = []
        self.qos = KINDS[kind].get("qos", zmqtt.QoS.AT_MOST_ONCE)

        async def handle(number: int) -> None:
            if handler is not None:
                await handler(number)
            self.handled.append(number)

        self.subscriber = self.broker.subscriber("jobs/#", **KINDS[kind])
        self.subscriber(handle)
        self.use(BrokerLifespan(self.broker))

    def use(self, lifespan: BrokerLifespan) -> None:
        self.lifespan = lifespan
        self.ready = make_readiness_asgi(lifespan)
        self.ping = make_ping_asgi(lifespan, timeout=0.2)

    @property
    def driver(self) -> MqttDriver:
        driver = managed_broker(self.broker).driver
        assert isinstance(driver, MqttDriver)
        return driver

    @property
    def client(self) -> MQTTClient:
        client = self.driver.client
        assert client is not None
        return client

    async def publish(self, *numbers: int) -> None:
        for number in numbers:
            await self.broker.publish(number, "jobs/all", qos=self.qos)

    def count_received(self) -> int:
        """Return how many messages zmqtt has received."""
        [subscription] = self.client._subscriptions
        queue: Any = subscription._queue
        count: int = queue._unfinished_tasks
        return count

    async def publish_and_handle(self, number: int) -> None:
        """Wait until readiness answers 200, publish a number and wait until it is handled."""
        await eventually_status(self.ready, 200)
        await self.publish(number)
        await eventually(lambda: number in self.handled)

    async def codes(self) -> set[str]:
        """Return the codes of the broker and its subscribers."""
        async with client(make_readiness_asgi(self.lifespan, details=True)) as http:
            report = (await http.get("/")).json()
        return {check["code"] for checks in report["checks"].values() for check in checks}


@asynccontextmanager
async def other_client(server: MqttServer, **options: Any) -> AsyncIterator[MQTTClient]:
    """Return another client of the server."""
    async with MQTTClient(
        HOST, server.port, version=server.version, reconnect=NO_RECONNECT, **options
    ) as other:
        yield other


# What a server does not offer


async def test_a_server_with_a_lower_qos_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    with contextmanager(_running)(Mosquitto, config="max_qos 0") as server:
        service = Service(server, "QoS 1")
        async with service.lifespan:
            await eventually_status(service.ready, 503)
            assert await service.codes() == {"ok", "consumer_mismatch"}
            assert await status(service.ping) == 204
    assert caplog.text.count("declared QoS 1, found a server with QoS 0 at most.") == 1


@pytest.mark.parametrize(
    ("qos", "shared", "server", "expected"),
    [
        (2, "group", None, None),
        (2, "group", zmqtt.ConnAckProperties(), None),
        (1, "group", zmqtt.ConnAckProperties(maximum_qos=1, shared_subscription_available=True), None),
        (2, None, zmqtt.ConnAckProperties(maximum_qos=1), ("QoS 2", "a server with QoS 1 at most")),
        (0, None, zmqtt.ConnAckProperties(shared_subscription_available=False), None),
        (
            0,
            "group",
            zmqtt.ConnAckProperties(shared_subscription_available=False),
            ("the shared subscription 'group'", "a server without shared subscriptions"),
        ),
    ],
)
def test_what_a_server_does_not_offer_is_found(
    qos: int, shared: str | None, server: zmqtt.ConnAckProperties | None, expected: tuple[str, str] | None
) -> None:
    assert mqtt_driver.find_mismatch(qos, shared, server) == expected


# Messages


@pytest.mark.parametrize("kind", SUPPORTED_BY_ALL)
async def test_every_kind_of_subscriber_consumes_in_two_runs(any_server: MqttServer, kind: str) -> None:
    service = Service(any_server, kind)
    async with service.lifespan:
        await service.publish_and_handle(1)
        assert await service.codes() == {"ok"}
    async with service.lifespan:
        await service.publish_and_handle(2)
    assert service.handled == [1, 2]


async def test_a_subscriber_without_a_handler_can_read_messages(mosquitto: MqttServer) -> None:
    """Such a subscriber is not supervised, but it is stopped with the others."""
    service = Service(mosquitto)
    reader = service.broker.subscriber("read")
    async with service.lifespan:
        first = asyncio.create_task(reader.get_one(timeout=10.0))
        await eventually(lambda: len(service.client._subscriptions) == 2)
        while not first.done():
            await service.broker.publish(1, "read")
            await asyncio.wait((first,), timeout=0.1)
        message = first.result()
        assert message is not None
        assert message.body == b"1"
        await service.publish_and_handle(1)


async def test_one_of_two_subscribers_of_a_topic_gets_everything(any_server: MqttServer) -> None:
    """zmqtt delivers nothing to the other one, which still stops without an error."""
    service = Service(any_server)
    [call] = service.subscriber.calls
    service.broker.subscriber("jobs/#")(call.handler)
    async with service.lifespan:
        await service.publish_and_handle(1)
    assert service.handled == [1]


async def test_supervision_does_not_restart_a_broker_that_the_application_stops(
    server: MqttServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "CHECK_INTERVAL", 0.0)
    broker = MQTTBroker(server.url, version=server.version)
    received: asyncio.Queue[str] = asyncio.Queue()
    broker.subscriber("jobs")(received.put)
    async with BrokerLifespan(broker):
        for _ in range(5):
            await broker.stop()
            await broker.start()
            await broker.publish("", "jobs")
            await received.get()
        assert managed_broker(broker).restarts == 0


async def test_consume_false_connects_and_publishes_without_consuming(any_server: MqttServer) -> None:
    service = Service(any_server)
    service.use(BrokerLifespan(service.broker, consume=False))
    async with service.lifespan:
        await eventually_status(service.ready, 200)
        await service.publish(1)
        assert not service.subscriber.running


async def test_shared_subscriptions_are_load_balanced() -> None:
    broker = MQTTBroker()
    shared = [
        broker.subscriber("jobs", shared="workers"),
        broker.subscriber("$share/workers/jobs"),
        broker.subscriber("$queue/jobs"),
    ]
    driver = driver_for(broker)
    assert [driver.is_load_balanced(subscriber) for subscriber in shared] == [True, True, True]
    assert driver.is_load_balanced(broker.subscriber("jobs/#")) is False


# Health


async def test_ping_fails_while_the_server_is_frozen_and_recovers_on_the_same_connection(
    any_server: MqttServer,
) -> None:
    service = Service(any_server)
    async with service.lifespan:
        connection = service.client.connection_info.connection_id
        for number in range(3):
            any_server.freeze()
            assert await status(service.ping) == 500
            assert await status(service.ping) == 500
            any_server.thaw()
            await eventually_status(service.ping, 204)
            await service.publish_and_handle(number)
        assert service.client.connection_info.connection_id == connection
    assert service.handled == [0, 1, 2]


class CountingBroker(MQTTBroker):
    """A broker that counts its pings."""

    pings = 0

    async def ping(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 (FastStream's signature)
        self.pings += 1
        return await super().ping(timeout)


async def test_concurrent_checks_share_one_ping(server: MqttServer) -> None:
    broker = CountingBroker(server.url, version=server.version, logger=None)
    lifespan = BrokerLifespan(broker, supervise=False)
    async with lifespan:
        broker_check = managed_broker(broker).broker_check
        server.freeze()
        pending = [broker_check.check(10.0) for _ in range(50)]
        assert (await broker_check.check(0.05)).code == "timeout"
        pending[0].cancel()
        pings = broker.pings
        server.thaw()
        assert {result.code for result in await asyncio.gather(*pending[1:])} == {"ok"}
        assert broker.pings <= pings + 1


@pytest.mark.full
async def test_a_thousand_probes_leak_no_tasks_or_file_descriptors(server: MqttServer) -> None:
    service = Service(server)
    async with service.lifespan:
        await service.publish_and_handle(1)
        tasks = len(asyncio.all_tasks())
        connection = service.client.connection_info.connection_id
        descriptors = len(os.listdir("/dev/fd"))  # noqa: PTH208 (Path.iterdir() blocks no less)
        ping = make_ping_asgi(service.lifespan, timeout=10.0)
        for _ in range(1000):
            assert await status(ping) == 204
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
        assert len(os.listdir("/dev/fd")) <= descriptors  # noqa: PTH208 (as above)
        assert service.client.connection_info.connection_id == connection
        protocol = service.client._protocol
        assert protocol is not None
        assert len(protocol._ping_waiters) <= 1


async def overfill_queue(service: Service, server: MqttServer) -> None:
    """Publish more messages than the subscriber's queue can hold."""
    # amqtt drops what a client has published, and it has not forwarded, when the client disconnects: it stays
    # connected until it has received all of it too.
    async with other_client(server) as other, other.subscribe("jobs/#") as received:
        for number in range(1100):
            await other.publish("jobs/all", str(number))
        for _ in range(1100):
            await received.get_message()
    await eventually(service.driver._has_full_queue)


@pytest.mark.full
async def test_a_check_succeeds_while_handlers_lag_behind_a_full_queue(server: MqttServer) -> None:
    """While a subscriber's queue is full, zmqtt reads nothing, not even the reply to a ping."""
    steps, release = asyncio.Queue[None](), asyncio.Event()

    async def wait(_: int) -> None:
        if not release.is_set():
            await steps.get()

    service = Service(server, "QoS 0", handler=wait)
    async with service.lifespan:
        await overfill_queue(service, server)
        with pytest.raises(zmqtt.MQTTTimeoutError):
            await service.client.ping(0.5)
        for _ in range(3):
            steps.put_nowait(None)
            assert await service.driver.check() == "ok"
        release.set()
        steps.put_nowait(None)
        await eventually(lambda: len(service.handled) >= 1000)
        await service.publish_and_handle(-1)


@pytest.mark.full
@pytest.mark.parametrize("dead", [True, False])
async def test_a_full_queue_that_does_not_move_times_out_without_a_reconnect(
    server: MqttServer, monkeypatch: pytest.MonkeyPatch, dead: bool
) -> None:
    monkeypatch.setattr(mqtt_driver, "PING_TIMEOUT", 0.3)
    monkeypatch.setattr(supervisor, "PATIENCE", 0.3)
    monkeypatch.setattr(supervisor, "HANDLERS_TIMEOUT", 0.0)
    release = asyncio.Event()

    async def wait(_: int) -> None:
        await release.wait()

    service = Service(server, "QoS 0", handler=wait)
    async with service.lifespan:
        first, connection_id = service.client, service.driver.connection_id()
        await overfill_queue(service, server)
        if dead:
            server.kill()
        await eventually_status(service.ready, 503)
        assert await service.codes() == {"timeout", "ok"}
        # Supervision does not reset the connection, which would lose the messages in transit.
        with pytest.raises(TimeoutError):
            await eventually(lambda: service.driver.connection_id() != connection_id, 1.0)
        release.set()
        if dead:
            await eventually(lambda: service.driver.connection_id() != connection_id)
            server.start()
        await eventually(lambda: len(service.handled) >= 1000)
        await service.publish_and_handle(-1)
        assert service.client is first


@pytest.mark.full
async def test_a_queue_that_fills_during_a_check_makes_it_succeed(server: MqttServer) -> None:
    release = asyncio.Event()

    async def wait(_: int) -> None:
        await release.wait()

    service = Service(server, handler=wait)
    async with service.lifespan:
        server.freeze()
        check = asyncio.create_task(service.driver.check())
        done, _ = await asyncio.wait((check,), timeout=0.1)
        assert not done
        [subscription] = service.client._subscriptions
        queue = subscription._queue
        message = zmqtt.Message(topic="jobs/all", payload=b"1", qos=zmqtt.QoS.AT_MOST_ONCE, retain=False)
        while not check.done():
            if queue.full():
                await asyncio.sleep(0.01)
            else:
                queue.put_nowait(message)
        assert check.result() == "ok"
        server.thaw()
        release.set()
        await service.publish_and_handle(2)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (zmqtt.MQTTConnectError(4), "auth_failed"),
        (zmqtt.MQTTConnectError(0x87), "auth_failed"),
        (zmqtt.MQTTConnectError(3), "unreachable"),
        (zmqtt.MQTTDisconnectedError(), "closed"),
        (zmqtt.MQTTTimeoutError(), "timeout"),
        (ConnectionRefusedError(), "unreachable"),
        (TimeoutError(), "timeout"),
        (zmqtt.MQTTSubscribeError({"jobs": 0x87}), "error"),
    ],
)
def test_errors_are_classified_by_code(error: Exception, code: str) -> None:
    assert driver_for(MQTTBroker()).classify(error) == code


async def test_the_driver_of_a_broker_that_was_not_started_reports_not_started() -> None:
    driver = driver_for(MQTTBroker("mqtt://user:secret@somewhere"))
    assert driver.name == "MQTTBroker mqtt://somewhere:1883"
    assert await driver.check() == "not_started"
    assert (driver.has_client, driver.is_reconnecting, driver.is_closed) == (False, False, False)
    assert (driver.connection_id(), driver.local_status()) == (None, None)
    await driver.drain()
    await driver.abort()


async def test_a_test_broker_never_connects() -> None:
    broker = MQTTBroker(logger=None)
    handled: list[int] = []

    @broker.subscriber("jobs")
    async def handle(number: int) -> None:
        handled.append(number)

    lifespan = BrokerLifespan(broker)
    async with TestMQTTBroker(broker):
        async with lifespan:
            assert await status(make_readiness_asgi(lifespan)) == 200
            await broker.publish(1, "jobs")
            assert not driver_for(broker).has_client
        assert handled == [1]


# The connection


async def test_a_wrong_password_fails_the_start_and_is_not_logged(
    password_server: MqttServer, caplog: pytest.LogCaptureFixture
) -> None:
    password_server.password = "changed"
    password_server.restart()
    password_server.password = "secret"
    service = Service(password_server)
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(BrokerStartError, match="credentials were rejected") as raised,
    ):
        await service.lifespan.enter()
    assert "secret" not in str(raised.value)
    assert "secret" not in caplog.text
    password_server.restart()
    service.use(BrokerLifespan(service.broker))
    async with service.lifespan:
        await service.publish_and_handle(1)


async def test_a_changed_password_is_reported_as_auth_failed_until_it_is_restored(
    password_server: MqttServer, caplog: pytest.LogCaptureFixture
) -> None:
    """zmqtt does not reconnect after rejected credentials; supervision does."""
    service = Service(password_server)
    with caplog.at_level(logging.DEBUG):
        async with service.lifespan:
            await service.publish_and_handle(1)
            password_server.password = "changed"
            password_server.restart()
            await eventually(lambda: "is not up: the credentials were rejected" in caplog.text)
            assert "auth_failed" in await service.codes()
            password_server.password = "secret"
            password_server.restart()
            await service.publish_and_handle(2)
    assert "secret" not in caplog.text


async def test_without_supervision_rejected_credentials_are_reported(mosquitto: MqttServer) -> None:
    mosquitto.user, mosquitto.password = "user", "secret"
    mosquitto.restart()
    service = Service(mosquitto)
    service.use(BrokerLifespan(service.broker, supervise=False))
    async with service.lifespan:
        mosquitto.password = "changed"
        mosquitto.restart()
        await eventually(lambda: service.driver.is_closed)
        assert service.driver.local_status() == "auth_failed"
        assert not service.driver.is_reconnecting
        assert await status(service.ready) == 503


async def test_the_client_restores_a_lost_connection(server: MqttServer) -> None:
    """zmqtt reconnects and restores its subscriptions by itself."""
    service = Service(server)
    async with service.lifespan:
        await service.publish_and_handle(1)
        first, connection_id = service.client, service.driver.connection_id()
        server.kill()
        await eventually(lambda: service.driver.is_reconnecting)
        assert service.driver.local_status() == "unreachable"
        assert service.driver.connection_id() != connection_id
        assert await status(service.ready) == 503
        server.start()
        await service.publish_and_handle(2)
        assert service.client is first


async def test_the_client_keeps_reconnecting_beyond_max_attempts(server: MqttServer) -> None:
    service = Service(server, reconnect=zmqtt.ReconnectConfig(initial_delay=0.01, max_attempts=1))
    async with service.lifespan:
        first = service.client
        server.kill()
        await eventually(lambda: service.driver.is_reconnecting)
        # By then a client limited to one attempt would have given up.
        with pytest.raises(TimeoutError):
            await eventually(lambda: service.driver.is_closed, 0.5)
        server.start()
        await service.publish_and_handle(1)
        assert service.client is first


@pytest.mark.parametrize("reason", ["disconnected by the application", "reconnecting disabled"])
async def test_a_client_that_does_not_reconnect_is_replaced(server: MqttServer, reason: str) -> None:
    service = Service(server, reconnect=NO_RECONNECT)
    async with service.lifespan:
        first = service.client
        if reason == "disconnected by the application":
            await first.disconnect()
            assert service.driver.local_status() == "closed"
        else:
            server.restart()
        await service.publish_and_handle(1)
        assert service.client is not first


async def test_the_client_is_replaced_after_a_proxy_closed_its_connection(server: MqttServer) -> None:
    """A proxy without a server accepts and closes at once, which ends zmqtt's reconnecting."""
    service = Service(server)

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with service.lifespan:
        await service.publish_and_handle(1)
        first = service.client
        server.kill()
        async with await asyncio.start_server(close, HOST, server.port):
            await eventually(lambda: service.driver.client is not first)
            assert await status(service.ready) == 503
        server.start()
        await service.publish_and_handle(2)


async def test_the_connection_is_restored_after_another_client_used_the_same_client_id(
    mosquitto: MqttServer,
) -> None:
    """The server disconnects the older client; the one that reconnects prevails. (amqtt keeps both.)"""
    service = Service(mosquitto, client_id="me")
    async with service.lifespan:
        await service.publish_and_handle(1)
        connection_id = service.driver.connection_id()
        async with other_client(mosquitto, client_id="me"):
            await eventually(lambda: service.driver.connection_id() != connection_id)
            await service.publish_and_handle(2)


@pytest.mark.full
async def test_the_client_is_replaced_while_the_server_stays_frozen(
    server: MqttServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "CHECK_TIMEOUT", 0.1)
    monkeypatch.setattr(supervisor, "PATIENCE", 0.3)
    service = Service(server, mqtt_connect_timeout=1.0, reconnect=NO_RECONNECT)
    async with service.lifespan:
        first = service.client
        server.freeze()
        await eventually(lambda: service.driver.client is not first)
        await eventually(lambda: "is not up: it did not reply in time" in caplog.text)
        server.thaw()
        await service.publish_and_handle(1)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["QoS 1", "workers"])
async def test_a_server_that_stays_frozen_loses_no_messages(
    server: MqttServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The same client makes a new connection, so its queued messages and its handlers remain."""
    monkeypatch.setattr(supervisor, "CHECK_TIMEOUT", 0.1)
    monkeypatch.setattr(supervisor, "PATIENCE", 0.3)
    monkeypatch.setattr(supervisor, "HANDLERS_TIMEOUT", 0.0)
    release = asyncio.Event()

    async def wait(_: int) -> None:
        await release.wait()

    service = Service(server, kind, handler=wait, mqtt_connect_timeout=1.0)
    async with service.lifespan:
        first = service.client
        await service.publish(*range(8))
        await eventually(lambda: service.count_received() == 8)
        server.freeze()
        await eventually(lambda: service.driver.is_reconnecting)
        server.thaw()
        await eventually_status(service.ready, 200)
        release.set()
        await service.publish_and_handle(8)
        assert service.client is first
    assert sorted(service.handled) == list(range(9))


async def test_unanswered_pings_log_no_unretrieved_exceptions(
    server: MqttServer, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(server)
    await start(service.driver, consume=False, supervise=True)
    server.freeze()
    checks = [asyncio.create_task(service.driver.check()) for _ in range(2)]
    protocol = service.client._protocol
    assert protocol is not None
    pings = protocol._ping_waiters
    await eventually(lambda: len(pings) == 2)
    for check in checks:
        check.cancel()
    await asyncio.wait(checks)
    # Cancels a ping that bypasses the driver, as zmqtt does when its own ping times out.
    pinging = asyncio.create_task(protocol.ping())
    await eventually(lambda: len(pings) == 3)
    pinging.cancel()
    await asyncio.wait((pinging,))
    await service.driver.abort()
    assert not pings
    # A cancelled task refers to its frames, and so to the futures of the pings.
    del checks, check, pinging, protocol
    gc.collect()
    assert "never retrieved" not in caplog.text


# Start and stop


async def test_a_start_that_times_out_reports_the_last_error_of_the_client(server: MqttServer) -> None:
    server.stop()
    service = Service(server, reconnect=zmqtt.ReconnectConfig(initial_delay=60.0))
    service.use(BrokerLifespan(service.broker, startup_timeout=0.3))
    with pytest.raises(BrokerStartError, match="the connection was refused"):
        await service.lifespan.enter()


async def test_a_frozen_server_fails_the_start_in_time(
    server: MqttServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_driver, "START_TIMEOUT", 0.3)
    service = Service(server)
    server.freeze()
    with pytest.raises(BrokerStartError, match="it did not reply in time"):
        await service.lifespan.enter()
    server.thaw()
    monkeypatch.undo()
    service.use(BrokerLifespan(service.broker))
    async with service.lifespan:
        await service.publish_and_handle(1)


async def test_a_server_that_freezes_before_the_subscription_fails_the_start_in_time(
    server: MqttServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zmqtt waits for the confirmation of a subscription without a timeout."""
    service = Service(server)
    await start(service.driver, consume=False, supervise=True)
    monkeypatch.setattr(mqtt_driver, "START_TIMEOUT", 0.3)
    server.freeze()
    with pytest.raises(TimeoutError):
        await start(service.driver, consume=True, supervise=True)
    await asyncio.wait_for(service.driver.abort(), 10.0)
    server.thaw()
    assert service.driver.client is None
    assert not service.subscriber.running
    monkeypatch.undo()
    async with service.lifespan:
        await service.publish_and_handle(1)


@pytest.mark.full
async def test_a_frozen_server_does_not_delay_the_stop(
    server: MqttServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "CHECK_TIMEOUT", 0.1)
    monkeypatch.setattr(mqtt_driver, "_CLOSE_TIMEOUT", 0.1)
    service = Service(server)
    async with service.lifespan:
        await service.publish_and_handle(1)
        client = service.client
        server.freeze()
        # More than the socket buffers hold: zmqtt waits until it has sent everything.
        sending = asyncio.create_task(client.publish("elsewhere", bytes(20_000_000)))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(sending), 0.1)
        ending = asyncio.create_task(service.lifespan.leave())
        await asyncio.wait_for(ending, 20.0)
        await sending
    assert service.driver.client is None
    server.thaw()
    async with service.lifespan:
        await service.publish_and_handle(2)


async def test_a_forbidden_topic_fails_the_start() -> None:
    """The error does not mention credentials, because they were accepted."""
    with Amqtt() as server:
        service = Service(server)

        @service.broker.subscriber("prohibited")
        async def handle(number: int) -> None: ...

        with pytest.raises(BrokerStartError, match="could not be started: MQTTSubscribeError"):
            await service.lifespan.enter()


def test_a_lifespan_can_be_entered_again_in_another_event_loop(server: MqttServer) -> None:
    service = Service(server)

    async def once(number: int) -> None:
        async with service.lifespan:
            await service.publish_and_handle(number)

    asyncio.run(once(1))
    asyncio.run(once(2))
    assert service.handled == [1, 2]


@pytest.mark.parametrize("kind", SUPPORTED_BY_ALL)
async def test_a_stop_handles_delivered_messages(any_server: MqttServer, kind: str) -> None:
    release = asyncio.Event()

    async def wait(_: int) -> None:
        await release.wait()

    service = Service(any_server, kind, handler=wait)
    await service.lifespan.enter()
    async with other_client(any_server) as other:
        for number in range(10):
            await other.publish("jobs/all", str(number), qos=service.qos)
        await eventually(lambda: service.count_received() == 10)
        ending = asyncio.create_task(service.lifespan.leave())
        await eventually(lambda: not service.client._subscriptions)
        await other.publish("jobs/all", "10", qos=service.qos)
        release.set()
        await asyncio.wait_for(ending, 10.0)
    assert sorted(service.handled) == list(range(10))


@pytest.mark.full
@pytest.mark.parametrize("kind", ["QoS 1", "workers"])
async def test_a_subscriber_with_queued_messages_is_not_idle(server: MqttServer, kind: str) -> None:
    service = Service(server, kind)
    async with service.lifespan:
        await service.publish_and_handle(0)
        idle = partial(service.driver.is_idle, service.subscriber)
        await eventually(idle)
        [subscription] = service.client._subscriptions
        for number in range(1, 100):
            payload = str(number).encode()
            subscription._queue.put_nowait(
                zmqtt.Message(topic="jobs/all", payload=payload, qos=zmqtt.QoS.AT_MOST_ONCE, retain=False)
            )
        # At each step of the event loop, to include the one between leaving the queue and reaching a handler.
        while not idle():  # noqa: ASYNC110 (see above)
            await asyncio.sleep(0)
        assert sorted(service.handled) == list(range(100))


@pytest.mark.full
@pytest.mark.parametrize("drained", [False, True], ids=["killed before", "killed during"])
@pytest.mark.parametrize("kind", ["QoS 1", "workers"])
async def test_a_stop_handles_delivered_messages_after_the_server_was_killed(
    server: MqttServer, kind: str, drained: bool
) -> None:
    release = asyncio.Event()

    async def wait(_: int) -> None:
        await release.wait()

    service = Service(server, kind, handler=wait)
    await service.lifespan.enter()
    await service.publish(*range(8))
    await eventually(lambda: service.count_received() == 8)
    assert not service.driver.is_idle(service.subscriber)
    server.kill()
    await eventually(lambda: service.driver.is_reconnecting)
    ending = asyncio.create_task(service.driver.drain() if drained else service.lifespan.leave())
    # Release the handlers only after the stop has decided what to do with them.
    managed = managed_broker(service.broker)
    await eventually(lambda: not (service.client._subscriptions if drained else managed.up))
    release.set()
    await asyncio.wait_for(ending, 10.0)
    assert sorted(service.handled) == list(range(8))
    await service.lifespan.leave()


async def test_messages_that_arrive_while_unsubscribing_are_handled(mosquitto: MqttServer) -> None:
    """zmqtt alone would acknowledge and drop them."""
    service = Service(mosquitto)
    async with service.lifespan:
        # Messages and UNSUBSCRIBE share a connection, on which the server keeps their order.
        mosquitto.freeze()
        publishing = [asyncio.create_task(service.publish(number)) for number in range(15)]
        await asyncio.sleep(0)
        drain = asyncio.create_task(service.driver.drain())
        await asyncio.sleep(0)
        mosquitto.thaw()
        await asyncio.gather(*publishing)
        await asyncio.wait_for(drain, 10.0)
        assert service.handled == list(range(15))


@pytest.mark.full
@pytest.mark.parametrize("kind", ["QoS 1", "workers"])
async def test_a_stop_handles_messages_that_the_server_still_queues(mosquitto: MqttServer, kind: str) -> None:
    """The server sends a limited number of messages, and more once those are acknowledged."""
    started, release = asyncio.Event(), asyncio.Event()

    async def wait(_: int) -> None:
        started.set()
        await release.wait()

    service = Service(mosquitto, kind, handler=wait)
    await service.lifespan.enter()
    await asyncio.gather(*(service.publish(number) for number in range(100)))
    await started.wait()
    ending = asyncio.create_task(service.lifespan.leave())
    await eventually(lambda: not service.client._subscriptions)
    release.set()
    await asyncio.wait_for(ending, 10.0)
    assert sorted(service.handled) == list(range(100))


@pytest.mark.full
async def test_no_message_is_lost_or_repeated_when_one_of_two_shared_subscribers_stops(
    mosquitto: MqttServer,
) -> None:
    """A rolling update does this: each message is handled once, by either subscriber."""
    remaining, stopping = Service(mosquitto, "shared"), Service(mosquitto, "shared")
    await stopping.lifespan.enter()
    async with remaining.lifespan:
        publishing = [asyncio.create_task(remaining.publish(number)) for number in range(300)]
        await eventually(lambda: len(stopping.handled) >= 10)
        await stopping.lifespan.leave()
        await asyncio.gather(*publishing)
        await eventually(lambda: len(remaining.handled) + len(stopping.handled) >= 300)
    assert sorted(remaining.handled + stopping.handled) == list(range(300))


async def test_a_subscriber_that_cannot_be_drained_is_logged(
    server: MqttServer, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(server)
    second = service.broker.subscriber("second")

    @second
    async def handle(number: int) -> None: ...

    async with service.lifespan:
        await service.publish_and_handle(1)
        protocol = service.client._protocol
        assert protocol is not None
        unsubscribe = protocol._send_unsubscribe

        async def refuse(filters: list[str]) -> Any:
            if filters == ["second"]:
                raise zmqtt.MQTTDisconnectedError
            return await unsubscribe(filters)

        protocol._send_unsubscribe = refuse  # type: ignore[method-assign]
    assert "MQTTDisconnectedError while draining a subscriber" in caplog.text


PERSISTENT: dict[str, dict[str, Any]] = {
    "3.1.1": {"clean_session": False},
    "5.0": {"clean_session": False, "session_expiry_interval": 600},
}


@pytest.mark.full
@pytest.mark.parametrize("version", PERSISTENT)
@pytest.mark.parametrize("kind", ["QoS 1", "QoS 2", "workers"])
async def test_messages_published_during_a_restart_are_kept_for_a_persistent_session(
    mosquitto: MqttServer, caplog: pytest.LogCaptureFixture, version: str, kind: str
) -> None:
    """FastStream's stop alone would unsubscribe, after which the server keeps nothing."""
    options = {"version": version, "client_id": "me", **PERSISTENT[version]}
    started, release = asyncio.Event(), asyncio.Event()

    async def wait(_: int) -> None:
        started.set()
        await release.wait()

    service = Service(mosquitto, kind, handler=wait, **options)
    async with other_client(mosquitto) as other:
        await service.lifespan.enter()
        await other.publish("jobs/all", "1", qos=service.qos)
        await started.wait()
        ending = asyncio.create_task(service.lifespan.leave())
        await eventually(lambda: not service.client._subscriptions)
        await other.publish("jobs/all", "2", qos=service.qos)
        release.set()
        await asyncio.wait_for(ending, 10.0)
        assert service.handled == [1]
        await other.publish("jobs/all", "3", qos=service.qos)
    async with service.lifespan:
        await eventually(lambda: len(service.handled) >= 3)
        await service.publish_and_handle(4)
    assert service.handled == [1, 2, 3, 4]
    assert "needs a client_id" not in caplog.text


@pytest.mark.parametrize("version", PERSISTENT)
async def test_a_persistent_session_without_a_client_id_is_logged(
    mosquitto: MqttServer, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def wait(_: int) -> None:
        started.set()
        await release.wait()

    service = Service(mosquitto, handler=wait, version=version, **PERSISTENT[version])
    if version == "3.1.1":
        # MQTT 3.1.1 has no session expiry, so the server rejects a persistent session without a client_id.
        with pytest.raises(BrokerStartError):
            await service.lifespan.enter()
    else:
        await service.lifespan.enter()
        # More than the server sends without an acknowledgement, so that it still queues the rest.
        await asyncio.gather(*(service.publish(number) for number in range(60)))
        await started.wait()
        ending = asyncio.create_task(service.lifespan.leave())
        await eventually(lambda: not service.client._subscriptions)
        release.set()
        await asyncio.wait_for(ending, 10.0)
        assert service.handled == list(range(60))
    assert "a session that outlives its connection needs a client_id" in caplog.text


async def test_a_persistent_session_gets_messages_again_that_exceeded_the_shutdown_timeout(
    mosquitto: MqttServer,
) -> None:
    release = asyncio.Event()

    async def wait(_: int) -> None:
        await release.wait()

    service = Service(mosquitto, handler=wait, client_id="me", **PERSISTENT["5.0"])
    service.use(BrokerLifespan(service.broker, shutdown_timeout=0.3))
    async with service.lifespan:
        await service.publish(1, 2)
    assert service.handled == []
    release.set()
    async with service.lifespan:
        await eventually(lambda: service.handled == [1, 2])


# Pauses in a session that outlives its connection


def persistent(server: MqttServer, kind: str = "QoS 1", version: str = "5.0", **options: Any) -> Service:
    return Service(server, kind, version=version, client_id="me", **PERSISTENT[version], **options)


async def test_messages_published_during_a_pause_wait_in_a_persistent_session(mosquitto: MqttServer) -> None:
    await check_pause(mosquitto, "QoS 1", "5.0")


@pytest.mark.full
@pytest.mark.parametrize("version", PERSISTENT)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "QoS 0"])
async def test_messages_of_every_kind_wait_during_a_pause(
    mosquitto: MqttServer, kind: str, version: str
) -> None:
    await check_pause(mosquitto, kind, version)


async def check_pause(server: MqttServer, kind: str, version: str) -> None:
    """Pause and resume twice, with more messages than the server sends without acknowledgement."""
    service = persistent(server, kind, version)
    expected = [1]
    async with service.lifespan, other_client(server) as other:
        await service.publish_and_handle(1)
        for first in (100, 200):
            await service.lifespan.pause("handle")
            await other.publish("jobs/all", "0", qos=zmqtt.QoS.AT_MOST_ONCE)
            for number in range(first, first + 50):
                await other.publish("jobs/all", str(number), qos=service.qos)
            assert await service.codes() == {"ok", "paused"}
            assert service.handled == expected
            await service.lifespan.resume("handle")
            expected += range(first, first + 50)
            await eventually(partial(lambda count: len(service.handled) == count, len(expected)))
            assert sorted(service.handled) == expected
            service.handled.sort()
        assert await service.codes() == {"ok"}


@pytest.mark.parametrize("kind", ["QoS 1", pytest.param("workers", marks=pytest.mark.full)])
async def test_what_was_in_the_queue_is_handled_before_the_pause(mosquitto: MqttServer, kind: str) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def wait(_: int) -> None:
        started.set()
        await release.wait()

    service = persistent(mosquitto, kind, handler=wait)
    async with service.lifespan, other_client(mosquitto) as other:
        await service.publish(1, 2, 3, 4, 5, 6, 7, 8)
        await started.wait()
        await eventually(lambda: service.count_received() == 8)
        pausing = asyncio.create_task(service.lifespan.pause("handle"))
        await eventually(lambda: bool(service.driver.pausing))
        await other.publish("jobs/all", "9", qos=service.qos)
        release.set()
        await pausing
        assert sorted(service.handled) == [1, 2, 3, 4, 5, 6, 7, 8]
        await service.lifespan.resume("handle")
        await eventually(lambda: 9 in service.handled)


async def test_messages_that_wait_during_a_pause_are_kept_for_the_next_start(mosquitto: MqttServer) -> None:
    service = persistent(mosquitto)
    async with service.lifespan:
        await service.publish_and_handle(1)
        await service.lifespan.pause("handle")
        await service.publish(2, 3)
    async with other_client(mosquitto) as other:
        await other.publish("jobs/all", "4", qos=service.qos)
    assert service.handled == [1]
    async with service.lifespan:
        await eventually(lambda: service.handled == [1, 2, 3, 4])


@pytest.mark.full
async def test_messages_are_kept_when_a_lifespan_stops_during_a_pause(mosquitto: MqttServer) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def wait(_: int) -> None:
        started.set()
        await release.wait()

    service = persistent(mosquitto, handler=wait)
    async with service.lifespan:
        await service.publish(1)
        await started.wait()
        pausing = asyncio.create_task(service.lifespan.pause("handle"))
        await eventually(lambda: bool(service.driver.pausing))
        await service.publish(2)
        asyncio.get_running_loop().call_later(0.1, release.set)
    await pausing
    assert service.handled == [1]
    async with service.lifespan:
        await eventually(lambda: service.handled == [1, 2])


async def test_messages_wait_during_a_pause_while_supervision_restarts_the_broker(
    mosquitto: MqttServer,
) -> None:
    service = persistent(mosquitto)
    async with service.lifespan, other_client(mosquitto) as other:
        await service.publish_and_handle(1)
        await service.lifespan.pause("handle")
        for step in (10, 20):
            await other.publish("jobs/all", str(step), qos=service.qos)
            closed = service.client
            await closed.disconnect()
            await other.publish("jobs/all", str(step + 1), qos=service.qos)
            await eventually(partial(lambda closed: service.driver.client not in {None, closed}, closed))
            await eventually_status(service.ready, 200)
        assert service.handled == [1]
        await service.lifespan.resume("handle")
        await eventually(lambda: len(service.handled) == 5)
        await service.publish_and_handle(30)
    assert service.handled == [1, 10, 11, 20, 21, 30]


@pytest.mark.parametrize("resumed", ["later", "at once"])
async def test_messages_that_the_server_sends_again_during_a_pause_are_handled_once(
    mosquitto: MqttServer, resumed: str
) -> None:
    service = persistent(mosquitto)
    async with service.lifespan, other_client(mosquitto) as other:
        await service.publish_and_handle(1)
        await service.lifespan.pause("handle")
        await other.publish("jobs/all", "2", qos=service.qos)
        await other.publish("jobs/all", "3", qos=service.qos)
        await eventually(lambda: service.count_received() >= 2)
        connection = service.client.connection_info.connection_id
        await service.client._protocol._transport.close()  # type: ignore[union-attr]
        await eventually_status(service.ready, 503)
        await eventually_status(service.ready, 200)
        assert service.client.connection_info.connection_id > connection
        if resumed == "later":
            await service.publish(4)
        await service.lifespan.resume("handle")
        await service.publish_and_handle(5)
    assert service.handled == ([1, 2, 3, 4, 5] if resumed == "later" else [1, 2, 3, 5])


@pytest.mark.full
async def test_messages_that_wait_during_a_pause_outlast_a_session_that_the_server_has_lost(
    mosquitto: MqttServer,
) -> None:
    service = persistent(mosquitto)
    async with service.lifespan:
        await service.publish_and_handle(1)
        await service.lifespan.pause("handle")
        await service.publish(2, 3)
        await eventually(lambda: service.count_received() >= 2)
        # It writes its sessions to the disk only when it stops.
        mosquitto.kill()
        await eventually_status(service.ready, 503)
        mosquitto.restart()
        await eventually_status(service.ready, 200)
        await service.lifespan.resume("handle")
        await service.publish_and_handle(4)
    assert service.handled == [1, 2, 3, 4]


async def test_a_pause_that_can_hold_up_other_subscribers_is_logged_once(
    mosquitto: MqttServer, caplog: pytest.LogCaptureFixture
) -> None:
    service = persistent(mosquitto)
    text = "messages for a paused subscriber wait without acknowledgement"
    async with service.lifespan:
        await service.lifespan.pause("handle")
        await service.lifespan.resume("handle")
    assert text not in caplog.text

    async def other(_: int) -> None: ...

    service.broker.subscriber("others", qos=zmqtt.QoS.AT_LEAST_ONCE)(other)
    async with service.lifespan:
        for _ in range(2):
            await service.lifespan.pause("handle")
            await service.lifespan.resume("handle")
    assert caplog.text.count(text) == 1


# Subscribers


@pytest.mark.parametrize("kind", ["QoS 1", "workers"])
@pytest.mark.parametrize("task", [0, -1])
async def test_a_subscriber_whose_task_ended_is_restarted(server: MqttServer, kind: str, task: int) -> None:
    service = Service(server, kind)
    async with service.lifespan:
        await service.publish_and_handle(1)
        count = len(service.subscriber.tasks)
        service.subscriber.tasks[task].cancel()
        await service.publish(2, 3)
        await eventually(lambda: service.handled == [1, 2, 3])
        await service.publish_and_handle(4)
        assert len(service.subscriber.tasks) == count


async def test_without_supervision_an_ended_task_is_reported(server: MqttServer) -> None:
    service = Service(server)
    service.use(BrokerLifespan(service.broker, supervise=False))
    async with service.lifespan:
        await service.publish_and_handle(1)
        service.subscriber.tasks[0].cancel()
        await eventually_status(service.ready, 503)
        assert await service.codes() == {"ok", "task_failed"}
        # The drain also handles messages that the ended task has left.
        await service.publish(2)
    assert service.handled == [1, 2]


async def test_a_subscriber_recovers_from_a_handler_that_raises_cancelled_error(server: MqttServer) -> None:
    async def fail(number: int) -> None:
        if number == 1:
            raise asyncio.CancelledError

    service = Service(server, handler=fail)
    async with service.lifespan:
        await service.publish(1, 2)
        await eventually(lambda: service.handled == [2])
        await service.publish_and_handle(3)


async def test_a_subscriber_stopped_by_its_handler_stays_stopped(server: MqttServer) -> None:
    from faststream.exceptions import StopConsume

    async def stop(number: int) -> None:
        raise StopConsume

    service = Service(server, handler=stop)
    async with service.lifespan:
        await service.publish(1)
        await eventually(lambda: not service.subscriber.running)
        await eventually_status(service.ready, 200)
        assert await service.codes() == {"ok", "stopped"}


# The documentation


@pytest.mark.parametrize("name", python_blocks("docs/brokers/mqtt.md"))
async def test_the_examples_of_the_documentation_run(
    mosquitto: MqttServer, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = python_blocks("docs/brokers/mqtt.md")[name].code
    assert "mqtt://localhost:1883" in code
    module = load(code.replace("mqtt://localhost:1883", mosquitto.url), tmp_path)
    async with served(module.app) as http:
        assert (await http.get("/ready")).status_code == 200
        assert (await http.get("/live")).status_code == 200
        assert (await http.post("/orders/corner", json={"dish": "soup"})).status_code == 200
        await eventually(lambda: "cooking soup" in capsys.readouterr().out)
    async with other_client(mosquitto) as other:
        await other.publish("orders/corner", '{"dish": "cake"}', qos=zmqtt.QoS.AT_LEAST_ONCE)
    async with served(module.app):
        await eventually(lambda: "cooking cake" in capsys.readouterr().out)
