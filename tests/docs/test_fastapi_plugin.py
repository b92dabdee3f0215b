"""The page about FastStream's FastAPI router: before and after run, and what it says differs does."""

import asyncio
import sys
import warnings
from pathlib import Path as FilePath
from typing import Annotated, Any

import faststream
import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Header, Path, Request
from faststream import FastStream
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker, TestNatsBroker
from faststream.nats.annotations import NatsMessage
from pydantic import ValidationError

from faststream_adapters.fastapi import FastStreamRouter, provide_broker
from faststream_adapters.lifespan import BrokerStartError
from tests.examples.blocks import at_nats, eventually, load, python_blocks, served
from tests.servers.nats import NatsServer

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import faststream.nats.fastapi as old

BLOCKS = python_blocks("docs/fastapi-plugin.md")
BEFORE, AFTER = "Before and after 1", "Before and after 2"
UNUSED = "nats://127.0.0.1:1"


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {BEFORE, AFTER}


def test_the_old_router_is_deprecated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "faststream.nats.fastapi")
    with pytest.warns(DeprecationWarning, match=r"faststream_fastapi package and will be removed in 1\.0\.0"):
        import faststream.nats.fastapi  # noqa: F401 (it warns when it is imported)


@pytest.mark.parametrize("name", [BEFORE, AFTER])
async def test_before_and_after(name: str, shared_nats: NatsServer, tmp_path: FilePath) -> None:
    module = load(at_nats(BLOCKS[name].code, shared_nats.url), tmp_path)
    async with served(module.app) as client:
        assert (await client.post("/orders/tea")).status_code == 202
        await eventually(client, "/bills", ["tea: 3"])
        assert (await client.get("/asyncapi")).status_code == 200
        assert (await client.get("/readyz")).status_code == (204 if name == AFTER else 404)


def test_after_differs_in_a_few_lines_only() -> None:
    before, after = (set(BLOCKS[name].code.splitlines()) for name in (BEFORE, AFTER))
    assert len(after - before) == 8


# --- what differs: the old behaviour, then the new ---


def client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def in_fastapi(router: Any) -> FastAPI:
    app = FastAPI(title="Host")
    app.include_router(router)
    return app


async def start(app: FastAPI) -> None:
    async with app.router.lifespan_context(app):
        pytest.fail("It has started.")


async def in_old(handler: Any, message: Any = "tea", **keywords: Any) -> None:
    """Let a subscriber of the old router handle a message."""
    router = old.NatsRouter(UNUSED, **keywords)
    router.subscriber("orders.{number}")(handler)
    async with TestNatsBroker(router.broker), in_fastapi(router).router.lifespan_context(FastAPI()):
        await router.broker.publish(message, "orders.7")


async def in_new(handler: Any, message: Any = "tea", **keywords: Any) -> None:
    """Let a subscriber of a broker in the new router handle a message."""
    broker = NatsBroker(UNUSED)
    broker.subscriber("orders.{number}")(handler)
    app = in_fastapi(FastStreamRouter(broker, **keywords))
    async with TestNatsBroker(broker), app.router.lifespan_context(app):
        await broker.publish(message, "orders.7")


def price() -> int:
    return 3


async def test_dependencies_of_subscribers() -> None:
    seen: list[Any] = []

    async def of_fastapi(item: str, cost: Annotated[int, Depends(price)]) -> None:
        seen.append(cost)

    async def of_faststream(item: str, cost: Annotated[int, faststream.Depends(price)]) -> None:
        seen.append(cost)

    await in_old(of_fastapi)
    with pytest.raises(SetupError, match=r"faststream\.Depends"):
        await in_old(of_faststream)
    await in_new(of_faststream)
    with pytest.raises(SetupError, match=r"'cost'.*'of_fastapi'.*fastapi\.Depends.*faststream\.Depends"):
        await in_new(of_fastapi)
    assert seen == [3, 3]


