"""The order service in Quart. Run it with `uvicorn examples.quart_app:app`."""

import os
from decimal import Decimal
from uuid import UUID, uuid4

from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI
from pydantic import BaseModel, PositiveInt, ValidationError
from quart import Quart, Response, abort, request

from faststream_adapters.quart import QuartFastStream


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

app = Quart(__name__)
QuartFastStream(
    broker,
    app=app,
    ping_path="/health",
    liveness_path="/livez",
    readiness_path="/readyz",
    startup_path="/startupz",
    asyncapi_path="/asyncapi",
    specification=AsyncAPI(broker, title="Order service", version="1.0.0"),
)


# Queue group: each order goes to one instance of the service, however many run.
@broker.subscriber("orders.new", queue="order-service")
@broker.publisher("orders.done")
async def process(order: Order) -> FinishedOrder:
    return FinishedOrder(**order.model_dump(), total=order.quantity * order.price)


# No queue group: every instance receives every result, so each one can answer GET requests.
@broker.subscriber("orders.done")
async def store(order: FinishedOrder) -> None:
    finished[order.id] = order


@app.post("/orders")
async def place_order() -> Response:
    new = NewOrder.model_validate_json(await request.get_data())
    order = Order(**new.model_dump(), id=uuid4())
    await broker.publish(order, "orders.new")
    return Response(order.model_dump_json(), 202, mimetype="application/json")


@app.get("/orders/<uuid:order_id>")
async def show_order(order_id: UUID) -> Response:
    if order_id not in finished:
        abort(404, "There is no such order, or it is not finished yet.")
    return Response(finished[order_id].model_dump_json(), mimetype="application/json")


@app.errorhandler(ValidationError)
async def invalid(error: ValidationError) -> Response:
    return Response(error.json(), 422, mimetype="application/json")
