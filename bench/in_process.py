"""The cost of a request in the process that handles it, without a server."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from faststream.asgi import AsgiFastStream as UpstreamApp
from faststream.asgi import AsgiResponse as UpstreamResponse
from faststream.asgi import get as upstream_get
from faststream.asgi import make_ping_asgi as make_upstream_ping
from faststream.asgi.params import Query as UpstreamQuery
from faststream.asgi.types import ASGIApp, Message, Receive, Scope, Send
from faststream.nats import NatsBroker

from faststream_adapters import AsgiFastStream, AsgiResponse, Query, get, make_ping_asgi, make_readiness_asgi
from tests.harness.servers.nats import NatsServer

from .measure import Case, Contender, Goal, Row, measure_in_rounds, sequential, unless_quick

MIN_ROUNDS = unless_quick(30)
MAX_ROUNDS = unless_quick(300)
SECONDS = 0.003
"""The time for each contender in a round: shorter than the intervals in which the machine's noise changes."""
CONCURRENT = 100

HEADERS = [(b"host", b"service:8000"), (b"user-agent", b"kube-probe/1.33"), (b"accept", b"*/*")]
TEXT = b"hello"

Call = Callable[[], Awaitable[None]]


async def bare(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 (the ASGI signature)
    """Respond with 204 to every request."""
    await send({"type": "http.response.start", "status": 204, "headers": [(b"cache-control", b"no-store")]})
    await send({"type": "http.response.body", "body": b""})


def bare_with_body(body: bytes, content_type: bytes, *headers: tuple[bytes, bytes]) -> ASGIApp:
    """Return a bare app that responds with a body, and with further headers."""
    headers = ((b"content-type", content_type), *headers, (b"content-length", str(len(body)).encode()))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 (the ASGI signature)
        await send({"type": "http.response.start", "status": 200, "headers": [*headers]})
        await send({"type": "http.response.body", "body": body})

    return app


bare_ok = bare_with_body(b"ok", b"text/plain; charset=utf-8", (b"cache-control", b"no-store"))
"""Responds as a probe does that succeeds, with the same headers."""


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Message) -> None:
    pass


def requester(app: ASGIApp, path: str, *headers: tuple[bytes, bytes]) -> Call:
    """Return a function that sends a request to an app, with a new scope each time, as a server does."""
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [*HEADERS, *headers],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }

    async def call() -> None:
        await app(dict(scope), _receive, _send)

    return call


class TimedCalls:
    """Call a function repeatedly, and measure the time per call.

    Args:
        call: The function.
        seconds: How long to call it in each round. The first round determines the number of calls.
    """

    def __init__(self, call: Call, seconds: float = SECONDS) -> None:
        self.call = call
        self._seconds = seconds
        self._count = 0

    async def __call__(self) -> float:
        """Return the microseconds per call."""
        if not self._count:
            # The first call fills caches, and is not measured.
            await self.call()
            self._count = max(int(self._seconds * 1e6 / await self._measure(5)), 1)
        return await self._measure(self._count)

    async def _measure(self, count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            await self.call()
        return (time.perf_counter() - start) / count * 1e6


def concurrently(call: Call) -> Call:
    """Return a function that makes `CONCURRENT` calls at once, in a task each."""

    async def call_all() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENT):
                group.create_task(call())  # type: ignore[arg-type]  # a coroutine function's result

    return call_all


async def response_messages(app: ASGIApp, path: str) -> list[Message]:
    """Return the ASGI messages that an app sends in response to a request."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    await app(scope, _receive, send)
    return sent


class Apps:
    """The same service twice, with this package and with `faststream.asgi`, each with its own broker.

    Args:
        url: The URL of the NATS server.
        ttl: How long the endpoints whose path ends with `-ttl` cache their result, in seconds.
    """

    def __init__(self, url: str, *, ttl: float = 1.0) -> None:
        broker, upstream_broker = NatsBroker(url, logger=None), NatsBroker(url, logger=None)
        for each in (broker, upstream_broker):
            each.subscriber("orders")(_handle)

        @get
        async def hello(scope: Scope) -> AsgiResponse:  # noqa: ARG001 (the parameter of a handler)
            return AsgiResponse(TEXT)

        @get
        async def injected(name: str = Query(default="")) -> AsgiResponse:  # noqa: ARG001 (what is measured)
            return AsgiResponse(TEXT)

        @upstream_get
        async def upstream_hello(scope: Scope) -> UpstreamResponse:  # noqa: ARG001 (as above)
            return UpstreamResponse(TEXT)

        @upstream_get
        async def upstream_injected(name: str = UpstreamQuery(default="")) -> UpstreamResponse:  # noqa: ARG001 (as above)
            return UpstreamResponse(TEXT)

        self.adapters = AsgiFastStream(
            broker,
            ping_path="/ping",
            liveness_path="/livez",
            readiness_path="/readyz",
            startup_path="/startupz",
            asyncapi_path="/docs",
            logger=None,
            asgi_routes=[
                ("/hello", hello),
                ("/injected", injected),
            ],
        )
        lifespan = self.adapters.broker_lifespan
        self.adapters.mount("/ping-ttl", make_ping_asgi(lifespan, ttl=ttl))
        self.adapters.mount("/readyz-ttl", make_readiness_asgi(lifespan, ttl=ttl))
        self.upstream = UpstreamApp(
            upstream_broker,
            asyncapi_path="/docs",
            logger=None,
            asgi_routes=[
                ("/ping", make_upstream_ping(upstream_broker, timeout=0.9)),
                ("/hello", upstream_hello),
                ("/injected", upstream_injected),
            ],
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the lifespans of both apps."""
        async with self.adapters.start_lifespan_context(), self.upstream.start_lifespan_context():
            yield


