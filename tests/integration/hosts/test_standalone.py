"""AsgiFastStream and FastStream: one application, in all the ways it can be built and run."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import signal
import subprocess
import sys
import typing
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import faststream
import faststream.asgi as upstream
import httpx
import pytest
from fast_depends import Provider
from fast_depends.msgspec import MsgSpecSerializer
from faststream import Context, Depends, TestApp
from faststream.annotations import FastStream as InjectedApp
from faststream.asgi.types import Receive, Scope, Send
from faststream.exceptions import SetupError, StartupValidationError
from faststream.nats import NatsBroker, TestNatsBroker
from faststream.specification import AsyncAPI
from prometheus_client import CollectorRegistry

import faststream_adapters as ours
from faststream_adapters import (
    AsgiFastStream,
    AsgiResponse,
    AsyncAPIRoute,
    BrokerLifespan,
    FastStream,
    Query,
    Request,
    get,
    make_asyncapi_asgi,
    make_ping_asgi,
    post,
)
from faststream_adapters.hosting import HostKeywords
from faststream_adapters.routing import route_path
from tests.asgi_calls import exchange, http_scope, request
from tests.servers import HOST, hold_port
from tests.servers.asgi import AppServer
from tests.servers.nats import NatsServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

UNREACHABLE = "nats://127.0.0.1:1"


@get
async def hello() -> AsgiResponse:
    return AsgiResponse(b"hello")


async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the path below the mount."""
    await AsgiResponse(route_path(scope).encode())(scope, receive, send)


async def status(app: AsgiFastStream, path: str, method: str = "GET") -> int:
    return (await request(app, http_scope(path, method))).status


