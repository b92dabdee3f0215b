"""Endpoints endpoints in other frameworks as plain ASGI apps, and behind a server's root path."""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import httpx
import pytest
from fastapi import FastAPI
from faststream.nats import NatsBroker
from litestar import Litestar, asgi
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from faststream_adapters import (
    AsgiFastStream,
    AsgiResponse,
    BrokerLifespan,
    Request,
    get,
    make_asyncapi_asgi,
    make_liveness_asgi,
    make_ping_asgi,
    make_readiness_asgi,
    make_startup_asgi,
    post,
)
from tests.harness.asgi_calls import exchange
from tests.harness.servers import HOST
from tests.harness.servers.asgi import AppServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from faststream.asgi.types import ASGIApp

    from tests.harness.servers.nats import NatsServer

PROBES = ("/health", "/live", "/ready", "/started")
DOWN = {"unreachable", "timeout"}
"""The codes of a killed server: `unreachable` once the client has noticed, `timeout` before."""


async def echo(request: Request) -> AsgiResponse:
    return AsgiResponse(request.method.encode() + await request.body())


class Endpoints:
    """The endpoints that every host below mounts."""

    def __init__(self, url: str) -> None:
        broker = NatsBroker(url)
        self.lifespan = BrokerLifespan(broker)
        self.docs = make_asyncapi_asgi(broker)
        self.apps: dict[str, ASGIApp] = {
            "/health": make_ping_asgi(broker),
            "/live": make_liveness_asgi(self.lifespan),
            "/ready": make_readiness_asgi(self.lifespan),
            "/started": make_startup_asgi(self.lifespan),
            "/get": get(echo),
            "/post": post(echo),
        }
        self.everything: dict[str, ASGIApp] = {**self.apps, "/asyncapi": self.docs}


def in_starlette(endpoints: Endpoints) -> ASGIApp:
    routes = [Mount(path, app) for path, app in endpoints.everything.items()]
    return Starlette(routes=routes, lifespan=endpoints.lifespan)


def as_starlette_routes(endpoints: Endpoints) -> ASGIApp:
    routes = [Route(path, app) for path, app in endpoints.apps.items()]
    return Starlette(routes=[*routes, Mount("/asyncapi", endpoints.docs)], lifespan=endpoints.lifespan)


def in_starlette_below_a_prefix(endpoints: Endpoints) -> ASGIApp:
    inner = Starlette(routes=[Mount(path, app) for path, app in endpoints.everything.items()])
    return Starlette(routes=[Mount("/prefix", inner)], lifespan=endpoints.lifespan)


def in_asgifaststream_below_a_prefix(endpoints: Endpoints) -> ASGIApp:
    inner = AsgiFastStream(asgi_routes=list(endpoints.everything.items()))
    return Starlette(routes=[Mount("/prefix", inner)], lifespan=endpoints.lifespan)


def in_fastapi(endpoints: Endpoints) -> ASGIApp:
    app = FastAPI(lifespan=endpoints.lifespan)
    for path, endpoint in endpoints.everything.items():
        app.mount(path, endpoint)
    return app


def in_litestar(endpoints: Endpoints) -> ASGIApp:
    handlers: list[Any] = [asgi(path, copy_scope=True)(app) for path, app in endpoints.apps.items()]
    handlers.append(asgi("/asyncapi", is_mount=True, copy_scope=True)(endpoints.docs))
    app: Any = Litestar(handlers, lifespan=[endpoints.lifespan], openapi_config=None)
    return app  # type: ignore[no-any-return]


HOSTS: dict[str, tuple[Callable[[Endpoints], ASGIApp], str]] = {
    "starlette": (in_starlette, ""),
    "starlette-routes": (as_starlette_routes, ""),
    "starlette-prefix": (in_starlette_below_a_prefix, "/prefix"),
    "asgifaststream-prefix": (in_asgifaststream_below_a_prefix, "/prefix"),
    "fastapi": (in_fastapi, ""),
    "litestar": (in_litestar, ""),
}


