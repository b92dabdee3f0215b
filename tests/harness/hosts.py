"""One class per web framework, and a server's part for their tests.

A new host is one class here and its name in `HOSTS`; the conformance suite names none.
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
from tests.asgi_calls import http_scope
from tests.support import client

TOKEN = {"x-token": "secret"}
TITLE, VERSION = "Order service", "1.2.3"
PATIENCE = 20.0
"""Seconds that an application may take to start, and to stop."""


# --- what the tests give to a host ---


async def _hello() -> str:
    return "hello"


@dataclass(frozen=True)
class Own:
    """What a host application has of its own.

    Args:
        hello: Makes what its route `/hello` answers.
        up: Opens its resources at the start; may raise.
        down: Closes them at the end.
        state: What its lifespan hands to its requests; its route `/state` answers with the `greeting` there.
    """

    hello: Callable[[], Awaitable[str]] = _hello
    up: Callable[[], object] = lambda: None
    down: Callable[[], object] = lambda: None
    state: Mapping[str, str] = field(default_factory=dict)

    @asynccontextmanager
    async def resources(self) -> AsyncIterator[None]:
        self.up()
        try:
            yield
        finally:
            self.down()


@dataclass(frozen=True)
class Ours:
    """One use of our adapter: a router, a plugin, an extension, a middleware."""

    targets: Sequence[Any]
    keywords: Mapping[str, Any]
    guarded: bool = False
    prefix: str = ""


# --- hosts ---


class Host:
    """A framework: how an application is made, without us and with us.

    The flags say what a framework does not have; cases about that are not collected for it.
    """

    name: ClassVar[str]
    resources: ClassVar[bool] = True
    """Whether it has a start and a stop of its own."""
    state: ClassVar[bool] = False
    """Whether its lifespan can hand something to its requests."""
    guards: ClassVar[bool] = False
    """Whether our endpoints can be guarded by its own means."""
    prefixes: ClassVar[bool] = False
    """Whether our endpoints can be put below a prefix by its own means."""
    sees_paths: ClassVar[bool] = False
    """Whether a path that it serves itself can be told when the application is built or started."""
    info: ClassVar[bool] = False
    """Whether the application has a title and a version."""
    openapi: ClassVar[str] = ""
    """The path of its OpenAPI document, if it has one."""
    composes: ClassVar[bool] = True
    """Whether our adapter can be used more than once in one application."""
    lifespans: ClassVar[bool] = True
    """Whether a BrokerLifespan can be the target."""
    bare_paths: ClassVar[bool] = True
    """Whether it answers at all when the server has left the root path out of the path."""

    def plain(self, own: Own) -> Any:
        """Return an application without us."""
        raise NotImplementedError

    def compose(self, own: Own, *ours: Ours) -> ASGIApp:
        """Return an application with us."""
        raise NotImplementedError

    def application(self, app: ASGIApp) -> object:
        """Return what `Context("host")` has to be."""
        return app

    def build(
        self,
        *targets: Any,
        own: Own | None = None,
        guarded: bool = False,
        prefix: str = "",
        **keywords: Any,
    ) -> ASGIApp:
        """Return an application with one use of our adapter; a guard asks for the header in `TOKEN`."""
        return self.compose(own or Own(), Ours(targets, keywords, guarded, prefix))

    def has(self, *flags: str) -> bool:
        """Return whether it has all of this."""
        return all(getattr(self, flag) for flag in flags)


class Standalone(Host):
    name = "standalone"
    state = True
    sees_paths = True
    composes = False
    lifespans = False

    def plain(self, own: Own) -> AsgiFastStream:
        return AsgiFastStream(asgi_routes=self._routes(own), lifespan=self._lifespan(own))

    def compose(self, own: Own, *ours: Ours) -> ASGIApp:
        [one] = ours
        if isinstance(one.targets[0], FastStream):
            # The application is the target: it has a lifespan of its own.
            [app] = one.targets
            return AsgiFastStream.from_app(app, asgi_routes=self._routes(own), **one.keywords)
        return AsgiFastStream(
            *one.targets, asgi_routes=self._routes(own), lifespan=self._lifespan(own), **one.keywords
        )

    def _routes(self, own: Own) -> list[tuple[str, ASGIApp]]:
        @get(include_in_schema=False)
        async def hello() -> AsgiResponse:
            return AsgiResponse((await own.hello()).encode())

        @get(include_in_schema=False)
        async def state(greeting: str = Context()) -> AsgiResponse:
            return AsgiResponse(greeting.encode())

        return [("/hello", hello), ("/state", state)]

    def _lifespan(self, own: Own) -> Any:
        @asynccontextmanager
        async def lifespan(context: ContextRepo) -> AsyncIterator[None]:
            for name, value in own.state.items():
                context.set_global(name, value)
            async with own.resources():
                yield

        return lifespan


class MiddlewareHost(Host):
    """Any ASGI application, by FastStreamMiddleware."""

    def compose(self, own: Own, *ours: Ours) -> ASGIApp:
        app: ASGIApp = self.plain(own)
        for one in ours:
            app = FastStreamMiddleware(app, *one.targets, **one.keywords)
        return app

    def application(self, app: ASGIApp) -> object:
        while isinstance(app, FastStreamMiddleware):
            app = app.app
        return app


class Starlette(MiddlewareHost):
    name = "starlette"
    state = True

    def plain(self, own: Own) -> Any:
        from starlette.applications import Starlette
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse
        from starlette.routing import Route

        async def hello(_: Request) -> PlainTextResponse:
            return PlainTextResponse(await own.hello())

        async def state(request: Request) -> PlainTextResponse:
            return PlainTextResponse(request.state.greeting)

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[Any]:
            async with own.resources():
                yield own.state or None

        return Starlette(routes=[Route("/hello", hello), Route("/state", state)], lifespan=lifespan)


class Django(MiddlewareHost):
    name = "django"
    resources = False

    def plain(self, own: Own) -> Any:
        import django  # type: ignore[import-untyped]  # ships no types
        from django.conf import settings  # type: ignore[import-untyped]
        from django.core.handlers.asgi import ASGIHandler  # type: ignore[import-untyped]
        from django.http import HttpResponse  # type: ignore[import-untyped]
        from django.urls import path  # type: ignore[import-untyped]

        if not settings.configured:
            settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="made up", ROOT_URLCONF="")
            django.setup(set_prefix=False)

        async def hello(_: Any) -> HttpResponse:
            return HttpResponse(await own.hello())

        class Site(ASGIHandler):  # type: ignore[misc]  # ships no types
            """Django's handler, with URLs of its own: the settings are the same for the whole process."""

            def create_request(self, scope: Scope, body_file: Any) -> Any:
                request, error = super().create_request(scope, body_file)
                request.urlconf = (path("hello", hello),)
                return request, error

        return Site()


