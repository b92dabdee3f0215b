"""The order service of deployment.yaml. Run it here with `NATS_URL=nats://… uvicorn main:app`."""

import os

from faststream.nats import NatsBroker
from pydantic import BaseModel, PositiveInt, ValidationError

from faststream_adapters import AsgiFastStream, AsgiResponse, JSONResponse, Request, post


class Order(BaseModel):
    item: str
    quantity: PositiveInt


broker = NatsBroker(os.environ["NATS_URL"])


# A durable consumer of JetStream: each order goes to one replica, and waits while there is none.
@broker.subscriber("orders.new", stream="orders", durable="order-service", pull_sub=True)
async def process(order: Order) -> None:
    print(f"{order.quantity} of {order.item}", flush=True)


@post
async def place_order(request: Request) -> AsgiResponse:
    try:
        order = Order.model_validate_json(await request.body())
    except ValidationError as error:
        return JSONResponse(error.json().encode(), 422)
    await broker.publish(order, "orders.new", stream="orders")
    return AsgiResponse(status_code=202)


app = AsgiFastStream(
    broker,
    asgi_routes=[("/orders", place_order)],
    management_bind="0.0.0.0:8081",
    liveness_path="/livez",
    readiness_path="/readyz",
    startup_path="/startupz",
    metrics_path="/metrics",
    # For people, as with `kubectl port-forward`.
    probe_details=True,
)
