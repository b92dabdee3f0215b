"""Litestar-specific behaviour of FastStreamPlugin. The conformance suite tests the behaviour of all hosts."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from faststream import Context, FastStream
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker, TestNatsBroker
from litestar import Litestar, MediaType, Request, Response, WebSocket, asgi, delete, get, post, websocket
from litestar.config.compression import CompressionConfig
from litestar.connection import ASGIConnection
from litestar.datastructures import CacheControlHeader, ImmutableState, ResponseHeader, State
from litestar.di import Provide
from litestar.exceptions import NotAuthorizedException
from litestar.middleware import ASGIMiddleware
from litestar.openapi import OpenAPIConfig
from litestar.plugins import InitPlugin
from litestar.testing import AsyncTestClient, TestClient

from faststream_adapters import BrokerLifespan
from faststream_adapters._hosting.options import AdapterKeywords
from faststream_adapters._utils.errors import BrokerStartError
from faststream_adapters.litestar import FastStreamPlugin
from tests.harness.servers.asgi import AppServer
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from litestar.config.app import AppConfig
    from litestar.handlers import BaseRouteHandler
    from litestar.types import ASGIApp, Receive, Scope, Send

    from tests.harness.servers.nats import NatsServer

# Litestar 2.25 recommends parameter markers that the oldest supported version does not have.
pytestmark = pytest.mark.filterwarnings("ignore:.*[Ii]nferred (style|dependency)")

PATHS: AdapterKeywords = {"readiness_path": "/ready", "asyncapi_path": "/docs", "ping_path": "/ping"}


class OrdersBroker(NatsBroker):
    """A second broker class."""


class AuditLogBroker(NatsBroker):
    """A third broker class, whose name has two words before the suffix."""


def litestar(*plugins: Any, handlers: Any = (), **options: Any) -> Litestar:
    # Litestar's own logging configuration is global.
    return Litestar(list(handlers), plugins=list(plugins), logging_config=None, **options)


def status(app: Litestar, path: str, **options: Any) -> int:
    """Return the status of a request to an application that has not been started."""
    return TestClient(app).get(path, **options).status_code


# --- brokers by injection ---


def test_the_broker_is_injected_and_in_the_state(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    received: list[str] = []

    @broker.subscriber("litestar.orders")
    async def accept(order: str) -> str:
        received.append(order)
        return f"{order} accepted"

    @post("/orders/{order:str}", media_type=MediaType.TEXT)
    async def place(order: str, broker: NatsBroker) -> str:
        reply = await broker.request(order, "litestar.orders", timeout=5.0)
        return str(await reply.decode())

    @websocket("/socket")
    async def socket_orders(socket: WebSocket[Any, Any, Any], broker: NatsBroker) -> None:
        await socket.accept()
        reply = await broker.request("cake", "litestar.orders", timeout=5.0)
        await socket.send_text(str(await reply.decode()))
        await socket.close()

    app = litestar(FastStreamPlugin(broker), handlers=[place, socket_orders])
    for _ in range(2):  # the second run uses another event loop
        with TestClient(app) as client:
            assert client.post("/orders/tea").text == "tea accepted"
            with client.websocket_connect("/socket") as socket:
                assert socket.receive_text() == "cake accepted"
        assert not broker.running
    assert received == ["tea", "cake"] * 2
    assert app.state.broker is broker


@pytest.mark.parametrize("kind", [ImmutableState, State])
async def test_routes_get_a_copy_of_the_state_with_the_same_broker(kind: Any) -> None:
    broker = NatsBroker()
    copies: list[Any] = []

    async def show(state: Any) -> None:
        copies.append(state)

    show.__annotations__["state"] = kind
    app = litestar(FastStreamPlugin(broker), handlers=[get("/")(show)], state=State({"shop": {"open": True}}))
    async with TestNatsBroker(broker), AsyncTestClient(app) as client:
        assert (await client.get("/")).status_code == 200
    [copied] = copies
    assert copied.broker is broker
    assert copied.shop == {"open": True}


def test_several_brokers_are_named_after_their_classes() -> None:
    nats, orders, audit = NatsBroker(), OrdersBroker(), AuditLogBroker()

    @get("/")
    async def names(
        nats_broker: NatsBroker, orders_broker: OrdersBroker, audit_log_broker: AuditLogBroker
    ) -> list[str]:
        return [type(broker).__name__ for broker in (nats_broker, orders_broker, audit_log_broker)]

    app = litestar(FastStreamPlugin(nats, orders, audit), handlers=[names])
    assert TestClient(app).get("/").json() == ["NatsBroker", "OrdersBroker", "AuditLogBroker"]
    assert app.state.audit_log_broker is audit
    assert "broker" not in app.state


def test_two_brokers_of_one_class_need_names() -> None:
    brokers = NatsBroker(), NatsBroker()
    with pytest.raises(SetupError, match=r"Brokers of one class need names: pass names=\(\.\.\.\) with 2"):
        litestar(FastStreamPlugin(*brokers))

    @get("/")
    async def which(orders_broker: NatsBroker, audit_broker: NatsBroker) -> list[bool]:
        return [orders_broker is brokers[0], audit_broker is brokers[1]]

    plugin = FastStreamPlugin(*brokers, names=("orders_broker", "audit_broker"))
    assert TestClient(litestar(plugin, handlers=[which])).get("/").json() == [True, True]


@pytest.mark.parametrize("names", [(), ("a",), ("a", "a"), ("a", "b", "c"), ("a", "b", "b")], ids=repr)
def test_names_must_match_the_brokers(names: tuple[str, ...]) -> None:
    with pytest.raises(SetupError, match=r"The names do not match the brokers: .* 2 different names"):
        litestar(FastStreamPlugin(NatsBroker(), NatsBroker(), names=names))


def test_a_name_in_use_is_an_error() -> None:
    error = "already has a dependency or a state named 'broker'"
    mine = Provide(lambda: "mine", sync_to_thread=False)

    class Later(InitPlugin):
        def on_app_init(self, app_config: AppConfig) -> AppConfig:
            app_config.dependencies["broker"] = mine
            return app_config

    with pytest.raises(SetupError, match=error):
        litestar(FastStreamPlugin(NatsBroker()), dependencies={"broker": mine})
    with pytest.raises(SetupError, match=error):
        litestar(FastStreamPlugin(NatsBroker()), state=State({"broker": {}}))
    with pytest.raises(SetupError, match=error):
        litestar(FastStreamPlugin(NatsBroker()), FastStreamPlugin(NatsBroker()))
    with pytest.raises(SetupError, match=error):
        litestar(FastStreamPlugin(NatsBroker()), Later())


def test_several_plugins_in_one_application(nats: NatsServer) -> None:
    states: list[str] = []
    shared = BrokerLifespan(NatsBroker(nats.url), on_state_change=lambda _, new: states.append(new))
    other = NatsBroker(nats.url)
    app = litestar(
        FastStreamPlugin(shared, readiness_path="/ready"),
        FastStreamPlugin(shared, asyncapi_path="/docs"),
        FastStreamPlugin(other, names=["other_broker"], readiness_path="/other"),
    )
    with TestClient(app) as client:
        assert [client.get(path).status_code for path in ("/ready", "/docs", "/other")] == [200, 200, 200]
        assert app.state.broker is shared.brokers[0]
        assert app.state.other_broker is other
    assert states == ["starting", "running", "draining", "stopped"]


def test_one_plugin_can_be_used_in_several_applications(nats: NatsServer) -> None:
    plugin = FastStreamPlugin(NatsBroker(nats.url), readiness_path="/ready")
    state = State({"shared": "by both"})  # Litestar treats an empty state like None

    @get("/")
    async def injected(broker: NatsBroker) -> bool:
        return broker is state.broker

    for _ in range(2):
        with TestClient(litestar(plugin, handlers=[injected], state=state)) as client:
            assert client.get("/ready").status_code == 200
            assert client.get("/").json() is True


# --- start and stop ---


class EventLog:
    """Records events, and whether the broker was running at each of them."""

    def __init__(self, broker: NatsBroker) -> None:
        self.broker = broker
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        self.lines.append(f"{line}, {'up' if self.broker.running else 'down'}")

    def hook(self, line: str) -> Any:
        return lambda: self.add(line)

    def lifespan(self, name: str) -> Any:
        @asynccontextmanager
        async def lifespan(app: Litestar) -> AsyncIterator[None]:
            self.add(f"+{name}")
            try:
                yield
            finally:
                self.add(f"-{name}")

        return lifespan


class Resource(InitPlugin):
    """A plugin with a lifespan and hooks, like those of databases."""

    def __init__(self, log: EventLog) -> None:
        self.log = log

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        app_config.lifespan.append(self.log.lifespan("plugin"))
        app_config.on_startup.append(self.log.hook("plugin startup"))
        return app_config


HOST_UP = ["+user, down", "+plugin, down", "startup, down", "plugin startup, down"]
HOST_DOWN = ["-plugin, down", "-user, down", "shutdown, down"]


def logged(broker: NatsBroker, **keywords: Any) -> tuple[Litestar, EventLog]:
    log = EventLog(broker)
    app = litestar(
        FastStreamPlugin(broker, **keywords),
        Resource(log),
        lifespan=[log.lifespan("user")],
        on_startup=[log.hook("startup")],
        on_shutdown=[log.hook("shutdown")],
    )
    return app, log


def raises_in_groups(error: type[Exception], match: str) -> Any:
    """Expect an error that Litestar may have wrapped in exception groups."""
    expected = pytest.RaisesExc(error, match=match)
    return pytest.RaisesGroup(expected, allow_unwrapped=True, flatten_subgroups=True)


def test_brokers_start_last_and_stop_first(nats: NatsServer) -> None:
    """The order does not depend on later plugins or on hooks added to the finished application."""
    broker = NatsBroker(nats.url)
    app, log = logged(broker)
    app.on_startup.append(log.hook("late startup"))
    for _ in range(2):
        log.lines.clear()
        with TestClient(app):
            log.add("serving")
        assert log.lines == [*HOST_UP, "late startup, down", "serving, up", *HOST_DOWN]


def test_a_broker_that_cannot_start_fails_the_startup(nats: NatsServer) -> None:
    nats.stop()
    app, log = logged(NatsBroker(nats.url), startup_timeout=0.2)
    for _ in range(2):
        log.lines.clear()
        with raises_in_groups(BrokerStartError, r"could not be started within 0\.2 s"):
            TestClient(app).__enter__()
        assert log.lines == [*HOST_UP, *HOST_DOWN]
    nats.start()
    with TestClient(app):
        assert log.broker.running


def test_brokers_do_not_start_if_a_hook_fails(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    app, log = logged(broker)

    def fail() -> None:
        raise KeyError("late")

    app.on_startup.append(fail)
    with raises_in_groups(KeyError, "late"):
        TestClient(app).__enter__()
    assert log.lines == [*HOST_UP, *HOST_DOWN]
    app.on_startup.remove(fail)
    with TestClient(app):
        assert broker.running


async def test_a_faststream_app_runs_with_its_hooks_and_sees_the_host(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    seen: list[str] = []

    # Litestar's client runs the application in another event loop.
    @broker.subscriber("litestar.host")
    async def handle(message: str, host: Any = Context()) -> None:
        seen.append(host.state.greeting)

    async def send() -> None:
        await broker.publish("hello", "litestar.host")

    app = litestar(
        FastStreamPlugin(FastStream(broker, after_startup=[send]), **PATHS),
        state=State({"greeting": "good day"}),
    )
    async with AsyncTestClient(app) as client:
        await eventually(lambda: seen == ["good day"])
        assert (await client.get("/ready")).status_code == 200
        assert app.state.broker is broker


# --- endpoints as Litestar's routes ---


def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    if connection.headers.get("x-token") != handler.opt.get("token", "secret"):
        raise NotAuthorizedException(detail="Show a token.")


@pytest.mark.parametrize("where", ["plugin", "app"])
def test_guards_apply_to_every_url_and_method(where: str) -> None:
    guards: Any = {"guards": [guard]}
    app = litestar(
        FastStreamPlugin(NatsBroker(), **PATHS, **(guards if where == "plugin" else {})),
        **(guards if where == "app" else {}),
    )
    urls = ["/ready", "/ping/", "/docs", "/docs/", "/docs.json", "/docs/asyncapi.yaml", "/docs/nothing"]
    client = TestClient(app)
    for url in urls:
        for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS"):
            assert client.request(method, url).status_code == 401, (method, url)
            assert client.request(method, url, headers={"x-token": "secret"}).status_code != 401, (
                method,
                url,
            )


def test_guards_can_read_opt() -> None:
    app = litestar(FastStreamPlugin(NatsBroker(), ping_path="/ping", guards=[guard], opt={"token": "mine"}))
    assert status(app, "/ping", headers={"x-token": "secret"}) == 401
    assert status(app, "/ping", headers={"x-token": "mine"}) == 500


class MarkingMiddleware(ASGIMiddleware):
    """Adds a header to every response."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        async def marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-marked", b"yes"))
            await send(message)

        await next_app(scope, receive, marked)


