"""Publishing to a broker that is not up raises BrokerNotUpError, for every client and in every phase."""

from __future__ import annotations

import asyncio
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from faststream.exceptions import IncorrectState
from faststream.redis import RedisBroker, RedisRouter

from faststream_adapters import AsgiFastStream, BrokerLifespan, BrokerNotUpError, BrokerStartError
from tests.harness.brokers import HARNESSES
from tests.harness.brokers.shared import shared_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness.brokers import BrokerHarness
    from tests.harness.servers.nats import NatsServer

EACH = pytest.mark.parametrize("harness", HARNESSES.values(), ids=list(HARNESSES))

EACH_SERVER = pytest.mark.parametrize(
    "harness",
    [
        pytest.param(harness, id=name, marks=pytest.mark.full if harness.starts_slowly else [])
        for name, harness in HARNESSES.items()
    ],
)


class Service:
    """A broker, and all ways to publish to it."""

    def __init__(self, harness: BrokerHarness, url: str) -> None:
        self.harness = harness
        self.channel = f"numbers-{uuid.uuid4().hex}"
        broker: Any = harness.broker(url)
        self.broker = broker
        self.early: Any = broker.publisher(self.channel)
        self.lifespan = self.run()
        # A publisher that is created after the lifespan.
        self.late: Any = broker.publisher(self.channel)

    def run(self, **keywords: Any) -> BrokerLifespan:
        """Set and return the lifespan of the broker."""
        self.lifespan = BrokerLifespan(self.broker, **keywords)
        return self.lifespan

    @property
    def publish_calls(self) -> dict[str, Callable[[], Awaitable[Any]]]:
        """The calls that only publish, by name."""
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "broker": partial(self.harness.publish, self.broker, 1, self.channel),
            "early publisher": partial(self.early.publish, 1),
            "late publisher": partial(self.late.publish, 1),
        }
        if keyword := self.harness.batch_destination:
            calls["batch"] = partial(self.broker.publish_batch, 1, **{keyword: f"{self.channel}-batch"})
        return calls

    async def assert_refused(self, *reasons: str) -> None:
        """Assert that each call raises an error that names the broker and one of these reasons."""
        calls = self.publish_calls
        if self.harness.requests:
            calls["request"] = partial(self.broker.request, 1, self.channel)
            calls["publisher's request"] = partial(self.late.request, 1)
        for call in calls.values():
            with pytest.raises(BrokerNotUpError) as raised:
                await call()
            assert isinstance(raised.value, IncorrectState)
            text = str(raised.value)
            assert text.startswith(f"{type(self.broker).__name__} ")
            assert any(f" is not up: {reason}. " in text for reason in reasons), text
            assert "secret" not in text

    async def wait_refused(self, reason: str) -> None:
        """Publish until this is refused for a reason."""
        error: BaseException | None = None
        async with asyncio.timeout(20.0):
            while not (isinstance(error, BrokerNotUpError) and f" is not up: {reason}. " in str(error)):
                try:
                    await self.late.publish(1)
                except Exception as raised:  # noqa: BLE001 (those of the client before)
                    error = raised
                await asyncio.sleep(0.01)

    async def assert_accepted(self) -> None:
        """Assert that each call that only publishes succeeds."""
        for call in self.publish_calls.values():
            async with asyncio.timeout(30.0):
                await call()


@EACH_SERVER
async def test_a_stopped_broker_refuses(harness: BrokerHarness) -> None:
    service = Service(harness, shared_server(harness).url)
    for reason in ("it has not been started", "it has been stopped"):
        await service.assert_refused(reason)
        async with service.lifespan:
            await service.assert_accepted()
    await service.assert_refused("it has been stopped")


@EACH_SERVER
async def test_a_running_broker_publishes_without_a_check(harness: BrokerHarness) -> None:
    service = Service(harness, shared_server(harness).url)
    async with service.lifespan:
        config = service.broker.config.broker_config
        holders = [config, service.early, service.late]
        producers = [
            getattr(holder, name)
            for holder in holders
            for name in ("producer", "js_producer")
            if hasattr(holder, name)
        ]
    assert producers
    assert all(type(producer).__module__.startswith("faststream.") for producer in producers)


@pytest.mark.parametrize("keyword", ["startup", "optional"])
@EACH
async def test_a_broker_that_cannot_connect_refuses(harness: BrokerHarness, keyword: str) -> None:
    service = Service(harness, harness.unreachable_url())
    keywords: dict[str, Any] = {"startup": "background", "optional": [service.broker]}
    async with service.run(**{keyword: keywords[keyword]}):
        await service.assert_refused("it is still connecting", "the connection was refused")
        await service.wait_refused("the connection was refused")
    await service.assert_refused("it has been stopped")