class Falcon(MiddlewareHost):
    name = "falcon"
    state = True

    def plain(self, own: Own) -> Any:
        from falcon.asgi import App, Request, Response

        class Hello:
            async def on_get(self, _: Request, response: Response) -> None:
                response.text = await own.hello()

        class State:
            async def on_get(self, request: Request, response: Response) -> None:
                response.text = request.scope["state"]["greeting"]

        class Resources:
            async def process_startup(self, scope: Scope, _: Message) -> None:
                own.up()
                if own.state:
                    scope["state"].update(own.state)

            async def process_shutdown(self, _: Scope, __: Message) -> None:
                own.down()

        resources: Any = Resources()
        app = App(middleware=[resources])
        app.add_route("/hello", Hello())
        app.add_route("/state", State())
        return app


class BlackSheep(MiddlewareHost):
    name = "blacksheep"

    def plain(self, own: Own) -> Any:
        from blacksheep import Application, Request, Response, Router, text

        # Started again, BlackSheep can no longer call a handler that takes nothing.
        async def hello(request: Request) -> Response:
            return text(await own.hello())

        async def up(_: Application) -> None:
            own.up()

        async def down(_: Application) -> None:
            own.down()

        # The router by default is one for the whole process.
        app = Application(router=Router())
        app.router.add_get("/hello", hello)
        app.on_start += up
        app.on_stop += down
        return app


class FastApi(Host):
    name = "fastapi"
    openapi = "/openapi.json"
    state = guards = prefixes = sees_paths = info = True

    def plain(self, own: Own) -> Any:
        from fastapi import FastAPI, Request
        from fastapi.responses import PlainTextResponse

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[Any]:
            async with own.resources():
                yield own.state or None

        app = FastAPI(title=TITLE, version=VERSION, lifespan=lifespan)

        @app.get("/hello")
        async def hello() -> PlainTextResponse:
            return PlainTextResponse(await own.hello())

        @app.get("/state")
        async def state(request: Request) -> PlainTextResponse:
            return PlainTextResponse(request.state.greeting)

        return app

    def compose(self, own: Own, *ours: Ours) -> ASGIApp:
        from fastapi import Depends, Header, HTTPException

        from faststream_adapters.fastapi import FastStreamRouter

        def guard(x_token: str = Header("")) -> None:
            if x_token != TOKEN["x-token"]:
                raise HTTPException(401)

        app = self.plain(own)
        for one in ours:
            dependencies = [Depends(guard)] if one.guarded else []
            app.include_router(
                FastStreamRouter(*one.targets, prefix=one.prefix, dependencies=dependencies, **one.keywords)
            )
        return app  # type: ignore[no-any-return]


