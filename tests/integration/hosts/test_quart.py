"""Quart-specific behaviour of QuartFastStream. The conformance suite tests the behaviour of all hosts."""

import asyncio
import logging
import re
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest
from faststream import BaseMiddleware, Context, FastStream
from faststream.asgi.types import ASGIApp, Receive, Scope, Send
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker, TestNatsBroker
from faststream.specification import AsyncAPI
from quart import Blueprint, Quart, Response, abort, current_app, g, request, websocket
from quart.testing.app import LifespanError
from quart.testing.connections import WebsocketResponseError
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from faststream_adapters import (
    AsyncAPIRoute,
    BrokerLifespan,
    BrokerNotUpError,
    make_asyncapi_asgi,
    make_readiness_asgi,
)
from faststream_adapters._lifecycle.options import State
from faststream_adapters.quart import QuartFastStream, current_broker
from faststream_adapters.quart._extension import view_for
from tests.harness.app_logs import AppLog, package_lines
from tests.harness.clients import client
from tests.harness.management import answer
from tests.harness.servers import hold_port
from tests.harness.servers.asgi import AppServer
from tests.harness.servers.nats import NatsServer

ALL_PATHS: dict[str, str] = {
    "ping_path": "/health",
    "liveness_path": "/livez",
    "readiness_path": "/readyz",
    "startup_path": "/startupz",
    "metrics_path": "/metrics",
    "asyncapi_path": "/docs",
}


@pytest.fixture
def subject() -> str:
    return f"quart-{uuid4().hex}"


@pytest.fixture
def broker(shared_nats: NatsServer) -> NatsBroker:
    return NatsBroker(shared_nats.url)


@pytest.fixture
def unreachable() -> Iterator[NatsBroker]:
    """Return a broker whose server refuses connections."""
    port, held = hold_port()
    with held or nullcontext():
        yield NatsBroker(f"nats://user:secret@127.0.0.1:{port}")


def collect_messages(broker: NatsBroker, subject: str) -> "asyncio.Queue[Any]":
    """Subscribe, and return a queue of the received messages, each with the host."""
    received: asyncio.Queue[Any] = asyncio.Queue()

    @broker.subscriber(subject)
    async def handle(message: str, host: Any = Context("host", default=None)) -> None:
        await received.put((message, host))

    return received


async def get(queue: "asyncio.Queue[Any]") -> Any:
    return await asyncio.wait_for(queue.get(), 5)


def asgi(app: Quart) -> ASGIApp:
    """Cast the app, because Quart's own ASGI types differ from FastStream's."""
    return cast("ASGIApp", app)


async def status(app: Quart, path: str, method: str = "GET", **headers: str) -> int:
    async with client(asgi(app)) as http:
        return (await http.request(method, path, headers=headers)).status_code


async def start_and_stop(app: Quart) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(cast("Any", app.test_app()))


# --- lifespan ---


async def test_the_lifespan_of_test_app_starts_and_stops_the_broker(broker: NatsBroker, subject: str) -> None:
    received = collect_messages(broker, subject)
    app = Quart("shop")
    QuartFastStream(broker, app=app, readiness_path="/readyz")
    assert await status(app, "/readyz") == 503
    for _ in range(2):
        async with app.test_app():
            assert await status(app, "/readyz") == 200
            await broker.publish("hello", subject)
            assert await get(received) == ("hello", app)
        assert await status(app, "/readyz") == 503
    assert not broker.running


def test_the_same_app_starts_again_in_another_event_loop(broker: NatsBroker, subject: str) -> None:
    app = Quart("shop")
    QuartFastStream(broker, app=app)

    async def run() -> bool:
        async with app.test_app():
            return await broker.ping(1.0)

    assert asyncio.run(run())
    assert asyncio.run(run())


async def test_one_extension_can_run_its_brokers_in_one_app_after_another(
    broker: NatsBroker, subject: str
) -> None:
    received = collect_messages(broker, subject)
    extension = QuartFastStream(broker, readiness_path="/readyz")
    apps = [Quart("one"), Quart("two")]
    for app in apps:
        extension.init_app(app)
    for app in apps:
        [lifespan] = app.extensions["faststream"]
        assert isinstance(lifespan, BrokerLifespan)
        async with app.test_app():
            assert lifespan.state == "running"
            await broker.publish("hello", subject)
            assert await get(received) == ("hello", app)
    async with apps[0].test_app():
        with pytest.raises(LifespanError, match="already run by another host application"):
            await start_and_stop(apps[1])
        assert await status(apps[0], "/readyz") == 200


async def test_the_broker_starts_after_the_app_and_stops_before_it(broker: NatsBroker) -> None:
    app = Quart("shop")
    seen: list[str] = []

    @app.before_serving
    async def up() -> None:
        seen.append("host up")

    @app.after_serving
    async def down() -> None:
        seen.append("host down")

    QuartFastStream(broker, app=app, on_state_change=lambda _, new: seen.append(new))
    async with app.test_app():
        seen.append("serving")
    assert seen == [
        *("host up", "starting", "running", "serving"),
        *("draining", "stopped", "host down"),
    ]


