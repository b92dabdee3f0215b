"""HTTP handlers: the decorators `@get` and `@post`, and the injection of requests, headers and queries."""

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar, get_type_hints, overload

from fast_depends.dependencies import Dependant
from fast_depends.exceptions import ValidationError
from fast_depends.library import CustomField
from faststream.asgi.types import Receive, Scope, Send

from faststream_adapters._asgi.endpoint import Endpoint, Tags
from faststream_adapters._asgi.request import MAX_BODY_SIZE, AsgiRequest, ClientDisconnectError, RequestError
from faststream_adapters._asgi.responses import RETRY_AFTER, AsgiResponse
from faststream_adapters._compat.faststream import (
    EMPTY,
    ContextField,
    FastDependsConfig,
    injected,
    to_async,
)
from faststream_adapters._utils.errors import BrokerNotUpError
from faststream_adapters._utils.loggers import Loggers
from faststream_adapters._utils.redaction import without_secrets

if TYPE_CHECKING:
    from faststream_adapters._compat.faststream import LoggerProto

UserHandler = Callable[..., Any]

_INVALID = AsgiResponse(b"Validation error", 422)
_NOT_UP = AsgiResponse(b"Service Unavailable", 503, RETRY_AFTER)
_FAILED = AsgiResponse(b"Internal Server Error", 500)