def test_middleware_and_exception_handlers_apply() -> None:
    def teapot(request: Request[Any, Any, Any], error: Exception) -> Response[str]:
        return Response(f"{request.url.path}: {error}", status_code=418)

    app = litestar(
        FastStreamPlugin(
            NatsBroker(),
            **PATHS,
            guards=[guard],
            middleware=[MarkingMiddleware()],
            exception_handlers={NotAuthorizedException: teapot},
        )
    )
    response = TestClient(app).get("/docs.json")
    assert (response.status_code, response.text) == (418, "/docs.json: 401: Show a token.")
    response = TestClient(app).get("/ready", headers={"x-token": "secret"})
    assert (response.status_code, response.headers["x-marked"]) == (503, "yes")


def test_the_prefixes_of_the_plugin_and_the_application_are_joined() -> None:
    app = litestar(FastStreamPlugin(NatsBroker(), **PATHS, path="/internal/"), path="/api")
    for path in ("/ready", "/ping", "/internal/ping", "/api/ping", "/api/internal/docsx"):
        assert status(app, path) == 404, path
    assert status(app, "/api/internal/ready/") == 503
    page = TestClient(app, root_path="/svc").get("/svc/api/internal/docs")
    assert page.status_code == 200
    assert 'href="docs/asyncapi.json"' in page.text
    for path in ("/docs/asyncapi.json", "/docs.json", "/docs/"):
        assert status(app, f"/api/internal{path}") == 200, path


