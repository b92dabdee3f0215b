"""A service without a web framework. Run it with `uvicorn examples.standalone:app`."""

import os
from collections import Counter
from typing import Annotated

from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI
from pydantic import BaseModel, PositiveInt

from faststream_adapters import AsgiFastStream, JSONResponse, Query, get


class Order(BaseModel):
    item: str
    quantity: PositiveInt


broker = NatsBroker(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
sold: Counter[str] = Counter()


@broker.subscriber("orders.new")
async def count(order: Order) -> None:
    sold[order.item] += order.quantity


@get
async def show_sold(item: Annotated[list[str], Query()]) -> JSONResponse:
    """How many were sold of each item that the URL asks for: `/sold?item=tea&item=coffee`."""
    return JSONResponse({name: sold[name] for name in item})


app = AsgiFastStream(
    broker,
    specification=AsyncAPI(title="Sales", version="1.0.0"),
    asgi_routes=[("/sold", show_sold)],
    ping_path="/health",
    liveness_path="/livez",
    readiness_path="/readyz",
    startup_path="/startupz",
    asyncapi_path="/docs",
)
