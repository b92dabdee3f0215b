"""FastStreamRouter and provide_broker in real FastAPI applications, with real NATS servers."""

import logging
import queue
import re
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext
from typing import Annotated, Any
from urllib.parse import urljoin
from uuid import uuid4

import fastapi
import faststream
import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI, Header, HTTPException, Request, Response, WebSocket
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.routing import APIRoute
from faststream import AsyncAPI, Context, FastStream
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker, TestNatsBroker
from prometheus_client import CollectorRegistry, Counter
from starlette.responses import Response as StarletteResponse
from starlette.websockets import WebSocketDisconnect

from faststream_adapters import AsyncAPIRoute, BrokerLifespan
from faststream_adapters.fastapi import BrokerNotProvidedError, FastStreamRouter, provide_broker
from faststream_adapters.lifespan import BrokerStartError, State
from tests.servers import hold_port
from tests.servers.asgi import AppServer
from tests.servers.nats import NatsServer

with warnings.catch_warnings():
    # The oldest Starlette uses a name that the newest anyio calls deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from fastapi.testclient import TestClient

NOWHERE = "nats://127.0.0.1:1"
TOKEN = {"x-token": "secret"}
PATHS: dict[str, str] = {
    "ping_path": "/ping",
    "liveness_path": "/live",
    "readiness_path": "/ready",
    "startup_path": "/startup",
    "metrics_path": "/metrics",
    "asyncapi_path": "/asyncapi",
}
PROBES = ["/ping", "/live", "/ready", "/startup"]


async def guard(x_token: Annotated[str, Header()] = "") -> None:
    if x_token != TOKEN["x-token"]:
        raise HTTPException(401)


def router_for(*targets: Any, **keywords: Any) -> FastStreamRouter:
    """Return a router with every endpoint."""
    return FastStreamRouter(*targets, **{"metrics_registry": CollectorRegistry(), **PATHS, **keywords})


def app_with(*routers: APIRouter, **keywords: Any) -> FastAPI:
    app = FastAPI(**keywords)
    for router in routers:
        app.include_router(router)
    return app


def assets(client: httpx.Client | TestClient, page: str) -> list[str]:
    """Return the URLs that the docs page links to, as a browser finds them."""
    answer = client.get(page)
    assert answer.status_code == 200
    links = re.findall(r'(?:href|src)="([^"#]+)"', answer.text)
    return [urljoin(str(answer.url), link) for link in links if "://" not in link]


@pytest.fixture
def broker(shared_nats: NatsServer) -> NatsBroker:
    return NatsBroker(shared_nats.url)


@pytest.fixture
def subject() -> str:
    return f"orders-{uuid4().hex}"


@pytest.fixture
def client(broker: NatsBroker) -> Iterator[TestClient]:
    """Return a client of an app with every endpoint, which follows no redirects."""
    with TestClient(app_with(router_for(broker)), follow_redirects=False) as client:
        yield client


# --- endpoints ---


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", PROBES)
def test_probes_answer(client: TestClient, path: str, slash: str) -> None:
    for method in ("GET", "HEAD"):
        answer = client.request(method, path + slash)
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/asyncapi", "text/html; charset=utf-8"),
        ("/asyncapi.json", "application/json"),
        ("/asyncapi.yaml", "application/yaml"),
        ("/asyncapi/asyncapi.json", "application/json"),
        ("/asyncapi/asyncapi.yaml", "application/yaml"),
    ],
)
def test_docs_answer(client: TestClient, path: str, content_type: str, slash: str) -> None:
    answer = client.get(path + slash)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == content_type
    head = client.head(path + slash)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == answer.headers
    assert client.get(path + slash, headers={"if-none-match": answer.headers["etag"]}).status_code == 304


@pytest.mark.parametrize("page", ["/asyncapi", "/asyncapi/"])
def test_the_page_finds_its_own_files(client: TestClient, page: str) -> None:
    urls = assets(client, page)
    assert len(urls) > 2
    assert {client.get(url).status_code for url in urls} == {200}
    assert client.get("/asyncapi/nothing.css").status_code == 404


