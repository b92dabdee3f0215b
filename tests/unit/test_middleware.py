"""FastStreamMiddleware around applications of every kind: with a lifespan, without one, with a broken one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker

from faststream_adapters import BrokerLifespan, FastStreamMiddleware
from faststream_adapters.lifespan import HostStartError
from faststream_adapters.middleware import host_first
from tests.asgi_calls import exchange, http_scope, request
from tests.hosts import StartupFailedError, serving, websocket_refusal
from tests.servers import hold_port
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from faststream.asgi.types import ASGIApp, Message, Receive, Scope, Send

    from tests.servers.nats import NatsServer

LIFESPAN: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}


class Site:
    """An application written by hand, which notes what becomes of its lifespan."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.asked: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            self.asked.append(scope)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"the site"})
            return
        try:
            await self.live(scope, receive, send)
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise
        finally:
            self.log.append("ended")

    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.expect("startup", receive)
        await send({"type": "lifespan.startup.complete"})
        await self.expect("shutdown", receive)
        await send({"type": "lifespan.shutdown.complete"})

    async def expect(self, stage: str, receive: Receive) -> None:
        assert (await receive())["type"] == f"lifespan.{stage}"
        self.log.append(stage)


@pytest.fixture
def broker(shared_nats: NatsServer) -> NatsBroker:
    return NatsBroker(shared_nats.url)


class States:
    """Writes the states of the brokers into the log of a site."""

    def __init__(self, site: Site, name: str = "brokers") -> None:
        self._site = site
        self._name = name

    def __call__(self, old: str, new: str) -> None:
        if new in {"running", "draining", "stopped"}:
            self._site.log.append(f"{self._name} {new}")


def around(site: Site, broker: NatsBroker, **keywords: Any) -> FastStreamMiddleware:
    return FastStreamMiddleware(site, broker, on_state_change=States(site), **keywords)


async def refused(app: ASGIApp) -> str:
    """Return what an application that cannot start tells the server."""
    with pytest.raises(StartupFailedError) as failed:
        async with serving(app):
            pytest.fail("It started.")
    return str(failed.value)


# --- a host with a lifespan ---


async def test_the_host_comes_first_and_goes_last(broker: NatsBroker) -> None:
    site = Site()
    async with serving(around(site, broker)):
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
        async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"]["greeting"] = "good morning"
            await super().live(scope, receive, send)

    site = WithState()
    async with serving(around(site, broker)) as served:
        assert await served.text("/") == "the site"
    assert site.asked[0]["state"] == {"greeting": "good morning"}


async def test_a_host_may_end_once_it_has_started(broker: NatsBroker) -> None:
    class Ends(Site):
        async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.expect("startup", receive)
            await send({"type": "lifespan.startup.complete"})

    site = Ends()
    async with serving(around(site, broker)):
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
    async with host_first(Site(), {**LIFESPAN}, BrokerLifespan(broker), host=wrapped):
        assert broker.context.get("host") is wrapped


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
        assert await served.status("/inner") == 204
        assert await served.status("/outer") == 204
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
        assert await served.status("/ready") == 204


# --- a host without one ---


class RaisesAtOnce(Site):
    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("I can only handle HTTP")


class ReturnsAtOnce(Site):
    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        return


class ListensAndReturns(Site):
    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()


class CancelsItself(Site):
    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError


@pytest.mark.parametrize("kind", [RaisesAtOnce, ReturnsAtOnce, ListensAndReturns, CancelsItself])
async def test_a_host_without_a_lifespan_gets_one(broker: NatsBroker, kind: type[Site]) -> None:
    site = kind()
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    async with serving(around(site, broker, readiness_path="/ready")) as served:
        assert await served.status("/ready") == 204
        assert await served.text("/") == "the site"
    assert [line for line in site.log if line.startswith("brokers")] == [
        "brokers running",
        "brokers draining",
        "brokers stopped",
    ]
    assert errors == []


# --- a host that cannot start ---


class Raises(Site):
    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.expect("startup", receive)
        raise KeyError("nats://user:hunter2@host")


class Says(Site):
    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.expect("startup", receive)
        await send({"type": "lifespan.startup.failed", "message": "The database is away."})


