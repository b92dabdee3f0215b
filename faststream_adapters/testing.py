"""Helpers for the tests of applications."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from faststream.asgi.types import ASGIApp, Receive, Scope, Send
from faststream.exceptions import SetupError
from faststream.specification.base import SpecificationFactory

from ._asgi.lifespan_protocol import drive_lifespan, lifespan_scope
from ._asyncapi.docs import specification_of
from ._compat.faststream import is_in_memory
from ._hosting.middleware import FastStreamMiddleware
from ._lifecycle.run_mode import RunMode, run_as
from ._lifecycle.targets import Target
from ._utils.extras import require

if TYPE_CHECKING:
    import httpx

__all__ = ("app_client", "assert_asyncapi", "in_memory")

_BASE_URL = "http://localhost"

_IDLE_TIMEOUT = 10.0
"""Seconds for which `app_client` waits for handlers at its end."""


@contextmanager
def in_memory() -> Iterator[None]:
    """Run the brokers of every lifespan that starts in this context in FastStream's TestBrokers.

    No server is contacted: a message is handled inside the `publish()` that sends it. It works for every host
    and every client, as `with in_memory(), TestClient(app) as client:`.
    """
    with run_as(RunMode(in_memory=True)):
        yield


@asynccontextmanager
async def app_client(
    app: Callable[[Any, Any, Any], Awaitable[Any]],
    *,
    overrides: Mapping[Callable[..., Any], Callable[..., Any]] | None = None,
    in_memory: bool = True,
) -> "AsyncIterator[httpx.AsyncClient]":
    """Run an application and yield an HTTP client for it.

    The application's lifespan is run, without `drain_delay`. At the end it waits until no message is being
    handled. It requires httpx.

    Args:
        app: The ASGI application.
        overrides: Replacements of dependencies, which are added to a FastAPI application's
            `dependency_overrides`.
        in_memory: Whether to run the brokers in FastStream's TestBrokers instead of against their servers.

    Raises:
        Exception: The error of the application's startup or shutdown.
        TimeoutError: Messages are still being handled 10 seconds after the end of the block.
        TypeError: There are overrides, but the application is not a FastAPI application.
    """
    httpx = require("httpx", "testing")
    mode = RunMode(in_memory=in_memory, drain_delay=False)
    scope = lifespan_scope()

    async def with_state(request: Scope, receive: Receive, send: Send) -> None:
        await app({**request, "state": dict(scope["state"])}, receive, send)

    with _overriding(app, overrides or {}):
        async with AsyncExitStack() as stack:
            with run_as(mode):
                await stack.enter_async_context(drive_lifespan(cast("ASGIApp", app), scope))
            transport = httpx.ASGITransport(with_state)
            yield await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url=_BASE_URL))
            for lifespan in mode.lifespans:
                await lifespan.idle(_IDLE_TIMEOUT)


@contextmanager
def _overriding(app: Any, overrides: Mapping[Any, Any]) -> Iterator[None]:
    host = app.host if isinstance(app, FastStreamMiddleware) else app
    current = getattr(host, "dependency_overrides", None)
    if current is None:
        if overrides:
            msg = (
                f"overrides replaces dependencies of FastAPI, but the application is a {type(host).__name__}."
            )
            raise TypeError(msg)
        yield
        return
    before = dict(current)
    current.update(overrides)
    try:
        yield
    finally:
        current.clear()
        current.update(before)


def assert_asyncapi(
    app: Target | Sequence[Target] | SpecificationFactory,
    file: str | PathLike[str],
    *,
    specification: SpecificationFactory | None = None,
) -> None:
    """Compare an application's AsyncAPI document with a file, so that a change fails the test.

    Nothing is started and no server is contacted. The order of keys does not count, and neither do the
    addresses of servers. With `FASTSTREAM_ADAPTERS_UPDATE_ASYNCAPI=1` in the environment, the file is written
    instead.

    Args:
        app: A broker or a list of brokers, a FastStream app, an object that has a `broker_lifespan`, such as
            an AsgiFastStream, a FastStreamRouter, a FastStreamPlugin, a QuartFastStream, a
            FastStreamMiddleware or a BrokerLifespan, or an AsyncAPI specification. For an application of
            FastAPI, Litestar, Quart or another framework, pass the adapter's object or the brokers.
        file: The path of the file, which ends with `.json`, `.yaml` or `.yml`.
        specification: The specification with the title, the version and the AsyncAPI version of the document;
            by default the FastStream app's own, or `AsyncAPI()` for brokers.

    Raises:
        AssertionError: The document differs; the message lists what has changed.
        FileNotFoundError: The file does not exist, or, when it is to be written, its directory.
        ValueError: The file has another suffix, or contains no JSON or YAML.
        ImportError: The file is YAML, and PyYAML is not installed.
        SetupError: The application cannot be documented, or its brokers run in TestBrokers now.
    """
    # Imported here, because these modules take more than 20 ms to import.
    from ._asyncapi.contract import compare_with_file
    from ._asyncapi.document import document_of

    targets = app if isinstance(app, list | tuple) else (app,)
    described = specification_of(targets, specification)
    if any(map(is_in_memory, getattr(described, "brokers", ()))):
        msg = (
            "The brokers are in FastStream's TestBrokers, which add subscribers: "
            "call assert_asyncapi outside of app_client, in_memory and TestBrokers."
        )
        raise SetupError(msg)
    compare_with_file(document_of(described), Path(file))
