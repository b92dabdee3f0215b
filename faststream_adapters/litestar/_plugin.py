"""FastStreamPlugin: brokers and their endpoints as a part of a Litestar application."""

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Unpack

from faststream import FastStream
from faststream.exceptions import SetupError
from litestar import Litestar, Router
from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.plugins import CLIPlugin, InitPlugin, ReceiveRoutePlugin
from litestar.routes import BaseRoute
from litestar.types import ExceptionHandlersMap, Guard, Middleware
from litestar.utils import join_paths

from faststream_adapters._compat import Broker
from faststream_adapters.cli import broker_commands
from faststream_adapters.hosting import AdapterKeywords, HostInfo, Hosting, hosting_for
from faststream_adapters.lifespan import BrokerLifespan, LifespanKeywords
from faststream_adapters.routing import Endpoint

from .handlers import handlers_of

if TYPE_CHECKING:
    from click import Group


class FastStreamPlugin(InitPlugin, CLIPlugin):
    """Runs brokers with a Litestar application, injects them, and serves their endpoints as its routes.

    Args:
        targets: One or more brokers, or one FastStream app, or one BrokerLifespan.
        path: The prefix of all our paths.
        guards: Guards of our endpoints, besides the application's own.
        middleware: Middleware around our endpoints, inside the application's own.
        exception_handlers: What answers for exceptions of our endpoints and of these guards.
        include_in_schema: Whether the OpenAPI document lists our endpoints.
        tags: Their tags in that document.
        opt: What guards and middleware can look up in `route_handler.opt`.
        names: The names by which brokers are injected and found in `app.state`, in the order of the
            targets; when not given `broker`, or with several brokers `nats_broker`, `redis_broker` and so on.
        keywords: See `AdapterKeywords`.

    Raises:
        SetupError: The targets and the keywords cannot work together; or, when the application is built, a
            name or a path is taken already.
        TypeError: A keyword is unknown.
    """

    def __init__(
        self,
        *targets: Broker | FastStream | BrokerLifespan,
        path: str = "/",
        guards: Sequence[Guard] | None = None,
        middleware: Sequence[Middleware] | None = None,
        exception_handlers: "ExceptionHandlersMap | None" = None,
        include_in_schema: bool = False,
        tags: Sequence[str] | None = None,
        opt: Mapping[str, Any] | None = None,
        names: Sequence[str] | None = None,
        **keywords: Unpack[AdapterKeywords],
    ) -> None:
        self.lifespan = hosting_for(targets, keywords).lifespan
        self.path = path
        self.include_in_schema = include_in_schema
        self.names = names
        self.layer: dict[str, Any] = {
            "guards": guards,
            "middleware": middleware,
            "exception_handlers": exception_handlers,
            "tags": tags,
            "opt": opt,
        }
        self._keywords = keywords

    def hosting(self, info: HostInfo) -> Hosting:
        """Return what an application that says this of itself has to run and to serve."""
        brought = LifespanKeywords.__annotations__
        endpoints: Any = {name: value for name, value in self._keywords.items() if name not in brought}
        return hosting_for((self.lifespan,), endpoints, info)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Leave the work to a plugin that comes after all others, and so sees what they have added."""
        app_config.plugins.append(_Setup(self))
        return app_config

    def on_cli_init(self, cli: "Group") -> None:
        """Add `litestar faststream run` and `litestar faststream info`."""
        cli.add_command(broker_commands(lambda: _app().lifespan(), _lifespans))


class _Setup(InitPlugin, ReceiveRoutePlugin):
    """One FastStreamPlugin in one application."""

    def __init__(self, plugin: FastStreamPlugin) -> None:
        self._plugin = plugin
        self._paths: set[str] = set()
        self._mounts: set[str] = set()
        self._ours: set[Callable[..., Any]] = set()

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the lifespan, the brokers and the routes."""
        app_config.lifespan.append(self._lifespan)
        self._inject(app_config)
        app_config.route_handlers.append(self._router(app_config))
        return app_config

    @asynccontextmanager
    async def _lifespan(self, app: Litestar) -> AsyncIterator[None]:
        # Startup hooks run after all lifespans are entered, so the brokers wait for the last of them.
        async with AsyncExitStack() as stack:

            async def start() -> None:
                await stack.enter_async_context(self._plugin.lifespan(app))

            app.on_startup.append(start)
            stack.callback(app.on_startup.remove, start)
            yield

    def _inject(self, app_config: AppConfig) -> None:
        for name, broker in _named(self._plugin.lifespan.brokers, self._plugin.names):
            same = app_config.state.get(name) is broker
            if same and name in app_config.dependencies:  # two plugins have one BrokerLifespan
                continue
            if name in app_config.dependencies or (name in app_config.state and not same):
                msg = (
                    f"The application has a dependency or a state of the name {name!r} already: "
                    "give the brokers of this plugin other names with names=(...)."
                )
                raise SetupError(msg)
            app_config.state[name] = broker
            app_config.dependencies[name] = Provide(_giving(broker), sync_to_thread=False)

    def _router(self, app_config: AppConfig) -> Router:
        plugin, openapi = self._plugin, app_config.openapi_config
        info = HostInfo(openapi.title, openapi.version, openapi.description) if openapi else None
        handlers: list[HTTPRouteHandler] = []
        for path, app in plugin.hosting(info or HostInfo()).routes:
            full = join_paths([app_config.path, plugin.path, path])
            self._paths.add(full)
            if not isinstance(app, Endpoint):
                self._mounts.add(full)
            handlers += handlers_of(path, app, full, include_in_schema=plugin.include_in_schema)
        self._ours.update(handler.fn for handler in handlers)
        return Router(plugin.path, route_handlers=handlers, return_dto=None, **plugin.layer)

    def receive_route(self, route: BaseRoute) -> None:
        """Refuse a route that stands in the way of ours, or ours in its way."""
        found: Any = route
        handlers = getattr(found, "route_handlers", None) or [found.route_handler]
        if all(handler.fn in self._ours for handler in handlers):
            return
        is_mount = getattr(handlers[0], "is_mount", False)
        for mount in self._mounts:
            # Litestar looks for mounts first, and takes /documents for a path below a mount at /doc.
            swallowed = is_mount and mount.startswith(route.path) and not mount.startswith(f"{route.path}/")
            if swallowed or route.path.startswith(f"{mount.rstrip('/')}/{{"):
                msg = (
                    f"The application's route {route.path!r} takes requests below {mount!r}: "
                    "give the AsyncAPI docs another path."
                )
                raise SetupError(msg)
        if route.path in self._paths:
            msg = f"The path {route.path!r} is served already: give each route a path of its own."
            raise SetupError(msg)


def _named(brokers: Sequence[Broker], names: Sequence[str] | None) -> Iterator[tuple[str, Broker]]:
    if names is None:
        kinds = [type(broker).__name__.removesuffix("Broker") for broker in brokers]
        names = [f"{re.sub('(?<=[a-z0-9])(?=[A-Z])', '_', kind).lower()}_broker" for kind in kinds]
        names = ["broker"] if len(brokers) == 1 else names
        advice = "Brokers of one class need names"
    else:
        advice = "The names do not fit the brokers"
    if len(set(names)) != len(brokers) or len(names) != len(brokers):
        count = len(brokers)
        msg = f"{advice}: pass names=(...) with {count} different names, in the order of the targets."
        raise SetupError(msg)
    return zip(names, brokers, strict=True)


def _giving(broker: Broker) -> Callable[[], Any]:
    def give() -> Any:
        return broker

    return give


def _app() -> Litestar:
    from click import get_current_context

    app: Litestar = get_current_context().obj.app
    return app


def _lifespans() -> list[BrokerLifespan]:
    return [plugin.lifespan for plugin in _app().plugins.init if isinstance(plugin, FastStreamPlugin)]
