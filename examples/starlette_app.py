"""The order service in Starlette. Run it with `uvicorn examples.starlette_app:app`."""

import os
from decimal import Decimal
from uuid import UUID, uuid4

from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI
from pydantic import BaseModel, PositiveInt, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from faststream_adapters import FastStreamMiddleware


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


async def place_order(request: Request) -> Response:
    try:
        new = NewOrder.model_validate_json(await request.body())
    except ValidationError as error:
        return Response(error.json(), 422, media_type="application/json")
    order = Order(**new.model_dump(), id=uuid4())
    await broker.publish(order, "orders.new")
    return Response(order.model_dump_json(), 202, media_type="application/json")


async def show_order(request: Request) -> Response:
    order_id = request.path_params["order_id"]
    if order_id not in finished:
        raise HTTPException(404, "There is no such order, or it is not finished yet.")
    return Response(finished[order_id].model_dump_json(), media_type="application/json")


# Any ASGI application can take the place of the Starlette one.
app = FastStreamMiddleware(
    Starlette(
        routes=[
            Route("/orders", place_order, methods=["POST"]),
            Route("/orders/{order_id:uuid}", show_order),
        ]
    ),
    broker,
    ping_path="/health",
    liveness_path="/livez",
    readiness_path="/readyz",
    startup_path="/startupz",
    asyncapi_path="/asyncapi",
    specification=AsyncAPI(broker, title="Order service", version="1.0.0"),
)
