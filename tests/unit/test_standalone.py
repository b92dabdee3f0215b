"""AsgiFastStream and FastStream without a server: routes, documents, arguments and conversions."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import typing
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import faststream
import faststream.asgi as upstream
import pytest
from fast_depends import Provider
from fast_depends.msgspec import MsgSpecSerializer
from faststream import Depends, TestApp
from faststream.asgi.types import Message, Receive, Scope, Send
from faststream.exceptions import SetupError, StartupValidationError
from faststream.nats import NatsBroker, TestNatsBroker
from faststream.specification import AsyncAPI

import faststream_adapters as adapters
from faststream_adapters import (
    AsgiFastStream,
    AsgiResponse,
    AsyncAPIRoute,
    BrokerLifespan,
    BrokerNotUpError,
    FastStream,
    Query,
    get,
    make_asyncapi_asgi,
    make_ping_asgi,
    make_readiness_asgi,
)
from faststream_adapters._asgi.routing import route_path
from faststream_adapters._hosting.options import HostKeywords
from tests.harness.asgi_calls import exchange, http_scope, request
from tests.harness.standalone import BASES, Inbox, as_asgi, hello, status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


UNREACHABLE = "nats://127.0.0.1:1"


async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with the path below the mount."""
    await AsgiResponse(route_path(scope).encode())(scope, receive, send)


# --- routes ---


async def test_routes_and_mounts_respond_below_their_paths() -> None:
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


async def test_an_unknown_path_is_not_found() -> None:
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
def test_two_routes_with_the_same_path_are_refused(keywords: Any) -> None:
    with pytest.raises(SetupError, match="'/hello' is served already"):
        AsgiFastStream(NatsBroker(UNREACHABLE), **keywords)


def test_a_mount_on_an_existing_path_is_refused() -> None:
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
def test_an_unknown_keyword_is_refused_with_a_list_of_known_ones(build: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="health_path") as raised:
        build(health_path="/health")
    for name in HostKeywords.__annotations__:
        assert name in str(raised.value)


def test_the_keywords_of_faststream_asgi_are_accepted() -> None:
    for name in ("__init__", "from_app", "mount", "run", "start_lifespan_context"):
        expected = inspect.signature(getattr(upstream.AsgiFastStream, name)).parameters
        accepted = inspect.signature(getattr(AsgiFastStream, name)).parameters
        assert list(accepted)[: len(expected)] == list(expected) or set(expected) <= set(accepted), name


# --- brokers ---


def test_a_broker_that_is_added_twice_is_refused() -> None:
    broker = NatsBroker(UNREACHABLE)
    app = AsgiFastStream(broker)
    with pytest.raises(SetupError, match="already"):
        app.add_broker(broker)


# --- AsyncAPI ---


async def test_a_broker_that_is_added_refuses_to_publish_before_the_start() -> None:
    app = AsgiFastStream()
    broker = NatsBroker("nats://127.0.0.1:1")
    app.add_broker(broker)
    with pytest.raises(BrokerNotUpError, match="it has not been started"):
        await broker.publish("hello", "greetings")


async def test_the_docs_are_served_at_their_path() -> None:
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


async def test_the_paths_of_the_docs_can_be_set_by_a_route() -> None:
    route = AsyncAPIRoute("/api/docs/", asyncapi_json_path="/schema.json", sidebar=False)
    app = AsgiFastStream(NatsBroker(UNREACHABLE), asyncapi_path=route)
    for path in ("/api/docs", "/api/docs/", "/schema.json", "/schema.yaml"):
        assert await status(app, path) == 200
    for path in ("/api/docs.json", "/docs"):
        assert await status(app, path) == 404
    without_json = AsgiFastStream(asyncapi_path=AsyncAPIRoute("/docs", asyncapi_json_path=None))
    assert await status(without_json, "/docs.json") == 404
    assert await status(without_json, "/docs/asyncapi.json") == 200


@pytest.mark.parametrize("off", [None, ""])
def test_the_docs_are_not_served_without_a_path(off: Any) -> None:
    assert AsgiFastStream(asyncapi_path=off).routes == []


@typing.no_type_check  # the decorators come from either package
def described(module: Any, build: str, **specification: Any) -> Any:
    """Build an application with the names of faststream.asgi in a module, and return its document."""
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
def test_the_document_equals_that_of_faststream_asgi(build: str, version: str) -> None:
    document = json.dumps(described(adapters, build, schema_version=version))
    expected = json.dumps(described(upstream, build, schema_version=version))
    # `post` of faststream.asgi also handles HEAD, which only version 2.6 shows.
    assert ("POST, HEAD" in expected) == (version == "2.6.0")
    assert document == expected.replace("POST, HEAD", "POST")
    assert "Described." in document
    assert "hidden" not in document