class Litestar(Host):
    name = "litestar"
    openapi = "/schema/openapi.json"
    state = guards = prefixes = sees_paths = info = True

    def plain(self, own: Own, *plugins: Any) -> Any:
        from litestar import Litestar, MediaType, Request, get
        from litestar.openapi import OpenAPIConfig

        @get("/hello", media_type=MediaType.TEXT)
        async def hello() -> str:
            return await own.hello()

        @get("/state", media_type=MediaType.TEXT)
        async def state(request: Request[Any, Any, Any]) -> str:
            return str(request.app.state.greeting)

        @asynccontextmanager
        async def lifespan(app: Litestar) -> AsyncIterator[None]:
            app.state.update(own.state)
            async with own.resources():
                yield

        return Litestar(
            [hello, state],
            lifespan=[lifespan],
            plugins=plugins,
            openapi_config=OpenAPIConfig(title=TITLE, version=VERSION),
        )

    def compose(self, own: Own, *ours: Ours) -> ASGIApp:
        from litestar.connection import ASGIConnection
        from litestar.exceptions import NotAuthorizedException
        from litestar.handlers import BaseRouteHandler

        from faststream_adapters.litestar import FastStreamPlugin

        def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
            if connection.headers.get("x-token") != TOKEN["x-token"]:
                raise NotAuthorizedException

        # By its own names, the brokers of the tests, all of one class, could not be told apart.
        names: dict[Any, str] = {}
        plugins = []
        for one in ours:
            brokers = [broker for target in one.targets for broker in getattr(target, "brokers", [target])]
            plugins.append(
                FastStreamPlugin(
                    *one.targets,
                    path=one.prefix or "/",
                    guards=[guard] if one.guarded else None,
                    names=[names.setdefault(broker, f"broker_{len(names)}") for broker in brokers],
                    **one.keywords,
                )
            )
        return self.plain(own, *plugins)  # type: ignore[no-any-return]


class Quart(Host):
    name = "quart"
    guards = prefixes = sees_paths = True
    bare_paths = False

    def plain(self, own: Own) -> Any:
        from quart import Quart, Response

        app = Quart(__name__)

        @app.get("/hello")
        async def hello() -> Response:
            return Response(await own.hello())

        @app.before_serving
        async def up() -> None:
            own.up()

        @app.after_serving
        async def down() -> None:
            own.down()

        return app

    def compose(self, own: Own, *ours: Ours) -> ASGIApp:
        from quart import Blueprint, abort, request

        from faststream_adapters.quart import QuartFastStream

        async def guard() -> None:
            if request.headers.get("x-token") != TOKEN["x-token"]:
                abort(401)

        app = self.plain(own)
        for number, one in enumerate(ours):
            blueprint = Blueprint(f"ours_{number}", __name__, url_prefix=one.prefix or None)
            if one.guarded:
                blueprint.before_request(guard)
            QuartFastStream(
                *one.targets,
                app=app,
                blueprint=blueprint if one.guarded or one.prefix else None,
                **one.keywords,
            )
            if one.guarded or one.prefix:
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


# --- the server's part ---


class StartupFailedError(Exception):
    """What an application has told the server: it could not be started."""


@dataclass(frozen=True)
class Served:
    """An application that has been started."""

    app: ASGIApp
    http: httpx.AsyncClient

    async def status(self, path: str, method: str = "GET", **options: Any) -> int:
        return (await self.http.request(method, path, **options)).status_code

    async def text(self, path: str) -> str:
        answer = await self.http.get(path)
        assert answer.status_code == 200, (path, answer.status_code)
        return answer.text


@asynccontextmanager
async def serving(
    app: ASGIApp,
    *,
    root_path: str = "",
    state: bool = True,
) -> AsyncIterator[Served]:
    """Play the server of an application: its start, requests, its stop.

    Args:
        app: The application.
        root_path: Where the server has it.
        state: Whether the server has lifespan state to offer.

    Raises:
        StartupFailedError: The application said so.

    Source: ASGI specification, "Lifespan Protocol" and "Lifespan State".
    """
    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
    if state:
        scope["state"] = {}
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()
    task = asyncio.ensure_future(app(scope, to_app.get, from_app.put))

    async def tell(stage: str) -> Message:
        to_app.put_nowait({"type": f"lifespan.{stage}"})
        answer = asyncio.create_task(from_app.get())
        await asyncio.wait((answer, task), timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():  # pragma: no cover (only when a test fails)
            answer.cancel()
            # A server would take an application that raises now for one without a lifespan, and serve it.
            how = f"ended with {task.exception()!r}" if task.done() else f"waited {PATIENCE:g} s"
            raise AssertionError(f"The application did not answer to its {stage}: it {how}.")
        return answer.result()

    async def with_state(request: Scope, receive: Receive, send: Send) -> None:
        await app({**request, "state": dict(scope["state"])} if state else request, receive, send)

    try:
        started = await tell("startup")
        if started["type"] == "lifespan.startup.failed":
            raise StartupFailedError(started.get("message", ""))
        assert started["type"] == "lifespan.startup.complete"
        try:
            async with client(with_state, root_path=root_path) as http:
                yield Served(with_state, http)
        finally:
            stopped = await tell("shutdown")
            assert stopped["type"] == "lifespan.shutdown.complete", stopped
    finally:
        done, _ = await asyncio.wait((task,), timeout=1.0)
        if not done:  # pragma: no cover (only when a test fails)
            task.cancel()
            await asyncio.wait((task,), timeout=1.0)
            raise AssertionError("The application did not end when there was nothing left for it to do.")
        # Some applications tell the server that they failed, and raise too.
        task.exception()


async def websocket_refusal(app: ASGIApp, path: str, *, denial: bool) -> list[Message]:
    """Open a websocket and return what the application sends.

    Args:
        app: The application.
        path: The path.
        denial: Whether the server can turn a refusal into an HTTP response.

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
