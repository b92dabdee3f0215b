"""The hosts of the tests, one class per web framework, and the server's side of the lifespan protocol.

A new host is one class here and an entry in `HOSTS`. The conformance suite does not name any host.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import httpx
from faststream import Context, ContextRepo, FastStream
from faststream.asgi.types import ASGIApp, Message, Receive, Scope, Send

from faststream_adapters import AsgiFastStream, AsgiResponse, FastStreamMiddleware, get
from tests.harness.asgi_calls import http_scope
from tests.harness.clients import client

TOKEN = {"x-token": "secret"}
TITLE, VERSION = "Order service", "1.2.3"
TIMEOUT = 20.0
"""Seconds that an application may take to start, and to stop."""


# --- the parts of an application ---


async def _hello() -> str:
    return "hello"


@dataclass(frozen=True)
class HostApp:
    """The parts of a host application that do not come from the adapter.

    Args:
        hello: Returns the response of the route `/hello`.
        on_startup: Called at the startup. May raise.
        on_shutdown: Called at the shutdown.
        state: The lifespan state. The route `/state` responds with its `greeting`.
    """

    hello: Callable[[], Awaitable[str]] = _hello
    on_startup: Callable[[], object] = lambda: None
    on_shutdown: Callable[[], object] = lambda: None
    state: Mapping[str, str] = field(default_factory=dict)

    @asynccontextmanager
    async def resources(self) -> AsyncIterator[None]:
        self.on_startup()
        try:
            yield
        finally:
            self.on_shutdown()


@dataclass(frozen=True)
class AdapterUse:
    """One use of the adapter in an application: a router, a plugin, an extension or a middleware."""

    targets: Sequence[Any]
    keywords: Mapping[str, Any]
    guarded: bool = False
    prefix: str = ""


# --- hosts ---


class Host:
    """A web framework: builds applications with and without the adapter.

    The flags state what the framework supports. Tests that need more are not collected for it.
    """

    name: ClassVar[str]
    has_adapter: ClassVar[bool] = True
    """Whether the framework has an adapter of its own."""
    resources: ClassVar[bool] = True
    """Whether the framework has startup and shutdown hooks."""
    state: ClassVar[bool] = False
    """Whether requests receive state of the lifespan."""
    guards: ClassVar[bool] = False
    """Whether the framework's guards can protect the endpoints of the adapter."""
    prefixes: ClassVar[bool] = False
    """Whether the endpoints of the adapter can have a prefix."""
    detects_paths: ClassVar[bool] = False
    """Whether a path that the host serves itself is detected when the application is built or started."""
    info: ClassVar[bool] = False
    """Whether the application has a title and a version."""
    openapi: ClassVar[str] = ""
    """The path of the OpenAPI document, if there is one."""
    composes: ClassVar[bool] = True
    """Whether one application can use the adapter more than once."""
    lifespans: ClassVar[bool] = True
    """Whether a BrokerLifespan can be the target."""
    raises_startup_errors: ClassVar[bool] = True
    """Whether the framework raises the error of its own failed startup, instead of only reporting it."""
    reports_reason: ClassVar[bool] = True
    """Whether that report contains the error's text."""
    bare_paths: ClassVar[bool] = True
    """Whether requests are accepted if the server does not put the root path in front of the path."""

    def plain(self, host_app: HostApp) -> Any:
        """Return an application without the adapter."""
        raise NotImplementedError

    def compose(self, host_app: HostApp, *uses: AdapterUse) -> ASGIApp:
        """Return an application with these uses of the adapter."""
        raise NotImplementedError

    def adapter(self, *targets: Any) -> Any:
        """Return the adapter's object for these targets, which has a `broker_lifespan`."""
        raise NotImplementedError

    def application(self, app: ASGIApp) -> object:
        """Return the expected value of `Context("host")`."""
        return app

    def build(
        self,
        *targets: Any,
        host_app: HostApp | None = None,
        guarded: bool = False,
        prefix: str = "",
        **keywords: Any,
    ) -> ASGIApp:
        """Return an application with one use of the adapter. Its guard requires the header in `TOKEN`."""
        return self.compose(host_app or HostApp(), AdapterUse(targets, keywords, guarded, prefix))

    def has(self, *flags: str) -> bool:
        """Return whether all of these flags are set."""
        return all(getattr(self, flag) for flag in flags)


