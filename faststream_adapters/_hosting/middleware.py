"""FastStreamMiddleware: the adapter for any ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Unpack

from faststream.asgi.types import ASGIApp, Receive, Scope, Send

from faststream_adapters._asgi.lifespan_protocol import drive_lifespan, serve_lifespan
from faststream_adapters._hosting.assembly import assemble
from faststream_adapters._hosting.options import AdapterKeywords
from faststream_adapters._lifecycle.lifespan import BrokerLifespan
from faststream_adapters._lifecycle.managed import managed_broker
from faststream_adapters._lifecycle.targets import Target


class FastStreamMiddleware:
    """Wraps an ASGI application: runs brokers with it and serves endpoints in front of it.

    The application's own lifespan, if it has one, starts before the brokers and stops after them.

    Args:
        app: The application.
        targets: One or more brokers, or one FastStream app, or one object that has a `broker_lifespan`.
        keywords: See `AdapterKeywords`.

    Raises:
        SetupError: The targets or the keywords are invalid, or cannot be combined.
        TypeError: A keyword is unknown.
    """

    def __init__(
        self,
        app: ASGIApp,
        *targets: Target,
        **keywords: Unpack[AdapterKeywords],
    ) -> None:
        self.app = app
        # With nested middlewares, the innermost application is the host.
        self.host: ASGIApp = app.host if isinstance(app, FastStreamMiddleware) else app
        assembly = assemble(targets, keywords, FastStreamMiddleware)
        self.broker_lifespan = assembly.broker_lifespan
        self._routes = assembly.routes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection of any type."""
        if scope["type"] == "lifespan":
            lifespan = self.broker_lifespan
            # Starlette puts itself into the scope: what is inside may be another middleware of its own.
            host = scope.get("app", self.host)
            context = run_with_host(self.app, scope, lifespan, host=host)
            await serve_lifespan(context, receive, send, lifespan.loggers)
            return
        app, scope = self._routes.find(scope) or (self.app, scope)
        await app(scope, receive, send)


@asynccontextmanager
async def run_with_host(
    app: ASGIApp,
    scope: Scope,
    lifespan: BrokerLifespan,
    *,
    host: object,
) -> AsyncIterator[None]:
    """Run an application's lifespan with the lifespan of brokers inside it.

    Args:
        app: The ASGI application.
        scope: The lifespan scope, to which the application adds its state.
        lifespan: The lifespan of the brokers.
        host: The value of `Context("host")`, unless an adapter inside the application, below other
            middleware, has started the brokers in a host already.
    """
    earlier = _host_of(lifespan)
    async with drive_lifespan(app, scope, lifespan.loggers):
        # If they had a host before, it is another application's, and the lifespan refuses this one.
        inner = _host_of(lifespan) if earlier is None else None
        async with lifespan(host if inner is None else inner):
            yield


def _host_of(lifespan: BrokerLifespan) -> object:
    """Return the host that brokers of a lifespan run in, or None."""
    hosts = (managed_broker(broker).host for broker in lifespan.brokers)
    return next((host for host in hosts if host is not None), None)
