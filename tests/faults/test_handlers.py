"""The liveness probe and handlers that hang."""

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
from tests.harness.clients import client, eventually_status, status
from tests.harness.servers.nats import NatsServer


class Job:
    """A handler that runs until `resume` is set."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.resume = asyncio.Event()

    async def __call__(self, message: str) -> None:
        self.started.set()
        await self.resume.wait()


def broker_target(broker: NatsBroker) -> tuple[BrokerLifespan, Any]:
    return BrokerLifespan(broker), broker


def lifespan_target(broker: NatsBroker) -> tuple[BrokerLifespan, Any]:
    lifespan = BrokerLifespan(broker)
    return lifespan, lifespan


def app_target(broker: NatsBroker) -> tuple[BrokerLifespan, Any]:
    app = AsgiFastStream(broker)
    return app.broker_lifespan, app


def faststream_target(broker: NatsBroker) -> tuple[BrokerLifespan, Any]:
    app = FastStream(broker)
    return BrokerLifespan(app), app


@pytest.mark.parametrize("make", [broker_target, lifespan_target, app_target, faststream_target])
async def test_liveness_fails_while_a_handler_exceeds_its_age(
    nats: NatsServer,
    make: Callable[[NatsBroker], tuple[BrokerLifespan, Any]],
) -> None:
    job = Job()
    broker = NatsBroker(nats.url, logger=None)
    broker.subscriber("jobs")(job.__call__)
    lifespan, target = make(broker)
    live = make_liveness_asgi(target, max_handler_age=0.2)
    with_long_age = make_liveness_asgi(target, max_handler_age=3600.0, details=True)
    async with lifespan:
        await broker.publish("work", "jobs")
        await job.started.wait()
        await eventually_status(live, 503)
        assert await status(with_long_age) == 200
        job.resume.set()
        await eventually_status(live, 200)


async def test_handlers_of_a_broker_that_is_added_before_the_startup_are_monitored(nats: NatsServer) -> None:
    job = Job()
    app = AsgiFastStream(liveness_path="/live", max_handler_age=0.2)
    broker = NatsBroker(nats.url, logger=None)
    router = Router()
    router.subscriber("jobs")(job.__call__)
    broker.include_router(router)
    app.add_broker(broker)
    async with app.broker_lifespan, client(app) as http:
        assert (await http.get("/live")).status_code == 200
        await broker.publish("work", "jobs")
        await job.started.wait()
        async with asyncio.timeout(10):
            while (await http.get("/live")).status_code != 503:
                ...
        job.resume.set()


async def test_a_handler_that_has_failed_no_longer_counts(nats: NatsServer) -> None:
    called = asyncio.Event()
    broker = NatsBroker(nats.url, logger=None)

    @broker.subscriber("jobs")
    async def fail(message: str) -> None:
        called.set()
        raise KeyError

    lifespan = BrokerLifespan(broker)
    live = make_liveness_asgi(lifespan, max_handler_age=0.000001)
    async with lifespan:
        await broker.publish("work", "jobs")
        await called.wait()
        await eventually_status(live, 200)


async def test_liveness_fails_while_a_middleware_hangs(nats: NatsServer) -> None:
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
        job.resume.set()
        await eventually_status(live, 200)


def test_handlers_are_not_monitored_without_a_maximum_age() -> None:
    broker = NatsBroker()
    before = len(broker.config.broker_middlewares)
    make_liveness_asgi(broker)
    assert len(broker.config.broker_middlewares) == before
    make_liveness_asgi(broker, max_handler_age=1.0)
    make_liveness_asgi(broker, max_handler_age=2.0)
    assert len(broker.config.broker_middlewares) == before + 1


@pytest.mark.parametrize("age", [0, -1.0, float("nan")])
def test_an_invalid_maximum_age_is_refused(age: float) -> None:
    with pytest.raises(SetupError, match="max_handler_age must be a number of seconds above 0"):
        make_liveness_asgi(NatsBroker(), max_handler_age=age)


def test_a_maximum_age_without_a_liveness_probe_is_refused() -> None:
    with pytest.raises(SetupError, match="max_handler_age has no effect without liveness_path"):
        AsgiFastStream(NatsBroker(), max_handler_age=1.0)
