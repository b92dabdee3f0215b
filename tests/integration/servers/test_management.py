"""The management server under every server command, with one process and with several workers."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.harness.management import answer
from tests.harness.servers import poll
from tests.harness.servers.asgi import AppServer
from tests.harness.waiting import eventually
from tests.integration.servers.apps import APPS
from tests.integration.servers.processes import (
    PATIENCE,
    ROOT,
    STANDALONE,
    MonitoredNats,
    assert_nothing_is_left,
    parameters,
    server_of,
    status_of,
    told,
    wait_for_all_workers,
)
from tests.integration.servers.rows import ROWS, WORKERS

if TYPE_CHECKING:
    from tests.harness.servers.nats import NatsServer
    from tests.integration.servers.rows import Row

pytestmark = pytest.mark.timeout(240)


async def wait_for_answer(address: str, expected: str | None) -> None:
    async with asyncio.timeout(PATIENCE):
        while await answer(address, "/ready") != expected:  # noqa: ASYNC110 (a probe can only be polled)
            await asyncio.sleep(0.02)


@parameters([STANDALONE], [STANDALONE])
async def test_every_worker_serves_the_endpoints_until_its_handlers_have_finished(
    row: Row, app: str, monitored_nats: MonitoredNats, free_address: str
) -> None:
    # hypercorn ends all workers when the first one has ended, whatever the others do.
    work = "5" if row.observes else "0"
    server = server_of(row, APPS[app], monitored_nats.url, MANAGEMENT_BIND=free_address, WORK=work)
    with await asyncio.to_thread(server.__enter__):
        await wait_for_all_workers(row, server)
        # New connections, which the kernel distributes among the workers.
        answers = await asyncio.gather(*(answer(free_address, "/ready") for _ in range(4 * row.workers)))
        assert set(answers) == {"200 ok"}
        assert status_of(server, "/ready") == 404
        assert status_of(server, "/hello") == 200
        server.terminate()
        if row.observes:
            # Also where the server has stopped listening.
            await wait_for_answer(free_address, "503 draining")
        assert await asyncio.to_thread(server.wait, PATIENCE) == row.sigterm
        assert len(told(server, "stopped")) == row.workers
        assert "Traceback" not in server.output()
        assert await answer(free_address, "/ready") is None
        await assert_nothing_is_left(server, monitored_nats)


@parameters([], [STANDALONE])
async def test_the_workers_of_another_application_find_the_address_in_use(
    row: Row, app: str, monitored_nats: MonitoredNats, free_address: str
) -> None:
    environment = {"MANAGEMENT_BIND": free_address, "QUEUE": "other"}
    first = server_of(row, APPS[app], monitored_nats.url, **environment)
    second = server_of(row, APPS[app], monitored_nats.url, **environment)
    second.ready_path = None
    problem = f"management_bind: Cannot listen on {free_address}: Address already in use."
    with await asyncio.to_thread(first.__enter__):
        await wait_for_all_workers(row, first)
        with second:
            await asyncio.to_thread(second.wait_output, problem, PATIENCE)
            assert told(second, "running") == []
        assert problem not in first.output()
        assert await answer(free_address, "/ready") == "200 ok"


@parameters([], [STANDALONE])
async def test_several_workers_cannot_share_an_unix_socket(
    row: Row, app: str, monitored_nats: MonitoredNats
) -> None:
    server = server_of(row, APPS[app], monitored_nats.url, MANAGEMENT_BIND="unix:{directory}/app.sock")
    server.ready_path = None
    with server:
        await asyncio.to_thread(server.wait_output, "management_bind: ", PATIENCE)
        assert len(told(server, "running")) < row.workers


@pytest.mark.full
@pytest.mark.parametrize("row", [row for row in ROWS if "gunicorn" in row.command and row.workers == 1])
async def test_gunicorn_replaces_its_only_worker(
    row: Row, monitored_nats: MonitoredNats, free_address: str
) -> None:
    server = server_of(row, APPS[STANDALONE], monitored_nats.url, MANAGEMENT_BIND=free_address)
    with await asyncio.to_thread(server.__enter__):
        await wait_for_all_workers(row, server)
        # The new worker starts while the old one runs.
        server.process.send_signal(signal.SIGHUP)
        await eventually(lambda: len(told(server, "running")) == 2, PATIENCE)
        await eventually(lambda: len(told(server, "stopped")) == 1, PATIENCE)
        assert await answer(free_address, "/ready") == "200 ok"
        assert "management_bind: " not in server.output()


def test_the_workers_of_uvicorn_share_an_address(shared_nats: NatsServer, free_address: str) -> None:
    workers = WORKERS // 2
    env = {
        "NATS_URL": shared_nats.url,
        "QUEUE": "management",
        "PYTHONPATH": str(ROOT),
        "MANAGEMENT_BIND": free_address,
    }
    service = AppServer.uvicorn(APPS[STANDALONE], "--workers", str(workers), env=env, ready_path="/hello")
    with service as server:
        assert poll(lambda: len(told(server, "running")) == workers, PATIENCE)
        assert httpx.get(f"http://{free_address}/ready").text == "ok"
        server.terminate()
        assert server.wait(PATIENCE) == 0
        assert len(told(server, "stopped")) == workers
