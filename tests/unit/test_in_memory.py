"""A lifespan under FastStream's TestBrokers contacts nothing and waits for nothing, for every broker."""

from __future__ import annotations

import asyncio
import importlib
import re
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock

import pytest
from prometheus_client import CollectorRegistry

from faststream_adapters import BrokerLifespan, make_liveness_asgi, make_metrics_asgi, make_readiness_asgi
from tests.harness.brokers import HARNESSES
from tests.harness.clients import client, status
from tests.harness.leftovers import Held
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from faststream_adapters._compat.faststream import Broker
    from tests.harness.brokers import BrokerHarness


class Service:
    """A broker with a subscriber and a publisher, and the numbers that were handled."""

    def __init__(self, harness: BrokerHarness) -> None:
        self.harness = harness
        broker: Any = harness.broker(harness.unreachable_url())
        self.broker: Broker = broker
        self.handled: list[int] = []
        harness.subscribe(broker, "numbers", self.handle)
        self.publisher: Any = broker.publisher("numbers")

    async def handle(self, number: int) -> None:
        self.handled.append(number)

    def in_memory(self, **options: Any) -> Any:
        """Return FastStream's TestBroker for the broker."""
        module = importlib.import_module(f"faststream.{self.harness.name}")
        [name] = (name for name in module.__all__ if re.fullmatch("Test.+Broker", name))
        return getattr(module, name)(self.broker, **options)


@pytest.fixture(params=HARNESSES.values(), ids=list(HARNESSES))
def service(request: pytest.FixtureRequest) -> Service:
    return Service(request.param)


@pytest.mark.parametrize("connect_only", [True, False], ids=["connected", "started"])
async def test_a_lifespan_opens_no_socket_and_starts_no_thread(service: Service, connect_only: bool) -> None:
    async with service.in_memory(connect_only=connect_only):
        before = Held.now()
        async with BrokerLifespan(service.broker)():
            await service.harness.publish(service.broker, 1, "numbers")
            await service.publisher.publish(2)
            assert not Held.now().without(before)
        assert service.handled == [1, 2]


@pytest.mark.parametrize("startup", ["strict", "background"])
async def test_a_start_does_not_ping(service: Service, startup: Any) -> None:
    async with service.in_memory():
        ping = service.broker.ping = AsyncMock(return_value=False)  # type: ignore[method-assign]
        lifespan = BrokerLifespan(service.broker, startup=startup)
        async with lifespan():
            await eventually(lambda: lifespan.state == "running")
        ping.assert_not_awaited()


async def test_a_running_broker_is_not_supervised(service: Service) -> None:
    async with service.in_memory():
        before = asyncio.all_tasks()
        async with BrokerLifespan(service.broker)():
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == before


async def test_the_stop_does_not_wait_for_load_balancers(service: Service) -> None:
    lifespan = BrokerLifespan(service.broker, drain_delay=20.0)
    async with service.in_memory(), asyncio.timeout(10.0), lifespan():
        await service.harness.publish(service.broker, 1, "numbers")
    assert service.handled == [1]


async def test_the_stop_waits_for_handlers(service: Service) -> None:
    started, release = asyncio.Event(), asyncio.Event()
    ended: list[int] = []

    async def handle(number: int) -> None:
        started.set()
        await release.wait()
        ended.append(number)

    service.harness.subscribe(service.broker, "slow", handle)

    def end_handler(_: str, new: str) -> None:
        if new == "draining":
            release.set()

    lifespan = BrokerLifespan(service.broker, on_state_change=end_handler)
    async with service.in_memory():
        async with lifespan():
            publishing = asyncio.create_task(service.harness.publish(service.broker, 1, "slow"))
            await started.wait()
        assert ended == [1]
        await publishing


async def test_all_brokers_and_subscribers_are_healthy(service: Service) -> None:
    readiness = make_readiness_asgi(service.broker, details=True)
    async with service.in_memory(), BrokerLifespan(service.broker)(), client(readiness) as http:
        response = await http.get("/")
        health = response.json()
    assert (response.status_code, health["status"], health["code"]) == (200, "pass", "ok")
    [checks] = health["checks"].values()
    assert [(check["code"], check["status"]) for check in checks] == [("ok", "pass")] * 2


async def test_an_optional_broker_is_healthy(service: Service) -> None:
    readiness = make_readiness_asgi(service.broker, details=True)
    lifespan = BrokerLifespan(service.broker, optional=[service.broker])
    async with service.in_memory(), lifespan(), client(readiness) as http:
        async with asyncio.timeout(10.0):
            while (await http.get("/")).json()["status"] != "pass":  # noqa: ASYNC110 (the start does not wait for it)
                await asyncio.sleep(0)


async def test_an_unsupervised_broker_is_alive(service: Service) -> None:
    liveness = make_liveness_asgi(service.broker)
    async with service.in_memory(), BrokerLifespan(service.broker, supervise=False)():
        assert await status(liveness) == 200


async def test_the_metrics_report_the_broker_as_up(service: Service) -> None:
    metrics = make_metrics_asgi(CollectorRegistry(), targets=[service.broker])
    async with service.in_memory(), BrokerLifespan(service.broker)(), client(metrics) as http:
        text = (await http.get("/")).text
    name = f"{type(service.broker).__name__} 1"
    assert f'faststream_adapters_broker_up{{broker="{name}"}} 1.0' in text


async def test_draining_does_not_delay_the_end_of_the_server(service: Service) -> None:
    lifespan = BrokerLifespan(service.broker, drain_delay=20.0)
    ended = asyncio.Event()
    async with service.in_memory(), lifespan():
        lifespan.drain(ended.set)
        async with asyncio.timeout(10.0):
            await ended.wait()


async def test_a_probe_pings_so_that_a_test_can_make_it_fail(service: Service) -> None:
    readiness = make_readiness_asgi(service.broker)
    async with service.in_memory(), BrokerLifespan(service.broker)():
        service.broker.ping = AsyncMock(return_value=False)  # type: ignore[method-assign]
        assert await status(readiness) == 503


async def test_a_broker_can_run_in_memory_again(service: Service) -> None:
    lifespan = BrokerLifespan(service.broker)
    for number in range(2):
        async with service.in_memory(), lifespan():
            await service.harness.publish(service.broker, number, "numbers")
    assert service.handled == [0, 1]


async def test_subscribers_that_are_not_consumed_are_not_started(service: Service) -> None:
    async with service.in_memory(connect_only=True), BrokerLifespan(service.broker, consume=False)():
        subscribers: Any = service.broker.subscribers
        assert not any(subscriber.running for subscriber in subscribers)
