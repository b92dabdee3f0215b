"""AsgiFastStream: a FastStream application that is also an ASGI application."""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Self, Unpack

import faststream
from faststream.asgi import AsgiFastStream as UpstreamAsgi
from faststream.asgi import AsyncAPIRoute as UpstreamRoute
from faststream.asgi import HttpHandler as UpstreamHandler
from faststream.asgi.types import ASGIApp, Receive, Scope, Send
from faststream.exceptions import SetupError, StartupValidationError

from faststream_adapters._asgi.endpoint import Endpoint
from faststream_adapters._asgi.lifespan_protocol import serve_lifespan
from faststream_adapters._asgi.responses import AsgiResponse
from faststream_adapters._asgi.routing import Routes
from faststream_adapters._asyncapi import AsyncAPIDocs, AsyncAPIRoute
from faststream_adapters._compat.faststream import EMPTY, Application, Broker, options_of, share_state
from faststream_adapters._hosting.assembly import assemble
from faststream_adapters._hosting.options import AdapterKeywords, HostKeywords
from faststream_adapters._lifecycle.signals import handler_behind_ours

from .drop_in import check_brokers, own_routes, refuse_document_keywords
from .handlers import HttpHandler
from .routes import AsgiRoute, RouteList

if TYPE_CHECKING:
    import uvicorn
    from fast_depends import Provider
    from faststream import ContextRepo

    from faststream_adapters._compat.faststream import (
        AnyCallable,
        Lifespan,
        LoggerProto,
        SerializerProto,
        SettingField,
        SpecificationFactory,
    )

_STARTUP_FAILURE = 3
"""The exit code of uvicorn after a failed start."""

_LOGGER = logging.getLogger("faststream")
_NOT_FOUND = AsgiResponse(b"Not Found", 404)


def _http_only(handler: UpstreamHandler) -> ASGIApp:
    """Wrap FastStream's HttpHandler so that it only receives HTTP scopes."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # FastStream's handler treats a websocket as an HTTP request.
        await (handler if scope["type"] == "http" else _NOT_FOUND)(scope, receive, send)

    return app


def _server_handles_sigint() -> bool:
    """Return whether the handler of SIGINT is that of a server, not that of Python or asyncio."""
    handler = handler_behind_ours(signal.SIGINT)
    is_asyncio = isinstance(getattr(getattr(handler, "func", None), "__self__", None), asyncio.Runner)
    return handler is not signal.default_int_handler and not is_asyncio


class FastStream(faststream.FastStream):
    """FastStream's application, with an `as_asgi()` that keeps all hooks and settings."""

    def as_asgi(  # type: ignore[override]  # more keywords, and our own class
        self,
        asgi_routes: Sequence[AsgiRoute] = (),
        asyncapi_path: str | UpstreamRoute | AsyncAPIRoute | None = None,
        **keywords: Unpack[HostKeywords],
    ) -> "AsgiFastStream":
        """Return this application as an ASGI application.

        Args:
            asgi_routes: Paths with their ASGI apps.
            asyncapi_path: The path of the AsyncAPI docs.
            keywords: See `HostKeywords`.

        Returns:
            An app that shares its state with this one, including hooks and brokers that are added later.
        """
        return AsgiFastStream.from_app(self, asgi_routes, asyncapi_path, **keywords)


