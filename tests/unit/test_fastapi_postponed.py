"""FastAPI dependencies in subscribers whose annotations are postponed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import faststream
import pytest
from fastapi import Depends, FastAPI, Request
from faststream import Logger
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker
from faststream.nats.annotations import NatsMessage
from pydantic import BaseModel

from faststream_adapters.fastapi import FastStreamRouter
from tests.harness.fastapi_apps import running

if TYPE_CHECKING:
    from decimal import Decimal


class Order(BaseModel):
    item: str


class Session:
    """What dependencies open."""


class OpenSession:
    """Its instances are dependencies with `yield`."""

    async def __call__(self, message: NatsMessage, request: Request) -> AsyncIterator[Session]:
        yield Session()


open_session = OpenSession()


@dataclass
class Orders:
    session: Annotated[Session, Depends(open_session)]
    message: NatsMessage
    price: Decimal | None = None


class Service:
    """A service with a method of its own."""

    def __init__(self, session: Annotated[Session, Depends(open_session)]) -> None:
        self.session = session


class Handler:
    """Its instances handle messages."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def __call__(
        self,
        order: Order,
        logger: Logger,
        orders: Annotated[Orders, Depends()],
        session: Annotated[Session, Depends(open_session)],
    ) -> None:
        self.seen.append((order, orders.session is session, orders.price))


class PlainHandler:
    """Has no dependencies, and the annotations of an instance all the same."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def __call__(self, order: Order, logger: Logger) -> None:
        self.seen.append(order)


class SyncHandler(PlainHandler):
    def __call__(self, order: Order, logger: Logger) -> None:  # type: ignore[override]
        self.seen.append(order)


async def test_instances_that_handle_messages_and_that_are_dependencies() -> None:
    broker = NatsBroker()
    handler, plain, sync = Handler(), PlainHandler(), SyncHandler()
    for subject, each in (("orders", handler), ("bills", plain), ("sync", sync)):
        broker.subscriber(subject)(each)
    async with running(broker):
        for subject in ("orders", "bills", "sync"):
            await broker.publish({"item": "tea"}, subject)
    assert handler.seen == [(Order(item="tea"), True, None)]
    assert plain.seen == sync.seen == [Order(item="tea")]


async def test_functions_and_classes() -> None:
    broker = NatsBroker()
    seen: list[Any] = []

    @broker.subscriber("orders")
    async def handle(
        order: Order, service: Annotated[Service, Depends(Service)], message: NatsMessage
    ) -> None:
        seen.append((order, type(service.session)))

    async with running(broker):
        await broker.publish({"item": "tea"}, "orders")
    assert seen == [(Order(item="tea"), Session)]


async def test_the_document_has_the_model_of_an_instance() -> None:
    broker = NatsBroker()
    FastStreamRouter(broker)
    broker.subscriber("orders")(Handler())
    document = faststream.AsyncAPI(broker).to_specification().to_jsonable()
    assert "Order" in document["components"]["schemas"]


class Priced:
    """FastStream cannot call its instances."""

    def __call__(self, order: Order) -> str:
        raise NotImplementedError


def call() -> Callable[..., Any]:
    return Priced()


async def test_an_instance_that_faststream_cannot_call_fails_the_start() -> None:
    broker = NatsBroker()

    @broker.subscriber("orders")
    async def handle(order: Order, price: Annotated[str, faststream.Depends(call())]) -> None:
        raise NotImplementedError

    app = FastAPI()
    app.include_router(FastStreamRouter(broker))
    with pytest.raises(
        SetupError, match=r"'order' of the dependency .*Priced object.* of the subscriber 'handle'"
    ):
        async with app.router.lifespan_context(app):
            pytest.fail("The application has started.")
