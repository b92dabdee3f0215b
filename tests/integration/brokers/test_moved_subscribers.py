"""Routers that two brokers include: a broker that has lost its subscribers logs a warning when it starts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from faststream import FastStream
from faststream.nats import NatsBroker, NatsRouter, TestNatsBroker

from faststream_adapters import BrokerLifespan
from faststream_adapters.fastapi import FastStreamRouter

if TYPE_CHECKING:
    from collections.abc import Callable

    from faststream_adapters._compat.faststream import Broker
    from tests.harness.servers.nats import NatsServer


class Module:
    """A module with a router, and a function that creates an application with it."""

    def __init__(self, url: str, wrap: Callable[[Broker], Any] = lambda broker: broker) -> None:
        self.url, self.wrap = url, wrap
        self.router = NatsRouter()
        self.router.subscriber("orders")(accept_order)

    def create_broker(self) -> NatsBroker:
        broker = NatsBroker(self.url)
        broker.include_router(self.router)
        return broker

    def create(self, **keywords: Any) -> BrokerLifespan:
        return BrokerLifespan(self.wrap(self.create_broker()), **keywords)


async def accept_order(order: int) -> None: ...


async def accept_other(order: int) -> None: ...


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("wrap", [lambda broker: broker, FastStream], ids=["broker", "app"])
async def test_a_broker_warns_about_subscribers_that_another_broker_has_taken(
    nats: NatsServer, caplog: pytest.LogCaptureFixture, wrap: Any
) -> None:
    module = Module(nats.url, wrap)
    first, second = module.create(), module.create()
    async with second:
        assert warnings(caplog) == []
    async with first:
        [warning] = warnings(caplog)
    assert warning.startswith(f"NatsBroker {nats.url} starts without the subscribers accept_order: ")
    assert "create the routers in it too" in warning


@pytest.mark.parametrize("nested", [False, True])
async def test_a_broker_warns_about_a_router_that_it_has_included_after_the_lifespan_was_made(
    nats: NatsServer, caplog: pytest.LogCaptureFixture, nested: bool
) -> None:
    module = Module(nats.url)

    def create() -> BrokerLifespan:
        broker = NatsBroker(nats.url)
        lifespan = BrokerLifespan(broker)
        outer = NatsRouter(routers=[module.router]) if nested else module.router
        broker.include_router(outer)
        return lifespan

    first, second = create(), create()
    async with second:
        assert warnings(caplog) == []
    async with first:
        assert len(warnings(caplog)) == 1


async def test_a_broker_warns_about_subscribers_that_its_router_got_later(
    nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    module = Module(nats.url)
    first = module.create()
    module.router.subscriber("other")(accept_other)
    module.create()
    async with first:
        [warning] = warnings(caplog)
    assert "without the subscribers accept_order, accept_other:" in warning


async def test_a_broker_that_is_started_again_warns_too(
    nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    module = Module(nats.url)
    first = module.create()
    async with first:
        module.create()
    assert warnings(caplog) == []
    async with first:
        assert len(warnings(caplog)) == 1


async def test_a_broker_with_other_subscribers_warns_about_those_that_it_has_lost(
    nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    module = Module(nats.url)
    first = module.create()
    [broker] = first.brokers
    other: Any = broker
    other.subscriber("other")(accept_other)
    module.create()
    async with first:
        [warning] = warnings(caplog)
    assert "without the subscribers accept_order:" in warning


async def test_a_broker_that_does_not_consume_does_not_warn(
    nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    module = Module(nats.url)
    first = module.create(consume=False)
    module.create()
    async with first:
        assert warnings(caplog) == []


async def test_the_subscribers_of_a_test_broker_are_not_missed(
    nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    broker = NatsBroker(nats.url)
    published = broker.publisher("done")
    lifespan = BrokerLifespan(broker)
    async with TestNatsBroker(broker, connect_only=True), lifespan:
        await published.publish("tea")
    async with lifespan:
        assert warnings(caplog) == []


def test_a_fastapi_application_that_is_created_twice_warns(
    nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    module = Module(nats.url)
    apps = [FastAPI(), FastAPI()]
    for app in apps:
        app.include_router(FastStreamRouter(module.create_broker()))
    for app in reversed(apps):
        with TestClient(app):
            pass
    assert len(warnings(caplog)) == 1