@pytest.mark.full
async def test_generators_and_background_tasks_of_the_app_still_work(broker: NatsBroker) -> None:
    app = Quart("shop")
    seen: list[str] = []

    @app.while_serving
    async def resource() -> AsyncGenerator[None, None]:
        seen.append("open")
        yield
        seen.append("closed")

    @app.get("/later")
    async def later() -> str:
        app.add_background_task(seen.append, "later")
        return "accepted"

    QuartFastStream(broker, app=app)
    async with app.test_app():
        assert await status(app, "/later") == 200
    assert seen == ["open", "later", "closed"]


async def test_the_app_cleans_up_if_a_broker_fails_to_start(unreachable: NatsBroker) -> None:
    app = Quart("shop")
    seen: list[str] = []

    @app.after_serving
    async def down() -> None:
        seen.append("down")

    QuartFastStream(unreachable, app=app, startup_timeout=0.2)
    with pytest.raises(LifespanError, match=r"could not be started within 0\.2 s") as caught:
        await start_and_stop(app)
    assert "secret" not in str(caught.value)
    assert seen == ["down"]


async def test_the_broker_does_not_start_if_a_later_startup_hook_fails(broker: NatsBroker) -> None:
    app = Quart("shop")
    states: list[State] = []
    QuartFastStream(broker, app=app, on_state_change=lambda _, new: states.append(new))
    failures = [ValueError("no database")]

    @app.before_serving
    async def fail() -> None:
        if failures:
            raise failures.pop()

    with pytest.raises(LifespanError, match="no database"):
        await start_and_stop(app)
    assert not states
    async with app.test_app():
        assert states == ["starting", "running"]


async def test_requests_are_served_during_a_background_start(unreachable: NatsBroker) -> None:
    app = Quart("shop")
    QuartFastStream(
        unreachable, app=app, startup="background", readiness_path="/readyz", liveness_path="/livez"
    )
    async with app.test_app():
        assert await status(app, "/readyz") == 503
        assert await status(app, "/livez") == 200


async def test_hooks_of_a_faststream_app_run(broker: NatsBroker) -> None:
    seen: list[str] = []
    target = FastStream(
        broker, on_startup=[lambda: seen.append("up")], after_shutdown=[lambda: seen.append("down")]
    )
    app = Quart("shop")
    QuartFastStream(target, app=app)
    async with app.test_app():
        assert seen == ["up"]
    assert seen == ["up", "down"]


async def test_the_extension_works_with_a_test_broker(broker: NatsBroker, subject: str) -> None:
    received = collect_messages(broker, subject)
    app = Quart("shop")
    QuartFastStream(broker, app=app, readiness_path="/readyz")
    async with TestNatsBroker(broker, connect_only=False), app.test_app():
        assert await status(app, "/readyz") == 200
        await broker.publish("hello", subject)
        assert await get(received) == ("hello", app)


# --- several apps and extensions ---


async def test_initializing_an_app_twice_with_paths_is_an_error(broker: NatsBroker) -> None:
    app = Quart("shop")
    extension = QuartFastStream(broker, app=app, readiness_path="/readyz")
    with pytest.raises(SetupError, match="'/readyz' could not be added to 'shop': choose a different path"):
        extension.init_app(app)


async def test_initializing_an_app_twice_without_paths_starts_the_broker_once(
    broker: NatsBroker, subject: str
) -> None:
    received = collect_messages(broker, subject)
    app = Quart("shop")
    extension = QuartFastStream(broker, app=app)
    extension.init_app(app)
    async with app.test_app():
        await broker.publish("once", subject)
        await broker.publish("twice", subject)
        assert [(await get(received))[0], (await get(received))[0]] == ["once", "twice"]
    assert not broker.running


async def test_probes_can_be_open_and_docs_guarded(broker: NatsBroker) -> None:
    states: list[State] = []
    lifespan = BrokerLifespan(broker, on_state_change=lambda _, new: states.append(new))
    app = Quart("shop")
    internal = Blueprint("internal", __name__, url_prefix="/internal")

    @internal.before_request
    async def guard() -> None:
        if request.headers.get("x-token") != "secret":
            abort(401)

    QuartFastStream(lifespan, app=app, readiness_path="/readyz")
    QuartFastStream(lifespan, asyncapi_path="/docs").init_app(app, internal)
    app.register_blueprint(internal)
    assert app.extensions["faststream"] == [lifespan]
    async with app.test_app():
        assert await status(app, "/readyz") == 200
        for path in ("", ".json", ".yaml", "/asyncapi.json", "/asyncapi.yaml", "/nothing"):
            assert await status(app, f"/internal/docs{path}") == 401
        assert await status(app, "/internal/docs", **{"x-token": "secret"}) == 200
    assert states == ["starting", "running", "draining", "stopped"]


async def test_two_extensions_can_run_different_brokers(
    shared_nats: NatsServer, unreachable: NatsBroker
) -> None:
    app = Quart("shop")
    broker = NatsBroker(shared_nats.url)
    QuartFastStream(broker, app=app, readiness_path="/readyz")
    QuartFastStream(unreachable, app=app, readiness_path="/unreachable/readyz", startup="background")
    assert [lifespan.brokers for lifespan in app.extensions["faststream"]] == [(broker,), (unreachable,)]
    async with app.test_app():
        assert await status(app, "/readyz") == 200
        assert await status(app, "/unreachable/readyz") == 503
    assert [str(lifespan.state) for lifespan in app.extensions["faststream"]] == ["stopped", "stopped"]


