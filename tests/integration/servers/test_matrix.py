"""Every server serves every kind of application, exits as its row states, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.harness.servers import poll
from tests.harness.servers.asgi import AppServer
from tests.harness.waiting import eventually
from tests.integration.servers.apps import APPS, RAISING
from tests.integration.servers.processes import (
    PATIENCE,
    ROOT,
    STANDALONE,
    MonitoredNats,
    assert_nothing_is_left,
    group_has_ended,
    orders_done,
    parameters,
    server_of,
    status_of,
    told,
    wait_for_a_request_to_each_worker,
    wait_for_all_workers,
)

if TYPE_CHECKING:
    from tests.harness.servers.nats import NatsServer
    from tests.integration.servers.rows import Row

ORDERS = 20
FAILURE_TIMEOUT = 20.0
"""Seconds within which a failed start ends the server; it takes two on an idle machine."""

pytestmark = pytest.mark.timeout(240)


@parameters(APPS, APPS)
async def test_a_server_serves_and_finishes_its_messages_at_sigterm(
    row: Row, app: str, monitored_nats: MonitoredNats
) -> None:
    with await asyncio.to_thread(server_of(row, APPS[app], monitored_nats.url).__enter__) as server:
        await wait_for_all_workers(row, server)
        async with orders_done(monitored_nats.url) as done:
            # A new connection for each request, so that all workers receive some.
            limits = httpx.Limits(max_keepalive_connections=0)
            async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=PATIENCE) as http_client:
                orders = [(await http_client.get("/hello")).text for _ in range(ORDERS)]
                assert (await http_client.get("/ready")).status_code == 200
                assert "text/html" in (await http_client.get("/asyncapi")).headers["content-type"]
                assert "orders.new" in (await http_client.get("/asyncapi.json")).text
            await eventually(lambda: len(done) >= ORDERS, PATIENCE)
            server.terminate()
            assert await asyncio.to_thread(server.wait, PATIENCE) == row.sigterm
            # All handlers have finished, so that nothing is redelivered.
            assert len(told(server, "stopped")) == row.workers
        assert sorted(done) == sorted(orders)
        await assert_nothing_is_left(server, monitored_nats)


@parameters(APPS, [STANDALONE])
async def test_a_server_stops_at_ctrl_c(row: Row, app: str, monitored_nats: MonitoredNats) -> None:
    with await asyncio.to_thread(server_of(row, APPS[app], monitored_nats.url).__enter__) as server:
        await wait_for_all_workers(row, server)
        # A worker of granian that is interrupted while it starts to serve never ends.
        await wait_for_a_request_to_each_worker(row, server)
        # A terminal sends SIGINT to the whole process group.
        server.interrupt(group=True)
        assert await asyncio.to_thread(server.wait, PATIENCE) == row.interrupted
        assert len(told(server, "stopped")) == row.workers
        await assert_nothing_is_left(server, monitored_nats)


@parameters(APPS, [STANDALONE])
async def test_a_failed_start_ends_the_server_as_documented(
    row: Row, app: str, monitored_nats: MonitoredNats
) -> None:
    monitored_nats.kill()
    server = server_of(row, APPS[app], monitored_nats.url, STARTUP_TIMEOUT="0.5")
    server.ready_path = None
    statuses: set[int | None] = set()
    with server:

        def ended() -> bool:
            statuses.add(status_of(server))
            # FastStream's supervisor has restarted two failed workers.
            return not server.running or server.output().count("Started child process [") >= 2

        assert await asyncio.to_thread(poll, ended, PATIENCE)
        ended_at = time.monotonic()
        if not row.failed:
            assert server.running
            server.terminate()
            assert await asyncio.to_thread(server.wait, PATIENCE) == row.sigterm
        else:
            assert server.wait() in row.failed
            assert told(server, "failed")
            assert ended_at - max(told(server, "failed") + told(server, "starting")) < FAILURE_TIMEOUT
        assert told(server, "running") == []
        assert "could not be started within 0.5 s: the connection was refused" in server.output()
        assert statuses == {None}
        await eventually(lambda: group_has_ended(server.pid), PATIENCE)


@parameters(RAISING, [STANDALONE])
async def test_the_output_of_a_startup_hook_that_raises(
    row: Row, app: str, monitored_nats: MonitoredNats
) -> None:
    server = server_of(row, RAISING[app], monitored_nats.url, HOOK="on_startup")
    server.ready_path = None
    with server:
        if row.failed:
            assert await asyncio.to_thread(server.wait, PATIENCE) in row.failed
        else:
            await eventually(lambda: server.output().count("Started child process [") >= 2, PATIENCE)
            server.terminate()
            assert await asyncio.to_thread(server.wait, PATIENCE) == row.sigterm
        check_output(server)
        await eventually(lambda: group_has_ended(server.pid), PATIENCE)


@parameters(RAISING)
async def test_the_output_of_a_shutdown_hook_that_raises(
    row: Row, app: str, monitored_nats: MonitoredNats
) -> None:
    with await asyncio.to_thread(
        server_of(row, RAISING[app], monitored_nats.url, HOOK="on_shutdown").__enter__
    ) as server:
        server.terminate()
        await asyncio.to_thread(server.wait, PATIENCE)
        check_output(server)
        await assert_nothing_is_left(server, monitored_nats)


@pytest.mark.full
async def test_the_output_of_a_failed_start_with_reload(shared_nats: NatsServer) -> None:
    env = {"NATS_URL": shared_nats.url, "HOOK": "on_startup", "PYTHONPATH": str(ROOT)}
    server = AppServer.uvicorn(RAISING[STANDALONE], "--reload", env=env, ready_path=None)
    with server:
        await asyncio.to_thread(server.wait_output, "Application startup failed. Exiting.", PATIENCE)
        check_output(server)
        # It waits for a change of the files.
        assert server.running


def check_output(server: AppServer) -> None:
    """Check that the error is shown with its cause, but without the password in it."""
    output = server.output()
    assert "ValueError: no database" in output
    assert "OSError: no route to postgres://***@db/shop" in output
    assert "in connect" in output
    assert "hunter2" not in output
    assert "never retrieved" not in output


@parameters([STANDALONE], [STANDALONE])
async def test_which_servers_serve_during_the_drain_delay(
    row: Row, app: str, monitored_nats: MonitoredNats
) -> None:
    delay = 10.0
    with await asyncio.to_thread(
        server_of(row, APPS[app], monitored_nats.url, DRAIN_DELAY=str(delay)).__enter__
    ) as server:
        await wait_for_all_workers(row, server)
        server.terminate()
        await eventually(lambda: bool(told(server, "draining")), PATIENCE)
        draining = min(told(server, "draining"))

        def serves() -> bool:
            # gunicorn's own worker notices the signal within a second, and answers requests until then.
            return time.monotonic() - draining > 2.5 and status_of(server) == 503

        def is_gone() -> bool:
            return status_of(server) is None

        assert await asyncio.to_thread(poll, serves if row.drains else is_gone, PATIENCE)
        if not row.drains:
            assert time.monotonic() - draining < delay
