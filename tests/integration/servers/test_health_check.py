"""A health check of the application that never ends, in a process of its own."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.harness.servers.asgi import AppServer

if TYPE_CHECKING:
    from tests.harness.servers.nats import NatsServer

SERVICE = """
import asyncio, os, time
from faststream.nats import NatsBroker
from faststream_adapters import AsgiFastStream, HealthCheck


def block() -> None:
    time.sleep(3600)


async def hang() -> None:
    await asyncio.sleep(3600)


app = AsgiFastStream(
    NatsBroker(os.environ["NATS_URL"]),
    checks=[HealthCheck("call", {function}, timeout=3600.0)],
    liveness_path="/live",
    readiness_path="/ready",
)
"""


@pytest.mark.full
@pytest.mark.parametrize("function", ["block", "hang"])
def test_a_check_that_never_ends_delays_neither_a_probe_nor_the_end_of_the_process(
    function: str, shared_nats: NatsServer
) -> None:
    service = AppServer.uvicorn(
        SERVICE.replace("{function}", function), env={"NATS_URL": shared_nats.url}, ready_path="/live"
    )
    with service as server, httpx.Client(base_url=server.url, timeout=10) as http:
        started = time.monotonic()
        for path, status, word in [("/ready", 503, "check_failed"), ("/live", 200, "ok")]:
            response = http.get(path)
            assert (response.status_code, response.text) == (status, word)
        assert time.monotonic() - started < 5
        http.close()
        server.terminate()
        assert server.wait(10) == -signal.SIGTERM
        assert "Traceback" not in server.output()