class Standalone(Host):
    name = "standalone"
    state = True
    detects_paths = True
    composes = False
    lifespans = False

    def plain(self, host_app: HostApp) -> AsgiFastStream:
        return AsgiFastStream(asgi_routes=self._routes(host_app), lifespan=self._lifespan(host_app))

    def compose(self, host_app: HostApp, *uses: AdapterUse) -> ASGIApp:
        [use] = uses
        if isinstance(use.targets[0], FastStream):
            # The target is an application with its own lifespan.
            [app] = use.targets
            return AsgiFastStream.from_app(app, asgi_routes=self._routes(host_app), **use.keywords)
        return AsgiFastStream(
            *use.targets,
            asgi_routes=self._routes(host_app),
            lifespan=self._lifespan(host_app),
            **use.keywords,
        )

    def adapter(self, *targets: Any) -> AsgiFastStream:
        return AsgiFastStream(*targets)

    def _routes(self, host_app: HostApp) -> list[tuple[str, ASGIApp]]:
        @get(include_in_schema=False)
        async def hello() -> AsgiResponse:
            return AsgiResponse((await host_app.hello()).encode())

        @get(include_in_schema=False)
        async def state(greeting: str = Context()) -> AsgiResponse:
            return AsgiResponse(greeting.encode())

        return [("/hello", hello), ("/state", state)]

    def _lifespan(self, host_app: HostApp) -> Any:
        @asynccontextmanager
        async def lifespan(context: ContextRepo) -> AsyncIterator[None]:
            for name, value in host_app.state.items():
                context.set_global(name, value)
            async with host_app.resources():
                yield

        return lifespan


class MiddlewareHost(Host):
    """An ASGI application wrapped by FastStreamMiddleware."""

    has_adapter = False

    def adapter(self, *targets: Any) -> FastStreamMiddleware:
        return FastStreamMiddleware(self.plain(HostApp()), *targets)

    def compose(self, host_app: HostApp, *uses: AdapterUse) -> ASGIApp:
        app: ASGIApp = self.plain(host_app)
        for use in uses:
            app = FastStreamMiddleware(app, *use.targets, **use.keywords)
        return app

    def application(self, app: ASGIApp) -> object:
        while isinstance(app, FastStreamMiddleware):
            app = app.app
        return app


class Starlette(MiddlewareHost):
    name = "starlette"
    state = True

    def plain(self, host_app: HostApp) -> Any:
        from starlette.applications import Starlette
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse
        from starlette.routing import Route

        async def hello(_: Request) -> PlainTextResponse:
            return PlainTextResponse(await host_app.hello())

        async def state(request: Request) -> PlainTextResponse:
            return PlainTextResponse(request.state.greeting)

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[Any]:
            async with host_app.resources():
                yield host_app.state or None

        return Starlette(routes=[Route("/hello", hello), Route("/state", state)], lifespan=lifespan)


class Django(MiddlewareHost):
    name = "django"
    resources = False

    def plain(self, host_app: HostApp) -> Any:
        import django  # type: ignore[import-untyped]  # ships no types
        from django.conf import settings  # type: ignore[import-untyped]
        from django.core.handlers.asgi import ASGIHandler  # type: ignore[import-untyped]
        from django.http import HttpResponse  # type: ignore[import-untyped]
        from django.urls import path  # type: ignore[import-untyped]

        if not settings.configured:
            settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="secret", ROOT_URLCONF="")
            django.setup(set_prefix=False)

        async def hello(_: Any) -> HttpResponse:
            return HttpResponse(await host_app.hello())

        class Site(ASGIHandler):  # type: ignore[misc]  # ships no types
            """Django's handler with separate URLs, because the settings apply to the whole process."""

            def create_request(self, scope: Scope, body_file: Any) -> Any:
                request, error = super().create_request(scope, body_file)
                request.urlconf = (path("hello", hello),)
                return request, error

        return Site()


class Falcon(MiddlewareHost):
    name = "falcon"
    raises_startup_errors = False
    state = True

    def plain(self, host_app: HostApp) -> Any:
        from falcon.asgi import App, Request, Response

        class Hello:
            async def on_get(self, _: Request, response: Response) -> None:
                response.text = await host_app.hello()

        class State:
            async def on_get(self, request: Request, response: Response) -> None:
                response.text = request.scope["state"]["greeting"]

        class Resources:
            async def process_startup(self, scope: Scope, _: Message) -> None:
                host_app.on_startup()
                if host_app.state:
                    scope["state"].update(host_app.state)

            async def process_shutdown(self, _: Scope, __: Message) -> None:
                host_app.on_shutdown()

        resources: Any = Resources()
        app = App(middleware=[resources])
        app.add_route("/hello", Hello())
        app.add_route("/state", State())
        return app


