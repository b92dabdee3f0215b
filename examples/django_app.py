"""The order service in Django, in one file. Run it with `uvicorn examples.django_app:app`."""
# Django ships no types.
# mypy: disable-error-code="import-untyped"

import os
from decimal import Decimal
from uuid import UUID, uuid4

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseNotFound
from django.urls import path
from django.views.decorators.http import require_GET, require_POST
from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI
from pydantic import BaseModel, PositiveInt, ValidationError

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


async def place_order(request: HttpRequest) -> HttpResponse:
    try:
        new = NewOrder.model_validate_json(request.body)
    except ValidationError as error:
        return HttpResponse(error.json(), "application/json", 422)
    order = Order(**new.model_dump(), id=uuid4())
    await broker.publish(order, "orders.new")
    return HttpResponse(order.model_dump_json(), "application/json", 202)


async def show_order(_: HttpRequest, order_id: UUID) -> HttpResponse:
    if order_id not in finished:
        return HttpResponseNotFound("There is no such order, or it is not finished yet.")
    return HttpResponse(finished[order_id].model_dump_json(), "application/json")


urlpatterns = [
    path("orders", require_POST(place_order)),
    path("orders/<uuid:order_id>", require_GET(show_order)),
]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1", "localhost"])

# Django has no lifespan of its own, so the server starts and stops the broker through the middleware.
app = FastStreamMiddleware(
    get_asgi_application(),
    broker,
    ping_path="/health",
    liveness_path="/livez",
    readiness_path="/readyz",
    startup_path="/startupz",
    asyncapi_path="/asyncapi",
    specification=AsyncAPI(broker, title="Order service", version="1.0.0"),
)
