"""MQTT: what becomes of connections, subscriptions and messages when something goes wrong.

zmqtt's client tells little of itself: the private attributes that are looked at are its own.
"""
# ruff: noqa: SLF001

import asyncio
import gc
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zmqtt
from faststream import AckPolicy
from faststream.mqtt import MQTTBroker, TestMQTTBroker
from zmqtt.client import MQTTClient

from faststream_adapters import BrokerLifespan, consumers, make_ping_asgi, make_readiness_asgi, supervision
from faststream_adapters.brokers import driver_for
from faststream_adapters.brokers import mqtt as mqtt_driver
from faststream_adapters.brokers.mqtt import MqttDriver
from faststream_adapters.lifespan import BrokerStartError
from faststream_adapters.supervision import run_of
from tests.examples.blocks import load, python_blocks, served
from tests.kits.mqtt import SERVER
from tests.servers import HOST
from tests.servers.mqtt import SERVERS, Amqtt, Mosquitto, MqttServer
from tests.support import client, eventually, eventually_status, status

QUICK = zmqtt.ReconnectConfig(initial_delay=0.05, max_delay=0.05)
ONCE = zmqtt.ReconnectConfig(enabled=False)

Handler = Callable[[int], Awaitable[None]]

KINDS: dict[str, dict[str, Any]] = {
    "QoS 0": {},
    "QoS 1": {"qos": zmqtt.QoS.AT_LEAST_ONCE},
    "QoS 2": {"qos": zmqtt.QoS.EXACTLY_ONCE},
    "acknowledged first": {"qos": zmqtt.QoS.AT_LEAST_ONCE, "ack_policy": AckPolicy.ACK_FIRST},
    "workers": {"qos": zmqtt.QoS.AT_LEAST_ONCE, "max_workers": 3},
    "shared": {"qos": zmqtt.QoS.AT_LEAST_ONCE, "shared": "group"},
}
ANYWHERE = [kind for kind in KINDS if kind != "shared"]
"""Those that amqtt has too."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(supervision, "CONSUMERS_INTERVAL", 0.1)
    monkeypatch.setattr(consumers, "RETRY_INTERVAL", 0.1)


def _started(kind: type[MqttServer], **options: Any) -> Iterator[MqttServer]:
    if reason := kind.missing():  # pragma: no cover (where nothing may be skipped, nothing is missing)
        pytest.skip(reason)
    with kind(**options) as server:
        yield server


@pytest.fixture(params=SERVERS, ids=lambda kind: kind.__name__)
def any_server(request: pytest.FixtureRequest) -> Iterator[MqttServer]:
    """Return a server of each kind; the test may do to it what it likes."""
    yield from _started(request.param)


@pytest.fixture
def server() -> Iterator[MqttServer]:
    """Return a server of the better kind; the test may do to it what it likes."""
    yield from _started(SERVER)


@pytest.fixture
def mosquitto() -> Iterator[MqttServer]:
    """Return a server for what only mosquitto can do."""
    yield from _started(Mosquitto)


@pytest.fixture(params=SERVERS, ids=lambda kind: kind.__name__)
def closed_server(request: pytest.FixtureRequest) -> Iterator[MqttServer]:
    """Return a server that asks for a password."""
    yield from _started(request.param, user="user", password="secret")


class Service:
    """A consumer of the topic `jobs` and all below it, and what it has handled.

    Args:
        server: The server.
        kind: One of `KINDS`.
        handler: What the subscriber does first.
        options: Options of the broker.
    """

    def __init__(
        self, server: MqttServer, kind: str = "QoS 1", *, handler: Handler | None = None, **options: Any
    ) -> None:
        defaults = {"version": server.version, "reconnect": QUICK, "logger": None}
        self.broker = MQTTBroker(server.url, **(defaults | options))
        self.handled: list[int] = []
        self.qos = KINDS[kind].get("qos", zmqtt.QoS.AT_MOST_ONCE)

        async def handle(number: int) -> None:
            if handler is not None:
                await handler(number)
            self.handled.append(number)

        self.subscriber = self.broker.subscriber("jobs/#", **KINDS[kind])
        self.subscriber(handle)
        self.run_by(BrokerLifespan(self.broker))

    def run_by(self, lifespan: BrokerLifespan) -> None:
        self.lifespan = lifespan
        self.ready = make_readiness_asgi(lifespan)
        self.ping = make_ping_asgi(lifespan, timeout=0.2)

    @property
    def driver(self) -> MqttDriver:
        driver = run_of(self.broker).driver
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

    def came(self) -> int:
        """Return how many messages zmqtt has received."""
        [subscription] = self.client._subscriptions
        queue: Any = subscription._queue
        count: int = queue._unfinished_tasks
        return count

    async def works(self, number: int) -> None:
        """Wait until it is ready and a message goes through."""
        await eventually_status(self.ready, 204)
        await self.publish(number)
        await eventually(lambda: number in self.handled)

    async def codes(self) -> set[str]:
        """Return the codes of the broker and its subscribers."""
        async with client(make_readiness_asgi(self.lifespan, details=True)) as http:
            report = (await http.get("/")).json()
        return {check["code"] for checks in report["checks"].values() for check in checks}


@asynccontextmanager
async def visitor(server: MqttServer, **options: Any) -> AsyncIterator[MQTTClient]:
    """Return another client of the server."""
    async with MQTTClient(HOST, server.port, version=server.version, reconnect=ONCE, **options) as other:
        yield other


# Messages


@pytest.mark.parametrize("kind", ANYWHERE)
async def test_every_kind_of_subscriber(any_server: MqttServer, kind: str) -> None:
    service = Service(any_server, kind)
    async with service.lifespan:
        await service.works(1)
        assert await service.codes() == {"ok"}
    # And again, by the same objects.
    async with service.lifespan:
        await service.works(2)
    assert service.handled == [1, 2]


async def test_subscribers_that_read_by_themselves(mosquitto: MqttServer) -> None:
    """They are nothing to supervise, and are stopped too."""
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
        await service.works(1)


async def test_one_of_two_subscribers_of_a_topic_gets_everything(any_server: MqttServer) -> None:
    """The other gets nothing, which is zmqtt's way, and is stopped without fuss all the same."""
    service = Service(any_server)
    [call] = service.subscriber.calls
    service.broker.subscriber("jobs/#")(call.handler)
    async with service.lifespan:
        await service.works(1)
    assert service.handled == [1]