class BlackSheep(MiddlewareHost):
    name = "blacksheep"
    raises_startup_errors = reports_reason = False

    def plain(self, host_app: HostApp) -> Any:
        from blacksheep import Application, Request, Response, Router, text

        # After a second start, BlackSheep can no longer call a handler without parameters.
        async def hello(request: Request) -> Response:
            return text(await host_app.hello())

        async def up(_: Application) -> None:
            host_app.on_startup()

        async def down(_: Application) -> None:
            host_app.on_shutdown()

        # The default router is shared by the whole process.
        app = Application(router=Router())
        app.router.add_get("/hello", hello)
        app.on_start += up
        app.on_stop += down
        return app


class FastApi(Host):
    name = "fastapi"
    openapi = "/openapi.json"
    state = guards = prefixes = detects_paths = info = True

    def plain(self, host_app: HostApp) -> Any:
        from fastapi import FastAPI, Request
        from fastapi.responses import PlainTextResponse

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[Any]:
            async with host_app.resources():
                yield host_app.state or None

        app = FastAPI(title=TITLE, version=VERSION, lifespan=lifespan)

        @app.get("/hello")
        async def hello() -> PlainTextResponse:
            return PlainTextResponse(await host_app.hello())

        @app.get("/state")
        async def state(request: Request) -> PlainTextResponse:
            return PlainTextResponse(request.state.greeting)

        return app

    def adapter(self, *targets: Any) -> Any:
        from faststream_adapters.fastapi import FastStreamRouter

        return FastStreamRouter(*targets)

    def compose(self, host_app: HostApp, *uses: AdapterUse) -> ASGIApp:
        from fastapi import Depends, Header, HTTPException

        from faststream_adapters.fastapi import FastStreamRouter

        def guard(x_token: str = Header("")) -> None:
            if x_token != TOKEN["x-token"]:
                raise HTTPException(401)

        app = self.plain(host_app)
        for use in uses:
            dependencies = [Depends(guard)] if use.guarded else []
            app.include_router(
                FastStreamRouter(*use.targets, prefix=use.prefix, dependencies=dependencies, **use.keywords)
            )
        return app  # type: ignore[no-any-return]


class Litestar(Host):
    name = "litestar"
    openapi = "/schema/openapi.json"
    state = guards = prefixes = detects_paths = info = True

    def plain(self, host_app: HostApp, *plugins: Any) -> Any:
        from litestar import Litestar, MediaType, Request, get
        from litestar.openapi import OpenAPIConfig

        @get("/hello", media_type=MediaType.TEXT)
        async def hello() -> str:
            return await host_app.hello()

        @get("/state", media_type=MediaType.TEXT)
        async def state(request: Request[Any, Any, Any]) -> str:
            return str(request.app.state.greeting)

        @asynccontextmanager
        async def lifespan(app: Litestar) -> AsyncIterator[None]:
            app.state.update(host_app.state)
            async with host_app.resources():
                yield

        return Litestar(
            [hello, state],
            lifespan=[lifespan],
            plugins=plugins,
            openapi_config=OpenAPIConfig(title=TITLE, version=VERSION),
        )

    def adapter(self, *targets: Any) -> Any:
        from faststream_adapters.litestar import FastStreamPlugin

        return FastStreamPlugin(*targets)

    def compose(self, host_app: HostApp, *uses: AdapterUse) -> ASGIApp:
        from litestar.connection import ASGIConnection
        from litestar.exceptions import NotAuthorizedException
        from litestar.handlers import BaseRouteHandler

        from faststream_adapters.litestar import FastStreamPlugin

        def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
            if connection.headers.get("x-token") != TOKEN["x-token"]:
                raise NotAuthorizedException

        # The plugin derives names from classes, and the brokers of the tests have the same class.
        names: dict[Any, str] = {}
        plugins = []
        for use in uses:
            brokers = [broker for target in use.targets for broker in getattr(target, "brokers", [target])]
            plugins.append(
                FastStreamPlugin(
                    *use.targets,
                    path=use.prefix or "/",
                    guards=[guard] if use.guarded else None,
                    names=[names.setdefault(broker, f"broker_{len(names)}") for broker in brokers],
                    **use.keywords,
                )
            )
        return self.plain(host_app, *plugins)  # type: ignore[no-any-return]