class Inbox:
    """What subscribers have received."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, message: Any) -> None:
        self._messages.put_nowait(message)

    async def get(self) -> Any:
        async with asyncio.timeout(5):
            return await self._messages.get()


# --- routes ---


async def test_routes() -> None:
    app = AsgiFastStream(asgi_routes=[("/hello", hello), ("/mounted", mounted)])
    app.mount("/later", hello)
    assert app.routes == [("/hello", hello), ("/later", hello), ("/mounted", mounted)]
    assert (await request(app, http_scope("/hello/"))).body == b"hello"
    assert (await request(app, http_scope("/later"))).body == b"hello"
    assert (await request(app, http_scope("/svc/later", root_path="/svc"))).body == b"hello"
    assert (await request(app, http_scope("/mounted/a/b"))).body == b"/a/b"
    assert await status(app, "/hello/below") == 404


async def test_any_asgi_app_can_be_mounted() -> None:
    inner = AsgiFastStream(asgi_routes=[("/hello", hello)])
    outer = AsgiFastStream(asgi_routes=[("/inner", inner)])
    assert await status(outer, "/inner/hello") == 200
    assert await status(outer, "/hello") == 404


async def test_no_route() -> None:
    reply = await request(AsgiFastStream(), http_scope("/unknown"))
    assert (reply.status, reply.body) == (404, b"Not Found")
    head = await request(AsgiFastStream(), http_scope("/unknown", "HEAD"))
    assert (head.status, head.body) == (404, b"")
    scope: Scope = {"type": "websocket", "path": "/unknown", "headers": []}
    sent = await exchange(AsgiFastStream(), scope, {"type": "websocket.connect"})
    assert [message["type"] for message in sent] == ["websocket.close"]


@pytest.mark.parametrize(
    "keywords",
    [
        {"asgi_routes": [("/hello", hello), ("/hello/", hello)]},
        {"asgi_routes": [("/hello", mounted)], "ping_path": "/hello"},
        {"ping_path": "/hello", "readiness_path": "/hello"},
        {"asgi_routes": [("/hello", hello)], "asyncapi_path": "/hello"},
        {
            "asgi_routes": [("/hello", hello)],
            "asyncapi_path": AsyncAPIRoute("/docs", asyncapi_json_path="/hello"),
        },
    ],
)
def test_a_path_twice_is_an_error(keywords: Any) -> None:
    with pytest.raises(SetupError, match="'/hello' is served already"):
        AsgiFastStream(NatsBroker(UNREACHABLE), **keywords)


def test_a_mount_of_a_path_that_is_taken_is_an_error() -> None:
    app = AsgiFastStream(asgi_routes=[("/hello", hello)])
    with pytest.raises(SetupError, match="'/hello' is served already"):
        app.mount("/hello", mounted)
    with pytest.raises(SetupError, match="must start with"):
        app.mount("hello", mounted)


@pytest.mark.parametrize(
    "build",
    [
        AsgiFastStream,
        FastStream().as_asgi,
        lambda **keywords: AsgiFastStream.from_app(FastStream(), **keywords),
    ],
)
def test_an_unknown_keyword_lists_the_known_ones(build: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="health_path") as raised:
        build(health_path="/health")
    for name in HostKeywords.__annotations__:
        assert name in str(raised.value)


def test_upstreams_keywords_are_ours_too() -> None:
    for name in ("__init__", "from_app", "mount", "run", "start_lifespan_context"):
        theirs = inspect.signature(getattr(upstream.AsgiFastStream, name)).parameters
        mine = inspect.signature(getattr(AsgiFastStream, name)).parameters
        assert list(mine)[: len(theirs)] == list(theirs) or set(theirs) <= set(mine), name


async def test_path_keywords(nats: NatsServer) -> None:
    app = AsgiFastStream(
        NatsBroker(nats.url),
        ping_path="/ping",
        liveness_path="/live",
        readiness_path="/ready",
        startup_path="/started",
        metrics_path="/metrics",
        metrics_registry=CollectorRegistry(),
    )
    probes = ("/ping", "/live", "/ready", "/started")
    async with app:
        assert [await status(app, path) for path in probes] == [204, 204, 204, 204]
        assert await status(app, "/metrics") == 200
        nats.kill()
        assert [await status(app, path) for path in probes] == [500, 204, 503, 204]
    assert [await status(app, path) for path in probes] == [500, 204, 503, 204]


# --- brokers ---


async def test_several_brokers(shared_nats: NatsServer, nats: NatsServer) -> None:
    brokers = [NatsBroker(server.url) for server in (shared_nats, nats)]
    inboxes = [Inbox(), Inbox()]
    for broker, inbox in zip(brokers, inboxes, strict=True):
        broker.subscriber("several")(inbox.put)
    app = AsgiFastStream(*brokers)
    assert app.brokers == brokers
    assert app.broker is brokers[0]
    assert app.broker_lifespan.brokers == tuple(brokers)
    async with app:
        for broker, inbox in zip(brokers, inboxes, strict=True):
            await broker.publish(repr(broker), "several")
            assert await inbox.get() == repr(broker)


@pytest.mark.parametrize("when", ["before", "in a hook"])
async def test_a_broker_that_is_added_later(shared_nats: NatsServer, when: str) -> None:
    inbox = Inbox()
    broker = NatsBroker(shared_nats.url)
    broker.subscriber(f"later.{when[:2]}")(inbox.put)
    app = AsgiFastStream()
    if when == "before":
        app.add_broker(broker)
    else:
        app.on_startup(lambda: app.add_broker(broker))
    async with app:
        await broker.publish("hello", f"later.{when[:2]}")
        assert await inbox.get() == "hello"
        assert app.broker_lifespan.brokers == (broker,)


def test_a_broker_twice_is_an_error() -> None:
    broker = NatsBroker(UNREACHABLE)
    app = AsgiFastStream(broker)
    with pytest.raises(SetupError, match="already"):
        app.add_broker(broker)


async def test_a_message_that_is_published_through_http_is_consumed(shared_nats: NatsServer) -> None:
    inbox = Inbox()
    broker = NatsBroker(shared_nats.url)
    broker.subscriber("http.in")(inbox.put)

    @post
    async def publish(
        request: Request, publisher: Annotated[NatsBroker, Context("publisher")]
    ) -> AsgiResponse:
        await publisher.publish(await request.body(), "http.in")
        return AsgiResponse(b"", 202)

    app = AsgiFastStream(broker, asgi_routes=[("/orders", publish)])
    app.context.set_global("publisher", broker)
    async with app:
        reply = await request(app, http_scope("/orders", "POST"), b"one ", b"order")
        assert reply.status == 202
        assert await inbox.get() == b"one order"


# --- AsyncAPI ---


async def test_asyncapi_path() -> None:
    app = AsgiFastStream(
        NatsBroker(UNREACHABLE), asyncapi_path="/docs", specification=AsyncAPI(title="Shop <1>")
    )
    page = await request(app, http_scope("/docs"))
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"Shop &lt;1&gt;" in page.body
    assert b"Shop <1>" not in page.body
    for path, media_type in {
        "/docs.json": "application/json",
        "/docs.yaml": "application/yaml",
        "/docs/asyncapi.json": "application/json",
        "/docs/asyncapi.yaml": "application/yaml",
    }.items():
        reply = await request(app, http_scope(path))
        assert (reply.status, reply.headers["content-type"]) == (200, media_type)
        assert b"Shop <1>" in reply.body
    assert await status(app, "/docs/unknown") == 404
    assert await status(app, "/docs", "POST") == 405
    assert await status(app, "/docs.json", "POST") == 405


async def test_asyncapi_route() -> None:
    route = AsyncAPIRoute("/api/docs/", asyncapi_json_path="/schema.json", sidebar=False)
    app = AsgiFastStream(NatsBroker(UNREACHABLE), asyncapi_path=route)
    for path in ("/api/docs", "/api/docs/", "/schema.json", "/schema.yaml"):
        assert await status(app, path) == 200
    for path in ("/api/docs.json", "/docs"):
        assert await status(app, path) == 404
    alone = AsgiFastStream(asyncapi_path=AsyncAPIRoute("/docs", asyncapi_json_path=None))
    assert await status(alone, "/docs.json") == 404
    assert await status(alone, "/docs/asyncapi.json") == 200


@pytest.mark.parametrize("off", [None, ""])
def test_no_docs_unless_their_path_is_named(off: Any) -> None:
    assert AsgiFastStream(asyncapi_path=off).routes == []


@typing.no_type_check  # the decorators are upstream's or ours
def described(module: Any, build: str, **specification: Any) -> Any:
    """Build one application with upstream's names from this module, and return its AsyncAPI document."""
    broker = NatsBroker("nats://broker:4222")

    @broker.subscriber("in")
    @broker.publisher("out")
    async def handle(message: int) -> str:
        """Handle it."""

    @module.get
    async def documented(scope: Any) -> Any:
        """Say hello."""

    @module.get(description="Described.", tags=[{"name": "tag"}], unique_id="unique")
    async def described_get(scope: Any) -> Any: ...

    @module.get(include_in_schema=False)
    async def hidden(scope: Any) -> Any: ...

    @module.post(tags=[{"name": "tag"}])
    async def posted(scope: Any) -> Any: ...

    async def plain(scope: Any, receive: Any, send: Any) -> None: ...

    routes = [
        ("/documented", documented),
        ("/described", described_get),
        ("/hidden", hidden),
        ("/posted", posted),
        ("/plain", plain),
        ("/ping", module.make_ping_asgi(broker, timeout=1.0, description="Ping.", tags=[{"name": "tag"}])),
        ("/hidden-ping", module.make_ping_asgi(broker, include_in_schema=False)),
    ]
    asyncapi = AsyncAPI(title="Shop", version="1.2.3", description="Sells.", **specification)
    if build == "keywords":
        app = module.AsgiFastStream(broker, asgi_routes=routes, asyncapi_path="/docs", specification=asyncapi)
    else:
        docs = module.AsyncAPIRoute("/docs", include_in_schema=True)
        app = module.AsgiFastStream(broker, asyncapi_path=docs, specification=asyncapi)
        for path, route in routes:
            app.mount(path, route)
    return app.schema.to_specification().to_jsonable()


