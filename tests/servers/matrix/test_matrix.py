"""Every server serves every kind of application, ends as its row says, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import time
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import httpx
import nats as nats_py
import pytest

from tests.servers import HOST, poll
from tests.servers.asgi import AppServer
from tests.servers.matrix.apps import APPS
from tests.servers.matrix.rows import ROWS, Row
from tests.servers.nats import NatsServer
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

STANDALONE = "standalone"
ORDERS = 20
PATIENCE = 90.0
"""Seconds for what takes one or two on a machine that has nothing else to do."""

SOON = 20.0
"""Seconds after a failed start; two on a machine that has nothing else to do."""

pytestmark = pytest.mark.timeout(240)


def parameters(
    one: Iterable[str] = (), four: Iterable[str] = (), *, always: bool = False
) -> pytest.MarkDecorator:
    """Return the decorator that runs a test for these applications with one process and with four workers."""

    def mark(row: Row, app: str) -> list[pytest.MarkDecorator]:
        return [] if always and row.workers == 1 and app == STANDALONE else [pytest.mark.full]

    cases = [
        pytest.param(row, app, marks=mark(row, app), id=f"{row.server.strip('`')}-{row.workers}-{app}")
        for row in ROWS
        for app in (one if row.workers == 1 else four)
        if app == STANDALONE or "faststream" not in row.command
    ]
    return pytest.mark.parametrize(("row", "app"), cases)


class MonitoredNats(NatsServer):
    """A server that tells who is connected."""

    def start(self, timeout: float = 10.0) -> None:
        self.config = f'http: "127.0.0.1:-1"\nports_file_dir: {json.dumps(str(self.directory))}'
        super().start(timeout)

    def connections(self) -> int:
        """Return how many clients are connected."""
        ports = json.loads((self.directory / f"nats-server_{self.pid}.ports").read_text(encoding="utf-8"))
        return int(httpx.get(f"{ports['monitoring'][0]}/connz").json()["num_connections"])


@pytest.fixture
def monitored() -> Iterator[MonitoredNats]:
    with MonitoredNats() as server:
        yield server


def server_of(row: Row, app: str, url: str, *more: str, **environment: str) -> AppServer:
    env = {"NATS_URL": url, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    return AppServer(row.words(*more), app=APPS[app], env=env, ready_path="/ready", timeout=PATIENCE)


def told(server: AppServer, state: str) -> list[float]:
    """Return when the processes have said that they are in this state."""
    lines = [line.split() for line in server.output().splitlines()]
    return [float(words[2]) for words in lines if words[:2] == ["state", state] and len(words) == 3]


async def all_up(row: Row, server: AppServer) -> None:
    await eventually(lambda: len(told(server, "running")) == row.workers, PATIENCE)


def group_has_ended(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def nothing_is_left(server: AppServer, nats: MonitoredNats) -> None:
    # The helpers of multiprocessing end by themselves, a moment after who started them.
    await eventually(lambda: group_has_ended(server.pid), PATIENCE)
    await eventually(lambda: nats.connections() == 0)
    assert {path.name for path in server.directory.iterdir()} == {"main.py", "output.log"}


@asynccontextmanager
async def orders_done(url: str) -> AsyncIterator[list[str]]:
    """Collect what the application says it has handled; complete at the end of the block."""
    done: list[str] = []

    async def collect(message: Any) -> None:
        done.append(message.data.decode())

    client = await nats_py.connect(url)
    await client.subscribe("orders.done", cb=collect)
    await client.flush()
    try:
        yield done
        # Answered after everything that was delivered before.
        await client.flush()
    finally:
        await client.drain()


def status_of(server: AppServer, path: str = "/ready") -> int | None:
    """Return the status of an answer on a new connection, or None if there is no answer."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=2.0)
    with closing(connection):
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Let Ctrl-C reach the servers: a shell that runs the tests in the background has them ignore it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@parameters(APPS, APPS, always=True)
async def test_it_serves_and_ends_at_sigterm(row: Row, app: str, monitored: MonitoredNats) -> None:
    with await asyncio.to_thread(server_of(row, app, monitored.url).__enter__) as server:
        await all_up(row, server)
        async with orders_done(monitored.url) as done:
            for number in range(ORDERS):
                # A new connection each time, or one worker would answer all.
                async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as caller:
                    assert (await caller.post("/orders", content=str(number))).status_code == 202
            async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as caller:
                assert (await caller.get("/ready")).status_code == 204
                assert "text/html" in (await caller.get("/docs")).headers["content-type"]
                assert "orders.new" in (await caller.get("/docs.json")).text
            await eventually(lambda: len(done) >= ORDERS, PATIENCE)
            server.terminate()
            assert await asyncio.to_thread(server.wait, PATIENCE) == row.sigterm
            # All have finished what they had, so that nothing can come twice any more.
            assert len(told(server, "stopped")) == row.workers
        assert sorted(done, key=int) == [str(number) for number in range(ORDERS)]
        await nothing_is_left(server, monitored)


@parameters(APPS, [STANDALONE])
async def test_it_ends_at_ctrl_c(row: Row, app: str, monitored: MonitoredNats) -> None:
    with await asyncio.to_thread(server_of(row, app, monitored.url).__enter__) as server:
        await all_up(row, server)
        # A terminal sends it to all processes.
        server.interrupt(group=True)
        assert await asyncio.to_thread(server.wait, PATIENCE) == row.interrupted
        assert len(told(server, "stopped")) == row.workers
        await nothing_is_left(server, monitored)


@parameters(APPS, [STANDALONE])
async def test_a_start_that_fails(row: Row, app: str, monitored: MonitoredNats) -> None:
    monitored.kill()
    server = server_of(row, app, monitored.url, STARTUP_TIMEOUT="0.5")
    server.ready_path = None
    answers: set[int | None] = set()
    with server:

        def ended() -> bool:
            answers.add(status_of(server))
            # Two have failed, and have been started again.
            return not server.running or server.output().count("Started child process [") == 2

        assert await asyncio.to_thread(poll, ended, PATIENCE)
        noticed = time.monotonic()
        if not row.failed:
            assert server.running
            server.terminate()
            assert await asyncio.to_thread(server.wait, PATIENCE) == row.sigterm
        else:
            assert server.wait() in row.failed
            assert told(server, "failed")
            assert noticed - max(told(server, "failed") + told(server, "starting")) < SOON
        assert told(server, "running") == []
        assert "could not be started within 0.5 s: the connection was refused" in server.output()
        assert answers == {None}
        await eventually(lambda: group_has_ended(server.pid), PATIENCE)


@parameters([STANDALONE], [STANDALONE])
async def test_who_serves_during_the_drain_delay(row: Row, app: str, monitored: MonitoredNats) -> None:
    delay = 10.0
    with await asyncio.to_thread(
        server_of(row, app, monitored.url, DRAIN_DELAY=str(delay)).__enter__
    ) as server:
        await all_up(row, server)
        server.terminate()
        await eventually(lambda: bool(told(server, "draining")), PATIENCE)
        draining = min(told(server, "draining"))

        def serves() -> bool:
            # gunicorn's own worker needs up to a second to see that it shall stop, and answers until then.
            return time.monotonic() - draining > 2.5 and status_of(server) == 503

        def is_gone() -> bool:
            return status_of(server) is None

        assert await asyncio.to_thread(poll, serves if row.drains else is_gone, PATIENCE)
        if not row.drains:
            assert time.monotonic() - draining < delay
