"""docs/fastapi-plugin.md: its code runs before and after, and the listed differences exist."""

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

from faststream_adapters._utils.errors import BrokerStartError
from faststream_adapters.fastapi import FastStreamRouter, provide_broker
from faststream_adapters.fastapi._check import check
from faststream_adapters.testing import app_client
from tests.docs.blocks import at_nats, eventually, load, python_blocks, served
from tests.harness.servers.nats import NatsServer

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import faststream.nats.fastapi as old

BLOCKS = python_blocks("docs/fastapi-plugin.md")
BEFORE, AFTER = "Before and after 1", "Before and after 2"
CLIENTS = {
    f"The names of each client {number}": name
    for number, name in enumerate(("nats", "rabbit", "kafka", "confluent", "redis"), 1)
}
TESTS = {BEFORE: "Its test 1", AFTER: "Its test 2"}
UNUSED = "nats://127.0.0.1:1"


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {*TESTS, *TESTS.values(), *CLIENTS}


@pytest.mark.parametrize("block", CLIENTS)
async def test_each_client_has_the_names(block: str, tmp_path: FilePath) -> None:
    assert f"plugin.{CLIENTS[block]} import" in BLOCKS[block].code
    module: Any = load(BLOCKS[block].code, tmp_path)
    bills: list[str] = []

    async def collect(item: str) -> None:
        bills.append(item)

    module.router.broker.subscriber("bills")(collect)

    async with app_client(module.app):
        await module.router.broker.publish("tea", "orders", correlation_id="7")
    assert bills == ["tea, 7"]


async def test_the_router_of_redis_connects_through_sentinel(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTINEL", "127.0.0.1")
    module = load(BLOCKS[list(CLIENTS)[-1]].code, tmp_path)
    async with app_client(module.app):
        await module.router.broker.publish("tea", "orders", correlation_id="7")


def test_the_old_router_is_deprecated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "faststream.nats.fastapi")
    with pytest.warns(DeprecationWarning, match=r"faststream_fastapi package and will be removed in 1\.0\.0"):
        import faststream.nats.fastapi  # noqa: F401 (the import warns)


@pytest.mark.filterwarnings("ignore:Specifying 'lifespan_context' manually:RuntimeWarning")
@pytest.mark.parametrize("name", TESTS)
async def test_the_code_runs_before_and_after(name: str, shared_nats: NatsServer, tmp_path: FilePath) -> None:
    module = load(at_nats(BLOCKS[name].code, shared_nats.url), tmp_path)
    async with served(module.app) as client, NatsBroker(shared_nats.url) as broker:
        await eventually(client, "/log", ["Shop", "welcome"])
        assert (await client.post("/orders", json={"item": "tea", "amount": 2})).status_code == 202
        await eventually(client, "/log", ["Shop", "welcome", "tea: 6"])
        await broker.publish({"item": "tea", "amount": 3}, "orders")
        await eventually(client, "/log", ["Shop", "welcome", "tea: 6", "tea: 9"])
        assert (await client.get("/asyncapi")).status_code == 200
        assert (await client.get("/readyz")).status_code == (200 if name == AFTER else 404)


@pytest.mark.parametrize("name", TESTS)
async def test_its_test_passes_before_and_after(
    name: str, tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "main", load(BLOCKS[name].code, tmp_path))
    await load(BLOCKS[TESTS[name]].code, tmp_path, "test_main").test_a_bill_is_sent()


def test_the_check_finds_the_single_parameter(tmp_path: FilePath) -> None:
    path = tmp_path / "main.py"
    path.write_text(BLOCKS[BEFORE].code, encoding="utf-8")
    assert "'send' receives the field 'text' of a message that is an object" in str(check(path))


# --- differences: the old behaviour, then the new ---


def client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def app_with_router(router: Any) -> FastAPI:
    app = FastAPI(title="Host")
    app.include_router(router)
    return app


async def start(app: FastAPI) -> None:
    async with app.router.lifespan_context(app):
        pytest.fail("The application has started.")


async def handle_in_old(handler: Any, message: Any = "tea", **keywords: Any) -> None:
    """Publish a message to a subscriber of FastStream's router."""
    router = old.NatsRouter(UNUSED, **keywords)
    router.subscriber("orders.{number}")(handler)
    async with TestNatsBroker(router.broker), app_with_router(router).router.lifespan_context(FastAPI()):
        await router.broker.publish(message, "orders.7")