@pytest.mark.parametrize("version", ["3.0.0", "2.6.0"])
@pytest.mark.parametrize("build", ["keywords", "mount"])
def test_the_document_is_the_same_as_upstreams(build: str, version: str) -> None:
    document = json.dumps(described(ours, build, schema_version=version))
    theirs = json.dumps(described(upstream, build, schema_version=version))
    # Upstream's `post` answers HEAD too, and that only version 2.6 shows.
    assert ("POST, HEAD" in theirs) == (version == "2.6.0")
    assert document == theirs.replace("POST, HEAD", "POST")
    assert "Described." in document
    assert "hidden" not in document


async def test_the_document_that_is_served_has_the_routes() -> None:
    app = AsgiFastStream(NatsBroker(UNREACHABLE), asgi_routes=[("/hello", hello)], asyncapi_path="/docs")
    assert b'"address":"/hello"' in (await request(app, http_scope("/docs.json"))).body


# --- the life of the application ---


class Recorded:
    """An application that records the order of what happens, with the state of its broker."""

    def __init__(
        self, url: str, app_class: type[faststream.FastStream] = AsgiFastStream, **options: Any
    ) -> None:
        self.broker = NatsBroker(url)
        self.events: list[tuple[str, bool]] = []

        @asynccontextmanager
        async def lifespan() -> AsyncIterator[None]:
            await self.record("lifespan in")
            yield
            await self.record("lifespan out")

        self.app = app_class(
            self.broker,
            lifespan=lifespan,
            on_startup=[self.hook("on_startup")],
            after_startup=[self.hook("after_startup")],
            on_shutdown=[self.hook("on_shutdown")],
            after_shutdown=[self.hook("after_shutdown")],
            **options,
        )

    async def record(self, name: str) -> None:
        self.events.append((name, await self.broker.ping(1.0)))

    def hook(self, name: str) -> Callable[[], Any]:
        async def hook() -> None:
            await self.record(name)

        return hook

    def add_hooks(self, app: faststream.FastStream, suffix: str) -> None:
        app.on_startup(self.hook(f"on_startup {suffix}"))
        app.after_startup(self.hook(f"after_startup {suffix}"))
        app.on_shutdown(self.hook(f"on_shutdown {suffix}"))
        app.after_shutdown(self.hook(f"after_shutdown {suffix}"))


