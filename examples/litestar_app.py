"""The order service in Litestar. Run it with `uvicorn examples.litestar_app:app`."""

import os
from decimal import Decimal
from uuid import UUID, uuid4

from faststream.nats import NatsBroker
from litestar import Litestar, get, post
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.params import FromPath, JSONBody
from pydantic import BaseModel, PositiveInt

from faststream_adapters.litestar import FastStreamPlugin


class NewOrder(BaseModel):
    item: str
    quantity: PositiveInt
    price: Decimal


class Order(NewOrder):
    id: UUID


class FinishedOrder(Order):
    total: Decimal


broker = NatsBroker(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
finished: dict[UUID, FinishedOrder] = {}


# Queue group: each order goes to one instance of the service, however many run.
@broker.subscriber("orders.new", queue="order-service")
@broker.publisher("orders.done")
async def process(order: Order) -> FinishedOrder:
    return FinishedOrder(**order.model_dump(), total=order.quantity * order.price)


# No queue group: every instance receives every result, so each one can answer GET requests.
@broker.subscriber("orders.done")
async def store(order: FinishedOrder) -> None:
    finished[order.id] = order


# The plugin provides the dependency named `broker`.
@post("/orders", status_code=202)
async def place_order(data: JSONBody[NewOrder], broker: NamedDependency[NatsBroker]) -> Order:
    order = Order(**data.model_dump(), id=uuid4())
    await broker.publish(order, "orders.new")
    return order


@get("/orders/{order_id:uuid}")
async def show_order(order_id: FromPath[UUID]) -> FinishedOrder:
    if order_id not in finished:
        raise NotFoundException("There is no such order, or it is not finished yet.")
    return finished[order_id]


app = Litestar(
    [place_order, show_order],
    openapi_config=OpenAPIConfig("Order service", "1.0.0"),
    plugins=[
        FastStreamPlugin(
            broker,
            ping_path="/health",
            liveness_path="/livez",
            readiness_path="/readyz",
            startup_path="/startupz",
            asyncapi_path="/asyncapi",
        )
    ],
)
