"""FastStream's deprecated FastAPI plugin, and the package's stand-in for it."""

from __future__ import annotations

import re
import warnings
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from fastapi import FastAPI

from tests.harness.brokers import NAMES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CLIENTS = tuple(name for name in NAMES if name != "mqtt")
"""The clients that the stand-in has."""

SERVICES = Path(__file__).parents[1] / "integration/hosts/plugin_services"
"""Services on the plugin."""

UPSTREAM, STAND_IN = "faststream.{}.fastapi", "faststream_adapters.fastapi.plugin.{}"


def load_plugin(name: str, client: str = "nats") -> Any:
    """Import the module of a client; FastStream's own warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return import_module(name.format(client))


def kind_of(client: str) -> str:
    """Return what the names of a client's classes begin with."""
    return "Kafka" if client == "confluent" else client.title()


def router_class(plugin: Any, client: str) -> Any:
    """Return the class of the router in a client's module."""
    return getattr(plugin, f"{kind_of(client)}Router")


def importable_plugins() -> tuple[str, ...]:
    """Return both, or the stand-in alone where FastStream has removed its plugin."""
    try:
        load_plugin(UPSTREAM)
    except ImportError:
        return (STAND_IN,)
    return (UPSTREAM, STAND_IN)


def with_stand_in(code: str) -> str:
    """Return the code with the stand-in imported instead of the plugin."""
    return re.sub(r"faststream\.(\w+)\.fastapi", lambda match: STAND_IN.format(match[1]), code)


def app_with(*routers: Any, **keywords: Any) -> FastAPI:
    """Return an application that includes routers."""
    app = FastAPI(**keywords)
    for router in routers:
        app.include_router(router)
    return app


@asynccontextmanager
async def in_memory(*routers: Any) -> AsyncIterator[None]:
    """Replace the brokers of routers by FastStream's TestBrokers."""
    async with AsyncExitStack() as stack:
        for router in routers:
            client = type(router.broker).__module__.split(".")[1]
            broker = getattr(import_module(f"faststream.{client}"), f"Test{kind_of(client)}Broker")
            await stack.enter_async_context(broker(router.broker))
        yield


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Run an application's lifespan, and yield a client whose requests have its state."""
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(with_state), base_url="http://test"
        ) as client:
            yield client