class SaysAndRaises(Says):
    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().live(scope, receive, send)
        raise KeyError


class SaysAndStays(Says):
    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().live(scope, receive, send)
        await receive()


class SaysNothing(Site):
    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.expect("startup", receive)
        await send({"type": "lifespan.startup.failed"})


@pytest.mark.parametrize(
    ("kind", "message", "end"),
    [
        (Raises, "The host application's startup failed with KeyError.", ["ended"]),
        (Says, "The database is away.", ["ended"]),
        (SaysAndRaises, "The database is away.", ["ended"]),
        (SaysAndStays, "The database is away.", ["cancelled", "ended"]),
        (SaysNothing, "The host application's startup failed.", ["ended"]),
    ],
)
async def test_a_host_that_cannot_start_is_the_end_of_it(
    broker: NatsBroker,
    kind: type[Site],
    message: str,
    end: list[str],
) -> None:
    site = kind()
    assert await refused(around(site, broker)) == message
    assert site.log == ["startup", *end]
    assert not broker.running


async def test_the_error_of_the_host_is_the_cause(broker: NatsBroker) -> None:
    with pytest.raises(HostStartError) as failed:
        async with host_first(Raises(), {**LIFESPAN}, BrokerLifespan(broker), host=None):
            pytest.fail("It started.")
    assert isinstance(failed.value.__cause__, KeyError)