async def test_the_served_document_contains_the_routes() -> None:
    app = AsgiFastStream(NatsBroker(UNREACHABLE), asgi_routes=[("/hello", hello)], asyncapi_path="/docs")
    assert b'"address":"/hello"' in (await request(app, http_scope("/docs.json"))).body


# --- startup and shutdown ---


async def test_an_app_runs_under_test_app_and_test_broker() -> None:
    broker = NatsBroker(UNREACHABLE)
    inbox = Inbox()
    broker.subscriber("in")(inbox.put)
    app = AsgiFastStream(broker, asgi_routes=[("/ping", make_ping_asgi(broker))], readiness_path="/ready")
    async with TestNatsBroker(broker, connect_only=True), TestApp(app):
        await broker.publish("hello", "in")
        assert await inbox.get() == "hello"
        assert [await status(app, path) for path in ("/ping", "/ready")] == [204, 200]
    assert app.broker_lifespan.state == "stopped"


async def test_the_error_names_missing_and_invalid_options() -> None:
    app = AsgiFastStream(NatsBroker(UNREACHABLE))

    @app.on_startup
    def hook(env: str, number: int) -> None: ...

    with pytest.raises(StartupValidationError) as raised:
        await app.start(number="many")
    assert raised.value.missed_fields == ("env",)
    assert raised.value.invalid_fields == ("number",)
    assert app.broker_lifespan.state == "failed"


async def test_the_message_of_a_failed_hook_has_no_details(caplog: pytest.LogCaptureFixture) -> None:
    app = AsgiFastStream(NatsBroker(UNREACHABLE))

    @app.on_startup
    async def hook() -> None:
        raise ValueError("the secret")

    sent: list[Message] = []
    with pytest.raises(ValueError, match="the secret"):
        await exchange(app, {"type": "lifespan"}, {"type": "lifespan.startup"}, sent=sent)
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert "ValueError" in sent[0]["message"]
    assert "the secret" not in sent[0]["message"]


# --- as_asgi and from_app ---


def dependency() -> str:
    return "real"


def test_an_app_is_converted_to_asgifaststream() -> None:
    assert isinstance(FastStream().as_asgi(), AsgiFastStream)
    assert isinstance(AsgiFastStream.from_app(faststream.FastStream()), AsgiFastStream)
    assert issubclass(FastStream, faststream.FastStream)
    assert issubclass(AsgiFastStream, FastStream)


@BASES
async def test_a_dependency_override_applies_to_http_handlers_of_a_converted_app(
    base_class: type[faststream.FastStream],
) -> None:
    @get
    async def handler(value: Annotated[str, Depends(dependency)]) -> AsgiResponse:
        return AsgiResponse(value.encode())

    provider = Provider()
    app = as_asgi(base_class(provider=provider), asgi_routes=[("/path", handler)])
    with provider.scope(dependency, lambda: "overridden"):
        assert (await request(app, http_scope("/path"))).body == b"overridden"
    assert (await request(app, http_scope("/path"))).body == b"real"


async def test_a_dependency_override_applies_to_http_handlers() -> None:
    @get
    async def handler(value: Annotated[str, Depends(dependency)]) -> AsgiResponse:
        return AsgiResponse(value.encode())

    provider = Provider()
    provider.override(dependency, lambda: "overridden")
    app = AsgiFastStream(provider=provider, asgi_routes=[("/path", handler)])
    assert (await request(app, http_scope("/path"))).body == b"overridden"


@BASES
async def test_the_serializer_of_a_converted_app_applies_to_http_handlers(
    base_class: type[faststream.FastStream],
) -> None:
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
def test_the_document_of_the_original_app_contains_the_routes(
    base_class: type[faststream.FastStream],
) -> None:
    base = base_class(NatsBroker(UNREACHABLE))
    as_asgi(base, asgi_routes=[("/hello", hello)])
    assert "/hello" in str(base.schema.to_specification().to_jsonable())


def test_positional_arguments_are_those_of_faststream_asgi() -> None:
    app = AsgiFastStream.from_app(faststream.FastStream(), [("/hello", hello)], "/docs")
    assert [path for path, _ in app.routes] == ["/hello", "/docs.json", "/docs.yaml", "/docs"]
    app = FastStream().as_asgi([("/hello", hello)], "/docs")
    assert [path for path, _ in app.routes] == ["/hello", "/docs.json", "/docs.yaml", "/docs"]


