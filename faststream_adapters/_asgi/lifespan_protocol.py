"""Both sides of the ASGI lifespan protocol: answering a server, and driving an application."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from faststream.asgi.types import ASGIApp, Message, Receive, Scope, Send

from faststream_adapters._utils.errors import SHOWN, HostStartError, is_first_report, shown_text, unwrapped
from faststream_adapters._utils.loggers import DEFAULT, Loggers
from faststream_adapters._utils.redaction import redact, without_secrets
from faststream_adapters._utils.tasks import cancel_and_wait

T = TypeVar("T")


_TURNS = 5
"""Iterations of the event loop that granian needs to read a failure; it prints what is raised earlier."""

_RAISES_WITHIN = 1.0
"""Seconds that a host has to raise its error after it has reported a failure."""


async def serve_lifespan(
    context: AbstractAsyncContextManager[None],
    receive: Receive,
    send: Send,
    loggers: Loggers = DEFAULT,
) -> None:
    """Answer a server's lifespan messages: enter a context at startup and leave it at shutdown.

    Args:
        context: The context manager.
        receive: The ASGI receive callable.
        send: The ASGI send callable.
        loggers: Where the traceback of an error is logged; if they are silent, the server gets it.

    Raises:
        Exception: The error of the startup or shutdown, without credentials, after it was reported to the
            server. Servers rely on the report, test clients on the error.

    Source: ASGI specification, "Lifespan Protocol".
    """
    stage = "startup"
    error: BaseException | None = None
    await receive()
    try:
        async with context:
            await send({"type": "lifespan.startup.complete"})
            stage = "shutdown"
            await receive()
    except BaseException as raised:
        error = unwrapped(raised)
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            # The server has cancelled the lifespan and does not read any more messages.
            raise
    if error is None:
        await send({"type": "lifespan.shutdown.complete"})
        return
    # Outside the `except` block: servers print what `send` raises, and its context would be the error.
    try:
        await _report(error, stage, send, loggers)
        raise without_secrets(error)
    finally:
        # The error's traceback refers to this frame.
        del error


async def _report(error: BaseException, stage: str, send: Send, loggers: Loggers) -> None:
    """Send the failure message, without which a server assumes that the app has no lifespan and serves it."""
    message = redact(str(error))
    if not isinstance(error, SHOWN):
        if loggers.are_silent:
            message = f"The {stage} failed: {shown_text(error)}"
        else:
            message = f"The {stage} failed with {type(error).__name__}; see the log for the traceback."
            if is_first_report(error):
                loggers["lifecycle"].error("The %s failed: %s", stage, shown_text(error))
    await send({"type": f"lifespan.{stage}.failed", "message": message})
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def lifespan_scope() -> Scope:
    """Return the scope with which a server drives an application's lifespan."""
    return {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}


@asynccontextmanager
async def drive_lifespan(app: ASGIApp, scope: Scope, loggers: Loggers = DEFAULT) -> AsyncIterator[None]:
    """Drive an application's lifespan as a server does. Applications without one are ignored.

    Args:
        app: The application.
        scope: The lifespan scope, to which the application adds its state.
        loggers: Where a second error is logged.

    Raises:
        Exception: The error that the application's startup or shutdown raised.
        HostStartError: The application reported a failure, but raised no error.

    Source: ASGI specification, "Lifespan Protocol".
    """
    host = _HostLifespan(app, scope, loggers)
    try:
        if (error := await host.run("startup")) is not None:
            raise error
        try:
            yield
        except BaseException:
            # The first error is the one to raise.
            if (second := await host.run("shutdown")) is not None and is_first_report(second):
                logger = loggers["lifecycle"]
                logger.error("The host application's shutdown failed too: %s", shown_text(second))  # noqa: TRY400 (redacted)
            raise
        if (error := await host.run("shutdown")) is not None:
            raise error
    finally:
        error = second = None
        await host.cancel()


class _HostLifespan:
    """The server's side of a host's lifespan, with the task that runs the host."""

    def __init__(self, app: ASGIApp, scope: Scope, loggers: Loggers) -> None:
        self._loggers = loggers
        self._to_host: asyncio.Queue[Message] = asyncio.Queue()
        self._from_host: asyncio.Queue[Message] = asyncio.Queue()
        self._supported = False
        """Whether the host has called `receive`; one that raises before has no lifespan."""
        self._listening = asyncio.Event()
        """Set while the host waits for a message."""
        self._task = asyncio.ensure_future(app(scope, self._receive, self._from_host.put))

    async def _receive(self) -> Message:
        self._supported = True
        self._listening.set()
        message = await self._to_host.get()
        self._listening.clear()
        return message

    async def run(self, stage: str) -> BaseException | None:
        """Send the message of a stage, wait until the host has replied or ended, and return its error."""
        if stage == "shutdown" and self._task.done():
            return None
        self._to_host.put_nowait({"type": f"lifespan.{stage}"})
        message = await self._first(self._from_host.get())
        if message is None:
            return self._raised() if self._supported else None
        if message["type"] != f"lifespan.{stage}.failed":
            return None
        # Most hosts raise their error now. A host that waits for another message will not.
        await self._first(self._listening.wait(), _RAISES_WITHIN)
        if self._task.done() and (error := self._raised()) is not None:
            return error
        return HostStartError(redact(message.get("message") or f"The host application's {stage} failed."))

    async def _first(self, step: Coroutine[Any, Any, T], within: float | None = None) -> T | None:
        """Return the result of a step, or None if the host ends before it, or within so many seconds."""
        task = asyncio.create_task(step)
        try:
            await asyncio.wait((self._task, task), timeout=within, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()

    def _raised(self) -> BaseException | None:
        error = self._task.exception()
        return None if error is None else unwrapped(error)

    async def cancel(self) -> None:
        """Cancel the host if it is still running: some wait for further messages after the shutdown."""
        if not self._task.done():
            await cancel_and_wait(self._task, loggers=self._loggers)
        elif not self._task.cancelled():
            # Retrieve the error of a host without a lifespan, which the event loop would log otherwise.
            self._task.exception()
