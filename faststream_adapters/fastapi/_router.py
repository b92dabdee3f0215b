"""FastStreamRouter: runs brokers in a FastAPI application and serves their endpoints as its routes."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any, Unpack

from fastapi import APIRouter, FastAPI, Request, Response, params, routing
from faststream.asgi.types import ASGIApp, Receive, Scope, Send
from faststream.exceptions import SetupError
from faststream.specification.base import SpecificationFactory
from starlette.routing import Match

from faststream_adapters._asgi.endpoint import Endpoint
from faststream_adapters._asgi.routing import mount_scope, route_path
from faststream_adapters._asyncapi import AsyncAPIDocs
from faststream_adapters._hosting.assembly import assemble
from faststream_adapters._hosting.options import AdapterKeywords
from faststream_adapters._hosting.providing import check_names
from faststream_adapters._lifecycle.targets import Target

from ._injection import inject_into
from ._provide import registered

_ROUTE_NAME = "faststream"
_SUBPATH = "faststream_path"
"""The path parameter with the part of the path below a mounted app."""

_View = Callable[[Request], Awaitable[Response]]


class FastStreamRouter(APIRouter):
    """Run brokers in a FastAPI application and serve their endpoints as its routes.

    Use it as `app.include_router(FastStreamRouter(broker))`. The brokers start after the startup of the
    application's own lifespan, and stop before its shutdown. Subscribers can use FastAPI's dependencies.
    Dependencies of the router, of `include_router()` and of the application guard the endpoints like any
    other route.

    Args:
        targets: One or more brokers, or one FastStream app, or one object that has a `broker_lifespan`.
        prefix: The prefix of all paths.
        dependencies: Dependencies of all routes of the router, such as guards. They do not concern messages.
        message_dependencies: Dependencies of all subscribers, called for each message before those of the
            subscriber itself.
        tags: The endpoints' tags in OpenAPI.
        responses: Additional responses of the endpoints in OpenAPI.
        include_in_schema: Whether OpenAPI lists the endpoints. Routes added to the router are always listed.
        route_class: The class of the routes.
        names: The names of the brokers for `provide_broker`, in the order of the targets.
        keywords: See `AdapterKeywords`.

    Raises:
        SetupError: Two endpoints have the same path, or the targets and keywords do not fit together.
        TypeError: A keyword is unknown.
    """

    def __init__(
        self,
        *targets: Target,
        prefix: str = "",
        dependencies: Sequence[params.Depends] | None = None,
        message_dependencies: Sequence[params.Depends] = (),
        tags: list[str | Enum] | None = None,
        responses: dict[int | str, dict[str, Any]] | None = None,
        include_in_schema: bool = False,
        route_class: type[routing.APIRoute] = routing.APIRoute,
        names: Sequence[str] | None = None,
        **keywords: Unpack[AdapterKeywords],
    ) -> None:
        assembly = assemble(targets, keywords, FastStreamRouter)
        super().__init__(
            prefix=prefix,
            dependencies=dependencies,
            tags=tags,
            responses=responses,
            route_class=route_class,
            lifespan=self._run,
        )
        self.broker_lifespan = assembly.broker_lifespan
        if names is not None and self.broker_lifespan.app is None:
            check_names(names, len(self.broker_lifespan.brokers))
        self._names = names
        inject_into(self.broker_lifespan, message_dependencies)
        self._views: list[object] = []
        self._documents: list[SpecificationFactory] = []
        own_document = self.broker_lifespan.app is None and keywords.get("specification") is None
        below: list[tuple[str, _View]] = []
        for path, app in assembly.routes():
            if own_document and isinstance(app, AsyncAPIDocs):
                self._documents.append(app.specification)
            below.append(self._add_routes(path.rstrip("/"), app, include_in_schema=include_in_schema))
        # FastAPI tries one route after the other (1 µs each), so those that are seldom requested come last.
        for path, view in below:
            self._add_route(path, view)

    def _add_routes(self, path: str, app: ASGIApp, *, include_in_schema: bool) -> tuple[str, _View]:
        """Add routes for a path, and return the path with a trailing slash or below a mounted app."""
        mounted = not isinstance(app, Endpoint)

        async def view(request: Request) -> Response:
            self._set_document_info(request.app)
            return _AppResponse(app, mounted=mounted)

        self._views.append(view)
        if include_in_schema:
            self.add_api_route(
                path if self.prefix + path else "/",
                view,
                methods=["GET"],
                name=_ROUTE_NAME,
                status_code=getattr(app, "ok_status", None),
                summary=getattr(app, "description", None) or "The AsyncAPI document.",
                response_class=Response,
            )
        # FastAPI refuses a route with an empty prefix and an empty path.
        if self.prefix + path:
            self._add_route(path, view)
        return (f"{path}/{{{_SUBPATH}:path}}" if mounted else f"{path}/"), view

    def _add_route(self, path: str, view: _View) -> None:
        # A route without methods accepts all of them. The app itself rejects unsupported ones.
        # Without an operation id, FastAPI would derive one from the route's first method.
        self.add_api_route(
            path,
            view,
            methods=[],
            name=_ROUTE_NAME,
            operation_id=_ROUTE_NAME,
            include_in_schema=False,
        )

    @asynccontextmanager
    async def _run(self, app: FastAPI) -> AsyncIterator[Any]:
        """Run the brokers. FastAPI enters this inside the application's lifespan, once for each inclusion."""
        self._check_paths(app)
        async with self.broker_lifespan(app):
            with registered(app, self.broker_lifespan, self._names):
                yield

    def _set_document_info(self, app: FastAPI) -> None:
        """Copy title, version and description of the application that has received a request."""
        for document in self._documents:
            document.title = app.title
            document.version = app.version
            document.description = app.description or None

    def _check_paths(self, app: FastAPI) -> None:
        """Refuse paths that two routes of the application serve.

        Raises:
            SetupError: A route of the application before the router matches one of the router's paths, or a
                route after it has the same path as one of them.
        """
        # Since FastAPI 0.137, the routes of an application are a tree, and this function iterates over it.
        iterate: Callable[[Any], Iterable[Any]] = getattr(routing, "iter_route_contexts", iter)
        earlier: list[Any] = []
        router_paths: set[str] = set()
        for route in iterate(app.routes):
            if getattr(route, "endpoint", None) not in self._views:
                earlier.append(route)
                if getattr(route, "path", None) in router_paths:
                    msg = (
                        f"{route.path} is served by the FastStreamRouter already: "
                        "choose another path for one of the two routes."
                    )
                    raise SetupError(msg)
                continue
            router_paths.add(route.path)
            scope = {"type": "http", "method": "GET", "path": route.path, "headers": []}
            for other in earlier:
                if other.matches(scope)[0] is Match.FULL:
                    msg = (
                        f"{route.path} is served already by the application's route {other.path!r}: "
                        "choose another path, or include the FastStreamRouter before that route."
                    )
                    raise SetupError(msg)


class _AppResponse(Response):
    """A response that calls an ASGI app.

    Args:
        app: The app that sends the response.
        mounted: Whether the app also serves paths below its own, and expects its own path in `root_path`.
    """

    def __init__(self, app: ASGIApp, *, mounted: bool) -> None:
        super().__init__()
        self._app = app
        self._mounted = mounted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the app, then run the background tasks of the route's dependencies."""
        await self._app(_mounted_scope(scope) if self._mounted else scope, receive, send)
        if self.background is not None:
            await self.background()


def _mounted_scope(scope: Scope) -> Scope:
    """Return the scope for a mounted app, with the app's own path added to `root_path`."""
    subpath: str = scope["path_params"].get(_SUBPATH, "")
    return mount_scope(scope, route_path(scope).removesuffix("/" + subpath.removesuffix("/")))
