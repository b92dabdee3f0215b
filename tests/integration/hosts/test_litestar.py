"""What FastStreamPlugin does in Litestar's own terms; what every host does is in the conformance suite."""

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
from faststream.nats import NatsBroker
from litestar import Litestar, MediaType, Request, Response, WebSocket, asgi, delete, get, post, websocket
from litestar.config.compression import CompressionConfig
from litestar.connection import ASGIConnection
from litestar.datastructures import CacheControlHeader, ResponseHeader, State
from litestar.di import Provide
from litestar.exceptions import NotAuthorizedException
from litestar.middleware import ASGIMiddleware
from litestar.openapi import OpenAPIConfig
from litestar.plugins import InitPlugin
from litestar.testing import AsyncTestClient, TestClient

from faststream_adapters import BrokerLifespan
from faststream_adapters.hosting import AdapterKeywords
from faststream_adapters.lifespan import BrokerStartError
from faststream_adapters.litestar import FastStreamPlugin
from tests.servers.asgi import AppServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from litestar.config.app import AppConfig
    from litestar.handlers import BaseRouteHandler
    from litestar.types import ASGIApp, Receive, Scope, Send

    from tests.servers.nats import NatsServer

# Litestar 2.25 wants marks on parameters that the oldest version we support does not know.
pytestmark = pytest.mark.filterwarnings("ignore:.*[Ii]nferred (style|dependency)")

PATHS: AdapterKeywords = {"readiness_path": "/ready", "asyncapi_path": "/docs", "ping_path": "/ping"}


class OrdersBroker(NatsBroker):
    """A broker class that is not the only one."""


class AuditLogBroker(NatsBroker):
    """Another one, with two words in its name."""


def litestar(*plugins: Any, handlers: Any = (), **options: Any) -> Litestar:
    # Litestar's own logging configuration is global.
    return Litestar(list(handlers), plugins=list(plugins), logging_config=None, **options)


def status(app: Litestar, path: str, **options: Any) -> int:
    """Ask an application that has not been started."""
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
        answer = await broker.request(order, "litestar.orders", timeout=5.0)
        return str(await answer.decode())

    @websocket("/socket")
    async def socket_orders(socket: WebSocket[Any, Any, Any], broker: NatsBroker) -> None:
        await socket.accept()
        answer = await broker.request("cake", "litestar.orders", timeout=5.0)
        await socket.send_text(str(await answer.decode()))
        await socket.close()

    app = litestar(FastStreamPlugin(broker), handlers=[place, socket_orders])
    for _ in range(2):  # once more in another event loop
        with TestClient(app) as client:
            assert client.post("/orders/tea").text == "tea accepted"
            with client.websocket_connect("/socket") as socket:
                assert socket.receive_text() == "cake accepted"
        assert not broker.running
    assert received == ["tea", "cake"] * 2
    assert app.state.broker is broker


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
    async def own(orders_broker: NatsBroker, audit_broker: NatsBroker) -> list[bool]:
        return [orders_broker is brokers[0], audit_broker is brokers[1]]

    plugin = FastStreamPlugin(*brokers, names=("orders_broker", "audit_broker"))
    assert TestClient(litestar(plugin, handlers=[own])).get("/").json() == [True, True]


@pytest.mark.parametrize("names", [(), ("a",), ("a", "a"), ("a", "b", "c"), ("a", "b", "b")], ids=repr)
def test_names_have_to_fit(names: tuple[str, ...]) -> None:
    with pytest.raises(SetupError, match=r"The names do not fit the brokers: .* 2 different names"):
        litestar(FastStreamPlugin(NatsBroker(), NatsBroker(), names=names))


