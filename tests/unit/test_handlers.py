"""HTTP handlers of the application: injected parameters, responses and errors.

The future import turns all annotations in this module into strings, as in many applications.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import threading
from typing import TYPE_CHECKING, Annotated, Any

import faststream.asgi as upstream
import pytest
from faststream import Context, Depends, Logger
from faststream.annotations import ContextRepo as InjectedContext
from faststream.annotations import FastStream as InjectedApp
from faststream.asgi.types import Receive, Scope, Send
from faststream.nats import NatsBroker

import faststream_adapters as adapters
from faststream_adapters import (
    AsgiFastStream,
    AsgiResponse,
    BrokerLifespan,
    Header,
    HttpHandler,
    JSONResponse,
    Query,
    Request,
    get,
    post,
)
from faststream_adapters._compat.faststream import FastDependsConfig, injected
from faststream_adapters._standalone import handlers
from tests.harness.asgi_calls import exchange, http_scope, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from faststream.asgi.types import ASGIApp

    from faststream_adapters import AsgiResponse as ImportedForTypeCheckersOnly

LOGGER = logging.getLogger("tests.handlers")


def serve(handler: HttpHandler | upstream.HttpHandler, **options: Any) -> AsgiFastStream:
    return AsgiFastStream(asgi_routes=[("/path", handler)], **{"logger": LOGGER, **options})


def show(value: object) -> AsgiResponse:
    return AsgiResponse(repr(value).encode())


@pytest.fixture(autouse=True)
def no_logger_of_faststream(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOGGER.name)


# --- the decorators ---


@get
async def bare_get(scope: Scope) -> AsgiResponse:
    """Say hello."""
    return AsgiResponse(b"hello")


@post
async def bare_post(scope: Scope) -> AsgiResponse:
    return AsgiResponse(b"posted")


@get()
async def called_get(scope: Scope) -> AsgiResponse:
    return AsgiResponse(b"hello")


@get(include_in_schema=False, description="Described.", tags=[{"name": "tag"}], unique_id="id")
async def described_get(scope: Scope) -> AsgiResponse:
    """Not this."""
    return AsgiResponse(b"hello")


@post(include_in_schema=False, description="Described.", tags=[{"name": "tag"}], unique_id="id")
async def described_post(scope: Scope) -> AsgiResponse:
    return AsgiResponse(b"posted")


def test_the_defaults_of_the_decorators() -> None:
    for handler in (bare_get, called_get, bare_post):
        assert isinstance(handler, HttpHandler)
        assert handler.include_in_schema
        assert handler.tags is None
        assert handler.unique_id is None
    assert bare_get.description == "Say hello."
    assert called_get.description is None


@pytest.mark.parametrize("handler", [described_get, described_post])
def test_the_decorators_accept_schema_arguments(handler: HttpHandler) -> None:
    assert not handler.include_in_schema
    assert handler.description == "Described."
    assert handler.tags == [{"name": "tag"}]
    assert handler.unique_id == "id"


@pytest.mark.parametrize("decorator", [get, post])
def test_an_unknown_argument_is_refused(decorator: Any) -> None:
    with pytest.raises(TypeError, match="method"):
        decorator(method="PUT")(bare_get.func)


@pytest.mark.parametrize("handler", [bare_get, called_get, described_get])
async def test_get_handlers_respond_to_head(handler: HttpHandler) -> None:
    assert (await request(serve(handler), http_scope("/path"))).body == b"hello"
    head = await request(serve(handler), http_scope("/path", "HEAD"))
    assert (head.status, head.headers, head.body) == (200, {"content-length": "5"}, b"")


@pytest.mark.parametrize("handler", [bare_post, described_post])
async def test_post_handlers_respond_to_post(handler: HttpHandler) -> None:
    assert (await request(serve(handler), http_scope("/path", "POST"))).body == b"posted"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_get_rejects_other_methods(method: str) -> None:
    reply = await request(serve(bare_get), http_scope("/path", method))
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
async def test_post_rejects_other_methods_without_calling_the_handler(method: str) -> None:
    called = False

    @post
    async def handler() -> AsgiResponse:
        nonlocal called
        called = True
        return AsgiResponse()

    reply = await request(serve(handler), http_scope("/path", method))
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert not called
    assert (await request(serve(handler), http_scope("/path", "POST"))).status == 200
    assert called


async def test_a_handler_can_have_any_methods() -> None:
    handler = HttpHandler(bare_get.func, methods=("PUT", "DELETE"))
    assert (await request(serve(handler), http_scope("/path", "PUT"))).status == 200
    reply = await request(serve(handler), http_scope("/path"))
    assert (reply.status, reply.headers["allow"]) == (405, "PUT, DELETE")


async def test_a_handler_is_an_asgi_app() -> None:
    assert (await request(bare_get, http_scope("/any"))).body == b"hello"


@pytest.mark.parametrize("handler", [bare_get, bare_post])
async def test_a_websocket_is_closed(handler: HttpHandler) -> None:
    scope: Scope = {"type": "websocket", "path": "/path", "headers": []}
    sent = await exchange(serve(handler), scope, {"type": "websocket.connect"})
    assert [message["type"] for message in sent] == ["websocket.close"]


# --- direct calls ---


async def test_a_handler_of_the_scope_is_called_without_injection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(handlers, "injected")
    seen: list[object] = []

    @get
    async def handler(scope: int) -> AsgiResponse:  # an annotation that FastDepends would enforce
        seen.append(scope)
        return AsgiResponse()

    scope = http_scope("/path")
    assert (await request(serve(handler), scope)).status == 200
    assert seen[0] is scope


async def test_a_handler_without_parameters_is_called_without_injection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(handlers, "injected")

    @get
    async def handler() -> AsgiResponse:
        return AsgiResponse(b"hello")

    assert (await request(serve(handler), http_scope("/path"))).body == b"hello"


async def test_a_handler_can_return_any_asgi_app() -> None:
    async def teapot(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": scope["method"].encode()})

    @get
    async def handler() -> ASGIApp:
        return teapot

    assert await request(serve(handler), http_scope("/path")) == (418, [], b"GET")


# --- the same functions in apps of faststream.asgi and of this package ---


def dependency() -> int:
    return 5


async def async_dependency(request: Request) -> str:
    return request.headers["user-agent"]


def generator_dependency() -> Iterator[str]:
    yield "yielded"


async def async_generator_dependency() -> AsyncIterator[str]:
    yield "yielded"


async def scope_only(scope):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    return show(type(scope))


async def nothing() -> AsgiResponse:
    return show("nothing")


async def optional_scope(scope: Scope | None = None) -> AsgiResponse:
    return show(type(scope))


async def variable_arguments(*scopes: Any) -> AsgiResponse:
    return show(len(scopes))


async def keyword_only_scope(*, scope: Scope) -> AsgiResponse:
    return show(type(scope))


async def whole_request(request: Request) -> AsgiResponse:
    assert request.query_params is request.query_params
    return show((request.method, request.headers, request.query_params, await request.body()))


async def query(name: Annotated[str, Query()]) -> AsgiResponse:
    return show(name)


async def query_default_of_the_parameter(name: Any = Query()) -> AsgiResponse:
    return show(name)


async def query_alias(value: Annotated[list[str], Query("a-name")]) -> AsgiResponse:
    return show(value)


async def query_missing(missing: Annotated[list[str], Query()]) -> Any: ...


async def query_default(missing: Annotated[list[str], Query(default=("none",))]) -> AsgiResponse:
    return show(missing)


async def query_default_none(missing: Annotated[list[str] | None, Query(default=None)]) -> AsgiResponse:
    return show(missing)


async def query_cast(number: Annotated[list[int], Query(cast=True)]) -> AsgiResponse:
    return show(number)


async def query_cast_fails(name: Annotated[list[int], Query(cast=True)]) -> Any: ...


async def query_cast_one(number: Annotated[int, Query(cast=True)]) -> Any: ...


async def header(host: Annotated[str, Header()]) -> AsgiResponse:
    return show(host)


async def header_underscore(user_agent: Annotated[str, Header()]) -> Any: ...


async def header_alias(agent: Annotated[str, Header("User-Agent")]) -> AsgiResponse:
    return show(agent)


async def header_cast(number: Annotated[int, Header("X-Number", cast=True)]) -> AsgiResponse:
    return show(number)


async def header_cast_fails(number: Annotated[int, Header("User-Agent", cast=True)]) -> Any: ...


async def header_default(missing: Annotated[str, Header(default="none")]) -> AsgiResponse:
    return show(missing)


async def header_missing(missing: Annotated[str, Header()]) -> Any: ...


async def context(key: Annotated[str, Context()]) -> AsgiResponse:
    return show(key)


async def context_alias(value: str = Context("key")) -> AsgiResponse:
    return show(value)


async def context_missing(missing: Annotated[str, Context()]) -> Any: ...


async def context_default(missing: Annotated[str, Context(default="none")]) -> AsgiResponse:
    return show(missing)


async def context_itself(context: InjectedContext) -> AsgiResponse:
    return show(context.get("key"))


async def depends(value: Annotated[int, Depends(dependency)]) -> AsgiResponse:
    return show(value)


async def depends_default(value: Any = Depends(dependency)) -> AsgiResponse:
    return show(value)


async def depends_on_the_request(value: Annotated[str, Depends(async_dependency)]) -> AsgiResponse:
    return show(value)


async def depends_on_generators(
    one: Annotated[str, Depends(generator_dependency)],
    two: Annotated[str, Depends(async_generator_dependency)],
) -> AsgiResponse:
    return show((one, two))


async def logger(logger: Logger) -> AsgiResponse:
    return show(logger and logger.name)


async def mixed(
    scope: Any,
    request: Request,
    name: Annotated[list[str], Query()],
    *,
    logger: Logger,
    host: Annotated[str, Header()],
    value: int = Depends(dependency),
    key: str = Context(),
) -> AsgiResponse:
    return show((type(scope), scope is request.scope, name, logger, host, value, key))


async def scope_second(request: Request, scope: Any) -> AsgiResponse:
    return show((type(scope), request.method))


def sync_scope(scope: Scope) -> AsgiResponse:
    return show(threading.current_thread() is threading.main_thread())


def sync_request(request: Request) -> AsgiResponse:
    return show((request.method, threading.current_thread() is threading.main_thread()))


def sync_nothing() -> AsgiResponse:
    return show(threading.current_thread() is threading.main_thread())


async def fails(scope: Scope) -> AsgiResponse:
    raise ValueError


async def depends_on_failure(value: Annotated[str, Depends(fails)]) -> Any: ...


class Methods:
    async def with_scope(self, scope: Scope) -> AsgiResponse:
        return show(type(scope))

    async def with_request(self, request: Request) -> AsgiResponse:
        return show(request.method)

    async def __call__(self, name=Query()):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        return show(name)


METHODS = Methods()
PARTIAL = functools.partial(scope_only)


EXPECTED: dict[Any, tuple[int, bytes]] = {
    scope_only: (200, b"<class 'dict'>"),
    nothing: (200, b"'nothing'"),
    optional_scope: (200, b"<class 'dict'>"),
    variable_arguments: (200, b"1"),
    keyword_only_scope: (200, b"<class 'dict'>"),
    query: (200, b"['one', 'two']"),
    query_default_of_the_parameter: (200, b"['one', 'two']"),
    query_alias: (200, b"['x']"),
    query_missing: (422, b"Validation error"),
    query_default: (200, b"('none',)"),
    query_default_none: (200, b"None"),
    query_cast: (200, b"[7]"),
    query_cast_fails: (422, b"Validation error"),
    query_cast_one: (422, b"Validation error"),
    header: (200, b"'example.org'"),
    header_underscore: (422, b"Validation error"),
    header_alias: (200, b"'agent'"),
    header_cast: (200, b"7"),
    header_cast_fails: (422, b"Validation error"),
    header_default: (200, b"'none'"),
    header_missing: (422, b"Validation error"),
    context: (200, b"'value'"),
    context_alias: (200, b"'value'"),
    context_missing: (422, b"Validation error"),
    context_default: (200, b"'none'"),
    context_itself: (200, b"'value'"),
    depends: (200, b"5"),
    depends_default: (200, b"5"),
    depends_on_the_request: (200, b"'agent'"),
    depends_on_generators: (200, b"('yielded', 'yielded')"),
    depends_on_failure: (500, b"Internal Server Error"),
    logger: (200, b"'tests.handlers'"),
    scope_second: (200, b"(<class 'dict'>, 'GET')"),
    sync_scope: (200, b"False"),
    sync_request: (200, b"('GET', False)"),
    sync_nothing: (200, b"False"),
    fails: (500, b"Internal Server Error"),
    METHODS: (200, b"['one', 'two']"),
    METHODS.with_scope: (200, b"<class 'dict'>"),
    METHODS.with_request: (200, b"'GET'"),
    PARTIAL: (200, b"<class 'dict'>"),
}


def any_request() -> Scope:
    return http_scope(
        "/path",
        query="name=one&name=two&number=7&a-name=x",
        headers=[("Host", "example.org"), ("User-Agent", "agent"), ("X-Number", "7")],
    )


@pytest.mark.parametrize("func", EXPECTED, ids=lambda func: getattr(func, "__name__", type(func).__name__))
async def test_handlers_behave_as_in_faststream(func: Callable[..., Any]) -> None:
    replies = []
    for module in (upstream, adapters):
        app = module.AsgiFastStream(asgi_routes=[("/path", module.get(func))], logger=LOGGER)
        app.context.set_global("key", "value")
        replies.append(await request(app, any_request()))
    upstream_reply, reply = replies
    assert reply == upstream_reply
    assert (reply.status, reply.body) == EXPECTED[func]


async def test_all_kinds_of_parameters_in_one_handler() -> None:
    app = serve(get(mixed))
    app.context.set_global("key", "value")
    reply = await request(app, any_request())
    expected = (dict, True, ["one", "two"], LOGGER, "example.org", 5, "value")
    assert (reply.status, reply.body.decode()) == (200, repr(expected))


# --- injection ---


async def test_the_app_is_injected() -> None:
    seen: list[object] = []

    @get
    async def handler(app: InjectedApp) -> AsgiResponse:
        seen.append(app)
        return AsgiResponse()

    app = serve(handler)
    assert (await request(app, http_scope("/path"))).status == 200
    assert seen[0] is app


async def test_a_handler_of_faststream_works_in_the_app() -> None:
    seen: list[object] = []

    @upstream.get
    async def handler(
        app: InjectedApp,
        logger: Logger,
        name: Annotated[list[str], Query()],
        value: int = Depends(dependency),
    ) -> AsgiResponse:
        seen.extend((app, logger, name, value))
        return AsgiResponse(b"hello")

    app = serve(handler)
    reply = await request(app, http_scope("/path", query="name=one"))
    assert (reply.status, reply.body) == (200, b"hello")
    assert seen == [app, LOGGER, ["one"], 5]
    # The app routes it as it routes its own handlers.
    assert (await request(app, http_scope("/path/", query="name=one"))).status == 200
    assert (await request(app, http_scope("/path/below"))).status == 404
    assert (await request(app, http_scope("/path", "POST"))).status == 405


async def test_a_websocket_at_a_handler_of_faststream_is_closed() -> None:
    app = serve(upstream.get(nothing))
    sent = await exchange(
        app, {"type": "websocket", "path": "/path", "headers": []}, {"type": "websocket.connect"}
    )
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_a_handler_outside_an_app_injects_parameters() -> None:
    handler = get(depends_on_the_request)
    assert (await request(handler, any_request())).body == b"'agent'"


async def test_concurrent_requests_are_injected_separately() -> None:
    both = asyncio.Barrier(2)

    @get
    async def handler(request: Request, agent: Annotated[str, Header("user-agent")]) -> AsgiResponse:
        async with asyncio.timeout(5):
            await both.wait()
        return show((agent, request.headers["user-agent"]))

    app = serve(handler)
    scopes = [http_scope("/path", headers=[("user-agent", name)]) for name in ("a", "b")]
    replies = await asyncio.gather(*(request(app, scope) for scope in scopes))
    assert [reply.body for reply in replies] == [b"('a', 'a')", b"('b', 'b')"]


async def test_the_request_is_removed_from_the_context() -> None:
    app = serve(get(whole_request))
    assert (await request(app, http_scope("/path"))).status == 200
    assert app.context.get("request") is None


async def test_one_handler_can_serve_two_paths() -> None:
    handler = get(context)
    app = AsgiFastStream(asgi_routes=[("/one", handler), ("/two", handler)], logger=LOGGER)
    app.context.set_global("key", "value")
    for path in ("/one", "/two"):
        assert (await request(app, http_scope(path))).body == b"'value'"


async def test_a_context_value_that_is_set_later_is_injected() -> None:
    app = serve(get(context))
    assert (await request(app, http_scope("/path"))).status == 422
    app.context.set_global("key", "later")
    assert (await request(app, http_scope("/path"))).body == b"'later'"


async def test_an_unresolvable_annotation_is_logged_as_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # As in faststream.asgi: the parameter might have to be injected.
    @get
    async def handler(scope: Scope, other: ImportedForTypeCheckersOnly) -> Any: ...

    assert (await request(serve(handler), http_scope("/path"))).status == 500
    assert "ImportedForTypeCheckersOnly" in caplog.text


async def test_an_unresolvable_return_annotation_is_ignored() -> None:
    @get
    async def handler(request: Request) -> ImportedForTypeCheckersOnly:
        return AsgiResponse(request.method.encode())

    assert (await request(serve(handler), http_scope("/path"))).body == b"GET"


# --- errors ---


async def test_an_unexpected_error_is_logged_and_not_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @get
    async def handler(scope: Scope) -> AsgiResponse:
        raise ValueError("the secret")

    reply = await request(serve(handler), http_scope("/path"))
    assert (reply.status, reply.body) == (500, b"Internal Server Error")
    assert set(reply.headers) == {"content-length"}
    [record] = caplog.records
    assert (record.name, record.levelno) == (LOGGER.name, logging.ERROR)
    assert record.getMessage() == "GET '/path': the handler failed"
    assert "Traceback" in caplog.text
    assert "ValueError: the secret" in caplog.text


async def test_the_traceback_of_an_error_is_logged_without_credentials(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @get
    async def handler(scope: Scope) -> AsgiResponse:
        raise ValueError("no answer from postgres://shop:hunter2@db")

    await request(serve(handler), http_scope("/path"))
    assert "ValueError: no answer from postgres://***@db" in caplog.text
    assert "hunter2" not in caplog.text


async def test_a_broker_that_is_not_up_makes_the_service_unavailable(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = NatsBroker("nats://user:secret@127.0.0.1:1")
    BrokerLifespan(broker)

    @post
    async def handler() -> AsgiResponse:
        await broker.publish("hello", "greetings")
        raise AssertionError

    reply = await request(serve(handler), http_scope("/path", "POST"))
    assert (reply.status, reply.body) == (503, b"Service Unavailable")
    assert reply.headers["retry-after"] == "1"
    [record] = caplog.records
    assert (record.name, record.levelno) == (LOGGER.name, logging.WARNING)
    expected = "POST '/path': NatsBroker nats://127.0.0.1:1 is not up: it has not been started."
    assert record.getMessage().startswith(expected)
    assert "Traceback" not in caplog.text


async def test_a_validation_error_is_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    reply = await request(serve(get(query_cast_fails)), http_scope("/path", query="name=secret"))
    assert (reply.status, reply.body) == (422, b"Validation error")
    [record] = caplog.records
    assert (record.name, record.levelno) == (LOGGER.name, logging.INFO)
    assert record.getMessage() == "GET '/path': a parameter is missing or invalid"
    assert not record.exc_info


@pytest.mark.parametrize("result", [None, "text", b"bytes", {"a": 1}])
async def test_a_result_that_is_not_an_app_is_logged_as_an_error(
    result: object, caplog: pytest.LogCaptureFixture
) -> None:
    @get
    async def handler() -> Any:
        return result

    reply = await request(serve(handler), http_scope("/path"))
    assert (reply.status, reply.body) == (500, b"Internal Server Error")
    assert (
        f"handler returned {type(result).__name__}: return an AsgiResponse or another ASGI app" in caplog.text
    )


@pytest.mark.parametrize(
    ("func", "status"), [(fails, 500), (query_missing, 422), (nothing, 200), (whole_request, 200)]
)
async def test_errors_without_a_logger(func: Callable[..., Any], status: int) -> None:
    reply = await request(serve(get(func), logger=None), http_scope("/path"))
    assert reply.status == status


async def test_none_is_injected_as_the_logger_of_an_app_without_one() -> None:
    assert (await request(serve(get(logger), logger=None), http_scope("/path"))).body == b"None"


async def test_a_handler_outside_an_app_logs_errors(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("faststream.adapters")
    logger.addHandler(caplog.handler)
    try:
        assert (await request(get(fails), http_scope("/path"))).status == 500
    finally:
        logger.removeHandler(caplog.handler)
    assert "GET '/path': the handler failed" in caplog.text


async def test_a_handler_can_be_cancelled() -> None:
    @get
    async def handler() -> AsgiResponse:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await request(serve(handler), http_scope("/path"))


async def test_a_handler_is_called_again_after_an_error() -> None:
    calls = 0

    @get
    async def handler() -> AsgiResponse:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError
        return AsgiResponse()

    app = serve(handler)
    assert [(await request(app, http_scope("/path"))).status for _ in range(2)] == [500, 200]


# --- the request ---


async def test_the_attributes_of_a_request() -> None:
    reply = await request(serve(get(whole_request)), any_request())
    expected = (
        "GET",
        {"host": "example.org", "user-agent": "agent", "x-number": "7"},
        {"name": ["one", "two"], "number": ["7"], "a-name": ["x"]},
        b"",
    )
    assert reply.body.decode() == repr(expected)


async def test_query_params_are_unquoted() -> None:
    reply = await request(serve(get(query)), http_scope("/path", query="name=a%20b&name=%C3%A9&name=c+d"))
    assert reply.body.decode() == repr(["a b", "é", "c d"])


async def test_the_last_of_two_headers_with_the_same_name_is_injected() -> None:
    reply = await request(
        serve(get(header)), http_scope("/path", headers=[("HOST", "first"), ("Host", "last")])
    )
    assert reply.body == b"'last'"


async def test_the_body_can_be_read_twice() -> None:
    @post
    async def handler(request: Request) -> AsgiResponse:
        first = await request.body()
        assert await request.body() is first
        assert [chunk async for chunk in request.stream()] == [first]
        return JSONResponse(await request.json())

    reply = await request(serve(handler), http_scope("/path", "POST"), b'{"a":', b"", b" 1}")
    assert json.loads(reply.body) == {"a": 1}


async def test_stream_yields_each_chunk_once() -> None:
    @post
    async def handler(request: Request) -> AsgiResponse:
        chunks = [chunk async for chunk in request.stream()]
        for again in (request.body(), anext(request.stream())):
            with pytest.raises(RuntimeError, match="streamed already"):
                await again
        return show(chunks)

    reply = await request(serve(handler), http_scope("/path", "POST"), b"one", b"", b"two")
    assert reply.body == b"[b'one', b'two']"


async def test_a_client_that_disconnects_is_not_an_error(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[bytes] = []

    @post
    async def handler(request: Request) -> Any:
        async for chunk in request.stream():
            seen.append(chunk)  # noqa: PERF401 (keeps the chunks that arrive before the disconnect)

    start, _ = await exchange(
        serve(handler),
        http_scope("/path", "POST"),
        {"type": "http.request", "body": b"half", "more_body": True},
        {"type": "http.disconnect"},
    )
    assert start["status"] == 400
    assert seen == [b"half"]
    assert caplog.records == []


@post
async def parse(request: Request) -> AsgiResponse:
    return JSONResponse(await request.json())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"NaN",
        b"[-Infinity]",
        b'{"a": Infinity}',
        b"[1e999]",
        b"-1e999",
        pytest.param(b"[" * 100_000, id="deeply nested"),
        pytest.param(b"1" * 5_000, id="too many digits"),
    ],
)
async def test_a_body_that_is_not_json_is_a_mistake_of_the_client(
    body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reply = await request(serve(parse), http_scope("/path", "POST"), body)
    assert (reply.status, reply.body) == (400, b"Invalid JSON")
    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.INFO, "POST '/path': Invalid JSON")
    assert not record.exc_info


async def test_numbers_of_a_body_keep_their_values() -> None:
    reply = await request(serve(parse), http_scope("/path", "POST"), b"[1.5, -2e3, 4]")
    assert (reply.status, json.loads(reply.body)) == (200, [1.5, -2000.0, 4])


async def test_a_handler_can_catch_the_error_of_a_body_that_is_not_json() -> None:
    @post
    async def handler(request: Request) -> AsgiResponse:
        try:
            await request.json()
        except ValueError as error:
            return show(type(error).__name__)
        raise AssertionError

    reply = await request(serve(handler), http_scope("/path", "POST"), b"{")
    assert reply.body == b"'InvalidJSONError'"


async def read(request: Request) -> AsgiResponse:
    return show(len(await request.body()))


async def read_stream(request: Request) -> AsgiResponse:
    return show(sum([len(chunk) async for chunk in request.stream()]))


@pytest.mark.parametrize("func", [read, read_stream])
@pytest.mark.parametrize("limit", [10, 2**20])
async def test_the_size_of_a_body_is_limited(
    func: Callable[..., Any], limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    handler = post(func) if limit == 2**20 else post(func, max_body_size=limit)
    half, scope = b"x" * (limit // 2), http_scope("/path", "POST")
    assert (await request(serve(handler), scope, half, half)).body == str(limit).encode()
    reply = await request(serve(handler), scope, half, half, b"x", b"not read")
    assert (reply.status, reply.body) == (413, b"Content Too Large")
    assert [record.getMessage() for record in caplog.records] == ["POST '/path': Content Too Large"]


async def test_a_body_without_a_limit() -> None:
    handler = post(max_body_size=None)(read)
    reply = await request(serve(handler), http_scope("/path", "POST"), *[b"x" * 2**20] * 3)
    assert reply.body == str(3 * 2**20).encode()


async def test_names_with_dots_are_injected() -> None:
    @get
    async def handler(
        value: Annotated[list[str], Query("a.b")],
        name: Annotated[str, Header("X.Y")],
        missing: Annotated[str, Query("c.d", default="none")],
    ) -> AsgiResponse:
        return show((value, name, missing))

    scope = http_scope("/path", query="a.b=1&a=2", headers=[("x.y", "3")])
    assert (await request(serve(handler), scope)).body == b"(['1'], '3', 'none')"


@pytest.mark.parametrize("mark", [Header, Query])
async def test_a_parameter_of_a_request_without_a_request_is_missing(mark: Callable[..., Any]) -> None:
    async def function(name: Annotated[str, mark("x", default="none")]) -> str:
        return name

    assert await injected(function, FastDependsConfig())() == "none"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [{"a": float("-inf")}]])
async def test_a_response_that_is_not_json_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        JSONResponse(value)
