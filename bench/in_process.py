"""What a request costs in the process that answers it, without a server."""

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
from tests.servers.nats import NatsServer

from .measure import Case, Contender, Goal, Row, in_turns, many, one_by_one

TURNS = many(30)
MOST_TURNS = many(300)
SECONDS = 0.003
"""How long a contender's turn lasts: less than the noise of the machine takes to change."""
AT_ONCE = 100

HEADERS = [(b"host", b"service:8000"), (b"user-agent", b"kube-probe/1.33"), (b"accept", b"*/*")]
TEXT = b"hello"

Once = Callable[[], Awaitable[None]]


async def bare(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 (the ASGI signature)
    """Answer 204 as an app does that knows nothing else."""
    await send({"type": "http.response.start", "status": 204, "headers": [(b"cache-control", b"no-store")]})
    await send({"type": "http.response.body", "body": b""})


def bare_body(body: bytes, content_type: bytes) -> ASGIApp:
    """Return a bare app that answers with this body."""
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 (the ASGI signature)
        await send({"type": "http.response.start", "status": 200, "headers": [*headers]})
        await send({"type": "http.response.body", "body": body})

    return app


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Message) -> None:
    pass


def request(app: ASGIApp, path: str, *headers: tuple[bytes, bytes]) -> Once:
    """Return what makes one request, with a scope of its own as a server makes it."""
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

    async def once() -> None:
        await app(dict(scope), _receive, _send)

    return once


