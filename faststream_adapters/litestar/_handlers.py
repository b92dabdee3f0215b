"""Turn endpoints into Litestar route handlers."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, cast

from faststream.asgi.types import ASGIApp, Receive, Scope
from litestar import Request, Response
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from faststream_adapters._asgi.endpoint import Endpoint
from faststream_adapters._asgi.responses import collect_response

_Handler = Callable[[Request[Any, Any, Any]], Awaitable[Response[bytes]]]

_OTHER_METHODS = [method for method in HttpMethod if method is not HttpMethod.GET]


def route_handlers(
    path: str, app: ASGIApp, full_path: str, *, include_in_schema: bool
) -> Iterator[HTTPRouteHandler]:
    """Yield the route handlers that pass all requests for a path to an app.

    The handlers accept every method, because the app itself rejects unsupported ones.

    Args:
        path: The path. If the app is not an `Endpoint`, the paths below it are included.
        app: The ASGI app that responds.
        full_path: The path with all prefixes of the application.
        include_in_schema: Whether the OpenAPI document lists the path, for GET.
    """
    handle = _handler(app, full_path.rstrip("/"))
    # OPTIONS comes first: Litestar adds its own OPTIONS handler to a route that has none.
    yield _route(path, handle, _OTHER_METHODS)
    yield _route(path, handle, [HttpMethod.GET], include_in_schema=include_in_schema)
    if not isinstance(app, Endpoint):
        # Litestar's own mounts match too much: a mount at /doc receives requests for /documents.
        yield _route(f"{path}/{{rest:path}}", handle, list(HttpMethod))


def _route(
    path: str,
    handle: _Handler,
    methods: Sequence[HttpMethod],
    *,
    include_in_schema: bool = False,
) -> HTTPRouteHandler:
    return HTTPRouteHandler(path, http_method=methods, include_in_schema=include_in_schema)(handle)


def _handler(app: ASGIApp, prefix: str) -> _Handler:
    mounted = not isinstance(app, Endpoint)

    async def handle(request: Request[Any, Any, Any]) -> Response[bytes]:
        scope = cast("Scope", request.scope)
        if mounted:
            root = scope.get("root_path", "").rstrip("/") + prefix
            # Litestar removes root_path from `path`. By the ASGI specification, `path` includes it.
            scope = {**scope, "root_path": root, "path": root + scope["path"].removeprefix(prefix)}
        if request.app.compression_config is not None:
            # Litestar compresses every response, even one that has a Content-Encoding already.
            request_headers = [header for header in scope["headers"] if header[0] != b"accept-encoding"]
            scope = {**scope, "headers": request_headers}
        # Litestar's hooks expect a response of Litestar's own class.
        status, headers, body = await collect_response(app, scope, cast("Receive", request.receive))
        return _AppResponse(body, status_code=status, headers=dict(headers))

    return handle


class _AppResponse(Response[bytes]):
    """The response of an ASGI app. Headers of the application's layers are added, but replace none."""

    def to_asgi_response(
        self, *args: Any, headers: dict[str, str] | None = None, **kwargs: Any
    ) -> ASGIResponse:
        added = {name: value for name, value in (headers or {}).items() if name.lower() not in self.headers}
        response = super().to_asgi_response(*args, headers=added, **kwargs)
        # Litestar sets a content type where the app has sent none. Most apps send it, in lower case.
        if "content-type" not in self.headers and "content-type" not in map(
            str.lower, (*self.headers, *added)
        ):
            response.headers.pop("content-type", None)
        return response
