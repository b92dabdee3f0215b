"""The order service in FastAPI. Run it with `uvicorn examples.fastapi_app:app`."""

import os
from decimal import Decimal
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI, HTTPException
from faststream.nats import NatsBroker
from pydantic import BaseModel, PositiveInt

from faststream_adapters.fastapi import FastStreamRouter, provide_broker


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

app = FastAPI(title="Order service", version="1.0.0")
app.include_router(
    FastStreamRouter(
        broker,
        ping_path="/health",
        liveness_path="/livez",
        readiness_path="/readyz",
        startup_path="/startupz",
        asyncapi_path="/asyncapi",
    )
)

# A route gets the broker by this annotation.
Broker = Annotated[NatsBroker, Depends(provide_broker(NatsBroker))]


# Queue group: each order goes to one instance of the service, however many run.
@broker.subscriber("orders.new", queue="order-service")
@broker.publisher("orders.done")
async def process(order: Order) -> FinishedOrder:
    return FinishedOrder(**order.model_dump(), total=order.quantity * order.price)


# No queue group: every instance receives every result, so each one can answer GET requests.
@broker.subscriber("orders.done")
async def store(order: FinishedOrder) -> None:
    finished[order.id] = order


@app.post("/orders", status_code=202)
async def place_order(new: NewOrder, broker: Broker) -> Order:
    order = Order(**new.model_dump(), id=uuid4())
    await broker.publish(order, "orders.new")
    return order


@app.get("/orders/{order_id}")
async def show_order(order_id: UUID) -> FinishedOrder:
    if order_id not in finished:
        raise HTTPException(404, "There is no such order, or it is not finished yet.")
    return finished[order_id]