def test_metrics_answer(broker: NatsBroker) -> None:
    registry = CollectorRegistry()
    Counter("orders", "Orders.", registry=registry).inc()
    with TestClient(app_with(router_for(broker, metrics_registry=registry))) as client:
        assert "orders_total 1.0" in client.get("/metrics").text


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"])
@pytest.mark.parametrize(
    "path", ["/ready", "/ready/", "/asyncapi", "/asyncapi/", "/asyncapi.json", "/metrics"]
)
def test_other_methods_are_not_allowed(client: TestClient, path: str, method: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert {name.strip() for name in answer.headers["allow"].split(",")} == {"GET", "HEAD"}


@pytest.mark.parametrize("path", ["/ready", "/asyncapi", "/asyncapi/"])
def test_a_websocket_is_refused(client: TestClient, path: str) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(path):
        ...


def test_a_path_below_an_endpoint_is_not_found(client: TestClient) -> None:
    assert client.get("/ready/more").status_code == 404


def test_nothing_is_served_that_was_not_asked_for(broker: NatsBroker) -> None:
    router = FastStreamRouter(broker)
    assert router.routes == []
    with TestClient(app_with(router)) as client:
        assert str(router.broker_lifespan.state) == "running"
        assert client.get("/ping").status_code == 404


@pytest.mark.parametrize("prefix", ["", "/internal"])
def test_the_docs_can_be_at_the_root(broker: NatsBroker, prefix: str) -> None:
    router = FastStreamRouter(broker, prefix=prefix, asyncapi_path="/", ping_path="/ping")
    with TestClient(app_with(router), follow_redirects=False) as client:
        assert client.get(f"{prefix}/ping").status_code == 204
        for page in {prefix or "/", f"{prefix}/"}:
            assert {client.get(url).status_code for url in assets(client, page)} == {200}
        assert client.get(f"{prefix}/asyncapi.json").status_code == 200


def test_an_endpoint_can_be_at_the_prefix(broker: NatsBroker) -> None:
    router = FastStreamRouter(broker, prefix="/ping", ping_path="/", include_in_schema=True)
    with TestClient(app_with(router), follow_redirects=False) as client:
        assert client.get("/ping").status_code == 204
        assert client.get("/ping/").status_code == 204
        assert list(client.get("/openapi.json").json()["paths"]) == ["/ping"]


def test_an_endpoint_can_be_at_the_root(broker: NatsBroker) -> None:
    router = FastStreamRouter(broker, ping_path="/", include_in_schema=True)
    with TestClient(app_with(router)) as client:
        assert client.get("/").status_code == 204
        assert list(client.get("/openapi.json").json()["paths"]) == ["/"]


def test_an_endpoint_inside_the_docs_is_found(broker: NatsBroker) -> None:
    docs = AsyncAPIRoute("/docs/events", asyncapi_json_path="/docs/events/schema.json")
    router = FastStreamRouter(broker, asyncapi_path=docs, ping_path="/docs/events/ping")
    with TestClient(app_with(router)) as client:
        assert client.get("/docs/events/ping").status_code == 204
        assert client.get("/docs/events/schema.json").json()["asyncapi"] == "3.0.0"
        assert client.get("/docs/events").status_code == 200
        assert "Swagger" in client.get("/docs").text


# --- guards ---


def every_url(client: TestClient) -> list[str]:
    urls = [path + slash for path in [*PROBES, "/metrics", "/asyncapi"] for slash in ("", "/")]
    beside = ["/asyncapi.json", "/asyncapi.yaml", "/asyncapi/asyncapi.json", "/asyncapi/asyncapi.yaml"]
    client.headers.update(TOKEN)
    found = [*urls, *beside, *assets(client, "/asyncapi"), "/asyncapi/nothing"]
    del client.headers["x-token"]
    return found


def guarded_by_router(broker: NatsBroker) -> FastAPI:
    return app_with(router_for(broker, dependencies=[fastapi.Depends(guard)]))


def guarded_by_inclusion(broker: NatsBroker) -> FastAPI:
    app = FastAPI()
    app.include_router(router_for(broker), dependencies=[fastapi.Depends(guard)])
    return app


def guarded_by_parent(broker: NatsBroker) -> FastAPI:
    parent = APIRouter(dependencies=[fastapi.Depends(guard)])
    parent.include_router(router_for(broker))
    return app_with(parent)


def guarded_by_app(broker: NatsBroker) -> FastAPI:
    return app_with(router_for(broker), dependencies=[fastapi.Depends(guard)])


@pytest.mark.parametrize("make", [guarded_by_router, guarded_by_inclusion, guarded_by_parent, guarded_by_app])
def test_guards_apply_to_everything(broker: NatsBroker, make: Callable[[NatsBroker], FastAPI]) -> None:
    with TestClient(make(broker), follow_redirects=False) as client:
        urls = every_url(client)
        assert len(urls) > 18
        for url in urls:
            for method in ("GET", "HEAD", "POST"):
                assert client.request(method, url).status_code == 401, (method, url)
        statuses = {client.get(url, headers=TOKEN).status_code for url in urls}
        assert statuses == {200, 204, 404}


def test_probes_can_be_open_and_docs_guarded(broker: NatsBroker) -> None:
    states: list[State] = []
    lifespan = BrokerLifespan(broker, on_state_change=lambda _, new: states.append(new))
    app = app_with(
        FastStreamRouter(lifespan, readiness_path="/ready"),
        FastStreamRouter(lifespan, asyncapi_path="/asyncapi", dependencies=[fastapi.Depends(guard)]),
    )
    with TestClient(app) as client:
        assert client.get("/ready").status_code == 204
        for path in ("/asyncapi", "/asyncapi.json", "/asyncapi/asyncapi.yaml"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers=TOKEN).status_code == 200
        assert states == ["starting", "running"]
    assert states == ["starting", "running", "draining", "stopped"]


def test_a_guard_with_yield_is_left_after_the_answer(broker: NatsBroker) -> None:
    steps: list[str] = []

    class Recorder:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def note(message: Any) -> None:
                steps.append(message["type"])
                await send(message)

            await self.app(scope, receive, note if scope["type"] == "http" else send)

    async def session() -> AsyncIterator[None]:
        steps.append("in")
        yield
        steps.append("out")

    app = app_with(router_for(broker, dependencies=[fastapi.Depends(session)]))
    app.add_middleware(Recorder)
    with TestClient(app) as client:
        for path in ("/ready", "/asyncapi.json", "/asyncapi/"):
            assert client.get(path).is_success
            assert steps == ["in", "http.response.start", "http.response.body", "out"]
            steps.clear()


def test_background_tasks_of_a_guard_run(broker: NatsBroker) -> None:
    done: list[str] = []

    def audit(request: Request, tasks: BackgroundTasks) -> None:
        tasks.add_task(done.append, request.url.path)

    with TestClient(app_with(router_for(broker, dependencies=[fastapi.Depends(audit)]))) as client:
        assert client.get("/ready").status_code == 204
        assert client.get("/asyncapi.yaml").status_code == 200
    assert done == ["/ready", "/asyncapi.yaml"]


def test_a_guard_can_be_overridden(broker: NatsBroker) -> None:
    app = guarded_by_router(broker)
    app.dependency_overrides[guard] = lambda: None
    with TestClient(app) as client:
        assert client.get("/asyncapi").status_code == 200


def test_the_error_handlers_of_the_application_answer_for_guards(broker: NatsBroker) -> None:
    app = guarded_by_router(broker)

    @app.exception_handler(HTTPException)
    async def handle(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"problem": error.status_code}, error.status_code)

    with TestClient(app) as client:
        answer = client.get("/asyncapi")
        assert (answer.status_code, answer.json()) == (401, {"problem": 401})
        assert client.post("/ready", headers=TOKEN).text == "Method Not Allowed"


