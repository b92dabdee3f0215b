"""The order service without a web framework. Run it with `uvicorn examples.standalone:app`."""

import os
from decimal import Decimal
from uuid import UUID, uuid4

from faststream.asgi.types import Receive, Scope, Send
from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI
from pydantic import BaseModel, PositiveInt, ValidationError

from faststream_adapters import AsgiFastStream, AsgiResponse, JSONResponse, Request, get, post


class NewOrder(BaseModel):
    item: str
    quantity: PositiveInt
    price: Decimal


class Order(NewOrder):
    id: UUID


class FinishedOrder(Order):
    total: Decimal


broker = NatsBroker(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
finished: dict[str, FinishedOrder] = {}


# Queue group: each order goes to one instance of the service, however many run.
@broker.subscriber("orders.new", queue="order-service")
@broker.publisher("orders.done")
async def process(order: Order) -> FinishedOrder:
    return FinishedOrder(**order.model_dump(), total=order.quantity * order.price)


# No queue group: every instance receives every result, so each one can answer GET requests.
@broker.subscriber("orders.done")
async def store(order: FinishedOrder) -> None:
    finished[str(order.id)] = order


@post
async def place_order(request: Request) -> AsgiResponse:
    try:
        new = NewOrder.model_validate_json(await request.body())
    except ValidationError as error:
        return JSONResponse(error.json().encode(), 422)
    order = Order(**new.model_dump(), id=uuid4())
    await broker.publish(order, "orders.new")
    return JSONResponse(order.model_dump_json().encode(), 202)


@get
async def show_order(scope: Scope) -> AsgiResponse:
    order_id = scope["path"].rpartition("/")[2]
    if order_id not in finished:
        return JSONResponse({"detail": "There is no such order, or it is not finished yet."}, 404)
    return JSONResponse(finished[order_id].model_dump_json().encode())


# A `@get` or `@post` handler serves one path. Any other ASGI app also receives the paths below its own.
async def orders(scope: Scope, receive: Receive, send: Send) -> None:
    handler = place_order if scope["path"].rstrip("/").endswith("/orders") else show_order
    await handler(scope, receive, send)


app = AsgiFastStream(
    broker,
    asgi_routes=[("/orders", orders)],
    ping_path="/health",
    liveness_path="/livez",
    readiness_path="/readyz",
    startup_path="/startupz",
    asyncapi_path="/asyncapi",
    specification=AsyncAPI(title="Order service", version="1.0.0"),
)
