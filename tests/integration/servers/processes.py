"""The servers of the matrix, each with an application that is connected to a NATS server."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import nats as nats_py
import pytest

from tests.harness.servers import HOST
from tests.harness.servers.asgi import AppServer
from tests.harness.servers.nats import NatsServer
from tests.harness.waiting import eventually
from tests.integration.servers.rows import ROWS, Row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

ROOT = Path(__file__).parents[3]
"""The directory of the tests, in which the applications find the hosts."""

STANDALONE = "standalone"
PATIENCE = 90.0
"""Seconds to wait for something that takes one or two on an idle machine."""


def parameters(one: Iterable[str] = (), four: Iterable[str] = ()) -> pytest.MarkDecorator:
    """Parametrize a test by server and application.

    Args:
        one: The applications to run with one process.
        four: The applications to run with four workers.
    """
    cases = [
        pytest.param(row, app, marks=pytest.mark.full, id=f"{row.server.strip('`')}-{row.workers}-{app}")
        for row in ROWS
        for app in (one if row.workers == 1 else four)
        if app == STANDALONE or "faststream" not in row.command
    ]
    return pytest.mark.parametrize(("row", "app"), cases)


class MonitoredNats(NatsServer):
    """A NATS server with a monitoring port, which counts its clients and subscriptions."""

    def start(self, timeout: float = 10.0) -> None:
        self.config = f'http: "127.0.0.1:-1"\nports_file_dir: {json.dumps(str(self.directory))}'
        super().start(timeout)

    def connections(self) -> int:
        """Return the number of connected clients."""
        return int(self._monitor("connz")["num_connections"])

    def subscriptions(self, subject: str) -> int:
        """Return the number of subscriptions to a subject."""
        return int(self._monitor("subsz", subs=1, test=subject)["total"])

    def _monitor(self, endpoint: str, **query: str | int) -> Any:
        ports = json.loads((self.directory / f"nats-server_{self.pid}.ports").read_text(encoding="utf-8"))
        return httpx.get(f"{ports['monitoring'][0]}/{endpoint}", params=query).json()


def server_of(row: Row, source: str, url: str, **environment: str) -> AppServer:
    env = {"NATS_URL": url, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    return AppServer(row.words(), app=source, env=env, ready_path="/ready", timeout=PATIENCE)


def told(server: AppServer, state: str) -> list[float]:
    """Return the times at which the processes reported this state."""
    lines = [line.split() for line in server.output().splitlines()]
    return [float(words[2]) for words in lines if words[:2] == ["state", state] and len(words) == 3]


async def wait_for_all_workers(row: Row, server: AppServer) -> None:
    await eventually(lambda: len(told(server, "running")) == row.workers, PATIENCE)


async def wait_for_a_request_to_each_worker(row: Row, server: AppServer) -> None:
    # New connections side by side, so that no worker can answer all of them.
    limits = httpx.Limits(max_keepalive_connections=0)
    client = httpx.AsyncClient(base_url=server.url, limits=limits, timeout=PATIENCE)
    async with client, asyncio.timeout(PATIENCE):
        while len(told(server, "requested")) < row.workers:
            await asyncio.gather(*(client.get("/hello") for _ in range(2 * row.workers)))


def group_has_ended(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def assert_nothing_is_left(server: AppServer, nats: MonitoredNats) -> None:
    # The helper processes of multiprocessing end shortly after their parent.
    await eventually(lambda: group_has_ended(server.pid), PATIENCE)
    await eventually(lambda: nats.connections() == 0)
    assert {path.name for path in server.directory.iterdir()} == {"main.py", "output.log"}


@asynccontextmanager
async def orders_done(url: str) -> AsyncIterator[list[str]]:
    """Collect the orders that the application has handled; the list is complete at the end of the block."""
    done: list[str] = []

    async def collect(message: Any) -> None:
        done.append(message.data.decode())

    client = await nats_py.connect(url)
    await client.subscribe("orders.done", cb=collect)
    await client.flush()
    try:
        yield done
        # The server replies only after it has delivered everything before the flush.
        await client.flush()
    finally:
        await client.drain()


def status_of(server: AppServer, path: str = "/ready") -> int | None:
    """Return the status of a response on a new connection, or None without a response."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=2.0)
    with closing(connection):
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