def test_middlewares_of_the_application_apply(broker: NatsBroker) -> None:
    app = app_with(router_for(broker))

    @app.middleware("http")
    async def stamp(request: Request, call_next: Any) -> StarletteResponse:
        response: StarletteResponse = await call_next(request)
        response.headers["x-stamp"] = "1"
        return response

    with TestClient(app) as client:
        for path in ("/ready", "/asyncapi"):
            assert client.get(path).headers.get_list("x-stamp") == ["1"]


def test_the_class_of_the_routes_can_be_chosen(broker: NatsBroker) -> None:
    class Closed(APIRoute):
        def get_route_handler(self) -> Any:
            async def handler(request: Request) -> Response:
                return PlainTextResponse("closed", 418)

            return handler

    with TestClient(app_with(router_for(broker, route_class=Closed))) as client:
        assert client.get("/ready").status_code == 418
        assert client.get("/asyncapi/asyncapi.json").status_code == 418


# --- prefixes, nesting, mounting ---


def test_prefixes_add_up(broker: NatsBroker) -> None:
    parent = APIRouter(prefix="/internal")
    parent.include_router(router_for(broker, prefix="/events"), prefix="/v1")
    app = FastAPI()
    app.include_router(parent, prefix="/api")
    with TestClient(app, follow_redirects=False) as client:
        below = "/api/internal/v1/events"
        assert client.get(f"{below}/ready").status_code == 204
        for page in (f"{below}/asyncapi", f"{below}/asyncapi/"):
            urls = assets(client, page)
            assert all(f"{below}/asyncapi/" in url for url in urls)
            assert {client.get(url).status_code for url in urls} == {200}
        assert client.get("/ready").status_code == 404


