"""Responses that an endpoint or a handler gives back: each one is an ASGI app itself."""

from collections.abc import Mapping
from typing import Any

from faststream.asgi.types import ASGIApp, Message, Receive, Scope, Send

from ._compat import json_dumps

_NO_CONTENT_LENGTH = frozenset({*range(100, 200), 204, 304})


class AsgiResponse:
    """A whole HTTP response, kept ready to be sent any number of times.

    Args:
        body: The body, as it goes over the wire.
        status_code: The HTTP status.
        headers: Header names and values; `Content-Length` is added where HTTP allows one.
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
        if status_code not in _NO_CONTENT_LENGTH and not any(
            name == b"content-length" for name, _ in self.raw_headers
        ):
            self.raw_headers.append((b"content-length", str(len(body)).encode()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(status_code={self.status_code}, {len(self.body)} bytes)"

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI's)
        """Send the response; a websocket is closed instead."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000, "reason": ""})
            return
        # A new list each time: middlewares add their headers to the one they are handed.
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": [*self.raw_headers]},
        )
        await send(
            {"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else self.body},
        )

    # A method is called in less time than an object.
    __call__ = answer


class JSONResponse(AsgiResponse):
    """A JSON response.

    Args:
        data: What to serialise; bytes are sent as they are.
        status_code: The HTTP status.
        headers: More headers; they win over `Content-Type: application/json`.
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


async def answer_of(
    app: ASGIApp,
    scope: Scope,
    receive: Receive,
) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return what an app answers, for a host whose views return responses of its own.

    Args:
        app: The app.
        scope: The HTTP scope.
        receive: The ASGI receive callable.

    Returns:
        The status, the headers in their order, and the whole body.
    """
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *parts = sent
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
    return start["status"], headers, b"".join(part.get("body", b"") for part in parts)
