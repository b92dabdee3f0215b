"""FastStreamMiddleware with a broker: around hosts with a lifespan, without one, with a broken one."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from faststream.nats import NatsBroker
from starlette.applications import Starlette
from starlette.middleware.trustedhost import TrustedHostMiddleware

from faststream_adapters import BrokerLifespan, FastStreamMiddleware
from faststream_adapters._hosting.middleware import run_with_host
from faststream_adapters._utils.errors import HostStartError
from faststream_adapters.fastapi import FastStreamRouter
from tests.harness.asgi_calls import exchange
from tests.harness.hosts import serving
from tests.harness.servers import hold_port
from tests.harness.site import LIFESPAN, CancellingServer, HangingSite, Site, States, startup_failure, wrapped
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from faststream.asgi.types import ASGIApp, Message, Receive, Scope, Send

    from tests.harness.servers.nats import NatsServer


@pytest.fixture
def broker(shared_nats: NatsServer) -> NatsBroker:
    return NatsBroker(shared_nats.url)


# --- a host with a lifespan ---


async def test_the_host_comes_first_and_goes_last(broker: NatsBroker) -> None:
    site = Site()
    async with serving(wrapped(site, broker)):
        assert broker.running
        site.log.append("serving")
    assert site.log == [
        "startup",
        "brokers running",
        "serving",
        "brokers draining",
        "brokers stopped",
        "shutdown",
        "ended",
    ]


async def test_what_the_host_puts_into_the_state_gets_to_the_server(broker: NatsBroker) -> None:
    class WithState(Site):
        async def run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"]["greeting"] = "good morning"
            await super().run_lifespan(scope, receive, send)

    site = WithState()
    async with serving(wrapped(site, broker)) as served:
        assert await served.text("/") == "the site"
    assert site.requests[0]["state"] == {"greeting": "good morning"}


async def test_a_host_may_end_once_it_has_started(broker: NatsBroker) -> None:
    class Ends(Site):
        async def run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.expect("startup", receive)
            await send({"type": "lifespan.startup.complete"})

    site = Ends()
    async with serving(wrapped(site, broker)):
        await eventually(lambda: "ended" in site.log)
        assert broker.running
    assert site.log == ["startup", "ended", "brokers running", "brokers draining", "brokers stopped"]


async def test_the_context_has_the_host(broker: NatsBroker) -> None:
    site = Site()
    async with serving(FastStreamMiddleware(site, broker)):
        assert broker.context.get("host") is site
    assert broker.context.get("host") is None


async def test_the_context_can_have_something_else_for_the_host(broker: NatsBroker) -> None:
    wrapped = object()
    async with run_with_host(Site(), {**LIFESPAN}, BrokerLifespan(broker), host=wrapped):
        assert broker.context.get("host") is wrapped


async def test_an_application_that_the_middleware_is_added_to_is_the_host(broker: NatsBroker) -> None:
    app = Starlette()
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["example.com"])
    app.add_middleware(FastStreamMiddleware, broker, readiness_path="/ready")
    async with serving(app) as served:
        assert broker.context.get("host") is app
        assert await served.status("/ready") == 200
        assert await served.status("/") == 400


@pytest.mark.parametrize("add", [True, False], ids=["added", "around"])
async def test_an_adapter_inside_other_middleware_shares_the_lifespan(
    broker: NatsBroker, *, add: bool
) -> None:
    lifespan = BrokerLifespan(broker)
    site = FastAPI()
    site.include_router(FastStreamRouter(lifespan, asyncapi_path="/asyncapi"))
    app: ASGIApp = site
    if add:
        site.add_middleware(TrustedHostMiddleware, allowed_hosts=["example.com"])
        site.add_middleware(FastStreamMiddleware, lifespan, readiness_path="/ready")
    else:
        protected = TrustedHostMiddleware(site, allowed_hosts=["example.com"])
        app = FastStreamMiddleware(protected, lifespan, readiness_path="/ready")
    for _ in range(2):
        async with serving(app) as served:
            assert broker.context.get("host") is site
            assert await served.status("/ready") == 200
            assert await served.status("/asyncapi") == 400
        assert broker.context.get("host") is None


async def test_brokers_of_another_application_are_refused_also_around_other_middleware(
    broker: NatsBroker,
) -> None:
    lifespan = BrokerLifespan(broker)
    site = FastAPI()
    site.include_router(FastStreamRouter(lifespan))
    async with serving(site):
        other = FastStreamMiddleware(TrustedHostMiddleware(Site(), allowed_hosts=["example.com"]), lifespan)
        assert "already run by another host application" in await startup_failure(other)


async def test_middlewares_start_from_the_inside_and_stop_from_the_outside(shared_nats: NatsServer) -> None:
    site = Site()
    app: ASGIApp = site
    for name in ("inner", "outer"):
        app = FastStreamMiddleware(
            app,
            NatsBroker(shared_nats.url),
            on_state_change=States(site, name),
            readiness_path=f"/{name}",
        )
    async with serving(app) as served:
        assert await served.status("/inner") == 200
        assert await served.status("/outer") == 200
        assert await served.text("/") == "the site"
    assert site.log == [
        "startup",
        "inner running",
        "outer running",
        "outer draining",
        "outer stopped",
        "inner draining",
        "inner stopped",
        "shutdown",
        "ended",
    ]


async def test_two_middlewares_can_share_a_broker(broker: NatsBroker) -> None:
    app = FastStreamMiddleware(Site(), broker, ping_path="/ping")
    async with serving(FastStreamMiddleware(app, broker, readiness_path="/ready")) as served:
        assert await served.status("/ping") == 204
        assert await served.status("/ready") == 200


# --- a host without one ---


class RaisesAtOnce(Site):
    async def run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("I can only handle HTTP")


class ReturnsAtOnce(Site):
    async def run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        return


class ListensAndReturns(Site):
    async def run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()


class CancelsItself(Site):
    async def run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError


@pytest.mark.parametrize("kind", [RaisesAtOnce, ReturnsAtOnce, ListensAndReturns, CancelsItself])
async def test_a_host_without_a_lifespan_gets_one(broker: NatsBroker, kind: type[Site]) -> None:
    site = kind()
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    async with serving(wrapped(site, broker, readiness_path="/ready")) as served:
        assert await served.status("/ready") == 200
        assert await served.text("/") == "the site"
    assert [line for line in site.log if line.startswith("brokers")] == [
        "brokers running",
        "brokers draining",
        "brokers stopped",
    ]
    assert errors == []


# --- a host that cannot start ---


async def test_a_host_is_stopped_when_the_broker_cannot_start() -> None:
    port, held = hold_port()
    site = Site()
    broker = NatsBroker(f"nats://user:hunter2@127.0.0.1:{port}")
    with held or nullcontext():
        assert await startup_failure(wrapped(site, broker, startup_timeout=0.1)) == (
            f"NatsBroker nats://127.0.0.1:{port} could not be started within 0.1 s: "
            "the connection was refused."
        )
    assert site.log == ["startup", "shutdown", "ended"]


async def test_the_reason_is_the_broker_even_if_the_host_cannot_stop_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port, held = hold_port()
    broker = NatsBroker(f"nats://127.0.0.1:{port}")
    with held or nullcontext():
        message = await startup_failure(FastStreamMiddleware(RaisesAtTheEnd(), broker, startup_timeout=0.1))
    assert "could not be started within 0.1 s" in message
    assert "The host application's shutdown failed too: " in caplog.text
    assert "KeyError" in caplog.text


# --- a host that cannot stop ---


class RaisesAtTheEnd(Site):
    async def run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.expect("startup", receive)
        await send({"type": "lifespan.startup.complete"})
        await self.expect("shutdown", receive)
        raise KeyError


class SaysAtTheEnd(Site):
    async def run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.expect("startup", receive)
        await send({"type": "lifespan.startup.complete"})
        await self.expect("shutdown", receive)
        await send({"type": "lifespan.shutdown.failed", "message": "The cache was lost."})


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (RaisesAtTheEnd, KeyError, "The shutdown failed with KeyError; see the log for the traceback."),
        (SaysAtTheEnd, HostStartError, "The cache was lost."),
    ],
)
async def test_a_host_that_cannot_stop_keeps_no_broker_up(
    broker: NatsBroker,
    kind: type[Site],
    error: type[Exception],
    message: str,
) -> None:
    site = kind()
    sent: list[Message] = []
    with pytest.raises(error):
        await exchange(
            wrapped(site, broker),
            {**LIFESPAN},
            {"type": "lifespan.startup"},
            {"type": "lifespan.shutdown"},
            sent=sent,
        )
    assert sent == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.failed", "message": message},
    ]
    assert site.log == [
        "startup",
        "brokers running",
        "brokers draining",
        "brokers stopped",
        "shutdown",
        "ended",
    ]


async def test_a_host_that_stays_after_its_shutdown_is_ended(broker: NatsBroker) -> None:
    class Stays(Site):
        async def run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
            await super().run_lifespan(scope, receive, send)
            await receive()

    site = Stays()
    async with serving(wrapped(site, broker)):
        pass
    assert site.log[-3:] == ["shutdown", "cancelled", "ended"]


# --- cancellation ---


async def test_cancelled_while_serving(broker: NatsBroker) -> None:
    site, server = Site(), CancellingServer()
    async with server.running(wrapped(site, broker)):
        await eventually(lambda: bool(server.sent))
    assert site.log == [
        "startup",
        "brokers running",
        "brokers draining",
        "brokers stopped",
        "shutdown",
        "ended",
    ]
    assert not broker.running


async def test_cancelled_while_the_host_stops(broker: NatsBroker) -> None:
    site, server = HangingSite("shutdown"), CancellingServer()
    async with server.running(wrapped(site, broker)):
        await eventually(lambda: bool(server.sent))
        server.send_event("shutdown")
        await eventually(lambda: site.log[-1] == "shutdown")
    assert site.log[-3:] == ["shutdown", "cancelled", "ended"]
    assert not broker.running


async def test_cancelled_while_the_broker_starts(nats: NatsServer) -> None:
    nats.freeze()
    site, server = Site(), CancellingServer()
    broker = NatsBroker(nats.url)
    async with server.running(wrapped(site, broker)):
        await eventually(lambda: site.log == ["startup"])
    assert [line for line in site.log if not line.startswith("brokers")] == ["startup", "shutdown", "ended"]
    assert not broker.running
