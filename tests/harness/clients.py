"""Small things that many tests need."""

import asyncio
from collections.abc import Callable

import httpx
from faststream.asgi.types import ASGIApp


def client(app: ASGIApp, *, root_path: str = "") -> httpx.AsyncClient:
    """Return an HTTP client of an ASGI app in this process."""
    transport = httpx.ASGITransport(app, root_path=root_path)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def status(app: ASGIApp, path: str = "/") -> int:
    """Return the status that an app in this process answers with."""
    async with client(app) as http:
        return (await http.get(path)).status_code


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something that tells nobody of its changes is so."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (that is what it is for)
            await asyncio.sleep(0.01)


async def eventually_status(app: ASGIApp, expected: int, seconds: float = 15.0) -> None:
    """Wait until an endpoint answers with this status."""
    async with asyncio.timeout(seconds):
        while await status(app) != expected:  # noqa: ASYNC110 (that is what it is for)
            await asyncio.sleep(0.02)