@pytest.mark.parametrize("prefixes", [("/a", "/b"), ("", "")])
def test_a_router_that_is_included_twice_starts_once(broker: NatsBroker, prefixes: tuple[str, str]) -> None:
    states: list[State] = []
    router = router_for(broker, on_state_change=lambda _, new: states.append(new))
    app = FastAPI()
    for prefix in prefixes:
        app.include_router(router, prefix=prefix)

    @app.get("/same")
    async def same(found: Annotated[NatsBroker, fastapi.Depends(provide_broker(NatsBroker))]) -> bool:
        return found is broker

    with TestClient(app) as client:
        for prefix in prefixes:
            assert client.get(f"{prefix}/ready").status_code == 204
            assert client.get(f"{prefix}/asyncapi").status_code == 200
        assert client.get("/same").json() is True
        assert states == ["starting", "running"]
    assert states == ["starting", "running", "draining", "stopped"]


# FastAPI 0.165 wants it to be said to the server instead.
@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
@pytest.mark.parametrize("in_front", ["", "/svc"])
def test_the_root_path_of_the_application(broker: NatsBroker, in_front: str) -> None:
    # A proxy may take the prefix off, or leave it on.
    app = app_with(router_for(broker, prefix="/events"), root_path="/svc")
    with TestClient(app, follow_redirects=False) as client:
        assert client.get(f"{in_front}/events/ready").status_code == 204
        for page in (f"{in_front}/events/asyncapi", f"{in_front}/events/asyncapi/"):
            urls = assets(client, page)
            assert {client.get(url).status_code for url in urls} == {200}


def test_a_parameter_in_the_prefix(broker: NatsBroker) -> None:
    with TestClient(app_with(router_for(broker, prefix="/{tenant}"))) as client:
        assert client.get("/one/ready").status_code == 204
        assert {client.get(url).status_code for url in assets(client, "/two/asyncapi")} == {200}