class Calls:
    """Calls one after the other, as many as fit into a turn.

    Args:
        once: Makes one call.
        seconds: How long a turn lasts.
    """

    def __init__(self, once: Once, seconds: float = SECONDS) -> None:
        self.once = once
        self._seconds = seconds
        self._times = 0

    async def __call__(self) -> float:
        """Return the microseconds that a call takes."""
        if not self._times:
            # The first one makes what the others find ready.
            await self.once()
            self._times = max(int(self._seconds * 1e6 / await self._timed(5)), 1)
        return await self._timed(self._times)

    async def _timed(self, times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            await self.once()
        return (time.perf_counter() - start) / times * 1e6


def at_once(once: Once) -> Once:
    """Return what makes many calls at once."""

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(once())  # type: ignore[arg-type]  # a coroutine function's result

    return all_of_them


async def sent_by(app: ASGIApp, path: str) -> list[Message]:
    """Return what an app sends in answer to one request."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    await app(scope, _receive, send)
    return sent


class Apps:
    """The same service twice: with `faststream.asgi` and with this package, each with its own broker."""

    def __init__(self, url: str, *, ttl: float = 1.0) -> None:
        ours, upstream = NatsBroker(url, logger=None), NatsBroker(url, logger=None)
        for broker in (ours, upstream):
            broker.subscriber("orders")(_handle)

        @get
        async def hello(scope: Scope) -> AsgiResponse:  # noqa: ARG001 (what a handler may take)
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

        self.ours = AsgiFastStream(
            ours,
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
        lifespan = self.ours.broker_lifespan
        self.ours.mount("/ping-ttl", make_ping_asgi(lifespan, ttl=ttl))
        self.ours.mount("/readyz-ttl", make_readiness_asgi(lifespan, ttl=ttl))
        self.upstream = UpstreamApp(
            upstream,
            asyncapi_path="/docs",
            logger=None,
            asgi_routes=[
                ("/ping", make_upstream_ping(upstream, timeout=0.9)),
                ("/hello", upstream_hello),
                ("/injected", upstream_injected),
            ],
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run both."""
        async with self.ours.start_lifespan_context(), self.upstream.start_lifespan_context():
            yield


async def _handle(message: str) -> None:
    pass


def with_routes(count: int) -> ASGIApp:
    """Return an app of ours with so many routes; the one that is asked for is the last."""

    @get
    async def hello(scope: Scope) -> AsgiResponse:  # noqa: ARG001 (what a handler may take)
        return AsgiResponse(TEXT)

    return AsgiFastStream(logger=None, asgi_routes=[(f"/route-{number}", hello) for number in range(count)])


def _shared(apps: Apps, loop: str) -> Case:
    """Return the case of many who ask at once, on an event loop of this name."""
    goal = Goal("upstream", most=1 / 5)
    row = Row(f"{AT_ONCE} pings at once, which share a round trip, on {loop}", "µs", (goal,))
    contenders: dict[Contender, ASGIApp] = {"bare": bare, "upstream": apps.upstream, "ours": apps.ours}
    # Longer turns: a server that was idle takes some time to wake up.
    runs = {name: Calls(at_once(request(app, "/ping")), 10 * SECONDS) for name, app in contenders.items()}
    return row, one_by_one(runs)


async def _cases(apps: Apps) -> AsyncIterator[Case]:
    ours, upstream = apps.ours, apps.upstream

    def case(
        what: str,
        path: str,
        *goals: Goal,
        bare: ASGIApp = bare,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        beside: bool = False,
        like: str | None = None,
    ) -> Case:
        apps: dict[Contender, ASGIApp] = {"bare": bare, "ours": ours}
        if beside:
            apps["upstream"] = upstream
        runs = {
            name: Calls(request(app, like if like and name == "upstream" else path, *headers))
            for name, app in apps.items()
        }
        return Row(what, "µs", goals), one_by_one(runs)

    up_ping = {"beside": True, "like": "/ping"}
    cheap = Goal("bare", most=4)
    yield case("liveness", "/livez", cheap)
    yield case("startup", "/startupz", cheap)
    yield case("readiness, cached by `ttl`", "/readyz-ttl", cheap)
    yield case("readiness, a round trip each", "/readyz")
    yield case("ping, cached by `ttl`", "/ping-ttl", cheap, **up_ping)  # type: ignore[arg-type]  # two keywords in one
    yield case("ping, a round trip each", "/ping", **up_ping)  # type: ignore[arg-type]  # as above
    yield _shared(apps, "asyncio")
    yield case(
        "`@get` without injection",
        "/hello",
        Goal("bare", most=5),
        bare=bare_body(TEXT, b"text/plain"),
        beside=True,
    )
    yield case(
        "`@get` with injection",
        "/injected",
        Goal("upstream", most=1),
        bare=bare_body(TEXT, b"text/plain"),
        beside=True,
    )
    for what, path in (("docs page", "/docs"), ("document as JSON", "/docs.json")):
        body = (await sent_by(ours, path))[-1]["body"]
        yield case(what, path, Goal("bare", most=6), bare=bare_body(body, b"text/html"), beside=True)
    start, _ = await sent_by(ours, "/docs.json")
    etag = dict(start["headers"])[b"etag"]
    yield case(
        "document as JSON, not modified (304)",
        "/docs.json",
        Goal("bare", most=6),
        headers=((b"if-none-match", etag),),
    )
    few = request(with_routes(1), "/route-0")
    for count, goals in ((10, ()), (100, (Goal("bare", most=1.2),))):
        last = request(with_routes(count), f"/route-{count - 1}")
        yield (
            Row(f"{count} routes (bare: one route of ours)", "µs", goals),
            one_by_one({"bare": Calls(few), "ours": Calls(last)}),
        )


async def _measured(url: str, cases: Callable[[Apps], AsyncIterator[Case]]) -> list[Row]:
    # No cached answer may run out while it is measured.
    apps = Apps(url, ttl=600.0)
    async with apps.running():
        found = [case async for case in cases(apps)]
        # What is there already is not looked through again and again.
        gc.collect()
        gc.freeze()
        try:
            return await in_turns(found, TURNS, MOST_TURNS)
        finally:
            gc.unfreeze()


async def _cases_on_uvloop(apps: Apps) -> AsyncIterator[Case]:
    yield _shared(apps, "uvloop")


async def measure() -> list[Row]:
    """Measure all of it, in this process."""
    import uvloop

    with NatsServer() as server:
        rows = await _measured(server.url, _cases)
        # In another thread, while this one's event loop has nothing to do.
        rows += await asyncio.to_thread(uvloop.run, _measured(server.url, _cases_on_uvloop))
    return rows
