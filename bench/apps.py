"""The applications that the benchmarks serve, with the NATS server at `SERVICE_URL` in the environment."""

import os
from typing import Any

from faststream.asgi.types import ASGIApp, Receive, Scope, Send
from faststream.nats import NatsBroker

from faststream_adapters import FastStreamMiddleware
from faststream_adapters._hosting.options import HostKeywords
from faststream_adapters._lifecycle.managed import managed_broker

from .in_process import TEXT, Apps, bare, bare_ok, bare_with_body

URL = os.environ["SERVICE_URL"]
TRIVIAL = "/trivial"
"""The host's own route: like a probe's, it takes the request, and in FastAPI a router includes it.

It sends the response of a probe that succeeds. So the ratio shows what of the time is due to this package.
"""
HEADERS = {"cache-control": "no-store"}
PATHS = HostKeywords(ping_path="/ping", liveness_path="/livez", readiness_path="/readyz")

_hello = bare_with_body(TEXT, b"text/plain")


async def bare_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond without a broker or this package, with the same status and body as the service."""
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    apps = {"/hello": _hello, "/livez": bare_ok}
    await apps.get(scope["path"], bare)(scope, receive, send)


def adapters() -> ASGIApp:
    """Return the service with this package; `/round-trips` returns how many broker checks it has started."""
    app = Apps(URL).adapters
    [broker] = app.brokers
    driver: Any = managed_broker(broker).driver
    start_check, checks = driver.start_check, 0

    def counting() -> Any:
        nonlocal checks
        checks += 1
        return start_check()

    driver.start_check = counting

    async def round_trips(scope: Scope, receive: Receive, send: Send) -> None:
        await bare_with_body(str(checks).encode(), b"text/plain")(scope, receive, send)

    app.mount("/round-trips", round_trips)
    return app


def upstream() -> ASGIApp:
    """Return the same service with `faststream.asgi`."""
    return Apps(URL).upstream


def fastapi() -> ASGIApp:
    """Return a FastAPI app."""
    from fastapi import APIRouter, FastAPI, Request
    from fastapi.responses import PlainTextResponse

    from faststream_adapters.fastapi import FastStreamRouter

    async def trivial(request: Request) -> PlainTextResponse:  # noqa: ARG001 (as above)
        return PlainTextResponse("ok", headers=HEADERS)

    app = FastAPI()
    router = APIRouter()
    router.add_api_route(TRIVIAL, trivial)
    app.include_router(router)
    app.include_router(FastStreamRouter(NatsBroker(URL, logger=None), **PATHS))
    return app


def litestar() -> ASGIApp:
    """Return a Litestar app."""
    from litestar import Litestar, MediaType, Request, Response, get

    from faststream_adapters.litestar import FastStreamPlugin

    async def trivial(request: Request[Any, Any, Any]) -> Response[str]:  # noqa: ARG001 (as above)
        return Response("ok", media_type=MediaType.TEXT, headers=HEADERS)

    return Litestar(  # type: ignore[return-value]  # its own ASGI types
        [get(TRIVIAL)(trivial)],
        plugins=[FastStreamPlugin(NatsBroker(URL, logger=None), **PATHS)],
    )


def quart() -> ASGIApp:
    """Return a Quart app."""
    from quart import Quart

    from faststream_adapters.quart import QuartFastStream

    app = Quart("bench")

    async def trivial() -> tuple[str, dict[str, str]]:
        return "ok", HEADERS

    app.add_url_rule(TRIVIAL, view_func=trivial)
    QuartFastStream(NatsBroker(URL, logger=None), app=app, **PATHS)
    return app  # type: ignore[return-value]  # its own ASGI types


def starlette() -> ASGIApp:
    """Return a Starlette app wrapped in the middleware."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def trivial(_: Request) -> PlainTextResponse:
        return PlainTextResponse("ok", headers=HEADERS)

    app = Starlette(routes=[Route(TRIVIAL, trivial)])
    return FastStreamMiddleware(app, NatsBroker(URL, logger=None), **PATHS)
