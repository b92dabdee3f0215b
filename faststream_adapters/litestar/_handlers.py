"""Our endpoints as Litestar's route handlers."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, cast

from faststream.asgi.types import ASGIApp, Receive, Scope
from litestar import Request, Response
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from faststream_adapters.responses import answer_of
from faststream_adapters.routing import Endpoint

_Handler = Callable[[Request[Any, Any, Any]], Awaitable[Response[bytes]]]

_OTHER_METHODS = [method for method in HttpMethod if method is not HttpMethod.GET]


def handlers_of(path: str, app: ASGIApp, full: str, *, include_in_schema: bool) -> Iterator[HTTPRouteHandler]:
    """Yield what hands all requests for a path to an app, which knows what to say to which method.

    Args:
        path: The path; one that is not an `Endpoint`'s stands for all below it, too.
        app: The app that answers.
        full: The path with all prefixes of the application.
        include_in_schema: Whether the OpenAPI document lists it, for GET.
    """
    handle = _handle(app, full.rstrip("/"))
    # In this order: to a route that lacks OPTIONS, Litestar would add its own.
    yield _route(path, handle, _OTHER_METHODS)
    yield _route(path, handle, [HttpMethod.GET], include_in_schema=include_in_schema)
    if not isinstance(app, Endpoint):
        # Not one of Litestar's mounts: one at /doc would take /documents.
        yield _route(f"{path}/{{rest:path}}", handle, list(HttpMethod))


def _route(
    path: str,
    handle: _Handler,
    methods: Sequence[HttpMethod],
    *,
    include_in_schema: bool = False,
) -> HTTPRouteHandler:
    return HTTPRouteHandler(path, http_method=methods, include_in_schema=include_in_schema)(handle)


def _handle(app: ASGIApp, prefix: str) -> _Handler:
    async def handle(request: Request[Any, Any, Any]) -> Response[bytes]:
        scope = cast("Scope", request.scope)
        if not isinstance(app, Endpoint):
            root = scope.get("root_path", "").rstrip("/") + prefix
            # Litestar has taken root_path away from `path`; ASGI wants it there.
            scope = {**scope, "root_path": root, "path": root + scope["path"].removeprefix(prefix)}
        if request.app.compression_config is not None:
            # Litestar compresses every response, one that has a Content-Encoding once more.
            accepted = [header for header in scope["headers"] if header[0] != b"accept-encoding"]
            scope = {**scope, "headers": accepted}
        return await _answer(app, scope, cast("Receive", request.receive))

    return handle


async def _answer(app: ASGIApp, scope: Scope, receive: Receive) -> Response[bytes]:
    """Return what an app answers as a response of Litestar's, because hooks expect one."""
    status, headers, body = await answer_of(app, scope, receive)
    return _Answer(body, status_code=status, headers=dict(headers))


class _Answer(Response[bytes]):
    """A response to which Litestar adds nothing but what the application's own layers and hooks say."""

    def to_asgi_response(
        self, *args: Any, headers: dict[str, str] | None = None, **kwargs: Any
    ) -> ASGIResponse:
        added = {name: value for name, value in (headers or {}).items() if name.lower() not in self.headers}
        response = super().to_asgi_response(*args, headers=added, **kwargs)
        if not any(name.lower() == "content-type" for name in (*added, *self.headers)):
            response.headers.pop("content-type", None)
        return response