async def test_without_consuming_it_is_connected(any_server: MqttServer) -> None:
    service = Service(any_server)
    service.run_by(BrokerLifespan(service.broker, consume=False))
    async with service.lifespan:
        await eventually_status(service.ready, 204)
        await service.publish(1)
        assert not service.subscriber.running


async def test_one_process_handles_what_is_shared() -> None:
    broker = MQTTBroker()
    shared = [
        broker.subscriber("jobs", shared="workers"),
        broker.subscriber("$share/workers/jobs"),
        broker.subscriber("$queue/jobs"),
    ]
    driver = driver_for(broker)
    assert [driver.shared(subscriber) for subscriber in shared] == [True, True, True]
    assert driver.shared(broker.subscriber("jobs/#")) is False


# Health


async def test_frozen_past_the_deadline_and_thawed_messages_still_arrive(any_server: MqttServer) -> None:
    service = Service(any_server)
    async with service.lifespan:
        connection = service.client.connection_info.connection_id
        for number in range(3):
            any_server.freeze()
            assert await status(service.ping) == 500
            assert await status(service.ping) == 500
            any_server.thaw()
            await eventually_status(service.ping, 204)
            await service.works(number)
        assert service.client.connection_info.connection_id == connection
    assert service.handled == [0, 1, 2]


