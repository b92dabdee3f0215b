"""A plain ASGI application that records its lifespan, for the tests of FastStreamMiddleware."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from faststream.nats import NatsBroker

from faststream_adapters import FastStreamMiddleware
from tests.harness.hosts import StartupFailedError, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from faststream.asgi.types import ASGIApp, Message, Receive, Scope, Send


LIFESPAN: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}


class Site:
    """An application that records its lifespan events and the scopes of its requests."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.requests: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            self.requests.append(scope)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"the site"})
            return
        try:
            await self.run_lifespan(scope, receive, send)
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise
        finally:
            self.log.append("ended")

    async def run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.expect("startup", receive)
        await send({"type": "lifespan.startup.complete"})
        await self.expect("shutdown", receive)
        await send({"type": "lifespan.shutdown.complete"})

    async def expect(self, stage: str, receive: Receive) -> None:
        assert (await receive())["type"] == f"lifespan.{stage}"
        self.log.append(stage)


class HangingSite(Site):
    """A site whose startup or shutdown never completes."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self._stage = stage

    async def expect(self, stage: str, receive: Receive) -> None:
        await super().expect(stage, receive)
        if stage == self._stage:
            await asyncio.Event().wait()


class CancellingServer:
    """A server that starts an application and cancels its lifespan at the end of the context."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[Message] = []

    @asynccontextmanager
    async def running(self, app: ASGIApp) -> AsyncIterator[None]:
        async def send(message: Message) -> None:
            self.sent.append(message)

        self.send_event("startup")
        task = asyncio.ensure_future(app({**LIFESPAN}, self._messages.get, send))
        yield
        task.cancel()
        await asyncio.wait((task,), timeout=10)
        assert task.cancelled()

    def send_event(self, stage: str) -> None:
        self._messages.put_nowait({"type": f"lifespan.{stage}"})


class States:
    """A state callback that appends the states of the brokers to the log of a site."""

    def __init__(self, site: Site, name: str = "brokers") -> None:
        self._site = site
        self._name = name

    def __call__(self, old: str, new: str) -> None:
        if new in {"running", "draining", "stopped"}:
            self._site.log.append(f"{self._name} {new}")


def wrapped(site: Site, broker: NatsBroker, **keywords: Any) -> FastStreamMiddleware:
    """Return a site in the middleware. Its log includes the states of the broker."""
    return FastStreamMiddleware(site, broker, on_state_change=States(site), **keywords)


async def startup_failure(app: ASGIApp) -> str:
    """Return the message of an application that fails to start."""
    with pytest.raises(StartupFailedError) as failed:
        async with serving(app):
            pytest.fail("It started.")
    return str(failed.value)