@EACH
async def test_a_broker_that_failed_to_start_refuses(harness: BrokerHarness) -> None:
    service = Service(harness, harness.unreachable_url())
    with pytest.raises(BrokerStartError):
        await service.lifespan.enter()
    await service.assert_refused("it has been stopped")


@EACH_SERVER
async def test_hooks_publish_while_the_broker_is_up(harness: BrokerHarness) -> None:
    service = Service(harness, shared_server(harness).url)

    async def publish_too_early() -> None:
        await service.assert_refused("it has not been started")

    async def publish_too_late() -> None:
        await service.assert_refused("it has been stopped")

    app = AsgiFastStream(
        service.broker,
        on_startup=[publish_too_early],
        after_startup=[service.assert_accepted],
        on_shutdown=[service.assert_accepted],
        after_shutdown=[publish_too_late],
    )
    async with app.start_lifespan_context():
        await service.assert_accepted()


@EACH_SERVER
async def test_an_application_can_start_the_broker_by_itself(harness: BrokerHarness) -> None:
    service = Service(harness, shared_server(harness).url)
    for _ in range(2):
        async with service.broker:
            await service.broker.start()
            await service.assert_accepted()
        async with service.lifespan:
            await service.assert_accepted()


@pytest.mark.parametrize(
    "harness",
    [
        pytest.param(harness, id=name, marks=[] if name in {"nats", "redis"} else pytest.mark.full)
        for name, harness in HARNESSES.items()
    ],
)
async def test_a_broker_that_was_cut_off_from_a_frozen_server_refuses(harness: BrokerHarness) -> None:
    with harness.server() as server:
        service = Service(harness, server.url)
        async with service.run(shutdown_timeout=0.5):
            await service.late.publish(1)
            server.freeze()
        await service.assert_refused("it has been stopped")
        server.thaw()


async def test_a_client_that_reconnects_accepts_messages(nats: NatsServer) -> None:
    service = Service(HARNESSES["nats"], nats.url)
    async with service.lifespan:
        nats.kill()
        async with asyncio.timeout(10.0):
            while service.broker.connection.is_connected:  # noqa: ASYNC110 (the client has no event)
                await asyncio.sleep(0.01)
        await service.assert_accepted()
        nats.start()


@pytest.mark.parametrize("name", ["nats", "mqtt"])
@pytest.mark.full
async def test_a_client_that_has_given_up_refuses(name: str) -> None:
    harness = HARNESSES[name]
    with harness.server() as server:
        service = Service(harness, server.url)
        service.broker = harness.broker_that_gives_up(server.url)[0]
        service.late = service.broker.publisher(service.channel)
        async with service.run(supervise=False):
            await service.late.publish(1)
            server.kill()
            await service.wait_refused(
                "its client has closed the connection, and supervision has not restarted it"
            )


async def test_a_broker_refuses_while_it_is_restarted() -> None:
    harness = HARNESSES["mqtt"]
    with harness.server() as server:
        service = Service(harness, server.url)
        async with service.lifespan:
            server.kill()
            # As after an error in the client's task.
            await service.broker.config.client.disconnect()
            await service.wait_refused("the connection was refused")
            server.start()
            async with asyncio.timeout(30.0):
                while await is_refused(service):  # noqa: ASYNC110 (the restart has no event)
                    await asyncio.sleep(0.05)
            await service.assert_accepted()


async def is_refused(service: Service) -> bool:
    try:
        await service.late.publish(1)
    except BrokerNotUpError:
        return True
    return False


@EACH_SERVER
async def test_a_broker_that_the_application_has_connected_accepts_messages(harness: BrokerHarness) -> None:
    service = Service(harness, shared_server(harness).url)
    await service.broker.connect()
    async with service.run(startup="background"):
        await service.assert_accepted()


async def test_publishers_of_a_redis_router_are_included() -> None:
    harness = HARNESSES["redis"]
    broker, router = RedisBroker(shared_server(harness).url), RedisRouter()
    publisher = router.publisher("numbers")
    broker.include_router(router)
    lifespan = BrokerLifespan(broker)
    with pytest.raises(BrokerNotUpError, match="it has not been started"):
        await publisher.publish(1)
    async with lifespan:
        await publisher.publish(1)
    with pytest.raises(BrokerNotUpError, match="it has been stopped"):
        await publisher.publish(1)
