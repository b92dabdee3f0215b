"""A small service with two brokers, in the hosts that the browser visits.

uvicorn runs it in separate processes. Environment variables configure it: `NATS_URL`, `SERVICE_HOST` (a name
in `APPS`), `SERVICE_TEXTS` (a name in `TEXTS`), `SERVICE_VERSION` (of AsyncAPI), `SERVICE_PAGE` (JSON:
keywords of the page), `SERVICE_SUBSCRIBERS` (the number of further subscribers) and `SERVICE_WITHOUT` (a
library whose import fails).
"""

import json
import os
import sys
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from enum import Enum
from types import GenericAlias
from typing import Any, Literal, NamedTuple
from uuid import UUID

from faststream.asgi.types import ASGIApp
from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI, Tag
from pydantic import BaseModel, ConfigDict, Field, create_model

from faststream_adapters import AsyncAPIRoute, BrokerLifespan, make_asyncapi_asgi
from tests.harness.hosts import HOSTS


class Texts(NamedTuple):
    """Texts of a service that its author can choose freely."""

    title: str
    description: str
    field: str
    example: str
    link: str


PLAIN = Texts(
    title="Order service",
    description="Takes orders and notifies the **warehouse**.\n\n- one\n- two\n\nSee [the wiki](https://wiki.example).",
    field="customer_note",
    example="no sugar, please",
    link="https://wiki.example",
)
# If one of these is executed, it sets `window.pwned` or sends a request to another server.
_RUN = "window.pwned=true"
HOSTILE = Texts(
    title=f"</title><script>{_RUN}</script>\"'`><svg/onload={_RUN}>",
    description="\n\n".join(
        (
            f"</script><script>{_RUN}</script> <img src=x onerror={_RUN}>",
            f"[link](javascript:{_RUN}) [odd](java\tscript:{_RUN}) <javascript:{_RUN}>",
            f"[data](data:text/html,<script>{_RUN}</script>) \u2028 \u2029 ]]> -->",
            f"{{{{constructor.constructor('{_RUN}')()}}}} ${{{_RUN}}}",
            f"<iframe srcdoc='<script>parent.{_RUN}</script>'></iframe>",
            "<style>@import 'https://evil.example/x.css'</style>",
        )
    ),
    field=f"<img src=x onerror={_RUN}>",
    example=f"</script><script>{_RUN}</script>\u2028",
    link=f" Java\nScript:{_RUN}",
)
# Loading an image from another server reveals the reader of the page to that server.
TRACKING = PLAIN._replace(description="![picture](https://tracker.example/pixel.png)")
TEXTS = {"plain": PLAIN, "hostile": HOSTILE, "tracking": TRACKING}
CREDENTIALS = ("shipper", "s3cret")


class Line(BaseModel):
    sku: str = Field(min_length=3, max_length=12, description="Which article")
    quantity: int = Field(1, ge=1)


class Receipt(BaseModel):
    order_id: int
    total_in_cents: int


class Address(BaseModel):
    """Where to send it."""

    street: str = Field(description="With the number")
    city: str = Field("Utrecht", max_length=40)
    country: Literal["nl", "be", "de"] = "nl"


class Parcel(BaseModel):
    """A model of ordinary size, which the further subscribers receive."""

    parcel_id: UUID
    sender: Address
    receiver: Address | None = None
    price: Decimal = Field(ge=0)
    weight: float | None = Field(None, gt=0, description="In kilograms")
    barcode: str = Field(pattern=r"^[A-Z]{2}-\d{8}$")
    sent_at: datetime | None = None
    labels: dict[str, str] = {}


class Shipment(BaseModel):
    tracking_code: str
    carrier: Literal["bike", "truck"] = "bike"


class Kind(Enum):
    MARKUP = HOSTILE.example
    LINK = f"[x](javascript:{_RUN})"


def hostile_model(texts: Texts) -> Any:
    """Return a model whose name, title, description, default and examples are these texts."""
    config = ConfigDict(
        title=texts.title,
        json_schema_extra={"examples": [{texts.field: texts.example}], "format": texts.title},
    )
    fields: dict[str, Any] = {
        "value": (Literal[texts.example, f"`{texts.title}"], texts.example),
        "kind": (Kind, Kind.LINK),
    }
    name = f"{texts.field}](javascript:{_RUN})"
    return create_model(name, __config__=config, __doc__=texts.description, **fields)


