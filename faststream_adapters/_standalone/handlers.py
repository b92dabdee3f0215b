"""HTTP handlers of the user's own: `@get`, `@post`, and what can be injected into them."""

import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar, cast, get_type_hints, overload
from urllib.parse import parse_qs

from fast_depends.dependencies import Dependant
from fast_depends.exceptions import ValidationError
from fast_depends.library import CustomField
from faststream.asgi.types import Receive, Scope, Send

from ._compat import EMPTY, ContextField, FastDependsConfig, injected, json_loads, to_async
from .responses import AsgiResponse
from .routing import Endpoint, Tags

if TYPE_CHECKING:
    from ._compat import LoggerProto

UserHandler = Callable[..., Any]

_INVALID = AsgiResponse(b"Validation error", 422)
_FAILED = AsgiResponse(b"Internal Server Error", 500)
# Nobody reads this one: the client is gone.
_DISCONNECTED = AsgiResponse(b"", 400)


class ClientDisconnectError(Exception):
    """The client went away before its request had arrived."""


class AsgiRequest:
    """An HTTP request, as a handler sees it.

    Args:
        scope: The HTTP scope.
        receive: The ASGI receive callable; the body is read from it on demand.
        send: The ASGI send callable.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (upstream's signature)
        self.scope = scope
        self._receive = receive
        self._body: bytes | None = None
        self._streamed = False
        self._headers: dict[str, str] | None = None
        self._query_params: dict[str, list[str]] | None = None

    @property
    def method(self) -> str:
        """The HTTP method, in upper case."""
        return cast("str", self.scope["method"])

    @property
    def headers(self) -> dict[str, str]:
        """The headers by lower-case name; of several with one name, the last."""
        if self._headers is None:
            self._headers = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in self.scope["headers"]
            }
        return self._headers

    @property
    def query_params(self) -> dict[str, list[str]]:
        """The query parameters, each with all its values."""
        if self._query_params is None:
            self._query_params = parse_qs(self.scope.get("query_string", b"").decode("latin-1"))
        return self._query_params

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives.

        Raises:
            ClientDisconnectError: The client went away.
            RuntimeError: The body was streamed before, and is gone.
        """
        if self._body is not None:
            yield self._body
            return
        if self._streamed:
            msg = "The request body was streamed already: read it once with stream(), or use body()."
            raise RuntimeError(msg)
        self._streamed = True
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnectError
            if chunk := message.get("body", b""):
                yield chunk
            more = message.get("more_body", False)

    async def body(self) -> bytes:
        """Return the whole body; it can be asked for again.

        Raises:
            ClientDisconnectError: The client went away.
        """
        if self._body is None:
            self._body = b"".join([chunk async for chunk in self.stream()])
        return self._body

    async def json(self) -> Any:
        """Return the body, parsed as JSON.

        Raises:
            ValueError: The body is not JSON.
            ClientDisconnectError: The client went away.
        """
        return json_loads(await self.body())