INNER = [("on_startup", False), ("after_startup", True), ("on_shutdown", True), ("after_shutdown", False)]
ALL = [("lifespan in", False), *INNER, ("lifespan out", False)]


async def test_the_order_of_hooks_under_a_server(shared_nats: NatsServer) -> None:
    recorded = Recorded(shared_nats.url)
    sent = await exchange(
        recorded.app,  # type: ignore[arg-type]
        {"type": "lifespan"},
        {"type": "lifespan.startup"},
        {"type": "lifespan.shutdown"},
    )
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert recorded.events == ALL


async def test_the_order_of_hooks_in_a_lifespan_context(shared_nats: NatsServer) -> None:
    recorded = Recorded(shared_nats.url)
    assert isinstance(recorded.app, AsgiFastStream)
    async with recorded.app.start_lifespan_context():
        assert recorded.events == ALL[:3]
    assert recorded.events == ALL


async def test_the_order_of_hooks_without_the_lifespan(shared_nats: NatsServer) -> None:
    # As upstream: start() and stop() run the hooks, and who calls them runs the lifespan.
    recorded = Recorded(shared_nats.url)
    for _ in range(2):
        async with recorded.app:
            assert recorded.events == INNER[:2]
        assert recorded.events == INNER
        await recorded.app.stop()
        assert recorded.events == INNER
        recorded.events.clear()


async def test_the_order_of_hooks_in_faststreams_test_app(shared_nats: NatsServer) -> None:
    recorded = Recorded(shared_nats.url)
    async with TestApp(recorded.app):
        assert recorded.events == ALL[:3]
    assert recorded.events == ALL


async def test_a_message_under_test_app_and_test_broker() -> None:
    broker = NatsBroker(UNREACHABLE)
    inbox = Inbox()
    broker.subscriber("in")(inbox.put)
    app = AsgiFastStream(broker, asgi_routes=[("/ping", make_ping_asgi(broker))], readiness_path="/ready")
    async with TestNatsBroker(broker, connect_only=True), TestApp(app):
        await broker.publish("hello", "in")
        assert await inbox.get() == "hello"
        assert [await status(app, path) for path in ("/ping", "/ready")] == [204, 204]
    assert app.broker_lifespan.state == "stopped"


def test_faststreams_test_app_in_a_thread(shared_nats: NatsServer) -> None:
    recorded = Recorded(shared_nats.url)
    with TestApp(recorded.app):
        assert recorded.events == ALL[:3]
    assert recorded.events == ALL


async def test_options_reach_the_startup_hooks_and_the_lifespan(shared_nats: NatsServer) -> None:
    seen: list[object] = []

    @asynccontextmanager
    async def lifespan(env: str, context: faststream.ContextRepo) -> AsyncIterator[None]:
        seen.append(env)
        context.set_global("env", env)
        yield

    app = AsgiFastStream(NatsBroker(shared_nats.url), lifespan=lifespan)

    @app.on_startup
    async def convert(number: int, app: InjectedApp) -> None:
        seen.extend((number, app))

    @app.after_startup
    def after(env: Annotated[str, Context()]) -> None:
        seen.append(env)

    async with app.start_lifespan_context({"env": "test", "number": "5"}):
        pass
    assert seen == ["test", 5, app, "test"]


