"""`in_memory` and `app_client` run any application without a server, and leave nothing behind."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from faststream import FastStream
from faststream.nats import NatsBroker, TestNatsBroker
from litestar.testing import TestClient as LitestarClient
from starlette.testclient import TestClient

from faststream_adapters import AsgiFastStream, BrokerLifespan, BrokerNotUpError, FastStreamMiddleware
from faststream_adapters.fastapi import FastStreamRouter, provide_broker
from faststream_adapters.testing import app_client, in_memory
from tests.harness.brokers import HARNESSES
from tests.harness.hosts import HOSTS, HostApp
from tests.harness.leftovers import Held

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.brokers import BrokerHarness
    from tests.harness.hosts import Host

NOWHERE = "nats://127.0.0.1:1"


@pytest.fixture
def broker() -> NatsBroker:
    return NatsBroker(NOWHERE)


def collect(broker: NatsBroker) -> list[str]:
    """Subscribe to `orders`, and return the list of the messages that are handled."""
    handled: list[str] = []

    @broker.subscriber("orders")
    async def process(item: str) -> None:
        handled.append(item)

    return handled


# --- every broker, every host ---


@pytest.mark.parametrize("harness", HARNESSES.values(), ids=list(HARNESSES))
async def test_every_broker_runs_in_memory_again_and_again(harness: BrokerHarness) -> None:
    broker: Any = harness.broker(harness.unreachable_url())
    handled: list[int] = []

    async def handle(number: int) -> None:
        handled.append(number)

    harness.subscribe(broker, "numbers", handle)
    publisher = broker.publisher("numbers")
    lifespan = BrokerLifespan(broker)
    for run in range(2):
        before = Held.now()
        with in_memory():
            async with lifespan():
                await harness.publish(broker, 10 * run, "numbers")
                await publisher.publish(10 * run + 1)
                await lifespan.idle(10.0)
                assert not Held.now().without(before)
        with pytest.raises(BrokerNotUpError):
            await harness.publish(broker, 99, "numbers")
    assert handled == [0, 1, 10, 11]


@pytest.mark.parametrize("host", HOSTS.values(), ids=list(HOSTS))
async def test_every_host_runs_in_memory(host: Host, broker: NatsBroker) -> None:
    handled, events = collect(broker), list[str]()
    host_app = HostApp(
        on_startup=lambda: events.append("up"),
        on_shutdown=lambda: events.append("down"),
        state={"greeting": "hi"} if host.state else {},
    )
    app = host.build(broker, host_app=host_app, readiness_path="/ready", drain_delay=20.0)
    async with asyncio.timeout(20.0), app_client(app) as client:
        assert (await client.get("/ready")).text == "ok"
        assert (await client.get("/hello")).text == "hello"
        if host.state:
            assert (await client.get("/state")).text == "hi"
        await broker.publish("tea", "orders")
        assert handled == ["tea"]
        assert events == (["up"] if host.resources else [])
    assert events == (["up", "down"] if host.resources else [])


@pytest.mark.parametrize("host", HOSTS.values(), ids=list(HOSTS))
def test_plain_asyncio_runs_an_application_more_than_once(host: Host, broker: NatsBroker) -> None:
    handled = collect(broker)
    app = host.build(broker)

    async def run(item: str) -> None:
        async with app_client(app) as client:
            assert (await client.get("/hello")).status_code == 200
            await broker.publish(item, "orders")

    for item in ("tea", "milk"):
        asyncio.run(run(item))
    assert handled == ["tea", "milk"]


@pytest.mark.parametrize(
    ("name", "client"),
    [
        ("fastapi", TestClient),
        ("starlette", TestClient),
        ("standalone", TestClient),
        ("litestar", LitestarClient),
    ],
)
def test_synchronous_clients_run_in_memory(name: str, client: Any, broker: NatsBroker) -> None:
    handled = collect(broker)

    async def publish() -> str:
        await broker.publish("tea", "orders")
        return "published"

    app = HOSTS[name].build(broker, host_app=HostApp(hello=publish), readiness_path="/ready")
    with in_memory(), client(app) as http:
        assert http.get("/ready").text == "ok"
        assert http.get("/hello").text == "published"
    assert handled == ["tea"]


def test_websockets_run_in_memory(broker: NatsBroker) -> None:
    handled, app = collect(broker), FastAPI()
    app.include_router(FastStreamRouter(broker))

    @app.websocket("/orders")
    async def take_orders(
        socket: WebSocket, orders: Annotated[NatsBroker, Depends(provide_broker(NatsBroker))]
    ) -> None:
        await socket.accept()
        async for item in socket.iter_text():
            await orders.publish(item, "orders")
            await socket.send_json(handled)

    with in_memory(), TestClient(app) as client, client.websocket_connect("/orders") as socket:
        socket.send_text("tea")
        assert socket.receive_json() == ["tea"]


# --- in_memory ---


async def test_the_mocks_of_handlers_see_their_messages(broker: NatsBroker) -> None:
    @broker.subscriber("orders")
    @broker.publisher("done")
    async def process(item: str) -> str:
        return item.upper()

    async with app_client(AsgiFastStream(broker)):
        await broker.publish("tea", "orders")
        process.mock.assert_called_once_with("tea")


async def test_several_lifespans_share_a_broker_in_memory(broker: NatsBroker) -> None:
    handled = collect(broker)
    with in_memory():
        async with BrokerLifespan(broker)():
            async with BrokerLifespan(broker)():
                await broker.publish("tea", "orders")
            await broker.publish("milk", "orders")
    assert handled == ["tea", "milk"]


async def test_brokers_that_a_hook_adds_run_in_memory(broker: NatsBroker) -> None:
    handled, stream = collect(broker), FastStream()
    stream.on_startup(lambda: stream.add_broker(broker))
    async with app_client(
        stream.as_asgi() if isinstance(stream, AsgiFastStream) else AsgiFastStream.from_app(stream)
    ):
        await broker.publish("tea", "orders")
    assert handled == ["tea"]


async def test_a_test_broker_around_the_lifespan_is_used(broker: NatsBroker) -> None:
    handled = collect(broker)
    async with TestNatsBroker(broker, connect_only=False):
        async with app_client(AsgiFastStream(broker)):
            await broker.publish("tea", "orders")
        await broker.publish("milk", "orders")
    assert handled == ["tea", "milk"]


# --- app_client ---


def price() -> int:
    raise NotImplementedError


def priced_app(broker: NatsBroker, **options: Any) -> FastAPI:
    app = FastAPI(**options)
    app.include_router(FastStreamRouter(broker))

    @app.get("/price")
    async def show(price: Annotated[int, Depends(price)]) -> int:
        return price

    return app


@pytest.mark.parametrize("wrapped", [False, True])
async def test_overrides_apply_until_the_end(broker: NatsBroker, wrapped: bool) -> None:
    app: Any = priced_app(broker)
    app.dependency_overrides[price] = lambda: 4
    inside = FastStreamMiddleware(app, NatsBroker(NOWHERE)) if wrapped else app
    async with app_client(inside, overrides={price: lambda: 5}) as client:
        assert (await client.get("/price")).json() == 5
    async with app_client(inside) as client:
        assert (await client.get("/price")).json() == 4
    assert list(app.dependency_overrides) == [price]


@pytest.mark.parametrize("name", [name for name in HOSTS if name != "fastapi"])
async def test_overrides_are_refused_elsewhere(name: str, broker: NatsBroker) -> None:
    host = HOSTS[name]
    with pytest.raises(TypeError, match="of FastAPI, but the application is a"):
        async with app_client(host.build(broker), overrides={price: lambda: 5}):
            raise AssertionError


async def test_a_failed_start_raises_and_leaves_nothing_behind(broker: NatsBroker) -> None:
    @asynccontextmanager
    async def fail(_: FastAPI) -> AsyncIterator[None]:
        await connect_database()
        yield  # pragma: no cover (the start has failed)

    async def connect_database() -> None:
        raise LookupError("no database")

    app = priced_app(broker, lifespan=fail)
    with pytest.raises(LookupError, match="no database"):
        async with app_client(app, overrides={price: lambda: 5}):
            raise AssertionError
    assert not app.dependency_overrides


async def test_an_error_of_the_test_ends_the_application(broker: NatsBroker) -> None:
    app = AsgiFastStream(broker)
    with pytest.raises(LookupError, match="failed"):
        async with app_client(app):
            raise LookupError("failed")
    assert app.broker_lifespan.state == "stopped"


async def test_the_end_waits_for_handlers(broker: NatsBroker) -> None:
    started, release, states = asyncio.Event(), asyncio.Event(), list[str]()

    @broker.subscriber("orders")
    async def process(item: str) -> None:
        started.set()
        await release.wait()
        states.append(lifespan.state)

    app = AsgiFastStream(broker)
    lifespan = app.broker_lifespan
    async with app_client(app):
        publishing = asyncio.create_task(broker.publish("tea", "orders"))
        await started.wait()
        with pytest.raises(TimeoutError):
            await lifespan.idle(0.01)
        asyncio.get_running_loop().call_soon(release.set)
    assert publishing.done()
    # It was handled before the shutdown began.
    assert states == ["running"]


async def test_idle_returns_at_once_unless_the_lifespan_runs(broker: NatsBroker) -> None:
    await BrokerLifespan(broker).idle(0.0)