class Counted(MQTTBroker):
    """A broker that counts how often it is asked."""

    pings = 0

    async def ping(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 (FastStream's signature)
        self.pings += 1
        return await super().ping(timeout)


async def test_many_who_ask_share_one_round_trip(server: MqttServer) -> None:
    broker = Counted(server.url, version=server.version, logger=None)
    lifespan = BrokerLifespan(broker, supervise=False)
    async with lifespan:
        trips = run_of(broker).round_trips
        server.freeze()
        asked = [trips.ask(10.0) for _ in range(50)]
        gone = trips.ask(0.05)
        assert (await gone).code == "timeout"
        asked[0].cancel()
        pings = broker.pings
        server.thaw()
        assert {result.code for result in await asyncio.gather(*asked[1:])} == {"ok"}
        assert broker.pings <= pings + 1


async def test_a_thousand_probes_leave_nothing_behind(server: MqttServer) -> None:
    service = Service(server)
    async with service.lifespan:
        await service.works(1)
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


async def fill(service: Service, server: MqttServer) -> None:
    """Send more than the subscriber's queue takes."""
    async with visitor(server) as other:
        for number in range(1100):
            await other.publish("jobs/all", str(number))
    await eventually(service.driver._behind)


async def test_handlers_that_are_behind_are_not_the_servers_fault(server: MqttServer) -> None:
    """zmqtt reads nothing while a subscriber's queue is full, not even the answer to a ping."""
    steps, go_on = asyncio.Queue[None](), asyncio.Event()

    async def wait(_: int) -> None:
        if not go_on.is_set():
            await steps.get()

    service = Service(server, "QoS 0", handler=wait)
    async with service.lifespan:
        await fill(service, server)
        with pytest.raises(zmqtt.MQTTTimeoutError):
            await service.client.ping(0.5)
        for _ in range(3):
            steps.put_nowait(None)
            assert await service.driver.check() == "ok"
        go_on.set()
        steps.put_nowait(None)
        await eventually(lambda: len(service.handled) >= 1000)
        await service.works(-1)


@pytest.mark.parametrize("dead", [True, False])
async def test_a_queue_that_stands_still_says_nothing_of_the_server(
    server: MqttServer, monkeypatch: pytest.MonkeyPatch, dead: bool
) -> None:
    monkeypatch.setattr(mqtt_driver, "PING_TIMEOUT", 0.3)
    monkeypatch.setattr(supervision, "PATIENCE", 0.3)
    monkeypatch.setattr(supervision, "HANDLERS_TIMEOUT", 0.0)
    go_on = asyncio.Event()

    async def wait(_: int) -> None:
        await go_on.wait()

    service = Service(server, "QoS 0", handler=wait)
    async with service.lifespan:
        first, epoch = service.client, service.driver.epoch()
        await fill(service, server)
        if dead:
            server.kill()
        await eventually_status(service.ready, 503)
        assert await service.codes() == {"timeout", "ok"}
        # Supervision resets nothing: what the server has for us would be lost.
        with pytest.raises(TimeoutError):
            await eventually(lambda: service.driver.epoch() != epoch, 1.0)
        go_on.set()
        if dead:
            await eventually(lambda: service.driver.epoch() != epoch)
            server.start()
        await eventually(lambda: len(service.handled) >= 1000)
        await service.works(-1)
        assert service.client is first


async def test_what_fills_up_during_a_round_trip_ends_it(server: MqttServer) -> None:
    go_on = asyncio.Event()

    async def wait(_: int) -> None:
        await go_on.wait()

    service = Service(server, handler=wait)
    async with service.lifespan:
        server.freeze()
        asked = asyncio.create_task(service.driver.check())
        done, _ = await asyncio.wait((asked,), timeout=0.1)
        assert not done
        [subscription] = service.client._subscriptions
        queue = subscription._queue
        message = zmqtt.Message(topic="jobs/all", payload=b"1", qos=zmqtt.QoS.AT_MOST_ONCE, retain=False)
        while not asked.done():
            if queue.full():
                await asyncio.sleep(0.01)
            else:
                queue.put_nowait(message)
        assert asked.result() == "ok"
        server.thaw()
        go_on.set()
        await service.works(2)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (zmqtt.MQTTConnectError(4), "auth"),
        (zmqtt.MQTTConnectError(0x87), "auth"),
        (zmqtt.MQTTConnectError(3), "refused"),
        (zmqtt.MQTTDisconnectedError(), "closed"),
        (zmqtt.MQTTTimeoutError(), "timeout"),
        (ConnectionRefusedError(), "refused"),
        (TimeoutError(), "timeout"),
        (zmqtt.MQTTSubscribeError({"jobs": 0x87}), "error"),
    ],
)
def test_errors_have_codes(error: Exception, code: str) -> None:
    assert driver_for(MQTTBroker()).code(error) == code


