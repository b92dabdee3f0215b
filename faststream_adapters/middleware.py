"""FastStreamMiddleware: the adapter for any ASGI application."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Unpack

from faststream import FastStream
from faststream.asgi.types import ASGIApp, Message, Receive, Scope, Send

from ._compat import Broker
from .hosting import AdapterKeywords, hosting_for
from .lifespan import BrokerLifespan, HostStartError, serve_lifespan, unwrapped
from .redaction import redact, redacted_traceback
from .tasks import end

logger = logging.getLogger("faststream.adapters")


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
        # Wrapped twice, an application is still one host.
        self.host: ASGIApp = app.host if isinstance(app, FastStreamMiddleware) else app
        hosting = hosting_for(targets, keywords)
        self.lifespan = hosting.lifespan
        self._routes = hosting.routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection: the server's lifespan, or a request."""
        if scope["type"] == "lifespan":
            await serve_lifespan(host_first(self.app, scope, self.lifespan, host=self.host), receive, send)
            return
        await self._routes.begin(scope, receive, send, self.app)


@asynccontextmanager
async def host_first(
    app: ASGIApp,
    scope: Scope,
    lifespan: BrokerLifespan,
    *,
    host: object,
) -> AsyncIterator[None]:
    """Run an application's lifespan and, inside it, brokers.

    Args:
        app: The application that answers lifespan messages.
        scope: The lifespan scope; the application's state goes into it.
        lifespan: The lifespan of the brokers.
        host: What `Context("host")` gives.
    """
    async with host_running(app, scope), lifespan(host):
        yield


@asynccontextmanager
async def host_running(app: ASGIApp, scope: Scope) -> AsyncIterator[None]:
    """Play the server of an application's lifespan; one that has none is let be.

    Args:
        app: The application.
        scope: The lifespan scope; the application's state goes into it.

    Raises:
        HostStartError: The application's start or stop failed.

    Source: ASGI specification, "Lifespan Protocol".
    """
    running = _RunningHost(app, scope)
    try:
        await running.tell("startup")
        try:
            yield
        except BaseException:
            try:
                await running.tell("shutdown")
            except HostStartError as second:
                # The server is to hear of the first error.
                logger.error("%s", second)  # noqa: TRY400 (its traceback is logged already)
            raise
        await running.tell("shutdown")
    finally:
        await running.end()


class _RunningHost:
    """The server's side of a host's lifespan."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self._to_host: asyncio.Queue[Message] = asyncio.Queue()
        self._from_host: asyncio.Queue[Message] = asyncio.Queue()
        self._asked = False
        self._task = asyncio.ensure_future(app(scope, self._receive, self._from_host.put))

    async def _receive(self) -> Message:
        self._asked = True
        return await self._to_host.get()

    async def tell(self, stage: str) -> None:
        """Send a lifespan message and wait for the host's answer, if the host is still there."""
        if stage == "shutdown" and self._task.done():
            return
        self._to_host.put_nowait({"type": f"lifespan.{stage}"})
        answer = asyncio.create_task(self._from_host.get())
        try:
            await asyncio.wait((self._task, answer), return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                message = answer.result()
                if message["type"] == f"lifespan.{stage}.failed":
                    text = message.get("message") or f"The host application's {stage} failed."
                    raise HostStartError(redact(text))
            elif self._asked and (raised := self._task.exception()) is not None:
                error = unwrapped(raised)
                # It began, so it has a lifespan: this is its failure.
                logger.error("The host application raised: %s", redacted_traceback(error))
                msg = f"The host application's {stage} failed with {type(error).__name__}."
                raise HostStartError(msg) from error
        finally:
            answer.cancel()

    async def end(self) -> None:
        """End what is left of the host: some go on waiting for messages when there are no more."""
        if not self._task.done():
            await end(self._task)
        elif not self._task.cancelled():
            # Retrieved, or the event loop would report the error of a host that has no lifespan.
            self._task.exception()