def test_a_mounted_application_is_not_started_and_says_so_once(
    broker: NatsBroker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sub = app_with(router_for(broker), title="Sub", version="2.0")
    app = FastAPI(title="Outer")
    app.mount("/sub", sub)
    with caplog.at_level(logging.WARNING, "faststream.adapters"), TestClient(app) as client:
        for _ in range(2):
            assert client.get("/sub/ready").status_code == 503
        assert client.get("/sub/ping").status_code == 500
        assert client.get("/sub/asyncapi.json").json()["info"] == {"title": "Sub", "version": "2.0"}
        assert {client.get(url).status_code for url in assets(client, "/sub/asyncapi")} == {200}
    assert sum("readiness endpoint was asked" in record.message for record in caplog.records) == 1


def test_a_mounted_application_whose_lifespan_is_entered_works(broker: NatsBroker) -> None:
    sub = app_with(router_for(broker))

    @sub.get("/same")
    async def same(found: Annotated[NatsBroker, fastapi.Depends(provide_broker(NatsBroker))]) -> bool:
        return found is broker

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with sub.router.lifespan_context(sub):
            yield

    app = FastAPI(lifespan=lifespan)
    app.mount("/sub", sub)
    with TestClient(app) as client:
        assert client.get("/sub/ready").status_code == 204
        assert client.get("/sub/same").json() is True


# --- the AsyncAPI document ---


@pytest.mark.parametrize("path", ["/asyncapi.json", "/asyncapi/asyncapi.json"])
def test_the_document_has_the_name_of_the_application(broker: NatsBroker, path: str) -> None:
    app = app_with(router_for(broker), title="Orders", version="1.2.3", description="All about *orders*.")
    with TestClient(app) as client:
        info = client.get(path).json()["info"]
        assert info == {"title": "Orders", "version": "1.2.3", "description": "All about *orders*."}
        assert "<title>Orders" in client.get("/asyncapi").text


def test_a_specification_keeps_its_name(broker: NatsBroker) -> None:
    given = AsyncAPI(broker, title="Given", version="3.0")
    with TestClient(app_with(router_for(broker, specification=given), title="Orders")) as client:
        assert client.get("/asyncapi.json").json()["info"] == {"title": "Given", "version": "3.0"}


def test_a_faststream_app_keeps_its_name(broker: NatsBroker) -> None:
    target = FastStream(broker, specification=AsyncAPI(title="Consumers", version="4.0"))
    with TestClient(app_with(router_for(target), title="Orders")) as client:
        assert client.get("/asyncapi.json").json()["info"] == {"title": "Consumers", "version": "4.0"}


# --- OpenAPI ---


def test_openapi_is_untouched(broker: NatsBroker) -> None:
    def schema(*routers: APIRouter) -> Any:
        app = app_with(*routers, title="Orders")

        @app.get("/orders")
        async def orders() -> None: ...

        return app.openapi()

    assert schema(router_for(broker)) == schema()


def test_openapi_lists_each_endpoint_once_when_asked(broker: NatsBroker) -> None:
    router = router_for(
        broker, tags=["health"], responses={401: {"description": "No."}}, include_in_schema=True
    )
    paths = app_with(router).openapi()["paths"]
    assert set(paths) == {*PATHS.values(), "/asyncapi.json", "/asyncapi.yaml"}
    assert {method for operations in paths.values() for method in operations} == {"get"}
    operation = paths["/ready"]["get"]
    assert operation["tags"] == ["health"]
    assert operation["summary"] == "Whether messages can be consumed and published now."
    assert operation["responses"]["401"] == {"description": "No."}
    assert len({operations["get"]["operationId"] for operations in paths.values()}) == len(paths)


def test_openapi_lists_a_router_under_each_prefix(broker: NatsBroker) -> None:
    router, app = router_for(broker, include_in_schema=True), FastAPI()
    app.include_router(router, prefix="/a")
    app.include_router(router, prefix="/b")
    app.include_router(router, prefix="/c", include_in_schema=False)
    assert {path.partition("/")[2][0] for path in app.openapi()["paths"]} == {"a", "b"}


def test_routes_that_are_added_to_the_router_are_in_openapi(broker: NatsBroker) -> None:
    router = router_for(broker, prefix="/orders")

    @router.get("/all")
    async def orders() -> list[int]:
        return [1]

    app = app_with(router)
    assert list(app.openapi()["paths"]) == ["/orders/all"]
    with TestClient(app) as client:
        assert client.get("/orders/all").json() == [1]


# --- lifespan ---


def test_the_order_with_the_resources_of_the_application(broker: NatsBroker) -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        steps.append("host up")
        yield {"greeting": "hello"}
        steps.append("host down")

    consumers = FastStream(
        broker,
        on_startup=[lambda: steps.append("brokers go up")],
        after_startup=[lambda: steps.append("brokers are up")],
        on_shutdown=[lambda: steps.append("brokers go down")],
        after_shutdown=[lambda: steps.append("brokers are down")],
    )
    app = app_with(router_for(consumers), lifespan=lifespan)

    @app.get("/greeting")
    async def greeting(request: Request) -> str:
        steps.append("request")
        said: str = request.state.greeting
        return said

    with TestClient(app) as client:
        assert client.get("/greeting").json() == "hello"
    assert steps == [
        "host up",
        "brokers go up",
        "brokers are up",
        "request",
        "brokers go down",
        "brokers are down",
        "host down",
    ]


def test_the_host_is_injected_and_messages_arrive(broker: NatsBroker, subject: str) -> None:
    received: queue.Queue[tuple[str, object]] = queue.Queue()

    @broker.subscriber(subject)
    async def handle(message: str, host: Annotated[FastAPI, Context("host")]) -> None:
        received.put((message, host))

    app = app_with(router_for(broker))

    @app.post("/orders")
    async def publish(found: Annotated[NatsBroker, fastapi.Depends(provide_broker(NatsBroker))]) -> None:
        await found.publish("hello", subject)

    # Each run is in an event loop of its own.
    for _ in range(2):
        with TestClient(app) as client:
            assert client.get("/ready").status_code == 204
            assert client.post("/orders").status_code == 200
            assert received.get(timeout=10) == ("hello", app)
        assert not broker.running


async def test_it_runs_with_a_test_broker(subject: str) -> None:
    broker = NatsBroker(NOWHERE)
    received: list[str] = []

    @broker.subscriber(subject)
    async def handle(message: str) -> None:
        received.append(message)

    app = app_with(router_for(broker))
    async with TestNatsBroker(broker, connect_only=False), app.router.lifespan_context(app):
        await broker.publish("hello", subject)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            assert (await http.get("/ready")).status_code == 204
    assert received == ["hello"]


def test_a_failed_start_releases_the_resources_of_the_application() -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        steps.append("up")
        try:
            yield
        finally:
            steps.append("down")

    port, held = hold_port()
    router = router_for(NatsBroker(f"nats://127.0.0.1:{port}"), startup_timeout=0.2)
    app = app_with(router, lifespan=lifespan)
    with held or nullcontext(), pytest.raises(BrokerStartError), TestClient(app):
        ...
    assert steps == ["up", "down"]


# --- provide_broker ---


class OrderBroker(NatsBroker):
    """A class to tell two brokers apart."""


def asking(app: FastAPI, kind: type[Any]) -> FastAPI:
    """Add routes that tell which broker they were given."""

    @app.get("/which")
    async def which(broker: Annotated[Any, fastapi.Depends(provide_broker(kind))]) -> str:
        return type(broker).__name__

    @app.websocket("/which")
    async def which_over_websocket(
        websocket: WebSocket,
        broker: Annotated[Any, fastapi.Depends(provide_broker(kind))],
    ) -> None:
        await websocket.accept()
        await websocket.send_text(type(broker).__name__)
        await websocket.close()

    return app


def test_the_provider_is_the_same_each_time() -> None:
    assert provide_broker(NatsBroker) is provide_broker(NatsBroker)
    assert provide_broker(NatsBroker) is not provide_broker(OrderBroker)


@pytest.mark.parametrize("kind", [OrderBroker, NatsBroker])
def test_routes_get_the_broker(shared_nats: NatsServer, kind: type[NatsBroker]) -> None:
    app = asking(app_with(FastStreamRouter(OrderBroker(shared_nats.url))), kind)
    with TestClient(app) as client:
        assert client.get("/which").json() == "OrderBroker"
        with client.websocket_connect("/which") as websocket:
            assert websocket.receive_text() == "OrderBroker"


def test_routes_of_a_mounted_application_get_the_broker(broker: NatsBroker) -> None:
    app = app_with(FastStreamRouter(broker))
    app.mount("/sub", asking(FastAPI(), NatsBroker))
    with TestClient(app) as client:
        assert client.get("/sub/which").json() == "NatsBroker"
        with client.websocket_connect("/sub/which") as websocket:
            assert websocket.receive_text() == "NatsBroker"


def test_the_broker_can_be_overridden() -> None:
    app = asking(FastAPI(), NatsBroker)
    app.dependency_overrides[provide_broker(NatsBroker)] = lambda: OrderBroker(NOWHERE)
    with TestClient(app) as client:
        assert client.get("/which").json() == "OrderBroker"


def test_two_brokers_are_told_apart_by_class(shared_nats: NatsServer, broker: NatsBroker) -> None:
    app = asking(app_with(FastStreamRouter(broker, OrderBroker(shared_nats.url))), OrderBroker)
    with TestClient(app) as client:
        assert client.get("/which").json() == "OrderBroker"


def test_several_brokers_of_one_class_are_an_error(shared_nats: NatsServer, broker: NatsBroker) -> None:
    routers = FastStreamRouter(broker), FastStreamRouter(OrderBroker(shared_nats.url))
    with (
        TestClient(asking(app_with(*routers), NatsBroker)) as client,
        pytest.raises(
            BrokerNotProvidedError, match="runs 2 brokers that are a NatsBroker: give the one you want"
        ),
    ):
        client.get("/which")


def test_no_router_is_an_error(broker: NatsBroker) -> None:
    # The other application that runs one is none of this one's business.
    with (
        TestClient(app_with(FastStreamRouter(broker))),
        TestClient(asking(FastAPI(), NatsBroker)) as client,
        pytest.raises(BrokerNotProvidedError, match="runs no NatsBroker: include a FastStreamRouter"),
    ):
        client.get("/which")


def test_a_broker_of_another_class_is_an_error(broker: NatsBroker) -> None:
    with (
        TestClient(asking(app_with(FastStreamRouter(broker)), OrderBroker)) as client,
        pytest.raises(BrokerNotProvidedError, match="runs no OrderBroker"),
    ):
        client.get("/which")


def test_a_lifespan_that_did_not_run_is_an_error(broker: NatsBroker) -> None:
    app = asking(app_with(FastStreamRouter(broker)), NatsBroker)
    with pytest.raises(BrokerNotProvidedError, match="let the application's lifespan run"):
        TestClient(app).get("/which")
    with TestClient(app) as client:
        assert client.get("/which").json() == "NatsBroker"
    with pytest.raises(BrokerNotProvidedError):
        TestClient(app).get("/which")


def test_the_error_can_be_handled(broker: NatsBroker) -> None:
    app = asking(FastAPI(), NatsBroker)

    @app.exception_handler(BrokerNotProvidedError)
    async def handle(request: Request, error: BrokerNotProvidedError) -> Response:
        return PlainTextResponse("no broker", 503)

    assert TestClient(app).get("/which").status_code == 503


# --- what is refused ---


def service() -> str:
    return "service"


def nested(inner: Any = fastapi.Depends(service)) -> Any: ...  # noqa: B008 (FastAPI's way)


class Nameless:
    """A dependency without a name."""

    def __call__(self, inner: Annotated[Any, fastapi.Depends(service)]) -> Any: ...

    def __repr__(self) -> str:
        return "Nameless()"


async def by_default(message: str, wanted: Any = fastapi.Depends(service)) -> None: ...  # noqa: B008 (as above)


async def annotated(message: str, wanted: Annotated[Any, fastapi.Depends(service)]) -> None: ...


async def secured(message: str, wanted: Annotated[Any, fastapi.Security(service)]) -> None: ...


async def by_way(message: str, wanted: Any = faststream.Depends(nested)) -> None: ...


async def by_nameless_way(message: str, wanted: Annotated[Any, faststream.Depends(Nameless())]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "where"),
    [
        (by_default, "parameter 'wanted' of the subscriber 'by_default'"),
        (annotated, "parameter 'wanted' of the subscriber 'annotated'"),
        (secured, "parameter 'wanted' of the subscriber 'secured'"),
        (by_way, "parameter 'inner' of the dependency 'nested' of the subscriber 'by_way'"),
        (
            by_nameless_way,
            "parameter 'inner' of the dependency 'Nameless()' of the subscriber 'by_nameless_way'",
        ),
    ],
)
def test_fastapi_depends_in_a_subscriber_fails_the_start(
    broker: NatsBroker,
    handler: Callable[..., Any],
    where: str,
) -> None:
    broker.subscriber("refused")(handler)
    app = app_with(FastStreamRouter(broker))
    with pytest.raises(SetupError, match=re.escape(where)) as raised, TestClient(app):
        ...
    assert str(raised.value).endswith("use faststream.Depends.")
    assert not broker.running


