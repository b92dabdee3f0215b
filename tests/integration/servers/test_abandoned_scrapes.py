"""Scrapes whose clients disconnect, with real servers."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest

from tests.harness.scrapes import Scrape
from tests.harness.servers import HOST, poll
from tests.harness.servers.asgi import AppServer
from tests.integration.servers.rows import ROWS, Row

APP = """
from tests.harness.scrapes import BlockedCollector
from faststream.nats import NatsBroker
from faststream_adapters import AsgiFastStream, AsgiResponse, get

blocked = BlockedCollector()
requests = {"begun": 0, "ended": 0}


@get
async def counts() -> AsgiResponse:
    return AsgiResponse(f"{requests['begun']} {requests['ended']} {blocked.collections}".encode())


@get
async def proceed() -> AsgiResponse:
    blocked.proceed.set()
    return AsgiResponse()


inner = AsgiFastStream(
    NatsBroker(),
    asgi_routes=[("/counts", counts), ("/proceed", proceed)],
    metrics_path="/metrics",
    metrics_registry=blocked.registry,
    startup="background",
)


async def app(scope, receive, send):
    counted = scope.get("path") == "/metrics"
    requests["begun"] += counted
    try:
        await inner(scope, receive, send)
    finally:
        requests["ended"] += counted
"""
ROOT = Path(__file__).parents[3]
SCRAPES = 30


def abandoned_scrape(server: AppServer, number: int) -> socket.socket:
    client = socket.create_connection((HOST, server.port))
    query = f"name[]=waited&name[]=other{number}"
    client.sendall(f"GET /metrics?{query} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    return client


def counts(server: AppServer) -> str:
    return httpx.get(f"{server.url}/counts", timeout=30).text


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.server.strip("`"), marks=() if row.server == "uvicorn" else pytest.mark.full)
        for row in ROWS
        # `faststream run` runs uvicorn, and refuses the function around the application.
        if row.workers == 1 and "faststream" not in row.command
    ],
)
def test_abandoned_scrapes_are_dropped(row: Row) -> None:
    env = {"PYTHONPATH": str(ROOT)}
    with AppServer(row.words(), app=APP, env=env, ready_path="/counts", timeout=60) as server:
        clients = [abandoned_scrape(server, number) for number in range(SCRAPES)]
        assert poll(lambda: counts(server) == f"{SCRAPES} 0 1", 60)
        for client in clients:
            client.close()
        # None of them waits for the collection that is in progress.
        assert poll(lambda: counts(server) == f"{SCRAPES} {SCRAPES} 1", 60)
        httpx.get(f"{server.url}/proceed", timeout=30)
        metrics = Scrape(httpx.get(f"{server.url}/metrics?name[]=waited", timeout=30).text)
        assert metrics("waited") == 1
        assert counts(server) == f"{SCRAPES + 1} {SCRAPES + 1} 2"
        output = server.output()
    assert "Traceback" not in output
