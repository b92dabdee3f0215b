"""FastStreamRouter and provide_broker in FastAPI applications, with real NATS servers."""

import logging
import queue
import re
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, nullcontext
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
from faststream_adapters._lifecycle.options import State
from faststream_adapters._utils.errors import BrokerStartError
from faststream_adapters.fastapi import BrokerNotProvidedError, FastStreamRouter, provide_broker
from tests.harness.clients import eventually_status, status
from tests.harness.hosts import websocket_refusal
from tests.harness.servers import hold_port
from tests.harness.servers.asgi import AppServer
from tests.harness.servers.nats import NatsServer

with warnings.catch_warnings():
    # The oldest supported Starlette uses a name that the newest anyio deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    from fastapi.testclient import TestClient
    from starlette.testclient import WebSocketDenialResponse

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
    """Return the URLs that the docs page links to, resolved as in a browser."""
    response = client.get(page)
    assert response.status_code == 200
    links = re.findall(r'(?:href|src)="([^"#]+)"', response.text)
    return [urljoin(str(response.url), link) for link in links if "://" not in link]


@pytest.fixture
def broker(shared_nats: NatsServer) -> NatsBroker:
    return NatsBroker(shared_nats.url)


@pytest.fixture
def subject() -> str:
    return f"orders-{uuid4().hex}"


@pytest.fixture
def client(broker: NatsBroker) -> Iterator[TestClient]:
    """Return a client, which follows no redirects, for an app with every endpoint."""
    with TestClient(app_with(router_for(broker)), follow_redirects=False) as client:
        yield client


# --- endpoints ---


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", PROBES)
def test_probes_respond(client: TestClient, path: str, slash: str) -> None:
    for method in ("GET", "HEAD"):
        response = client.request(method, path + slash)
        if path == "/ping":
            assert (response.status_code, response.content) == (204, b"")
        else:
            assert (response.status_code, response.text) == (200, "ok" if method == "GET" else "")
            assert response.headers["content-type"] == "text/plain; charset=utf-8"
            assert response.headers["content-length"] == "2"
        assert response.headers["cache-control"] == "no-store"


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
def test_docs_respond(client: TestClient, path: str, content_type: str, slash: str) -> None:
    response = client.get(path + slash)
    assert response.status_code == 200
    assert response.headers["content-type"] == content_type
    head = client.head(path + slash)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == response.headers
    assert client.get(path + slash, headers={"if-none-match": response.headers["etag"]}).status_code == 304


@pytest.mark.parametrize("page", ["/asyncapi", "/asyncapi/"])
def test_the_files_of_the_page_are_served(client: TestClient, page: str) -> None:
    urls = assets(client, page)
    assert len(urls) > 2
    assert {client.get(url).status_code for url in urls} == {200}
    assert client.get("/asyncapi/nothing.css").status_code == 404


def test_metrics_respond(broker: NatsBroker) -> None:
    registry = CollectorRegistry()
    Counter("orders", "Orders.", registry=registry).inc()
    with TestClient(app_with(router_for(broker, metrics_registry=registry))) as client:
        assert "orders_total 1.0" in client.get("/metrics").text


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"])
@pytest.mark.parametrize(
    "path", ["/ready", "/ready/", "/asyncapi", "/asyncapi/", "/asyncapi.json", "/metrics"]
)
def test_other_methods_are_not_allowed(client: TestClient, path: str, method: str) -> None:
    response = client.request(method, path)
    assert response.status_code == 405
    assert {name.strip() for name in response.headers["allow"].split(",")} == {"GET", "HEAD"}


@pytest.mark.parametrize("path", ["/ready", "/asyncapi", "/asyncapi/"])
def test_a_websocket_is_refused(client: TestClient, path: str) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(path):
        ...


def test_a_path_below_an_endpoint_is_not_found(client: TestClient) -> None:
    assert client.get("/ready/more").status_code == 404


