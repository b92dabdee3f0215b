"""The browser, and the services that it visits."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

from tests.browser.browsing import ARGUMENTS, CHROMIUM
from tests.browser.service import APPS
from tests.servers import HOST
from tests.servers.asgi import AppServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from playwright.async_api import Browser

    from tests.servers.nats import NatsServer

ROOT = Path(__file__).parents[2]
SERVICE = [sys.executable, "-m", "uvicorn", "--factory", "tests.browser.service:create", "--host", HOST]


class Service(AppServer):
    """The service in a process of its own.

    Args:
        nats: Its NATS server.
        host: The name of its host.
        variables: What it is; see the service.
        page: The keywords of its page.
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
    """Starts services, each kind once."""

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
    ) -> Service:
        """Return a started service."""
        variables = {"SERVICE_TEXTS": texts, "SERVICE_VERSION": version}
        if not viewer:
            variables["SERVICE_WITHOUT"] = "asyncapi_viewer"
        key = json.dumps([host, variables, page])
        if key not in self._started:
            service = Service(self._nats, host, variables, page or {})
            self._started[key] = self._stack.enter_context(service)
        return self._started[key]


@pytest.fixture(scope="module")
def services(shared_nats: NatsServer) -> Iterator[Services]:
    """Return what starts services, which end with the module."""
    with ExitStack() as stack:
        yield Services(shared_nats, stack)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Return a headless Chromium."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        await chromium.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return the directory for screenshots, which `FASTSTREAM_ADAPTERS_SCREENSHOTS` names."""
    directory = Path(os.environ.get("FASTSTREAM_ADAPTERS_SCREENSHOTS") or tmp_path)
    directory.mkdir(parents=True, exist_ok=True)
    return directory