class AsgiFastStream(FastStream):
    """A FastStream application that any ASGI server can run.

    Args:
        brokers: The brokers.
        asgi_routes: Paths with their ASGI apps: an endpoint or handler of this package serves its exact path,
            with or without a trailing slash; any other app also serves all paths below its own.
        logger: The application's logger, which also gets what this package logs about the application; None
            disables both.
        provider: The dependency provider, which holds the overrides.
        serializer: The serializer that validates injected values.
        context: The context of injected values.
        lifespan: A context manager that is entered before and left after everything else.
        on_startup: Hooks that run before the brokers start.
        after_startup: Hooks that run after the brokers have started.
        on_shutdown: Hooks that run before the brokers stop.
        after_shutdown: Hooks that run after the brokers have stopped.
        specification: The AsyncAPI specification, which sets title and version, among others.
        asyncapi_path: The path of the AsyncAPI docs.
        keywords: See `HostKeywords`.

    Raises:
        SetupError: Two routes have the same path, or the keywords are invalid or cannot be combined.
        TypeError: A keyword is unknown.
    """

    def __init__(
        self,
        *brokers: Broker,
        asgi_routes: Sequence[AsgiRoute] = (),
        logger: "LoggerProto | None" = _LOGGER,
        provider: "Provider | None" = None,
        serializer: "SerializerProto | None" = EMPTY,
        context: "ContextRepo | None" = None,
        lifespan: "Lifespan | None" = None,
        on_startup: Sequence["AnyCallable"] = (),
        after_startup: Sequence["AnyCallable"] = (),
        on_shutdown: Sequence["AnyCallable"] = (),
        after_shutdown: Sequence["AnyCallable"] = (),
        specification: "SpecificationFactory | None" = None,
        asyncapi_path: str | UpstreamRoute | AsyncAPIRoute | None = None,
        **keywords: Unpack[HostKeywords],
    ) -> None:
        check_brokers(brokers)
        super().__init__(
            *brokers,
            logger=logger,
            provider=provider,
            serializer=serializer,
            context=context,
            lifespan=lifespan,
            on_startup=on_startup,
            after_startup=after_startup,
            on_shutdown=on_shutdown,
            after_shutdown=after_shutdown,
            specification=specification,
        )
        self._routes = Routes()
        self._runs = 0
        self._mounted_in: dict[str, int] = {}
        """In which run a lifespan or a hook has mounted a route."""
        self._server: uvicorn.Server | None = None
        self._served = False
        self._options: Mapping[str, SettingField] = {}
        self._failure: Exception | None = None
        self._assemble(asgi_routes, asyncapi_path, keywords)

    @classmethod
    def from_app(
        cls,
        app: Application,
        asgi_routes: Sequence[AsgiRoute] = (),
        asyncapi_path: str | UpstreamRoute | AsyncAPIRoute | None = None,
        **keywords: Unpack[HostKeywords],
    ) -> Self:
        """Return an ASGI application that shares its state with a FastStream application.

        Args:
            app: The application; its `exit()` also stops the server of the new one. Of an AsgiFastStream of
                `faststream.asgi` the routes are taken over, except its AsyncAPI page: set `asyncapi_path`.
            asgi_routes: Further paths with their ASGI apps.
            asyncapi_path: The path of the AsyncAPI docs.
            keywords: See `HostKeywords`.

        Raises:
            SetupError: The application is an `AsgiFastStream` of this package already.
        """
        if isinstance(app, AsgiFastStream):
            msg = (
                "This is an AsgiFastStream already, with routes and keywords of its own: use it as it is. "
                "Its mount() adds routes."
            )
            raise SetupError(msg)
        asgi = cls(logger=app.logger)
        share_state(app, asgi)
        taken_over = own_routes(app) if isinstance(app, UpstreamAsgi) else []
        asgi._assemble((*taken_over, *asgi_routes), asyncapi_path, keywords)
        exit_app = app.exit

        def exit_both() -> None:
            exit_app()
            asgi.exit()

        app.exit = exit_both  # type: ignore[method-assign]  # FastStream's own `exit` stops no server
        return asgi

    def _assemble(
        self,
        asgi_routes: Sequence[AsgiRoute],
        asyncapi_path: str | UpstreamRoute | AsyncAPIRoute | None,
        keywords: HostKeywords,
    ) -> None:
        refuse_document_keywords(keywords)
        # Otherwise `assemble` would take the lifespan of an earlier call for the target's own.
        vars(self).pop("broker_lifespan", None)
        options: AdapterKeywords = {**keywords, "asyncapi_path": asyncapi_path, "specification": None}
        assembly = assemble((self,), options, AsgiFastStream)
        self.broker_lifespan = assembly.broker_lifespan
        for path, app in (*asgi_routes, *assembly.endpoints):
            self.mount(path, app)
        for path, app in assembly.docs():
            # Not through `mount`: the docs do not list themselves.
            self._routes.add(path, app, exact=isinstance(app, Endpoint))

    def add_broker(self, broker: Broker) -> None:
        """Add a broker before the application is running.

        Args:
            broker: The broker.

        Raises:
            SetupError: The application has this broker already, or is running.
        """
        lifespan = getattr(self, "broker_lifespan", None)
        if lifespan is not None and lifespan.state == "running":
            msg = (
                "The application is running and would not start this broker: "
                "add it earlier, at the latest in an on_startup hook."
            )
            raise SetupError(msg)
        super().add_broker(broker)
        if lifespan is not None:
            lifespan.prepare_brokers()

    @property
    def routes(self) -> RouteList:
        """The paths with their ASGI apps, as a live list: what is appended to it is mounted."""
        return RouteList(self._routes, self.mount, self._unmount)

    @routes.setter
    def routes(self, routes: Iterable[AsgiRoute]) -> None:
        self.routes.replace(routes)

    def mount(self, path: str, route: ASGIApp, *, replace: bool = False) -> None:
        """Add a route.

        A route that a lifespan or a hook has mounted is replaced when the app runs again.

        Args:
            path: The path, which starts with a slash.
            route: The ASGI app: an endpoint or handler of this package serves this exact path, any other app
                also all paths below it.
            replace: Whether to replace a route with the same path.

        Raises:
            SetupError: The path does not start with a slash, or is in use already.
        """
        key = path.rstrip("/")
        if replace or self._mounted_in.get(key, self._runs) < self._runs:
            self._unmount(path)
        self._mount(path, route)
        if self.broker_lifespan.state != "stopped":
            self._mounted_in[key] = self._runs

    def _unmount(self, path: str) -> None:
        self._routes.remove(path)
        self._mounted_in.pop(path.rstrip("/"), None)
        # A specification of one's own need not have this list.
        documented: list[tuple[str, object]] = getattr(self.schema, "http_handlers", [])
        documented[:] = [(each, app) for each, app in documented if each.rstrip("/") != path.rstrip("/")]

    def _mount(self, path: str, route: ASGIApp) -> None:
        endpoint = isinstance(route, Endpoint | UpstreamHandler)
        app = _http_only(route) if isinstance(route, UpstreamHandler) else route
        self._routes.add(path, app, exact=endpoint)
        if isinstance(route, Endpoint | UpstreamHandler | AsyncAPIDocs):
            self.schema.add_http_route(path, route)  # type: ignore[arg-type]  # an Endpoint has what it reads
        if isinstance(route, Endpoint | AsyncAPIDocs) and route.loggers.app is None:
            route.loggers = self.broker_lifespan.loggers
        if isinstance(route, HttpHandler | UpstreamHandler):
            route.update_fd_config(self.config)
            route.set_logger(self.logger)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection of any type."""
        if scope["type"] == "lifespan":
            await self.lifespan(scope, receive, send)
            return
        app, scope = self._routes.find(scope) or (self.not_found, scope)
        await app(scope, receive, send)

    async def not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request that no route serves; a subclass can override this."""
        await _NOT_FOUND(scope, receive, send)

    async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (the ASGI signature)
        """Answer the server's lifespan messages: start and stop the brokers and run all hooks."""
        self._served = True
        try:
            await serve_lifespan(self._serve(), receive, send, self.broker_lifespan.loggers)
        finally:
            self._served = False

    @asynccontextmanager
    async def _serve(self) -> AsyncIterator[None]:
        try:
            async with self.start_lifespan_context():
                yield
        except Exception as error:
            # Not in `lifespan`: uvicorn cancels that as soon as it has read the failure.
            self._failure = error
            raise

    @asynccontextmanager
    async def start_lifespan_context(
        self,
        run_extra_options: "Mapping[str, SettingField] | None" = None,
    ) -> AsyncIterator[None]:
        """Run the application, without a server, for the duration of an `async with` block.

        Args:
            run_extra_options: Options for the lifespan and the `on_startup` hooks.
        """
        self._runs += 1
        await self.broker_lifespan.enter(host=self, options=run_extra_options or self._options)
        try:
            yield
        finally:
            await self.broker_lifespan.leave()

    async def start(self, **run_extra_options: "SettingField") -> None:
        """Run the startup hooks and start the brokers.

        Args:
            run_extra_options: Options for the `on_startup` hooks.
        """
        self._runs += 1
        await self.broker_lifespan.enter(host=self, options=run_extra_options, hooks_only=True)

    async def stop(self) -> None:
        """Run the shutdown hooks and stop the brokers; further calls do nothing."""
        await self.broker_lifespan.leave()

    async def run(
        self,
        log_level: int = logging.INFO,
        run_extra_options: "dict[str, SettingField] | None" = None,
        sleep_time: float = 0.1,  # noqa: ARG002 (FastStream's signature)
    ) -> None:
        """Serve the application with uvicorn until a signal or `exit()` stops it.

        Args:
            log_level: The level of uvicorn's loggers, at least that of the application's logger.
            run_extra_options: uvicorn settings by name, `bind` (`host:port`, `[::1]:port`,
                `unix:/dir/name.sock` or `fd://N`, one or several), `socket_mode` (of unix sockets, in octal
                digits), and options for the lifespan and the startup hooks.
            sleep_time: Unused, because the server needs no polling.

        Raises:
            StartupValidationError: An option that a startup hook requires is missing.
            SystemExit: The server could not start; the message or the log says why.
        """
        # Imported here because no other server needs them.
        from faststream_adapters._server.sockets import bind_addresses, listening, socket_mode
        from faststream_adapters._server.uvicorn import make_server, warn_about_unused

        self._options = options = run_extra_options or {}
        self._failure = None
        if isinstance(self.logger, logging.Logger):
            log_level = max(log_level, self.logger.getEffectiveLevel())
        # FastStream gives each worker that it spawns a number; all of them listen on the same address.
        shared = options.get("worker_id") is not None
        with ExitStack() as stack:
            try:
                server = make_server(self, log_level, options, self.broker_lifespan.loggers)
                addresses, mode = bind_addresses(options), socket_mode(options)
                sockets = stack.enter_context(listening(addresses, mode=mode, shared=shared))
            except (ImportError, SetupError) as error:
                # The command prints this as one line and exits with 1.
                raise SystemExit(f"Error: {error}") from error
            if (taken := options_of(self)) is not None:
                warn_about_unused(options, {"worker_id", *taken}, self.broker_lifespan.loggers)
            await self._run(server, sockets)

    async def _run(self, server: "uvicorn.Server", sockets: list[socket.socket]) -> None:
        self._server = server
        status: object = 0
        try:
            await server.serve(sockets=sockets)
            # In older uvicorn releases, `serve` returns after a failed start; only their command exits.
            status = 0 if server.started else _STARTUP_FAILURE
        except SystemExit as error:
            status = error.code
        finally:
            self._server = None
        if isinstance(self._failure, StartupValidationError):
            # FastStream's command prints this error in its own way.
            raise self._failure
        if status:
            raise SystemExit(status)

    def exit(self) -> None:
        """Stop the server of this application: that of `run()`, or a single-process uvicorn or granian."""
        super().exit()
        if (server := self._server) is not None:
            self.broker_lifespan.drain(lambda: setattr(server, "should_exit", True))
        elif self._served and _server_handles_sigint():
            signal.raise_signal(signal.SIGINT)