async def test_a_broker_that_was_not_started_is_not_there() -> None:
    driver = driver_for(MQTTBroker("mqtt://user:secret@somewhere"))
    assert driver.name == "MQTTBroker mqtt://somewhere:1883"
    assert await driver.check() == "not_started"
    assert (driver.real, driver.reconnecting, driver.gave_up) == (False, False, False)
    assert (driver.epoch(), driver.down()) == (None, None)
    await driver.drain()
    await driver.abort()


async def test_under_testbroker() -> None:
    broker = MQTTBroker(logger=None)
    handled: list[int] = []

    @broker.subscriber("jobs")
    async def handle(number: int) -> None:
        handled.append(number)

    lifespan = BrokerLifespan(broker)
    async with TestMQTTBroker(broker):
        async with lifespan:
            assert await status(make_readiness_asgi(lifespan)) == 204
            await broker.publish(1, "jobs")
            assert not driver_for(broker).real
        assert handled == [1]


# The connection


async def test_a_wrong_password(closed_server: MqttServer, caplog: pytest.LogCaptureFixture) -> None:
    closed_server.password = "changed"
    closed_server.restart()
    closed_server.password = "secret"
    service = Service(closed_server)
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(BrokerStartError, match="credentials were rejected") as raised,
    ):
        await service.lifespan.enter()
    assert "secret" not in str(raised.value)
    assert "secret" not in caplog.text
    closed_server.restart()
    service.run_by(BrokerLifespan(service.broker))
    async with service.lifespan:
        await service.works(1)


async def test_a_password_that_changes(closed_server: MqttServer, caplog: pytest.LogCaptureFixture) -> None:
    """The client takes a rejected login for final; supervision does not."""
    service = Service(closed_server)
    with caplog.at_level(logging.DEBUG):
        async with service.lifespan:
            await service.works(1)
            closed_server.password = "changed"
            closed_server.restart()
            await eventually(lambda: "is not up: the credentials were rejected" in caplog.text)
            assert "auth" in await service.codes()
            closed_server.password = "secret"
            closed_server.restart()
            await service.works(2)
    assert "secret" not in caplog.text


async def test_without_supervision_what_the_client_says_is_told(mosquitto: MqttServer) -> None:
    mosquitto.user, mosquitto.password = "user", "secret"
    mosquitto.restart()
    service = Service(mosquitto)
    service.run_by(BrokerLifespan(service.broker, supervise=False))
    async with service.lifespan:
        mosquitto.password = "changed"
        mosquitto.restart()
        await eventually(lambda: service.driver.gave_up)
        assert service.driver.down() == "auth"
        assert not service.driver.reconnecting
        assert await status(service.ready) == 503


async def test_a_connection_that_is_lost(server: MqttServer) -> None:
    """The client reconnects by itself, and brings its subscriptions back."""
    service = Service(server)
    async with service.lifespan:
        await service.works(1)
        first, epoch = service.client, service.driver.epoch()
        server.kill()
        await eventually(lambda: service.driver.reconnecting)
        assert service.driver.down() == "refused"
        assert service.driver.epoch() != epoch
        assert await status(service.ready) == 503
        server.start()
        await service.works(2)
        assert service.client is first


async def test_a_server_that_is_away_for_longer_than_the_client_tries(server: MqttServer) -> None:
    service = Service(server, reconnect=zmqtt.ReconnectConfig(initial_delay=0.01, max_attempts=1))
    async with service.lifespan:
        first = service.client
        server.kill()
        await eventually(lambda: service.driver.reconnecting)
        # In this time it would have failed for good.
        with pytest.raises(TimeoutError):
            await eventually(lambda: service.driver.gave_up, 0.5)
        server.start()
        await service.works(1)
        assert service.client is first


@pytest.mark.parametrize("cut", ["closed by its user", "no reconnecting"])
async def test_a_client_that_gave_up_is_replaced(server: MqttServer, cut: str) -> None:
    service = Service(server, reconnect=ONCE)
    async with service.lifespan:
        first = service.client
        if cut == "closed by its user":
            await first.disconnect()
            assert service.driver.down() == "closed"
        else:
            server.restart()
        await service.works(1)
        assert service.client is not first


async def test_a_proxy_whose_server_is_away(server: MqttServer) -> None:
    """It accepts and closes at once, and that is the end of zmqtt's reconnecting."""
    service = Service(server)

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with service.lifespan:
        await service.works(1)
        first = service.client
        server.kill()
        async with await asyncio.start_server(close, HOST, server.port):
            await eventually(lambda: service.driver.client is not first)
            assert await status(service.ready) == 503
        server.start()
        await service.works(2)