@asynccontextmanager
async def served(app: ASGIApp, prefix: str = "") -> AsyncIterator[httpx.AsyncClient]:
    """Run the app's lifespan and yield an in-process client that follows redirects."""
    inbox: asyncio.Queue[Any] = asyncio.Queue()
    outbox: asyncio.Queue[Any] = asyncio.Queue()
    scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    task = asyncio.ensure_future(app(scope, inbox.get, outbox.put))
    transport = httpx.ASGITransport(app=app)
    async with asyncio.timeout(20):
        await inbox.put({"type": "lifespan.startup"})
        assert (await outbox.get())["type"] == "lifespan.startup.complete"
        async with httpx.AsyncClient(
            transport=transport, base_url=f"http://host{prefix}", follow_redirects=True
        ) as client:
            yield client
        await inbox.put({"type": "lifespan.shutdown"})
        assert (await outbox.get())["type"] == "lifespan.shutdown.complete"
        await task


@pytest.mark.parametrize("name", HOSTS)
class TestHosts:
    async def test_probes_answer_by_the_state_of_the_broker(self, name: str, nats: NatsServer) -> None:
        build, prefix = HOSTS[name]
        async with served(build(Endpoints(nats.url)), prefix) as client:
            for up in (True, False):
                for path in PROBES:
                    # Starlette redirects one of the two to the other.
                    for url in (path, f"{path}/"):
                        replies = [await client.request(method, url) for method in ("GET", "HEAD")]
                        passes = up or path in {"/live", "/started"}
                        if path == "/health":
                            expected, bodies = 204 if passes else 500, {""}
                        else:
                            expected, bodies = (200, {"ok"}) if passes else (503, DOWN)
                        assert [reply.status_code for reply in replies] == [expected, expected], url
                        assert all(reply.headers["cache-control"] == "no-store" for reply in replies)
                        assert replies[0].text in bodies, url
                        assert replies[1].content == b"", url
                if up:
                    nats.kill()

    async def test_methods_that_are_not_allowed_get_405(self, name: str, shared_nats: NatsServer) -> None:
        build, prefix = HOSTS[name]
        async with served(build(Endpoints(shared_nats.url)), prefix) as client:
            for path in (*PROBES, "/asyncapi", "/get"):
                for method in ("POST", "PUT", "DELETE"):
                    reply = await client.request(method, path)
                    assert reply.status_code == 405, (method, path)
                    assert {*reply.headers["allow"].split(", ")} == {"GET", "HEAD"}
            for method in ("GET", "HEAD"):
                reply = await client.request(method, "/post")
                assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
            assert (await client.post("/post", content=b" body")).text == "POST body"
            assert (await client.get("/get")).text == "GET"
            assert (await client.head("/get")).headers["content-length"] == "4"

    async def test_docs_page_and_its_links_are_served(self, name: str, shared_nats: NatsServer) -> None:
        build, prefix = HOSTS[name]
        async with served(build(Endpoints(shared_nats.url)), prefix) as client:
            for url in ("/asyncapi", "/asyncapi/"):
                page = await client.get(url)
                assert page.status_code == 200
                assert page.headers["content-type"] == "text/html; charset=utf-8"
                links = {*re.findall(r'(?:href|src)="([^"#]+)"', page.text)}
                assert len(links) >= 3
                for link in links:
                    assert (await client.get(urljoin(str(page.url), link))).status_code == 200, link
            document = (await client.get("/asyncapi/asyncapi.json")).json()
            assert document["asyncapi"] == "3.0.0"
            assert (await client.get("/asyncapi/unknown")).status_code == 404

    async def test_a_path_with_the_same_prefix_is_not_found(self, name: str, shared_nats: NatsServer) -> None:
        build, prefix = HOSTS[name]
        async with served(build(Endpoints(shared_nats.url)), prefix) as client:
            for path in ("/healthx", "/asyncapix", "/unknown"):
                assert (await client.get(path)).status_code == 404

    async def test_a_websocket_is_closed(self, name: str, shared_nats: NatsServer) -> None:
        build, prefix = HOSTS[name]
        app = build(Endpoints(shared_nats.url))
        for path in ("/health/", "/asyncapi/", "/post/"):
            if name == "starlette-routes":
                path = path.rstrip("/")  # noqa: PLW2901 (its routes are exact)
            scope: dict[str, Any] = {
                "type": "websocket",
                "asgi": {"version": "3.0"},
                "scheme": "ws",
                "path": prefix + path,
                "raw_path": (prefix + path).encode(),
                "root_path": "",
                "query_string": b"",
                "headers": [],
                "subprotocols": [],
            }
            sent = await exchange(app, scope, {"type": "websocket.connect"})
            assert [message["type"] for message in sent] == ["websocket.close"]


