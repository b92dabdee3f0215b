"""Call an ASGI app without a server, and see every message that it sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from faststream.asgi.types import ASGIApp, Message, Scope


class Reply(NamedTuple):
    """What an app has answered to one HTTP request."""

    status: int
    raw_headers: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        """The headers by name; the tests send none twice."""
        return {name.decode(): value.decode() for name, value in self.raw_headers}


def http_scope(
    path: str = "/",
    method: str = "GET",
    *,
    query: str = "",
    headers: Iterable[tuple[str, str]] = (),
    **more: Any,
) -> Scope:
    """Return an HTTP scope as a server makes it."""
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


async def exchange(app: ASGIApp, scope: Scope, *received: Message) -> list[Message]:
    """Call the app with these messages to receive and return those it sends; it may not ask for more."""
    messages, sent = iter(received), []

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def request(app: ASGIApp, scope: Scope, *chunks: bytes) -> Reply:
    """Send one HTTP request whose body arrives in these chunks."""
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
