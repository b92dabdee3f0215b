"""FastAPI applications whose memory is compared, with the NATS server at `SERVICE_URL` in the environment.

The first one does not import this package: its modules are part of the memory that it needs.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from faststream.nats import NatsBroker
from pydantic import BaseModel

PAGES = (
    *("/ping", "/livez", "/readyz", "/startupz", "/metrics"),
    *("/status", "/status.json", "/asyncapi", "/asyncapi.json", "/publish"),
)
"""The endpoints of `everything`."""


class Order(BaseModel):
    """What the subscriber receives."""

    number: int
    customer: str


async def _handle(order: Order) -> None:
    pass


def plain() -> FastAPI:
    """Return an application that runs a broker in its lifespan, with FastStream alone."""
    broker = NatsBroker(os.environ["SERVICE_URL"], logger=None)
    broker.subscriber("orders")(_handle)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await broker.start()
        yield
        await broker.stop()

    async def ready() -> str:
        return "ok"

    app = FastAPI(lifespan=lifespan)
    app.add_api_route("/readyz", ready)
    return app


def everything() -> FastAPI:
    """Return the same application with this package: with every endpoint, a check and a host dependency."""
    from faststream_adapters import HealthCheck
    from faststream_adapters.fastapi import FastStreamRouter

    async def dependency() -> int:
        return 1

    async def handle(order: Order, value: Annotated[int, Depends(dependency)]) -> None:
        pass

    async def check() -> bool:
        return True

    def ignore(*_: Any) -> None:
        pass

    broker = NatsBroker(os.environ["SERVICE_URL"], logger=None)
    broker.subscriber("orders")(handle)
    app = FastAPI()
    router = FastStreamRouter(
        broker,
        ping_path="/ping",
        liveness_path="/livez",
        readiness_path="/readyz",
        startup_path="/startupz",
        metrics_path="/metrics",
        status_path="/status",
        asyncapi_path="/asyncapi",
        publish_path="/publish",
        authorize=lambda _: True,
        probe_details=True,
        checks=[HealthCheck("database", check)],
        on_state_change=ignore,
        on_health_change=ignore,
    )
    app.include_router(router)
    return app
