"""AsgiFastStream: a FastStream application that is an ASGI application too."""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Self, Unpack

import faststream
from faststream.asgi import HttpHandler as UpstreamHandler
from faststream.asgi.types import ASGIApp, Receive, Scope, Send
from faststream.exceptions import SetupError, StartupValidationError

from ._compat import EMPTY, Broker, options_of, share_state
from .asyncapi import AsyncAPIDocs, AsyncAPIRoute
from .handlers import HttpHandler
from .hosting import EndpointKeywords, HostKeywords, docs_for, endpoints_for, split_keywords
from .lifespan import BrokerLifespan, serve_lifespan
from .responses import AsgiResponse
from .routing import Endpoint, Routes

if TYPE_CHECKING:
    import uvicorn
    from fast_depends import Provider
    from faststream import ContextRepo

    from ._compat import (
        AnyCallable,
        Lifespan,
        LoggerProto,
        SerializerProto,
        SettingField,
        SpecificationFactory,
    )

AsgiRoute = tuple[str, ASGIApp]

_STARTUP_FAILURE = 3
"""The exit code that uvicorn gives a failed start."""

_LOGGER = logging.getLogger("faststream")
_NOT_FOUND = AsgiResponse(b"Not Found", 404)


def _http_only(handler: UpstreamHandler) -> ASGIApp:
    """Return a handler of FastStream's own, for whom forgot to change one import, without its fault."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # It would take a websocket for a request.
        await (handler if scope["type"] == "http" else _NOT_FOUND)(scope, receive, send)

    return app


def _server_listens() -> bool:
    """Return whether a server, and not Python itself, reacts to SIGINT."""
    handler = signal.getsignal(signal.SIGINT)
    of_asyncio = isinstance(getattr(getattr(handler, "func", None), "__self__", None), asyncio.Runner)
    return handler is not signal.default_int_handler and not of_asyncio


class FastStream(faststream.FastStream):
    """FastStream's application, whose `as_asgi()` loses nothing."""

    def as_asgi(  # type: ignore[override]  # ours, with more keywords
        self,
        asgi_routes: Sequence[AsgiRoute] = (),
        asyncapi_path: str | AsyncAPIRoute | None = None,
        **keywords: Unpack[HostKeywords],
    ) -> "AsgiFastStream":
        """Return this application as an ASGI application.

        Args:
            asgi_routes: Paths with the ASGI apps that answer them.
            asyncapi_path: The path of the AsyncAPI docs.
            keywords: See `HostKeywords`.

        Returns:
            An app that shares everything with this one, hooks and brokers that are added later included.
        """
        return AsgiFastStream.from_app(self, asgi_routes, asyncapi_path, **keywords)