def test_no_endpoint_is_served_by_default(broker: NatsBroker) -> None:
    router = FastStreamRouter(broker)
    assert router.routes == []
    with TestClient(app_with(router)) as client:
        assert str(router.broker_lifespan.state) == "running"
        assert client.get("/ping").status_code == 404


def test_what_platforms_request_is_tried_before_all_other_paths(broker: NatsBroker) -> None:
    router = FastStreamRouter(
        broker, ping_path="/ping", readiness_path="/ready", liveness_path="/live", asyncapi_path="/docs"
    )
    paths = [route.path for route in router.routes if isinstance(route, APIRoute)]
    assert paths[:3] == ["/live", "/ready", "/ping"]


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


def test_an_endpoint_below_the_docs_is_served(broker: NatsBroker) -> None:
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
    urls += [*beside, *assets(client, "/asyncapi"), "/asyncapi/nothing"]
    del client.headers["x-token"]
    return urls


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
        assert client.get("/ready").status_code == 200
        for path in ("/asyncapi", "/asyncapi.json", "/asyncapi/asyncapi.yaml"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers=TOKEN).status_code == 200
        assert states == ["starting", "running"]
    assert states == ["starting", "running", "draining", "stopped"]


def test_a_guard_with_yield_ends_after_the_response(broker: NatsBroker) -> None:
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
        assert client.get("/ready").status_code == 200
        assert client.get("/asyncapi.yaml").status_code == 200
    assert done == ["/ready", "/asyncapi.yaml"]


def test_a_guard_can_be_overridden(broker: NatsBroker) -> None:
    app = guarded_by_router(broker)
    app.dependency_overrides[guard] = lambda: None
    with TestClient(app) as client:
        assert client.get("/asyncapi").status_code == 200


def test_the_error_handlers_of_the_application_handle_errors_of_guards(broker: NatsBroker) -> None:
    app = guarded_by_router(broker)

    @app.exception_handler(HTTPException)
    async def handle(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"problem": error.status_code}, error.status_code)

    with TestClient(app) as client:
        response = client.get("/asyncapi")
        assert (response.status_code, response.json()) == (401, {"problem": 401})
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
        assert client.get(f"{below}/ready").status_code == 200
        for page in (f"{below}/asyncapi", f"{below}/asyncapi/"):
            urls = assets(client, page)
            assert all(f"{below}/asyncapi/" in url for url in urls)
            assert {client.get(url).status_code for url in urls} == {200}
        assert client.get("/ready").status_code == 404


@pytest.mark.parametrize("prefixes", [("/a", "/b"), ("", "")])
def test_a_router_included_twice_starts_the_brokers_once(
    broker: NatsBroker, prefixes: tuple[str, str]
) -> None:
    states: list[State] = []
    router = router_for(broker, on_state_change=lambda _, new: states.append(new))
    app = FastAPI()
    for prefix in prefixes:
        app.include_router(router, prefix=prefix)

    @app.get("/same")
    async def same(provided: Annotated[NatsBroker, fastapi.Depends(provide_broker(NatsBroker))]) -> bool:
        return provided is broker

    with TestClient(app) as client:
        for prefix in prefixes:
            assert client.get(f"{prefix}/ready").status_code == 200
            assert client.get(f"{prefix}/asyncapi").status_code == 200
        assert client.get("/same").json() is True
        assert states == ["starting", "running"]
    assert states == ["starting", "running", "draining", "stopped"]


# FastAPI 0.165 recommends setting it in the server.
@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
@pytest.mark.parametrize("in_front", ["", "/svc"])
def test_the_root_path_of_the_application(broker: NatsBroker, in_front: str) -> None:
    # A proxy may strip the prefix from the path, or keep it.
    app = app_with(router_for(broker, prefix="/events"), root_path="/svc")
    with TestClient(app, follow_redirects=False) as client:
        assert client.get(f"{in_front}/events/ready").status_code == 200
        for page in (f"{in_front}/events/asyncapi", f"{in_front}/events/asyncapi/"):
            urls = assets(client, page)
            assert {client.get(url).status_code for url in urls} == {200}


