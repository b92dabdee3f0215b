"""HTTP clients for ASGI applications in this process."""

import asyncio

import httpx
from faststream.asgi.types import ASGIApp


def client(app: ASGIApp, *, root_path: str = "") -> httpx.AsyncClient:
    """Return an HTTP client for an ASGI app in this process."""
    transport = httpx.ASGITransport(app, root_path=root_path)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def status(app: ASGIApp, path: str = "/") -> int:
    """Return the status of the response of an ASGI app in this process."""
    async with client(app) as http:
        return (await http.get(path)).status_code


async def eventually_status(app: ASGIApp, expected: int, seconds: float = 15.0, *, path: str = "/") -> None:
    """Wait until an endpoint responds with this status."""
    async with asyncio.timeout(seconds):
        while await status(app, path) != expected:  # noqa: ASYNC110 (an endpoint can only be polled)
            await asyncio.sleep(0.02)