async def test_context_of_subscribers() -> None:
    seen: list[Any] = []

    async def with_old(item: str, message: old.NatsMessage, logger: old.Logger) -> None:
        seen.append(type(message).__name__)

    async def with_new(
        item: str,
        message: NatsMessage,
        logger: faststream.Logger,
        host: Annotated[FastAPI, faststream.Context("host")],
    ) -> None:
        seen.append((type(message).__name__, host.title))

    await in_old(with_old)
    await in_new(with_new)
    assert seen == ["NatsMessage", ("NatsMessage", "Host")]


async def test_path_and_header_of_subscribers() -> None:
    seen: list[Any] = []

    async def of_fastapi(
        item: str,
        number: Annotated[int, Path()],
        key: Annotated[str, Header(alias="correlation_id")] = "none",
    ) -> None:
        seen.append((number, key != "none"))

    async def of_faststream(
        item: str,
        number: Annotated[int, faststream.Path()],
        key: Annotated[str, faststream.Header("correlation_id")],
    ) -> None:
        seen.append((number, key != "none"))

    await in_old(of_fastapi)
    await in_new(of_faststream)
    with pytest.raises(ValidationError, match="number"):
        await in_new(of_fastapi, {"item": "tea"})
    await in_new(of_fastapi, {"item": "tea", "number": 8})
    assert seen == [(7, True), (7, True), (8, False)]


async def test_request_and_background_tasks_of_subscribers() -> None:
    seen: list[Any] = []

    async def with_request(item: str, request: Request) -> None:
        seen.append(type(request.app))

    async def with_tasks(item: str, tasks: BackgroundTasks) -> None:
        tasks.add_task(seen.append, item)

    await in_old(with_request)
    await in_old(with_tasks)
    for handler in (with_request, with_tasks):
        with pytest.raises((SetupError, ValidationError)):
            await in_new(handler)
    assert seen == [FastAPI, "tea"]


async def test_one_parameter_takes_the_whole_message() -> None:
    seen: list[Any] = []

    async def one(item: str) -> None:
        seen.append(item)

    async def two(item: str, quantity: int) -> None:
        seen.append((item, quantity))

    await in_old(one, {"item": "tea"})
    await in_new(two, {"item": "tea", "quantity": 2})
    with pytest.raises(ValidationError):
        await in_new(one, {"item": "tea"})
    assert seen == ["tea", ("tea", 2)]


async def test_dependencies_of_the_router() -> None:
    seen: list[str] = []

    def guard() -> None:
        seen.append("guard")

    async def handle(item: str) -> None:
        seen.append(item)

    await in_old(handle, dependencies=[Depends(guard)])
    await in_new(handle, dependencies=[Depends(guard)])
    assert seen == ["guard", "tea", "tea"]

    seen.clear()
    broker = NatsBroker(UNUSED, dependencies=[faststream.Depends(guard)])
    broker.subscriber("orders", dependencies=[faststream.Depends(guard)])(handle)
    app = in_fastapi(FastStreamRouter(broker))
    async with TestNatsBroker(broker), app.router.lifespan_context(app):
        await broker.publish("tea", "orders")
    # Both, and each message asks a dependency once.
    assert seen == ["guard", "tea"]


async def test_dependencies_are_replaced_in_tests() -> None:
    seen: list[int] = []
    broker = NatsBroker(UNUSED)

    @broker.subscriber("orders")
    async def process(item: str, cost: Annotated[int, faststream.Depends(price)]) -> None:
        seen.append(cost)

    app = in_fastapi(FastStreamRouter(broker))
    async with TestNatsBroker(broker), app.router.lifespan_context(app):
        with broker.provider.scope(price, lambda: 9):
            await broker.publish("tea", "orders")
        await broker.publish("tea", "orders")
    assert seen == [9, 3]


async def test_state_and_provide_broker() -> None:
    router = old.NatsRouter(UNUSED)
    async with TestNatsBroker(router.broker):
        app = in_fastapi(router)
        async with app.router.lifespan_context(app) as state:
            assert state == {"broker": router.broker}

    broker = NatsBroker(UNUSED)
    app = in_fastapi(FastStreamRouter(broker))
    found: list[NatsBroker] = []

    @app.get("/")
    async def show(given: Annotated[NatsBroker, Depends(provide_broker(NatsBroker))]) -> None:
        found.append(given)

    async with TestNatsBroker(broker), app.router.lifespan_context(app) as state, client(app) as http:
        assert not state
        assert (await http.get("/")).status_code == 200
    assert found == [broker]


