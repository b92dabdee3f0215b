"""An HTTP request: its headers, its query and its body, which is read on demand and up to a limit."""

import math
from collections.abc import AsyncGenerator
from typing import Any, cast
from urllib.parse import parse_qs

from faststream.asgi.types import Receive, Scope, Send

from faststream_adapters._compat.faststream import json_loads

from .responses import AsgiResponse

MAX_BODY_SIZE = 2**20
"""The largest body in bytes, unless a handler has its own limit."""


class RequestError(Exception):
    """The request cannot be handled, through no fault of the handler."""

    response = AsgiResponse(b"Bad Request", 400)


class ClientDisconnectError(RequestError):
    """The client disconnected before its request was complete; it receives no response."""


class InvalidJSONError(RequestError, ValueError):
    """The body is not JSON."""

    response = AsgiResponse(b"Invalid JSON", 400)


class BodyTooLargeError(RequestError):
    """The body is larger than the handler's limit."""

    response = AsgiResponse(b"Content Too Large", 413)


class AsgiRequest:
    """An HTTP request, as passed to a handler.

    Args:
        scope: The HTTP scope.
        receive: The ASGI receive callable, from which the body is read on demand.
        send: The ASGI send callable.
        max_body_size: The largest body in bytes; None for no limit.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,  # noqa: ARG002 (FastStream's signature)
        max_body_size: int | None = MAX_BODY_SIZE,
    ) -> None:
        self.scope = scope
        self._receive = receive
        self._max_body_size = math.inf if max_body_size is None else max_body_size
        self._body: bytes | None = None
        self._streamed = False
        self._headers: dict[str, str] | None = None
        self._query_params: dict[str, list[str]] | None = None

    @property
    def method(self) -> str:
        """The HTTP method, in upper case."""
        return cast("str", self.scope["method"])

    @property
    def headers(self) -> dict[str, str]:
        """The headers by lower-case name; of repeated headers, the last."""
        if self._headers is None:
            self._headers = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in self.scope["headers"]
            }
        return self._headers

    @property
    def query_params(self) -> dict[str, list[str]]:
        """The query parameters, each with the list of its values."""
        if self._query_params is None:
            self._query_params = parse_qs(self.scope.get("query_string", b"").decode("latin-1"))
        return self._query_params

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives.

        Raises:
            BodyTooLargeError: The body is larger than the limit.
            ClientDisconnectError: The client disconnected.
            RuntimeError: The body has been streamed before.
        """
        if self._body is not None:
            yield self._body
            return
        if self._streamed:
            msg = "The request body has been streamed already: call stream() once, or use body()."
            raise RuntimeError(msg)
        self._streamed = True
        more, size = True, 0
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnectError
            if chunk := message.get("body", b""):
                size += len(chunk)
                if size > self._max_body_size:
                    raise BodyTooLargeError
                yield chunk
            more = message.get("more_body", False)

    async def body(self) -> bytes:
        """Return the complete body; it can be called repeatedly.

        Raises:
            BodyTooLargeError: The body is larger than the limit.
            ClientDisconnectError: The client disconnected.
        """
        if self._body is None:
            self._body = b"".join([chunk async for chunk in self.stream()])
        return self._body

    async def json(self) -> Any:
        """Return the body, parsed as JSON.

        Raises:
            InvalidJSONError: The body is not JSON; a ValueError.
            BodyTooLargeError: The body is larger than the limit.
            ClientDisconnectError: The client disconnected.

        Source: RFC 8259, which has no NaN and no Infinity.
        """
        body = await self.body()
        try:
            return json_loads(body)
        except (ValueError, RecursionError) as error:
            raise InvalidJSONError from error
