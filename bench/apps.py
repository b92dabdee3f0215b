"""The applications that the benchmarks serve; `SERVICE_URL` in the environment says where NATS is."""

import os
from typing import Any

from faststream.asgi.types import ASGIApp, Receive, Scope, Send
from faststream.nats import NatsBroker

from faststream_adapters import FastStreamMiddleware, supervision
from faststream_adapters.hosting import HostKeywords

from .in_process import TEXT, Apps, bare, bare_body

URL = os.environ["SERVICE_URL"]
TRIVIAL = "/trivial"
PATHS = HostKeywords(ping_path="/ping", liveness_path="/livez", readiness_path="/readyz")

_body = bare_body(TEXT, b"text/plain")


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer without a broker and without us: `/hello` with a body, all else with 204."""
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    await (_body if scope["path"] == "/hello" else bare)(scope, receive, send)


def ours() -> ASGIApp:
    """Return the standalone app, which also tells how often the broker was asked."""
    app = Apps(URL).ours
    [broker] = app.brokers
    driver: Any = supervision.run_of(broker).driver
    send, asked = driver.send, 0

    def counted() -> Any:
        nonlocal asked
        asked += 1
        return send()

    driver.send = counted

    async def round_trips(scope: Scope, receive: Receive, send: Send) -> None:
        await bare_body(str(asked).encode(), b"text/plain")(scope, receive, send)

    app.mount("/round-trips", round_trips)
    return app


def upstream() -> ASGIApp:
    """Return the same service with `faststream.asgi`."""
    return Apps(URL).upstream


def fastapi() -> ASGIApp:
    """Return a FastAPI app."""
    from fastapi import FastAPI

    from faststream_adapters.fastapi import FastStreamRouter

    app = FastAPI()
    app.add_api_route(TRIVIAL, _nothing, status_code=204)
    app.include_router(FastStreamRouter(NatsBroker(URL, logger=None), **PATHS))
    return app


def litestar() -> ASGIApp:
    """Return a Litestar app."""
    from litestar import Litestar, get

    from faststream_adapters.litestar import FastStreamPlugin

    return Litestar(  # type: ignore[return-value]  # its own ASGI types
        [get(TRIVIAL, status_code=204)(_nothing)],
        plugins=[FastStreamPlugin(NatsBroker(URL, logger=None), **PATHS)],
    )


def quart() -> ASGIApp:
    """Return a Quart app."""
    from quart import Quart

    from faststream_adapters.quart import QuartFastStream

    app = Quart("bench")

    async def trivial() -> tuple[str, int]:
        return "", 204

    app.add_url_rule(TRIVIAL, view_func=trivial)
    QuartFastStream(NatsBroker(URL, logger=None), app=app, **PATHS)
    return app  # type: ignore[return-value]  # its own ASGI types


def starlette() -> ASGIApp:
    """Return a Starlette app inside the middleware."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def trivial(_: Request) -> Response:
        return Response(status_code=204)

    site = Starlette(routes=[Route(TRIVIAL, trivial)])
    return FastStreamMiddleware(site, NatsBroker(URL, logger=None), **PATHS)


async def _nothing() -> None:
    pass