def test_from_app_returns_an_instance_of_the_subclass() -> None:
    class Subclass(AsgiFastStream):
        pass

    assert type(Subclass.from_app(FastStream())) is Subclass


# --- run() and exit() ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bind": "nowhere"}, "Error: 'nowhere' is not an address to listen on"),
        ({"access_log": "perhaps"}, "Error: --access-log must be true or false"),
        (
            {"bind": "unix:/run/app.sock", "worker_id": 1},
            "Error: The workers that `faststream run` spawns cannot",
        ),
    ],
)
async def test_run_exits_with_a_message_if_it_cannot_serve(options: dict[str, Any], message: str) -> None:
    app = AsgiFastStream()
    with pytest.raises(SystemExit) as raised:
        await app.run(run_extra_options=options)
    # With a text as the code, Python prints the text and exits with code 1.
    assert str(raised.value.code).startswith(message)
    assert not app.broker_lifespan.was_entered


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
        pytest.param("run_until_complete", marks=pytest.mark.full),
    ],
)
def test_exit_without_a_server_raises_no_signal(how: str) -> None:
    # In the lifespan of a test client, no server handles the signal, so it would end the test process.
    done = subprocess.run(
        [sys.executable, "-c", IN_A_TEST_CLIENT, how], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (
        0,
        "lifespan.startup.complete\nlifespan.shutdown.complete\nalive\n",
    )


async def test_mounted_docs_are_in_the_document_if_requested() -> None:
    for included in (True, False):
        app = AsgiFastStream()
        app.mount("/docs", make_asyncapi_asgi(app, include_in_schema=included))
        assert ("docs:HttpChannel" in app.schema.to_specification().to_jsonable()["channels"]) is included


# --- what comes from faststream.asgi ---


def test_the_list_of_routes_is_live() -> None:
    app = AsgiFastStream(asgi_routes=[("/hello", hello)])
    routes = app.routes
    routes.append(("/mounted", mounted))
    routes += [("/later", hello)]
    assert routes == app.routes == [("/hello", hello), ("/later", hello), ("/mounted", mounted)]
    assert repr(routes) == repr(list(routes))
    more = [("/more", mounted)]
    assert (routes + more, more + routes) == ([*routes, *more], [*more, *routes])
    assert (type(routes.copy()), routes.copy()) == (list, [*routes])
    assert (len(routes), routes[0], routes[1:2]) == (3, ("/hello", hello), [("/later", hello)])
    assert documented(app) == ["/hello", "/later"]
    del routes[0]
    routes[0] = ("/first", hello)
    assert routes == [("/first", hello), ("/mounted", mounted)]
    assert documented(app) == ["/first"]
    app.routes = [("/only", hello), ("/mounted", mounted)]
    assert routes == [("/only", hello), ("/mounted", mounted)]
    routes.clear()
    assert routes == []
    assert documented(app) == []
    assert routes != "[]"


def documented(app: AsgiFastStream) -> list[str]:
    return [path for path, _ in app.schema.http_handlers]  # type: ignore[attr-defined]  # of AsyncAPI


@pytest.mark.parametrize("path", ["without-slash", "/first"])
def test_a_list_of_routes_with_an_invalid_path_changes_nothing(path: str) -> None:
    app = AsgiFastStream(asgi_routes=[("/old", hello)])
    with pytest.raises(SetupError):
        app.routes = [("/first", hello), ("/second", hello), (path, mounted)]
    assert app.routes == [("/old", hello)]


async def test_the_list_of_routes_contains_the_docs() -> None:
    app = AsgiFastStream(asyncapi_path="/docs")
    app.routes.append(("/hello", hello))
    app.routes = [*app.routes, ("/later", hello)]
    assert (await request(app, http_scope("/docs.json"))).status == 200
    app.routes = [route for route in app.routes if not route[0].startswith("/docs")]
    assert (await request(app, http_scope("/docs.json"))).status == 404
    assert (await request(app, http_scope("/later"))).body == b"hello"


async def test_a_mounted_route_can_be_replaced() -> None:
    app = AsgiFastStream(asgi_routes=[("/hello", mounted)])
    app.mount("/hello/", hello, replace=True)
    assert app.routes == [("/hello", hello)]
    assert (await request(app, http_scope("/hello"))).body == b"hello"
    app.mount("/new", hello, replace=True)
    assert documented(app) == ["/hello/", "/new"]


@pytest.mark.parametrize("place", ["lifespan", "on_startup", "after_startup"])
async def test_a_route_that_is_mounted_at_each_start_is_replaced(place: str) -> None:
    def mount() -> None:
        app.mount("/hello", get(make_reply(len(replies))))
        replies.append(None)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        mount()
        yield

    replies: list[None] = []
    app = AsgiFastStream(**{place: lifespan if place == "lifespan" else [mount]})  # type: ignore[arg-type]
    for number in range(3):
        async with app.start_lifespan_context():
            assert (await request(app, http_scope("/hello"))).body == str(number).encode()
    assert documented(app) == ["/hello"]


def make_reply(number: int) -> Any:
    async def reply() -> AsgiResponse:
        return AsgiResponse(str(number).encode())

    return reply


@pytest.mark.parametrize("mounted_before", [True, False])
async def test_a_hook_cannot_mount_a_path_twice_in_one_run(mounted_before: bool) -> None:
    def mount() -> None:
        app.mount("/hello", hello)

    app = AsgiFastStream(
        asgi_routes=[("/hello", mounted)] if mounted_before else [], on_startup=[mount] * (2 - mounted_before)
    )
    with pytest.raises(SetupError, match="'/hello' is served already"):
        await app.start()


async def test_routes_of_the_old_app_are_taken_over() -> None:
    async def plain(scope: Scope, receive: Receive, send: Send) -> None:
        await AsgiResponse(b"plain")(scope, receive, send)

    broker = NatsBroker(UNREACHABLE)
    old = upstream.AsgiFastStream(
        broker,
        asgi_routes=[
            ("/hello", hello),
            ("/old", upstream.get(hello.func)),
            ("/plain", plain),
            ("/ping", upstream.make_ping_asgi(broker, timeout=0.1)),
        ],
        asyncapi_path="/docs",
    )
    app = AsgiFastStream.from_app(old, [("/new", hello)], "/docs")
    assert app.brokers == [broker]
    expected = {"/hello", "/old", "/plain", "/ping", "/new", "/docs", "/docs.json", "/docs.yaml"}
    assert {path for path, _ in app.routes} == expected
    for path in ("/hello", "/old"):
        assert (await request(app, http_scope(path))).body == b"hello"
    assert (await request(app, http_scope("/plain"))).body == b"plain"
    assert (await request(app, http_scope("/ping"))).status == 500
    assert (await request(app, http_scope("/docs/try", "POST"))).status in {404, 405}


def test_an_application_that_is_converted_twice_is_refused() -> None:
    """It would lose the routes and the keywords of the first one."""
    app = AsgiFastStream(NatsBroker(UNREACHABLE), asgi_routes=[("/hello", hello)])
    with pytest.raises(SetupError, match=r"an AsgiFastStream already.*mount\(\) adds routes"):
        app.as_asgi([("/new", hello)])


@pytest.mark.parametrize(
    ("target", "refused"),
    [
        ([NatsBroker()], r"as in AsgiFastStream\(broker\), not list"),
        (None, "not NoneType"),
        (faststream.FastStream(), r"not a FastStream: AsgiFastStream\.from_app\(app\)"),
    ],
)
def test_what_is_no_broker_is_refused(target: Any, refused: str) -> None:
    with pytest.raises(SetupError, match=refused):
        AsgiFastStream(target)


async def test_a_subclass_can_answer_what_no_route_serves() -> None:
    class Custom(AsgiFastStream):
        async def not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
            await AsgiResponse(b"custom", 404)(scope, receive, send)

    assert (await request(Custom(), http_scope("/missing"))).body == b"custom"


def test_an_app_of_the_old_package_is_a_target() -> None:
    old = upstream.AsgiFastStream(NatsBroker(UNREACHABLE))
    assert BrokerLifespan(old).brokers == tuple(old.brokers)
    make_readiness_asgi(old)


@pytest.mark.parametrize("json_path", ["/json", None])
async def test_a_docs_route_of_the_old_package_is_accepted(json_path: str | None) -> None:
    old = upstream.AsyncAPIRoute("/docs", "Described.", asyncapi_json_path=json_path, sidebar=False)
    app = AsgiFastStream(asyncapi_path=old)
    assert (await request(app, http_scope("/docs"))).status == 200
    assert (await request(app, http_scope("/json"))).status == (200 if json_path else 404)
    route = AsyncAPIRoute.ensure_route(old)
    assert (route.description, route.page["sidebar"], route.page["info"]) == ("Described.", False, True)


@pytest.mark.parametrize("names", [["title"], ["version", "description"], ["identifier"]])
def test_a_keyword_of_the_document_names_its_place(names: list[str]) -> None:
    with pytest.raises(TypeError) as raised:
        AsgiFastStream(**dict.fromkeys(names, "text"))  # type: ignore[arg-type]
    given = ", ".join(f"{name}=..." for name in names)
    assert f"pass specification=AsyncAPI({given})" in str(raised.value)
