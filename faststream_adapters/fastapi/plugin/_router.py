"""StreamRouter: the router of FastStream's plugin, as a FastStreamRouter."""

import inspect
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from enum import Enum
from typing import Annotated, Any, Generic, TypeAlias, TypeVar, cast

from fastapi import FastAPI, params, routing
from faststream import AsyncAPI
from faststream.specification.base import SpecificationFactory

from faststream_adapters._compat.faststream import Broker, to_async
from faststream_adapters._compat.plugin import BrokerRouter, configure
from faststream_adapters._compat.plugin import ContextRepo as Repository
from faststream_adapters._hosting.options import AdapterKeywords
from faststream_adapters.fastapi._injection import injection_of
from faststream_adapters.fastapi._marks import Context, Logger
from faststream_adapters.fastapi._router import FastStreamRouter

from ._messages import prepare, read_parameter, receive
from ._native import native_lines

__all__ = ("Context", "ContextRepo", "Logger", "StreamRouter", "like")

ContextRepo: TypeAlias = Annotated[Repository, Context("context")]
"""The context of the broker."""


def like(annotation: Any) -> Any:
    """Return the mark for the value that one of FastStream's annotations stands for, in routes too."""
    [mark] = annotation.__metadata__
    return Context(mark.name)


TBroker = TypeVar("TBroker", bound=Broker)
TSubscriber = TypeVar("TSubscriber")
TPublisher = TypeVar("TPublisher")
THook = TypeVar("THook", bound=Callable[..., Any])

_STARTUP_TIMEOUT = 120.0
"""Seconds: a NATS client attempts for as long as this to connect, unless configured otherwise."""

_DROPPED: Mapping[str, object] = {
    "response_model": None,
    "response_model_include": None,
    "response_model_exclude": None,
    "response_model_by_alias": True,
    "response_model_exclude_unset": False,
    "response_model_exclude_defaults": False,
    "response_model_exclude_none": False,
}
"""The plugin's keywords of subscribers that have no effect here, with their defaults."""

_ROUTER_ATTRIBUTES = (
    "callbacks",
    "default",
    "default_response_class",
    "dependency_overrides_provider",
    "deprecated",
    "generate_unique_id_function",
    "redirect_slashes",
)
"""Keywords of `APIRouter` that FastStreamRouter does not have; each is an attribute too."""