async def test_a_missing_option_names_it(shared_nats: NatsServer) -> None:
    app = AsgiFastStream(NatsBroker(shared_nats.url))

    @app.on_startup
    def hook(env: str, number: int) -> None: ...

    with pytest.raises(StartupValidationError) as raised:
        await app.start(number="many")
    assert raised.value.missed_fields == ("env",)
    assert raised.value.invalid_fields == ("number",)
    assert app.broker_lifespan.state == "failed"


async def test_the_lifespan_message_of_a_failed_hook(
    shared_nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    app = AsgiFastStream(NatsBroker(shared_nats.url))

    @app.on_startup
    async def hook() -> None:
        raise ValueError("the secret")

    sent = await exchange(app, {"type": "lifespan"}, {"type": "lifespan.startup"})
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert "ValueError" in sent[0]["message"]
    assert "the secret" not in sent[0]["message"]


# --- as_asgi and from_app ---


def dependency() -> str:
    return "real"


def as_asgi(base: faststream.FastStream, **options: Any) -> AsgiFastStream:
    if isinstance(base, FastStream):
        return base.as_asgi(**options)
    return AsgiFastStream.from_app(base, **options)


BASES = pytest.mark.parametrize("base_class", [FastStream, faststream.FastStream], ids=["ours", "upstreams"])


def test_our_faststream_gives_our_app() -> None:
    assert isinstance(FastStream().as_asgi(), AsgiFastStream)
    assert isinstance(AsgiFastStream.from_app(faststream.FastStream()), AsgiFastStream)
    assert issubclass(FastStream, faststream.FastStream)
    assert issubclass(AsgiFastStream, FastStream)


@BASES
async def test_nothing_is_lost(base_class: type[faststream.FastStream], shared_nats: NatsServer) -> None:
    subject = f"lost.{base_class.__module__}"
    broker = NatsBroker(shared_nats.url)
    inbox = Inbox()

    @broker.subscriber(subject)
    async def handle(message: str, key: Annotated[str, Context()], app: InjectedApp) -> None:
        inbox.put((message, key, app))

    @get
    async def handler(key: Annotated[str, Context()], app: InjectedApp) -> AsgiResponse:
        inbox.put((key, app))
        return AsgiResponse()

    context, provider, serializer = faststream.ContextRepo({"key": "value"}), Provider(), MsgSpecSerializer()
    logger = logging.getLogger("tests.app")
    base = base_class(
        broker,
        context=context,
        provider=provider,
        serializer=serializer,
        logger=logger,
        specification=AsyncAPI(title="Shop", version="1.2.3", description="Sells."),
    )
    app = as_asgi(base, asgi_routes=[("/handler", handler)], asyncapi_path="/docs")
    assert app.config is base.config
    assert app.config.provider is provider
    assert app.config.serializer is serializer
    assert app.schema is base.schema
    assert app.logger is logger
    assert handler.logger is logger

    document = (await request(app, http_scope("/docs.json"))).body
    assert b'"info":{"title":"Shop","version":"1.2.3","description":"Sells."}' in document
    context.set_global("key", "later")
    async with app:
        assert await status(app, "/handler") == 200
        assert await inbox.get() == ("later", app)
        await broker.publish("hello", subject)
        assert await inbox.get() == ("hello", "later", app)


@BASES
async def test_a_dependency_override_reaches_an_http_handler(base_class: type[faststream.FastStream]) -> None:
    @get
    async def handler(value: Annotated[str, Depends(dependency)]) -> AsgiResponse:
        return AsgiResponse(value.encode())

    provider = Provider()
    app = as_asgi(base_class(provider=provider), asgi_routes=[("/path", handler)])
    with provider.scope(dependency, lambda: "overridden"):
        assert (await request(app, http_scope("/path"))).body == b"overridden"
    assert (await request(app, http_scope("/path"))).body == b"real"


async def test_a_dependency_override_of_our_own_app_reaches_an_http_handler() -> None:
    @get
    async def handler(value: Annotated[str, Depends(dependency)]) -> AsgiResponse:
        return AsgiResponse(value.encode())

    provider = Provider()
    provider.override(dependency, lambda: "overridden")
    app = AsgiFastStream(provider=provider, asgi_routes=[("/path", handler)])
    assert (await request(app, http_scope("/path"))).body == b"overridden"


@BASES
async def test_the_serializer_reaches_an_http_handler(base_class: type[faststream.FastStream]) -> None:
    used: list[str] = []

    class Recording(MsgSpecSerializer):
        def __call__(self, **keywords: Any) -> Any:
            used.append(keywords["name"])
            return super().__call__(**keywords)

    @get
    async def handler(number: Annotated[list[int], Query(cast=True)]) -> AsgiResponse:
        return AsgiResponse(repr(number).encode())

    app = as_asgi(base_class(serializer=Recording()), asgi_routes=[("/path", handler)])
    assert (await request(app, http_scope("/path", query="number=1"))).body == b"[1]"
    assert "handler" in used
    assert (await request(app, http_scope("/path", query="number=one"))).status == 422


@BASES
async def test_hooks_of_either_side_run_in_their_order(
    base_class: type[faststream.FastStream], shared_nats: NatsServer
) -> None:
    recorded = Recorded(shared_nats.url, base_class)
    app = as_asgi(recorded.app)
    recorded.add_hooks(recorded.app, "of the original")
    recorded.add_hooks(app, "of the new one")
    async with app.start_lifespan_context():
        pass
    steps = [
        (f"{name}{suffix}", up)
        for name, up in INNER
        for suffix in ("", " of the original", " of the new one")
    ]
    assert recorded.events == [ALL[0], *steps, ALL[-1]]


@BASES
async def test_brokers_of_either_side_are_run(
    base_class: type[faststream.FastStream], shared_nats: NatsServer
) -> None:
    inbox = Inbox()
    base = base_class()
    app = as_asgi(base, asyncapi_path="/docs")
    for number, side in enumerate((base, app)):
        broker = NatsBroker(shared_nats.url)
        broker.subscriber(f"sides.{base_class.__module__}.{number}")(inbox.put)
        side.add_broker(broker)
    assert base.brokers == app.brokers
    async with app:
        for number, added in enumerate(app.brokers):
            await added.publish(number, f"sides.{base_class.__module__}.{number}")
            assert await inbox.get() == number
        document = (await request(app, http_scope("/docs.json"))).body.decode()
    assert all(f'"sides.{base_class.__module__}.{number}"' in document for number in range(2))


@BASES
def test_the_routes_are_in_the_originals_document(base_class: type[faststream.FastStream]) -> None:
    base = base_class(NatsBroker(UNREACHABLE))
    as_asgi(base, asgi_routes=[("/hello", hello)])
    assert "/hello" in str(base.schema.to_specification().to_jsonable())


@BASES
async def test_as_asgi_takes_the_keywords_of_a_host(
    base_class: type[faststream.FastStream], nats: NatsServer
) -> None:
    base = base_class(NatsBroker(nats.url))
    up = asyncio.Event()

    def changed(_: str, new: str) -> None:
        if new == "running":
            up.set()

    app = as_asgi(base, readiness_path="/ready", startup="background", consume=False, on_state_change=changed)
    assert (app.broker_lifespan.startup, app.broker_lifespan.consume) == ("background", False)
    async with app:
        async with asyncio.timeout(5):
            await up.wait()
        assert await status(app, "/ready") == 204


def test_from_app_takes_upstreams_positions() -> None:
    app = AsgiFastStream.from_app(faststream.FastStream(), [("/hello", hello)], "/docs")
    assert [path for path, _ in app.routes] == ["/hello", "/docs.json", "/docs.yaml", "/docs"]
    app = FastStream().as_asgi([("/hello", hello)], "/docs")
    assert [path for path, _ in app.routes] == ["/hello", "/docs.json", "/docs.yaml", "/docs"]


def test_a_subclass_stays_one() -> None:
    class Own(AsgiFastStream):
        pass

    assert type(Own.from_app(FastStream())) is Own


async def test_one_lifespan_for_probes_of_another_place(nats: NatsServer) -> None:
    app = AsgiFastStream(NatsBroker(nats.url))
    app.mount("/ping", make_ping_asgi(app))
    app.mount("/by-lifespan", make_ping_asgi(app.broker_lifespan))
    assert isinstance(app.broker_lifespan, BrokerLifespan)
    async with app:
        assert [await status(app, path) for path in ("/ping", "/by-lifespan")] == [204, 204]


# --- run() and exit() ---


@asynccontextmanager
async def running(app: AsgiFastStream, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Run the app by `run()`; `exit()` must end it."""
    port, held = hold_port()
    task = asyncio.create_task(app.run(run_extra_options={"host": HOST, "port": str(port), **options}))
    try:
        async with asyncio.timeout(10), httpx.AsyncClient(base_url=f"http://{HOST}:{port}") as client:
            while True:
                try:
                    await client.get("/")
                    break
                except httpx.ConnectError:
                    assert not task.done()
                    await asyncio.sleep(0.01)
            yield client
            await asyncio.wait_for(task, 5)
    finally:
        with held or nullcontext():
            task.cancel()
            await asyncio.wait((task,))


async def test_run_serves_until_exit(shared_nats: NatsServer) -> None:
    recorded = Recorded(shared_nats.url, asgi_routes=[("/hello", hello)])
    app = recorded.app
    assert isinstance(app, AsgiFastStream)
    async with running(app, access_log="false") as client:
        assert (await client.get("/hello")).text == "hello"
        assert recorded.events == ALL[:3]
        app.exit()
    assert recorded.events == ALL


async def test_run_with_a_hook_that_takes_every_option(caplog: pytest.LogCaptureFixture) -> None:
    app = AsgiFastStream(logger=None)
    seen: dict[str, Any] = {}
    app.on_startup(lambda **options: seen.update(options))
    async with running(app, rot_path="/svc") as client:
        assert (await client.get("/unknown")).status_code == 404
        app.exit()
    assert seen["rot_path"] == "/svc"
    assert "has no effect" not in caplog.text


async def test_run_names_an_option_that_nobody_takes(caplog: pytest.LogCaptureFixture) -> None:
    app = AsgiFastStream()
    app.on_startup(lambda env: None)
    async with running(app, env="test", rot_path="/svc"):
        app.exit()
    [text] = [text for text in caplog.messages if "has no effect" in text]
    assert text.startswith("--rot-path has no effect: neither uvicorn nor")
    assert text.endswith("Did you mean --root-path?")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bind": "nowhere"}, "Error: 'nowhere' does not say where to listen"),
        ({"access_log": "perhaps"}, "Error: --access-log must be true or false"),
        (
            {"bind": "unix:/run/app.sock", "worker_id": 1},
            "Error: The workers that `faststream run` spawns cannot",
        ),
    ],
)
async def test_run_ends_with_one_line_where_it_cannot_serve(options: dict[str, Any], said: str) -> None:
    app = AsgiFastStream()
    with pytest.raises(SystemExit) as raised:
        await app.run(run_extra_options=options)
    # Python prints the text, and the code is 1.
    assert str(raised.value.code).startswith(said)
    assert not app.broker_lifespan.was_entered


async def test_exit_of_the_original_app_ends_run(shared_nats: NatsServer) -> None:
    base = FastStream(NatsBroker(shared_nats.url))

    @get
    def leave() -> AsgiResponse:
        base.exit()
        return AsgiResponse(b"left")

    app = base.as_asgi(asgi_routes=[("/exit", leave)])
    async with running(app) as client:
        assert (await client.get("/exit")).text == "left"
    assert app.broker_lifespan.state == "stopped"


async def test_run_raises_what_the_command_line_can_show(shared_nats: NatsServer) -> None:
    app = AsgiFastStream(NatsBroker(shared_nats.url))

    @app.on_startup
    def hook(env: str) -> None: ...

    with pytest.raises(StartupValidationError) as raised:
        await app.run(run_extra_options={"port": "0"})
    assert raised.value.missed_fields == ("env",)


async def test_run_ends_with_the_servers_code_when_the_start_fails(shared_nats: NatsServer) -> None:
    app = AsgiFastStream(NatsBroker(shared_nats.url), on_startup=[lambda: 1 / 0])
    with pytest.raises(SystemExit, match="3"):
        await app.run(run_extra_options={"port": "0"})


IN_A_TEST_CLIENT = """
import asyncio, signal, sys
from faststream_adapters import AsgiFastStream

app = AsgiFastStream()
app.exit()

async def main():
    messages = iter(["lifespan.startup", "lifespan.shutdown"])
    async def receive():
        message = next(messages)
        if message == "lifespan.shutdown":
            app.exit()
        return {"type": message}
    async def send(message):
        print(message["type"])
    await app({"type": "lifespan"}, receive, send)
    await asyncio.sleep(0)

if sys.argv[1] == "asyncio.run":
    asyncio.run(main())
else:
    asyncio.new_event_loop().run_until_complete(main())
print("alive")
"""


@pytest.mark.parametrize(
    "how",
    [
        "asyncio.run",
        "run_until_complete",
    ],
)
def test_exit_without_a_server_raises_no_signal(how: str) -> None:
    # In a test client's lifespan nobody handles the signal, and it would end the tests.
    done = subprocess.run(
        [sys.executable, "-c", IN_A_TEST_CLIENT, how], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (
        0,
        "lifespan.startup.complete\nlifespan.shutdown.complete\nalive\n",
    )


EXIT_APP = """
import os
from faststream.nats import NatsBroker
from faststream_adapters import AsgiResponse, FastStream, get

base = FastStream(NatsBroker(os.environ["NATS_URL"]))

@get
async def exit_new(scope):
    app.exit()
    return AsgiResponse(b"leaving")

@get
def exit_original(scope):  # not in the main thread
    base.exit()
    return AsgiResponse(b"leaving")

@base.after_shutdown
def stopped():
    print("stopped in good order")

app = base.as_asgi(asgi_routes=[("/new", exit_new), ("/original", exit_original)])
"""
GRANIAN = ["-m", "granian", "--interface", "asgi", "--host", HOST, "--port", "{port}", "main:app"]
UVICORN = ["-m", "uvicorn", "--host", HOST, "--port", "{port}", "main:app"]
CLI = ["-m", "faststream", "run", "main:app", "--host", HOST, "--port", "{port}"]


@pytest.mark.parametrize(
    ("command", "path", "code"),
    [
        (UVICORN, "/new", 0),
        (UVICORN, "/original", 0),
        (GRANIAN, "/new", 1),  # its worker has ended, and the main process did not ask for that
        (CLI, "/original", 0),
    ],
    ids=["uvicorn", "uvicorn-original", "granian", "cli"],
)
def test_exit_ends_the_server(command: list[str], path: str, code: int, shared_nats: NatsServer) -> None:
    server = AppServer([sys.executable, *command], app=EXIT_APP, env={"NATS_URL": shared_nats.url})
    with server:
        assert httpx.get(f"{server.url}{path}").text == "leaving"
        assert server.wait() == code
        assert "stopped in good order" in server.output()


CLI_APP = """
import os
from faststream.nats import NatsBroker
from faststream_adapters import AsgiFastStream

broker = NatsBroker(os.environ["NATS_URL"])
app = AsgiFastStream(broker, ping_path="/ping", asyncapi_path="/docs")

@broker.subscriber("cli.in")
async def handle(message: str) -> str:
    return message * 2

@app.on_startup
def hook(env: str = "none"):
    print("env is", env)

@app.after_shutdown
def stopped():
    print("stopped in good order")
"""


async def test_faststream_run(shared_nats: NatsServer) -> None:
    command = [sys.executable, *CLI, "--env", "test"]
    with AppServer(command, app=CLI_APP, env={"NATS_URL": shared_nats.url}) as server:
        async with httpx.AsyncClient(base_url=server.url) as client, NatsBroker(shared_nats.url) as broker:
            assert (await client.get("/ping")).status_code == 204
            assert "text/html" in (await client.get("/docs")).headers["content-type"]
            reply = await broker.request("ab", "cli.in", timeout=5)
            assert await reply.decode() == "abab"
        server.terminate()
        assert server.wait() == -signal.SIGTERM
        assert "env is test" in server.output()
        assert "stopped in good order" in server.output()


def test_faststream_run_with_a_missing_option_is_a_clear_error(shared_nats: NatsServer) -> None:
    app = CLI_APP.replace('env: str = "none"', "env: str")
    server = AppServer([sys.executable, *CLI], app=app, env={"NATS_URL": shared_nats.url})
    exited = server.run_to_exit()
    assert exited.returncode == 1
    assert "--env" in exited.output
    assert "Traceback" not in exited.output


async def test_mounted_docs_are_listed_when_they_ask_for_it() -> None:
    for wanted in (True, False):
        app = AsgiFastStream()
        app.mount("/docs", make_asyncapi_asgi(app, include_in_schema=wanted))
        assert ("docs:HttpChannel" in app.schema.to_specification().to_jsonable()["channels"]) is wanted


async def test_a_broker_cannot_be_added_while_running(shared_nats: NatsServer) -> None:
    app = AsgiFastStream(NatsBroker(shared_nats.url))
    late = NatsBroker(shared_nats.url)
    async with app:
        with pytest.raises(SetupError, match="add it before, or in on_startup"):
            app.add_broker(late)
    app.add_broker(late)
    async with app:
        assert late.running