def test_a_parameter_in_the_prefix(broker: NatsBroker) -> None:
    with TestClient(app_with(router_for(broker, prefix="/{tenant}"))) as client:
        assert client.get("/one/ready").status_code == 200
        assert {client.get(url).status_code for url in assets(client, "/two/asyncapi")} == {200}


def test_a_mounted_application_is_not_started_and_logs_that_once(
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
    assert sum("readiness endpoint was called" in record.message for record in caplog.records) == 1


def test_a_mounted_application_whose_lifespan_is_entered_works(broker: NatsBroker) -> None:
    sub = app_with(router_for(broker))

    @sub.get("/same")
    async def same(provided: Annotated[NatsBroker, fastapi.Depends(provide_broker(NatsBroker))]) -> bool:
        return provided is broker

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with sub.router.lifespan_context(sub):
            yield

    app = FastAPI(lifespan=lifespan)
    app.mount("/sub", sub)
    with TestClient(app) as client:
        assert client.get("/sub/ready").status_code == 200
        assert client.get("/sub/same").json() is True


# --- the AsyncAPI document ---


@pytest.mark.parametrize("path", ["/asyncapi.json", "/asyncapi/asyncapi.json"])
def test_the_document_has_the_title_of_the_application(broker: NatsBroker, path: str) -> None:
    app = app_with(router_for(broker), title="Orders", version="1.2.3", description="All about *orders*.")
    with TestClient(app) as client:
        info = client.get(path).json()["info"]
        assert info == {"title": "Orders", "version": "1.2.3", "description": "All about *orders*."}
        assert "<title>Orders" in client.get("/asyncapi").text


def test_a_given_specification_keeps_its_title(broker: NatsBroker) -> None:
    given = AsyncAPI(broker, title="Given", version="3.0")
    with TestClient(app_with(router_for(broker, specification=given), title="Orders")) as client:
        assert client.get("/asyncapi.json").json()["info"] == {"title": "Given", "version": "3.0"}


def test_a_faststream_app_keeps_its_title(broker: NatsBroker) -> None:
    target = FastStream(broker, specification=AsyncAPI(title="Consumers", version="4.0"))
    with TestClient(app_with(router_for(target), title="Orders")) as client:
        assert client.get("/asyncapi.json").json()["info"] == {"title": "Consumers", "version": "4.0"}


# --- OpenAPI ---


def test_openapi_does_not_list_the_endpoints_by_default(broker: NatsBroker) -> None:
    def schema(*routers: APIRouter) -> Any:
        app = app_with(*routers, title="Orders")

        @app.get("/orders")
        async def orders() -> None: ...

        return app.openapi()

    assert schema(router_for(broker)) == schema()


def test_openapi_lists_each_endpoint_once_with_include_in_schema(broker: NatsBroker) -> None:
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


def test_openapi_lists_routes_added_to_the_router(broker: NatsBroker) -> None:
    router = router_for(broker, prefix="/orders")

    @router.get("/all")
    async def orders() -> list[int]:
        return [1]

    app = app_with(router)
    assert list(app.openapi()["paths"]) == ["/orders/all"]
    with TestClient(app) as client:
        assert client.get("/orders/all").json() == [1]


# --- lifespan ---


def test_brokers_start_after_the_application_and_stop_before_it(broker: NatsBroker) -> None:
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
        text: str = request.state.greeting
        return text

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
    async def publish(provided: Annotated[NatsBroker, fastapi.Depends(provide_broker(NatsBroker))]) -> None:
        await provided.publish("hello", subject)

    # Each run uses another event loop.
    for _ in range(2):
        with TestClient(app) as client:
            assert client.get("/ready").status_code == 200
            assert client.post("/orders").status_code == 200
            assert received.get(timeout=10) == ("hello", app)
        assert not broker.running


async def test_the_router_works_with_a_test_broker(subject: str) -> None:
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
            assert (await http.get("/ready")).status_code == 200
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
    """A subclass that distinguishes one broker from another."""


def add_broker_routes(app: FastAPI, kind: type[Any]) -> FastAPI:
    """Add routes that return the class of the broker they receive."""

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


def test_provide_broker_returns_the_same_function_each_time() -> None:
    assert provide_broker(NatsBroker) is provide_broker(NatsBroker)
    assert provide_broker(NatsBroker, name="orders") is provide_broker(NatsBroker, name="orders")
    assert provide_broker(NatsBroker, optional=True) is provide_broker(NatsBroker, optional=True)
    functions = (
        provide_broker(NatsBroker),
        provide_broker(OrderBroker),
        provide_broker(NatsBroker, name="orders"),
        provide_broker(NatsBroker, optional=True),
    )
    assert len(set(functions)) == len(functions)


@pytest.mark.parametrize("kind", [OrderBroker, NatsBroker])
def test_routes_get_the_broker(shared_nats: NatsServer, kind: type[NatsBroker]) -> None:
    app = add_broker_routes(app_with(FastStreamRouter(OrderBroker(shared_nats.url))), kind)
    with TestClient(app) as client:
        assert client.get("/which").json() == "OrderBroker"
        with client.websocket_connect("/which") as websocket:
            assert websocket.receive_text() == "OrderBroker"


def test_routes_of_a_mounted_application_get_the_broker(broker: NatsBroker) -> None:
    app = app_with(FastStreamRouter(broker))
    app.mount("/sub", add_broker_routes(FastAPI(), NatsBroker))
    with TestClient(app) as client:
        assert client.get("/sub/which").json() == "NatsBroker"
        with client.websocket_connect("/sub/which") as websocket:
            assert websocket.receive_text() == "NatsBroker"


def test_the_broker_can_be_overridden() -> None:
    app = add_broker_routes(FastAPI(), NatsBroker)
    app.dependency_overrides[provide_broker(NatsBroker)] = lambda: OrderBroker(NOWHERE)
    with TestClient(app) as client:
        assert client.get("/which").json() == "OrderBroker"


def test_two_brokers_are_distinguished_by_class(shared_nats: NatsServer, broker: NatsBroker) -> None:
    app = add_broker_routes(app_with(FastStreamRouter(broker, OrderBroker(shared_nats.url))), OrderBroker)
    with TestClient(app) as client:
        assert client.get("/which").json() == "OrderBroker"


def test_several_brokers_of_one_class_are_an_error(shared_nats: NatsServer, broker: NatsBroker) -> None:
    routers = FastStreamRouter(broker), FastStreamRouter(OrderBroker(shared_nats.url))
    with (
        TestClient(add_broker_routes(app_with(*routers), NatsBroker)) as client,
        pytest.raises(
            BrokerNotProvidedError,
            match="runs 2 brokers of the class NatsBroker: name the brokers with FastStreamRouter",
        ),
    ):
        client.get("/which")


def add_named_route(app: FastAPI, path: str, name: str) -> None:
    """Add a route that returns the names of a broker's servers."""

    @app.get(path)
    async def named(
        broker: Annotated[NatsBroker, fastapi.Depends(provide_broker(NatsBroker, name=name))],
    ) -> Any:
        return broker.specification.url


def test_several_brokers_of_one_class_are_distinguished_by_name(
    nats: NatsServer, shared_nats: NatsServer
) -> None:
    app = app_with(FastStreamRouter(NatsBroker(nats.url), NatsBroker(shared_nats.url), names=("one", "two")))
    for name in ("one", "two", "three"):
        add_named_route(app, f"/{name}", name)
    with TestClient(app) as client:
        assert client.get("/one").json() == [nats.url]
        assert client.get("/two").json() == [shared_nats.url]
        with pytest.raises(BrokerNotProvidedError, match="runs no NatsBroker named 'three'"):
            client.get("/three")


def test_the_brokers_of_several_routers_are_distinguished_by_name(
    nats: NatsServer, shared_nats: NatsServer
) -> None:
    shared = BrokerLifespan(NatsBroker(shared_nats.url))
    app = app_with(
        FastStreamRouter(NatsBroker(nats.url)),
        FastStreamRouter(shared, names=["two"]),
        FastStreamRouter(shared, names=["again"]),
    )
    for name in ("two", "again"):
        add_named_route(app, f"/{name}", name)
    with TestClient(app) as client:
        assert client.get("/two").json() == client.get("/again").json() == [shared_nats.url]


def test_two_brokers_of_one_name_are_an_error(broker: NatsBroker, shared_nats: NatsServer) -> None:
    app = app_with(
        FastStreamRouter(broker, names=["same"]),
        FastStreamRouter(NatsBroker(shared_nats.url), names=["same"]),
    )
    add_named_route(app, "/same", "same")
    with TestClient(app) as client, pytest.raises(BrokerNotProvidedError, match=r"2 brokers .* named 'same'"):
        client.get("/same")


@pytest.mark.parametrize("names", [(), ("one",), ("one", "one"), ("one", "two", "three")])
def test_the_names_must_match_the_brokers(names: tuple[str, ...]) -> None:
    with pytest.raises(SetupError, match=r"do not match the brokers: .* 2 different names"):
        FastStreamRouter(NatsBroker(NOWHERE), OrderBroker(NOWHERE), names=names)


def test_the_brokers_of_a_faststream_app_are_named_when_it_starts(
    broker: NatsBroker, nats: NatsServer
) -> None:
    stream = FastStream(broker)

    @stream.on_startup
    def add_broker() -> None:
        stream.add_broker(late)

    late = NatsBroker(nats.url)
    app = app_with(FastStreamRouter(stream, names=("first", "late")))
    add_named_route(app, "/late", "late")
    with TestClient(app) as client:
        assert client.get("/late").json() == [nats.url]
    app = app_with(FastStreamRouter(FastStream(NatsBroker(nats.url)), names=("one", "two")))
    with pytest.raises(SetupError, match="do not match the brokers"), TestClient(app):
        ...


def add_optional_route(app: FastAPI) -> None:
    """Add a route that returns whether the broker is up, and one that requires it."""
    optional = Annotated[NatsBroker | None, fastapi.Depends(provide_broker(NatsBroker, optional=True))]

    @app.get("/optional")
    async def is_up(broker: optional) -> bool:
        return broker is not None

    @app.websocket("/optional")
    async def is_up_over_websocket(websocket: WebSocket, broker: optional) -> None:
        await websocket.accept()
        await websocket.send_json(broker is not None)
        await websocket.close()

    # FastAPI calls each dependency of a request once.
    @app.get("/both")
    async def both(
        first: optional, second: Annotated[NatsBroker, fastapi.Depends(provide_broker(NatsBroker))]
    ) -> bool:
        return first is second


@pytest.mark.full
def test_an_optional_broker_that_is_not_up_is_none() -> None:
    server = NatsServer()
    app = app_with(FastStreamRouter(NatsBroker(server.url), startup="background"))
    add_optional_route(app)
    with closing(server), TestClient(app) as client:
        assert client.get("/optional").json() is False
        with client.websocket_connect("/optional") as websocket:
            assert websocket.receive_json() is False
        assert client.get("/both").status_code == 503
        server.start()
        deadline = time.monotonic() + 20.0
        while not client.get("/optional").json():
            assert time.monotonic() < deadline
            time.sleep(0.05)  # for the server
        assert client.get("/both").json() is True
        with client.websocket_connect("/optional") as websocket:
            assert websocket.receive_json() is True


def test_an_optional_broker_that_the_application_does_not_run_is_an_error() -> None:
    app = FastAPI()
    add_optional_route(app)
    with TestClient(app) as client, pytest.raises(BrokerNotProvidedError, match="runs no NatsBroker"):
        client.get("/optional")


def test_one_override_replaces_a_broker_also_where_it_is_optional() -> None:
    app = FastAPI()
    add_optional_route(app)
    replacement = NatsBroker(NOWHERE)
    app.dependency_overrides[provide_broker(NatsBroker)] = lambda: replacement
    with TestClient(app) as client:
        assert client.get("/optional").json() is True
        assert client.get("/both").json() is True


def test_openapi_does_not_mention_provided_brokers() -> None:
    app = FastAPI()
    add_optional_route(app)
    operations = [path["get"] for path in app.openapi()["paths"].values()]
    assert not any("security" in operation or "parameters" in operation for operation in operations)


async def test_a_websocket_is_closed_if_the_server_cannot_respond_to_it() -> None:
    app = add_broker_routes(app_with(FastStreamRouter(NatsBroker(NOWHERE), startup="background")), NatsBroker)
    async with app.router.lifespan_context(app):
        [refusal, *_] = await websocket_refusal(app, "/which", denial=True)
        assert (refusal["type"], refusal["status"]) == ("websocket.http.response.start", 503)
        [refusal] = await websocket_refusal(app, "/which", denial=False)
        assert (refusal["type"], refusal["code"]) == ("websocket.close", 1013)
        assert refusal["reason"] == "The NatsBroker is not up."


def test_no_router_is_an_error(broker: NatsBroker) -> None:
    # Brokers of other applications are not provided.
    with (
        TestClient(app_with(FastStreamRouter(broker))),
        TestClient(add_broker_routes(FastAPI(), NatsBroker)) as client,
        pytest.raises(BrokerNotProvidedError, match="runs no NatsBroker: include a FastStreamRouter"),
    ):
        client.get("/which")


def test_a_broker_of_another_class_is_an_error(broker: NatsBroker) -> None:
    with (
        TestClient(add_broker_routes(app_with(FastStreamRouter(broker)), OrderBroker)) as client,
        pytest.raises(BrokerNotProvidedError, match="runs no OrderBroker"),
    ):
        client.get("/which")


def test_a_lifespan_that_is_not_running_is_an_error(broker: NatsBroker) -> None:
    app = add_broker_routes(app_with(FastStreamRouter(broker)), NatsBroker)
    with pytest.raises(BrokerNotProvidedError, match="let the application's lifespan run"):
        TestClient(app).get("/which")
    with TestClient(app) as client:
        assert client.get("/which").json() == "NatsBroker"
    with pytest.raises(BrokerNotProvidedError):
        TestClient(app).get("/which")


def test_a_broker_that_is_not_up_is_unavailable() -> None:
    server = NatsServer()
    router = FastStreamRouter(NatsBroker(server.url), startup="background")
    app = add_broker_routes(app_with(router), NatsBroker)
    with closing(server), TestClient(app) as client:
        response = client.get("/which")
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert response.json() == {"detail": "The NatsBroker is not up."}
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/which"):
            ...
        assert denied.value.status_code == 503
        server.start()
        deadline = time.monotonic() + 20.0
        while client.get("/which").status_code == 503:
            assert time.monotonic() < deadline
            time.sleep(0.05)  # for the server
        assert client.get("/which").json() == "NatsBroker"


async def test_a_broker_whose_client_has_given_up_is_unavailable(nats: NatsServer) -> None:
    router = FastStreamRouter(NatsBroker(nats.url, allow_reconnect=False), supervise=False)
    app = add_broker_routes(app_with(router), NatsBroker)
    async with app.router.lifespan_context(app):
        assert await status(app, "/which") == 200
        nats.kill()
        await eventually_status(app, 503, path="/which")


@pytest.mark.parametrize("optional", [False, True])
async def test_a_broker_in_memory_is_available(optional: bool) -> None:
    broker = NatsBroker(NOWHERE)
    router = FastStreamRouter(broker, optional=[broker] if optional else [])
    app = add_broker_routes(app_with(router), NatsBroker)
    async with TestNatsBroker(broker, connect_only=False), app.router.lifespan_context(app):
        assert await status(app, "/which") == 200


def test_the_error_can_be_handled(broker: NatsBroker) -> None:
    app = add_broker_routes(FastAPI(), NatsBroker)

    @app.exception_handler(BrokerNotProvidedError)
    async def handle(request: Request, error: BrokerNotProvidedError) -> Response:
        return PlainTextResponse("no broker", 503)

    assert TestClient(app).get("/which").status_code == 503


# --- what is refused ---


def service() -> str:
    return "service"


def test_faststream_depends_in_a_subscriber_is_allowed(broker: NatsBroker, subject: str) -> None:
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


@pytest.mark.parametrize("add_route", [by_route, by_pattern, by_mount, by_router, by_other_adapter])
def test_a_path_in_use_fails_the_start(broker: NatsBroker, add_route: Callable[[FastAPI], None]) -> None:
    app = FastAPI()
    add_route(app)
    app.include_router(FastStreamRouter(broker, readiness_path="/ready"))
    with (
        pytest.raises(SetupError, match=r"^/ready/? is served (already by|by the FastStreamRouter already)"),
        TestClient(app),
    ):
        ...


def test_the_docs_of_fastapi_are_not_replaced(broker: NatsBroker) -> None:
    app = app_with(FastStreamRouter(broker, asyncapi_path="/docs"))
    with pytest.raises(SetupError, match="/docs is served already"), TestClient(app):
        ...
    app = app_with(FastStreamRouter(broker, asyncapi_path="/docs"), docs_url=None)
    with TestClient(app) as client:
        assert "AsyncAPI" in client.get("/docs").text


def test_other_methods_and_later_routes_are_allowed(broker: NatsBroker) -> None:
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
        assert client.get("/ready").status_code == 200
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
def test_invalid_arguments_are_refused_when_the_router_is_created(
    keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(SetupError, match=message):
        FastStreamRouter(NatsBroker(NOWHERE), **keywords)


def test_an_unknown_keyword_is_an_error() -> None:
    unknown: Any = {"health_path": "/health"}
    with pytest.raises(TypeError, match=r"Unknown keyword 'health_path'\. Known keywords: .*ping_path"):
        FastStreamRouter(NatsBroker(NOWHERE), **unknown)


def test_lifespan_keywords_with_a_lifespan_are_refused() -> None:
    with pytest.raises(SetupError, match="startup: pass these to the BrokerLifespan itself"):
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


@pytest.mark.full
def test_sigterm_lets_a_handler_finish(nats: NatsServer) -> None:
    with AppServer.uvicorn(SERVED, env={"NATS_URL": nats.url}, ready_path="/ready") as server:
        assert httpx.get(f"{server.url}/ready/").status_code == 200
        httpx.post(f"{server.url}/orders/7").raise_for_status()
        server.wait_output("handling 7")
        server.terminate()
        server.wait()
        output = server.output()
    assert output.index("handled 7") < output.index("host down")


@pytest.mark.full
def test_the_root_path_of_the_server(nats: NatsServer) -> None:
    server = AppServer.uvicorn(SERVED, "--root-path", "/svc", env={"NATS_URL": nats.url}, ready_path="/ready")
    with server, httpx.Client(base_url=server.url) as http:
        assert http.get("/ready").status_code == 200
        for page in ("/asyncapi", "/asyncapi/"):
            assert {http.get(url).status_code for url in assets(http, page)} == {200}


@pytest.mark.full
def test_a_failed_start_stops_the_server_and_releases_resources() -> None:
    port, held = hold_port()
    url = f"nats://user:hidden@127.0.0.1:{port}"
    with held or nullcontext():
        ended = AppServer.uvicorn(SERVED, env={"NATS_URL": url, "STARTUP_TIMEOUT": "0.5"}).run_to_exit()
    assert ended.returncode == 3
    assert "hidden" not in ended.output
    assert "could not be started within 0.5 s" in ended.output
    assert ended.output.index("host up") < ended.output.index("host down")


def test_a_later_route_with_the_path_of_an_endpoint_is_an_error(shared_nats: NatsServer) -> None:
    app = app_with(router_for(NatsBroker(shared_nats.url), readiness_path="/ready"))

    @app.get("/ready")
    async def ready() -> None:
        raise NotImplementedError

    with pytest.raises(SetupError, match="/ready is served by the FastStreamRouter already"), TestClient(app):
        ...