@pytest.mark.full
def test_the_docs_can_be_at_the_root() -> None:
    @get("/orders/{order:int}")
    async def order(order: int) -> int:
        return order

    app = litestar(FastStreamPlugin(NatsBroker(), asyncapi_path="/", ping_path="/ping"), handlers=[order])
    paths = {"/": 200, "/asyncapi.json": 200, "/nothing": 404, "/orders/1": 200, "/ping": 500, "/schema": 200}
    assert {path: status(app, path) for path in paths} == paths


def test_endpoints_may_be_below_the_docs() -> None:
    app = litestar(FastStreamPlugin(NatsBroker(), asyncapi_path="/docs", ping_path="/docs/ping"))
    assert status(app, "/docs/ping") == 500
    assert status(app, "/docs/asyncapi.json") == 200


def test_openapi_lists_the_endpoints_only_with_include_in_schema() -> None:
    hidden = litestar(FastStreamPlugin(NatsBroker(), **PATHS))
    assert not hidden.openapi_schema.paths
    shown = litestar(FastStreamPlugin(NatsBroker(), **PATHS, include_in_schema=True, tags=["health"]))
    paths = shown.openapi_schema.to_schema()["paths"]
    assert set(paths) == {"/ready", "/ping", "/docs", "/docs.json", "/docs.yaml"}
    assert {method for item in paths.values() for method in item} == {"get"}
    assert paths["/ready"]["get"]["tags"] == ["health"]


