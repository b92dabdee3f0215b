"""dishka's `inject` on subscribers of FastStreamRouter."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import faststream
import pytest
from dishka import AsyncContainer, FromDishka, Provider, Scope, make_async_container
from dishka_faststream import inject, setup_dishka
from fastapi import Depends, FastAPI
from faststream.nats import NatsBroker, TestNatsBroker

from faststream_adapters.fastapi import FastStreamRouter


class Prices:
    """A service that dishka makes."""


async def session() -> AsyncIterator[str]:
    yield "session"


@pytest.fixture
async def container() -> AsyncIterator[AsyncContainer]:
    provider = Provider(scope=Scope.REQUEST)
    provider.provide(Prices)
    container = make_async_container(provider)
    yield container
    await container.close()


@asynccontextmanager
async def running(broker: NatsBroker, app: FastAPI) -> AsyncIterator[None]:
    async with TestNatsBroker(broker), app.router.lifespan_context(app):
        yield


def explicitly(broker: NatsBroker, container: AsyncContainer, app: FastAPI) -> Callable[..., Any]:
    app.include_router(FastStreamRouter(broker))
    setup_dishka(container, broker=broker)
    return inject


def before_the_router(broker: NatsBroker, container: AsyncContainer, app: FastAPI) -> Callable[..., Any]:
    setup_dishka(container, broker=broker, auto_inject=True)
    app.include_router(FastStreamRouter(broker))
    return lambda handler: handler


def after_the_router(broker: NatsBroker, container: AsyncContainer, app: FastAPI) -> Callable[..., Any]:
    app.include_router(FastStreamRouter(broker))
    setup_dishka(container, broker=broker, auto_inject=True)
    return lambda handler: handler


@pytest.mark.parametrize("set_up", [explicitly, before_the_router, after_the_router])
@pytest.mark.parametrize("with_fastapi", [True, False])
async def test_a_subscriber_gets_what_dishka_provides(
    container: AsyncContainer, set_up: Callable[..., Any], with_fastapi: bool
) -> None:
    broker, app = NatsBroker(), FastAPI()
    decorate = set_up(broker, container, app)
    seen: list[Any] = []

    async def both(
        item: str,
        prices: FromDishka[Prices],
        session: Annotated[str, Depends(session)],
        logger: faststream.Logger,
    ) -> None:
        seen.append((item, type(prices), session))

    async def dishka_only(item: str, prices: FromDishka[Prices]) -> None:
        seen.append((item, type(prices), "session"))

    broker.subscriber("orders")(decorate(both if with_fastapi else dishka_only))
    async with running(broker, app):
        await broker.publish("tea", "orders")
    assert seen == [("tea", Prices, "session")]