async def handle_in_new(handler: Any, message: Any = "tea", **keywords: Any) -> None:
    """Publish a message to a subscriber of a broker in FastStreamRouter."""
    broker = NatsBroker(UNUSED)
    broker.subscriber("orders.{number}")(handler)
    app = app_with_router(FastStreamRouter(broker, **keywords))
    async with TestNatsBroker(broker), app.router.lifespan_context(app):
        await broker.publish(message, "orders.7")


def price() -> int:
    return 3


async def test_subscribers_use_both_kinds_of_depends() -> None:
    seen: list[Any] = []

    async def of_fastapi(item: str, cost: Annotated[int, Depends(price)]) -> None:
        seen.append(cost)

    async def of_faststream(item: str, cost: Annotated[int, faststream.Depends(price)]) -> None:
        seen.append(cost)

    await handle_in_old(of_fastapi)
    with pytest.raises(SetupError, match=r"faststream\.Depends"):
        await handle_in_old(of_faststream)
    await handle_in_new(of_faststream)
    await handle_in_new(of_fastapi)
    assert seen == [3, 3, 3]


async def test_subscribers_use_the_context_of_faststream() -> None:
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

    await handle_in_old(with_old)
    await handle_in_new(with_new)
    assert seen == ["NatsMessage", ("NatsMessage", "Host")]


async def test_subscribers_use_the_path_and_header_of_faststream() -> None:
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

    await handle_in_old(of_fastapi)
    await handle_in_new(of_faststream)
    with pytest.raises(SetupError, match=r"'number' of the subscriber 'of_fastapi' is a fastapi\.Path"):
        await handle_in_new(of_fastapi)
    assert seen == [(7, True), (7, True)]


async def test_subscribers_use_request_and_background_tasks() -> None:
    seen: list[Any] = []

    async def with_request(item: str, request: Request) -> None:
        seen.append(type(request.app))

    async def with_tasks(item: str, tasks: BackgroundTasks) -> None:
        tasks.add_task(seen.append, item)

    for handle in (handle_in_old, handle_in_new):
        await handle(with_request)
        await handle(with_tasks)
    assert seen == [FastAPI, "tea"] * 2


async def test_one_parameter_takes_the_whole_message() -> None:
    seen: list[Any] = []

    async def one(item: str) -> None:
        seen.append(item)

    async def two(item: str, quantity: int) -> None:
        seen.append((item, quantity))

    await handle_in_old(one, {"item": "tea"})
    await handle_in_new(two, {"item": "tea", "quantity": 2})
    with pytest.raises(ValidationError):
        await handle_in_new(one, {"item": "tea"})
    assert seen == ["tea", ("tea", 2)]


async def test_dependencies_of_the_router_apply_to_routes_only() -> None:
    seen: list[str] = []

    def guard() -> None:
        seen.append("guard")

    async def handle(item: str) -> None:
        seen.append(item)

    await handle_in_old(handle, dependencies=[Depends(guard)])
    await handle_in_new(handle, dependencies=[Depends(guard)])
    assert seen == ["guard", "tea", "tea"]

    seen.clear()
    await handle_in_new(handle, message_dependencies=[Depends(guard)])
    assert seen == ["guard", "tea"]


async def test_dependencies_of_a_subscriber_are_those_of_faststream() -> None:
    seen: list[str] = []
    broker = NatsBroker(UNUSED)

    @broker.subscriber("orders", dependencies=[faststream.Depends(lambda: seen.append("guard"))])
    async def handle(item: str) -> None:
        seen.append(item)

    app = app_with_router(FastStreamRouter(broker))
    async with TestNatsBroker(broker), app.router.lifespan_context(app):
        await broker.publish("tea", "orders")
    assert seen == ["guard", "tea"]


async def test_overrides_apply_to_subscribers() -> None:
    seen: list[int] = []

    async def handle(item: str, cost: Annotated[int, Depends(price)]) -> None:
        seen.append(cost)

    router = old.NatsRouter(UNUSED)
    router.subscriber("orders")(handle)
    broker = NatsBroker(UNUSED)
    broker.subscriber("orders")(handle)
    for each, app in (
        (router.broker, app_with_router(router)),
        (broker, app_with_router(FastStreamRouter(broker))),
    ):
        app.dependency_overrides[price] = lambda: 9
        async with TestNatsBroker(each), app.router.lifespan_context(app):
            await each.publish("tea", "orders")
    assert seen == [9, 9]


