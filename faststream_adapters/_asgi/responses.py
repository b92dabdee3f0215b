"""HTTP responses, which are ASGI apps themselves."""

import re
from collections.abc import Mapping
from typing import Any

from faststream.asgi.types import ASGIApp, Message, Receive, Scope, Send

from faststream_adapters._compat.faststream import json_dumps

_FORBIDDEN = re.compile(rb"[\r\n\0]")
_NO_CONTENT_LENGTH = frozenset({*range(100, 200), 204, 304})

RETRY_AFTER = {"Retry-After": "1"}
"""The headers of a 503 for a broker that is not up: it may be up in a second."""


class AsgiResponse:
    """A complete HTTP response, which can be sent any number of times.

    Args:
        body: The encoded body.
        status_code: The HTTP status.
        headers: Header names and values; `Content-Length` is added unless the status forbids it.

    Raises:
        ValueError: A header contains a line break or a NUL, with which it would end early.

    Source: RFC 9110, section 5.5.
    """

    __slots__ = ("body", "raw_headers", "status_code")

    def __init__(
        self,
        body: bytes = b"",
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status_code = status_code
        self.body = body
        self.raw_headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in (headers or {}).items()
        ]
        for name, value in self.raw_headers:
            if _FORBIDDEN.search(name) or _FORBIDDEN.search(value):
                # Without the value, which may come from a request.
                msg = f"The header {name!r} contains a line break or a NUL."
                raise ValueError(msg)
        if status_code not in _NO_CONTENT_LENGTH and not any(
            name == b"content-length" for name, _ in self.raw_headers
        ):
            self.raw_headers.append((b"content-length", str(len(body)).encode()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(status_code={self.status_code}, {len(self.body)} bytes)"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (the ASGI signature)
        """Send the response to a request, or close a websocket."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000, "reason": ""})
            return
        # A copy, because middlewares add their headers to the list that they receive.
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": [*self.raw_headers]},
        )
        await send(
            {"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else self.body},
        )


class JSONResponse(AsgiResponse):
    """A JSON response.

    Args:
        data: The value to serialise; bytes are sent unchanged.
        status_code: The HTTP status.
        headers: Further headers, which override `Content-Type: application/json`.

    Raises:
        ValueError: The value contains NaN or Infinity, or a header a line break or a NUL.
    """

    __slots__ = ()

    def __init__(
        self,
        data: Any,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            data if isinstance(data, bytes) else json_dumps(data),
            status_code,
            {
                "content-type": "application/json",
                **{name.lower(): value for name, value in (headers or {}).items()},
            },
        )


async def collect_response(
    app: ASGIApp,
    scope: Scope,
    receive: Receive,
) -> tuple[int, list[tuple[str, str]], bytes]:
    """Call an app and collect its response, for hosts whose views return the host's own response type.

    Args:
        app: The app.
        scope: The HTTP scope.
        receive: The ASGI receive callable.

    Returns:
        The status, the headers in order, and the complete body.
    """
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *parts = sent
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
    return start["status"], headers, b"".join([part.get("body", b"") for part in parts])