def test_faststream_depends_in_a_subscriber_is_fine(broker: NatsBroker, subject: str) -> None:
    received: queue.Queue[str] = queue.Queue()

    @broker.subscriber(subject)
    async def handle(message: str, wanted: Annotated[str, faststream.Depends(service)]) -> None:
        received.put(wanted)

    app = app_with(FastStreamRouter(broker))

    @app.post("/orders")
    async def publish() -> None:
        await broker.publish("hello", subject)

    with TestClient(app) as client:
        client.post("/orders")
        assert received.get(timeout=10) == "service"


async def served() -> str:
    return "served"


def by_route(app: FastAPI) -> None:
    app.get("/ready")(served)


def by_pattern(app: FastAPI) -> None:
    app.get("/{name}")(served)


def by_mount(app: FastAPI) -> None:
    app.mount("/ready", PlainTextResponse("served"))


def by_router(app: FastAPI) -> None:
    parent, child = APIRouter(), APIRouter(prefix="/{name}")
    child.get("")(served)
    parent.include_router(child)
    app.include_router(parent)


def by_other_adapter(app: FastAPI) -> None:
    app.include_router(FastStreamRouter(NatsBroker(NOWHERE), ping_path="/ready", startup="background"))


@pytest.mark.parametrize("taken", [by_route, by_pattern, by_mount, by_router, by_other_adapter])
def test_a_path_that_is_taken_fails_the_start(broker: NatsBroker, taken: Callable[[FastAPI], None]) -> None:
    app = FastAPI()
    taken(app)
    app.include_router(FastStreamRouter(broker, readiness_path="/ready"))
    with (
        pytest.raises(SetupError, match=r"^/ready/? is served (already, by|by the FastStreamRouter already)"),
        TestClient(app),
    ):
        ...