class StreamRouter(FastStreamRouter, Generic[TBroker, TSubscriber, TPublisher]):
    """Make a broker, run it in a FastAPI application, and serve routes beside it.

    Args:
        connection: The broker's positional arguments.
        schema_url: The path of the AsyncAPI docs. Unlike the plugin's, they are off until it is given.
        setup_state: Whether `request.state` has the broker, and what the lifespan and the hooks return.
        lifespan: Runs around the broker, with the application as its argument.
        on_startup: Called before the broker starts.
        on_shutdown: Called after the broker has stopped.
        prefix: The prefix of all paths.
        tags: The tags of all routes.
        dependencies: Dependencies of all routes and of all messages.
        responses: Additional responses of the routes in OpenAPI.
        routes: Routes to begin with.
        route_class: The class of the routes.
        include_in_schema: Whether OpenAPI lists the routes. Without it there are no docs either.
        specification: The AsyncAPI specification.
        specification_tags: The tags of the broker in the AsyncAPI document.
        keywords: The keywords of the broker, further ones of `APIRouter`, and those of FastStreamRouter.
    """

    broker_class: type[TBroker]

    def __init__(
        self,
        *connection: Any,
        schema_url: str | None = None,
        setup_state: bool = True,
        lifespan: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None,
        on_startup: Sequence[Callable[[], Any]] | None = None,
        on_shutdown: Sequence[Callable[[], Any]] | None = None,
        prefix: str = "",
        tags: list[str | Enum] | None = None,
        dependencies: Sequence[params.Depends] | None = None,
        responses: dict[int | str, dict[str, Any]] | None = None,
        routes: list[Any] | None = None,
        route_class: type[routing.APIRoute] = routing.APIRoute,
        include_in_schema: bool = True,
        specification: SpecificationFactory | None = None,
        specification_tags: Iterable[Any] = (),
        **keywords: Any,
    ) -> None:
        attributes = {name: keywords.pop(name) for name in _ROUTER_ATTRIBUTES if name in keywords}
        own: AdapterKeywords = {"startup_timeout": _STARTUP_TIMEOUT}
        own |= cast(
            "AdapterKeywords",
            {name: keywords.pop(name) for name in AdapterKeywords.__annotations__ if name in keywords},
        )
        self.broker: TBroker = self.broker_class(*connection, tags=specification_tags, **keywords)
        self.broker.context.set_global("app", self)
        configure(self.broker, prepare, receive)
        injection = injection_of(self.broker)
        injection.default_app = FastAPI()
        injection.read_parameter = read_parameter
        self._native = native_lines(
            self.broker_class,
            connection,
            keywords,
            {
                "prefix": prefix,
                "asyncapi_path": schema_url,
                "dependencies": dependencies,
                "message_dependencies": dependencies,
                "startup_timeout": own.get("startup_timeout"),
            },
        )
        """The lines to write instead of this router; empty when they have been logged."""
        self.schema = specification or AsyncAPI()
        self.schema.add_broker(self.broker)
        self._has_docs = bool(schema_url and include_in_schema)
        if self._has_docs:
            own |= {"asyncapi_path": schema_url, "specification": self.schema}
        super().__init__(
            self.broker,
            prefix=prefix,
            tags=tags,
            dependencies=dependencies,
            message_dependencies=dependencies or (),
            responses=responses,
            include_in_schema=include_in_schema,
            route_class=route_class,
            **own,
        )
        injection.refresh()
        self._documents.append(self.schema)
        self.routes[:0] = routes or ()
        self.include_in_schema = include_in_schema
        for name, value in attributes.items():
            setattr(self, name, value)
        self.setup_state = setup_state
        self._lifespan = lifespan or (lambda _: nullcontext())
        self._before = list(on_startup or ())
        self._after = list(on_shutdown or ())
        self._after_startup: list[Callable[..., Any]] = []
        self._on_broker_shutdown: list[Callable[..., Any]] = []
        self._state: dict[str, Any] | None = None
        """What the running lifespan has yielded."""

    @property
    def context(self) -> Repository:
        """The context of the broker."""
        return self.broker.context

    def subscriber(self, *args: Any, **options: Any) -> TSubscriber:
        """Return a subscriber of the broker, which decorates a handler."""
        dropped = {name: options.pop(name) for name in _DROPPED if name in options}
        if used := [name for name, value in dropped.items() if value != _DROPPED[name]]:
            msg = (
                f"{', '.join(used)}: a subscriber of this stand-in publishes what its handler returns, "
                "unfiltered. Return what you want to publish, and remove these keywords."
            )
            warnings.warn(msg, RuntimeWarning, stacklevel=2)
        return cast("TSubscriber", self.broker.subscriber(*args, **options))

    def publisher(self, *args: Any, **options: Any) -> TPublisher:
        """Return a publisher of the broker, which also decorates a handler."""
        return cast("TPublisher", self.broker.publisher(*args, **options))

    def after_startup(self, func: THook) -> THook:
        """Call a function with the application when the broker is up; its result is for `request.state`."""
        self._after_startup.append(to_async(func))
        return func

    def on_broker_shutdown(self, func: THook) -> THook:
        """Call a function with the application before the broker stops."""
        self._on_broker_shutdown.append(to_async(func))
        return func

    def add_event_handler(self, event_type: str, func: Callable[[], Any]) -> None:
        """Call a function around the life of the broker, where FastAPI would forget it or call it twice."""
        (self._before if event_type == "startup" else self._after).append(func)

    def include_router(self, router: Any, **options: Any) -> None:
        """Include a router of the broker, such as `faststream.nats.NatsRouter`, or of FastAPI.

        Raises:
            TypeError: It is another router of this kind.
        """
        if isinstance(router, BrokerRouter):
            self.broker.include_router(router)
        elif isinstance(router, FastStreamRouter):
            msg = (
                "Including a StreamRouter into another StreamRouter is not supported: include it in the "
                "application, or group subscribers in a router of the broker, such as "
                "faststream.nats.NatsRouter, and include that."
            )
            raise TypeError(msg)
        else:
            super().include_router(router, **options)

    @asynccontextmanager
    async def _run(self, app: FastAPI) -> AsyncIterator[Mapping[str, Any] | None]:
        """Run the broker. An application that has the lifespan as its own may enter it twice."""
        if self._state is not None:
            async with super()._run(app):
                yield self._state if self.setup_state else None
            return
        self._log_native_lines()
        await _call_all(self._before)
        try:
            async with self._lifespan(app) as state:
                self._state = {"broker": self.broker, **(state or {})}
                async with super()._run(app):
                    for hook in self._after_startup:
                        self._state.update(await hook(app) or {})
                    yield self._state if self.setup_state else None
                    for hook in self._on_broker_shutdown:
                        await hook(app)
        finally:
            self._state = None
            await _call_all(self._after)

    def _log_native_lines(self) -> None:
        if not self._native:
            return
        kind, logger = type(self).__name__, self.broker_lifespan.loggers["hosts"]
        logger.info(
            "%s is a stand-in for the one that FastStream removes in 1.0. Without it: %s; "
            "@broker.subscriber instead of @router.subscriber (%d here). See docs/fastapi-plugin.md.",
            kind,
            self._native,
            len(self.broker.subscribers),
        )
        self._native = ""
        if self._has_docs:
            logger.warning("The AsyncAPI docs of %s have no form that publishes, unlike FastStream's.", kind)

    def _set_document_info(self, app: FastAPI) -> None:
        super()._set_document_info(app)
        for document in self._documents:
            document.contact, document.license = app.contact, app.license_info


async def _call_all(functions: Iterable[Callable[[], Any]]) -> None:
    for function in functions:
        if inspect.isawaitable(result := function()):
            await result