class _AsyncContextField(ContextField):
    """A value injected from the context; async, because FastDepends runs other fields in a thread."""

    async def use(self, /, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # FastDepends accepts both
        return super().use(**kwargs)


class _RequestField(ContextField):
    """A value of the request; unlike names of the context, its name can contain dots."""

    def __init__(self, source: str, name: str, *, cast: bool, default: Any) -> None:
        super().__init__(name, cast=cast, default=default)
        self._source = source

    async def use(self, /, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # as above
        values: Mapping[str, Any] = getattr(kwargs["context__"].get("request"), self._source, {})
        kwargs.pop(self.param_name, None)
        # Not `is`: FastDepends copies fields with their default.
        if (value := values.get(self.name or self.param_name, self.default)) != EMPTY:
            kwargs[self.param_name] = value
        return kwargs


Request = Annotated[AsgiRequest, _AsyncContextField("request")]
"""The annotation of a handler parameter that receives the request."""


def Header(real_name: str = "", *, cast: bool = False, default: Any = EMPTY) -> Any:  # noqa: N802 (used like a type)
    """Inject a request header.

    Args:
        real_name: The header's name, in any case; if empty, the name of the Python parameter.
        cast: Whether to convert the value to the parameter's type.
        default: The value if the header is missing; without a default, the response is 422.
    """
    return _RequestField("headers", real_name.lower(), cast=cast, default=default)


def Query(real_name: str = "", *, cast: bool = False, default: Any = EMPTY) -> Any:  # noqa: N802 (used like a type)
    """Inject a query parameter, as the list of its values.

    Args:
        real_name: The name in the URL; if empty, the name of the Python parameter.
        cast: Whether to convert the value to the parameter's type.
        default: The value if the query parameter is missing; without a default, the response is 422.
    """
    return _RequestField("query_params", real_name, cast=cast, default=default)


def _inspect_parameters(func: UserHandler) -> tuple[bool, int]:
    """Return whether a function needs injection, and the number of its parameters."""
    parameters = inspect.signature(func).parameters
    try:
        hints = get_type_hints(func, include_extras=True)
    except (NameError, TypeError):
        # An unreadable annotation may be one for injection: FastDepends raises the error, with its context.
        return True, len(parameters)
    if any(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values()):
        # The scope is passed by position, which FastDepends maps to the name.
        return True, len(parameters)
    marks = [
        mark
        for name, parameter in parameters.items()
        for mark in (parameter.default, *getattr(hints.get(name), "__metadata__", ()))
    ]
    return any(isinstance(mark, CustomField | Dependant) for mark in marks), len(parameters)


class HttpHandler(Endpoint):
    """An ASGI app that handles HTTP requests with a function.

    The function takes the scope, injected values, or nothing. It returns an ASGI app, usually an
    `AsgiResponse`. A function without injection is called directly. A BrokerNotUpError that it raises becomes
    503, another error 500.

    Args:
        func: The function, sync or async.
        include_in_schema: Whether the AsyncAPI document lists the route.
        description: The description in that document; by default, the docstring of the function.
        methods: The HTTP methods that the function handles.
        tags: The tags in that document.
        unique_id: The operation id in that document.
        max_body_size: The largest request body in bytes, above which the response is 413; None for no limit.
        fd_config: The source of injected values, until an AsgiFastStream app sets its own.
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
        max_body_size: int | None = MAX_BODY_SIZE,
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
        self.max_body_size = max_body_size
        self.fd_config = fd_config or FastDependsConfig()
        self._own_config = fd_config is not None
        self.logger: LoggerProto | None = logging.getLogger("faststream.adapters.http")
        self._call: Callable[[Scope, Receive, Send], Awaitable[Any]] | None = None

    def update_fd_config(self, config: FastDependsConfig) -> None:
        """Set the source of injected values; an app calls this when it mounts the handler."""
        merged = config | self.fd_config
        # `|` takes the provider of the right side, even if that is only the default.
        self.fd_config = merged if self._own_config else replace(merged, provider=config.provider)
        self._call = None

    def set_logger(self, logger: "LoggerProto | None") -> None:
        """Set the logger; None disables logging."""
        self.logger = logger

    def _build(self) -> Callable[[Scope, Receive, Send], Awaitable[Any]]:
        func = to_async(self.func)
        needs_injection, count = _inspect_parameters(self.func)
        if not needs_injection and count == 0:
            return lambda scope, receive, send: func()  # noqa: ARG005 (one signature for all handlers)
        if not needs_injection:
            return lambda scope, receive, send: func(scope)  # noqa: ARG005 (one signature for all handlers)

        context = self.fd_config.context
        call = injected(func, self.fd_config)

        async def with_injection(scope: Scope, receive: Receive, send: Send) -> Any:
            request = AsgiRequest(scope, receive, send, self.max_body_size)
            with context.scopes((("request", request), ("logger", self.logger))):
                return await call(scope)

        return with_injection

    async def respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the function and send the response that it returns, or an error response if it raises."""
        try:
            # Built on the first request, when every name in the annotations is defined.
            call = self._call = self._call or self._build()
            response: Any = await call(scope, receive, send)
            if not callable(response):
                name = getattr(self.func, "__name__", self.func)
                msg = (
                    f"{name} returned {type(response).__name__}: return an AsgiResponse or another ASGI app."
                )
                raise TypeError(msg)  # noqa: TRY301 (handled below like any other error)
        except ValidationError:
            self._log(logging.INFO, "a parameter is missing or invalid", scope)
            response = _INVALID
        except ClientDisconnectError as error:
            response = error.response
        except RequestError as error:
            self._log(logging.INFO, error.response.body.decode(), scope)
            response = error.response
        except BrokerNotUpError as error:
            self._log(logging.WARNING, str(error), scope)
            response = _NOT_UP
        except Exception as error:  # noqa: BLE001 (the client gets 500 without details, the log the traceback)
            self._log(logging.ERROR, "the handler failed", scope, error)
            response = _FAILED
        await response(scope, receive, send)

    def _log(self, level: int, message: str, scope: Scope, error: Exception | None = None) -> None:
        if self.logger is not None:
            text = f"{scope['method']} {scope['path']!r}: {message}"
            Loggers(self)["http"].log(level, "%s", text, exc_info=error and without_secrets(error))


class GetHandler(HttpHandler):
    """An `HttpHandler` for GET and HEAD."""

    def __init__(self, func: UserHandler, **options: Any) -> None:
        super().__init__(func, methods=("GET", "HEAD"), **options)


class PostHandler(HttpHandler):
    """An `HttpHandler` for POST."""

    def __init__(self, func: UserHandler, **options: Any) -> None:
        super().__init__(func, methods=("POST",), **options)


_Handler = TypeVar("_Handler", bound=HttpHandler)


class _Decorator(Generic[_Handler]):
    """A decorator that makes a function an `HttpHandler`, with or without its keywords."""

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
        max_body_size: int | None = MAX_BODY_SIZE,
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
        max_body_size: int | None = MAX_BODY_SIZE,
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