def test_a_name_that_is_taken_is_an_error() -> None:
    taken = "dependency or a state of the name 'broker' already"

    mine = Provide(lambda: "mine", sync_to_thread=False)

    class Later(InitPlugin):
        def on_app_init(self, app_config: AppConfig) -> AppConfig:
            app_config.dependencies["broker"] = mine
            return app_config

    with pytest.raises(SetupError, match=taken):
        litestar(FastStreamPlugin(NatsBroker()), dependencies={"broker": mine})
    with pytest.raises(SetupError, match=taken):
        litestar(FastStreamPlugin(NatsBroker()), state=State({"broker": {}}))
    with pytest.raises(SetupError, match=taken):
        litestar(FastStreamPlugin(NatsBroker()), FastStreamPlugin(NatsBroker()))
    with pytest.raises(SetupError, match=taken):
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
        assert [client.get(path).status_code for path in ("/ready", "/docs", "/other")] == [204, 200, 204]
        assert app.state.broker is shared.brokers[0]
        assert app.state.other_broker is other
    assert states == ["starting", "running", "draining", "stopped"]


def test_one_plugin_in_one_application_after_the_other(nats: NatsServer) -> None:
    plugin = FastStreamPlugin(NatsBroker(nats.url), readiness_path="/ready")
    state = State({"shared": "by both"})  # Litestar takes an empty one for none

    @get("/")
    async def injected(broker: NatsBroker) -> bool:
        return broker is state.broker

    for _ in range(2):
        with TestClient(litestar(plugin, handlers=[injected], state=state)) as client:
            assert client.get("/ready").status_code == 204
            assert client.get("/").json() is True


# --- start and stop ---


class Log:
    """What happened, and whether the broker was running then."""

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

    def __init__(self, log: Log) -> None:
        self.log = log

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        app_config.lifespan.append(self.log.lifespan("plugin"))
        app_config.on_startup.append(self.log.hook("plugin startup"))
        return app_config


HOST_UP = ["+user, down", "+plugin, down", "startup, down", "plugin startup, down"]
HOST_DOWN = ["-plugin, down", "-user, down", "shutdown, down"]


def logged(broker: NatsBroker, **keywords: Any) -> tuple[Litestar, Log]:
    log = Log(broker)
    app = litestar(
        FastStreamPlugin(broker, **keywords),
        Resource(log),
        lifespan=[log.lifespan("user")],
        on_startup=[log.hook("startup")],
        on_shutdown=[log.hook("shutdown")],
    )
    return app, log


def fails(error: type[Exception], match: str) -> Any:
    """Expect an error of a start, which Litestar wraps in groups."""
    expected = pytest.RaisesExc(error, match=match)
    return pytest.RaisesGroup(expected, allow_unwrapped=True, flatten_subgroups=True)


def test_brokers_start_last_and_stop_first(nats: NatsServer) -> None:
    """Also when other plugins come later, and when a hook is added to the finished application."""
    broker = NatsBroker(nats.url)
    app, log = logged(broker)
    app.on_startup.append(log.hook("late startup"))
    for _ in range(2):
        log.lines.clear()
        with TestClient(app):
            log.add("serving")
        assert log.lines == [*HOST_UP, "late startup, down", "serving, up", *HOST_DOWN]


def test_a_broker_that_cannot_start_fails_the_start(nats: NatsServer) -> None:
    nats.stop()
    app, log = logged(NatsBroker(nats.url), startup_timeout=0.2)
    for _ in range(2):
        log.lines.clear()
        with fails(BrokerStartError, r"could not be started within 0\.2 s"):
            TestClient(app).__enter__()
        assert log.lines == [*HOST_UP, *HOST_DOWN]
    nats.start()
    with TestClient(app):
        assert log.broker.running


