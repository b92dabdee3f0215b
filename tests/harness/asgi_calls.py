"""Call an ASGI app without a server, and record all messages that it sends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from faststream.asgi.types import ASGIApp, Message, Scope

COMPLETE: Message = {"type": "http.request", "body": b"", "more_body": False}
"""A request without a body."""


class Reply(NamedTuple):
    """The response of an app to one HTTP request."""

    status: int
    raw_headers: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        """The headers by name. No header may be sent twice."""
        return {name.decode(): value.decode() for name, value in self.raw_headers}


def http_scope(
    path: str = "/",
    method: str = "GET",
    *,
    query: str = "",
    headers: Iterable[tuple[str, str]] = (),
    **more: Any,
) -> Scope:
    """Return an HTTP scope like that of a server."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        **more,
    }


async def exchange(
    app: ASGIApp, scope: Scope, *received: Message, sent: list[Message] | None = None
) -> list[Message]:
    """Call an app that receives at most these messages, and return the messages that it sends.

    Args:
        app: The app.
        scope: The scope.
        received: The messages to receive.
        sent: Gets the messages, for an app that raises.
    """
    messages = iter(received)
    sent = [] if sent is None else sent

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def request(app: ASGIApp, scope: Scope, *chunks: bytes) -> Reply:
    """Send one HTTP request whose body is received in these chunks."""
    chunks = chunks or (b"",)
    last = len(chunks) - 1
    body = [
        {"type": "http.request", "body": chunk, "more_body": number < last}
        for number, chunk in enumerate(chunks)
    ]
    start, *rest = await exchange(app, scope, *body)
    assert start["type"] == "http.response.start"
    assert {message["type"] for message in rest} == {"http.response.body"}
    assert not rest[-1].get("more_body", False)
    return Reply(start["status"], start["headers"], b"".join(message["body"] for message in rest))


class Client:
    """A client that sends one HTTP request, and stays connected until the test disconnects it.

    Args:
        app: The app.
        scope: The scope of the request.
        messages: The messages that the app receives; by default, that the request is complete.
    """

    def __init__(self, app: ASGIApp, scope: Scope, *messages: Message) -> None:
        self.sent: list[Message] = []
        self._received: asyncio.Queue[Message] = asyncio.Queue()
        for message in messages or (COMPLETE,):
            self._received.put_nowait(message)
        self.status = asyncio.create_task(self._request(app, scope))

    async def _request(self, app: ASGIApp, scope: Scope) -> int:
        async def send(message: Message) -> None:
            self.sent.append(message)

        await app(scope, self._received.get, send)
        status: int = self.sent[0]["status"]
        return status

    @property
    def waits(self) -> bool:
        """Whether the app has received all messages so far."""
        return self._received.empty()

    def disconnect(self) -> None:
        """Close the connection."""
        self._received.put_nowait({"type": "http.disconnect"})
