"""What FastAPI dependencies in subscribers cannot be, which fails the start by name."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import faststream
import pytest
from fastapi import (
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    FastAPI,
    File,
    Form,
    Header,
    Path,
    Query,
    Request,
    Response,
    UploadFile,
    WebSocket,
    params,
)
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader, OAuth2PasswordBearer
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker, TestNatsBroker
from faststream.nats.annotations import NatsMessage

from faststream_adapters.fastapi import FastStreamRouter


@pytest.fixture
def broker() -> NatsBroker:
    return NatsBroker("nats://127.0.0.1:1")


async def start(broker: NatsBroker, app: FastAPI | None = None, **keywords: Any) -> None:
    app = app or FastAPI()
    app.include_router(FastStreamRouter(broker, **keywords))
    async with app.router.lifespan_context(app):
        pytest.fail("The application has started.")


async def refusal(broker: NatsBroker, handler: Callable[..., Any], **keywords: Any) -> str:
    """Return why the application does not start."""
    broker.subscriber("orders")(handler)
    with pytest.raises(SetupError) as raised:
        await start(broker, **keywords)
    assert not broker.running
    return str(raised.value)


HTTP_ONLY = {
    "Path": Annotated[str, Path()],
    "Query": Annotated[str, Query()],
    "Header": Annotated[str, Header()],
    "Cookie": Annotated[str, Cookie()],
    "Body": Annotated[dict[str, str], Body()],
    "Form": Annotated[str, Form()],
    "File": Annotated[bytes, File()],
    "Response": Response,
    "UploadFile": UploadFile,
    "WebSocket": WebSocket,
}


@pytest.mark.parametrize("name", HTTP_ONLY)
async def test_what_only_http_has_is_refused_in_a_handler(broker: NatsBroker, name: str) -> None:
    async def handle(item: str, wanted: HTTP_ONLY[name]) -> None:  # type: ignore[valid-type]
        raise NotImplementedError

    text = await refusal(broker, handle)
    assert text.startswith(f"The parameter 'wanted' of the subscriber 'handle' is a fastapi.{name},")
    assert (f"from faststream import {name}" in text) == (name in {"Path", "Header"})


@pytest.mark.parametrize("name", HTTP_ONLY)
async def test_what_only_http_has_is_refused_at_any_depth(broker: NatsBroker, name: str) -> None:
    async def inner(wanted: HTTP_ONLY[name] = None) -> None:  # type: ignore[valid-type]
        raise NotImplementedError

    class Outer:
        def __init__(self, inner: Annotated[None, Depends(inner)]) -> None:
            raise NotImplementedError

    async def handle(item: str, outer: Annotated[Outer, Depends()]) -> None:
        raise NotImplementedError

    text = await refusal(broker, handle)
    where = "dependency 'inner' of the dependency 'Outer' of the subscriber 'handle'"
    assert text.startswith(f"The parameter 'wanted' of the {where} is a fastapi.{name},")


async def test_a_subclass_and_the_default_style_are_refused_too(broker: NatsBroker) -> None:
    async def handle(item: str, response: JSONResponse) -> None:
        raise NotImplementedError

    async def by_default(item: str, key: str = Header()) -> None:
        raise NotImplementedError

    assert "'response'" in await refusal(broker, handle)
    assert "'key'" in await refusal(NatsBroker(), by_default)


@pytest.mark.parametrize("scheme", [OAuth2PasswordBearer("token"), APIKeyHeader(name="key")])
async def test_security_schemes_are_refused(broker: NatsBroker, scheme: Any) -> None:
    async def user(token: Annotated[str, Depends(scheme)]) -> str:
        raise NotImplementedError

    async def handle(item: str, user: Annotated[str, Depends(user)]) -> None:
        raise NotImplementedError

    text = await refusal(broker, handle)
    where = "dependency 'user' of the subscriber 'handle'"
    assert text.startswith(f"The parameter 'token' of the {where} is a {type(scheme).__name__},")


async def test_an_override_replaces_what_only_http_has(broker: NatsBroker) -> None:
    async def user(token: Annotated[str, Depends(OAuth2PasswordBearer("token"))]) -> str:
        raise NotImplementedError

    seen: list[str] = []

    @broker.subscriber("orders")
    async def handle(item: str, user: Annotated[str, Depends(user)]) -> None:
        seen.append(user)

    app = FastAPI()
    app.include_router(FastStreamRouter(broker))
    app.dependency_overrides[user] = lambda: "worker"
    async with TestNatsBroker(broker), app.router.lifespan_context(app):
        await broker.publish("tea", "orders")
        app.dependency_overrides.clear()
        with pytest.raises(SetupError, match="OAuth2PasswordBearer"):
            await broker.publish("tea", "orders")
    assert seen == ["worker"]


async def test_a_plain_parameter_needs_a_default(broker: NatsBroker) -> None:
    async def pages(limit: int) -> int:
        raise NotImplementedError

    async def handle(item: str, pages: Annotated[int, Depends(pages)]) -> None:
        raise NotImplementedError

    text = await refusal(broker, handle)
    assert text.startswith(
        "The parameter 'limit' of the dependency 'pages' of the subscriber 'handle' has no"
    )


async def test_message_dependencies_are_checked(broker: NatsBroker) -> None:
    async def guard(key: Annotated[str, Header()]) -> None:
        raise NotImplementedError

    async def handle(item: str) -> None:
        raise NotImplementedError

    text = await refusal(broker, handle, message_dependencies=[Depends(guard)])
    assert text.startswith(
        "The parameter 'key' of the dependency 'guard' of the message_dependencies of the router is"
    )


async def kept() -> AsyncIterator[None]:
    raise NotImplementedError((yield))


async def test_a_dependency_that_is_cleaned_up_earlier_is_refused(broker: NatsBroker) -> None:
    async def later(kept: Annotated[None, Depends(kept, scope="function")]) -> AsyncIterator[None]:
        raise NotImplementedError((yield))

    async def handle(item: str, later: Annotated[None, Depends(later)]) -> None:
        raise NotImplementedError

    assert "'kept' of the dependency 'later'" in await refusal(broker, handle)


# --- FastStream's dependencies ---


def service() -> str:
    return "service"


async def test_faststream_depends_inside_a_dependency_of_fastapi_is_refused(broker: NatsBroker) -> None:
    async def outer(inner: Annotated[str, faststream.Depends(service)]) -> None:
        raise NotImplementedError

    async def handle(item: str, outer: Annotated[None, Depends(outer)]) -> None:
        raise NotImplementedError

    text = await refusal(broker, handle)
    assert text.startswith("The parameter 'inner' of the dependency 'outer' of the subscriber 'handle' uses")
    assert text.endswith("use fastapi.Depends.")


class Instance:
    """A dependency without a `__name__`."""

    def __call__(self, inner: Annotated[str, Depends(service)]) -> str:
        raise NotImplementedError

    def __repr__(self) -> str:
        return "Instance()"


def nested(inner: str = Depends(service)) -> str:
    raise NotImplementedError


def nested_twice(outer: Annotated[str, faststream.Depends(nested)]) -> str:
    raise NotImplementedError


def with_request(inner: Request) -> str:
    raise NotImplementedError


def with_tasks(inner: BackgroundTasks) -> str:
    raise NotImplementedError


def with_query(inner: Annotated[str, Query()]) -> str:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("dependency", "where", "used"),
    [
        (nested, "dependency 'nested'", "Depends"),
        (nested_twice, "dependency 'nested' of the dependency 'nested_twice'", "Depends"),
        (Instance(), "dependency 'Instance()'", "Depends"),
        (with_request, "dependency 'with_request'", "Request"),
        (with_tasks, "dependency 'with_tasks'", "BackgroundTasks"),
        (with_query, "dependency 'with_query'", "Query"),
    ],
)
async def test_fastapi_inside_a_dependency_of_faststream_is_refused(
    broker: NatsBroker, dependency: Callable[..., Any], where: str, used: str
) -> None:
    async def handle(item: str, wanted: Annotated[str, faststream.Depends(dependency)]) -> None:
        raise NotImplementedError

    text = await refusal(broker, handle)
    assert text.startswith(f"The parameter 'inner' of the {where} of the subscriber 'handle' ")
    assert f"fastapi.{used}" in text


async def test_dependencies_of_a_subscriber_are_those_of_faststream(broker: NatsBroker) -> None:
    subscriber = broker.subscriber("orders", dependencies=[Depends(service)])

    @subscriber
    async def handle(item: str) -> None:
        raise NotImplementedError

    with pytest.raises(SetupError, match=r"dependencies of the subscriber 'handle'.*message_dependencies"):
        await start(broker)


async def test_dependencies_of_faststream_are_checked_and_allowed(broker: NatsBroker) -> None:
    subscriber = broker.subscriber("orders", dependencies=[faststream.Depends(nested)])

    @subscriber
    async def handle(item: str, message: NatsMessage) -> None:
        raise NotImplementedError

    with pytest.raises(SetupError, match="'inner' of the dependency 'nested' of the subscriber 'handle'"):
        await start(broker)

    seen: list[str] = []
    allowed = NatsBroker("nats://127.0.0.1:1", dependencies=[faststream.Depends(service)])

    @allowed.subscriber("orders")
    async def handle_allowed(item: str, wanted: Annotated[str, faststream.Depends(service)]) -> None:
        seen.append(wanted)

    app = FastAPI()
    app.include_router(FastStreamRouter(allowed))
    async with TestNatsBroker(allowed), app.router.lifespan_context(app):
        await allowed.publish("tea", "orders")
    assert seen == ["service"]


# --- the version of FastAPI ---


async def test_an_unknown_release_of_fastapi_fails_the_start(
    broker: NatsBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastapi.__version__", "9.9.9")
    mark = Depends(service)
    monkeypatch.delattr(params.Depends, "use_cache")
    object.__delattr__(mark, "use_cache")

    async def handle(item: str, wanted: Any = mark) -> None:
        raise NotImplementedError

    text = await refusal(broker, handle)
    assert text.startswith("FastAPI 9.9.9 is not supported: Depends has changed")
    assert "use_cache" in text