class Quart(Host):
    name = "quart"
    raises_startup_errors = False
    guards = prefixes = detects_paths = True
    bare_paths = False

    def plain(self, host_app: HostApp) -> Any:
        from quart import Quart, Response

        app = Quart(__name__)

        @app.get("/hello")
        async def hello() -> Response:
            return Response(await host_app.hello())

        @app.before_serving
        async def up() -> None:
            host_app.on_startup()

        @app.after_serving
        async def down() -> None:
            host_app.on_shutdown()

        return app

    def adapter(self, *targets: Any) -> Any:
        from faststream_adapters.quart import QuartFastStream

        return QuartFastStream(*targets, app=self.plain(HostApp()))

    def compose(self, host_app: HostApp, *uses: AdapterUse) -> ASGIApp:
        from quart import Blueprint, abort, request

        from faststream_adapters.quart import QuartFastStream

        async def guard() -> None:
            if request.headers.get("x-token") != TOKEN["x-token"]:
                abort(401)

        app = self.plain(host_app)
        for number, use in enumerate(uses):
            blueprint = Blueprint(f"adapter_{number}", __name__, url_prefix=use.prefix or None)
            if use.guarded:
                blueprint.before_request(guard)
            QuartFastStream(
                *use.targets,
                app=app,
                blueprint=blueprint if use.guarded or use.prefix else None,
                **use.keywords,
            )
            if use.guarded or use.prefix:
                app.register_blueprint(blueprint)
        return app  # type: ignore[no-any-return]


HOSTS: dict[str, Host] = {
    host.name: host
    for host in (
        Standalone(),
        FastApi(),
        Litestar(),
        Quart(),
        Starlette(),
        Django(),
        Falcon(),
        BlackSheep(),
    )
}


# --- the server ---


class StartupFailedError(Exception):
    """The application has sent `lifespan.startup.failed`."""


@dataclass(frozen=True)
class Served:
    """A started application."""

    app: ASGIApp
    http: httpx.AsyncClient

    async def status(self, path: str, method: str = "GET", **options: Any) -> int:
        return (await self.http.request(method, path, **options)).status_code

    async def text(self, path: str) -> str:
        response = await self.http.get(path)
        assert response.status_code == 200, (path, response.status_code)
        return response.text


@asynccontextmanager
async def serving(
    app: ASGIApp,
    *,
    root_path: str = "",
    state: bool = True,
) -> AsyncIterator[Served]:
    """Start an application, accept requests to it, and stop it, like an ASGI server.

    Args:
        app: The application.
        root_path: The root path of the server.
        state: Whether the server supports lifespan state.

    Raises:
        StartupFailedError: The application has sent `lifespan.startup.failed`.

    Source: ASGI specification, "Lifespan Protocol" and "Lifespan State".
    """
    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
    if state:
        scope["state"] = {}
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()
    task = asyncio.ensure_future(app(scope, to_app.get, from_app.put))

    async def send_event(event: str) -> Message:
        to_app.put_nowait({"type": f"lifespan.{event}"})
        reply = asyncio.create_task(from_app.get())
        await asyncio.wait((reply, task), timeout=TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if not reply.done():  # pragma: no cover (only when a test fails)
            reply.cancel()
            # If the application raises now, a server assumes that it has no lifespan, and serves it.
            how = f"ended with {task.exception()!r}" if task.done() else f"waited {TIMEOUT:g} s"
            raise AssertionError(f"The application did not reply to its {event}: it {how}.")
        return reply.result()

    async def with_state(request: Scope, receive: Receive, send: Send) -> None:
        await app({**request, "state": dict(scope["state"])} if state else request, receive, send)

    try:
        started = await send_event("startup")
        if started["type"] == "lifespan.startup.failed":
            raise StartupFailedError(started.get("message", ""))
        assert started["type"] == "lifespan.startup.complete"
        try:
            async with client(with_state, root_path=root_path) as http:
                yield Served(with_state, http)
        finally:
            stopped = await send_event("shutdown")
            assert stopped["type"] == "lifespan.shutdown.complete", stopped
    finally:
        done, _ = await asyncio.wait((task,), timeout=1.0)
        if not done:  # pragma: no cover (only when a test fails)
            task.cancel()
            await asyncio.wait((task,), timeout=1.0)
            raise AssertionError("The application did not return after the end of the lifespan.")
        # Some applications report a failure to the server and also raise.
        task.exception()


async def websocket_refusal(app: ASGIApp, path: str, *, denial: bool) -> list[Message]:
    """Open a websocket, and return the messages that the application sends.

    Args:
        app: The application.
        path: The path.
        denial: Whether the server supports the Websocket Denial Response extension.

    Source: ASGI specification, "WebSocket" and "Websocket Denial Response".
    """
    scope = {
        **http_scope(path),
        "type": "websocket",
        "scheme": "ws",
        "subprotocols": [],
        "state": {},
        "extensions": {"websocket.http.response": {}} if denial else {},
    }
    del scope["method"]
    received: list[Message] = [{"type": "websocket.connect"}]
    sent: list[Message] = []

    async def receive() -> Message:
        return received.pop() if received else {"type": "websocket.disconnect", "code": 1006}

    async def send(message: Message) -> None:
        sent.append(message)

    async with asyncio.timeout(5):
        await app(scope, receive, send)
    return sent