async def test_hooks() -> None:
    seen: list[str] = []
    router = old.NatsRouter(UNUSED)

    @router.after_startup
    def up(app: FastAPI) -> None:
        seen.append("up")

    @router.on_broker_shutdown
    def down(app: FastAPI) -> None:
        seen.append("down")

    async with TestNatsBroker(router.broker):
        app = in_fastapi(router)
        async with app.router.lifespan_context(app):
            assert seen == ["up"]
    assert seen == ["up", "down"]

    seen.clear()
    broker = NatsBroker(UNUSED)
    hooks = FastStream(
        broker,
        after_startup=[lambda: seen.append("up")],
        on_shutdown=[lambda: seen.append("down")],
    )
    app = in_fastapi(FastStreamRouter(hooks))
    async with TestNatsBroker(broker), app.router.lifespan_context(app):
        assert seen == ["up"]
    assert seen == ["up", "down"]


async def test_docs() -> None:
    def guard() -> None:
        msg = "called"
        raise AssertionError(msg)

    router = old.NatsRouter(UNUSED, dependencies=[Depends(guard)])
    async with TestNatsBroker(router.broker):
        app = in_fastapi(router)
        async with app.router.lifespan_context(app), client(app) as http:
            assert (await http.get("/asyncapi")).status_code == 200
            assert (await http.post("/asyncapi/try", json={})).status_code == 400
            assert "/asyncapi" in (await http.get("/openapi.json")).json()["paths"]

    off = in_fastapi(FastStreamRouter(NatsBroker(UNUSED)))
    async with client(off) as http:
        assert (await http.get("/asyncapi")).status_code == 404
    for shown in (False, True):
        on = FastStreamRouter(NatsBroker(UNUSED), asyncapi_path="/asyncapi", include_in_schema=shown)
        async with client(in_fastapi(on)) as http:
            assert (await http.get("/asyncapi")).status_code == 200
            assert (await http.post("/asyncapi/try", json={})).status_code in {404, 405}
            assert ("/asyncapi" in (await http.get("/openapi.json")).json()["paths"]) == shown
    guarded = FastStreamRouter(NatsBroker(UNUSED), asyncapi_path="/asyncapi", dependencies=[Depends(guard)])
    async with client(in_fastapi(guarded)) as http:
        with pytest.raises(AssertionError, match="called"):
            await http.get("/asyncapi")


async def test_a_second_start(shared_nats: NatsServer) -> None:
    router = old.NatsRouter(shared_nats.url)
    app = in_fastapi(router)
    running = []
    async with app.router.lifespan_context(app):
        running.append(router.broker.running)
    with pytest.warns(RuntimeWarning):
        async with app.router.lifespan_context(app):
            running.append(router.broker.running)
    assert running == [True, False]

    broker = NatsBroker(shared_nats.url)
    app = in_fastapi(FastStreamRouter(broker))
    running = []
    for _ in range(2):
        async with app.router.lifespan_context(app):
            running.append(broker.running)
    assert running == [True, True]


async def test_a_start_without_nats() -> None:
    router = old.NatsRouter(UNUSED)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(start(in_fastapi(router)), 0.5)
    await router.broker.stop()

    assert FastStreamRouter(NatsBroker(UNUSED)).broker_lifespan.startup_timeout == 20.0
    with pytest.raises(BrokerStartError):
        await start(in_fastapi(FastStreamRouter(NatsBroker(UNUSED), startup_timeout=0.2)))
    app = in_fastapi(FastStreamRouter(NatsBroker(UNUSED), startup="background", readiness_path="/readyz"))
    async with app.router.lifespan_context(app), client(app) as http:
        assert (await http.get("/readyz")).status_code == 503
