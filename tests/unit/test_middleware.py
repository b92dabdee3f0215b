"""FastStreamMiddleware without a server: hosts that fail to start, paths and arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker

from faststream_adapters import BrokerLifespan, FastStreamMiddleware
from faststream_adapters._hosting.middleware import run_with_host
from faststream_adapters._utils.errors import HostStartError
from tests.harness.asgi_calls import http_scope, request
from tests.harness.hosts import websocket_refusal
from tests.harness.site import LIFESPAN, CancellingServer, HangingSite, Site, startup_failure, wrapped
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from faststream.asgi.types import Receive, Scope, Send


@pytest.fixture
def broker() -> NatsBroker:
    return NatsBroker()


# --- a host that fails to start ---


class Raises(Site):
    async def run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.expect("startup", receive)
        raise KeyError("nats://user:hunter2@host")


class Fails(Site):
    async def run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.expect("startup", receive)
        await send({"type": "lifespan.startup.failed", "message": "The database is away."})


class FailsAndRaises(Fails):
    async def run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().run_lifespan(scope, receive, send)
        raise KeyError


class FailsAndStays(Fails):
    async def run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().run_lifespan(scope, receive, send)
        await receive()


class FailsWithoutMessage(Site):
    async def run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.expect("startup", receive)
        await send({"type": "lifespan.startup.failed"})


@pytest.mark.parametrize(
    ("kind", "message", "end"),
    [
        (Raises, "The startup failed with KeyError; see the log for the traceback.", ["ended"]),
        (Fails, "The database is away.", ["ended"]),
        (FailsAndRaises, "The startup failed with KeyError; see the log for the traceback.", ["ended"]),
        (FailsAndStays, "The database is away.", ["cancelled", "ended"]),
        (FailsWithoutMessage, "The host application's startup failed.", ["ended"]),
    ],
)
async def test_the_broker_is_not_started_if_the_host_fails_to_start(
    broker: NatsBroker,
    kind: type[Site],
    message: str,
    end: list[str],
) -> None:
    site = kind()
    assert await startup_failure(wrapped(site, broker)) == message
    assert site.log == ["startup", *end]
    assert not broker.running


@pytest.mark.parametrize(
    ("kind", "error"), [(Raises, KeyError), (FailsAndRaises, KeyError), (Fails, HostStartError)]
)
async def test_the_error_of_the_host_is_raised(
    broker: NatsBroker, kind: type[Site], error: type[Exception]
) -> None:
    with pytest.raises(error) as failed:
        async with run_with_host(kind(), {**LIFESPAN}, BrokerLifespan(broker), host=None):
            pytest.fail("It started.")
    assert type(failed.value) is error


async def test_a_failure_in_nested_middlewares_is_logged_once(
    broker: NatsBroker, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastStreamMiddleware(FastStreamMiddleware(Raises(), broker), broker)
    message = await startup_failure(app)
    assert message == "The startup failed with KeyError; see the log for the traceback."
    assert caplog.text.count("in run_lifespan") == 1


async def test_the_message_of_the_host_is_passed_on_without_passwords(broker: NatsBroker) -> None:
    class FailsWithPassword(Site):
        async def run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.expect("startup", receive)
            message = "No answer from postgres://user:hunter2@host/shop."
            await send({"type": "lifespan.startup.failed", "message": message})

    message = await startup_failure(FastStreamMiddleware(FailsWithPassword(), broker))
    assert message.startswith("No answer from postgres://")
    assert "hunter2" not in message


async def test_the_traceback_of_a_host_that_raises_is_logged(
    broker: NatsBroker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await startup_failure(FastStreamMiddleware(Raises(), broker))
    assert "in run_lifespan" in caplog.text
    assert "hunter2" not in caplog.text


# --- cancellation ---


async def test_a_startup_that_is_cancelled_in_the_host_ends(broker: NatsBroker) -> None:
    site, server = HangingSite("startup"), CancellingServer()
    async with server.running(wrapped(site, broker)):
        await eventually(lambda: site.log == ["startup"])
    assert site.log == ["startup", "cancelled", "ended"]
    assert server.sent == []
    assert not broker.running


# --- requests ---


async def test_requests_to_other_paths_reach_the_host(broker: NatsBroker) -> None:
    site = Site()
    app = FastStreamMiddleware(site, broker, liveness_path="/live", asyncapi_path="/docs")
    for path in ("/live", "/live/", "/docs", "/docs/asyncapi.json", "/docs.json"):
        assert (await request(app, http_scope(path))).body != b"the site", path
    assert site.requests == []
    for path in ("/", "/live/x", "/livelier", "/docsx", "/ready"):
        assert (await request(app, http_scope(path))).body == b"the site", path
    assert [scope["path"] for scope in site.requests] == ["/", "/live/x", "/livelier", "/docsx", "/ready"]


async def test_the_host_receives_the_unchanged_scope(broker: NatsBroker) -> None:
    site = Site()
    app = FastStreamMiddleware(site, broker, asyncapi_path="/docs")
    scope = http_scope("/svc/else", root_path="/svc")
    before = dict(scope)
    await request(app, scope)
    assert site.requests[0] is scope
    assert scope == before


async def test_websockets_reach_the_host_except_at_endpoints(broker: NatsBroker) -> None:
    site = Site()
    app = FastStreamMiddleware(site, broker, liveness_path="/live")
    await websocket_refusal(app, "/chat", denial=False)
    assert [scope["type"] for scope in site.requests] == ["websocket"]
    sent = await websocket_refusal(app, "/live", denial=False)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_an_endpoint_takes_precedence_over_a_path_of_the_host(broker: NatsBroker) -> None:
    site = Site()
    app = FastStreamMiddleware(site, broker, liveness_path="/")
    assert (await request(app, http_scope("/"))).status == 503
    assert site.requests == []


# --- arguments ---


def test_invalid_arguments_are_refused(broker: NatsBroker) -> None:
    unknown: Any = {"pong_path": "/pong"}
    with pytest.raises(TypeError, match="'pong_path'"):
        FastStreamMiddleware(Site(), broker, **unknown)
    with pytest.raises(SetupError, match="'/same' is served already"):
        FastStreamMiddleware(Site(), broker, ping_path="/same", asyncapi_path="/same")
    with pytest.raises(SetupError, match="not nothing"):
        FastStreamMiddleware(Site())


def test_the_host_and_the_lifespan_are_attributes(broker: NatsBroker) -> None:
    site, lifespan = Site(), BrokerLifespan(broker)
    app = FastStreamMiddleware(site, lifespan, ping_path="/ping")
    assert app.app is site
    assert app.broker_lifespan is lifespan