STANDALONE = """
import os
from faststream.nats import NatsBroker
from faststream_adapters import AsgiFastStream, make_ping_asgi

broker = NatsBroker(os.environ["NATS_URL"])
app = AsgiFastStream(
    broker,
    asgi_routes=[("/health", make_ping_asgi(broker))],
    readiness_path="/ready",
    asyncapi_path="/asyncapi",
)
"""
FASTAPI = """
import os
from fastapi import FastAPI
from faststream.nats import NatsBroker
from faststream_adapters import BrokerLifespan, make_asyncapi_asgi, make_ping_asgi, make_readiness_asgi

broker = NatsBroker(os.environ["NATS_URL"])
lifespan = BrokerLifespan(broker)
app = FastAPI(lifespan=lifespan)
app.mount("/health", make_ping_asgi(broker))
app.mount("/ready", make_readiness_asgi(lifespan))
app.mount("/asyncapi", make_asyncapi_asgi(broker))
"""
UVICORN = ["-m", "uvicorn", "main:app", "--host", HOST, "--port", "{port}"]
HYPERCORN = ["-m", "hypercorn", "main:app", "--bind", f"{HOST}:{{port}}"]
GRANIAN = ["-m", "granian", "--interface", "asgi", "main:app", "--host", HOST, "--port", "{port}"]
# uvicorn prepends root_path to every path, for a proxy that strips it. The other servers change no path.
STRIPPED, KEPT_OR_STRIPPED = ("",), ("", "/svc")


@pytest.mark.full
@pytest.mark.parametrize(
    ("app", "command", "prefixes"),
    [
        pytest.param(STANDALONE, UVICORN, STRIPPED, id="uvicorn"),
        pytest.param(STANDALONE, [*UVICORN, "--root-path", "/svc"], STRIPPED, id="uvicorn-svc"),
        pytest.param(
            *(FASTAPI, [*UVICORN, "--root-path", "/svc"], STRIPPED),
            id="uvicorn-svc-fastapi",
        ),
        pytest.param(STANDALONE, [*HYPERCORN, "--root-path", "/svc"], KEPT_OR_STRIPPED, id="hypercorn-svc"),
        pytest.param(
            *(STANDALONE, [*GRANIAN, "--url-path-prefix", "/svc"], KEPT_OR_STRIPPED),
            id="granian-svc",
        ),
    ],
)
def test_endpoints_work_behind_the_root_path_of_a_real_server(
    app: str, command: list[str], prefixes: tuple[str, ...], shared_nats: NatsServer
) -> None:
    server = AppServer([sys.executable, *command], app=app, env={"NATS_URL": shared_nats.url})
    with server, httpx.Client(base_url=server.url) as client:
        for prefix in prefixes:
            for path in ("/health", "/ready"):
                url = f"{prefix}{path}"
                for form in (url, f"{url}/") if app is STANDALONE else (f"{url}/",):
                    get, head = client.get(form), client.head(form)
                    assert (get.status_code, get.text) == ((204, "") if path == "/health" else (200, "ok"))
                    assert (head.status_code, head.content) == (get.status_code, b"")
                    assert head.headers.get("content-length") == get.headers.get("content-length")
                    refused = client.post(form)
                    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
            page = client.get(f"{prefix}/asyncapi/")
            assert page.headers["content-type"].startswith("text/html")
            for link in re.findall(r'(?:href|src)="([^"#]+)"', page.text):
                assert client.get(urljoin(f"{server.url}{prefix}/asyncapi/", link)).status_code == 200
            for path in ("/health/", "/asyncapi/"):
                with pytest.raises(InvalidStatus) as raised:
                    connect(f"ws://{HOST}:{server.port}{prefix}{path}")
                assert raised.value.response.status_code == 403
        assert client.get("/svcx/health").status_code == 404
        assert client.get("/health").status_code in {
            204,
            307,
        }  # The app still serves after the rejected websockets.
        assert "Traceback" not in server.output()