async def test_a_host_is_stopped_when_the_broker_cannot_start() -> None:
    port, held = hold_port()
    site = Site()
    broker = NatsBroker(f"nats://user:hunter2@127.0.0.1:{port}")
    with held or nullcontext():
        assert await refused(around(site, broker, startup_timeout=0.1)) == (
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
        message = await refused(FastStreamMiddleware(RaisesAtTheEnd(), broker, startup_timeout=0.1))
    assert "could not be started within 0.1 s" in message
    assert "The host application's shutdown failed with KeyError." in caplog.text


async def test_what_the_host_says_is_passed_on_without_passwords(broker: NatsBroker) -> None:
    class SaysTooMuch(Site):
        async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.expect("startup", receive)
            message = "No answer from postgres://user:hunter2@host/shop."
            await send({"type": "lifespan.startup.failed", "message": message})

    message = await refused(FastStreamMiddleware(SaysTooMuch(), broker))
    assert message.startswith("No answer from postgres://")
    assert "hunter2" not in message


async def test_the_log_has_the_traceback_of_a_host_that_raises(
    broker: NatsBroker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await refused(FastStreamMiddleware(Raises(), broker))
    assert "in live" in caplog.text
    assert "hunter2" not in caplog.text


# --- a host that cannot stop ---


class RaisesAtTheEnd(Site):
    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.expect("startup", receive)
        await send({"type": "lifespan.startup.complete"})
        await self.expect("shutdown", receive)
        raise KeyError


class SaysAtTheEnd(Site):
    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.expect("startup", receive)
        await send({"type": "lifespan.startup.complete"})
        await self.expect("shutdown", receive)
        await send({"type": "lifespan.shutdown.failed", "message": "The cache was lost."})


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (RaisesAtTheEnd, "The host application's shutdown failed with KeyError."),
        (SaysAtTheEnd, "The cache was lost."),
    ],
)
async def test_a_host_that_cannot_stop_keeps_no_broker_up(
    broker: NatsBroker,
    kind: type[Site],
    message: str,
) -> None:
    site = kind()
    sent = await exchange(
        around(site, broker), {**LIFESPAN}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
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
        async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
            await super().live(scope, receive, send)
            await receive()

    site = Stays()
    async with serving(around(site, broker)):
        pass
    assert site.log[-3:] == ["shutdown", "cancelled", "ended"]


# --- cancellation ---


class Cancelled:
    """The lifespan of an application, cancelled by its server at some moment."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[Message] = []

    @asynccontextmanager
    async def running(self, app: ASGIApp) -> AsyncIterator[None]:
        async def send(message: Message) -> None:
            self.sent.append(message)

        self.tell("startup")
        task = asyncio.ensure_future(app({**LIFESPAN}, self._messages.get, send))
        yield
        task.cancel()
        await asyncio.wait((task,), timeout=10)
        assert task.cancelled()

    def tell(self, stage: str) -> None:
        self._messages.put_nowait({"type": f"lifespan.{stage}"})


class Hangs(Site):
    """Waits for ever at its start or at its stop."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self._stage = stage

    async def expect(self, stage: str, receive: Receive) -> None:
        await super().expect(stage, receive)
        if stage == self._stage:
            await asyncio.Event().wait()


async def test_cancelled_while_the_host_starts(broker: NatsBroker) -> None:
    site, server = Hangs("startup"), Cancelled()
    async with server.running(around(site, broker)):
        await eventually(lambda: site.log == ["startup"])
    assert site.log == ["startup", "cancelled", "ended"]
    assert server.sent == []
    assert not broker.running


async def test_cancelled_while_serving(broker: NatsBroker) -> None:
    site, server = Site(), Cancelled()
    async with server.running(around(site, broker)):
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
    site, server = Hangs("shutdown"), Cancelled()
    async with server.running(around(site, broker)):
        await eventually(lambda: bool(server.sent))
        server.tell("shutdown")
        await eventually(lambda: site.log[-1] == "shutdown")
    assert site.log[-3:] == ["shutdown", "cancelled", "ended"]
    assert not broker.running


async def test_cancelled_while_the_broker_starts(nats: NatsServer) -> None:
    nats.freeze()
    site, server = Site(), Cancelled()
    broker = NatsBroker(nats.url)
    async with server.running(around(site, broker)):
        await eventually(lambda: site.log == ["startup"])
    assert [line for line in site.log if not line.startswith("brokers")] == ["startup", "shutdown", "ended"]
    assert not broker.running


# --- requests ---


async def test_only_our_paths_are_ours(broker: NatsBroker) -> None:
    site = Site()
    app = FastStreamMiddleware(site, broker, liveness_path="/live", asyncapi_path="/docs")
    for path in ("/live", "/live/", "/docs", "/docs/asyncapi.json", "/docs.json"):
        assert (await request(app, http_scope(path))).body != b"the site", path
    assert site.asked == []
    for path in ("/", "/live/x", "/livelier", "/docsx", "/ready"):
        assert (await request(app, http_scope(path))).body == b"the site", path
    assert [scope["path"] for scope in site.asked] == ["/", "/live/x", "/livelier", "/docsx", "/ready"]


async def test_the_host_gets_its_scope_as_it_came(broker: NatsBroker) -> None:
    site = Site()
    app = FastStreamMiddleware(site, broker, asyncapi_path="/docs")
    scope = http_scope("/svc/else", root_path="/svc")
    before = dict(scope)
    await request(app, scope)
    assert site.asked[0] is scope
    assert scope == before


async def test_websockets_of_the_host_are_left_to_it(broker: NatsBroker) -> None:
    site = Site()
    app = FastStreamMiddleware(site, broker, liveness_path="/live")
    await websocket_refusal(app, "/chat", denial=False)
    assert [scope["type"] for scope in site.asked] == ["websocket"]
    sent = await websocket_refusal(app, "/live", denial=False)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_a_path_of_ours_goes_before_the_same_path_of_the_host(broker: NatsBroker) -> None:
    site = Site()
    app = FastStreamMiddleware(site, broker, liveness_path="/")
    assert (await request(app, http_scope("/"))).status == 503
    assert site.asked == []


# --- what it is built from ---


def test_what_cannot_work_is_an_error_at_once(broker: NatsBroker) -> None:
    unknown: Any = {"pong_path": "/pong"}
    with pytest.raises(TypeError, match="'pong_path'"):
        FastStreamMiddleware(Site(), broker, **unknown)
    with pytest.raises(SetupError, match="'/same' is served already"):
        FastStreamMiddleware(Site(), broker, ping_path="/same", asyncapi_path="/same")
    with pytest.raises(SetupError, match="not nothing"):
        FastStreamMiddleware(Site())


def test_it_has_the_host_and_the_lifespan(broker: NatsBroker) -> None:
    site, lifespan = Site(), BrokerLifespan(broker)
    app = FastStreamMiddleware(site, lifespan, ping_path="/ping")
    assert app.app is site
    assert app.lifespan is lifespan