async def test_another_client_with_the_same_name(mosquitto: MqttServer) -> None:
    """Each throws the other out; who reconnects has the connection. (amqtt keeps both.)"""
    service = Service(mosquitto, client_id="me")
    async with service.lifespan:
        await service.works(1)
        epoch = service.driver.epoch()
        async with visitor(mosquitto, client_id="me"):
            await eventually(lambda: service.driver.epoch() != epoch)
            await service.works(2)


async def test_a_server_that_stays_frozen(
    server: MqttServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its connection is not believed any more, and a new one is made."""
    monkeypatch.setattr(supervision, "CHECK_TIMEOUT", 0.1)
    monkeypatch.setattr(supervision, "PATIENCE", 0.3)
    service = Service(server, mqtt_connect_timeout=1.0, reconnect=ONCE)
    async with service.lifespan:
        first = service.client
        server.freeze()
        await eventually(lambda: service.driver.client is not first)
        await eventually(lambda: "is not up: it did not answer in time" in caplog.text)
        server.thaw()
        await service.works(1)


@pytest.mark.parametrize("kind", ["QoS 1", "workers"])
async def test_a_frozen_server_costs_no_message(
    server: MqttServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A new connection is made by the old client: what it holds and who handles it stay."""
    monkeypatch.setattr(supervision, "CHECK_TIMEOUT", 0.1)
    monkeypatch.setattr(supervision, "PATIENCE", 0.3)
    monkeypatch.setattr(supervision, "HANDLERS_TIMEOUT", 0.0)
    go_on = asyncio.Event()

    async def wait(_: int) -> None:
        await go_on.wait()

    service = Service(server, kind, handler=wait, mqtt_connect_timeout=1.0)
    async with service.lifespan:
        first = service.client
        await service.publish(*range(8))
        await eventually(lambda: service.came() == 8)
        server.freeze()
        await eventually(lambda: service.driver.reconnecting)
        server.thaw()
        await eventually_status(service.ready, 204)
        go_on.set()
        await service.works(8)
        assert service.client is first
    assert sorted(service.handled) == list(range(9))


async def test_nobody_hears_of_pings_that_are_never_answered(
    server: MqttServer, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(server)
    await service.driver.start(consume=False, supervise=True)
    server.freeze()
    checks = [asyncio.create_task(service.driver.check()) for _ in range(2)]
    protocol = service.client._protocol
    assert protocol is not None
    pings = protocol._ping_waiters
    await eventually(lambda: len(pings) == 2)
    for check in checks:
        check.cancel()
    await asyncio.wait(checks)
    # As zmqtt itself does when its time has come.
    pinging = asyncio.create_task(protocol.ping())
    await eventually(lambda: len(pings) == 3)
    pinging.cancel()
    await asyncio.wait((pinging,))
    await service.driver.abort()
    assert not pings
    # A task remembers by where it was cancelled, and with that the answers.
    del checks, check, pinging, protocol
    gc.collect()
    assert "never retrieved" not in caplog.text


# The start and the end


async def test_a_start_that_is_cut_off_says_what_the_client_met(server: MqttServer) -> None:
    server.stop()
    service = Service(server, reconnect=zmqtt.ReconnectConfig(initial_delay=60.0))
    service.run_by(BrokerLifespan(service.broker, startup_timeout=1.0))
    with pytest.raises(BrokerStartError, match="the connection was refused"):
        await service.lifespan.enter()


async def test_a_frozen_server_cannot_hold_up_a_start(
    server: MqttServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_driver, "START_TIMEOUT", 0.3)
    service = Service(server)
    server.freeze()
    with pytest.raises(BrokerStartError, match="it did not answer in time"):
        await service.lifespan.enter()
    server.thaw()
    monkeypatch.undo()
    service.run_by(BrokerLifespan(service.broker))
    async with service.lifespan:
        await service.works(1)


async def test_a_server_that_falls_silent_after_the_login(
    server: MqttServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zmqtt would wait for the confirmation of its subscription for ever."""
    service = Service(server)
    await service.driver.start(consume=False, supervise=True)
    monkeypatch.setattr(mqtt_driver, "START_TIMEOUT", 0.3)
    server.freeze()
    with pytest.raises(TimeoutError):
        await service.driver.start(consume=True, supervise=True)
    await asyncio.wait_for(service.driver.abort(), 10.0)
    server.thaw()
    assert service.driver.client is None
    assert not service.subscriber.running
    monkeypatch.undo()
    async with service.lifespan:
        await service.works(1)


async def test_a_frozen_server_cannot_hold_up_the_end(
    server: MqttServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "CHECK_TIMEOUT", 0.1)
    monkeypatch.setattr(mqtt_driver, "_CLOSE_TIMEOUT", 0.1)
    service = Service(server)
    async with service.lifespan:
        await service.works(1)
        left = service.client
        server.freeze()
        # More than the sockets take: zmqtt waits until it has sent what it has to.
        sending = asyncio.create_task(left.publish("elsewhere", bytes(20_000_000)))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(sending), 0.1)
        ending = asyncio.create_task(service.lifespan.leave())
        await asyncio.wait_for(ending, 20.0)
        await sending
    assert service.driver.client is None
    server.thaw()
    async with service.lifespan:
        await service.works(2)


async def test_a_topic_that_is_forbidden() -> None:
    """The error does not speak of credentials: those were right."""
    with Amqtt() as server:
        service = Service(server)

        @service.broker.subscriber("prohibited")
        async def handle(number: int) -> None: ...

        with pytest.raises(BrokerStartError, match="could not be started: MQTTSubscribeError"):
            await service.lifespan.enter()


def test_it_can_be_entered_again_in_another_event_loop(server: MqttServer) -> None:
    service = Service(server)

    async def once(number: int) -> None:
        async with service.lifespan:
            await service.works(number)

    asyncio.run(once(1))
    asyncio.run(once(2))
    assert service.handled == [1, 2]


@pytest.mark.parametrize("kind", ANYWHERE)
async def test_what_was_delivered_is_handled_before_the_end(any_server: MqttServer, kind: str) -> None:
    go_on = asyncio.Event()

    async def wait(_: int) -> None:
        await go_on.wait()

    service = Service(any_server, kind, handler=wait)
    await service.lifespan.enter()
    async with visitor(any_server) as other:
        for number in range(10):
            await other.publish("jobs/all", str(number), qos=service.qos)
        await eventually(lambda: service.came() == 10)
        ending = asyncio.create_task(service.lifespan.leave())
        await eventually(lambda: not service.client._subscriptions)
        await other.publish("jobs/all", "10", qos=service.qos)
        go_on.set()
        await asyncio.wait_for(ending, 10.0)
    assert sorted(service.handled) == list(range(10))


@pytest.mark.parametrize("kind", ["QoS 1", "workers"])
async def test_who_has_messages_waiting_is_not_idle(server: MqttServer, kind: str) -> None:
    service = Service(server, kind)
    async with service.lifespan:
        await service.works(0)
        idle = partial(service.driver.idle, service.subscriber)
        await eventually(idle)
        [subscription] = service.client._subscriptions
        for number in range(1, 100):
            payload = str(number).encode()
            subscription._queue.put_nowait(
                zmqtt.Message(topic="jobs/all", payload=payload, qos=zmqtt.QoS.AT_MOST_ONCE, retain=False)
            )
        # At each step of the event loop, or that one would be missed at which a message is in nobody's hand.
        while not idle():  # noqa: ASYNC110 (see above)
            await asyncio.sleep(0)
        assert sorted(service.handled) == list(range(100))


@pytest.mark.parametrize("drained", [False, True], ids=["gone before", "gone meanwhile"])
@pytest.mark.parametrize("kind", ["QoS 1", "workers"])
async def test_what_was_delivered_is_handled_when_the_server_is_gone(
    server: MqttServer, kind: str, drained: bool
) -> None:
    go_on = asyncio.Event()

    async def wait(_: int) -> None:
        await go_on.wait()

    service = Service(server, kind, handler=wait)
    await service.lifespan.enter()
    await service.publish(*range(8))
    await eventually(lambda: service.came() == 8)
    assert not service.driver.idle(service.subscriber)
    server.kill()
    await eventually(lambda: service.driver.reconnecting)
    ending = asyncio.create_task(service.driver.drain() if drained else service.lifespan.leave())
    # As late as what becomes of the handlers is decided.
    run = run_of(service.broker)
    await eventually(lambda: not (service.client._subscriptions if drained else run.up))
    go_on.set()
    await asyncio.wait_for(ending, 10.0)
    assert sorted(service.handled) == list(range(8))
    await service.lifespan.leave()


async def test_what_is_on_its_way_while_it_unsubscribes_is_handled(mosquitto: MqttServer) -> None:
    """zmqtt itself would acknowledge it and drop it."""
    service = Service(mosquitto)
    async with service.lifespan:
        # The messages and, on the same connection, the wish to unsubscribe: the server keeps their order.
        mosquitto.freeze()
        publishing = [asyncio.create_task(service.publish(number)) for number in range(15)]
        await asyncio.sleep(0)
        draining = asyncio.create_task(service.driver.drain())
        await asyncio.sleep(0)
        mosquitto.thaw()
        await asyncio.gather(*publishing)
        await asyncio.wait_for(draining, 10.0)
        assert service.handled == list(range(15))


@pytest.mark.parametrize("kind", ["QoS 1", "workers"])
async def test_what_the_server_still_has_is_handled(mosquitto: MqttServer, kind: str) -> None:
    """It sends some messages, and the others when those are acknowledged."""
    started, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_: int) -> None:
        started.set()
        await go_on.wait()

    service = Service(mosquitto, kind, handler=wait)
    await service.lifespan.enter()
    await asyncio.gather(*(service.publish(number) for number in range(100)))
    await started.wait()
    ending = asyncio.create_task(service.lifespan.leave())
    await eventually(lambda: not service.client._subscriptions)
    go_on.set()
    await asyncio.wait_for(ending, 10.0)
    assert sorted(service.handled) == list(range(100))


async def test_one_of_two_that_share_messages_leaves(mosquitto: MqttServer) -> None:
    """As in a rolling update: each message is handled once, by one or the other."""
    stays, leaves = Service(mosquitto, "shared"), Service(mosquitto, "shared")
    await leaves.lifespan.enter()
    async with stays.lifespan:
        publishing = [asyncio.create_task(stays.publish(number)) for number in range(300)]
        await eventually(lambda: len(leaves.handled) >= 10)
        await leaves.lifespan.leave()
        await asyncio.gather(*publishing)
        await eventually(lambda: len(stays.handled) + len(leaves.handled) >= 300)
    assert sorted(stays.handled + leaves.handled) == list(range(300))


async def test_one_subscriber_that_cannot_be_drained(
    server: MqttServer, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(server)
    second = service.broker.subscriber("second")

    @second
    async def handle(number: int) -> None: ...

    async with service.lifespan:
        await service.works(1)
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


@pytest.mark.parametrize("version", PERSISTENT)
@pytest.mark.parametrize("kind", ["QoS 1", "QoS 2", "workers"])
async def test_what_comes_while_it_is_away_is_kept_for_a_persistent_session(
    mosquitto: MqttServer, caplog: pytest.LogCaptureFixture, version: str, kind: str
) -> None:
    """FastStream's own stop unsubscribes, and the server keeps nothing."""
    options = {"version": version, "client_id": "me", **PERSISTENT[version]}
    started, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_: int) -> None:
        started.set()
        await go_on.wait()

    service = Service(mosquitto, kind, handler=wait, **options)
    async with visitor(mosquitto) as other:
        await service.lifespan.enter()
        await other.publish("jobs/all", "1", qos=service.qos)
        await started.wait()
        ending = asyncio.create_task(service.lifespan.leave())
        await eventually(lambda: not service.client._subscriptions)
        await other.publish("jobs/all", "2", qos=service.qos)
        go_on.set()
        await asyncio.wait_for(ending, 10.0)
        assert service.handled == [1]
        await other.publish("jobs/all", "3", qos=service.qos)
    async with service.lifespan:
        await eventually(lambda: len(service.handled) >= 3)
        await service.works(4)
    assert service.handled == [1, 2, 3, 4]
    assert "needs a client_id" not in caplog.text


@pytest.mark.parametrize("version", PERSISTENT)
async def test_a_session_without_a_name_cannot_be_kept(
    mosquitto: MqttServer, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_: int) -> None:
        started.set()
        await go_on.wait()

    service = Service(mosquitto, handler=wait, version=version, **PERSISTENT[version])
    if version == "3.1.1":
        # Where such a session would have to be kept for ever, the server refuses it.
        with pytest.raises(BrokerStartError):
            await service.lifespan.enter()
    else:
        await service.lifespan.enter()
        # More than the server sends without an acknowledgement: it has the others.
        await asyncio.gather(*(service.publish(number) for number in range(60)))
        await started.wait()
        ending = asyncio.create_task(service.lifespan.leave())
        await eventually(lambda: not service.client._subscriptions)
        go_on.set()
        await asyncio.wait_for(ending, 10.0)
        assert service.handled == list(range(60))
    assert "a session that outlives its connection needs a client_id" in caplog.text


async def test_what_was_not_handled_in_time_comes_again_to_a_persistent_session(
    mosquitto: MqttServer,
) -> None:
    go_on = asyncio.Event()

    async def wait(_: int) -> None:
        await go_on.wait()

    service = Service(mosquitto, handler=wait, client_id="me", **PERSISTENT["5.0"])
    service.run_by(BrokerLifespan(service.broker, shutdown_timeout=0.3))
    async with service.lifespan:
        await service.publish(1, 2)
    assert service.handled == []
    go_on.set()
    async with service.lifespan:
        await eventually(lambda: service.handled == [1, 2])


# Consumers


@pytest.mark.parametrize("kind", ["QoS 1", "workers"])
@pytest.mark.parametrize("task", [0, -1])
async def test_a_task_that_ends_is_seen_and_replaced(server: MqttServer, kind: str, task: int) -> None:
    service = Service(server, kind)
    async with service.lifespan:
        await service.works(1)
        count = len(service.subscriber.tasks)
        service.subscriber.tasks[task].cancel()
        await service.publish(2, 3)
        await eventually(lambda: service.handled == [1, 2, 3])
        await service.works(4)
        assert len(service.subscriber.tasks) == count


async def test_without_supervision_a_task_that_ends_is_seen(server: MqttServer) -> None:
    service = Service(server)
    service.run_by(BrokerLifespan(service.broker, supervise=False))
    async with service.lifespan:
        await service.works(1)
        service.subscriber.tasks[0].cancel()
        await eventually_status(service.ready, 503)
        assert await service.codes() == {"ok", "closed"}
        # Who drains needs somebody to handle what is left.
        await service.publish(2)
    assert service.handled == [1, 2]


async def test_a_handler_that_is_cancelled_ends_its_task(server: MqttServer) -> None:
    async def fail(number: int) -> None:
        if number == 1:
            raise asyncio.CancelledError

    service = Service(server, handler=fail)
    async with service.lifespan:
        await service.publish(1, 2)
        await eventually(lambda: service.handled == [2])
        await service.works(3)


async def test_what_a_handler_has_stopped_stays_stopped(server: MqttServer) -> None:
    from faststream.exceptions import StopConsume

    async def stop(number: int) -> None:
        raise StopConsume

    service = Service(server, handler=stop)
    async with service.lifespan:
        await service.publish(1)
        await eventually(lambda: not service.subscriber.running)
        await eventually_status(service.ready, 503)
        assert await service.codes() == {"ok", "paused"}


# The documentation


@pytest.mark.parametrize("name", python_blocks("docs/brokers/mqtt.md"))
async def test_the_example_works(
    mosquitto: MqttServer, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = python_blocks("docs/brokers/mqtt.md")[name].code
    assert "mqtt://localhost:1883" in code
    module = load(code.replace("mqtt://localhost:1883", mosquitto.url), tmp_path)
    async with served(module.app) as http:
        assert (await http.get("/ready")).status_code == 204
        assert (await http.get("/live")).status_code == 204
        assert (await http.post("/orders/corner", json={"dish": "soup"})).status_code == 200
        await eventually(lambda: "cooking soup" in capsys.readouterr().out)
    async with visitor(mosquitto) as other:
        await other.publish("orders/corner", '{"dish": "cake"}', qos=zmqtt.QoS.AT_LEAST_ONCE)
    async with served(module.app):
        await eventually(lambda: "cooking cake" in capsys.readouterr().out)
