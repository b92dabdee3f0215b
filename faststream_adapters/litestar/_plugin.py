"""FastStreamPlugin: runs brokers in a Litestar application and serves their endpoints as its routes."""

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Unpack

from faststream.exceptions import SetupError
from litestar import Litestar, Router
from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.plugins import CLIPlugin, InitPlugin, ReceiveRoutePlugin
from litestar.routes import BaseRoute
from litestar.types import ExceptionHandlersMap, Guard, Middleware
from litestar.utils import join_paths

from faststream_adapters._asgi.endpoint import Endpoint
from faststream_adapters._compat.faststream import Broker
from faststream_adapters._hosting.assembly import HostInfo, assemble
from faststream_adapters._hosting.commands import broker_commands
from faststream_adapters._hosting.options import AdapterKeywords
from faststream_adapters._hosting.providing import check_names
from faststream_adapters._lifecycle.lifespan import BrokerLifespan
from faststream_adapters._lifecycle.targets import Target

from ._handlers import route_handlers
from ._injection import AppProviders, inject_into

if TYPE_CHECKING:
    from click import Group

_WORD_START = re.compile("(?<=[a-z0-9])(?=[A-Z])")


class FastStreamPlugin(InitPlugin, CLIPlugin):
    """Run brokers in a Litestar application, inject them, and serve their endpoints as its routes.

    Args:
        targets: One or more brokers, or one FastStream app, or one object that has a `broker_lifespan`.
        path: The prefix of all endpoint paths.
        guards: Guards of the endpoints, in addition to the application's own.
        middleware: Middleware of the endpoints, applied inside the application's own.
        exception_handlers: Handlers of exceptions that the endpoints or these guards raise.
        include_in_schema: Whether the OpenAPI document lists the endpoints.
        tags: The endpoints' tags in that document.
        opt: Options for guards and middleware, which read them from `route_handler.opt`.
        names: The names of the brokers as dependencies and in `app.state`, in the order of the targets. By
            default `broker`; with several brokers `nats_broker`, `redis_broker` and so on.
        keywords: See `AdapterKeywords`.

    Raises:
        SetupError: The targets and keywords do not fit together; or, when the application is built, a name or
            a path is in use already.
        TypeError: A keyword is unknown.
    """

    def __init__(
        self,
        *targets: Target,
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
        self.assembly = assemble(targets, keywords, FastStreamPlugin)
        self.broker_lifespan = self.assembly.broker_lifespan
        # Before any document: what Litestar passes to subscribers is not a field of the message.
        inject_into(self.broker_lifespan.brokers)
        self.broker_lifespan.preparations.append(self._prepare)
        self.path = path
        self.include_in_schema = include_in_schema
        self.names = names
        self.layer_options: dict[str, Any] = {
            "guards": guards,
            "middleware": middleware,
            "exception_handlers": exception_handlers,
            "tags": tags,
            "opt": opt,
        }

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add a plugin that does the setup after all other plugins, so that it sees their additions."""
        app_config.plugins.append(_PluginSetup(self))
        return app_config

    def _prepare(self, host: object) -> None:
        """Check the subscribers before the brokers start in an application.

        Raises:
            SetupError: A subscriber needs something that this application does not have.
        """
        plugins = host.plugins.init if isinstance(host, Litestar) else ()
        setup = next((plugin for plugin in plugins if isinstance(plugin, _PluginSetup)), None)
        for injection in inject_into(self.broker_lifespan.brokers):
            if setup is None or not isinstance(host, Litestar):
                injection.check_unused()
            else:
                injection.check(setup.providers(host))

    def on_cli_init(self, cli: "Group") -> None:
        """Add `litestar faststream run` and `litestar faststream info`."""
        cli.add_command(broker_commands(lambda: _cli_app().lifespan(), _cli_lifespans))


class _PluginSetup(InitPlugin, ReceiveRoutePlugin):
    """The setup of one FastStreamPlugin in one application."""

    def __init__(self, plugin: FastStreamPlugin) -> None:
        self._plugin = plugin
        self._paths: set[str] = set()
        self._mounts: set[str] = set()
        self._handler_functions: set[Callable[..., Any]] = set()
        self._registered: Sequence[Any] = ()
        self._providers: AppProviders | None = None

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the lifespan, the brokers and the routes."""
        self._registered = app_config.route_handlers
        app_config.lifespan.append(self._lifespan)
        self._inject(app_config)
        app_config.route_handlers.append(self._router(app_config))
        return app_config

    def providers(self, app: Litestar) -> AppProviders:
        """Return the dependencies and the controllers of the application, which last from start to start."""
        if self._providers is None:
            self._providers = AppProviders(app, self._registered)
        return self._providers

    @asynccontextmanager
    async def _lifespan(self, app: Litestar) -> AsyncIterator[None]:
        # Startup hooks run after all lifespans have been entered. The brokers start in the last hook.
        async with AsyncExitStack() as stack:

            async def start() -> None:
                await stack.enter_async_context(self._plugin.broker_lifespan(app))

            app.on_startup.append(start)
            stack.callback(app.on_startup.remove, start)
            yield

    def _inject(self, app_config: AppConfig) -> None:
        for name, broker in _named(self._plugin.broker_lifespan.brokers, self._plugin.names):
            same = app_config.state.get(name) is broker
            if same and name in app_config.dependencies:  # another plugin has the same BrokerLifespan
                continue
            if name in app_config.dependencies or (name in app_config.state and not same):
                msg = (
                    f"The application already has a dependency or a state named {name!r}: "
                    "pass other names for the brokers of this plugin as names=(...)."
                )
                raise SetupError(msg)
            app_config.state[name] = broker
            # A route with ImmutableState gets a deep copy of the state, which has to contain the same broker.
            vars(broker)["__deepcopy__"] = lambda _, broker=broker: broker
            app_config.dependencies[name] = Provide(_provider(broker), sync_to_thread=False)

    def _router(self, app_config: AppConfig) -> Router:
        plugin, openapi = self._plugin, app_config.openapi_config
        info = HostInfo(openapi.title, openapi.version, openapi.description) if openapi else None
        handlers: list[HTTPRouteHandler] = []
        for path, app in plugin.assembly.routes(info):
            full_path = join_paths([app_config.path, plugin.path, path])
            self._paths.add(full_path)
            if not isinstance(app, Endpoint):
                self._mounts.add(full_path)
            handlers += route_handlers(path, app, full_path, include_in_schema=plugin.include_in_schema)
        self._handler_functions.update(handler.fn for handler in handlers)
        return Router(plugin.path, route_handlers=handlers, return_dto=None, **plugin.layer_options)

    def receive_route(self, route: BaseRoute) -> None:
        """Refuse a route of the application whose path collides with one of the endpoints."""
        # HTTP routes have several handlers, other kinds of routes have one.
        any_route: Any = route
        handlers = getattr(any_route, "route_handlers", None) or [any_route.route_handler]
        if all(handler.fn in self._handler_functions for handler in handlers):
            return
        is_mount = getattr(handlers[0], "is_mount", False)
        for mount in self._mounts:
            # Litestar matches mounts first, and a mount at /doc receives requests for /documents.
            shadowed = is_mount and mount.startswith(route.path) and not mount.startswith(f"{route.path}/")
            if shadowed or route.path.startswith(f"{mount.rstrip('/')}/{{"):
                msg = (
                    f"The application's route {route.path!r} receives requests for paths below {mount!r}: "
                    "choose another path for the AsyncAPI docs."
                )
                raise SetupError(msg)
        if route.path in self._paths:
            msg = f"The path {route.path!r} is served already: choose a different path for each route."
            raise SetupError(msg)


def _named(brokers: Sequence[Broker], names: Sequence[str] | None) -> Iterator[tuple[str, Broker]]:
    if names is None:
        kinds = [type(broker).__name__.removesuffix("Broker") for broker in brokers]
        names = [f"{_WORD_START.sub('_', kind).lower()}_broker" for kind in kinds]
        names = ["broker"] if len(brokers) == 1 else names
        check_names(names, len(brokers), "Brokers of one class need names")
    else:
        check_names(names, len(brokers))
    return zip(names, brokers, strict=True)


def _provider(broker: Broker) -> Callable[[], Any]:
    def provide() -> Any:
        return broker

    return provide


def _cli_app() -> Litestar:
    from click import get_current_context

    app: Litestar = get_current_context().obj.app
    return app


def _cli_lifespans() -> list[BrokerLifespan]:
    plugins = _cli_app().plugins.init
    return [plugin.broker_lifespan for plugin in plugins if isinstance(plugin, FastStreamPlugin)]
