"""A failed startup or shutdown reaches the test client, in every host and every test client."""

from __future__ import annotations

import asyncio
import traceback
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from asgi_lifespan import LifespanManager
from faststream import FastStream
from faststream.nats import NatsBroker
from litestar.testing import TestClient as LitestarClient
from quart.testing import app as quart_testing
from starlette.testclient import TestClient as StarletteClient

from faststream_adapters import BrokerStartError, HostStartError
from tests.harness.hosts import HostApp
from tests.harness.servers import hold_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from faststream.asgi.types import ASGIApp, Receive, Scope, Send

    from tests.harness.hosts import Host
    from tests.harness.servers.nats import NatsServer

PATIENCE = 20.0
SECRET = "hunter2"


def _in_thread(client: Callable[[Any], Any]) -> Callable[[ASGIApp], Any]:
    """Return a client that blocks as an asynchronous one; its event loop is in another thread anyway."""

    @asynccontextmanager
    async def entered(app: ASGIApp) -> AsyncIterator[None]:
        opened = client(app)
        await asyncio.to_thread(opened.__enter__)
        yield
        await asyncio.to_thread(opened.__exit__, None, None, None)

    return entered


CLIENTS: dict[str, Any] = {
    "starlette": _in_thread(StarletteClient),
    "litestar": _in_thread(LitestarClient),
    "asgi-lifespan": LifespanManager,
    "quart": quart_testing.TestApp,
}

pytestmark = [pytest.mark.parametrize("client", CLIENTS), pytest.mark.slow_start]


@pytest.fixture
def broker(shared_nats: NatsServer) -> NatsBroker:
    return NatsBroker(shared_nats.url)


@pytest.fixture
def unreachable() -> Iterator[NatsBroker]:
    """Return a broker whose server refuses connections."""
    port, held = hold_port()
    broker = NatsBroker(f"nats://user:{SECRET}@127.0.0.1:{port}")
    with held or nullcontext():
        yield broker


async def failure(client: str, app: ASGIApp, *, starts: bool = False) -> Exception:
    """Return the error of entering the client, or of leaving it."""
    started = False

    async def with_version(scope: Scope, receive: Receive, send: Send) -> None:
        # No test client names the version of ASGI, which Falcon requires.
        scope["asgi"] = {"version": "3.0", "spec_version": "2.0"}
        await app(scope, receive, send)

    with pytest.raises(Exception) as raised:  # noqa: PT011 (the tests look at it)
        async with asyncio.timeout(PATIENCE), CLIENTS[client](with_version):
            started = True
    assert started == starts
    assert not isinstance(raised.value, TimeoutError)
    assert SECRET not in "".join(traceback.format_exception(raised.value))
    error = raised.value
    # Litestar runs its startup hooks in a task group.
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def check(client: str, error: Exception, kind: type[Exception], text: str) -> None:
    """Check the error that a client raised; Quart's has one of its own, with the application's message."""
    if client == "quart":
        assert type(error) is quart_testing.LifespanError
        assert text in str(error) or kind.__name__ in str(error)
        return
    assert isinstance(error, kind)
    assert type(error).__name__ == kind.__name__
    assert text in str(error)


@pytest.mark.slow_start
async def test_a_broker_that_cannot_start(client: str, host: Host, unreachable: NatsBroker) -> None:
    error = await failure(client, host.build(unreachable, startup_timeout=0.2))
    check(client, error, BrokerStartError, "could not be started within 0.2 s: the connection was refused")


async def test_a_startup_hook_that_raises(client: str, host: Host, broker: NatsBroker) -> None:
    """The type, the text and the cause of the error arrive, without credentials."""

    def connect() -> None:
        raise ValueError("no database") from LookupError(f"no route to postgres://user:{SECRET}@db/shop")

    error = await failure(client, host.build(FastStream(broker, on_startup=[connect])))
    check(client, error, ValueError, "no database")
    if client != "quart":
        assert isinstance(error.__cause__, LookupError)
        assert str(error.__cause__) == "no route to postgres://***@db/shop"
        assert "in connect" in "".join(traceback.format_exception(error))
    assert not broker.running


async def test_an_error_without_credentials_is_raised_unchanged(
    client: str, host: Host, broker: NatsBroker
) -> None:
    own = ValueError("no database")

    def connect() -> None:
        raise own from KeyError("dsn")

    error = await failure(client, host.build(FastStream(broker, on_startup=[connect])))
    check(client, error, ValueError, "no database")
    if client != "quart":
        assert error is own
        assert isinstance(error.__cause__, KeyError)


@pytest.mark.needs("resources")
async def test_a_host_that_cannot_start(client: str, host: Host, broker: NatsBroker) -> None:
    def up() -> None:
        raise ZeroDivisionError("the cache is away")

    # As the target, a FastStream application would bring its own lifespan.
    error = await failure(client, host.build(broker, host_app=HostApp(on_startup=up)))
    if not host.raises_startup_errors and client != "quart":
        check(client, error, HostStartError, "the cache is away" if host.reports_reason else "")
    elif not host.raises_startup_errors:
        assert type(error) is quart_testing.LifespanError
    else:
        check(client, error, ZeroDivisionError, "the cache is away")
    assert not broker.running


async def test_a_shutdown_hook_that_raises(client: str, host: Host, broker: NatsBroker) -> None:
    def disconnect() -> None:
        raise ValueError(f"lost postgres://user:{SECRET}@db/shop")

    error = await failure(client, host.build(FastStream(broker, on_shutdown=[disconnect])), starts=True)
    check(client, error, ValueError, "lost postgres://***@db/shop")
    assert not broker.running
