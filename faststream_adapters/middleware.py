"""FastStreamMiddleware: the adapter for any ASGI application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Unpack

from faststream import FastStream
from faststream.asgi.types import ASGIApp, Message, Receive, Scope, Send

from ._compat import Broker
from .hosting import AdapterKeywords, hosting_for
from .lifespan import BrokerLifespan, HostStartError, serve_lifespan
from .routing import Endpoint, Routes
from .supervision import end


class FastStreamMiddleware:
    """Wraps an ASGI application: runs brokers with it and serves endpoints in front of it.

    The application's own lifespan, if it has one, comes first and ends last.

    Args:
        app: The application.
        targets: One or more brokers, or one FastStream app, or one BrokerLifespan.
        keywords: See `AdapterKeywords`.

    Raises:
        SetupError: Two endpoints have one path, or targets and keywords cannot work together.
        TypeError: A keyword is unknown.
    """

    def __init__(
        self,
        app: ASGIApp,
        *targets: Broker | FastStream | BrokerLifespan,
        **keywords: Unpack[AdapterKeywords],
    ) -> None:
        self.app = app
        hosting = hosting_for(targets, keywords)
        self.lifespan = hosting.lifespan
        self._routes = Routes()
        for path, endpoint in hosting.routes:
            self._routes.add(path, endpoint, exact=isinstance(endpoint, Endpoint))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection: the server's lifespan, or a request."""
        if scope["type"] == "lifespan":
            await serve_lifespan(host_first(self.app, scope, self.lifespan), receive, send)
            return
        app, scope = self._routes.find(scope) or (self.app, scope)
        await app(scope, receive, send)


@asynccontextmanager
async def host_first(
    app: ASGIApp,
    scope: Scope,
    lifespan: BrokerLifespan,
    host: object = None,
) -> AsyncIterator[None]:
    """Run an application's lifespan and, inside it, brokers.

    Args:
        app: The application that answers lifespan messages.
        scope: The lifespan scope; the application's state goes into it.
        lifespan: The lifespan of the brokers.
        host: What `Context("host")` gives; the application when not given.
    """
    async with _host_running(app, scope), lifespan(app if host is None else host):
        yield


@asynccontextmanager
async def _host_running(app: ASGIApp, scope: Scope) -> AsyncIterator[None]:
    """Play the server of an application's lifespan; one that has none is let be.

    Source: ASGI specification, "Lifespan Protocol".
    """
    to_host: asyncio.Queue[Message] = asyncio.Queue()
    from_host: asyncio.Queue[Message] = asyncio.Queue()
    asked = False

    async def receive() -> Message:
        nonlocal asked
        asked = True
        return await to_host.get()

    task = asyncio.ensure_future(app(scope, receive, from_host.put))

    async def tell(stage: str) -> None:
        to_host.put_nowait({"type": f"lifespan.{stage}"})
        answer = asyncio.create_task(from_host.get())
        try:
            await asyncio.wait((task, answer), return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                message = answer.result()
                if message["type"] == f"lifespan.{stage}.failed":
                    raise HostStartError(message.get("message") or f"The host application's {stage} failed.")
            elif asked and (error := task.exception()) is not None:
                # It began, so it has a lifespan: this is its failure.
                msg = f"The host application's {stage} failed with {type(error).__name__}."
                raise HostStartError(msg) from error
        finally:
            answer.cancel()

    try:
        await tell("startup")
        try:
            yield
        finally:
            if not task.done():
                await tell("shutdown")
    finally:
        # Some hosts go on waiting for messages when there are no more.
        if not task.done():
            await end(task)
        elif not task.cancelled():
            # Retrieved, or the event loop would report the error of a host that has no lifespan.
            task.exception()
