"""Handlers that do not come to an end, seen by the liveness probe."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from faststream import BaseMiddleware
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker
from faststream.nats import NatsRouter as Router

from faststream_adapters import (
    AsgiFastStream,
    BrokerLifespan,
    FastStream,
    make_liveness_asgi,
)
from tests.servers.nats import NatsServer
from tests.support import client, eventually_status, status


class Job:
    """A handler that works until it is told to stop."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, message: str) -> None:
        self.begun.set()
        await self.go_on.wait()


def of_broker(broker: NatsBroker) -> tuple[BrokerLifespan, Any]:
    return BrokerLifespan(broker), broker


def of_lifespan(broker: NatsBroker) -> tuple[BrokerLifespan, Any]:
    lifespan = BrokerLifespan(broker)
    return lifespan, lifespan


def of_app(broker: NatsBroker) -> tuple[BrokerLifespan, Any]:
    app = AsgiFastStream(broker)
    return app.broker_lifespan, app


def of_upstreams_app(broker: NatsBroker) -> tuple[BrokerLifespan, Any]:
    app = FastStream(broker)
    return BrokerLifespan(app), app


@pytest.mark.parametrize("make", [of_broker, of_lifespan, of_app, of_upstreams_app])
async def test_a_handler_that_takes_too_long_is_seen(
    nats: NatsServer,
    make: Callable[[NatsBroker], tuple[BrokerLifespan, Any]],
) -> None:
    job = Job()
    broker = NatsBroker(nats.url, logger=None)
    broker.subscriber("jobs")(job.__call__)
    lifespan, target = make(broker)
    live = make_liveness_asgi(target, max_handler_age=0.2)
    patient = make_liveness_asgi(target, max_handler_age=3600.0, details=True)
    async with lifespan:
        await broker.publish("work", "jobs")
        await job.begun.wait()
        await eventually_status(live, 503)
        assert await status(patient) == 200
        job.go_on.set()
        await eventually_status(live, 204)


async def test_a_broker_that_is_added_before_the_start_counts_too(nats: NatsServer) -> None:
    job = Job()
    app = AsgiFastStream(liveness_path="/live", max_handler_age=0.2)
    broker = NatsBroker(nats.url, logger=None)
    router = Router()
    router.subscriber("jobs")(job.__call__)
    broker.include_router(router)
    app.add_broker(broker)
    async with app.broker_lifespan, client(app) as http:
        assert (await http.get("/live")).status_code == 204
        await broker.publish("work", "jobs")
        await job.begun.wait()
        async with asyncio.timeout(10):
            while (await http.get("/live")).status_code != 503:
                ...
        job.go_on.set()


async def test_a_handler_that_fails_is_forgotten(nats: NatsServer) -> None:
    tried = asyncio.Event()
    broker = NatsBroker(nats.url, logger=None)

    @broker.subscriber("jobs")
    async def fail(message: str) -> None:
        tried.set()
        raise KeyError

    lifespan = BrokerLifespan(broker)
    live = make_liveness_asgi(lifespan, max_handler_age=0.000001)
    async with lifespan:
        await broker.publish("work", "jobs")
        await tried.wait()
        await eventually_status(live, 204)


async def test_a_middleware_that_hangs_is_seen_too(nats: NatsServer) -> None:
    job = Job()

    class Hanging(BaseMiddleware[Any, Any]):
        async def on_receive(self) -> None:
            await job("")

    broker = NatsBroker(nats.url, logger=None, middlewares=[Hanging])
    broker.subscriber("jobs")(print)
    lifespan = BrokerLifespan(broker)
    live = make_liveness_asgi(lifespan, max_handler_age=0.2)
    async with lifespan:
        await broker.publish("work", "jobs")
        await eventually_status(live, 503)
        job.go_on.set()
        await eventually_status(live, 204)


def test_without_a_limit_handlers_are_not_watched() -> None:
    broker = NatsBroker()
    before = len(broker.config.broker_middlewares)
    make_liveness_asgi(broker)
    assert len(broker.config.broker_middlewares) == before
    make_liveness_asgi(broker, max_handler_age=1.0)
    make_liveness_asgi(broker, max_handler_age=2.0)
    assert len(broker.config.broker_middlewares) == before + 1


@pytest.mark.parametrize("age", [0, -1.0, float("nan")])
def test_a_limit_is_a_number_of_seconds_above_zero(age: float) -> None:
    with pytest.raises(SetupError, match="max_handler_age must be a number of seconds above 0"):
        make_liveness_asgi(NatsBroker(), max_handler_age=age)


def test_a_limit_without_a_liveness_probe_is_refused() -> None:
    with pytest.raises(SetupError, match="max_handler_age has no effect without liveness_path"):
        AsgiFastStream(NatsBroker(), max_handler_age=1.0)
