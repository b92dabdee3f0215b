"""The stand-in for FastStream's FastAPI plugin, with the server of each client."""

import asyncio
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request

from faststream_adapters._utils.errors import BrokerStartError
from tests.harness.brokers import HARNESSES
from tests.harness.brokers.shared import shared_server
from tests.harness.plugins import CLIENTS, STAND_IN, app_with, client_of, load_plugin, router_class


@pytest.mark.parametrize(
    "client",
    [name if HARNESSES[name].starts_fast else pytest.param(name, marks=pytest.mark.full) for name in CLIENTS],
)
async def test_a_request_publishes_and_a_subscriber_handles_it(client: str) -> None:
    server = shared_server(HARNESSES[client])
    router = router_class(load_plugin(STAND_IN, client), client)(server.url, readiness_path="/readyz")
    offset = {"auto_offset_reset": "earliest"} if "Kafka" in type(router).__name__ else {}
    handled: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def price() -> int:
        return 3

    async def handle(item: str, price: Annotated[int, Depends(price)], request: Request) -> None:
        handled.set_result((item, price, request.app.title))

    router.subscriber(f"plugin-{client}", **offset)(handle)

    async def place(item: str, request: Request) -> None:
        await request.state.broker.publish({"item": item}, f"plugin-{client}")

    router.post("/orders/{item}")(place)
    async with client_of(app_with(router, title="Shop")) as http:
        assert (await http.get("/readyz")).status_code == 200
        assert (await http.post("/orders/tea")).status_code == 200
        async with asyncio.timeout(20):
            assert await handled == ("tea", 3, "Shop")


async def test_the_start_waits_for_the_server_but_not_forever() -> None:
    nats_router = load_plugin(STAND_IN).NatsRouter
    assert nats_router().broker_lifespan.startup_timeout == 120.0
    router = nats_router("nats://127.0.0.1:1", startup_timeout=0.2)
    with pytest.raises(BrokerStartError):
        async with router.lifespan_context(FastAPI()):
            pytest.fail("The application has started.")