# --- endpoints ---


@pytest.mark.parametrize("path", ALL_PATHS.values())
async def test_endpoints_are_routes_of_the_app(broker: NatsBroker, path: str) -> None:
    app = Quart("shop")
    QuartFastStream(broker, app=app, **ALL_PATHS)  # type: ignore[arg-type]  # all are paths
    async with app.test_app(), client(asgi(app)) as http:
        response = await http.get(path)
        assert response.status_code == (204 if path == "/health" else 200)
        assert await status(app, f"{path}/") == response.status_code
        head = await http.head(path)
        assert (head.status_code, head.content) == (response.status_code, b"")
        assert head.headers.keys() == response.headers.keys()
        for method in ("POST", "PUT", "PATCH", "DELETE", "TRACE"):
            refused = await http.request(method, path)
            assert refused.status_code == 405
            assert {*refused.headers["allow"].split(", ")} == {"GET", "HEAD"}
        options = await http.options(path)
        assert options.status_code == 200
        assert {*options.headers["allow"].split(", ")} == {"GET", "HEAD", "OPTIONS"}
        assert await status(app, f"{path}/more") == 404
        with pytest.raises(WebsocketResponseError) as caught:
            async with app.test_client().websocket(path) as connection:
                await connection.receive()
        assert caught.value.response.status_code == 400