async def test_a_test_can_replace_dependencies() -> None:
    seen: list[int] = []
    broker = NatsBroker(UNUSED)

    @broker.subscriber("orders")
    async def process(item: str, cost: Annotated[int, faststream.Depends(price)]) -> None:
        seen.append(cost)

    app = app_with_router(FastStreamRouter(broker))
    async with TestNatsBroker(broker), app.router.lifespan_context(app):
        with broker.provider.scope(price, lambda: 9):
            await broker.publish("tea", "orders")
        await broker.publish("tea", "orders")
    assert seen == [9, 3]


async def test_provide_broker_replaces_the_lifespan_state() -> None:
    router = old.NatsRouter(UNUSED)
    async with TestNatsBroker(router.broker):
        app = app_with_router(router)
        async with app.router.lifespan_context(app) as state:
            assert state == {"broker": router.broker}

    broker = NatsBroker(UNUSED)
    app = app_with_router(FastStreamRouter(broker))
    received: list[NatsBroker] = []

    @app.get("/")
    async def show(provided: Annotated[NatsBroker, Depends(provide_broker(NatsBroker))]) -> None:
        received.append(provided)

    async with TestNatsBroker(broker), app.router.lifespan_context(app) as state, client(app) as http:
        assert not state
        assert (await http.get("/")).status_code == 200
    assert received == [broker]


async def test_hooks_move_to_the_faststream_app() -> None:
    seen: list[str] = []
    router = old.NatsRouter(UNUSED)

    @router.after_startup
    def up(app: FastAPI) -> None:
        seen.append("up")

    @router.on_broker_shutdown
    def down(app: FastAPI) -> None:
        seen.append("down")

    async with TestNatsBroker(router.broker):
        app = app_with_router(router)
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
    app = app_with_router(FastStreamRouter(hooks))
    async with TestNatsBroker(broker), app.router.lifespan_context(app):
        assert seen == ["up"]
    assert seen == ["up", "down"]


async def test_the_docs_page_is_optional_and_guarded_by_the_router() -> None:
    def guard() -> None:
        msg = "called"
        raise AssertionError(msg)

    router = old.NatsRouter(UNUSED, dependencies=[Depends(guard)])
    async with TestNatsBroker(router.broker):
        app = app_with_router(router)
        async with app.router.lifespan_context(app), client(app) as http:
            assert (await http.get("/asyncapi")).status_code == 200
            assert (await http.post("/asyncapi/try", json={})).status_code == 400
            assert "/asyncapi" in (await http.get("/openapi.json")).json()["paths"]

    off = app_with_router(FastStreamRouter(NatsBroker(UNUSED)))
    async with client(off) as http:
        assert (await http.get("/asyncapi")).status_code == 404
    for in_schema in (False, True):
        on = FastStreamRouter(NatsBroker(UNUSED), asyncapi_path="/asyncapi", include_in_schema=in_schema)
        async with client(app_with_router(on)) as http:
            assert (await http.get("/asyncapi")).status_code == 200
            assert (await http.post("/asyncapi/try", json={})).status_code in {404, 405}
            assert ("/asyncapi" in (await http.get("/openapi.json")).json()["paths"]) == in_schema
    guarded = FastStreamRouter(NatsBroker(UNUSED), asyncapi_path="/asyncapi", dependencies=[Depends(guard)])
    async with client(app_with_router(guarded)) as http:
        with pytest.raises(AssertionError, match="called"):
            await http.get("/asyncapi")


async def test_the_broker_runs_after_a_second_start(shared_nats: NatsServer) -> None:
    router = old.NatsRouter(shared_nats.url)
    app = app_with_router(router)
    running = []
    async with app.router.lifespan_context(app):
        running.append(router.broker.running)
    with pytest.warns(RuntimeWarning):
        async with app.router.lifespan_context(app):
            running.append(router.broker.running)
    assert running == [True, False]

    broker = NatsBroker(shared_nats.url)
    app = app_with_router(FastStreamRouter(broker))
    running = []
    for _ in range(2):
        async with app.router.lifespan_context(app):
            running.append(broker.running)
    assert running == [True, True]


async def test_a_start_without_nats_fails_or_continues_in_the_background() -> None:
    router = old.NatsRouter(UNUSED)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(start(app_with_router(router)), 0.5)
    await router.broker.stop()

    assert FastStreamRouter(NatsBroker(UNUSED)).broker_lifespan.startup_timeout == 20.0
    with pytest.raises(BrokerStartError):
        await start(app_with_router(FastStreamRouter(NatsBroker(UNUSED), startup_timeout=0.2)))
    app = app_with_router(
        FastStreamRouter(NatsBroker(UNUSED), startup="background", readiness_path="/readyz")
    )
    async with app.router.lifespan_context(app), client(app) as http:
        assert (await http.get("/readyz")).status_code == 503
