"""`Context`, `Logger` and `Message` of the FastAPI adapter, in routes and subscribers alike."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from faststream.exceptions import SetupError
from faststream.kafka import KafkaBroker, TestKafkaBroker
from faststream.nats import NatsBroker, TestNatsBroker

from faststream_adapters.fastapi import BrokerNotProvidedError, Context, FastStreamRouter, Logger, Message


class Service:
    """A dependency of routes and of subscribers."""

    def __init__(
        self,
        broker: Annotated[NatsBroker, Context("broker")],
        logger: Logger,
        host: FastAPI = Context("host"),  # noqa: B008 (FastStream's other style)
        limit: Annotated[int, Context("limit", default=3)] = 4,
    ) -> None:
        self.values = broker, logger, host, limit


@pytest.fixture
def broker() -> NatsBroker:
    return NatsBroker()


@pytest.fixture
def app() -> FastAPI:
    return FastAPI()


@asynccontextmanager
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def test_a_service_works_in_routes_and_subscribers(broker: NatsBroker, app: FastAPI) -> None:
    seen: list[Any] = []

    @broker.subscriber("orders")
    async def handle(item: str, message: Message, service: Annotated[Service, Depends()]) -> None:
        seen.append(service.values)
        assert await message.decode() == item

    @broker.subscriber("direct")
    async def direct(
        item: str,
        broker: Annotated[NatsBroker, Context()],
        logger: Logger,
        host: Annotated[FastAPI, Context("host")],
        limit: Annotated[int, Context("limit", default=3)],
    ) -> None:
        seen.append((broker, logger, host, limit))

    @app.get("/")
    async def route(service: Annotated[Service, Depends()]) -> None:
        seen.append(service.values)

    app.include_router(FastStreamRouter(broker))
    async with TestNatsBroker(broker), app.router.lifespan_context(app), client(app) as http:
        await broker.publish("tea", "orders")
        await broker.publish("tea", "direct")
        assert (await http.get("/")).status_code == 200
        assert "limit" not in (await http.get("/openapi.json")).text
    first, second, third = seen
    assert first == second == third
    assert first[0] is broker
    assert first[2:] == (app, 3)


async def test_a_route_gets_the_logger_of_a_real_broker(app: FastAPI) -> None:
    own = logging.getLogger("own")
    broker = NatsBroker(logger=own)
    seen: list[Any] = []

    @app.get("/")
    async def route(logger: Logger) -> None:
        seen.append(logger)

    app.include_router(FastStreamRouter(broker))
    async with TestNatsBroker(broker), app.router.lifespan_context(app), client(app) as http:
        await http.get("/")
    assert len(seen) == 1


async def test_a_route_has_no_message(broker: NatsBroker, app: FastAPI) -> None:
    @app.get("/message")
    async def message(message: Message) -> None:
        raise NotImplementedError

    @app.get("/nameless")
    async def nameless(broker: Annotated[NatsBroker, Context()]) -> None:
        raise NotImplementedError

    @app.get("/unknown")
    async def unknown(value: Annotated[NatsBroker, Context("unknown")]) -> None:
        raise NotImplementedError

    app.include_router(FastStreamRouter(broker))
    async with TestNatsBroker(broker), app.router.lifespan_context(app), client(app) as http:
        with pytest.raises(SetupError, match="only subscribers have a message"):
            await http.get("/message")
        with pytest.raises(SetupError, match="a route needs a name"):
            await http.get("/nameless")
        with pytest.raises(SetupError, match=r"Context\('unknown'\), but the context has no such value"):
            await http.get("/unknown")


async def test_a_route_needs_a_running_broker(broker: NatsBroker, app: FastAPI) -> None:
    @app.get("/")
    async def route(broker: Annotated[NatsBroker, Context("broker")]) -> None:
        raise NotImplementedError

    app.include_router(FastStreamRouter(broker))
    async with client(app) as http:
        with pytest.raises(BrokerNotProvidedError, match="runs no broker"):
            await http.get("/")


async def test_several_brokers_have_one_logger_and_one_host(broker: NatsBroker, app: FastAPI) -> None:
    kafka = KafkaBroker()

    @app.get("/")
    async def route(logger: Logger, host: Annotated[FastAPI, Context("host")]) -> bool:
        return host is app and logger is not None

    @app.get("/broker")
    async def ambiguous(broker: Annotated[Any, Context("broker")]) -> None:
        raise NotImplementedError

    app.include_router(FastStreamRouter(broker, kafka))
    async with (
        TestNatsBroker(broker),
        TestKafkaBroker(kafka),
        app.router.lifespan_context(app),
        client(app) as http,
    ):
        assert (await http.get("/")).json() is True
        with pytest.raises(BrokerNotProvidedError, match="differs between"):
            await http.get("/broker")