def test_a_hook_that_fails_keeps_brokers_from_starting(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    app, log = logged(broker)

    def fail() -> None:
        raise KeyError("late")

    app.on_startup.append(fail)
    with fails(KeyError, "late"):
        TestClient(app).__enter__()
    assert log.lines == [*HOST_UP, *HOST_DOWN]
    app.on_startup.remove(fail)
    with TestClient(app):
        assert broker.running


async def test_a_faststream_app_runs_with_its_hooks_and_sees_the_host(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    seen: asyncio.Queue[Any] = asyncio.Queue()

    @broker.subscriber("litestar.host")
    async def handle(message: str, host: Any = Context()) -> None:
        await seen.put(host.state.greeting)

    async def send() -> None:
        await broker.publish("hello", "litestar.host")

    app = litestar(
        FastStreamPlugin(FastStream(broker, after_startup=[send]), **PATHS),
        state=State({"greeting": "good day"}),
    )
    async with AsyncTestClient(app) as client, asyncio.timeout(5):
        assert await seen.get() == "good day"
        assert (await client.get("/ready")).status_code == 204
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


def test_opt_is_for_guards() -> None:
    app = litestar(FastStreamPlugin(NatsBroker(), ping_path="/ping", guards=[guard], opt={"token": "mine"}))
    assert status(app, "/ping", headers={"x-token": "secret"}) == 401
    assert status(app, "/ping", headers={"x-token": "mine"}) == 500


class Marking(ASGIMiddleware):
    """Says that it was there."""

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
            middleware=[Marking()],
            exception_handlers={NotAuthorizedException: teapot},
        )
    )
    answer = TestClient(app).get("/docs.json")
    assert (answer.status_code, answer.text) == (418, "/docs.json: 401: Show a token.")
    answer = TestClient(app).get("/ready", headers={"x-token": "secret"})
    assert (answer.status_code, answer.headers["x-marked"]) == (503, "yes")


def test_prefixes_are_those_of_the_plugin_and_the_application() -> None:
    app = litestar(FastStreamPlugin(NatsBroker(), **PATHS, path="/internal/"), path="/api")
    for path in ("/ready", "/ping", "/internal/ping", "/api/ping", "/api/internal/docsx"):
        assert status(app, path) == 404, path
    assert status(app, "/api/internal/ready/") == 503
    page = TestClient(app, root_path="/svc").get("/svc/api/internal/docs")
    assert page.status_code == 200
    assert 'href="docs/asyncapi.json"' in page.text
    for path in ("/docs/asyncapi.json", "/docs.json", "/docs/"):
        assert status(app, f"/api/internal{path}") == 200, path


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


def test_openapi_lists_them_only_when_asked() -> None:
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


def test_the_document_is_in_the_name_of_the_application() -> None:
    openapi = OpenAPIConfig("Tea house", "7.0", description="Sells tea.")
    app = litestar(FastStreamPlugin(NatsBroker(), **PATHS), openapi_config=openapi)
    info = TestClient(app).get("/docs.json").json()["info"]
    assert (info["title"], info["version"], info["description"]) == ("Tea house", "7.0", "Sells tea.")


def test_what_hooks_and_layers_add_stays_and_what_we_say_wins() -> None:
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
    answer = TestClient(app).get("/ready")
    assert answer.status_code == 503
    assert answer.headers["x-signed"] == "yes"
    assert answer.headers["x-layer"] == "app"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-length"] == "0"
    assert answer.cookies["tea"] == "green"
    assert "content-type" not in answer.headers


def test_a_hook_before_the_request_may_answer() -> None:
    async def refuse(request: Request[Any, Any, Any]) -> Response[str]:
        return Response("Closed.", status_code=403)

    app = litestar(FastStreamPlugin(NatsBroker(), **PATHS), before_request=refuse)
    for path in ("/ready", "/docs", "/docs/asyncapi.json"):
        assert status(app, path) == 403, path


def test_litestars_compression_and_ours_are_not_added_up() -> None:
    plain = litestar(FastStreamPlugin(NatsBroker(), asyncapi_path="/docs"))
    compressing = litestar(
        FastStreamPlugin(NatsBroker(), asyncapi_path="/docs"), compression_config=CompressionConfig("gzip")
    )
    answers = [
        TestClient(app).get("/docs", headers={"accept-encoding": "gzip"}) for app in (plain, compressing)
    ]
    assert [answer.headers["content-encoding"] for answer in answers] == ["gzip", "gzip"]
    assert answers[0].text == answers[1].text


# --- paths that are taken ---


@delete("/ping", status_code=200)
async def drop() -> None:
    """Have one of our paths, for another method."""