def test_openapi_can_be_off() -> None:
    app = litestar(FastStreamPlugin(NatsBroker(), **PATHS), openapi_config=None)
    assert status(app, "/docs") == 200


def test_the_document_has_the_title_of_the_application() -> None:
    openapi = OpenAPIConfig("Tea house", "7.0", description="Sells tea.")
    app = litestar(FastStreamPlugin(NatsBroker(), **PATHS), openapi_config=openapi)
    info = TestClient(app).get("/docs.json").json()["info"]
    assert (info["title"], info["version"], info["description"]) == ("Tea house", "7.0", "Sells tea.")


def test_headers_of_hooks_and_layers_are_added_but_replace_none() -> None:
    async def sign(response: Response[Any]) -> Response[Any]:
        response.headers["x-signed"] = "yes"
        response.set_cookie("tea", "green")
        return response

    app = litestar(
        FastStreamPlugin(NatsBroker(), **PATHS),
        after_request=sign,
        cache_control=CacheControlHeader(max_age=60),
        response_headers=[
            ResponseHeader(name="X-Layer", value="app"),
            ResponseHeader(name="Cache-Control", value="public"),
        ],
    )
    ready, ping = [TestClient(app).get(path) for path in ("/ready", "/ping")]
    assert (ready.status_code, ready.text) == (503, "not_started")
    assert (ping.status_code, ping.text) == (500, "")
    for response in (ready, ping):
        assert response.headers["x-signed"] == "yes"
        assert response.headers["x-layer"] == "app"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["content-length"] == str(len(response.content))
        assert response.cookies["tea"] == "green"
    assert ready.headers["content-type"] == "text/plain; charset=utf-8"
    assert "content-type" not in ping.headers