def test_the_docs_of_fastapi_are_not_taken_over(broker: NatsBroker) -> None:
    app = app_with(FastStreamRouter(broker, asyncapi_path="/docs"))
    with pytest.raises(SetupError, match="/docs is served already"), TestClient(app):
        ...
    app = app_with(FastStreamRouter(broker, asyncapi_path="/docs"), docs_url=None)
    with TestClient(app) as client:
        assert "AsyncAPI" in client.get("/docs").text


def test_other_methods_and_later_routes_are_let_be(broker: NatsBroker) -> None:
    app = FastAPI()
    app.post("/ready")(served)
    app.mount("/other", PlainTextResponse("served"))

    @app.websocket("/ready")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("served")
        await websocket.close()

    app.include_router(FastStreamRouter(broker, readiness_path="/ready"))
    app.get("/{name}")(served)
    with TestClient(app) as client:
        assert client.get("/ready").status_code == 204
        assert client.post("/ready").json() == "served"
        assert client.get("/something").json() == "served"
        with client.websocket_connect("/ready") as websocket:
            assert websocket.receive_text() == "served"


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"ping_path": "/same", "readiness_path": "/same/"}, "'/same' is served already"),
        ({"ping_path": "ping"}, "'ping' must start with"),
        ({"startup": "later"}, "startup must be"),
    ],
)
def test_what_cannot_work_is_an_error_when_built(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        FastStreamRouter(NatsBroker(NOWHERE), **keywords)


def test_an_unknown_keyword_is_an_error() -> None:
    unknown: Any = {"health_path": "/health"}
    with pytest.raises(TypeError, match=r"Unknown keyword 'health_path'\. Known are: .*ping_path"):
        FastStreamRouter(NatsBroker(NOWHERE), **unknown)


def test_a_lifespan_brings_its_keywords() -> None:
    with pytest.raises(SetupError, match="startup: give these to the BrokerLifespan itself"):
        FastStreamRouter(BrokerLifespan(NatsBroker(NOWHERE)), startup="background")


# --- under a real server ---

SERVED = """
import asyncio, os
from contextlib import asynccontextmanager
from typing import Annotated
from fastapi import Depends, FastAPI
from faststream.nats import NatsBroker
from faststream_adapters.fastapi import FastStreamRouter, provide_broker

broker = NatsBroker(os.environ["NATS_URL"])

@broker.subscriber("orders")
async def handle(order: int) -> None:
    print("handling", order, flush=True)
    await asyncio.sleep(0.5)
    print("handled", order, flush=True)

@asynccontextmanager
async def lifespan(app):
    print("host up", flush=True)
    try:
        yield
    finally:
        print("host down", flush=True)

app = FastAPI(lifespan=lifespan)
app.include_router(
    FastStreamRouter(
        broker,
        readiness_path="/ready",
        asyncapi_path="/asyncapi",
        startup_timeout=float(os.environ.get("STARTUP_TIMEOUT", "10")),
    )
)

@app.post("/orders/{order}")
async def publish(order: int, broker: Annotated[NatsBroker, Depends(provide_broker(NatsBroker))]) -> None:
    await broker.publish(order, "orders")
"""


def test_sigterm_lets_a_handler_finish(nats: NatsServer) -> None:
    with AppServer.uvicorn(SERVED, env={"NATS_URL": nats.url}, ready_path="/ready") as server:
        assert httpx.get(f"{server.url}/ready/").status_code == 204
        httpx.post(f"{server.url}/orders/7").raise_for_status()
        server.wait_output("handling 7")
        server.terminate()
        server.wait()
        output = server.output()
    assert output.index("handled 7") < output.index("host down")


def test_a_root_path_of_the_server(nats: NatsServer) -> None:
    server = AppServer.uvicorn(SERVED, "--root-path", "/svc", env={"NATS_URL": nats.url}, ready_path="/ready")
    with server, httpx.Client(base_url=server.url) as http:
        assert http.get("/ready").status_code == 204
        for page in ("/asyncapi", "/asyncapi/"):
            assert {http.get(url).status_code for url in assets(http, page)} == {200}


def test_a_failed_start_ends_the_server_and_cleans_up() -> None:
    port, held = hold_port()
    url = f"nats://user:hidden@127.0.0.1:{port}"
    with held or nullcontext():
        ended = AppServer.uvicorn(SERVED, env={"NATS_URL": url, "STARTUP_TIMEOUT": "0.5"}).run_to_exit()
    assert ended.returncode == 3
    assert "hidden" not in ended.output
    assert "could not be started within 0.5 s" in ended.output
    assert ended.output.index("host up") < ended.output.index("host down")


def test_a_route_that_comes_too_late_is_an_error(shared_nats: NatsServer) -> None:
    app = app_with(router_for(NatsBroker(shared_nats.url), readiness_path="/ready"))

    @app.get("/ready")
    async def ready() -> None:
        raise NotImplementedError

    with pytest.raises(SetupError, match="/ready is served by the FastStreamRouter already"), TestClient(app):
        ...
