"""Responses that take long to make, for clients that may disconnect before."""

import asyncio
import gzip
from abc import abstractmethod
from collections.abc import Awaitable, Coroutine
from typing import Any, Unpack

from faststream.asgi.types import Receive, Scope, Send

from faststream_adapters._utils.redaction import redacted_traceback

from .endpoint import Endpoint, SchemaKeywords
from .negotiation import header, negotiate_encoding
from .responses import AsgiResponse

_DISCONNECTED = AsgiResponse(b"", 499)
"""The response when the client has disconnected, which hosts and their logs see; nginx has the same code."""

_GZIP_LEVEL = 6
"""Level 9, Python's default, takes four times as long and produces the same size."""


class SlowEndpoint(Endpoint):
    """An endpoint whose responses take long to make, which may fail.

    It gives up a response whose client has disconnected. It logs the first of several failures.

    Args:
        failure: A sentence for the response if it cannot be made.
        schema: See `SchemaKeywords`.
    """

    def __init__(self, failure: str, **schema: Unpack[SchemaKeywords]) -> None:
        super().__init__(**schema)
        self._failure_logged = False
        """Whether the last failure was logged, and no success came after it."""
        self._failed = AsgiResponse(
            f"{failure} The log contains the error.".encode(),
            500,
            {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"},
        )

    def respond(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Respond to a request when the response has been made."""
        return send_when_made(self._response(scope), scope, receive, send)

    async def _response(self, scope: Scope) -> AsgiResponse:
        try:
            return await self._make(scope)
        except Exception as error:  # noqa: BLE001 (code of the application can raise anything)
            if not self._failure_logged:
                self._failure_logged = True
                self._log(redacted_traceback(error))
            return self._failed

    @abstractmethod
    async def _make(self, scope: Scope) -> AsgiResponse:
        """Make the response to a request."""

    @abstractmethod
    def _log(self, traceback: str) -> None:
        """Log that a response could not be made."""


def accepts_gzip(scope: Scope) -> bool:
    """Return whether the client prefers a response that is compressed with gzip."""
    return negotiate_encoding(header(scope, b"accept-encoding"), ("gzip",)) == "gzip"


def compress(body: bytes) -> bytes:
    """Compress a body with gzip."""
    return gzip.compress(body, _GZIP_LEVEL)


async def send_when_made(
    response: Coroutine[Any, Any, AsgiResponse], scope: Scope, receive: Receive, send: Send
) -> None:
    """Send a response when it has been made; cancel its making if the client disconnects before.

    Args:
        response: Makes the response.
        scope: The HTTP scope.
        receive: The ASGI receive callable.
        send: The ASGI send callable.

    Raises:
        Exception: The error of the making.
    """
    making = asyncio.create_task(response)
    listening = asyncio.create_task(_disconnects(receive))
    try:
        await asyncio.wait((making, listening), return_when=asyncio.FIRST_COMPLETED)
        if not making.done() and not listening.result():
            await asyncio.wait((making,))
        made = making.result() if making.done() else _DISCONNECTED
    finally:
        listening.cancel()
        making.cancel()
        await asyncio.wait((making,))
    await made(scope, receive, send)


async def _disconnects(receive: Receive) -> bool:
    """Wait until the client disconnects; return False if the host does not tell."""
    more = True
    try:
        while (message := await receive())["type"] == "http.request" and more:
            more = message.get("more_body", False)
    except Exception:  # noqa: BLE001 (a host may refuse to call this after the whole body was read)
        return False
    return bool(message["type"] == "http.disconnect")
