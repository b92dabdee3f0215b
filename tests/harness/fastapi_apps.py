"""FastAPI applications whose broker is in memory."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from faststream.nats import NatsBroker, TestNatsBroker

from faststream_adapters.fastapi import FastStreamRouter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def running(broker: NatsBroker, app: FastAPI | None = None, **keywords: Any) -> AsyncIterator[FastAPI]:
    """Run an application whose broker is in memory.

    Args:
        broker: The broker.
        app: The application; None creates one.
        keywords: Keywords of the FastStreamRouter.
    """
    app = app or FastAPI()
    app.include_router(FastStreamRouter(broker, **keywords))
    async with TestNatsBroker(broker), app.router.lifespan_context(app):
        yield app
