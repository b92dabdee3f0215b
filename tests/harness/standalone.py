"""Helpers for the tests of AsgiFastStream and FastStream."""

from __future__ import annotations

import asyncio
from typing import Any

import faststream
import pytest

from faststream_adapters import (
    AsgiFastStream,
    AsgiResponse,
    FastStream,
    get,
)
from tests.harness.asgi_calls import http_scope, request

BASES = pytest.mark.parametrize(
    "base_class", [FastStream, faststream.FastStream], ids=["adapters", "upstream"]
)
"""Runs a test with the FastStream class of this package and with the original one."""


def as_asgi(base: faststream.FastStream, **options: Any) -> AsgiFastStream:
    """Convert an application of either class."""
    if isinstance(base, FastStream):
        return base.as_asgi(**options)
    return AsgiFastStream.from_app(base, **options)


@get
async def hello() -> AsgiResponse:
    """Respond with a greeting."""
    return AsgiResponse(b"hello")


async def status(app: AsgiFastStream, path: str, method: str = "GET") -> int:
    """Return the status of a response."""
    return (await request(app, http_scope(path, method))).status


class Inbox:
    """The messages that subscribers have received."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, message: Any) -> None:
        self._messages.put_nowait(message)

    async def get(self) -> Any:
        async with asyncio.timeout(5):
            return await self._messages.get()