class AsgiFastStream(FastStream):
    """A FastStream application that any ASGI server can run.

    Args:
        brokers: The brokers.
        asgi_routes: Paths with the ASGI apps that answer them: an endpoint or handler of this package answers
            its path, with or without a trailing slash; any other app all paths below its own.
        logger: The application's logger.
        provider: The provider of dependencies, with its overrides.
        serializer: What validates injected values.
        context: The context that is injected from.
        lifespan: A context manager around everything else.
        on_startup: Hooks that run before the brokers start.
        after_startup: Hooks that run after they have started.
        on_shutdown: Hooks that run before they stop.
        after_shutdown: Hooks that run after they have stopped.
        specification: The AsyncAPI specification: title, version and so on.
        asyncapi_path: The path of the AsyncAPI docs.
        keywords: See `HostKeywords`.

    Raises:
        SetupError: Two routes have one path, or keywords cannot work together.
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
        asyncapi_path: str | AsyncAPIRoute | None = None,
        **keywords: Unpack[HostKeywords],
    ) -> None:
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
        lifespan_keywords, endpoint_keywords = split_keywords(keywords)
        self.broker_lifespan = BrokerLifespan(self, **lifespan_keywords)
        self._routes = Routes()
        self._server: uvicorn.Server | None = None
        self._served = False
        self._options: Mapping[str, SettingField] = {}
        self._failure: Exception | None = None
        self._serve(asgi_routes, asyncapi_path, endpoint_keywords)

    @classmethod
    def from_app(
        cls,
        app: faststream.FastStream,
        asgi_routes: Sequence[AsgiRoute] = (),
        asyncapi_path: str | AsyncAPIRoute | None = None,
        **keywords: Unpack[HostKeywords],
    ) -> Self:
        """Return an ASGI application that shares everything with a FastStream application.

        Args:
            app: The application; stopping it stops the server of the new one.
            asgi_routes: Paths with the ASGI apps that answer them.
            asyncapi_path: The path of the AsyncAPI docs.
            keywords: See `HostKeywords`.
        """
        lifespan_keywords, endpoint_keywords = split_keywords(keywords)
        asgi = cls(logger=app.logger, **lifespan_keywords)
        share_state(app, asgi)
        asgi._serve(asgi_routes, asyncapi_path, endpoint_keywords)
        exit_original = app.exit

        def exit_both() -> None:
            exit_original()
            asgi.exit()

        app.exit = exit_both  # type: ignore[method-assign]  # FastStream's own class knows nothing of servers
        return asgi

    def _serve(
        self,
        asgi_routes: Sequence[AsgiRoute],
        asyncapi_path: str | AsyncAPIRoute | None,
        keywords: EndpointKeywords,
    ) -> None:
        for path, app in (*asgi_routes, *endpoints_for(self.broker_lifespan, keywords)):
            self.mount(path, app)
        if asyncapi_path:
            for path, app in docs_for(asyncapi_path, self):
                # Not in the schema: the docs do not document themselves.
                self._routes.add(path, app, exact=isinstance(app, Endpoint))

    def add_broker(self, broker: Broker) -> None:
        """Add a broker, until the application runs.

        Args:
            broker: The broker.

        Raises:
            SetupError: It is there already, or the application runs.
        """
        lifespan = getattr(self, "broker_lifespan", None)
        if lifespan is not None and lifespan.state == "running":
            msg = (
                "The application runs already, and would not start this broker: "
                "add it before, or in on_startup."
            )
            raise SetupError(msg)
        super().add_broker(broker)

    @property
    def routes(self) -> list[AsgiRoute]:
        """A copy of the routes: paths with the apps that answer them; `mount` adds one."""
        return list(self._routes)

    def mount(self, path: str, route: ASGIApp) -> None:
        """Add a route.

        Args:
            path: The path, which starts with a slash.
            route: The app: an endpoint or handler of this package answers this path, any other app all paths
                below it too.

        Raises:
            SetupError: The path does not start with a slash, or it is taken.
        """
        endpoint = isinstance(route, Endpoint | UpstreamHandler)
        app = _http_only(route) if isinstance(route, UpstreamHandler) else route
        self._routes.add(path, app, exact=endpoint)
        if isinstance(route, Endpoint | UpstreamHandler | AsyncAPIDocs):
            self.schema.add_http_route(path, route)  # type: ignore[arg-type]  # it reads what an Endpoint has
        if isinstance(route, HttpHandler | UpstreamHandler):
            route.update_fd_config(self.config)
            route.set_logger(self.logger)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection: the server's lifespan, or a request."""
        if scope["type"] == "lifespan":
            await self.lifespan(scope, receive, send)
            return
        await self._routes.begin(scope, receive, send, _NOT_FOUND)

    async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (the ASGI signature)
        """Answer the server's lifespan messages: start and stop the brokers, with all hooks."""
        self._served = True
        try:
            self._failure = await serve_lifespan(self.start_lifespan_context(), receive, send)
        finally:
            self._served = False

    @asynccontextmanager
    async def start_lifespan_context(
        self,
        run_extra_options: "Mapping[str, SettingField] | None" = None,
    ) -> AsyncIterator[None]:
        """Run the application, without a server, for the time of an `async with` block.

        Args:
            run_extra_options: Options for the lifespan and the `on_startup` hooks.
        """
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
        await self.broker_lifespan.enter(host=self, options=run_extra_options, hooks_only=True)

    async def stop(self) -> None:
        """Run the shutdown hooks and stop the brokers; once more does nothing."""
        await self.broker_lifespan.leave()

    async def run(
        self,
        log_level: int = logging.INFO,
        run_extra_options: "dict[str, SettingField] | None" = None,
        sleep_time: float = 0.1,  # noqa: ARG002 (FastStream's signature; a server needs no polling)
    ) -> None:
        """Serve the application with uvicorn until it is told to stop.

        Args:
            log_level: The level of uvicorn's logging; it is no lower than that of the application's logger.
            run_extra_options: uvicorn settings by name, `bind` (`host:port`, `[::1]:port`,
                `unix:/dir/name.sock` or `fd://N`, one or several), and options for the lifespan and the
                startup hooks.
            sleep_time: Not used.

        Raises:
            StartupValidationError: A startup hook asks for an option that is missing.
            SystemExit: The server could not start; a text says why, or the log does.
        """
        # Under another server none of this is needed.
        from .binding import binds, listening
        from .server import make_server, warn_of_unused

        self._options = options = run_extra_options or {}
        self._failure = None
        if isinstance(self.logger, logging.Logger):
            log_level = max(log_level, self.logger.getEffectiveLevel())
        # Spawned workers get a number, and listen at the same address.
        shared = options.get("worker_id") is not None
        with ExitStack() as stack:
            try:
                server = make_server(self, log_level, options)
                sockets = stack.enter_context(listening(binds(options), shared=shared))
            except (ImportError, SetupError) as error:
                # On a command line this is one line, and the exit code is 1.
                raise SystemExit(f"Error: {error}") from error
            if (taken := options_of(self)) is not None:
                warn_of_unused(options, {"worker_id", *taken})
            await self._run(server, sockets)

    async def _run(self, server: "uvicorn.Server", sockets: list[socket.socket]) -> None:
        self._server = server
        status: object = 0
        try:
            await server.serve(sockets=sockets)
            # Older releases of uvicorn leave it to their command line to exit after a failed start.
            status = 0 if server.started else _STARTUP_FAILURE
        except SystemExit as error:
            status = error.code
        finally:
            self._server = None
        if isinstance(self._failure, StartupValidationError):
            # FastStream's command line knows how to show this one.
            raise self._failure
        if status:
            raise SystemExit(status)

    def exit(self) -> None:
        """Stop the server that runs this application: `run()`, or a single uvicorn or granian outside."""
        super().exit()
        if (server := self._server) is not None:
            self.broker_lifespan.drain(lambda: setattr(server, "should_exit", True))
        elif self._served and _server_listens():
            signal.raise_signal(signal.SIGINT)