def test_a_before_request_hook_can_respond() -> None:
    async def refuse(request: Request[Any, Any, Any]) -> Response[str]:
        return Response("Closed.", status_code=403)

    app = litestar(FastStreamPlugin(NatsBroker(), **PATHS), before_request=refuse)
    for path in ("/ready", "/docs", "/docs/asyncapi.json"):
        assert status(app, path) == 403, path


def test_the_docs_are_compressed_once_with_litestars_compression() -> None:
    plain = litestar(FastStreamPlugin(NatsBroker(), asyncapi_path="/docs"))
    compressing = litestar(
        FastStreamPlugin(NatsBroker(), asyncapi_path="/docs"), compression_config=CompressionConfig("gzip")
    )
    responses = [
        TestClient(app).get("/docs", headers={"accept-encoding": "gzip"}) for app in (plain, compressing)
    ]
    assert [response.headers["content-encoding"] for response in responses] == ["gzip", "gzip"]
    assert responses[0].text == responses[1].text


# --- paths in use ---


@delete("/ping", status_code=200)
async def drop() -> None:
    """Serve the path of an endpoint with another method."""


@get("/docs/{page:int}")
async def page() -> None:
    """Serve paths below the docs."""


@asgi("/", is_mount=True, copy_scope=True)
async def everything(scope: Scope, receive: Receive, send: Send) -> None:
    """Receive all requests."""


@asgi("/doc", is_mount=True, copy_scope=True)
async def beside(scope: Scope, receive: Receive, send: Send) -> None:
    """Receive requests for /docs/asyncapi.json too, because Litestar matches prefixes of segments."""


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (drop, "The path '/ping' is served already"),
        (page, "route '/docs/{page:int}' receives requests for paths below '/docs'"),
        (everything, "route '/' receives requests for paths below '/docs'"),
        (beside, "route '/doc' receives requests for paths below '/docs'"),
    ],
    ids=lambda value: getattr(value, "handler_name", ""),
)
def test_a_path_that_the_application_serves_is_an_error(handler: Any, problem: str) -> None:
    with pytest.raises(SetupError, match=problem):
        litestar(FastStreamPlugin(NatsBroker(), **PATHS), handlers=[handler])


def test_a_path_that_litestar_or_another_plugin_serves_is_an_error() -> None:
    with pytest.raises(SetupError, match="The path '/schema' is served already"):
        litestar(FastStreamPlugin(NatsBroker(), ping_path="/schema"))
    with pytest.raises(SetupError, match="The path '/ping' is served already"):
        litestar(
            FastStreamPlugin(NatsBroker(), ping_path="/ping"),
            FastStreamPlugin(NatsBroker(), names=["other"], liveness_path="/ping"),
        )