async def _handle(message: str) -> None:
    pass


def app_with_routes(count: int) -> ASGIApp:
    """Return an app of this package with a number of routes."""

    @get
    async def hello(scope: Scope) -> AsgiResponse:  # noqa: ARG001 (the parameter of a handler)
        return AsgiResponse(TEXT)

    return AsgiFastStream(logger=None, asgi_routes=[(f"/route-{number}", hello) for number in range(count)])


def _concurrent_pings(apps: Apps, loop: str) -> Case:
    goal = Goal("upstream", at_most=1 / 4)
    row = Row(f"{CONCURRENT} concurrent pings sharing a round trip, on {loop}", "µs", (goal,))
    contenders: dict[Contender, ASGIApp] = {
        "bare": bare,
        "upstream": apps.upstream,
        "adapters": apps.adapters,
    }
    # More time per round, because a NATS server that was idle takes some time to wake up.
    runs = {
        name: TimedCalls(concurrently(requester(app, "/ping")), 10 * SECONDS)
        for name, app in contenders.items()
    }
    return row, sequential(runs)


async def _cases(apps: Apps) -> AsyncIterator[Case]:
    def case(
        what: str,
        path: str,
        *goals: Goal,
        bare: ASGIApp = bare,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        upstream_path: str | None = None,
    ) -> Case:
        calls: dict[Contender, Call] = {
            "bare": requester(bare, path, *headers),
            "adapters": requester(apps.adapters, path, *headers),
        }
        if upstream_path:
            calls["upstream"] = requester(apps.upstream, upstream_path, *headers)
        return Row(what, "µs", goals), sequential({name: TimedCalls(call) for name, call in calls.items()})

    cheap = Goal("bare", at_most=4)
    yield case("liveness", "/livez", cheap, bare=bare_ok)
    yield case("startup", "/startupz", cheap, bare=bare_ok)
    yield case("readiness, cached by `ttl`", "/readyz-ttl", cheap, bare=bare_ok)
    yield case("readiness, one round trip each", "/readyz", bare=bare_ok)
    yield case("ping, cached by `ttl`", "/ping-ttl", cheap, upstream_path="/ping")
    yield case("ping, one round trip each", "/ping", upstream_path="/ping")
    yield _concurrent_pings(apps, "asyncio")
    yield case(
        "`@get` without injection",
        "/hello",
        Goal("bare", at_most=5),
        bare=bare_with_body(TEXT, b"text/plain"),
        upstream_path="/hello",
    )
    yield case(
        "`@get` with injection",
        "/injected",
        Goal("upstream", at_most=1),
        bare=bare_with_body(TEXT, b"text/plain"),
        upstream_path="/injected",
    )
    for what, path in (("docs page", "/docs"), ("document as JSON", "/docs.json")):
        body = (await response_messages(apps.adapters, path))[-1]["body"]
        same_body = bare_with_body(body, b"text/html")
        yield case(what, path, Goal("bare", at_most=6), bare=same_body, upstream_path=path)
    start, _ = await response_messages(apps.adapters, "/docs.json")
    etag = dict(start["headers"])[b"etag"]
    yield case(
        "document as JSON, not modified (304)",
        "/docs.json",
        Goal("bare", at_most=6),
        headers=((b"if-none-match", etag),),
    )
    only_route = requester(app_with_routes(1), "/route-0")
    for count, goals in ((10, ()), (100, (Goal("bare", at_most=1.2),))):
        last_route = requester(app_with_routes(count), f"/route-{count - 1}")
        yield (
            Row(f"the last of {count} routes (bare: an app of this package with one route)", "µs", goals),
            sequential({"bare": TimedCalls(only_route), "adapters": TimedCalls(last_route)}),
        )


async def _cases_on_uvloop(apps: Apps) -> AsyncIterator[Case]:
    yield _concurrent_pings(apps, "uvloop")


async def _measure_cases(url: str, make_cases: Callable[[Apps], AsyncIterator[Case]]) -> list[Row]:
    # Cached results must not expire while they are measured.
    apps = Apps(url, ttl=600.0)
    async with apps.running():
        cases = [case async for case in make_cases(apps)]
        # Keep the garbage collector from scanning the existing objects during the measurements.
        gc.collect()
        gc.freeze()
        try:
            return await measure_in_rounds(cases, MIN_ROUNDS, MAX_ROUNDS)
        finally:
            gc.unfreeze()


async def measure() -> list[Row]:
    """Measure all requests, in this process."""
    import uvloop

    with NatsServer() as server:
        rows = await _measure_cases(server.url, _cases)
        # In another thread: this one's event loop is running, but has nothing to do meanwhile.
        rows += await asyncio.to_thread(uvloop.run, _measure_cases(server.url, _cases_on_uvloop))
    return rows