def brokers(texts: Texts) -> tuple[NatsBroker, NatsBroker]:
    """Return a broker for orders and one for shipping, which has credentials in its URL."""
    url = os.environ["NATS_URL"]
    orders = NatsBroker(url, description=f"The shop. {texts.description}", tags=[Tag(name=texts.field)])
    shipping = NatsBroker(
        url,
        specification_url=f"nats://{':'.join(CREDENTIALS)}@shipping.example:4222",
        description="The warehouse",
    )
    fields: dict[str, Any] = {
        "order_id": (int, Field(description=texts.description)),
        "lines": (list[Line], Field(default_factory=list)),
        "payment": (Literal["card", "invoice"], "card"),
        texts.field: (str | None, Field(None, examples=[texts.example])),
    }
    if texts is HOSTILE:
        # Everything else that the author of a model can write, and that ends on the page.
        nested = hostile_model(texts)
        fields["nested"] = (nested | None, Field(None, description=texts.description))
        fields["choice"] = (Kind | nested | GenericAlias(list, nested), ...)
    order: Any = create_model("Order", **fields)

    @orders.subscriber("orders.created", queue="order-service", description=texts.description)
    @orders.publisher("orders.paid", title=f"Paid {texts.title}", description="Every order that was paid")
    async def take_order(message: order) -> Receipt:
        """Take an order."""
        raise NotImplementedError

    @shipping.subscriber("shipments.eu.*.requested.for.a.warehouse.with.a.rather.long.name")
    async def ship(message: Shipment) -> None:
        """Ship it."""
        raise NotImplementedError

    for number in range(int(os.environ.get("SERVICE_SUBSCRIBERS", "0"))):
        # Each with a model of its own, as in a real service.
        parcel: Any = create_model(f"Parcel{number}", __base__=Parcel, __doc__=Parcel.__doc__)

        @shipping.subscriber(f"parcels.region-{number}.sent", description=f"Parcels of region {number}")
        async def receive(message: parcel) -> None:
            raise NotImplementedError

    return orders, shipping


def specification(texts: Texts, *documented: NatsBroker) -> AsyncAPI:
    """Return the specification of these brokers."""
    return AsyncAPI(
        *documented,
        title=texts.title,
        version="1.2.3",
        schema_version=os.environ.get("SERVICE_VERSION", "3.0.0"),
        description=texts.description,
        # FastStream does not validate a mapping that has an extension member.
        contact={"name": texts.title, "url": texts.link, "x-own": True},
        license={"name": texts.title, "url": texts.link, "x-own": True},
        external_docs={"description": texts.title, "url": texts.link, "x-own": True},
        tags=[Tag(name=texts.field, description=texts.description)],
    )


def _hosted(name: str) -> Callable[[Any, Any, AsyncAPIRoute], ASGIApp]:
    def build(documented: Any, both: Any, route: AsyncAPIRoute) -> ASGIApp:
        return HOSTS[name].build(*both, asyncapi_path=route, specification=documented)

    return build


def _mounted(documented: Any, both: Any, route: AsyncAPIRoute) -> ASGIApp:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    inner = Starlette(routes=[Mount(route.path, make_asyncapi_asgi(documented, **route.page))])
    return Starlette(routes=[Mount("/deep/below", inner)], lifespan=BrokerLifespan(*both))


class App(NamedTuple):
    """A host of the service: the path of its AsyncAPI page and its factory."""

    page: str
    build: Callable[[Any, Any, AsyncAPIRoute], ASGIApp]


APPS = {
    **{name: App("/asyncapi", _hosted(name)) for name in HOSTS},
    "trailing-slash": App("/asyncapi/", _hosted("starlette")),
    "starlette-mount": App("/deep/below/asyncapi/", _mounted),
}


def create() -> ASGIApp:
    """Return the application that the environment variables describe."""
    if missing := os.environ.get("SERVICE_WITHOUT"):
        sys.modules[missing] = None  # type: ignore[assignment]  # None makes the import fail
    texts = TEXTS[os.environ.get("SERVICE_TEXTS", "plain")]
    both = brokers(texts)
    page = json.loads(os.environ.get("SERVICE_PAGE", "{}"))
    app = APPS[os.environ.get("SERVICE_HOST", "standalone")]
    return app.build(specification(texts, *both), both, AsyncAPIRoute("/asyncapi", **page))
