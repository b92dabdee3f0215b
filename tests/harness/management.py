"""Requests to a separate address, such as that of a management server."""

from __future__ import annotations

import ssl
from contextlib import closing, contextmanager, nullcontext
from typing import TYPE_CHECKING

import httpx

from tests.harness.servers import HOST, hold_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def reserved_address() -> Iterator[str]:
    """Reserve a TCP address, `host:port`, on which this process and its children can listen."""
    port, held = hold_port()
    with nullcontext() if held is None else closing(held):
        yield f"{HOST}:{port}"


async def fetch(address: str, path: str, method: str = "GET") -> httpx.Response | None:
    """Send a request on a new connection, and return the response, or None without one.

    Args:
        address: `host:port` or `unix:/path`.
        path: The path of the URL.
        method: The HTTP method.
    """
    kind, _, socket_path = address.partition(":")
    is_unix = kind == "unix"
    # The default context reads all certificates of authorities, which takes ten times as long as the request.
    unused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    transport = httpx.AsyncHTTPTransport(verify=unused, uds=socket_path if is_unix else None)
    async with httpx.AsyncClient(transport=transport, timeout=10.0) as client:
        try:
            return await client.request(method, f"http://{'localhost' if is_unix else address}{path}")
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            return None


async def answer(address: str, path: str) -> str | None:
    """Return the status and the body of a response, as in `503 starting`, or None without one."""
    response = await fetch(address, path)
    return None if response is None else f"{response.status_code} {response.text}"