def test_routes_above_and_beside_the_endpoints_are_allowed() -> None:
    @asgi("/internal", is_mount=True, copy_scope=True)
    async def mount(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("the mount's").to_asgi_response(None, Request(scope))(scope, receive, send)

    @get("/{name:str}")
    async def anything(name: str) -> str:
        return name

    app = litestar(
        FastStreamPlugin(NatsBroker(), **PATHS, path="/internal/faststream"), handlers=[mount, anything]
    )
    client = TestClient(app)
    assert client.get("/internal/other").text == "the mount's"
    assert client.get("/other").text == "other"
    assert client.get("/internal/faststream/docs/asyncapi.json").json()["asyncapi"]
    assert client.get("/internal/faststream/ping").status_code == 500


# --- in a real server, and on the command line ---

APP = """
import asyncio, os
from contextlib import asynccontextmanager
from faststream.nats import NatsBroker
from litestar import Litestar, post
from faststream_adapters.litestar import FastStreamPlugin

broker, audit = NatsBroker(os.environ["NATS_URL"]), NatsBroker(os.environ["NATS_URL"])

@broker.subscriber("orders")
@broker.publisher("done")
async def handle(order: int) -> int:
    print("handling", order, flush=True)
    await asyncio.sleep(float(os.environ.get("WORK", "0")))
    print("handled", order, flush=True)
    return order

@audit.subscriber("done")
async def note(order: int) -> None:
    print("noted", order, flush=True)

@post("/orders/{order:int}")
async def publish(order: int, broker: NatsBroker) -> None:
    await broker.publish(order, "orders")

@asynccontextmanager
async def lifespan(app):
    print("host up", flush=True)
    try:
        yield
    finally:
        print("host down", flush=True)

app = Litestar(
    [publish],
    lifespan=[lifespan],
    plugins=[
        FastStreamPlugin(
            broker, readiness_path="/ready", startup_timeout=0.5, consume="CONSUME" not in os.environ
        ),
        FastStreamPlugin(audit, names=["audit_broker"]),
    ],
)
"""


def command(*words: str, url: str, **environment: str) -> AppServer:
    return AppServer(
        [sys.executable, "-m", "litestar", *words],
        app=APP,
        env={"NATS_URL": url, "LITESTAR_APP": "main:app", **environment},
        ready_path=None,
    )


@pytest.mark.full
def test_handlers_finish_when_uvicorn_stops(nats: NatsServer) -> None:
    with AppServer.uvicorn(APP, env={"NATS_URL": nats.url, "WORK": "0.3"}, ready_path="/ready") as server:
        assert httpx.get(f"{server.url}/ready").status_code == 200
        assert httpx.post(f"{server.url}/orders/7").status_code == 201
        server.wait_output("handling 7")
        server.terminate()
        assert server.wait() == -signal.SIGTERM
        output = server.output()
        assert output.index("host up") < output.index("handled 7") < output.index("host down")


@pytest.mark.full
def test_uvicorn_reports_a_failed_start(nats: NatsServer) -> None:
    nats.stop()
    url = f"nats://user:hunter2@127.0.0.1:{nats.port}"
    ended = AppServer.uvicorn(APP, env={"NATS_URL": url}).run_to_exit()
    assert ended.returncode == 3
    assert "could not be started within 0.5 s: the connection was refused." in ended.output
    assert "hunter2" not in ended.output
    assert "host down" in ended.output


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, id="SIGTERM"),
        pytest.param(signal.SIGINT, id="SIGINT", marks=pytest.mark.full),
    ],
)
async def test_litestar_faststream_run_consumes_until_a_signal(nats: NatsServer, number: int) -> None:
    # For the web processes of this application, `consume` is False.
    with command("faststream", "run", url=nats.url, WORK="0.5", CONSUME="no") as process:
        await asyncio.to_thread(process.wait_output, "host up")
        async with BrokerLifespan(sender := NatsBroker(nats.url)):
            async with asyncio.timeout(10):
                while "handling" not in process.output():
                    await sender.publish(1, "orders")
                    await asyncio.sleep(0.05)
        process.process.send_signal(number)
        assert await asyncio.to_thread(process.wait) == 0
        output = process.output()
    assert output.index("host up") < output.index("handled 1") < output.index("host down")
    assert output.count("handling") == output.count("handled")
    assert "Brokers: starting -> running" in output


@pytest.mark.full
def test_litestar_faststream_run_serves_the_endpoints_of_the_plugins(
    nats: NatsServer, free_address: str
) -> None:
    words = ("faststream", "run", "--listen", free_address, "--subscriber", "handle")
    with command(*words, url=nats.url, CONSUME="no") as process:
        process.wait_output("host up")
        assert httpx.get(f"http://{free_address}/ready").text == "ok"
        assert httpx.post(f"http://{free_address}/orders/7").status_code == 404
        process.terminate()
        assert process.wait() == 0


@pytest.mark.full
def test_litestar_faststream_run_exits_with_1_if_it_cannot_start(nats: NatsServer) -> None:
    nats.stop()
    url = f"nats://user:hunter2@127.0.0.1:{nats.port}"
    ended = command("faststream", "run", url=url).run_to_exit()
    assert ended.returncode == 1
    assert "could not be started within 0.5 s: the connection was refused." in ended.output
    assert "Traceback" not in ended.output
    assert "hunter2" not in ended.output
    assert "host down" in ended.output


@pytest.mark.full
def test_litestar_faststream_info_lists_the_brokers_of_all_plugins() -> None:
    ended = command("faststream", "info", url="nats://user:hunter2@one:4222").run_to_exit()
    assert ended.returncode == 0
    lines = [line.split() for line in ended.output.splitlines()]
    assert lines == [
        ["KIND", "NAME", "DESTINATION", "GROUP", "STATE"],
        ["broker", "NatsBroker", "1", "nats://one:4222"],
        ["subscriber", "handle", "orders", "consumes"],
        ["publisher", "done:Publisher"],
        ["broker", "NatsBroker", "2", "nats://one:4222"],
        ["subscriber", "note", "done", "consumes"],
    ]