class _Field(ContextField):
    """What is injected from the context without a thread: FastDepends takes one for whatever is not async."""

    async def use(self, /, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # FastDepends takes both
        return super().use(**kwargs)


Request = Annotated[AsgiRequest, _Field("request")]
"""The annotation of a handler's parameter that takes the request."""


def Header(real_name: str = "", *, cast: bool = False, default: Any = EMPTY) -> Any:  # noqa: N802 (a type, to its users)
    """Inject a request header.

    Args:
        real_name: The header's name, in any case; the parameter's own name when empty.
        cast: Whether the value is converted to the parameter's type.
        default: The value when the header is missing; without one, the answer is 422.
    """
    return _Field(real_name.lower(), cast=cast, default=default, prefix="request.headers.")


def Query(real_name: str = "", *, cast: bool = False, default: Any = EMPTY) -> Any:  # noqa: N802 (a type, to its users)
    """Inject a query parameter: the list of its values.

    Args:
        real_name: The parameter's name in the URL; the Python parameter's own name when empty.
        cast: Whether the value is converted to the parameter's type.
        default: The value when it is missing; without one, the answer is 422.
    """
    return _Field(real_name, cast=cast, default=default, prefix="request.query_params.")


def _takes(func: UserHandler) -> tuple[bool, int]:
    """Return whether `func` asks for injection, and how many parameters it has."""
    parameters = inspect.signature(func).parameters
    try:
        hints = get_type_hints(func, include_extras=True)
    except (NameError, TypeError):
        # What cannot be read may be an injected type: FastDepends gives the error, with its context.
        return True, len(parameters)
    if any(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values()):
        # The scope is given by position; FastDepends finds the name for it.
        return True, len(parameters)
    marks = [
        mark
        for name, parameter in parameters.items()
        for mark in (parameter.default, *getattr(hints.get(name), "__metadata__", ()))
    ]
    return any(isinstance(mark, CustomField | Dependant) for mark in marks), len(parameters)


class HttpHandler(Endpoint):
    """A function that answers HTTP requests, as an ASGI app.

    The function takes the scope, or whatever FastStream can inject, or nothing; it returns an ASGI app, as
    a rule an `AsgiResponse`. One that asks for no injection is called directly.

    Args:
        func: The function, `async` or not.
        include_in_schema: Whether the AsyncAPI document lists the route.
        description: The description in that document; the function's docstring when not given.
        methods: The HTTP methods that are answered.
        tags: The tags in that document.
        unique_id: The operation id in that document.
        fd_config: Where injected values come from, until an AsgiFastStream app brings its own.
    """

    def __init__(
        self,
        func: UserHandler,
        *,
        include_in_schema: bool = True,
        description: str | None = None,
        methods: Sequence[str] | None = None,
        tags: Tags | None = None,
        unique_id: str | None = None,
        fd_config: FastDependsConfig | None = None,
    ) -> None:
        super().__init__(
            methods=methods or (),
            include_in_schema=include_in_schema,
            description=description or func.__doc__,
            tags=tags,
            unique_id=unique_id,
        )
        self.func = func
        self.fd_config = fd_config or FastDependsConfig()
        self._own_config = fd_config is not None
        self.logger: LoggerProto | None = logging.getLogger("faststream.adapters")
        self._call: Callable[[Scope, Receive, Send], Awaitable[Any]] | None = None

    def update_fd_config(self, config: FastDependsConfig) -> None:
        """Take injected values from this configuration: an app's, when it gets the handler as a route."""
        merged = config | self.fd_config
        # The right side's provider wins, also where it is only the default.
        self.fd_config = merged if self._own_config else replace(merged, provider=config.provider)
        self._call = None

    def set_logger(self, logger: "LoggerProto | None") -> None:
        """Log through this logger, or not at all."""
        self.logger = logger

    def _build(self) -> Callable[[Scope, Receive, Send], Awaitable[Any]]:
        func = to_async(self.func)
        asks, count = _takes(self.func)
        if not asks and count == 0:
            return lambda scope, receive, send: func()  # noqa: ARG005 (one shape of call for all handlers)
        if not asks:
            return lambda scope, receive, send: func(scope)  # noqa: ARG005 (one shape of call for all handlers)

        context = self.fd_config.context
        call = injected(func, self.fd_config)

        async def with_injection(scope: Scope, receive: Receive, send: Send) -> Any:
            with context.scopes((("request", AsgiRequest(scope, receive, send)), ("logger", self.logger))):
                return await call(scope)

        return with_injection

    async def respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the function, and send what it returns; what it raises becomes a response."""
        try:
            # Built on the first request: by then every name in the annotations is defined.
            call = self._call = self._call or self._build()
            response: Any = await call(scope, receive, send)
            if not callable(response):
                name = getattr(self.func, "__name__", self.func)
                msg = (
                    f"{name} returned {type(response).__name__}: return an AsgiResponse or another ASGI app."
                )
                raise TypeError(msg)  # noqa: TRY301 (answered and logged like every error of a handler)
        except ValidationError:
            self._log(logging.INFO, "a parameter is missing or invalid", scope, exc_info=False)
            response = _INVALID
        except ClientDisconnectError:
            response = _DISCONNECTED
        except Exception:  # noqa: BLE001 (nothing of it may reach the client; all of it reaches the log)
            self._log(logging.ERROR, "the handler failed", scope, exc_info=True)
            response = _FAILED
        await response(scope, receive, send)

    def _log(self, level: int, message: str, scope: Scope, *, exc_info: bool) -> None:
        if self.logger is not None:
            # FastStream's logger protocol takes a whole message.
            text = f"{scope['method']} {scope['path']!r}: {message}"
            self.logger.log(level, text, exc_info=exc_info)


class GetHandler(HttpHandler):
    """A handler of GET and HEAD requests."""

    def __init__(self, func: UserHandler, **options: Any) -> None:
        super().__init__(func, methods=("GET", "HEAD"), **options)


class PostHandler(HttpHandler):
    """A handler of POST requests."""

    def __init__(self, func: UserHandler, **options: Any) -> None:
        super().__init__(func, methods=("POST",), **options)


_Handler = TypeVar("_Handler", bound=HttpHandler)


class _Decorator(Generic[_Handler]):
    """Make a function an HTTP handler: used bare, or called with the keywords of `HttpHandler`."""

    def __init__(self, handler: type[_Handler]) -> None:
        self._handler = handler

    @overload
    def __call__(
        self,
        func: UserHandler,
        *,
        include_in_schema: bool = True,
        description: str | None = None,
        tags: Tags | None = None,
        unique_id: str | None = None,
    ) -> _Handler: ...
    @overload
    def __call__(
        self,
        func: None = None,
        *,
        include_in_schema: bool = True,
        description: str | None = None,
        tags: Tags | None = None,
        unique_id: str | None = None,
    ) -> Callable[[UserHandler], _Handler]: ...
    def __call__(
        self,
        func: UserHandler | None = None,
        **options: Any,
    ) -> _Handler | Callable[[UserHandler], _Handler]:
        if func is None:
            return partial(self._handler, **options)
        return self._handler(func, **options)


get = _Decorator(GetHandler)
post = _Decorator(PostHandler)