async def test_responses_are_not_changed(broker: NatsBroker) -> None:
    app = Quart("shop")
    lifespan = BrokerLifespan(broker)
    QuartFastStream(lifespan, app=app, readiness_path="/readyz", asyncapi_path="/docs")
    docs = make_asyncapi_asgi(AsyncAPI(broker, title="shop"))
    async with app.test_app(), client(asgi(app)) as http:
        cases: list[tuple[str, dict[str, str], ASGIApp]] = [
            ("/readyz", {}, make_readiness_asgi(lifespan)),
            ("/docs", {}, docs),
            ("/docs.json", {"accept-encoding": "gzip"}, docs.json),
            ("/docs.json", {"accept-encoding": "identity"}, docs.json),
            ("/docs/nothing", {}, docs),
        ]
        for path, headers, expected in cases:
            async with client(expected) as direct:
                direct_path = f"/{path.partition('docs/')[2]}"
                for method in ("GET", "HEAD", "PUT"):
                    response = await http.request(method, path, headers=headers)
                    unchanged = await direct.request(method, direct_path, headers=headers)
                    assert response.status_code == unchanged.status_code
                    if path != "/docs":  # its links differ
                        assert response.headers == unchanged.headers
                        assert response.content == unchanged.content
        page = await http.get("/docs")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "content-security-policy" in page.headers
        again = await http.get("/docs", headers={"if-none-match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert "content-type" not in again.headers
        static = re.findall(r'(?:href|src)="(docs/[^"#]+)"', page.text)
        assert len(static) >= 3
        for link in static:
            assert (await http.get(f"/{link}")).status_code == 200


@pytest.mark.parametrize("root", ["", "/svc"])
@pytest.mark.parametrize("path", ["/docs", "/", "/a.b/docs/"])
async def test_paths_below_the_docs_are_routed_to_the_docs(broker: NatsBroker, root: str, path: str) -> None:
    app = Quart("shop")
    QuartFastStream(broker, app=app, asyncapi_path=AsyncAPIRoute(path))
    async with app.test_app():
        http = app.test_client()
        page = f"{root}{path}".rstrip("/")
        document = await http.get(f"{page}/asyncapi.json", root_path=root)
        assert (await document.get_json())["info"]["title"] == "shop"
        assert (await http.get(f"{page}/asyncapi.yaml/", root_path=root)).status_code == 200
        assert (await http.get(f"{page}/nothing", root_path=root)).status_code == 404
        assert (await http.get(f"{page}/", root_path=root)).status_code == 200


async def test_an_endpoint_can_read_the_request_body() -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        await send(
            {"type": "http.response.start", "status": 202, "headers": [(b"x-a", b"1"), (b"x-a", b"2")]}
        )
        await send({"type": "http.response.body", "body": message["body"], "more_body": True})
        await send({"type": "http.response.body"})

    app = Quart("shop")
    app.add_url_rule("/echo", "echo", view_for(echo), methods=["POST"])
    response = await app.test_client().post("/echo", data=b"said")
    assert (response.status_code, await response.data) == (202, b"said")
    assert response.headers.getlist("x-a") == ["1", "2"]


async def test_hooks_and_error_handlers_of_the_app_apply(broker: NatsBroker) -> None:
    app = Quart("shop")

    @app.before_request
    async def guard() -> None:
        if "x-token" not in request.headers:
            abort(401)

    @app.after_request
    async def mark(response: Response) -> Response:
        response.headers["x-mark"] = "seen"
        return response

    @app.errorhandler(401)
    async def unauthorized(_: Exception) -> tuple[str, int]:
        return "who are you?", 401

    QuartFastStream(broker, app=app, liveness_path="/livez")
    async with app.test_app():
        refused = await app.test_client().get("/livez")
        assert (refused.status_code, await refused.data) == (401, b"who are you?")
        allowed = await app.test_client().get("/livez", headers={"x-token": "any"})
        assert (allowed.status_code, allowed.headers["x-mark"]) == (200, "seen")


async def test_a_blueprint_can_have_a_prefix_with_variables(broker: NatsBroker) -> None:
    app = Quart("shop")
    inner, outer = Blueprint("inner", __name__), Blueprint("outer", __name__, url_prefix="/<tenant>")
    QuartFastStream(broker, app=app, blueprint=inner, liveness_path="/livez", asyncapi_path="/docs")
    outer.register_blueprint(inner)
    app.register_blueprint(outer)
    async with app.test_app():
        assert await status(app, "/acme/livez") == 200
        assert await status(app, "/acme/docs/asyncapi.json") == 200
        assert await status(app, "/livez") == 404
    async with app.test_request_context("/"):
        assert app.url_for("outer.inner.faststream_livez", tenant="acme") == "/acme/livez"


async def test_a_blueprint_must_be_registered_after_init_app(broker: NatsBroker) -> None:
    app = Quart("shop")
    blueprint = Blueprint("internal", __name__)
    app.register_blueprint(blueprint)
    extension = QuartFastStream(broker, readiness_path="/readyz")
    with pytest.raises(SetupError, match="call init_app before register_blueprint"):
        extension.init_app(app, blueprint)


async def test_a_blueprint_must_be_registered(broker: NatsBroker) -> None:
    app = Quart("shop")
    blueprint = Blueprint("internal", __name__)
    QuartFastStream(broker, app=app, blueprint=blueprint, readiness_path="/readyz")
    with pytest.raises(
        LifespanError, match="The blueprint 'internal' contains the endpoints, but is not registered"
    ):
        await start_and_stop(app)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("rule", ["/docs", "/docs/", "/docs/<path:page>"])
async def test_a_path_that_the_app_serves_fails_the_start(
    broker: NatsBroker, rule: str, *, first: bool
) -> None:
    app = Quart("shop")
    extension = QuartFastStream(broker, asyncapi_path=AsyncAPIRoute("/docs"))
    if not first:
        extension.init_app(app)

    app.add_url_rule(rule, "page", lambda page="": page, methods=["POST"])
    if first:
        extension.init_app(app)
    with pytest.raises(LifespanError, match=r"The app serves /docs.* itself"):
        await start_and_stop(app)


async def test_similar_routes_of_the_app_are_allowed(broker: NatsBroker) -> None:
    app = Quart("shop")

    @app.websocket("/readyz")
    async def ready() -> None:
        await websocket.send(await websocket.receive())

    @app.get("/<path:anything>")
    async def page(anything: str) -> str:
        return anything

    QuartFastStream(broker, app=app, readiness_path="/readyz")
    async with app.test_app():
        assert await status(app, "/readyz") == 200
        assert await status(app, "/other") == 200
        async with app.test_client().websocket("/readyz") as connection:
            await connection.send("echo")
            assert await connection.receive() == "echo"


# --- keywords and config ---


async def test_keywords_in_the_config_complete_those_of_the_call(
    broker: NatsBroker, free_address: str
) -> None:
    faststream = QuartFastStream(broker, management_bind=free_address, max_handler_age=60.0)
    with pytest.raises(SetupError, match="max_handler_age has no effect without liveness_path"):
        faststream.init_app(Quart("shop"))
    app = Quart("shop")
    app.config["FASTSTREAM_LIVENESS_PATH"] = "/livez"
    faststream.init_app(app)
    async with app.test_app():
        assert await answer(free_address, "/livez") == "200 ok"
        assert await status(app, "/livez") == 404


async def test_keywords_can_be_set_in_the_config(broker: NatsBroker) -> None:
    app = Quart("shop")
    app.config.update(
        FASTSTREAM_READINESS_PATH="/config/readyz",
        FASTSTREAM_LIVENESS_PATH="/config/livez",
        FASTSTREAM_PING_PATH="/config/ping",
        FASTSTREAM_METRICS_PATH="",
        FASTSTREAM_PROBE_DETAILS=True,
    )
    QuartFastStream(broker, app=app, readiness_path="/keyword/readyz", ping_path=None)
    assert app.config["FASTSTREAM_STARTUP"] is None
    async with app.test_app():
        assert await status(app, "/keyword/readyz") == 200
        assert await status(app, "/config/livez") == 200
        assert await status(app, "/config/readyz") == 404
        assert await status(app, "/config/ping") == 404


@pytest.mark.parametrize("parsed", [True, False])
async def test_keywords_can_come_from_the_environment(
    broker: NatsBroker,
    monkeypatch: pytest.MonkeyPatch,
    *,
    parsed: bool,
) -> None:
    for name, value in {
        "READINESS_PATH": "/readyz",
        "STARTUP": "background",
        "STARTUP_TIMEOUT": "2.5",
        "CONSUME": "False",
        "SUPERVISE": "0",
        "DRAIN_DELAY": "",
    }.items():
        monkeypatch.setenv(f"QUART_FASTSTREAM_{name}", value)
    app = Quart("shop")
    if parsed:
        app.config.from_prefixed_env()
    else:
        app.config.from_prefixed_env(loads=str)
    QuartFastStream(broker, app=app)
    [lifespan] = app.extensions["faststream"]
    assert (lifespan.startup, lifespan.startup_timeout, lifespan.drain_delay) == ("background", 2.5, 0.0)
    assert not lifespan.consume
    assert not lifespan.supervise
    assert any(rule.rule == "/readyz" for rule in app.url_map.iter_rules())


@pytest.mark.parametrize(
    ("value", "consume"),
    [("true", True), ("1", True), (0, False), (False, False), ("a, b@c", ("a", "b@c")), (["a"], ("a",))],
)
def test_subscribers_are_selected_in_the_config(broker: NatsBroker, value: object, consume: object) -> None:
    app = Quart("shop")
    app.config["FASTSTREAM_CONSUME"] = value
    assert QuartFastStream(broker, app=app).broker_lifespan.consume == consume


@pytest.mark.parametrize(
    ("key", "value"), [("DRAIN_DELAY", "soon"), ("SUPERVISE", "yes"), ("PROBE_TIMEOUT", [1])]
)
def test_an_invalid_value_in_the_config_is_an_error(broker: NatsBroker, key: str, value: object) -> None:
    app = Quart("shop")
    app.config[f"FASTSTREAM_{key}"] = value
    with pytest.raises(
        SetupError, match=rf"app.config\['FASTSTREAM_{key}'\] must be true, false or a number"
    ):
        QuartFastStream(broker, app=app)


def test_an_unknown_key_in_the_config_is_logged(broker: NatsBroker, caplog: pytest.LogCaptureFixture) -> None:
    app = Quart("shop")
    app.config["FASTSTREAM_READYNESS_PATH"] = "/readyz"
    with caplog.at_level(logging.WARNING, "faststream.adapters"):
        QuartFastStream(broker, app=app)
    assert "FASTSTREAM_READYNESS_PATH" in caplog.text


def test_an_unknown_key_in_the_config_is_logged_by_the_logger_of_the_application(
    broker: NatsBroker, caplog: pytest.LogCaptureFixture
) -> None:
    log, app = AppLog(), Quart("shop")
    app.config["FASTSTREAM_READYNESS_PATH"] = "/readyz"
    QuartFastStream(FastStream(broker, logger=log), app=app)
    assert "FASTSTREAM_READYNESS_PATH" in log.text
    assert package_lines(caplog.records) == []


def test_invalid_keywords_are_refused_by_the_constructor(broker: NatsBroker) -> None:
    with pytest.raises(
        TypeError,
        match=r"Unknown keyword 'readyness_path'\. Did you mean 'readiness_path'\? Known keywords: app,",
    ):
        QuartFastStream(broker, readyness_path="/readyz")  # type: ignore[call-arg]
    with pytest.raises(SetupError, match="drain_delay"):
        QuartFastStream(broker, drain_delay=-1)
    with pytest.raises(SetupError, match="is served already"):
        QuartFastStream(broker, app=Quart("shop"), readiness_path="/healthz", liveness_path="/healthz")


def test_the_endpoints_are_not_in_the_openapi_document_of_quart_schema(broker: NatsBroker) -> None:
    from quart_schema import QuartSchema

    app = Quart("shop")

    app.add_url_rule("/orders", "orders", lambda: "")
    schema = QuartSchema(app)
    QuartFastStream(broker, app=app, **ALL_PATHS)  # type: ignore[arg-type]  # all are paths
    assert list(schema.openapi_provider.schema()["paths"]) == ["/orders"]


# --- current_broker ---


class OrderBroker(NatsBroker):
    """A subclass that distinguishes one broker from another."""


def app_with_broker_views(
    *brokers: NatsBroker, kind: type[NatsBroker] = NatsBroker, **keywords: Any
) -> Quart:
    """Return an app with views that return the class of the broker they get."""
    app = Quart("shop")
    QuartFastStream(*brokers, app=app, **keywords)

    @app.get("/which")
    async def which() -> str:
        return type(current_broker(kind)).__name__

    @app.get("/reason")
    async def reason() -> str:
        try:
            return type(current_broker(kind)).__name__
        except BrokerNotUpError as error:
            return str(error)

    @app.websocket("/which")
    async def which_over_websocket() -> None:
        await websocket.send(type(current_broker(kind)).__name__)

    return app


@pytest.mark.parametrize("kind", [OrderBroker, NatsBroker])
async def test_views_get_the_broker(shared_nats: NatsServer, kind: type[NatsBroker]) -> None:
    app = app_with_broker_views(OrderBroker(shared_nats.url), kind=kind)
    async with app.test_app():
        assert await (await app.test_client().get("/which")).data == b"OrderBroker"
        async with app.test_client().websocket("/which") as socket:
            assert await socket.receive() == "OrderBroker"


async def test_a_subscriber_gets_another_broker(
    shared_nats: NatsServer, broker: NatsBroker, subject: str
) -> None:
    other = OrderBroker(shared_nats.url)
    received = collect_messages(other, f"{subject}.other")
    app = Quart("shop")
    QuartFastStream(broker, app=app)
    QuartFastStream(other, app=app)

    @broker.subscriber(subject)
    async def forward(message: str) -> None:
        await current_broker(OrderBroker).publish(message, f"{subject}.other")

    async with app.test_app():
        await broker.publish("hello", subject)
        assert await get(received) == ("hello", app)


async def test_a_broker_that_is_not_up_is_unavailable(unreachable: NatsBroker) -> None:
    app = app_with_broker_views(unreachable, startup="background")
    async with app.test_app():
        response = await app.test_client().get("/which")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert "The NatsBroker is not up." in await response.get_data(as_text=True)
        reason = await (await app.test_client().get("/reason")).get_data(as_text=True)
        assert reason.startswith("NatsBroker nats://127.0.0.1:")
        assert reason.endswith("Catch BrokerNotUpError, and try again later.")
        with pytest.raises(WebsocketResponseError) as refused:
            async with app.test_client().websocket("/which") as socket:
                await socket.receive()
        assert refused.value.response.status_code == 503


async def test_a_broker_of_another_class_is_an_error(broker: NatsBroker) -> None:
    QuartFastStream(broker, app=(app := Quart("shop")))
    async with app.test_app(), app.app_context():
        with pytest.raises(SetupError, match="runs no OrderBroker: pass one to QuartFastStream"):
            current_broker(OrderBroker)
    async with Quart("bare").app_context():
        with pytest.raises(SetupError, match="runs no NatsBroker"):
            current_broker(NatsBroker)


async def test_several_brokers_of_one_class_are_an_error(shared_nats: NatsServer, broker: NatsBroker) -> None:
    QuartFastStream(broker, OrderBroker(shared_nats.url), app=(app := Quart("shop")))
    async with app.test_app(), app.app_context():
        assert type(current_broker(OrderBroker)) is OrderBroker
        with pytest.raises(SetupError, match="runs 2 brokers of the class NatsBroker: create the one"):
            current_broker(NatsBroker)


# --- the app's context ---


async def test_a_message_is_handled_in_the_apps_context(broker: NatsBroker, subject: str) -> None:
    app = Quart("shop")
    seen: asyncio.Queue[Any] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    torn_down: asyncio.Queue[BaseException | None] = asyncio.Queue()

    @broker.subscriber(subject)
    async def handle(message: str) -> None:
        assert "seen" not in g
        g.seen = message
        await asyncio.sleep(0)
        await seen.put((current_app.name, g.seen))
        if message == "bad":
            raise ValueError(message)

    @broker.subscriber(f"{subject}.plain")
    def handle_in_a_thread(message: str) -> None:
        loop.call_soon_threadsafe(seen.put_nowait, (current_app.name, message))

    @app.teardown_appcontext
    async def teardown(error: BaseException | None) -> None:
        if "seen" in g:
            await torn_down.put(error)

    QuartFastStream(broker, app=app)
    # A context that is open around the server is not used for messages.
    async with app.app_context():
        g.seen = "outer"
        async with app.test_app():
            for message in ("one", "two", "bad"):
                await broker.publish(message, subject)
                assert await get(seen) == ("shop", message)
            assert [await get(torn_down), await get(torn_down)] == [None, None]
            assert isinstance(await get(torn_down), ValueError)
            await broker.publish("three", f"{subject}.plain")
            assert await get(seen) == ("shop", "three")
            assert g.seen == "outer"


async def test_middlewares_of_the_broker_run_in_the_apps_context(
    shared_nats: NatsServer, subject: str
) -> None:
    seen: asyncio.Queue[Any] = asyncio.Queue()

    class Watch(BaseMiddleware[Any, Any]):
        async def on_receive(self) -> None:
            await seen.put(current_app.name)

    broker = NatsBroker(shared_nats.url, middlewares=[Watch])
    received = collect_messages(broker, subject)
    app = Quart("shop")
    QuartFastStream(broker, app=app)
    async with app.test_app():
        await broker.publish("hello", subject)
        assert await get(received) == ("hello", app)
        assert await get(seen) == "shop"


async def test_a_request_over_the_broker_keeps_the_context_of_the_view(
    broker: NatsBroker, subject: str
) -> None:
    app = Quart("shop")

    @broker.subscriber(subject)
    async def reply(message: str) -> str:
        return f"{message} from {current_app.name}"

    @app.get("/request")
    async def send_request() -> str:
        g.kept = "kept"
        message = await broker.request("hello", subject, timeout=5)
        return f"{await message.decode()}, {g.kept} {request.path}"

    QuartFastStream(broker, app=app)
    async with app.test_app():
        response = await app.test_client().get("/request")
        assert await response.data == b"hello from shop, kept /request"


async def test_brokers_that_a_hook_adds_handle_messages_in_the_apps_context(
    broker: NatsBroker, subject: str
) -> None:
    stream = FastStream()
    stream.on_startup(lambda: stream.add_broker(broker))
    names: asyncio.Queue[str] = asyncio.Queue()

    @broker.subscriber(subject)
    async def handle(_: str) -> None:
        await names.put(current_app.name)

    QuartFastStream(stream, app=(app := Quart("shop")))
    async with app.test_app():
        await broker.publish("hello", subject)
        assert await get(names) == "shop"


@pytest.mark.parametrize("end", ["an error", "a cancellation", "a failing teardown"])
async def test_teardown_functions_run_after_each_message(end: str, broker: NatsBroker, subject: str) -> None:
    app = Quart("shop")
    begun: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue()
    torn_down: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    @broker.subscriber(subject)
    async def handle(message: str) -> None:
        g.message = message
        await begun.put(asyncio.current_task())
        if message == "an error":
            raise ValueError
        if message == "a cancellation":
            await asyncio.Event().wait()

    @app.teardown_appcontext
    async def teardown(error: BaseException | None) -> None:
        if "message" in g:
            # Also a teardown that takes time ends.
            await asyncio.sleep(0)
            await torn_down.put((g.message, type(error).__name__))
            if g.message == "a failing teardown":
                raise ValueError

    QuartFastStream(broker, app=app)
    async with app.test_app():
        await broker.publish(end, subject)
        task = await get(begun)
        if end == "a cancellation":
            task.cancel()
        raised = {"an error": "ValueError", "a cancellation": "CancelledError"}.get(end, "NoneType")
        assert await get(torn_down) == (end, raised)
        await broker.publish("next", subject)
        await get(begun)
        assert await get(torn_down) == ("next", "NoneType")


async def test_in_memory_a_view_and_the_subscriber_it_publishes_to_have_contexts_of_their_own(
    subject: str,
) -> None:
    broker = NatsBroker("nats://127.0.0.1:1")
    app = Quart("shop")
    seen: list[object] = []

    @broker.subscriber(subject)
    async def handle(message: str) -> None:
        seen.append(g.get("kept"))
        g.kept = message

    @app.post("/publish")
    async def publish() -> str:
        g.kept = "view"
        await current_broker(NatsBroker).publish("message", subject)
        return str(g.kept)

    QuartFastStream(broker, app=app)
    async with TestNatsBroker(broker), app.test_app():
        response = await app.test_client().post("/publish")
        assert (await response.data, seen) == (b"view", [None])


async def test_messages_in_other_hosts_have_no_app_context(broker: NatsBroker, subject: str) -> None:
    received = collect_messages(broker, subject)
    apps: asyncio.Queue[bool] = asyncio.Queue()

    @broker.subscriber(subject)
    async def handle(_: str) -> None:
        await apps.put(bool(current_app))

    for name in ("one", "two"):
        app = Quart(name)
        QuartFastStream(broker, app=app)
        async with app.test_app():
            await broker.publish("hello", subject)
            assert await get(received) == ("hello", app)
            assert await get(apps)
    assert len(broker.middlewares) == 1
    for host in (None, object()):
        async with BrokerLifespan(broker)(host):
            await broker.publish("hello", subject)
            assert await get(received) == ("hello", host)
            assert not await get(apps)


async def test_without_consume_the_app_can_publish(broker: NatsBroker, subject: str) -> None:
    app = Quart("shop")
    received = collect_messages(broker, subject)

    @app.post("/orders")
    async def order() -> str:
        await broker.publish("order", subject)
        return current_app.name

    QuartFastStream(broker, app=app, consume=False, readiness_path="/readyz")
    other = NatsBroker(broker.specification.url[0])
    arrived = collect_messages(other, subject)
    async with app.test_app(), other:
        await other.start()
        # The publisher uses another connection, so wait until the server has processed the subscription.
        await other.connection.flush()
        assert await status(app, "/readyz") == 200
        assert await status(app, "/orders", "POST") == 200
        message, _ = await asyncio.wait_for(arrived.get(), 5)
        assert message == "order"
    assert received.empty()


# --- servers and commands ---

APP = """
import os
from faststream import Context
from faststream.nats import NatsBroker
from faststream_adapters.quart import QuartFastStream, current_broker
from quart import Quart, current_app, websocket

broker = NatsBroker(os.environ["NATS_URL"])
app = Quart("shop")
app.config.from_prefixed_env()

@broker.subscriber("orders")
async def handle(order: str, host=Context("host")) -> None:
    assert host is app
    print(current_app.name, "handles", order, flush=True)

@broker.publisher("receipts")
async def receipt(order: str) -> str:
    return order

@app.before_serving
async def up() -> None:
    print("host up", flush=True)
    if "FAIL" in os.environ:
        raise ValueError("no database")

@app.after_serving
async def down() -> None:
    print("host down, broker", "up" if broker.running else "down", flush=True)

@app.post("/orders/<order>")
async def publish(order: str) -> tuple[str, int]:
    await broker.publish(order, "orders")
    return "accepted", 202

@app.websocket("/echo")
async def echo() -> None:
    await websocket.send(await websocket.receive())

QuartFastStream(broker, app=app)
"""
PATHS = {f"QUART_FASTSTREAM_{name.upper()}": path for name, path in ALL_PATHS.items()}
HYPERCORN = [sys.executable, "-m", "hypercorn", "--bind", "127.0.0.1:{port}", "main:app"]
QUART = [str(Path(sys.executable).with_name("quart"))]


def quart_command(url: str, *arguments: str, app: str = APP, **environment: str) -> AppServer:
    return AppServer(
        [*QUART, *arguments],
        app=app,
        env={"NATS_URL": url, "QUART_APP": "main:app", **environment},
        ready_path=None,
    )


@pytest.mark.full
@pytest.mark.parametrize(
    ("server", "root"),
    [
        ("uvicorn", ""),
        ("uvicorn", "/svc"),
        ("hypercorn", "/svc"),
    ],
)
def test_the_app_runs_under_a_server(nats: NatsServer, server: str, root: str) -> None:
    environment = {"NATS_URL": nats.url, **PATHS}
    arguments = ["--root-path", root] if root else []
    if server == "uvicorn":
        serve = AppServer.uvicorn(APP, *arguments, env=environment)
        # uvicorn adds the root path to the path. hypercorn expects it in the request.
        prefix = ""
    else:
        serve = AppServer([*HYPERCORN, *arguments], app=APP, env=environment)
        prefix = root
    with serve, httpx.Client(base_url=f"{serve.url}{prefix}") as http:
        for path in ("/health", "/livez", "/readyz", "/startupz"):
            expected = 204 if path == "/health" else 200
            assert http.get(path).status_code == http.get(f"{path}/").status_code == expected
        for path in ("/metrics", "/docs", "/docs.json", "/docs/asyncapi.yaml"):
            length = len(http.get(path, headers={"accept-encoding": "identity"}).content)
            head = http.head(path, headers={"accept-encoding": "identity"})
            assert (head.status_code, head.content) == (200, b"")
            if path != "/metrics":
                assert head.headers["content-length"] == str(length)
        assert http.post("/docs").status_code == 405
        assert http.post("/orders/tea").status_code == 202
        serve.wait_output("shop handles tea")
        with connect(f"ws{serve.url.removeprefix('http')}{prefix}/echo") as socket:
            socket.send("echo")
            assert socket.recv() == "echo"
        with pytest.raises(InvalidStatus):
            connect(f"ws{serve.url.removeprefix('http')}{prefix}/readyz")
        serve.terminate()
        serve.wait()
        assert "host down, broker down" in serve.output()
        assert "Traceback" not in serve.output()


async def publish(url: str) -> None:
    async with NatsBroker(url) as broker:
        await broker.publish("tea", "orders")


@pytest.mark.parametrize("stop", ["terminate", pytest.param("interrupt", marks=pytest.mark.full)])
def test_quart_faststream_run_consumes_until_a_signal(nats: NatsServer, stop: str) -> None:
    # For the web processes of this application, `consume` is False.
    with quart_command(nats.url, "faststream", "run", QUART_FASTSTREAM_CONSUME="false") as command:
        command.wait_output("starting -> running")
        asyncio.run(publish(nats.url))
        command.wait_output("shop handles tea")
        with pytest.raises(httpx.ConnectError):
            httpx.get(command.url)
        getattr(command, stop)()
        assert command.wait() == 0
        output = command.output()
    assert output.index("host up") < output.index("stopped -> starting")
    assert "host down, broker down" in output
    assert "Traceback" not in output


@pytest.mark.full
def test_quart_faststream_run_exits_with_1_if_the_broker_cannot_start() -> None:
    port, held = hold_port()
    with held or nullcontext():
        ended = quart_command(
            f"nats://user:secret@127.0.0.1:{port}",
            *("faststream", "run"),
            QUART_FASTSTREAM_STARTUP_TIMEOUT="0.3",
        ).run_to_exit()
    assert ended.returncode == 1
    assert f"Error: NatsBroker nats://127.0.0.1:{port} could not be started within 0.3 s" in ended.output
    assert "secret" not in ended.output
    assert "host down, broker down" in ended.output


@pytest.mark.full
def test_quart_faststream_run_exits_with_1_if_the_app_cannot_start(nats: NatsServer) -> None:
    ended = quart_command(nats.url, "faststream", "run", FAIL="1").run_to_exit()
    assert ended.returncode == 1
    assert "Error: no database" in ended.output
    assert "starting" not in ended.output


@pytest.mark.full
def test_quart_faststream_run_serves_the_endpoints_of_the_app(nats: NatsServer, free_address: str) -> None:
    words = ("faststream", "run", "--listen", free_address, "--broker", "NatsBroker")
    environment = {"QUART_FASTSTREAM_READINESS_PATH": "/ready"}
    with quart_command(nats.url, *words, **environment) as process:
        process.wait_output("starting -> running")
        assert httpx.get(f"http://{free_address}/ready").text == "ok"
        process.terminate()
        assert process.wait() == 0


@pytest.mark.full
def test_quart_faststream_info_lists_the_brokers() -> None:
    ended = quart_command("nats://user:secret@example.com:4222", "faststream", "info").run_to_exit()
    assert ended.returncode == 0
    for words in (
        ("NatsBroker", "nats://example.com:4222"),
        ("subscriber", "orders"),
        ("publisher", "receipts"),
    ):
        assert any(all(word in line for word in words) for line in ended.output.splitlines()), words
    assert "secret" not in ended.output
