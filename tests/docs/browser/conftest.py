"""Fixtures for the browser and the services that it visits."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

from tests.docs.browser.browsing import ARGUMENTS, CHROMIUM
from tests.docs.browser.service import APPS
from tests.harness.leftovers import lasting
from tests.harness.servers import HOST
from tests.harness.servers.asgi import AppServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from playwright.async_api import Browser

    from tests.harness.servers.nats import NatsServer

ROOT = Path(__file__).parents[3]
SERVICE = [sys.executable, "-m", "uvicorn", "--factory", "tests.docs.browser.service:create", "--host", HOST]


class Service(AppServer):
    """The service in a separate process.

    Args:
        host: A name in `APPS`.
        variables: Environment variables that configure the service; see `service.py`.
        page: Keywords of the AsyncAPI page.
    """

    def __init__(self, nats: NatsServer, host: str, variables: dict[str, str], page: dict[str, Any]) -> None:
        self.path = APPS[host].page
        env = {
            "PYTHONPATH": str(ROOT),
            "NATS_URL": nats.url,
            "SERVICE_HOST": host,
            "SERVICE_PAGE": json.dumps(page),
            **variables,
        }
        super().__init__([*SERVICE, "--port", "{port}"], env=env, ready_path=self.path, timeout=60.0)

    @property
    def page(self) -> str:
        """The URL of the page."""
        return self.url + self.path


class Services:
    """Starts services, at most one for each configuration."""

    def __init__(self, nats: NatsServer, stack: ExitStack) -> None:
        self._nats = nats
        self._stack = stack
        self._started: dict[str, Service] = {}

    def __call__(
        self,
        host: str = "standalone",
        *,
        texts: str = "plain",
        version: str = "3.0.0",
        viewer: bool = True,
        page: dict[str, Any] | None = None,
        subscribers: int = 0,
    ) -> Service:
        """Return a running service with this configuration."""
        variables = {
            "SERVICE_TEXTS": texts,
            "SERVICE_VERSION": version,
            "SERVICE_SUBSCRIBERS": str(subscribers),
        }
        if not viewer:
            variables["SERVICE_WITHOUT"] = "asyncapi_viewer"
        key = json.dumps([host, variables, page])
        if key not in self._started:
            # It ends with the module.
            with lasting():
                service = Service(self._nats, host, variables, page or {})
                self._started[key] = self._stack.enter_context(service)
        return self._started[key]


@pytest.fixture(scope="module")
def services(shared_nats: NatsServer) -> Iterator[Services]:
    """Return a factory of services, which run until the end of the module."""
    with ExitStack() as stack:
        yield Services(shared_nats, stack)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Return a headless Chromium."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        await chromium.close()
