"""FastStreamRouter: brokers and their endpoints in a FastAPI application."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any, Unpack

from fastapi import APIRouter, FastAPI, Request, Response, params, routing
from faststream import FastStream
from faststream.asgi.types import ASGIApp, Receive, Scope, Send
from faststream.exceptions import SetupError
from faststream.specification.base import SpecificationFactory
from starlette.routing import Match

from faststream_adapters._compat import Broker
from faststream_adapters.asyncapi import AsyncAPIDocs
from faststream_adapters.hosting import AdapterKeywords, hosting_for
from faststream_adapters.lifespan import BrokerLifespan
from faststream_adapters.routing import Endpoint, mount_scope, route_path

from .dependencies import check_subscribers, provided

_NAME = "faststream"
_REST = "faststream_path"


class FastStreamRouter(APIRouter):
    """Brings brokers into a FastAPI application: `app.include_router(FastStreamRouter(broker))`.

    The brokers start after the application's own lifespan has begun, and stop before it ends. Dependencies of
    the router, of `include_router()` and of the application guard the endpoints like any other route.

    Args:
        targets: One or more brokers, or one FastStream app, or one BrokerLifespan.
        prefix: What is put in front of all paths.
        dependencies: Dependencies of all endpoints: guards.
        tags: Tags of the endpoints in OpenAPI.
        responses: More responses of the endpoints in OpenAPI.
        include_in_schema: Whether OpenAPI lists the endpoints; routes that are added to the router it lists.
        route_class: The class of the routes.
        keywords: See `AdapterKeywords`.

    Raises:
        SetupError: Two endpoints have one path, or targets and keywords cannot work together.
        TypeError: A keyword is unknown.
    """

    def __init__(
        self,
        *targets: Broker | FastStream | BrokerLifespan,
        prefix: str = "",
        dependencies: Sequence[params.Depends] | None = None,
        tags: list[str | Enum] | None = None,
        responses: dict[int | str, dict[str, Any]] | None = None,
        include_in_schema: bool = False,
        route_class: type[routing.APIRoute] = routing.APIRoute,
        **keywords: Unpack[AdapterKeywords],
    ) -> None:
        hosting = hosting_for(targets, keywords)
        super().__init__(
            prefix=prefix,
            dependencies=dependencies,
            tags=tags,
            responses=responses,
            route_class=route_class,
            lifespan=self._run,
        )
        self.broker_lifespan = hosting.lifespan
        self._views: list[object] = []
        self._documents: list[SpecificationFactory] = []
        own_document = hosting.lifespan.app is None and keywords.get("specification") is None
        for path, app in hosting.routes:
            if own_document and isinstance(app, AsyncAPIDocs):
                self._documents.append(app.specification)
            self._serve(path.rstrip("/"), app, include_in_schema=include_in_schema)

    def _serve(self, path: str, app: ASGIApp, *, include_in_schema: bool) -> None:
        """Add the routes of an endpoint, with a trailing slash and without, or of an app and all below it."""
        mounted = not isinstance(app, Endpoint)

        async def view(request: Request) -> Response:
            self._introduce(request.app)
            return _Answer(app, mounted=mounted)

        self._views.append(view)
        below = f"{path}/{{{_REST}:path}}" if mounted else f"{path}/"
        # FastAPI refuses a route without any path.
        paths = [path, below] if self.prefix + path else [below]
        if include_in_schema:
            self.add_api_route(
                path if self.prefix + path else "/",
                view,
                methods=["GET"],
                name=_NAME,
                status_code=getattr(app, "ok_status", None),
                summary=getattr(app, "description", None) or "The AsyncAPI document.",
                response_class=Response,
            )
        for each in paths:
            # A route without methods takes them all: the endpoint itself says which are allowed.
            # An id is given because FastAPI would make one from the route's first method.
            self.add_api_route(
                each,
                view,
                methods=[],
                name=_NAME,
                operation_id=_NAME,
                include_in_schema=False,
            )

    @asynccontextmanager
    async def _run(self, app: FastAPI) -> AsyncIterator[None]:
        """Run the brokers; FastAPI enters this inside the application's lifespan, once for each inclusion."""
        self._check_paths(app)
        check_subscribers(self.broker_lifespan)
        async with self.broker_lifespan(app):
            with provided(app, self.broker_lifespan):
                yield

    def _introduce(self, app: FastAPI) -> None:
        """Give the application's name to the document; a request is what tells which application it is."""
        for document in self._documents:
            document.title = app.title
            document.version = app.version
            document.description = app.description or None

    def _check_paths(self, app: FastAPI) -> None:
        """Refuse a path that an earlier route of the application takes, or that a later one has in vain.

        Raises:
            SetupError: There is one.
        """
        # Since FastAPI 0.137 routes are a tree, which this function walks.
        flat: Callable[[Any], Iterable[Any]] = getattr(routing, "iter_route_contexts", iter)
        earlier: list[Any] = []
        ours: set[str] = set()
        for route in flat(app.routes):
            if getattr(route, "endpoint", None) not in self._views:
                earlier.append(route)
                if getattr(route, "path", None) in ours:
                    msg = f"{route.path} is served by the FastStreamRouter already: choose another path."
                    raise SetupError(msg)
                continue
            ours.add(route.path)
            scope = {"type": "http", "method": "GET", "path": route.path, "headers": []}
            for other in earlier:
                if other.matches(scope)[0] is Match.FULL:
                    msg = (
                        f"{route.path} is served already, by the application's route {other.path!r}: "
                        "choose another path, or include the FastStreamRouter before that route."
                    )
                    raise SetupError(msg)


class _Answer(Response):
    """What an ASGI app answers, whatever that is.

    Args:
        app: The app.
        mounted: Whether it serves paths below its own, and finds them below `root_path`.
    """

    def __init__(self, app: ASGIApp, *, mounted: bool) -> None:
        super().__init__()
        self._app = app
        self._mounted = mounted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, then run the background tasks of the dependencies."""
        await self._app(_inside(scope) if self._mounted else scope, receive, send)
        if self.background is not None:
            await self.background()


def _inside(scope: Scope) -> Scope:
    """Return the scope for a mounted app, whose `root_path` ends where the app's own paths begin."""
    rest: str = scope["path_params"].get(_REST, "")
    return mount_scope(scope, route_path(scope).removesuffix("/" + rest.removesuffix("/")))
