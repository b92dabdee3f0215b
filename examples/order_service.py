"""An order service on NATS: HTTP takes an order, a subscriber processes it, HTTP shows the result.

Run it with `uvicorn examples.order_service:app`.
"""

import os
from decimal import Decimal
from uuid import UUID, uuid4

from fastapi import FastAPI, HTTPException
from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI
from pydantic import BaseModel, PositiveInt

from faststream_adapters import (
    BrokerLifespan,
    make_asyncapi_asgi,
    make_liveness_asgi,
    make_ping_asgi,
    make_readiness_asgi,
    make_startup_asgi,
)


class NewOrder(BaseModel):
    item: str
    quantity: PositiveInt
    price: Decimal


class Order(NewOrder):
    id: UUID


class FinishedOrder(Order):
    total: Decimal


broker = NatsBroker(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
lifespan = BrokerLifespan(broker)
app = FastAPI(title="Order service", lifespan=lifespan)
finished: dict[UUID, FinishedOrder] = {}


# The queue group: however many instances of this service run, one of them gets the order.
@broker.subscriber("orders.new", queue="order-service")
@broker.publisher("orders.done")
async def process(order: Order) -> FinishedOrder:
    return FinishedOrder(**order.model_dump(), total=order.quantity * order.price)


# No queue group: every instance gets every result, so that each of them can answer GET.
@broker.subscriber("orders.done")
async def store(order: FinishedOrder) -> None:
    finished[order.id] = order


@app.post("/orders", status_code=202)
async def place_order(new: NewOrder) -> Order:
    order = Order(**new.model_dump(), id=uuid4())
    await broker.publish(order, "orders.new")
    return order


@app.get("/orders/{order_id}")
async def show_order(order_id: UUID) -> FinishedOrder:
    if order_id not in finished:
        raise HTTPException(404, "There is no such order, or it is not finished yet.")
    return finished[order_id]


app.mount("/health", make_ping_asgi(lifespan))
app.mount("/livez", make_liveness_asgi(lifespan))
app.mount("/readyz", make_readiness_asgi(lifespan))
app.mount("/startupz", make_startup_asgi(lifespan))
app.mount("/asyncapi", make_asyncapi_asgi(AsyncAPI(broker, title="Order service", version="1.0.0")))