@get("/docs/{page:int}")
async def page() -> None:
    """Have a part of what is below the docs."""


@asgi("/", is_mount=True, copy_scope=True)
async def everything(scope: Scope, receive: Receive, send: Send) -> None:
    """Take all requests."""


@asgi("/doc", is_mount=True, copy_scope=True)
async def beside(scope: Scope, receive: Receive, send: Send) -> None:
    """Take, in Litestar, /docs/asyncapi.json too."""


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (drop, "The path '/ping' is served already"),
        (page, "route '/docs/{page:int}' takes requests below '/docs'"),
        (everything, "route '/' takes requests below '/docs'"),
        (beside, "route '/doc' takes requests below '/docs'"),
    ],
    ids=lambda value: getattr(value, "handler_name", ""),
)
def test_a_path_of_the_application_is_an_error(handler: Any, problem: str) -> None:
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


def test_routes_around_ours_are_no_error() -> None:
    @asgi("/internal", is_mount=True, copy_scope=True)
    async def mount(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("the mount's").to_asgi_response(None, Request(scope))(scope, receive, send)

    @get("/{name:str}")
    async def anything(name: str) -> str:
        return name

    app = litestar(FastStreamPlugin(NatsBroker(), **PATHS, path="/internal/ours"), handlers=[mount, anything])
    client = TestClient(app)
    assert client.get("/internal/other").text == "the mount's"
    assert client.get("/other").text == "other"
    assert client.get("/internal/ours/docs/asyncapi.json").json()["asyncapi"]
    assert client.get("/internal/ours/ping").status_code == 500


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
        FastStreamPlugin(broker, readiness_path="/ready", startup_timeout=0.5),
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


def test_uvicorn_serves_it(nats: NatsServer) -> None:
    with AppServer.uvicorn(APP, env={"NATS_URL": nats.url, "WORK": "1"}, ready_path="/ready") as server:
        assert httpx.get(f"{server.url}/ready").status_code == 204
        assert httpx.post(f"{server.url}/orders/7").status_code == 201
        server.wait_output("handling 7")
        server.terminate()
        assert server.wait() == -signal.SIGTERM
        output = server.output()
        assert output.index("host up") < output.index("handled 7") < output.index("host down")


def test_uvicorn_is_told_of_a_failed_start(nats: NatsServer) -> None:
    nats.stop()
    url = f"nats://user:hunter2@127.0.0.1:{nats.port}"
    ended = AppServer.uvicorn(APP, env={"NATS_URL": url}).run_to_exit()
    assert ended.returncode == 3
    assert "could not be started within 0.5 s: the connection was refused." in ended.output
    assert "hunter2" not in ended.output
    assert "host down" in ended.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_litestar_faststream_run_consumes_until_a_signal(nats: NatsServer, number: int) -> None:
    with command("faststream", "run", url=nats.url, WORK="0.5") as process:
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


def test_litestar_faststream_run_that_cannot_start_ends_with_1(nats: NatsServer) -> None:
    nats.stop()
    url = f"nats://user:hunter2@127.0.0.1:{nats.port}"
    ended = command("faststream", "run", url=url).run_to_exit()
    assert ended.returncode == 1
    assert "could not be started within 0.5 s: the connection was refused." in ended.output
    assert "Traceback" not in ended.output
    assert "hunter2" not in ended.output
    assert "host down" in ended.output


def test_litestar_faststream_info_lists_the_brokers_of_all_plugins() -> None:
    ended = command("faststream", "info", url="nats://user:hunter2@one:4222").run_to_exit()
    assert ended.returncode == 0
    lines = [line.split() for line in ended.output.splitlines()]
    assert lines == [
        ["KIND", "NAME", "HANDLER"],
        ["NatsBroker", "nats://one:4222"],
        ["subscriber", "orders:Handle", "Handle"],
        ["publisher", "done:Publisher"],
        ["NatsBroker", "nats://one:4222"],
        ["subscriber", "done:Note", "Note"],
    ]
